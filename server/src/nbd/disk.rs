//! A disk of a copy, that waits for a store that is away.

use super::{Export, Extent};
use async_trait::async_trait;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use vault::{Disk, DiskReader, Error, Reader, Vault};

/// How many bytes of chunks are kept of each disk: guests read the same places again, and less than a chunk at a time.
const KEPT: usize = 32 << 20;
/// How long is waited until a store that is away is asked again, at first and at most.
const AGAIN: Range<Duration> = Duration::from_millis(100)..Duration::from_secs(5);
/// How long what is known of where chunks are counts as new.
const FRESH: Duration = Duration::from_secs(1);

/// Waits for a store that is away, longer each time.
struct Patience<'a> {
    what: &'a str,
    wait: Duration,
}

impl<'a> Patience<'a> {
    const fn new(what: &'a str) -> Self {
        Self {
            what,
            wait: AGAIN.start,
        }
    }

    /// Returns when it is time to try again; the error, where that may not help.
    async fn wait(&mut self, e: Error) -> Result<(), Error> {
        if !e.is_transient() {
            return Err(e);
        }
        if self.wait == AGAIN.start {
            tracing::warn!(error = %chain(&e), "{} waits until the store is back", self.what);
        }
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(AGAIN.end);
        Ok(())
    }

    fn over(&self) {
        if self.wait > AGAIN.start {
            tracing::info!("{} goes on: the store answers", self.what);
        }
    }
}

/// Does this until the store is not away.
pub async fn patiently<T, F>(what: &str, mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut patience = Patience::new(what);
    loop {
        match attempt().await {
            Ok(done) => {
                patience.over();
                return Ok(done);
            }
            Err(e) => patience.wait(e).await?,
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

/// Where the chunks of a vault are, for all disks of a copy.
pub struct Chunks {
    vault: Vault,
    /// With when it was made: a clean-up of the vault moves chunks.
    reader: Mutex<(Reader, Instant)>,
    /// Whoever makes a newer one.
    renewing: tokio::sync::Mutex<()>,
}

impl Chunks {
    /// Learns where all chunks are.
    pub async fn new(vault: Vault) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self {
            reader: Mutex::new((vault.reader().await?, Instant::now())),
            vault,
            renewing: tokio::sync::Mutex::default(),
        }))
    }

    /// A reader that is newer than one of then.
    async fn newer(&self, made: Instant) -> Result<(Reader, Instant), Error> {
        let _one = self.renewing.lock().await;
        if lock(&self.reader).1 == made {
            let newer = patiently("a read", || self.vault.reader()).await?;
            *lock(&self.reader) = (newer, Instant::now());
        }
        Ok(lock(&self.reader).clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these hold is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A disk of a copy, as it can be read.
pub struct CopyDisk {
    chunks: Arc<Chunks>,
    disk: DiskReader,
    /// When what it reads by was made.
    made: Mutex<Instant>,
}

impl CopyDisk {
    /// A disk; nothing is read of it yet.
    pub fn new(chunks: Arc<Chunks>, disk: Disk) -> Self {
        let (reader, made) = lock(&chunks.reader).clone();
        Self {
            chunks,
            disk: reader.disk(disk).keeping(KEPT),
            made: Mutex::new(made),
        }
    }

    fn made(&self) -> Instant {
        *lock(&self.made)
    }

    /// Returns when it is time to read again what could not be read by what was made then.
    async fn again(&self, e: Error, made: Instant, patience: &mut Patience<'_>) -> io::Result<()> {
        let again = match e {
            // It may have been moved since.
            Error::Damaged { .. } | Error::Lost { .. } if made.elapsed() > FRESH => self.renew(made).await,
            e => patience.wait(e).await,
        };
        again.map_err(|e| io::Error::other(chain(&e)))
    }

    async fn renew(&self, made: Instant) -> Result<(), Error> {
        let (reader, newer) = self.chunks.newer(made).await?;
        self.disk.renew(&reader);
        *lock(&self.made) = newer;
        Ok(())
    }
}

#[async_trait]
impl Export for CopyDisk {
    fn bytes(&self) -> u64 {
        self.disk.bytes()
    }

    async fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut patience = Patience::new("a read");
        loop {
            let made = self.made();
            match self.disk.read_at(offset, buffer).await {
                Err(e) => self.again(e, made, &mut patience).await?,
                Ok(()) => {
                    patience.over();
                    return Ok(());
                }
            }
        }
    }

    async fn status(&self, offset: u64, bytes: u64) -> io::Result<Vec<Extent>> {
        let mut patience = Patience::new("a read");
        let extents = loop {
            let made = self.made();
            match self.disk.extents(offset, bytes).await {
                Err(e) => self.again(e, made, &mut patience).await?,
                Ok(extents) => break extents,
            }
        };
        patience.over();
        let hole = |e: vault::Extent| Extent {
            bytes: e.bytes,
            hole: e.zero,
        };
        Ok(extents.into_iter().map(hole).collect())
    }
}
