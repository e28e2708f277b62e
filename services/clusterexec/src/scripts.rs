//! What is run on hosts.

/// Runs `$COMMAND` once for `$TOKEN`: whoever comes again, after a connection that broke or an instance that died, is told
/// how it ended. To be run alone.
pub(crate) const ONCE: &str = r#"folder=/var/lib/commissaire
note=$folder/operation
if [ -f "$note" ] && [ "$(sed -n 1p "$note")" = "$TOKEN" ]; then
    status=$(sed -n 2p "$note")
    sed 1,2d "$note"
    exit "$status"
fi
mkdir -p "$folder" || exit
said=$(mktemp /run/commissaire.XXXXXX) || exit
( unset TOKEN; exec sh -c "$COMMAND" ) >"$said" 2>&1
status=$?
new=$(mktemp "$folder/operation.XXXXXX") || exit
{ echo "$TOKEN"; echo "$status"; tail -c 8192 "$said"; } >"$new" && { sync "$new" 2>/dev/null || sync; } && mv -f "$new" "$note" || exit
cat "$said"
rm -f "$said"
exit "$status""#;

/// Has the host reboot by `$REBOOT`, once for `$TOKEN` in one boot; returns before it does. To be run alone.
pub(crate) const REBOOT: &str = r#"note=/run/commissaire.reboot
[ "$(cat "$note" 2>/dev/null)" != "$TOKEN" ] || exit 0
echo "$TOKEN" >"$note" || exit
if command -v systemd-run >/dev/null 2>&1 &&
    systemd-run --quiet --collect --on-active=1 -- sh -c "$REBOOT" >/dev/null 2>&1; then
    exit 0
fi
setsid sh -c 'sleep 1; eval "$REBOOT"' </dev/null >/dev/null 2>&1 &
exit 0"#;

/// Which boot it is in.
pub(crate) const BOOT: &str = "cat /proc/sys/kernel/random/boot_id";

/// Says what of `$UNITS`, `$DEGRADED` and `$GATE` does not hold; ends with 75 when that may be so for a moment only.
pub(crate) const GATES: &str = r#"if command -v systemctl >/dev/null 2>&1; then
    state=$(systemctl is-system-running 2>/dev/null)
    case $state in
        running | '' | offline | unknown) ;;
        degraded) [ "$DEGRADED" = yes ] || { echo "the system is degraded: $(systemctl --failed --no-legend --plain 2>/dev/null | awk '{ print $1 }' | head -n 5 | paste -sd' ' -)"; exit 75; } ;;
        *) echo "the system is $state"; exit 75 ;;
    esac
    for unit in $UNITS; do
        systemctl is-active --quiet "$unit" || { echo "$unit does not run"; exit 75; }
    done
elif command -v rc-service >/dev/null 2>&1; then
    for unit in $UNITS; do
        rc-service "${unit%.service}" status >/dev/null 2>&1 || { echo "$unit does not run"; exit 75; }
    done
fi
[ -z "$GATE" ] || said=$(sh -c "$GATE" 2>&1) || { echo "the gate's command ended with $?: $(echo "$said" | tail -n 1)"; exit 75; }"#;
