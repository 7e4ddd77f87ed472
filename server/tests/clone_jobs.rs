//! Clone jobs as a person asks for them: what they refuse, what they prove, and that many at once all end.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

mod support;

use server::hypervisor::RunState;
use server::jobs::Jobs;
use server::jobs::world::Machines;
use shared::clone::{CloneMode, CloneTarget, CloneVm, ProofStrength, SnapshotNow};
use shared::job::{Job, JobState, StepState, step};
use shared::snapshot::TakeSnapshot;
use shared::vm::{BlankDisk, CloudInit, CreateVm, DiskOfImage, NewDisk, PowerAction, VmState};
use shared::{Code, VmId};
use support::{by, clean_up, create, ended, engine, guest, slate, until, vm_id};

const SIM: Machines = Machines::Simulated;
const QEMU: Machines = Machines::Real(None);

fn target(name: &str) -> CloneTarget {
    CloneTarget {
        name: Some(name.parse().unwrap()),
        start: true,
        boot_timeout_seconds: 90,
        ..Default::default()
    }
}

fn request(target: CloneTarget) -> CloneVm {
    CloneVm {
        clone_job_id: None,
        snapshot: None,
        snapshot_now: None,
        mode: CloneMode::Linked,
        target: Some(target),
        disks_only: None,
        request_id: None,
    }
}

async fn succeeded(jobs: &Jobs, job: Job) -> Job {
    let job = ended(jobs, job.id).await;
    assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
    job
}

async fn failed(jobs: &Jobs, job: Job) -> Job {
    let job = ended(jobs, job.id).await;
    assert_eq!(job.state, JobState::Failed, "{job:#?}");
    job
}

/// A machine of one disk, from this image.
fn machine(name: &str, image: &str, start: bool) -> CreateVm {
    let disks = vec![NewDisk::Image(DiskOfImage {
        image: image.into(),
        size_gib: None,
    })];
    CreateVm {
        disks,
        ..create(name, start)
    }
}

async fn source(jobs: &Jobs) -> VmId {
    succeeded(jobs, jobs.create_vm(create("source", true), by()).await.unwrap()).await;
    let id = vm_id(jobs, "source").await;
    succeeded(
        jobs,
        jobs.snapshot(id, TakeSnapshot::default(), by()).await.unwrap(),
    )
    .await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_a_snapshot_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = engine(dir.path(), SIM, None).await;
    succeeded(&jobs, jobs.create_vm(create("bare", true), by()).await.unwrap()).await;
    let id = vm_id(&jobs, "bare").await;
    let why = jobs
        .clone_vm(id, request(target("copy")), by())
        .await
        .unwrap_err();
    assert_eq!(why.code, Code::FailedPrecondition);
    assert!(
        why.message.contains("bare has no snapshot") && why.message.contains("take a snapshot"),
        "{why}"
    );
    let now = CloneVm {
        snapshot_now: Some(SnapshotNow::default()),
        ..request(target("copy"))
    };
    let job = succeeded(&jobs, jobs.clone_vm(id, now, by()).await.unwrap()).await;
    assert!(job.outcome.pause_micros.is_some());
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_at_once_all_end_succeeded() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = engine(dir.path(), SIM, None).await;
    let id = source(&jobs).await;
    let posts = (0..200).map(|n| {
        let jobs = jobs.clone();
        tokio::spawn(async move {
            jobs.clone_vm(id, request(target(&format!("copy-{n}"))), by())
                .await
                .unwrap()
        })
    });
    let posted: Vec<Job> = futures::future::try_join_all(posts).await.unwrap();
    for job in posted {
        succeeded(&jobs, job).await;
    }
    let left = slate(&jobs).await;
    assert!(
        left.contains(&"vms: 201".to_owned()) && left.contains(&"locks: 0".to_owned()),
        "{left:#?}"
    );
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_deletes_what_was_made_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = engine(dir.path(), SIM, None).await;
    let id = source(&jobs).await;
    let clean = slate(&jobs).await;
    for name in [step::MINTING, step::PREPARING_VM_DISKS, step::INSTANTIATING] {
        let wait = format!("wait-at-{name}");
        let job = jobs.clone_vm(id, request(target(&wait)), by()).await.unwrap();
        let sim = jobs.world().hypervisor.as_sim().unwrap();
        sim.until_waiting(&wait).await;
        jobs.cancel(job.id).await.unwrap();
        let job = ended(&jobs, job.id).await;
        assert_eq!(job.state, JobState::Cancelled, "{job:#?}");
        assert_eq!(slate(&jobs).await, clean, "cancelled at {name}");
        let why = jobs.cancel(job.id).await.unwrap_err();
        assert!(why.message.contains("cancelled already"), "{why}");
    }
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_in_line_is_cancelled_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = engine(dir.path(), SIM, None).await;
    let id = source(&jobs).await;
    let off = jobs.power(id, PowerAction::PowerOff, by()).await.unwrap();
    succeeded(&jobs, off).await;
    let first = jobs
        .clone_vm(id, request(target("wait-at-minting")), by())
        .await
        .unwrap();
    let sim = jobs.world().hypervisor.as_sim().unwrap();
    sim.until_waiting("wait-at-minting").await;
    // Needs the source alone: it stands in line behind the clone.
    let second = jobs.delete_vm(id, by()).await.unwrap();
    assert_eq!(jobs.cancel(second.id).await.unwrap().state, JobState::Cancelled);
    sim.release("wait-at-minting");
    succeeded(&jobs, first).await;
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_success_a_cancel_is_refused_and_the_product_stays() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = engine(dir.path(), SIM, None).await;
    let id = source(&jobs).await;
    let job = succeeded(
        &jobs,
        jobs.clone_vm(id, request(target("copy")), by()).await.unwrap(),
    )
    .await;
    let why = jobs.cancel(job.id).await.unwrap_err();
    assert_eq!(why.code, Code::FailedPrecondition);
    assert!(why.message.contains("has succeeded"), "{why}");
    let copy = vm_id(&jobs, "copy").await;
    assert_eq!(jobs.world().hypervisor.state(copy).await, RunState::Running);
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_fails_where_its_name_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = engine(dir.path(), SIM, None).await;
    let id = source(&jobs).await;
    let clean = slate(&jobs).await;
    for name in [
        step::MINTING,
        step::ADAPTING_OS,
        step::PREPARING_VM_DISKS,
        step::INSTANTIATING,
    ] {
        let target = CloneTarget {
            cloud_init: Some(CloudInit::default()),
            ..target(&format!("fail-at-{name}-x"))
        };
        let job = failed(&jobs, jobs.clone_vm(id, request(target), by()).await.unwrap()).await;
        let step = job.steps.iter().find(|s| s.name == name).unwrap();
        assert_eq!(step.state, StepState::Failed, "{job:#?}");
        assert_eq!(slate(&jobs).await, clean, "failed at {name}");
    }
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_makes_a_request_once() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = engine(dir.path(), SIM, None).await;
    let id = source(&jobs).await;
    let once = CloneVm {
        request_id: Some(uuid::Uuid::now_v7()),
        ..request(target("copy"))
    };
    let first = jobs.clone_vm(id, once.clone(), by()).await.unwrap();
    let again = jobs.clone_vm(id, once.clone(), by()).await.unwrap();
    assert_eq!(first.id, again.id);
    succeeded(&jobs, first).await;
    let other = CloneVm {
        target: Some(target("other")),
        ..once
    };
    assert_eq!(
        jobs.clone_vm(id, other, by()).await.unwrap_err().code,
        Code::InvalidArgument
    );
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_snapshot_stood_on_stays_when_the_source_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = engine(dir.path(), SIM, None).await;
    let id = source(&jobs).await;
    succeeded(
        &jobs,
        jobs.clone_vm(id, request(target("copy")), by()).await.unwrap(),
    )
    .await;
    succeeded(&jobs, jobs.power(id, PowerAction::PowerOff, by()).await.unwrap()).await;
    succeeded(&jobs, jobs.delete_vm(id, by()).await.unwrap()).await;
    support::slate_without_layers(&jobs).await;
    let copy = server::db::vms::find(&jobs.world().db, "copy")
        .await
        .unwrap()
        .unwrap();
    assert!(
        copy.disks.iter().all(|d| d.chain_length >= 2),
        "the clone has lost its base: {copy:#?}"
    );
    succeeded(
        &jobs,
        jobs.power(copy.id, PowerAction::PowerOff, by()).await.unwrap(),
    )
    .await;
    succeeded(&jobs, jobs.delete_vm(copy.id, by()).await.unwrap()).await;
    let left = slate(&jobs).await;
    assert!(
        left.contains(&"layers: 1".to_owned()),
        "only the image's layer is left: {left:#?}"
    );
    clean_up(&jobs).await;
}

/// The lines that the demo guest has printed so far: nonce and tick.
fn ticks(log: &str) -> Vec<(String, u64)> {
    let line =
        regex::Regex::new(r"(?m)^offshoot-guest nonce=([0-9a-f]{16}) tick=(\d+) host=\S+\r*$").unwrap();
    line.captures_iter(log)
        .map(|c| (c[1].to_owned(), c[2].parse().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_guest_is_cloned_while_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = engine(dir.path(), QEMU, None).await;
    jobs.world()
        .register_image(&"linux".parse().unwrap(), &guest("demo"))
        .await
        .unwrap();
    succeeded(
        &jobs,
        jobs.create_vm(machine("source", "linux", true), by())
            .await
            .unwrap(),
    )
    .await;
    let id = vm_id(&jobs, "source").await;
    let log = jobs.world().hypervisor.serial_log(id);
    let expect = server::hypervisor::BootExpectation {
        pattern: Some(regex::Regex::new("offshoot-guest nonce=").unwrap()),
        timeout: support::PATIENCE,
    };
    jobs.world()
        .hypervisor
        .watch_boot(id, &expect, &|_| ())
        .await
        .unwrap();
    let before = ticks(&std::fs::read_to_string(&log).unwrap());

    let cloned = CloneVm {
        snapshot_now: Some(SnapshotNow {
            name: None,
            quiesce: false,
        }),
        target: Some(CloneTarget {
            cloud_init: Some(CloudInit {
                user_data: Some("#cloud-config\nhostname: copied\n".into()),
                ..Default::default()
            }),
            ..target("copy")
        }),
        ..request(target("copy"))
    };
    let job = succeeded(&jobs, jobs.clone_vm(id, cloned, by()).await.unwrap()).await;
    let proof = job.outcome.into_inner().proof.unwrap();
    assert_eq!(proof.strength, ProofStrength::Agent, "{proof:?}");
    assert!(proof.boot_millis.is_some_and(|ms| ms > 500), "{proof:?}");
    let screen = std::fs::read(jobs.world().screen_file(job.id)).unwrap();
    assert!(screen.starts_with(b"\x89PNG"));

    let after = ticks(&std::fs::read_to_string(&log).unwrap());
    assert!(after.len() > before.len(), "the source has stopped ticking");
    let nonce = &after[0].0;
    assert!(
        after.iter().all(|(n, _)| n == nonce),
        "the source has been rebooted"
    );
    let missed: Vec<_> = after.windows(2).filter(|w| w[1].1 != w[0].1 + 1).collect();
    assert!(missed.len() <= 2, "lines are missing: {missed:?}");

    let copy = vm_id(&jobs, "copy").await;
    let expect = server::hypervisor::BootExpectation {
        pattern: Some(regex::Regex::new("host=copied").unwrap()),
        timeout: support::PATIENCE,
    };
    jobs.world()
        .hypervisor
        .watch_boot(copy, &expect, &|_| ())
        .await
        .unwrap();
    let copied = ticks(&std::fs::read_to_string(jobs.world().hypervisor.serial_log(copy)).unwrap());
    assert_ne!(&copied[0].0, nonce, "the clone has booted by itself");
    let (source, clone) = (identity(&jobs, id), identity(&jobs, copy));
    assert_eq!((source.len(), clone.len()), (3, 3), "{source:?} {clone:?}");
    for (old, new) in source.iter().zip(&clone) {
        assert_ne!(old, new, "the clone is somebody of its own");
    }
    clean_up(&jobs).await;
}

/// What QEMU says to a guest of who it is: UUID, generation id, MAC.
fn identity(jobs: &Jobs, vm: VmId) -> Vec<String> {
    let run = jobs.world().data_dir.join("run").join(vm.to_string());
    let process = std::fs::read_to_string(run.join("process")).unwrap();
    let pid = process.split_whitespace().next().unwrap();
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    let found = regex::Regex::new(r#"(?:-uuid\x00|guid=|"mac":")([0-9a-f:-]+)"#).unwrap();
    found.captures_iter(&command).map(|c| c[1].to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_boot_ends_failed_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = engine(dir.path(), QEMU, None).await;
    jobs.world()
        .register_image(&"panic".parse().unwrap(), &guest("panic"))
        .await
        .unwrap();
    let empty = CreateVm {
        disks: vec![NewDisk::Blank(BlankDisk { size_gib: 1 })],
        ..create("empty", false)
    };
    let machines = [
        (empty, "No bootable device", 60),
        // The image called demo stands at its boot loader here.
        (machine("menu", "demo", false), "displayed, not booted", 5),
        (machine("panic", "panic", false), "Kernel panic", 90),
    ];
    for (create, why, seconds) in machines {
        let name = create.name.to_string();
        succeeded(&jobs, jobs.create_vm(create, by()).await.unwrap()).await;
        let id = vm_id(&jobs, &name).await;
        succeeded(
            &jobs,
            jobs.snapshot(id, TakeSnapshot::default(), by()).await.unwrap(),
        )
        .await;
        let clean = slate(&jobs).await;
        let target = CloneTarget {
            boot_timeout_seconds: seconds,
            ..target("copy")
        };
        let job = failed(&jobs, jobs.clone_vm(id, request(target), by()).await.unwrap()).await;
        let error = job.error.unwrap();
        assert!(error.message.contains(why), "{name}: {error}");
        assert_eq!(
            job.outcome.proof.as_ref().map(|p| p.strength),
            Some(ProofStrength::Displayed),
            "{name}"
        );
        assert!(
            jobs.world().screen_file(job.id).exists(),
            "{name}: its screen is kept"
        );
        assert_eq!(slate(&jobs).await, clean, "{name}");
    }
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_at_once_all_end_succeeded_on_qemu() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = engine(dir.path(), QEMU, None).await;
    let id = source(&jobs).await;
    let pattern = CloneTarget {
        boot_pattern: Some("boot:".into()),
        ..target("x")
    };
    let mut posted = Vec::new();
    for n in 0..10 {
        let target = CloneTarget {
            name: Some(format!("copy-{n}").parse().unwrap()),
            ..pattern.clone()
        };
        posted.push(jobs.clone_vm(id, request(target), by()).await.unwrap());
    }
    for job in posted {
        succeeded(&jobs, job).await;
    }
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_survive_the_server_and_are_adopted() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = engine(dir.path(), QEMU, None).await;
    succeeded(&jobs, jobs.create_vm(create("source", true), by()).await.unwrap()).await;
    let id = vm_id(&jobs, "source").await;
    jobs.stop().await;
    drop(jobs);
    let jobs = engine(dir.path(), QEMU, None).await;
    assert_eq!(jobs.world().hypervisor.state(id).await, RunState::Running);
    let vm = server::db::vms::by_id(&jobs.world().db, id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(vm.state, VmState::Running);
    // Its QEMU dies while nobody asked for it: the machine is in error, and says so.
    jobs.world().hypervisor.kill(id).await.unwrap();
    let mut changes = jobs.world().db.subscribe();
    let gone = async {
        loop {
            let vm = server::db::vms::by_id(&jobs.world().db, id)
                .await
                .unwrap()
                .unwrap();
            if !vm.state.has_process() {
                return vm.state;
            }
            drop(changes.recv().await);
        }
    };
    let state = tokio::time::timeout(support::PATIENCE, gone).await.unwrap();
    assert_eq!(state, VmState::Stopped);
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_goes_on_where_the_server_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = engine(dir.path(), SIM, None).await;
    let id = source(&jobs).await;
    let job = jobs
        .clone_vm(id, request(target("wait-at-instantiating")), by())
        .await
        .unwrap();
    jobs.world()
        .hypervisor
        .as_sim()
        .unwrap()
        .until_waiting("wait-at-instantiating")
        .await;
    jobs.stop().await;
    drop(jobs);
    let jobs = engine(dir.path(), SIM, None).await;
    let job = until(&jobs, job.id, |j| j.state == JobState::Running).await;
    let sim = jobs.world().hypervisor.as_sim().unwrap();
    sim.until_waiting("wait-at-instantiating").await;
    sim.release("wait-at-instantiating");
    succeeded(&jobs, job).await;
    clean_up(&jobs).await;
}
