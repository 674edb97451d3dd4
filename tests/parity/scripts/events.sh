# Marked, since other scripts may have come before.
date +%s.%N > began
# Their order and attributes
docker run --rm --name e1 -l a=b busybox true
docker run -d --name e2 busybox sleep 100
docker exec e2 true
docker pause e2; docker unpause e2
docker rename e2 e3
docker update --cpu-shares 100 e3
docker cp e3:/etc/passwd pw; docker cp pw e3:/tmp/
docker top e3 > /dev/null
docker export e3 | wc -c | grep -c .
docker commit e3 evimg
docker kill -s USR1 e3
docker restart -t 0 e3
docker stop -t 0 e3
docker rm e3
docker run --name none --rm busybox nothere
docker volume create ev; docker volume rm ev
docker tag busybox evtag; docker rmi evtag evimg
docker image prune -f; docker container prune -f; docker volume prune -f; sleep 1.1
docker events --since $(cat began) --until 0s --format '{{.Type}} {{.Action}} {{json .Actor.Attributes}}' | sed 's/,*"exec\(Duration\|ID\)":"[^"]*"//; s/{,/{/; s/: true \+{/: true {/; s,docker.io/library/,,'
docker events --since $(cat began) --until 0s -f type=volume --format '{{.Action}} {{.Scope}}'
docker events --since $(cat began) --until 0s -f container=e3 -f event=die --format '{{.Action}} {{.Actor.Attributes.exitCode}}'
docker events --since $(cat began) --until 0s -f label=a=b --format '{{.Action}}'
docker events --since $(cat began) --until 0s -f event=exec_die --format '{{.Actor.Attributes.exitCode}}'
docker events --since $(cat began) --until 0s -f event=create -f image=busybox --format '{{.Action}}' | sed 's, *$,,' | sort | uniq -c
docker events --since nope --until 0s
docker events --since $(cat began) --until 0s | sed 's/^[^ ]* //' | grep -v exec | sed 's,execDuration=[0-9]*\, ,,' | grep -v die | head -5
docker events --since $(cat began) --until 0s --format json -f type=volume | shape 2>&1 | tail -1
