//! What has to be done for a copy in any case, done by itself: one thread, no store, nothing allocated on the way.

use crate::Result;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use vault::Source;

/// As a vault has it.
const CHUNK: usize = 128 << 10;

/// What each thing has taken, in seconds of a processor.
struct Taken {
    since: f64,
}

impl Taken {
    fn new() -> Self {
        Self { since: now() }
    }

    fn add(&mut self, to: &mut f64) {
        let now = now();
        *to += now - self.since;
        self.since = now;
    }
}

fn now() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

struct Record {
    disk: u64,
    stored: u64,
    length: usize,
    packed: bool,
}

/// Reads, hashes, packs and seals all chunks of a disk that are not zeros; then reads, opens, unpacks, hashes and writes them.
pub fn take(disk: &Path, dir: &Path) -> Result<Value> {
    let source = vault::source::Raw::new(File::open(disk)?)?;
    let sealed = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(dir.join("sealed"))?;
    let key = UnboundKey::new(&AES_256_GCM, &[7; 32]).map_err(|_| "no key")?;
    let key = LessSafeKey::new(key);
    let nonce = |at: u64| {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&at.to_le_bytes());
        Nonce::assume_unique_for_key(nonce)
    };
    let hash_key = [9; 32];
    let mut packer = zstd::bulk::Compressor::new(1)?;
    let mut plain = vec![0; CHUNK];
    let mut body: Vec<u8> = Vec::with_capacity(zstd::zstd_safe::compress_bound(CHUNK) + 16);
    let (mut read, mut hash, mut pack, mut seal) = (0.0, 0.0, 0.0, 0.0);
    let mut ids = Vec::new();
    let mut records: Vec<Record> = Vec::new();
    let (mut disk_at, mut at) = (0, 0);
    while let Some(data) = source.data(disk_at, source.bytes())? {
        disk_at = disk_at.max(data.start / CHUNK as u64 * CHUNK as u64);
        while disk_at < data.end {
            let length = (source.bytes() - disk_at).min(CHUNK as u64) as usize;
            let plain = plain.get_mut(..length).unwrap_or_default();
            let mut taken = Taken::new();
            source.read(disk_at, plain)?;
            taken.add(&mut read);
            if plain.iter().any(|byte| *byte != 0) {
                let mut taken = Taken::new();
                ids.push(blake3::keyed_hash(&hash_key, plain));
                taken.add(&mut hash);
                body.clear();
                let n = packer.compress_to_buffer(plain, &mut body)?;
                let packed = n < length - length / 16;
                if !packed {
                    body.clear();
                    body.extend_from_slice(plain);
                }
                taken.add(&mut pack);
                let tag = key
                    .seal_in_place_separate_tag(nonce(at), Aad::empty(), &mut body)
                    .map_err(|_| "not sealed")?;
                taken.add(&mut seal);
                body.extend_from_slice(tag.as_ref());
                sealed.write_all_at(&body, at)?;
                records.push(Record {
                    disk: disk_at,
                    stored: body.len() as u64,
                    length,
                    packed,
                });
                at += body.len() as u64;
            }
            disk_at += CHUNK as u64;
        }
    }
    // Else the system would still write it when the other file is to be written.
    sealed.sync_all()?;
    let back = Back {
        key: &key,
        sealed: &sealed,
        to: File::create_new(dir.join("restored"))?,
        records: &records,
        ids: &ids,
    };
    let back = back.take(source.bytes(), nonce, &hash_key)?;
    Ok(json!({
        "copy": read + hash + pack + seal, "verify": back[..4].iter().sum::<f64>(), "restore": back.iter().sum::<f64>(),
        "scan": read + hash,
        "parts": {"read": read, "hash": hash, "pack": pack, "seal": seal,
            "back": {"read": back[0], "open": back[1], "unpack": back[2], "hash": back[3], "write": back[4]}},
        "plain": records.iter().map(|r| r.length as u64).sum::<u64>(), "stored": at,
    }))
}

struct Back<'a> {
    key: &'a LessSafeKey,
    sealed: &'a File,
    to: File,
    records: &'a [Record],
    ids: &'a [blake3::Hash],
}

impl Back<'_> {
    /// Seconds for reading, opening, unpacking, hashing, writing.
    fn take(&self, bytes: u64, nonce: impl Fn(u64) -> Nonce, hash_key: &[u8; 32]) -> Result<[f64; 5]> {
        self.to.set_len(bytes)?;
        let mut all = [0.0; 5];
        let [read, open, unpack, hash, write] = &mut all;
        let mut unpacker = zstd::bulk::Decompressor::new()?;
        let mut body = vec![0; 2 * CHUNK];
        let mut plain: Vec<u8> = Vec::with_capacity(CHUNK);
        let mut at = 0;
        for (record, id) in self.records.iter().zip(self.ids) {
            let body = body.get_mut(..record.stored as usize).unwrap_or_default();
            let mut taken = Taken::new();
            self.sealed.read_exact_at(body, at)?;
            taken.add(read);
            let opened = self.key.open_in_place(nonce(at), Aad::empty(), body);
            let opened = opened.map_err(|_| "a broken seal")?;
            taken.add(open);
            let chunk: &[u8] = if record.packed {
                plain.clear();
                unpacker.decompress_to_buffer(opened, &mut plain)?;
                &plain
            } else {
                opened
            };
            taken.add(unpack);
            let right = blake3::keyed_hash(hash_key, chunk) == *id;
            taken.add(hash);
            self.to.write_all_at(chunk, record.disk)?;
            taken.add(write);
            if !right || chunk.len() != record.length {
                return Err("a chunk came back as another".into());
            }
            at += record.stored;
        }
        Ok(all)
    }
}
