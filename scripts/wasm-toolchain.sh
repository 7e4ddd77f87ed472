#!/usr/bin/env bash
# Makes Rust's target wasm32-unknown-unknown available, and prints the toolchain to put into RUSTUP_TOOLCHAIN.
#
#   scripts/wasm-toolchain.sh [--dry-run]
#
# Normally that is the toolchain in use, with the target added by rustup. Where rustup cannot get it, the standard
# library for it is built from Debian's rustc-web and rust-web-src, once, and joined with rustup's cargo and linker in
# a toolchain of its own; FORCE_DEBIAN=1 takes that way. It has no clippy and no rustfmt.
set -euo pipefail
shopt -s inherit_errexit
exec 3>&1 1>&2
# shellcheck source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

target=wasm32-unknown-unknown
joined=offshoot-web
home=$OFFSHOOT_CACHE/$joined
dry=
[[ ${1:-} != --dry-run ]] || dry=1
die() { echo "wasm-toolchain: $*" && exit 1; }
deliver() { echo "$1" >&3 && exit 0; }
# has_target SYSROOT
has_target() { compgen -G "$1/lib/rustlib/$target/lib/libstd-*.rlib" >/dev/null; }

if [[ -z ${FORCE_DEBIAN:-} ]] && has_target "$(rustc --print sysroot)"; then
    # Rust that does not come from rustup has one toolchain, and nothing reads this.
    deliver "$(rustup show active-toolchain 2>/dev/null | cut -d' ' -f1 || true)"
fi
if [[ -n $dry ]]; then
    [[ -f $home/.stamp ]] || die "would add the target $target"
    deliver $joined
fi
command -v rustup >/dev/null || die "this Rust has no target $target, and there is no rustup to add it: see https://rustup.rs"
if [[ -z ${FORCE_DEBIAN:-} ]] && [[ ! -f $home/.stamp ]] && timeout 180 rustup target add $target; then
    deliver "$(rustup show active-toolchain | cut -d' ' -f1)"
fi

# --- the second way -----------------------------------------------------------------------------------------------

if [[ ! -x /usr/bin/rustc || ! -d /usr/lib/rustlib/src/rust/library ]]; then
    echo "wasm-toolchain: rustup could not get the target; taking Debian's sources of it"
    sudo=
    ((EUID == 0)) || sudo=sudo
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 install -y --no-install-recommends \
        rustc-web rust-web-src || die "there is no other way here: let rustup reach its server and run: rustup target add $target"
fi
host=$(/usr/bin/rustc -vV | sed -n 's/^host: //p')
version=$(/usr/bin/rustc -V)
cargo=$(rustup which cargo)
linker=$(rustup run "$(rustup show active-toolchain | cut -d' ' -f1)" rustc --print sysroot)/lib/rustlib/$host/bin/rust-lld
[[ -x $linker ]] || die "there is no rust-lld in $linker"
mkdir -p "$OFFSHOOT_CACHE"
exec 9>"$home.lock"
flock 9
if [[ $(cat "$home/.stamp" 2>/dev/null) != "$version" ]]; then
    rm -rf "$home"
    mkdir -p "$home/bin" "$home/lib/rustlib/$host/bin" "$home/lib/rustlib/$target/lib"
    # A link to rustc would not do: it looks for its libraries where it lies itself.
    for name in rustc rustdoc; do
        printf '#!/bin/sh\nexec /usr/bin/%s --sysroot "%s" "$@"\n' $name "$home" > "$home/bin/$name"
        chmod +x "$home/bin/$name"
    done
    ln -s "$cargo" "$home/bin/cargo"
    ln -s "/usr/lib/rustlib/$host/lib" "$home/lib/rustlib/$host/lib"
    ln -s "$linker" "$home/lib/rustlib/$host/bin/rust-lld"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir "$work/src"
    echo '#![no_std]' > "$work/src/lib.rs"
    cat > "$work/Cargo.toml" <<'TOML'
[package]
name = "stdbuild"
version = "0.0.0"
edition = "2021"

[profile.release]
panic = "abort"

[workspace]
TOML
    (cd "$work" && env -u CARGO_TARGET_DIR -u RUSTUP_TOOLCHAIN RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
        RUSTFLAGS=-Cembed-bitcode=yes "$cargo" build -Zbuild-std=std,panic_abort --target $target --release 9>&-)
    find "$work/target/$target/release" -name '*.rlib' ! -name 'libstdbuild*' -exec cp {} "$home/lib/rustlib/$target/lib/" \;
    echo "$version" > "$home/.stamp"
fi
rustup toolchain link $joined "$home"
deliver $joined
