//! Machines of a real libvirtd, with a real QEMU: what is read of them is what their disks have, and what is said to have
//! changed is what was written.
#![allow(missing_docs, clippy::single_range_in_vec_init, clippy::unwrap_used)]

mod daemon;

use daemon::{Daemon, MIB, disk, of, same, tool, wanted, whole};
use libvirt::{Connection, Error, Firmware, Quiesced, Wanted, Watch};
use std::path::Path;
use std::time::Duration;

fn moments(connection: &Connection, uuid: &str) -> Vec<String> {
    connection.moments(uuid, "key").unwrap()
}

/// Waits until a machine is off.
async fn off(connection: &Connection, changes: &mut Watch, uuid: &str) {
    while connection.is_active(uuid).unwrap() {
        changes.changed().await;
    }
}

#[test]
fn what_has_changed_is_read_while_the_machine_goes_on() {
    let daemon = Daemon::start();
    let connection = daemon.open();
    let uuid = daemon.plain("plain");
    daemon.virsh(&["start", "plain"]);
    let machines = connection.machines().unwrap();
    assert_eq!(machines.len(), 1);
    let machine = &machines[0];
    assert_eq!(
        (machine.name.as_str(), machine.uuid.as_str()),
        ("plain", uuid.as_str())
    );
    assert_eq!(
        (machine.cpus, machine.memory_mib, machine.active),
        (Some(1), Some(64), true)
    );
    assert_eq!(
        (machine.firmware, machine.os.as_deref()),
        (Firmware::Bios, Some("debian/12"))
    );
    assert_eq!((machine.disks[0].bytes, &machine.refusal), (64 * MIB, &None));

    let first = connection.back_up(&wanted(&uuid, 1, None)).unwrap();
    // Of later moments nothing is seen.
    daemon.write("plain", "write -P 9 0 1M");
    same(&whole(&first, 0), &disk(64, &[(0, 1)]));
    assert_eq!((&first.disks[0].changed, &first.quiesced), (&None, &Quiesced::No));
    let since = of(&first);
    let source = first.disks[0].source.clone();
    first.end().unwrap();
    assert!(source.read(0, &mut [0; 512]).is_err(), "what was shown is gone");

    daemon.write("plain", "write -P 2 10M 1M");
    daemon.write("plain", "write -P 3 20M 1M");
    let second = Wanted {
        since: Some(since.clone()),
        ..wanted(&uuid, 2, None)
    };
    let second = connection.back_up(&second).unwrap();
    let changed = second.disks[0].changed.clone().unwrap();
    assert_eq!(changed, [0..MIB, 10 * MIB..11 * MIB, 20 * MIB..21 * MIB]);
    same(&whole(&second, 0), &disk(64, &[(0, 9), (10, 2), (20, 3)]));
    let after = of(&second);
    second.end().unwrap();
    assert_eq!(moments(&connection, &uuid), ["offshoot.key.1", "offshoot.key.2"]);
    connection
        .forget(&uuid, "key", |name| name.ends_with(".1"), false)
        .unwrap();
    assert_eq!(moments(&connection, &uuid), ["offshoot.key.2"]);

    // One that comes to nothing takes nothing away from the next.
    daemon.write("plain", "write -P 4 30M 1M");
    let third = Wanted {
        since: Some(after.clone()),
        ..wanted(&uuid, 3, None)
    };
    let mut lost = connection.back_up(&third).unwrap();
    assert_eq!(lost.disks[0].changed.take().unwrap(), [30 * MIB..31 * MIB]);
    lost.take_back();
    assert_eq!(moments(&connection, &uuid), ["offshoot.key.2"]);
    daemon.write("plain", "write -P 5 40M 1M");
    let fourth = connection.back_up(&third).unwrap();
    let changed = fourth.disks[0].changed.clone().unwrap();
    assert_eq!(changed, [30 * MIB..31 * MIB, 40 * MIB..41 * MIB]);
    fourth.end().unwrap();
}

#[test]
fn what_a_killed_process_leaves_is_ended_by_the_next_try() {
    let mut daemon = Daemon::start();
    let uuid = daemon.plain("plain");
    daemon.virsh(&["start", "plain"]);
    let connection = daemon.open();
    let first = connection.back_up(&wanted(&uuid, 1, None)).unwrap();
    // Its process ends: nobody holds it any more.
    first.leave();
    daemon.restart();
    let connection = daemon.open();
    // Of somebody else it is left alone.
    let other = Wanted {
        key: "other".into(),
        ..wanted(&uuid, 1, None)
    };
    assert!(matches!(connection.back_up(&other), Err(Error::Busy(_))));
    let again = connection.back_up(&wanted(&uuid, 1, None)).unwrap();
    same(&whole(&again, 0), &disk(64, &[(0, 1)]));
    again.end().unwrap();
    assert_eq!(moments(&connection, &uuid), ["offshoot.key.1"]);
    connection.back_up(&other).unwrap().end().unwrap();
}

#[test]
fn a_lost_checkpoint_means_that_all_is_read() {
    let daemon = Daemon::start();
    let connection = daemon.open();
    let uuid = daemon.plain("plain");
    daemon.virsh(&["start", "plain"]);
    let first = connection.back_up(&wanted(&uuid, 1, None)).unwrap();
    let since = wanted(&uuid, 2, Some(&first));
    first.end().unwrap();
    daemon.virsh(&["checkpoint-delete", "plain", "offshoot.key.1", "--metadata"]);
    let second = connection.back_up(&since).unwrap();
    let why = second.lost.as_deref().unwrap();
    assert!(why.contains("offshoot.key.1"), "{why}");
    assert_eq!(second.disks[0].changed, None);
    same(&whole(&second, 0), &disk(64, &[(0, 1)]));
    let since = wanted(&uuid, 3, Some(&second));
    second.end().unwrap();

    // A QEMU that is killed has not written down what has changed.
    let pid = std::fs::read_to_string(daemon.at("run/libvirt/qemu/run/plain.pid")).unwrap();
    let mut changes = connection.watch(&uuid).unwrap();
    tool("kill", &["-9", pid.trim()]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(off(&connection, &mut changes, &uuid));
    daemon.virsh(&["start", "plain"]);
    let third = connection.back_up(&since).unwrap();
    assert!(third.lost.is_some());
    same(&whole(&third, 0), &disk(64, &[(0, 1)]));
    let since = of(&third);
    third.end().unwrap();
    connection
        .forget(&uuid, "key", |name| name != since.checkpoint, false)
        .unwrap();
    assert_eq!(moments(&connection, &uuid), ["offshoot.key.3"]);
    let fourth = Wanted {
        since: Some(since),
        ..wanted(&uuid, 4, None)
    };
    let fourth = connection.back_up(&fourth).unwrap();
    assert_eq!(
        (&fourth.lost, &fourth.disks[0].changed),
        (&None, &Some(Vec::new()))
    );
    fourth.end().unwrap();
}

#[test]
fn a_machine_that_is_off_is_read_without_running() {
    let daemon = Daemon::start();
    let connection = daemon.open();
    let uuid = daemon.plain("plain");
    let first = connection.back_up(&wanted(&uuid, 1, None)).unwrap();
    assert_eq!(daemon.virsh(&["domstate", "plain"]).trim(), "paused");
    same(&whole(&first, 0), &disk(64, &[(0, 1)]));
    assert_eq!(first.quiesced, Quiesced::Off);
    let since = wanted(&uuid, 2, Some(&first));
    first.end().unwrap();
    assert!(!connection.machine(&uuid).unwrap().active);

    // What is written while it runs is known when it is off.
    daemon.virsh(&["start", "plain"]);
    daemon.write("plain", "write -P 2 10M 1M");
    connection.power_off(&uuid).unwrap();
    let second = connection.back_up(&since).unwrap();
    assert_eq!(second.disks[0].changed.as_deref().unwrap(), [10 * MIB..11 * MIB]);
    same(&whole(&second, 0), &disk(64, &[(0, 1), (10, 2)]));
    second.end().unwrap();

    // Of a machine that is off all is forgotten, too.
    connection.forget(&uuid, "key", |_| true, false).unwrap();
    assert_eq!(moments(&connection, &uuid).len(), 2);
    connection.forget(&uuid, "key", |_| true, true).unwrap();
    assert!(moments(&connection, &uuid).is_empty());
    assert!(!connection.machine(&uuid).unwrap().active);

    // With the process its paused machine goes, too.
    let other = daemon.open();
    let mut changes = connection.watch(&uuid).unwrap();
    let third = other.back_up(&wanted(&uuid, 3, None)).unwrap();
    assert!(connection.machine(&uuid).unwrap().active);
    drop(third);
    drop(other);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(off(&connection, &mut changes, &uuid));

    daemon.virsh(&["start", "plain"]);
    daemon.virsh(&["managedsave", "plain"]);
    let refused = connection.back_up(&wanted(&uuid, 4, None)).err().unwrap();
    assert!(refused.to_string().contains("memory is saved"), "{refused}");
}

#[test]
fn raw_disks_are_read_as_a_whole() {
    let daemon = Daemon::start();
    let connection = daemon.open();
    let (one, two) = (
        daemon.disk("one.qcow2", "qcow2", 64),
        daemon.disk("two.img", "raw", 32),
    );
    let uuid = daemon.define("both", 64, &[(&one, "qcow2"), (&two, "raw")]);
    let only = daemon.disk("only.img", "raw", 32);
    let raw = daemon.define("raw", 64, &[(&only, "raw")]);
    daemon.virsh(&["start", "both"]);
    daemon.virsh(&["start", "raw"]);
    let first = connection.back_up(&wanted(&uuid, 1, None)).unwrap();
    let since = wanted(&uuid, 2, Some(&first));
    first.end().unwrap();
    let second = connection.back_up(&since).unwrap();
    assert_eq!(second.disks[0].changed, Some(Vec::new()));
    assert_eq!((&second.disks[1].changed, &second.lost), (&None, &None));
    same(&whole(&second, 1), &disk(32, &[(0, 1)]));
    second.end().unwrap();
    let alone = connection.back_up(&wanted(&raw, 1, None)).unwrap();
    assert_eq!(alone.checkpoint, None);
    same(&whole(&alone, 0), &disk(32, &[(0, 1)]));
    alone.end().unwrap();
}

#[test]
fn what_cannot_be_reached_or_is_gone_says_so() {
    let daemon = Daemon::start();
    let connection = daemon.open();
    let gone = connection
        .machine("4ecf55b8-3c86-472e-b5e9-7dc0609adf44")
        .unwrap_err();
    assert!(matches!(gone, Error::Gone(_)), "{gone}");
    let nowhere = "qemu:///session?socket=/nowhere/libvirt-sock".parse().unwrap();
    let away = Connection::open(&nowhere).err().unwrap();
    assert!(
        away.passes() && away.to_string().contains("libvirtd must run on this host"),
        "{away}"
    );
    let only = daemon.disk("a.qcow2", "qcow2", 8);
    daemon.define("gone", 64, &[(&only, "qcow2")]);
    std::fs::remove_file(&only).unwrap();
    let machines = connection.machines().unwrap();
    let why = machines[0].refusal.as_deref().unwrap();
    assert!(why.contains("vda cannot be looked at"), "{why}");
}

/// The demo guest, as a disk.
fn guest() -> String {
    let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest/build.sh");
    let out = std::process::Command::new(recipe).output().unwrap();
    assert!(out.status.success(), "{}", daemon::said(&out));
    let said = String::from_utf8(out.stdout).unwrap();
    said.lines().last().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_quiesced_shut_down_and_started_again() {
    let daemon = Daemon::start();
    let connection = daemon.open();
    let disk = daemon.put("guest.qcow2", Path::new(&guest()));
    let uuid = daemon.define("guest", 256, &[(&disk, "qcow2")]);
    let quiet = Wanted {
        quiesce: true,
        ..wanted(&uuid, 1, None)
    };
    daemon.virsh(&["start", "guest"]);
    // Nobody answers there yet.
    let early = connection.back_up(&quiet).unwrap();
    assert!(
        matches!(early.quiesced, Quiesced::Failed(_)),
        "{:?}",
        early.quiesced
    );
    early.end().unwrap();
    let answers = daemon.virsh(&["event", "guest", "agent-lifecycle", "--timeout", "120"]);
    assert!(answers.contains("connected"), "{answers}");
    let first = connection.back_up(&quiet).unwrap();
    assert_eq!(first.quiesced, Quiesced::Yes);
    first.end().unwrap();
    // It goes on.
    daemon.virsh(&["qemu-agent-command", "guest", "{\"execute\":\"guest-ping\"}"]);

    let mut changes = connection.watch(&uuid).unwrap();
    assert!(connection.shut_down(&uuid).unwrap());
    let went = off(&connection, &mut changes, &uuid);
    tokio::time::timeout(Duration::from_secs(120), went)
        .await
        .unwrap();
    drop(changes);
    connection.start(&uuid).unwrap();
    assert!(connection.machine(&uuid).unwrap().active);
    connection.power_off(&uuid).unwrap();
    assert!(!connection.machine(&uuid).unwrap().active);
    daemon.virsh(&["autostart", "guest"]);
    connection.no_autostart(&uuid).unwrap();
    assert!(!daemon.virsh(&["dominfo", "guest"]).contains("enable"));
}
