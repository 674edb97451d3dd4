#!/usr/bin/env bash
# Make the root file systems that tests, the demo and the benchmark use, once: .cache/images/{busybox,debian}.tar.
# Needs root, busybox-static and mmdebstrap; Debian's packages come from the machine's own configured mirror.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${1:-.cache/images}"
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ ! -s "$out/busybox.tar" ]; then
    mkdir -p "$work/busybox"/{bin,etc,tmp,root,proc,sys,dev,var/run,home/user}
    cp /bin/busybox "$work/busybox/bin/busybox"
    for applet in $("$work/busybox/bin/busybox" --list); do
        [ "$applet" = busybox ] || ln -s busybox "$work/busybox/bin/$applet"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n' >"$work/busybox/etc/passwd"
    printf 'root:x:0:\nuser:x:1000:\nextra:x:2000:user\n' >"$work/busybox/etc/group"
    chmod 1777 "$work/busybox/tmp"
    chown 1000:1000 "$work/busybox/home/user"
    tar -C "$work/busybox" --numeric-owner --sort=name -cf "$out/busybox.tar.part" .
    mv "$out/busybox.tar.part" "$out/busybox.tar"
    echo "made $out/busybox.tar"
fi
if [ ! -s "$out/debian.tar" ]; then
    mmdebstrap --quiet --variant=minbase \
        --include=nginx-light,redis-server,postgresql,procps,iproute2,curl \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        "$(. /etc/os-release; [ "$ID" = debian ] && echo "$VERSION_CODENAME" || echo bookworm)" "$out/debian.tar.part.tar"
    mv "$out/debian.tar.part.tar" "$out/debian.tar"
    echo "made $out/debian.tar"
fi
