#!/bin/sh
# Stands for a command of the machine: notes that it was called, behaves as it was told to, and else does what the
# command does as far as these machines have something to do it to.
#
# What it was told is a file own to the command, or to the command with its first argument: `exit` is its exit code,
# after `sleep` seconds, with `out` as its output, only the next `times` times. With `exit` unset or 0 and an `out`, it
# does nothing but say that. A `date` is `offset` seconds ahead.
name=${0##*/} lib=/usr/lib/fleet own=/run/fleet state=/var/lib/fleet
dpkg_lock=/var/lib/dpkg/lock-frontend
nl='
'
say() { printf '%s\n' "$*"; }
die() { code=$1; shift; printf '%s\n' "$*" >&2; exit "$code"; }
full() { die 1 "$name: write error: No space left on device"; }

uid=$(id -u)
if [ "$name" != date ]; then
    line=$name${*:+ $*}
    case $line in *"$nl"* | *"	"*) line=$(printf %s "$line" | tr '\n\t' '  ') ;; esac
    read -r boot </proc/sys/kernel/random/boot_id
    printf '%s\t%s\t%s\t%s\n' "$($lib/date +%s.%N)" "$boot" "$uid" "$line" >>$own/log
fi

# One at a time changes what is installed. Who comes second waits, but for apt, which gives up.
case $name in
    apt-get | apt)
        exec 9<>$own/lock
        case "$*" in *[Ll]ock::Timeout=*) flock 9 ;; *)
            flock -n 9 || die 100 "E: Could not get lock $dpkg_lock. It is held by another process${nl}$(
                )E: Unable to acquire the dpkg frontend lock ($dpkg_lock), is another process using it?" ;;
        esac ;;
    dnf | yum | zypper | pacman | apk | transactional-update) exec 9<>$own/lock; flock 9 ;;
esac

exit= sleep= out= times= offset=
for told in "$own/behave/$name ${1-}" "$own/behave/$name"; do
    [ -f "$told" ] || continue
    . "$told"
    case $times in
        '') ;;
        0) exit= sleep= out= offset= ;;
        *) sed "s/^times=.*/times=$((times - 1))/" "$told" >"$told.$$" && mv "$told.$$" "$told" ;;
    esac
    break
done
[ -z "$sleep" ] || sleep "$sleep" 9>&-
[ -z "$out" ] || say "$out"
case $exit in '' | 0) [ -z "$out" ] || exit 0 ;; *) die "$exit" "$name: simulated failure${out:+: $out}" ;; esac

case $name in
    date)
        [ -n "$offset" ] || exec $lib/date "$@"
        now=$($lib/date +%s.%N)
        exec $lib/date -d "@$((${now%.*} + offset)).${now#*.}" "$@" ;;
    systemctl | systemd-run | rc-service | rc-update | reboot | shutdown | poweroff | halt) . $lib/services ;;
    rpm-ostree | bootc | atomic | transactional-update | update_engine_client | flatcar-update)
        . $lib/packages
        . $lib/images ;;
    getenforce) say Enforcing ;;
    docker)
        case "$*" in
            --version | -v) say "Docker version 24.0.7, build afdd53b" ;;
            *) [ -e /run/fleet-units/docker.service ] ||
                die 1 "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?" ;;
        esac ;;
    dockerd | podman | containerd | ctr | flanneld | kubelet) case "$*" in *version* | -v) say "$name version 1.0" ;; esac ;;
    rpm | dpkg | dpkg-query | subscription-manager)
        . $lib/packages
        . $lib/queries ;;
    *)
        . $lib/packages
        packages "$@" ;;
esac
exit 0
