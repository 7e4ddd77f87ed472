#!/usr/bin/env bash
# Makes the disks of the group `vault`. Needs neither root nor mounts; apt downloads by the sources that it has.
#
#   bench/disk.sh [--quick] PROGRAM
#
# PROGRAM is bench-vault, which makes the random bytes. The last line on standard output is a directory with
#   first.raw     4 GiB: an ext4 with Debian packages as they unpack, 1.1 GiB, and a file of 1 GiB random bytes; the rest is holes
#   second.raw    the same with 1 % of its blocks of 64 KiB changed, anywhere in what is used
#   changed.json  where
# They are kept in ${OFFSHOOT_CACHE:-${XDG_CACHE_HOME:-~/.cache}/offshoot}/bench. --quick makes small ones, of files that are here.
set -euo pipefail
shopt -s inherit_errexit
exec 3>&1 1>&2

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
die() { echo "bench/disk.sh: $*" && exit 1; }
size=4096 random=1024 quick=
if [[ ${1:-} == --quick ]]; then size=256 random=48 quick=1 && shift; fi
program=${1:-}
[[ -x $program ]] || die "usage: bench/disk.sh [--quick] PROGRAM"
export PATH=$PATH:/usr/sbin:/sbin

cache=${OFFSHOOT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/offshoot}/bench
key=$(cat "$here/disk.sh" "$here/src/bin/bench-vault/image.rs" | sha256sum | cut -c1-16)
result=$cache/disks-$key${quick:+-quick}
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
deliver() { echo "$result" >&3 && exit 0; }
[[ ! -d $result ]] || deliver
# Of an older recipe.
rm -rf "$cache"/disks-*"${quick:+-quick}" "$cache"/build.*
work=$(mktemp -d "$cache/build.XXXXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/srv" "$work/archives/partial" "$work/disks"

if [[ -n $quick ]]; then
    mkdir "$work/root/bin"
    find /usr/bin -maxdepth 1 -type f -size +64k -size -4M | LC_ALL=C sort | head -n 120 | xargs cp -t "$work/root/bin"
else
    for kernel in linux-image-amd64 linux-image-generic; do ! apt-cache show "$kernel" >/dev/null 2>&1 || break; done
    # As for a system that has nothing yet.
    : >"$work/status"
    options=(-q -o Dir::State::status="$work/status" -o Dir::Cache::archives="$work/archives"
        -o Dir::Cache::pkgcache="$work/pkgcache.bin" -o APT::Install-Recommends=false -o Debug::NoLocking=1)
    ((EUID)) || options+=(-o APT::Sandbox::User=root)
    apt-get "${options[@]}" install --yes --download-only base-files bash coreutils dpkg apt systemd-sysv "$kernel" \
        gcc git postgresql nginx default-jre-headless python3
    for deb in "$work"/archives/*.deb; do
        dpkg-deb --extract "$deb" "$work/root"
        rm "$deb"
    done
fi
"$program" noise $((random << 20)) >"$work/root/srv/random"
first=$work/disks/first.raw
truncate -s "${size}M" "$first"
E2FSPROGS_FAKE_TIME=1700000000 mke2fs -q -t ext4 -U 5f0ff5e7-0000-4000-8000-000000000001 \
    -E hash_seed=5f0ff5e7-0000-4000-8000-000000000002,root_owner=0:0 -d "$work/root" "$first"
cp --sparse=always "$first" "$work/disks/second.raw"
"$program" change "$work/disks/second.raw" >"$work/disks/changed.json"
mv "$work/disks" "$result"
deliver
