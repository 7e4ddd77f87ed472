#!/usr/bin/env bash
# Builds a Debian that has come from elsewhere: it boots with BIOS from an IDE disk and knows no virtio, names its devices /dev/sda and
# its NIC ens192, and says nothing on its serial port. What adapts operating systems is tested on it.
# Needs neither mounts nor loop devices: the disk is made in guestfish's machine.
#
#   guest/debian.sh
#
# The last line on standard output is the path of the image; all else goes to standard error.
# Images are kept in ${OFFSHOOT_CACHE:-${XDG_CACHE_HOME:-~/.cache}/offshoot}/guest/debian and built again only when this recipe has
# changed. Takes about three minutes without KVM.
set -euo pipefail
shopt -s inherit_errexit
exec 3>&1 1>&2

guest=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
die() { echo "guest/debian.sh: $*" >&2 && exit 1; }
(($# == 0)) || die "it takes no arguments"

missing=()
need() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || missing+=("$2"); }
need apt-get apt
need flock util-linux
need guestfish guestfish
need mmdebstrap mmdebstrap
need qemu-img qemu-utils
# What other users than root need to have users of their own.
((EUID == 0)) || need newuidmap uidmap
if ((${#missing[@]})); then
    packages=$(printf '%s\n' "${missing[@]}" | sort -u | tr '\n' ' ')
    die "tools are missing; install them with: sudo apt-get install --no-install-recommends $packages"
fi

cache=${OFFSHOOT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/offshoot}/guest/debian
mkdir -p "$cache"
# The distribution of this host, from where it has its own packages.
eval "$(sed -n '/^ID=/p; /^VERSION_CODENAME=/p' /etc/os-release)"
case $ID in
    debian) kernel=linux-image-cloud-amd64 components=main ;;
    ubuntu) kernel=linux-image-virtual components=main,universe ;;
    *) die "a Debian is made of a Debian's or Ubuntu's packages: this is $ID" ;;
esac
key=$( (cat "$guest/debian.sh" && echo "$ID $VERSION_CODENAME") | sha256sum | cut -c1-16)
result=$cache/$key.qcow2
deliver() { echo "$result" >&3 && exit 0; }
[[ ! -e $result ]] || deliver

# One build at a time: who comes second finds the image of the first.
exec 9>"$cache/lock"
flock 9
[[ ! -e $result ]] || deliver
work=$(mktemp -d "$cache/build.XXXXXXXX")
trap 'rm -rf "$work"' EXIT

# --- the files that make it what it is -----------------------------------------------------------------------------

tree=$work/tree
mkdir -p "$tree"/etc/{default,initramfs-tools,network,systemd/system/multi-user.target.wants} "$tree"/{data,usr/local/sbin}
cat >"$tree/etc/fstab" <<'FSTAB'
# Names of a disk that was on another bus.
/dev/sda1  /      ext4  errors=remount-ro  0 1
/dev/sda2  none   swap  sw                 0 0
/dev/sda3  /data  ext4  defaults           0 2
FSTAB
cat >"$tree/etc/network/interfaces" <<'INTERFACES'
auto lo
iface lo inet loopback

auto ens192
iface ens192 inet static
    address 10.0.2.15/24
INTERFACES
cat >"$tree/etc/initramfs-tools/initramfs.conf" <<'INITRAMFS'
MODULES=list
BUSYBOX=auto
COMPRESS=zstd
COMPRESSLEVEL=1
FSTYPE=auto
INITRAMFS
# What an IDE disk is driven by, and nothing else.
printf '%s\n' ata_piix ata_generic sd_mod ext4 >"$tree/etc/initramfs-tools/modules"
cat >"$tree/etc/default/grub" <<'GRUB'
GRUB_DEFAULT=0
GRUB_TIMEOUT=0
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT="quiet"
GRUB_CMDLINE_LINUX=""
GRUB
echo old.example.org >"$tree/etc/hostname"
printf '127.0.0.1\tlocalhost\n127.0.1.1\told.example.org old\n' >"$tree/etc/hosts"
seq 1 200000 >"$work/data"

# It says on the serial port, in one line, who it is and what it has.
cat >"$tree/usr/local/sbin/mark" <<'MARK'
#!/bin/sh
key=$(ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub | cut -d' ' -f2)
data=$(sha256sum /data/file | cut -d' ' -f1)
address=$(ip -4 -br address show dev ens192 2>/dev/null | tr -s ' ' | cut -d' ' -f3)
swap=$(tail -n +2 /proc/swaps | wc -l)
efi=$([ ! -d /sys/firmware/efi ] || echo yes)
printf '\r\nmark machine=%s key=%s host=%s data=%s address=%s swap=%s efi=%s end\r\n' \
    "$(cat /etc/machine-id)" "$key" "$(cat /proc/sys/kernel/hostname)" "$data" "$address" "$swap" "${efi:-no}" >/dev/ttyS0
MARK
chmod +x "$tree/usr/local/sbin/mark"
cat >"$tree/etc/systemd/system/mark.service" <<'UNIT'
[Unit]
Description=Says who this is
After=network.target ssh.service swap.target
RequiresMountsFor=/data
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/mark
[Install]
WantedBy=multi-user.target
UNIT
ln -s ../mark.service "$tree/etc/systemd/system/multi-user.target.wants/"
# Owned by root whoever builds it.
tar -C "$tree" --owner=0 --group=0 --numeric-owner -cf "$work/tree.tar" .

# --- its packages --------------------------------------------------------------------------------------------------

mirror=$(cd "$work" && apt-get download --print-uris base-files | sed -n "s|^'\(.*\)/pool/.*|\1|p")
[[ -n $mirror ]] || die "apt does not say where base-files comes from; bring its package lists up to date with: sudo apt-get update"
echo "debian: packages of $VERSION_CODENAME"
mmdebstrap --quiet --variant=essential --components=$components --format=tar \
    --include="$kernel,initramfs-tools,zstd,grub-pc,grub-efi-amd64-bin,systemd-sysv,udev,dbus,openssh-server,ifupdown,iproute2" \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --customize-hook="tar-in '$work/tree.tar' /" \
    --customize-hook='chroot "$1" update-initramfs -u -k all' \
    "$VERSION_CODENAME" "$work/root.tar" "$mirror"

# --- its disk ------------------------------------------------------------------------------------------------------

echo "debian: disk"
# 1 GiB: root, swap, data, and 65 MiB behind them, where an EFI system partition finds room.
truncate -s 1G "$work/disk"
cat >"$work/make" <<MAKE
add-drive $work/disk format:raw
set-memsize 1024
run
part-init /dev/sda mbr
part-add /dev/sda p 2048 1767423
part-add /dev/sda p 1767424 1832959
part-add /dev/sda p 1832960 1964031
part-set-bootable /dev/sda 1 true
mkfs ext4 /dev/sda1
mkswap /dev/sda2
mkfs ext4 /dev/sda3
mount /dev/sda1 /
mkdir /data
mount /dev/sda3 /data
tar-in $work/root.tar /
upload $work/data /data/file
write /etc/hostname "old.example.org\n"
write /etc/machine-id "0123456789abcdef0123456789abcdef\n"
command "grub-install --target=i386-pc --no-floppy /dev/sda"
command update-grub
umount-all
shutdown
MAKE
# As accelerator=auto: some machines have a device with which guests hang.
if ! { grep -qEm1 '^flags.* (vmx|svm)( |$)' /proc/cpuinfo && [[ -w /dev/kvm ]]; }; then export LIBGUESTFS_BACKEND_SETTINGS=force_tcg; fi
LIBGUESTFS_BACKEND=direct TMPDIR=$work guestfish -f "$work/make"
qemu-img convert -c -f raw -O qcow2 "$work/disk" "$work/disk.qcow2"
mv "$work/disk.qcow2" "$result"
echo "debian: built $(du -h "$result" | cut -f1) in ${SECONDS} s"
deliver
