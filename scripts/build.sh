#!/usr/bin/env bash
# Builds the console and the program, release.
set -euo pipefail
# shellcheck source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$root"
scripts/setup.sh build
scripts/checkout.sh
site
"$cargo" build --locked --release -p server --features libvirt
