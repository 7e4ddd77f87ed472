//! The host's own libvirtd, and one who may ask it but is not root.
//!
//! Only root can try that: it takes a host of its own, as far as the test sees it. Others try the sessions' alone.
#![allow(missing_docs, clippy::unwrap_used)]

mod daemon;

use daemon::host::as_offshoot;
use daemon::{Daemon, MIB, disk, of, same, wanted, whole};
use libvirt::Wanted;

/// Numbers of the host's groups.
const LIBVIRT_QEMU: u32 = 64055;
const LIBVIRT: u32 = 64056;

#[test]
fn the_hosts_own_is_asked_by_one_of_its_groups() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let daemon = Daemon::start_system();
    // As the host's directory of images: what QEMU runs as can make no file there.
    std::fs::create_dir(daemon.at("images")).unwrap();
    let path = daemon.disk("images/plain.qcow2", "qcow2", 64);
    let name = "plain-with-a-name-that-is-long";
    let uuid = daemon.define(name, 64, &[(&path, "qcow2")]);
    daemon.virsh(&["start", name]);

    let refused = as_offshoot(&[], || libvirt::Connection::open(&daemon.uri().parse().unwrap()));
    let refused = format!("{:?}", refused.err().unwrap());
    assert!(refused.contains("Permission denied"), "{refused}");
    let said = as_offshoot(&[LIBVIRT], || {
        daemon.open().back_up(&wanted(&uuid, 1, None)).err().unwrap()
    });
    let said = format!("{said:?}");
    assert!(
        said.contains("must be in the group that QEMU runs as (libvirt-qemu)"),
        "{said}"
    );

    as_offshoot(&[LIBVIRT, LIBVIRT_QEMU], || {
        let connection = daemon.open();
        let first = connection.back_up(&wanted(&uuid, 1, None)).unwrap();
        same(&whole(&first, 0), &disk(64, &[(0, 1)]));
        let since = of(&first);
        first.end().unwrap();
        daemon.write(name, "write -P 2 10M 1M");
        let second = Wanted {
            since: Some(since),
            ..wanted(&uuid, 2, None)
        };
        let second = connection.back_up(&second).unwrap();
        assert_eq!(
            second.disks[0].changed.clone().unwrap(),
            std::iter::once(10 * MIB..11 * MIB).collect::<Vec<_>>()
        );
        same(&whole(&second, 0), &disk(64, &[(0, 1), (10, 2)]));
        second.end().unwrap();
        connection.forget(&uuid, "key", |_| true, false).unwrap();
        assert!(connection.moments(&uuid, "key").unwrap().is_empty());
    });
    let left: Vec<_> = std::fs::read_dir(daemon.at("images"))
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    assert_eq!(left, ["plain.qcow2"], "no scratch file stays");
}
