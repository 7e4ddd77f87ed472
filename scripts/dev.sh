#!/usr/bin/env bash
# Builds and runs the server, and again whenever a source changes; the console only when it is its own that changed.
# Arguments are the server's. Its data directory is the demo's unless OFFSHOOT_DATA_DIR names another.
set -euo pipefail
# shellcheck source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$root"
export OFFSHOOT_DATA_DIR=${OFFSHOOT_DATA_DIR:-$root/data}
scripts/build.sh

mark=$(mktemp)
server=
stop() { [[ -z $server ]] || { kill "$server" 2>/dev/null || true; wait "$server" || true; }; server=; }
trap 'stop; rm -f "$mark"' EXIT
changed() { [[ -n $(find "$@" -newer "$mark" -type f -print -quit) ]]; }

while true; do
    [[ -n $server ]] || { "$CARGO_TARGET_DIR/release/offshoot" serve "$@" & server=$!; }
    until changed app server shared style Cargo.toml Cargo.lock; do sleep 1; done
    pages=
    if changed app shared style; then pages=1; fi
    touch "$mark"
    if { [[ -z $pages ]] || site; } && "$cargo" build --release -p server --features libvirt; then stop; else
        echo "dev: it does not compile; the server of before goes on" >&2
    fi
done
