//! What the manifest of a copy says of its machine: enough to show the copy and to make a machine of it, wherever its vault is
//! attached.

use serde::{Deserialize, Serialize};
use shared::copy::{CopiedMachine, Copy, CopyDisk, CopyFigures};
use shared::snapshot::Consistency;
use shared::{CopyId, LayerId, Name, PolicyId, SnapshotId, TargetId, Timestamp, VmId};

/// What a manifest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// The machine.
    pub vm: VmId,
    /// Its name.
    pub vm_name: Name,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Its name.
    pub snapshot_name: Name,
    /// The moment that it shows.
    pub snapshot_time: Timestamp,
    /// What it guarantees.
    pub consistency: Consistency,
    /// The machine as it was.
    pub machine: CopiedMachine,
    /// Its disks.
    pub disks: Vec<CopyDisk>,
    /// The policy that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyId>,
    /// The copy that it is, but for what OS adaptation changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapted_of: Option<CopyId>,
}

/// What a disk of a copy is told by, to know what has changed since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Track {
    /// The frozen layer whose view it is: what a layer shows never changes.
    pub layer: LayerId,
}

/// Name of a memory in the vault, and of the state of the devices beside it.
pub const MEMORY: &str = "memory";
/// See [`MEMORY`].
pub const STATE: &str = "state";

/// Name of a disk in the vault.
pub fn disk_name(number: u32) -> String {
    format!("disk{number}")
}

/// Figures, as the vault counts them.
pub fn figures(moved: &vault::Moved) -> CopyFigures {
    CopyFigures {
        logical_bytes: moved.logical,
        done_bytes: moved.done,
        read_bytes: moved.read,
        new_bytes: moved.new,
        reused_bytes: moved.reused,
        stored_bytes: moved.stored,
        chunks_new: moved.chunks_new,
        chunks_reused: moved.chunks_reused,
        chunks_kept: moved.chunks_kept,
    }
}

/// A copy as this server shows it, of its manifest alone; `None` where that is not of a machine of ours.
pub fn copy(target: TargetId, target_name: &Name, found: &vault::Copy) -> Option<Copy> {
    let about: About = serde_json::from_value(found.about.clone()).ok()?;
    Some(Copy {
        id: CopyId(found.id),
        target,
        target_name: target_name.clone(),
        vm: about.vm,
        vm_name: about.vm_name,
        snapshot: about.snapshot,
        snapshot_name: about.snapshot_name,
        snapshot_time: about.snapshot_time,
        consistency: about.consistency,
        memory: found.disks.iter().any(|disk| disk.name == MEMORY),
        machine: about.machine,
        create_time: Timestamp::from_micros(found.created),
        incremental: found.parent.is_some(),
        disks: about.disks,
        figures: figures(&found.moved),
        booted: None,
        damage: Vec::new(),
        legal_hold: false,
        policy: about.policy,
        job: None,
        adapted_of: about.adapted_of,
        generation: 0,
    })
}
