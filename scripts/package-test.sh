#!/usr/bin/env bash
# Tests the Debian package of what is built: makes it, looks at it with lintian, and installs, starts, upgrades, removes and purges it
# (packaging/test.sh) where that does no harm: in a container over this system's own files, with a systemd of its own, no network
# but loopback, and memory to write to. Whatever runs in there ends with it.
set -euo pipefail
shopt -s inherit_errexit
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Runs as root, in a mount namespace of its own: what is mounted here goes with it.
contained() {
    local package=$1 root=/run/root result=0
    # Here the container's keeper has its files, too.
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir /run/{changes,work,root}
    mount -t overlay -o lowerdir=/,upperdir=/run/changes,workdir=/run/work overlay $root
    # Nothing of this host starts in there, or is mounted, what is installed does start, and it is a host without Offshoot.
    if [[ -e $root/var/lib/dpkg/info/offshoot.list ]]; then chroot $root dpkg --purge offshoot; fi
    rm -rf $root/etc/systemd/system $root/etc/offshoot $root/var/lib/offshoot $root/usr/sbin/policy-rc.d
    : >$root/etc/fstab
    # With none systemd would take it for the first start, and enable what its makers like.
    systemd-id128 new >$root/etc/machine-id
    if grep -q '^offshoot:' $root/etc/passwd; then chroot $root userdel offshoot; fi
    # Images of containers leave documents out.
    rm -rf $root/etc/dpkg/dpkg.cfg.d
    # Hosts with udev have the group.
    chroot $root groupadd --system --force kvm
    mkdir -p $root/etc/systemd/system $root/package-test
    cp "$package" $root/package-test/offshoot.deb
    cp "$here/../packaging/test.sh" $root/package-test/
    # The container ends with the test, and as it did.
    cat >$root/etc/systemd/system/package-test.service <<UNIT
[Unit]
After=basic.target
Requires=basic.target
SuccessAction=exit-force
FailureAction=exit-force

[Service]
Type=oneshot
ExecStart=/bin/bash /package-test/test.sh
StandardOutput=append:/package-test/log
StandardError=append:/package-test/log
TimeoutStartSec=90
UNIT
    local options=(--quiet --boot --directory=$root --register=no --keep-unit --private-network --console=pipe
        --link-journal=no --resolv-conf=off --timezone=off
        # Beyond what containers may by themselves: what the server asks of a host.
        --system-call-filter="landlock_create_ruleset landlock_add_rule landlock_restrict_self")
    # As udev would make them.
    mknod -m 666 /run/tun c 10 200
    options+=(--bind=/run/tun:/dev/net/tun)
    if [[ -c /dev/kvm ]]; then
        mknod -m 660 /run/kvm c 10 232
        chgrp "$(chroot $root getent group kvm | cut -d : -f 3)" /run/kvm
        options+=(--bind=/run/kvm:/dev/kvm)
    fi
    # A group of processes of its own, in each hierarchy that systemd uses: so none of its groups stays.
    local groups=() id kind path
    while IFS=: read -r id kind path; do
        case $kind in
            name=systemd) groups+=("/sys/fs/cgroup/systemd$path/package-test.$$") ;;
            '') groups+=("$(findmnt --noheadings --output TARGET --types cgroup2 | head -n 1)$path/package-test.$$") ;;
        esac
    done </proc/self/cgroup
    mkdir "${groups[@]}"
    (
        for group in "${groups[@]}"; do echo $BASHPID >"$group/cgroup.procs"; done
        exec timeout --foreground --kill-after=5 120 systemd-nspawn "${options[@]}" \
            systemd.unit=package-test.service systemd.show_status=no systemd.log_target=journal </dev/null
    ) || result=$?
    find "${groups[@]}" -depth -type d -exec rmdir {} +
    cat $root/package-test/log
    return $result
}

if [[ ${1:-} == --contained ]]; then
    contained "$2"
    exit
fi

package=$("$here/package.sh")
echo "package: $package, $(($(stat -c %s "$package") / 1024)) KiB"
lintian --allow-root --fail-on error "$package"
[[ $("$here/package.sh" 2>/dev/null | xargs sha256sum) == "$(sha256sum "$package")" ]] || {
    echo "FAILED  made twice, the package is not the same" >&2
    exit 1
}
as_root=()
((EUID == 0)) || as_root=(sudo)
"${as_root[@]}" unshare --mount --propagation private "${BASH_SOURCE[0]}" --contained "$(realpath "$package")"
