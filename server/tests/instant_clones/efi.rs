//! Machines whose firmware is EFI: what it remembers is a layer like those of disks, and goes where they go.

use crate::support::counting::answers;
use crate::support::{by, clean_up, create, engine, guest, vm_id};
use crate::*;
use shared::clone::{CloneMode, CloneTarget, CloneVm};
use shared::edit::EditVm;
use shared::snapshot::{RevertSnapshot, Snapshot, TakeSnapshot};
use shared::vm::{DiskOfImage, Firmware, Vm};

/// Where the guest's own variables are: Linux lets nobody write over them.
const VARIABLES: &str = "/sys/firmware/efi/efivars";
const OWN: &str = "5ab1e000-0000-4000-8000-00000000f0f0";

/// With less the firmware and the boot loader leave the kernel no room.
const MEMORY_MIB: u32 = 256;

/// Has the guest's firmware remember a word.
fn remember(jobs: &Jobs, vm: VmId, word: &str) {
    // Four bytes say that it is kept, and read at run time.
    let command = format!("printf '\\007\\000\\000\\000x' > {VARIABLES}/{word}-{OWN} && echo kept");
    assert_eq!(guest_says(jobs, vm, &command).trim(), "kept");
}

/// The words that it remembers, in their order.
fn remembered(jobs: &Jobs, vm: VmId) -> String {
    let names = guest_says(jobs, vm, &format!("ls {VARIABLES}"));
    let words: Vec<_> = names
        .lines()
        .filter_map(|name| name.trim().strip_suffix(&format!("-{OWN}")))
        .collect();
    words.join(" ")
}

async fn machine(jobs: &Jobs, vm: VmId) -> Vm {
    db::vms::by_id(&jobs.world().db, vm).await.unwrap().unwrap()
}

async fn power(jobs: &Jobs, vm: VmId, action: PowerAction) {
    let job = jobs.power(vm, action, by()).await.unwrap();
    succeeded(jobs, job.id).await;
}

async fn taken(jobs: &Jobs, vm: VmId, name: &str, memory: bool) -> Snapshot {
    let request = TakeSnapshot {
        name: Some(name.parse().unwrap()),
        memory,
        ..TakeSnapshot::default()
    };
    let job = jobs.snapshot(vm, request, by()).await.unwrap();
    succeeded(jobs, job.id).await;
    let found = db::snapshots::find(&jobs.world().db, vm, name).await.unwrap();
    found.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_efi_firmware_remembers_goes_with_snapshots_clones_and_forks() {
    let dir = support::dir();
    let jobs = engine(dir.path(), QEMU, None).await;
    let image = "counting".parse().unwrap();
    jobs.world().register_image(&image, &guest("demo")).await.unwrap();
    let mut request = create("source", true);
    (request.firmware, request.memory_mib) = (Firmware::Efi, MEMORY_MIB);
    request.disks = vec![NewDisk::Image(DiskOfImage {
        image: "counting".into(),
        size_gib: None,
    })];
    let made = jobs.create_vm(request, by()).await.unwrap();
    succeeded(&jobs, made.id).await;
    let source = vm_id(&jobs, "source").await;
    let new = machine(&jobs, source).await;
    assert_eq!(
        (new.firmware, new.guest_disks().count(), new.disks.len()),
        (Firmware::Efi, 1, 2)
    );
    answers(&jobs, source).await;
    remember(&jobs, source, "first");

    // A snapshot has it, and one with memory too.
    let disks = taken(&jobs, source, "disks", false).await;
    let memory = taken(&jobs, source, "memory", true).await;
    remember(&jobs, source, "second");

    // A fork goes on with what there is, and keeps what it remembers for itself.
    let fork = forked(&jobs, source, named(&["forked"])).await.remove(0).vm;
    assert_eq!(remembered(&jobs, fork), "first second");
    remember(&jobs, fork, "third");
    assert_eq!(remembered(&jobs, source), "first second");
    power(&jobs, fork, PowerAction::PowerOff).await;
    power(&jobs, fork, PowerAction::Start).await;
    answers(&jobs, fork).await;
    assert_eq!(
        remembered(&jobs, fork),
        "first second third",
        "also when its power was off"
    );

    // A clone has what the snapshot has.
    let request = CloneVm {
        clone_job_id: None,
        snapshot: Some(disks.id.to_string()),
        snapshot_now: None,
        mode: CloneMode::Full,
        target: Some(CloneTarget {
            name: Some("cloned".parse().unwrap()),
            start: true,
            boot_timeout_seconds: 120,
            ..CloneTarget::default()
        }),
        disks_only: None,
        request_id: None,
    };
    let job = jobs.clone_vm(source, request, by()).await.unwrap();
    succeeded(&jobs, job.id).await;
    let clone = vm_id(&jobs, "cloned").await;
    assert_eq!(machine(&jobs, clone).await.firmware, Firmware::Efi);
    answers(&jobs, clone).await;
    assert_eq!(remembered(&jobs, clone), "first");

    // Back to the memory: what was remembered since is not known.
    let job = jobs
        .revert(source, &memory, RevertSnapshot::default(), by())
        .await
        .unwrap();
    succeeded(&jobs, job.id).await;
    answers(&jobs, source).await;
    assert_eq!(remembered(&jobs, source), "first");
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_gets_another_firmware_at_its_next_start() {
    let dir = support::dir();
    let (jobs, vm) = counting(dir.path()).await;
    let edit = async |firmware| {
        let request = EditVm {
            firmware: Some(firmware),
            memory_mib: Some(MEMORY_MIB),
            ..EditVm::default()
        };
        let job = jobs.edit_vm(vm, request, by()).await.unwrap();
        succeeded(&jobs, job.id).await;
        let now = machine(&jobs, vm).await;
        (now.firmware, now.started_next().firmware)
    };
    let is_efi = |jobs: &Jobs| guest_says(jobs, vm, "ls -d /sys/firmware/efi 2>/dev/null").contains("efi");
    assert!(!is_efi(&jobs));
    // Asked for, taken back, asked for again; it runs on meanwhile.
    assert_eq!(edit(Firmware::Efi).await, (Firmware::Bios, Firmware::Efi));
    assert_eq!(edit(Firmware::Bios).await, (Firmware::Bios, Firmware::Bios));
    assert_eq!(edit(Firmware::Efi).await, (Firmware::Bios, Firmware::Efi));
    let fork = forked(&jobs, vm, named(&["forked"])).await.remove(0).vm;
    assert_eq!(machine(&jobs, fork).await.firmware, Firmware::Bios, "as it runs");
    power(&jobs, vm, PowerAction::PowerOff).await;
    power(&jobs, vm, PowerAction::Start).await;
    assert_eq!(machine(&jobs, vm).await.firmware, Firmware::Efi);
    answers(&jobs, vm).await;
    assert!(is_efi(&jobs));
    remember(&jobs, vm, "kept");

    // What is taken back loses nothing.
    assert_eq!(edit(Firmware::Bios).await, (Firmware::Efi, Firmware::Bios));
    assert_eq!(edit(Firmware::Efi).await, (Firmware::Efi, Firmware::Efi));
    power(&jobs, vm, PowerAction::PowerOff).await;
    power(&jobs, vm, PowerAction::Start).await;
    answers(&jobs, vm).await;
    assert_eq!(remembered(&jobs, vm), "kept");

    // It does not run: at once.
    power(&jobs, vm, PowerAction::PowerOff).await;
    assert_eq!(edit(Firmware::Bios).await, (Firmware::Bios, Firmware::Bios));
    power(&jobs, vm, PowerAction::Start).await;
    answers(&jobs, vm).await;
    assert!(!is_efi(&jobs));
    clean_up(&jobs).await;
}

/// Nothing is written that would make it boot.
#[tokio::test(flavor = "multi_thread")]
async fn an_efi_firmware_that_finds_nothing_to_boot_is_told_at_once() {
    let dir = support::dir();
    let jobs = engine(dir.path(), QEMU, None).await;
    let mut request = create("empty", true);
    let small = shared::vm::CreateVm {
        firmware: Firmware::Efi,
        memory_mib: MEMORY_MIB - 1,
        ..request.clone()
    };
    let small = jobs.create_vm(small, by()).await.unwrap_err();
    assert_eq!(small.field(), Some("memoryMib"), "{small:?}");
    (request.firmware, request.memory_mib) = (Firmware::Efi, MEMORY_MIB);
    request.disks = vec![NewDisk::Blank(shared::vm::BlankDisk { size_gib: 1 })];
    let made = jobs.create_vm(request, by()).await.unwrap();
    succeeded(&jobs, made.id).await;
    let vm = vm_id(&jobs, "empty").await;
    let expect = server::hypervisor::BootExpectation {
        pattern: None,
        timeout: support::PATIENCE,
    };
    let why = jobs
        .world()
        .hypervisor
        .watch_boot(vm, &expect, &|_| ())
        .await
        .unwrap_err();
    assert!(
        matches!(why, server::hypervisor::BootError::NoBootableDevice(_)),
        "{why}"
    );
    clean_up(&jobs).await;
}
