//! Snapshots with memory, going back to them, and layers that are merged while a guest writes.

use crate::clone::{create, stop};
use crate::fork::ms;
use crate::pause::{Ticks, gaps};
use crate::report::{Figure, Limit};
use crate::site::{Site, job_id};
use crate::stats::{Sample, millis};
use crate::{Result, Size};
use reqwest::Method;
use serde_json::{Value, json};
use server::db;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::process::Command;

/// 256 MiB, a thousand ticks a second.
const VM: &str = "remembers";
/// What a merge copies.
const MERGED_MIB: usize = 1024;
/// Between two takings, for the host to come to rest.
const REST: Duration = Duration::from_millis(500);
/// How long is listened to before a snapshot and behind it.
const MARGIN: Duration = Duration::from_millis(50);

/// Takes the figures.
pub async fn take(site: &Site, dir: &Path, size: Size) -> Result<Vec<Figure>> {
    let mut all = memory(site, size).await?;
    all.extend(merges(site, dir, size).await?);
    Ok(all)
}

/// How long the guest stands still for a snapshot with memory, and how soon it runs again that goes back to one.
async fn memory(site: &Site, size: Size) -> Result<Vec<Figure>> {
    create(site, VM, "demo", 256, json!({"metaData": "tick: 1000\n"})).await?;
    let vm = site.get(&format!("/api/v1/vms/{VM}")).await?;
    let id = vm["id"].as_str().ok_or("no id")?;
    let run = site.running.server.world().data_dir.join("run").join(id);
    let mut ticks = Ticks::listen(&run.join("serial"))?;
    ticks.settle().await?;
    let snapshots = format!("/api/v1/vms/{VM}/snapshots");
    let (mut spans, mut qmp) = (Vec::new(), Vec::new());
    for n in 0..size.pick(20, 2) {
        tokio::time::sleep(REST).await;
        let begin = Instant::now();
        tokio::time::sleep(MARGIN).await;
        let request = json!({"name": format!("m{n}"), "memory": true});
        site.job(Method::POST, &snapshots, Some(request)).await?;
        tokio::time::sleep(MARGIN).await;
        spans.push((begin, Instant::now()));
        let taken = site.get(&format!("{snapshots}/m{n}")).await?;
        qmp.push(ms(&taken["pauseMicros"])?);
        // Each keeps the memory of its machine.
        if n > 0 {
            site.job(Method::DELETE, &format!("{snapshots}/m{n}"), None)
                .await?;
        }
    }
    let arrivals = ticks.all();
    let every: Sample = spans.iter().flat_map(|&(a, b)| gaps(&arrivals, a, b)).collect();
    let longest =
        |&(a, b): &(Instant, Instant)| gaps(&arrivals, a, b).into_iter().fold(0.0, f64::max) - every.median();
    let (pause, qmp): (Sample, Sample) = (spans.iter().map(longest).collect(), qmp.into_iter().collect());

    let mut back = Vec::new();
    for _ in 0..size.pick(10, 2) {
        tokio::time::sleep(REST).await;
        back.push(revert(site, &format!("{snapshots}/m0/revert")).await?);
    }
    let back: Sample = back.into_iter().collect();
    stop(site, VM).await?;
    Ok(vec![
        Figure::new(
            "memorySnapshotPauseP95Ms",
            pause.percentile(0.95),
            Limit::AtMost(40.0),
            format!(
                "{} snapshots with memory, by ticks median {:.1}, {}; by QMP median {:.1}",
                pause.len(),
                pause.median(),
                pause.range(1),
                qmp.median()
            ),
        ),
        Figure::new(
            "revertMs",
            back.median(),
            Limit::AtMost(500.0),
            format!(
                "{} times, from the request until the guest runs, {}",
                back.len(),
                back.range(0)
            ),
        ),
    ])
}

/// Goes back to a snapshot; answers after how many milliseconds the guest ran.
async fn revert(site: &Site, path: &str) -> Result<f64> {
    let mut feed = site.listen().await?;
    let begin = Instant::now();
    let asked = site.post(path, json!({})).await?;
    let id = job_id(&asked)?;
    let runs = |job: &Value| {
        let steps = job["steps"].as_array().into_iter().flatten();
        job["id"] == id
            && (!job["endTime"].is_null()
                || steps
                    .clone()
                    .any(|s| s["name"] == "starting" && s["state"] == "SUCCEEDED"))
    };
    let job = feed.until("job", runs).await?;
    let taken = millis(begin.elapsed());
    if job["endTime"].is_null() {
        feed.until("job", |job| job["id"] == id && !job["endTime"].is_null())
            .await?;
    }
    let vm = site.get(&format!("/api/v1/vms/{VM}")).await?;
    if vm["state"] != "RUNNING" {
        return Err(format!("it did not go back: {job}").into());
    }
    Ok(taken)
}

/// What the guest does while its layers are merged: pieces of 64 KiB, past its cache.
const WRITES: &str = "while dd if=/dev/zero of=/dev/vdb bs=64k count=1 conv=notrunc oflag=direct seek=$((RANDOM % 30000)); do :; done";
/// The same, with a flush behind each: the host has to bring to its disk what has been merged until then.
const SYNCS: &str = "while dd if=/dev/zero of=/dev/vdb bs=64k count=1 conv=notrunc,fsync seek=$((RANDOM % 30000)); do :; done";

/// A merge under a guest that writes, beside `qemu-img commit` of as much while the same guest writes on, in turn.
async fn merges(site: &Site, dir: &Path, size: Size) -> Result<Vec<Figure>> {
    let mib = size.pick(MERGED_MIB, 64);
    let mut figures = Vec::new();
    for (name, limit, script, how) in [
        ("mergeRatio", Limit::AtMost(1.3), WRITES, "writing to that disk"),
        (
            "mergeSyncingRatio",
            Limit::None,
            SYNCS,
            "writing to that disk and flushing each time",
        ),
    ] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..size.pick(5, 1) {
            let (own, peer) = merge(site, dir, mib, script).await?;
            ours.push(own);
            theirs.push(peer);
        }
        let (ours, theirs): (Sample, Sample) = (ours.into_iter().collect(), theirs.into_iter().collect());
        figures.push(Figure::new(
            name,
            ours.median() / theirs.median(),
            limit,
            format!(
                "{mib} MiB, {} of each in turn, the guest {how} all the while: {:.2} s from the request to delete a \
                 snapshot until the job's end, {}; {:.2} s for qemu-img commit of another file and its flush, {}",
                ours.len(),
                ours.median(),
                ours.range(2),
                theirs.median(),
                theirs.range(2)
            ),
        ));
    }
    Ok(figures)
}

/// How many seconds the deletion of a snapshot took, and `qemu-img commit` right after it.
async fn merge(site: &Site, dir: &Path, mib: usize, script: &'static str) -> Result<(f64, f64)> {
    let body = json!({"name": "merges", "cpus": 1, "memoryMib": 256, "disks": [{"image": "demo"}, {"sizeGib": 2}],
        "start": false});
    site.job(Method::POST, "/api/v1/vms", Some(body)).await?;
    let snapshots = "/api/v1/vms/merges/snapshots";
    site.job(Method::POST, snapshots, Some(json!({"name": "before"})))
        .await?;
    let world = site.running.server.world();
    let vm = db::vms::find(&world.db, "merges").await?.ok_or("no machine")?;
    let active = vm.disks.get(1).ok_or("no second disk")?.layer;
    fill(&world.layer_file(active).path, mib).await?;
    site.job(Method::POST, snapshots, Some(json!({"name": "filled"})))
        .await?;
    site.job(Method::POST, "/api/v1/vms/merges/start", Some(json!({})))
        .await?;
    let run = world.data_dir.join("run").join(vm.id.to_string());
    let expect = server::hypervisor::BootExpectation {
        pattern: None,
        timeout: Duration::from_secs(90),
    };
    world.hypervisor.watch_boot(vm.id, &expect, &|_| ()).await?;
    let agent = run.join("agent");
    let asked = agent.clone();
    let pid = tokio::task::spawn_blocking(move || begin(&asked, script)).await??;
    rustix::fs::sync();
    let began = Instant::now();
    site.job(Method::DELETE, &format!("{snapshots}/filled"), None)
        .await?;
    let took = began.elapsed().as_secs_f64();
    let peer = commit(dir, mib).await?;
    tokio::task::spawn_blocking(move || goes_on(&agent, &pid)).await??;
    stop(site, "merges").await?;
    site.job(Method::DELETE, "/api/v1/vms/merges", None).await?;
    Ok((took, peer))
}

/// Has the guest run a script that goes on; answers its process.
fn begin(agent: &Path, script: &str) -> Result<Value> {
    let run = json!({"execute": "guest-exec", "arguments": {"path": "/bin/sh", "arg": ["-c", script]}});
    Ok(ask(agent, &run)?["pid"].take())
}

/// Fails unless the guest's script still runs.
fn goes_on(agent: &Path, pid: &Value) -> Result<()> {
    let asked = json!({"execute": "guest-exec-status", "arguments": {"pid": pid}});
    match &ask(agent, &asked)?["exited"] {
        Value::Bool(false) => Ok(()),
        _ => Err("the guest does not write any more".into()),
    }
}

fn ask(agent: &Path, command: &Value) -> Result<Value> {
    let mut stream = UnixStream::connect(agent)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    writeln!(stream, "{command}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    let mut answer: Value = serde_json::from_str(&answer)?;
    match answer["return"].take() {
        Value::Null => Err(format!("the guest agent refuses: {answer}").into()),
        answer => Ok(answer),
    }
}

/// Writes so much into a layer that nobody has open.
async fn fill(layer: &Path, mib: usize) -> Result<()> {
    let write = format!("write -P 7 0 {mib}M");
    run(Command::new("qemu-io")
        .args(["-f", "qcow2", "-c", &write])
        .arg(layer))
    .await
}

async fn commit(dir: &Path, mib: usize) -> Result<f64> {
    let (base, top) = (dir.join("commit-base"), dir.join("commit-top"));
    run(Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(&base)
        .arg("2G"))
    .await?;
    let backed = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
        .arg(&base)
        .arg(&top)
        .status()
        .await?;
    if !backed.success() {
        return Err("qemu-img makes no overlay".into());
    }
    fill(&top, mib).await?;
    rustix::fs::sync();
    let began = Instant::now();
    run(Command::new("qemu-img")
        .args(["commit", "-q", "-f", "qcow2"])
        .arg(&top))
    .await?;
    std::fs::File::open(&base)?.sync_all()?;
    let took = began.elapsed().as_secs_f64();
    std::fs::remove_file(top)?;
    std::fs::remove_file(base)?;
    Ok(took)
}

async fn run(command: &mut Command) -> Result<()> {
    let done = command.output().await?;
    match done.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&done.stderr)).into()),
    }
}
