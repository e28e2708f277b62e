#!/bin/sh
# The boot of a machine, before its sshd: what was staged becomes what runs, and what is enabled starts.
state=/var/lib/fleet lib=/usr/lib/fleet
mkdir -p /run/sshd /run/lock /run/fleet-units
if [ -d /usr/lib/systemd/system ]; then mkdir -p /run/systemd/system; else mkdir -p /run/openrc && : >/run/openrc/softlevel; fi
[ ! -e $lib/ostree ] || : >/run/ostree-booted
rm -f $state/needs-reboot
modules=/usr/lib/modules/$(uname -r)
[ -d "$modules" ] || mkdir -p "$modules"

if [ -e $state/packages.next ]; then
    . $lib/packages
    while read -r package; do put_in "$package"; done <$state/packages.next
    rm -f $state/packages.next
fi
if [ -e $state/staged ]; then
    mv $state/booted $state/rollback
    mv $state/staged $state/booted
    read -r version <$state/booted
    if [ -e $lib/ostree ]; then
        sed -i '/^OSTREE_VERSION=/d' /usr/lib/os-release
        printf 'OSTREE_VERSION="%s"\n' "$version" >>/usr/lib/os-release
    elif grep -q '^ID=flatcar' /usr/lib/os-release; then
        sed -i "s/^VERSION_ID=.*/VERSION_ID=\"$version\"/" /usr/lib/os-release
    fi
fi
for unit in /etc/systemd/system/*.wants/* /etc/runlevels/default/*; do
    [ ! -L "$unit" ] || : >"/run/fleet-units/${unit##*/}"
done
exit 0
