//! Looking at everything, or at a part of it.

use crate::CancellationToken;
use crate::Id;
use crate::copy;
use crate::error::{Error, Result, StoreError};
use crate::pack::{self, Opener};
use crate::read::Reader;
use crate::vault::Vault;
use bytes::BytesMut;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::sync::Arc;
use uuid::Uuid;

/// How many packs are in memory at once.
const AT_ONCE: usize = 2;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// Packs that were read whole.
    pub packs: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Chunks and pieces of tables that were opened and are what their names say.
    pub chunks: u64,
    /// Copies that were looked at.
    pub copies: u64,
    /// What is wrong.
    pub damaged: Vec<Damage>,
    /// Copies that need something that is damaged or lost.
    pub hurt: Vec<Uuid>,
}

/// An object that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Damage {
    /// Its name.
    pub object: String,
    /// What is wrong with it.
    pub why: String,
}

/// Reads every pack, or each of which `wanted` says so, and says which copies are hurt by what is damaged. All copies and
/// their tables are looked at always.
///
/// # Errors
///
/// What the store said where it is away or refuses; cancelled. Damage is no error but what is asked for.
pub async fn run(
    vault: &Vault,
    wanted: impl Fn(Uuid) -> bool,
    told: &(dyn Fn(u64, u64) + Sync),
    cancel: &CancellationToken,
) -> Result<Verified> {
    let mut found = Verified::default();
    let loaded = vault.load(&HashSet::new()).await?;
    for e in &loaded.damaged {
        found.note(e);
    }
    let sizes = vault.list("packs/").await?;
    let packs: Vec<_> = loaded.index.packs().filter(|pack| wanted(*pack)).collect();
    let total: u64 = packs
        .iter()
        .filter_map(|pack| sizes.get(&pack::name(*pack)))
        .sum();
    let mut bad: HashSet<Id> = HashSet::new();
    let mut reading = stream::iter(packs)
        .map(|pack| {
            let records = loaded.index.records(pack).collect();
            let size = sizes.get(&pack::name(pack)).copied().unwrap_or_default();
            async move { (pack, look_at(vault, pack, size, records).await) }
        })
        .buffer_unordered(AT_ONCE);
    loop {
        let next = tokio::select! {
            next = reading.next() => next,
            () = cancel.cancelled() => return Err(Error::Cancelled),
        };
        let Some((pack, looked)) = next else { break };
        match looked {
            Ok(Looked { bytes, right, wrong }) => {
                found.packs += 1;
                found.bytes += bytes;
                found.chunks += right;
                for (id, why) in wrong {
                    bad.extend(id);
                    found.note(&why);
                }
            }
            // Removed since it was listed.
            Err(Error::Store {
                source: StoreError::NotFound,
                ..
            }) => tracing::debug!(%pack, "a pack went while it was to be looked at"),
            Err(e) => return Err(e),
        }
        told(found.bytes, total);
    }
    drop(reading);
    let loaded = Arc::new(loaded);
    let reader = Reader::of(vault, loaded.clone());
    for id in vault.copy_ids().await? {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        match whole(vault, &reader, &loaded, &bad, id).await {
            Ok(true) => found.copies += 1,
            Ok(false) => {
                found.copies += 1;
                found.hurt.push(id);
            }
            Err(Error::NoCopy(_)) => {}
            Err(e @ Error::Damaged { .. }) => {
                found.copies += 1;
                found.note(&e);
                found.hurt.push(id);
            }
            Err(e) => return Err(e),
        }
    }
    for prefix in ["marks/", "writers/"] {
        for name in vault.list(prefix).await?.into_keys() {
            match vault.read_json::<serde_json::Value>(&name).await {
                Err(e @ Error::Damaged { .. }) => found.note(&e),
                Err(Error::Store {
                    source: StoreError::NotFound,
                    ..
                })
                | Ok(_) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(found)
}

impl Verified {
    fn note(&mut self, e: &Error) {
        if let Error::Damaged { name, why } = e {
            let damage = Damage {
                object: name.clone(),
                why: why.clone(),
            };
            if !self.damaged.contains(&damage) {
                self.damaged.push(damage);
            }
        }
    }
}

struct Looked {
    bytes: u64,
    right: u64,
    /// With the chunk that is damaged, where it is known.
    wrong: Vec<(Option<Id>, Error)>,
}

/// Reads a pack whole, and opens all that it has.
async fn look_at(vault: &Vault, pack: Uuid, size: u64, records: Vec<pack::Record>) -> Result<Looked> {
    let name = pack::name(pack);
    let got = vault.objects.get(&name, None).await;
    let body = got.map_err(StoreError::at("read", &name))?;
    let seals = vault.seals.clone();
    let look = move || {
        let mut looked = Looked {
            bytes: body.len() as u64,
            right: 0,
            wrong: Vec::new(),
        };
        if body.len() as u64 != size {
            let why = format!("it has {} bytes, and is listed with {size}", body.len());
            looked.wrong.push((None, Error::damaged(&name, why)));
        }
        let listed = pack::tail(pack, &body, body.len() as u64).and_then(|tail| {
            let from = body.len() - tail as usize;
            pack::list(
                &seals,
                pack,
                body.get(from..).unwrap_or_default(),
                body.len() as u64,
            )
        });
        match listed {
            Ok(listed) if listed == records => {}
            Ok(_) => looked
                .wrong
                .push((None, Error::damaged(&name, "its list is not that of the index"))),
            Err(e) => looked.wrong.push((None, e)),
        }
        let mut opener = Opener::new(&seals)?;
        // Nobody else has them: they are opened where they are.
        let mut body = BytesMut::from(body);
        for record in &records {
            let from = record.offset as usize;
            let sealed = body.get_mut(from..from + record.stored as usize);
            match opener.open(pack, record, sealed.unwrap_or_default()) {
                Ok(_) => looked.right += 1,
                Err(e) => looked.wrong.push((Some(record.id), e)),
            }
        }
        Ok(looked)
    };
    tokio::task::spawn_blocking(look)
        .await
        .map_err(|_| Error::Thread)?
}

/// Whether all that a copy needs is there and not among what is bad.
async fn whole(
    vault: &Vault,
    reader: &Reader,
    loaded: &crate::load::Loaded,
    bad: &HashSet<Id>,
    id: Uuid,
) -> Result<bool> {
    let right = |id: &Id| id.is_zero() || (loaded.index.has(id) && !bad.contains(id));
    let copy = vault.copy(id).await?;
    let tables: Vec<Id> = copy.disks.into_iter().flat_map(|disk| disk.tables).collect();
    if !tables.iter().all(right) {
        return Ok(false);
    }
    let tables = tables.into_iter().filter(|table| !table.is_zero());
    stream::iter(tables.map(Ok))
        .try_fold(true, |whole, table| async move {
            match reader.table(&table).await {
                Ok(ids) => Ok(whole && ids.iter().all(right)),
                Err(Error::Lost { .. } | Error::Damaged { .. }) => Ok(false),
                Err(e) => Err(e),
            }
        })
        .await
}

/// The object of a copy.
#[must_use]
pub fn object_of(id: Uuid) -> String {
    copy::name(id)
}
