//! Making a copy.
//!
//! Threads go through a disk, a piece of its table at a time; what is new goes into a pack that they share, and one task
//! brings full packs to the store. Nothing is seen of a copy before its own object is there, which is written last.

use crate::copy::{self, Copy, Disk, Moved, TABLE};
use crate::error::{Error, Result, StoreError};
use crate::index::{self, Index};
use crate::pack::{self, Kind, Packed, Packer, Record, Squeezer};
use crate::prune::{self, Lease};
use crate::read::{Find, Reader};
use crate::source::Source;
use crate::store::Put;
use crate::vault::{Loaded, Vault};
use crate::{CancellationToken, Id};
use serde_json::Value;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use uuid::Uuid;

/// How long a pack gets before it is closed. A store with few requests for much, and yet little memory.
const PACK: usize = 32 << 20;

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
    inner: Arc<Inner>,
    /// Tells the other writers and the clean-up that it is there; ends with this one.
    beat: tokio::task::JoinHandle<()>,
    /// What nobody names yet, of earlier writers: named with what this one makes.
    adopted: HashSet<Uuid>,
    own: tokio::sync::Mutex<Own>,
}

#[derive(Default)]
struct Own {
    packs: Vec<(Uuid, Vec<Record>)>,
}

struct Inner {
    vault: Vault,
    threads: usize,
    index: Mutex<Index>,
    packer: Mutex<Option<Packer>>,
    moved: Counters,
    /// When the store last took this writer's sign of life.
    alive: Mutex<Instant>,
    /// A pack was lost on its way: the index names chunks that are nowhere, and no copy may be made with it.
    broken: AtomicBool,
}

#[derive(Default)]
struct Counters {
    logical: AtomicU64,
    done: AtomicU64,
    read: AtomicU64,
    new: AtomicU64,
    reused: AtomicU64,
    stored: AtomicU64,
    chunks_new: AtomicU64,
    chunks_reused: AtomicU64,
    chunks_kept: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these hold is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
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
        let Loaded { index, orphans, .. } = self.load(&marked).await?;
        let inner = Arc::new(Inner {
            vault: self.clone(),
            threads: threads.max(1),
            index: Mutex::new(index),
            packer: Mutex::new(None),
            moved: Counters::default(),
            alive: Mutex::new(Instant::now()),
            broken: AtomicBool::new(false),
        });
        Ok(Writer {
            vault: self.clone(),
            id,
            beat: tokio::spawn(beat(Arc::downgrade(&inner), self.clone(), id, lease.clone())),
            inner,
            adopted: orphans.difference(&marked).copied().collect(),
            own: tokio::sync::Mutex::default(),
        })
    }
}

/// How often a writer says that it is there.
const BEAT: Duration = Duration::from_secs(60);

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
        let chunk = self.vault.chunk();
        let bytes = source.bytes();
        add(&self.inner.moved.logical, bytes);
        let stride = u64::from(chunk) * TABLE as u64;
        let pieces = bytes.div_ceil(stride) as usize;
        let work = Arc::new(Work {
            inner: self.inner.clone(),
            name: name.to_owned(),
            source,
            chunk,
            kept: change
                .filter(|change| change.parent.chunk == chunk)
                .map(|change| Kept {
                    tables: change.parent.tables.clone(),
                    bytes: change.parent.bytes,
                    ranges: change.ranges.to_vec(),
                    reader: Reader::of(&self.vault, self.inner.clone()),
                }),
            next: Mutex::new(0..pieces),
            tables: Mutex::new(vec![Id::ZERO; pieces]),
            // Ends the threads when one has failed, without cancelling what the caller may go on with.
            cancel: cancel.child_token(),
        });
        // One that waits and one that is written: with that which is filled, three packs are in memory at most.
        let (full, mut packs) = mpsc::channel::<Packed>(1);
        let mut threads = Vec::new();
        for _ in 0..self.inner.threads.min(pieces.max(1)) {
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
        let tables = std::mem::take(&mut *lock(&work.tables));
        Ok(Disk {
            name: name.to_owned(),
            bytes,
            chunk,
            tables,
            track,
        })
    }

    async fn store(&self, pack: Packed) -> Result<()> {
        let name = pack::name(pack.id);
        let size = pack.bytes.len() as u64;
        let put = self.vault.objects.put(&name, vec![pack.bytes], Put::Create);
        put.await.map_err(StoreError::at("write", &name))?;
        add(&self.inner.moved.stored, size);
        self.own.lock().await.packs.push((pack.id, pack.records));
        Ok(())
    }

    /// Writes what is not full yet, and names all that this writer has brought, so that it is found quickly.
    async fn settle(&self) -> Result<()> {
        let last = lock(&self.inner.packer).take();
        if let Some(last) = last
            && last.len() > 0
        {
            self.store(last.finish()).await?;
        }
        let own = self.own.lock().await;
        let mut packs: Vec<_> = own.packs.clone();
        drop(own);
        if !self.adopted.is_empty() {
            let loaded = self.vault.load(&HashSet::new()).await?;
            let orphans = loaded
                .packs
                .into_iter()
                .filter(|(pack, _)| self.adopted.contains(pack) && loaded.orphans.contains(pack));
            packs.extend(orphans);
        }
        if packs.is_empty() {
            return Ok(());
        }
        let name = index::name(Uuid::new_v4());
        let list = index::write(packs.iter().map(|(pack, records)| (*pack, &records[..])));
        let sealed = self.vault.seals.seal_object(&name, &list);
        add(&self.inner.moved.stored, sealed.len() as u64);
        self.vault.write(&name, sealed, Put::Create).await
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

    /// Ends without a copy. What was brought to the store stays, and the next writer knows it.
    pub async fn leave(self) {
        if let Err(e) = self.settle().await {
            tracing::debug!(error = %e, "what a writer has brought is not named");
        }
        self.end().await;
    }

    async fn end(self) {
        self.beat.abort();
        if let Err(e) = self.vault.delete(&prune::lease_name(self.id)).await {
            tracing::warn!(error = %e, "a writer's sign of life stays: a clean-up waits a day for it");
        }
    }

    /// Takes a record of another pack over, as it is: for a clean-up.
    pub(crate) async fn take_over(&self, id: Id, kind: Kind, plain: u32, body: &[u8]) -> Result<()> {
        let full = self.inner.push(id, kind, plain, body);
        match full {
            Some(full) => self.store(full).await,
            None => Ok(()),
        }
    }

    /// The packs that it has brought.
    pub(crate) async fn named(self) -> Result<Vec<(Uuid, Vec<Record>)>> {
        let settled = self.settle().await;
        let packs = std::mem::take(&mut self.own.lock().await.packs);
        self.end().await;
        settled.map(|()| packs)
    }
}

impl Inner {
    /// Puts a chunk into the pack that is being filled; answers one that is full.
    fn push(&self, id: Id, kind: Kind, plain: u32, body: &[u8]) -> Option<Packed> {
        let mut packer = lock(&self.packer);
        let open = packer.get_or_insert_with(|| Packer::new(&self.vault.seals, PACK + (PACK >> 4)));
        let record = open.push(id, kind, plain, body);
        lock(&self.index).claim(open.id, &record);
        match open.len() >= PACK {
            true => packer.take().map(Packer::finish),
            false => None,
        }
    }

    fn has(&self, id: &Id) -> bool {
        id.is_zero() || lock(&self.index).has(id)
    }
}

impl Find for Inner {
    fn find(&self, id: &Id) -> Option<(Uuid, Record)> {
        lock(&self.index).find(id)
    }
}

/// One disk, for all threads.
struct Work {
    inner: Arc<Inner>,
    name: String,
    source: Arc<dyn Source>,
    chunk: u32,
    kept: Option<Kept>,
    next: Mutex<Range<usize>>,
    tables: Mutex<Vec<Id>>,
    cancel: CancellationToken,
}

/// What is taken from the copy before.
struct Kept {
    tables: Vec<Id>,
    bytes: u64,
    ranges: Vec<Range<u64>>,
    reader: Reader,
}

impl Kept {
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
    full: &'a mpsc::Sender<Packed>,
}

impl Work {
    fn thread(&self, full: &mpsc::Sender<Packed>, handle: &Handle) -> Result<()> {
        let mut tools = Tools {
            squeezer: Squeezer::new(1)?,
            buffer: vec![0; self.chunk as usize],
            full,
        };
        loop {
            let Some(piece) = lock(&self.next).next() else {
                return Ok(());
            };
            let table = self.piece(piece, &mut tools, handle)?;
            if let Some(place) = lock(&self.tables).get_mut(piece) {
                *place = table;
            }
        }
    }

    /// Goes through what one piece of the table is about.
    fn piece(&self, piece: usize, tools: &mut Tools<'_>, handle: &Handle) -> Result<Id> {
        let moved = &self.inner.moved;
        let chunk = u64::from(self.chunk);
        let begin = piece as u64 * chunk * TABLE as u64;
        let end = (begin + chunk * TABLE as u64).min(self.source.bytes());
        let kept = self.kept.as_ref();
        if let Some(kept) = kept
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
            Some((kept, table)) => match handle.block_on(kept.reader.table(table)) {
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
            let found = self.source.data(at, self.source.bytes());
            let none = self.source.bytes()..u64::MAX;
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
        if self.inner.has(&id) {
            add(&moved.reused, length as u64);
            add(&moved.chunks_reused, 1);
            return Ok(id);
        }
        add(&moved.new, length as u64);
        add(&moved.chunks_new, 1);
        let (kind, body) = tools.squeezer.squeeze(buffer, false);
        self.push(id, kind, length, body, tools.full)?;
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
            self.push(id, kind, plain.len(), body, tools.full)?;
        }
        Ok(id)
    }

    fn push(&self, id: Id, kind: Kind, plain: usize, body: &[u8], full: &mpsc::Sender<Packed>) -> Result<()> {
        match self.inner.push(id, kind, plain as u32, body) {
            // Refused when nobody takes packs any more: something has failed, and says so.
            Some(pack) => full.blocking_send(pack).map_err(|_| Error::Cancelled),
            None => Ok(()),
        }
    }
}

/// Whether there are only zeros, sixteen bytes at a time.
fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|b| *b == 0)
}

impl Counters {
    fn now(&self) -> Moved {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Moved {
            logical: get(&self.logical),
            done: get(&self.done),
            read: get(&self.read),
            new: get(&self.new),
            reused: get(&self.reused),
            stored: get(&self.stored),
            chunks_new: get(&self.chunks_new),
            chunks_reused: get(&self.chunks_reused),
            chunks_kept: get(&self.chunks_kept),
        }
    }
}
