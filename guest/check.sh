#!/usr/bin/env bash
# Boots the demo guest under TCG as the product does, and fails unless it does what its README says.
# Needs QEMU and mtools besides what build.sh needs. Every wait is for an event and has a limit.
set -euo pipefail

guest=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin
for tool in qemu-system-x86_64:qemu-system-x86 mformat:mtools; do
    command -v "${tool%:*}" >/dev/null ||
        { echo "guest/check.sh: no ${tool%:*}; install it with: sudo apt-get install ${tool#*:}" >&2 && exit 1; }
done

dir=$(mktemp -d)
pid=
cleanup() {
    [[ -z $pid ]] || kill -KILL "$pid" 2>/dev/null || true
    rm -rf "$dir"
}
trap cleanup EXIT
fail() {
    echo "FAILED: $*" >&2
    echo "--- the end of the serial log" >&2
    tail -n 20 "$dir/serial.log" >&2
    exit 1
}

# boot VARIANT [QEMU-ARGUMENT…]: a throw-away overlay of the image, its ports on pipes
boot() {
    local port variant=$1 image
    shift
    image=$("$guest/build.sh" --variant "$variant")
    image=${image##*$'\n'}
    rm -f "$dir/disk.qcow2" "$dir"/*.in "$dir"/*.out
    qemu-img create -q -f qcow2 -F qcow2 -b "$image" "$dir/disk.qcow2"
    for port in serial agent qmp; do mkfifo "$dir/$port.in" "$dir/$port.out"; done
    # Opened for both directions, so that neither side waits for the other to open.
    exec {serial}<>"$dir/serial.out" {agent}<>"$dir/agent.out" {qmp}<>"$dir/qmp.out"
    exec {keys}<>"$dir/serial.in" {ask}<>"$dir/agent.in" {command}<>"$dir/qmp.in"
    rest= started=${EPOCHREALTIME/./}
    : > "$dir/serial.log"
    qemu-system-x86_64 -nodefaults -no-user-config -machine q35,accel=tcg -cpu max -smp 1 -m 128 \
        -device VGA -display none -device vmgenid,guid=auto \
        -drive "file=$dir/disk.qcow2,if=none,id=disk,format=qcow2" -device virtio-blk-pci,drive=disk,bootindex=0 \
        -chardev "pipe,id=serial,path=$dir/serial,logfile=$dir/serial.log" -device isa-serial,chardev=serial \
        -device virtio-serial-pci -chardev "pipe,id=agent,path=$dir/agent" \
        -device virtserialport,chardev=agent,name=org.qemu.guest_agent.0 \
        -netdev user,id=net,restrict=on -device virtio-net-pci,netdev=net,romfile= \
        -chardev "pipe,id=qmp,path=$dir/qmp" -mon chardev=qmp,mode=control \
        -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny "$@" &
    pid=$!
}

# expect FD SECONDS REGEX: reads until REGEX matches a line, or the start of one; the match is in BASH_REMATCH
expect() {
    local fd=$1 end=$((${EPOCHREALTIME/./} + $2 * 1000000)) part complete
    while ((${EPOCHREALTIME/./} < end)); do
        complete=1
        IFS= read -r -t 1 -u "$fd" part 2>/dev/null || complete=
        rest+=$part
        [[ ! $rest =~ $3 ]] || { [[ -z $complete ]] || rest=; return 0; }
        [[ -z $complete ]] || rest=
        kill -0 "$pid" 2>/dev/null || fail "QEMU ended while waiting for /$3/"
    done
    fail "nothing matched /$3/ within $2 s"
}
since_start() { local us=$((${EPOCHREALTIME/./} - started)); printf '%d.%02d s' $((us / 1000000)) $((us % 1000000 / 10000)); }

line='^offshoot-guest nonce=([0-9a-f]{16}) tick=([0-9]+) host=([A-Za-z0-9.-]+)'$'\r''?$'

# ticks RATE HOST: one second of ticks without a hole that comes at the rate; a busy host gets 20 tries
ticks() {
    local try from begin took nonce
    for try in {1..20}; do
        expect "$serial" 30 "$line"
        [[ ${BASH_REMATCH[3]} == "$2" ]] || fail "the host is called ${BASH_REMATCH[3]}, not $2"
        nonce=${BASH_REMATCH[1]} from=${BASH_REMATCH[2]} begin=${EPOCHREALTIME/./}
        for ((n = from + 1; n <= from + $1; n++)); do
            expect "$serial" 30 "$line"
            [[ ${BASH_REMATCH[1]} == "$nonce" ]] || fail "the nonce changed from $nonce to ${BASH_REMATCH[1]}"
            # A kernel message may tear a line; then the count goes on at the next whole one.
            ((BASH_REMATCH[2] == n)) || continue 2
        done
        took=$(((${EPOCHREALTIME/./} - begin) / 1000))
        if ((took > 950 && took < 1250)); then
            echo "ok: $1 ticks of $2 in $took ms"
            return
        fi
    done
    fail "never saw $1 ticks in about a second (the last try: ${took:-none} ms)"
}

# agent_says REGEX JSON: sends the command to the guest agent and waits for the answer
agent_says() {
    echo "$2" >&"$ask"
    expect "$agent" 30 '^\{"(return|error)".*'
    [[ ${BASH_REMATCH[0]} =~ $1 ]] || fail "the agent answered $2 with ${BASH_REMATCH[0]}"
    echo "ok: agent: $2"
}

ended() {
    timeout 30 tail --pid="$pid" -f /dev/null || fail "QEMU still runs 30 s after $1"
    wait "$pid" || fail "QEMU ended badly after $1"
    pid=
    echo "ok: $1 ends QEMU"
}
kill_it() { kill -KILL "$pid" && { wait "$pid" 2>/dev/null || true; } && pid=; }

echo "== demo, without a seed"
boot demo
expect "$serial" 60 'Linux version'
echo "ok: kernel after $(since_start)"
expect "$serial" 60 "$line"
echo "ok: first tick after $(since_start)"
agent_says '"return": 4711' '{"execute":"guest-sync","arguments":{"id":4711}}'
echo "   (the agent answered after $(since_start))"
agent_says '\{\}' '{"execute":"guest-ping"}'
ticks 10 demo
agent_says '"return": 1' '{"execute":"guest-fsfreeze-freeze"}'
agent_says '"frozen"' '{"execute":"guest-fsfreeze-status"}'
ticks 10 demo
agent_says '"return": 1' '{"execute":"guest-fsfreeze-thaw"}'
agent_says '"thawed"' '{"execute":"guest-fsfreeze-status"}'
agent_says '\{\}' '{"execute":"guest-set-time","arguments":{"time":1800000000000000000}}'
agent_says '"pid"' '{"execute":"guest-exec","arguments":{"path":"/bin/hostname","arg":["renamed"]}}'
expect "$serial" 30 'host=renamed'
agent_says '"ip-address": "10.0.2.15"' '{"execute":"guest-network-get-interfaces"}'
echo '{"execute":"qmp_capabilities"}{"execute":"system_powerdown"}' >&"$command"
ended "the ACPI power button"

echo "== demo, with a seed"
truncate -s 1M "$dir/seed"
mformat -i "$dir/seed" -v CIDATA ::
printf 'instance-id: i-7\nlocal-hostname: from-the-platform\n' | mcopy -i "$dir/seed" - ::meta-data
printf '#cloud-config\r\nhostname: "from-the-user" # wins\r\ntick: 1000\r\n' | mcopy -i "$dir/seed" - ::user-data
boot demo -drive "file=$dir/seed,if=none,id=seed,format=raw,readonly=on" -device virtio-blk-pci,drive=seed
expect "$serial" 60 'offshoot-seed instance-id=i-7 hostname=from-the-user'
ticks 1000 from-the-user
echo '{"execute":"guest-shutdown"}' >&"$ask"
ended "guest-shutdown"

echo "== menu"
boot menu
expect "$serial" 60 'boot: '
rest=
if IFS= read -r -t 5 -u "$serial" rest || [[ -n $rest ]]; then fail "the prompt went on by itself: $rest"; fi
printf '\r' >&"$keys"
expect "$serial" 60 'Linux version'
echo "ok: waits at the prompt until someone presses Enter"
kill_it

echo "== panic"
boot panic
expect "$serial" 60 'Kernel panic - not syncing: Attempted to kill init'
! grep -q offshoot-guest "$dir/serial.log" || fail "ticks came before the panic"
echo "ok: the kernel panicked"
kill_it
echo "guest/check.sh: all of it holds"
