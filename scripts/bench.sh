#!/usr/bin/env bash
# Measure dockp beside runc, docker and podman, and write docs/benchmarks.md. As root. Usage: scripts/bench.sh [--quick] [--daemons] [--pulls]
# Every contestant gets mount and network namespaces and a /run of its own, all share one pid namespace and one cgroup
# parent, which end with this script: nothing of the host's is used, and nothing stays.
set -euo pipefail
cd "$(dirname "$0")/.."
for option; do
    case "$option" in
        --quick | --daemons | --pulls | --help) ;;
        *) echo "usage: scripts/bench.sh [--quick] [--daemons] [--pulls]" >&2; exit 2 ;;
    esac
done
[ "$(id -u)" = 0 ] || { echo "bench: containers need root: run it with sudo" >&2; exit 1; }

scripts/setup.sh packages base bench >&2
images="$PWD/.cache/images"
scripts/test-images.sh "$images" >&2

cgroup="dockp-bench-$$"
home=$(mktemp -d /var/tmp/dockp-bench-XXXXXX)
clean() {
    local attempt place
    # Processes that were just killed hold their cgroups for a moment.
    for attempt in $(seq 50); do
        place=$(find /sys/fs/cgroup -maxdepth 2 -type d -name "$cgroup" 2>/dev/null) || true
        [ -n "$place" ] || break
        # shellcheck disable=SC2086
        find $place -depth -type d -exec rmdir {} + 2>/dev/null && break
        sleep 0.1
    done
    rm -rf --one-file-system "$home"
}
trap clean EXIT
trap 'exit 130' INT TERM HUP

# The shell is process 1 in there: it reaps what containers leave, and with it everything ends.
timeout --foreground --kill-after=10 900 \
    unshare --mount --pid --fork --kill-child --mount-proc --propagation private \
    bash -c '"$@"; exit $?' bench \
    .venv/bin/python -m bench --home "$home" --images "$images" --cgroup "$cgroup" "$@"
