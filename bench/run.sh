#!/usr/bin/env bash
# Takes the figures; bench/README.md says what they are.
#
#   bench/run.sh [--quick] [clone|instantClone|engine|api|console|machines|vault|migrate]
#
# The group may be in $ONLY, too. Needs what scripts/setup.sh bench and scripts/build.sh make.
set -euo pipefail
shopt -s inherit_errexit
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$here/../target}
# As the service's unit has it: what is measured is what runs.
export MALLOC_ARENA_MAX=2

"${CARGO:-cargo}" build --locked --release -p bench --manifest-path "$here/../Cargo.toml"
CARGO_MANIFEST_DIR=$here exec "$CARGO_TARGET_DIR/release/bench" "$@" ${ONLY:+"$ONLY"}
