//! The vault, and what people use without it, doing the same with the same disks.

use super::taken::{Taken, run};
use crate::Result;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// The disks, and a directory for what is made of them.
pub struct Bench {
    /// What measures the vault.
    pub program: PathBuf,
    /// Where `bench/disk.sh` put the disks.
    pub disks: PathBuf,
    /// Empty.
    pub work: PathBuf,
}

impl Bench {
    pub fn first(&self) -> PathBuf {
        self.disks.join("first.raw")
    }

    fn second(&self) -> PathBuf {
        self.disks.join("second.raw")
    }

    fn work(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    pub fn program(&self, arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments.iter().map(|a| a.as_ref()));
        command
    }

    /// Has the disks in memory, whatever came before.
    async fn warm(&self) -> Result<()> {
        for disk in [self.first(), self.second()] {
            let mut read = std::ffi::OsString::from("if=");
            read.push(disk);
            run(Command::new("dd").args(["of=/dev/null", "bs=1M"]).arg(read)).await?;
        }
        Ok(())
    }

    /// A restored disk is the one that was copied.
    async fn same(&self, restored: &Path) -> Result<()> {
        run(Command::new("cmp").arg(self.first()).arg(restored)).await?;
        Ok(std::fs::remove_file(restored)?)
    }
}

/// Each of them, for its turn.
#[derive(Clone, Copy)]
pub enum Tool {
    Vault,
    Limits,
    Restic,
    Borg,
    QemuImg,
}

impl Tool {
    pub const ALL: [Self; 5] = [Self::Vault, Self::Limits, Self::Restic, Self::Borg, Self::QemuImg];

    pub async fn turn(self, bench: &Bench, taken: &mut Taken) -> Result<()> {
        std::fs::create_dir(&bench.work)?;
        bench.warm().await?;
        match self {
            Self::Vault => vault(bench, taken).await,
            Self::Limits => limits(bench, taken).await,
            Self::Restic => restic(bench, taken).await,
            Self::Borg => borg(bench, taken).await,
            Self::QemuImg => qemu_img(bench, taken).await,
        }?;
        Ok(std::fs::remove_dir_all(&bench.work)?)
    }
}

/// Makes a vault in a directory that is not there yet; answers its key.
pub async fn create(bench: &Bench, vault: &Path) -> Result<String> {
    std::fs::create_dir(vault)?;
    let told: Value = serde_json::from_str(&run(&mut bench.program(&[&"create", &vault])).await?)?;
    Ok(told["key"].as_str().ok_or("no key")?.to_owned())
}

async fn vault(bench: &Bench, taken: &mut Taken) -> Result<()> {
    let (vault, scanned, restored) = (bench.work("vault"), bench.work("scanned"), bench.work("restored"));
    let key = create(bench, &vault).await?;
    let (first, second) = (bench.first(), bench.second());
    let full = step(
        taken,
        "vault.full",
        &mut bench.program(&[&"copy", &vault, &key, &first]),
    )
    .await?;
    taken.note("vault.index", full["chunks"].as_f64().ok_or("no chunks")?);
    taken.note("vault.stored", bytes_in(&vault)?);
    let copy = full["copy"].as_str().ok_or("no copy")?;
    step(
        taken,
        "vault.verify",
        &mut bench.program(&[&"verify", &vault, &key]),
    )
    .await?;
    let restore = &mut bench.program(&[&"restore", &vault, &key, &copy, &restored]);
    step(taken, "vault.restore", restore).await?;
    bench.same(&restored).await?;
    // Objects never change: the same files serve both.
    run(Command::new("cp").arg("-al").arg(&vault).arg(&scanned)).await?;
    let changed = bench.disks.join("changed.json");
    let before = bytes_in(&vault)?;
    let known = &mut bench.program(&[&"copy", &vault, &key, &second, &copy, &changed]);
    let told = step(taken, "vault.known", known).await?;
    taken.note("vault.knownStored", bytes_in(&vault)? - before);
    let scan = &mut bench.program(&[&"copy", &scanned, &key, &second]);
    let scan = step(taken, "vault.scan", scan).await?;
    // What is not read is not right by being quick.
    if told["moved"]["new"] != scan["moved"]["new"] {
        return Err(format!("by what is known {told} was copied, by looking {scan}").into());
    }
    Ok(())
}

/// A step of the vault's, with the memory that it had.
async fn step(taken: &mut Taken, key: &'static str, command: &mut Command) -> Result<Value> {
    let told: Value = serde_json::from_str(&taken.step(key, command).await?)?;
    let kib = told["peakKib"].as_f64().ok_or("no memory")?;
    taken.note("vault.peak", kib / 1024.0);
    Ok(told)
}

async fn limits(bench: &Bench, taken: &mut Taken) -> Result<()> {
    let told = run(&mut bench.program(&[&"limits", &bench.first(), &bench.work])).await?;
    let told: Value = serde_json::from_str(&told)?;
    for (key, name) in [
        ("limit.copy", "copy"),
        ("limit.scan", "scan"),
        ("limit.verify", "verify"),
        ("limit.restore", "restore"),
    ] {
        taken.note(key, told[name].as_f64().ok_or("no limit")?);
    }
    eprintln!("bench: limits, in seconds of a processor: {}", told["parts"]);
    Ok(())
}

async fn restic(bench: &Bench, taken: &mut Taken) -> Result<()> {
    let repository = bench.work("repository");
    let restic = |arguments: &[&str]| {
        let mut command = Command::new("restic");
        command
            .env("RESTIC_PASSWORD", "bench")
            .env("RESTIC_REPOSITORY", &repository)
            .env("RESTIC_CACHE_DIR", bench.work("cache"))
            .current_dir(&bench.disks)
            .arg("--quiet")
            .args(arguments);
        command
    };
    // Version 2 is the one that packs, by zstd.
    run(&mut restic(&["init", "--repository-version", "2"])).await?;
    taken
        .step("restic.full", &mut restic(&["backup", "first.raw"]))
        .await?;
    let before = bytes_in(&repository)?;
    taken.note("restic.stored", before);
    taken
        .step("restic.verify", &mut restic(&["check", "--read-data"]))
        .await?;
    let to = bench.work("restored");
    let mut restore = restic(&["restore", "latest", "--target"]);
    restore.arg(&to);
    // Those before 0.15 write the holes out.
    if run(&mut restic(&["restore", "--help"]))
        .await?
        .contains("--sparse")
    {
        restore.arg("--sparse");
    }
    taken.step("restic.restore", &mut restore).await?;
    bench
        .same(&find(&to, "first.raw").ok_or("restic restored no disk")?)
        .await?;
    taken
        .step("restic.second", &mut restic(&["backup", "second.raw"]))
        .await?;
    taken.note("restic.secondStored", bytes_in(&repository)? - before);
    Ok(())
}

async fn borg(bench: &Bench, taken: &mut Taken) -> Result<()> {
    let (repository, to) = (bench.work("repository"), bench.work("restored"));
    std::fs::create_dir(&to)?;
    let borg = |dir: &Path, arguments: &[&str]| {
        let mut command = Command::new("borg");
        command
            .env("BORG_PASSPHRASE", "bench")
            .env("BORG_REPO", &repository)
            .env("BORG_BASE_DIR", bench.work("borg"))
            .current_dir(dir)
            .args(arguments);
        command
    };
    // As it is quickest with disks.
    let create = |archive: &'static str, disk: &'static str| {
        let how = [
            "create",
            "--compression",
            "zstd,1",
            "--chunker-params",
            "fixed,4194304",
            "--sparse",
        ];
        borg(&bench.disks, &[&how[..], &[archive, disk]].concat())
    };
    run(&mut borg(
        &bench.work,
        &["init", "--encryption", "repokey-blake2"],
    ))
    .await?;
    taken
        .step("borg.full", &mut create("::first", "first.raw"))
        .await?;
    taken
        .step("borg.verify", &mut borg(&bench.work, &["check", "--verify-data"]))
        .await?;
    taken
        .step(
            "borg.restore",
            &mut borg(&to, &["extract", "--sparse", "::first"]),
        )
        .await?;
    bench.same(&to.join("first.raw")).await?;
    taken
        .step("borg.second", &mut create("::second", "second.raw"))
        .await?;
    Ok(())
}

async fn qemu_img(bench: &Bench, taken: &mut Taken) -> Result<()> {
    let (copy, restored) = (bench.work("copy.qcow2"), bench.work("restored"));
    for (full, restore, packed) in [
        ("qemuImg.full", "qemuImg.restore", false),
        ("qemuImg.fullPacked", "qemuImg.restorePacked", true),
    ] {
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-f", "raw", "-O", "qcow2"]);
        if packed {
            convert.arg("-c");
        }
        taken.step(full, convert.arg(bench.first()).arg(&copy)).await?;
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-f", "qcow2", "-O", "raw"]);
        taken.step(restore, convert.arg(&copy).arg(&restored)).await?;
        bench.same(&restored).await?;
        std::fs::remove_file(&copy)?;
    }
    Ok(())
}

/// What all files below a directory have, in bytes.
fn bytes_in(dir: &Path) -> Result<f64> {
    let mut all = 0.0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        all += match entry.file_type()?.is_dir() {
            true => bytes_in(&entry.path())?,
            false => entry.metadata()?.len() as f64,
        };
    }
    Ok(all)
}

/// A file of this name below a directory: a restored one has its whole path there.
fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    std::fs::read_dir(dir).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        match path.is_dir() {
            true => find(&path, name),
            false => (entry.file_name() == name).then_some(path),
        }
    })
}
