# shellcheck shell=bash
# Where things are kept, for every script here; the Makefile exports the same.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export OFFSHOOT_CACHE=${OFFSHOOT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/offshoot}
if [[ -z ${CARGO_TARGET_DIR:-} ]]; then
    # CI starts from fresh clones: what is built stays outside of them.
    if [[ ${CI:-} == true ]]; then CARGO_TARGET_DIR=$OFFSHOOT_CACHE/target; else CARGO_TARGET_DIR=$root/target; fi
fi
export CARGO_TARGET_DIR
tools=$OFFSHOOT_CACHE/tools
case :$PATH: in *":$tools/bin:"*) ;; *) export PATH=$tools/bin:$PATH ;; esac
cargo=${CARGO:-cargo}

# The console's files, where the program beside them looks for them.
site() {
    local toolchain
    toolchain=$("$root/scripts/wasm-toolchain.sh") || return
    # No name at all where Rust does not come from rustup.
    env ${toolchain:+RUSTUP_TOOLCHAIN="$toolchain"} "$root/scripts/site.sh" "$CARGO_TARGET_DIR/site"
}
