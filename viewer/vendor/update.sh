#!/usr/bin/env bash
# Takes noVNC and xterm.js from their npm packages anew: one minified ES module of each, with its licence beside it. What is
# built stands in the repository, so that nothing is downloaded to build the console. Needs Node.js, npm and their registry.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

novnc=1.7.0
xterm=6.0.0
fit=0.11.0
esbuild=0.28.2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
echo '{"private":true}' >package.json
npm install --no-audit --no-fund --loglevel=error \
    "@novnc/novnc@$novnc" "@xterm/xterm@$xterm" "@xterm/addon-fit@$fit" "esbuild@$esbuild"

echo 'export { default } from "@novnc/novnc";' >novnc.mjs
echo 'export { Terminal } from "@xterm/xterm"; export { FitAddon } from "@xterm/addon-fit";' >xterm.mjs
bundle() { # NAME BANNER
    node_modules/.bin/esbuild "$1.mjs" --bundle --format=esm --minify --target=es2022 --legal-comments=none \
        --log-level=warning --banner:js="/* $2 */" --outfile="$here/$1.js"
}
bundle novnc "noVNC $novnc, MPL-2.0, with pako, MIT. Its source: https://github.com/novnc/noVNC/tree/v$novnc"
bundle xterm "xterm.js $xterm with addon-fit $fit, MIT. https://github.com/xtermjs/xterm.js"
cp node_modules/@xterm/xterm/css/xterm.css "$here/"
cp node_modules/@novnc/novnc/LICENSE.txt "$here/novnc.LICENSE"
cp node_modules/@novnc/novnc/docs/LICENSE.MPL-2.0 "$here/novnc.LICENSE.MPL-2.0"
cp node_modules/@novnc/novnc/vendor/pako/LICENSE "$here/pako.LICENSE"
cp node_modules/@xterm/xterm/LICENSE "$here/xterm.LICENSE"
