//! Virtual machines: what they are made of, their states, and which state may follow which.

use crate::edit::{NextStart, PortForward};
use crate::place::NetworkKind;
use crate::{ForkPointId, HostId, ImageId, JobId, LayerId, Name, SnapshotId, Status, Timestamp, VmId, words};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

words! {
    /// The state of a machine, in one word.
    pub enum VmState {
        /// No QEMU process.
        Stopped = "STOPPED",
        /// Its QEMU process is being started.
        Starting = "STARTING",
        /// The guest runs.
        Running = "RUNNING",
        /// The guest stands still, its memory kept.
        Paused = "PAUSED",
        /// It has been asked to shut down.
        Stopping = "STOPPING",
        /// It cannot go on without a person.
        Error = "ERROR",
    }

    /// Why a guest stands still.
    pub enum PauseReason {
        /// Somebody asked for it.
        User = "USER",
        /// The storage under a disk is full; it goes on by itself when there is room.
        NoSpace = "NO_SPACE",
        /// Reading or writing a disk failed.
        IoError = "IO_ERROR",
        /// The guest's kernel panicked.
        GuestPanicked = "GUEST_PANICKED",
    }

    /// What the machine boots with.
    pub enum Firmware {
        /// SeaBIOS.
        Bios = "BIOS",
        /// UEFI; not yet offered.
        Efi = "EFI",
    }

    /// How a machine came to be.
    pub enum LineageKind {
        /// Made from an image, or blank.
        Created = "CREATED",
        /// Brought in from outside.
        Imported = "IMPORTED",
        /// Cloned from a snapshot.
        Clone = "CLONE",
        /// Forked from a running machine, memory and all.
        InstantClone = "INSTANT_CLONE",
        /// Restored from a copy.
        Restore = "RESTORE",
        /// Carried over by a cutover.
        Cutover = "CUTOVER",
    }

    /// How a machine is stopped.
    pub enum StopMode {
        /// Ask the guest, by its power button.
        ShutDown = "SHUTDOWN",
        /// Take the power away.
        PowerOff = "POWER_OFF",
    }

    /// What can be asked of a machine's power.
    pub enum PowerAction {
        /// Power on.
        Start = "START",
        /// Ask the guest to shut down.
        ShutDown = "SHUTDOWN",
        /// Power off at once.
        PowerOff = "POWER_OFF",
        /// Reset, as by the button.
        Reset = "RESET",
        /// Stand still, memory kept.
        Pause = "PAUSE",
        /// Go on after a pause.
        Resume = "RESUME",
    }
}

impl VmState {
    /// Whether a machine in this state may next be seen in `to`: by an action, by the guest itself, or by an accident.
    pub const fn can_become(self, to: Self) -> bool {
        use VmState::{Error, Paused, Running, Starting, Stopped, Stopping};
        match (self, to) {
            // QEMU can end, or turn out unusable, at any time.
            (_, Stopped | Error) => true,
            (Stopped | Error, Starting) => true,
            (Starting, Running | Paused) => true,
            (Running, Paused | Stopping) => true,
            (Paused, Running | Stopping) => true,
            // A guest may ignore the power button, or be paused by a full disk on its way down.
            (Stopping, Running | Paused) => true,
            (Stopped | Error, Running | Paused | Stopping)
            | (Starting, Starting | Stopping)
            | (Running, Running | Starting)
            | (Paused, Paused | Starting)
            | (Stopping, Stopping | Starting) => false,
        }
    }

    /// Whether there is a QEMU process in this state.
    pub const fn has_process(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Stopping)
    }
}

/// A machine's state with what belongs to it: the only combinations there are.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Condition {
    Stopped,
    Starting,
    Running { since: Timestamp },
    Paused { since: Timestamp, reason: PauseReason },
    Stopping { since: Timestamp },
    Error { error: Status },
}

/// State columns that do not go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {noun} that is {state} cannot have {what}")]
pub struct Inconsistent {
    /// The noun.
    pub noun: &'static str,
    /// Its state.
    pub state: &'static str,
    /// What does not go with it.
    pub what: String,
}

impl Condition {
    /// The state in one word.
    pub const fn state(&self) -> VmState {
        match self {
            Self::Stopped => VmState::Stopped,
            Self::Starting => VmState::Starting,
            Self::Running { .. } => VmState::Running,
            Self::Paused { .. } => VmState::Paused,
            Self::Stopping { .. } => VmState::Stopping,
            Self::Error { .. } => VmState::Error,
        }
    }

    /// From flat fields; refuses every combination that is none.
    pub fn from_parts(
        state: VmState,
        since: Option<Timestamp>,
        reason: Option<PauseReason>,
        error: Option<Status>,
    ) -> Result<Self, Inconsistent> {
        match (state, since, reason, error) {
            (VmState::Stopped, None, None, None) => Ok(Self::Stopped),
            (VmState::Starting, None, None, None) => Ok(Self::Starting),
            (VmState::Running, Some(since), None, None) => Ok(Self::Running { since }),
            (VmState::Paused, Some(since), Some(reason), None) => Ok(Self::Paused { since, reason }),
            (VmState::Stopping, Some(since), None, None) => Ok(Self::Stopping { since }),
            (VmState::Error, None, None, Some(error)) => Ok(Self::Error { error }),
            (state, since, reason, error) => Err(Inconsistent {
                noun: "VM",
                state: state.word(),
                what: format!("runningSince={since:?}, pauseReason={reason:?}, error={error:?}"),
            }),
        }
    }

    /// As flat fields: state, running since, pause reason, error.
    pub fn into_parts(self) -> (VmState, Option<Timestamp>, Option<PauseReason>, Option<Status>) {
        let state = self.state();
        match self {
            Self::Stopped | Self::Starting => (state, None, None, None),
            Self::Running { since } | Self::Stopping { since } => (state, Some(since), None, None),
            Self::Paused { since, reason } => (state, Some(since), Some(reason), None),
            Self::Error { error } => (state, None, None, Some(error)),
        }
    }
}

/// A virtual machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Vm {
    /// Its id, for ever.
    pub id: VmId,
    /// Its name, unique among the living.
    pub name: Name,
    /// Its state.
    pub state: VmState,
    /// Since when its QEMU process runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_since: Option<Timestamp>,
    /// Why it stands still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_reason: Option<PauseReason>,
    /// What is wrong, in state ERROR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Status>,
    /// Number of processors.
    pub cpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// What it boots with.
    pub firmware: Firmware,
    /// Its disks, in boot order.
    pub disks: Vec<Disk>,
    /// Its NICs.
    pub network_interfaces: Vec<Nic>,
    /// Free words for people and scripts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The host that runs it.
    pub host: HostId,
    /// The UUID that its firmware shows.
    pub bios_uuid: uuid::Uuid,
    /// Where it comes from.
    pub lineage: Lineage,
    /// The job at work on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked_by: Option<LockedBy>,
    /// The snapshot that its disks stand on now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_snapshot: Option<SnapshotId>,
    /// The latest snapshot that succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_snapshot: Option<SnapshotId>,
    /// When it was made.
    pub create_time: Timestamp,
    /// What a person says of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its turn when its host has restarted, the lowest first; without one it is not started then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autostart: Option<u32>,
    /// What becomes of it at its next start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_next_start: Option<NextStart>,
    /// The feed's generation of its last change: of two versions the higher is the newer.
    #[serde(default)]
    pub generation: u64,
}

impl Vm {
    /// Its state with what belongs to it.
    pub fn condition(&self) -> Result<Condition, Inconsistent> {
        Condition::from_parts(
            self.state,
            self.running_since,
            self.pause_reason,
            self.error.clone(),
        )
    }
}

/// A disk of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// Its number, as long as the machine has it.
    #[serde(default)]
    pub number: u32,
    /// The PCI slot that its guest sees it in; 0 for what an EFI firmware remembers, its variables: they are kept as a disk is,
    /// and stand on no bus.
    #[serde(default)]
    pub slot: u32,
    /// The active layer, the one that is written.
    pub layer: LayerId,
    /// What the guest sees, in bytes.
    pub virtual_bytes: u64,
    /// How many layers it reads through, the active one among them.
    pub chain_length: u32,
    /// Bytes that the active layer takes on the host: what has changed since the last snapshot. Given for one VM, not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocated_bytes: Option<u64>,
}

impl Disk {
    /// Whether it is no disk of the guest's, but the variables of its firmware.
    pub fn is_variables(&self) -> bool {
        self.slot == 0
    }
}

impl Vm {
    /// The disks that its guest sees.
    pub fn guest_disks(&self) -> impl Iterator<Item = &Disk> {
        self.disks.iter().filter(|disk| !disk.is_variables())
    }

    /// The variables of its firmware, where that is EFI.
    pub fn variables(&self) -> Option<&Disk> {
        self.disks.iter().find(|disk| disk.is_variables())
    }
}

/// A NIC of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Nic {
    /// Its number, as long as the machine has it.
    #[serde(default)]
    pub number: u32,
    /// The PCI slot that its guest sees it in.
    #[serde(default)]
    pub slot: u32,
    /// Its address, as `52:54:00:…`.
    pub mac: String,
    /// The name of the network it joins.
    pub network: Name,
    /// What kind of network that is.
    pub kind: NetworkKind,
    /// Whether it is connected to it.
    #[serde(default = "yes")]
    pub connected: bool,
    /// Ports of the host that lead to it, on a network of kind USER.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forwards: Vec<PortForward>,
}

fn yes() -> bool {
    true
}

/// Which NICs of a machine are to be connected, or taken off their networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectNics {
    /// Their numbers; all if none are given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<u32>,
}

impl ConnectNics {
    /// Whether it speaks of the NIC of this number.
    pub fn names(&self, number: u32) -> bool {
        self.nics.is_empty() || self.nics.contains(&number)
    }
}

/// Where a machine comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Lineage {
    /// How it came to be.
    pub kind: LineageKind,
    /// The image it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_image: Option<ImageId>,
    /// The machine it was cloned from; that may be gone by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_vm: Option<VmId>,
    /// The snapshot it was cloned from; that may be gone by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_snapshot: Option<SnapshotId>,
    /// The instant it was forked from; that may be gone by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork_point: Option<ForkPointId>,
    /// The job that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
}

/// A job that holds a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct LockedBy {
    /// The job.
    pub job: JobId,
    /// Its kind.
    pub kind: crate::job::JobKind,
}

/// A request for a new machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateVm {
    /// Its name.
    pub name: Name,
    /// Number of processors.
    #[serde(default = "one")]
    pub cpus: u32,
    /// Memory, in MiB.
    #[serde(default = "memory_mib")]
    pub memory_mib: u32,
    /// What it boots with.
    #[serde(default = "bios")]
    pub firmware: Firmware,
    /// Its disks, in boot order.
    pub disks: Vec<NewDisk>,
    /// Its NICs; one on the network `user` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_interfaces: Option<Vec<NewNic>>,
    /// Free words for people and scripts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What the guest's cloud-init is told, as a NoCloud seed disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_init: Option<CloudInit>,
    /// Whether it is started when made.
    #[serde(default)]
    pub start: bool,
    /// What a person says of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its turn when its host has restarted, the lowest first; without one it is not started then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autostart: Option<u32>,
    /// The name or id of the storage that its disks go to; the default if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// A UUID that makes the request idempotent for a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<uuid::Uuid>,
}

fn one() -> u32 {
    1
}

fn memory_mib() -> u32 {
    512
}

fn bios() -> Firmware {
    Firmware::Bios
}

/// A disk to make: of an image, or blank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum NewDisk {
    /// A thin overlay on an image.
    Image(DiskOfImage),
    /// An empty disk.
    Blank(BlankDisk),
}

/// A thin overlay on an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DiskOfImage {
    /// The image's name or id.
    pub image: String,
    /// The size that the guest sees, in GiB; the image's own if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_gib: Option<u32>,
}

/// An empty disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BlankDisk {
    /// The size that the guest sees, in GiB.
    pub size_gib: u32,
}

/// A NIC to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewNic {
    /// The network's name or id.
    pub network: String,
    /// Its address; a new one if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Whether it is connected to it.
    #[serde(default = "yes")]
    pub connected: bool,
    /// Ports of the host that lead to it, on a network of kind USER.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forwards: Vec<PortForward>,
}

impl NewNic {
    /// One with a new address, connected to this network.
    pub fn on(network: impl Into<String>) -> Self {
        Self {
            network: network.into(),
            mac: None,
            connected: true,
            forwards: Vec::new(),
        }
    }
}

/// What cloud-init is told, each part as the text of its file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CloudInit {
    /// `user-data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// `meta-data`; `instance-id` and `local-hostname` are added where they are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta_data: Option<String>,
    /// `network-config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_config: Option<String>,
}

/// A request to stop a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StopVm {
    /// How.
    #[serde(default = "shut_down")]
    pub mode: StopMode,
    /// How long the guest may take to shut down until its power is taken away; without it, it is left running then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_off_after_seconds: Option<u32>,
}

fn shut_down() -> StopMode {
    StopMode::ShutDown
}

/// A change of what people see of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchVm {
    /// Its new labels, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Its new name; its guest hears nothing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// What a person says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its turn when its host has restarted, the lowest first; null if it is not to be started then.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub autostart: Option<Option<u32>>,
}

/// A field that is there, be it null.
pub(crate) fn given<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_inconsistent_combination_is_refused() {
        let t = Timestamp::from_micros(1);
        let e = Status::precondition("broken");
        let mut taken = 0;
        for &state in VmState::ALL {
            for since in [None, Some(t)] {
                for reason in [None, Some(PauseReason::NoSpace)] {
                    for error in [None, Some(e.clone())] {
                        if let Ok(c) = Condition::from_parts(state, since, reason, error.clone()) {
                            assert_eq!(c.into_parts(), (state, since, reason, error));
                            taken += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(taken, VmState::ALL.len(), "one combination for each state");
    }

    #[test]
    fn a_request_names_the_field_it_does_not_know() {
        let e = serde_json::from_str::<CreateVm>(r#"{"name":"a","disks":[],"cpu":2}"#).unwrap_err();
        assert!(e.to_string().contains("`cpu`"), "{e}");
    }
}
