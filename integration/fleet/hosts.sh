#!/usr/bin/env bash
# A fleet of machines to log in to, each with the release and the package tools of a persona (layers.sh), at 10.77.0.11,
# 10.77.0.12 and so on. Root, openssh-server, sudo, openssl, iproute2 and perl-base are needed; nothing of the real
# machine is changed, for everything is in namespaces that end with the process that holds them:
#
#   unshare --net --mount --pid --kill-child --mount-proc hosts.sh FOLDER hold PERSONA,PERSONA,…
#
# It says `up` when every sshd answers. FOLDER/key is the private key that root, `fleet` (sudo without a password),
# `guarded` (sudo with the password s3cr3t-sudo) and `plain` (no sudo) let in. In those namespaces, for the machine K:
#
#   hosts.sh FOLDER reboot K      starts it again at once, as by its button
#            crash K              cuts its power, and gives it back: nobody hears from it that it went
#            off K, on K          the same, with as much time between as one likes
#            delay K SECONDS      how long it is down when it starts again, after this (1)
#            partition K, heal K  no packet gets to it or from it
#            blackhole K, unblackhole K   packets get to it, and none from it
#            freeze K, thaw K     all its processes are stopped: its kernel takes connections, and nobody answers
#            fill K, free K       its disk has no byte left
#            rehost-key K         gives it another host key, by a reboot
#            machine-id K VALUE   gives it another machine id
#            updates K [VERSION]  there is something to upgrade to again
#            behave K COMMAND HOW has a stand-in for a command fail, or be slow; see machine/tool.sh. Without HOW: no more
#            run K COMMAND        runs it in a shell of root's there
#            boot-id K, log K     its boot id; the commands that were run there: epoch, boot id, uid, command line
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
die() { echo "fleet: $*" >&2; exit 1; }
address() { echo "10.77.$((($1 + 11) / 250)).$((($1 + 11) % 250))"; }

[ $# -ge 2 ] || { sed -n '2,/^set/{/^#/p}' "$0"; exit 64; }
folder=$(realpath "$1") && what=$2 disk_size=256m
shift 2

hold() {
    local program personas count
    IFS=, read -ra personas <<<"$1"
    count=${#personas[@]}
    [ "$(id -u)" = 0 ] || die "machines are made by root only"
    for program in sshd ssh-keygen ip perl sudo openssl; do
        command -v "$program" >/dev/null || die "$program is missing (Debian: openssh-server iproute2 perl sudo openssl)"
    done
    [ "$count" -gt 0 ] && [ "$count" -le 1000 ] || die "there are 1 to 1000 machines in a fleet, not $count"
    [ $$ = 1 ] || die "this is no first process of namespaces of its own"
    umask 022
    mkdir -p "$folder/mem" && mount -t tmpfs -o mode=755,size=8g,nr_inodes=0 fleet "$folder/mem" && cd "$folder/mem" ||
        die "no filesystem could be mounted over $folder/mem"
    mkdir -p root disk own meta
    ssh-keygen -q -t ed25519 -N '' -C fleet -f "$folder/key" || die "no key"
    . "$here/layers.sh"
    layers "$1"
    echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6 2>/dev/null
    echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6 2>/dev/null
    ip -batch - <<<"link set lo up
link add fleet address 02:00:00:00:00:01 type bridge
addr add 10.77.0.1/16 dev fleet
link set fleet up" || die "no bridge"
    exec perl "$here/fleetd.pl" "$folder" "$disk_size" "$1"
}

if [ "$what" = hold ]; then hold "$@"; fi

cd "$folder/mem" 2>/dev/null || die "there is no fleet in $folder, seen from here"
k=${1:?which machine?}
shift
[ -d "disk/h$k" ] || die "there is no machine $k"
pid=$(cat "meta/h$k.pid" 2>/dev/null) || pid=
disk=disk/h$k

on() { [ -n "$pid" ] || die "machine $k is off"; }
in_network() { nsenter --net="$(cat "meta/h$k.net")" -- "$@"; }
inside() {
    on
    nsenter -t "$pid" -m -u -i -n -p -T -- env -i HOME=/root \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin /bin/sh -c "$@"
}
# Kills its first process, and so all, and waits until its supervisor knows.
down() {
    on
    kill -KILL "$pid"
    for _ in $(seq 500); do
        [ "$(cat "meta/h$k.pid" 2>/dev/null)" = "$pid" ] || return 0
        sleep 0.01
    done
    die "machine $k does not end"
}
quoted() { printf "'%s'" "${1//\'/\'\\\'\'}"; }

# Notes how a command is to behave: NAME=VALUE words up to `out=`, behind which is the rest.
behave() {
    local file=own/h$k/behave/$1 how=${*:2} name
    [ -n "$how" ] || { rm -f "$file"; return; }
    while [ -n "$how" ]; do
        name=${how%%=*}
        how=${how#*=}
        case $name in
            out) echo "out=$(quoted "$how")"; how= ;;
            exit | sleep | times | offset)
                echo "$name=$(quoted "${how%% *}")"
                case $how in *' '*) how=${how#* } ;; *) how= ;; esac ;;
            *) die "a command does not behave by $name" ;;
        esac
    done >"$file.new" && chmod 666 "$file.new" && mv "$file.new" "$file"
}

fill() {
    local _ all free size
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        read -r all free size < <(stat -f -c '%b %f %S' "$disk")
        [ "$free" -gt 0 ] || return 0
        mount -o "remount,size=$(((all - free) * size))" "$disk" 2>/dev/null
    done
    die "the disk of machine $k does not fill up"
}

case $what in
    reboot) down ;;
    crash) ip link set "fv$k" down && down ;;
    off) : >"meta/h$k.off"; ip link set "fv$k" down; down ;;
    on) : >"meta/h$k.on"; kill -USR1 1 ;;
    delay) echo "$1" >"meta/h$k.delay" ;;
    partition) ip link set "fv$k" nomaster ;;
    heal) ip link set "fv$k" master fleet ;;
    blackhole) in_network ip route replace blackhole 10.77.0.1/32 ;;
    unblackhole) in_network ip route del blackhole 10.77.0.1/32 ;;
    freeze) on; kill -STOP "$pid"; nsenter -t "$pid" -p -- sh -c 'kill -STOP -1'; : ;;
    thaw) on; kill -CONT "$pid"; nsenter -t "$pid" -p -- sh -c 'kill -CONT -1'; : ;;
    fill) fill ;;
    free) mount -o "remount,size=$disk_size" "$disk" ;;
    rehost-key)
        inside 'cd /etc/ssh && rm -f new new.pub && ssh-keygen -q -t ed25519 -N "" -C "$0" -f new &&
            mv new.pub fleet_host_key.pub && mv new fleet_host_key' "h$k" && down ;;
    machine-id) inside 'echo "$0" >/etc/machine-id' "${1:?which id?}" ;;
    updates) inside 'rm -f /var/lib/fleet/upgraded; [ -z "$0" ] || echo "$0" >/var/lib/fleet/latest' "${1-}" ;;
    behave) behave "$@" ;;
    run) inside "$@" ;;
    boot-id) cat "meta/h$k.boot_id" ;;
    log) cat "own/h$k/log" ;;
    *) die "a machine does not know how to $what" ;;
esac
