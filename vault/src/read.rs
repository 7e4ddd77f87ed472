//! Reading copies: any place of a disk, or all of it, with every chunk checked.

use crate::copy::{self, Disk, TABLE};
use crate::error::{Error, Result, StoreError};
use crate::index::Index;
use crate::pack::{self, Opener, Record};
use crate::vault::Vault;
use crate::{CancellationToken, Id};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use uuid::Uuid;

/// Says where chunks are.
pub(crate) trait Find: Send + Sync {
    fn find(&self, id: &Id) -> Option<(Uuid, Record)>;

    /// All places, where others than that are to be tried.
    fn places(&self, _: &Id) -> Vec<(Uuid, Record)> {
        Vec::new()
    }
}

impl Find for Index {
    fn find(&self, id: &Id) -> Option<(Uuid, Record)> {
        Self::find(self, id)
    }

    fn places(&self, id: &Id) -> Vec<(Uuid, Record)> {
        Self::places(self, id)
    }
}

/// Reads what the vault had when it was made.
#[derive(Clone)]
pub struct Reader {
    vault: Vault,
    find: Arc<dyn Find>,
}

/// Where a disk is restored to. What is not written reads as zeros.
pub trait Sink: Send + Sync {
    /// Writes these bytes there. Called from several threads, in no order, each place once.
    ///
    /// # Errors
    ///
    /// What the system said.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
}

impl Sink for std::fs::File {
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, offset)
    }
}

/// How much is asked for at once, at most: a writer's run, with its seals.
pub(crate) const SPAN: u64 = (4 << 20) + (64 << 10);

/// What lies between two chunks that are wanted, and is read with them rather than asking twice.
const GAP: u64 = 256 << 10;

/// How many requests are under way at once: each has what it asked for in memory, twice.
pub(crate) const AT_ONCE: usize = 4;

/// Chunks that lie near each other in a pack: one request.
pub(crate) struct Span<P> {
    pack: Uuid,
    bytes: Range<u64>,
    /// Each with what it is wanted for.
    pub(crate) records: Vec<(Record, P)>,
}

impl Vault {
    /// Reads copies: all that are there by now. One for many disks is made once, for it has the index in memory, some 50 bytes
    /// for each chunk in the vault.
    ///
    /// # Errors
    ///
    /// What the store said.
    pub async fn reader(&self) -> Result<Reader> {
        let loaded = self.load(&HashSet::new()).await?;
        Ok(Reader {
            vault: self.clone(),
            find: Arc::new(loaded.index),
        })
    }
}

impl Reader {
    pub(crate) fn of(vault: &Vault, find: Arc<dyn Find>) -> Self {
        Self {
            vault: vault.clone(),
            find,
        }
    }

    /// A chunk, or a piece of a table.
    ///
    /// # Errors
    ///
    /// It is lost or damaged; what the store said.
    pub async fn chunk(&self, id: &Id) -> Result<Vec<u8>> {
        let (pack, record) = self.place(id)?;
        match self.record(pack, &record).await {
            Err(e) => self.elsewhere(id, pack, e).await,
            read => read,
        }
    }

    async fn record(&self, pack: Uuid, record: &Record) -> Result<Vec<u8>> {
        let from = u64::from(record.offset);
        let sealed = self.bytes(pack, from..from + u64::from(record.stored)).await?;
        let mut sealed = BytesMut::from(sealed);
        let mut opener = Opener::new(&self.vault.seals)?;
        opener.open(pack, record, &mut sealed).map(<[u8]>::to_vec)
    }

    /// Where a chunk is, by what is known; at the worst where it was found damaged.
    fn place(&self, id: &Id) -> Result<(Uuid, Record)> {
        let found = self.find.find(id);
        let found = found.or_else(|| self.find.places(id).pop());
        found.ok_or(Error::Lost { id: *id })
    }

    /// Another look at a chunk that this pack does not give away: others may have it too.
    async fn elsewhere(&self, id: &Id, not: Uuid, e: Error) -> Result<Vec<u8>> {
        if e.is_transient() {
            return Err(e);
        }
        for (pack, record) in self.find.places(id) {
            if pack == not {
                continue;
            }
            match self.record(pack, &record).await {
                Err(e) if !e.is_transient() => {}
                read => return read,
            }
        }
        Err(e)
    }

    /// The chunks that a piece of a table names; none for one of zeros.
    ///
    /// # Errors
    ///
    /// It is lost or damaged; what the store said.
    pub(crate) async fn table(&self, id: &Id) -> Result<Vec<Id>> {
        if id.is_zero() {
            return Ok(vec![Id::ZERO; TABLE]);
        }
        let bytes = self.chunk(id).await?;
        let damaged = || Error::damaged(format!("table {id}"), "it is no list of chunks");
        copy::read_table(&bytes).ok_or_else(damaged)
    }

    /// The chunks of this piece of a disk's table.
    pub(crate) async fn piece(&self, disk: &Disk, number: usize) -> Result<Vec<Id>> {
        let left = disk.bytes.saturating_sub(number as u64 * disk.stride());
        let length = left.div_ceil(u64::from(disk.chunk)).min(TABLE as u64) as usize;
        let table = disk.tables.get(number).unwrap_or(&Id::ZERO);
        let mut ids = self.table(table).await?;
        if table.is_zero() {
            ids.truncate(length);
        }
        match ids.len() == length {
            true => Ok(ids),
            false => Err(Error::damaged(
                format!("table {table}"),
                format!("it names {} chunks, and the disk has {length} there", ids.len()),
            )),
        }
    }

    async fn bytes(&self, pack: Uuid, range: Range<u64>) -> Result<Bytes> {
        let name = pack::name(pack);
        match self.vault.objects.get(&name, Some(range)).await {
            // The index had it, and its object is gone or shorter.
            Err(StoreError::NotFound) => Err(Error::damaged(name, "it is gone")),
            got => got.map_err(StoreError::at("read", &name)),
        }
    }

    /// Writes a whole disk to where it is wanted. `told` hears how many bytes of the disk are done. Where it is cancelled, what
    /// has come by then may still be written for a moment.
    ///
    /// # Errors
    ///
    /// Something is lost or damaged; what the store or the sink said; cancelled.
    pub async fn restore(
        &self,
        disk: &Disk,
        sink: Arc<dyn Sink>,
        told: &(dyn Fn(u64) + Sync),
        cancel: &CancellationToken,
    ) -> Result<()> {
        let restored = cancel.run_until_cancelled(self.restored(disk, sink, told));
        restored.await.unwrap_or(Err(Error::Cancelled))
    }

    async fn restored(&self, disk: &Disk, sink: Arc<dyn Sink>, told: &(dyn Fn(u64) + Sync)) -> Result<()> {
        let mut done = 0;
        for number in 0..disk.tables.len() {
            let begin = number as u64 * disk.stride();
            let mut wanted: HashMap<Id, Vec<u64>> = HashMap::new();
            for (n, id) in self.piece(disk, number).await?.into_iter().enumerate() {
                let places = wanted.entry(id).or_default();
                places.push(begin + n as u64 * u64::from(disk.chunk));
            }
            wanted.remove(&Id::ZERO);
            let mut under_way = stream::iter(self.spans(wanted)?)
                .map(|span| self.span(span, sink.clone()))
                .buffer_unordered(AT_ONCE);
            while let Some(written) = under_way.try_next().await? {
                done += written;
                told(done);
            }
            done = (begin + disk.stride()).min(disk.bytes);
            told(done);
        }
        Ok(())
    }

    /// What is to be asked for to have these chunks.
    pub(crate) fn spans<P>(&self, wanted: impl IntoIterator<Item = (Id, P)>) -> Result<Vec<Span<P>>> {
        let mut found = Vec::new();
        for (id, what) in wanted {
            let (pack, record) = self.place(&id)?;
            found.push((pack, record, what));
        }
        found.sort_by_key(|(pack, record, _)| (*pack, record.offset));
        let mut spans: Vec<Span<P>> = Vec::new();
        for (pack, record, what) in found {
            let from = u64::from(record.offset);
            let to = from + u64::from(record.stored);
            match spans.last_mut() {
                Some(last)
                    if last.pack == pack && from <= last.bytes.end + GAP && to - last.bytes.start <= SPAN =>
                {
                    last.bytes.end = to;
                    last.records.push((record, what));
                }
                _ => spans.push(Span {
                    pack,
                    bytes: from..to,
                    records: vec![(record, what)],
                }),
            }
        }
        Ok(spans)
    }

    /// Reads a span, and opens its records one after the other, on a thread that may wait; ends with the first error of `each`.
    /// What is damaged or gone there is looked for elsewhere.
    pub(crate) async fn opened<P: Send + 'static, T: Send + 'static>(
        &self,
        span: Span<P>,
        mut each: impl FnMut(Record, P, Result<&[u8]>) -> Result<T> + Send + 'static,
    ) -> Result<Vec<T>> {
        let Span { pack, bytes, records } = span;
        let sealed = match self.bytes(pack, bytes.clone()).await {
            Err(e) if e.is_transient() => return Err(e),
            // Each is asked for alone then, where it may be there.
            read => read.unwrap_or_default(),
        };
        let seals = self.vault.seals.clone();
        let open = move || {
            // Nobody else has them: they are opened where they are.
            let mut sealed = BytesMut::from(sealed);
            let mut opener = Opener::new(&seals)?;
            let (mut done, mut missed) = (Vec::with_capacity(records.len()), Vec::new());
            for (record, what) in records {
                let from = (u64::from(record.offset) - bytes.start) as usize;
                let sealed = sealed.get_mut(from..from + record.stored as usize);
                match opener.open(pack, &record, sealed.unwrap_or_default()) {
                    Ok(plain) => done.push(each(record, what, Ok(plain))?),
                    Err(_) => missed.push((record, what)),
                }
            }
            Ok::<_, Error>((done, missed, each))
        };
        let opened = tokio::task::spawn_blocking(open).await;
        let (mut done, missed, mut each) = opened.map_err(|_| Error::Thread)??;
        for (record, what) in missed {
            let plain = match self.record(pack, &record).await {
                Err(e) => self.elsewhere(&record.id, pack, e).await,
                read => read,
            };
            let one = move || {
                let (plain, wrong) = match plain {
                    Ok(plain) => (plain, None),
                    Err(e) => (Vec::new(), Some(e)),
                };
                let plain = wrong.map_or(Ok(&plain[..]), Err);
                done.push(each(record, what, plain)?);
                Ok::<_, Error>((done, each))
            };
            let one = tokio::task::spawn_blocking(one).await;
            (done, each) = one.map_err(|_| Error::Thread)??;
        }
        Ok(done)
    }

    /// Whether it is known where a chunk is.
    pub(crate) fn has(&self, id: &Id) -> bool {
        self.find.find(id).is_some()
    }

    async fn span(&self, span: Span<Vec<u64>>, sink: Arc<dyn Sink>) -> Result<u64> {
        let write = move |_, places: Vec<u64>, plain: Result<&[u8]>| {
            let plain = plain?;
            let written = (places.len() * plain.len()) as u64;
            for offset in places {
                sink.write(offset, plain)
                    .map_err(|source| Error::Sink { offset, source })?;
            }
            Ok(written)
        };
        let written = self.opened(span, write).await?;
        Ok(written.into_iter().sum())
    }
}
