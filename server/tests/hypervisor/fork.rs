//! Machines that are forked while they run.

use crate::host::{Host, PROGRAM, next};
use server::disks::LayerFile;
use server::hypervisor::{Captured, Control, DiskSwitch, Hypervisor, MachineSpec, Point, RunState};
use shared::VmId;
use shared::vm::PauseReason;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use uuid::Uuid;

const TICK: &str = r"^offshoot-guest nonce=\w+ tick=\d+ host=\w+";

/// Nonce and number of each whole tick that the serial port has.
fn ticks(host: &Host, vm: VmId) -> Vec<(String, u64)> {
    let pattern = regex::Regex::new(r"^offshoot-guest nonce=(\w+) tick=(\d+) host=\w").unwrap();
    let of = |line: String| {
        let found = pattern.captures(&line)?;
        Some((found[1].to_owned(), found[2].parse().unwrap()))
    };
    host.ticks(vm).into_iter().filter_map(of).collect()
}

fn point(host: &Host) -> Point {
    let id = Uuid::now_v7();
    Point {
        id,
        memory: host.dir.path().join(format!("{id}.memory")),
        state: host.dir.path().join(format!("{id}.state")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forks_go_on_where_the_source_was_and_the_source_goes_on_too() {
    let mut host = Host::new();
    let (source, switch) = counting(&mut host).await;
    let [base, first] = &source.disks[0].chain[..] else {
        panic!("two layers")
    };
    let mut events = host.hv().events();
    let point = point(&host);
    let before = ticks(&host, source.id).last().unwrap().clone();
    let captured = host.hv().capture(&source, &switch, &point).await.unwrap();
    let after = ticks(&host, source.id).last().unwrap().clone();
    assert!((1..2_000_000).contains(&captured.pause_micros), "{captured:?}");
    eprintln!("{captured:?}");
    assert!(captured.copied_bytes > 1 << 20, "{captured:?}");
    assert!(!captured.forced);
    assert_eq!(host.hv().state(source.id).await, RunState::Running);
    let again = host.hv().capture(&source, &switch, &point).await.unwrap();
    assert_eq!(again.pause_micros, 0, "it is there already");

    // Two of the same moment, each on an overlay of its own.
    let overlays: [LayerFile; 2] = [host.overlay(first).await, host.overlay(first).await];
    for overlay in &overlays {
        let mut fork = host.machine(&[base, first, overlay]);
        fork.name = "fork".parse().unwrap();
        for _ in 0..2 {
            host.hv().fork(&fork, &point).await.unwrap();
        }
        assert_eq!(host.hv().state(fork.id).await, RunState::Running);
        host.sees(fork.id, TICK).await.unwrap();
        let seen = ticks(&host, fork.id);
        let (nonce, begin) = &seen[0];
        assert_eq!(*nonce, before.0, "the same boot");
        assert!(
            (before.1..=after.1 + 1).contains(begin),
            "it goes on in the moment of the capture: {begin}, captured within {before:?} and {after:?}"
        );
        assert!(seen.windows(2).all(|w| w[1].1 == w[0].1 + 1), "no tick is lost");
        // It did not boot: that would have begun with the kernel's lines.
        let log = std::fs::read_to_string(host.hv().serial_log(fork.id)).unwrap();
        assert!(!log.contains("Linux version"), "{log}");
    }

    // Its own ticks have no hole, and nobody was told of the pause.
    let all = ticks(&host, source.id);
    assert!(all.windows(2).all(|w| w[1].1 == w[0].1 + 1 && w[1].0 == w[0].0));
    let told = std::iter::from_fn(|| events.try_recv().ok());
    assert!(
        !told.into_iter().any(|e| e.vm == source.id),
        "the source never changed"
    );
}

/// A guest that counts, on an overlay of its own; and the overlay that a capture switches it to.
async fn counting(host: &mut Host) -> (MachineSpec, [DiskSwitch; 1]) {
    let base = host.import("demo").await;
    let first = host.overlay(&base).await;
    let source = host.machine(&[&base, &first]);
    host.hv().start(&source).await.unwrap();
    host.boots(source.id, 120).await.unwrap();
    host.sees(source.id, TICK).await.unwrap();
    let new = host.overlay(&first).await;
    (source, [DiskSwitch { old: first, new }])
}

/// Kills the process that a record speaks of, as soon as there is one and `after` that.
fn kill_recorded(record: std::path::PathBuf, after: Duration) {
    let begin = Instant::now();
    let pid = loop {
        let line = std::fs::read_to_string(&record).unwrap_or_default();
        if let Some((pid, _)) = line.split_once(' ') {
            break pid.to_owned();
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "no receiver");
        std::thread::sleep(Duration::from_millis(1));
    };
    std::thread::sleep(after);
    // It may be done already.
    let _ = Command::new("kill")
        .args(["-KILL", &pid])
        .stderr(Stdio::null())
        .status();
}

#[tokio::test(flavor = "multi_thread")]
async fn whenever_the_receiver_is_killed_the_source_goes_on_and_can_be_forked_again() {
    let mut host = Host::new();
    let (source, switch) = counting(&mut host).await;
    let mut failed = 0;
    for millis in [0, 30, 60, 120, 180, 240, 300] {
        let point = point(&host);
        let record = host
            .dir
            .path()
            .join("run")
            .join(point.id.to_string())
            .join("process");
        let killed =
            tokio::task::spawn_blocking(move || kill_recorded(record, Duration::from_millis(millis)));
        let captured = host.hv().capture(&source, &switch, &point).await;
        killed.await.unwrap();
        assert_eq!(
            host.hv().state(source.id).await,
            RunState::Running,
            "{captured:?}"
        );
        assert_eq!(captured.is_ok(), point.state.exists(), "{captured:?}");
        failed += usize::from(captured.is_err());
        let before = ticks(&host, source.id).len();
        host.sees(
            source.id,
            &format!("tick={} ", ticks(&host, source.id).last().unwrap().1 + 3),
        )
        .await
        .unwrap();
        assert!(ticks(&host, source.id).len() > before, "it counts on");
    }
    assert!(failed > 2, "it was killed in time {failed} times");
    let point = point(&host);
    let captured = host.hv().capture(&source, &switch, &point).await.unwrap();
    assert!(captured != Captured::default());
    let all = ticks(&host, source.id);
    assert!(
        all.windows(2).all(|w| w[1].1 == w[0].1 + 1 && w[1].0 == w[0].0),
        "no tick is lost"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guardian_lets_its_source_go_on_whether_or_not_anybody_is_there() {
    let mut host = Host::new();
    let (source, _) = counting(&mut host).await;
    let watch = host
        .dir
        .path()
        .join("run")
        .join(source.id.to_string())
        .join("watch");
    let guardian = || {
        let mut child = Command::new(PROGRAM)
            .args(["guard".as_ref(), watch.as_os_str()])
            .arg(source.id.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        child
    };

    // A server that hangs holds the leash, and does nothing.
    let mut held = guardian();
    let mut events = host.hv().events();
    host.hv().control(source.id, Control::Pause).await.unwrap();
    let paused = Instant::now();
    assert_eq!(next(&mut events).await.0, RunState::Paused(PauseReason::User));
    assert_eq!(next(&mut events).await.0, RunState::Running);
    let took = paused.elapsed();
    assert!(
        took > Duration::from_millis(300),
        "a fork may take its moment: {took:?}"
    );
    drop(held.stdin.take());
    assert!(held.wait().unwrap().success());

    // One that has ended does not.
    let mut left = guardian();
    host.hv().control(source.id, Control::Pause).await.unwrap();
    assert_eq!(next(&mut events).await.0, RunState::Paused(PauseReason::User));
    drop(left.stdin.take());
    assert!(left.wait().unwrap().success());
    assert_eq!(next(&mut events).await.0, RunState::Running);

    // Without a source there is nothing to watch over.
    let mut last = guardian();
    host.hv().kill(source.id).await.unwrap();
    assert!(last.wait().unwrap().success());
}
