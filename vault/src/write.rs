//! Making a copy.
//!
//! Threads go through a disk, a piece of its table at a time; what is new goes into a pack that they share, and one task
//! brings full packs to the store. Nothing is seen of a copy before its own object is there, which is written last.

use crate::CancellationToken;
use crate::copy::{self, Copy, Disk, Moved};
use crate::error::{Error, Result, StoreError};
use crate::filling::{Full, Inner, Run, add, lock};
use crate::index;
use crate::load::Loaded;
use crate::pack::{self, Record};
use crate::prune::{self, Lease};
use crate::read::Reader;
use crate::source::Source;
use crate::store::Put;
use crate::vault::Vault;
use crate::work::{Kept, Work};
use serde_json::Value;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

/// What is known of how a disk differs from the copy before.
pub struct Change<'a> {
    /// The disk there, by [`Writer::parent`].
    pub parent: &'a Disk,
    /// What may be different, ascending and apart, in bytes. All else is as it was there.
    pub ranges: &'a [Range<u64>],
}

/// What a writer makes a copy with, beside the disks.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The copy's id, by its maker: the same for the same work, however often it is begun.
    pub id: Uuid,
    /// What its maker says of it: the machine, the snapshot.
    pub about: Value,
    /// The copy that [`Change`] was given for.
    pub parent: Option<Uuid>,
    /// Now, in microseconds since 1970.
    pub now: i64,
}

/// A writer: it makes one copy, or none.
pub struct Writer {
    vault: Vault,
    id: Uuid,
    threads: usize,
    inner: Arc<Inner>,
    /// Tells the other writers and the clean-up that it is there; ends with this one.
    beat: AbortOnDropHandle<()>,
    /// What nobody names yet, of earlier writers: named with what this one makes.
    adopted: HashSet<Uuid>,
    /// The packs that it has brought.
    own: Mutex<Vec<Uuid>>,
}

impl Vault {
    /// Begins a writer with so many threads. It knows all that earlier ones have brought here, also those that ended before
    /// their end.
    ///
    /// # Errors
    ///
    /// What the store said.
    pub async fn begin(&self, threads: usize) -> Result<Writer> {
        let id = Uuid::new_v4();
        // The sign of life first, then the marks: a clean-up that marks later sees it, one that marked before is seen.
        let mut lease = Lease::default();
        prune::write_lease(self, id, &lease).await?;
        let begun = self.begun(id, &mut lease, threads).await;
        if begun.is_err() {
            _ = self.delete(&prune::lease_name(id)).await;
        }
        begun
    }

    async fn begun(&self, id: Uuid, lease: &mut Lease, threads: usize) -> Result<Writer> {
        let marks = prune::marks(self).await?;
        lease.seen = marks.iter().map(|(id, _)| *id).collect();
        prune::write_lease(self, id, lease).await?;
        let marked: HashSet<Uuid> = marks.into_iter().flat_map(|(_, mark)| mark.packs).collect();
        // Chunks of these are brought anew. An earlier copy may lean on them, by a writer from before the marks: so nothing of it
        // is taken over unread.
        let going = !marked.is_empty();
        let loaded = self.load(&marked).await?;
        let Loaded {
            index, orphans, gaps, ..
        } = loaded;
        let inner = Arc::new(Inner::new(self.clone(), index, gaps || going));
        Ok(Writer {
            vault: self.clone(),
            id,
            threads: threads.max(1),
            beat: AbortOnDropHandle::new(tokio::spawn(beat(
                Arc::downgrade(&inner),
                self.clone(),
                id,
                lease.clone(),
            ))),
            inner,
            adopted: orphans,
            own: Mutex::default(),
        })
    }
}

/// How often a writer says that it is there.
const BEAT: Duration = Duration::from_secs(60);

/// How long a writer that makes no copy tries to name what it has brought.
const LEAVE: Duration = Duration::from_secs(30);

/// How long a writer that is not heard of may still commit: much less than a clean-up takes for granted that it is alive.
const SILENT: Duration = Duration::from_secs(3600);

async fn beat(inner: std::sync::Weak<Inner>, vault: Vault, id: Uuid, mut lease: Lease) {
    loop {
        tokio::time::sleep(BEAT).await;
        lease.beats += 1;
        let written = prune::write_lease(&vault, id, &lease).await;
        let Some(inner) = inner.upgrade() else {
            return;
        };
        match written {
            Ok(()) => *lock(&inner.alive) = Instant::now(),
            Err(e) => tracing::warn!(error = %e, "a writer's sign of life"),
        }
    }
}

impl Writer {
    /// What was moved until now.
    #[must_use]
    pub fn moved(&self) -> Moved {
        self.inner.moved.now()
    }

    /// A look at what it has moved, for others to take as it goes on.
    pub fn meter(&self) -> impl Fn() -> Moved + Send + Sync + 'static {
        let inner = self.inner.clone();
        move || inner.moved.now()
    }

    /// How many different chunks the vault is known to have.
    #[must_use]
    pub fn known(&self) -> usize {
        lock(&self.inner.index).len()
    }

    /// A copy that this one may take over from what has not changed; `None` if it is gone. Asked for by the writer, so that no
    /// clean-up removes what it has before this writer ends.
    ///
    /// # Errors
    ///
    /// What the store said; it is damaged.
    pub async fn parent(&self, id: Uuid) -> Result<Option<Copy>> {
        match self.vault.copy(id).await {
            Ok(copy) => Ok(Some(copy)),
            Err(Error::NoCopy(_)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Copies a disk. With `change`, what is not said to have changed is taken from there and not read.
    ///
    /// # Errors
    ///
    /// What the store or the source said; cancelled. What was brought to the store by then stays, and the next writer knows
    /// it; this one makes no copy any more.
    pub async fn disk(
        &self,
        name: &str,
        source: Arc<dyn Source>,
        change: Option<Change<'_>>,
        track: Value,
        cancel: &CancellationToken,
    ) -> Result<Disk> {
        let bytes = source.bytes();
        add(&self.inner.moved.logical, bytes);
        let reader = Reader::of(&self.vault, self.inner.clone());
        let kept = change.and_then(|change| Kept::new(&change, self.vault.chunk(), reader));
        // Its own token ends the threads when one has failed, without cancelling what the caller may go on with.
        let work = Arc::new(Work::new(
            self.inner.clone(),
            name,
            source,
            kept,
            cancel.child_token(),
        ));
        // Where the caller drops this the threads end as well.
        let _end = work.cancel.clone().drop_guard();
        let (full, mut packs) = mpsc::channel::<Full>(1);
        let mut threads = Vec::new();
        for _ in 0..self.threads.min(work.pieces().max(1)) {
            let (work, full, handle) = (work.clone(), full.clone(), Handle::current());
            threads.push(tokio::task::spawn_blocking(move || {
                let done = work.thread(&full, &handle);
                if done.is_err() {
                    work.cancel.cancel();
                }
                done
            }));
        }
        drop(full);
        let mut stored = Ok(());
        while let Some(pack) = packs.recv().await {
            // What comes after a failure is let go, so that the threads come to their end.
            if stored.is_ok() {
                stored = tokio::select! {
                    stored = self.store(pack) => stored,
                    () = work.cancel.cancelled() => Err(Error::Cancelled),
                };
                if stored.is_err() {
                    work.cancel.cancel();
                }
            }
        }
        let mut failed = stored.err();
        for thread in threads {
            let done = thread.await.map_err(|_| Error::Thread).and_then(|done| done);
            failed = match (failed, done) {
                // The others were cancelled for what one of them met.
                (None | Some(Error::Cancelled), Err(e)) => Some(e),
                (failed, _) => failed,
            };
        }
        if let Some(e) = failed {
            self.inner.broken.store(true, Ordering::Relaxed);
            return Err(e);
        }
        Ok(Disk {
            name: name.to_owned(),
            bytes,
            chunk: self.vault.chunk(),
            tables: work.tables(),
            track,
        })
    }

    async fn store(&self, Full { pack, room }: Full) -> Result<()> {
        let name = pack::name(pack.id);
        let size = pack.bytes.len() as u64;
        let bytes = pack.bytes.clone();
        let put = self.vault.objects.put(&name, vec![pack.bytes], Put::Create);
        put.await.map_err(StoreError::at("write", &name))?;
        self.inner.spare(bytes);
        drop(room);
        add(&self.inner.moved.stored, size);
        lock(&self.own).push(pack.id);
        Ok(())
    }

    /// Writes what is not full yet, and names all that this writer has brought, so that it is found quickly.
    async fn settle(&self) -> Result<()> {
        if let Some(last) = self.inner.last().await {
            self.store(last).await?;
        }
        let own: Vec<Uuid> = lock(&self.own).clone();
        let lists = index::write(
            &lock(&self.inner.index),
            own.into_iter().chain(self.adopted.iter().copied()),
        );
        let written = self.vault.write_index(lists).await?;
        add(&self.inner.moved.stored, written);
        Ok(())
    }

    /// Makes the copy: from then on it is there, whole. Where a copy of this id is there already, that one is the answer: it
    /// was made by the same work, whose answer was lost or which was begun twice.
    ///
    /// # Errors
    ///
    /// What the store said; somebody else may have taken this writer for dead.
    pub async fn commit(self, disks: Vec<Disk>, what: Commit) -> Result<Copy> {
        let committed = self.committed(disks, what).await;
        self.end().await;
        committed
    }

    async fn committed(&self, disks: Vec<Disk>, what: Commit) -> Result<Copy> {
        if self.inner.broken.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        // Asked for first: not every store refuses a second write.
        let put = match self.vault.copy(what.id).await {
            Ok(copy) => return Ok(copy),
            // Of a write that broke off: nobody can read it, and it has this work's own id.
            Err(Error::Damaged { .. }) => Put::Replace,
            Err(Error::NoCopy(_)) => Put::Create,
            Err(e) => return Err(e),
        };
        self.settle().await?;
        let silent = lock(&self.inner.alive).elapsed();
        if silent > SILENT {
            return Err(Error::LeaseLost(silent.as_secs()));
        }
        let copy = Copy {
            id: what.id,
            created: what.now,
            parent: what.parent,
            about: what.about,
            disks,
            moved: self.moved(),
        };
        let sealed = copy::seal(&self.vault.seals, &copy)?;
        match self.vault.write(&copy::name(copy.id), sealed, put).await {
            Ok(()) => Ok(copy),
            // It may be there all the same: the answer was lost, or another was faster.
            Err(e) => self.vault.copy(copy.id).await.map_err(|_| e),
        }
    }

    /// Ends without a copy. What was brought to the store stays, and the next writer knows it. Takes half a minute at most: a
    /// store that does not answer is left to itself.
    pub async fn leave(self) {
        let left = async {
            if let Err(e) = self.settle().await {
                tracing::debug!(error = %e, "what a writer has brought is not named");
            }
            self.end().await;
        };
        if tokio::time::timeout(LEAVE, left).await.is_err() {
            tracing::warn!("a writer's sign of life stays: a clean-up waits a day for it");
        }
    }

    async fn end(self) {
        // One that is under way would be written behind the removal.
        self.beat.abort();
        _ = self.beat.await;
        if let Err(e) = self.vault.delete(&prune::lease_name(self.id)).await {
            tracing::warn!(error = %e, "a writer's sign of life stays: a clean-up waits a day for it");
        }
    }

    /// Takes a record of another pack over, as it is, though it is there already: for a clean-up.
    pub(crate) async fn take_over(&self, record: &Record, body: &[u8]) -> Result<()> {
        let mut run = Run::default();
        run.push(record.id, record.kind, record.plain, body);
        match self.inner.put(&mut run, true).await {
            Some(full) => self.store(full).await,
            None => Ok(()),
        }
    }

    /// Ends, and names what it has brought.
    pub(crate) async fn named(self) -> Result<()> {
        let settled = self.settle().await;
        self.end().await;
        settled
    }
}
