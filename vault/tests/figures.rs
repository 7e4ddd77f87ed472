//! Memory, requests and time that copies take, of a disk that nothing can be packed of. Figures are printed: with
//! `--no-capture`, and with `OFFSHOOT_SOAK_SEED` set for 4 GiB.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vault::store::{Counted, Local, Objects};
use vault::{CancellationToken, Commit, Making, Sink, Source, Vault, Wrapping};

/// Bytes that do not pack, each made when it is read.
struct Noise(u64);

impl Source for Noise {
    fn bytes(&self) -> u64 {
        self.0
    }

    fn data(&self, offset: u64, end: u64) -> io::Result<Option<Range<u64>>> {
        Ok((offset < end).then_some(offset..end))
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        for (n, word) in (offset / 8 + 1..).zip(buffer.chunks_mut(8)) {
            let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word.copy_from_slice(&(x ^ (x >> 27)).to_le_bytes()[..word.len()]);
        }
        Ok(())
    }
}

struct Nowhere;

impl Sink for Nowhere {
    fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// The most memory that this process has had, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_and_requests_stay_within_bounds() {
    let long = std::env::var_os("OFFSHOOT_SOAK_SEED").is_some();
    let bytes: u64 = if long { 4 << 30 } else { 512 << 20 };
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Objects> = Arc::new(Local::new(dir.path().to_owned()));
    let counted = Arc::new(Counted::new(store));
    let identity = age::x25519::Identity::generate().to_public().to_string();
    let vault = Vault::create(counted.clone(), &Wrapping::Recipient(identity), Making::at(1))
        .await
        .unwrap();
    let cancel = CancellationToken::new();

    let (before, base, begin) = (counted.requests(), peak(), Instant::now());
    let writer = vault.begin(2).await.unwrap();
    let disk = writer.disk(
        "d",
        Arc::new(Noise(bytes)),
        None,
        serde_json::Value::Null,
        &cancel,
    );
    let disk = disk.await.unwrap();
    let commit = Commit {
        id: uuid::Uuid::new_v4(),
        about: serde_json::Value::Null,
        parent: None,
        now: 1,
    };
    let copied = writer.commit(vec![disk], commit).await.unwrap();
    let (took, written) = (begin.elapsed(), peak());
    let requests = counted.requests().all() - before.all();
    let gib = copied.moved.stored as f64 / f64::from(1 << 30);

    let begin = Instant::now();
    let reader = vault.reader().await.unwrap();
    let opened = begin.elapsed();
    let (before, begin) = (counted.requests(), Instant::now());
    reader
        .restore(&copied.disks[0], Arc::new(Nowhere), &|_| (), &cancel)
        .await
        .unwrap();
    let gets = counted.requests().gets - before.gets;
    println!(
        "{gib:.2} GiB stored in {took:.1?}: {requests} requests, {:.1} for each GiB; memory before {base} MiB, at most {written} MiB; \
         reader in {opened:.1?}; restored in {:.1?} with {gets} requests, at most {} MiB",
        requests as f64 / gib,
        begin.elapsed(),
        peak(),
    );
    assert!(written <= 128, "{written} MiB");
    // What does not grow with the copy: signs of life, lists, the index and the copy itself.
    assert!(requests as f64 <= 64.0 * gib + 12.0, "{requests} requests");
    assert!(gets as f64 <= 384.0 * gib, "{gets} requests");
    // Much of it is what the allocator keeps for threads that have ended their work.
    assert!(peak() <= 256, "{} MiB", peak());
    assert!(opened < Duration::from_secs(5), "{opened:?}");
}
