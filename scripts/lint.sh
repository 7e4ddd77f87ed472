#!/usr/bin/env bash
# Formatting, lints as errors, and what may stand in the tree of dependencies. Runs all checks, and fails if one does.
set -euo pipefail
# shellcheck source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$root"
scripts/setup.sh test

failed=()
check() {
    echo "lint: $1" >&2
    "${@:2}" || failed+=("$1")
}

wasm() {
    local target=wasm32-unknown-unknown toolchain
    toolchain=$(scripts/wasm-toolchain.sh) || return
    local arguments=(--release -p app --lib --no-default-features --features hydrate --target $target)
    if RUSTUP_TOOLCHAIN=$toolchain "$cargo" clippy --version >/dev/null 2>&1; then
        RUSTUP_TOOLCHAIN=$toolchain "$cargo" clippy "${arguments[@]}" -- -D warnings
    else
        echo "lint: the toolchain $toolchain has no clippy: its compiler's warnings are errors instead" >&2
        RUSTUP_TOOLCHAIN=$toolchain RUSTFLAGS="--cfg erase_components -Dwarnings" "$cargo" check "${arguments[@]}" --target-dir "$CARGO_TARGET_DIR/lint"
    fi
}

# The browser gets none of the server's crates, nor one that asks an operating system.
wasm_tree() {
    local found
    found=$("$cargo" tree --locked --target wasm32-unknown-unknown -p app --no-default-features --features hydrate \
        --edges normal,no-proc-macro --prefix none --format '{p}' |
        grep -E '^(tokio|mio|sqlx|axum|hyper|getrandom|rustix|libc)[ -]' | sort -u || true)
    [[ -z $found ]] || { echo "these do not belong into the console: $found" >&2 && return 1; }
}

check "cargo fmt" "$cargo" fmt --all --check
check "clippy" "$cargo" clippy --locked --release --workspace --all-targets -- -D warnings
check "clippy of the console for the browser" wasm
check "dependencies of the console" wasm_tree
# What only other systems need is looked at too: it is fetched first, so that the check itself needs no network.
check "fetch of all dependencies" "$cargo" fetch --locked --quiet
check "licences, bans and sources of dependencies" "$cargo" deny --all-features --offline check --hide-inclusion-graph bans licenses sources
mapfile -t files < <(git ls-files '*.sh' .ci/run packaging/debian/{postinst,prerm,postrm})
check "shellcheck" shellcheck -S warning "${files[@]}"

if ((${#failed[@]})); then
    printf 'lint: failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
