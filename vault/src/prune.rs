//! Removing what no copy needs, beside writers that are at work.
//!
//! Twice: a first run marks packs that no copy needs, and says so in the vault; a later one removes those that still none
//! needs. In between every writer that began before the mark has ended, for each says which marks it has seen, and none
//! takes a chunk from a pack whose mark it has seen. So nothing is ever locked, and no store has to be asked for more
//! than to write whole objects and to list them.

use crate::Id;
use crate::damage;
use crate::error::{Error, Result};
use crate::index;
use crate::keys::TAG;
use crate::load::Loaded;
use crate::pack::{self, Record};
use crate::read::Reader;
use crate::store::Put;
use crate::vault::Vault;
use crate::write::Writer;
use bytes::BytesMut;
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// What a writer says of itself while it is there.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Lease {
    /// The marks whose packs it does not take anything from.
    pub(crate) seen: HashSet<Uuid>,
    /// Grows as long as it is there.
    pub(crate) beats: u64,
}

/// Packs that go, unless a copy has come to need them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mark {
    /// In microseconds since 1970, by the clock of who marked.
    pub(crate) made: i64,
    pub(crate) packs: HashSet<Uuid>,
    /// The writers that were there when the mark was last looked at: how often each had said so, and since when it has not
    /// said so again.
    #[serde(default)]
    pub(crate) waits: HashMap<Uuid, (u64, i64)>,
    /// An index without its packs is there, and the store would not remove some of them.
    #[serde(default)]
    pub(crate) refused: bool,
}

/// How a clean-up goes about.
#[derive(Clone, Copy, Debug)]
pub struct Pruning {
    /// Now, in microseconds since 1970.
    pub now: i64,
    /// How long what is marked stays, at least.
    pub stay: Duration,
    /// After what time a writer that has not been heard of is taken for dead.
    pub dead: Duration,
    /// Packs of which less than this is needed are written anew, from 0 to 1.
    pub waste: f64,
}

impl Pruning {
    /// Marks stay for a day, a writer is dead after a day, and what is less than half needed is written anew.
    #[must_use]
    pub const fn at(now: i64) -> Self {
        Self {
            now,
            stay: Duration::from_secs(86_400),
            dead: Duration::from_secs(86_400),
            waste: 0.5,
        }
    }
}

/// What a clean-up has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pruned {
    /// Packs that were marked by this run.
    pub marked: u64,
    /// Packs that were removed.
    pub removed: u64,
    /// How many bytes those had.
    pub removed_bytes: u64,
    /// Marks that wait: for their time, for a writer to end, or for a store that removes what it now refuses to.
    pub waiting: u64,
    /// Objects that the store refused to remove; a later run tries again.
    #[serde(default)]
    pub refused: Vec<Refused>,
}

/// An object that the store refused to remove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// Its name.
    pub object: String,
    /// What the store said.
    pub why: String,
}

impl Pruned {
    /// Removes an object; answers whether it is gone. That the store refuses it is no reason to leave others.
    async fn remove(&mut self, vault: &Vault, object: String) -> Result<bool> {
        match vault.delete(&object).await {
            Ok(()) => Ok(true),
            Err(Error::Store { source, .. }) if !source.is_transient() => {
                let why = source.to_string();
                self.refused.push(Refused { object, why });
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }
}

pub(crate) fn lease_name(writer: Uuid) -> String {
    format!("writers/{}", writer.simple())
}

fn mark_name(mark: Uuid) -> String {
    format!("marks/{}", mark.simple())
}

pub(crate) async fn write_lease(vault: &Vault, writer: Uuid, lease: &Lease) -> Result<()> {
    vault.write_json(&lease_name(writer), lease, Put::Replace).await
}

/// All objects below a prefix that are JSON, `None` for one that is damaged. One that has gone since is left out.
async fn all<T: serde::de::DeserializeOwned>(
    vault: &Vault,
    prefix: &'static str,
) -> Result<Vec<(Uuid, Option<T>)>> {
    let mut all = Vec::new();
    for name in vault.list(prefix).await?.into_keys() {
        let Some(id) = name.strip_prefix(prefix).and_then(|id| Uuid::try_parse(id).ok()) else {
            continue;
        };
        match vault.read_json(&name).await {
            Ok(value) => all.push((id, Some(value))),
            Err(Error::Damaged { .. }) => all.push((id, None)),
            Err(Error::Store {
                source: crate::StoreError::NotFound,
                ..
            }) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(all)
}

/// All marks that can be read. By one that cannot nothing is removed, ever.
pub(crate) async fn marks(vault: &Vault) -> Result<Vec<(Uuid, Mark)>> {
    let all = all(vault, "marks/").await?;
    Ok(all
        .into_iter()
        .filter_map(|(id, mark)| Some((id, mark?)))
        .collect())
}

/// One run: removes what was marked and may go, and marks what nobody needs.
///
/// # Errors
///
/// What the store said; a copy or a table is damaged: then nothing is removed, for nobody knows what it needs.
pub async fn run(vault: &Vault, how: Pruning) -> Result<Pruned> {
    let mut pruned = Pruned::default();
    let (mut marks, mut marked) = (Vec::new(), HashSet::new());
    for (id, mark) in all::<Mark>(vault, "marks/").await? {
        match mark {
            Some(mark) => {
                marked.extend(mark.packs.iter().copied());
                marks.push((id, mark));
            }
            None => _ = pruned.remove(vault, mark_name(id)).await?,
        }
    }
    for (id, mark) in marks {
        let done = sweep(vault, id, mark, &marked, how, &mut pruned).await?;
        pruned.waiting += u64::from(!done);
    }
    pruned.marked = mark(vault, how, &mut pruned).await?;
    pruned.waiting += u64::from(pruned.marked > 0);
    Ok(pruned)
}

/// Everything that copies need, and all packs. The copies are listed first: what they need is there by then.
async fn needed(vault: &Vault) -> Result<(HashSet<Id>, Arc<Loaded>)> {
    let mut needed = HashSet::new();
    let mut tables = HashSet::new();
    for id in vault.copy_ids().await? {
        match vault.copy(id).await {
            Ok(copy) => tables.extend(copy.disks.into_iter().flat_map(|disk| disk.tables)),
            Err(Error::NoCopy(_)) => {}
            Err(e) => return Err(e),
        }
    }
    let loaded = Arc::new(vault.load(&HashSet::new()).await?);
    tables.remove(&Id::ZERO);
    let reader = Reader::of(vault, loaded.clone());
    let mut reading = stream::iter(tables.iter().copied())
        .map(|id| {
            let reader = reader.clone();
            async move { reader.table(&id).await }
        })
        .buffer_unordered(16);
    while let Some(ids) = reading.next().await {
        needed.extend(ids?);
    }
    drop(reading);
    needed.extend(tables);
    needed.remove(&Id::ZERO);
    Ok((needed, loaded))
}

impl crate::read::Find for Loaded {
    fn find(&self, id: &Id) -> Option<(Uuid, Record)> {
        self.index.find(id)
    }

    fn places(&self, id: &Id) -> Vec<(Uuid, Record)> {
        self.index.places(id)
    }
}

/// Marks packs that no copy needs. What a pack has that is needed little is written anew first.
async fn mark(vault: &Vault, how: Pruning, pruned: &mut Pruned) -> Result<u64> {
    let marked: HashSet<Uuid> = marks(vault)
        .await?
        .into_iter()
        .flat_map(|(_, mark)| mark.packs)
        .collect();
    // Packs of a writer that is at work are needed by nobody yet. It has not seen the mark, so they stay until it has ended,
    // and what it has made by then needs them.
    let (needed, loaded) = needed(vault).await?;
    let places = loaded.index.without(&marked);
    let lacked = |ids: &HashSet<Id>| {
        let mut ids = ids.iter();
        ids.any(|id| needed.contains(id) && places.pack(id).is_none())
    };
    let mut packs = HashSet::new();
    let mut anew = Vec::new();
    for pack in loaded.index.packs().filter(|pack| !marked.contains(pack)) {
        let records = loaded.index.records(pack);
        // Where two packs have the same chunk, it is needed in the one that is read.
        let here = |record: &Record| needed.contains(&record.id) && places.pack(&record.id) == Some(pack);
        let whole: u64 = records.clone().map(|record| u64::from(record.stored)).sum();
        let used: u64 = records
            .clone()
            .filter(here)
            .map(|record| u64::from(record.stored))
            .sum();
        let bad = loaded.bad.get(&pack);
        if bad.is_some_and(lacked) {
            // Nothing else has it: somebody may still make it speak.
            continue;
        }
        if used == 0 {
            packs.insert(pack);
        } else if bad.is_some() || (used as f64) < whole as f64 * how.waste {
            anew.push((pack, records.filter(here).collect::<Vec<_>>()));
            packs.insert(pack);
        }
    }
    // Where something that is needed is lost, it may be in one of these: somebody may still make it speak.
    if needed.iter().all(|id| loaded.index.has(id)) {
        packs.extend(loaded.mute.difference(&marked));
    }
    for (pack, ids) in &loaded.bad {
        let there = loaded.index.has_pack(*pack) || loaded.mute.contains(pack);
        if !there && !lacked(ids) {
            pruned.remove(vault, damage::name(*pack)).await?;
        }
    }
    if !anew.is_empty() {
        for pack in rewrite(vault, anew).await? {
            packs.remove(&pack);
        }
    }
    if packs.is_empty() {
        return Ok(0);
    }
    let mark = Mark {
        made: how.now,
        packs,
        waits: HashMap::new(),
        refused: false,
    };
    let number = mark.packs.len() as u64;
    vault
        .write_json(&mark_name(Uuid::new_v4()), &mark, Put::Create)
        .await?;
    Ok(number)
}

/// Writes what is needed of some packs into new ones. Answers those that are found damaged by it, which then say so: the next
/// run knows what to do with them.
async fn rewrite(vault: &Vault, packs: Vec<(Uuid, Vec<Record>)>) -> Result<Vec<Uuid>> {
    let writer = vault.begin(1).await?;
    let written = async {
        let mut damaged = Vec::new();
        for (pack, records) in packs {
            if !anew(vault, &writer, pack, records).await? {
                damaged.push(pack);
            }
        }
        Ok::<_, Error>(damaged)
    };
    let written = written.await;
    let named = writer.named().await;
    written.and_then(|damaged| named.map(|()| damaged))
}

/// Writes these records of a pack anew; answers whether all are as they were written.
async fn anew(vault: &Vault, writer: &Writer, pack: Uuid, records: Vec<Record>) -> Result<bool> {
    let name = pack::name(pack);
    let mut bad = HashSet::new();
    for record in records {
        let from = u64::from(record.offset);
        let range = from..from + u64::from(record.stored);
        let sealed = vault.objects.get(&name, Some(range)).await;
        let mut sealed = BytesMut::from(sealed.map_err(crate::StoreError::at("read", &name))?);
        let mut opener = pack::Opener::new(&vault.seals)?;
        if opener.open(pack, &record, &mut sealed).is_err() {
            bad.insert(record.id);
            continue;
        }
        let body = sealed.get(..sealed.len() - TAG).unwrap_or_default();
        writer.take_over(&record, body).await?;
    }
    if bad.is_empty() {
        return Ok(true);
    }
    let (mut known, _) = vault.bad().await?;
    bad.extend(known.remove(&pack).unwrap_or_default());
    vault.write_bad(pack, &bad).await?;
    Ok(false)
}

/// Removes the packs of a mark that nobody needs; answers whether it is done, or has to wait.
async fn sweep(
    vault: &Vault,
    id: Uuid,
    mut mark: Mark,
    marked: &HashSet<Uuid>,
    how: Pruning,
    pruned: &mut Pruned,
) -> Result<bool> {
    let age = how.now.saturating_sub(mark.made);
    if age < how.stay.as_micros() as i64 {
        return Ok(false);
    }
    let leases: Vec<(Uuid, Option<Lease>)> = all(vault, "writers/").await?;
    let mut waits = HashMap::new();
    let mut dead = Vec::new();
    for (writer, lease) in leases {
        // One that cannot be read is somebody's all the same.
        let lease = lease.unwrap_or_default();
        if lease.seen.contains(&id) {
            continue;
        }
        let since = match mark.waits.get(&writer) {
            Some((beats, since)) if *beats == lease.beats => *since,
            _ => how.now,
        };
        if how.now.saturating_sub(since) >= how.dead.as_micros() as i64 && mark.waits.contains_key(&writer) {
            dead.push(writer);
        } else {
            waits.insert(writer, (lease.beats, since));
        }
    }
    if !waits.is_empty() {
        mark.waits = waits;
        vault.write_json(&mark_name(id), &mark, Put::Replace).await?;
        return Ok(false);
    }
    for writer in dead {
        pruned.remove(vault, lease_name(writer)).await?;
    }
    let sizes = vault.list("packs/").await?;
    let (needed, loaded) = needed(vault).await?;
    // What is needed and found only in packs that may go keeps its pack.
    let elsewhere = loaded.index.without(marked);
    let stays = |pack: &Uuid| {
        let mut records = loaded.index.records(*pack);
        records.any(|record| needed.contains(&record.id) && elsewhere.pack(&record.id).is_none())
    };
    let goes: HashSet<Uuid> = mark
        .packs
        .iter()
        .filter(|pack| sizes.contains_key(&pack::name(**pack)) && !stays(pack))
        .copied()
        .collect();
    // First the index without them, then they, then the mark: whoever comes in between does not take from them. Once is
    // enough: a store that refuses would get one more index with each run.
    if !goes.is_empty() && !mark.refused {
        let stays = loaded.index.packs().filter(|pack| !goes.contains(pack));
        vault.write_index(index::write(&loaded.index, stays)).await?;
        for old in &loaded.objects {
            pruned.remove(vault, old.clone()).await?;
        }
    }
    let mut all = true;
    for pack in &goes {
        let name = pack::name(*pack);
        let bytes = sizes.get(&name).copied().unwrap_or_default();
        if pruned.remove(vault, name).await? {
            pruned.removed += 1;
            pruned.removed_bytes += bytes;
        } else {
            all = false;
        }
    }
    if all {
        return pruned.remove(vault, mark_name(id)).await;
    }
    if !mark.refused {
        mark.refused = true;
        vault.write_json(&mark_name(id), &mark, Put::Replace).await?;
    }
    Ok(false)
}
