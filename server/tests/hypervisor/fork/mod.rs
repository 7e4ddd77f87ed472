//! Machines that are forked while they run.

mod apart;
mod busy;
mod frames;
mod go_on;
mod guardian;
mod in_the_way;

use crate::host::{Host, PROGRAM, next};
use serde_json::{Value, json};
use server::disks::LayerFile;
use server::disks::blockdev::node_name;
use server::hypervisor::qemu::{Guardian, Qemu, STANDS_STILL_AT_MOST};
use server::hypervisor::{
    Captured, Control, DiskSwitch, HvError, Hypervisor, MachineSpec, NicSpec, Point, RunState,
};
use shared::place::NetworkKind;
use shared::vm::PauseReason;
use shared::{NetworkId, VmId};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
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

/// Asks a guest's agent.
pub(crate) fn agent(host: &Host, vm: VmId, command: &str, arguments: &Value) -> Result<Value, String> {
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

/// Has a guest write so much memory without end.
async fn scribbles(host: &Host, source: &MachineSpec, mib: u32) {
    let scribble = format!("scribble {mib} > /dev/ttyS0");
    let run = json!({ "path": "/bin/sh", "arg": ["-c", scribble] });
    agent(host, source.id, "guest-exec", &run).unwrap();
    host.sees(source.id, "scribbles over").await.unwrap();
}
