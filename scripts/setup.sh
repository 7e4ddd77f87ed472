#!/usr/bin/env bash
# Installs what is missing, and says what it does. Quick when all is there.
#
#   scripts/setup.sh build|demo|test|soak|bench [--dry-run]
#
# build: what compiles the program and its console. demo: QEMU and what makes the demo guest, too.
# test: browser, Node packages, linters, what reads the files of copies and what the package is tested in, too.
# soak: beside that of test, a server that takes long to build. bench: beside that of test, what figures are taken beside.
# With --dry-run it only prints the commands, and fails if there are any.
# All output goes to standard error. Programs from crates are kept in $OFFSHOOT_CACHE/tools.
set -euo pipefail
shopt -s inherit_errexit
exec 1>&2
# shellcheck source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$root"

say() { echo "setup: $*"; }
die() { say "$*" && exit 1; }
usage="usage: scripts/setup.sh build|demo|test|soak|bench [--dry-run]"
mode=${1:-}
case $mode in build | demo | test | soak | bench) ;; *) die "$usage" ;; esac
dry=
case ${2:-} in '') ;; --dry-run) dry=1 ;; *) die "$usage" ;; esac
# Each has what those before it have, but that of soak.
wants() {
    case $mode:$1 in
    "$1:$1" | *:build | bench:demo | bench:test | soak:demo | soak:test | test:demo) ;;
    *) false ;;
    esac
}
has() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null; }

planned=0
run() {
    if [[ -n $dry ]]; then
        planned=$((planned + 1))
        say "would run: $*"
    else
        say "$*"
        "$@"
    fi
}
as_root() {
    if ((EUID == 0)); then run "$@"; else
        has sudo || die "needs root for: $*; there is no sudo: run it as root, then go on"
        run sudo "$@"
    fi
}
apt_get() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@"; }

# --- Rust: not ours to install ------------------------------------------------------------------------------------

has cargo && has rustc || die "Rust is missing; install it as https://rustup.rs says, open a new shell, and go on"
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
found=$(rustc --version | cut -d' ' -f2)
[[ $(printf '%s\n' "$wanted" "${found%%-*}" | sort -V | head -n1) == "$wanted" ]] ||
    die "Rust $found is too old: $wanted or newer is needed; bring it up to date with: rustup update stable"

# --- packages of the distribution ---------------------------------------------------------------------------------

has apt-get || die "this system has no apt; Debian 12, 13 and Ubuntu 24.04 are supported. scripts/setup.sh shows what to install"
# The tests of this look elsewhere.
boot=${OFFSHOOT_BOOT:-/boot}
distribution=$(sed -n 's/^ID=//p' /etc/os-release | tr -d '"')
missing=()
need() { has "$1" || missing+=("$2"); }

need cc gcc
need ld binutils
[[ -e /usr/include/stdlib.h ]] || missing+=(libc6-dev)
need make make
need brotli brotli
need pkg-config pkg-config
[[ -e /usr/include/libvirt/libvirt.h ]] || missing+=(libvirt-dev)
if wants demo; then
    need flock util-linux
    need mformat mtools
    need syslinux syslinux
    [[ -e /usr/lib/SYSLINUX.EFI/efi64/syslinux.efi ]] || missing+=(syslinux-efi)
    [[ -e /usr/lib/syslinux/modules/efi64/ldlinux.e64 ]] || missing+=(syslinux-common)
    compgen -G '/usr/share/OVMF/OVMF_CODE*' >/dev/null || missing+=(ovmf)
    compgen -G '/usr/lib/*/*/mbr.bin' >/dev/null || [[ -e /usr/lib/SYSLINUX/mbr.bin ]] || missing+=(syslinux)
    need mke2fs e2fsprogs
    need zstd zstd
fi
chromium=
if wants test; then
    need node nodejs
    # The packages of Node's makers bring npm along.
    if ! has npm; then if has node && [[ $(dpkg-query -W -f '${Version}' nodejs 2>/dev/null) == *nodesource* ]]; then
        die "nodejs is installed without npm; install Node.js again with npm"
    else missing+=(npm); fi; fi
    need shellcheck shellcheck
    need lintian lintian
    need systemd-nspawn systemd-container
    need curl curl
    # What reads the file systems of copies, and makes those that it is tested with; it boots a kernel from /boot.
    need guestfish guestfish
    compgen -G '/usr/lib/*/guestfs/supermin.d/packages-xfs' >/dev/null || missing+=(libguestfs-xfs)
    if ! compgen -G "$boot/vmlinuz-*" >/dev/null; then
        if [[ $distribution == ubuntu ]]; then missing+=(linux-image-virtual); else missing+=(linux-image-cloud-amd64); fi
    fi
    # What makes the Debian that is adapted; others than root have users of their own in it.
    need mmdebstrap mmdebstrap
    ((EUID == 0)) || need newuidmap uidmap
    need python3 python3
    # Debian has the module, and what it needs in a package of its own.
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    # A libvirt, whose machines are carried over.
    need libvirtd libvirt-daemon
    need virsh libvirt-clients
    compgen -G '/usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so' >/dev/null || missing+=(libvirt-daemon-driver-qemu)
    # It is reached by ssh, too; behind that by nc, where it has a socket of its own.
    need sshd openssh-server
    need nc.openbsd netcat-openbsd
    # What the package depends on beside QEMU.
    need adduser adduser
    need ip iproute2
    # Where end2end looks; a snap's is elsewhere, and cannot be driven.
    for browser in /usr/bin/{chromium,google-chrome}; do if [[ -x $browser ]]; then chromium=$browser; fi; done
    if [[ -z $chromium && $distribution != ubuntu ]]; then missing+=(chromium) && chromium=chromium; fi
    compgen -G '/usr/share/fonts/truetype/dejavu/*.ttf' >/dev/null || missing+=(fonts-dejavu-core)
fi
if wants bench; then
    need restic restic
    need borg borgbackup
fi

updated=
update_lists() { [[ -n $updated ]] || apt_get update && updated=1; }

# QEMU and qemu-img must be of one version. Installing qemu-system-x86 removes a qemu-utils that is newer than it:
# both are named, at the version that there is of the first.
version_of() { "$1" --version 2>/dev/null | sed -n '1s/.*version \([0-9.]*\).*/\1/p'; }
package_of() { dpkg-query -W -f '${Version}' "$1" 2>/dev/null || true; }
qemu=()
if wants demo && ! { has qemu-system-x86_64 && has qemu-img &&
    [[ $(version_of qemu-system-x86_64) == "$(version_of qemu-img)" ]]; }; then
    update_lists
    version=$(package_of qemu-system-x86)
    if [[ -z $version ]] || ! apt-cache madison qemu-utils | grep -qF "| $version |"; then
        version=$(apt-cache policy qemu-system-x86 | sed -n 's/^ *Candidate: //p')
    fi
    [[ -n $version && $version != '(none)' ]] || die "apt knows no package qemu-system-x86: are its sources complete?"
    qemu=("qemu-system-x86=$version" "qemu-utils=$version")
fi

if ((${#missing[@]} + ${#qemu[@]})); then
    update_lists
    apt_get install -y --no-install-recommends --allow-downgrades "${missing[@]}" "${qemu[@]}"
fi
# The demo guest's packages are downloaded by name: apt must know them.
if wants demo && [[ -z $(apt-cache pkgnames linux-image-) ]]; then update_lists; fi

# --- programs from crates ------------------------------------------------------------------------------------------

# tool CRATE PROGRAM VERSION FLAG…
tool() {
    # Not every program tells its version; what was installed here stands in Cargo's list.
    ! { has "$2" && grep -qsF "\"$1 $3 " "$tools/.crates.toml"; } || return 0
    [[ $("$2" --version 2>/dev/null | sed -n '1s/^[^ ]* \([0-9.]*\).*/\1/p') != "$3" ]] || return 0
    say "building $1 $3, once; it takes some minutes"
    # Its own lock file where the registry has all of that, else versions that this Rust can compile.
    local install=(env -u CARGO_TARGET_DIR CARGO_RESOLVER_INCOMPATIBLE_RUST_VERSIONS=fallback
        "$cargo" install "$1" --version "=$3" --root "$tools" "${@:4}")
    run "${install[@]}" --locked || run "${install[@]}"
}

scripts/wasm-toolchain.sh ${dry:+--dry-run} >/dev/null
# What generates the bindings must be of the version that the console is compiled with.
tool wasm-bindgen-cli wasm-bindgen "$(grep -A1 '^name = "wasm-bindgen"$' Cargo.lock | sed -n 's/^version = "\(.*\)"/\1/p')"
# So must what splits the WASM.
tool wasm_split_cli_support wasm-split-cli "$(grep -A1 '^name = "wasm_split_helpers"$' Cargo.lock | sed -n 's/^version = "\(.*\)"/\1/p')" --features build-binary
if wants test; then
    tool cargo-deny cargo-deny 0.20.2
    has cargo-nextest || tool cargo-nextest cargo-nextest 0.9.143
fi
# A server of S3 that has no conditional put.
if wants soak; then tool garage garage 2.5.0 --no-default-features --features bundled-libs,sqlite; fi

# --- programs from Python's packages -------------------------------------------------------------------------------

# A server of S3 that others have made: the vault is tested on it.
moto=5.2.1
if wants test && [[ $(cat "$tools/moto/.version" 2>/dev/null) != "$moto" ]]; then
    run python3 -m venv --clear "$tools/moto"
    run "$tools/moto/bin/pip" install --quiet --disable-pip-version-check "moto[server]==$moto"
    run mkdir -p "$tools/bin"
    run ln -sfn "$tools/moto/bin/moto_server" "$tools/bin/moto_server"
    [[ -n $dry ]] || echo "$moto" >"$tools/moto/.version"
fi

# --- Node packages and the browser ---------------------------------------------------------------------------------

if wants test && [[ -f end2end/package.json ]]; then
    installed=end2end/node_modules/.of-lock
    if ! cmp -s end2end/package-lock.json $installed; then
        run env PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --prefix end2end --no-audit --no-fund
        [[ -n $dry ]] || cp end2end/package-lock.json $installed
    fi
    if [[ -z $chromium ]] && ! compgen -G "$HOME/.cache/ms-playwright/chromium*" >/dev/null; then
        say "Ubuntu has Chromium as a snap only, which cannot be driven from here: taking Playwright's own"
        run node end2end/node_modules/.bin/playwright install chromium
        as_root "$(command -v node)" end2end/node_modules/.bin/playwright install-deps chromium
    fi
fi

if [[ -n $dry ]] && ((planned)); then die "something is missing for $mode"; fi
