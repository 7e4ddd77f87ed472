//! Disks of a copy, shown by the real process to the real QEMU.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod client;

use client::{Io, convert, image, qemu_img, url};
use server::nbd::process::{self, end, ensure, log};
use server::nbd::{Config, Store};
use shared::target::{LocalPlace, Place};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use vault::prune::{self, Pruning};
use vault::source::Raw;
use vault::store::Local;
use vault::{CancellationToken, Commit, Key, Making, Opening, Vault, Wrapping};

const PROGRAM: &str = env!("CARGO_BIN_EXE_offshoot");
/// A public key whose other half nobody needs here.
const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
const MIB: u64 = 1 << 20;

/// A vault in a directory, with a copy of a machine of two disks.
struct Copied {
    dir: tempfile::TempDir,
    config: Config,
}

/// Bytes that no two chunks share.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    let words = (0..bytes.div_ceil(8)).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(bytes).collect()
}

fn raw(path: &Path, bytes: u64, data: &[(u64, usize)]) {
    let file = File::create(path).unwrap();
    file.set_len(bytes).unwrap();
    for (offset, length) in data {
        file.write_all_at(&noise(offset + 1, *length), *offset).unwrap();
    }
}

/// Copies raw files below a directory into a vault.
async fn copy(vault: &Vault, dir: &Path, names: &[&str]) -> uuid::Uuid {
    let writer = vault.begin(2).await.unwrap();
    let mut disks = Vec::new();
    for name in names {
        let source = Raw::new(File::open(dir.join(name)).unwrap()).unwrap();
        let none = CancellationToken::new();
        let disk = writer.disk(name, Arc::new(source), None, serde_json::Value::Null, &none);
        disks.push(disk.await.unwrap());
    }
    let what = Commit {
        id: uuid::Uuid::new_v4(),
        about: serde_json::Value::Null,
        parent: None,
        now: 2,
    };
    let made = writer.commit(disks, what).await;
    made.unwrap().id
}

impl Copied {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        std::fs::create_dir(&store).unwrap();
        raw(
            &dir.path().join("disk0"),
            300 * MIB,
            &[(0, 3 << 20), (100 * MIB + 4096, 24 << 20)],
        );
        raw(&dir.path().join("disk1"), 7 * MIB + 512, &[(7 * MIB, 512)]);
        let wrapping = Wrapping::Recipient(RECIPIENT.into());
        let objects = Arc::new(Local::new(store.clone()));
        let vault = Vault::create(objects, &wrapping, Making::at(1)).await.unwrap();
        let copy = copy(&vault, dir.path(), &["disk0", "disk1"]).await;
        let config = Config {
            socket: dir.path().join("nbd"),
            store: Store {
                target: "there".into(),
                place: Place {
                    local: Some(LocalPlace {
                        path: store.to_string_lossy().into_owned(),
                    }),
                    ..Place::default()
                },
                secret: None,
            },
            key: *vault.key().bytes(),
            copy,
            disks: vec!["disk0".into(), "disk1".into()],
            // A test that fails leaves none for long.
            idle_seconds: Some(60),
        };
        Self { dir, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn shown(&self) {
        ensure(Path::new(PROGRAM), &self.config).await.unwrap();
    }

    fn pid(&self) -> i32 {
        let record = std::fs::read_to_string(self.path("nbd.process")).unwrap();
        record.split(' ').next().unwrap().parse().unwrap()
    }

    /// `kill -9`, and returns when it is gone.
    async fn kill(&self) {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        while process::alive(&self.config.socket).unwrap() {
            tokio::task::yield_now().await;
        }
    }

    /// Returns when the process has logged this.
    async fn logged(&self, what: &str) {
        let logged = async {
            while !std::fs::read_to_string(log(&self.config.socket))
                .unwrap()
                .contains(what)
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), logged).await;
        assert!(waited.is_ok(), "{what} is not in the log");
    }

    fn away(&self) {
        std::fs::rename(self.path("store"), self.path("gone")).unwrap();
    }

    fn back(&self) {
        std::fs::rename(self.path("gone"), self.path("store")).unwrap();
    }

    async fn over(self) {
        end(&self.config.socket).await.unwrap();
        assert!(!self.config.socket.exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn qemu_sees_each_disk_as_it_was_copied_with_its_holes() {
    let copied = Copied::new().await;
    copied.shown().await;
    for disk in ["disk0", "disk1"] {
        let original = copied.path(disk);
        let shown = url(&copied.config.socket, disk);
        let original = original.to_str().unwrap();
        qemu_img(&["compare", "-f", "raw", "-F", "raw", original, &shown]).await;
        let map = |file: String| async move {
            let said = qemu_img(&["map", "--output=json", "-f", "raw", &file]).await;
            let map: Vec<serde_json::Value> = serde_json::from_str(&said).unwrap();
            let zero = |e: &&serde_json::Value| e["zero"] == false;
            let data = map.iter().filter(zero).map(|e| e["length"].as_u64().unwrap());
            data.sum::<u64>()
        };
        let data = map(shown.clone()).await;
        assert!(data >= map(original.into()).await);
        // No more than that, up to a chunk at each end.
        assert!(data <= map(original.into()).await + 6 * (128 << 10), "{data}");
        let to = copied.path("converted");
        convert(&image(&copied.config.socket, disk), &to, &[])
            .await
            .unwrap();
        qemu_img(&[
            "compare",
            "-f",
            "raw",
            "-F",
            "raw",
            original,
            to.to_str().unwrap(),
        ])
        .await;
        // In whole blocks of the file system.
        assert!(std::fs::metadata(&to).unwrap().blocks() * 512 <= data + MIB);
    }
    let listed = client::list(&copied.config.socket).await;
    for expected in ["exports available: 2", "'disk0'", "'disk1'", "base:allocation"] {
        assert!(listed.contains(expected), "{listed}");
    }
    copied.over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_found_again_and_ended() {
    let copied = Copied::new().await;
    copied.shown().await;
    let pid = copied.pid();
    copied.shown().await;
    assert_eq!(copied.pid(), pid);
    copied.kill().await;
    copied.shown().await;
    assert_ne!(copied.pid(), pid);
    let socket = copied.config.socket.clone();
    end(&socket).await.unwrap();
    assert!(!process::alive(&socket).unwrap() && !socket.exists());
    end(&socket).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_runs_is_killed_again_and_again_and_nothing_is_lost() {
    let copied = Copied::new().await;
    copied.shown().await;
    let to = copied.path("converted");
    let source = image(&copied.config.socket, "disk0");
    let options = ["-r", "12M"];
    let mut converting = std::pin::pin!(convert(&source, &to, &options));
    let mut killed = 0;
    let converted = loop {
        tokio::select! {
            done = &mut converting => break done,
            () = tokio::time::sleep(Duration::from_millis(400)) => {
                copied.kill().await;
                killed += 1;
                copied.shown().await;
            }
        }
    };
    converted.unwrap();
    assert!(killed >= 3, "{killed}");
    let original = copied.path("disk0");
    let (original, to) = (original.to_str().unwrap(), to.to_str().unwrap());
    qemu_img(&["compare", "-f", "raw", "-F", "raw", original, to]).await;
    copied.over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_the_store_and_for_the_process() {
    let copied = Copied::new().await;
    copied.shown().await;
    let mut io = Io::open(&copied.config.socket, "disk0");
    assert!(io.read(0).await.contains("read 4096/4096"));
    copied.away();
    io.ask(100 * MIB + 4096).await;
    copied.logged("waits until the store is back").await;
    // What is here already is read meanwhile, by others too.
    let mut other = Io::open(&copied.config.socket, "disk0");
    assert!(other.read(512).await.contains("read 4096/4096"));
    copied.back();
    assert!(io.answer().await.contains("read 4096/4096"));
    copied.logged("the store answers").await;

    copied.away();
    io.ask(120 * MIB).await;
    let waits = "waits until the store is back";
    while std::fs::read_to_string(log(&copied.config.socket))
        .unwrap()
        .matches(waits)
        .count()
        < 2
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    copied.kill().await;
    copied.back();
    copied.shown().await;
    assert!(io.answer().await.contains("read 4096/4096"));
    drop((io, other));
    copied.over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_an_error_at_once_and_all_else_is_read() {
    let copied = Copied::new().await;
    copied.shown().await;
    let packs = std::fs::read_dir(copied.path("store/packs")).unwrap();
    let packs = packs.flat_map(|entry| std::fs::read_dir(entry.unwrap().path()).unwrap());
    for pack in packs.map(|entry| entry.unwrap().path()) {
        let file = File::options().read(true).write(true).open(&pack).unwrap();
        let middle = file.metadata().unwrap().len() / 2;
        file.write_all_at(&vec![0xee; 1 << 20], middle).unwrap();
    }
    let mut io = Io::open(&copied.config.socket, "disk0");
    let (mut broken, mut whole) = (0, 0);
    for chunk in 0..8 * 24_u64 {
        let said = io.read(100 * MIB + 4096 + chunk * (128 << 10)).await;
        if said.contains("read failed: Input/output error") {
            broken += 1;
        } else {
            assert!(said.contains("read 4096/4096"), "{said}");
            whole += 1;
        }
    }
    assert!(broken > 0 && whole > broken, "{broken} {whole}");
    copied.logged("is damaged").await;
    drop(io);
    copied.over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_a_clean_up_moves_are_found_again() {
    let mut copied = Copied::new().await;
    // As the first disk begins: its chunks are there already, among many that nobody will need.
    raw(&copied.path("small"), 3 * MIB, &[(0, 3 << 20)]);
    let objects = Arc::new(Local::new(copied.path("store")));
    let key = Opening::Key(Key::from_bytes(copied.config.key));
    let vault = Vault::open(objects, &key).await.unwrap();
    let small = copy(&vault, copied.dir.path(), &["small"]).await;
    vault.forget(copied.config.copy).await.unwrap();
    copied.config.copy = small;
    copied.config.disks = vec!["small".into()];
    copied.shown().await;
    let mut io = Io::open(&copied.config.socket, "small");
    assert!(io.read(0).await.contains("read 4096/4096"));
    let mut removed = 0;
    for now in 3..7 {
        let how = Pruning {
            now,
            stay: Duration::ZERO,
            dead: Duration::ZERO,
            waste: 1.0,
        };
        removed += prune::run(&vault, how).await.unwrap().removed;
    }
    assert!(removed > 0);
    // What it knows is then old enough to be doubted.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for chunk in 1..24 {
        let said = io.read(chunk * (128 << 10)).await;
        assert!(said.contains("read 4096/4096"), "{said}");
    }
    drop(io);
    copied.over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_why_it_cannot_show_a_copy() {
    let copied = Copied::new().await;
    let refused = |config: Config| async move {
        let refused = ensure(Path::new(PROGRAM), &config).await.unwrap_err();
        assert!(!process::alive(&config.socket).unwrap());
        refused.to_string()
    };
    let mut config = copied.config.clone();
    config.copy = uuid::Uuid::nil();
    assert!(refused(config).await.contains("the vault has no copy"));
    let mut config = copied.config.clone();
    config.disks.push("disk7".into());
    assert!(refused(config).await.contains("has no disk disk7"));
    let mut config = copied.config.clone();
    config.key = [1; 32];
    assert!(refused(config).await.contains("does not open the vault's key"));
    copied.over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_a_store_that_is_away_at_the_start() {
    let copied = Copied::new().await;
    copied.away();
    let config = copied.config.clone();
    let starting = tokio::spawn(async move { ensure(Path::new(PROGRAM), &config).await });
    while !log(&copied.config.socket).exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    copied.logged("the copy waits until the store is back").await;
    assert!(!starting.is_finished());
    copied.back();
    starting.await.unwrap().unwrap();
    copied.over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_by_itself_when_nobody_comes() {
    let mut copied = Copied::new().await;
    copied.config.idle_seconds = Some(1);
    copied.shown().await;
    let mut io = Io::open(&copied.config.socket, "disk1");
    assert!(io.read(0).await.contains("read 4096/4096"));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(process::alive(&copied.config.socket).unwrap(), "it has a client");
    drop(io);
    let ended = async {
        while process::alive(&copied.config.socket).unwrap() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended)
        .await
        .unwrap();
    copied.over().await;
}
