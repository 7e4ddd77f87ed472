//! Copies of snapshots, and the tasks that make them.

mod files;

pub use files::*;

use crate::clone::{Proof, ProofStrength};
use crate::image::ExportFormat;
use crate::job::{Job, JobKind, JobSpec, JobState, UnwindCause, step};
use crate::migrate::{CloneOf, CycleOf};
use crate::seed::copy_snapshot::{CopyRunStats, CopyStatus, KvmProtectionSource, ProtectionSource};
use crate::snapshot::Consistency;
use crate::vm::{CloudInit, NewNic};
use crate::{
    CopyId, JobId, Name, PolicyId, RunId, SnapshotId, SourceId, Status, TargetId, Timestamp, VmId, words,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

words! {
    /// How a copy task is, in the words of this API; each has one of the seed's.
    pub enum TaskStatus {
        /// It waits for its turn.
        Accepted = "ACCEPTED",
        /// It copies.
        Running = "RUNNING",
        /// It is to end, and has not yet.
        Canceling = "CANCELING",
        /// It was ended.
        Canceled = "CANCELED",
        /// The copy is there.
        Success = "SUCCESS",
        /// It failed.
        Failure = "FAILURE",
        /// The copy is there, and a person must know something of it.
        Warning = "WARNING",
        /// It stands still: by a person, out of its window, or while its target is away.
        OnHold = "ON_HOLD",
        /// Its time passed while it could not run.
        Missed = "MISSED",
        /// All is copied, and the copy is being made to count.
        Finalizing = "FINALIZING",
    }
}

impl TaskStatus {
    /// How the seed calls it.
    #[must_use]
    pub const fn seed(self) -> CopyStatus {
        match self {
            Self::Accepted => CopyStatus::Accepted,
            Self::Running => CopyStatus::Running,
            Self::Canceling => CopyStatus::Canceling,
            Self::Canceled => CopyStatus::Canceled,
            Self::Success => CopyStatus::Success,
            Self::Failure => CopyStatus::Failure,
            Self::Warning => CopyStatus::Warning,
            Self::OnHold => CopyStatus::OnHold,
            Self::Missed => CopyStatus::Missed,
            Self::Finalizing => CopyStatus::Finalizing,
        }
    }

    /// Whether nothing comes after it.
    #[must_use]
    pub const fn is_over(self) -> bool {
        self.seed().is_over()
    }

    /// How the task is that a job does.
    #[must_use]
    pub fn of(job: &Job) -> Self {
        let outcome = job.outcome.read().unwrap_or_default();
        Self::with(job, outcome.copy.as_deref())
    }

    fn with(job: &Job, progress: Option<&CopyProgress>) -> Self {
        let finalizing = || {
            job.current_step()
                .is_some_and(|step| step.name == step::FINALIZING)
        };
        match job.state {
            JobState::Queued => Self::Accepted,
            JobState::Running if finalizing() => Self::Finalizing,
            JobState::Running => Self::Running,
            JobState::OnHold => Self::OnHold,
            JobState::Unwinding | JobState::UndoBlocked if job.unwind_cause == Some(UnwindCause::Cancel) => {
                Self::Canceling
            }
            JobState::Unwinding | JobState::UndoBlocked => Self::Running,
            JobState::Cancelled => Self::Canceled,
            JobState::Failed if progress.is_some_and(|p| p.missed) => Self::Missed,
            JobState::Failed => Self::Failure,
            JobState::Succeeded if progress.is_some_and(|p| !p.warnings.is_empty()) => Self::Warning,
            JobState::Succeeded => Self::Success,
        }
    }
}

/// What was moved for a copy or for one of its disks. Bytes of disks, unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct CopyFigures {
    /// What the disks have, holes included.
    pub logical_bytes: u64,
    /// How far they were gone through, holes and what had not changed included.
    pub done_bytes: u64,
    /// What was read.
    pub read_bytes: u64,
    /// What of that the vault did not have, as it was read.
    pub new_bytes: u64,
    /// What of that the vault had.
    pub reused_bytes: u64,
    /// What was written to the vault, in its own bytes.
    pub stored_bytes: u64,
    /// Chunks that were written.
    pub chunks_new: u64,
    /// Chunks that were read, and that the vault had.
    pub chunks_reused: u64,
    /// Chunks that had not changed, by what was known, and were not read.
    pub chunks_kept: u64,
}

impl CopyFigures {
    /// What did not have to be written because the vault had it.
    #[must_use]
    pub const fn saved_by_dedupe(&self) -> u64 {
        self.reused_bytes
    }

    /// What did not have to be written because it could be made smaller.
    #[must_use]
    pub const fn saved_by_compression(&self) -> u64 {
        self.new_bytes.saturating_sub(self.stored_bytes)
    }
}

/// How far one disk of a copy has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SubTask {
    /// The disk: `disk0`, `memory`.
    pub name: String,
    /// How it is.
    pub status: TaskStatus,
    /// What the disk has, in bytes.
    pub bytes: u64,
    /// How far it was gone through, in bytes.
    pub done_bytes: u64,
}

/// How far a copy has come: part of its job's outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CopyProgress {
    /// The copy.
    pub copy: CopyId,
    /// The snapshot that is copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_name: Option<Name>,
    /// When it was there: the task starts then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_time: Option<Timestamp>,
    /// When the first byte was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begin_time: Option<Timestamp>,
    /// The copy that what had not changed was taken over from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<CopyId>,
    /// Its disks, and its memory where it has that.
    #[serde(default)]
    pub disks: Vec<SubTask>,
    /// What was moved up to now.
    #[serde(default)]
    pub figures: CopyFigures,
    /// What went over the wire, in bytes.
    #[serde(default)]
    pub wire_bytes: u64,
    /// Bytes of disks in a second, in the last two minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recent_bps: Option<u64>,
    /// Bytes of disks in a second, in the last thirty minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_hour_bps: Option<u64>,
    /// What a person must know.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Whether its time passed while it could not run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub missed: bool,
}

impl CopyProgress {
    /// That of a copy of which nothing is done.
    #[must_use]
    pub fn of(copy: CopyId) -> Self {
        Self {
            copy,
            snapshot: None,
            snapshot_name: None,
            snapshot_time: None,
            begin_time: None,
            parent: None,
            disks: Vec::new(),
            figures: CopyFigures::default(),
            wire_bytes: 0,
            recent_bps: None,
            half_hour_bps: None,
            warnings: Vec::new(),
            missed: false,
        }
    }
}

/// The figures of a task: the seed's, and beyond.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CopyStats {
    /// The seed's.
    #[serde(flatten)]
    pub seed: CopyRunStats,
    /// Chunks that were read, and that the vault had.
    #[serde(default)]
    pub chunks_reused: u64,
    /// Chunks that were written.
    #[serde(default)]
    pub chunks_new: u64,
    /// Chunks that had not changed, by what was known, and were not read.
    #[serde(default)]
    pub chunks_unchanged: u64,
    /// Bytes that the vault has grown by.
    #[serde(default)]
    pub stored_bytes: u64,
    /// Bytes that the vault had already.
    #[serde(default)]
    pub saved_by_dedupe_bytes: u64,
    /// Bytes that compression has spared.
    #[serde(default)]
    pub saved_by_compression_bytes: u64,
    /// Bytes of disks in a second, in the last two minutes; none when it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recent_rate_bps: Option<u64>,
}

/// A task that copies a snapshot of a machine to a target: the seed's, in the words of this API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CopyTask {
    /// Its id, which is that of the job that does it.
    pub id: JobId,
    /// How it is.
    pub status: TaskStatus,
    /// What went wrong, of one that is FAILURE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why it stands still, of one that is ON_HOLD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_reason: Option<String>,
    /// What a person must know of it.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The machine, in the seed's form.
    pub source: ProtectionSource,
    /// Figures.
    pub stats: CopyStats,
    /// When it started, in microseconds since 1970: when its snapshot was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_start_time_usecs: Option<i64>,
    /// When it ended, in microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_end_time_usecs: Option<i64>,
    /// One for each disk.
    pub sub_tasks: Vec<SubTask>,
    /// The machine.
    pub vm: VmId,
    /// Its name.
    pub vm_name: Name,
    /// The target.
    pub target: TargetId,
    /// Its name.
    pub target_name: Name,
    /// The snapshot, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_name: Option<Name>,
    /// The copy that it makes; there is one when it is over with SUCCESS or WARNING.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<CopyId>,
    /// The last time that the copy was booted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Booted>,
    /// The copy run that it is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Who asked for it.
    pub created_by: String,
    /// When it was asked for.
    pub create_time: Timestamp,
    /// The feed's generation of its last change.
    #[serde(default)]
    pub generation: u64,
}

/// A number for an id that is longer: whole, positive and the same for ever.
#[must_use]
pub fn short_id(id: uuid::Uuid) -> i64 {
    let bytes = id.as_u128();
    (((bytes >> 64) ^ bytes) as i64) & i64::MAX
}

impl CopyTask {
    /// The task that a job does; `None` of a job that does none.
    #[must_use]
    pub fn of(job: &Job) -> Option<Self> {
        if job.kind != JobKind::CopySnapshot {
            return None;
        }
        let JobSpec::CopySnapshot(spec) = job.spec.read()? else {
            return None;
        };
        let outcome = job.outcome.read().unwrap_or_default();
        let progress = outcome.copy.as_deref();
        let status = TaskStatus::with(job, progress);
        let figures = progress.map(|p| p.figures).unwrap_or_default();
        let end = job.end_time.map(Timestamp::micros);
        let begin = progress.and_then(|p| p.begin_time);
        let until = job.end_time.unwrap_or(job.state_time);
        let seconds = begin.map(|begin| (until.micros() - begin.micros()).max(0) as f64 / 1e6);
        let rate = seconds
            .filter(|seconds| *seconds > 0.0)
            .map(|seconds| (figures.done_bytes as f64 / seconds) as i64);
        let known = progress.is_some_and(|p| !p.disks.is_empty());
        let known = |bytes: u64| known.then_some(bytes as i64);
        let stats = CopyStats {
            seed: CopyRunStats {
                start_time_usecs: begin.map(Timestamp::micros),
                end_time_usecs: end.filter(|_| begin.is_some()),
                is_incremental: begin.map(|_| progress.is_some_and(|p| p.parent.is_some())),
                logical_size_bytes: known(figures.logical_bytes),
                logical_bytes_transferred: known(figures.done_bytes),
                logical_transfer_rate_bps: rate,
                physical_bytes_transferred: progress.and_then(|p| known(p.wire_bytes)),
            },
            chunks_reused: figures.chunks_reused,
            chunks_new: figures.chunks_new,
            chunks_unchanged: figures.chunks_kept,
            stored_bytes: figures.stored_bytes,
            saved_by_dedupe_bytes: figures.saved_by_dedupe(),
            saved_by_compression_bytes: figures.saved_by_compression(),
            recent_rate_bps: progress.and_then(|p| p.recent_bps).filter(|_| !status.is_over()),
        };
        let error = job.error.as_ref().map(|e| e.message.clone());
        Some(Self {
            id: job.id,
            status,
            error: error.filter(|_| status == TaskStatus::Failure),
            hold_reason: job.hold_reason.clone(),
            warnings: progress.map(|p| p.warnings.clone()).unwrap_or_default(),
            source: source(spec.vm, &spec.vm_name),
            stats,
            task_start_time_usecs: progress.and_then(|p| p.snapshot_time).map(Timestamp::micros),
            task_end_time_usecs: end,
            sub_tasks: progress.map(|p| p.disks.clone()).unwrap_or_default(),
            vm: spec.vm,
            vm_name: spec.vm_name,
            target: spec.target,
            target_name: spec.target_name,
            snapshot: progress.and_then(|p| p.snapshot).or(spec.snapshot),
            snapshot_name: progress.and_then(|p| p.snapshot_name.clone()),
            copy: progress.map(|p| p.copy),
            verified: None,
            run: spec.run,
            created_by: job.created_by.clone(),
            create_time: job.create_time,
            generation: job.generation,
        })
    }
}

/// The tasks of a policy at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CopyRun {
    /// Its id.
    pub id: RunId,
    /// The policy, which may be gone.
    pub policy: PolicyId,
    /// Its name at the time.
    pub policy_name: Name,
    /// When it was due, or when a person asked for it.
    pub time: Timestamp,
    /// How its tasks are: what goes on comes before what is over, and of that the worst.
    pub status: TaskStatus,
    /// The figures of its tasks together.
    pub stats: CopyStats,
    /// Its tasks, one for each machine and target.
    pub tasks: Vec<CopyTask>,
    /// Who asked for it.
    pub created_by: String,
    /// When it began.
    pub create_time: Timestamp,
}

impl CopyRun {
    /// How a run of these tasks is; with no task at all as `empty` says.
    #[must_use]
    pub fn status_of(tasks: &[CopyTask], empty: TaskStatus) -> TaskStatus {
        let worst = CopyStatus::of_run(tasks.iter().map(|task| task.status.seed()));
        let same = |status: &&TaskStatus| Some(status.seed()) == worst;
        TaskStatus::ALL.iter().find(same).copied().unwrap_or(empty)
    }
}

impl<'a> std::iter::Sum<&'a Self> for CopyStats {
    /// The figures of tasks together.
    fn sum<I: Iterator<Item = &'a Self>>(tasks: I) -> Self {
        let tasks: Vec<_> = tasks.collect();
        let add = |of: fn(&Self) -> u64| tasks.iter().map(|t| of(t)).fold(0, u64::saturating_add);
        let rates = tasks.iter().filter_map(|t| t.recent_rate_bps);
        Self {
            seed: tasks.iter().map(|t| &t.seed).sum(),
            chunks_reused: add(|t| t.chunks_reused),
            chunks_new: add(|t| t.chunks_new),
            chunks_unchanged: add(|t| t.chunks_unchanged),
            stored_bytes: add(|t| t.stored_bytes),
            saved_by_dedupe_bytes: add(|t| t.saved_by_dedupe_bytes),
            saved_by_compression_bytes: add(|t| t.saved_by_compression_bytes),
            recent_rate_bps: rates.reduce(u64::saturating_add),
        }
    }
}

fn source(vm: VmId, name: &Name) -> ProtectionSource {
    ProtectionSource {
        id: Some(short_id(vm.0)),
        name: Some(name.to_string()),
        parent_id: None,
        environment: Some("kKVM".to_owned()),
        kvm_protection_source: Some(KvmProtectionSource {
            name: Some(name.to_string()),
            kind: Some("kVirtualMachine".to_owned()),
            uuid: Some(vm.to_string()),
        }),
    }
}

/// A request to copy a snapshot of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateCopyTask {
    /// The target, by name or id.
    pub target: String,
    /// The snapshot, by name or id; one that is taken now if not given, and kept only until the next copy there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Whether the snapshot that is taken has the memory, too.
    #[serde(default)]
    pub memory: bool,
    /// Whether the guest agent freezes the file systems for the moment of the snapshot that is taken.
    #[serde(default)]
    pub quiesce: bool,
    /// Whether the copy is booted afterwards, to see that it does.
    #[serde(default)]
    pub boot: bool,
    /// A UUID that makes the request idempotent for a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<uuid::Uuid>,
}

/// Copy a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CopySpec {
    /// The machine.
    pub vm: VmId,
    /// Its name at the time.
    pub vm_name: Name,
    /// The target.
    pub target: TargetId,
    /// Its name at the time.
    pub target_name: Name,
    /// The snapshot, where one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// The policy that asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyId>,
    /// The copy run that it is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The cycle of a migration that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<CycleOf>,
    /// The machine that is read, where it is none of this server: `vm` is then what its copies are known by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<OutsideVm>,
    /// What was asked.
    pub request: CreateCopyTask,
}

/// A machine that is not of this server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct OutsideVm {
    /// Where it lives.
    pub source: SourceId,
    /// How the source calls it.
    pub id: String,
}

/// A disk of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CopyDisk {
    /// Its name in the vault: `disk0`.
    pub name: String,
    /// Its number in the machine.
    pub number: u32,
    /// The slot of its device; 0 for what an EFI firmware remembers.
    pub slot: u32,
    /// What a guest sees of it, in bytes.
    pub bytes: u64,
}

/// The sign that a copy boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Booted {
    /// When it was booted.
    pub time: Timestamp,
    /// How it is known.
    pub proof: Proof,
    /// Whether it did: a picture alone is no boot.
    pub booted: bool,
    /// Why it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The job that booted it, which keeps its screen.
    pub job: JobId,
    /// Whether that has a picture of the screen.
    #[serde(default)]
    pub screen: bool,
}

impl Booted {
    /// Whether such a proof says that a guest has booted.
    #[must_use]
    pub const fn proves(proof: &Proof) -> bool {
        matches!(proof.strength, ProofStrength::Agent | ProofStrength::Serial)
    }
}

/// A copy of a machine's snapshot, at a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Copy {
    /// Its id, the same wherever its vault is attached.
    pub id: CopyId,
    /// The target.
    pub target: TargetId,
    /// Its name.
    pub target_name: Name,
    /// The machine that it is of, which may be gone or another server's.
    pub vm: VmId,
    /// Its name at the time.
    pub vm_name: Name,
    /// The snapshot that was copied, which may be gone.
    pub snapshot: SnapshotId,
    /// Its name at the time.
    pub snapshot_name: Name,
    /// The moment that it shows: when the disks were frozen.
    pub snapshot_time: Timestamp,
    /// What it guarantees.
    pub consistency: Consistency,
    /// Whether it has the memory, too.
    pub memory: bool,
    /// The machine as it was.
    pub machine: CopiedMachine,
    /// When it was there.
    pub create_time: Timestamp,
    /// Whether what had not changed since another copy was taken over without being read.
    pub incremental: bool,
    /// Its disks.
    pub disks: Vec<CopyDisk>,
    /// What was moved to make it.
    pub figures: CopyFigures,
    /// The last time that it was booted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub booted: Option<Booted>,
    /// What of it is damaged, by the last look at its target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damage: Vec<String>,
    /// Whether nothing may remove it until this is taken back.
    #[serde(default)]
    pub legal_hold: bool,
    /// The policy that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyId>,
    /// The copy that it is, but for what OS adaptation changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapted_of: Option<CopyId>,
    /// The job that made it, where that was this server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// The feed's generation of its last change.
    #[serde(default)]
    pub generation: u64,
}

/// What a copy says of its machine: enough to make one like it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CopiedMachine {
    /// Processors.
    pub cpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// Its firmware.
    pub firmware: crate::vm::Firmware,
    /// Its labels.
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
    /// What a person wrote about it.
    #[serde(default)]
    pub description: String,
    /// How many NICs it had.
    #[serde(default)]
    pub nics: u32,
}

/// What is to change of a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchCopy {
    /// Whether nothing may remove it.
    pub legal_hold: bool,
}

/// A request to bring a copy back: to exactly one of `vm`, `over`, `disks` and `file`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreCopy {
    /// A new machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<RestoreVm>,
    /// A machine that is there and stopped: what its disks have now is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<RestoreOver>,
    /// Its disks alone, as more disks of a machine that is there and stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disks: Option<RestoreDisks>,
    /// One of its disks, as a file to fetch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<RestoreFile>,
    /// A UUID that makes the request idempotent for a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<uuid::Uuid>,
}

/// A machine that is made of a copy. What is not given is as it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreVm {
    /// Its name.
    pub name: Name,
    /// Processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Memory, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// Its NICs; if not given as many as it had, connected to nothing, since a copied address takes production down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_interfaces: Option<Vec<NewNic>>,
    /// The storage that its disks go to, by name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// Labels that it gets beside those that it had.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What cloud-init is told in it, by a seed disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_init: Option<CloudInit>,
    /// Whether it is started.
    #[serde(default)]
    pub start: bool,
    /// Whether it is started at once, from the copy, while its disks are still brought here.
    #[serde(default)]
    pub instant: bool,
}

/// A machine whose disks are replaced by those of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreOver {
    /// The machine, by name or id.
    pub vm: String,
    /// Its name once more: what it has now is lost.
    pub confirm: String,
    /// Whether it is started.
    #[serde(default)]
    pub start: bool,
    /// Whether it is started at once, from the copy.
    #[serde(default)]
    pub instant: bool,
}

/// A machine that gets disks of a copy beside its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreDisks {
    /// The machine, by name or id.
    pub vm: String,
    /// The numbers of the copy's disks; all if none is named.
    #[serde(default)]
    pub numbers: Vec<u32>,
}

/// A file that a disk of a copy is written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreFile {
    /// The number of the disk.
    #[serde(default)]
    pub disk: u32,
    /// What the file is to be.
    pub format: ExportFormat,
}

impl RestoreCopy {
    /// Refuses what cannot be, by what is written alone.
    ///
    /// # Errors
    ///
    /// The field, and what is wrong with it.
    pub fn check(&self) -> Result<(), Status> {
        let asked = [
            self.vm.is_some(),
            self.over.is_some(),
            self.disks.is_some(),
            self.file.is_some(),
        ];
        if asked.into_iter().filter(|asked| *asked).count() != 1 {
            let why = "a copy is brought back to exactly one of vm, over, disks and file";
            return Err(Status::invalid("vm", why));
        }
        Ok(())
    }
}

/// Bring a copy back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RestoreSpec {
    /// The copy.
    pub copy: CopyId,
    /// The machine that is changed; none where a new one or a file is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<VmId>,
    /// The name of what was copied.
    pub of: Name,
    /// The migration that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<CloneOf>,
    /// What was asked.
    pub request: RestoreCopy,
}

/// A request to boot a copy, to see that it does: without networks, and thrown away afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BootCopy {
    /// How long it may take to boot, in seconds.
    #[serde(default = "boot_timeout")]
    pub boot_timeout_seconds: u32,
    /// A regular expression for the serial line that proves the boot; the kernel's start if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_pattern: Option<String>,
}

impl Default for BootCopy {
    fn default() -> Self {
        Self {
            boot_timeout_seconds: boot_timeout(),
            boot_pattern: None,
        }
    }
}

fn boot_timeout() -> u32 {
    crate::clone::DEFAULT_BOOT_TIMEOUT_SECONDS
}

/// Boot a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct BootSpec {
    /// The copy.
    pub copy: CopyId,
    /// The name of what was copied.
    pub of: Name,
    /// What was asked.
    pub request: BootCopy,
}
