//! A vault that is open.

use crate::beside::Hold;
use crate::copy::{self, Copy};
use crate::error::{Error, Result, StoreError};
use crate::keys::{Key, Opening, Seals, Wrapping};
use crate::pack;
use crate::store::{Objects, Put};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use uuid::Uuid;

/// The format that this program writes.
const FORMAT: u32 = 1;

/// How long a chunk may be.
const CHUNKS: RangeInclusive<u32> = 64 << 10..=pack::LONGEST;

/// How many small objects are asked for at once.
pub(crate) const AT_ONCE: usize = 16;

const CONFIG: &str = "config";

/// What the object `config` says, which is not sealed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    /// The format's number.
    offshoot_vault: u32,
    /// The vault's own id.
    id: Uuid,
    /// In microseconds since 1970.
    created: i64,
    /// Bytes of a chunk.
    chunk: u32,
}

/// How a vault is made.
#[derive(Clone, Copy, Debug)]
pub struct Making {
    /// Bytes of a chunk: a power of two, 64 KiB to 1 MiB.
    pub chunk: u32,
    /// Now, in microseconds since 1970.
    pub now: i64,
}

impl Making {
    /// Chunks of 128 KiB: small changes stay small, and a terabyte in use takes some 400 MB of an index in memory.
    #[must_use]
    pub const fn at(now: i64) -> Self {
        Self {
            chunk: 128 << 10,
            now,
        }
    }
}

/// A vault that is open.
#[derive(Clone)]
pub struct Vault {
    pub(crate) objects: Arc<dyn Objects>,
    pub(crate) seals: Arc<Seals>,
    key: Key,
    id: Uuid,
    chunk: u32,
}

impl Vault {
    /// Makes a vault where none is.
    ///
    /// # Errors
    ///
    /// There is one already; what the store said; a passphrase or recipient that is none.
    pub async fn create(objects: Arc<dyn Objects>, wrapping: &Wrapping, making: Making) -> Result<Self> {
        if let Some((config, _)) = read_config(&*objects).await? {
            return Err(Error::Exists {
                created: config.created,
            });
        }
        let key = Key::random();
        let config = Config {
            offshoot_vault: FORMAT,
            id: Uuid::new_v4(),
            created: making.now,
            chunk: making
                .chunk
                .clamp(*CHUNKS.start(), *CHUNKS.end())
                .next_power_of_two(),
        };
        let vault = Self {
            seals: Arc::new(Seals::new(&key)),
            objects,
            id: config.id,
            chunk: config.chunk,
            key,
        };
        // The key first: a vault with a config and no key would be one that nobody can open.
        vault.add_key(wrapping).await?;
        let mut text = serde_json::to_vec(&config).map_err(|e| Error::damaged(CONFIG, e.to_string()))?;
        let proof = vault.key.authenticate(&text);
        text.push(b'\n');
        text.extend(hex::encode(proof).bytes());
        text.push(b'\n');
        vault.write(CONFIG, text, Put::Create).await?;
        Ok(vault)
    }

    /// Opens a vault.
    ///
    /// # Errors
    ///
    /// There is none, it is newer, its key is lost or another; what the store said.
    pub async fn open(objects: Arc<dyn Objects>, opening: &Opening) -> Result<Self> {
        let (config, text) = read_config(&*objects).await?.ok_or(Error::NoVault)?;
        if config.offshoot_vault != FORMAT {
            return Err(Error::Newer {
                found: config.offshoot_vault,
                known: FORMAT,
            });
        }
        let key = open_key(&*objects, config.id, opening).await?;
        let mut lines = text.splitn(2, |b| *b == b'\n');
        let (body, proof) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let right = hex::encode(key.authenticate(body));
        if proof.trim_ascii() != right.as_bytes() {
            return Err(match opening {
                Opening::Key(_) => Error::WrongKey("key that was kept"),
                _ => Error::damaged(CONFIG, "it is not as it was written"),
            });
        }
        if !CHUNKS.contains(&config.chunk) {
            let why = format!("chunks of {} bytes are none that it can have", config.chunk);
            return Err(Error::damaged(CONFIG, why));
        }
        Ok(Self {
            seals: Arc::new(Seals::new(&key)),
            objects,
            key,
            id: config.id,
            chunk: config.chunk,
        })
    }

    /// Its id, which stays wherever it is moved.
    #[must_use]
    pub const fn id(&self) -> Uuid {
        self.id
    }

    /// Bytes of a chunk.
    #[must_use]
    pub const fn chunk(&self) -> u32 {
        self.chunk
    }

    /// Its key, for somebody who keeps it sealed.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// The store that it is in.
    #[must_use]
    pub fn objects(&self) -> Arc<dyn Objects> {
        self.objects.clone()
    }

    /// Wraps the key once more: either opens the vault from then on.
    ///
    /// # Errors
    ///
    /// What the store said; a passphrase or recipient that is none.
    pub async fn add_key(&self, wrapping: &Wrapping) -> Result<()> {
        let (key, id, wrapping) = (self.key.clone(), self.id, wrapping.clone());
        // A passphrase is made expensive to guess, and that takes a second.
        let wrapped = tokio::task::spawn_blocking(move || key.wrap(id, &wrapping));
        let wrapped = wrapped.await.map_err(|_| Error::Thread)??;
        let name = format!("keys/{}.age", Uuid::new_v4().simple());
        self.write(&name, wrapped, Put::Create).await
    }

    /// All copies, the oldest first.
    ///
    /// # Errors
    ///
    /// What the store said; damage to any of them, but see [`crate::verify`].
    pub async fn copies(&self) -> Result<Vec<Copy>> {
        let mut all: Vec<Copy> = stream::iter(self.copy_ids().await?)
            .map(|id| async move {
                match self.copy(id).await {
                    // Deleted since it was listed.
                    Err(Error::NoCopy(_)) => Ok(None),
                    copy => copy.map(Some),
                }
            })
            .buffer_unordered(AT_ONCE)
            .try_filter_map(|copy| async { Ok(copy) })
            .try_collect()
            .await?;
        all.sort_by_key(|copy| (copy.created, copy.id));
        Ok(all)
    }

    /// The ids of all copies, by the store's list.
    ///
    /// # Errors
    ///
    /// What the store said.
    pub async fn copy_ids(&self) -> Result<Vec<Uuid>> {
        let listed = self.list("copies/").await?;
        let ids = listed.into_keys().filter_map(|name| {
            let id = Uuid::try_parse(name.strip_prefix("copies/")?).ok()?;
            (copy::name(id) == name).then_some(id)
        });
        Ok(ids.collect())
    }

    /// A copy. Cheap: one request, whether it is there or not.
    ///
    /// # Errors
    ///
    /// There is none; it is damaged; what the store said.
    pub async fn copy(&self, id: Uuid) -> Result<Copy> {
        match self.read(&copy::name(id)).await {
            Ok(sealed) => copy::open(&self.seals, id, &sealed),
            Err(Error::Store {
                source: StoreError::NotFound,
                ..
            }) => Err(Error::NoCopy(id)),
            Err(e) => Err(e),
        }
    }

    /// Removes a copy, and its notes. What only it needs goes when the vault is cleaned up ([`crate::prune`]).
    ///
    /// # Errors
    ///
    /// It is held, or its hold cannot be read; what the store said.
    pub async fn forget(&self, id: Uuid) -> Result<()> {
        if let Some(Hold { by, since, .. }) = self.held(id).await? {
            return Err(Error::Held { copy: id, by, since });
        }
        self.delete(&copy::name(id)).await?;
        self.forget_notes(id).await
    }

    pub(crate) async fn write(&self, name: &str, body: Vec<u8>, put: Put) -> Result<()> {
        let put = self.objects.put(name, vec![body.into()], put);
        put.await.map_err(StoreError::at("write", name))
    }

    pub(crate) async fn read(&self, name: &str) -> Result<Bytes> {
        let got = self.objects.get(name, None).await;
        got.map_err(StoreError::at("read", name))
    }

    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        let deleted = self.objects.delete(name).await;
        deleted.map_err(StoreError::at("delete", name))
    }

    /// Names and sizes.
    pub(crate) async fn list(&self, prefix: &str) -> Result<HashMap<String, u64>> {
        let listed = self.objects.list(prefix).await;
        let listed = listed.map_err(StoreError::at("list", prefix))?;
        Ok(listed.into_iter().map(|o| (o.name, o.size)).collect())
    }

    /// An object that is sealed JSON.
    pub(crate) async fn read_json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        let plain = self.seals.open_object(name, &self.read(name).await?)?;
        serde_json::from_slice(&plain).map_err(|e| Error::damaged(name, e.to_string()))
    }

    pub(crate) async fn write_json(&self, name: &str, value: &impl Serialize, put: Put) -> Result<()> {
        let plain = serde_json::to_vec(value).map_err(|e| Error::damaged(name, e.to_string()))?;
        self.write(name, self.seals.seal_object(name, &plain), put).await
    }
}

async fn read_config(objects: &dyn Objects) -> Result<Option<(Config, Bytes)>> {
    match objects.get(CONFIG, None).await {
        Ok(text) => {
            let body = text.split(|b| *b == b'\n').next().unwrap_or_default();
            let config = serde_json::from_slice(body).map_err(|e| Error::damaged(CONFIG, e.to_string()))?;
            Ok(Some((config, text)))
        }
        Err(StoreError::NotFound) => Ok(None),
        Err(e) => Err(StoreError::at("read", CONFIG)(e)),
    }
}

async fn open_key(objects: &dyn Objects, vault: Uuid, opening: &Opening) -> Result<Key> {
    if let Opening::Key(key) = opening {
        return Ok(key.clone());
    }
    let listed = objects.list("keys/").await;
    let listed = listed.map_err(StoreError::at("list", "keys/"))?;
    if listed.is_empty() {
        return Err(Error::NoKey);
    }
    let mut broken = None;
    for object in listed {
        let wrapped = objects.get(&object.name, None).await;
        let wrapped = wrapped.map_err(StoreError::at("read", &object.name))?;
        let opening = opening.clone();
        let opened =
            tokio::task::spawn_blocking(move || Key::unwrap(&object.name, &wrapped, vault, &opening));
        match opened.await.map_err(|_| Error::Thread)? {
            Ok(Some(key)) => return Ok(key),
            Ok(None) => {}
            Err(e @ Error::BadKey(_)) => return Err(e),
            Err(e) => broken = Some(e),
        }
    }
    Err(broken.unwrap_or(Error::WrongKey(match opening {
        Opening::Identity(_) => "age identity",
        _ => "passphrase",
    })))
}
