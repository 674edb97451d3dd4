#!/usr/bin/env bash
# Make the virtual environment in .venv and install Debian packages that are missing.
# Usage: scripts/setup.sh venv | packages LIST...        (lists are names in scripts/packages/)
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '==> %s\n' "$*" >&2; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

packages() {
    command -v dpkg-query >/dev/null || { say "not a Debian system: install what scripts/packages/ lists by hand"; return; }
    local wanted=() missing=() list name
    for list in "$@"; do
        mapfile -t -O "${#wanted[@]}" wanted < <(grep -v '^#' "scripts/packages/$list.txt")
    done
    for name in "${wanted[@]}"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
    done
    [ ${#missing[@]} -eq 0 ] && return
    [ "$(id -u)" = 0 ] || die "these Debian packages are missing: ${missing[*]}; as root run: apt-get install ${missing[*]}"
    say "installing ${missing[*]}"
    local apt=(apt-get -q -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300)
    export DEBIAN_FRONTEND=noninteractive
    "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 && return
    # The usual reason is that the package lists were never fetched here.
    "${apt[@]}" update >/dev/null || die "apt-get update failed: is a Debian mirror configured and in reach?"
    "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null || die "apt-get could not install ${missing[*]}"
}

fits() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

python() {
    local candidate
    for candidate in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null && fits "$candidate"; then command -v "$candidate"; return; fi
    done
    die "no Python >= 3.11 with venv found: install python3 and python3-venv"
}

venv() {
    if ! [ -x .venv/bin/python ] || ! fits .venv/bin/python; then
        local base
        base=$(python)
        say "making .venv with $base"
        "$base" -m venv --clear .venv
    fi
    local pip=(.venv/bin/python -m pip --disable-pip-version-check -qq) editable=() folder
    say "installing requirements.lock"
    "${pip[@]}" install --require-hashes -r requirements.lock
    for folder in core drivers/*/; do editable+=(-e "$folder"); done
    say "installing core and drivers in place"
    "${pip[@]}" install --no-deps --no-build-isolation "${editable[@]}"
}

case "${1:-}" in
    venv) venv ;;
    packages) shift; packages "$@" ;;
    *) die "usage: scripts/setup.sh venv | packages LIST..." ;;
esac
