# What is on the disks of machines from the beginning, in layers below what each writes: one that all have, above the
# real machine's system, and one for each persona. Sourced by hosts.sh, in the folder of the layers.

# What a machine of this persona is: ID, VERSION_ID, NAME, ID_LIKE and a further line of its os-release; how it begins;
# its tools; what is installed. An `image` is not changed by packages but replaced as a whole.
personas='
fedora   | fedora           | 42       | Fedora Linux |  |  | systemd | dnf rpm getenforce |
centos   | centos           | 9        | CentOS Stream | rhel fedora |  | systemd | dnf yum rpm needs-restarting getenforce |
rhel     | rhel             | 9.4      | Red Hat Enterprise Linux | fedora |  | systemd | dnf yum rpm needs-restarting subscription-manager getenforce |
rhel7    | rhel             | 7.9      | Red Hat Enterprise Linux Server | fedora |  | systemd | yum rpm needs-restarting subscription-manager getenforce |
coreos   | fedora           | 42       | Fedora Linux |  | VARIANT_ID=coreos | systemd image | rpm-ostree rpm getenforce | moby-engine containerd podman flannel
atomic   | rhel             | 7.9      | Red Hat Enterprise Linux Atomic Host | fedora | VARIANT_ID=atomic.host | systemd image | rpm-ostree atomic rpm subscription-manager getenforce | docker podman flannel
bootc    | centos           | 10       | CentOS Stream | rhel fedora | VARIANT_ID=bootc | systemd image | bootc rpm-ostree dnf rpm getenforce | docker-ce containerd.io podman flannel
debian   | debian           | 12       | Debian GNU/Linux |  |  | systemd | apt-get apt apt-cache dpkg dpkg-query |
ubuntu   | ubuntu           | 24.04    | Ubuntu | debian |  | systemd | apt-get apt apt-cache dpkg dpkg-query |
flatcar  | flatcar          | 4081.2.0 | Flatcar Container Linux by Kinvolk | coreos |  | systemd image | update_engine_client flatcar-update | docker containerd podman flannel
opensuse | opensuse-leap    | 15.6     | openSUSE Leap | suse opensuse |  | systemd | zypper rpm |
microos  | opensuse-microos | 20260101 | openSUSE MicroOS | suse opensuse |  | systemd image | transactional-update zypper rpm | podman
arch     | arch             | rolling  | Arch Linux |  |  | systemd | pacman |
alpine   | alpine           | 3.22.1   | Alpine Linux |  |  | openrc | apk |
'

# This directory holds nothing but what is put there.
only() { mkdir -p "$@" && opaque+=("$@"); }
# There is no such file, whatever the real machine has.
without() {
    local path
    for path; do
        if [ -e "/${path#*/}" ] || [ -L "/${path#*/}" ]; then [ -e "$path" ] || mknod "$path" c 0 0; fi
    done
}
# These commands are there, and stand-ins.
tools() { local layer=$1 tool; shift; for tool; do ln -sf ../lib/fleet/tool "$layer/usr/bin/$tool"; done; }

common() {
    local file user at=2000 opaque=()
    mkdir -p common/usr/{bin,sbin,lib/fleet} common/etc/fleet
    for file in tool boot packages queries services images; do
        cp "$here/machine/$file.sh" "common/usr/lib/fleet/$file"
    done
    chmod 755 common/usr/lib/fleet/{tool,boot}
    cp "$(command -v date)" common/usr/lib/fleet/date

    # Of the real machine no more is seen than a system that was just installed.
    for file in /* /.[!.]*; do
        file=${file#/}
        case $file in
            bin | etc | lib* | proc | run | sbin | sys | tmp | usr) ;;
            boot | dev | home | media | mnt | opt | root | srv | var) only "common/$file" ;;
            *) without "common/$file" ;;
        esac
    done
    only common/{dev,home,root,var} common/etc/{ssh,sudoers.d,systemd} common/usr/local common/usr/lib/{systemd/system,modules}
    without common/etc/{docker,containers,containerd,kubernetes,flannel,etcd,sysconfig,default,init.d}
    (cd / && compgen -G 'usr/*bin/python*') | while read -r file; do without "common/$file"; done
    for file in docker dockerd podman containerd ctr runc crun flanneld kubelet kubectl rpm snap; do
        without "common/usr/bin/$file" "common/usr/sbin/$file"
    done
    mkdir -p common/usr/lib/modules/"$(uname -r)" common/usr/local/{bin,sbin} \
        common/var/{cache,empty,log,spool,tmp,lib/fleet} common/etc/systemd/system/multi-user.target.wants
    ln -s /run common/var/run; ln -s /run/lock common/var/lock; chmod 1777 common/var/tmp; chmod 700 common/root
    ln -s /run/fleet/log common/var/log/fleet-cmd.log
    ln -sf ../usr/lib/os-release common/etc/os-release
    without common/etc/debian_version common/etc/apt

    (cd common/dev && mkdir pts shm && chmod 1777 shm && ln -s pts/ptmx ptmx && ln -s /proc/self/fd fd &&
        ln -s fd/0 stdin && ln -s fd/1 stdout && ln -s fd/2 stderr &&
        mknod -m 666 null c 1 3 && mknod -m 666 zero c 1 5 && mknod -m 666 full c 1 7 &&
        mknod -m 666 random c 1 8 && mknod -m 666 urandom c 1 9 && mknod -m 666 tty c 5 0) || die "no devices"

    # Besides root: one who may all, one who may all with a password, one who may nothing.
    awk -F: '$3 < 1000 && $3 > 0 || $1 == "nobody"' /etc/passwd >common/etc/passwd
    awk -F: '$3 < 1000 || $1 == "nogroup"' /etc/group >common/etc/group
    awk -F: '{ print $1 ":*:19000::::::" }' common/etc/passwd >common/etc/shadow
    echo 'root:x:0:0:root:/root:/bin/bash' >>common/etc/passwd
    echo 'root:*:19000::::::' >>common/etc/shadow
    local home=/home hash
    hash=$(openssl passwd -6 s3cr3t-sudo)
    for user in fleet guarded plain; do
        echo "$user:x:$at:$at::$home/$user:/bin/bash" >>common/etc/passwd
        echo "$user:x:$at:" >>common/etc/group
        if [ "$user" = fleet ]; then echo "$user:*:19000::::::"; else echo "$user:$hash:19000::::::"; fi \
            >>common/etc/shadow
        mkdir -m 700 "common$home/$user"; chown "$at:$at" "common$home/$user"
        at=$((at + 1))
    done
    chmod 640 common/etc/shadow; chgrp shadow common/etc/shadow 2>/dev/null
    printf '%s\n' 'Defaults env_reset' 'Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"' \
        'root ALL=(ALL:ALL) ALL' 'fleet ALL=(ALL:ALL) NOPASSWD: ALL' 'guarded ALL=(ALL:ALL) ALL' >common/etc/sudoers
    chmod 440 common/etc/sudoers

    cp "$folder/key.pub" common/etc/fleet/authorized_keys
    cat >common/etc/ssh/sshd_config <<'END'
AddressFamily inet
HostKey /etc/ssh/fleet_host_key
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PidFile none
StrictModes no
AuthorizedKeysFile /etc/fleet/authorized_keys .ssh/authorized_keys
Subsystem sftp /usr/lib/openssh/sftp-server
MaxStartups 200:30:400
MaxSessions 50
LogLevel VERBOSE
END
    # Newer ones punish an address from which logins fail: here all come from one.
    local version
    version=$(ssh -V 2>&1 | sed 's/^OpenSSH_\([0-9]*\)\.\([0-9]*\).*/\1 \2/')
    [ "$(printf '%d%02d' $version)" -lt 908 ] || echo 'PerSourcePenalties no' >>common/etc/ssh/sshd_config
    { echo '127.0.0.1 localhost'; for ((at = 0; at < count; at++)); do echo "$(address $at) h$at"; done; } >common/etc/hosts

    tools common systemctl systemd-run date
    for file in reboot shutdown poweroff halt; do ln -s ../lib/fleet/tool "common/usr/sbin/$file"; done
    for file in sshd ssh; do
        printf '[Service]\nExecStart=/usr/sbin/sshd -D\n[Install]\nWantedBy=multi-user.target\n' \
            >"common/usr/lib/systemd/system/$file.service"
        ln -s "/usr/lib/systemd/system/$file.service" common/etc/systemd/system/multi-user.target.wants/
    done
    perl -MPOSIX -e '$n = (POSIX::uname())[4] eq "aarch64" ? 5 : 188; ($k, $v) = ("trusted.overlay.opaque", "y");
        for (@ARGV) { my $p = $_; syscall($n, $p, $k, $v, 1, 0) == 0 or die "$p: $!\n" }' "${opaque[@]}" ||
        die "a layer cannot hide what is below"
}

# The layer of a persona.
layer() {
    local name=$1 id version pretty like more flags tools installed package
    IFS='|' read -r _ id version pretty like more flags tools installed < <(grep "^$name *|" <<<"$personas")
    [ -n "$id" ] || die "there is no persona $name"
    read -r id <<<"$id"; read -r version <<<"$version"; read -r pretty <<<"$pretty"; read -r like <<<"$like"
    read -r more <<<"$more"
    mkdir -p "$name"/usr/{bin,sbin,lib/fleet} "$name/var/lib/fleet" "$name/etc"
    { printf 'NAME="%s"\nID=%s\nVERSION_ID="%s"\nPRETTY_NAME="%s"\n' "$pretty" "$id" "$version" "$pretty $version"
      [ -z "$like" ] || printf 'ID_LIKE="%s"\n' "$like"; [ -z "$more" ] || echo "$more"; } >"$name/usr/lib/os-release"
    case $id in debian | ubuntu) ;; *) without "$name"/usr/bin/{apt,apt-get,apt-cache,apt-mark,dpkg,dpkg-query} ;; esac
    tools "$name" $tools
    case $id in
        debian | ubuntu)
            mkdir -p "$name"/etc/{default,apt/{apt.conf.d,keyrings,sources.list.d}}
            echo "$version" >"$name/etc/debian_version" ;;
        fedora | rhel | centos)
            mkdir -p "$name"/etc/{sysconfig,default}
            echo "$pretty release $version" >"$name/etc/redhat-release" ;;
        opensuse*) mkdir -p "$name"/etc/{sysconfig,default} ;;
        alpine) echo "$version" >"$name/etc/alpine-release" ;;
    esac
    case $flags in *openrc*)
        tools "$name" rc-service rc-update
        mkdir -p "$name/etc/init.d"
        # What all have, and this one has not.
        mknod "$name/usr/bin/systemctl" c 0 0; mknod "$name/usr/bin/systemd-run" c 0 0
        mknod "$name/etc/systemd" c 0 0; mknod "$name/usr/lib/systemd" c 0 0
    esac
    root=$name known=$name/var/lib/fleet/packages
    printf '%s\n' bash coreutils openssh-server openssh sudo >"$known"
    for package in $installed; do put_in "$package"; done
    case $flags in *image*)
        : >"$name/usr/lib/fleet/image"
        case $name in flatcar) echo "$version" ;; microos) echo 1 ;; *) echo 40.1 ;; esac >"$name/var/lib/fleet/booted"
        case $name in flatcar) echo 4152.2.0 ;; microos) echo 2 ;; *) echo 41.1 ;; esac >"$name/var/lib/fleet/latest"
    esac
    case $name in
        coreos | atomic | bootc) : >"$name/usr/lib/fleet/ostree" ;;
        rhel7) printf '%s\n' docker flannel >"$name/usr/lib/fleet/extras" ;;
    esac
}

. "$here/machine/packages.sh"
layers() {
    local persona
    mkdir -p layers && cd layers || die "no folder for layers"
    common
    for persona in $(tr ', ' '\n\n' <<<"$1" | sort -u); do layer "$persona"; done
    cd ..
}
