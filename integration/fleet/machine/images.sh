# Systems that are replaced as a whole: what is staged now is what is booted next, and can be gone back from.

now() { cat $state/booted; }
next() { cat $state/staged 2>/dev/null; }
before() { cat $state/rollback 2>/dev/null; }
latest() { cat $state/latest; }
stage() { say "$1" >$state/staged || full; : >/run/reboot-needed; }
# Packages that are asked for are there after the next boot.
ask_for() {
    new=
    for p in $words; do
        if has "$p"; then is_there "$p"; continue; fi
        if grep -qxF -- "$p" $state/packages.next 2>/dev/null; then
            case "$*" in *--idempotent*) continue ;; esac
            [ $name != rpm-ostree ] || die 1 "error: Package/capability '$p' is already requested"
            continue
        fi
        exists "$p" || no_package "$p"
        new="$new $p"
    done
    for p in $new; do say "$p" >>$state/packages.next || full; done
    [ -n "$new" ]
}

case "$name $*" in
    *status* | *--check* | *-version* | *--help*) ;;
    *) [ "$uid" = 0 ] || die 1 "error: $name: this command requires root privileges" ;;
esac

deployment() { # version, booted, staged
    asked=$(sed 's/.*/"&"/' $state/packages.next 2>/dev/null | paste -sd,)
    printf '{"version":"%s","checksum":"%s","origin":"fleet:stable","booted":%s,"staged":%s,"requested-packages":[%s]}' \
        "$1" "$(printf %s "$1" | sha256sum | cut -d' ' -f1)" "$2" "$3" "${asked}"
}
of_image() { # version or reference
    case $1 in
        '') printf null; return ;;
        */*) reference=$1 tag=${1##*:} ;;
        *) reference=quay.io/fleet/os:stable tag=$1 ;;
    esac
    printf '{"image":{"image":{"image":"%s","transport":"registry"},"version":"%s","imageDigest":"sha256:%s"}}' \
        "$reference" "$tag" "$(printf %s "$1" | sha256sum | cut -d' ' -f1)"
}

new_snapshot() {
    say "New default snapshot is #$(next) (/.snapshots/$(next)/snapshot)."
    say "Please reboot your machine to activate the changes and avoid data loss."
}

split "$@"
set -f
case $name in
    rpm-ostree | atomic) case $verb in
        status) case "$*" in
            *--json*)
                printf '{"deployments":['
                [ -z "$(next)" ] || { deployment "$(next)" false true; printf ,; }
                deployment "$(now)" true false
                [ -z "$(before)" ] || { printf ,; deployment "$(before)" false false; }
                printf '],"transaction":null}\n' ;;
            *) say "State: idle${nl}Deployments:${nl}● fleet:stable${nl}    Version: $(now)" ;;
        esac ;;
        upgrade | update | host)
            if [ "$(now)" = "$(latest)" ] || [ "$(next)" = "$(latest)" ]; then
                say "No upgrade available."
                case "$*" in *--unchanged-exit-77*) exit 77 ;; esac
            else
                case "$*" in *--check* | *--preview*) say "AvailableUpdate:${nl}    Version: $(latest)"; exit ;; esac
                stage "$(latest)"
                say "Staging deployment... done${nl}Run \"systemctl reboot\" to start a reboot"
            fi
            case " $* " in *" --reboot "* | *" -r "*) systemctl reboot ;; esac ;;
        deploy | rebase)
            set -- $words
            [ -n "${1-}" ] || die 1 "error: no version given"
            exists "$1" || die 1 "error: No such version: $1"
            if [ "$(now)" = "$1" ] && [ -z "$(next)" ]; then say "Already at version $1; no change."; exit; fi
            stage "$1"
            say "Staging deployment $1... done" ;;
        rollback)
            [ -n "$(before)" ] || die 1 "error: No rollback deployment found"
            stage "$(before)"
            say "Moving '$(before)' to be first deployment" ;;
        cleanup | cancel) rm -f $state/staged $state/packages.next ;;
        install)
            if ask_for "$@"; then
                case "$*" in
                    *--apply-live* | *-A*)
                        mount -o remount,bind,rw /usr
                        for p in $new; do
                            put_in "$p" || full
                            sed -i "/^$p\$/d" $state/packages.next
                        done
                        mount -o remount,bind,ro /usr ;;
                    *) [ -n "$(next)" ] || stage "$(now)" ;;
                esac
                say "Staging deployment... done${nl}Added:"
                for p in $new; do say "  $p-1.0-1.x86_64"; done
            else
                say "No change."
            fi ;;
    esac ;;
    bootc) case $verb in
        status)
            printf '{"apiVersion":"org.containers.bootc/v1","kind":"BootcHost","metadata":{"name":"host"},'
            printf '"status":{"staged":%s,"booted":%s,"rollback":%s}}\n' \
                "$(of_image "$(next)")" "$(of_image "$(now)")" "$(of_image "$(before)")" ;;
        upgrade | update)
            if [ "$(now)" = "$(latest)" ] || [ "$(next)" = "$(latest)" ]; then
                say "No changes in: quay.io/fleet/os:stable"
                exit
            fi
            case "$*" in *--check*)
                say "Update available for: quay.io/fleet/os:stable${nl}  Version: $(latest)"
                exit ;;
            esac
            stage "$(latest)"
            say "Queued for next boot: quay.io/fleet/os:stable${nl}  Version: $(latest)"
            case "$*" in *--apply*) systemctl reboot ;; esac ;;
        switch)
            set -- $words
            exists "${1:?}" || die 1 "ERROR Switching: Pulling: no such image: $1"
            if [ "$(now)" = "$1" ]; then say "Image specification is unchanged."; exit; fi
            stage "$1"
            say "Queued for next boot: $1" ;;
        rollback)
            [ -n "$(before)" ] || die 1 "error: No rollback available"
            stage "$(before)"
            say "Next boot: rollback deployment" ;;
    esac ;;
    transactional-update) case " $verb $words " in
        *" rollback "*)
            [ -n "$(before)" ] || die 1 "ERROR: no snapshot to go back to"
            stage "$(before)"
            say "Rollback to snapshot $(before)..." ;;
        *" reboot "*) systemctl reboot ;;
        *" pkg "*)
            words=${words#* } words=${words# }
            words=${words#in } words=${words#install }
            if ask_for; then
                [ -n "$(next)" ] || stage $(($(now) + 1))
                say "Calling zypper --no-cd install"
                new_snapshot
            else
                say "Nothing to do.${nl}zypper: nothing to update"
            fi ;;
        *)
            if [ -e $state/upgraded ]; then
                say "zypper: nothing to update${nl}Removing snapshot #$(($(now) + 1))..."
                exit
            fi
            say 1 >$state/upgraded || full
            stage $(($(now) + 1))
            new_snapshot ;;
    esac ;;
    update_engine_client | flatcar-update)
        to= operation=UPDATE_STATUS_IDLE
        [ -z "$(next)" ] || operation=UPDATE_STATUS_UPDATED_NEED_REBOOT
        case $name,"$*" in
            update_engine_client,*-status*)
                say "LAST_CHECKED_TIME=1${nl}PROGRESS=0.000000${nl}CURRENT_OP=$operation${nl}NEW_VERSION=$(next)${nl}NEW_SIZE=0"
                exit ;;
            *-reset_status*) rm -f $state/staged; exit ;;
            flatcar-update,*)
                while [ $# -gt 0 ]; do case $1 in --to-version | -V) to=${2-} ;; esac; shift; done
                [ -n "$to" ] || die 1 "Error: --to-version must be specified"
                exists "$to" || die 1 "Error: could not download the update payload" ;;
            *) to=$(latest) ;;
        esac
        if [ "$(now)" = "$to" ]; then say "No update available"; exit; fi
        stage "$to"
        say "Update applied to $to, needs a reboot: UPDATE_STATUS_UPDATED_NEED_REBOOT" ;;
esac
