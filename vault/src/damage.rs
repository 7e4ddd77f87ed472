//! What is known to be damaged, so that nothing new leans on it.
//!
//! [`crate::verify`] says of each pack what in it is not as it was written. A writer takes that for not there and brings it
//! anew, by which older copies are whole again; a clean-up takes the rest of the pack elsewhere.

use crate::Id;
use crate::error::{Error, Result, StoreError};
use crate::store::Put;
use crate::vault::Vault;
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// Packs, and which of their chunks are damaged; none where it is the list of the pack.
pub(crate) type Bad = HashMap<Uuid, HashSet<Id>>;

/// In the place of a pack: chunks that copies need and no pack has.
pub(crate) const LOST: Uuid = Uuid::nil();

/// An object's name.
pub(crate) fn name(pack: Uuid) -> String {
    format!("damaged/{}", pack.simple())
}

impl Vault {
    /// What is known to be damaged, and what is damaged of that itself.
    pub(crate) async fn bad(&self) -> Result<(Bad, Vec<Error>)> {
        let (mut bad, mut damaged) = (Bad::new(), Vec::new());
        for object in self.list("damaged/").await?.into_keys() {
            let pack = object
                .strip_prefix("damaged/")
                .and_then(|id| Uuid::try_parse(id).ok());
            let Some(pack) = pack.filter(|pack| name(*pack) == object) else {
                continue;
            };
            let read = self.read(&object).await;
            match read.and_then(|sealed| self.seals.open_object(&object, &sealed)) {
                Ok(ids) => {
                    let (ids, _) = ids.as_chunks::<32>();
                    bad.insert(pack, ids.iter().map(|id| Id(*id)).collect());
                }
                Err(Error::Store {
                    source: StoreError::NotFound,
                    ..
                }) => {}
                Err(e @ Error::Damaged { .. }) => {
                    bad.entry(pack).or_default();
                    damaged.push(e);
                }
                Err(e) => return Err(e),
            }
        }
        Ok((bad, damaged))
    }

    /// Says that these chunks of a pack are damaged.
    pub(crate) async fn write_bad(&self, pack: Uuid, ids: &HashSet<Id>) -> Result<()> {
        let name = name(pack);
        let plain: Vec<u8> = ids.iter().flat_map(|id| id.0).collect();
        self.write(&name, self.seals.seal_object(&name, &plain), Put::Replace)
            .await
    }
}
