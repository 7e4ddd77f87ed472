//! What the group `vault` measures, one step per process, so that what each takes is seen from outside as it is of others.
//!
//!     bench-vault create VAULT                    makes one, and tells its key
//!     bench-vault copy VAULT KEY DISK [COPY CHANGED]
//!                                                 with COPY only what the file CHANGED names is read
//!     bench-vault verify VAULT KEY
//!     bench-vault restore VAULT KEY COPY FILE
//!     bench-vault limits DISK DIR                 what reading, hashing, packing and sealing take by themselves
//!     bench-vault requests DISK DIR               a copy to a bucket, on a server that counts requests
//!     bench-vault noise BYTES                     random ones, always the same
//!     bench-vault change FILE                     changes 1 % of it, and tells where
//!
//! Each tells what it has done as JSON. `BENCH_ONE_CORE` has it use one core.

mod image;
mod limits;
mod requests;

use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use uuid::Uuid;
use vault::store::{Local, Objects};
use vault::{CancellationToken, Change, Commit, Copy, Key, Making, Opening, Source, Vault, Wrapping};

/// What could not be done.
type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Failure> = std::result::Result<T, E>;

/// As the server does it; one where it has one core.
const THREADS: usize = 2;

static ONE_CORE: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    match started() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn started() -> Result<()> {
    if std::env::var_os("BENCH_ONE_CORE").is_some() {
        // Before there are other threads: they inherit it.
        let mut first = rustix::thread::CpuSet::new();
        first.set(0);
        rustix::thread::sched_setaffinity(None, &first)?;
        ONE_CORE.store(true, Ordering::Relaxed);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut told = match arguments[..] {
        ["noise", bytes] => return image::noise(bytes.parse()?, &mut std::io::stdout().lock()),
        ["change", file] => {
            let changed = serde_json::to_string(&image::change(Path::new(file))?)?;
            return Ok(writeln!(std::io::stdout(), "{changed}")?);
        }
        ["limits", disk, dir] => limits::take(Path::new(disk), Path::new(dir))?,
        _ => tokio::runtime::Runtime::new()?.block_on(run(&arguments))?,
    };
    told["peakKib"] = peak_kib()?.into();
    Ok(writeln!(std::io::stdout(), "{told}")?)
}

async fn run(arguments: &[&str]) -> Result<Value> {
    match *arguments {
        ["create", store] => {
            let objects = local(store);
            let made = Vault::create(objects, &Wrapping::Passphrase("bench".into()), Making::at(1)).await?;
            Ok(json!({"key": hex::encode(made.key().bytes())}))
        }
        ["copy", store, key, disk] => copy(&open(local(store), key).await?, disk, None).await,
        ["copy", store, key, disk, parent, changed] => {
            let known = (parent.parse()?, changed);
            copy(&open(local(store), key).await?, disk, Some(known)).await
        }
        ["verify", store, key] => verify(&open(local(store), key).await?).await,
        ["restore", store, key, copy, file] => {
            restore(&open(local(store), key).await?, copy.parse()?, Path::new(file)).await
        }
        ["requests", disk, dir] => requests::take(disk, Path::new(dir)).await,
        _ => Err("see the beginning of bench/src/bin/bench-vault/main.rs".into()),
    }
}

fn local(store: &str) -> Arc<dyn Objects> {
    Arc::new(Local::new(store.into()))
}

async fn open(objects: Arc<dyn Objects>, key: &str) -> Result<Vault> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(key, &mut bytes)?;
    Ok(Vault::open(objects, &Opening::Key(Key::from_bytes(bytes))).await?)
}

/// Copies a disk, whole or, with the copy before and a file that says so, what has changed.
async fn copy(vault: &Vault, disk: &str, known: Option<(Uuid, &str)>) -> Result<Value> {
    let source: Arc<dyn Source> = Arc::new(vault::source::Raw::new(std::fs::File::open(disk)?)?);
    let threads = if ONE_CORE.load(Ordering::Relaxed) {
        1
    } else {
        THREADS
    };
    let writer = vault.begin(threads).await?;
    let (mut before, mut ranges): (Option<Copy>, Vec<std::ops::Range<u64>>) = (None, Vec::new());
    if let Some((parent, changed)) = known {
        before = writer.parent(parent).await?;
        let listed: Vec<(u64, u64)> = serde_json::from_slice(&std::fs::read(changed)?)?;
        ranges = listed.into_iter().map(|(from, to)| from..to).collect();
    }
    let change = match &before {
        Some(before) => Some(Change {
            parent: before.disks.first().ok_or("a copy without a disk")?,
            ranges: &ranges,
        }),
        None => None,
    };
    let cancel = CancellationToken::new();
    let copied = writer.disk("disk0", source, change, Value::Null, &cancel).await?;
    let chunks = writer.known();
    let parent = before.map(|copy| copy.id);
    let what = Commit {
        id: Uuid::new_v4(),
        about: Value::Null,
        parent,
        now: 2,
    };
    let made = writer.commit(vec![copied], what).await?;
    Ok(json!({"copy": made.id, "moved": made.moved, "chunks": chunks}))
}

async fn verify(vault: &Vault) -> Result<Value> {
    let cancel = CancellationToken::new();
    let found = vault::verify::run(vault, |_| true, &|_, _| {}, &cancel).await?;
    if !found.damaged.is_empty() || !found.hurt.is_empty() {
        return Err(format!("damaged: {found:?}").into());
    }
    Ok(json!({"bytes": found.bytes, "chunks": found.chunks}))
}

/// Like what it is measured beside, it leaves to the system when the file reaches the disk.
async fn restore(vault: &Vault, copy: Uuid, file: &Path) -> Result<Value> {
    let copy = vault.copy(copy).await?;
    let disk = copy.disks.first().ok_or("a copy without a disk")?;
    let to = std::fs::File::create_new(file)?;
    to.set_len(disk.bytes)?;
    let reader = vault.reader().await?;
    let cancel = CancellationToken::new();
    reader.restore(disk, Arc::new(to), &|_| {}, &cancel).await?;
    Ok(json!({"bytes": disk.bytes}))
}

/// The most memory that this process has had. Its parent would see its own in that place, if it had more.
fn peak_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib
        .ok_or("the system does not tell the most memory")?
        .trim()
        .parse()?)
}
