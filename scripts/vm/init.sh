#!/bin/sh
# Process 1 of the guest (it is copied into the image as /init.vm): make a plain system with cgroup v2 alone, show the
# host's source tree, read-only, at the host's own path, run one job there, say how it ended, power off.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sys /sys
mountpoint -q /dev || mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts devpts /dev/pts
mount -t mqueue mqueue /dev/mqueue
for place in /dev/shm /run /tmp; do mount -t tmpfs tmpfs "$place"; done
# No controller is passed on to children here: that is the engine's own work on a machine without systemd.
mount -t cgroup2 none /sys/fs/cgroup
ln -sf /proc/self/fd /dev/fd
ln -sf /proc/self/fd/0 /dev/stdin
ln -sf /proc/self/fd/1 /dev/stdout
ln -sf /proc/self/fd/2 /dev/stderr
hostname vm
ip link set lo up

for word in $(cat /proc/cmdline); do
    case "$word" in
        vm.tree=*) tree=${word#vm.tree=} ;;
        vm.job=*) job=${word#vm.job=} ;;
        vm.modules=*) modules=${word#vm.modules=} ;;
    esac
done
for place in "$tree" "$job"; do
    mkdir -p "$place"
    mount -t hostfs -o "ro,$place" none "$place"
done
mkdir -p /lib/modules
mount -t hostfs -o "ro,$modules" none /lib/modules

echo "VM-READY after $(cut -d' ' -f1 /proc/uptime) s"
cd "$tree" && bash "$job/job.sh"
echo "VM-EXIT $? after $(cut -d' ' -f1 /proc/uptime) s"
sync
echo o >/proc/sysrq-trigger
sleep 5
