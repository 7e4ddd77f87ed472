//! Jobs: durable work in named steps, each with a way back.

use crate::clone::{CloneVm, Proof};
use crate::copy::{BootSpec, CopyProgress, CopySpec, RestoreSpec};
use crate::edit::EditVm;
use crate::fork::{ForkNic, ForkProof, InstantClone};
use crate::image::{DeleteImageSpec, ExportSpec, ImportSpec, SnapshotImageSpec};
use crate::later::Later;
use crate::migrate::adapt::{AdaptSpec, Adapted};
use crate::migrate::{CutoverSpec, FinalizeSpec, GroupCutoverSpec};
use crate::snapshot::{RevertSnapshot, TakeSnapshot};
use crate::target::{PruneSpec, VaultOutcome, VerifySpec};
use crate::vm::{ConnectNics, CreateVm, Inconsistent, PowerAction};
use crate::{ForkPointId, JobId, Name, SnapshotId, Status, Timestamp, VmId, words};
use serde::{Deserialize, Serialize};

words! {
    /// What a job does.
    pub enum JobKind {
        /// Makes a machine.
        CreateVm = "CREATE_VM",
        /// Starts, stops, pauses, resumes or resets one.
        PowerVm = "POWER_VM",
        /// Connects NICs of one to their networks, or takes them off.
        ConnectVm = "CONNECT_VM",
        /// Takes a snapshot.
        TakeSnapshot = "TAKE_SNAPSHOT",
        /// Takes a machine back to a snapshot.
        RevertVm = "REVERT_VM",
        /// Deletes a snapshot.
        DeleteSnapshot = "DELETE_SNAPSHOT",
        /// Clones a machine from a snapshot.
        CloneVm = "CLONE_VM",
        /// Forks a running machine, memory and disks.
        InstantCloneVm = "INSTANT_CLONE_VM",
        /// Deletes a machine.
        DeleteVm = "DELETE_VM",
        /// Deletes a fork point.
        DeleteForkPoint = "DELETE_FORK_POINT",
        /// Changes what a machine is made of.
        EditVm = "EDIT_VM",
        /// Brings an image in.
        ImportImage = "IMPORT_IMAGE",
        /// Makes an image of a snapshot.
        ImageOfSnapshot = "IMAGE_OF_SNAPSHOT",
        /// Writes a disk to a file.
        ExportDisk = "EXPORT_DISK",
        /// Deletes an image.
        DeleteImage = "DELETE_IMAGE",
        /// Copies a snapshot to a target.
        CopySnapshot = "COPY_SNAPSHOT",
        /// Brings a copy back.
        RestoreCopy = "RESTORE_COPY",
        /// Boots a copy, to see that it does.
        BootCopy = "BOOT_COPY",
        /// Looks at all that a target has.
        VerifyTarget = "VERIFY_TARGET",
        /// Takes out of a target what no copy needs.
        PruneTarget = "PRUNE_TARGET",
        /// Cuts a machine over that is carried over.
        CutOver = "CUT_OVER",
        /// Removes what a migration kept.
        FinalizeMigration = "FINALIZE_MIGRATION",
        /// Adapts the operating system of an upload.
        AdaptCopy = "ADAPT_COPY",
        /// Cuts a group of machines over, wave by wave.
        CutOverGroup = "CUT_OVER_GROUP",
    }

    /// How far a job has come, in one word.
    pub enum JobState {
        /// Waits its turn.
        Queued = "QUEUED",
        /// At work.
        Running = "RUNNING",
        /// Undoes what it did.
        Unwinding = "UNWINDING",
        /// An undo fails; it is tried again, and the locks are kept.
        UndoBlocked = "UNDO_BLOCKED",
        /// Waits for something outside.
        OnHold = "ON_HOLD",
        /// Done.
        Succeeded = "SUCCEEDED",
        /// Failed, and everything undone.
        Failed = "FAILED",
        /// Cancelled, and everything undone.
        Cancelled = "CANCELLED",
    }

    /// Why a job goes backwards.
    pub enum UnwindCause {
        /// A person cancelled it.
        Cancel = "CANCEL",
        /// A step failed.
        Failure = "FAILURE",
    }

    /// How far a step has come.
    pub enum StepState {
        /// Its turn has not come.
        Waiting = "WAITING",
        /// At work.
        Running = "RUNNING",
        /// Done.
        Done = "DONE",
        /// Failed.
        Failed = "FAILED",
        /// Being undone.
        Undoing = "UNDOING",
        /// Undone.
        Undone = "UNDONE",
        /// Not asked for.
        Skipped = "SKIPPED",
    }

    /// What a thing is to a job.
    pub enum ResourceRole {
        /// Read or changed by it.
        Source = "SOURCE",
        /// Made by it.
        Product = "PRODUCT",
    }
}

impl JobState {
    /// Whether a job ends here.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// Whether `to` may follow.
    pub const fn can_become(self, to: Self) -> bool {
        use JobState::{Cancelled, Failed, OnHold, Queued, Running, Succeeded, UndoBlocked, Unwinding};
        match self {
            Queued => matches!(to, Running | OnHold | Cancelled | Failed),
            // Back to QUEUED: a step that met something transient waits its turn again.
            Running => matches!(to, Succeeded | Unwinding | OnHold | Queued),
            OnHold => matches!(to, Queued | Running | Unwinding | Cancelled),
            Unwinding => matches!(to, Failed | Cancelled | UndoBlocked),
            UndoBlocked => matches!(to, Unwinding),
            Succeeded | Failed | Cancelled => false,
        }
    }
}

impl StepState {
    /// Whether `to` may follow. A step that ran may run again: after a crash nobody knows how far it came.
    pub const fn can_become(self, to: Self) -> bool {
        use StepState::{Done, Failed, Running, Skipped, Undoing, Undone, Waiting};
        match self {
            Waiting => matches!(to, Running | Skipped),
            Running => matches!(to, Running | Done | Failed | Undoing | Waiting),
            Done => matches!(to, Undoing),
            Failed => matches!(to, Undoing),
            Undoing => matches!(to, Undoing | Undone),
            Undone | Skipped => false,
        }
    }
}

/// A job's state with what belongs to it: the only combinations there are.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Phase {
    Queued,
    Running,
    Unwinding {
        cause: UnwindCause,
        error: Option<Status>,
    },
    UndoBlocked {
        cause: UnwindCause,
        error: Option<Status>,
        blocked: Status,
    },
    OnHold {
        reason: String,
    },
    Succeeded {
        end: Timestamp,
    },
    Failed {
        end: Timestamp,
        error: Status,
    },
    Cancelled {
        end: Timestamp,
    },
}

/// The flat fields of a job's state.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct PhaseParts {
    pub cause: Option<UnwindCause>,
    pub error: Option<Status>,
    pub blocked: Option<Status>,
    pub hold_reason: Option<String>,
    pub end: Option<Timestamp>,
}

impl Phase {
    /// The state in one word.
    pub const fn state(&self) -> JobState {
        match self {
            Self::Queued => JobState::Queued,
            Self::Running => JobState::Running,
            Self::Unwinding { .. } => JobState::Unwinding,
            Self::UndoBlocked { .. } => JobState::UndoBlocked,
            Self::OnHold { .. } => JobState::OnHold,
            Self::Succeeded { .. } => JobState::Succeeded,
            Self::Failed { .. } => JobState::Failed,
            Self::Cancelled { .. } => JobState::Cancelled,
        }
    }

    /// From flat fields; refuses every combination that is none. A job that unwinds for a failure has its error.
    pub fn from_parts(state: JobState, parts: PhaseParts) -> Result<Self, Inconsistent> {
        let bad = |parts: &PhaseParts| Inconsistent {
            noun: "job",
            state: state.word(),
            what: format!("{parts:?}"),
        };
        let PhaseParts {
            cause,
            error,
            blocked,
            hold_reason,
            end,
        } = parts.clone();
        Ok(match (state, cause, error, blocked, hold_reason, end) {
            (JobState::Queued, None, None, None, None, None) => Self::Queued,
            (JobState::Running, None, None, None, None, None) => Self::Running,
            (JobState::Unwinding, Some(cause), error, None, None, None)
                if error.is_some() == (cause == UnwindCause::Failure) =>
            {
                Self::Unwinding { cause, error }
            }
            (JobState::UndoBlocked, Some(cause), error, Some(blocked), None, None)
                if error.is_some() == (cause == UnwindCause::Failure) =>
            {
                Self::UndoBlocked {
                    cause,
                    error,
                    blocked,
                }
            }
            (JobState::OnHold, None, None, None, Some(reason), None) => Self::OnHold { reason },
            (JobState::Succeeded, None, None, None, None, Some(end)) => Self::Succeeded { end },
            (JobState::Failed, None, Some(error), None, None, Some(end)) => Self::Failed { end, error },
            (JobState::Cancelled, None, None, None, None, Some(end)) => Self::Cancelled { end },
            _ => return Err(bad(&parts)),
        })
    }

    /// As flat fields.
    pub fn into_parts(self) -> (JobState, PhaseParts) {
        let state = self.state();
        let none = PhaseParts::default();
        let parts = match self {
            Self::Queued | Self::Running => none,
            Self::Unwinding { cause, error } => PhaseParts {
                cause: Some(cause),
                error,
                ..none
            },
            Self::UndoBlocked {
                cause,
                error,
                blocked,
            } => PhaseParts {
                cause: Some(cause),
                error,
                blocked: Some(blocked),
                ..none
            },
            Self::OnHold { reason } => PhaseParts {
                hold_reason: Some(reason),
                ..none
            },
            Self::Succeeded { end } | Self::Cancelled { end } => PhaseParts {
                end: Some(end),
                ..none
            },
            Self::Failed { end, error } => PhaseParts {
                end: Some(end),
                error: Some(error),
                ..none
            },
        };
        (state, parts)
    }
}

/// What a job was asked to do, with the things it speaks of resolved to ids.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum JobSpec {
    /// Make a machine.
    CreateVm(CreateVm),
    /// Change a machine's power.
    PowerVm(PowerSpec),
    /// Connect NICs of a machine, or take them off their networks.
    ConnectVm(ConnectSpec),
    /// Take a snapshot.
    TakeSnapshot(SnapshotSpec),
    /// Take a machine back to a snapshot.
    RevertVm(RevertSpec),
    /// Delete a snapshot.
    DeleteSnapshot(DeleteSnapshotSpec),
    /// Clone a machine.
    CloneVm(CloneSpec),
    /// Fork a running machine.
    InstantCloneVm(ForkSpec),
    /// Delete a machine.
    DeleteVm(DeleteSpec),
    /// Delete a fork point.
    DeleteForkPoint(DeletePointSpec),
    /// Change what a machine is made of.
    EditVm(EditSpec),
    /// Bring an image in.
    ImportImage(ImportSpec),
    /// Make an image of a snapshot.
    ImageOfSnapshot(SnapshotImageSpec),
    /// Write a disk to a file.
    ExportDisk(ExportSpec),
    /// Delete an image.
    DeleteImage(DeleteImageSpec),
    /// Copy a snapshot to a target.
    CopySnapshot(CopySpec),
    /// Bring a copy back.
    RestoreCopy(RestoreSpec),
    /// Boot a copy, to see that it does.
    BootCopy(BootSpec),
    /// Look at all that a target has.
    VerifyTarget(VerifySpec),
    /// Take out of a target what no copy needs.
    PruneTarget(PruneSpec),
    /// Cut a machine over.
    CutOver(CutoverSpec),
    /// Remove what a migration kept.
    FinalizeMigration(FinalizeSpec),
    /// Adapt the operating system of an upload.
    AdaptCopy(AdaptSpec),
    /// Cut a group over.
    CutOverGroup(GroupCutoverSpec),
}

impl JobSpec {
    /// The kind of job that does it.
    pub const fn kind(&self) -> JobKind {
        match self {
            Self::CreateVm(_) => JobKind::CreateVm,
            Self::PowerVm(_) => JobKind::PowerVm,
            Self::ConnectVm(_) => JobKind::ConnectVm,
            Self::TakeSnapshot(_) => JobKind::TakeSnapshot,
            Self::RevertVm(_) => JobKind::RevertVm,
            Self::DeleteSnapshot(_) => JobKind::DeleteSnapshot,
            Self::CloneVm(_) => JobKind::CloneVm,
            Self::InstantCloneVm(_) => JobKind::InstantCloneVm,
            Self::DeleteVm(_) => JobKind::DeleteVm,
            Self::DeleteForkPoint(_) => JobKind::DeleteForkPoint,
            Self::EditVm(_) => JobKind::EditVm,
            Self::ImportImage(_) => JobKind::ImportImage,
            Self::ImageOfSnapshot(_) => JobKind::ImageOfSnapshot,
            Self::ExportDisk(_) => JobKind::ExportDisk,
            Self::DeleteImage(_) => JobKind::DeleteImage,
            Self::CopySnapshot(_) => JobKind::CopySnapshot,
            Self::RestoreCopy(_) => JobKind::RestoreCopy,
            Self::BootCopy(_) => JobKind::BootCopy,
            Self::VerifyTarget(_) => JobKind::VerifyTarget,
            Self::PruneTarget(_) => JobKind::PruneTarget,
            Self::CutOver(_) => JobKind::CutOver,
            Self::FinalizeMigration(_) => JobKind::FinalizeMigration,
            Self::AdaptCopy(_) => JobKind::AdaptCopy,
            Self::CutOverGroup(_) => JobKind::CutOverGroup,
        }
    }

    /// The machine that must exist for it.
    pub const fn vm(&self) -> Option<VmId> {
        match self {
            Self::CreateVm(_) | Self::DeleteForkPoint(_) => None,
            Self::ImportImage(_) | Self::DeleteImage(_) => None,
            Self::BootCopy(_) | Self::VerifyTarget(_) | Self::PruneTarget(_) => None,
            // What they do with the machines they have other jobs do.
            Self::CutOver(_) | Self::FinalizeMigration(_) | Self::CutOverGroup(_) => None,
            Self::AdaptCopy(_) => None,
            Self::CopySnapshot(s) if s.outside.is_some() => None,
            Self::CopySnapshot(s) => Some(s.vm),
            Self::RestoreCopy(s) => s.vm,
            Self::ImageOfSnapshot(s) => Some(s.vm),
            Self::ExportDisk(s) => Some(s.vm),
            // A point that was kept is forked without its source, which may be gone.
            Self::InstantCloneVm(s) if s.point.is_some() => None,
            Self::InstantCloneVm(s) => Some(s.vm),
            Self::PowerVm(s) => Some(s.vm),
            Self::ConnectVm(s) => Some(s.vm),
            Self::TakeSnapshot(s) => Some(s.vm),
            Self::RevertVm(s) => Some(s.vm),
            Self::DeleteSnapshot(s) => Some(s.vm),
            Self::CloneVm(s) => Some(s.vm),
            Self::DeleteVm(s) => Some(s.vm),
            Self::EditVm(s) => Some(s.vm),
        }
    }
}

/// Change a machine's power.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PowerSpec {
    /// The machine.
    pub vm: VmId,
    /// What is asked.
    pub action: PowerAction,
    /// How long the guest may take to shut down until its power is taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_off_after_seconds: Option<u32>,
}

/// Change what a machine is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct EditSpec {
    /// The machine.
    pub vm: VmId,
    /// What was asked.
    pub request: EditVm,
}

/// Connect NICs of a machine, or take them off their networks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ConnectSpec {
    /// The machine.
    pub vm: VmId,
    /// Whether they are connected from then on.
    pub connected: bool,
    /// Which.
    #[serde(flatten)]
    pub request: ConnectNics,
}

/// Take a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SnapshotSpec {
    /// The machine.
    pub vm: VmId,
    /// What was asked.
    pub request: TakeSnapshot,
}

/// Take a machine back to a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RevertSpec {
    /// The machine.
    pub vm: VmId,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Whether its memory goes on where it was.
    pub memory: bool,
    /// What was asked.
    pub request: RevertSnapshot,
}

/// Delete a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DeleteSnapshotSpec {
    /// The machine.
    pub vm: VmId,
    /// The snapshot.
    pub snapshot: SnapshotId,
}

/// Clone a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CloneSpec {
    /// The machine.
    pub vm: VmId,
    /// The snapshot that was chosen when the job was posted; none if it takes its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// What was asked.
    pub request: CloneVm,
}

/// Fork a running machine, or an instant of it that was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ForkSpec {
    /// The machine.
    pub vm: VmId,
    /// The instant that was kept, if one is forked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<ForkPointId>,
    /// What becomes of each NIC of the clones, where that is told one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<ForkNic>,
    /// What was asked.
    pub request: InstantClone,
}

/// Delete a fork point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DeletePointSpec {
    /// The fork point.
    pub point: ForkPointId,
}

/// Delete a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DeleteSpec {
    /// The machine.
    pub vm: VmId,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Its id, for ever.
    pub id: JobId,
    /// What it does.
    pub kind: JobKind,
    /// How far it has come.
    pub state: JobState,
    /// What it was asked.
    #[cfg_attr(feature = "openapi", schema(value_type = JobSpec))]
    pub spec: Later<JobSpec>,
    /// Its steps, in order.
    pub steps: Vec<Step>,
    /// The things it reads, changes and makes.
    pub resources: Vec<Resource>,
    /// What it has found out and made.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Outcome))]
    pub outcome: Later<Outcome>,
    /// Why it failed, or unwinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Status>,
    /// Why it goes backwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwind_cause: Option<UnwindCause>,
    /// Why an undo does not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<Status>,
    /// What it waits for, on hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_reason: Option<String>,
    /// Whether it is past its point of no return: only forward from here.
    #[serde(default)]
    pub no_return: bool,
    /// The job that it tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<JobId>,
    /// Who asked: a user's name, or a token's.
    pub created_by: String,
    /// When it was asked.
    pub create_time: Timestamp,
    /// When its first step began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// When its state last changed.
    pub state_time: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Timestamp>,
    /// The feed's generation of its last change.
    #[serde(default)]
    pub generation: u64,
}

impl Job {
    /// Its state with what belongs to it.
    pub fn phase(&self) -> Result<Phase, Inconsistent> {
        Phase::from_parts(
            self.state,
            PhaseParts {
                cause: self.unwind_cause,
                error: self.error.clone(),
                blocked: self.blocked.clone(),
                hold_reason: self.hold_reason.clone(),
                end: self.end_time,
            },
        )
    }

    /// The step at work, forwards or backwards.
    pub fn current_step(&self) -> Option<&Step> {
        self.steps
            .iter()
            .find(|s| matches!(s.state, StepState::Running | StepState::Undoing))
    }

    /// The first resource of a role and noun.
    pub fn resource(&self, role: ResourceRole, noun: crate::feed::Noun) -> Option<&Resource> {
        self.resources.iter().find(|r| r.role == role && r.noun == noun)
    }

    /// How the seeds call its state.
    pub fn seed_states(&self) -> SeedStates {
        let adapting = self.current_step().is_some_and(|s| s.name == step::ADAPTING_OS);
        seed_states(self.state, self.unwind_cause, self.start_time.is_some(), adapting)
    }
}

/// Names of the steps of every kind of job.
#[allow(missing_docs)]
pub mod step {
    pub const CHECKING: &str = "checking";
    pub const MINTING: &str = "minting";
    pub const TAKING_SNAPSHOT: &str = "taking-snapshot";
    pub const FREEZING_DISKS: &str = "freezing-disks";
    pub const ADAPTING_OS: &str = "adapting-os";
    pub const PREPARING_VM_DISKS: &str = "preparing-vm-disks";
    pub const INSTANTIATING: &str = "instantiating";
    pub const PREPARING: &str = "preparing";
    pub const FREEZING_SOURCE: &str = "freezing-source";
    pub const CAPTURING_MEMORY: &str = "capturing-memory";
    pub const THAWING_SOURCE: &str = "thawing-source";
    pub const VERIFYING: &str = "verifying";
    pub const STARTING: &str = "starting";
    pub const SWITCHING_POWER: &str = "switching-power";
    pub const SWITCHING_NETWORKS: &str = "switching-networks";
    pub const POWERING_OFF: &str = "powering-off";
    pub const DELETING: &str = "deleting";
    pub const MERGING_LAYERS: &str = "merging-layers";
    pub const REVERTING: &str = "reverting";
    pub const FETCHING: &str = "fetching";
    pub const CONVERTING: &str = "converting";
    pub const EXPORTING: &str = "exporting";
    pub const REGISTERING: &str = "registering";
    pub const REMOVING_FILES: &str = "removing-files";
    pub const CHANGING_HARDWARE: &str = "changing-hardware";
    pub const COPYING: &str = "copying";
    pub const FINALIZING: &str = "finalizing";
    pub const LETTING_GO: &str = "letting-go";
    pub const BOOTING: &str = "booting";
    pub const ATTACHING: &str = "attaching";
    pub const BRINGING_HOME: &str = "bringing-home";
    pub const CLEANING_UP: &str = "cleaning-up";
    pub const PREVIOUS_CYCLE: &str = "previous-cycle";
    pub const SHUTTING_DOWN_SOURCE: &str = "shutting-down-source";
    pub const FINAL_SYNC: &str = "final-sync";
    pub const CUTTING_OVER: &str = "cutting-over";
}

/// A step of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Its name, such as `preparing-vm-disks`.
    pub name: String,
    /// How far it has come.
    pub state: StepState,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// When it ended, either way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Timestamp>,
    /// Bytes done, where it counts bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_bytes: Option<u64>,
    /// Bytes there are to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Machines done, where it counts machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_count: Option<u32>,
    /// Machines there are to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_count: Option<u32>,
    /// What it is doing, or did, in a few words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A thing that a job has to do with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// What it is.
    pub noun: crate::feed::Noun,
    /// Its id.
    pub id: String,
    /// Its name at the time.
    pub name: Name,
    /// What it is to the job.
    pub role: ResourceRole,
}

/// What a job has found out and made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// How it is known that the new machine boots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// How long QEMU took to switch the source's disks over, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_micros: Option<u64>,
    /// Bytes copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied_bytes: Option<u64>,
    /// What is known of the clones, where machines were forked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork: Option<ForkProof>,
    /// How long a machine was off that was cut over: from the source's end to the target executing, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime_millis: Option<u64>,
    /// Whether a PNG of the guest's screen is kept with it.
    #[serde(default)]
    pub screen: bool,
    /// How far a copy has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<Box<CopyProgress>>,
    /// What was found in a vault, or taken out of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<Box<VaultOutcome>>,
    /// What was found of an operating system, and done to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapted: Option<Box<Adapted>>,
}

/// A line of a job's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// When.
    pub time: Timestamp,
    /// What.
    pub text: String,
}

/// How the three seeds call one state of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeedStates {
    /// Google's `CloneJob.State`.
    pub clone_job: crate::seed::clone_job::State,
    /// Cohesity's status of a copy task.
    pub copy_task: &'static str,
    /// VMware's `TaskInfo.state`.
    pub task_info: &'static str,
}

/// The one table that maps a job's state to each seed's.
pub const fn seed_states(
    state: JobState,
    cause: Option<UnwindCause>,
    started: bool,
    adapting: bool,
) -> SeedStates {
    use crate::seed::clone_job::State as C;
    let (clone_job, copy_task, task_info) = match (state, cause, started, adapting) {
        (JobState::Queued, _, false, _) => (C::Pending, "kAccepted", "queued"),
        (JobState::Queued, _, true, _) => (C::Active, "kAccepted", "queued"),
        (JobState::Running, _, _, false) => (C::Active, "kRunning", "running"),
        (JobState::Running, _, _, true) => (C::AdaptingOs, "kRunning", "running"),
        (JobState::Unwinding | JobState::UndoBlocked, Some(UnwindCause::Cancel), _, _) => {
            (C::Cancelling, "kCanceling", "running")
        }
        (JobState::Unwinding | JobState::UndoBlocked, _, _, _) => (C::Active, "kRunning", "running"),
        (JobState::OnHold, _, false, _) => (C::Pending, "kOnHold", "queued"),
        (JobState::OnHold, _, true, _) => (C::Active, "kOnHold", "running"),
        (JobState::Succeeded, _, _, _) => (C::Succeeded, "kSuccess", "success"),
        (JobState::Failed, _, _, _) => (C::Failed, "kFailure", "error"),
        (JobState::Cancelled, _, _, _) => (C::Cancelled, "kCanceled", "error"),
    };
    SeedStates {
        clone_job,
        copy_task,
        task_info,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_inconsistent_combination_is_refused() {
        let e = || Some(Status::precondition("no"));
        let mut taken = 0;
        for &state in JobState::ALL {
            for cause in [None, Some(UnwindCause::Cancel), Some(UnwindCause::Failure)] {
                for error in [None, e()] {
                    for blocked in [None, e()] {
                        for hold_reason in [None, Some("target away".to_owned())] {
                            for end in [None, Some(Timestamp::from_micros(1))] {
                                let parts = PhaseParts {
                                    cause,
                                    error: error.clone(),
                                    blocked: blocked.clone(),
                                    hold_reason: hold_reason.clone(),
                                    end,
                                };
                                if let Ok(phase) = Phase::from_parts(state, parts.clone()) {
                                    assert_eq!(phase.into_parts(), (state, parts));
                                    taken += 1;
                                }
                            }
                        }
                    }
                }
            }
        }
        // One for each state, and UNWINDING and UNDO_BLOCKED have two causes.
        assert_eq!(taken, JobState::ALL.len() + 2);
    }

    #[test]
    fn final_states_are_final() {
        for &from in JobState::ALL {
            for &to in JobState::ALL {
                assert!(!(from.is_final() && from.can_become(to)), "{from} became {to}");
            }
        }
    }

    #[test]
    fn every_state_ends_somewhere() {
        for &from in JobState::ALL {
            let mut seen = vec![from];
            let mut at = 0;
            while at < seen.len() {
                for &to in JobState::ALL {
                    if seen[at].can_become(to) && !seen.contains(&to) {
                        seen.push(to);
                    }
                }
                at += 1;
            }
            assert!(seen.iter().any(|s| s.is_final()), "{from} never ends");
        }
    }

    #[test]
    fn the_seeds_know_every_state() {
        for &state in JobState::ALL {
            for cause in [None, Some(UnwindCause::Cancel), Some(UnwindCause::Failure)] {
                for (started, adapting) in [(false, false), (true, false), (true, true)] {
                    let seeds = seed_states(state, cause, started, adapting);
                    assert_eq!(
                        seeds.clone_job.has_ended(),
                        state.is_final(),
                        "{state}: {seeds:?}"
                    );
                    let over = matches!(seeds.task_info, "success" | "error");
                    assert_eq!(over, state.is_final(), "{state}: {seeds:?}");
                    let over = matches!(seeds.copy_task, "kSuccess" | "kFailure" | "kCanceled");
                    assert_eq!(over, state.is_final(), "{state}: {seeds:?}");
                }
            }
        }
    }
}
