//! The pack that a writer's threads fill together, and what they share beside it.

use crate::Id;
use crate::copy::Moved;
use crate::index::Index;
use crate::pack::{Kind, Packed, Packer, Record};
use crate::read::Find;
use crate::vault::Vault;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

/// How long a pack gets before it is closed: few requests for much, and yet little memory.
const PACK: usize = 32 << 20;

/// How many packs are in memory at once: one that is filled, and one that is written.
const PACKS: usize = 2;

/// What a writer and its threads share.
pub(crate) struct Inner {
    pub(crate) vault: Vault,
    pub(crate) index: Mutex<Index>,
    packer: tokio::sync::Mutex<Option<Open>>,
    room: Arc<Semaphore>,
    /// Memory of packs that are written: the system takes its time to give as much anew.
    spare: Mutex<Vec<Vec<u8>>>,
    pub(crate) moved: Counters,
    /// When the store last took this writer's sign of life.
    pub(crate) alive: Mutex<Instant>,
    /// Something in the vault is damaged or lost: a table that is there says nothing of its chunks.
    pub(crate) gaps: bool,
    /// A pack was lost on its way: the index names chunks that are nowhere, and no copy may be made with it.
    pub(crate) broken: AtomicBool,
}

/// The pack that is being filled, with its place in memory.
struct Open {
    packer: Packer,
    room: OwnedSemaphorePermit,
}

/// A pack to be written; its place in memory is free when it is dropped.
pub(crate) struct Full {
    pub(crate) pack: Packed,
    pub(crate) room: OwnedSemaphorePermit,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) logical: AtomicU64,
    pub(crate) done: AtomicU64,
    pub(crate) read: AtomicU64,
    new: AtomicU64,
    reused: AtomicU64,
    pub(crate) stored: AtomicU64,
    chunks_new: AtomicU64,
    chunks_reused: AtomicU64,
    pub(crate) chunks_kept: AtomicU64,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these hold is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Records on their way into a pack, in the order of the disk.
#[derive(Default)]
pub(crate) struct Run {
    records: Vec<(Id, Kind, u32, Range<usize>)>,
    bytes: Vec<u8>,
    /// How many of them are in a pack.
    gone: usize,
}

impl Run {
    pub(crate) fn push(&mut self, id: Id, kind: Kind, plain: u32, body: &[u8]) {
        let from = self.bytes.len();
        self.bytes.extend(body);
        self.records.push((id, kind, plain, from..self.bytes.len()));
    }

    pub(crate) fn has(&self, id: &Id) -> bool {
        self.records.iter().any(|(has, ..)| has == id)
    }

    /// In bytes, as they are stored.
    pub(crate) const fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.gone == self.records.len()
    }
}

impl Inner {
    pub(crate) fn new(vault: Vault, index: Index, gaps: bool) -> Self {
        Self {
            vault,
            gaps,
            index: Mutex::new(index),
            packer: tokio::sync::Mutex::default(),
            room: Arc::new(Semaphore::new(PACKS)),
            spare: Mutex::default(),
            moved: Counters::default(),
            alive: Mutex::new(Instant::now()),
            broken: AtomicBool::new(false),
        }
    }

    fn memory(&self) -> Vec<u8> {
        let spare = lock(&self.spare).pop();
        spare.unwrap_or_else(|| Vec::with_capacity(PACK + (PACK >> 6)))
    }

    /// Takes back what a pack was filled into, if the store has let go of it.
    pub(crate) fn spare(&self, bytes: bytes::Bytes) {
        if let Ok(mut bytes) = bytes.try_into_mut() {
            bytes.clear();
            lock(&self.spare).push(bytes.into());
        }
    }

    /// Puts a run into the pack that is being filled, and waits for room if there is none. Answers a pack that is full: the run
    /// may have more then. What has come to be there meanwhile is left out, but not `again`.
    pub(crate) async fn put(&self, run: &mut Run, again: bool) -> Option<Full> {
        let mut packer = self.packer.lock().await;
        let mut open = match packer.take() {
            Some(open) => open,
            None => Open {
                // Never closed.
                room: self.room.clone().acquire_owned().await.ok()?,
                packer: Packer::new(&self.vault.seals, self.memory()),
            },
        };
        while let Some((id, kind, plain, body)) = run.records.get(run.gone) {
            run.gone += 1;
            let mut index = lock(&self.index);
            let new = again || !index.has(id);
            if new {
                let body = run.bytes.get(body.clone()).unwrap_or_default();
                let record = open.packer.push(*id, *kind, *plain, body);
                index.claim(open.packer.id, &record);
            }
            drop(index);
            if !kind.is_table() {
                self.moved.chunk(u64::from(*plain), new);
            }
            if open.packer.len() >= PACK {
                return Some(open.full());
            }
        }
        run.records.clear();
        run.bytes.clear();
        run.gone = 0;
        *packer = Some(open);
        None
    }

    /// The pack that is not full yet, if there is one.
    pub(crate) async fn last(&self) -> Option<Full> {
        let last = self.packer.lock().await.take();
        last.filter(|open| open.packer.len() > 0).map(Open::full)
    }

    pub(crate) fn has(&self, id: &Id) -> bool {
        id.is_zero() || lock(&self.index).has(id)
    }
}

impl Open {
    fn full(self) -> Full {
        Full {
            pack: self.packer.finish(),
            room: self.room,
        }
    }
}

impl Find for Inner {
    fn find(&self, id: &Id) -> Option<(Uuid, Record)> {
        lock(&self.index).find(id)
    }
}

impl Counters {
    /// A chunk that was read.
    pub(crate) fn chunk(&self, bytes: u64, new: bool) {
        let (counter, chunks) = match new {
            true => (&self.new, &self.chunks_new),
            false => (&self.reused, &self.chunks_reused),
        };
        add(counter, bytes);
        add(chunks, 1);
    }

    pub(crate) fn now(&self) -> Moved {
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
