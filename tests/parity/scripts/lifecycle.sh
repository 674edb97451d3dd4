# Names and conflicts
docker create --name aa busybox true
docker create --name aa busybox true 2>&1 | sed 's/"[0-9a-f]*"/ID/'
docker create --name '!' busybox true
docker create --name .x busybox true
docker create nothere:1 true > /dev/null 2>&1
docker create --pull never nothere:1
docker start aa
docker start nothere
docker start aa nothere
docker wait aa
docker wait nothere
docker start -a aa
docker restart -t 0 aa
docker stop aa nothere
docker kill aa
docker kill nothere
docker pause aa
docker unpause aa
docker rename aa aa
docker rename aa bb
docker rename nothere cc
docker rename bb ''
#: the slash that no user writes
docker rename bb '!x'
docker create --name cc busybox true
docker rename bb cc 2>&1 | sed 's/"[0-9a-f]*"/ID/'
docker rm nothere
docker rm bb cc
docker rm -f nothere
# A running one
docker run -d --name rr busybox sh -c 'trap "exit 3" TERM; while :; do sleep 0.1; done'
#: wording of 20.10; ours is that of 28
docker rm rr
docker start rr
docker rename rr ss
docker pause ss
docker pause ss
#: 28 names the container by its id
docker exec ss true
docker stats --no-stream --format '{{.Name}} {{.PIDs}}' ss
docker ps --format '{{.Names}} {{.Status}} {{.State}}'
docker top ss | wc -l
docker kill ss
docker inspect -f '{{.State.Status}} {{.State.ExitCode}} {{.State.Paused}}' ss
docker unpause ss
docker start ss
docker stop ss
docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' ss
docker stop ss
docker kill ss
docker unpause ss
docker exec ss true
docker top ss
docker attach ss
docker port ss
docker stats --no-stream --format '{{.Name}} {{.PIDs}} {{.CPUPerc}}' ss
docker restart ss
docker kill -s USR1 ss
docker kill -s NOSUCH ss
#: a signal that there is not is refused first
docker kill -s 99 ss
docker kill -s KILL ss
docker wait ss
docker inspect -f '{{.State.Status}} {{.State.ExitCode}} {{.State.Running}} {{.State.Pid}} {{.State.Error}}' ss
docker rm -v ss
# Stop signals and time limits
docker run -d --name tt --stop-signal INT --stop-timeout 1 busybox sh -c 'trap "exit 9" INT; while :; do sleep 0.1; done'
docker stop tt; docker inspect -f '{{.State.ExitCode}} {{.Config.StopSignal}} {{.Config.StopTimeout}}' tt
docker start tt; docker restart -t 1 tt; docker stop tt; docker inspect -f '{{.State.ExitCode}}' tt
docker rm tt
docker run -d --name tt --stop-signal NOPE busybox true
docker rm tt
#: Docker takes a signal that there is not
docker run --stop-signal 99 --name tt busybox true
#: it was not made
docker rm tt
# update
docker run -d --name uu busybox sleep 100
docker update --memory 64m --memory-swap 128m --cpus 1.5 --pids-limit 50 --restart on-failure:3 uu
docker inspect -f '{{json .HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}} {{json .HostConfig.RestartPolicy}}' uu
docker update --memory 1m uu
docker update --memory 256m uu
docker update --cpus 99 uu
#: wording of 20.10; ours is that of 28
docker update --restart nope uu
#: wording of 20.10; ours is that of 28
docker update --restart always:3 uu
#: runc refuses what the kernel rounds up
docker update --cpu-shares 1 uu; docker inspect -f '{{.HostConfig.CpuShares}}' uu
docker update --cpuset-cpus 77 uu
docker update nothere --memory 64m
docker update --memory 64m nothere
docker update uu
docker update --cpu-period 50000 --cpu-quota 20000 uu
docker rm -f uu
docker run -d --rm --name uu busybox sleep 100
docker update --restart always uu
docker rm -f uu
# diff, export, commit
docker run --name dd busybox sh -c 'echo x > /new; rm /etc/group; mkdir /dir; touch /dir/f; chmod 700 /tmp'
docker diff dd | sort
docker diff nothere
docker export dd | tar t | grep -E '^(new|dir|etc/group|\.dockerenv)'
docker export -o /nonexistent/x dd
docker export nothere | wc -c
docker commit -m msg -a me -c 'ENV A=b' -c 'CMD ["x"]' -c 'EXPOSE 80/tcp' -c 'LABEL l=m' -c 'USER u' -c 'VOLUME /v' -c 'WORKDIR /w' -c 'ENTRYPOINT ["e"]' -c 'HEALTHCHECK CMD true' dd repo:tag
docker image inspect -f '{{json .Config}}' repo:tag | shape
docker image inspect -f '{{.Comment}} {{.Author}}' repo:tag
docker history --format '{{.CreatedBy}}|{{.Size}}|{{.Comment}}' repo:tag
docker history repo:tag
docker history -q --no-trunc repo:tag
docker history nothere
docker commit -c 'FROM x' dd
docker commit -c 'NOPE x' dd
docker commit -c 'RUN x' dd
docker commit dd 'Bad Name'
docker commit dd UPPER
docker commit nothere x
docker commit --pause=false dd
docker rmi repo:tag
docker rm dd
docker ps -a
