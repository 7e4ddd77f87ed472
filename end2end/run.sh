#!/usr/bin/env bash
# End-to-end tests: the release program with real guests and with simulated ones, driven by a real browser.
#
#   end2end/run.sh [arguments of `playwright test`]
#
# Needs what scripts/setup.sh and scripts/build.sh make. Leaves nothing running, however it ends.
set -euo pipefail
shopt -s inherit_errexit nullglob
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$here/../target}
CARGO_TARGET_DIR=$(realpath "$CARGO_TARGET_DIR")

die() { echo "end2end: $*" >&2 && exit 1; }
[[ -x $CARGO_TARGET_DIR/release/offshoot ]] || die "there is no $CARGO_TARGET_DIR/release/offshoot: run scripts/build.sh"
[[ -f $CARGO_TARGET_DIR/site/manifest.json ]] || die "there is no $CARGO_TARGET_DIR/site: run scripts/build.sh"
[[ -d $here/node_modules ]] || die "Node packages are missing: run scripts/setup.sh test"
E2E_IMAGE=$("$here/../guest/build.sh")
export E2E_IMAGE

# Short: the sockets of guests stand below it, and their paths have 107 letters at most.
E2E_DIR=$(mktemp -d /tmp/e2e.XXXXXX)
export E2E_DIR

# Ends what is still there of a directory of ours: servers first, then the guests that they were watching over.
sweep() {
    local file pid
    for file in "$E2E_DIR"/*/data/lock "$E2E_DIR"/*/data/run/*/process "$E2E_DIR"/*/data/run/*.process; do
        read -r pid _ <"$file" || true
        if [[ $pid =~ ^[0-9]+$ ]] && grep -qF "$E2E_DIR" "/proc/$pid/cmdline" 2>/dev/null; then
            echo "end2end: ending process $pid that was left over" >&2
            kill -KILL "$pid" 2>/dev/null || true
        fi
    done
    rm -rf "$E2E_DIR"
}
tests=
trap sweep EXIT
trap '[[ -z $tests ]] || kill -INT "$tests" 2>/dev/null || true' INT TERM

cd "$here"
rm -rf artifacts test-results
node node_modules/@playwright/test/cli.js test "$@" &
tests=$!
result=0
wait "$tests" || result=$?
# A signal interrupts the wait; the tests are given the time to clean up.
while kill -0 "$tests" 2>/dev/null; do wait "$tests" || result=$?; done
exit "$result"
