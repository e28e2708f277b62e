# What a host is, in sections; only what POSIX has, and Linux. Whatever is missing leaves its section empty.
echo "commissaire facts 1"
echo; echo "== clock"
date +%s.%N
echo; echo "== os"
cat /etc/os-release 2>/dev/null || cat /usr/lib/os-release
echo; echo "== booted"
[ ! -e /run/ostree-booted ] || echo ostree
if command -v bootc >/dev/null 2>&1; then
    bootc status --json 2>/dev/null | tr -d ' \n' | grep -q '"booted":{"image":{' && echo bootc
fi
echo; echo "== kernel"
uname -r
echo; echo "== arch"
uname -m
echo; echo "== cpus"
getconf _NPROCESSORS_ONLN 2>/dev/null || nproc 2>/dev/null || grep -c '^processor' /proc/cpuinfo
echo; echo "== memory"
grep '^MemTotal:' /proc/meminfo
# Each file system that has a device of its own, once; a system without any has its root. What is on a network is not asked:
# it may never answer.
points=$(awk '$1 ~ /^\/dev\// && $3 != "squashfs" && $3 != "iso9660" && $2 !~ /\\/ && !seen[$1]++ { print $2 }
    $3 == "zfs" && $1 !~ /\// { print $2 }' /proc/self/mounts)
# A disk that is mounted for others may be out of sight.
sizes=$(df -Pk ${points:-/} 2>/dev/null | awk 'NR > 1 && $2 > 0')
[ -n "$sizes" ] || sizes=$(df -Pk / | awk 'NR > 1')
echo; echo "== space"
echo "$sizes"
echo; echo "== inodes"
df -Pi ${points:-/} 2>/dev/null | awk 'NR > 1 && $2 > 0'
echo; echo "== machine-id"
cat /etc/machine-id 2>/dev/null
echo; echo "== boot-id"
cat /proc/sys/kernel/random/boot_id
echo; echo "== virtualization"
systemd-detect-virt 2>/dev/null
echo; echo "== selinux"
getenforce 2>/dev/null
echo; echo "== runtimes"
for name in docker podman containerd crio; do
    command -v "$name" >/dev/null 2>&1 && echo "$name"
done
echo; echo "== end"
