//! A disk of a copy. What was read last is kept: guests read the same places again, and less than a chunk at a time.

use super::{Export, Extent};
use async_trait::async_trait;
use futures::future::try_join_all;
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;
use vault::copy::TABLE;
use vault::{Disk, Error, Id, Reader, Vault};

/// How many bytes of chunks are kept, at least; the disks of a copy share them.
const KEPT: usize = 128 << 20;
/// How much is asked for ahead of who reads one place after the other, in bytes.
const AHEAD: u64 = 2 << 20;
/// How long is waited until a store that is away is asked again, at first and at most.
const AGAIN: Range<Duration> = Duration::from_millis(100)..Duration::from_secs(5);
/// How long what is known of where chunks are counts as new.
const FRESH: Duration = Duration::from_secs(1);

/// Does this until the store is not away.
pub async fn patiently<T, F>(what: &str, mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut wait = AGAIN.start;
    loop {
        match attempt().await {
            Err(e) if e.is_transient() => {
                if wait == AGAIN.start {
                    tracing::warn!(error = %chain(&e), "{what} waits until the store is back");
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(AGAIN.end);
            }
            done => {
                if wait > AGAIN.start {
                    tracing::info!("{what} goes on: the store answers");
                }
                return done;
            }
        }
    }
}

/// An error with what is behind it, on a line.
pub fn chain(e: &dyn std::error::Error) -> String {
    let mut all = e.to_string();
    let mut next = e.source();
    while let Some(e) = next {
        all = format!("{all}: {e}");
        next = e.source();
    }
    all
}

type Kept = Arc<OnceCell<Arc<Vec<u8>>>>;

#[derive(Default)]
struct Cache {
    /// Each with when it was asked for last.
    chunks: HashMap<Id, (Kept, u64)>,
    bytes: usize,
    clock: u64,
}

impl Cache {
    fn get(&mut self, id: Id, bytes: usize) -> Kept {
        self.clock += 1;
        if let Some((kept, last)) = self.chunks.get_mut(&id) {
            *last = self.clock;
            return kept.clone();
        }
        if self.bytes + bytes > KEPT {
            // The older half goes: it need not be looked for often.
            let mut ages: Vec<_> = self.chunks.values().map(|(_, last)| *last).collect();
            let middle = ages.len() / 2;
            let (_, oldest, _) = ages.select_nth_unstable(middle);
            let oldest = *oldest;
            self.chunks.retain(|_, (_, last)| *last >= oldest);
            self.bytes = self.chunks.len() * bytes;
        }
        let kept = Kept::default();
        self.chunks.insert(id, (kept.clone(), self.clock));
        self.bytes += bytes;
        kept
    }
}

/// Chunks of a vault, for all disks of a copy.
pub struct Chunks {
    vault: Vault,
    /// With when it was made: a clean-up of the vault moves chunks.
    reader: Mutex<(Reader, Instant)>,
    /// Whoever makes a newer one.
    renewing: tokio::sync::Mutex<()>,
    cache: Mutex<Cache>,
}

impl Chunks {
    /// Learns where all chunks are.
    pub async fn new(vault: Vault) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self {
            reader: Mutex::new((vault.reader().await?, Instant::now())),
            vault,
            renewing: tokio::sync::Mutex::default(),
            cache: Mutex::default(),
        }))
    }

    async fn chunk(&self, id: Id) -> Result<Arc<Vec<u8>>, Error> {
        let bytes = self.vault.chunk() as usize;
        let kept = lock(&self.cache).get(id, bytes);
        // All who want it wait for the one who fetches it.
        let got = kept.get_or_try_init(|| async { self.fetch(id).await.map(Arc::new) });
        got.await.cloned()
    }

    async fn fetch(&self, id: Id) -> Result<Vec<u8>, Error> {
        loop {
            let (reader, made) = lock(&self.reader).clone();
            match patiently("a read", || reader.chunk(&id)).await {
                // It may have been moved since the reader was made.
                Err(Error::Damaged { .. } | Error::Lost { .. }) if made.elapsed() > FRESH => {
                    let _one = self.renewing.lock().await;
                    if lock(&self.reader).1 == made {
                        let newer = patiently("a read", || self.vault.reader()).await?;
                        *lock(&self.reader) = (newer, Instant::now());
                    }
                }
                got => return got,
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these hold is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A disk of a copy, as it can be read.
pub struct CopyDisk {
    chunks: Arc<Chunks>,
    disk: Disk,
    /// Where the last read ended.
    last: Mutex<u64>,
}

impl CopyDisk {
    /// A disk; nothing is read of it yet.
    pub const fn new(chunks: Arc<Chunks>, disk: Disk) -> Self {
        Self {
            chunks,
            disk,
            last: Mutex::new(0),
        }
    }

    /// The names of all chunks that this range lies in, and where the first of them begins.
    async fn ids(&self, range: Range<u64>) -> Result<(u64, Vec<Id>), Error> {
        let chunk = u64::from(self.disk.chunk);
        let (first, end) = (range.start / chunk, range.end.div_ceil(chunk));
        let mut ids = Vec::with_capacity((end - first) as usize);
        let mut n = first;
        while n < end {
            let (of, at) = ((n / TABLE as u64) as usize, (n % TABLE as u64) as usize);
            let here = (end - n).min((TABLE - at) as u64) as usize;
            // Its size was compared with that of the disk when the copy was opened.
            let table = self.disk.tables.get(of).copied().unwrap_or(Id::ZERO);
            if table.is_zero() {
                ids.resize(ids.len() + here, Id::ZERO);
            } else {
                let bytes = self.chunks.chunk(table).await?;
                let (all, _) = bytes.as_chunks::<32>();
                let named = all.get(at..at + here).ok_or(Error::Lost { id: table })?;
                ids.extend(named.iter().map(|id| Id(*id)));
            }
            n += here as u64;
        }
        Ok((first * chunk, ids))
    }

    async fn fill(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let end = offset + buffer.len() as u64;
        let (begin, ids) = self.ids(offset..end).await?;
        let all = ids.iter().map(|id| async {
            match id.is_zero() {
                true => Ok(None),
                false => self.chunks.chunk(*id).await.map(Some),
            }
        });
        let mut at = begin;
        for (id, chunk) in ids.iter().zip(try_join_all(all).await?) {
            let to = (at + u64::from(self.disk.chunk)).min(end);
            let from = at.max(offset);
            let piece = &mut buffer[(from - offset) as usize..(to - offset) as usize];
            match chunk {
                None => piece.fill(0),
                Some(chunk) => {
                    let there = chunk.get((from - at) as usize..(to - at) as usize);
                    piece.copy_from_slice(there.ok_or(Error::Lost { id: *id })?);
                }
            }
            at = to;
        }
        Ok(())
    }

    /// Fetches what will be asked for next, where one place is read after the other.
    fn ahead(&self, range: Range<u64>) {
        let mut last = lock(&self.last);
        let goes_on = *last == range.start && range.start > 0;
        *last = range.end;
        drop(last);
        let next = range.end..(range.end + AHEAD).min(self.disk.bytes);
        // Once for each chunk that is begun.
        let begun = range.start / u64::from(self.disk.chunk) != range.end / u64::from(self.disk.chunk);
        if !goes_on || !begun || next.is_empty() {
            return;
        }
        let ahead = Self::new(self.chunks.clone(), self.disk.clone());
        tokio::spawn(async move {
            // Whoever reads there hears of it.
            let Ok((_, ids)) = ahead.ids(next).await else {
                return;
            };
            let wanted = ids.into_iter().filter(|id| !id.is_zero());
            _ = try_join_all(wanted.map(|id| ahead.chunks.chunk(id))).await;
        });
    }
}

fn lasting(e: Error) -> io::Error {
    io::Error::other(chain(&e))
}

#[async_trait]
impl Export for CopyDisk {
    fn bytes(&self) -> u64 {
        self.disk.bytes
    }

    async fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.ahead(offset..offset + buffer.len() as u64);
        self.fill(offset, buffer).await.map_err(lasting)
    }

    async fn status(&self, offset: u64, bytes: u64) -> io::Result<Vec<Extent>> {
        let end = offset + bytes;
        let (begin, ids) = self.ids(offset..end).await.map_err(lasting)?;
        let mut extents: Vec<Extent> = Vec::new();
        let mut at = begin;
        for id in ids {
            let to = (at + u64::from(self.disk.chunk)).min(end);
            let (bytes, hole) = (to - at.max(offset), id.is_zero());
            match extents.last_mut() {
                Some(last) if last.hole == hole => last.bytes += bytes,
                _ => extents.push(Extent { bytes, hole }),
            }
            at = to;
        }
        Ok(extents)
    }
}
