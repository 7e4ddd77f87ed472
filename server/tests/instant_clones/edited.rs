//! Machines whose disks and NICs come and go while they run.

use crate::support::counting::answers;
use crate::support::{by, clean_up, vm_id};
use crate::*;
use shared::Code;
use shared::clone::{CloneTarget, CloneVm};
use shared::edit::{EditVm, GrowDisk};
use shared::snapshot::TakeSnapshot;
use shared::vm::{BlankDisk, NewNic, Vm};

async fn machine(jobs: &Jobs, vm: VmId) -> Vm {
    db::vms::by_id(&jobs.world().db, vm).await.unwrap().unwrap()
}

async fn edit(jobs: &Jobs, vm: VmId, request: EditVm) -> Job {
    let job = jobs.edit_vm(vm, request, by()).await.unwrap();
    succeeded(jobs, job.id).await
}

/// The PCI slots of the guest's disks and NICs, as it sees them.
fn seen(jobs: &Jobs, vm: VmId) -> Vec<u32> {
    let says = guest_says(
        jobs,
        vm,
        "ls /sys/bus/virtio/drivers/virtio_blk/ /sys/bus/virtio/drivers/virtio_net/ >/dev/null; \
        for d in /sys/block/vd*/device /sys/class/net/*/device; do readlink -f $d; done",
    );
    let slot = |line: &str| {
        let (_, rest) = line.split_once("0000:00:")?;
        u32::from_str_radix(rest.split('.').next()?, 16).ok()
    };
    let mut slots: Vec<u32> = says.lines().filter_map(slot).collect();
    slots.sort();
    slots
}

/// Waits until the guest sees its disks and NICs in these slots: it takes note of what was plugged in when it comes to it.
fn sees(jobs: &Jobs, vm: VmId, wanted: &[u32]) {
    let begin = Instant::now();
    loop {
        let seen = seen(jobs, vm);
        if seen == wanted {
            return;
        }
        assert!(
            begin.elapsed() < support::PATIENCE,
            "it sees {seen:?}, not {wanted:?}"
        );
        // Nothing tells of it here.
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn slots(vm: &Vm, seed: bool) -> Vec<u32> {
    let disks = vm.disks.iter().map(|d| d.slot);
    let mut all: Vec<u32> = disks
        .chain(vm.network_interfaces.iter().map(|n| n.slot))
        .collect();
    if seed {
        all.push(5);
    }
    all.sort();
    all
}

fn one_blank() -> EditVm {
    EditVm {
        add_disks: vec![NewDisk::Blank(BlankDisk { size_gib: 1 })],
        ..EditVm::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_plugged_in_while_a_machine_runs_is_in_its_forks_and_stays_where_it_is() {
    let dir = support::dir();
    let (jobs, source) = counting(dir.path()).await;
    let request = EditVm {
        cpus: Some(2),
        memory_mib: Some(192),
        add_nics: vec![NewNic::on("isolated")],
        ..one_blank()
    };
    edit(&jobs, source, request).await;
    let edited = machine(&jobs, source).await;
    let next = edited.at_next_start.clone().unwrap();
    assert_eq!((edited.cpus, edited.memory_mib), (1, 128), "as it runs");
    assert_eq!((next.cpus, next.memory_mib), (Some(2), Some(192)));
    assert_eq!((edited.disks.len(), edited.network_interfaces.len()), (2, 2));
    sees(&jobs, source, &slots(&edited, true));

    // Its guest sees the disk grow; nothing shrinks.
    let grow = |size_gib| EditVm {
        grow_disks: vec![GrowDisk { disk: 1, size_gib }],
        ..EditVm::default()
    };
    edit(&jobs, source, grow(2)).await;
    let begin = Instant::now();
    while !guest_says(&jobs, source, "cat /sys/block/vd*/size").contains("4194304") {
        assert!(
            begin.elapsed() < support::PATIENCE,
            "its guest sees the disk as it was"
        );
        // Nothing tells of it here.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let refused = jobs.edit_vm(source, grow(1), by()).await.unwrap_err();
    assert_eq!(refused.code, Code::InvalidArgument, "{refused}");
    assert!(refused.message.contains("cannot shrink"), "{refused}");

    // A fork is what runs: with both, and not with what waits for the next start.
    let clone = forked(&jobs, source, named(&["forked"])).await.remove(0).vm;
    let fork = machine(&jobs, clone).await;
    assert_eq!((fork.cpus, fork.memory_mib, &fork.at_next_start), (1, 128, &None));
    whole(&counts(&jobs, clone, 5).await);
    assert_eq!(slots(&fork, true), slots(&edited, true));
    sees(&jobs, clone, &slots(&fork, true));

    // A cold start finds all in the same slots, and takes what has waited.
    let off = jobs.power(source, PowerAction::PowerOff, by()).await.unwrap();
    succeeded(&jobs, off.id).await;
    let on = jobs.power(source, PowerAction::Start, by()).await.unwrap();
    succeeded(&jobs, on.id).await;
    counts(&jobs, source, 3).await;
    let started = machine(&jobs, source).await;
    assert_eq!(
        (started.cpus, started.memory_mib, &started.at_next_start),
        (2, 192, &None)
    );
    sees(&jobs, source, &slots(&edited, true));
    assert_eq!(guest_says(&jobs, source, "nproc").trim(), "2");
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_is_taken_out_of_a_running_machine_and_lives_on_in_its_snapshot() {
    let dir = support::dir();
    let (jobs, source) = counting(dir.path()).await;
    edit(&jobs, source, one_blank()).await;
    let taken = jobs
        .snapshot(source, TakeSnapshot::default(), by())
        .await
        .unwrap();
    succeeded(&jobs, taken.id).await;
    let out = EditVm {
        remove_disks: vec![1],
        remove_nics: vec![0],
        ..EditVm::default()
    };
    edit(&jobs, source, out).await;
    let now = machine(&jobs, source).await;
    assert_eq!((now.disks.len(), &now.at_next_start), (1, &None), "{now:#?}");
    assert_eq!(now.network_interfaces, []);
    // The disk and the seed.
    sees(&jobs, source, &[4, 5]);
    support::slate_without_layers(&jobs).await;

    // It has two disks where it was taken, whatever the machine has now.
    let target = CloneTarget {
        name: Some("before".parse().unwrap()),
        start: false,
        boot_timeout_seconds: 60,
        ..CloneTarget::default()
    };
    let request: CloneVm = serde_json::from_value(json!({ "target": target })).unwrap();
    let cloned = jobs.clone_vm(source, request, by()).await.unwrap();
    succeeded(&jobs, cloned.id).await;
    let clone = machine(&jobs, vm_id(&jobs, "before").await).await;
    assert_eq!(clone.disks.iter().map(|d| d.slot).collect::<Vec<_>>(), [4, 5]);

    // Another comes into the slot that is free, and a fork has that one.
    edit(&jobs, source, one_blank()).await;
    let forked = jobs
        .instant_clone(source, named(&["forked"]), by())
        .await
        .unwrap();
    succeeded(&jobs, forked.id).await;
    let fork = vm_id(&jobs, "forked").await;
    sees(&jobs, fork, &slots(&machine(&jobs, fork).await, true));
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_lets_go_of_nothing_keeps_its_disk_until_it_is_started_next() {
    let dir = support::dir();
    let jobs = support::engine(dir.path(), QEMU, None).await;
    // It stands at its boot loader.
    let made = jobs.create_vm(create("source", true), by()).await.unwrap();
    succeeded(&jobs, made.id).await;
    let source = vm_id(&jobs, "source").await;
    let out = EditVm {
        remove_disks: vec![1],
        ..EditVm::default()
    };
    let job = edit(&jobs, source, out).await;
    let said = job.steps.last().unwrap().message.clone().unwrap();
    assert!(said.contains("not let go of disk1"), "{said}");
    let now = machine(&jobs, source).await;
    assert_eq!(
        (now.disks.len(), now.at_next_start.unwrap().remove_disks),
        (2, vec![1])
    );
    // A snapshot is of what runs.
    let taken = jobs
        .snapshot(source, TakeSnapshot::default(), by())
        .await
        .unwrap();
    succeeded(&jobs, taken.id).await;
    for action in [PowerAction::PowerOff, PowerAction::Start] {
        let job = jobs.power(source, action, by()).await.unwrap();
        succeeded(&jobs, job.id).await;
    }
    let now = machine(&jobs, source).await;
    assert_eq!((now.disks.len(), now.at_next_start), (1, None));
    support::slate_without_layers(&jobs).await;
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_shut_down_by_its_agent_and_powered_off_when_it_does_not_listen() {
    let dir = support::dir();
    let (jobs, source) = counting(dir.path()).await;
    answers(&jobs, source).await;
    let said = |job: &Job| job.steps[0].message.clone().unwrap();
    let off = jobs.shut_down(source, Some(100), by()).await.unwrap();
    let off = succeeded(&jobs, off.id).await;
    assert_eq!(said(&off), "the guest has shut down, asked by its guest agent");

    let made = jobs.create_vm(create("deaf", true), by()).await.unwrap();
    succeeded(&jobs, made.id).await;
    let deaf = vm_id(&jobs, "deaf").await;
    let off = jobs.shut_down(deaf, Some(1), by()).await.unwrap();
    let off = succeeded(&jobs, off.id).await;
    assert_eq!(said(&off), "powered off: the guest had not shut down within 1 s");
    assert_eq!(machine(&jobs, deaf).await.state, shared::vm::VmState::Stopped);
    clean_up(&jobs).await;
}
