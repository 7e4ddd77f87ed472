//! Freezing a machine's disks: what taking a snapshot, and cloning from one taken now, have in common.
//!
//! A snapshot freezes the active layers and puts an overlay on each; undone, its name goes, and the overlays where they may.

use super::overlays::Overlays;
use super::{is_now, machine_spec, tried_again, vm};
use crate::db::snapshots::MemoryOf;
use crate::db::{self, now};
use crate::disks;
use crate::hypervisor::{DiskSwitch, HvError, RunState};
use crate::jobs::step::{Cx, StepError};
use serde::{Deserialize, Serialize};
use shared::feed::Noun;
use shared::job::{Resource, ResourceRole};
use shared::place::NetworkKind;
use shared::snapshot::{Consistency, MemoryNeeds, Snapshot, SnapshotState};
use shared::vm::{Disk, Nic, Vm};
use shared::{LayerId, Name, SnapshotId, Timestamp, VmId};
use uuid::Uuid;

/// The ids of a snapshot in the making.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Minted {
    pub snapshot: SnapshotId,
    pub name: Name,
    overlays: Overlays,
}

fn name_of(time: Timestamp) -> Result<Name, StepError> {
    // 2026-11-20T18:00:01.5Z becomes snap-20261120-180001-500000.
    let text: String = time.to_string().chars().filter(char::is_ascii_digit).collect();
    let (date, clock) = text.split_at(8.min(text.len()));
    let (clock, rest) = clock.split_at(6.min(clock.len()));
    format!("snap-{date}-{clock}-{rest:0<6}")
        .parse()
        .map_err(|e: shared::NameError| StepError::new(shared::Code::Internal, e.to_string()))
}

pub(super) async fn mint(cx: &Cx, id: VmId, name: Option<Name>) -> Result<Minted, StepError> {
    let machine = vm(cx, id).await?;
    Ok(Minted {
        snapshot: SnapshotId(Uuid::now_v7()),
        name: match name {
            Some(name) => name,
            None => name_of(now())?,
        },
        overlays: Overlays::mint(&machine),
    })
}

/// Writes the snapshot down as one that is being taken.
pub(super) async fn announce(
    cx: &Cx,
    id: VmId,
    minted: &Minted,
    description: &str,
    memory: bool,
) -> Result<(), StepError> {
    cx.resource(Resource {
        noun: Noun::Snapshot,
        id: minted.snapshot.to_string(),
        name: minted.name.clone(),
        role: ResourceRole::Product,
    });
    let parent = vm(cx, id).await?.current_snapshot;
    let snapshot = Snapshot {
        id: minted.snapshot,
        vm: id,
        name: minted.name.clone(),
        description: description.to_owned(),
        // Repeated after it became the current one, it is not its own parent.
        parent: parent.filter(|p| *p != minted.snapshot),
        current: false,
        state: SnapshotState::Creating,
        consistency: Consistency::Online,
        memory,
        memory_bytes: None,
        memory_needs: None,
        pause_micros: None,
        allocated_bytes: 0,
        create_time: now(),
        generation: 0,
    };
    cx.commit(move |tx| Box::pin(async move { db::snapshots::insert(tx, &snapshot).await }))
        .await
}

/// What is frozen beside the disks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum With {
    Nothing,
    /// The guest's file systems stand still for the moment.
    Quiesce,
    /// Memory and devices are kept, of the same moment.
    Memory,
}

impl With {
    pub fn quiesce(quiesce: bool) -> Self {
        if quiesce { Self::Quiesce } else { Self::Nothing }
    }
}

/// Freezes the disks; `remember` keeps the minted ids for the next write.
pub(super) async fn freeze(
    cx: &Cx,
    id: VmId,
    minted: &mut Minted,
    with: With,
    remember: impl Fn(&Minted),
) -> Result<(), StepError> {
    let machine = vm(cx, id).await?;
    if minted.overlays.are_active(&machine) {
        return Ok(());
    }
    let switch = minted.overlays.lay(cx, &machine).await?;
    let running = cx.hypervisor().state(id).await != RunState::Stopped;
    if running {
        minted.overlays.live = true;
        remember(minted);
        cx.commit(|_| Box::pin(async { Ok(()) })).await?;
    }
    let mut memory = None;
    let (consistency, pause_micros, create_time) = if with == With::Memory {
        let (pause_micros, kept) = capture(cx, &machine, &switch, minted.snapshot).await?;
        memory = Some(kept);
        (Consistency::Online, pause_micros, now())
    } else if running || minted.overlays.live {
        switch_over(cx, id, &switch, with == With::Quiesce).await?
    } else {
        (Consistency::Offline, None, now())
    };
    let mut allocated_bytes = 0;
    for disk in &switch {
        allocated_bytes += cx.disks().info(&disk.old).await?.allocated_bytes;
    }
    let frozen = db::snapshots::Frozen {
        consistency,
        pause_micros,
        allocated_bytes,
        create_time,
        disks: machine.disks.clone(),
        memory,
    };
    cx.outcome(|o| o.pause_micros = pause_micros);
    cx.log(match pause_micros {
        Some(micros) => format!(
            "froze {} disk(s) in {:.1} ms as {}",
            switch.len(),
            micros as f64 / 1000.0,
            minted.name
        ),
        None => format!(
            "froze {} disk(s) of the stopped machine as {}",
            switch.len(),
            minted.name
        ),
    });
    let (snapshot, overlays) = (minted.snapshot, minted.overlays.clone());
    cx.commit(move |tx| {
        Box::pin(async move {
            overlays.take_over(tx, id).await?;
            db::snapshots::ready(tx, snapshot, &frozen).await?;
            db::vms::set_current(tx, id, Some(snapshot)).await
        })
    })
    .await
}

/// Captures memory, devices and disks in one moment; answers how long the guest stood still.
async fn capture(
    cx: &Cx,
    machine: &Vm,
    switch: &[DiskSwitch],
    id: SnapshotId,
) -> Result<(Option<u64>, MemoryOf), StepError> {
    let world = cx.world();
    world.room_for_memory(machine.memory_mib, true)?;
    let outside = |nic: &&Nic| nic.connected && nic.kind == NetworkKind::User;
    let user_networks = machine.network_interfaces.iter().filter(outside).count();
    let point = world.snapshot_point(id, user_networks);
    let spec = machine_spec(world, machine).await?;
    let captured = cx.hypervisor().capture(&spec, switch, &point).await?;
    tried_again(cx, &captured);
    if captured.forced {
        cx.log("it writes its memory faster than that travels, and was stopped for the rest");
    }
    let mut bytes = disks::settled(&point.state, true).await?;
    bytes += disks::settled(&point.memory, true).await?;
    cx.outcome(|o| o.copied_bytes = Some(captured.copied_bytes).filter(|b| *b > 0));
    let memory = MemoryOf {
        needs: MemoryNeeds::of(machine),
        user_networks,
        accelerator: cx.hypervisor().accelerator(),
        qemu_version: cx.hypervisor().version().await?,
        bytes,
    };
    // 0 says that an earlier try had done it: how long that took, nobody knows.
    Ok((Some(captured.pause_micros).filter(|m| *m > 0), memory))
}

/// Has QEMU switch all disks over in one moment, with the guest's file systems frozen if that was asked for.
async fn switch_over(
    cx: &Cx,
    id: VmId,
    switch: &[DiskSwitch],
    quiesce: bool,
) -> Result<(Consistency, Option<u64>, Timestamp), StepError> {
    let consistency = if quiesce {
        match cx.hypervisor().quiesce(id).await {
            Ok(n) => {
                cx.log(format!("the guest agent froze {n} file system(s)"));
                Consistency::GuestAgent
            }
            Err(HvError::NoAgent(_)) => {
                cx.log("no guest agent answered: taken as after a power cut");
                Consistency::NoGuestAgent
            }
            Err(e) => {
                cx.log(format!("{}: taken as after a power cut", db::chain(&e)));
                Consistency::QuiesceFailed
            }
        }
    } else {
        Consistency::Online
    };
    let frozen = cx.hypervisor().freeze_disks(id, switch).await;
    let create_time = now();
    if consistency == Consistency::GuestAgent
        && let Err(e) = cx.hypervisor().unquiesce(id).await
    {
        cx.log(format!("thawing: {}", db::chain(&e)));
    }
    match frozen {
        // 0 says that an earlier try had done it: how long that took, nobody knows.
        Ok(frozen) => Ok((consistency, Some(frozen.micros).filter(|m| *m > 0), create_time)),
        // It stopped in between. Whether QEMU had switched over or not, the overlays are right from here.
        Err(HvError::NotRunning { .. }) => Ok((Consistency::Online, None, create_time)),
        Err(e) => Err(e.into()),
    }
}

/// Undoes [`freeze`], finished or not.
pub(super) async fn unfreeze(cx: &Cx, id: VmId, minted: &Minted) -> Result<(), StepError> {
    // A capture that is under way ends first: with it the machine runs.
    let point = cx.world().snapshot_point(minted.snapshot, 0);
    cx.hypervisor().drop_point(&point).await?;
    minted.overlays.undo(cx, id).await
}

/// Takes the snapshot's name away.
pub(super) async fn forget(cx: &Cx, minted: &Minted) -> Result<(), StepError> {
    let id = minted.snapshot;
    cx.commit(move |tx| Box::pin(async move { db::snapshots::delete(tx, id).await.map(drop) }))
        .await
}

/// The disks of a snapshot that is ready, each with its frozen layer.
pub(super) async fn disks(cx: &Cx, id: SnapshotId) -> Result<Vec<Disk>, StepError> {
    let snapshot = db::snapshots::by_id(cx.db(), id).await?;
    match snapshot {
        Some(s) if s.state == SnapshotState::Ready => Ok(db::snapshots::disks_of(cx.db(), id).await?),
        _ => Err(is_now("snapshot", id)),
    }
}

/// The frozen layers of a snapshot that is ready, in the order of the disks.
pub(super) async fn layers(cx: &Cx, id: SnapshotId) -> Result<Vec<LayerId>, StepError> {
    Ok(disks(cx, id).await?.iter().map(|disk| disk.layer).collect())
}

/// The frozen layer of the disk of this number, of a snapshot that is ready.
pub(super) async fn layer(cx: &Cx, id: SnapshotId, number: u32) -> Result<LayerId, StepError> {
    let disks = disks(cx, id).await?;
    let disk = disks.iter().find(|disk| disk.number == number);
    Ok(disk
        .ok_or_else(|| is_now("disk", format_args!("{number} of snapshot {id}")))?
        .layer)
}
