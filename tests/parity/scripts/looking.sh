docker run -d --name web -l app=web -l tier=front -p 8080:80 -p 127.0.0.1:9090:90/udp -e A=b -v vol1:/data -v /usr:/host:ro --tmpfs /t -w /work --restart on-failure:2 --health-cmd 'test -f /ok' --health-interval 200ms --health-retries 2 --hostname web --memory 64m --cpus 0.5 --init=false busybox sh -c 'echo hello; sleep 1000'
docker run -d --name plain busybox sleep 1000
docker run --name done --label app=done busybox sh -c 'echo out; echo err >&2; exit 3'
docker create --name made -p 81 --expose 82 busybox true
docker run -d --name paused busybox sleep 1000
docker pause paused
sleep 1.5
docker ps
docker ps -a --format '{{.Names}}|{{.Image}}|{{.Command}}|{{.Status}}|{{.Ports}}|{{.State}}|{{.Labels}}|{{.Mounts}}|{{.LocalVolumes}}|{{.Networks}}|{{.RunningFor}}'
docker ps -a --no-trunc --format '{{.ID}} {{.Command}}'
docker ps -as --format '{{.Names}} {{.Size}}'
docker ps -a --format json | head -3
docker ps -l
docker ps -n 2
docker ps -q
docker ps -aq | wc -l
docker ps -a -f status=exited --format '{{.Names}}'
docker ps -a -f status=running --format '{{.Names}}'
docker ps -a -f status=paused --format '{{.Names}}'
docker ps -a -f status=created --format '{{.Names}}'
docker ps -a -f status=restarting --format '{{.Names}}'
docker ps -a -f status=nope --format '{{.Names}}'
docker ps -a -f name=e --format '{{.Names}}'
docker ps -a -f name=^web$ --format '{{.Names}}'
docker ps -a -f name=/web --format '{{.Names}}'
docker ps -a -f name='[' --format '{{.Names}}'
docker ps -a -f label=app --format '{{.Names}}'
docker ps -a -f label=app=web --format '{{.Names}}'
docker ps -a -f label=app=web -f label=tier=back --format '{{.Names}}'
docker ps -a -f exited=3 --format '{{.Names}}'
docker ps -a -f exited=x --format '{{.Names}}'
docker ps -a -f ancestor=busybox --format '{{.Names}}'
docker ps -a -f ancestor=nothere --format '{{.Names}}'
docker ps -a -f before=done --format '{{.Names}}'
docker ps -a -f since=done --format '{{.Names}}'
#: wording
docker ps -a -f since=nothere --format '{{.Names}}'
docker ps -a -f volume=vol1 --format '{{.Names}}'
docker ps -a -f volume=/data --format '{{.Names}}'
docker ps -a -f volume=/host --format '{{.Names}}'
docker ps -a -f network=bridge --format '{{.Names}}'
docker ps -a -f network=nope --format '{{.Names}}'
docker ps -a -f publish=80 --format '{{.Names}}'
docker ps -a -f publish=8080 --format '{{.Names}}'
docker ps -a -f publish=80-90/tcp --format '{{.Names}}'
#: wording
docker ps -a -f publish=x --format '{{.Names}}'
docker ps -a -f expose=82 --format '{{.Names}}'
docker ps -a -f expose=80/tcp --format '{{.Names}}'
docker ps -a -f health=unhealthy --format '{{.Names}}'
docker ps -a -f health=none --format '{{.Names}}'
#: spelling; ours is that of 28
docker ps -a -f health=nope --format '{{.Names}}'
docker ps -a -f isolation=default --format '{{.Names}}'
docker ps -a -f is-task=true --format '{{.Names}}'
docker ps -a -f is-task=nope --format '{{.Names}}'
docker ps -a -f nope=1 --format '{{.Names}}'
docker ps -a -f id=zzz --format '{{.Names}}'
docker ps -a -f nope
docker container ls -a --format '{{.Nope}}'
# inspect
docker inspect web | shape ExecIDs GraphDriver MaskedPaths '\.NetworkMode' FailingStreak 'State\.Pid' 'HostConfig\.Runtime' '\.Sandbox' NetworkID 'Health.Log'
docker inspect done | shape ExecIDs GraphDriver MaskedPaths '\.NetworkMode' FailingStreak 'State\.Pid' 'HostConfig\.Runtime' '\.Sandbox' NetworkID 'Health.Log'
docker inspect made | shape ExecIDs GraphDriver MaskedPaths '\.NetworkMode' FailingStreak 'State\.Pid' 'HostConfig\.Runtime' '\.Sandbox' NetworkID 'Health.Log'
docker inspect paused -f '{{json .State}}' | shape Pid
docker inspect -s -f '{{.SizeRw}} {{.SizeRootFs}}' done
docker inspect --type container web -f '{{.Name}}'
docker inspect --type image busybox -f '{{.RepoTags}}'
docker inspect --type volume vol1
docker inspect --type network bridge -f '{{.Name}}'
docker inspect --type nope x
docker inspect web nothere bridge -f '{{.Name}}'
docker inspect vol1 -f '{{.Mountpoint}}'
docker inspect -f '{{.Nope}}' web
docker inspect -f '{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}};{{end}}{{range $p, $c := .NetworkSettings.Ports}}{{$p}}={{$c}} {{end}}' web
docker inspect -f '{{with index .NetworkSettings.Networks "bridge"}}{{.IPAddress}} {{.Gateway}} {{.MacAddress}}{{end}}' web
docker container inspect nothere
docker image inspect nothere
docker network inspect nothere
docker volume inspect nothere
docker inspect nothere
# other looks
docker top web -o pid,args | tail -n +2 | sed "s/^ *[0-9]*//"
docker top web -o pid,comm | tail -n +2 | wc -l
docker top web aux | head -1
docker top web -o nope
docker top done
docker top nothere
docker port web
docker port web 80
docker port web 80/tcp
docker port web 90/udp
docker port web 1234
docker port web x
docker port made
docker port nothere
docker logs done
docker logs -t done 2>&1 | cut -c 1-2 | wc -l
docker logs -n 1 done 2>&1 | wc -l
docker logs --tail all done
docker logs --tail x done
docker logs --tail 0 done
docker logs --since 1h done
docker logs --since 2030-01-01 done
docker logs --until 1s done
docker logs --since nope done
docker logs --until nope done
docker logs --details done
docker logs -f done
docker logs nothere
docker logs made
docker stats --no-stream --format '{{.Name}}|{{.MemUsage}}' web | sed 's,[0-9.]*[a-zA-Z]* /,/,'
docker stats --no-stream nothere
docker stats --no-stream -a --format '{{.Name}}'
docker stats --no-stream --format json plain | shape | sed 's/= .*//'
docker wait done
docker exec web sh -c 'echo $A; pwd; hostname'
docker exec -e X=y -w /tmp -u 1000 web sh -c 'echo $X; pwd; id -u'
#: 126 in 20.10, 127 in 28
docker exec web nothere
#: wording of 20.10; ours is that of 28
docker exec web /etc
docker exec web sh -c 'exit 9'
docker exec -d web true
docker exec -u nouser web true
#: 126 in 20.10, 127 in 28
docker exec -w /nothere web pwd
#: runc wants capabilities that this host may withhold; ours takes those that there are
docker exec --privileged web grep CapEff /proc/self/status
echo in | docker exec -i web cat
docker exec nothere true
docker exec done true
#: 28 names the container by its id
docker exec paused true
docker exec web
#: says why
docker exec --detach-keys nope web true
docker attach --detach-keys nope done
docker attach paused
docker attach nothere
timeout -s KILL 1 docker attach --sig-proxy=false --no-stdin web
docker inspect -f '{{.State.Running}}' web
docker rm -f web plain done made paused
docker volume rm vol1
