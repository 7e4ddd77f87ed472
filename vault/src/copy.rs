//! A copy: what one object says of it, which is complete by itself.

use crate::Id;
use crate::error::{Error, Result};
use crate::keys::Seals;
use crate::pack;
use serde::{Deserialize, Serialize};
use std::io::Read;
use uuid::Uuid;

/// How many chunks one piece of a disk's table names.
pub const TABLE: usize = 1024;

/// The copy of a machine at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Copy {
    /// Its own id.
    pub id: Uuid,
    /// When it was committed, in microseconds since 1970.
    pub created: i64,
    /// The copy that it took over what had not changed from. It does not need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Uuid>,
    /// What its maker says of it: the machine, the snapshot.
    pub about: serde_json::Value,
    /// Its disks, and its memory where it has that.
    pub disks: Vec<Disk>,
    /// What was moved to make it.
    pub moved: Moved,
}

/// One disk of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// As its maker names it.
    pub name: String,
    /// In bytes.
    pub bytes: u64,
    /// How many bytes a chunk has; the last may have less.
    pub chunk: u32,
    /// The pieces of its table: each names the next [`TABLE`] chunks.
    pub tables: Vec<Id>,
    /// What its maker needs to know what has changed since.
    #[serde(default)]
    pub track: serde_json::Value,
}

impl Disk {
    /// How many bytes one piece of the table is about.
    #[must_use]
    pub const fn stride(&self) -> u64 {
        self.chunk as u64 * TABLE as u64
    }
}

/// What was moved for a copy, or is up to now. Bytes of disks, unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Moved {
    /// What the disks have, holes included.
    pub logical: u64,
    /// How far the disks were gone through, holes and what had not changed included.
    pub done: u64,
    /// What was read.
    pub read: u64,
    /// What of that was not in the vault, as it was read.
    pub new: u64,
    /// What was in the vault already, of what was read.
    pub reused: u64,
    /// What was written to the vault, in its own bytes.
    pub stored: u64,
    /// Chunks that were written.
    pub chunks_new: u64,
    /// Chunks that were read and were in the vault.
    pub chunks_reused: u64,
    /// Chunks that had not changed, by what was known, and were not read.
    pub chunks_kept: u64,
}

impl std::ops::AddAssign for Moved {
    fn add_assign(&mut self, other: Self) {
        self.logical += other.logical;
        self.done += other.done;
        self.read += other.read;
        self.new += other.new;
        self.reused += other.reused;
        self.stored += other.stored;
        self.chunks_new += other.chunks_new;
        self.chunks_reused += other.chunks_reused;
        self.chunks_kept += other.chunks_kept;
    }
}

/// An object's name.
#[must_use]
pub fn name(id: Uuid) -> String {
    format!("copies/{}", id.simple())
}

/// How long a copy's object may be when it is unpacked: a hundred terabytes of disks, twice.
const LONGEST: u64 = 128 << 20;

pub(crate) fn seal(seals: &Seals, copy: &Copy) -> Result<Vec<u8>> {
    let name = name(copy.id);
    let json = serde_json::to_vec(copy).map_err(|e| Error::damaged(&name, e.to_string()))?;
    let packed = zstd::bulk::compress(&json, 3).map_err(|e| Error::damaged(&name, e.to_string()))?;
    Ok(seals.seal_object(&name, &packed))
}

pub(crate) fn open(seals: &Seals, id: Uuid, sealed: &[u8]) -> Result<Copy> {
    let name = name(id);
    let packed = seals.open_object(&name, sealed)?;
    let damaged = |why: String| Error::damaged(&name, why);
    // Memory is taken as bytes come, not by what the object says that there will be.
    let mut json = Vec::new();
    let unpack = zstd::stream::read::Decoder::with_buffer(&packed[..]);
    let unpacked = unpack.and_then(|unpack| unpack.take(LONGEST + 1).read_to_end(&mut json));
    unpacked.map_err(|e| damaged(e.to_string()))?;
    if json.len() as u64 > LONGEST {
        return Err(damaged("it is longer than any copy".into()));
    }
    let copy: Copy = serde_json::from_slice(&json).map_err(|e| damaged(e.to_string()))?;
    if copy.id != id {
        return Err(damaged(format!("it is of another copy, {}", copy.id)));
    }
    for disk in &copy.disks {
        if disk.chunk == 0
            || disk.chunk > pack::LONGEST
            || disk.tables.len() as u64 != disk.bytes.div_ceil(disk.stride())
        {
            return Err(damaged(format!(
                "the table of {} does not fit its size",
                disk.name
            )));
        }
    }
    Ok(copy)
}

/// Reads a piece of a table.
pub(crate) fn read_table(bytes: &[u8]) -> Option<Vec<Id>> {
    let (ids, rest) = bytes.as_chunks::<32>();
    (rest.is_empty() && ids.len() <= TABLE).then(|| ids.iter().map(|id| Id(*id)).collect())
}
