#!/bin/sh
# Boots systemd as the first process of a machine that shares the kernel, /usr and the network namespace with its caller, and
# nothing else. Called by machine.rs, in namespaces of its own for mounts, processes, control groups, host name and IPC:
#
#   machine.sh ROOT GROUP     ROOT: a folder whose `etc`, `usr-local` and `var` become those of the machine
#                             GROUP: a control group's name, below the top of version 2
#
# What is mounted here is seen by nobody else and ends with the machine; so does its BPF file system, and what is pinned there.
set -eu
root=$1 group=$2

# The control group first: the namespace that is made of it next has it as its top.
if [ "${TOLLGATE_MACHINE_IN_GROUP:-}" = "" ]; then
    version2=/sys/fs/cgroup
    [ -e "$version2/cgroup.procs" ] || version2=/sys/fs/cgroup/unified
    mkdir -p "$version2/$group"
    echo $$ >"$version2/$group/cgroup.procs"
    TOLLGATE_MACHINE_IN_GROUP=1 exec unshare --cgroup -- "$0" "$@"
fi

new=$root/root
mkdir -p "$new"
: >"$root/console"
mount -t tmpfs -o mode=755 machine "$new"
cd "$new"
mkdir -p dev etc proc root run sys tmp usr var
for folder in bin lib lib32 lib64 libx32 sbin; do
    if [ -L "/$folder" ]; then
        cp -P "/$folder" .
    elif [ -d "/$folder" ]; then
        mkdir "$folder" && mount --bind "/$folder" "$folder" && mount -o remount,bind,ro "$folder"
    fi
done
mount --bind /usr usr && mount -o remount,bind,ro usr
mount --bind "$root/usr-local" usr/local
mount --bind "$root/etc" etc
mount --bind "$root/var" var
mount -t proc proc proc
# What the kernel has once, for everybody: systemd would set some of it.
mount --bind proc/sys proc/sys && mount -o remount,bind,ro proc/sys
mount -t sysfs sysfs sys
mount -o remount,bind,ro sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 run run
mount -t tmpfs -o mode=755 dev dev
for device in null zero full random urandom tty; do
    touch "dev/$device" && mount --bind "/dev/$device" "dev/$device"
done
# What systemd says before there is a journal.
touch dev/console && mount --bind "$root/console" dev/console
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs shm dev/shm
mount -t bpf -o mode=700 bpf sys/fs/bpf

mkdir run/old
pivot_root . run/old
exec chroot . /bin/sh -c 'umount -l /run/old && exec env -i container=tollgate-test \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /usr/lib/systemd/systemd --log-level=info --show-status=no'
