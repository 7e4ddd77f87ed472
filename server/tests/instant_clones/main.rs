//! Instant clones with guests that really run: what becomes of them, of their source, and of the instants that are kept.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod edited;
mod efi;
mod isolated;
mod killed;
mod lives;
mod many;
mod refused;

use serde_json::json;
use server::db;
use server::jobs::Jobs;
use server::jobs::world::Machines;
use shared::VmId;
use shared::fork::{ForkNics, ForkedClone, Identity, InstantClone};
use shared::job::{Job, JobState};
use shared::vm::{DiskOfImage, NewDisk, PowerAction};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use support::counting::{QEMU, counting, counts, long_run, off_and_gone, succeeded, ticks, until, whole};
use support::{by, create, guest};

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
    let proof = job.outcome.into_inner().fork.unwrap();
    for clone in &proof.clones {
        assert_eq!(clone.identity, Some(Identity::Hook), "{proof:#?}");
        assert!(clone.memory_later.unwrap().shared_bytes > 1 << 20, "{proof:#?}");
    }
    proof.clones
}

/// What a command says that the guest agent runs.
fn guest_says(jobs: &Jobs, vm: VmId, command: &str) -> String {
    let socket = jobs
        .world()
        .data_dir
        .join("run")
        .join(vm.to_string())
        .join("agent");
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut ask = |command: &str, arguments: serde_json::Value| -> serde_json::Value {
        writeln!(
            stream,
            "{}",
            json!({ "execute": command, "arguments": arguments })
        )
        .unwrap();
        let answer = lines.next().unwrap().unwrap();
        // What was left of an earlier answer comes before that of the first.
        serde_json::from_str(answer.rsplit('\u{ff}').next().unwrap()).unwrap()
    };
    ask("guest-sync", json!({ "id": 11 }));
    let run = json!({ "path": "/bin/sh", "arg": ["-c", command], "capture-output": true });
    let begun = ask("guest-exec", run);
    let pid = begun["return"]["pid"]
        .as_i64()
        .unwrap_or_else(|| panic!("{begun}"));
    loop {
        let status = ask("guest-exec-status", json!({ "pid": pid }))["return"].clone();
        if status["exited"] == true {
            let text = status["out-data"].as_str().unwrap_or_default();
            return String::from_utf8(base64(text)).unwrap();
        }
        // The agent tells of no end.
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter(|b| *b != b'=');
    let values = digits.map(|b| DIGITS.iter().position(|d| *d == b).unwrap() as u32);
    let (mut out, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for value in values {
        (bits, count) = (bits << 6 | value, count + 6);
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    out
}
