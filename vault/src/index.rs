//! Which pack has which chunk.

use crate::Id;
use crate::error::{Error, Result};
use crate::pack::{self, Kind, Record};
use std::collections::HashMap;
use uuid::Uuid;

/// Where a chunk is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Which of [`Index::packs`].
    pack: u32,
    offset: u32,
    stored: u32,
    plain: u32,
    kind: Kind,
}

/// All chunks that may be read.
#[derive(Default)]
pub(crate) struct Index {
    packs: Vec<Uuid>,
    numbers: HashMap<Uuid, u32>,
    places: HashMap<Id, Place>,
}

impl Index {
    /// Takes a pack's records up. A chunk that is there already stays where it is.
    pub(crate) fn add(&mut self, pack: Uuid, records: &[Record]) {
        let number = self.number(pack);
        for record in records {
            self.places.entry(record.id).or_insert(place(number, record));
        }
    }

    /// Takes one record up; answers whether the chunk is new.
    pub(crate) fn claim(&mut self, pack: Uuid, record: &Record) {
        let number = self.number(pack);
        self.places.insert(record.id, place(number, record));
    }

    fn number(&mut self, pack: Uuid) -> u32 {
        *self.numbers.entry(pack).or_insert_with(|| {
            self.packs.push(pack);
            self.packs.len() as u32 - 1
        })
    }

    pub(crate) fn has(&self, id: &Id) -> bool {
        self.places.contains_key(id)
    }

    /// The pack and the place in it.
    pub(crate) fn find(&self, id: &Id) -> Option<(Uuid, Record)> {
        let place = self.places.get(id)?;
        let record = Record {
            id: *id,
            offset: place.offset,
            stored: place.stored,
            plain: place.plain,
            kind: place.kind,
        };
        Some((*self.packs.get(place.pack as usize)?, record))
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }
}

const fn place(pack: u32, record: &Record) -> Place {
    Place {
        pack,
        offset: record.offset,
        stored: record.stored,
        plain: record.plain,
        kind: record.kind,
    }
}

/// An object's name.
pub(crate) fn name(id: Uuid) -> String {
    format!("index/{}", id.simple())
}

/// What an object of the index has within: of each pack its id, how many records it has, and those.
pub(crate) fn write<'a>(packs: impl IntoIterator<Item = (Uuid, &'a [Record])>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (pack, records) in packs {
        bytes.extend(pack.as_bytes());
        bytes.extend((records.len() as u32).to_le_bytes());
        for record in records {
            record.write(&mut bytes);
        }
    }
    bytes
}

/// Reads what [`write`] wrote.
pub(crate) fn read(name: &str, mut bytes: &[u8]) -> Result<Vec<(Uuid, Vec<Record>)>> {
    let damaged = || Error::damaged(name, "it is no list of packs");
    let mut packs = Vec::new();
    while !bytes.is_empty() {
        let (id, rest) = bytes.split_first_chunk().ok_or_else(damaged)?;
        let (number, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let length = (u32::from_le_bytes(*number) as usize)
            .checked_mul(pack::LISTED)
            .ok_or_else(damaged)?;
        let (list, rest) = rest.split_at_checked(length).ok_or_else(damaged)?;
        packs.push((Uuid::from_bytes(*id), pack::read_list(list).ok_or_else(damaged)?));
        bytes = rest;
    }
    Ok(packs)
}
