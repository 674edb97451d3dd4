"""Command lines whose meaning was recorded from Docker's own command line (see ``record.py``).

``@DIR@`` stands for a directory with the files of `FILES`, which is also the working directory.
"""

from __future__ import annotations

import shlex

ENVIRONMENT = {"FROM_HERE": "the environment", "TZ": "UTC", "LANG": "C.UTF-8"}

FILES = {
    "plain.env": "# comment\nA=1\n\n  B=two words  \nFROM_HERE\nNOT_SET_ANYWHERE\nC=\nD=a=b\n",
    "windows.env": "A=1\r\nB=2\r\n",
    "bom.env": "\ufeffA=1\n",
    "space.env": "A B=1\n",
    "noname.env": "=1\n",
    "labels": "one=1\ntwo\nthree=a b\n",
    "seccomp.json": '{\n  "defaultAction": "SCMP_ACT_ALLOW",\n  "syscalls": [ ]\n}\n',
    "broken.json": "{",
    "data": "",
}

# Each is what follows ``create``; an image and a command are added where the row does not end with "--".
CREATE = """
-it
-i -t
-ti --rm
--tty=false -i
-a stdin -a STDOUT
-a stderr -i
--attach=foo
-d
--name web --hostname box --domainname example.org -u 1000:100 -w /srv
-h box
-h=box
-hbox
--user root --workdir=/
-e A=1 -e FROM_HERE -e NOT_SET_ANYWHERE -e EMPTY=
-e =x
-eA=1
-e=A=1
--env A=1 --env-file plain.env
--env-file windows.env --env-file bom.env
--env-file space.env
--env-file noname.env
--env-file absent.env
-l a=1 -l b --label c= --label-file labels
-l =x
-l "a b=c"
-l a=1 -l a=2
-v /data
-v /data:/data
-v data:/data:ro
-v ./data:/data
-v .:/here
-v ../x:/y:ro,z
-v data:/a:/b:/c
-v ::
-v ""
-v /a -v /a -v /a:/a
-v ~/x:/y
--mount type=bind,source=/a,target=/b
--mount type=bind,src=./data,dst=/b,readonly
--mount type=bind,src=/a,dst=/b,ro=false,bind-propagation=rslave
--mount type=bind,src=/a,dst=/b,ro,bind-recursive=writable
--mount type=bind,src=/a,dst=/b,bind-recursive=readonly
--mount type=bind,src=/a,dst=/b,ro,bind-recursive=readonly
--mount type=bind,src=/a,dst=/b,ro,bind-recursive=readonly,bind-propagation=rprivate
--mount type=bind,src=/a,dst=/b,bind-recursive=maybe
--mount type=bind,src=/a,dst=/b,bind-recursive=disabled
--mount type=bind,src=/a,dst=/b,bind-recursive=enabled
--mount source=vol,target=/b
--mount src=vol,dst=/b,volume-nocopy,volume-label=a=1,volume-label=b,volume-driver=local,volume-opt=type=tmpfs
--mount src=vol,dst=/b,volume-nocopy=false,volume-subpath=x/y
--mount type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=1770
--mount type=tmpfs,dst=/t,tmpfs-size=x
--mount type=tmpfs,dst=/t,tmpfs-mode=9
--mount type=tmpfs,dst=/t,volume-nocopy
--mount type=volume,dst=/t,tmpfs-mode=700
--mount type=volume,dst=/t,bind-propagation=shared
--mount type=bind,src=/a
--mount type=bind,src=/a,dst
--mount type=bind,src=/a,dst=/b,foo=bar
--mount type=bind,src=/a,dst=/b,readonly=maybe
--mount type=,src=/a,dst=/b
--mount 'type=bind,"src=/a,b",dst=/b'
--mount 'type=bind,src=/a"b,dst=/b'
--mount 'type=bind,"src=/a"b,dst=/b'
--mount 'type=bind,"src=/a'
--mount TYPE=BIND,SRC=/A,DST=/B,consistency=Cached
--tmpfs /run --tmpfs /tmp:rw,size=64m
-p 80
-p 8080:80
-p 127.0.0.1:8080:80/udp
-p 127.0.0.1::80
-p [::1]:8080:80
-p 8000-8002:80-82
-p 8000-8010:80
-p 8000-8002:80-81
-p 80/foo
-p x:80
-p 8080:x
-p 8080:
-p 1.2.3:80:80
-p 70000:80
-p published=8080,target=80
-p published=8080,target=80,protocol=udp
-p target=80
-p =80
-p 8080:80 -p 8081:80 -p 8080:80/udp
-P --expose 80 --expose 90-92/udp
--expose 80:90
--expose x
--expose 90-80
--publish-all=false
--entrypoint /bin/sh
--entrypoint=
--add-host a:1.2.3.4 --add-host b=::1 --add-host c:[::1] --add-host d:host-gateway
--add-host a
--add-host a:b
--add-host :1.2.3.4
--dns 8.8.8.8 --dns ::1 --dns-opt ndots:2 --dns-option timeout:1 --dns-search example.org --dns-search .
--dns x
--dns-search '*'
--dns-search -x
--init --read-only --privileged
--init=false
--init=maybe
--cap-add ALL --cap-drop NET_RAW --cap-add cap_sys_admin
--security-opt no-new-privileges --security-opt label=disable
--security-opt seccomp=unconfined
--security-opt seccomp=seccomp.json
--security-opt seccomp=broken.json
--security-opt seccomp=absent.json
--security-opt seccomp:unconfined
--security-opt systempaths=unconfined --security-opt apparmor=unconfined
--security-opt foo
--security-opt no-new-privileges=false
--device /dev/null
--device /dev/null:/dev/x
--device /dev/null:r
--device /dev/null:/dev/x:rw
--device /dev/null:/dev/x:q
--device /dev/null:x
--device null
--device a:b:c:d
--device :x
--device vendor.com/gpu=all
--device-cgroup-rule 'c 1:3 rwm' --device-cgroup-rule 'b *:* r'
--device-cgroup-rule 'x 1:3 rwm'
--ulimit nofile=1024 --ulimit core=0:-1 --ulimit nproc=10:20
--ulimit nofile=-1
--ulimit nofile=20:10
--ulimit nofile=-1:10
--ulimit foo=1
--ulimit nofile
--ulimit nofile=x
--ulimit nofile=1:2:3
--sysctl net.core.somaxconn=1024 --sysctl kernel.msgmax=1
--sysctl kernel.panic=1
--sysctl net.x
--shm-size 128m
--shm-size 1.5g
--shm-size=x
-m 512m --memory-swap -1 --memory-reservation 256M --memory-swappiness 60
-m 1gib
-m 4096
--memory -1
-m x
-m ""
--memory-swap 1g
--memory-swap -2
--memory-swappiness 101
--memory-swappiness -1
--memory-swappiness x
--cpus 1.5
--cpus .25
--cpus 1/2
--cpus 0.0000000001
--cpus x
--cpuset-cpus 0-1 --cpuset-mems 0 -c 512
--cpu-shares 1024 --cpu-period 100000 --cpu-quota 50000 --cpu-rt-period 1000 --cpu-rt-runtime 500
--cpu-shares x
--cpu-shares 99999999999999999999
--cpu-shares 0x10
--pids-limit 100
--pids-limit -1
--blkio-weight 300 --blkio-weight-device /dev/sda:200
--blkio-weight 70000
--blkio-weight -1
--blkio-weight-device sda:200
--blkio-weight-device /dev/sda
--blkio-weight-device /dev/sda:5
--device-read-bps /dev/sda:1mb --device-write-bps /dev/sda:1024
--device-read-iops /dev/sda:100 --device-write-iops /dev/sdb:200
--device-read-bps /dev/sda:x
--device-read-iops /dev/sda:x
--device-read-iops sda:1
--oom-kill-disable --oom-score-adj -500
--oom-score-adj x
--network host
--network none
--net bridge
--network mynet --network-alias a --network-alias b --ip 172.30.0.5 --ip6 2001:db8::33
--network name=mynet,alias=web,ip=10.0.0.2,driver-opt=a=b,gw-priority=5
--network name=mynet,mac-address=92:d0:c6:0a:29:33 --network other
--network mynet --network mynet
--network mynet --network host
--network name=mynet,foo=bar
--network alias=x
--network name=mynet,alias=a --network-alias b
--network name=a,ip=1.2.3.4 --ip 1.2.3.5
--network bridge --network-alias x
--network container:web
--net-alias x
--ip x
--ip 1.2.3.4
--link db --link redis:cache
--link a:b:c
--link ''
--network mynet --link db:d
--link-local-ip 169.254.1.1
--mac-address 92:d0:c6:0a:29:33
--mac-address 92-d0-c6-0a-29-33
--mac-address x
--annotation a=b --annotation c
--stop-signal SIGINT --stop-timeout 5
--stop-timeout 0
--stop-timeout x
--group-add audio --group-add 50
--pid host
--pid container:x
--pid container:
--pid foo
--ipc host
--ipc shareable
--uts host
--uts foo
--userns host
--userns foo
--cgroupns private
--cgroupns foo
--cgroup-parent /x
--platform linux/amd64
--pull never
--pull sometimes
--volumes-from a --volumes-from b:ro
--volume-driver local
--restart always
--restart on-failure:3
--restart on-failure:x
--restart :3
--restart unless-stopped
--rm --restart always
--rm --restart no
--restart=''
--health-cmd 'test -e /x' --health-interval 5s --health-timeout 1m --health-retries 3
--health-start-period 1h --health-start-interval 100ms
--health-interval -5s
--health-interval x
--health-interval 5
--health-retries -1 --health-cmd x
--no-healthcheck
--no-healthcheck --health-cmd x
--log-driver json-file --log-opt max-size=1m --log-opt max-file=2
--log-driver none --log-opt max-size=1m
--log-opt x
--storage-opt size=10G
--storage-opt size
--runtime crun
--gpus all
--gpus 2
--gpus device=1
--gpus '"device=0,1"'
--gpus driver=nvidia,count=2,"capabilities=compute"
--gpus foo=1
--gpus x
--isolation default
-q
--foo
--foo=bar
-z
-itz
--name
-e
-ite
--=x
---x
--rm=x
--help=maybe
-it -- busybox sh -c 'echo hi' --
-- busybox --
busybox ls -l --color --
--rm busybox -- --
--
--name a --name b busybox --
""".strip().splitlines()

# Whole command lines that fail before anything is asked of an engine: the text and the code are recorded.
MISTAKES = """
run
run --foo
run -d -a stdout busybox
run --pull sometimes busybox
run -p x busybox
run --rm --restart always busybox
create
create --foo
create --cpus x busybox
ps --foo
ps x
ps -n x
ps --filter x
rm
rm -x
stop
stop -t x c
stop --time 1 --timeout 2 c
restart
kill
pause
unpause
wait
rename a
rename a b c
start
attach
attach a b
exec
exec c
exec --foo c true
logs
logs a b
top
port
port a b c
inspect
inspect --type foo x
inspect --type= x
images a b
images --foo
rmi
tag a
tag a b c
pull
import
history
history a b
volume foo
volume create a b
volume create --name a b
volume create --label =x
volume ls x
volume rm
volume inspect
network foo
network ls x
network inspect
container foo
container ls x
container rm
image foo
image ls a b
image inspect
info x
version x
foo
--foo
--foo ps
-z ps
""".strip().splitlines()


def expand(row: str) -> list[str]:
    """The arguments of a row of `CREATE`."""
    words = shlex.split(row)
    return words[:-1] if words and words[-1] == "--" else [*words, "busybox", "true"]
