#!/usr/bin/env bash
# Show dockp at work on real images, as root: `make demo`. Everything it keeps is in .cache/demo; run it again and the
# images are there already. What it starts, it removes, also when it is interrupted.
set -euo pipefail
cd "$(dirname "$0")/.."

home="$PWD/.cache/demo"
unset "${!DOCKP_@}"
export DOCKP_DATA_ROOT="$home/data" DOCKP_EXEC_ROOT="$home/run" DOCKP_CACHE_DIR="$home/cache"
export DOCKP_CGROUP_PARENT=dockp-demo DOCKP_CONFIG_FILE="$home/config.toml"
export PATH="$PWD/.venv/bin:$PATH" LC_ALL=C.UTF-8

bold='' dim='' red='' off=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' dim=$'\e[36m' red=$'\e[31m' off=$'\e[0m'; fi
number=0 output='' leaving=''

die() { printf '%sdemo: %s%s\n' "$red" "$*" "$off" >&2; exit 1; }
step() { number=$((number + 1)); printf '\n%s%d. %s%s\n' "$bold" "$number" "$*" "$off"; }

# One command line as it would be typed.
typed() {
    local word line='$'
    for word in "$@"; do
        case "$word" in
            *[!A-Za-z0-9_./:=@%,+-]* | '') line+=" '$word'" ;;
            *) line+=" $word" ;;
        esac
    done
    printf '%s%s%s\n' "$dim" "$line" "$off"
}

# show COMMAND...: print it, run it, print what it prints; `output` has that too. It must succeed.
show() { expect 0 "$@"; }

expect() {
    local wanted=$1 code=0
    shift
    typed "$@"
    output=$("$@" 2>&1) || code=$?
    [ -z "$output" ] || printf '%s\n' "$output"
    [ "$code" = "$wanted" ] || die "that ended with exit code $code, not $wanted"
}

# The last command must have printed this.
must() { case "$output" in *"$1"*) ;; *) die "the output does not have: $1" ;; esac; }

quietly() { "$@" >/dev/null 2>&1 || true; }
has_table() { nft list table inet dockp >/dev/null 2>&1; }
bridges() { ip -o link | sed -n 's/^[0-9]*: \(dockp[0-9]*\):.*/\1/p'; }

remove_containers() {
    local ids
    ids=$(timeout 30 dockp ps -aq 2>/dev/null) || return 0
    # shellcheck disable=SC2086
    [ -z "$ids" ] || timeout 60 dockp rm -f -v $ids >/dev/null
}

leave() {
    local code=$? place
    trap '' INT TERM HUP
    trap - EXIT
    [ -z "$leaving" ] || exit "$code"
    leaving=yes
    quietly remove_containers
    quietly dockp volume rm demo-data
    # An engine keeps its bridge and its packet rules; this one is done. Where the table is another engine's too, they
    # are its to tidy up.
    if [ -z "$tabled" ]; then
        for place in $(bridges); do quietly ip link delete "$place"; done
        quietly nft delete table inet dockp
    fi
    for place in /sys/fs/cgroup/dockp-demo /sys/fs/cgroup/*/dockp-demo; do
        [ ! -d "$place" ] || quietly rmdir "$place"
    done
    [ "$code" = 0 ] || printf '\n%sdemo: stopped (exit code %s); its containers are removed%s\n' "$red" "$code" "$off" >&2
    exit "$code"
}

[ "$(id -u)" = 0 ] || die "containers need root: run sudo make demo"
[ -x .venv/bin/dockp ] || die "dockp is not installed here: run make venv"
mkdir -p "$home"
: >"$DOCKP_CONFIG_FILE"
tabled=''
if has_table; then tabled=yes; fi
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
remove_containers

# A Debian machine makes its own release, Ubuntu likewise; its mirror is the one that apt uses here.
suite=bookworm distribution=debian
if [ -r /etc/os-release ]; then
    suite=$(. /etc/os-release; echo "${VERSION_CODENAME:-bookworm}")
    distribution=$(. /etc/os-release; echo "${ID:-debian}")
fi
case "$distribution" in debian | ubuntu) ;; *) suite=bookworm distribution=debian ;; esac
real="$distribution:$suite"

printf '%sdockp: a demonstration%s\n' "$bold" "$off"
printf 'Images and containers are kept in .cache/demo, which may be deleted afterwards.\n'

step "What is installed here, and what works"
show dockp version --format '{{.Server.Version}}'
show dockp info --format '{{.Driver}} on {{.OperatingSystem}}, kernel {{.KernelVersion}}, cgroup v{{.CgroupVersion}}'
show dockp plugin ls
must overlay2

step "A real $distribution, made from the packages of this machine's own mirror"
if dockp image inspect "$real" >/dev/null 2>&1; then
    printf '(made by an earlier run)\n'
else
    show dockp pull -q "debootstrap:$suite" -t "$real"
fi

step "A busybox, imported from a tar"
if dockp image inspect busybox >/dev/null 2>&1; then
    printf '(imported by an earlier run)\n'
else
    rm -rf "$home/busybox" && mkdir -p "$home"/busybox/{bin,etc,tmp,root,proc,sys,dev,srv}
    cp "$(command -v busybox)" "$home/busybox/bin/"
    for applet in $(busybox --list); do [ "$applet" = busybox ] || ln -sf busybox "$home/busybox/bin/$applet"; done
    echo 'root:x:0:0:root:/root:/bin/sh' >"$home/busybox/etc/passwd"
    show tar -C .cache/demo/busybox -cf .cache/demo/busybox.tar .
    show dockp image import --change 'CMD ["sh"]' .cache/demo/busybox.tar busybox
    rm -rf "$home/busybox" "$home/busybox.tar"
fi
show dockp images

step "Run a command in it"
show dockp run --rm "$real" cat /etc/os-release
must "$distribution"

step "It is alone: its own processes, host name, users and network"
show dockp run --rm --hostname box --network none busybox sh -c 'hostname; id; ps; ip -o link'
must 'uid=0(root)'
show dockp run --rm --user 1000:1000 --read-only --memory 64m --pids-limit 20 --network none busybox sh -c 'id; touch /x; echo still here'
must 'Read-only file system'

step "Its exit code is the command's"
expect 42 dockp run --rm --network none busybox sh -c 'exit 42'
printf '(exit code 42)\n'
expect 127 dockp run --rm --network none busybox no-such-command
printf '(exit code 127)\n'

step "What it writes stays, as long as the container does"
show dockp run --name keeper --network none busybox sh -c 'date >>/root/visits; cat /root/visits'
first=$output
show dockp start --attach keeper
must "$first"
[ "$(printf '%s\n' "$output" | wc -l)" = 2 ] || die "the first visit is lost"
show dockp run --rm --network none -v demo-data:/data busybox sh -c 'echo kept in a volume >/data/note'
show dockp run --rm --network none -v demo-data:/data "$real" cat /data/note
must 'kept in a volume'

step "A web server on a published port"
show dockp run -d --name web -p 127.0.0.1::80 busybox sh -c 'echo "Hello from $(hostname)" >/srv/index.html; exec httpd -f -v -p 80 -h /srv'
show dockp port web
address=$(dockp port web 80)
for _ in $(seq 50); do ! curl -sf -m 2 -o /dev/null "http://$address/" || break; sleep 0.1; done
show curl -sS -m 5 "http://$address/"
must 'Hello from'
show dockp ps
must web
show dockp logs web
show dockp exec web ps
must httpd
show dockp stop -t 1 web
show dockp ps -a --format 'table {{.Names}}\t{{.Image}}\t{{.Status}}'
must Exited

step "Another storage driver, for this command alone"
show dockp --storage-driver=vfs run --name copy --network none "$real" sh -c 'echo "no overlay here: $(stat -f -c %T /)"'
must 'no overlay here'
show dockp inspect -f '{{.Name}} is kept by {{.GraphDriver.Name}}' keeper copy
must 'by vfs'

step "Remove it all"
show dockp rm keeper web copy
show dockp volume rm demo-data
show dockp ps -a

printf '\n%sThat was dockp. To try more: sudo .venv/bin/dockp --help, and README.md.%s\n' "$bold" "$off"
