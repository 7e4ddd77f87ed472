//! Keeps a process ready for the next fork of a point: see [`crate::jobs::spares`].

use super::prepare::{check_room, mint_clone};
use super::{files, kept_disks};
use crate::db;
use crate::hypervisor::{DiskSpec, MachineSpec, NicSpec};
use crate::jobs::kinds::chain_files;
use crate::jobs::step::{Cx, StepError};
use shared::ForkPointId;
use shared::vm::Disk;
use std::collections::BTreeMap;

pub(super) async fn keep(cx: &Cx, id: ForkPointId) -> Result<(), StepError> {
    let spares = &cx.world().spares;
    if !spares.wanted(id) {
        return Ok(());
    }
    let Some(stored) = db::fork_points::by_id(cx.db(), id).await? else {
        return Ok(());
    };
    check_room(cx.world(), &stored, true, 1).await?;
    let frozen = kept_disks(cx, id).await?;
    if frozen.iter().any(Disk::is_variables) {
        // Its flash would have to be there before the machine is asked for.
        return Ok(());
    }
    let clone = mint_clone(&stored, frozen.len())?;
    let mut disks = Vec::new();
    for (below, &own) in frozen.iter().zip(&clone.layers) {
        let mut chain = chain_files(cx.world(), below.layer).await?;
        cx.world().place_beside(own, below.layer);
        chain.push(cx.world().layer_file(own));
        let (number, slot) = (below.number, below.slot);
        disks.push(DiskSpec { number, slot, chain });
    }
    let point = &stored.point;
    let nics = point.network_interfaces.iter().zip(&clone.macs);
    let spec = MachineSpec {
        id: clone.id,
        name: clone.name.clone(),
        cpus: point.cpus,
        memory_mib: point.memory_mib,
        bios_uuid: clone.bios_uuid,
        vmgenid: clone.vmgenid,
        disks,
        firmware: None,
        seed: stored.has_seed.then(|| cx.world().seed_file(clone.id)),
        seed_slot: stored.seed_slot,
        nics: nics
            .zip(&stored.networks)
            .map(|((nic, mac), network)| NicSpec {
                number: nic.number,
                slot: nic.slot,
                mac: mac.clone(),
                kind: nic.kind,
                network: *network,
                forwards: Vec::new(),
                bridge: None,
                connected: false,
            })
            .collect(),
        config: BTreeMap::new(),
    };
    cx.hypervisor().keep_ready(&spec, &files(&stored)).await?;
    spares.put(id, clone).await;
    if db::fork_points::by_id(cx.db(), id).await?.is_none() {
        // Deleted meanwhile, by somebody who did not know of it.
        spares.drop_of(id).await;
    }
    Ok(())
}
