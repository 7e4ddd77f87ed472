//! Any place of a disk, for many tasks at once: what a server of disks reads by.
//!
//! Chunks that were read are kept for a while, and so are pieces of the table. Who wants a chunk that another is fetching
//! waits for that one. Who reads on where the last one ended gets more than was asked for, up to one long request.

use crate::Id;
use crate::copy::{Disk, TABLE};
use crate::error::{Error, Result};
use crate::filling::lock;
use crate::pack::Record;
use crate::read::{AT_ONCE, Reader, SPAN};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use tokio::sync::{OnceCell, watch};

/// How many bytes of chunks are kept, unless it is said otherwise, and how many pieces of tables, of 32 KiB each.
const CHUNKS: usize = 8 << 20;
const TABLES: usize = 64;

/// Reads one disk of a copy. Cheap to clone; all clones share what they have read.
#[derive(Clone)]
pub struct DiskReader(Arc<Shared>);

struct Shared {
    reader: Mutex<Reader>,
    disk: Disk,
    chunks: Mutex<Chunks>,
    tables: Mutex<Tables>,
    going: Mutex<Going>,
}

/// A part of a disk, by what reading it would find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// In bytes.
    pub bytes: u64,
    /// Whether there are only zeros, and nothing is stored for it.
    pub zero: bool,
}

struct Chunks {
    slots: HashMap<Id, Slot>,
    /// How many bytes are kept.
    most: usize,
    /// Of those that are there.
    bytes: usize,
    turn: u64,
}

enum Slot {
    /// With when it was last used.
    There(Bytes, u64),
    /// Until this is closed.
    Coming(watch::Receiver<()>),
}

/// A piece, and when it was last used.
type Piece = (Arc<OnceCell<Arc<[Id]>>>, u64);

#[derive(Default)]
struct Tables {
    pieces: HashMap<usize, Piece>,
    turn: u64,
}

/// Whether reads go on where others ended.
#[derive(Default)]
struct Going {
    /// The chunk behind the last that was read.
    next: u64,
    /// How many chunks are read beyond what is asked for.
    ahead: u64,
}

impl Reader {
    /// Reads this disk, of a copy that was there when the reader was made.
    #[must_use]
    pub fn disk(&self, disk: Disk) -> DiskReader {
        DiskReader(Arc::new(Shared {
            reader: Mutex::new(self.clone()),
            disk,
            chunks: Mutex::new(Chunks {
                slots: HashMap::new(),
                most: CHUNKS,
                bytes: 0,
                turn: 0,
            }),
            tables: Mutex::default(),
            going: Mutex::default(),
        }))
    }
}

impl DiskReader {
    /// Keeps so many bytes of what was read, in the place of 8 MiB.
    #[must_use]
    pub fn keeping(self, bytes: usize) -> Self {
        lock(&self.0.chunks).most = bytes;
        self
    }

    /// Reads by another reader from now on, for all clones: one that knows where a clean-up has moved chunks. What was read stays.
    pub fn renew(&self, reader: &Reader) {
        *lock(&self.0.reader) = reader.clone();
    }

    /// The disk's size, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.disk.bytes
    }

    /// Fills the buffer with what is there from `offset` on, every chunk checked.
    ///
    /// # Errors
    ///
    /// The disk ends before; a chunk is lost or damaged; what the store said.
    pub async fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = self.end(offset, buffer.len() as u64)?;
        if buffer.is_empty() {
            return Ok(());
        }
        let chunk = u64::from(self.0.disk.chunk);
        let (first, last) = (offset / chunk, end.div_ceil(chunk));
        let ahead = self.ahead(first, last);
        // Not more in memory at once than one long request brings.
        let step = (SPAN / chunk).max(1);
        let mut from = first;
        while from < last {
            let to = (from + step).min(last);
            let behind = if to == last { ahead } else { 0 };
            let mut ids = self.ids(from..(to + behind).min(self.chunks())).await?;
            let more = ids.split_off((to - from) as usize);
            let found = self.0.clone().found(&ids, &more).await?;
            for (n, id) in (from..).zip(&ids) {
                let at = n * chunk;
                let part = at.max(offset)..(at + chunk).min(end);
                let place = buffer.get_mut((part.start - offset) as usize..(part.end - offset) as usize);
                let place = place.unwrap_or_default();
                let within = (part.start - at) as usize..(part.end - at) as usize;
                match found.get(id) {
                    Some(plain) => place.copy_from_slice(plain.get(within).ok_or_else(|| {
                        Error::damaged(format!("chunk {id}"), "it is shorter than the disk says")
                    })?),
                    None => place.fill(0),
                }
            }
            from = to;
        }
        Ok(())
    }

    /// What is in this part of the disk, from its begin to its end. Only the table is read for that: for each 128 MiB that are not
    /// all zero one small request, at most.
    ///
    /// # Errors
    ///
    /// The disk ends before; a piece of its table is lost or damaged; what the store said.
    pub async fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>> {
        let end = self.end(offset, length)?;
        let (chunk, stride) = (u64::from(self.0.disk.chunk), self.0.disk.stride());
        let pieces = offset / stride..end.div_ceil(stride);
        let mut pieces = stream::iter(pieces)
            .map(|piece| async move { Ok::<_, Error>((piece, self.piece(piece as usize).await?)) })
            .buffered(AT_ONCE);
        let mut extents: Vec<Extent> = Vec::new();
        while let Some((piece, ids)) = pieces.try_next().await? {
            for (n, id) in ids.iter().enumerate() {
                let at = piece * stride + n as u64 * chunk;
                let bytes = (at + chunk).min(end).saturating_sub(at.max(offset));
                match extents.last_mut() {
                    _ if bytes == 0 => {}
                    Some(last) if last.zero == id.is_zero() => last.bytes += bytes,
                    _ => extents.push(Extent {
                        bytes,
                        zero: id.is_zero(),
                    }),
                }
            }
        }
        Ok(extents)
    }

    fn end(&self, offset: u64, length: u64) -> Result<u64> {
        let end = offset.checked_add(length).filter(|end| *end <= self.bytes());
        end.ok_or_else(|| Error::Beyond {
            name: self.0.disk.name.clone(),
            bytes: self.bytes(),
            offset,
            length,
        })
    }

    fn chunks(&self) -> u64 {
        self.bytes().div_ceil(u64::from(self.0.disk.chunk))
    }

    /// How many chunks behind these it pays to read as well.
    fn ahead(&self, first: u64, last: u64) -> u64 {
        // A client with several requests on their way does not keep their order.
        const AROUND: u64 = 16;
        let most = (SPAN / u64::from(self.0.disk.chunk)).saturating_sub(1);
        let mut going = lock(&self.0.going);
        if first > going.next || first + AROUND < going.next {
            *going = Going { next: last, ahead: 0 };
        } else if last > going.next {
            going.next = last;
            going.ahead = (going.ahead * 2).clamp(1, most);
        }
        going.ahead
    }

    /// The names of these chunks.
    async fn ids(&self, numbers: Range<u64>) -> Result<Vec<Id>> {
        let mut ids = Vec::with_capacity((numbers.end - numbers.start) as usize);
        let mut at = numbers.start;
        while at < numbers.end {
            let piece = self.piece((at / TABLE as u64) as usize).await?;
            let within = (at % TABLE as u64) as usize;
            let some = piece.get(within..).unwrap_or_default();
            let some = some.get(..(numbers.end - at) as usize).unwrap_or(some);
            ids.extend(some);
            at += (some.len() as u64).max(1);
        }
        Ok(ids)
    }

    async fn piece(&self, number: usize) -> Result<Arc<[Id]>> {
        let cell = {
            let mut tables = lock(&self.0.tables);
            tables.turn += 1;
            let turn = tables.turn;
            let oldest = tables.pieces.iter().min_by_key(|(_, (_, used))| *used);
            let oldest = oldest.map(|(number, _)| *number);
            if let Some(oldest) = oldest
                && tables.pieces.len() >= TABLES
                && !tables.pieces.contains_key(&number)
            {
                tables.pieces.remove(&oldest);
            }
            let (cell, used) = tables.pieces.entry(number).or_default();
            *used = turn;
            cell.clone()
        };
        let read = || async {
            let piece = self.0.reader().piece(&self.0.disk, number).await?;
            Ok(piece.into())
        };
        cell.get_or_try_init(read).await.cloned()
    }
}

impl Shared {
    fn reader(&self) -> Reader {
        lock(&self.reader).clone()
    }

    /// All chunks that are wanted; those of `more` are fetched with one that is not there yet.
    async fn found(self: Arc<Self>, wanted: &[Id], more: &[Id]) -> Result<HashMap<Id, Bytes>> {
        let mut found = HashMap::new();
        let reader = self.reader();
        loop {
            let (mut coming, mut absent) = (None, HashMap::new());
            // Closed when nobody fetches what is absent any more.
            let (done, fetched) = watch::channel(());
            {
                let mut chunks = lock(&self.chunks);
                for id in wanted.iter().filter(|id| !id.is_zero()) {
                    if !found.contains_key(id) {
                        match chunks.get(id) {
                            Some(Slot::There(bytes, _)) => drop(found.insert(*id, bytes.clone())),
                            Some(Slot::Coming(fetched)) => coming = Some(fetched.clone()),
                            None => drop(absent.insert(*id, true)),
                        }
                    }
                }
                if !absent.is_empty() {
                    for id in more.iter().filter(|id| !id.is_zero()) {
                        if !chunks.slots.contains_key(id) && reader.has(id) {
                            absent.entry(*id).or_insert(false);
                        }
                    }
                }
                for id in absent.keys() {
                    chunks.slots.insert(*id, Slot::Coming(fetched.clone()));
                }
            }
            match (absent.is_empty(), coming) {
                (true, None) => return Ok(found),
                (true, Some(mut coming)) => _ = coming.changed().await,
                (false, _) => {
                    // A task of its own: others wait for it, whatever becomes of this one.
                    let flight = Flight {
                        shared: self.clone(),
                        ids: absent.keys().copied().collect(),
                        _done: done,
                    };
                    let flown = tokio::spawn(flight.fly(absent));
                    found.extend(flown.await.map_err(|_| Error::Thread)??);
                }
            }
        }
    }
}

/// Chunks that are being fetched. When it ends, what did not come is nobody's again.
struct Flight {
    shared: Arc<Shared>,
    ids: HashSet<Id>,
    _done: watch::Sender<()>,
}

impl Flight {
    /// Fetches chunks, and answers with those that are wanted. What goes wrong with others is left to who wants them.
    async fn fly(self, absent: HashMap<Id, bool>) -> Result<HashMap<Id, Bytes>> {
        let mut found = HashMap::new();
        let reader = &self.shared.reader();
        let mut opened = stream::iter(reader.spans(absent)?)
            .map(|span| async {
                let wanted = span.records.iter().any(|(_, wanted)| *wanted);
                let all = |record: Record, wanted: bool, plain: Result<&[u8]>| {
                    Ok((record, wanted, plain.map(<[u8]>::to_vec)))
                };
                (wanted, reader.opened(span, all).await)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((wanted, opened)) = opened.next().await {
            let opened: Vec<(Record, bool, Result<Vec<u8>>)> = match opened {
                Err(e) if wanted => return Err(e),
                opened => opened.unwrap_or_default(),
            };
            for (record, wanted, plain) in opened {
                match plain {
                    Ok(plain) => {
                        let plain = Bytes::from(plain);
                        if wanted {
                            found.insert(record.id, plain.clone());
                        }
                        lock(&self.shared.chunks).put(record.id, plain);
                    }
                    Err(e) if wanted => return Err(e),
                    Err(_) => {}
                }
            }
        }
        Ok(found)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut chunks = lock(&self.shared.chunks);
        for id in &self.ids {
            if let Some(Slot::Coming(_)) = chunks.slots.get(id) {
                chunks.slots.remove(id);
            }
        }
    }
}

impl Chunks {
    fn get(&mut self, id: &Id) -> Option<&Slot> {
        self.turn += 1;
        let slot = self.slots.get_mut(id)?;
        if let Slot::There(_, used) = slot {
            *used = self.turn;
        }
        Some(slot)
    }

    fn put(&mut self, id: Id, plain: Bytes) {
        self.turn += 1;
        self.bytes += plain.len();
        self.slots.insert(id, Slot::There(plain, self.turn));
        while self.bytes > self.most {
            let there = self.slots.iter().filter_map(|(id, slot)| match slot {
                Slot::There(bytes, used) => Some((*used, *id, bytes.len())),
                Slot::Coming(_) => None,
            });
            let Some((_, oldest, bytes)) = there.min() else {
                return;
            };
            self.slots.remove(&oldest);
            self.bytes -= bytes;
        }
    }
}
