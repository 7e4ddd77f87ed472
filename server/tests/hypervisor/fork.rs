//! Machines that are forked while they run.

use crate::host::{Host, PROGRAM, next};
use serde_json::{Value, json};
use server::disks::LayerFile;
use server::disks::blockdev::node_name;
use server::hypervisor::qemu::{Guardian, STANDS_STILL_AT_MOST};
use server::hypervisor::{
    Captured, Control, DiskSwitch, HvError, Hypervisor, MachineSpec, NicSpec, Point, RunState,
};
use shared::VmId;
use shared::place::NetworkKind;
use shared::vm::PauseReason;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
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
        user_networks: 0,
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
    let begin = Instant::now();
    let captured = host.hv().capture(&source, &switch, &point).await.unwrap();
    eprintln!("captured after {:?}", begin.elapsed());
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
            let begin = Instant::now();
            host.hv().fork(&fork, &point).await.unwrap();
            eprintln!("forked after {:?}", begin.elapsed());
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

    // One whose process waited before anybody knew of it: its overlay is made, and its name known, only now.
    let own = host.overlay(first).await;
    let mut fork = host.machine(&[base, first, &own]);
    let kept = host.dir.path().join("own");
    std::fs::rename(&own.path, &kept).unwrap();
    for _ in 0..2 {
        host.hv().keep_ready(&fork, &point).await.unwrap();
    }
    let nobodys = host.machine(&[base, first, &own]);
    host.hv().keep_ready(&nobodys, &point).await.unwrap();
    let pid = host.pid(fork.id);
    host.restart();
    host.hv().end_unasked(&[fork.id].into()).await.unwrap();
    assert!(
        !host.dir.path().join("run").join(nobodys.id.to_string()).exists(),
        "what nobody knows ends"
    );
    std::fs::rename(&kept, &own.path).unwrap();
    fork.name = "asked".parse().unwrap();
    for _ in 0..2 {
        host.hv().fork(&fork, &point).await.unwrap();
    }
    assert_eq!(host.pid(fork.id), pid, "the process that waited is the fork's");
    host.sees(fork.id, " host=asked").await.unwrap();
    assert_eq!(ticks(&host, fork.id)[0].0, before.0, "the same boot");
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

/// A machine's second monitor, which serves one at a time.
struct Watch {
    stream: UnixStream,
    lines: std::io::Lines<BufReader<UnixStream>>,
    log: std::path::PathBuf,
}

impl Watch {
    fn connect(host: &Host, vm: VmId) -> Self {
        Self::connect_to(&host.dir.path().join("run").join(vm.to_string()), "watch")
    }

    fn connect_to(dir: &std::path::Path, monitor: &str) -> Self {
        let (socket, log) = (dir.join(monitor), dir.join("qemu.log"));
        let connected = || -> std::io::Result<Self> {
            let stream = UnixStream::connect(&socket)?;
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            let mut lines = BufReader::new(stream.try_clone()?).lines();
            let greeting = lines.next().ok_or(std::io::ErrorKind::UnexpectedEof)??;
            assert!(greeting.contains("QMP"), "{greeting}");
            let log = log.clone();
            Ok(Self { stream, lines, log })
        };
        let begin = Instant::now();
        loop {
            match connected() {
                Ok(mut watch) => {
                    watch.ask("qmp_capabilities", &json!({}));
                    return watch;
                }
                // Whoever had it before may not have quite gone.
                Err(e) => assert!(begin.elapsed() < Duration::from_secs(30), "{e}"),
            }
        }
    }

    fn ask(&mut self, command: &str, arguments: &Value) -> Value {
        writeln!(
            self.stream,
            "{}",
            json!({ "execute": command, "arguments": arguments })
        )
        .unwrap();
        let died = || std::fs::read_to_string(&self.log).unwrap();
        self.lines
            .by_ref()
            .map(|line| line.unwrap_or_else(|e| panic!("{e}: {}", died())))
            .map(|line| serde_json::from_str::<Value>(&line).unwrap())
            .find(|answer| answer["event"].is_null())
            .unwrap()
    }

    /// Waits for an event.
    fn event(&mut self, wanted: impl Fn(&Value) -> bool) {
        let lines = self
            .lines
            .by_ref()
            .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        lines.into_iter().find(wanted).unwrap();
    }

    /// Whether there is an end of a network of this name. Not tried by adding a filter to it: when that fails, QEMU 7.2
    /// closes its descriptor 0, whatever that is.
    fn network(&mut self, name: &str) -> bool {
        let info = self.ask(
            "human-monitor-command",
            &json!({ "command-line": "info network" }),
        );
        info["return"].as_str().unwrap().contains(&format!("{name}:"))
    }
}

/// Asks a machine's second monitor.
fn ask(host: &Host, vm: VmId, command: &str, arguments: &Value) -> Value {
    Watch::connect(host, vm).ask(command, arguments)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_of_a_fork_is_named_and_the_source_goes_on() {
    let mut host = Host::new();
    let (source, switch) = counting(&mut host).await;
    let vm = source.id;
    let node = json!({ "driver": "null-co", "node-name": "target", "size": 1 << 28 });
    ask(&host, vm, "blockdev-add", &node);
    let active = node_name(switch[0].old.id);
    for (command, arguments) in [
        (
            "block-stream",
            json!({ "job-id": "stream", "device": active, "speed": 65536 }),
        ),
        (
            "blockdev-backup",
            json!({ "job-id": "backup", "device": active, "target": "target", "sync": "full", "speed": 65536 }),
        ),
    ] {
        let begun = ask(&host, vm, command, &arguments);
        assert!(begun["return"].is_object(), "{begun}");
        let job = arguments["job-id"].as_str().unwrap();
        for _ in 0..2 {
            let refused = host
                .hv()
                .capture(&source, &switch, &point(&host))
                .await
                .unwrap_err();
            assert!(
                matches!(&refused, HvError::BlockJob { id, .. } if id == job),
                "{refused}"
            );
            let jobs = ask(&host, vm, "query-jobs", &json!({}));
            assert_eq!(jobs["return"][0]["status"], "running", "{jobs}");
            // Nor does it wait for ever for one that stands still.
            ask(&host, vm, "job-pause", &json!({ "id": job }));
            let begin = Instant::now();
            while ask(&host, vm, "query-jobs", &json!({}))["return"][0]["status"] != "paused" {
                assert!(
                    begin.elapsed() < Duration::from_secs(30),
                    "it does not stand still"
                );
            }
            let refused = host
                .hv()
                .capture(&source, &switch, &point(&host))
                .await
                .unwrap_err();
            assert!(matches!(&refused, HvError::BlockJob { .. }), "{refused}");
            ask(&host, vm, "job-resume", &json!({ "id": job }));
        }
        ask(&host, vm, "job-cancel", &json!({ "id": job }));
        let begin = Instant::now();
        while ask(&host, vm, "query-jobs", &json!({}))["return"]
            .as_array()
            .is_some_and(|jobs| !jobs.is_empty())
        {
            assert!(begin.elapsed() < Duration::from_secs(30), "it does not end");
        }
    }
    assert_eq!(host.hv().state(vm).await, RunState::Running);
    let all = ticks(&host, vm);
    assert!(all.windows(2).all(|w| w[1].1 == w[0].1 + 1), "no tick is lost");

    // Streams at full speed: each fork is refused, or whole.
    let [DiskSwitch { old, new }] = switch;
    let (mut active, mut next, mut refused) = (old, new, 0);
    for n in 0..20 {
        let stream = json!({ "job-id": format!("stream{n}"), "device": node_name(active.id) });
        let begun = ask(&host, vm, "block-stream", &stream);
        assert!(begun["return"].is_object(), "{begun}");
        let switch = [DiskSwitch {
            old: active,
            new: next,
        }];
        loop {
            match host.hv().capture(&source, &switch, &point(&host)).await {
                Ok(captured) => {
                    assert!(captured.pause_micros > 0);
                    break;
                }
                Err(HvError::BlockJob { .. }) => refused += 1,
                Err(e) => panic!("{e}"),
            }
        }
        let [DiskSwitch { new, .. }] = switch;
        next = host.overlay(&new).await;
        active = new;
    }
    assert!(refused > 0, "no stream was under way");

    // No room for what is taken.
    let switch = [DiskSwitch {
        old: active,
        new: next,
    }];
    let full = point(&host);
    let mut part = full.state.clone().into_os_string();
    part.push(".part");
    std::os::unix::fs::symlink("/dev/full", part).unwrap();
    let failed = host.hv().capture(&source, &switch, &full).await.unwrap_err();
    let HvError::Io { op, source: why, .. } = &failed else {
        panic!("{failed:?}")
    };
    assert_eq!((*op, why.kind()), ("write", std::io::ErrorKind::StorageFull));
    assert!(!full.state.exists());
    assert_eq!(host.hv().state(vm).await, RunState::Running);
    host.hv().drop_point(&full).await.unwrap();

    let last = ticks(&host, vm).last().unwrap().1;
    host.sees(vm, &format!("tick={} ", last + 3)).await.unwrap();
    let all = ticks(&host, vm);
    assert!(all.windows(2).all(|w| w[1].1 == w[0].1 + 1), "no tick is lost");
}

/// Who sent the frames that a file of QEMU's filter-dump has.
fn senders(pcap: &std::path::Path) -> Vec<String> {
    let bytes = std::fs::read(pcap).unwrap();
    let (mut all, mut at) = (Vec::new(), 24);
    while let Some(head) = bytes.get(at..at + 16) {
        let n = u32::from_le_bytes(head[8..12].try_into().unwrap()) as usize;
        let Some(frame) = bytes.get(at + 16..at + 16 + n) else {
            break;
        };
        let mac: Vec<_> = frame[6..12].iter().map(|b| format!("{b:02x}")).collect();
        all.push(mac.join(":"));
        at += 16 + n;
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn no_frame_with_the_sources_address_leaves_a_fork() {
    let mut host = Host::new();
    let base = host.import("demo").await;
    let first = host.overlay(&base).await;
    let nic = |mac: &str| NicSpec {
        mac: mac.into(),
        kind: NetworkKind::User,
        bridge: None,
        connected: true,
    };
    let mut source = host.machine(&[&base, &first]);
    source.nics = vec![nic("52:54:00:aa:00:01")];
    host.hv().start(&source).await.unwrap();
    host.boots(source.id, 120).await.unwrap();
    // It sends all the time.
    let busy = json!({ "path": "/bin/sh", "arg": ["-c", "while :; do ping -c 100 -i 0.01 10.0.2.2; done"] });
    agent(&host, source.id, "guest-exec", &busy).unwrap();
    let new = host.overlay(&first).await;
    let switch = [DiskSwitch {
        old: first.clone(),
        new,
    }];
    let point = Point {
        user_networks: 1,
        ..point(&host)
    };
    host.hv().capture(&source, &switch, &point).await.unwrap();

    let overlay = host.overlay(&first).await;
    let mut fork = host.machine(&[&base, &first, &overlay]);
    fork.nics = vec![nic("52:54:00:aa:00:02")];
    host.hv().await_point(&fork, &point).await.unwrap();
    let pcap = |name: &str| host.dir.path().join(name);
    let dump = |name: &str, netdev: &str| json!({ "qom-type": "filter-dump", "id": name, "netdev": netdev, "file": pcap(name) });
    let inside = ask(&host, fork.id, "object-add", &dump("inside", "net0"));
    assert!(inside["return"].is_object(), "{inside}");
    host.hv().fork(&fork, &point).await.unwrap();
    let (mut watch, outside) = (Watch::connect(&host, fork.id), dump("outside", "up0"));
    let listening = async {
        let listening = tokio::task::spawn_blocking(move || {
            let begin = Instant::now();
            while !watch.network("up0") {
                assert!(begin.elapsed() < Duration::from_secs(60), "it joins no network");
            }
            let dumped = watch.ask("object-add", &outside);
            assert!(dumped["return"].is_object(), "{dumped}");
        });
        listening.await.unwrap();
    };
    let (identity, ()) = tokio::join!(host.hv().settle(&fork, 0), listening);
    eprintln!("{:?}", identity.unwrap());
    let begin = Instant::now();
    while senders(&pcap("outside"))
        .iter()
        .filter(|mac| mac.ends_with(":02"))
        .count()
        < 5
    {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "nothing is sent: {:?} {:?}",
            senders(&pcap("inside")),
            senders(&pcap("outside"))
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let outside = senders(&pcap("outside"));
    assert!(
        !outside.iter().any(|mac| mac.ends_with("aa:00:01")),
        "{outside:?}"
    );

    // Its cable is pulled, and put in again.
    let says = "while :; do echo cable=$(cat /sys/class/net/eth0/carrier) > /dev/ttyS0; sleep 0.1; done";
    agent(
        &host,
        fork.id,
        "guest-exec",
        &json!({ "path": "/bin/sh", "arg": ["-c", says] }),
    )
    .unwrap();
    host.sees(fork.id, "cable=1").await.unwrap();
    for _ in 0..2 {
        fork.nics[0].connected = false;
        host.hv().connect(&fork).await.unwrap();
    }
    host.sees(fork.id, "cable=0").await.unwrap();
    let mut watch = Watch::connect(&host, fork.id);
    assert!(!watch.network("up0"));
    for _ in 0..2 {
        fork.nics[0].connected = true;
        host.hv().connect(&fork).await.unwrap();
    }
    let there = watch.ask("object-add", &dump("again", "up0"));
    assert!(there["return"].is_object(), "{there}");
    let begin = Instant::now();
    while senders(&pcap("again")).iter().all(|mac| !mac.ends_with(":02")) {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "nothing is sent any more"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
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
        let (leash, its_end) = UnixStream::pair().unwrap();
        let mut child = Command::new(PROGRAM)
            .args(["guard".as_ref(), watch.as_os_str()])
            .arg(source.id.to_string())
            .stdin(std::os::fd::OwnedFd::from(its_end))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        (child, leash)
    };

    // A server that hangs holds the leash, and does nothing.
    let (mut held, leash) = guardian();
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
    drop(leash);
    assert!(held.wait().unwrap().success());

    // One that has ended does not.
    let (mut left, leash) = guardian();
    host.hv().control(source.id, Control::Pause).await.unwrap();
    assert_eq!(next(&mut events).await.0, RunState::Paused(PauseReason::User));
    drop(leash);
    assert!(left.wait().unwrap().success());
    assert_eq!(next(&mut events).await.0, RunState::Running);

    // Without a source there is nothing to watch over.
    let (mut last, _leash) = guardian();
    host.hv().kill(source.id).await.unwrap();
    assert!(last.wait().unwrap().success());
}

/// Whoever takes what a source sends is halted while that stands still: QEMU hears nobody until it is rid of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_guardian_cuts_the_connection_of_a_source_that_nobody_takes_from() {
    let mut host = Host::new();
    let base = host.import("demo").await;
    let first = host.overlay(&base).await;
    let source = host.machine(&[&base, &first]);
    host.hv().start(&source).await.unwrap();
    host.boots(source.id, 120).await.unwrap();
    scribbles(&host, &source, 150).await;
    // This is the server now.
    let log = host.hv().serial_log(source.id);
    drop(host.hv.take());
    let run = host.dir.path().join("run").join(source.id.to_string());
    let guardian = Guardian::start(PROGRAM.as_ref(), &run.join("watch"), source.id)
        .await
        .unwrap();
    let leash = guardian.leash();
    let halted = tokio::task::spawn_blocking(move || {
        let listener = std::os::unix::net::UnixListener::bind(run.join("out")).unwrap();
        let mut qmp = Watch::connect_to(&run, "qmp");
        let paused_before = json!([{ "capability": "pause-before-switchover", "state": true },
            { "capability": "events", "state": true }]);
        qmp.ask(
            "migrate-set-capabilities",
            &json!({ "capabilities": paused_before }),
        );
        qmp.ask(
            "migrate-set-parameters",
            &json!({ "max-bandwidth": 1_u64 << 40, "downtime-limit": 2000 }),
        );
        qmp.ask(
            "migrate",
            &json!({ "uri": format!("unix:{}", run.join("out").display()) }),
        );
        let (mut stream, _) = listener.accept().unwrap();
        leash.hand(&stream).unwrap();
        let halt = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let taking = std::thread::spawn({
            let halt = halt.clone();
            move || {
                let mut nowhere = vec![0; 1 << 20];
                while !halt.load(std::sync::atomic::Ordering::SeqCst)
                    && stream.read(&mut nowhere).unwrap() > 0
                {}
                // Kept open, as by a server that is halted.
                stream
            }
        });
        qmp.event(|event| event["data"]["status"] == "pre-switchover");
        halt.store(true, std::sync::atomic::Ordering::SeqCst);
        let stood = Instant::now();
        qmp.ask("migrate-continue", &json!({ "state": "pre-switchover" }));
        qmp.event(|event| event["event"] == "RESUME");
        let took = stood.elapsed();
        drop(taking.join());
        took
    });
    let halted = halted.await;
    host.restart();
    let took = halted.unwrap();
    assert!(
        took > STANDS_STILL_AT_MOST / 2 && took < STANDS_STILL_AT_MOST * 2,
        "{took:?}"
    );
    guardian.dismiss().await;
    let ticks = || {
        let log = std::fs::read(&log).unwrap();
        log.windows(5).filter(|w| *w == b"tick=").count()
    };
    let (before, begin) = (ticks(), Instant::now());
    while ticks() < before + 3 {
        assert!(begin.elapsed() < Duration::from_secs(30), "it stands still");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(host.hv().adopt(source.id).await.unwrap(), RunState::Running);
}

/// Asks a guest's agent.
fn agent(host: &Host, vm: VmId, command: &str, arguments: &Value) -> Result<Value, String> {
    let socket = host.dir.path().join("run").join(vm.to_string()).join("agent");
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let ask = json!({ "execute": command, "arguments": arguments });
    // 0xff makes the agent forget what came before.
    stream.write_all(b"\xff").unwrap();
    writeln!(
        stream,
        "{}",
        json!({ "execute": "guest-sync-delimited", "arguments": { "id": 7 } })
    )
    .unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut line = Vec::new();
    while !String::from_utf8_lossy(&line).contains("\"return\": 7") {
        line.clear();
        assert!(
            lines.read_until(b'\n', &mut line).unwrap() > 0,
            "the agent is gone"
        );
    }
    writeln!(stream, "{ask}").unwrap();
    line.clear();
    lines.read_until(b'\n', &mut line).unwrap();
    let answer: Value = serde_json::from_slice(&line).unwrap();
    match answer.get("return") {
        Some(value) => Ok(value.clone()),
        None => Err(answer.to_string()),
    }
}

fn write_in_guest(host: &Host, vm: VmId, path: &str) {
    let file = agent(host, vm, "guest-file-open", &json!({ "path": path, "mode": "w" })).unwrap();
    let text = json!({ "handle": file, "buf-b64": "b2Zmc2hvb3Q=" });
    agent(host, vm, "guest-file-write", &text).unwrap();
    agent(host, vm, "guest-file-flush", &json!({ "handle": file })).unwrap();
    agent(host, vm, "guest-file-close", &json!({ "handle": file })).unwrap();
}

fn has_in_guest(host: &Host, vm: VmId, path: &str) -> bool {
    let file = agent(host, vm, "guest-file-open", &json!({ "path": path, "mode": "r" }));
    file.map(|file| agent(host, vm, "guest-file-close", &json!({ "handle": file })).unwrap())
        .is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_writes_none_of_the_others_sees() {
    let mut host = Host::new();
    let (source, switch) = counting(&mut host).await;
    let [base, first] = &source.disks[0].chain[..] else {
        panic!("two layers")
    };
    // In memory, and on the disk.
    let places = ["/run", "/etc"];
    for place in places {
        write_in_guest(&host, source.id, &format!("{place}/before"));
    }
    let point = point(&host);
    host.hv().capture(&source, &switch, &point).await.unwrap();
    let mut family = vec![source.id];
    for _ in 0..2 {
        let overlay = host.overlay(first).await;
        let fork = host.machine(&[base, first, &overlay]);
        host.hv().fork(&fork, &point).await.unwrap();
        let proof = host.boots(fork.id, 60).await.unwrap();
        assert_eq!(proof.strength, shared::clone::ProofStrength::Agent);
        family.push(fork.id);
    }
    for &vm in &family {
        for place in places {
            write_in_guest(&host, vm, &format!("{place}/{vm}"));
        }
    }
    for &vm in &family {
        for place in places {
            assert!(has_in_guest(&host, vm, &format!("{place}/before")));
            for &other in &family {
                let seen = has_in_guest(&host, vm, &format!("{place}/{other}"));
                assert_eq!(seen, vm == other, "{place}: what {other} wrote, seen by {vm}");
            }
        }
    }
}

/// Has a guest write so much memory without end.
async fn scribbles(host: &Host, source: &MachineSpec, mib: u32) {
    let scribble = format!("scribble {mib} > /dev/ttyS0");
    let run = json!({ "path": "/bin/sh", "arg": ["-c", scribble] });
    agent(host, source.id, "guest-exec", &run).unwrap();
    host.sees(source.id, "scribbles over").await.unwrap();
}

/// A guest writes so much memory without end, and is captured. Whatever comes of it comes soon, and it runs on.
async fn captured_while_it_scribbles(memory_mib: u32, over_mib: u32) -> Result<Captured, HvError> {
    let mut host = Host::new();
    let base = host.import("demo").await;
    let first = host.overlay(&base).await;
    let mut source = host.machine(&[&base, &first]);
    source.memory_mib = memory_mib;
    host.hv().start(&source).await.unwrap();
    host.boots(source.id, 120).await.unwrap();
    scribbles(&host, &source, over_mib).await;
    let new = host.overlay(&first).await;
    let switch = [DiskSwitch { old: first, new }];
    let begin = Instant::now();
    let captured = host.hv().capture(&source, &switch, &point(&host)).await;
    let took = begin.elapsed();
    eprintln!("{captured:?} after {took:?}");
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert_eq!(host.hv().state(source.id).await, RunState::Running);
    let last = ticks(&host, source.id).last().unwrap().1;
    host.sees(source.id, &format!("tick={} ", last + 3))
        .await
        .unwrap();
    captured
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_rewrites_its_memory_is_stopped_for_it_and_that_is_said() {
    match captured_while_it_scribbles(900, 640).await {
        Ok(captured) => {
            assert!(captured.forced, "{captured:?}");
            assert!(captured.pause_micros < 2_000_000, "{captured:?}");
        }
        Err(e) => assert!(matches!(e, HvError::TooBusy(_)), "{e}"),
    }
}
