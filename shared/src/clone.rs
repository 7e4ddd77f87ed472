//! Clone jobs: what is asked, and how it is known that the clone boots.

use crate::vm::{CloudInit, NewNic};
use crate::{Name, words};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

words! {
    /// How a clone gets its disks.
    pub enum CloneMode {
        /// An overlay on the frozen layer: at once, and shares what is not written.
        Linked = "LINKED",
        /// A copy of its own, flattened and sparse.
        Full = "FULL",
    }

    /// How strong the proof is that a guest booted.
    pub enum ProofStrength {
        /// The guest agent answered.
        Agent = "AGENT",
        /// The serial line showed the kernel start, or the pattern that was asked for.
        Serial = "SERIAL",
        /// There is a picture, no more: displayed, not booted.
        Displayed = "DISPLAYED",
        /// It was not to be started.
        NotStarted = "NOT_STARTED",
    }
}

/// How it is known that a new machine boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// How strong it is.
    pub strength: ProofStrength,
    /// From power-on to the proof, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_millis: Option<u64>,
    /// The line of the serial that matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<String>,
}

/// A request for a clone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CloneVm {
    /// The last part of the job's name in the seed's form; the job's id if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clone_job_id: Option<Name>,
    /// The snapshot's name or id; the latest successful one if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Take a snapshot now and clone from that; not together with `snapshot`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_now: Option<SnapshotNow>,
    /// How the clone gets its disks.
    #[serde(default = "linked")]
    pub mode: CloneMode,
    /// The new machine; not together with `disksOnly`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<CloneTarget>,
    /// Only the disks, as images; not together with `target`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disks_only: Option<DisksOnly>,
    /// A UUID that makes the request idempotent for a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<uuid::Uuid>,
}

fn linked() -> CloneMode {
    CloneMode::Linked
}

/// The snapshot that "snapshot now and clone" takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SnapshotNow {
    /// Its name; made from the time if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Whether the guest agent freezes the file systems for the moment.
    #[serde(default)]
    pub quiesce: bool,
}

/// The machine that a clone job makes. What is not given is as in the source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CloneTarget {
    /// Its name; made from the source's if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Number of processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Memory, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Its NICs; if not given as many as the source has, connected to nothing, since a copied address takes production down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_interfaces: Option<Vec<NewNic>>,
    /// The name or id of the storage that its disks go to; where the source's are if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// What the guest's cloud-init is told. Given, the OS is adapted: new instance id and hostname.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_init: Option<CloudInit>,
    /// Whether it is started and seen to boot.
    #[serde(default = "yes")]
    pub start: bool,
    /// How long it may take to boot, in seconds.
    #[serde(default = "boot_timeout")]
    pub boot_timeout_seconds: u32,
    /// A regular expression for the serial line that proves the boot; the kernel's start if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_pattern: Option<String>,
}

fn yes() -> bool {
    true
}

fn boot_timeout() -> u32 {
    DEFAULT_BOOT_TIMEOUT_SECONDS
}

/// How long a clone may take to boot, in seconds, unless the request says otherwise.
pub const DEFAULT_BOOT_TIMEOUT_SECONDS: u32 = 120;

/// Only the disks of a machine, each as an image `name-0`, `name-1`, …
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DisksOnly {
    /// What the images' names begin with.
    pub name: Name,
}

/// A clone job in the seed's own names, plus what is Offshoot's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CloneJobView {
    /// The seed's CloneJob.
    #[serde(flatten)]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub job: crate::seed::clone_job::CloneJob,
    /// What the seed has no name for.
    pub offshoot: CloneJobExtra,
}

/// What the seed's CloneJob has no name for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CloneJobExtra {
    /// The job's id.
    pub id: crate::JobId,
    /// The job's own state, finer than the seed's.
    pub state: crate::job::JobState,
    /// How the clone gets its disks.
    pub mode: CloneMode,
    /// The snapshot it is made from, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<crate::SnapshotId>,
    /// The machine it makes, once it has an id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<crate::job::Resource>,
    /// Bytes copied so far, and to copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Bytes>,
    /// How it is known that the clone boots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// Where the job's log is.
    pub log: String,
}

/// Bytes done of a total.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Bytes {
    /// Done.
    pub done: u64,
    /// Of these.
    pub total: u64,
}
