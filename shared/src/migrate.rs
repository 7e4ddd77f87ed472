//! Migration: machines that are carried over from a source. Cycles upload them to a target while they go on, test clones are
//! made of what was uploaded, and a cutover takes the last step.

pub mod adapt;
pub mod can;
pub mod groups;
pub mod views;

use crate::vm::{CloudInit, Firmware, NewNic};
use crate::{CopyId, JobId, MigratingVmId, Name, SourceId, Status, TargetId, Timestamp, VmId, words};
use adapt::{AdaptedUpload, LastAdaptation};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

words! {
    /// How far a machine has come that is carried over.
    pub enum MigratingState {
        /// It is being looked at.
        Pending = "PENDING",
        /// It can be carried over, and waits to be started.
        Ready = "READY",
        /// It is uploaded for the first time.
        FirstSync = "FIRST_SYNC",
        /// It was uploaded, and what changes is, cycle by cycle.
        Active = "ACTIVE",
        /// No cycles, until it is resumed.
        Paused = "PAUSED",
        /// Its source is being shut down.
        CuttingOver = "CUTTING_OVER",
        /// What has changed last is uploaded.
        FinalSync = "FINAL_SYNC",
        /// It runs where it was to go, and its source is off.
        Cutover = "CUTOVER",
        /// What the migration kept is being removed.
        Finalizing = "FINALIZING",
        /// Nothing is left of the migration but its story.
        Finalized = "FINALIZED",
        /// It cannot be carried over as it is.
        Error = "ERROR",
        /// Its time is over: no cycles, until it is extended.
        Expired = "EXPIRED",
    }

    /// How far a cycle has come.
    pub enum CycleState {
        /// At work, or waiting its turn.
        Running = "RUNNING",
        /// It stands still.
        Paused = "PAUSED",
        /// Nothing of it counts; what it had uploaded is found again.
        Failed = "FAILED",
        /// Uploaded.
        Succeeded = "SUCCEEDED",
    }

    /// What a person says of a test clone.
    pub enum CloneVerdict {
        /// It does what it should.
        Passed = "PASSED",
        /// It does not.
        Failed = "FAILED",
    }
}

/// The machines of this server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalSource {}

/// Exported machines in a directory: OVAs, OVFs with their disks, directories of disks, single disks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DisksSource {
    /// The directory, on the server's host; below one that `image_roots` names.
    pub path: String,
}

/// Machines of a libvirt that runs QEMU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LibvirtSource {
    /// Where it is, as libvirt writes it: `qemu:///system`, `qemu+ssh://root@host/system`.
    pub uri: String,
}

/// Where machines live that are to be carried over: one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SourcePlace {
    /// On this server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalSource>,
    /// In a directory of exported machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disks: Option<DisksSource>,
    /// At a libvirt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub libvirt: Option<LibvirtSource>,
}

/// Where machines live that are to be carried over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Its id.
    pub id: SourceId,
    /// Its name.
    pub name: Name,
    /// What it is.
    #[serde(flatten)]
    pub place: SourcePlace,
    /// How many machines are being carried over from it.
    #[serde(default)]
    pub migrating_vms: u64,
    /// When it was added.
    pub create_time: Timestamp,
    /// The feed's generation of its last change.
    #[serde(default)]
    pub generation: u64,
}

/// A request for a source: one of the places, and a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateSource {
    /// Its name.
    pub name: Name,
    /// The machines of this server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalSource>,
    /// A directory of exported machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disks: Option<DisksSource>,
    /// A libvirt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub libvirt: Option<LibvirtSource>,
}

impl CreateSource {
    /// The place; `INVALID_ARGUMENT` unless exactly one is given.
    pub fn place(&self) -> Result<SourcePlace, Status> {
        let place = SourcePlace {
            local: self.local.clone(),
            disks: self.disks.clone(),
            libvirt: self.libvirt.clone(),
        };
        match (&place.local, &place.disks, &place.libvirt) {
            (Some(_), None, None) => Ok(place),
            (None, Some(disks), None) if disks.path.starts_with('/') => Ok(place),
            (None, Some(_), None) => Err(Status::invalid(
                "disks.path",
                "a directory is named by its whole path, from / on",
            )),
            (None, None, Some(libvirt)) if libvirt.uri.contains("://") => Ok(place),
            (None, None, Some(_)) => Err(Status::invalid(
                "libvirt.uri",
                "a libvirt is named by its URI, like qemu:///system",
            )),
            _ => Err(Status::invalid(
                "local",
                "name one place where the machines live: local, disks or libvirt",
            )),
        }
    }
}

/// A machine that a source has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SourceVm {
    /// How the source calls it.
    pub id: String,
    /// Its name there.
    pub name: String,
    /// Whether it runs, where the source knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<bool>,
    /// Processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Memory, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// Firmware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<crate::vm::Firmware>,
    /// The sizes of its disks, in bytes.
    pub disk_bytes: Vec<u64>,
    /// Its operating system, as the source calls it, where the source knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// Why it cannot be carried over as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// The migration that carries it over, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrating_vm: Option<MigratingVmId>,
}

/// What the source has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    /// Its machines, by name.
    pub vms: Vec<SourceVm>,
}

/// What a machine is to be where it goes; what is not given is as it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetDefaults {
    /// Its name: the migration's own if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Memory, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// Its NICs; if not given as many as it had, in the network that every machine may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_interfaces: Option<Vec<NewNic>>,
    /// The storage that its disks go to, by name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// Labels that it gets beside those that it had.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What cloud-init is told in the guest, by a seed disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_init: Option<CloudInit>,
    /// What the guest can read of itself in the seed's meta-data, beside its id and name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// How the guest calls itself: OS adaptation sets it, in the migration as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The firmware that it boots with: OS adaptation converts it where it had another, in the migration as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Firmware>,
    /// Whether OS adaptation leaves the guest its machine id and SSH host keys; in the migration as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_identity: Option<bool>,
}

impl TargetDefaults {
    /// These, but for what `over` says.
    #[must_use]
    pub fn with(&self, over: &Self) -> Self {
        let mut labels = self.labels.clone();
        labels.extend(over.labels.clone());
        let mut metadata = self.metadata.clone();
        metadata.extend(over.metadata.clone());
        Self {
            name: over.name.clone().or_else(|| self.name.clone()),
            cpus: over.cpus.or(self.cpus),
            memory_mib: over.memory_mib.or(self.memory_mib),
            network_interfaces: over
                .network_interfaces
                .clone()
                .or_else(|| self.network_interfaces.clone()),
            storage: over.storage.clone().or_else(|| self.storage.clone()),
            labels,
            cloud_init: over.cloud_init.clone().or_else(|| self.cloud_init.clone()),
            metadata,
            hostname: over.hostname.clone().or_else(|| self.hostname.clone()),
            firmware: over.firmware.or(self.firmware),
            keep_identity: over.keep_identity.or(self.keep_identity),
        }
    }

    /// What the guest is told by a seed disk; none where there is nothing to tell.
    pub fn seed(&self) -> Option<CloudInit> {
        // Meta-data that was given as a whole stays as it is.
        let whole = self.cloud_init.as_ref().is_none_or(|ci| ci.meta_data.is_some());
        if self.metadata.is_empty() && (whole || self.hostname.is_none()) {
            return self.cloud_init.clone();
        }
        let mut told: serde_json::Map<String, serde_json::Value> = self
            .metadata
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().into()))
            .collect();
        // Else cloud-init would name the guest as its machine is named.
        if let Some(hostname) = &self.hostname {
            told.entry("local-hostname")
                .or_insert_with(|| hostname.clone().into());
        }
        Some(CloudInit {
            meta_data: Some(serde_json::Value::Object(told).to_string()),
            ..self.cloud_init.clone().unwrap_or_default()
        })
    }

    /// What OS adaptation is asked for.
    pub fn wanted(&self) -> adapt::AdaptWanted {
        adapt::AdaptWanted {
            hostname: self.hostname.clone(),
            firmware: self.firmware,
            keep_identity: self.keep_identity.unwrap_or(false),
        }
    }
}

/// When cycles run, and what stays of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CyclePolicy {
    /// How long there is rest between a cycle and the next, in seconds.
    #[serde(default = "an_hour")]
    pub idle_seconds: u32,
    /// Whether the guest is asked to quiesce its file systems.
    #[serde(default)]
    pub quiesce: bool,
    /// How many uploads are kept.
    #[serde(default = "two")]
    pub keep_last: u32,
    /// After how many days without an extension it expires; never if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_days: Option<u32>,
    /// Whether uploads are left as they are. If not given those of this server's own machines are, which run on the same
    /// hardware already, and others are adapted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_os_adaptation: Option<bool>,
}

const fn an_hour() -> u32 {
    3600
}

const fn two() -> u32 {
    2
}

impl Default for CyclePolicy {
    fn default() -> Self {
        Self {
            idle_seconds: an_hour(),
            quiesce: false,
            keep_last: two(),
            expire_days: None,
            skip_os_adaptation: None,
        }
    }
}

/// A request to carry a machine over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateMigratingVm {
    /// The migration's name.
    pub name: Name,
    /// The source, by name or id.
    pub source: String,
    /// The machine, as the source calls it, or by its name there.
    pub source_vm: String,
    /// The target that it is uploaded to, by name or id.
    pub target: String,
    /// What it is to be where it goes.
    #[serde(default)]
    pub target_defaults: TargetDefaults,
    /// When cycles run.
    #[serde(default)]
    pub policy: CyclePolicy,
    /// The group that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Name>,
    /// The wave of its group, from 1: a group is cut over wave by wave.
    #[serde(default = "one")]
    pub wave: u32,
}

const fn one() -> u32 {
    1
}

/// A change of a migration; what is not given stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchMigratingVm {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// What the machine is to be where it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_defaults: Option<TargetDefaults>,
    /// When cycles run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<CyclePolicy>,
    /// The group that it is in; an empty text takes it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The wave of its group, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<u32>,
}

/// A machine that is carried over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct MigratingVm {
    /// Its id.
    pub id: MigratingVmId,
    /// Its name.
    pub name: Name,
    /// Where it lives.
    pub source: SourceId,
    /// The source's name.
    pub source_name: Name,
    /// How the source calls it.
    pub source_vm: String,
    /// Its name at the source, as it was last seen.
    pub source_vm_name: String,
    /// The target that it is uploaded to.
    pub target: TargetId,
    /// The target's name.
    pub target_name: Name,
    /// What it is to be where it goes.
    pub target_defaults: TargetDefaults,
    /// When cycles run.
    pub policy: CyclePolicy,
    /// The group that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Name>,
    /// The wave of its group, from 1.
    #[serde(default = "one")]
    pub wave: u32,
    /// How far it has come.
    pub state: MigratingState,
    /// Since when.
    pub state_time: Timestamp,
    /// Why it cannot be carried over, or why the last cycle failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Status>,
    /// How many cycles there were.
    pub cycles: u64,
    /// How many of the last failed, one after the other.
    pub failures: u32,
    /// The job of the cycle that is at work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_cycle: Option<JobId>,
    /// The moment of the machine that the last good cycle uploaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sync_time: Option<Timestamp>,
    /// What it uploaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_copy: Option<CopyId>,
    /// How much of what had changed the last good cycle read in a second, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rate_bps: Option<u64>,
    /// The last OS adaptation of an upload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptation: Option<LastAdaptation>,
    /// Whether uploads are adapted.
    #[serde(default)]
    pub adapts: bool,
    /// The last upload that is adapted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapted: Option<AdaptedUpload>,
    /// When the next cycle is due; of one that has expired, when it would have been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_time: Option<Timestamp>,
    /// The job that cuts over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutover_job: Option<JobId>,
    /// The machine that it has become.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_vm: Option<VmId>,
    /// When it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_time: Option<Timestamp>,
    /// When it was made.
    pub create_time: Timestamp,
    /// The feed's generation of its last change.
    #[serde(default)]
    pub generation: u64,
}

/// A request for a test clone of what was uploaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateMigrationClone {
    /// The upload; the latest if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<CopyId>,
    /// What the clone is to be, where that differs from the migration's own.
    #[serde(default)]
    pub target: TargetDefaults,
    /// Whether its NICs are in the isolated network, which no production hears.
    #[serde(default = "yes")]
    pub isolated: bool,
    /// Whether it is started.
    #[serde(default = "yes")]
    pub start: bool,
    /// After how many hours it is put up for removal: a person is asked, and it is never removed silently.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_hours: Option<u32>,
}

const fn yes() -> bool {
    true
}

impl Default for CreateMigrationClone {
    fn default() -> Self {
        Self {
            copy: None,
            target: TargetDefaults::default(),
            isolated: true,
            start: true,
            keep_hours: None,
        }
    }
}

/// A request to cut over: the source is shut down, what has changed last is uploaded, and the machine starts where it goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateCutover {
    /// What the machine is to be, where that differs from the migration's own.
    #[serde(default)]
    pub target: TargetDefaults,
    /// How long the guest may take to shut down until its power is taken away, in seconds.
    #[serde(default = "two_minutes")]
    pub power_off_after_seconds: u32,
}

const fn two_minutes() -> u32 {
    120
}

impl Default for CreateCutover {
    fn default() -> Self {
        Self {
            target: TargetDefaults::default(),
            power_off_after_seconds: two_minutes(),
        }
    }
}

/// What a person says of a test clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JudgeClone {
    /// Whether it does what it should.
    pub verdict: CloneVerdict,
    /// What else there is to say.
    #[serde(default)]
    pub note: String,
}

/// A request to end a migration after its cutover, and to remove what it kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FinalizeMigration {
    /// Whether its uploads stay at the target, as copies like any other.
    #[serde(default)]
    pub keep_copies: bool,
}

/// The cycle that a copy task is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CycleOf {
    /// The migration.
    pub migrating_vm: MigratingVmId,
    /// Which cycle, from 1.
    pub number: u64,
}

/// The test clone, or the cutover's machine, that a restore is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CloneOf {
    /// The migration.
    pub migrating_vm: MigratingVmId,
    /// The cutover that it belongs to; none for a test clone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutover: Option<JobId>,
    /// After how many hours a test clone is put up for removal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_hours: Option<u32>,
}

/// Cut a machine over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CutoverSpec {
    /// The migration.
    pub migrating_vm: MigratingVmId,
    /// Its name at the time.
    pub name: Name,
    /// The source's machine, where that is one of this server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_vm: Option<VmId>,
    /// The source's machine, where it is another's that may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<crate::copy::OutsideVm>,
    /// Whether it ran when it was asked: then it is started again if the cutover does not come to its end.
    pub ran: bool,
    /// Whether its last upload is adapted.
    #[serde(default)]
    pub adapts: bool,
    /// How long its parts were likely to take when it was asked for.
    #[serde(default)]
    pub forecast: views::Forecast,
    /// What was asked, with what the migration says.
    pub request: CreateCutover,
}

/// End a migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct FinalizeSpec {
    /// The migration.
    pub migrating_vm: MigratingVmId,
    /// Its name at the time.
    pub name: Name,
    /// What was asked.
    pub request: FinalizeMigration,
}

/// A machine of a group that is cut over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct GroupMember {
    /// The migration.
    pub migrating_vm: MigratingVmId,
    /// Its name at the time.
    pub name: Name,
    /// Its wave.
    pub wave: u32,
}

/// Cut a group over, wave by wave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct GroupCutoverSpec {
    /// The group.
    pub group: Name,
    /// Those that are cut over, by wave and name.
    pub members: Vec<GroupMember>,
    /// How long a guest may take to shut down until its power is taken away, in seconds.
    pub power_off_after_seconds: u32,
}
