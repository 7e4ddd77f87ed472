//! Cycles, test clones and cutovers as they are shown: each is a job, read in the words of migration.

use super::{CloneVerdict, CreateCutover, CycleState};
use crate::copy::CopyTask;
use crate::feed::Noun;
use crate::job::{Job, JobKind, JobSpec, JobState, Resource, ResourceRole, Step, StepState, step};
use crate::{CopyId, JobId, MigratingVmId, Status, Timestamp, words};
use serde::{Deserialize, Serialize};

words! {
    /// A step of a cycle.
    pub enum CycleStepName {
        /// The machine's state is frozen.
        InitializingReplication = "INITIALIZING_REPLICATION",
        /// It is uploaded.
        Replicating = "REPLICATING",
        /// The upload is made to count, and what is needed no more is let go of.
        PostProcessing = "POST_PROCESSING",
    }

    /// A step of a test clone or of a cutover.
    pub enum MoveStepName {
        /// The cycle that was at work comes to its end.
        PreviousReplicationCycle = "PREVIOUS_REPLICATION_CYCLE",
        /// The source is shut down.
        ShuttingDownSourceVm = "SHUTTING_DOWN_SOURCE_VM",
        /// What has changed last is uploaded.
        FinalSync = "FINAL_SYNC",
        /// Its operating system is adapted.
        AdaptingOs = "ADAPTING_OS",
        /// Its disks are got ready.
        PreparingVmDisks = "PREPARING_VM_DISKS",
        /// It is started.
        InstantiatingMigratedVm = "INSTANTIATING_MIGRATED_VM",
    }

    /// How far a test clone or a cutover has come, as the seed says it.
    pub enum MoveState {
        /// Waits its turn.
        Pending = "PENDING",
        /// At work.
        Active = "ACTIVE",
        /// Failed, and everything undone.
        Failed = "FAILED",
        /// Done.
        Succeeded = "SUCCEEDED",
        /// Cancelled, and everything undone.
        Cancelled = "CANCELLED",
        /// Being undone.
        Cancelling = "CANCELLING",
    }
}

/// A step of a cycle, from its beginning on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CycleStep {
    /// Which.
    pub name: CycleStepName,
    /// When it began.
    pub start_time: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Timestamp>,
}

/// One upload of a machine that is carried over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReplicationCycle {
    /// Its job.
    pub id: JobId,
    /// Whose.
    pub migrating_vm: MigratingVmId,
    /// Which, from 1.
    pub number: u64,
    /// How far it has come.
    pub state: CycleState,
    /// Its steps, as far as they have begun.
    pub steps: Vec<CycleStep>,
    /// The size of the disks, in bytes, once it is known.
    pub total_bytes: u64,
    /// How far they were gone through, holes and what had not changed included.
    pub replicated_bytes: u64,
    /// What had changed, as it was read, in bytes.
    pub changed_bytes: u64,
    /// What was written to the target, in its own bytes.
    pub stored_bytes: u64,
    /// Bytes of disks in a second, in the last two minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_two_minutes_average_bytes_per_second: Option<u64>,
    /// Bytes of disks in a second, in the last thirty minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_thirty_minutes_average_bytes_per_second: Option<u64>,
    /// What it uploaded, once that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<CopyId>,
    /// The moment of the machine that it uploads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_time: Option<Timestamp>,
    /// What a person must know.
    pub warnings: Vec<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Status>,
    /// Why it stands still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_reason: Option<String>,
    /// When it was asked for.
    pub create_time: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Timestamp>,
}

impl ReplicationCycle {
    /// The cycle that a job is; none if it is another job.
    pub fn of(job: &Job) -> Option<Self> {
        let JobSpec::CopySnapshot(spec) = job.spec.read()? else {
            return None;
        };
        let of = spec.migration.as_ref()?;
        let task = CopyTask::of(job)?;
        let outcome = job.outcome.read().unwrap_or_default();
        let progress = outcome.copy.as_deref();
        let state = match job.state {
            JobState::Queued | JobState::Running | JobState::Unwinding | JobState::UndoBlocked => {
                CycleState::Running
            }
            JobState::OnHold => CycleState::Paused,
            JobState::Succeeded => CycleState::Succeeded,
            JobState::Failed | JobState::Cancelled => CycleState::Failed,
        };
        let over = state == CycleState::Succeeded || state == CycleState::Failed;
        let figures = progress.map(|p| p.figures).unwrap_or_default();
        let name = |step: &str| match step {
            step::COPYING => CycleStepName::Replicating,
            step::FINALIZING | step::LETTING_GO => CycleStepName::PostProcessing,
            _ => CycleStepName::InitializingReplication,
        };
        let cancelled = || Status::new(crate::Code::Cancelled, "it was cancelled");
        Some(Self {
            id: job.id,
            migrating_vm: of.migrating_vm,
            number: of.number,
            state,
            steps: CycleStepName::ALL
                .iter()
                .filter_map(|wanted| {
                    let (start_time, end_time) = spanned(job, |step| name(&step.name) == *wanted)?;
                    Some(CycleStep {
                        name: *wanted,
                        start_time,
                        end_time,
                    })
                })
                .collect(),
            total_bytes: figures.logical_bytes,
            replicated_bytes: figures.done_bytes,
            changed_bytes: figures.read_bytes,
            stored_bytes: figures.stored_bytes,
            last_two_minutes_average_bytes_per_second: progress.and_then(|p| p.recent_bps).filter(|_| !over),
            last_thirty_minutes_average_bytes_per_second: progress
                .and_then(|p| p.half_hour_bps)
                .filter(|_| !over),
            copy: progress
                .map(|p| p.copy)
                .filter(|_| state == CycleState::Succeeded),
            snapshot_time: progress.and_then(|p| p.snapshot_time),
            warnings: task.warnings,
            error: match job.state {
                JobState::Cancelled => Some(cancelled()),
                _ => job.error.clone(),
            },
            hold_reason: job.hold_reason.clone(),
            create_time: job.create_time,
            end_time: job.end_time,
        })
    }
}

/// From when to when those steps of a job took that a predicate names; none where none of them has begun.
fn spanned(job: &Job, wanted: impl Fn(&Step) -> bool) -> Option<(Timestamp, Option<Timestamp>)> {
    let steps: Vec<_> = job.steps.iter().filter(|step| wanted(step)).collect();
    let start = steps.iter().filter_map(|step| step.start_time).min()?;
    let open = |step: &&&Step| {
        !matches!(
            step.state,
            StepState::Done | StepState::Skipped | StepState::Failed
        )
    };
    let end = match steps.iter().find(open) {
        Some(_) => job.end_time,
        None => steps.iter().filter_map(|step| step.end_time).max(),
    };
    Some((start, end))
}

/// A step of a test clone or of a cutover, from its beginning on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct MoveStep {
    /// Which.
    pub name: MoveStepName,
    /// When it began.
    pub start_time: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Timestamp>,
}

fn state_of(job: &Job) -> MoveState {
    match job.state {
        JobState::Queued => MoveState::Pending,
        JobState::Running | JobState::OnHold => MoveState::Active,
        JobState::Unwinding | JobState::UndoBlocked => MoveState::Cancelling,
        JobState::Succeeded => MoveState::Succeeded,
        JobState::Failed => MoveState::Failed,
        JobState::Cancelled => MoveState::Cancelled,
    }
}

fn steps_of(job: &Job, name: impl Fn(&str) -> Option<MoveStepName>) -> Vec<MoveStep> {
    let step = |wanted: &MoveStepName| {
        let (start_time, end_time) = spanned(job, |step| name(&step.name) == Some(*wanted))?;
        Some(MoveStep {
            name: *wanted,
            start_time,
            end_time,
        })
    };
    MoveStepName::ALL.iter().filter_map(step).collect()
}

/// What is known of a test clone beside its job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Judged {
    /// What a person says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<CloneVerdict>,
    /// What else there is to say.
    #[serde(default)]
    pub note: String,
    /// Who said it.
    #[serde(default)]
    pub by: String,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
}

/// A test clone of what was uploaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct MigrationClone {
    /// Its job.
    pub id: JobId,
    /// Whose.
    pub migrating_vm: MigratingVmId,
    /// How far it has come.
    pub state: MoveState,
    /// Its steps, as far as they have begun.
    pub steps: Vec<MoveStep>,
    /// The upload that it is made of.
    pub copy: CopyId,
    /// The machine, once it has an id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Resource>,
    /// When it is put up for removal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_time: Option<Timestamp>,
    /// What a person says of it.
    pub judged: Judged,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Status>,
    /// Why it stands still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_reason: Option<String>,
    /// When it was asked for.
    pub create_time: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Timestamp>,
}

impl MigrationClone {
    /// The test clone that a job is, and what people say of it; none if it is another job.
    pub fn of(job: &Job, judged: Judged) -> Option<Self> {
        let JobSpec::RestoreCopy(spec) = job.spec.read()? else {
            return None;
        };
        let of = spec.migration.as_ref().filter(|of| of.cutover.is_none())?;
        let hours = i64::from(of.keep_hours.unwrap_or(0));
        let name = |step: &str| match step {
            step::MINTING | step::ATTACHING => Some(MoveStepName::PreparingVmDisks),
            step::INSTANTIATING => Some(MoveStepName::InstantiatingMigratedVm),
            _ => None,
        };
        Some(Self {
            id: job.id,
            migrating_vm: of.migrating_vm,
            state: state_of(job),
            steps: steps_of(job, name),
            copy: spec.copy,
            target: job.resource(ResourceRole::Product, Noun::Vm).cloned(),
            remove_time: (hours > 0).then(|| job.create_time.plus_micros(hours * 3_600_000_000)),
            judged,
            error: job.error.clone(),
            hold_reason: job.hold_reason.clone(),
            create_time: job.create_time,
            end_time: job.end_time,
        })
    }
}

/// How long each part of a cutover is likely to take, in milliseconds: by what was measured in this migration, and nothing where
/// nothing was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// To shut the source down: as long as it took the last time, nothing where it is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutting_down_millis: Option<u64>,
    /// To upload what has changed last: as long as the last cycle took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_sync_millis: Option<u64>,
    /// To adapt its system: as long as that took the last time, nothing where that is skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapting_millis: Option<u64>,
    /// To get its disks ready and to start it: as long as the last test clone took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instantiating_millis: Option<u64>,
}

impl Forecast {
    /// How long nothing of the machine runs: all of it, if all of it was measured.
    pub fn downtime_millis(&self) -> Option<u64> {
        Some(
            self.shutting_down_millis?
                + self.final_sync_millis?
                + self.adapting_millis?
                + self.instantiating_millis?,
        )
    }
}

/// A cutover.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CutoverJob {
    /// Its job.
    pub id: JobId,
    /// Whose.
    pub migrating_vm: MigratingVmId,
    /// How far it has come.
    pub state: MoveState,
    /// Its steps, as far as they have begun.
    pub steps: Vec<MoveStep>,
    /// What it is doing, in a few words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_message: Option<String>,
    /// How far it has come, in hundredths of the time that its parts were likely to take by what was measured before; not
    /// told where one of them was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_percent: Option<u32>,
    /// What was asked.
    pub request: CreateCutover,
    /// The machine, once it has an id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Resource>,
    /// How long the machine was off: from the source's end to the target executing, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime_millis: Option<u64>,
    /// Whether its last upload is adapted.
    #[serde(default)]
    pub adapts: bool,
    /// Whether it can be cancelled no more.
    pub no_return: bool,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Status>,
    /// When it was asked for.
    pub create_time: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Timestamp>,
}

impl CutoverJob {
    /// The cutover that a job is; none if it is another job.
    pub fn of(job: &Job) -> Option<Self> {
        if job.kind != JobKind::CutOver {
            return None;
        }
        let JobSpec::CutOver(spec) = job.spec.read()? else {
            return None;
        };
        let name = |step: &str| match step {
            step::PREVIOUS_CYCLE => Some(MoveStepName::PreviousReplicationCycle),
            step::SHUTTING_DOWN_SOURCE => Some(MoveStepName::ShuttingDownSourceVm),
            step::FINAL_SYNC => Some(MoveStepName::FinalSync),
            step::ADAPTING_OS => Some(MoveStepName::AdaptingOs),
            step::PREPARING_VM_DISKS => Some(MoveStepName::PreparingVmDisks),
            step::INSTANTIATING => Some(MoveStepName::InstantiatingMigratedVm),
            _ => None,
        };
        let outcome = job.outcome.read().unwrap_or_default();
        Some(Self {
            id: job.id,
            migrating_vm: spec.migrating_vm,
            state: state_of(job),
            steps: steps_of(job, name),
            state_message: job.current_step().and_then(|step| step.message.clone()),
            progress_percent: percent(job, &spec.forecast),
            request: spec.request.clone(),
            target: job.resource(ResourceRole::Product, Noun::Vm).cloned(),
            downtime_millis: outcome.downtime_millis,
            adapts: spec.adapts,
            no_return: job.no_return,
            error: job.error.clone(),
            create_time: job.create_time,
            end_time: job.end_time,
        })
    }
}

/// How far a cutover has come: each part weighs as long as it was likely to take, and counts as far as it tells its bytes.
fn percent(job: &Job, forecast: &Forecast) -> Option<u32> {
    if job.state == JobState::Succeeded {
        return Some(100);
    }
    let all = forecast.downtime_millis().filter(|all| *all > 0)?;
    let weighs = |name: &str| match name {
        step::SHUTTING_DOWN_SOURCE => forecast.shutting_down_millis.unwrap_or(0),
        step::FINAL_SYNC => forecast.final_sync_millis.unwrap_or(0),
        step::ADAPTING_OS => forecast.adapting_millis.unwrap_or(0),
        step::INSTANTIATING => forecast.instantiating_millis.unwrap_or(0),
        _ => 0,
    };
    let come = |step: &Step| match (step.state, step.done_bytes, step.total_bytes) {
        (StepState::Done | StepState::Skipped, ..) => 1.0,
        (StepState::Running, Some(done), Some(total)) if total > 0 => done as f64 / total as f64,
        _ => 0.0,
    };
    let done: f64 = job
        .steps
        .iter()
        .map(|step| weighs(&step.name) as f64 * come(step))
        .sum();
    Some(((done / all as f64 * 100.0) as u32).min(99))
}
