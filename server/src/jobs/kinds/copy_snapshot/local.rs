//! A snapshot of a machine of this server, as it is read.

use super::super::{chain_files, is_now, snapshot, vm};
use super::{LOOK_BACK, Minted, Part, Reading, spec, warn};
use crate::copies::Opened;
use crate::copies::about::{self, About, MEMORY, STATE, Track};
use crate::db;
use crate::jobs::step::{Cx, StepError};
use shared::copy::{CopiedMachine, CopyDisk};
use shared::snapshot::Snapshot;
use shared::vm::Disk;
use shared::{Code, LayerId};
use std::collections::HashMap;
use std::sync::Arc;

/// What is read of the snapshot of this job.
pub(super) async fn reading(cx: &Cx, opened: &Opened, writer: &vault::Writer) -> Result<Reading, StepError> {
    let spec = spec(cx)?;
    let snapshot = copied(cx).await?;
    let machine = vm(cx, spec.vm).await?;
    let mut chains = Vec::new();
    for disk in snapshot::disks(cx, snapshot.id).await? {
        let chain = db::layers::chain_of(cx.db(), disk.layer).await?;
        chains.push((disk, chain.iter().map(|l| l.id).collect::<Vec<_>>()));
    }
    let parent = parent(cx, opened, writer, &chains).await?;
    let parts = parts(cx, &snapshot, &chains, parent.as_ref()).await?;
    let disk_of = |(disk, _): &(Disk, _)| CopyDisk {
        name: about::disk_name(disk.number),
        number: disk.number,
        slot: disk.slot,
        bytes: disk.virtual_bytes,
    };
    Ok(Reading {
        parts,
        parent: parent.map(|parent| parent.copy),
        snapshot: Some(snapshot.id),
        backup: None,
        about: About {
            vm: spec.vm,
            vm_name: spec.vm_name,
            snapshot: snapshot.id,
            snapshot_name: snapshot.name,
            snapshot_time: snapshot.create_time,
            consistency: snapshot.consistency,
            machine: CopiedMachine {
                cpus: machine.cpus,
                memory_mib: machine.memory_mib,
                firmware: machine.firmware,
                labels: machine.labels,
                description: machine.description,
                nics: machine.network_interfaces.len() as u32,
            },
            disks: chains.iter().map(disk_of).collect(),
            policy: spec.policy,
            adapted_of: None,
        },
    })
}

/// The snapshot that is copied.
async fn copied(cx: &Cx) -> Result<Snapshot, StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let id = spec.snapshot.or(minted.snapshot.map(|s| s.snapshot));
    let id = id.ok_or_else(|| is_now("snapshot", "of the copy task"))?;
    let found = db::snapshots::by_id(cx.db(), id).await?;
    found.ok_or_else(|| is_now("snapshot", id))
}

/// Where in a chain of layers the state is that another copy shows: the layers above it have what has changed since. `None`
/// where that cannot be told.
async fn seen_from(cx: &Cx, chain: &[LayerId], track: &Track) -> Result<Option<usize>, StepError> {
    let mut layer = track.layer;
    let mut taken = false;
    // Each was taken up by one that was there at the time, so this ends.
    loop {
        if let Some(at) = chain.iter().position(|l| *l == layer) {
            // What a layer took up is among what it has: so it is read, too.
            return Ok(Some(if taken { at } else { at + 1 }));
        }
        match db::copies::merged_into(cx.db(), layer).await? {
            Some(next) => (layer, taken) = (next, true),
            None => return Ok(None),
        }
    }
}

/// An earlier copy, with how many of the lowest layers of each disk show what it has.
struct Parent {
    copy: vault::Copy,
    below: HashMap<u32, usize>,
}

/// The copy that what has not changed is taken over from: the newest that tells it of all disks, else of some.
async fn parent(
    cx: &Cx,
    opened: &Opened,
    writer: &vault::Writer,
    chains: &[(Disk, Vec<LayerId>)],
) -> Result<Option<Parent>, StepError> {
    let spec = spec(cx)?;
    let mut best: Option<Parent> = None;
    let earlier = db::copies::newest(cx.db(), spec.target, spec.vm, LOOK_BACK).await?;
    for id in &earlier {
        let found = writer.parent(id.0).await;
        // A copy that is damaged is none to lean on.
        let copy = match found {
            Ok(Some(copy)) => copy,
            Ok(None) | Err(vault::Error::Damaged { .. } | vault::Error::Lost { .. }) => continue,
            Err(e) => return Err(opened.failed(e).into()),
        };
        let mut below = HashMap::new();
        for (disk, chain) in chains {
            let name = about::disk_name(disk.number);
            let there = copy.disks.iter().find(|d| d.name == name);
            let track = there.and_then(|d| serde_json::from_value::<Track>(d.track.clone()).ok());
            if let Some(track) = track
                && let Some(at) = seen_from(cx, chain, &track).await?
            {
                below.insert(disk.number, at);
            }
        }
        let better = best.as_ref().is_none_or(|best| below.len() > best.below.len());
        if better && !below.is_empty() {
            let all = below.len() == chains.len();
            best = Some(Parent { copy, below });
            if all {
                return Ok(best);
            }
        }
    }
    let told = |disk: &Disk| {
        best.as_ref()
            .is_some_and(|best| best.below.contains_key(&disk.number))
    };
    if !earlier.is_empty() {
        for (disk, _) in chains.iter().filter(|(disk, _)| !told(disk)) {
            warn(
                cx,
                format!(
                    "what has changed of disk {} since the last copy cannot be told: it was read as a whole",
                    disk.number
                ),
            );
        }
    }
    Ok(best)
}

/// Everything that is copied of a snapshot.
async fn parts(
    cx: &Cx,
    snapshot: &Snapshot,
    chains: &[(Disk, Vec<LayerId>)],
    parent: Option<&Parent>,
) -> Result<Vec<Part>, StepError> {
    let mut all = Vec::new();
    for (disk, chain) in chains {
        let below = parent.and_then(|p| p.below.get(&disk.number)).copied();
        let files = chain_files(cx.world(), disk.layer).await?;
        // What lies below does not change while the snapshot is there.
        let frozen = cx
            .disks()
            .frozen(&files, below.map(|n| n.min(chain.len())))
            .await?;
        all.push(Part {
            name: about::disk_name(disk.number),
            source: frozen.source,
            track: serde_json::to_value(Track { layer: disk.layer }).unwrap_or_default(),
            changed: frozen.changed,
            file: None,
        });
    }
    if snapshot.memory {
        let point = cx.world().snapshot_point(snapshot.id, 0);
        for (name, path) in [(MEMORY, point.memory), (STATE, point.state)] {
            let opened = std::fs::File::open(&path).and_then(vault::source::Raw::new);
            let source = opened
                .map_err(|e| StepError::new(Code::Internal, format!("open {}: {e}", path.display())))?;
            all.push(Part {
                name: name.to_owned(),
                source: Arc::new(source),
                track: serde_json::Value::Null,
                changed: None,
                file: None,
            });
        }
    }
    Ok(all)
}
