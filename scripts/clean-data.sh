#!/usr/bin/env bash
# Switches off the machines that run from the data directory, then deletes it.
set -euo pipefail
# shellcheck source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
data=${OFFSHOOT_DATA_DIR:-$root/data}
[[ -d $data ]] || { echo "there is no $data" && exit 0; }
[[ -f $data/offshoot.db ]] || { echo "$data is no data directory of Offshoot: it has no offshoot.db" >&2 && exit 1; }
flock --nonblock "$data/lock" true || { echo "a server is at work in $data: stop it first" >&2 && exit 1; }
for record in "$data"/run/*/process; do
    [[ -e $record ]] || continue
    machine=$(basename "$(dirname "$record")")
    read -r pid _ < "$record" || continue
    # The pid may be another's by now: the machine's id is in QEMU's arguments.
    if grep -qsF "$machine" "/proc/$pid/cmdline"; then
        echo "switching off $machine"
        kill "$pid"
        timeout 10 tail --pid="$pid" -f /dev/null
    fi
done
rm -rf "$data"
echo "deleted $data"
