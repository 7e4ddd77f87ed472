#!/usr/bin/env bash
# Builds what the browser loads: WASM in parts (see app/src/pages/mod.rs), JavaScript, words and style sheet, plain and
# with brotli, in a folder whose name is a hash of it all, and the manifest that tells the server that name.
# Usage: scripts/site.sh [output folder]
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:-target/site}
target=${CARGO_TARGET_DIR:-target}
PATH=$PATH:${OFFSHOOT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/offshoot}/tools/bin

need() {
    command -v "$1" >/dev/null || { echo "site: $1 is missing: $2" >&2; exit 1; }
}
bindgen=$(sed -n 's/^wasm-bindgen = "=\(.*\)"$/\1/p' Cargo.toml)
need wasm-bindgen "cargo install wasm-bindgen-cli --version $bindgen"
need wasm-split-cli "cargo install wasm_split_cli_support --features build-binary"
need brotli "apt-get install brotli"
[ "$(wasm-bindgen --version)" = "wasm-bindgen $bindgen" ] || {
    echo "site: $(wasm-bindgen --version) is not the $bindgen that Cargo.toml asks for" >&2
    exit 1
}

# A shared target directory may hold what another checkout, or an older state of this one, has built.
scripts/checkout.sh

# A host .so of every server build is spared: only here is the crate a cdylib. What splits the WASM goes by relocations.
${CARGO:-cargo} rustc --package app --lib --crate-type cdylib --no-default-features --features hydrate \
    --target wasm32-unknown-unknown --profile wasm-release -- -Clink-args=--emit-relocs

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/split" "$work/pkg"
wasm-split-cli "$target/wasm32-unknown-unknown/wasm-release/app.wasm" "$work/split" --target web --out-name app
wasm-bindgen --target web --no-typescript --keep-lld-exports --no-demangle --remove-name-section \
    --remove-producers-section --out-dir "$work/pkg" --out-name app "$work/split/app.wasm"
rm "$work/split/app.wasm"
mv "$work"/split/* "$work/pkg/"
cat style/*.css >"$work/pkg/app.css"
# The words are no part of the WASM: a page loads those of its language.
"${RUSTC:-rustc}" --edition 2024 -o "$work/words" scripts/words.rs
"$work/words" "$work/pkg"
# The pages of consoles load these, and no other does.
mkdir "$work/pkg/vendor"
cp viewer/viewer.js "$work/pkg/"
cp viewer/vendor/*.js viewer/vendor/*.css viewer/vendor/*LICENSE* "$work/pkg/vendor/"
find "$work/pkg" -type f -print0 | xargs -0 -P "$(nproc)" -n 1 brotli --quality=11 --keep
version=$(cd "$work/pkg" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 cat | sha256sum | cut -c1-16)

rm -rf "$out"
mkdir -p "$out/pkg"
mv "$work/pkg" "$out/pkg/$version"
printf '{"version":"%s"}\n' "$version" >"$out/manifest.json"

kb=$(($(cd "$out/pkg/$version" && cat app.js.br __wasm_split.js.br app_bg.wasm.br words-en.txt.br | wc -c) / 1024))
echo "site: $out, $kb KB of JavaScript, WASM and words with brotli on the overview"
