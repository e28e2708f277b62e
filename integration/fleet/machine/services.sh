# Services, and the end of the system. What runs is a file in /run/fleet-units, `failed` in it where it has failed.

running=/run/fleet-units wanted=/etc/systemd/system
mkdir -p $running 2>/dev/null
[ $name != rc-update ] && [ $name != rc-service ] || wanted=/etc/runlevels

# The file that says what a unit is.
file_of() {
    for place in /etc/systemd/system /run/systemd/system /usr/lib/systemd/system /etc/init.d; do
        [ ! -f "$place/$1" ] || { printf %s "$place/$1"; return; }
    done
    return 1
}
active() { [ -e "$running/$1" ] && [ ! -s "$running/$1" ]; }
enabled() { [ -e "$wanted/multi-user.target.wants/$1" ] || [ -e "$wanted/sockets.target.wants/$1" ] || [ -e "$wanted/default/$1" ]; }
# Starts what is known. It fails when its program is not there, or is told to fail.
begin() {
    file=$(file_of "$1") || return 5
    program=$(sed -n 's/^ExecStart=[-@+!]*//p; s/^command=//p' "$file" | head -n 1)
    program=${program%% *}
    exit= sleep=
    [ ! -f "$own/behave/${program##*/}" ] || . "$own/behave/${program##*/}"
    [ -z "$sleep" ] || sleep "$sleep"
    if { [ -n "$program" ] && [ ! -x "$program" ]; } || [ "${exit:-0}" != 0 ]; then
        echo failed >"$running/$1"
        return 1
    fi
    : >"$running/$1"
}
leave() { # the number that reboot(2) wants
    [ "$uid" = 0 ] || die 1 "Call to Reboot failed: Interactive authentication required."
    case $(uname -m) in x86_64) number=169 ;; *) number=142 ;; esac
    setsid sh -c "sleep ${2:-0.2}; exec perl -e 'syscall($number, 0xfee1dead, 672274793, $1)'" >/dev/null 2>&1 </dev/null &
}
again() { leave 0x01234567 "$@"; }
off() { leave 0x4321fedc "$@"; }
authorized() { [ "$uid" = 0 ] || die 1 "Failed to $verb $1: Interactive authentication required."; }

job_failed() { say "Job for $unit failed because the control process exited with error code." >&2; }

systemctl() {
    verb= units= quiet= now= value= properties=
    while [ $# -gt 0 ]; do
        case $1 in
            --quiet | -q) quiet=1 ;;
            --now) now=1 ;;
            --value) value=1 ;;
            --property=*) properties=${1#*=} ;;
            -p | --property) properties=${2-}; shift ;;
            --version) say "systemd 252 (252.39)"; exit ;;
            -*) ;;
            *) if [ -z "$verb" ]; then verb=$1; else
                case $1 in *.*) units="$units $1" ;; *) units="$units $1.service" ;; esac
            fi ;;
        esac
        shift
    done
    tell() { [ -n "$quiet" ] || say "$@"; }
    code=0
    case $verb in
        reboot | kexec) again; exit ;;
        poweroff | halt) off; exit ;;
        is-system-running)
            for unit in "$running"/*; do [ ! -s "$unit" ] || { tell degraded; exit 1; }; done
            tell running
            exit ;;
        daemon-reload | daemon-reexec | reset-failed)
            [ "$uid" = 0 ] || die 1 "Failed to reload daemon: Interactive authentication required."
            [ $verb != reset-failed ] || find "$running" -size +0 -delete
            exit ;;
        list-jobs) say "No jobs running."; exit ;;
        list-units)
            for unit in "$running"/*; do [ ! -s "$unit" ] || say "● ${unit##*/} loaded failed failed"; done
            exit ;;
        is-active | is-failed) code=3; [ $verb = is-active ] || code=1 ;;
    esac
    for unit in $units; do case $verb in
        start | restart | reload-or-restart | try-restart | reload)
            authorized "$unit"
            [ $verb != try-restart ] || active "$unit" || continue
            begin "$unit"
            case $? in
                5) say "Failed to $verb $unit: Unit $unit not found." >&2; code=5 ;;
                1)
                    job_failed
                    say "See \"systemctl status $unit\" and \"journalctl -xeu $unit\" for details." >&2
                    code=1 ;;
            esac ;;
        stop | kill)
            authorized "$unit"
            file_of "$unit" >/dev/null || { say "Failed to $verb $unit: Unit $unit not loaded." >&2; code=5; continue; }
            rm -f "$running/$unit" ;;
        enable | disable | reenable)
            authorized "$unit"
            file=$(file_of "$unit") || { say "Failed to $verb unit: Unit file $unit does not exist." >&2; code=1; continue; }
            case $unit in *.socket) by=sockets ;; *) by=multi-user ;; esac
            link=$wanted/$by.target.wants/$unit
            if [ $verb = disable ]; then
                [ ! -L "$link" ] || { rm -f "$link"; tell "Removed \"$link\"." >&2; }
                [ -z "$now" ] || rm -f "$running/$unit"
                continue
            fi
            if ! enabled "$unit"; then
                mkdir -p "${link%/*}"
                ln -s "$file" "$link" || die 1 "Failed to enable unit: No space left on device"
                tell "Created symlink $link → $file." >&2
            fi
            [ -z "$now" ] || begin "$unit" || { job_failed; code=1; } ;;
        is-active)
            if active "$unit"; then tell active; code=0
            elif [ -s "$running/$unit" ]; then tell failed; else tell inactive; fi ;;
        is-failed)
            if [ -s "$running/$unit" ]; then tell failed; code=0
            elif active "$unit"; then tell active; else tell inactive; fi ;;
        is-enabled)
            if enabled "$unit"; then tell enabled
            elif file_of "$unit" >/dev/null; then tell disabled; code=1
            else tell "Failed to get unit file state for $unit: No such file or directory" >&2; code=1; fi ;;
        status)
            file_of "$unit" >/dev/null || { say "Unit $unit could not be found." >&2; code=4; continue; }
            if active "$unit"; then say "● $unit${nl}     Active: active (running)"
            else say "○ $unit${nl}     Active: inactive (dead)"; code=3; fi ;;
        cat) cat "$(file_of "$unit")" 2>/dev/null || { say "No files found for $unit." >&2; code=1; } ;;
        show)
            loaded=not-found state=inactive sub=dead listed=
            if file_of "$unit" >/dev/null; then loaded=loaded listed=disabled; fi
            ! enabled "$unit" || listed=enabled
            if active "$unit"; then state=active sub=running; elif [ -s "$running/$unit" ]; then state=failed sub=failed; fi
            for property in $(printf %s "${properties:-LoadState,ActiveState,SubState,UnitFileState}" | tr , ' '); do
                case $property in
                    LoadState) is=$loaded ;; ActiveState) is=$state ;;
                    SubState) is=$sub ;; UnitFileState) is=$listed ;; *) is= ;;
                esac
                if [ -n "$value" ]; then say "$is"; else say "$property=$is"; fi
            done ;;
    esac; done
    exit $code
}

# Runs a command in the background, later where asked.
systemd_run() {
    rest=0 waits=
    while [ $# -gt 0 ]; do
        case $1 in
            --on-active=* | --on-boot=*) rest=${1#*=} ;;
            --wait | --pipe | -P) waits=1 ;;
            -u | --unit | -p | --property | -E | --setenv | --on-active) [ "$1" != --on-active ] || rest=$2; shift ;;
            --) shift; break ;;
            -*) ;;
            *) break ;;
        esac
        shift
    done
    verb=start; authorized "transient service unit"
    [ -z "$waits" ] || exec "$@"
    say "Running as unit: run-u1.service" >&2
    # The command line is handed on as it is.
    setsid sh -c 'sleep "$0"; exec "$@"' "${rest%%[!0-9.]*}" "$@" >/dev/null 2>&1 </dev/null &
}

rc_service() {
    unit=$1 verb=${2-status}
    file_of "$unit" >/dev/null || die 1 "rc-service: service \`$unit' does not exist"
    case $verb in
        start | restart)
            authorized "$unit"
            begin "$unit" || die 1 " * ERROR: $unit failed to start"
            say " * Starting $unit ... [ ok ]" ;;
        stop) authorized "$unit"; rm -f "$running/$unit" ;;
        status) if active "$unit"; then say " * status: started"; else say " * status: stopped"; exit 3; fi ;;
    esac
}

case $name in
    systemctl) systemctl "$@" ;;
    systemd-run) systemd_run "$@" ;;
    rc-service)
        while :; do case ${1-} in -*) shift ;; *) break ;; esac; done
        rc_service "$@" ;;
    rc-update) case ${1-} in
        add | del | delete)
            verb=$1; authorized "${2-}"
            file_of "$2" >/dev/null || die 1 " * rc-update: service \`$2' does not exist"
            mkdir -p $wanted/default
            if [ $verb != add ]; then rm -f "$wanted/default/$2"
            elif enabled "$2"; then say " * rc-update: $2 already installed in runlevel \`default'; skipping"
            else ln -s "/etc/init.d/$2" "$wanted/default/$2" || full; say " * service $2 added to runlevel default"; fi ;;
        *) for link in $wanted/default/*; do [ ! -L "$link" ] || say "  ${link##*/} | default"; done ;;
    esac ;;
    reboot) again ;;
    poweroff | halt) off ;;
    shutdown) rest=0.2
        for word; do case $word in +[0-9]*) rest=$((${word#+} * 60)) ;; esac; done
        case "$*" in *-r*) again "$rest" ;; *-c*) ;; *) off "$rest" ;; esac ;;
esac
