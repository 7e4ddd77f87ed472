//! Instant clones with guests that really run: what becomes of them, of their source, and of the instants that are kept.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use server::db;
use server::hypervisor::RunState;
use server::jobs::Jobs;
use server::jobs::world::Machines;
use shared::fork::{ForkNics, ForkedClone, Identity, InstantClone};
use shared::job::{Job, JobState};
use shared::place::HostState;
use shared::snapshot::TakeSnapshot;
use shared::vm::{DiskOfImage, NewDisk, PowerAction};
use shared::{Code, JobId, VmId};
use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};
use support::{by, clean_up, create, ended, engine, guest, kept_ready, vm_id};

const QEMU: Machines = Machines::Real(None);
async fn succeeded(jobs: &Jobs, id: JobId) -> Job {
    let job = ended(jobs, id).await;
    assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
    job
}

/// Nonce, number and the host's name.
type Tick = (String, u64, String);

/// Nonce and number of each whole tick that the serial port has, with the host's name.
fn ticks(jobs: &Jobs, vm: VmId) -> Vec<Tick> {
    let log = std::fs::read(jobs.world().hypervisor.serial_log(vm)).unwrap_or_default();
    let pattern = regex::Regex::new(r"^offshoot-guest nonce=(\w{16}) tick=(\d+) host=(\S+)\r$").unwrap();
    let log = String::from_utf8_lossy(&log);
    let of = |line: &str| {
        let found = pattern.captures(line)?;
        Some((
            found[1].to_owned(),
            found[2].parse().unwrap(),
            found[3].to_owned(),
        ))
    };
    log.split('\n').filter_map(of).collect()
}

/// Waits until a machine's ticks are as wanted.
async fn until(jobs: &Jobs, vm: VmId, wanted: impl Fn(&[Tick]) -> bool) -> Vec<Tick> {
    let begin = Instant::now();
    loop {
        let all = ticks(jobs, vm);
        if wanted(&all) {
            return all;
        }
        assert!(
            begin.elapsed() < support::PATIENCE,
            "{vm} counts otherwise: {all:?}"
        );
        // The log is a file that QEMU writes: nothing tells of it here.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until a machine has ticked so often.
async fn counts(jobs: &Jobs, vm: VmId, least: usize) -> Vec<Tick> {
    until(jobs, vm, |all| all.len() >= least).await
}

/// A machine whose guest counts.
async fn counting(dir: &Path) -> (Jobs, VmId) {
    let jobs = engine(dir, QEMU, None).await;
    let image = "counting".parse().unwrap();
    jobs.world().register_image(&image, &guest("demo")).await.unwrap();
    let mut request = create("source", true);
    request.disks = vec![NewDisk::Image(DiskOfImage {
        image: "counting".into(),
        size_gib: None,
    })];
    request.cloud_init = Some(Default::default());
    let made = jobs.create_vm(request, by()).await.unwrap();
    succeeded(&jobs, made.id).await;
    let source = vm_id(&jobs, "source").await;
    counts(&jobs, source, 5).await;
    (jobs, source)
}

fn named(names: &[&str]) -> InstantClone {
    InstantClone {
        names: names.iter().map(|n| n.parse().unwrap()).collect(),
        network_interfaces: Some(ForkNics::Keep),
        ..InstantClone::default()
    }
}

async fn forked(jobs: &Jobs, vm: VmId, request: InstantClone) -> Vec<ForkedClone> {
    let job = jobs.instant_clone(vm, request, by()).await.unwrap();
    let job = succeeded(jobs, job.id).await;
    let proof = job.outcome.fork.unwrap();
    for clone in &proof.clones {
        assert_eq!(clone.identity, Some(Identity::Hook), "{proof:#?}");
        assert!(clone.memory_later.unwrap().shared_bytes > 1 << 20, "{proof:#?}");
    }
    proof.clones
}

async fn off_and_gone(jobs: &Jobs, vm: VmId) {
    let off = jobs.power(vm, PowerAction::PowerOff, by()).await.unwrap();
    succeeded(jobs, off.id).await;
    let gone = jobs.delete_vm(vm, by()).await.unwrap();
    succeeded(jobs, gone.id).await;
}

/// No tick is missing, and all are of one boot.
fn whole(all: &[Tick]) {
    for pair in all.windows(2) {
        assert_eq!((&pair[1].0, pair[1].1), (&pair[0].0, pair[0].1 + 1), "{all:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forks_of_forks_live_on_without_their_source_and_can_do_what_every_machine_can() {
    let dir = support::dir();
    let (jobs, source) = counting(dir.path()).await;
    let mut line = vec![source];
    let deepest = long_run(8, 3);
    for depth in 1..=deepest {
        let parent = *line.last().unwrap();
        let clones = forked(&jobs, parent, named(&[&format!("depth-{depth}")])).await;
        let clone = clones[0].vm;
        let own = format!("depth-{depth}");
        let seen = until(&jobs, clone, |all| all.last().is_some_and(|t| t.2 == own)).await;
        let before = ticks(&jobs, parent);
        assert_eq!(clones[0].nonce.as_ref(), Some(&seen[0].0));
        assert_eq!(clones[0].first_tick, Some(seen[0].1));
        assert!(
            before.iter().any(|t| (&t.0, t.1) == (&seen[0].0, seen[0].1)),
            "{depth}: it goes on where its parent was"
        );
        whole(&seen);
        line.push(clone);
    }
    for &vm in &line {
        whole(&ticks(&jobs, vm));
    }

    // The source goes, and costs its clones nothing.
    off_and_gone(&jobs, source).await;
    let last = *line.last().unwrap();
    let before = ticks(&jobs, last).len();
    counts(&jobs, last, before + 5).await;

    // A fork is a machine like any other.
    let taken = jobs.snapshot(last, TakeSnapshot::default(), by()).await.unwrap();
    succeeded(&jobs, taken.id).await;
    let nonce = ticks(&jobs, last)[0].0.clone();
    let off = jobs.power(last, PowerAction::PowerOff, by()).await.unwrap();
    succeeded(&jobs, off.id).await;
    let on = jobs.power(last, PowerAction::Start, by()).await.unwrap();
    succeeded(&jobs, on.id).await;
    let anew = counts(&jobs, last, 3).await;
    assert_ne!(anew[0].0, nonce, "started cold it boots from its own disks");
    assert_eq!(anew[0].2, format!("depth-{deepest}"), "and kept its name");
    let vm = db::vms::by_id(&jobs.world().db, last).await.unwrap().unwrap();
    assert!(vm.network_interfaces.iter().all(|nic| nic.connected));

    for &vm in &line[1..] {
        off_and_gone(&jobs, vm).await;
    }
    let left: Vec<_> = std::fs::read_dir(dir.path().join("points")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instant_that_is_kept_outlives_its_machine_and_the_server() {
    let dir = support::dir();
    let (jobs, source) = counting(dir.path()).await;
    let kept = InstantClone {
        keep_point: true,
        point_name: Some("kept".parse().unwrap()),
        config: [("guestinfo.role".to_owned(), "r".repeat(9000))].into(),
        ..named(&["first"])
    };
    let first = forked(&jobs, source, kept).await.remove(0);
    let point = db::fork_points::find(&jobs.world().db, "kept")
        .await
        .unwrap()
        .unwrap()
        .point;
    assert!(
        point.memory_bytes > 16 << 20 && point.memory_bytes < 128 << 20,
        "{point:#?}"
    );
    assert_eq!(point.clones, 1);
    let refused = jobs.delete_fork_point(point.id, by()).await.unwrap_err();
    assert_eq!(refused.code, Code::FailedPrecondition, "{refused}");
    for vm in [first.vm, source] {
        off_and_gone(&jobs, vm).await;
    }
    assert_eq!(
        kept_ready(dir.path()).len(),
        1,
        "a process waits for the next fork"
    );
    jobs.stop().await;
    drop(jobs);
    assert_eq!(kept_ready(dir.path()), [], "and ends with the server");

    let jobs = engine(dir.path(), QEMU, None).await;
    let again = InstantClone {
        fork_point: Some("kept".into()),
        ..named(&["again-a", "again-b", "again-c"])
    };
    let clones = forked(&jobs, source, again).await;
    for clone in &clones {
        assert_eq!(
            (&clone.nonce, clone.first_tick),
            (&first.nonce, first.first_tick),
            "the same instant as before"
        );
        whole(&counts(&jobs, clone.vm, 5).await);
    }
    let waiting = kept_ready(dir.path());
    let next = InstantClone {
        fork_point: Some("kept".into()),
        config: [("guestinfo.role".to_owned(), "next".to_owned())].into(),
        ..named(&["next"])
    };
    let mut next = forked(&jobs, source, next).await;
    assert_eq!(
        waiting,
        [next[0].vm],
        "the process that waited has become the next fork"
    );
    whole(&until(&jobs, next[0].vm, |all| all.last().is_some_and(|t| t.2 == "next")).await);
    assert_eq!(next[0].first_tick, first.first_tick, "the same instant as before");
    let other = InstantClone {
        fork_point: Some("kept".into()),
        bios_uuid: Some(uuid::Uuid::new_v4()),
        network_interfaces: Some(ForkNics::Disconnect),
        ..named(&["other"])
    };
    let waiting = kept_ready(dir.path());
    next.extend(forked(&jobs, source, other).await);
    assert_eq!(
        kept_ready(dir.path()),
        waiting,
        "one with another UUID cannot be had by it"
    );
    let connected = async || {
        let vm = db::vms::by_id(&jobs.world().db, next[1].vm).await.unwrap();
        vm.unwrap().network_interfaces[0].connected
    };
    assert!(!connected().await);
    let job = jobs.connect(next[1].vm, true, Default::default(), by()).await;
    succeeded(&jobs, job.unwrap().id).await;
    assert!(connected().await);
    let refused = jobs.connect(next[1].vm, true, Default::default(), by()).await;
    assert_eq!(refused.unwrap_err().code, Code::FailedPrecondition);
    for clone in clones.iter().chain(&next) {
        off_and_gone(&jobs, clone.vm).await;
    }
    let gone = jobs.delete_fork_point(point.id, by()).await.unwrap();
    succeeded(&jobs, gone.id).await;
    assert_eq!(kept_ready(dir.path()), [], "nobody can fork it any more");
    let left: Vec<_> = std::fs::read_dir(dir.path().join("points")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_forked_is_refused_before_anything_is_done() {
    let dir = support::dir();
    let jobs = engine(dir.path(), Machines::Simulated, None).await;
    let made = jobs.create_vm(create("source", false), by()).await.unwrap();
    succeeded(&jobs, made.id).await;
    let source = vm_id(&jobs, "source").await;
    let fault = |status: &shared::Status| shared::seed::fault::of(status).map(|f| f.type_name);

    let off = jobs.instant_clone(source, named(&["a"]), by()).await.unwrap_err();
    assert_eq!(off.code, Code::FailedPrecondition, "{off}");
    assert_eq!(fault(&off).as_deref(), Some("InvalidState"));
    let on = jobs.power(source, PowerAction::Start, by()).await.unwrap();
    succeeded(&jobs, on.id).await;

    let rest = async |state| {
        let set = jobs.world().db.write(move |tx| {
            Box::pin(async move {
                let host = db::places::host(tx).await?.id;
                db::places::set_host_state(tx, host, state).await
            })
        });
        set.await.unwrap();
    };
    rest(HostState::Maintenance).await;
    let resting = jobs.instant_clone(source, named(&["a"]), by()).await.unwrap_err();
    assert_eq!(
        (resting.code, fault(&resting).as_deref()),
        (Code::FailedPrecondition, Some("InvalidState"))
    );
    assert!(resting.message.contains("host-1 is in maintenance"), "{resting}");
    let made = jobs.create_vm(create("other", false), by()).await.unwrap_err();
    assert!(made.message.contains("in maintenance"), "{made}");
    rest(HostState::Up).await;

    let names: Vec<String> = (0..65).map(|n| format!("n{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let uuid = uuid::Uuid::new_v4();
    let config = |key: &str, bytes| InstantClone {
        config: [(key.to_owned(), "x".repeat(bytes))].into(),
        ..named(&["a"])
    };
    for (request, field) in [
        (named(&names), "names"),
        (named(&["a", "a"]), "names"),
        (
            InstantClone {
                bios_uuid: Some(uuid),
                ..named(&["a", "b"])
            },
            "biosUuid",
        ),
        (
            InstantClone {
                count: Some(0),
                ..InstantClone::default()
            },
            "count",
        ),
        (
            InstantClone {
                point_name: Some("p".parse().unwrap()),
                ..named(&["a"])
            },
            "pointName",
        ),
        (
            InstantClone {
                fork_point: Some("p".into()),
                keep_point: true,
                ..named(&["a"])
            },
            "keepPoint",
        ),
        (config("role", 1), "config"),
        (config("guestinfo.role", 20_000), "config"),
    ] {
        let refused = jobs.instant_clone(source, request, by()).await.unwrap_err();
        assert_eq!(
            (refused.code, refused.field()),
            (Code::InvalidArgument, Some(field)),
            "{refused}"
        );
    }
    let taken = jobs
        .instant_clone(source, named(&["source"]), by())
        .await
        .unwrap_err();
    assert_eq!(taken.code, Code::AlreadyExists, "{taken}");

    let spec = serde_json::json!({ "spec": { "name": "from-spec", "location": { "host": { "type": "HostSystem", "value": "h" } } } });
    let refused = jobs
        .instant_clone(source, serde_json::from_value(spec).unwrap(), by())
        .await
        .unwrap_err();
    assert_eq!(
        (refused.field(), fault(&refused).as_deref()),
        (Some("spec.location.host"), Some("InvalidArgument"))
    );
    let spec = serde_json::json!({ "spec": { "name": "from-spec", "location": {} } });
    let job = jobs
        .instant_clone(source, serde_json::from_value(spec).unwrap(), by())
        .await
        .unwrap();
    succeeded(&jobs, job.id).await;
    vm_id(&jobs, "from-spec").await;
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_go_on_from_one_moment_and_are_all_others() {
    let dir = support::dir();
    let (jobs, source) = counting(dir.path()).await;
    let count = long_run(64, 6);
    let request = InstantClone {
        count: Some(u32::try_from(count).unwrap()),
        network_interfaces: Some(ForkNics::Keep),
        ..InstantClone::default()
    };
    let clones = forked(&jobs, source, request).await;
    assert_eq!(clones.len(), count);
    let (mut names, mut macs, mut uuids) = (HashSet::new(), HashSet::new(), HashSet::new());
    for clone in &clones {
        assert_eq!(
            (&clone.nonce, clone.first_tick),
            (&clones[0].nonce, clones[0].first_tick)
        );
        let own = clone.name.to_string();
        let seen = until(&jobs, clone.vm, |all| all.last().is_some_and(|t| t.2 == own)).await;
        whole(&seen);
        let vm = db::vms::by_id(&jobs.world().db, clone.vm).await.unwrap().unwrap();
        names.insert(own);
        uuids.insert(vm.bios_uuid);
        macs.extend(vm.network_interfaces.iter().map(|nic| nic.mac.clone()));
    }
    assert_eq!((names.len(), macs.len(), uuids.len()), (count, count, count));
    whole(&ticks(&jobs, source));
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_at_once_on_the_simulation() {
    let dir = support::dir();
    let jobs = engine(dir.path(), Machines::Simulated, None).await;
    let made = jobs.create_vm(create("source", true), by()).await.unwrap();
    succeeded(&jobs, made.id).await;
    let source = vm_id(&jobs, "source").await;
    let request = InstantClone {
        count: Some(64),
        ..InstantClone::default()
    };
    let job = jobs.instant_clone(source, request, by()).await.unwrap();
    let job = succeeded(&jobs, job.id).await;
    assert_eq!(job.outcome.fork.unwrap().clones.len(), 64);
    clean_up(&jobs).await;
}

/// Far more in the soak.
fn long_run(most: usize, few: usize) -> usize {
    if std::env::var_os("OFFSHOOT_SOAK_SEED").is_some() {
        most
    } else {
        few
    }
}

/// How many layers the first disk of a machine has, and how many files there are for each disk.
async fn layers(jobs: &Jobs, dir: &Path, vm: VmId) -> (usize, usize) {
    let vm = db::vms::by_id(&jobs.world().db, vm).await.unwrap().unwrap();
    let chain = db::layers::chain_of(&jobs.world().db, vm.disks[0].layer).await;
    let files = std::fs::read_dir(dir.join("layers")).unwrap().count();
    (chain.unwrap().len(), files / vm.disks.len())
}

fn descriptors(pid: impl std::fmt::Display) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Forks a machine again and again, and removes each clone; nothing grows.
async fn again_and_again(jobs: &Jobs, dir: &Path, source: VmId, times: usize) {
    let pid = || process(dir, source);
    let (mut pauses, mut most) = (Vec::new(), (0, 0, 0, 0));
    for n in 0..times {
        let job = jobs
            .instant_clone(source, named(&[&format!("again-{n}")]), by())
            .await
            .unwrap();
        let job = succeeded(jobs, job.id).await;
        pauses.extend(job.outcome.pause_micros);
        let clone = job.outcome.fork.unwrap().clones[0].vm;
        off_and_gone(jobs, clone).await;
        let (chain, files) = layers(jobs, dir, source).await;
        let of_source = pid().map_or(0, descriptors);
        let own = descriptors("self");
        assert!(chain <= 10 && files <= 11, "{n}: {chain} layers in {files} files");
        most = (
            most.0.max(chain),
            most.1.max(files),
            most.2.max(of_source),
            most.3.max(own),
        );
    }
    eprintln!(
        "{times} forks: at most {most:?} layers, files, descriptors of QEMU and of the server; pauses {pauses:?}"
    );
    assert!(most.0 > 6, "its chain has grown, and been cut: {most:?}");
    assert!(most.2 <= 100 && most.3 <= 200, "{most:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn forked_again_and_again_on_the_simulation_nothing_grows() {
    let dir = support::dir();
    let jobs = engine(dir.path(), Machines::Simulated, None).await;
    let made = jobs.create_vm(create("source", true), by()).await.unwrap();
    succeeded(&jobs, made.id).await;
    let source = vm_id(&jobs, "source").await;
    again_and_again(&jobs, dir.path(), source, long_run(300, 40)).await;
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forked_again_and_again_nothing_grows_and_its_disk_stays_whole() {
    let dir = support::dir();
    let (jobs, source) = counting(dir.path()).await;
    again_and_again(&jobs, dir.path(), source, long_run(100, 10)).await;
    whole(&ticks(&jobs, source));
    let nonce = ticks(&jobs, source)[0].0.clone();
    for action in [PowerAction::PowerOff, PowerAction::Start] {
        let job = jobs.power(source, action, by()).await.unwrap();
        succeeded(&jobs, job.id).await;
    }
    let anew = counts(&jobs, source, 3).await;
    assert_ne!(anew[0].0, nonce, "it boots from what was merged");
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_forked_while_a_clone_of_it_is_copied() {
    let dir = support::dir();
    let jobs = engine(dir.path(), Machines::Simulated, None).await;
    let made = jobs.create_vm(create("source", true), by()).await.unwrap();
    succeeded(&jobs, made.id).await;
    let source = vm_id(&jobs, "source").await;
    let name = "wait-at-preparing-vm-disks";
    let request = serde_json::json!({ "snapshotNow": {}, "mode": "FULL", "target": { "name": name } });
    let copied = jobs
        .clone_vm(source, serde_json::from_value(request).unwrap(), by())
        .await
        .unwrap();
    let sim = jobs.world().hypervisor.clone();
    sim.as_sim().unwrap().until_waiting(name).await;
    for n in 0..2 {
        let taken = jobs
            .snapshot(source, TakeSnapshot::default(), by())
            .await
            .unwrap();
        let fork = jobs
            .instant_clone(source, named(&[&format!("beside-{n}")]), by())
            .await
            .unwrap();
        for job in [taken, fork] {
            succeeded(&jobs, job.id).await;
        }
    }
    let off = jobs.power(source, PowerAction::PowerOff, by()).await.unwrap();
    succeeded(&jobs, off.id).await;
    let gone = jobs.delete_vm(source, by()).await.unwrap();
    let now = db::jobs::by_id(&jobs.world().db, copied.id)
        .await
        .unwrap()
        .unwrap();
    assert!(now.job.end_time.is_none(), "it still waits: {:?}", now.job.state);
    let deleting = db::jobs::by_id(&jobs.world().db, gone.id).await.unwrap().unwrap();
    assert_eq!(
        deleting.job.state,
        JobState::Queued,
        "what is copied from stays until then"
    );
    sim.as_sim().unwrap().release(name);
    for job in [copied, gone] {
        succeeded(&jobs, job.id).await;
    }
    clean_up(&jobs).await;
}

/// Where the child of a test works; it forks what it finds there.
const CHILD: &str = "OFFSHOOT_FORK_IN";

/// No test of its own: what a test runs as another process, to kill it.
#[tokio::test(flavor = "multi_thread")]
async fn forks_for_its_parent() {
    let Some(dir) = std::env::var_os(CHILD) else {
        return;
    };
    let jobs = engine(Path::new(&dir), QEMU, None).await;
    let source = vm_id(&jobs, "source").await;
    let job = jobs
        .instant_clone(source, InstantClone::default(), by())
        .await
        .unwrap();
    println!("forking");
    ended(&jobs, job.id).await;
    jobs.stop().await;
}

fn signal(pid: &str, signal: &str) {
    // It may have ended by itself.
    let sent = std::process::Command::new("kill")
        .args([signal, pid])
        .stderr(std::process::Stdio::null())
        .status();
    sent.unwrap();
}

fn process(dir: &Path, vm: VmId) -> Option<String> {
    let line = std::fs::read_to_string(dir.join("run").join(vm.to_string()).join("process")).ok()?;
    line.split(' ')
        .next()
        .filter(|pid| !pid.is_empty())
        .map(str::to_owned)
}

/// How many ticks a log has, with nobody at work on its machine.
fn count(dir: &Path, vm: VmId) -> usize {
    let log = std::fs::read(dir.join("run").join(vm.to_string()).join("serial.log")).unwrap();
    log.windows(5).filter(|w| *w == b"tick=").count()
}

/// Moments of a fork, from its request on, in milliseconds; most of what it does is in its first fifth of a second.
fn moments() -> &'static [u64] {
    &[45, 90, 130, 5, 25, 65, 105, 180][..long_run(8, 3)]
}

#[tokio::test(flavor = "multi_thread")]
async fn whenever_the_server_is_killed_or_halted_the_source_of_a_fork_goes_on() {
    let dir = support::dir();
    let (jobs, source) = counting(dir.path()).await;
    jobs.stop().await;
    drop(jobs);
    for (round, &millis) in moments().iter().enumerate() {
        for how in ["-KILL", "-STOP"] {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "forks_for_its_parent", "--nocapture"])
                .env(CHILD, dir.path())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            // Kept open: the child goes on writing.
            let out = std::io::BufReader::new(child.stdout.take().unwrap());
            let mut out = std::io::BufRead::lines(out);
            let begun = out.any(|line| line.unwrap() == "forking");
            assert!(begun, "the child does not fork");
            tokio::time::sleep(Duration::from_millis(millis)).await;
            signal(&child.id().to_string(), how);

            let (before, at) = (count(dir.path(), source), Instant::now());
            while count(dir.path(), source) < before + 3 {
                assert!(
                    at.elapsed() < Duration::from_secs(10),
                    "{how} after {millis} ms: the source stands still"
                );
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            eprintln!("{how} after {millis} ms: three ticks within {:?}", at.elapsed());
            signal(&child.id().to_string(), "-CONT");
            let status = child.wait().unwrap();
            assert_eq!(status.success(), how == "-STOP", "{status}");

            // The next server brings it to an end, and nothing is left of what failed.
            let jobs = engine(dir.path(), QEMU, None).await;
            let all = db::jobs::active(&jobs.world().db).await.unwrap();
            for stored in all {
                let job = ended(&jobs, stored.job.id).await;
                eprintln!("round {round}: {}", job.state);
            }
            let vms = db::vms::ids(&jobs.world().db).await.unwrap();
            for vm in vms.into_iter().filter(|vm| *vm != source) {
                whole(&counts(&jobs, vm, 3).await);
                off_and_gone(&jobs, vm).await;
            }
            jobs.stop().await;
        }
    }
    let jobs = engine(dir.path(), QEMU, None).await;
    whole(&ticks(&jobs, source));
    let left: Vec<_> = std::fs::read_dir(dir.path().join("points")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whenever_the_source_or_a_clone_is_killed_a_fork_ends_and_leaves_nothing() {
    let dir = support::dir();
    let (jobs, source) = counting(dir.path()).await;
    let (mut failed, mut succeeded_) = (0, 0);
    for &millis in moments() {
        // The source takes its time to boot again.
        let source_too = long_run(1, 0) == 1 || millis == moments()[0];
        for of_clone in [true, false]
            .into_iter()
            .filter(|of_clone| *of_clone || source_too)
        {
            let request = InstantClone {
                count: Some(2),
                ..InstantClone::default()
            };
            let job = jobs.instant_clone(source, request, by()).await.unwrap();
            let begin = Instant::now();
            let clone = loop {
                let job = db::jobs::by_id(&jobs.world().db, job.id)
                    .await
                    .unwrap()
                    .unwrap()
                    .job;
                let product = job.resources.iter().find(|r| r.id != source.to_string());
                if let Some(found) = product {
                    break found.id.parse::<VmId>().unwrap();
                }
                assert!(begin.elapsed() < Duration::from_secs(30), "no clone");
                tokio::time::sleep(Duration::from_millis(1)).await;
            };
            tokio::time::sleep(Duration::from_millis(millis)).await;
            let victim = if of_clone { clone } else { source };
            if let Some(pid) = process(dir.path(), victim) {
                signal(&pid, "-KILL");
            }
            let job = ended(&jobs, job.id).await;
            match job.state {
                JobState::Succeeded => succeeded_ += 1,
                JobState::Failed => failed += 1,
                state => panic!("{state}: {job:#?}"),
            }
            let of_source = jobs.world().hypervisor.state(source).await;
            if of_clone {
                assert_eq!(of_source, RunState::Running, "{millis}: {job:#?}");
            } else {
                let on = jobs.power(source, PowerAction::Start, by()).await;
                if let Ok(on) = on {
                    succeeded(&jobs, on.id).await;
                }
                counts(&jobs, source, 3).await;
            }
            let vms = db::vms::ids(&jobs.world().db).await.unwrap();
            let clones: Vec<_> = vms.into_iter().filter(|vm| *vm != source).collect();
            let expected = if job.state == JobState::Succeeded { 2 } else { 0 };
            assert_eq!(clones.len(), expected, "{millis}: {job:#?}");
            for vm in clones {
                if jobs.world().hypervisor.state(vm).await == RunState::Running {
                    off_and_gone(&jobs, vm).await;
                } else {
                    let gone = jobs.delete_vm(vm, by()).await.unwrap();
                    succeeded(&jobs, gone.id).await;
                }
            }
        }
    }
    eprintln!("{failed} forks failed, {succeeded_} succeeded");
    assert!(failed > 0, "nothing was killed in time");
    let left: Vec<_> = std::fs::read_dir(dir.path().join("points")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    clean_up(&jobs).await;
}
