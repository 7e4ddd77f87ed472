//! Reading copies: any place of a disk, or all of it, with every chunk checked.

use crate::copy::{self, Disk, TABLE};
use crate::error::{Error, Result, StoreError};
use crate::index::Index;
use crate::pack::{self, Opener, Record};
use crate::vault::Vault;
use crate::{CancellationToken, Id};
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use uuid::Uuid;

/// Says where chunks are.
pub(crate) trait Find: Send + Sync {
    fn find(&self, id: &Id) -> Option<(Uuid, Record)>;
}

impl Find for Index {
    fn find(&self, id: &Id) -> Option<(Uuid, Record)> {
        Self::find(self, id)
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

/// How much is asked for at once, at most.
const SPAN: u64 = 4 << 20;

/// What lies between two chunks that are wanted, and is read with them rather than asking twice.
const GAP: u64 = 128 << 10;

/// How many requests are under way at once.
const AT_ONCE: usize = 8;

/// Chunks that lie near each other in a pack: one request.
struct Span {
    pack: Uuid,
    bytes: Range<u64>,
    /// Each with the places in the disk that it belongs to.
    records: Vec<(Record, Vec<u64>)>,
}

impl Vault {
    /// Reads copies.
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
        let (pack, record) = self.find.find(id).ok_or(Error::Lost { id: *id })?;
        let from = u64::from(record.offset);
        let sealed = self.bytes(pack, from..from + u64::from(record.stored)).await?;
        Opener::new(&self.vault.seals)?.open(pack, &record, &sealed)
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
        copy::read_table(&bytes).ok_or(Error::Lost { id: *id })
    }

    async fn bytes(&self, pack: Uuid, range: Range<u64>) -> Result<bytes::Bytes> {
        let name = pack::name(pack);
        match self.vault.objects.get(&name, Some(range)).await {
            // The index had it, and its object is gone or shorter.
            Err(StoreError::NotFound) => Err(Error::damaged(name, "it is gone")),
            got => got.map_err(StoreError::at("read", &name)),
        }
    }

    /// Writes a whole disk to where it is wanted. `told` hears how many bytes of the disk are done.
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
        let mut done = 0;
        for (n, table) in disk.tables.iter().enumerate() {
            let begin = n as u64 * disk.stride();
            let ids = self.table(table).await?;
            let spans = self.spans(disk, begin, &ids)?;
            let mut under_way = stream::iter(spans)
                .map(|span| self.span(span, sink.clone()))
                .buffer_unordered(AT_ONCE);
            loop {
                let next = tokio::select! {
                    next = under_way.try_next() => next?,
                    () = cancel.cancelled() => return Err(Error::Cancelled),
                };
                match next {
                    Some(written) => told(done + written),
                    None => break,
                }
            }
            done = (begin + disk.stride()).min(disk.bytes);
            told(done);
        }
        Ok(())
    }

    /// What is to be asked for to have all that one piece of a table names.
    fn spans(&self, disk: &Disk, begin: u64, ids: &[Id]) -> Result<Vec<Span>> {
        let mut wanted: HashMap<Id, Vec<u64>> = HashMap::new();
        for (n, id) in ids.iter().enumerate() {
            let at = begin + n as u64 * u64::from(disk.chunk);
            if !id.is_zero() && at < disk.bytes {
                wanted.entry(*id).or_default().push(at);
            }
        }
        let mut found = Vec::with_capacity(wanted.len());
        for (id, places) in wanted {
            let (pack, record) = self.find.find(&id).ok_or(Error::Lost { id })?;
            found.push((pack, record, places));
        }
        found.sort_by_key(|(pack, record, _)| (*pack, record.offset));
        let mut spans: Vec<Span> = Vec::new();
        for (pack, record, places) in found {
            let from = u64::from(record.offset);
            let to = from + u64::from(record.stored);
            match spans.last_mut() {
                Some(last)
                    if last.pack == pack && from <= last.bytes.end + GAP && to - last.bytes.start <= SPAN =>
                {
                    last.bytes.end = to;
                    last.records.push((record, places));
                }
                _ => spans.push(Span {
                    pack,
                    bytes: from..to,
                    records: vec![(record, places)],
                }),
            }
        }
        Ok(spans)
    }

    async fn span(&self, span: Span, sink: Arc<dyn Sink>) -> Result<u64> {
        let bytes = self.bytes(span.pack, span.bytes.clone()).await?;
        let seals = self.vault.seals.clone();
        let write = move || {
            let mut opener = Opener::new(&seals)?;
            let mut written = 0;
            for (record, places) in &span.records {
                let from = (u64::from(record.offset) - span.bytes.start) as usize;
                let sealed = bytes.get(from..from + record.stored as usize).unwrap_or_default();
                let plain = opener.open(span.pack, record, sealed)?;
                for &offset in places {
                    sink.write(offset, &plain)
                        .map_err(|source| Error::Sink { offset, source })?;
                    written += plain.len() as u64;
                }
            }
            Ok(written)
        };
        tokio::task::spawn_blocking(write)
            .await
            .map_err(|_| Error::Thread)?
    }
}
