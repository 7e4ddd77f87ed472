//! Clones of real guests: how soon a linked one runs, how fast a full one is copied; and the pause of a snapshot.

use crate::report::{Figure, Limit};
use crate::site::{Site, job_id, work_dir};
use crate::stats::{Sample, millis};
use crate::{Result, Size, pause};
use reqwest::Method;
use serde_json::{Value, json};
use server::config::Config;
use server::db;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// A disk to clone from.
struct Source {
    name: &'static str,
    gib: u64,
}

const SMALL: Source = Source {
    name: "small",
    gib: 1,
};
const BIG: Source = Source { name: "big", gib: 20 };

/// Takes the group's figures.
pub async fn take(size: Size) -> Result<Vec<Figure>> {
    let dir = work_dir()?;
    let demo = guest("build.sh").await?;
    let big = Source {
        gib: size.pick(BIG.gib, 4),
        ..BIG
    };
    let mut images = vec![format!("demo={}", demo.display()).parse()?];
    for source in [&SMALL, &big] {
        let file = dir.path().join(source.name);
        quarter_filled(&demo, &file, source.gib).await?;
        images.push(format!("{}={}", source.name, file.display()).parse()?);
    }
    let mut config = Config::simulated(dir.path().join("data"));
    config.sim = false;
    config.images = images;
    // Built beside this.
    config.program = Some(std::env::current_exe()?.with_file_name("offshoot"));
    let site = Site::start(config).await?;
    for source in [&SMALL, &big] {
        // The server has a copy of its own.
        std::fs::remove_file(dir.path().join(source.name))?;
    }
    let mut terminated = signal(SignalKind::terminate())?;
    let taken = tokio::select! {
        taken = figures(&site, dir.path(), size) => taken,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        _ = terminated.recv() => Err("terminated".into()),
    };
    site.close().await?;
    taken
}

async fn figures(site: &Site, dir: &Path, size: Size) -> Result<Vec<Figure>> {
    for source in [SMALL.name, BIG.name] {
        create(site, source, source, 128, json!({})).await?;
        site.job(
            Method::POST,
            &format!("/api/v1/vms/{source}/snapshots"),
            Some(json!({})),
        )
        .await?;
    }
    let count = size.pick(20, 3);
    // The first of all finds nothing in memory yet.
    linked(site, SMALL.name, 0).await?;
    linked(site, BIG.name, 0).await?;
    let (mut small, mut big) = (Vec::new(), Vec::new());
    for n in 1..=count {
        small.push(linked(site, SMALL.name, n).await?);
        big.push(linked(site, BIG.name, n).await?);
    }
    let (small, big): (Sample, Sample) = (small.into_iter().collect(), big.into_iter().collect());
    let mut all = vec![
        Figure::new(
            "linkedP50Ms",
            small.median(),
            Limit::AtMost(200.0),
            format!("{count} clones, {}", small.range(0)),
        ),
        Figure::new("linkedP95Ms", small.percentile(0.95), Limit::None, ""),
        Figure::new(
            "linkedBigDiskRatio",
            big.median() / small.median(),
            Limit::AtMost(1.2),
            format!(
                "{count} clones of each in turn; big: median {:.0}, {}",
                big.median(),
                big.range(0)
            ),
        ),
    ];
    all.extend(full(site, dir, size.pick(9, 2)).await?);
    // The machines of the next figure have the host for themselves.
    for source in [SMALL.name, BIG.name] {
        stop(site, source).await?;
    }
    all.extend(pause::take(site, size).await?);
    Ok(all)
}

/// Powers a machine off.
pub async fn stop(site: &Site, vm: &str) -> Result<()> {
    let path = format!("/api/v1/vms/{vm}/stop");
    site.job(Method::POST, &path, Some(json!({"mode": "POWER_OFF"})))
        .await?;
    Ok(())
}

/// Makes a machine of an image, and sees it boot.
pub async fn create(site: &Site, name: &str, image: &str, memory_mib: u32, cloud_init: Value) -> Result<()> {
    let body = json!({"name": name, "cpus": 1, "memoryMib": memory_mib, "disks": [{"image": image}],
        "cloudInit": cloud_init, "start": true});
    site.job(Method::POST, "/api/v1/vms", Some(body)).await?;
    Ok(())
}

/// From the request for a linked clone until the feed tells its client that the clone runs, in milliseconds.
async fn linked(site: &Site, source: &str, n: usize) -> Result<f64> {
    let name = format!("{source}-{n}");
    // How long the guest then boots is no part of it: what would prove the boot never comes, and the job is cancelled.
    let target = json!({"name": name, "start": true, "bootPattern": "no guest says this"});
    let mut feed = site.listen().await?;
    let begin = Instant::now();
    let path = format!("/api/v1/vms/{source}/cloneJobs");
    let asked = site
        .post(&path, json!({"mode": "LINKED", "target": target}))
        .await?;
    feed.until("vm", |vm| vm["name"] == name.as_str() && vm["state"] == "RUNNING")
        .await?;
    let taken = millis(begin.elapsed());
    let id = job_id(&asked)?;
    site.post(&format!("/api/v1/cloneJobs/{id}/cancel"), json!({}))
        .await?;
    feed.until("job", |job| job["id"] == id && job["state"] == "CANCELLED")
        .await?;
    Ok(taken)
}

/// Full clones and `qemu-img convert` of the same chain, in turn; both until what they made is on the disk.
async fn full(site: &Site, dir: &Path, rounds: usize) -> Result<Vec<Figure>> {
    let world = site.running.server.world();
    let vm = db::vms::find(&world.db, BIG.name)
        .await?
        .ok_or("no big machine")?;
    let active = vm.disks.first().ok_or("no disk")?.layer;
    let chain = db::layers::chain_of(&world.db, active).await?;
    // What a snapshot froze lies below the active layer.
    let frozen = chain.iter().rev().nth(1).ok_or("nothing is frozen")?;
    let frozen = world.layer_file(frozen.id).path;
    let (mut ours, mut theirs, mut bytes) = (Vec::new(), Vec::new(), 0);
    for round in 0..rounds {
        for turn in 0..2 {
            // What was written before is not to be written now.
            rustix::fs::sync();
            if turn == round % 2 {
                ours.push(full_clone(site, round).await?);
            } else {
                let to = dir.join("converted");
                let (seconds, size) = convert(&frozen, &to).await?;
                theirs.push(seconds);
                bytes = size;
            }
        }
    }
    let rate = |seconds: f64| bytes as f64 / 1e6 / seconds;
    let ratios: Sample = ours
        .iter()
        .zip(&theirs)
        .map(|(ours, theirs)| theirs / ours)
        .collect();
    let (ours, theirs): (Sample, Sample) = (
        ours.into_iter().map(rate).collect(),
        theirs.into_iter().map(rate).collect(),
    );
    let runs = |sample: &Sample| format!("median of {}, {}", sample.len(), sample.range(0));
    Ok(vec![
        Figure::new(
            "fullVsQemuImgRatio",
            ours.median() / theirs.median(),
            Limit::AtLeast(0.95),
            format!("medians of {rounds} in turn; single pairs {}", ratios.range(2)),
        ),
        Figure::new("fullMbPerSecond", ours.median(), Limit::None, runs(&ours)),
        Figure::new("qemuImgMbPerSecond", theirs.median(), Limit::None, runs(&theirs)),
    ])
}

/// How long a full clone takes, in seconds: from the request until the job is over.
async fn full_clone(site: &Site, round: usize) -> Result<f64> {
    let name = format!("full-{round}");
    let body = json!({"mode": "FULL", "target": {"name": name, "start": false}});
    let begin = Instant::now();
    site.job(
        Method::POST,
        &format!("/api/v1/vms/{}/cloneJobs", BIG.name),
        Some(body),
    )
    .await?;
    let taken = begin.elapsed().as_secs_f64();
    site.job(Method::DELETE, &format!("/api/v1/vms/{name}"), None)
        .await?;
    Ok(taken)
}

/// How long `qemu-img convert` takes until the copy is on the disk, in seconds, and how many bytes that has there.
async fn convert(from: &Path, to: &Path) -> Result<(f64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let begin = Instant::now();
    run(Command::new("qemu-img")
        .args(["convert", "-O", "qcow2"])
        .arg(from)
        .arg(to))
    .await?;
    let copy = tokio::fs::File::open(to).await?;
    copy.sync_all().await?;
    let taken = begin.elapsed().as_secs_f64();
    let bytes = copy.metadata().await?.blocks() * 512;
    tokio::fs::remove_file(to).await?;
    Ok((taken, bytes))
}

async fn run(command: &mut Command) -> Result<String> {
    let out = command
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    if !out.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&out.stderr)).into());
    }
    Ok(String::from_utf8(out.stdout)?)
}

/// A guest, by the script that builds it once and caches it.
pub async fn guest(script: &str) -> Result<PathBuf> {
    let path = crate::here().join("../guest").join(script);
    let out = run(&mut Command::new(path)).await?;
    let image = out
        .lines()
        .last()
        .ok_or_else(|| format!("guest/{script} names no image"))?;
    Ok(image.into())
}

/// A disk of this size with the demo guest at its beginning and data in a quarter of it.
async fn quarter_filled(demo: &Path, file: &Path, gib: u64) -> Result<()> {
    run(Command::new("qemu-img")
        .args(["convert", "-O", "qcow2"])
        .arg(demo)
        .arg(file))
    .await?;
    run(Command::new("qemu-img")
        .args(["resize", "-f", "qcow2"])
        .arg(file)
        .arg(format!("{gib}G")))
    .await?;
    let mut command = Command::new("qemu-io");
    command.args(["-f", "qcow2"]);
    // Behind the guest's own 256 MiB, a pattern for each piece.
    for (n, mib) in (256..256 + gib * 256).step_by(64).enumerate() {
        command.args(["-c", &format!("write -q -P {} {mib}M 64M", n % 255 + 1)]);
    }
    run(command.arg(file)).await?;
    Ok(())
}
