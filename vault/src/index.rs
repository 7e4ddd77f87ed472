//! Which pack has which chunk.
//!
//! A vault has millions of chunks, and a writer knows them all: 44 bytes are kept of each, and 6 to 12 to find it by.

use crate::Id;
use crate::damage::Bad;
use crate::error::{Error, Result};
use crate::pack::{self, Kind, LISTED, Record};
use hashbrown::HashTable;
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// A record without its pack.
struct Kept {
    id: Id,
    offset: u32,
    stored: u32,
    /// The kind is in the two bits on top: no chunk is that long.
    plain: u32,
}

impl Kept {
    const fn new(record: &Record) -> Self {
        Self {
            id: record.id,
            offset: record.offset,
            stored: record.stored,
            plain: record.plain | (record.kind as u32) << 30,
        }
    }

    fn record(&self) -> Record {
        Record {
            id: self.id,
            offset: self.offset,
            stored: self.stored,
            plain: self.plain & (u32::MAX >> 2),
            kind: Kind::read((self.plain >> 30) as u8).unwrap_or(Kind::Chunk),
        }
    }
}

struct Pack {
    id: Uuid,
    /// How many records the packs before have.
    first: u32,
    records: Vec<Kept>,
}

/// All packs with their records, and all chunks that may be read.
#[derive(Default)]
pub(crate) struct Index {
    packs: Vec<Pack>,
    numbers: HashMap<Uuid, usize>,
    /// Records by their numbers, counted through all packs. Memory ends before the numbers do.
    table: HashTable<u32>,
    /// What is known to be damaged: it is found in no place of these.
    bad: Bad,
}

/// Where chunks are when some packs are left out.
pub(crate) struct Places<'a> {
    index: &'a Index,
    table: HashTable<u32>,
}

/// Names are BLAKE3, with the vault's own key: nobody can make them fall together.
fn hash(id: &Id) -> u64 {
    id.0.first_chunk().copied().map_or(0, u64::from_le_bytes)
}

/// The pack of a record, by the record's number.
fn pack_of(packs: &[Pack], number: u32) -> Option<&Pack> {
    packs.get(
        packs
            .partition_point(|pack| pack.first <= number)
            .checked_sub(1)?,
    )
}

fn kept(packs: &[Pack], number: u32) -> Option<&Kept> {
    let pack = pack_of(packs, number)?;
    pack.records.get((number - pack.first) as usize)
}

impl Index {
    /// One that takes no chunk from where it is damaged.
    pub(crate) fn new(bad: Bad) -> Self {
        Self {
            bad,
            ..Self::default()
        }
    }

    /// Takes what is known to be damaged for this.
    pub(crate) fn set_bad(&mut self, bad: Bad) {
        self.bad = bad;
        let mut table = std::mem::take(&mut self.table);
        table.clear();
        self.table_of(&mut table, 0..self.total());
        self.table = table;
    }

    fn lookup(&self, table: &HashTable<u32>, id: &Id) -> Option<u32> {
        let is = |number: &u32| kept(&self.packs, *number).is_some_and(|kept| kept.id == *id);
        table.find(hash(id), is).copied()
    }

    fn hasher(packs: &[Pack]) -> impl Fn(&u32) -> u64 {
        |number| kept(packs, *number).map_or(0, |kept| hash(&kept.id))
    }

    fn total(&self) -> u32 {
        self.packs
            .last()
            .map_or(0, |pack| pack.first + pack.records.len() as u32)
    }

    fn begin(&mut self, id: Uuid, records: Vec<Kept>) {
        let first = self.total();
        self.numbers.insert(id, self.packs.len());
        self.packs.push(Pack { id, first, records });
    }

    /// Takes a pack's records up, unless it is known. A chunk that is there already stays where it is.
    pub(crate) fn add(&mut self, pack: Uuid, records: impl Iterator<Item = Record>) {
        if self.numbers.contains_key(&pack) {
            return;
        }
        let from = self.total();
        let mut kept = Vec::with_capacity(records.size_hint().0);
        kept.extend(records.map(|record| Kept::new(&record)));
        kept.shrink_to_fit();
        self.begin(pack, kept);
        let mut table = std::mem::take(&mut self.table);
        self.table_of(&mut table, from..self.total());
        self.table = table;
    }

    fn table_of(&self, table: &mut HashTable<u32>, numbers: std::ops::Range<u32>) {
        for number in numbers {
            if let Some(kept) = kept(&self.packs, number)
                && self.lookup(table, &kept.id).is_none()
                && !self.is_bad(number, &kept.id)
            {
                table.insert_unique(hash(&kept.id), number, Self::hasher(&self.packs));
            }
        }
    }

    fn is_bad(&self, number: u32, id: &Id) -> bool {
        // Mostly there is none.
        !self.bad.is_empty()
            && pack_of(&self.packs, number)
                .and_then(|pack| self.bad.get(&pack.id))
                .is_some_and(|bad| bad.contains(id))
    }

    /// Takes one record up, of the pack that is being filled; from now on the chunk is there.
    pub(crate) fn claim(&mut self, pack: Uuid, record: &Record) {
        let number = self.total();
        match self.packs.last_mut() {
            Some(last) if last.id == pack => last.records.push(Kept::new(record)),
            last => {
                if let Some(last) = last {
                    last.records.shrink_to_fit();
                }
                self.begin(pack, vec![Kept::new(record)]);
            }
        }
        let Self { packs, table, .. } = self;
        let is = |other: &u32| kept(packs, *other).is_some_and(|kept| kept.id == record.id);
        match table.find_mut(hash(&record.id), is) {
            Some(place) => *place = number,
            None => {
                table.insert_unique(hash(&record.id), number, Self::hasher(packs));
            }
        }
    }

    pub(crate) fn has(&self, id: &Id) -> bool {
        self.lookup(&self.table, id).is_some()
    }

    /// The pack and the place in it.
    pub(crate) fn find(&self, id: &Id) -> Option<(Uuid, Record)> {
        let number = self.lookup(&self.table, id)?;
        let kept = kept(&self.packs, number)?;
        Some((pack_of(&self.packs, number)?.id, kept.record()))
    }

    /// Every place that a chunk may be in, also where it is known to be damaged. Goes through all records: for when it is not
    /// where [`Self::find`] says.
    pub(crate) fn places(&self, id: &Id) -> Vec<(Uuid, Record)> {
        let mut places = Vec::new();
        for pack in &self.packs {
            let here = pack.records.iter().filter(|kept| kept.id == *id);
            places.extend(here.map(|kept| (pack.id, kept.record())));
        }
        places
    }

    /// How many different chunks there are.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn has_pack(&self, pack: Uuid) -> bool {
        self.numbers.contains_key(&pack)
    }

    /// All packs.
    pub(crate) fn packs(&self) -> impl Iterator<Item = Uuid> {
        self.packs.iter().map(|pack| pack.id)
    }

    /// What a pack has, in its order; nothing if it is not known.
    pub(crate) fn records(&self, pack: Uuid) -> impl ExactSizeIterator<Item = Record> + Clone {
        let pack = self.numbers.get(&pack).and_then(|n| self.packs.get(*n));
        let records = pack.map(|pack| pack.records.as_slice()).unwrap_or_default();
        records.iter().map(Kept::record)
    }

    /// Where chunks are when these packs are left out.
    pub(crate) fn without(&self, packs: &HashSet<Uuid>) -> Places<'_> {
        let mut table = HashTable::with_capacity(self.len());
        for pack in self.packs.iter().filter(|pack| !packs.contains(&pack.id)) {
            self.table_of(&mut table, pack.first..pack.first + pack.records.len() as u32);
        }
        Places { index: self, table }
    }
}

impl Places<'_> {
    /// The pack that a chunk is read from.
    pub(crate) fn pack(&self, id: &Id) -> Option<Uuid> {
        let number = self.index.lookup(&self.table, id)?;
        pack_of(&self.index.packs, number).map(|pack| pack.id)
    }
}

/// An object's name.
pub(crate) fn name(id: Uuid) -> String {
    format!("index/{}", id.simple())
}

/// How long what is in an object gets before another is begun: who reads them has some in memory at once.
const LONG: usize = 4 << 20;

/// What objects of the index have within, that name these packs: of each pack its id, how many records it has, and those.
pub(crate) fn write(index: &Index, packs: impl IntoIterator<Item = Uuid>) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for pack in packs {
        let records = index.records(pack);
        if all.last().is_none_or(|last| last.len() >= LONG) {
            all.push(Vec::new());
        }
        let Some(bytes) = all.last_mut() else { continue };
        bytes.extend(pack.as_bytes());
        bytes.extend((records.len() as u32).to_le_bytes());
        for record in records {
            record.write(bytes);
        }
    }
    all
}

/// A pack with its list, of which each record can be read.
type Listed<'a> = (Uuid, &'a [[u8; LISTED]]);

/// Reads what [`write`] wrote.
pub(crate) fn read<'a>(name: &str, mut bytes: &'a [u8]) -> Result<Vec<Listed<'a>>> {
    let damaged = || Error::damaged(name, "it is no list of packs");
    let mut packs = Vec::new();
    while !bytes.is_empty() {
        let (id, rest) = bytes.split_first_chunk().ok_or_else(damaged)?;
        let (number, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let length = (u32::from_le_bytes(*number) as usize)
            .checked_mul(LISTED)
            .ok_or_else(damaged)?;
        let (list, rest) = rest.split_at_checked(length).ok_or_else(damaged)?;
        let (list, _) = list.as_chunks();
        if !list.iter().all(|record| pack::Record::read(record).is_some()) {
            return Err(damaged());
        }
        packs.push((Uuid::from_bytes(*id), list));
        bytes = rest;
    }
    Ok(packs)
}
