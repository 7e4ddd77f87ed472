//! A process that waits for the next fork of a point that is kept: starting QEMU is the most of what such a fork takes.
//!
//! It has its identity already, and the next clone is born with that. It ends when nobody forks the point for a while, with
//! the point, and with the server; one that a killed server has left is ended at the next start.

use crate::hypervisor::Hypervisor;
use serde::{Deserialize, Serialize};
use shared::{ForkPointId, LayerId, Name, VmId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

/// What a clone is, before anything of it is made.
#[derive(Clone, Serialize, Deserialize)]
pub struct MintedClone {
    /// Its id.
    pub id: VmId,
    /// Its name.
    pub name: Name,
    /// What its firmware shows.
    pub bios_uuid: Uuid,
    /// Its generation id.
    pub vmgenid: Uuid,
    /// The addresses of its NICs.
    pub macs: Vec<String>,
    /// Its own layers, in the order of the disks.
    pub layers: Vec<LayerId>,
}

struct Spare {
    clone: MintedClone,
    /// Ends it after a while.
    _patience: AbortOnDropHandle<()>,
}

struct Inner {
    hypervisor: Arc<dyn Hypervisor>,
    patience: Duration,
    waiting: Mutex<HashMap<ForkPointId, Spare>>,
}

/// The processes that wait, one for each point that was forked lately.
#[derive(Clone)]
pub struct Spares(Arc<Inner>);

impl Spares {
    /// None waits yet; each will wait for so long, and none at all if that is no time.
    pub fn new(hypervisor: Arc<dyn Hypervisor>, patience: Duration) -> Self {
        Self(Arc::new(Inner {
            hypervisor,
            patience,
            waiting: Mutex::default(),
        }))
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<ForkPointId, Spare>> {
        // Nothing panics while it is held; if it did, the map is still whole.
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one should be started for this point.
    pub fn wanted(&self, point: ForkPointId) -> bool {
        !self.0.patience.is_zero() && !self.waiting().contains_key(&point)
    }

    /// Notes one that waits.
    pub async fn put(&self, point: ForkPointId, clone: MintedClone) {
        let (spares, id) = (self.clone(), clone.id);
        let patience = AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::time::sleep(spares.0.patience).await;
            let mut waiting = spares.waiting();
            // It ends whole, though this task goes with it.
            if waiting.get(&point).is_some_and(|spare| spare.clone.id == id) {
                waiting.remove(&point);
                let spares = spares.clone();
                tokio::spawn(async move { spares.end(id).await });
            }
        }));
        let spare = Spare {
            clone,
            _patience: patience,
        };
        let before = self.waiting().insert(point, spare);
        if let Some(before) = before {
            self.end(before.clone.id).await;
        }
    }

    /// Whoever takes it uses it, or ends it.
    pub fn take(&self, point: ForkPointId) -> Option<MintedClone> {
        self.waiting().remove(&point).map(|spare| spare.clone)
    }

    /// Ends the one that waits for this point.
    pub async fn drop_of(&self, point: ForkPointId) {
        if let Some(clone) = self.take(point) {
            self.end(clone.id).await;
        }
    }

    /// Ends all.
    pub async fn close(&self) {
        let all = std::mem::take(&mut *self.waiting());
        futures::future::join_all(all.values().map(|spare| self.end(spare.clone.id))).await;
    }

    async fn end(&self, id: VmId) {
        let ended = async {
            self.0.hypervisor.kill(id).await?;
            self.0.hypervisor.forget(id).await
        };
        if let Err(e) = ended.await {
            tracing::warn!(vm = %id, error = %crate::db::chain(&e), "end a process that was kept ready");
        }
    }
}
