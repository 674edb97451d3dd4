# Volumes
docker volume create
docker volume create --label a=b --opt type=tmpfs --opt device=tmpfs --opt o=size=1m vt
docker volume create vv
docker volume create vv
docker volume create --label x=y vv
#: our drivers are named
docker volume create --driver nope vn
docker volume create -o nope=1 vo
docker volume create '!bad'
docker volume create v
docker volume inspect vv | shape
docker volume inspect vt | shape
docker volume inspect vv nothere
docker volume ls --format '{{.Name}}|{{.Driver}}|{{.Scope}}|{{.Labels}}|{{.Mountpoint}}|{{.Size}}|{{.Links}}' | grep -v '^[0-9a-f]*|'
docker volume ls -q -f name=v
docker volume ls -q -f label=a
docker volume ls -q -f label=a=c
docker volume ls -q -f dangling=true | wc -l
docker volume ls -q -f dangling=nope
docker volume ls -q -f driver=local | wc -l
docker volume ls -q -f nope=1
docker run --rm -v vt:/t busybox sh -c 'mount | grep " /t "'
docker run --name u -v vv:/v busybox touch /v/f
docker run --name uu -v vv:/v busybox touch /v/f
docker volume rm vv
docker volume rm -f vv
docker volume rm nothere
docker volume rm -f nothere
docker volume ls -q -f dangling=false
docker rm uu
docker volume rm vv vt
docker volume prune -f | grep -c .
docker volume prune -af > /dev/null
docker volume prune -f --filter label=x
docker volume prune -f --filter nope=x
# Mounts
docker run --rm -v /nothere-dir:/x busybox ls -d /x; ls -d /nothere-dir; rmdir /nothere-dir
docker run --rm --mount type=bind,source=/nothere-dir,target=/x busybox true
docker run --rm --mount type=bind,source=rel,target=/x busybox true
docker run --rm --mount type=volume,source=mv,target=/x,readonly busybox touch /x/y
docker run --rm --mount type=tmpfs,target=/x,tmpfs-size=1m,tmpfs-mode=700 busybox sh -c 'mount | grep " /x "'
docker run --rm --mount type=tmpfs,target=/x busybox stat -c %a /x
docker run --rm --tmpfs /x busybox stat -c %a /x
docker run --rm --tmpfs /tmp busybox stat -c %a /tmp
docker run --rm --mount type=nope,target=/x busybox true
docker run --rm --mount target=/x busybox true
docker run --rm --mount type=bind,target=/x busybox true
docker run --rm --mount type=volume,target=x busybox true
docker run --rm -v /tmp:/x:nope busybox true
docker run --rm -v /tmp:/x:ro,rw busybox true
docker run --rm -v /tmp:/x:z busybox true
docker run --rm -v /tmp:x busybox true
docker run --rm -v /tmp:/ busybox true
docker run --rm -v '!bad:/x' busybox true
docker run --rm -v /a:/x -v /b:/x busybox true
docker run --rm -v /x busybox sh -c 'mount | grep -c " /x "'
docker run --name src -v /anon -v named:/named busybox true
docker run --rm --volumes-from src busybox sh -c 'mount | grep -cE " /(anon|named) "'
docker run --rm --volumes-from src:ro busybox touch /named/x
docker run --rm --volumes-from nothere busybox true
docker run --rm --volumes-from src:nope busybox true
docker run --rm -v /tmp:/x:rshared busybox true
docker run --rm -v named:/x:nocopy busybox true
docker rm -v src
docker volume ls -q
docker volume rm named mv
# cp
docker run -d --name cc busybox sh -c 'mkdir -p /d/e; echo one > /d/f; ln -s f /d/l; ln -s /etc /d/abs; sleep 1000'
sleep 0.3; mkdir -p loc/sub; echo local > loc/file; ln -sf file loc/link
docker cp loc/file cc:/tmp/; docker exec cc cat /tmp/file
docker cp loc/file cc:/tmp/new; docker exec cc cat /tmp/new
docker cp loc cc:/tmp; docker exec cc ls -R /tmp/loc
docker cp loc/. cc:/tmp/loc2; docker exec cc ls /tmp/loc2
docker cp loc cc:/nope/x
docker cp loc/file cc:/nope/
docker cp loc/file cc:/nope/x
docker cp loc cc:/d/f
docker cp loc/nothere cc:/
docker cp cc:/nothere .
docker cp cc:/d/f got; cat got
docker cp cc:/d gotd; ls gotd
docker cp cc:/d/. gotdot; ls gotdot
docker cp cc:/d/l gotl; readlink gotl
docker cp -L cc:/d/l gotL; cat gotL
docker cp -a cc:/d/f gota; stat -c %u gota
docker cp cc:/d/abs/passwd gotp; wc -l < gotp
docker cp cc:/d/f - | tar t
tar c loc | docker cp - cc:/tmp; docker exec cc ls /tmp/loc
tar c loc | docker cp - cc:/nope
#: wording
echo notatar | docker cp - cc:/tmp
docker cp cc:/d/f cc:/d/g
docker cp loc loc2
docker cp nothere:/x .
docker cp loc/file nothere:/x
docker cp cc:/d/f /nope/x
docker cp -q loc/file cc:/tmp/q
#: Docker looks at the files alone, ours at what the container sees
docker cp cc:/proc/version gotv; wc -l < gotv
#: likewise
docker cp loc/file cc:/proc/x
docker stop -t 0 cc; docker cp cc:/d/f got2; cat got2; docker cp loc/file cc:/d/stopped; docker diff cc | grep -v /proc | sort
docker rm -f cc
docker run --name ro --read-only busybox true; docker cp loc/file ro:/x; docker rm ro
# Images
docker images
docker images --format '{{.Repository}}|{{.Tag}}|{{.Digest}}|{{.CreatedSince}}|{{.Size}}'
docker images --digests
docker images --no-trunc
docker images -q
docker images -a
docker images busy*
docker images busybox:latest
docker images nothere
docker images -f dangling=true
docker images -f dangling=nope
docker images -f label=x
docker images -f reference='busy*'
docker images -f before=busybox
docker images -f since=nothere
docker images -f nope=1
docker tag busybox other:1
docker tag busybox localhost:5000/a/b:c
docker tag nothere x
docker tag busybox Bad
docker tag busybox 'x:bad tag'
docker images --format '{{.Repository}}:{{.Tag}}' | sort
docker rmi other:1
docker rmi nothere
docker rmi -f nothere
docker rmi localhost:5000/a/b
docker rmi localhost:5000/a/b:c
docker run --name uses busybox true
docker tag busybox keep; docker rmi busybox; docker tag keep busybox; docker rmi keep
docker rmi $(docker images -q busybox)
docker commit uses new
docker rmi busybox
docker run -d --name run2 new sleep 100
docker rmi new
docker rmi -f new
docker rm -f run2
docker rm uses
#: ours counts what is freed for documents too
docker image prune -f
docker image prune -af --filter until=1h
docker image prune -f --filter nope=1
#: the layout of 28
docker save busybox | tar t | sed 's/[0-9a-f]\{64\}/ID/g' | sort
docker save -o img.tar busybox; docker rmi busybox; docker load -i img.tar
docker load -q -i img.tar
docker load < img.tar
#: wording
echo junk | docker load
docker load -i nothere.tar
docker save nothere
docker save -o /nope/x busybox
docker save busybox:latest nothere
docker history busybox
docker history --no-trunc --format '{{.ID}} {{.CreatedBy}} {{.Size}} {{.Comment}}' busybox
docker run --name ex busybox true; docker export ex | docker import -m msg -c 'CMD ["echo","imported"]' -c 'ENV A=b' - imp:1; docker run --rm imp:1; docker rm ex
docker image inspect imp:1 | shape GraphDriver DockerVersion Size
docker image inspect busybox | shape GraphDriver DockerVersion Size
docker image inspect -f '{{.Id}}' busybox imp:1 nothere
docker import nothere.tar
docker import -c 'FROM x' img.tar
#: wording
echo junk | docker import - junk
docker import img.tar Bad
docker rmi imp:1
docker pull ''
docker pull Bad
docker pull x:y:z
docker image ls --filter reference=nope
# Networks
docker network ls
docker network ls -q | wc -l
docker network ls -f driver=bridge --format '{{.Name}} {{.Driver}} {{.Scope}} {{.IPv6}} {{.Internal}} {{.Labels}}'
docker network ls -f name=host --format '{{.Name}}'
docker network ls -f type=builtin --format '{{.Name}}'
docker network ls -f type=custom --format '{{.Name}}'
docker network ls -f type=nope
docker network ls -f scope=local --format '{{.Name}}'
docker network ls -f dangling=true --format '{{.Name}}'
docker network ls -f nope=1
docker network inspect bridge | shape Gateway 'bridge.name'
docker network inspect host | shape
docker network inspect none | shape
docker network rm bridge
docker network rm nothere
docker network prune -f
docker run -d --name net busybox sleep 100; docker network inspect bridge -f '{{range .Containers}}{{.Name}} {{.IPv4Address}} {{.MacAddress}}{{end}}'; docker rm -f net
# System
docker version --format '{{.Server.Os}} {{.Server.Arch}} {{.Server.Experimental}}'
docker system df
docker system df --format '{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}} {{.Reclaimable}}'
docker info -f '{{json .}}' | shape Client Commit DriverStatus DefaultRuntime DockerRootDir '\.ID' Init KernelMemory LiveRestore NFd NGoroutines Plugins CIDRs Runtimes SecurityOptions ServerVersion SystemTime Warnings Registr
docker info --format "{{.Driver}} {{.LoggingDriver}} {{.CgroupDriver}} {{.CgroupVersion}} {{.NCPU}} {{.MemTotal}} {{.OSType}}"
docker system prune -f
docker system prune -af --volumes --filter label=nope
docker container prune -f
docker container prune -f --filter until=1h
docker container prune -f --filter nope=1
docker builder prune -f
docker buildx ls 2>&1 | head -1
docker swarm init 2>&1 | head -1 | cut -c 1-5
docker node ls
docker service ls
docker plugin ls
docker context ls
docker context show
docker checkpoint ls x
docker manifest inspect nothere.invalid/x
docker ps --format '{{.Nope}}'
docker trust inspect x
