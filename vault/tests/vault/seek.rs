//! Any place of a disk reads as it was copied, for many tasks at once, with few requests.

use super::copy;
use super::support::{Disk, Memory, noise, vault};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vault::store::Counted;
use vault::{DiskReader, Error, Extent, Key, Opening, Reader, Vault};

const CHUNK: usize = 64 << 10;

/// A disk with data, holes and repetition, over two pieces of its table and a bit.
fn disk() -> Disk {
    let mut bytes = noise(3, 20 << 20);
    bytes.resize(150 << 20, 0);
    let end = noise(4, 300_001);
    let at = 130 << 20;
    bytes[at..at + end.len()].copy_from_slice(&end);
    bytes.copy_within(0..CHUNK, 100 << 20);
    bytes.truncate((150 << 20) - 77);
    Disk(Arc::new(bytes))
}

async fn counted(store: Arc<Memory>, key: &Key) -> (Arc<Counted>, Reader) {
    let counted = Arc::new(Counted::new(store));
    let vault = Vault::open(counted.clone(), &Opening::Key(key.clone()))
        .await
        .unwrap();
    (counted, vault.reader().await.unwrap())
}

async fn made(disk: &Disk) -> (Arc<Memory>, Key, vault::Disk) {
    let store = Arc::new(Memory::default());
    let vault = vault(&store).await;
    let mut made = copy(&vault, std::slice::from_ref(disk), None).await.unwrap();
    (store, vault.key().clone(), made.disks.remove(0))
}

async fn right(reader: &DiskReader, disk: &Disk, at: usize, length: usize) {
    let mut buffer = vec![7; length];
    reader.read_at(at as u64, &mut buffer).await.unwrap();
    assert!(buffer[..] == disk.0[at..at + length], "{length} at {at}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn any_place_for_many_tasks_at_once() {
    let disk = disk();
    let (store, key, made) = made(&disk).await;
    let (_, reader) = counted(store, &key).await;
    let reader = reader.disk(made);
    assert_eq!(reader.bytes(), disk.0.len() as u64);
    let tasks = (0..8_u64).map(|task| {
        let (reader, disk) = (reader.clone(), disk.clone());
        tokio::spawn(async move {
            let places = noise(task + 1, 40 * 16);
            for place in places.chunks(16) {
                let word = |at: usize| u64::from_le_bytes(place[at..at + 8].try_into().unwrap()) as usize;
                let at = word(0) % disk.0.len();
                // Now and then longer than what is kept in memory.
                let most = if word(8) % 20 == 0 { 12 << 20 } else { 300_000 };
                let length = (word(8) >> 8) % most;
                right(&reader, &disk, at, length.min(disk.0.len() - at)).await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    right(&reader, &disk, disk.0.len() - 1, 1).await;
    right(&reader, &disk, disk.0.len(), 0).await;
    for (at, length) in [(disk.0.len() as u64, 1), (u64::MAX, 2), (0, disk.0.len() + 1)] {
        let read = reader.read_at(at, &mut vec![0; length]).await;
        assert!(matches!(read, Err(Error::Beyond { .. })), "{read:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn few_requests_however_it_is_read() {
    let disk = disk();
    let (store, key, made) = made(&disk).await;
    let (counted, reader) = counted(store, &key).await;
    let gets = || counted.requests().gets;

    // The same chunk for many at once: one request for its table's piece, one for it.
    let one = reader.disk(made.clone());
    let before = gets();
    let all = (0..16).map(|n| right(&one, &disk, n * 4096, 4096));
    futures::future::join_all(all).await;
    assert_eq!(gets() - before, 2);
    // It is kept.
    right(&one, &disk, 10, CHUNK - 20).await;
    assert_eq!(gets() - before, 2);
    // Zeros cost nothing.
    right(&one, &disk, 40 << 20, 3 << 20).await;
    assert_eq!(gets() - before, 2);

    // In order, by little: 20 MiB, up to 4 MiB in one request once it is clear that it goes on.
    let two = reader.disk(made.clone());
    let before = gets();
    for at in (0..20 << 20).step_by(32 << 10) {
        right(&two, &disk, at, 32 << 10).await;
    }
    let in_order = gets() - before;
    assert!(in_order <= 20, "{in_order} requests");
    // At once: as few as it has long requests, and as there are borders in the packs.
    let three = reader.disk(made.clone());
    let before = gets();
    right(&three, &disk, 0, 20 << 20).await;
    let at_once = gets() - before;
    assert!(at_once <= 14, "{at_once} requests");
    // Here and there: one chunk each, nothing beyond.
    let four = reader.disk(made);
    let (before, got) = (gets(), counted.requests().bytes_got);
    for n in 0..10 {
        right(&four, &disk, (19 - n) * (1 << 20), 4096).await;
    }
    assert_eq!(gets() - before, 11);
    let got = counted.requests().bytes_got - got;
    assert!(got < 11 * (CHUNK as u64 + 64), "{got} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_nothing_but_zeros_is_known_without_reading_it() {
    let disk = disk();
    let (store, key, made) = made(&disk).await;
    let (counted, reader) = counted(store, &key).await;
    let reader = reader.disk(made);
    let before = counted.requests().gets;
    for (at, length) in [
        (0, disk.0.len()),
        (CHUNK + 5, 1),
        ((20 << 20) - 7, 115 << 20),
        (9, 0),
    ] {
        let extents = reader.extents(at as u64, length as u64).await.unwrap();
        assert_eq!(extents.iter().map(|e| e.bytes).sum::<u64>(), length as u64);
        assert!(
            extents.windows(2).all(|two| two[0].zero != two[1].zero),
            "{extents:?}"
        );
        let mut place = at;
        for Extent { bytes, zero } in extents {
            let chunks = disk.0[place..place + bytes as usize].chunks(CHUNK);
            for chunk in chunks.filter(|_| zero) {
                assert!(chunk.iter().all(|b| *b == 0), "at {place}");
            }
            place += bytes as usize;
        }
    }
    let whole = reader.extents(0, disk.0.len() as u64).await.unwrap();
    assert_eq!(
        whole.iter().map(|e| e.zero).collect::<Vec<_>>(),
        [false, true, false, true, false, true]
    );
    assert_eq!(whole[0].bytes, 20 << 20);
    // Three pieces of the table, each once.
    assert_eq!(counted.requests().gets - before, 3);
    assert!(reader.extents(1, disk.0.len() as u64).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_once_fails_one_read() {
    let disk = disk();
    let (store, key, made) = made(&disk).await;
    let (_, reader) = counted(store.clone(), &key).await;
    let reader = reader.disk(made);
    right(&reader, &disk, 0, 1).await;
    let next = store.operations.load(Ordering::SeqCst);
    *store.fault.lock().unwrap() = Some((next, super::support::Fault::Refused));
    let mut buffer = vec![0; 100];
    reader.read_at(5 << 20, &mut buffer).await.unwrap_err();
    right(&reader, &disk, 5 << 20, 100).await;
}
