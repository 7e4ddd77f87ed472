//! What a migration costs: a cycle's bytes beside those that changed, a test clone, the downtime of a cutover.

use crate::clone::{create, guest, stop};
use crate::report::{Figure, Limit};
use crate::site::{Listener, Site, job_id, work_dir};
use crate::stats::{Sample, millis};
use crate::vault::recovery::{ask, reads};
use crate::{Result, Size};
use reqwest::Method;
use serde_json::{Value, json};
use server::config::Config;
use shared::Timestamp;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Of changes that are scattered, in bytes.
const BLOCK: u64 = 64 << 10;
/// How long a guest may take to boot.
const BOOTS: Duration = Duration::from_secs(60);
/// Of changes in runs, in bytes.
const RUN: u64 = 1 << 20;

/// Takes the group's figures.
pub async fn take(size: Size) -> Result<Vec<Figure>> {
    let dir = work_dir()?;
    let demo = guest("build.sh").await?;
    let disk = Disk {
        bytes: size.pick(4 << 30, 256 << 20),
    };
    let noise = dir.path().join("noise.raw");
    random(&noise, disk.bytes)?;
    // A boot sector, by which a raw disk is known: its guest stands still at once.
    let file = std::fs::File::options().write(true).open(&noise)?;
    file.write_all_at(b"\xfa\xf4\xeb\xfd", 0)?;
    file.write_all_at(b"\x55\xaa", 510)?;
    let mut config = Config::simulated(dir.path().join("data"));
    config.sim = false;
    config.images = vec![
        format!("demo={}", demo.display()).parse()?,
        format!("noise={}", noise.display()).parse()?,
    ];
    let exports = dir.path().join("exports");
    std::fs::create_dir(&exports)?;
    config.image_roots = vec![exports.clone()];
    let site = Site::start(config).await?;
    std::fs::remove_file(&noise)?;
    let target = json!({"name": "there", "local": {"path": dir.path().join("there")}, "passphrase": "a passphrase of the bench"});
    let taken = async {
        site.post("/api/v1/targets", target).await?;
        site.post("/api/v1/sources", json!({"name": "here", "local": {}}))
            .await?;
        let mut all = cycles(&site, dir.path(), disk, size).await?;
        all.extend(test_clones(&site, size).await?);
        all.push(cutovers(&site, size).await?);
        all.push(adapted(&site, &exports).await?);
        Ok(all)
    };
    let taken = taken.await;
    site.close().await?;
    taken
}

/// Writes so many bytes that nothing can pack.
fn random(file: &Path, bytes: u64) -> Result<()> {
    let mut noise = std::fs::File::open("/dev/urandom")?.take(bytes);
    let mut file = std::fs::File::create(file)?;
    std::io::copy(&mut noise, &mut file)?;
    Ok(file.flush()?)
}

/// Waits until a migration is as wanted; `feed` was listened to before that was asked for.
async fn until(site: &Site, feed: &mut Listener, vm: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
    loop {
        let now = site.get(&format!("/api/v1/migratingVms/{vm}")).await?;
        if fits(&now) {
            return Ok(now);
        }
        if !now["error"].is_null() {
            return Err(format!("{vm}: {}", now["error"]).into());
        }
        feed.next("migratingVm").await?;
    }
}

/// Carries a machine over, whose first cycle is done then; none begins by itself.
async fn carried(site: &Site, vm: &str, moved: &str) -> Result<()> {
    let mut feed = site.listen().await?;
    let asked = json!({"name": moved, "source": "here", "sourceVm": vm, "target": "there", "policy": {"idleSeconds": 86400}});
    site.post("/api/v1/migratingVms", asked).await?;
    until(site, &mut feed, moved, |vm| vm["state"] == "READY").await?;
    site.post(&format!("/api/v1/migratingVms/{moved}/start"), json!({}))
        .await?;
    let done = |vm: &Value| vm["state"] == "ACTIVE" && vm["currentCycle"].is_null();
    until(site, &mut feed, moved, done).await?;
    Ok(())
}

/// Runs a cycle; answers it as the API tells it, and how long it took from the request on, in seconds.
async fn cycle(site: &Site, moved: &str) -> Result<(Value, f64)> {
    let mut feed = site.listen().await?;
    let path = format!("/api/v1/migratingVms/{moved}");
    let before = site.get(&path).await?["lastCopy"].clone();
    let begin = Instant::now();
    site.post(&format!("{path}/cycle"), json!({})).await?;
    let done = |vm: &Value| vm["lastCopy"] != before && vm["currentCycle"].is_null();
    until(site, &mut feed, moved, done).await?;
    let taken = begin.elapsed().as_secs_f64();
    let all = site.get(&format!("{path}/replicationCycles?pageSize=1")).await?;
    Ok((all["replicationCycles"][0].clone(), taken))
}

/// The disk that changes.
#[derive(Clone, Copy)]
struct Disk {
    bytes: u64,
}

impl Disk {
    /// Where a hundredth of it changes, in pieces of `piece` bytes that lie apart, elsewhere in each turn.
    fn places(self, piece: u64, turn: u64) -> Vec<u64> {
        let count = self.bytes / 100 / piece;
        let apart = self.bytes / count / piece * piece;
        let shift = turn * 7 * RUN % (apart - piece).max(RUN) / piece * piece;
        (0..count).map(|n| n * apart + shift).collect()
    }
}

/// What was measured of cycles whose changes are alike.
#[derive(Default)]
struct Cycles {
    ratios: Vec<f64>,
    seconds: Vec<f64>,
}

impl Cycles {
    /// Has QEMU write something new into the disk, as its guest would, and runs a cycle.
    async fn take(&mut self, site: &Site, dir: &Path, piece: u64, places: &[u64]) -> Result<()> {
        let vm = site.get("/api/v1/vms/wide").await?;
        let id = vm["id"].as_str().ok_or("a machine without an id")?;
        let monitor = site
            .running
            .server
            .config
            .data_dir
            .join("run")
            .join(id)
            .join("watch");
        let file = dir.join("piece");
        for place in places {
            random(&file, piece)?;
            let write = format!("write -s {} {place} {piece}", file.display());
            let line = format!("qemu-io -d /machine/peripheral/disk0/virtio-backend \"{write}\"");
            let asked = json!({"execute": "human-monitor-command", "arguments": {"command-line": line}});
            let monitor = monitor.clone();
            let said = tokio::task::spawn_blocking(move || ask(&monitor, &asked)).await??;
            if said != "" {
                return Err(format!("{write}: {said}").into());
            }
        }
        let (cycle, seconds) = cycle(site, "wide-moved").await?;
        let stored = cycle["storedBytes"].as_f64().ok_or("nothing was stored")?;
        self.ratios.push(stored / (places.len() as u64 * piece) as f64);
        self.seconds.push(seconds);
        Ok(())
    }

    fn figures(self, ratio: &'static str, most: f64, seconds: &'static str, what: &str) -> [Figure; 2] {
        let (ratios, taken): (Sample, Sample) = (
            self.ratios.into_iter().collect(),
            self.seconds.into_iter().collect(),
        );
        let noise = format!("median of {}, {}; {what}", ratios.len(), ratios.range(2));
        [
            Figure::new(ratio, ratios.median(), Limit::AtMost(most), noise),
            Figure::new(
                seconds,
                taken.median(),
                Limit::None,
                format!("from the request until it counts, {}", taken.range(2)),
            ),
        ]
    }
}

async fn cycles(site: &Site, dir: &Path, disk: Disk, size: Size) -> Result<Vec<Figure>> {
    create(site, "wide", "noise", 128, json!({})).await?;
    carried(site, "wide", "wide-moved").await?;
    let (mut runs, mut scattered) = (Cycles::default(), Cycles::default());
    for turn in 0..size.pick(5, 2) {
        runs.take(site, dir, RUN, &disk.places(RUN, 2 * turn)).await?;
        scattered
            .take(site, dir, BLOCK, &disk.places(BLOCK, 2 * turn + 1))
            .await?;
    }
    let mib = (disk.bytes / 100) >> 20;
    let [runs, run_seconds] = runs.figures(
        "cycleBytesRatio",
        1.3,
        "cycleSeconds",
        &format!("{mib} MiB changed, in runs of 1 MiB"),
    );
    let [scattered, scattered_seconds] = scattered.figures(
        "cycleScatteredRatio",
        2.2,
        "cycleScatteredSeconds",
        &format!("{mib} MiB changed, in blocks of 64 KiB that lie apart"),
    );
    stop(site, "wide").await?;
    Ok(vec![runs, scattered, run_seconds, scattered_seconds])
}

/// Test clones of the demo guest: until the guest has read its disk, and until that is here.
async fn test_clones(site: &Site, size: Size) -> Result<[Figure; 2]> {
    create(site, "source", "demo", 256, json!({})).await?;
    carried(site, "source", "source-moved").await?;
    let (mut runs, mut home) = (Vec::new(), Vec::new());
    for n in 0..size.pick(10, 2) {
        let name = format!("test-{n}");
        let mut feed = site.listen().await?;
        let begin = Instant::now();
        let asked = json!({"target": {"name": name}, "isolated": true});
        let clone = site
            .post("/api/v1/migratingVms/source-moved/cloneJobs", asked)
            .await?;
        let vm = feed.until("vm", |vm| vm["name"] == name.as_str()).await?;
        let id = vm["id"].as_str().ok_or("a machine without an id")?;
        let run = site.running.server.config.data_dir.join("run").join(id);
        tokio::task::spawn_blocking(move || reads(&run.join("watch"))).await??;
        runs.push(millis(begin.elapsed()));
        let id = job_id(&clone)?;
        feed.until("job", |job| job["id"] == id && !job["endTime"].is_null())
            .await?;
        home.push(millis(begin.elapsed()));
        stop(site, &name).await?;
        site.job(Method::DELETE, &format!("/api/v1/vms/{name}"), None)
            .await?;
    }
    let (runs, home): (Sample, Sample) = (runs.into_iter().collect(), home.into_iter().collect());
    let noise = format!(
        "{} clones, from the request until the guest has read its disk, {}",
        runs.len(),
        runs.range(0)
    );
    let local = format!("until its disks are here, {}", home.range(0));
    Ok([
        Figure::new("testCloneMs", runs.median(), Limit::AtMost(1500.0), noise),
        Figure::new("testCloneLocalMs", home.median(), Limit::None, local),
    ])
}

/// Returns when the demo guest of a machine counts: before that it does not hear its power button.
async fn booted(site: &Site, vm: &str) -> Result<()> {
    let told = site.get(&format!("/api/v1/vms/{vm}")).await?;
    let id = told["id"].as_str().ok_or("a machine without an id")?.parse()?;
    let log = site.running.server.world().hypervisor.serial_log(id);
    let begin = Instant::now();
    while begin.elapsed() < BOOTS {
        let said = std::fs::read(&log).unwrap_or_default();
        if String::from_utf8_lossy(&said).contains(" tick=1 ") {
            return Ok(());
        }
        // The log is a file that QEMU writes: nothing tells of it.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("the guest of {vm} does not count").into())
}

/// Cutovers of demo guests of which all is uploaded: from the end of the source until the target executes.
async fn cutovers(site: &Site, size: Size) -> Result<Figure> {
    let mut downtimes = Vec::new();
    for n in 0..size.pick(5, 1) {
        let (vm, moved) = (format!("old-{n}"), format!("new-{n}"));
        create(site, &vm, "demo", 256, json!({})).await?;
        booted(site, &vm).await?;
        carried(site, &vm, &moved).await?;
        cycle(site, &moved).await?;
        let path = format!("/api/v1/migratingVms/{moved}/cutoverJobs");
        site.job(Method::POST, &path, Some(json!({}))).await?;
        let told = site.get(&path).await?;
        let downtime = &told["cutoverJobs"][0]["downtimeMillis"];
        downtimes.push(downtime.as_f64().ok_or_else(|| format!("no downtime: {told}"))?);
        stop(site, &moved).await?;
    }
    let downtimes: Sample = downtimes.into_iter().collect();
    let noise = format!(
        "{} cutovers, from the end of the source until the target executes, the last cycle in between, {}",
        downtimes.len(),
        downtimes.range(0)
    );
    Ok(Figure::new(
        "cutoverDowntimeMs",
        downtimes.median(),
        Limit::AtMost(2000.0),
        noise,
    ))
}

/// A cutover with nothing adapted ahead: a Debian of other hardware, whose initramfs is built on the way.
async fn adapted(site: &Site, exports: &Path) -> Result<Figure> {
    std::fs::copy(guest("debian.sh").await?, exports.join("debian.qcow2"))?;
    let place = json!({"name": "exports", "disks": {"path": exports}});
    site.post("/api/v1/sources", place).await?;
    let mut feed = site.listen().await?;
    let policy = json!({"idleSeconds": 86400, "skipOsAdaptation": true});
    let asked = json!({"name": "debian", "source": "exports", "sourceVm": "debian.qcow2", "target": "there", "policy": policy});
    site.post("/api/v1/migratingVms", asked).await?;
    until(site, &mut feed, "debian", |vm| vm["state"] == "READY").await?;
    let path = "/api/v1/migratingVms/debian";
    site.post(&format!("{path}/start"), json!({})).await?;
    let done = |vm: &Value| vm["state"] == "ACTIVE" && vm["currentCycle"].is_null();
    until(site, &mut feed, "debian", done).await?;
    let policy = json!({"policy": {"idleSeconds": 86400, "skipOsAdaptation": false}});
    site.patch(path, policy).await?;
    let path = format!("{path}/cutoverJobs");
    site.job(Method::POST, &path, Some(json!({}))).await?;
    let told = site.get(&path).await?;
    let cutover = &told["cutoverJobs"][0];
    let steps = cutover["steps"].as_array().ok_or("a cutover without steps")?;
    let millis = |step: &Value| {
        let at = |name: &str| step[name].as_str()?.parse::<Timestamp>().ok();
        Some(at("endTime")?.since(at("startTime")?) as f64 / 1000.0)
    };
    let step = steps.iter().find(|step| step["name"] == "ADAPTING_OS");
    let step = step
        .and_then(millis)
        .ok_or_else(|| format!("it was not adapted: {told}"))?;
    let downtime = &cutover["downtimeMillis"];
    let downtime = downtime.as_f64().ok_or_else(|| format!("no downtime: {told}"))?;
    stop(site, "debian").await?;
    let noise = format!(
        "a Debian with an initramfs for other hardware, with nothing done ahead; {:.0} % of it the adaptation",
        step / downtime * 100.0
    );
    Ok(Figure::new(
        "cutoverAdaptedDowntimeMs",
        downtime,
        Limit::None,
        noise,
    ))
}
