#!/usr/bin/env bash
# Everything that is tested, with a summary at the end. A step that cannot run fails.
set -euo pipefail
# shellcheck source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$root"
# Checkouts that share a target directory take turns: none may build between another's look at its sources and its build.
case $CARGO_TARGET_DIR in
    "$root"/*) ;;
    *)
        mkdir -p "$CARGO_TARGET_DIR"
        [[ ${OFFSHOOT_TURN:-} == "$CARGO_TARGET_DIR" ]] ||
            OFFSHOOT_TURN=$CARGO_TARGET_DIR exec flock -o "$CARGO_TARGET_DIR/.turn" "$root/scripts/test.sh"
        ;;
esac

rm -rf end2end/test-results
summary=()
failed=0
# step NAME COMMAND…: goes on after a failure, for the sake of the whole picture
step() {
    local name=$1 start=$SECONDS result=ok
    shift
    printf '\n=== %s\n' "$name"
    "$@" || { result=FAILED && failed=1; }
    summary+=("$(printf '%-7s %5d s  %s' $result $((SECONDS - start)) "$name")")
    [[ $result == ok ]]
}
report() {
    printf '\n=== summary\n'
    printf '%s\n' "${summary[@]}"
    printf '%-7s %5d s  all\n' "$( ((failed)) && echo FAILED || echo ok)" $SECONDS
    cat end2end/test-results/failed.txt 2>/dev/null || true
    exit $failed
}

step "set-up" scripts/setup.sh test || report
step "sources and target directory" scripts/checkout.sh || report
step "lints" scripts/lint.sh || true
step "console" site || report
step "demo guest" guest/build.sh || report
step "Debian guest" guest/debian.sh || report
step "build" "$cargo" nextest run --locked --release --workspace --no-run || report
step "unit, property and integration tests" "$cargo" nextest run --locked --release --workspace || true
step "documentation tests" "$cargo" test --locked --release --workspace --doc || true
step "scripts" scripts/check.sh || true
step "package" scripts/package-test.sh || true
step "end to end" end2end/run.sh || true
report
