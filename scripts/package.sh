#!/usr/bin/env bash
# Makes a Debian package of what scripts/build.sh has built, and prints its path.
#
# DEBFULLNAME and DEBEMAIL say whose package it is, else it is the last commit's author's; SOURCE_DATE_EPOCH says of when, else it is of
# that commit. The same sources make the same package, byte for byte.
set -euo pipefail
shopt -s inherit_errexit nullglob
umask 022
# shellcheck source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$root"

die() { echo "package: $*" >&2 && exit 1; }
program=$CARGO_TARGET_DIR/release/offshoot
site=$CARGO_TARGET_DIR/site
[[ -x $program ]] || die "there is no $program: run scripts/build.sh"
[[ -f $site/manifest.json ]] || die "there is no $site: run scripts/build.sh"

commit() {
    git log -1 --format="$1" 2>/dev/null || die "this is no clone: set SOURCE_DATE_EPOCH, DEBFULLNAME and DEBEMAIL"
}
# What comes before a release is older than it for Debian with a tilde.
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | sed 's/-/~/')
architecture=$(dpkg --print-architecture)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(commit %ct)}
export SOURCE_DATE_EPOCH
maintainer="${DEBFULLNAME:-$(commit %an)} <${DEBEMAIL:-$(commit %ae)}>"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tree
docs=$tree/usr/share/doc/offshoot

# The packages that have the libraries which the program is linked with, at the lowest version that has all its symbols.
libraries() {
    local name symbols newest
    symbols=$(readelf --version-info --wide "$program" | sed -n 's/.* Name: \([A-Z]*_[0-9.]*\) .*/\1/p' | sort -uV)
    newest() { sed -n "s/^$1_//p" <<<"$symbols" | tail -n 1; }
    while read -r name; do
        case $name in
            libc.so.* | libm.so.* | ld-linux*) echo "libc6 (>= $(newest GLIBC))" ;;
            libvirt.so.0) echo "libvirt0 (>= $(newest LIBVIRT))" ;;
            libgcc_s.so.1) echo "libgcc-s1 (>= $(newest GCC))" ;;
            *) die "the program is linked with $name: say here which package has it" ;;
        esac
    done < <(readelf --dynamic --wide "$program" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
}

# The crates in the program and in the console, each with its version and licence.
crates() {
    local list=("$cargo" tree --locked --edges "normal,no-proc-macro" --prefix none --format '{p} {l}')
    {
        "${list[@]}" -p server --features libvirt
        "${list[@]}" -p app --no-default-features --features hydrate --target wasm32-unknown-unknown
    } | sed '/(\//d; s/ (\*)$//; s/ v/ /' | sort -u
}

# Those crates, then what their licences want to be handed on: each text once, below the names of whose it is.
notices() {
    local name crate_version licence found
    crates >"$work/crates"
    while read -r name crate_version licence; do
        found=("${CARGO_HOME:-$HOME/.cargo}/registry/src/"*"/$name-$crate_version")
        ((${#found[@]})) || die "the source of the crate $name $crate_version is not there"
        echo "$name $crate_version: $licence"
        find "${found[0]}" -maxdepth 1 -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' \) |
            LC_ALL=C sort >>"$work/texts"
    done <"$work/crates"
    xargs -d '\n' sha256sum <"$work/texts" | LC_ALL=C sort | awk '
        function tell(   line) {
            if (!path) return
            print "\n----------------------------------------------------------------\n" names ":\n"
            while ((getline line < path) > 0) print line
            close(path)
        }
        {
            n = split($2, parts, "/")
            if ($1 != hash) { tell(); hash = $1; path = $2; names = parts[n - 1] } else names = names ", " parts[n - 1]
        }
        END { tell() }'
}

install -D "$program" "$tree/usr/bin/offshoot"
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$tree/usr/bin/offshoot"
completion() {
    mkdir -p "$(dirname "$tree/usr/share/$2")"
    "$program" completion "$1" >"$tree/usr/share/$2"
}
completion bash bash-completion/completions/offshoot
completion zsh zsh/vendor-completions/_offshoot
completion fish fish/vendor_completions.d/offshoot.fish
mkdir -p "$tree/usr/share/man/man1"
"$program" man "$tree/usr/share/man/man1"
gzip -9 --no-name "$tree"/usr/share/man/man1/*
mkdir -p "$tree/usr/share/offshoot/site"
cp -r "$site/." "$tree/usr/share/offshoot/site"
install -D -m 644 packaging/offshoot.service "$tree/usr/lib/systemd/system/offshoot.service"
install -D -m 644 packaging/offshoot.toml "$tree/etc/offshoot/offshoot.toml"
install -D -m 644 -t "$docs" docs/*.md packaging/debian/copyright
install -D -m 644 -t "$docs/examples" packaging/bridges.conf
notices | gzip -9 --no-name >"$docs/notices.gz"
gzip -9 --no-name >"$docs/changelog.gz" <<TEXT
offshoot ($version) unstable; urgency=medium

  * Built from what the project has as $version; its own history tells the rest.

 -- $maintainer  $(date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")
TEXT

mkdir "$tree/DEBIAN"
install -m 755 -t "$tree/DEBIAN" packaging/debian/{postinst,prerm,postrm}
echo /etc/offshoot/offshoot.toml >"$tree/DEBIAN/conffiles"
(cd "$tree" && find etc usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$tree/DEBIAN/md5sums"
needed=$(libraries | sort -u | paste -sd, | sed 's/,/, /g')
sed -e "s|@version@|$version|; s|@architecture@|$architecture|; s|@maintainer@|$maintainer|; s|@libraries@|$needed|" \
    -e "s|@size@|$(du -sk --apparent-size --exclude=DEBIAN "$tree" | cut -f1)|" packaging/debian/control >"$tree/DEBIAN/control"

package=$CARGO_TARGET_DIR/package/offshoot_${version}_$architecture.deb
mkdir -p "$(dirname "$package")"
# A seventh larger than at the highest level, in a quarter of the time.
dpkg-deb --root-owner-group -Zxz -z1 --build "$tree" "$package" >&2
echo "$package"
