//! What a vault has: its index, and the packs that the index does not name.

use crate::damage::Bad;
use crate::error::{Error, Result, StoreError};
use crate::index::{self, Index};
use crate::pack::{self, Record};
use crate::store::Put;
use crate::vault::{AT_ONCE, Vault};
use futures::{StreamExt, stream};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// What is known of which pack has what.
pub(crate) struct Loaded {
    /// All packs that are there, with all that can be read.
    pub(crate) index: Index,
    /// Those that no object of the index names: of a writer that ended before its end, or that still writes.
    pub(crate) orphans: HashSet<Uuid>,
    /// Objects of the index, and what damaged ones are damaged by.
    pub(crate) objects: Vec<String>,
    /// Packs that no object of the index names, and that do not say what they have either.
    pub(crate) mute: HashSet<Uuid>,
    /// What could not be read, and why.
    pub(crate) damaged: Vec<Error>,
    /// What an earlier look has found damaged.
    pub(crate) bad: Bad,
    /// Something is damaged or lost: a table that is there says nothing of its chunks.
    pub(crate) gaps: bool,
}

impl Vault {
    /// Reads the index, and the lists of the packs that it does not name. Packs that are not there any more are left out,
    /// and those of `without`.
    pub(crate) async fn load(&self, without: &HashSet<Uuid>) -> Result<Loaded> {
        // Before the packs: where one is not listed then, it is gone.
        let (bad, damaged) = self.bad().await?;
        let there: HashMap<Uuid, u64> = self
            .list("packs/")
            .await?
            .into_iter()
            .filter_map(|(name, size)| Some((pack::of_name(&name)?, size)))
            .filter(|(pack, _)| !without.contains(pack))
            .collect();
        let mut loaded = Loaded {
            index: Index::new(bad.clone()),
            orphans: HashSet::new(),
            objects: self.list("index/").await?.into_keys().collect(),
            mute: HashSet::new(),
            gaps: !damaged.is_empty() || bad.values().any(|ids| !ids.is_empty()),
            damaged,
            bad,
        };
        let mut reading = stream::iter(loaded.objects.clone())
            .map(|name| async move {
                let sealed = self.read(&name).await?;
                Ok((self.seals.open_object(&name, &sealed)?, name))
            })
            .buffer_unordered(AT_ONCE);
        while let Some(read) = reading.next().await {
            let read = read.and_then(|(list, name)| {
                for (pack, records) in index::read(&name, &list)? {
                    if there.contains_key(&pack) {
                        loaded.index.add(pack, records.iter().filter_map(Record::read));
                    } else {
                        loaded.gaps |= !without.contains(&pack);
                    }
                }
                Ok(())
            });
            match read {
                Ok(()) => {}
                // A clean-up has put another in its place: that one names the same packs, or they name themselves.
                Err(Error::Store {
                    source: StoreError::NotFound,
                    ..
                }) => {}
                Err(e @ Error::Damaged { .. }) => loaded.damaged.push(e),
                Err(e) => return Err(e),
            }
        }
        drop(reading);
        let unnamed: Vec<_> = there
            .iter()
            .filter(|(pack, _)| !loaded.index.has_pack(**pack))
            .map(|(pack, size)| (*pack, *size))
            .collect();
        let mut reading = stream::iter(unnamed)
            .map(|(pack, size)| async move { (pack, self.read_list(pack, size).await) })
            .buffer_unordered(AT_ONCE);
        while let Some((pack, read)) = reading.next().await {
            match read {
                Ok(records) => {
                    loaded.index.add(pack, records.into_iter());
                    loaded.orphans.insert(pack);
                }
                Err(Error::Store {
                    source: StoreError::NotFound,
                    ..
                }) => {}
                Err(e @ Error::Damaged { .. }) => {
                    loaded.mute.insert(pack);
                    loaded.gaps = true;
                    loaded.damaged.push(e);
                }
                Err(e) => return Err(e),
            }
        }
        drop(reading);
        Ok(loaded)
    }

    /// Writes objects of the index; answers how many bytes they have.
    pub(crate) async fn write_index(&self, lists: Vec<Vec<u8>>) -> Result<u64> {
        let mut bytes = 0;
        for list in lists {
            let name = index::name(Uuid::new_v4());
            let sealed = self.seals.seal_object(&name, &list);
            bytes += sealed.len() as u64;
            self.write(&name, sealed, Put::Create).await?;
        }
        Ok(bytes)
    }

    /// The list at a pack's end.
    pub(crate) async fn read_list(&self, pack: Uuid, size: u64) -> Result<Vec<Record>> {
        let name = pack::name(pack);
        // Most lists are shorter, and are there with the first request.
        let mut from = size.saturating_sub(64 << 10);
        let read = |from| {
            let got = self.objects.get(&name, Some(from..size));
            async { got.await.map_err(StoreError::at("read", &name)) }
        };
        let mut end = read(from).await?;
        let tail = pack::tail(pack, &end, size)?;
        if tail > size - from {
            from = size - tail;
            end = read(from).await?;
        }
        let skip = end.len() - tail as usize;
        pack::list(&self.seals, pack, end.get(skip..).unwrap_or_default(), size)
    }
}
