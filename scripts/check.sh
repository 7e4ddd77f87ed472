#!/usr/bin/env bash
# Tests of the scripts here: what they would do on machines that lack this or that. Changes nothing on this one.
set -euo pipefail
shopt -s inherit_errexit
# shellcheck source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$root"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
# expect NAME CODE TEXT COMMAND…: the command ends with the code and says the text
expect() {
    local name=$1 code=$2 text=$3 said result=0
    shift 3
    said=$("$@" 2>&1) || result=$?
    if ((result == code)) && [[ $said == *"$text"* ]]; then
        echo "ok      $name"
    else
        failed=1
        printf 'FAILED  %s: ended with %d instead of %d, or did not say: %s\n%s\n' "$name" $result "$code" "$text" "$said"
    fi
}
# program DIRECTORY NAME OUTPUT: a program that prints this, whatever it is asked
program() {
    mkdir -p "$1"
    printf '#!/bin/sh\ncat <<"TEXT"\n%s\nTEXT\n' "$3" > "$1/$2"
    chmod +x "$1/$2"
}
# without DIRECTORY NAME…: every program of this machine but those
without() {
    local dir=$1 place
    mkdir -p "$dir"
    IFS=: read -ra places <<<"$PATH:/usr/sbin:/sbin"
    for place in "${places[@]}"; do
        [[ ! -d $place ]] || find "$place/" -maxdepth 1 ! -type d -exec ln -s -t "$dir" {} + 2>/dev/null || true
    done
    shift
    for name in "$@"; do rm -f "$dir/$name"; done
}

for mode in build demo test; do
    expect "nothing is missing here for $mode" 0 "" scripts/setup.sh $mode --dry-run
done
expect "a mode that there is not" 1 "usage: " scripts/setup.sh everything

without "$work/no-rust" rustc cargo rustup
expect "no Rust" 1 "https://rustup.rs" env PATH="$work/no-rust" scripts/setup.sh build --dry-run

program "$work/old-rust" rustc "rustc 1.70.0 (90c541806 2023-05-31)"
expect "an old Rust" 1 "rustup update stable" env PATH="$work/old-rust:$PATH" scripts/setup.sh build --dry-run

without "$work/bare" mformat mcopy zstd brotli shellcheck npm node nodejs qemu-system-x86_64 qemu-img
program "$work/apt" apt-cache "  Candidate: 1:7.2+dfsg-7"
expect "a bare machine, build" 1 "install -y --no-install-recommends --allow-downgrades brotli" \
    env PATH="$work/apt:$work/bare" scripts/setup.sh build --dry-run
expect "a bare machine, demo" 1 "brotli mtools zstd qemu-system-x86=1:7.2+dfsg-7 qemu-utils=1:7.2+dfsg-7" \
    env PATH="$work/apt:$work/bare" scripts/setup.sh demo --dry-run

program "$work/newer" qemu-img "qemu-img version 10.0.2 (Debian 1:10.0.2+ds-2)"
expect "a qemu-img that is newer than QEMU" 1 "--allow-downgrades qemu-system-x86=" \
    env PATH="$work/newer:$PATH" scripts/setup.sh demo --dry-run

without "$work/no-files" guestfish
mkdir "$work/no-kernel"
expect "nothing that reads file systems" 1 "guestfish linux-image-" \
    env OFFSHOOT_BOOT="$work/no-kernel" PATH="$work/apt:$work/no-files" scripts/setup.sh test --dry-run
expect "the demo does without it" 0 "" \
    env OFFSHOOT_BOOT="$work/no-kernel" PATH="$work/no-files" scripts/setup.sh demo --dry-run

without "$work/no-tools" wasm-bindgen cargo-deny
expect "no tools yet" 1 "install wasm-bindgen-cli --version =$(sed -n 's/^wasm-bindgen = "=\(.*\)"/\1/p' Cargo.toml)" \
    env OFFSHOOT_CACHE="$work/cache" PATH="$work/no-tools" scripts/setup.sh build --dry-run
expect "no linter of dependencies yet" 1 "install cargo-deny --version =" \
    env OFFSHOOT_CACHE="$work/cache" PATH="$work/no-tools" scripts/setup.sh test --dry-run

mkdir "$work/data"
expect "a directory that is not ours is not deleted" 1 "no data directory of Offshoot" \
    env OFFSHOOT_DATA_DIR="$work/data" scripts/clean-data.sh
touch "$work/data/offshoot.db" "$work/data/lock"
exec 8>"$work/data/lock"
flock 8
expect "data in use is not deleted" 1 "a server is at work" env OFFSHOOT_DATA_DIR="$work/data" scripts/clean-data.sh
exec 8>&-
expect "data that nobody uses is deleted" 0 "deleted" env OFFSHOOT_DATA_DIR="$work/data" scripts/clean-data.sh
[[ ! -e $work/data ]] || { echo "FAILED  it is still there" && failed=1; }

# Two small clones that share a target directory: cargo must build what has changed since, and nothing else.
looks() { CARGO_TARGET_DIR=$work/target "$work/$1/scripts/checkout.sh"; }
# is NAME CLONE FILE old|new: compared with what was built
is() {
    local age=old
    [[ ! $work/$2/server/$3 -nt $work/built ]] || age=new
    if [[ $age == "$4" ]]; then echo "ok      $1"; else echo "FAILED  $1: $2/server/$3 is $age" && failed=1; fi
}
for clone in one two; do
    mkdir -p "$work/$clone"/{server,shared,scripts}
    cp scripts/{checkout,env}.sh "$work/$clone/scripts/"
    echo same | tee "$work/$clone/server/same.rs" > "$work/$clone/server/other.rs"
    echo same > "$work/$clone/shared/lib.rs"
done
looks one
touch "$work/built"
sleep 0.01
touch "$work"/{one,two}/server/*
looks two
is "a fresh clone is not built again" two same.rs old
echo different > "$work/two/server/other.rs"
touch -d 2020-01-01 "$work/two/server/other.rs"
looks two
is "what is different is built, however old" two other.rs new
is "what is beside it is not" two same.rs old
touch "$work/built"
looks one
is "what another clone has built is not taken for built" one other.rs new
touch "$work/built"
echo more > "$work/one/server/more.rs"
looks one
is "a package with a new file is new as a whole" one same.rs new

targets=$(make help | sed -n 's/^  make \([a-z-]*\) .*/\1/p' | tr '\n' ' ')
for target in demo package test lint audit soak bench dev clean-data; do
    [[ " $targets " == *" $target "* ]] || { echo "FAILED  make help does not tell of make $target" && failed=1; }
done
exit $failed
