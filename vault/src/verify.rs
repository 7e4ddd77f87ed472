//! Looking at everything, or at a part of it.

use crate::CancellationToken;
use crate::Id;
use crate::copy;
use crate::damage::{self, LOST};
use crate::error::{Error, Result, StoreError};
use crate::load::Loaded;
use crate::pack::{self, Opener};
use crate::read::Reader;
use crate::vault::Vault;
use bytes::BytesMut;
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

/// How many packs are looked at at once.
const AT_ONCE: usize = 2;

/// How much of a pack is in memory at once.
const PART: u64 = 4 << 20;

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
    /// Packs of which something is damaged that no copy lacks: another pack has it as well, or nobody needs it. A clean-up
    /// removes them.
    #[serde(default)]
    pub healed: Vec<Damage>,
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
    /// The copies that lack something by it.
    pub hurts: Vec<Uuid>,
}

/// Reads every pack, or each of which `wanted` says so, and says which copies are hurt by what is damaged. All copies and
/// their tables are looked at always.
///
/// What is damaged or lost is written down in the vault: the next copy brings it anew, as far as it has it, and so heals
/// older ones.
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
    let mut by: By = HashMap::new();
    // Of packs that are not read now what was found before holds.
    let mut bad = loaded.bad.clone();
    for (pack, ids) in &bad {
        if loaded.index.has_pack(*pack) && !wanted(*pack) {
            let why = "it was damaged when it was read before";
            if let Some(at) = found.note(&Error::damaged(pack::name(*pack), why)) {
                ids.iter().for_each(|id| by.entry(*id).or_default().push(at));
            }
        }
    }
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
                let before = bad.remove(&pack);
                if !wrong.is_empty() {
                    bad.insert(pack, wrong.iter().filter_map(|(id, _)| *id).collect());
                }
                if before.as_ref() != bad.get(&pack) {
                    write_down(vault, pack, bad.get(&pack)).await;
                }
                for (id, why) in wrong {
                    if let (Some(id), Some(at)) = (id, found.note(&why)) {
                        by.entry(id).or_default().push(at);
                    }
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
    drop(loaded);
    // Anew, which takes no time beside all that: copies were made meanwhile, and clean-ups have moved chunks.
    let copies = vault.copy_ids().await?;
    let mut loaded = vault.load(&HashSet::new()).await?;
    loaded.index.set_bad(bad);
    let loaded = Arc::new(loaded);
    let mut lacks = Lacks::default();
    let reader = Reader::of(vault, loaded.clone());
    for id in copies {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        match whole(vault, &reader, &loaded, &by, &mut lacks, id).await {
            Ok(None) => found.copies += 1,
            Ok(Some(ats)) => {
                found.copies += 1;
                found.hurt.push(id);
                for at in ats {
                    if let Some(damage) = found.damaged.get_mut(at) {
                        damage.hurts.push(id);
                    }
                }
            }
            Err(Error::NoCopy(_)) => {}
            Err(e @ Error::Damaged { .. }) => {
                lacks.blind = true;
                found.copies += 1;
                if let Some(damage) = found.note(&e).and_then(|at| found.damaged.get_mut(at)) {
                    damage.hurts.push(id);
                }
                found.hurt.push(id);
            }
            Err(e) => return Err(e),
        }
    }
    let before = loaded.bad.get(&LOST);
    if let (Some(before), true) = (before, lacks.blind) {
        // Who cannot be asked may need what was lost before.
        lacks.lost.extend(before);
    }
    let lost = Some(&lacks.lost).filter(|lost| !lost.is_empty());
    if before != lost {
        write_down(vault, LOST, lost).await;
    }
    if !lacks.blind {
        let chunks: HashSet<usize> = by.into_values().flatten().collect();
        let all = std::mem::take(&mut found.damaged).into_iter().enumerate();
        let (healed, damaged): (Vec<_>, Vec<_>) =
            all.partition(|(at, damage)| damage.hurts.is_empty() && chunks.contains(at));
        found.healed = healed.into_iter().map(|(_, damage)| damage).collect();
        found.damaged = damaged.into_iter().map(|(_, damage)| damage).collect();
    }
    for prefix in ["marks/", "writers/", "holds/", "notes/"] {
        for name in vault.list(prefix).await?.into_keys() {
            match vault.read_json::<serde_json::Value>(&name).await {
                Err(e @ Error::Damaged { .. }) => drop(found.note(&e)),
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
    /// Notes damage; answers which it is.
    fn note(&mut self, e: &Error) -> Option<usize> {
        let Error::Damaged { name, why } = e else {
            return None;
        };
        let known = self
            .damaged
            .iter()
            .position(|d| d.object == *name && d.why == *why);
        Some(known.unwrap_or_else(|| {
            self.damaged.push(Damage {
                object: name.clone(),
                why: why.clone(),
                hurts: Vec::new(),
            });
            self.damaged.len() - 1
        }))
    }
}

/// What damage a chunk is lacked by.
type By = HashMap<Id, Vec<usize>>;

/// What copies lack.
#[derive(Default)]
struct Lacks {
    /// In no pack at all.
    lost: HashSet<Id>,
    /// A copy or a table cannot be read: what that needs is not known.
    blind: bool,
}

/// Writes down what is damaged, or that it is not any more. Who may only read has found it all the same.
async fn write_down(vault: &Vault, pack: Uuid, bad: Option<&HashSet<Id>>) {
    let written = match bad {
        Some(bad) => vault.write_bad(pack, bad).await,
        None => vault.delete(&damage::name(pack)).await,
    };
    if let Err(e) = written {
        tracing::warn!(error = %e, "what is damaged cannot be written down: the next copy may lean on it");
    }
}

struct Looked {
    bytes: u64,
    right: u64,
    /// With the chunk that is damaged, where it is known.
    wrong: Vec<(Option<Id>, Error)>,
}

/// Reads all of a pack, a part at a time, and opens what it has.
async fn look_at(vault: &Vault, pack: Uuid, size: u64, records: Vec<pack::Record>) -> Result<Looked> {
    let name = pack::name(pack);
    let mut looked = Looked {
        bytes: size,
        right: 0,
        wrong: Vec::new(),
    };
    match vault.read_list(pack, size).await {
        Ok(listed) if listed == records => {}
        Ok(_) => looked
            .wrong
            .push((None, Error::damaged(&name, "its list is not that of the index"))),
        Err(e @ Error::Damaged { .. }) => looked.wrong.push((None, e)),
        Err(e) => return Err(e),
    }
    let mut rest = &records[..];
    while let Some(first) = rest.first() {
        let from = u64::from(first.offset);
        let end = |record: &pack::Record| u64::from(record.offset) + u64::from(record.stored);
        if end(first) > size || end(first) < from {
            let why = format!("it has {size} bytes, and a chunk at {from} with {}", first.stored);
            looked.wrong.push((Some(first.id), Error::damaged(&name, why)));
            rest = rest.get(1..).unwrap_or_default();
            continue;
        }
        let fits =
            |record: &&pack::Record| u64::from(record.offset) >= from && end(record) <= size.min(from + PART);
        let number = rest.iter().take_while(fits).count().max(1);
        let (part, after) = rest.split_at(number);
        rest = after;
        let to = part.iter().map(end).max().unwrap_or(from);
        let got = vault.objects.get(&name, Some(from..to)).await;
        let body = got.map_err(StoreError::at("read", &name))?;
        let (seals, part) = (vault.seals.clone(), part.to_vec());
        let open = move || {
            // Nobody else has them: they are opened where they are.
            let mut body = BytesMut::from(body);
            let mut opener = Opener::new(&seals)?;
            let (mut right, mut wrong) = (0, Vec::new());
            for record in &part {
                let at = (u64::from(record.offset) - from) as usize;
                let sealed = body.get_mut(at..at + record.stored as usize);
                match opener.open(pack, record, sealed.unwrap_or_default()) {
                    Ok(_) => right += 1,
                    Err(e) => wrong.push((Some(record.id), e)),
                }
            }
            Ok((right, wrong))
        };
        let opened = tokio::task::spawn_blocking(open).await;
        let (right, wrong): (u64, Vec<_>) = opened.map_err(|_| Error::Thread)??;
        looked.right += right;
        looked.wrong.extend(wrong);
    }
    Ok(looked)
}

/// `None` where all that a copy needs is there in some place that is not bad; else which damage it lacks something by, as far
/// as that is known.
async fn whole(
    vault: &Vault,
    reader: &Reader,
    loaded: &Loaded,
    by: &By,
    lacks: &mut Lacks,
    id: Uuid,
) -> Result<Option<BTreeSet<usize>>> {
    let copy = vault.copy(id).await?;
    let (mut whole, mut ats) = (true, BTreeSet::new());
    let mut look = |id: &Id| {
        if id.is_zero() || loaded.index.has(id) {
            return;
        }
        whole = false;
        match by.get(id) {
            Some(by) => ats.extend(by),
            None => _ = lacks.lost.insert(*id),
        }
    };
    for table in copy.disks.into_iter().flat_map(|disk| disk.tables) {
        look(&table);
        if !table.is_zero() && !loaded.index.has(&table) {
            // Named above: what is cut off is not asked for.
            lacks.blind = true;
            continue;
        }
        match reader.table(&table).await {
            Ok(ids) => ids.iter().for_each(&mut look),
            // Named above.
            Err(Error::Lost { .. } | Error::Damaged { .. }) => lacks.blind = true,
            Err(e) => return Err(e),
        }
    }
    Ok((!whole).then_some(ats))
}

/// The object of a copy.
#[must_use]
pub fn object_of(id: Uuid) -> String {
    copy::name(id)
}
