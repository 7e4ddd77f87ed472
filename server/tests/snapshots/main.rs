//! Snapshots of machines that really run: memory kept and gone back to, names that go, layers that are merged.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod model;
#[allow(dead_code, reason = "the other tests use more of it")]
mod monitor;

use server::db;
use server::hypervisor::RunState;
use server::jobs::Jobs;
use shared::VmId;
use shared::clone::{CloneMode, CloneVm, DisksOnly};
use shared::snapshot::{Consistency, RevertSnapshot, Snapshot, TakeSnapshot};
use shared::vm::{BlankDisk, NewDisk, PowerAction};
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::process::Command;
use support::counting::{QEMU, counting, counts, off_and_gone, succeeded, ticks, until, whole};
use support::{by, clean_up, create, engine, vm_id};

async fn taken(jobs: &Jobs, vm: VmId, name: &str, memory: bool) -> Snapshot {
    let request = TakeSnapshot {
        name: Some(name.parse().unwrap()),
        memory,
        ..TakeSnapshot::default()
    };
    let job = jobs.snapshot(vm, request, by()).await.unwrap();
    succeeded(jobs, job.id).await;
    found(jobs, vm, name).await
}

async fn found(jobs: &Jobs, vm: VmId, name: &str) -> Snapshot {
    let found = db::snapshots::find(&jobs.world().db, vm, name).await.unwrap();
    found.unwrap_or_else(|| panic!("no snapshot {name}"))
}

async fn reverted(jobs: &Jobs, vm: VmId, to: &Snapshot, request: RevertSnapshot) {
    let job = jobs.revert(vm, to, request, by()).await.unwrap();
    succeeded(jobs, job.id).await;
}

async fn deleted(jobs: &Jobs, vm: VmId, snapshot: &Snapshot) {
    let job = jobs.delete_snapshot(vm, snapshot.id, by()).await.unwrap();
    succeeded(jobs, job.id).await;
}

async fn powered(jobs: &Jobs, vm: VmId, action: PowerAction) {
    let job = jobs.power(vm, action, by()).await.unwrap();
    succeeded(jobs, job.id).await;
}

/// The files of a machine's first disk, the base first.
async fn chain(jobs: &Jobs, vm: VmId) -> Vec<PathBuf> {
    let world = jobs.world();
    let machine = db::vms::by_id(&world.db, vm).await.unwrap().unwrap();
    let chain = db::layers::chain_of(&world.db, machine.disks[0].layer)
        .await
        .unwrap();
    chain
        .iter()
        .map(|layer| world.layer_file(layer.id).path)
        .collect()
}

fn tool(program: &str, arguments: &[&str]) -> String {
    let out = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        out.status.success(),
        "{program} {arguments:?}: {said}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_goes_on_where_a_snapshot_with_memory_was_taken() {
    let dir = support::dir();
    let (jobs, vm) = counting(dir.path()).await;
    let before = ticks(&jobs, vm).last().unwrap().clone();
    let kept = taken(&jobs, vm, "kept", true).await;
    let after = ticks(&jobs, vm).last().unwrap().clone();
    assert!(kept.memory && kept.memory_bytes.unwrap() > 1 << 20, "{kept:?}");
    assert_eq!(kept.consistency, Consistency::Online);
    assert!((1..2_000_000).contains(&kept.pause_micros.unwrap()), "{kept:?}");
    // It lost no tick by that.
    let last = counts(&jobs, vm, ticks(&jobs, vm).len() + 3).await;
    whole(&last);

    for round in 0..2 {
        let request = RevertSnapshot {
            keep_current: round == 0,
            name: (round == 0).then(|| "later".parse().unwrap()),
            ..RevertSnapshot::default()
        };
        reverted(&jobs, vm, &kept, request).await;
        assert_eq!(jobs.world().hypervisor.state(vm).await, RunState::Running);
        // Its log begins anew with its process.
        let again = counts(&jobs, vm, 4).await;
        assert_eq!(again[0].0, before.0, "the same boot");
        assert!(
            (before.1..=after.1 + 2).contains(&again[0].1),
            "it goes on in the moment of the snapshot: {again:?}, taken within {before:?} and {after:?}"
        );
        whole(&again);
        let vm_now = db::vms::by_id(&jobs.world().db, vm).await.unwrap().unwrap();
        assert_eq!(vm_now.current_snapshot, Some(kept.id));
        assert!(vm_now.network_interfaces.iter().all(|nic| nic.connected));
    }
    // Its kernel was told that it is not where it was.
    let log = std::fs::read_to_string(jobs.world().hypervisor.serial_log(vm)).unwrap();
    assert!(log.contains("crng reseeded due to virtual machine fork"), "{log}");

    // What was now is kept, without memory.
    let later = found(&jobs, vm, "later").await;
    assert_eq!((later.memory, later.parent), (false, Some(kept.id)));
    // Other hardware cannot go on; the disks can.
    let other = RevertSnapshot {
        memory: false,
        start: true,
        ..RevertSnapshot::default()
    };
    reverted(&jobs, vm, &kept, other).await;
    let booted = until(&jobs, vm, |all| all.last().is_some_and(|t| t.0 != before.0)).await;
    assert_ne!(booted.last().unwrap().0, before.0, "it has booted");
    deleted(&jobs, vm, &kept).await;
    let left: Vec<_> = std::fs::read_dir(dir.path().join("points")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    off_and_gone(&jobs, vm).await;
    clean_up(&jobs).await;
}

/// A machine with one empty disk, that does nothing by itself.
async fn blank(jobs: &Jobs, name: &str, start: bool) -> VmId {
    let mut request = create(name, start);
    request.memory_mib = 64;
    request.network_interfaces = Some(Vec::new());
    request.disks = vec![NewDisk::Blank(BlankDisk { size_gib: 1 })];
    let job = jobs.create_vm(request, by()).await.unwrap();
    succeeded(jobs, job.id).await;
    vm_id(jobs, name).await
}

async fn cloned(jobs: &Jobs, vm: VmId, snapshot: &Snapshot, name: &str) -> VmId {
    let request = CloneVm {
        clone_job_id: None,
        snapshot: Some(snapshot.id.to_string()),
        snapshot_now: None,
        mode: CloneMode::Linked,
        target: Some(shared::clone::CloneTarget {
            name: Some(name.parse().unwrap()),
            start: false,
            boot_timeout_seconds: 60,
            ..Default::default()
        }),
        disks_only: None::<DisksOnly>,
        request_id: None,
    };
    let job = jobs.clone_vm(vm, request, by()).await.unwrap();
    succeeded(jobs, job.id).await;
    vm_id(jobs, name).await
}

/// `qemu-io` writes a mebibyte full of a byte into a stopped machine's disk.
async fn write(jobs: &Jobs, vm: VmId, at_mib: u32, byte: u8) {
    let file = chain(jobs, vm).await.pop().unwrap();
    let command = format!("write -P {byte} {at_mib}M 1M");
    tool(
        "qemu-io",
        &["-f", "qcow2", "-c", &command, file.to_str().unwrap()],
    );
}

fn hash(file: &std::path::Path, to: &std::path::Path) -> u64 {
    tool(
        "qemu-img",
        &[
            "convert",
            "-U",
            "-f",
            "qcow2",
            "-O",
            "raw",
            file.to_str().unwrap(),
            to.to_str().unwrap(),
        ],
    );
    let mut hash = std::hash::DefaultHasher::new();
    std::fs::read(to).unwrap().hash(&mut hash);
    hash.finish()
}

/// A clone that is off has no lock on its files: what is merged below it must not change what it reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_clone_reads_the_same_whatever_becomes_of_the_snapshots_below_it() {
    let dir = support::dir();
    let jobs = engine(dir.path(), QEMU, None).await;
    let vm = blank(&jobs, "source", false).await;
    let mut snapshots = Vec::new();
    for n in 0..4u8 {
        write(&jobs, vm, n.into(), n + 1).await;
        write(&jobs, vm, 7, n + 1).await;
        snapshots.push(taken(&jobs, vm, &format!("s{n}"), false).await);
    }
    let clone = cloned(&jobs, vm, &snapshots[2], "clone").await;
    write(&jobs, vm, 5, 99).await;
    let raw = dir.path().join("raw");
    let (of_clone, of_source) = (
        hash(&chain(&jobs, clone).await.pop().unwrap(), &raw),
        hash(&chain(&jobs, vm).await.pop().unwrap(), &raw),
    );
    assert_eq!(chain(&jobs, vm).await.len(), 5);
    for (n, running) in [(1, false), (0, true), (2, true)] {
        if running && jobs.world().hypervisor.state(vm).await == RunState::Stopped {
            powered(&jobs, vm, PowerAction::Start).await;
        }
        deleted(&jobs, vm, &snapshots[n]).await;
        assert_eq!(
            hash(&chain(&jobs, clone).await.pop().unwrap(), &raw),
            of_clone,
            "s{n}"
        );
        assert_eq!(
            hash(&chain(&jobs, vm).await.pop().unwrap(), &raw),
            of_source,
            "s{n}"
        );
    }
    // Two are merged; on the third stand two, the clone and s3.
    assert_eq!(chain(&jobs, vm).await.len(), 3);
    assert_eq!(chain(&jobs, clone).await.len(), 2);
    powered(&jobs, clone, PowerAction::Start).await;
    // Both run and read the layer below s3: s3 goes all the same.
    deleted(&jobs, vm, &snapshots[3]).await;
    assert_eq!(hash(&chain(&jobs, vm).await.pop().unwrap(), &raw), of_source);
    for id in [clone, vm] {
        powered(&jobs, id, PowerAction::PowerOff).await;
    }
    assert_eq!(hash(&chain(&jobs, clone).await.pop().unwrap(), &raw), of_clone);
    support::slate_without_layers(&jobs).await;
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_with_its_reason() {
    let dir = support::dir();
    let jobs = engine(dir.path(), QEMU, None).await;
    let vm = blank(&jobs, "source", false).await;
    let with = |memory, quiesce| TakeSnapshot {
        memory,
        quiesce,
        ..TakeSnapshot::default()
    };
    let off = jobs.snapshot(vm, with(true, false), by()).await.unwrap_err();
    assert!(off.message.contains("is not running"), "{off:?}");
    let both = jobs.snapshot(vm, with(true, true), by()).await.unwrap_err();
    assert!(both.message.contains("choose one"), "{both:?}");
    let plain = taken(&jobs, vm, "plain", false).await;
    let named = RevertSnapshot {
        name: Some("x".parse().unwrap()),
        ..RevertSnapshot::default()
    };
    let named = jobs.revert(vm, &plain, named, by()).await.unwrap_err();
    assert!(named.message.contains("keepCurrent"), "{named:?}");

    // Other hardware than the memory was taken of.
    powered(&jobs, vm, PowerAction::Start).await;
    let kept = taken(&jobs, vm, "kept", true).await;
    let changed = jobs.world().db.write(move |tx| {
        Box::pin(async move {
            let set = sqlx::query("UPDATE vms SET cpus = 2, memory_mib = 65")
                .execute(tx.conn())
                .await;
            set.unwrap();
            Ok(())
        })
    });
    changed.await.unwrap();
    let why = jobs.revert(vm, &kept, RevertSnapshot::default(), by()).await;
    let why = why.unwrap_err().message;
    assert!(
        why.contains("1 processors then and 2 now, 64 MiB of memory then and 65 now"),
        "{why}"
    );
    assert_eq!(
        jobs.world().hypervisor.state(vm).await,
        RunState::Running,
        "it runs on"
    );
    clean_up(&jobs).await;
}
