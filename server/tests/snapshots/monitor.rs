//! A machine's second monitor, for what the product has no need of.

use serde_json::{Value, json};
use shared::VmId;
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

pub struct Monitor {
    stream: UnixStream,
    lines: Lines<BufReader<UnixStream>>,
}

impl Monitor {
    pub fn of(dir: &Path, vm: VmId) -> Self {
        let socket = dir.join("run").join(vm.to_string()).join("watch");
        let begin = Instant::now();
        let connected = || -> std::io::Result<_> {
            let stream = UnixStream::connect(&socket)?;
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            let mut lines = BufReader::new(stream.try_clone()?).lines();
            // It serves one at a time: whoever had it before may not have quite gone.
            lines.next().ok_or(std::io::ErrorKind::UnexpectedEof)??;
            Ok(Self { stream, lines })
        };
        let mut monitor = loop {
            match connected() {
                Ok(connected) => break connected,
                Err(e) => assert!(begin.elapsed() < Duration::from_secs(30), "{e}"),
            }
        };
        monitor.ask("qmp_capabilities", &json!({}));
        monitor
    }

    fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }

    pub fn ask(&mut self, command: &str, arguments: &Value) -> Value {
        let asked = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream, "{asked}").unwrap();
        loop {
            let answer = self.next();
            if answer["event"].is_null() {
                return answer;
            }
        }
    }

    /// Waits until a job on the machine's disks is so far.
    pub fn until(&mut self, status: &str) {
        while self.next()["data"]["status"] != status {}
    }
}

/// Asks a running machine.
pub fn ask(dir: &Path, vm: VmId, command: &str, arguments: &Value) -> Value {
    Monitor::of(dir, vm).ask(command, arguments)
}

/// Has QEMU do something to a machine's first disk, as its guest would.
pub fn on_disk(dir: &Path, vm: VmId, command: &str) {
    let line = format!("qemu-io -d /machine/peripheral/disk0/virtio-backend \"{command}\"");
    let answer = ask(dir, vm, "human-monitor-command", &json!({ "command-line": line }));
    assert_eq!(answer["return"], "", "{command}: {answer}");
}

/// The files that a running machine's first disk reads through, the base first.
pub fn chain(dir: &Path, vm: VmId) -> Vec<String> {
    let all = ask(dir, vm, "query-block", &json!({}));
    let drives = all["return"].as_array().unwrap();
    let disk = drives.iter().find(|drive| {
        let device = drive["qdev"].as_str().unwrap_or_default();
        device.contains("disk0")
    });
    let mut image = &disk.unwrap()["inserted"]["image"];
    let mut files = Vec::new();
    while let Some(name) = image["filename"].as_str() {
        // One that was opened with other options than its header's is described by all of them.
        let file = match name.strip_prefix("json:") {
            Some(json) => serde_json::from_str::<Value>(json).unwrap()["file"]["filename"].clone(),
            None => name.into(),
        };
        files.insert(0, file.as_str().unwrap().to_owned());
        image = &image["backing-image"];
    }
    files
}
