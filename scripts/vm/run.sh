#!/usr/bin/env bash
# Run pytest in a guest whose kernel has what this machine's may lack: cgroup v2 with controllers. As root.
# Usage: scripts/vm/run.sh [PYTEST ARGUMENT]...        (without arguments: what scripts/vm/tests.txt lists)
# The guest is User-Mode Linux, an ordinary process here: no KVM, no network, nothing of the host's is changed.
set -euo pipefail
cd "$(dirname "$0")/../.."
limit=${DOCKP_VM_TIMEOUT:-900}  # seconds for one run of the guest

die() { printf 'vm: %s\n' "$*" >&2; exit 1; }
say() { printf '==> %s\n' "$*" >&2; }

[ "$(id -u)" = 0 ] || die "making the guest's image needs root: run it with sudo"
command -v linux.uml >/dev/null || die "there is no linux.uml: install the Debian package user-mode-linux"
[ -x .venv/bin/python ] || die "dockp is not installed here: run make venv"
case "$PWD" in *[[:space:],]*) die "the kernel's command line cannot name $PWD: use a path without blanks and commas" ;; esac
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
[ -n "$suite" ] || die "the guest is made of this machine's own distribution, which must be Debian or like it"

# -- the image: once for each list of packages, init and distribution --

image() {
    local key wanted building sources
    key=$(cat scripts/vm/guest-packages.txt scripts/vm/init.sh <(echo "$suite") | sha256sum | cut -c1-16)
    wanted="$PWD/.cache/vm/root-$key.img"
    echo "$wanted"
    [ ! -s "$wanted" ] || return 0
    say "making the guest's image, once"
    mkdir -p .cache/vm
    building=$scratch/image
    mapfile -t sources < <(grep -lsE "^(Suites: *|Suites: .* |deb (\[[^]]*\] *)?[^ ]+ )$suite(-[a-z]+)*( |$)" \
        /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources)
    mmdebstrap --quiet --variant=minbase --mode=root --aptopt='Acquire::Languages "none"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --include="$(grep -v '^#' scripts/vm/guest-packages.txt | paste -sd,)" \
        "$suite" "$building" "${sources[@]}" >&2
    cp scripts/vm/init.sh "$building/init.vm"
    chmod 755 "$building/init.vm"
    truncate -s 3G "$scratch/root.img"
    mke2fs -q -t ext4 -O ^has_journal -d "$building" "$scratch/root.img"
    # Older images are of no more use, but a guest may still run from one: it keeps its open file.
    rm -f .cache/vm/root-*.img
    cp --sparse=always "$scratch/root.img" "$wanted.part.$$"
    mv "$wanted.part.$$" "$wanted"
    rm -rf --one-file-system "$building" "$scratch/root.img"
}

# -- the job --

job() {
    local word
    # The guest's Python is the distribution's, and the virtual environment's packages are for the same version.
    local version='import sys; print("%d.%d" % sys.version_info[:2])'
    echo "export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$PWD/scripts/vm"
    echo "[ \"\$(.venv/bin/python -c '$version' 2>&1)\" = $(.venv/bin/python -c "$version") ] ||"
    echo "    { echo 'vm: .venv is not made with /usr/bin/python3: remove it and run make venv' >&2; exit 1; }"
    printf 'exec .venv/bin/python -m pytest -q --color=%s -p no:cacheprovider -p nothing_skipped' "$color"
    printf ' --basetemp=/var/tmp/pytest'  # on ext4, as data roots are; /tmp there is a tmpfs
    for word in "$@"; do printf ' %q' "$word"; done
    echo
}

# -- the guest --

# boot: run the job; the console goes to $scratch/console, what the job says to stdout. 0 when the guest came up.
boot() {
    # The copy-on-write file takes what the guest writes; the image stays as it is. UML keeps the guest's memory in a
    # file of its temporary folder, /dev/shm if no variable names one.
    # All in the background: a shell heeds signals while it waits, but not while it runs something.
    env -u TMPDIR -u TMP -u TEMP HOME="$scratch" \
        timeout --kill-after=5 "$limit" \
        linux.uml umid=dockp uml_dir="$scratch/uml" mem=1536M \
        ubd0="$scratch/cow,$1" root=/dev/ubda rw rootfstype=ext4 init=/init.vm \
        con0=fd:0,fd:1 con=null ssl=null loglevel=3 \
        "vm.tree=$PWD" "vm.job=$scratch/job" vm.modules=/usr/lib/uml/modules </dev/null \
        >"$scratch/tty" 2>&1 &
    guest=$!
    sed -u 's/\r//' <"$scratch/tty" | tee "$scratch/console" | sed -nu '/^VM-READY/,/^VM-EXIT/p' &
    wait "$!" || true
    wait "$guest" || true
    guest=''
    rm -f "$scratch/cow"
    grep -q '^VM-READY' "$scratch/console"
}

scratch=$(mktemp -d /var/tmp/dockp-vm-XXXXXX)
guest=''  # the process that holds the guest
clean() {
    if [ -n "$guest" ]; then kill "$guest"; wait "$guest" || true; fi
    rm -rf --one-file-system "$scratch"
}
trap clean EXIT
trap 'exit 130' INT TERM HUP

root=$(image)
if [ $# = 0 ]; then  # all that the list names
    mapfile -t words < <(grep -v '^#' scripts/vm/tests.txt)
    set -- "${words[@]}"
fi
color=no
[ ! -t 1 ] || color=yes
mkdir "$scratch/job" "$scratch/uml"
mkfifo "$scratch/tty"
job "$@" >"$scratch/job/job.sh"
say "starting the guest; its tests take two to four minutes"
boot "$root" || { say "the guest did not come up; once more"; boot "$root"; } ||
    die "the guest did not come up: $(tail -5 "$scratch/console")"
code=$(sed -n 's/^VM-EXIT \([0-9]*\) .*/\1/p' "$scratch/console")
[ -n "$code" ] || die "the guest ended without saying how its tests went (limit: $limit s)"
exit "$code"
