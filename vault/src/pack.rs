//! Packs: many chunks in one object, which says itself what it has.
//!
//! Records, one behind the other, each sealed; then the list of them, sealed as well; then 16 bytes that say how long the
//! list is. The place of a record in the pack is its nonce: no place is sealed twice, for a pack is written once and has a
//! key of its own.

use crate::Id;
use crate::error::{Error, Result};
use crate::keys::{Seal, Seals, TAG};
use bytes::Bytes;
use uuid::Uuid;

/// What a pack ends with.
pub(crate) const END: &[u8; 8] = b"OVPACK01";

/// How many bytes say how long the list is: its length, the number of records, `END`.
pub(crate) const TRAILER: usize = 16;

/// How many bytes a record takes in the list.
pub(crate) const LISTED: usize = 32 + 4 + 4 + 4 + 1;

/// How long a chunk is at most, when it is unpacked.
pub(crate) const LONGEST: u32 = 1 << 20;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A chunk of a disk, as it is.
    Chunk = 0,
    /// A chunk of a disk, by zstd.
    ChunkZstd = 1,
    /// A piece of a disk's table, as it is.
    Table = 2,
    /// A piece of a disk's table, by zstd.
    TableZstd = 3,
}

impl Kind {
    pub(crate) const fn read(n: u8) -> Option<Self> {
        match n {
            0 => Some(Self::Chunk),
            1 => Some(Self::ChunkZstd),
            2 => Some(Self::Table),
            3 => Some(Self::TableZstd),
            _ => None,
        }
    }

    /// Whether it is a piece of a table.
    #[must_use]
    pub const fn is_table(self) -> bool {
        matches!(self, Self::Table | Self::TableZstd)
    }

    const fn is_zstd(self) -> bool {
        matches!(self, Self::ChunkZstd | Self::TableZstd)
    }
}

/// Where in a pack a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it has.
    pub id: Id,
    /// Its first byte in the pack.
    pub offset: u32,
    /// Its bytes in the pack, the seal among them.
    pub stored: u32,
    /// Its bytes when it is opened and unpacked.
    pub plain: u32,
    /// How it is stored.
    pub kind: Kind,
}

impl Record {
    /// What the seal is bound to beside the place.
    fn about(&self) -> [u8; 37] {
        let mut about = [0; 37];
        about[..32].copy_from_slice(&self.id.0);
        about[32..36].copy_from_slice(&self.plain.to_le_bytes());
        about[36] = self.kind as u8;
        about
    }

    pub(crate) fn nonce(offset: u32) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&offset.to_le_bytes());
        nonce
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        to.extend(self.id.0);
        to.extend(self.offset.to_le_bytes());
        to.extend(self.stored.to_le_bytes());
        to.extend(self.plain.to_le_bytes());
        to.push(self.kind as u8);
    }

    pub(crate) fn read(from: &[u8; LISTED]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(from.get(at..at + 4)?.try_into().ok()?));
        let record = Self {
            id: Id(from.get(..32)?.try_into().ok()?),
            offset: word(32)?,
            stored: word(36)?,
            plain: word(40)?,
            kind: Kind::read(*from.get(44)?)?,
        };
        // Nobody is made to take more memory than a chunk needs.
        let fits = record.plain <= LONGEST
            && record.stored >= TAG as u32
            && record.stored <= record.plain + TAG as u32
            && record.offset.checked_add(record.stored).is_some();
        fits.then_some(record)
    }
}

/// Reads a list of records.
pub(crate) fn read_list(bytes: &[u8]) -> Option<Vec<Record>> {
    let (records, rest) = bytes.as_chunks::<LISTED>();
    match rest {
        [] => records.iter().map(Record::read).collect(),
        _ => None,
    }
}

/// An object's name.
#[must_use]
pub fn name(pack: Uuid) -> String {
    let hex = pack.simple().to_string();
    format!("packs/{}/{hex}", &hex[30..])
}

/// The pack of an object's name.
#[must_use]
pub fn of_name(name: &str) -> Option<Uuid> {
    Uuid::try_parse(name.rsplit('/').next()?)
        .ok()
        .filter(|pack| self::name(*pack) == name)
}

/// A pack that is being filled.
pub(crate) struct Packer {
    pub(crate) id: Uuid,
    seal: Seal,
    bytes: Vec<u8>,
    records: Vec<Record>,
}

/// A pack that is full.
pub(crate) struct Packed {
    pub(crate) id: Uuid,
    pub(crate) bytes: Bytes,
}

impl Packer {
    /// One that is filled into `room`, which is empty.
    pub(crate) fn new(seals: &Seals, room: Vec<u8>) -> Self {
        let id = Uuid::new_v4();
        Self {
            id,
            seal: seals.pack(id),
            bytes: room,
            records: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Puts a record behind the others. `body` is packed already, if `kind` says so.
    pub(crate) fn push(&mut self, id: Id, kind: Kind, plain: u32, body: &[u8]) -> Record {
        let at = self.bytes.len();
        let record = Record {
            id,
            offset: at as u32,
            stored: (body.len() + TAG) as u32,
            plain,
            kind,
        };
        self.bytes.extend(body);
        self.seal
            .seal_from(Record::nonce(record.offset), &record.about(), &mut self.bytes, at);
        self.records.push(record);
        record
    }

    pub(crate) fn finish(mut self) -> Packed {
        let at = self.bytes.len();
        for record in &self.records {
            record.write(&mut self.bytes);
        }
        self.seal
            .seal_from(Record::nonce(at as u32), END, &mut self.bytes, at);
        let list = (self.bytes.len() - at) as u32;
        self.bytes.extend(list.to_le_bytes());
        self.bytes.extend((self.records.len() as u32).to_le_bytes());
        self.bytes.extend(END);
        Packed {
            id: self.id,
            bytes: self.bytes.into(),
        }
    }
}

/// How long the list and what is behind it are, by a pack's last bytes.
pub(crate) fn tail(pack: Uuid, end: &[u8], size: u64) -> Result<u64> {
    let damaged = |why: &str| Error::damaged(name(pack), why);
    let trailer = end
        .last_chunk::<TRAILER>()
        .ok_or_else(|| damaged("it is too short"))?;
    let (list, rest) = trailer
        .split_first_chunk::<4>()
        .ok_or_else(|| damaged("it is too short"))?;
    if rest.get(4..) != Some(&END[..]) {
        return Err(damaged("it does not end as it must"));
    }
    let tail = u64::from(u32::from_le_bytes(*list)) + TRAILER as u64;
    if tail > size || tail < (TRAILER + TAG) as u64 {
        return Err(damaged("its list is longer than itself"));
    }
    Ok(tail)
}

/// The records of a pack of `size` bytes, of its last bytes, which [`tail`] says the number of.
pub(crate) fn list(seals: &Seals, pack: Uuid, end: &[u8], size: u64) -> Result<Vec<Record>> {
    let damaged = |why: &str| Error::damaged(name(pack), why);
    let at = size - end.len() as u64;
    let at = u32::try_from(at).map_err(|_| damaged("it is too long"))?;
    let sealed = end.len().checked_sub(TRAILER).and_then(|n| end.get(..n));
    let mut list = sealed.ok_or_else(|| damaged("it is too short"))?.to_vec();
    let opened = seals.pack(pack).open(Record::nonce(at), END, &mut list);
    let opened = opened.ok_or_else(|| damaged("the seal of its list is broken"))?;
    let records = read_list(opened).ok_or_else(|| damaged("its list is none"))?;
    let number = end.get(end.len() - TRAILER + 4..end.len() - 8);
    if number != Some(&(records.len() as u32).to_le_bytes()[..]) {
        return Err(damaged("its list has another length than it says"));
    }
    let mut next = 0;
    for record in &records {
        if record.offset != next {
            return Err(damaged("its list does not fit its records"));
        }
        next = record.offset.saturating_add(record.stored);
    }
    if next != at {
        return Err(damaged("its list does not fit its records"));
    }
    Ok(records)
}

/// Opens records, and unpacks them.
pub(crate) struct Opener<'a> {
    seals: &'a Seals,
    unpack: zstd::bulk::Decompressor<'static>,
    /// Whose seal is at hand.
    pack: Option<(Uuid, Seal)>,
    plain: Vec<u8>,
}

impl<'a> Opener<'a> {
    pub(crate) fn new(seals: &'a Seals) -> Result<Self> {
        Ok(Self {
            seals,
            unpack: zstd::bulk::Decompressor::new().map_err(|_| Error::Thread)?,
            pack: None,
            plain: Vec::new(),
        })
    }

    /// What a record has, which is what its name says. It is opened where it is; all but the last [`TAG`] bytes of `sealed` are
    /// then what was sealed.
    pub(crate) fn open<'b>(
        &'b mut self,
        pack: Uuid,
        record: &Record,
        sealed: &'b mut [u8],
    ) -> Result<&'b [u8]> {
        let damaged = |why: &str| Error::damaged(name(pack), format!("at {}, {why}", record.offset));
        let seal = match &mut self.pack {
            Some((id, seal)) if *id == pack => seal,
            other => &mut other.insert((pack, self.seals.pack(pack))).1,
        };
        let body = seal.open(Record::nonce(record.offset), &record.about(), sealed);
        let body = body.ok_or_else(|| damaged("a seal is broken"))?;
        let plain = if record.kind.is_zstd() {
            self.plain.clear();
            self.plain.reserve(record.plain as usize);
            let unpacked = self.unpack.decompress_to_buffer(body, &mut self.plain);
            unpacked.map_err(|e| damaged(&format!("what is packed there cannot be unpacked: {e}")))?;
            &self.plain[..]
        } else {
            body
        };
        let id = match record.kind.is_table() {
            true => self.seals.table(plain),
            false => self.seals.chunk(plain),
        };
        if id != record.id || plain.len() != record.plain as usize {
            return Err(damaged("a chunk is not what its name says"));
        }
        Ok(plain)
    }
}

/// Packs chunks.
pub(crate) struct Squeezer(zstd::bulk::Compressor<'static>, Vec<u8>);

impl Squeezer {
    pub(crate) fn new(level: i32) -> Result<Self> {
        let compressor = zstd::bulk::Compressor::new(level).map_err(|_| Error::Thread)?;
        Ok(Self(compressor, Vec::new()))
    }

    /// The chunk by zstd, or itself where that is no shorter.
    pub(crate) fn squeeze<'a>(&'a mut self, plain: &'a [u8], table: bool) -> (Kind, &'a [u8]) {
        self.1.clear();
        self.1.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        let packed = self.0.compress_to_buffer(plain, &mut self.1);
        match (packed, table) {
            // Less than a sixteenth is not worth the time of who reads it.
            (Ok(n), false) if n < plain.len() - plain.len() / 16 => (Kind::ChunkZstd, &self.1),
            (Ok(n), true) if n < plain.len() => (Kind::TableZstd, &self.1),
            (_, false) => (Kind::Chunk, plain),
            (_, true) => (Kind::Table, plain),
        }
    }
}
