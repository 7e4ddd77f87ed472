//! A host of the test's own, as far as a libvirtd sees it, made of what this one has.

use super::{is_root, tool};
use rustix::thread::{Gid, Uid, UnshareFlags};
use std::io::Write;
use std::path::Path;

/// Users and groups that the packages of a host make.
const USERS: &str = "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin\n\
                     offshoot:x:64057:64057::/nonexistent:/usr/sbin/nologin\n";
const GROUPS: &str = "libvirt-qemu:x:64055:\nlibvirt:x:64056:\noffshoot:x:64057:\n";
const OFFSHOOT: u32 = 64057;

/// Where a host has what is another's here, in `dir` by these names.
const PLACES: [(&str, &str); 5] = [
    ("etc", "/etc"),
    ("run", "/run"),
    ("lib", "/var/lib"),
    ("cache", "/var/cache"),
    ("logs", "/var/log"),
];

/// Gives this thread, and what it begins, such a host. Its directories are in `dir`, whose `config` and `run` are in their
/// places there.
pub fn of_its_own(dir: &Path) {
    assert!(is_root(), "only root can have a host of its own");
    // SAFETY: what is unshared are mounts, and no memory or file table.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    tool("mount", &["--make-rprivate", "/"]);
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    tool("cp", &["-a", "/etc", &at("etc")]);
    for (file, lines) in [("etc/passwd", USERS), ("etc/group", GROUPS)] {
        let file = std::fs::File::options().append(true).open(at(file));
        file.unwrap().write_all(lines.as_bytes()).unwrap();
    }
    for name in ["etc/libvirt", "lib", "logs"] {
        std::fs::create_dir_all(at(name)).unwrap();
    }
    tool("mount", &["--bind", &at("config/libvirt"), &at("etc/libvirt")]);
    for (name, place) in PLACES {
        tool("mount", &["--rbind", &at(name), place]);
    }
    // libvirtd tries what a QEMU can do; with the KVM of some machines that hangs.
    if Path::new("/dev/kvm").exists() {
        tool("mount", &["--bind", "/dev/null", "/dev/kvm"]);
    }
}

/// Shows this thread the true host again, so that `dir` can be removed.
pub fn given_back(dir: &Path) {
    for (_, place) in PLACES {
        tool("umount", &["--lazy", place]);
    }
    tool("umount", &["--lazy", dir.join("etc/libvirt").to_str().unwrap()]);
}

/// What the user that the program runs as does, who is in these groups.
pub fn as_offshoot<T: Send>(groups: &[u32], does: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let groups: Vec<_> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
            rustix::thread::set_thread_groups(&groups).unwrap();
            rustix::thread::set_thread_gid(Gid::from_raw(OFFSHOOT)).unwrap();
            rustix::thread::set_thread_uid(Uid::from_raw(OFFSHOOT)).unwrap();
            does()
        });
        thread.join().unwrap()
    })
}
