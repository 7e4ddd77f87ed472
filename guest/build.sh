#!/usr/bin/env bash
# Builds the demo guest: a Debian or Ubuntu kernel, busybox, the QEMU guest agent and the ticker in a small qcow2.
# Needs neither root nor mounts nor loop devices.
#
#   guest/build.sh [--variant demo|menu|panic]
#
# demo boots; menu waits at the boot loader's prompt for ever; panic has a kernel that finds no root.
# The last line on standard output is the path of the image; all else goes to standard error.
# Images are kept in ${OFFSHOOT_CACHE:-${XDG_CACHE_HOME:-~/.cache}/offshoot}/guest and built again only when the
# recipe or a package has changed. CARGO names another cargo.
set -euo pipefail
shopt -s inherit_errexit
exec 3>&1 1>&2

guest=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
die() { echo "guest/build.sh: $*" >&2 && exit 1; }
# first FILE…: the first that exists
first() { for file; do [[ ! -e $file ]] || { echo "$file" && return; }; done && return 1; }

variant=demo
while (($#)); do
    case $1 in
        --variant) variant=${2:-} && shift $(($# > 1 ? 2 : 1)) ;;
        *) die "unknown argument \`$1\`; usage: guest/build.sh [--variant demo|menu|panic]" ;;
    esac
done
case $variant in demo | menu | panic) ;; *) die "no variant \`$variant\`: there are demo, menu and panic" ;; esac

# --- what must be installed ---------------------------------------------------------------------------------------

mbr=$(first /usr/lib/{SYSLINUX,syslinux/mbr}/mbr.bin || true)
efi=/usr/lib/SYSLINUX.EFI/efi64/syslinux.efi
efi_core=/usr/lib/syslinux/modules/efi64/ldlinux.e64
missing=()
need() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || missing+=("$2"); }
need apt-get apt
need dpkg-deb dpkg
need flock util-linux
need mformat mtools
need mcopy mtools
need syslinux syslinux
need mke2fs e2fsprogs
need qemu-img qemu-utils
need zstd zstd
[[ -n $mbr ]] || missing+=(syslinux)
[[ -e $efi ]] || missing+=(syslinux-efi)
[[ -e $efi_core ]] || missing+=(syslinux-common)
if ((${#missing[@]})); then
    packages=$(printf '%s\n' "${missing[@]}" | sort -u | tr '\n' ' ')
    die "tools are missing; install them with: sudo apt-get install --no-install-recommends $packages"
fi
[[ $(dpkg --print-architecture) == amd64 ]] || die "the guest is built from amd64 packages: this is a $(dpkg --print-architecture) system"
export PATH=$PATH:/usr/sbin:/sbin

# --- which packages, and is there an image of them -----------------------------------------------------------------

cache=${OFFSHOOT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/offshoot}/guest
mkdir -p "$cache"
work=$(mktemp -d "$cache/build.XXXXXXXX")
trap 'rm -rf "$work"' EXIT
# Container images switch apt's index of the package lists off, which makes every question take a second.
apt_options=(-o Dir::Cache::pkgcache="$work/pkgcache.bin")
# As root apt would download as a user who may not write here, and warn.
((EUID)) || apt_options+=(-o APT::Sandbox::User=root)
apt_cache() { apt-cache "${apt_options[@]}" "$@"; }

# depends PACKAGE…: the names that they depend on
depends() {
    apt_cache depends --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$@" |
        sed -n 's/^ *|\{0,1\}\(Pre\)\{0,1\}Depends: //p' | sort -u
}

# The packages by name, version and checksum: the generic kernel (the cloud kernel lacks vmgenid), the agent with its libraries, busybox.
list_packages() {
    local name kernel names found next
    # The first is Debian's name, the second Ubuntu's, which keeps the modules in packages of their own.
    kernel=$(for name in linux-image-amd64 linux-image-generic; do depends "$name" 2>/dev/null || true; done |
        grep -E '^linux-(image|modules-extra)-[0-9]') ||
        die "apt knows no kernel; bring its package lists up to date with: sudo apt-get update"
    names=($kernel $(depends $kernel | grep -E '^linux-modules-[0-9]' || true) busybox-static qemu-guest-agent)
    next=(qemu-guest-agent)
    while ((${#next[@]})); do
        found=$(depends "${next[@]}" | grep -E '^lib' | grep -vxFf <(printf '%s\n' "${names[@]}") || true)
        next=($found)
        names+=($found)
    done
    apt_cache show --no-all-versions "${names[@]}" |
        awk '/^Package:/ { name = $2 } /^Version:/ { version = $2 } /^SHA256:/ { print name, version, $2 }' | sort
}

# Asked again only when the package lists or the question have changed.
eval "$(apt-config shell lists Dir::State::lists/d)"
stamp=$( (cat "$guest/build.sh" && stat -c '%n %s %Y' "$lists"*Packages* 2>/dev/null || true) | sha256sum | cut -c1-16)
packages=$cache/packages-$stamp
if [[ ! -s $packages ]]; then
    list_packages > "$work/packages"
    mv "$work/packages" "$packages"
fi
key=$( (cd "$guest" && cat build.sh "$packages" && find initramfs root ticker -type f | LC_ALL=C sort | xargs sha256sum) | sha256sum | cut -c1-16)
result=$cache/$key
deliver() { echo "$result/$variant.qcow2" >&3 && exit 0; }
[[ ! -d $result ]] || deliver

# One build at a time: who comes second finds the image of the first.
exec 9>"$cache/lock"
flock 9
[[ ! -d $result ]] || deliver

# --- the parts -----------------------------------------------------------------------------------------------------

echo "guest: building the ticker"
target=${CARGO_TARGET_DIR:-$guest/../target}/guest
triple=x86_64-unknown-linux-gnu
(cd "$guest/.." && unset CARGO_ENCODED_RUSTFLAGS &&
    RUSTFLAGS='-C target-feature=+crt-static -C strip=symbols' \
        "${CARGO:-cargo}" build --release --package ticker --target $triple --target-dir "$target" 9>&-)

echo "guest: downloading $(wc -l < "$packages") packages"
mkdir "$work/debs" "$work/unpacked"
(cd "$work/debs" && apt-get -q "${apt_options[@]}" download $(awk '{ print $1 "=" $2 }' "$packages"))
for deb in "$work"/debs/*.deb; do dpkg-deb --extract "$deb" "$work/unpacked"; done
unpacked=$work/unpacked
busybox=$(first "$unpacked"/{usr/,}bin/busybox)
kernel=$(first "$unpacked"/boot/vmlinuz-*)
modules=$(dirname "$(find "$unpacked" -path '*/lib/modules/*' -name modules.builtin)")

echo "guest: initramfs for ${kernel##*/vmlinuz-}"
initramfs=$work/initramfs
mkdir -p "$initramfs"/{bin,dev,proc,sys,root,modules}
cp "$guest/initramfs/init" "$initramfs/init"
cp "$busybox" "$initramfs/bin/busybox"
for applet in sh mount cat insmod findfs echo switch_root; do ln -s busybox "$initramfs/bin/$applet"; done

declare -A file_of=() done_with=()
while read -r file; do
    name=${file##*/} && name=${name%%.ko*}
    file_of[${name//-/_}]=$file
done < <(find "$modules" -name '*.ko*')

# add_module NAME: the module, after those it depends on; fails if the kernel does not have it
add_module() {
    local name=${1//-/_} file dependency
    [[ -z ${done_with[$name]:-} ]] || return 0
    done_with[$name]=1
    file=${file_of[$name]:-}
    if [[ -z $file ]]; then
        tr - _ < "$modules/modules.builtin" | grep -q "/$name\.ko$"
        return
    fi
    case $file in
        *.xz) "$busybox" xzcat "$file" ;;
        *.zst) zstd -qdc "$file" ;;
        *.gz) "$busybox" zcat "$file" ;;
        *) cat "$file" ;;
    esac > "$initramfs/modules/$name.ko"
    for dependency in $(tr '\0' '\n' < "$initramfs/modules/$name.ko" | sed -n 's/^depends=//p' | tr , ' '); do
        add_module "$dependency" || return
    done
    echo "$name.ko" >> "$initramfs/modules/order"
}
# Not in every kernel: the checksum that ext4 asks for by an alias, and what vfat may want for names.
for module in crc32c_generic nls_ascii nls_iso8859-1 nls_utf8; do add_module $module || true; done
for module in virtio_pci virtio_blk ext4 isofs vfat nls_cp437 \
    virtio_console virtio_net virtio_balloon qemu_fw_cfg vmgenid button evdev efivarfs; do
    add_module $module || die "the kernel ${kernel##*/} has no module $module"
done
touch "$initramfs/modules/order"
(cd "$initramfs" && find . | "$busybox" cpio -o -H newc -R 0:0 | gzip -9) > "$work/initrd"

echo "guest: root"
root=$work/root
mkdir -p "$root"/{dev,proc,sys,run,tmp,root,usr/lib/x86_64-linux-gnu,usr/lib64}
cp -R "$guest/root/." "$root/"
for name in bin sbin lib lib64; do ln -s "usr/${name/sbin/bin}" "$root/$name"; done
ln -s bin "$root/usr/sbin"
cp "$busybox" "$root/usr/bin/busybox"
for applet in $("$busybox" --list); do [[ -e $root/usr/bin/$applet ]] || ln -s busybox "$root/usr/bin/$applet"; done
ln -sf busybox "$root/usr/bin/init"
cp "$target/$triple/release/"{ticker,on-fork,scribble} "$root/usr/bin/"
cp "$(first "$unpacked"/usr/{s,}bin/qemu-ga)" "$root/usr/bin/"

# The agent's libraries, as its own loader finds them in the packages alone; what it takes from this system is an error.
loader=$(readlink -f "$(find "$unpacked" -path '*/x86_64-linux-gnu/ld-linux-x86-64.so.2')")
libraries=$("$loader" --inhibit-cache --library-path "$unpacked/lib/x86_64-linux-gnu:$unpacked/usr/lib/x86_64-linux-gnu" \
    --list "$root/usr/bin/qemu-ga" | sed -n 's/.* => \(.*\) (0x.*/\1/p')
for library in $libraries; do
    [[ $library == "$unpacked"/* ]] || die "the agent needs $library, which none of the packages has"
    cp -L "$library" "$root/usr/lib/x86_64-linux-gnu/"
done
cp "$loader" "$root/usr/lib64/ld-linux-x86-64.so.2"

# --- the disk ------------------------------------------------------------------------------------------------------

# In sectors of 512 bytes: the boot loader's FAT, then the root up to 256 MiB.
fat_start=2048 fat_size=$((48 * 2048)) root_start=$((49 * 2048)) root_size=$((207 * 2048))
disk=$work/disk
truncate -s 256M "$disk"

le32() { printf '\\x%02x\\x%02x\\x%02x\\x%02x' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24 & 255)); }
# entry FLAG TYPE START SIZE: a line of the partition table; its cylinders say "look at the sectors"
entry() { printf "\\x$1\\xfe\\xff\\xff\\x$2\\xfe\\xff\\xff$(le32 "$3")$(le32 "$4")"; }
{
    head -c 440 "$mbr" | "$busybox" dd bs=440 conv=sync 2>/dev/null
    printf '\0\0\0\0\0\0'
    entry 80 0e $fat_start $fat_size
    entry 00 83 $root_start $root_size
    head -c 32 /dev/zero
    printf '\x55\xaa'
} | dd of="$disk" conv=notrunc status=none

fat=$disk@@$((fat_start * 512))
mformat -i "$fat" -v BOOT -T $fat_size -h 255 -s 63 -H $fat_start ::
syslinux --install --offset $((fat_start * 512)) "$disk"
# The same boot loader where the firmware is EFI.
mmd -i "$fat" ::EFI ::EFI/BOOT
mcopy -i "$fat" "$efi" ::EFI/BOOT/BOOTX64.EFI
mcopy -i "$fat" "$efi_core" ::EFI/BOOT/ldlinux.e64
mcopy -i "$fat" "$kernel" ::vmlinuz
mcopy -i "$fat" "$work/initrd" ::initrd

truncate -s $((root_size * 512)) "$work/root.ext4"
mke2fs -q -t ext4 -L offshoot-root -O ^resize_inode -E root_owner=0:0 -d "$root" "$work/root.ext4"
dd if="$work/root.ext4" of="$disk" bs=1M seek=$((root_start / 2048)) conv=sparse,notrunc status=none

mkdir "$work/result"
for name in demo menu panic; do
    label=offshoot-root prompt=0 more=
    # The boot loader's own text goes to the serial port too: a proof of boot must not take it for a kernel's.
    [[ $name != menu ]] || prompt=1 more=$'SERIAL 0 115200\nSAY Which system? Press Enter for Linux.\n'
    [[ $name != panic ]] || label=no-such-disk
    # The crypto self-tests cost a fifth of a second under TCG and prove nothing here. Whether the timer ticks is judged by a
    # busy loop: a host that gives QEMU no time just then would have the kernel panic. What guards against a processor's
    # speculation is code that each fork under TCG has to translate anew, and TCG does not speculate.
    cat > "$work/syslinux.cfg" <<CFG
${more}DEFAULT linux
PROMPT $prompt
TIMEOUT 0
LABEL linux
  KERNEL /vmlinuz
  INITRD /initrd
  APPEND root=LABEL=$label console=tty0 console=ttyS0 cryptomgr.notests no_timer_check mitigations=off
CFG
    for place in ::syslinux.cfg ::EFI/BOOT/syslinux.cfg; do mcopy -o -i "$fat" "$work/syslinux.cfg" "$place"; done
    qemu-img convert -f raw -O qcow2 "$disk" "$work/result/$name.qcow2"
done
mv "$work/result" "$result"
echo "guest: built $(du -h "$result/$variant.qcow2" | cut -f1) in ${SECONDS} s"
deliver
