//! Whoever is killed or halted in the middle.

use crate::support::{by, clean_up, ended, engine, vm_id};
use crate::*;
use server::hypervisor::RunState;

/// Where the child of a test works; it forks what it finds there.
const CHILD: &str = "OFFSHOOT_FORK_IN";
/// Set, it keeps the instant, and then waits for its end.
const KEEPS: &str = "OFFSHOOT_KEEP_POINT";

/// No test of its own: what a test runs as another process, to kill it.
#[tokio::test(flavor = "multi_thread")]
async fn forks_for_its_parent() {
    let Some(dir) = std::env::var_os(CHILD) else {
        return;
    };
    let jobs = engine(Path::new(&dir), QEMU, None).await;
    let source = vm_id(&jobs, "source").await;
    let keep_point = std::env::var_os(KEEPS).is_some();
    let request = InstantClone {
        keep_point,
        ..InstantClone::default()
    };
    let job = jobs.instant_clone(source, request, by()).await.unwrap();
    println!("forking");
    ended(&jobs, job.id).await;
    if keep_point {
        println!("waiting");
        std::future::pending::<()>().await;
    }
    jobs.stop().await;
}

/// Starts that, and waits until it says so.
fn child(dir: &Path, keeps: bool, says: &str) -> (std::process::Child, impl Sized) {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "killed::forks_for_its_parent", "--nocapture"])
        .env(CHILD, dir)
        .stdout(std::process::Stdio::piped());
    if keeps {
        command.env(KEEPS, "1");
    }
    let mut child = command.spawn().unwrap();
    let out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut out = std::io::BufRead::lines(out);
    let said = out.any(|line| line.unwrap() == says);
    assert!(said, "the child is not {says}");
    // Kept open: it goes on writing.
    (child, out)
}

fn signal(pid: &str, signal: &str) {
    // It may have ended by itself.
    let sent = std::process::Command::new("kill")
        .args([signal, pid])
        .stderr(std::process::Stdio::null())
        .status();
    sent.unwrap();
}

pub fn process(dir: &Path, vm: VmId) -> Option<String> {
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
            let (mut child, _out) = child(dir.path(), false, "forking");
            tokio::time::sleep(Duration::from_millis(millis)).await;
            signal(&child.id().to_string(), how);

            let (before, at) = (count(dir.path(), source), Instant::now());
            while count(dir.path(), source) < before + 3 {
                assert!(
                    at.elapsed() < Duration::from_secs(60),
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
async fn a_process_that_waits_for_a_fork_ends_when_its_server_was_killed() {
    let dir = support::dir();
    let (jobs, _) = counting(dir.path()).await;
    jobs.stop().await;
    drop(jobs);
    let (mut child, _out) = child(dir.path(), true, "waiting");
    let waits = support::kept_ready(dir.path());
    let pids: Vec<_> = waits.iter().filter_map(|vm| process(dir.path(), *vm)).collect();
    assert_eq!(pids.len(), 1, "one waits: {waits:?}");
    signal(&child.id().to_string(), "-KILL");
    child.wait().unwrap();
    // One that has ended and is nobody's child may stay as a zombie, without arguments.
    let there = || std::fs::read(format!("/proc/{}/cmdline", pids[0])).is_ok_and(|args| !args.is_empty());
    assert!(there(), "it outlives the server");
    let jobs = engine(dir.path(), QEMU, None).await;
    assert!(!there(), "the next server has ended it");
    assert!(support::kept_ready(dir.path()).is_empty());
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
