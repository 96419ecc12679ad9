# A systemd of somebody's own, as their first session starts it, where the machine has none: as root,
# in a mount namespace of its own, within a cgroup that it takes for the whole tree.
#   unshare --mount --propagation private sh user_manager.sh CGROUP UID PYTHON
set -eu
cgroup=$1 uid=$2 python=$3
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system # sd_booted(3)
case $python in
  /root/*) # where nobody else gets
    mkdir /run/python
    mount --bind "$python" /run/python
    mount -t tmpfs -o mode=755 tmpfs /root
    mkdir -p "$python"
    mount --bind /run/python "$python"
    ;;
esac
echo $$ >"$cgroup/cgroup.procs"
mount --bind "$cgroup" /sys/fs/cgroup
exec unshare --cgroup setpriv --reuid "$uid" --regid "$uid" --clear-groups \
  /lib/systemd/systemd --user
