//! Machines whose disks are at a target: what restoring a copy and booting one have in common.

use super::{is_now, remove_files};
use crate::copies::Show;
use crate::copies::about;
use crate::db::layers::{CopyOf, Layer};
use crate::db::{self, now};
use crate::disks::{LayerFile, Shown};
use crate::jobs::step::{Cx, StepError};
use serde::{Deserialize, Serialize};
use shared::copy::{Copy, CopyDisk};
use shared::feed::Noun;
use shared::job::{Resource, ResourceRole};
use shared::vm::{Disk, Lineage, LineageKind, Nic, Vm, VmState};
use shared::{CopyId, LayerId, Name, NetworkId, StorageId, VmId};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A disk of a copy on its way here.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct MintedDisk {
    /// What a machine here writes.
    pub layer: LayerId,
    /// The disk at the target, where that is read meanwhile.
    pub below: LayerId,
    /// As it was.
    pub of: CopyDisk,
    /// Its number and slot here.
    pub number: u32,
    pub slot: u32,
}

impl MintedDisk {
    pub fn new(of: &CopyDisk, number: u32, slot: u32) -> Self {
        Self {
            layer: LayerId(Uuid::now_v7()),
            below: LayerId(Uuid::now_v7()),
            of: of.clone(),
            number,
            slot,
        }
    }

    pub fn disk(&self) -> Disk {
        Disk {
            number: self.number,
            slot: self.slot,
            layer: self.layer,
            virtual_bytes: self.of.bytes,
            chain_length: 1,
            allocated_bytes: None,
        }
    }
}

/// A machine that is made of a copy.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct MintedVm {
    pub id: VmId,
    pub name: Name,
    pub cpus: u32,
    pub memory_mib: u32,
    pub bios_uuid: Uuid,
    pub vmgenid: Uuid,
    pub nics: Vec<Nic>,
    pub networks: Vec<NetworkId>,
    /// The slot of the disk that cloud-init reads, where it is told something.
    #[serde(default)]
    pub seed_slot: Option<u32>,
}

pub(super) async fn copy(cx: &Cx, id: CopyId) -> Result<Copy, StepError> {
    let found = db::copies::by_id(cx.db(), id).await?;
    found.ok_or_else(|| is_now("copy", id))
}

/// Notes what a job is about.
pub(super) fn about_copy(cx: &Cx, copy: &Copy) {
    cx.resource(Resource {
        noun: Noun::Copy,
        id: copy.id.to_string(),
        name: copy.snapshot_name.clone(),
        role: ResourceRole::Source,
    });
}

/// Shows these disks of a copy for the job.
pub(super) async fn show(cx: &Cx, copy: &Copy, disks: &[MintedDisk]) -> Result<(), StepError> {
    let show = Show {
        id: cx.id().0,
        target: copy.target,
        copy: copy.id,
        disks: disks.iter().map(|disk| disk.of.name.clone()).collect(),
    };
    show_these(cx, &show).await
}

pub(super) async fn show_these(cx: &Cx, show: &Show) -> Result<(), StepError> {
    match cx.world().copies.show(show).await {
        Ok(()) => Ok(()),
        // The target is away: it comes back, and the job goes on then.
        Err(crate::copies::CopiesError::Refused(why)) if why.code == shared::Code::Unavailable => {
            Err(StepError::waiting(why.message))
        }
        Err(e) => Err(e.into()),
    }
}

pub(super) async fn hide(cx: &Cx) -> Result<(), StepError> {
    Ok(cx.world().copies.hide(cx.id().0).await?)
}

/// A disk of the copy as the job shows it.
pub(super) fn shown(cx: &Cx, disk: &MintedDisk) -> LayerFile {
    let shown = Shown {
        socket: cx.world().copies.socket(cx.id().0),
        disk: disk.of.name.clone(),
    };
    LayerFile {
        shown: Some(shown),
        ..cx.world().layer_file(disk.below)
    }
}

/// Writes the machine down, which has no disks yet, and holds it.
pub(super) async fn announce(
    cx: &Cx,
    copy: &Copy,
    new: &MintedVm,
    labels: BTreeMap<String, String>,
) -> Result<(), StepError> {
    cx.resource(Resource {
        noun: Noun::Vm,
        id: new.id.to_string(),
        name: new.name.clone(),
        role: ResourceRole::Product,
    });
    let source = db::vms::by_id(cx.db(), copy.vm).await?.map(|vm| vm.id);
    let host = cx
        .db()
        .reading(async |conn| db::vms::first_host(conn).await)
        .await?;
    let vm = Vm {
        id: new.id,
        name: new.name.clone(),
        state: VmState::Stopped,
        running_since: None,
        pause_reason: None,
        error: None,
        cpus: new.cpus,
        memory_mib: new.memory_mib,
        firmware: copy.machine.firmware,
        disks: Vec::new(),
        network_interfaces: new.nics.clone(),
        labels,
        host,
        bios_uuid: new.bios_uuid,
        lineage: Lineage {
            kind: LineageKind::Restore,
            source_image: None,
            source_vm: source,
            source_snapshot: None,
            fork_point: None,
            job: Some(cx.id()),
        },
        locked_by: None,
        current_snapshot: None,
        latest_snapshot: None,
        description: copy.machine.description.clone(),
        autostart: None,
        at_next_start: None,
        create_time: now(),
        generation: 0,
    };
    let new = db::vms::NewVm {
        vm,
        hidden: db::vms::Hidden {
            vmgenid: new.vmgenid,
            has_seed: new.seed_slot.is_some(),
            seed_slot: new.seed_slot.unwrap_or(0),
            config: Default::default(),
        },
        networks: new.networks.clone(),
    };
    let holder = cx.clone();
    cx.commit(move |tx| {
        Box::pin(async move {
            holder.hold_product(tx, new.vm.id).await?;
            db::vms::insert(tx, &new).await
        })
    })
    .await
}

/// Writes the layers down: each on the disk at the target that it takes up later, where that is read meanwhile.
pub(super) async fn note_layers(
    cx: &Cx,
    copy: &Copy,
    disks: &[MintedDisk],
    storage: StorageId,
    read_there: bool,
) -> Result<(), StepError> {
    for disk in disks {
        cx.world().place(disk.layer, storage);
        if read_there {
            cx.world().show(
                disk.below,
                Shown {
                    socket: cx.world().copies.socket(cx.id().0),
                    disk: disk.of.name.clone(),
                },
            );
        }
    }
    let (disks, target, id, show) = (disks.to_vec(), copy.target, copy.id, cx.id().0);
    cx.commit(move |tx| {
        Box::pin(async move {
            for disk in &disks {
                let layer = |id, parent| Layer {
                    id,
                    storage,
                    parent,
                    virtual_bytes: disk.of.bytes,
                };
                if read_there {
                    db::layers::insert(tx, &layer(disk.below, None)).await?;
                    let of = CopyOf {
                        target,
                        copy: id,
                        disk: disk.of.name.clone(),
                        show,
                    };
                    db::layers::set_copy_of(tx, disk.below, &of).await?;
                }
                let below = read_there.then_some(disk.below);
                db::layers::insert(tx, &layer(disk.layer, below)).await?;
            }
            Ok(())
        })
    })
    .await
}

/// Gives a machine the disks, in the order of the copy.
pub(super) async fn put_disks(cx: &Cx, vm: VmId, disks: &[MintedDisk]) -> Result<(), StepError> {
    let disks = disks.to_vec();
    cx.commit(move |tx| {
        Box::pin(async move {
            for (position, disk) in disks.iter().enumerate() {
                db::hardware::put_disk(tx, vm, position, &disk.disk()).await?;
            }
            db::hardware::follow_firmware(tx, vm).await?;
            tx.changed(Noun::Vm, vm, false);
            Ok(())
        })
    })
    .await
}

/// Makes the files that are written here, each on the disk at the target.
pub(super) async fn make_overlays(cx: &Cx, disks: &[MintedDisk]) -> Result<(), StepError> {
    for disk in disks {
        let (file, below) = (cx.world().layer_file(disk.layer), shown(cx, disk));
        cx.disks()
            .create_overlay(&file, &below, Some(disk.of.bytes))
            .await?;
    }
    Ok(())
}

/// All layers of the disks, those at the target as well.
pub(super) fn layers(disks: &[MintedDisk]) -> Vec<LayerId> {
    disks.iter().flat_map(|disk| [disk.layer, disk.below]).collect()
}

/// Takes the layers away that no machine has got.
pub(super) async fn unmake_layers(cx: &Cx, disks: &[MintedDisk]) -> Result<(), StepError> {
    let all = layers(disks);
    remove_files(cx, &all).await?;
    for disk in disks {
        cx.world().unshow(disk.below);
    }
    cx.commit(move |tx| Box::pin(async move { super::release(tx, &all).await.map(drop) }))
        .await
}

/// The disk's name in the vault, for messages.
pub(super) fn title(disk: &MintedDisk) -> String {
    about::disk_name(disk.of.number)
}
