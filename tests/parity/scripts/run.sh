docker run --rm busybox
docker run --rm busybox true
docker run --rm busybox false
docker run --rm busybox nothere
#: wording of 20.10; ours is that of 28
docker run --rm busybox /etc
docker run --rm busybox /etc/passwd
docker run --name xx busybox nothere; docker ps -a --format '{{.Status}} {{.Command}}'; docker inspect -f '{{json .State}}' xx | shape; docker rm xx
#: wording of 20.10; ours is that of 28
docker run --name xx busybox /etc; docker ps -a --format '{{.Status}} {{.Command}}'; docker rm xx
docker run --rm busybox sh -c 'exit 77'
docker run --rm busybox sh -c 'kill -9 $$'
echo input | docker run --rm -i busybox cat
docker run --rm busybox cat < /dev/null
docker run --rm -a stdout busybox sh -c 'echo out; echo err >&2'
docker run --rm -a stderr busybox sh -c 'echo out; echo err >&2'
docker run -d -a stdout busybox true
docker run --rm -d busybox true | wc -c
docker run -t --rm busybox tty
# process
docker run --rm busybox sh -c 'cat /proc/1/status | grep -E "Cap|Seccomp:|NoNewPrivs|Uid|Gid|Groups"'
#: runc wants capabilities that this host may withhold; ours takes those that there are
docker run --rm --privileged busybox sh -c 'cat /proc/1/status | grep -E "Cap|Seccomp:|NoNewPrivs"'
docker run --rm --cap-drop ALL --cap-add NET_ADMIN busybox sh -c 'cat /proc/1/status | grep Cap'
#: likewise
docker run --rm --cap-add ALL --cap-drop SYS_ADMIN busybox sh -c 'cat /proc/1/status | grep Cap'
docker run --rm --cap-add NOPE busybox true
docker run --rm --cap-drop cap_chown busybox sh -c 'cat /proc/1/status | grep CapEff'
docker run --rm --security-opt no-new-privileges busybox grep NoNewPrivs /proc/1/status
docker run --rm --security-opt seccomp=unconfined busybox grep Seccomp: /proc/1/status
docker run --rm --security-opt apparmor=unconfined busybox true
docker run --rm --security-opt label=disable busybox true
docker run --rm --security-opt nope=1 busybox true
docker run --rm --security-opt nope busybox true
docker run --rm -u 1000 busybox id
docker run --rm -u 1000:1001 busybox id
docker run --rm -u daemon busybox id
docker run --rm -u daemon:mail busybox id
docker run --rm -u nobody:nogroup busybox id
docker run --rm -u nouser busybox id
docker run --rm -u 0:nogroupx busybox id
docker run --rm -u 99999999999 busybox id
docker run --rm -u :5 busybox id
docker run --rm --group-add mail --group-add 777 busybox id
docker run --rm --group-add nope busybox id
docker run --rm -w /a/b/c busybox pwd
docker run --rm -w relative busybox pwd
#: Docker makes the directory itself, and says so
docker run --rm -w /etc/passwd busybox pwd
docker run --rm -u 1000 -w /made busybox stat -c '%u %g %a' /made
docker run --rm --entrypoint echo busybox a b
docker run --rm --entrypoint '' busybox echo c
docker run --rm --entrypoint /nothere busybox
docker run --rm -e A=1 -e B -e C= -e PATH=/bin busybox env | sort
docker run --rm --hostname h --domainname d busybox sh -c 'hostname; hostname -f; cat /etc/hosts; cat /etc/hostname'
docker run --rm --add-host x:1.2.3.4 --add-host 'y:::1' busybox cat /etc/hosts
docker run --rm --add-host x busybox true
docker run --rm --add-host x:999.1.1.1 busybox true
docker run --rm --add-host x:host-gateway busybox grep x /etc/hosts
docker run --rm --dns 1.1.1.1 --dns-search s --dns-option ndots:3 busybox sort /etc/resolv.conf
docker run --rm --dns bad busybox true
docker run --rm --init busybox sh -c 'cat /proc/1/cmdline | tr "\0" " "; ls -l /proc/1/exe | sed "s/.*->//"'
docker run --rm --read-only busybox touch /x
docker run --rm --read-only --tmpfs /t:size=1m,mode=700 busybox sh -c 'touch /t/x; mount | grep "/t "; stat -c %a /t'
docker run --rm --tmpfs /t busybox sh -c 'mount | grep "/t "'
docker run --rm --tmpfs /t:nope busybox true
docker run --rm --tmpfs t busybox true
docker run --rm --shm-size 1m busybox sh -c 'mount | grep shm'
docker run --rm --ulimit nofile=100:200 --ulimit core=0 busybox sh -c 'ulimit -n; ulimit -Hn; ulimit -c'
docker run --rm --ulimit nofile=200:100 busybox true
docker run --rm --ulimit nope=1 busybox true
docker run --rm --sysctl net.ipv4.ip_forward=0 busybox cat /proc/sys/net/ipv4/ip_forward
docker run --rm --sysctl kernel.nope=1 busybox true
docker run --rm --sysctl vm.swappiness=1 busybox true
#: our words; Docker takes this for a command that is not there
docker run --rm --sysctl net.nope=1 busybox true
#: wording of 20.10; ours is that of 28
docker run --rm --net host --sysctl net.ipv4.ip_forward=0 busybox true
docker run --rm --device /dev/null:/dev/xnull:r busybox stat -c %t,%T,%a /dev/xnull
docker run --rm --device /dev/nothere busybox true
docker run --rm --device /dev/null:/dev/x:z busybox true
docker run --rm --device-cgroup-rule 'c 1:3 mr' busybox true
docker run --rm --device-cgroup-rule 'nope' busybox true
docker run --rm --device-read-bps /dev/nothere:1mb busybox true
docker run --rm --pid host busybox sh -c 'test $$ != 1 && echo host'
docker run --rm --pid nope busybox true
docker run --rm --pid container:nothere busybox true
docker run --rm --ipc host busybox true
docker run --rm --ipc none busybox sh -c 'mount | grep -c shm'
docker run --rm --ipc shareable busybox true
docker run --rm --ipc nope busybox true
docker run --rm --ipc container:nothere busybox true
docker run --rm --uts host busybox true
docker run --rm --uts nope busybox true
docker run --rm --uts host --hostname x busybox true
docker run --rm --userns host busybox true
docker run --rm --userns nope busybox true
docker run --rm --cgroupns host busybox true
docker run --rm --cgroupns private busybox true
docker run --rm --cgroupns nope busybox true
docker run --rm --network none busybox ip -4 a
docker run --rm --network host --hostname x busybox hostname
docker run --rm --network nope busybox true
docker run --rm --network container:nothere busybox true
docker run --rm --network host -p 80:80 busybox true
docker run --rm --network none -p 80:80 busybox true
docker run --rm --mac-address 02:42:00:00:00:09 busybox cat /sys/class/net/eth0/address
docker run --rm --mac-address nope busybox true
#: wording of 20.10; ours is that of 28
docker run --rm --ip 172.17.0.9 busybox true
#: links are not there yet
docker run --rm --link nothere:x busybox true
docker run --rm --restart always busybox true
docker run --rm --restart nope busybox true
#: wording of 20.10; ours is that of 28
docker run --restart always:3 busybox true
#: wording of 20.10; ours is that of 28
docker run --restart on-failure:-1 busybox true
docker run --rm --memory 1m busybox true
docker run --rm --memory 64m --memory-swap 32m busybox true
docker run --rm --memory-swap 64m busybox true
docker run --rm --memory 64m busybox cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes
docker run --rm --memory 64m --memory-reservation 128m busybox true
docker run --rm --memory-swappiness 101 busybox true
docker run --rm --cpus 0.5 busybox cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us
docker run --rm --cpus 1000 busybox true
docker run --rm --cpus 1 --cpu-quota 1000 busybox true
docker run --rm --cpuset-cpus 0 busybox cat /sys/fs/cgroup/cpuset/cpuset.cpus
docker run --rm --cpuset-cpus 99 busybox true
#: wording
docker run --rm --cpuset-cpus nope busybox true
docker run --rm --cpu-shares 512 busybox cat /sys/fs/cgroup/cpu/cpu.shares
docker run --rm --pids-limit 10 busybox cat /sys/fs/cgroup/pids/pids.max
#: Docker drops what this kernel lacks without looking at it
docker run --rm --blkio-weight 5 busybox true
docker run --rm --oom-score-adj 500 busybox cat /proc/self/oom_score_adj
docker run --rm --oom-score-adj 5000 busybox true
docker run --rm --oom-kill-disable -m 64m busybox true
docker run --rm --cgroup-parent /x busybox true
#: our runtimes are named
docker run --rm --runtime nope busybox true
#: wording
docker run --rm --isolation nope busybox true
#: wording
docker run --rm --log-driver nope busybox true
docker run --rm --log-driver none busybox echo x
docker run --rm --log-opt nope=1 busybox true
#: says what to write
docker run --rm --log-opt max-size=x busybox true
docker run --rm --log-opt max-file=2 busybox true
#: wording
docker run --rm --log-opt max-size=1m --log-opt max-file=0 busybox true
#: wording
docker run --rm --storage-opt size=1G busybox true
#: our volume drivers are named; Docker says that the image is not there
docker run --rm --volume-driver nope -v xx:/xx busybox true
docker run --rm --health-cmd true --health-interval 1us busybox true
docker run --rm --health-retries -1 busybox true
docker run --rm --no-healthcheck busybox true
docker run --rm --no-healthcheck --health-cmd x busybox true
#: says what to use
docker run --rm --gpus all busybox true
docker run --rm --platform linux/arm64 busybox true
docker run --rm --platform nope/nope busybox true
docker run --rm -p 99999:80 busybox true
docker run --rm -p 80:80:80:80 busybox true
docker run --rm --expose nope busybox true
docker run --rm -P --expose 80 busybox true
docker run --rm --label a=b --label c --annotation x=y busybox true
docker run --rm --cidfile cid busybox true; wc -c cid
docker run --rm --cidfile cid busybox true
docker run --rm busybox sh -c 'mount | grep -vE "overlay|cgroup|tmpfs on /(proc|sys)" | sed "s/(.*//" | sort'
docker run --rm busybox sh -c 'ls -l /dev | tr -s " " | cut -d " " -f 1-6,10-'
docker run --rm busybox sh -c 'ls /proc/self/fd; cat /proc/1/oom_score_adj; ulimit -a; umask; id; env; pwd'
docker run --rm busybox sh -c 'ip a show eth0 | grep inet; ip r; cat /etc/resolv.conf; ls -la / | wc -l'
docker ps -aq | xargs -r docker rm -f | wc -l
