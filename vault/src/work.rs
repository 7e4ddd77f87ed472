//! The threads that go through a disk.
//!
//! A thread takes a piece of the disk's table after the other. What it finds that is new it keeps until it has a run of it,
//! which goes into the pack as a whole: so what lies side by side on the disk does so in the pack, and is read with few
//! requests, however many threads there were.

use crate::copy::TABLE;
use crate::error::{Error, Result};
use crate::filling::{Full, Inner, Run, add, lock};
use crate::pack::Squeezer;
use crate::read::Reader;
use crate::source::Source;
use crate::write::Change;
use crate::{CancellationToken, Id};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// How long a run gets, as it is stored: as much as a reader asks for at once.
const RUN: usize = 4 << 20;
/// How far ahead of a chunk a source is asked where it has something, in bytes.
const LOOK_AHEAD: u64 = 1 << 30;

/// One disk, for all threads.
pub(crate) struct Work {
    inner: Arc<Inner>,
    name: String,
    source: Arc<dyn Source>,
    chunk: u32,
    kept: Option<Kept>,
    next: Mutex<Range<usize>>,
    tables: Mutex<Vec<Id>>,
    pub(crate) cancel: CancellationToken,
}

/// What is taken from the copy before.
pub(crate) struct Kept {
    tables: Vec<Id>,
    bytes: u64,
    ranges: Vec<Range<u64>>,
    reader: Reader,
}

impl Kept {
    /// What can be taken from there by a vault with chunks of this size.
    pub(crate) fn new(change: &Change<'_>, chunk: u32, reader: Reader) -> Option<Self> {
        (change.parent.chunk == chunk).then(|| Self {
            tables: change.parent.tables.clone(),
            bytes: change.parent.bytes,
            ranges: change.ranges.to_vec(),
            reader,
        })
    }

    /// Whether something between these may be different, in a part that has `whole` bytes where the disk goes on.
    fn changed(&self, range: &Range<u64>, whole: u64) -> bool {
        // The end of the disk was elsewhere: that part has another length now.
        if range.end != (range.start + whole).min(self.bytes) {
            return true;
        }
        let first = self.ranges.partition_point(|r| r.end <= range.start);
        self.ranges.get(first).is_some_and(|r| r.start < range.end)
    }
}

/// What a thread has for itself.
struct Tools<'a> {
    squeezer: Squeezer,
    buffer: Vec<u8>,
    run: Run,
    full: &'a mpsc::Sender<Full>,
    handle: &'a Handle,
}

impl Work {
    pub(crate) fn new(
        inner: Arc<Inner>,
        name: &str,
        source: Arc<dyn Source>,
        kept: Option<Kept>,
        cancel: CancellationToken,
    ) -> Self {
        let chunk = inner.vault.chunk();
        let pieces = source.bytes().div_ceil(u64::from(chunk) * TABLE as u64) as usize;
        Self {
            inner,
            name: name.to_owned(),
            source,
            chunk,
            kept,
            next: Mutex::new(0..pieces),
            tables: Mutex::new(vec![Id::ZERO; pieces]),
            cancel,
        }
    }

    /// How many pieces the table has.
    pub(crate) fn pieces(&self) -> usize {
        lock(&self.tables).len()
    }

    /// The pieces' names, once all threads are done.
    pub(crate) fn tables(&self) -> Vec<Id> {
        std::mem::take(&mut lock(&self.tables))
    }

    /// Waits for something within a thread, until this is cancelled.
    fn wait<T>(&self, tools: &Tools<'_>, done: impl Future<Output = Result<T>>) -> Result<T> {
        let done = tools.handle.block_on(self.cancel.run_until_cancelled(done));
        done.unwrap_or(Err(Error::Cancelled))
    }

    /// Goes through pieces until there are no more.
    pub(crate) fn thread(&self, full: &mpsc::Sender<Full>, handle: &Handle) -> Result<()> {
        let mut tools = Tools {
            squeezer: Squeezer::new(1)?,
            buffer: vec![0; self.chunk as usize],
            run: Run::default(),
            full,
            handle,
        };
        loop {
            let Some(piece) = lock(&self.next).next() else {
                return self.flush(&mut tools);
            };
            let table = self.piece(piece, &mut tools)?;
            if let Some(place) = lock(&self.tables).get_mut(piece) {
                *place = table;
            }
        }
    }

    /// Goes through what one piece of the table is about.
    fn piece(&self, piece: usize, tools: &mut Tools<'_>) -> Result<Id> {
        let moved = &self.inner.moved;
        let chunk = u64::from(self.chunk);
        let begin = piece as u64 * chunk * TABLE as u64;
        let end = (begin + chunk * TABLE as u64).min(self.source.bytes());
        let kept = self.kept.as_ref();
        if let Some(kept) = kept
            && !self.inner.gaps
            && !kept.changed(&(begin..end), chunk * TABLE as u64)
            && let Some(table) = kept.tables.get(piece)
            && self.inner.has(table)
        {
            add(&moved.chunks_kept, (end - begin).div_ceil(chunk));
            add(&moved.done, end - begin);
            return Ok(*table);
        }
        let before = match kept.and_then(|kept| Some((kept, kept.tables.get(piece)?))) {
            // Where it is lost or damaged all of it is read.
            Some((kept, table)) => match self.wait(tools, kept.reader.table(table)) {
                Err(Error::Lost { .. } | Error::Damaged { .. }) => Vec::new(),
                ids => ids?,
            },
            None => Vec::new(),
        };
        let mut ids = Vec::with_capacity(TABLE);
        let mut data = None;
        let mut at = begin;
        while at < end {
            if self.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let next = (at + chunk).min(end);
            let known = kept
                .filter(|kept| !kept.changed(&(at..next), chunk))
                .and_then(|_| before.get(ids.len()))
                .filter(|id| self.inner.has(id));
            let id = match known {
                Some(id) => {
                    add(&moved.chunks_kept, 1);
                    *id
                }
                None if self.empty(at, next, &mut data)? => Id::ZERO,
                None => self.chunk(at, (next - at) as usize, tools)?,
            };
            ids.push(id);
            add(&moved.done, next - at);
            at = next;
        }
        self.table(&ids, tools)
    }

    /// Whether the source says that there is nothing but zeros. `data` is the next range that has something, once asked for.
    fn empty(&self, at: u64, next: u64, data: &mut Option<Range<u64>>) -> Result<bool> {
        if data.as_ref().is_none_or(|data| data.end <= at) {
            // Not to the end: each piece of a disk that is all holes would go through all of them.
            let to = self.source.bytes().min(at.saturating_add(LOOK_AHEAD));
            let found = self.source.data(at, to);
            let none = to..to.max(at + 1);
            *data = Some(found.map_err(|e| self.source_error(at, e))?.unwrap_or(none));
        }
        Ok(data.as_ref().is_some_and(|data| data.start >= next))
    }

    fn source_error(&self, offset: u64, source: std::io::Error) -> Error {
        Error::Source {
            what: self.name.clone(),
            offset,
            source,
        }
    }

    fn chunk(&self, at: u64, length: usize, tools: &mut Tools<'_>) -> Result<Id> {
        let moved = &self.inner.moved;
        let buffer = tools.buffer.get_mut(..length).unwrap_or_default();
        self.source
            .read(at, buffer)
            .map_err(|e| self.source_error(at, e))?;
        add(&moved.read, length as u64);
        if is_zero(buffer) {
            return Ok(Id::ZERO);
        }
        let id = self.inner.vault.seals.chunk(buffer);
        if tools.run.has(&id) || self.inner.has(&id) {
            moved.chunk(length as u64, false);
            return Ok(id);
        }
        let (kind, body) = tools.squeezer.squeeze(buffer, false);
        tools.run.push(id, kind, length as u32, body);
        self.flush_long(tools)?;
        Ok(id)
    }

    fn table(&self, ids: &[Id], tools: &mut Tools<'_>) -> Result<Id> {
        if ids.iter().all(Id::is_zero) {
            return Ok(Id::ZERO);
        }
        let plain: Vec<u8> = ids.iter().flat_map(|id| id.0).collect();
        let id = self.inner.vault.seals.table(&plain);
        if !self.inner.has(&id) {
            let (kind, body) = tools.squeezer.squeeze(&plain, true);
            tools.run.push(id, kind, plain.len() as u32, body);
            self.flush_long(tools)?;
        }
        Ok(id)
    }

    fn flush_long(&self, tools: &mut Tools<'_>) -> Result<()> {
        match tools.run.len() >= RUN {
            true => self.flush(tools),
            false => Ok(()),
        }
    }

    /// Brings what was found into packs, and packs that are full to who writes them.
    fn flush(&self, tools: &mut Tools<'_>) -> Result<()> {
        let mut run = std::mem::take(&mut tools.run);
        while !run.is_empty() {
            let put = async { Ok(self.inner.put(&mut run, false).await) };
            if let Some(full) = self.wait(tools, put)? {
                // Refused when nobody takes packs any more: something has failed, and says so.
                let sent = async { tools.full.send(full).await.map_err(|_| Error::Cancelled) };
                self.wait(tools, sent)?;
            }
        }
        tools.run = run;
        Ok(())
    }
}

/// Whether there are only zeros, sixteen bytes at a time.
fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|b| *b == 0)
}
