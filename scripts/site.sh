#!/usr/bin/env bash
# Builds what the browser loads: WASM, JavaScript and style sheet, each under a name with its hash, plain and with
# brotli, and the manifest that tells the server the names. Usage: scripts/site.sh [output folder]
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:-target/site}
target=${CARGO_TARGET_DIR:-target}
PATH=$PATH:${OFFSHOOT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/offshoot}/tools/bin

need() {
    command -v "$1" >/dev/null || { echo "site: $1 is missing: $2" >&2; exit 1; }
}
version=$(sed -n 's/^wasm-bindgen = "=\(.*\)"$/\1/p' Cargo.toml)
need wasm-bindgen "cargo install wasm-bindgen-cli --version $version"
need brotli "apt-get install brotli"
[ "$(wasm-bindgen --version)" = "wasm-bindgen $version" ] || {
    echo "site: $(wasm-bindgen --version) is not the $version that Cargo.toml asks for" >&2
    exit 1
}

# A host .so of every server build is spared: only here is the crate a cdylib.
${CARGO:-cargo} rustc --package app --lib --crate-type cdylib --no-default-features --features hydrate \
    --target wasm32-unknown-unknown --profile wasm-release

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
wasm-bindgen --target web --no-typescript --remove-name-section --remove-producers-section \
    --out-dir "$work" --out-name app "$target/wasm32-unknown-unknown/wasm-release/app.wasm"
cat style/*.css >"$work/app.css"

rm -rf "$out"
mkdir -p "$out/pkg"
declare -A name
for kind in js wasm css; do
    file=$work/app.$kind
    [ $kind != wasm ] || file=$work/app_bg.wasm
    name[$kind]=app-$(sha256sum "$file" | cut -c1-16).$kind
    cp "$file" "$out/pkg/${name[$kind]}"
    brotli --quality=11 --keep "$out/pkg/${name[$kind]}"
done
printf '{"js":"%s","wasm":"%s","css":"%s"}\n' "${name[js]}" "${name[wasm]}" "${name[css]}" >"$out/manifest.json"

kb=$(($(cat "$out/pkg/${name[js]}.br" "$out/pkg/${name[wasm]}.br" | wc -c) / 1024))
echo "site: $out, first load $kb KB of JavaScript and WASM with brotli"
