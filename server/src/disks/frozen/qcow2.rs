//! One qcow2 file that nobody writes.
//!
//! The format is `docs/interop/qcow2.txt` of QEMU. Refcounts, bitmaps and internal snapshots are of no interest here.

use super::FrozenError;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Second-level tables are read in slices of so many bytes: at the usual cluster size one is about 32 MiB of the disk.
const SLICE: u64 = 4096;
/// How many slices a layer keeps: more than threads that read at once.
const SLICES: usize = 32;
/// As many bytes as QEMU takes of a first-level table.
const L1_BYTES: u64 = 32 << 20;
/// How many entries one look goes through, so that many looks at a long run do not go through all of it each time.
const STEPS: usize = 128;

/// Where bits of an entry hold an offset in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;

const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
/// The clusters may be compressed in another way; only those that are matter.
const COMPRESSION: u64 = 1 << 3;

/// What a layer has at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Nothing: what is below shows through.
    Below,
    Zeros,
    /// Data, from this place in the file on.
    Data(u64),
}

/// A file, its head and its first-level table.
pub struct Qcow2 {
    path: PathBuf,
    file: File,
    file_bytes: u64,
    version: u32,
    /// What a guest sees, in bytes.
    pub bytes: u64,
    /// Whether the head names a backing file.
    pub backed: bool,
    cluster_bits: u32,
    l1: Vec<u64>,
    /// Slices by their place in the file, the one used last first.
    slices: Mutex<Vec<(u64, Arc<[u64]>)>>,
}

/// The slice that was looked at last, and its place.
type Last = Option<(u64, Arc<[u64]>)>;

impl Qcow2 {
    pub fn open(path: &Path) -> Result<Self, FrozenError> {
        let io = |op| FrozenError::io(op, path);
        let file = File::open(path).map_err(io("open"))?;
        let file_bytes = file.metadata().map_err(io("look at"))?.len();
        let mut head = [0; 80];
        let damaged = |why: String| FrozenError::Damaged {
            path: path.to_owned(),
            why,
        };
        let refused = |why: &str| FrozenError::Refused {
            path: path.to_owned(),
            why: why.to_owned(),
        };
        // Version 2 has 72 bytes of head, and a first cluster behind them.
        if file_bytes < head.len() as u64 {
            return Err(damaged("it is too short for a qcow2 image".into()));
        }
        file.read_exact_at(&mut head, 0).map_err(io("read"))?;
        if head[..4] != *b"QFI\xfb" {
            return Err(damaged("it does not begin as a qcow2 image".into()));
        }
        let version = be32(&head, 4);
        if !matches!(version, 2 | 3) {
            return Err(refused(&format!("version {version} of qcow2 is not known")));
        }
        let features = if version == 2 { 0 } else { be64(&head, 72) };
        if features & CORRUPT != 0 {
            return Err(damaged("QEMU found it damaged, and marked it".into()));
        }
        if features & !(DIRTY | COMPRESSION) != 0 || be32(&head, 32) != 0 {
            return Err(refused(
                "it is encrypted, has a data file, or uses other features of qcow2 that are not taken",
            ));
        }
        let cluster_bits = be32(&head, 20);
        if !(9..=21).contains(&cluster_bits) {
            return Err(damaged(format!(
                "it says that a cluster has 2^{cluster_bits} bytes"
            )));
        }
        let bytes = be64(&head, 24);
        // How many entries are of use; there may be more.
        let entries = bytes.div_ceil(1 << (2 * cluster_bits - 3));
        if entries > be32(&head, 36).into() || entries * 8 > L1_BYTES {
            return Err(damaged(format!(
                "its first-level table does not fit its {bytes} bytes"
            )));
        }
        let qcow2 = Self {
            path: path.to_owned(),
            file,
            file_bytes,
            version,
            bytes,
            backed: be64(&head, 8) != 0,
            cluster_bits,
            l1: Vec::new(),
            slices: Mutex::default(),
        };
        let l1 = qcow2.table("first-level table", be64(&head, 40), entries * 8)?;
        Ok(Self { l1, ..qcow2 })
    }

    /// What is at `from`, and up to where that is so: `end` at most, and not always as far as it goes.
    pub fn extent(&self, from: u64, end: u64) -> Result<(u64, Extent), FrozenError> {
        if from >= self.bytes {
            return Ok((end, Extent::Zeros));
        }
        let end = end.min(self.bytes);
        let mut last = None;
        let (mut to, found) = self.entry(from, &mut last)?;
        for _ in 1..STEPS {
            if to >= end {
                break;
            }
            let (next, extent) = self.entry(to, &mut last)?;
            let goes_on = match (found, extent) {
                (Extent::Data(begin), Extent::Data(place)) => place - begin.min(place) == to - from,
                (a, b) => a == b,
            };
            if !goes_on {
                break;
            }
            to = next;
        }
        Ok((to.min(end), found))
    }

    /// Reads what [`Extent::Data`] spoke of.
    pub fn read(&self, place: u64, buffer: &mut [u8]) -> Result<(), FrozenError> {
        // The file may end within its last cluster.
        let there = self.file_bytes.saturating_sub(place).min(buffer.len() as u64);
        let (there, behind) = buffer.split_at_mut(there as usize);
        behind.fill(0);
        self.file
            .read_exact_at(there, place)
            .map_err(FrozenError::io("read", &self.path))
    }

    /// What the entry for `at` says, and where what it is about ends. `at` lies before the end of the disk.
    fn entry(&self, at: u64, last: &mut Last) -> Result<(u64, Extent), FrozenError> {
        let (bits, table_bits) = (self.cluster_bits, 2 * self.cluster_bits - 3);
        let index = at >> table_bits;
        let l1 = self.l1.get(index as usize).copied().unwrap_or_default();
        if l1 & !(OFFSET | COPIED) != 0 {
            return Err(self.damaged(format!("entry {index} of its first-level table is {l1:#x}")));
        }
        if l1 & OFFSET == 0 {
            return Ok(((index + 1) << table_bits, Extent::Below));
        }
        self.aligned("a second-level table", l1 & OFFSET)?;
        let cluster = at >> bits;
        let in_table = (cluster << 3) & ((1 << bits) - 1);
        let slice = (l1 & OFFSET) + in_table / SLICE * SLICE;
        if last.as_ref().is_none_or(|(place, _)| *place != slice) {
            *last = Some((slice, self.slice(slice)?));
        }
        let entry = last
            .as_ref()
            .and_then(|(_, entries)| entries.get((in_table % SLICE / 8) as usize))
            .copied()
            .unwrap_or_default();
        let next = (cluster + 1) << bits;
        Ok((next, self.meaning(at, entry)?))
    }

    fn meaning(&self, at: u64, entry: u64) -> Result<Extent, FrozenError> {
        if entry & COMPRESSED != 0 {
            return Err(FrozenError::Refused {
                path: self.path.clone(),
                why: format!("what it has at {at} is compressed"),
            });
        }
        let zero = if self.version == 2 { 0 } else { ZERO };
        if entry & !(OFFSET | COPIED | zero) != 0 {
            return Err(self.damaged(format!("its entry for {at} is {entry:#x}")));
        }
        let place = entry & OFFSET;
        self.aligned("a cluster", place)?;
        if entry & zero != 0 {
            return Ok(Extent::Zeros);
        }
        if place == 0 {
            return Ok(Extent::Below);
        }
        if place >= self.file_bytes {
            return Err(self.damaged(format!("what it has at {at} would lie behind its end")));
        }
        Ok(Extent::Data(place + (at & ((1 << self.cluster_bits) - 1))))
    }

    fn slice(&self, place: u64) -> Result<Arc<[u64]>, FrozenError> {
        let slices = || self.slices.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = slices();
        if let Some(n) = kept.iter().position(|(at, _)| *at == place) {
            kept[..=n].rotate_right(1);
            return Ok(Arc::clone(&kept[0].1));
        }
        drop(kept);
        // Two threads may read the same: that costs less than to wait.
        let bytes = SLICE.min(1 << self.cluster_bits);
        let entries: Arc<[u64]> = self.table("second-level table", place, bytes)?.into();
        let mut kept = slices();
        kept.truncate(SLICES - 1);
        kept.insert(0, (place, Arc::clone(&entries)));
        Ok(entries)
    }

    fn table(&self, what: &'static str, place: u64, bytes: u64) -> Result<Vec<u64>, FrozenError> {
        if place.checked_add(bytes).is_none_or(|end| end > self.file_bytes) {
            return Err(self.damaged(format!("its {what} would lie behind its end, at {place}")));
        }
        let mut table = vec![0; bytes as usize];
        self.file
            .read_exact_at(&mut table, place)
            .map_err(FrozenError::io("read the tables of", &self.path))?;
        Ok(table.chunks_exact(8).map(|entry| be64(entry, 0)).collect())
    }

    fn aligned(&self, what: &str, place: u64) -> Result<(), FrozenError> {
        if place.trailing_zeros() < self.cluster_bits {
            return Err(self.damaged(format!("{what} would lie askew, at {place}")));
        }
        Ok(())
    }

    fn damaged(&self, why: String) -> FrozenError {
        FrozenError::Damaged {
            path: self.path.clone(),
            why,
        }
    }
}

fn be32(b: &[u8], at: usize) -> u32 {
    b[at..at + 4].iter().fold(0, |n, b| n << 8 | u32::from(*b))
}

fn be64(b: &[u8], at: usize) -> u64 {
    b[at..at + 8].iter().fold(0, |n, b| n << 8 | u64::from(*b))
}
