//! Copies of machines that really run: what is read, what comes back, and what becomes of them when things go wrong.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../snapshots/monitor.rs"]
#[allow(dead_code, reason = "the other test uses more of it")]
mod monitor;
mod remote;
#[path = "../support/mod.rs"]
mod support;

use server::db;
use server::hypervisor::RunState;
use server::jobs::Jobs;
use server::jobs::clock::Clock;
use shared::VmId;
use shared::access::rights::Sees;
use shared::copy::{BootCopy, Copy, CopyTask, RestoreCopy, RestoreOver, RestoreVm, TaskStatus};
use shared::job::{Job, JobState, step};
use shared::policy::{CreatePolicy, Window};
use shared::snapshot::{RevertSnapshot, TakeSnapshot};
use shared::target::{PatchTarget, VerifyTarget};
use shared::vm::{BlankDisk, NewDisk, PowerAction};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use support::counting::{QEMU, counting, counts, off_and_gone, succeeded};
use support::{by, clean_up, create, ended, engine, quiet, until, vm_id};

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

async fn taken(jobs: &Jobs, vm: VmId, name: &str, memory: bool) {
    let request = TakeSnapshot {
        name: Some(name.parse().unwrap()),
        memory,
        ..TakeSnapshot::default()
    };
    let job = jobs.snapshot(vm, request, by()).await.unwrap();
    succeeded(jobs, job.id).await;
}

async fn snapshots(jobs: &Jobs, vm: VmId) -> Vec<shared::snapshot::Snapshot> {
    let machine = db::vms::by_id(&jobs.world().db, vm).await.unwrap().unwrap();
    let all = server::inventory::snapshots(jobs.world(), &machine, &Default::default()).await;
    all.unwrap().items
}

fn task(job: &Job) -> CopyTask {
    CopyTask::of(job).unwrap()
}

async fn copied(jobs: &Jobs, vm: &str, snapshot: Option<&str>) -> CopyTask {
    let job = support::copy(jobs, vm, "there", snapshot).await;
    task(&succeeded(jobs, job.id).await)
}

async fn copy_of(jobs: &Jobs, task: &CopyTask) -> Copy {
    let found = db::copies::by_id(&jobs.world().db, task.copy.unwrap()).await;
    found.unwrap().unwrap()
}

fn hash_of(arguments: &[&str], to: &Path) -> u64 {
    let mut all = vec!["convert", "-U", "-O", "raw"];
    all.extend(arguments);
    let to_name = to.to_string_lossy();
    all.push(&to_name);
    tool("qemu-img", &all);
    let mut hash = std::hash::DefaultHasher::new();
    std::fs::read(to).unwrap().hash(&mut hash);
    hash.finish()
}

/// What the first disk of a snapshot shows.
async fn shown(jobs: &Jobs, dir: &Path, snapshot: shared::SnapshotId) -> u64 {
    // Another layer may be on its way into its own: until that is over, part of the tables is in QEMU's memory alone.
    quiet(jobs).await;
    let layer = db::snapshots::disks_of(&jobs.world().db, snapshot).await.unwrap()[0].layer;
    let file = jobs.world().layer_file(layer).path;
    hash_of(&["-f", "qcow2", file.to_str().unwrap()], &dir.join("raw"))
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

async fn hash_of_vm(jobs: &Jobs, dir: &Path, vm: VmId) -> u64 {
    let active = chain(jobs, vm).await.pop().unwrap();
    hash_of(&["-f", "qcow2", active.to_str().unwrap()], &dir.join("raw"))
}

fn new_vm(name: &str, start: bool, instant: bool) -> RestoreCopy {
    RestoreCopy {
        vm: Some(RestoreVm {
            name: name.parse().unwrap(),
            cpus: None,
            memory_mib: None,
            network_interfaces: None,
            storage: None,
            labels: Default::default(),
            cloud_init: None,
            start,
            instant,
        }),
        ..RestoreCopy::default()
    }
}

async fn restored(jobs: &Jobs, copy: &Copy, request: RestoreCopy) -> Job {
    let job = jobs.restore(copy, request, by()).await.unwrap();
    succeeded(jobs, job.id).await
}

async fn deleted(jobs: &Jobs, vm: VmId) {
    let gone = jobs.delete_vm(vm, by()).await.unwrap();
    succeeded(jobs, gone.id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_changed_is_not_read_again_and_every_copy_comes_back() {
    let dir = support::dir();
    let jobs = engine(dir.path(), QEMU, None).await;
    support::target(&jobs, "there").await;
    let vm = blank(&jobs, "source", true).await;
    monitor::on_disk(dir.path(), vm, "write -P 1 0 1M");
    monitor::on_disk(dir.path(), vm, "write -P 2 100M 3M");

    let first = copied(&jobs, "source", None).await;
    assert_eq!(first.status, TaskStatus::Success, "{first:#?}");
    assert_eq!(first.stats.seed.is_incremental, Some(false));
    assert_eq!(first.stats.seed.logical_size_bytes, Some(1 << 30));
    assert_eq!(first.stats.seed.logical_bytes_transferred, Some(1 << 30));
    assert!(first.task_start_time_usecs.unwrap() <= first.stats.seed.start_time_usecs.unwrap());
    assert_eq!(first.sub_tasks.len(), 1);
    assert_eq!(first.sub_tasks[0].status, TaskStatus::Success);
    let of_first = shown(&jobs, dir.path(), first.snapshot.unwrap()).await;

    monitor::on_disk(dir.path(), vm, "write -P 3 200M 1M");
    monitor::on_disk(dir.path(), vm, "write -P 4 512k 64k");
    let second = copied(&jobs, "source", None).await;
    assert_eq!(second.status, TaskStatus::Success, "{second:#?}");
    assert_eq!(second.stats.seed.is_incremental, Some(true));
    let copy = copy_of(&jobs, &second).await;
    assert!(copy.figures.read_bytes <= 2 << 20, "{copy:#?}");
    assert!(copy.figures.chunks_kept > 8000, "{copy:#?}");
    let of_second = shown(&jobs, dir.path(), second.snapshot.unwrap()).await;
    assert_ne!(of_first, of_second);
    // The snapshot before has gone: only the last one tells what has changed since.
    let left = snapshots(&jobs, vm).await;
    assert_eq!(left.len(), 1, "{left:#?}");
    assert_eq!(left[0].id, second.snapshot.unwrap());

    // A person takes even that: what its layer had is read once more, and no more than that.
    let gone = jobs.delete_snapshot(vm, left[0].id, by()).await.unwrap();
    succeeded(&jobs, gone.id).await;
    monitor::on_disk(dir.path(), vm, "write -P 5 300M 1M");
    let third = copied(&jobs, "source", None).await;
    assert_eq!(third.status, TaskStatus::Success, "{third:#?}");
    assert_eq!(third.stats.seed.is_incremental, Some(true));
    let of_third = shown(&jobs, dir.path(), third.snapshot.unwrap()).await;

    let copies = [(first, of_first), (second, of_second), (third, of_third)];
    for (n, (task, hash)) in copies.iter().enumerate() {
        let copy = copy_of(&jobs, task).await;
        let name = format!("back-{n}");
        restored(&jobs, &copy, new_vm(&name, false, false)).await;
        let back = vm_id(&jobs, &name).await;
        assert_eq!(chain(&jobs, back).await.len(), 1);
        assert_eq!(hash_of_vm(&jobs, dir.path(), back).await, *hash, "copy {n}");
        deleted(&jobs, back).await;
    }
    let there = db::targets::known(&jobs.world().db, "there")
        .await
        .unwrap()
        .target;
    let job = jobs
        .verify_target(&there, VerifyTarget::default(), by())
        .await
        .unwrap();
    let looked = succeeded(&jobs, job.id).await.outcome.vault.clone().unwrap();
    assert_eq!((looked.damaged, looked.hurt_copies), (0, 0), "{looked:#?}");
    off_and_gone(&jobs, vm).await;
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_track_is_a_warning_and_no_broken_copy() {
    let dir = support::dir();
    let jobs = engine(dir.path(), QEMU, None).await;
    support::target(&jobs, "there").await;
    let vm = blank(&jobs, "source", true).await;
    monitor::on_disk(dir.path(), vm, "write -P 1 0 1M");
    taken(&jobs, vm, "before", false).await;
    monitor::on_disk(dir.path(), vm, "write -P 2 10M 1M");
    let first = copied(&jobs, "source", None).await;
    assert_eq!(first.status, TaskStatus::Success);
    // What was copied is no more below it: it went back to before.
    let before = db::snapshots::find(&jobs.world().db, vm, "before")
        .await
        .unwrap()
        .unwrap();
    let job = jobs
        .revert(vm, &before, RevertSnapshot::default(), by())
        .await
        .unwrap();
    succeeded(&jobs, job.id).await;
    let of_copy = first.snapshot.unwrap();
    let gone = jobs.delete_snapshot(vm, of_copy, by()).await.unwrap();
    succeeded(&jobs, gone.id).await;
    let second = copied(&jobs, "source", None).await;
    assert_eq!(second.status, TaskStatus::Warning, "{second:#?}");
    assert!(second.warnings[0].contains("read as a whole"), "{second:#?}");
    assert_eq!(second.error, None);
    let hash = shown(&jobs, dir.path(), second.snapshot.unwrap()).await;
    let copy = copy_of(&jobs, &second).await;
    restored(&jobs, &copy, new_vm("back", false, false)).await;
    let back = vm_id(&jobs, "back").await;
    assert_eq!(hash_of_vm(&jobs, dir.path(), back).await, hash);
    clean_up(&jobs).await;
}

/// A machine that is off, with 100 MiB on its disk that cannot be compressed.
async fn noisy(jobs: &Jobs, dir: &Path, name: &str) -> VmId {
    let vm = blank(jobs, name, false).await;
    let file = chain(jobs, vm).await.pop().unwrap();
    let noise = dir.join("noise");
    let to = format!("of={}", noise.display());
    tool(
        "dd",
        &["if=/dev/urandom", &to, "bs=1M", "count=100", "status=none"],
    );
    let write = format!("write -s {} 0 100M", noise.display());
    tool("qemu-io", &["-f", "qcow2", "-c", &write, file.to_str().unwrap()]);
    vm
}

fn limit(rate: u64) -> PatchTarget {
    PatchTarget {
        bytes_per_second: Some(rate),
        ..PatchTarget::default()
    }
}

fn copying(job: &Job) -> bool {
    job.current_step()
        .is_some_and(|s| s.name == step::COPYING && s.done_bytes > Some(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn when_its_window_closes_a_copy_leaves_off_and_goes_on_in_the_next() {
    let dir = support::dir();
    let at = |text: &str| text.parse().unwrap();
    let clock = Clock::stopped(at("2030-01-01T01:30:00Z"));
    let jobs = support::engine_of(dir.path(), QEMU, None, |world| world.clock = clock.clone()).await;
    support::target(&jobs, "there").await;
    let copies = &jobs.world().copies;
    copies.update("there", limit(64 << 10)).await.unwrap();
    noisy(&jobs, dir.path(), "source").await;
    let policy = CreatePolicy {
        name: "nightly".parse().unwrap(),
        schedule: None,
        vms: vec!["source".into()],
        label: None,
        targets: vec!["there".parse().unwrap()],
        retention: Default::default(),
        memory: false,
        quiesce: false,
        verify: None,
        window: vec![Window {
            days: Vec::new(),
            from: "01:00".into(),
            to: "02:00".into(),
            time_zone: "UTC".into(),
        }],
        enabled: true,
    };
    jobs.create_policy(policy).await.unwrap();
    let run = jobs.run_policy("nightly", by()).await.unwrap().to_string();
    let run = server::inventory::policies::run(jobs.world(), &run, &Sees::All);
    let id = run.await.unwrap().tasks[0].id;
    until(&jobs, id, copying).await;
    clock.set(at("2030-01-01T02:00:00Z"));
    let held = until(&jobs, id, |job| job.state == JobState::OnHold).await;
    let why = task(&held).hold_reason.unwrap();
    assert!(why.contains("2030-01-02T01:00:00"), "{why}");

    copies.update("there", limit(0)).await.unwrap();
    clock.set(at("2030-01-02T01:00:00Z"));
    let done = succeeded(&jobs, id).await;
    assert_eq!(task(&done).status, TaskStatus::Success, "{done:#?}");
    let copy = copy_of(&jobs, &task(&done)).await;
    let hash = shown(&jobs, dir.path(), task(&done).snapshot.unwrap()).await;
    restored(&jobs, &copy, new_vm("back", false, false)).await;
    let back = vm_id(&jobs, "back").await;
    assert_eq!(hash_of_vm(&jobs, dir.path(), back).await, hash);
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_held_goes_on_and_ends_soon_when_it_is_cancelled() {
    let dir = support::dir();
    let jobs = engine(dir.path(), QEMU, None).await;
    support::target(&jobs, "there").await;
    let copies = &jobs.world().copies;
    copies.update("there", limit(64 << 10)).await.unwrap();
    let vm = noisy(&jobs, dir.path(), "source").await;

    let job = support::copy(&jobs, "source", "there", None).await;
    until(&jobs, job.id, copying).await;
    jobs.hold(job.id, by()).await.unwrap();
    let held = until(&jobs, job.id, |job| job.state == JobState::OnHold).await;
    assert_eq!(task(&held).status, TaskStatus::OnHold);
    assert_eq!(task(&held).hold_reason.as_deref(), Some("held by test"));
    // It stands still after a restart, too.
    jobs.stop().await;
    drop(jobs);
    let jobs = engine(dir.path(), QEMU, None).await;
    until(&jobs, job.id, |job| job.state == JobState::OnHold).await;
    jobs.release(job.id).await.unwrap();
    until(&jobs, job.id, copying).await;
    let begin = Instant::now();
    jobs.cancel(job.id).await.unwrap();
    let over = ended(&jobs, job.id).await;
    // What is left would take minutes.
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert_eq!(task(&over).status, TaskStatus::Canceled);
    assert!(snapshots(&jobs, vm).await.is_empty());

    // One that waits in line is held there.
    jobs.world().copies.update("there", limit(0)).await.unwrap();
    let again = support::copy(&jobs, "source", "there", None).await;
    let done = succeeded(&jobs, again.id).await;
    assert_eq!(task(&done).status, TaskStatus::Success);
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_waits_for_a_target_that_is_away() {
    let dir = support::dir();
    let jobs = engine(dir.path(), QEMU, None).await;
    let there = support::target(&jobs, "there").await;
    let path = PathBuf::from(&there.place.local.unwrap().path);
    let away = path.with_extension("away");
    blank(&jobs, "source", false).await;
    std::fs::rename(&path, &away).unwrap();
    let job = support::copy(&jobs, "source", "there", None).await;
    let held = until(&jobs, job.id, |job| job.state == JobState::OnHold).await;
    assert!(task(&held).hold_reason.unwrap().contains("there"), "{held:#?}");
    let now = db::targets::known(&jobs.world().db, "there")
        .await
        .unwrap()
        .target;
    assert!(now.away.is_some() && now.away_since.is_some(), "{now:#?}");
    std::fs::rename(&away, &path).unwrap();
    let done = ended(&jobs, job.id).await;
    assert_eq!(task(&done).status, TaskStatus::Success, "{done:#?}");
    let now = db::targets::known(&jobs.world().db, "there")
        .await
        .unwrap()
        .target;
    assert_eq!((now.away, now.copies), (None, 1));
    clean_up(&jobs).await;
}

/// The process that shows the disks of copies, if there is one.
fn showing(dir: &Path) -> Option<String> {
    let all = std::fs::read_dir(dir.join("run"))
        .unwrap()
        .map(|e| e.unwrap().path());
    let record = all
        .into_iter()
        .find(|p| p.extension().is_some_and(|e| e == "process"))?;
    let line = std::fs::read_to_string(record).ok()?;
    line.split(' ').next().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_runs_from_its_copy_while_its_disks_come_home() {
    let dir = support::dir();
    let (jobs, vm) = counting(dir.path()).await;
    support::target(&jobs, "there").await;
    let first = copied(&jobs, "source", None).await;
    let copy = copy_of(&jobs, &first).await;
    quiet(&jobs).await;
    // So slow that it is seen on its way.
    let job = jobs
        .restore(&copy, new_vm("back", true, true), by())
        .await
        .unwrap();
    until(&jobs, job.id, |job| {
        job.current_step().is_some_and(|s| s.name == step::BRINGING_HOME) || job.state.is_final()
    })
    .await;
    let back = vm_id(&jobs, "back").await;
    assert_eq!(jobs.world().hypervisor.state(back).await, RunState::Running);
    if let Some(pid) = showing(dir.path()) {
        tool("kill", &["-KILL", &pid]);
    }
    // The server is started anew meanwhile.
    jobs.stop().await;
    drop(jobs);
    let jobs = engine(dir.path(), QEMU, None).await;
    counts(&jobs, back, 5).await;
    succeeded(&jobs, job.id).await;
    assert_eq!(chain(&jobs, back).await.len(), 1);
    assert_eq!(showing(dir.path()), None);
    assert!(db::layers::copies(&jobs.world().db).await.unwrap().is_empty());
    let seen = support::counting::ticks(&jobs, back).len();
    counts(&jobs, back, seen + 5).await;
    // What it has is its own.
    off_and_gone(&jobs, vm).await;
    let off = jobs.power(back, PowerAction::PowerOff, by()).await.unwrap();
    succeeded(&jobs, off.id).await;
    let on = jobs.power(back, PowerAction::Start, by()).await.unwrap();
    succeeded(&jobs, on.id).await;
    counts(&jobs, back, 5).await;
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_booted_and_says_so() {
    let dir = support::dir();
    let (jobs, vm) = counting(dir.path()).await;
    support::target(&jobs, "there").await;
    let first = copied(&jobs, "source", None).await;
    let copy = copy_of(&jobs, &first).await;
    quiet(&jobs).await;
    let clean = support::slate(&jobs).await;
    let job = jobs.boot_copy(&copy, BootCopy::default(), by()).await.unwrap();
    succeeded(&jobs, job.id).await;
    let booted = copy_of(&jobs, &first).await.booted.unwrap();
    assert!(booted.booted && booted.proof.boot_millis.is_some(), "{booted:#?}");
    assert!(booted.screen, "{booted:#?}");
    assert_eq!(support::slate(&jobs).await, clean);
    off_and_gone(&jobs, vm).await;

    // A disk with nothing on it does not boot, and says that.
    let empty = blank(&jobs, "empty", false).await;
    let task = copied(&jobs, "empty", None).await;
    let copy = copy_of(&jobs, &task).await;
    let request = BootCopy {
        boot_timeout_seconds: 20,
        boot_pattern: None,
    };
    let job = jobs.boot_copy(&copy, request, by()).await.unwrap();
    assert_eq!(ended(&jobs, job.id).await.state, JobState::Failed);
    let booted = copy_of(&jobs, &task).await.booted.unwrap();
    assert!(!booted.booted && booted.error.is_some(), "{booted:#?}");
    deleted(&jobs, empty).await;
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_takes_the_place_of_a_machines_disks() {
    let dir = support::dir();
    let jobs = engine(dir.path(), QEMU, None).await;
    support::target(&jobs, "there").await;
    let vm = blank(&jobs, "source", true).await;
    monitor::on_disk(dir.path(), vm, "write -P 1 0 4M");
    taken(&jobs, vm, "kept", true).await;
    let task = copied(&jobs, "source", Some("kept")).await;
    let copy = copy_of(&jobs, &task).await;
    assert!(copy.memory, "{copy:#?}");
    let names: Vec<_> = task.sub_tasks.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["disk0", "memory", "state"]);
    let hash = shown(&jobs, dir.path(), task.snapshot.unwrap()).await;
    monitor::on_disk(dir.path(), vm, "write -P 9 0 4M");
    let over = |confirm: &str| RestoreCopy {
        over: Some(RestoreOver {
            vm: "source".into(),
            confirm: confirm.into(),
            start: false,
            instant: false,
        }),
        ..RestoreCopy::default()
    };
    let why = jobs.restore(&copy, over("no"), by()).await.unwrap_err();
    assert_eq!(why.field(), Some("over.confirm"), "{why}");
    let why = jobs.restore(&copy, over("source"), by()).await.unwrap_err();
    assert!(why.message.contains("stop it first"), "{why}");
    let off = jobs.power(vm, PowerAction::PowerOff, by()).await.unwrap();
    succeeded(&jobs, off.id).await;
    restored(&jobs, &copy, over("source")).await;
    assert_eq!(hash_of_vm(&jobs, dir.path(), vm).await, hash);
    clean_up(&jobs).await;
}
