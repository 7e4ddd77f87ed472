#!/usr/bin/env bash
# Cargo knows by its time alone whether a source has changed. In a fresh clone all are new; and where several checkouts
# share a target directory, an old source of one looks built if another was built since. So each source gets the time at
# which its content was first seen here: what is unchanged is not built again, and what has changed always is.
#
# Nothing that is compiled may hold the path of its checkout, so tests ask for CARGO_MANIFEST_DIR when they run.
set -euo pipefail
shopt -s inherit_errexit
# shellcheck source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$root"
# A target directory within the checkout is its own.
case $CARGO_TARGET_DIR in "$root"/*) exit 0 ;; esac

record=$CARGO_TARGET_DIR/.sources
mkdir -p "$CARGO_TARGET_DIR"
touch -a "$record"
exec 9>"$CARGO_TARGET_DIR/.sources.lock"
flock 9

packages=(app bench guest/ticker server shared vault)
now=$(date +%s.%N)
# time, hash, path of each source; a package that has gained or lost a file is new as a whole, for macros read directories
for package in "${packages[@]}"; do
    [[ -d $package ]] || continue
    find "$package" -name node_modules -prune -o -type f -print | LC_ALL=C sort | xargs -d '\n' sha256sum |
        awk -v package="$package/" -v now="$now" -v record="$record" '
            BEGIN {
                while ((getline line < record) > 0) {
                    split(line, f, " ")
                    path = substr(line, length(f[1]) + length(f[2]) + 3)
                    if (index(path, package) == 1) { time[path] = f[1]; hash[path] = f[2]; before++ }
                }
            }
            { path = substr($0, 67); paths[++n] = path; hashes[n] = $1; if (path in hash) known++ }
            END {
                same = n == before && n == known
                for (i = 1; i <= n; i++) {
                    path = paths[i]
                    print (same && hash[path] == hashes[i] ? time[path] : now), hashes[i], path
                }
            }'
done > "$record.new"
while read -r time _ path; do printf '%s\0' "$time" "$path"; done < "$record.new" |
    xargs -0 -n 2 sh -c 'exec touch -d "@$0" -- "$1"'
mv "$record.new" "$record"
