//! New active layers for a machine: what taking a snapshot and forking have in common.
//!
//! Once a running QEMU has switched over, the guest writes into the overlays, and there is no way back to before; undoing
//! then leaves them where they are. An overlay on a layer that nobody wrote since reads the same, so it is always right to
//! keep it.

use super::{release, remove_files};
use crate::db::{self, DbError, Tx, layers::Layer};
use crate::hypervisor::{DiskSwitch, HvError};
use crate::jobs::World;
use crate::jobs::step::{Cx, StepError};
use serde::{Deserialize, Serialize};
use shared::vm::Vm;
use shared::{LayerId, VmId};
use uuid::Uuid;

/// The ids of overlays in the making.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Overlays {
    /// In the order of the disks.
    layers: Vec<LayerId>,
    /// Whether QEMU may have switched over: written down before it is asked.
    pub live: bool,
}

impl Overlays {
    pub fn mint(machine: &Vm) -> Self {
        Self {
            layers: machine.disks.iter().map(|_| LayerId(Uuid::now_v7())).collect(),
            live: false,
        }
    }

    /// Whether they are the machine's active layers.
    pub fn are_active(&self, machine: &Vm) -> bool {
        let active = machine.disks.iter().map(|d| d.layer);
        active.eq(self.layers.iter().copied())
    }

    /// Which layer takes over from which.
    pub fn switch(&self, world: &World, machine: &Vm) -> Vec<DiskSwitch> {
        let pairs = machine.disks.iter().zip(&self.layers);
        pairs
            .map(|(disk, &new)| {
                world.place_beside(new, disk.layer);
                DiskSwitch {
                    old: world.layer_file(disk.layer),
                    new: world.layer_file(new),
                }
            })
            .collect()
    }

    /// Puts them on the books and on the disk, on the machine's active layers.
    pub async fn lay(&self, cx: &Cx, machine: &Vm) -> Result<Vec<DiskSwitch>, StepError> {
        self.note(cx, machine).await?;
        let switch = self.switch(cx.world(), machine);
        for disk in &switch {
            cx.disks().create_overlay(&disk.new, &disk.old, None).await?;
        }
        Ok(switch)
    }

    /// Puts them on the books alone.
    pub async fn note(&self, cx: &Cx, machine: &Vm) -> Result<(), StepError> {
        let world = cx.world();
        let pairs = machine.disks.iter().zip(&self.layers);
        let layers: Vec<Layer> = pairs
            .map(|(disk, &id)| Layer {
                id,
                storage: world.storage_of(disk.layer),
                parent: Some(disk.layer),
                virtual_bytes: disk.virtual_bytes,
            })
            .collect();
        cx.commit(move |tx| {
            Box::pin(async move {
                for layer in &layers {
                    db::layers::insert(tx, layer).await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Makes them the machine's active layers, on the books.
    pub async fn take_over(&self, tx: &mut Tx, vm: VmId) -> Result<(), DbError> {
        db::hardware::switch_disks(tx, vm, &self.layers).await
    }

    /// Takes them away again, unless the guest writes into them.
    pub async fn undo(&self, cx: &Cx, vm: VmId) -> Result<(), StepError> {
        let Some(machine) = db::vms::by_id(cx.db(), vm).await? else {
            return Ok(());
        };
        for disk in &machine.disks {
            let chain = db::layers::chain_of(cx.db(), disk.layer).await?;
            if chain.iter().any(|layer| self.layers.contains(&layer.id)) {
                // The guest writes into it, or into another on top of it since.
                return Ok(());
            }
        }
        let switch = self.switch(cx.world(), &machine);
        let keep = self.live
            && match cx.hypervisor().freeze_disks(vm, &switch).await {
                Ok(_) | Err(HvError::NotRunning { .. }) => true,
                Err(e) if e.transient() => return Err(e.into()),
                // QEMU refuses all or nothing: the guest still writes into the old layers.
                Err(_) => false,
            };
        let this = self.clone();
        if keep {
            return cx
                .commit(move |tx| Box::pin(async move { this.take_over(tx, vm).await }))
                .await;
        }
        remove_files(cx, &self.layers).await?;
        cx.commit(move |tx| Box::pin(async move { release(tx, &this.layers).await.map(drop) }))
            .await
    }
}
