#!/usr/bin/env bash
# Starts systemd as process 1 of a machine of its own, in new namespaces, with a copy-on-write view of this system.
# Nothing outside changes: /sys and /proc/sys are read-only, the network has only its loopback, all else is in memory.
#
# usage, as root: systemd_machine.sh FILES PACKAGES READY
#   FILES     a folder whose files are added to those of the system
#   PACKAGES  a folder of Python packages, which appears at /opt/packages
#   READY     a file that is made just before systemd starts
set -euo pipefail
files=$1 packages=$2 ready=$3

if [[ -z ${IN_NAMESPACES:-} ]]; then
    # A cgroup of its own, for the caller to remove.
    hierarchy=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)
    own=$(sed -n 's/^0:://p' /proc/self/cgroup)
    cgroup=$hierarchy$own/systemd-machine-$$
    mkdir "$cgroup"
    echo $$ >"$cgroup/cgroup.procs"
    echo "$cgroup" >"$ready.cgroup"
    IN_NAMESPACES=yes exec unshare --mount --pid --fork --cgroup --uts --ipc --net --kill-child "$0" "$@"
fi

mount --make-rprivate /
memory=$ready.memory
mkdir "$memory"
mount -t tmpfs -o mode=755 tmpfs "$memory"
mkdir "$memory"/{changes,work,root}
cp -a "$files/." "$memory/changes/"
root=$memory/root
mount -t overlay -o "lowerdir=/,upperdir=$memory/changes,workdir=$memory/work" overlay "$root"

mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=600 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
while read -r name major minor; do
    mknod -m 666 "$root/dev/$name" c "$major" "$minor"
done <<'DEVICES'
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
DEVICES
mkdir -p "$root/opt/packages"
mount --bind "$packages" "$root/opt/packages"

# No program of this system is started besides systemd's own, and none of its file systems is mounted.
rm -rf "$root"/etc/systemd/system/*.wants
: >"$root/etc/fstab"
ip link set lo up

touch "$ready"
cd "$root"
mkdir old-root
# Not chroot: a process in one cannot make the user namespace of PrivateUsers.
pivot_root . old-root
umount -l /old-root
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=basic.target --log-target=journal
