//! A store in memory that fails when it is told to, and disks in memory.

use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use vault::store::{Listed, Objects, Put};
use vault::{Key, Making, Opening, Sink, Source, StoreError, Vault, Wrapping};

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is refused, and nothing was done.
    Refused,
    /// It was done, and its answer is lost.
    AnswerLost,
    /// Half of the object is there, and an error said.
    Torn,
    /// No room.
    Full,
}

/// Objects in memory.
#[derive(Default)]
pub struct Memory {
    pub objects: Mutex<BTreeMap<String, Bytes>>,
    /// Counts operations.
    pub operations: AtomicU64,
    /// Which operation fails, and how.
    pub fault: Mutex<Option<(u64, Fault)>>,
    /// Lists do not show what was written in the last so many operations.
    pub stale: AtomicU64,
    written: Mutex<BTreeMap<String, u64>>,
    /// Names that begin so are never answered for, once so many were.
    pub hang: Mutex<Option<(&'static str, u64)>>,
    /// Told when somebody waits for that.
    pub hung: tokio::sync::Notify,
    /// Names that begin so are not removed.
    pub kept: Mutex<Option<&'static str>>,
    /// Whether a second write of a name is taken, as many stores do.
    pub unconditional: std::sync::atomic::AtomicBool,
}

impl Memory {
    async fn answers(&self, name: &str) {
        let hangs = match &mut *self.hang.lock().unwrap() {
            Some((prefix, 0)) if name.starts_with(*prefix) => true,
            Some((prefix, left)) if name.starts_with(*prefix) => {
                *left -= 1;
                false
            }
            _ => false,
        };
        if hangs {
            self.hung.notify_one();
            std::future::pending::<()>().await;
        }
        tokio::task::yield_now().await;
    }

    fn next(&self) -> (u64, Option<Fault>) {
        let n = self.operations.fetch_add(1, Ordering::SeqCst);
        let fault = *self.fault.lock().unwrap();
        (n, fault.filter(|(at, _)| *at == n).map(|(_, fault)| fault))
    }

    pub fn names(&self, prefix: &str) -> Vec<String> {
        let objects = self.objects.lock().unwrap();
        objects
            .keys()
            .filter(|n| n.starts_with(prefix))
            .cloned()
            .collect()
    }
}

fn refusal(fault: Fault) -> StoreError {
    match fault {
        Fault::Full => StoreError::Full,
        _ => StoreError::Away("it was told to fail".into()),
    }
}

#[async_trait]
impl Objects for Memory {
    async fn put(&self, name: &str, pieces: Vec<Bytes>, put: Put) -> Result<(), StoreError> {
        self.answers(name).await;
        let (n, fault) = self.next();
        let whole: Vec<u8> = pieces.concat();
        let mut objects = self.objects.lock().unwrap();
        match fault {
            Some(fault @ (Fault::Refused | Fault::Full)) => return Err(refusal(fault)),
            // Of a write that is whole or not at all: a store that breaks its word is found by seals.
            Some(Fault::Torn) => {
                objects.insert(name.to_owned(), whole[..whole.len() / 2].to_vec().into());
                return Err(refusal(Fault::Torn));
            }
            _ => {}
        }
        if put == Put::Create && objects.contains_key(name) && !self.unconditional.load(Ordering::SeqCst) {
            return Err(StoreError::Exists);
        }
        objects.insert(name.to_owned(), whole.into());
        self.written.lock().unwrap().entry(name.to_owned()).or_insert(n);
        match fault {
            Some(fault) => Err(refusal(fault)),
            None => Ok(()),
        }
    }

    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        self.answers(name).await;
        if let (_, Some(fault)) = self.next() {
            return Err(refusal(fault));
        }
        let objects = self.objects.lock().unwrap();
        let body = objects.get(name).ok_or(StoreError::NotFound)?;
        let Some(range) = range else {
            return Ok(body.clone());
        };
        if range.end > body.len() as u64 {
            return Err(StoreError::Other("it is shorter".into()));
        }
        Ok(body.slice(range.start as usize..range.end as usize))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.answers(prefix).await;
        let (n, fault) = self.next();
        if let Some(fault) = fault {
            return Err(refusal(fault));
        }
        let (objects, written) = (self.objects.lock().unwrap(), self.written.lock().unwrap());
        let stale = self.stale.load(Ordering::SeqCst);
        let all = objects
            .iter()
            .filter(|(name, _)| {
                name.starts_with(prefix) && written.get(*name).copied().unwrap_or(0) + stale <= n
            })
            .map(|(name, body)| Listed {
                name: name.clone(),
                size: body.len() as u64,
            });
        Ok(all.collect())
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.answers(name).await;
        if self
            .kept
            .lock()
            .unwrap()
            .is_some_and(|kept| name.starts_with(kept))
        {
            return Err(StoreError::Denied("the bucket keeps what it has".into()));
        }
        let (_, fault) = self.next();
        if let Some(fault @ (Fault::Refused | Fault::Full)) = fault {
            return Err(refusal(fault));
        }
        self.objects.lock().unwrap().remove(name);
        match fault {
            Some(fault) => Err(refusal(fault)),
            None => Ok(()),
        }
    }
}

/// A disk in memory. What is zero is a hole, by blocks of 4 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk(pub Arc<Vec<u8>>);

impl Source for Disk {
    fn bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn data(&self, offset: u64, end: u64) -> io::Result<Option<Range<u64>>> {
        let blocks = self.0.chunks(4096).enumerate();
        let has = |block: &[u8]| block.iter().any(|b| *b != 0);
        let mut found: Option<Range<u64>> = None;
        for (n, block) in blocks.skip((offset / 4096) as usize) {
            let at = n as u64 * 4096;
            match &mut found {
                None if at >= end => return Ok(None),
                None if has(block) => found = Some(at.max(offset)..at + block.len() as u64),
                Some(found) if has(block) => found.end = at + block.len() as u64,
                Some(found) => return Ok(Some(found.clone())),
                None => {}
            }
        }
        Ok(found)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let at = offset as usize;
        buffer.copy_from_slice(&self.0[at..at + buffer.len()]);
        Ok(())
    }
}

/// What was restored.
pub struct Restored(pub Mutex<Vec<u8>>);

impl Sink for Restored {
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut all = self.0.lock().unwrap();
        all[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

/// Bytes that do not pack, by a seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes.extend(x.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// An opened vault in a store, which has the smallest chunks. The key is kept: a passphrase takes a second each time.
pub async fn vault(objects: &Arc<Memory>) -> Vault {
    let identity = age::x25519::Identity::generate();
    let making = Making {
        chunk: 64 << 10,
        now: 0,
    };
    Vault::create(
        objects.clone(),
        &Wrapping::Recipient(identity.to_public().to_string()),
        making,
    )
    .await
    .unwrap()
}

/// Opens it anew.
pub async fn again(objects: &Arc<Memory>, key: &Key) -> Vault {
    Vault::open(objects.clone(), &Opening::Key(key.clone()))
        .await
        .unwrap()
}
