//! What reads objects, against bytes that nobody wrote so: it answers an error, and takes no more memory than what it reads
//! is worth. Seals are put on again, so that what is behind them is reached. And how long a large index takes.

#![allow(clippy::unwrap_used, reason = "tests")]

use crate::copy::{self, Copy, Disk, Moved};
use crate::index::{self, Index};
use crate::keys::{Key, Opening, Seals, TAG};
use crate::pack::{self, Kind, LISTED, Opener, Packer, Record, Squeezer, TRAILER};
use crate::store::{Local, Objects, Put};
use crate::{Id, Making, Vault, Wrapping};
use proptest::collection::vec;
use proptest::prelude::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use uuid::Uuid;

/// Notes the longest piece of memory that a thread has asked for.
struct Noting;

#[global_allocator]
static NOTING: Noting = Noting;

thread_local! {
    static LONGEST: Cell<usize> = const { Cell::new(0) };
}

fn note(size: usize) {
    // It is gone when a thread ends.
    _ = LONGEST.try_with(|longest| longest.set(longest.get().max(size)));
}

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, layout) }
    }
}

/// What reading `bytes` answers. None of it may take more at once than a few times that, and a chunk.
fn frugal<T>(bytes: usize, read: impl FnOnce() -> T) -> T {
    LONGEST.with(|longest| longest.set(0));
    let read = read();
    let longest = LONGEST.with(Cell::get);
    assert!(
        longest <= 8 * bytes + (1 << 20) + 4096,
        "{longest} bytes of memory for {bytes}"
    );
    read
}

fn seals() -> Seals {
    Seals::new(&Key::from_bytes([7; 32]))
}

/// Something is done to bytes: `at` in parts of 65536 of their length.
#[derive(Clone, Debug)]
enum Change {
    Bit(u16, u8),
    Word(u16, u32),
    Cut(u16),
    Insert(u16, Vec<u8>),
    Twice(u16, u16),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let word = prop_oneof![
        Just(0),
        Just(1),
        Just(u32::MAX),
        Just(u32::MAX >> 1),
        Just(1 << 20),
        0..70_000_u32,
        any::<u32>()
    ];
    let change = prop_oneof![
        4 => (any::<u16>(), 0..8_u8).prop_map(|(at, bit)| Change::Bit(at, bit)),
        4 => (any::<u16>(), word).prop_map(|(at, word)| Change::Word(at, word)),
        1 => any::<u16>().prop_map(Change::Cut),
        1 => (any::<u16>(), vec(any::<u8>(), 0..100)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => (any::<u16>(), any::<u16>()).prop_map(|(from, to)| Change::Twice(from, to)),
    ];
    vec(change, 0..5)
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let place = |at: u16| (bytes.len() * usize::from(at)) >> 16;
        match change {
            Change::Bit(at, bit) => {
                let at = place(*at);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            Change::Word(at, word) => {
                let at = place(*at);
                if let Some(four) = bytes.get_mut(at..at + 4) {
                    four.copy_from_slice(&word.to_le_bytes());
                }
            }
            Change::Cut(at) => bytes.truncate(place(*at)),
            Change::Insert(at, more) => drop(bytes.splice(place(*at)..place(*at), more.iter().copied())),
            Change::Twice(from, to) => {
                let (from, to) = (place(*from), place(*to));
                let some = bytes.get(from..to).unwrap_or_default().to_vec();
                bytes.extend(some);
            }
        }
    }
    bytes
}

fn a_copy() -> Copy {
    let disk = Disk {
        name: "a disk".into(),
        bytes: 300 << 20,
        chunk: 128 << 10,
        tables: vec![Id([1; 32]), Id::ZERO, Id([255; 32])],
        track: serde_json::json!({"bitmap": "b", "at": [1, null, 2.5]}),
    };
    Copy {
        id: Uuid::from_u128(5),
        created: 1,
        parent: Some(Uuid::from_u128(4)),
        about: serde_json::json!({"machine": {"name": "a"}}),
        disks: vec![disk.clone(), disk],
        moved: Moved::default(),
    }
}

/// A pack with a record of each kind, and its records.
fn a_pack(seals: &Seals) -> (Uuid, Vec<u8>, Vec<Record>) {
    let mut packer = Packer::new(seals, Vec::new());
    let mut squeezer = Squeezer::new(1).unwrap();
    let mut records = Vec::new();
    for (n, table) in [(0, false), (1, false), (2, true), (3, true)] {
        let plain: Vec<u8> = match n {
            0 | 2 => blake3::hash(b"x").as_bytes().repeat(40),
            _ => blake3::hash(b"y").as_bytes().to_vec(),
        };
        let id = if table {
            seals.table(&plain)
        } else {
            seals.chunk(&plain)
        };
        let (kind, body) = squeezer.squeeze(&plain, table);
        records.push(packer.push(id, kind, plain.len() as u32, body));
    }
    let packed = packer.finish();
    (packed.id, packed.bytes.to_vec(), records)
}

proptest! {
    #[test]
    fn bytes_of_any_kind(bytes in vec(any::<u8>(), 0..3000), size in any::<u64>()) {
        let seals = seals();
        let pack = Uuid::from_u128(3);
        frugal(bytes.len(), || {
            assert!(copy::open(&seals, pack, &bytes).is_err());
            assert!(seals.open_object("x", &bytes).is_err());
            _ = pack::tail(pack, &bytes, size);
            assert!(pack::list(&seals, pack, &bytes, size.max(bytes.len() as u64)).is_err());
            _ = index::read("x", &bytes);
            _ = copy::read_table(&bytes);
            for record in bytes.as_chunks::<LISTED>().0.iter().filter_map(Record::read) {
                assert!(Opener::new(&seals).unwrap().open(pack, &record, &mut bytes.clone()).is_err());
            }
            let words = Opening::Passphrase("x".into());
            assert!(Key::unwrap("x", &bytes, pack, &words).is_err());
        });
    }

    #[test]
    fn a_copy_that_is_changed_behind_its_seal(json in changes(), packed in changes(), size in any::<Option<u64>>(), chunk in any::<Option<u32>>()) {
        let seals = seals();
        let mut copy = a_copy();
        copy.disks[0].bytes = size.unwrap_or(copy.disks[0].bytes);
        copy.disks[1].chunk = chunk.unwrap_or(copy.disks[1].chunk);
        let bytes = changed(serde_json::to_vec(&copy).unwrap(), &json);
        let bytes = changed(zstd::bulk::compress(&bytes, 3).unwrap(), &packed);
        let sealed = seals.seal_object(&copy::name(copy.id), &bytes);
        // What is packed well is longer than the object.
        if let Ok(read) = frugal(64 * sealed.len(), || copy::open(&seals, copy.id, &sealed)) {
            for disk in &read.disks {
                assert_eq!(disk.tables.len() as u64, disk.bytes.div_ceil(disk.stride()));
                assert!(disk.chunk <= pack::LONGEST);
            }
        }
    }

    #[test]
    fn an_index_that_is_changed_behind_its_seal(changes in changes()) {
        let seals = seals();
        let (pack, _, records) = a_pack(&seals);
        let mut whole = Index::default();
        whole.add(pack, records.iter().copied());
        whole.add(Uuid::from_u128(9), records.into_iter());
        let list = index::write(&whole, [pack, Uuid::from_u128(9)]).remove(0);
        let sealed = seals.seal_object("index/x", &changed(list, &changes));
        frugal(sealed.len(), || {
            let list = seals.open_object("index/x", &sealed).unwrap();
            let Ok(packs) = index::read("index/x", &list) else { return };
            let mut index = Index::default();
            for (pack, records) in packs {
                index.add(pack, records.iter().filter_map(Record::read));
            }
            for pack in index.packs() {
                assert!(index.records(pack).all(|record| index.find(&record.id).is_some()));
            }
        });
    }

    #[test]
    fn a_pack_that_is_changed_behind_its_seals(list in changes(), trailer in changes(), whole in changes()) {
        let seals = seals();
        let (pack, bytes, records) = a_pack(&seals);
        let end = records.last().map_or(0, |last| last.offset + last.stored) as usize;
        let mut plain = Vec::new();
        for record in &records {
            record.write(&mut plain);
        }
        let mut sealed = changed(plain, &list);
        let number = (sealed.len() / LISTED) as u32;
        seals.pack(pack).seal_from(Record::nonce(end as u32), pack::END, &mut sealed, 0);
        let mut tail = (sealed.len() as u32).to_le_bytes().to_vec();
        tail.extend(number.to_le_bytes());
        tail.extend(pack::END);
        let mut other = bytes[..end].to_vec();
        other.extend(sealed);
        other.extend(changed(tail, &trailer));
        let other = changed(other, &whole);
        frugal(other.len(), || {
            let size = other.len() as u64;
            let Ok(tail) = pack::tail(pack, &other, size) else { return };
            assert!(tail <= size && tail >= (TRAILER + TAG) as u64);
            let Ok(read) = pack::list(&seals, pack, &other[(size - tail) as usize..], size) else { return };
            let mut opener = Opener::new(&seals).unwrap();
            for record in read {
                let from = record.offset as usize;
                let mut sealed = other.get(from..from + record.stored as usize).unwrap_or_default().to_vec();
                if let Ok(plain) = opener.open(pack, &record, &mut sealed) {
                    assert_eq!(plain.len(), record.plain as usize);
                }
            }
        });
    }

    #[test]
    fn a_record_that_says_of_itself_what_is_not_so(body in vec(any::<u8>(), 0..500), changes in changes(), plain in any::<u32>(), kind in 0..4_u8) {
        let seals = seals();
        // Of zstd's, where it is to be.
        let body = match kind % 2 {
            0 => body,
            _ => changed(zstd::bulk::compress(&body.repeat(20), 1).unwrap(), &changes),
        };
        let mut packer = Packer::new(&seals, Vec::new());
        let id = seals.chunk(&body);
        let record = packer.push(id, Kind::read(kind).unwrap(), plain, &body);
        let packed = packer.finish();
        let mut listed = Vec::new();
        record.write(&mut listed);
        frugal(packed.bytes.len(), || {
            let Some(record) = Record::read(listed.first_chunk().unwrap()) else { return };
            let mut sealed = packed.bytes[..record.stored as usize].to_vec();
            if let Ok(read) = Opener::new(&seals).unwrap().open(packed.id, &record, &mut sealed) {
                assert!(read == body && kind == 0 && plain as usize == body.len());
            }
        });
    }
}

/// Chunks of 8 GiB, as many copies have brought them: it is printed how long a reader of them takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_65_536_chunks_is_there_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Local::new(dir.path().to_owned()));
    let identity = age::x25519::Identity::generate().to_public().to_string();
    let vault = Vault::create(store.clone(), &Wrapping::Recipient(identity), Making::at(1))
        .await
        .unwrap();
    let (copies, packs, chunks) = (16, 16, 256_u32);
    let id = |n: u32| Id(blake3::hash(&n.to_le_bytes()).into());
    for copy in 0..copies {
        let mut index = Index::default();
        for pack in 0..packs {
            let name = Uuid::new_v4();
            // Looked at by their names alone.
            store
                .put(&pack::name(name), vec![vec![0].into()], Put::Create)
                .await
                .unwrap();
            let first = (copy * packs + pack) * chunks;
            index.add(
                name,
                (0..chunks).map(|n| Record {
                    id: id(first + n),
                    offset: n * 1000,
                    stored: 1000,
                    plain: 128 << 10,
                    kind: Kind::ChunkZstd,
                }),
            );
        }
        let all: Vec<_> = index.packs().collect();
        vault.write_index(index::write(&index, all)).await.unwrap();
    }
    let mut fastest = std::time::Duration::MAX;
    for _ in 0..5 {
        let begin = std::time::Instant::now();
        let reader = vault.reader().await.unwrap();
        fastest = fastest.min(begin.elapsed());
        assert!((0..copies * packs * chunks).all(|n| reader.has(&id(n))));
    }
    println!("{fastest:.1?} for {} chunks", copies * packs * chunks);
    assert!(fastest < std::time::Duration::from_secs(1), "{fastest:?}");
}
