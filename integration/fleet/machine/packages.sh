# What is installed, and the tools that change it. `root` is set where it is not that of a running system, and `known`
# is the list of what is installed.
: "${root:=}" "${known:=$root/var/lib/fleet/packages}"

has() { grep -qxF -- "$1" "$known"; }
# Whether there is such a package in the world: not `no-such…`, and not what the machine was told there is none of.
exists() {
    case $1 in no-such*) return 1 ;; esac
    # Some are in a repository that a subscription brings, and that is to be enabled.
    if grep -qxF -- "$1" $lib/extras 2>/dev/null && ! grep -q extras $state/repositories 2>/dev/null; then return 1; fi
    ! grep -qxF -- "$1" /etc/fleet/unavailable 2>/dev/null
}

# The commands, and the daemons among them, that come with a package.
commands_of() {
    case $1 in
        docker | docker.io | docker-ce | moby-engine) echo "docker dockerd" ;;
        containerd | containerd.io) echo "ctr containerd" ;;
        flannel) echo flanneld ;;
        podman) echo podman ;;
        kubelet | kubernetes | kubernetes-node) echo kubelet ;;
    esac
}

unit() { printf '[Unit]\nDescription=%s\n[%s]\n%s\n[Install]\nWantedBy=%s.target\n' "$@"; }

# Adds a package, and what it brings.
put_in() {
    has "$1" || printf '%s\n' "$1" >>"$known" || return 1
    for command in $(commands_of "$1"); do
        ln -sf ../lib/fleet/tool "$root/usr/bin/$command" || return 1
        case $command in
            docker | ctr) continue ;;
            dockerd) daemon=docker ;;
            *) daemon=$command ;;
        esac
        if [ -d "$root/etc/init.d" ]; then
            printf '#!/sbin/openrc-run\ncommand=/usr/bin/%s\n' "$command" >"$root/etc/init.d/$daemon"
            continue
        fi
        units=$root/usr/lib/systemd/system
        mkdir -p "$units" || return 1
        [ "$daemon" != podman ] || unit podman Socket ListenStream=%t/podman/podman.sock sockets >"$units/podman.socket"
        unit "$daemon" Service "ExecStart=/usr/bin/$command" multi-user >"$units/$daemon.service" || return 1
    done
}

take_out() {
    grep -vxF -- "$1" "$known" >"$known.new"
    mv "$known.new" "$known" || return 1
    for command in $(commands_of "$1"); do
        case $command in dockerd) daemon=docker ;; *) daemon=$command ;; esac
        rm -f "$root/usr/bin/$command" "$root/etc/init.d/$daemon" \
            "$root/usr/lib/systemd/system/$daemon.service" "$root/usr/lib/systemd/system/$daemon.socket"
    done
}

# Splits a command line into `verb`, `words` and `yes`.
split() {
    verb= words= yes= release=
    while [ $# -gt 0 ]; do
        case $1 in
            --yes | --assumeyes | --assume-yes | --non-interactive | --noconfirm) yes=1 ;;
            -r) [ $name != zypper ] || shift ;;
            -o | -t | -c | -X | --repo | --repository | --from | --config | --enablerepo | --disablerepo | \
                --releasever | --target-release | --option) [ $# -lt 2 ] || shift ;;
            -[SRQTU]*) verb=$1 ;;
            --releasever=*) release=${1#*=} ;;
            --*) ;;
            -*y* | -n*) yes=1 ;;
            -*) ;;
            *) if [ -z "$verb" ]; then verb=$1; else words="$words ${1%%[=<>]*}"; fi ;;
        esac
        shift
    done
}

# How each tool says the same.
no_package() {
    case $name in
        apt-get | apt) die 100 "E: Unable to locate package $1" ;;
        yum) die 1 "No package $1 available.${nl}Error: Nothing to do" ;;
        zypper) die 104 "No provider of '$1' found." ;;
        pacman) die 1 "error: target not found: $1" ;;
        apk) die 1 "ERROR: unable to select packages:${nl}  $1 (no such package):${nl}    required by: world[$1]" ;;
        rpm-ostree) die 1 "error: Packages not found: $1" ;;
        transactional-update) die 1 "No provider of '$1' found.${nl}ERROR: zypper install failed with exit code 104" ;;
        *) die 1 "No match for argument: $1${nl}Error: Unable to find a match: $1" ;;
    esac
}
is_there() {
    case $name in
        apt-get | apt) say "$1 is already the newest version (1.0-1)." ;;
        zypper | transactional-update) say "'$1' is already installed." ;;
        pacman) say "warning: $1-1.0-1 is up to date -- skipping" >&2 ;;
        yum) say "Package $1-1.0-1.x86_64 already installed and latest version" ;;
        apk) ;;
        *) say "Package $1-1.0-1.x86_64 is already installed." ;;
    esac
}
nothing() {
    case $name in
        apt-get | apt) say "0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded." ;;
        pacman) say " there is nothing to do" ;;
        apk) say "OK: 10 MiB in $(grep -c . "$known") packages" ;;
        dnf) say "Dependencies resolved.${nl}Nothing to do.${nl}Complete!" ;;
        *) say "Nothing to do." ;;
    esac
}
# $1: Upgraded, Installed or Removed; the others: what.
done_with() {
    did=$1
    shift
    case $name,$did in
        apt-get,Installed | apt,Installed)
            say "The following NEW packages will be installed:${nl}  $*"
            say "0 upgraded, $# newly installed, 0 to remove and 0 not upgraded."
            for p; do say "Setting up $p (1.0-1) ..."; done ;;
        apt-get,Upgraded | apt,Upgraded)
            say "The following packages will be upgraded:${nl}  $*"
            say "$# upgraded, 0 newly installed, 0 to remove and 0 not upgraded." ;;
        apt-get,* | apt,*) say "The following packages will be REMOVED:${nl}  $*" ;;
        zypper,Installed) say "The following $# NEW packages are going to be installed:${nl}  $*" ;;
        zypper,Upgraded) say "The following $# packages are going to be upgraded:${nl}  $*" ;;
        pacman,*) say "Packages ($#) $*${nl}:: Processing package changes..." ;;
        apk,*)
            at=0
            for p; do at=$((at + 1)); say "($at/$#) $did $p (1.0-r0)"; done
            nothing ;;
        *)
            say "Dependencies resolved.${nl}$did:"
            for p; do say "  $p-1.0-1.x86_64"; done
            say "${nl}Complete!" ;;
    esac
}

# Who may change what is installed, and has said yes.
may() {
    if [ "$uid" != 0 ]; then
        case $name in
            apt-get | apt)
                die 100 "E: Could not open lock file $dpkg_lock - open (13: Permission denied)${nl}$(
                    )E: Unable to acquire the dpkg frontend lock ($dpkg_lock), are you root?" ;;
            zypper) die 5 "Root privileges are required to run this command." ;;
            pacman) die 1 "error: you cannot perform this operation unless you are root." ;;
            apk) die 99 "ERROR: Unable to lock database: Permission denied" ;;
            yum) die 1 "You need to be root to perform this command." ;;
            *) die 1 "Error: This command has to be run with superuser privileges (under the root user on most systems)." ;;
        esac
    fi
    [ ! -e $lib/image ] || case $name in
        zypper) die 8 "This is a transactional-server, please use transactional-update to update or modify the system." ;;
        dnf) die 1 "error: this bootc system is configured to be read-only. For more information, run \`bootc --help\`." ;;
    esac
}
# Asked only where something would be changed. Nobody is there to answer.
agreed() {
    [ -n "$yes" ] || [ "$name" = apk ] || case $name in
        apt-get | apt) die 1 "Do you want to continue? [Y/n] Abort." ;;
        *) die 1 "Is this ok [y/N]: ${nl}Operation aborted." ;;
    esac
}

install() {
    may
    new=
    for p in $words; do if has "$p"; then is_there "$p"; else exists "$p" || no_package "$p"; new="$new $p"; fi; done
    [ -n "$new" ] || { nothing; return; }
    agreed
    for p in $new; do put_in "$p" || full; done
    say "installed$new" >$state/last || full
    done_with Installed $new
}
remove() {
    may
    old=
    for p in $words; do ! has "$p" || old="$old $p"; done
    [ -n "$old" ] || { nothing; return; }
    agreed
    for p in $old; do take_out "$p" || full; done
    done_with Removed $old
}
upgrade() {
    may
    # To another release there is always something.
    if [ -n "$release" ] && ! grep -q "^VERSION_ID=\"$release\"" /usr/lib/os-release; then
        agreed
        sed -i "s/^VERSION_ID=.*/VERSION_ID=\"$release\"/" /usr/lib/os-release || full
        rm -f $state/upgraded
    fi
    [ ! -e $state/upgraded ] || { nothing; return; }
    agreed
    say 1 >$state/upgraded && say 1 >$state/needs-reboot && say upgraded >$state/last || full
    case $name in
        apt-get | apt) say '*** System restart required ***' >/run/reboot-required; say linux-image >/run/reboot-required.pkgs ;;
        pacman | apk) rmdir "/usr/lib/modules/$(uname -r)" ;;
    esac
    done_with Upgraded kernel openssl
    # So it says that a patch was among them which wants it.
    [ "$name $verb" != 'zypper patch' ] || exit 102
}
# Takes back what was done last.
undo() {
    may
    [ -e $state/last ] || die 1 "No transactions"
    agreed
    read -r did words <$state/last
    case $did in
        installed) for p in $words; do take_out "$p" || full; done ;;
        upgraded) rm -f $state/upgraded; say 1 >$state/needs-reboot || full ;;
    esac
    rm -f $state/last
    say "Complete!"
}
must_reboot() { [ -e $state/needs-reboot ]; }
available() { [ -e $state/upgraded ] || say "kernel.x86_64   1.1-1   updates${nl}openssl.x86_64   1.1-1   updates"; }

packages() {
    split "$@"
    case $name in
        pacman) pacman ;;
        needs-restarting) restarting ;;
        *) case $verb in
            install | in | add) install ;;
            remove | erase | autoremove | purge | rm | del) remove ;;
            upgrade | update | up | dup | dist-upgrade | full-upgrade | patch | distro-sync | system-upgrade)
                case $name,$verb in
                    apt-get,update | apt,update) [ "$uid" = 0 ] || may; say "Reading package lists..." ;;
                    apk,update) say "OK: 24000 distinct packages available" ;;
                    *) if [ -n "$words" ]; then install; else upgrade; fi ;;
                esac ;;
            check-update | check-upgrade) [ -e $state/upgraded ] || { available; exit 100; } ;;
            list-updates | lu) available ;;
            history) case $words in *undo*) undo ;; esac ;;
            needs-restarting) restarting ;;
            needs-rebooting) ! must_reboot || { say "Reboot is required."; exit 102; } ;;
            info) for p in $words; do has "$p" && say "$p" || exit 1; done ;;
            list | search | se)
                for p in $words; do
                    has "$p" || die 1 "Error: No matching Packages to list"
                    say "$p.x86_64 1.0-1 @System"
                done ;;
            version) available ;;
        esac ;;
    esac
}

restarting() { ! must_reboot || { say "Reboot is required to fully utilize these updates."; exit 1; }; }

pacman() {
    case $verb in
        -Q*u*) [ ! -e $state/upgraded ] || exit 1; say "linux 1.0-1 -> 1.1-1" ;;
        -Q*) for p in $words; do has "$p" && say "$p 1.0-1" || die 1 "error: package '$p' was not found"; done ;;
        -T) for p in $words; do has "$p" || { say "$p"; code=127; }; done; exit "${code:-0}" ;;
        -R*) remove ;;
        -S*u*) upgrade; [ -z "$words" ] || install ;;
        -S*) [ -z "$words" ] || install ;;
    esac
}
