//! Copies of a disk: what they take of the processor, beside restic, borg and `qemu-img`, and beside what reading, hashing,
//! packing and sealing take by themselves.

pub mod recovery;
mod taken;
mod tools;

use crate::report::{Figure, Limit};
use crate::site::work_dir;
use crate::stats::Sample;
use crate::{Result, Size};
use serde_json::Value;
use std::path::{Path, PathBuf};
use taken::{Taken, busy, run};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tools::{Bench, Tool, create};

/// Takes the group's figures.
pub async fn take(size: Size) -> Result<Vec<Figure>> {
    let dir = work_dir()?;
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        taken = figures(dir.path(), size) => taken,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        _ = terminated.recv() => Err("terminated".into()),
    }
}

async fn figures(dir: &Path, size: Size) -> Result<Vec<Figure>> {
    // Built beside this.
    let program = std::env::current_exe()?.with_file_name("bench-vault");
    let bench = Bench {
        disks: disks(&program, size).await?,
        program,
        work: dir.join("work"),
    };
    let mut taken = Taken::default();
    for round in 0..size.pick(3, 1) {
        let mut turn = Tool::ALL;
        if round % 2 == 1 {
            turn.reverse();
        }
        for tool in turn {
            tool.turn(&bench, &mut taken).await?;
        }
    }
    let cores = two_cores(&bench, size).await?;
    let requests = requests(&bench).await?;
    let mut all = beside(&taken);
    all.insert(2, cores);
    all.extend([
        recovery::take(&dir.join("recovery"), size).await?,
        memory(&taken),
        requests,
    ]);
    Ok(all)
}

/// What was taken in turn.
fn beside(taken: &Taken) -> Vec<Figure> {
    let bytes = |figure, ours: &str, theirs: &str, limit| {
        let (ours, theirs) = (taken.median(ours), taken.median(theirs));
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        let noise = format!("{:.1} MiB and {:.1} MiB", mib(ours), mib(theirs));
        Figure::new(figure, ours / theirs, limit, noise)
    };
    let most = Limit::AtMost;
    vec![
        taken.ratio("fullCpuVsRestic", "vault.full", "restic.full", most(0.3)),
        taken
            .ratio("fullCpuVsLimit", "vault.full", "limit.copy", Limit::None)
            .aim(1.15),
        taken
            .ratio(
                "secondKnownCpuVsRestic",
                "vault.known",
                "restic.second",
                most(0.05),
            )
            .aim(0.02),
        bytes(
            "secondKnownStoredVsRestic",
            "vault.knownStored",
            "restic.secondStored",
            most(0.2),
        ),
        taken.ratio("secondScanCpuVsRestic", "vault.scan", "restic.second", most(0.12)),
        taken.ratio("verifyCpuVsRestic", "vault.verify", "restic.verify", most(0.25)),
        taken
            .ratio("verifyCpuVsLimit", "vault.verify", "limit.verify", Limit::None)
            .aim(1.15),
        taken.ratio("restoreCpuVsRestic", "vault.restore", "restic.restore", most(0.5)),
        taken.ratio(
            "restoreCpuVsQemuImg",
            "vault.restore",
            "qemuImg.restorePacked",
            most(1.5),
        ),
        taken
            .ratio("restoreCpuVsLimit", "vault.restore", "limit.restore", Limit::None)
            .aim(1.2),
        bytes("fullStoredVsRestic", "vault.stored", "restic.stored", Limit::None),
        taken.ratio("fullCpuVsBorg", "vault.full", "borg.full", Limit::None),
        taken.ratio("secondScanCpuVsBorg", "vault.scan", "borg.second", Limit::None),
        taken.ratio("verifyCpuVsBorg", "vault.verify", "borg.verify", Limit::None),
        taken.ratio("restoreCpuVsBorg", "vault.restore", "borg.restore", Limit::None),
        taken.ratio(
            "fullCpuVsQemuImgPacked",
            "vault.full",
            "qemuImg.fullPacked",
            Limit::None,
        ),
        taken.ratio(
            "restoreCpuVsQemuImgPlain",
            "vault.restore",
            "qemuImg.restore",
            Limit::None,
        ),
    ]
}

/// The most memory that any step had.
fn memory(taken: &Taken) -> Figure {
    let peaks: Sample = taken.all("vault.peak").iter().copied().collect();
    // In a hash table that is never quite full.
    let index = taken.median("vault.index") * 64.0 * 1.5 / f64::from(1 << 20);
    let noise = format!(
        "the most of {} processes, median {:.1}; some {index:.1} of it is the index of {} chunks",
        peaks.len(),
        peaks.median(),
        taken.median("vault.index")
    );
    Figure::new("peakRssMib", peaks.percentile(1.0), Limit::AtMost(128.0), noise).aim(64.0)
}

/// A full copy with two threads beside one on one core, to a target that is quick.
async fn two_cores(bench: &Bench, size: Size) -> Result<Figure> {
    let rounds = size.pick(5, 1);
    let shared = PathBuf::from("/dev/shm");
    let target = match rustix::fs::statvfs(&shared) {
        Ok(there) if there.f_bavail * there.f_frsize > 3 << 30 => tempfile::tempdir_in(shared)?,
        _ => work_dir()?,
    };
    let (mut taken, mut others) = (Taken::default(), Vec::new());
    for round in 0..rounds {
        for turn in 0..2 {
            let vault = target.path().join("vault");
            let key = create(bench, &vault).await?;
            let mut copy = bench.program(&[&"copy", &vault, &key, &bench.first()]);
            let key = if turn == round % 2 { "two" } else { "one" };
            if key == "one" {
                copy.env("BENCH_ONE_CORE", "1");
            }
            let (before, wall) = (busy()?, std::time::Instant::now());
            taken.step(key, &mut copy).await?;
            let own = taken.all(key).last().copied().unwrap_or_default();
            others.push((busy()? - before - own) / wall.elapsed().as_secs_f64());
            std::fs::remove_dir_all(&vault)?;
        }
    }
    let others: Sample = others.into_iter().collect();
    let noise = format!(
        "{:.2} s and {:.2} s, medians of {rounds} in turn, the target in memory; others had {:.2} cores meanwhile",
        taken.wall("two"),
        taken.wall("one"),
        others.median()
    );
    let ratio = taken.wall("two") / taken.wall("one");
    let mut figure = Figure::new("wallTwoCoreRatio", ratio, Limit::AtMost(0.65), noise).aim(0.55);
    if others.median() > 0.15 {
        figure.void = Some("the cores were not idle".to_owned());
    }
    Ok(figure)
}

/// What a server of S3 is asked for a full copy.
async fn requests(bench: &Bench) -> Result<Figure> {
    std::fs::create_dir(&bench.work)?;
    let told = run(&mut bench.program(&[&"requests", &bench.first(), &bench.work])).await?;
    let told: Value = serde_json::from_str(&told)?;
    std::fs::remove_dir_all(&bench.work)?;
    let number = |value: &Value| value.as_f64().ok_or("no number");
    let requests = number(&told["requests"])?;
    let gib = number(&told["moved"]["stored"])? / f64::from(1 << 30);
    let noise = format!("{requests} for {gib:.2} GiB stored, beginning and commit among them");
    Ok(Figure::new("s3RequestsPerGib", requests / gib, Limit::AtMost(64.0), noise).aim(20.0))
}

/// The disks, made once and kept.
async fn disks(program: &Path, size: Size) -> Result<PathBuf> {
    let mut script = Command::new(crate::here().join("disk.sh"));
    if size == Size::Quick {
        script.arg("--quick");
    }
    let out = run(script.arg(program)).await?;
    Ok(out.lines().last().ok_or("bench/disk.sh names no disks")?.into())
}
