//! google.cloud.vmmigration's CloneJob, in v1 and, where the documents name it, v1alpha1.

use super::json::{Field, Scalar, message, numbered};
use super::name::CloneJobName;
use super::target::{ComputeEngineDisksTargetDetails, ComputeEngineTargetDetails, TargetVmDetailsAlpha};
use crate::{Status, Timestamp};
use serde::{Deserialize, Deserializer, de};

message! {
    /// The making of a clone of a VM, from its latest successful snapshot.
    ///
    /// It answers for its work, not for its product: once it has ended, it never touches what it made.
    CloneJob {
        /// The name of the clone job.
        name "name": Option<CloneJobName>,
        /// When the job was asked for, not when the target was made.
        create_time "createTime": Option<Timestamp>,
        /// The state; none is STATE_UNSPECIFIED (0), which is read and never written.
        state "state": Option<State>,
        /// When the state last changed.
        state_time "stateTime": Option<Timestamp>,
        /// When the job ended.
        end_time "endTime": Option<Timestamp>,
        /// The error that led to the state.
        error "error": Option<Status>,
        /// The steps, which are its progress.
        steps "steps": Vec<CloneStep>,
    }
    /// The target: one of the four.
    oneof target_vm_details: TargetVmDetails {
        /// A VM.
        compute_engine_target_details "computeEngineTargetDetails":
            ComputeEngineTargetDetails(Box<ComputeEngineTargetDetails>),
        /// Disks, and perhaps a VM that they are attached to.
        compute_engine_disks_target_details "computeEngineDisksTargetDetails":
            ComputeEngineDisksTargetDetails(ComputeEngineDisksTargetDetails),
        /// A VM, as v1alpha1 had it.
        compute_engine_vm_details "computeEngineVmDetails": ComputeEngineVmDetails(Box<TargetVmDetailsAlpha>),
        /// A VM, as v1alpha1 had it first.
        target_details "targetDetails": TargetDetails(Box<TargetVmDetailsAlpha>),
    }
}

message! {
    /// A step of a clone job.
    CloneStep {
        /// When the step began.
        start_time "startTime": Option<Timestamp>,
        /// When the step ended; none while it runs.
        end_time "endTime": Option<Timestamp>,
    }
    /// What the step does.
    oneof step: Step {
        /// The OS is adapted.
        adapting_os "adaptingOs": AdaptingOs(AdaptingOsStep),
        /// The disks of the VM are prepared.
        preparing_vm_disks "preparingVmDisks": PreparingVmDisks(PreparingVmDisksStep),
        /// The VM is made and started.
        instantiating_migrated_vm "instantiatingMigratedVm": InstantiatingMigratedVm(InstantiatingMigratedVmStep),
    }
}

message! {
    /// AdaptingOSStep: no fields.
    AdaptingOsStep {}
}

message! {
    /// PreparingVMDisksStep: no fields.
    PreparingVmDisksStep {}
}

message! {
    /// InstantiatingMigratedVMStep: no fields.
    InstantiatingMigratedVmStep {}
}

numbered! {
    /// The states of a clone job. STATE_UNSPECIFIED (0) is none of them, so that nobody can write it.
    State {
        /// Not yet started.
        Pending = 1, "PENDING";
        /// At work.
        Active = 2, "ACTIVE";
        /// Ended with an error.
        Failed = 3, "FAILED";
        /// Ended well.
        Succeeded = 4, "SUCCEEDED";
        /// Ended by cancellation.
        Cancelled = 5, "CANCELLED";
        /// Being cancelled.
        Cancelling = 6, "CANCELLING";
        /// At work on the OS of the clone.
        AdaptingOs = 7, "ADAPTING_OS";
    }
}

impl State {
    /// Whether a job in this state has ended.
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Failed | Self::Succeeded | Self::Cancelled)
    }

    fn known<E: de::Error>(scalar: &Scalar) -> Result<Self, E> {
        Self::find(scalar).ok_or_else(|| E::custom(format_args!("{scalar} is not a state of a clone job")))
    }
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::known(&Scalar::deserialize(d)?)
    }
}

impl Field for Option<State> {
    fn read<'de, D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let scalar = Scalar::deserialize(d)?;
        if scalar.is(0, "STATE_UNSPECIFIED") {
            Ok(None)
        } else {
            State::known(&scalar).map(Some)
        }
    }
}

/// What a clone job is told from. There is no end time: a job ends when it enters a state that is an end.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The name.
    pub name: CloneJobName,
    /// When the job was asked for.
    pub create_time: Timestamp,
    /// The state.
    pub state: State,
    /// When the job entered the state.
    pub state_time: Timestamp,
    /// The error: a must for FAILED, and not for SUCCEEDED.
    pub error: Option<Status>,
    /// The steps that have begun.
    pub steps: Vec<CloneStep>,
    /// The target.
    pub target: TargetVmDetails,
}

/// Why parts do not make a clone job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartsError {
    /// FAILED must say why.
    #[error("clone job {0} is FAILED and has no error")]
    NoError(CloneJobName),
    /// SUCCEEDED has nothing to excuse.
    #[error("clone job {0} is SUCCEEDED and has an error")]
    HasError(CloneJobName),
}

impl CloneJob {
    /// The job that the parts tell of. Once it has ended, it has an end time, and so have all its steps.
    pub fn from_parts(parts: Parts) -> Result<Self, PartsError> {
        let Parts {
            name,
            create_time,
            state,
            state_time,
            error,
            mut steps,
            target,
        } = parts;
        match (state, &error) {
            (State::Failed, None) => return Err(PartsError::NoError(name)),
            (State::Succeeded, Some(_)) => return Err(PartsError::HasError(name)),
            _ => {}
        }
        let end_time = state.has_ended().then_some(state_time);
        for step in &mut steps {
            step.end_time = step.end_time.or(end_time);
        }
        Ok(Self {
            name: Some(name),
            create_time: Some(create_time),
            state: Some(state),
            state_time: Some(state_time),
            end_time,
            error,
            steps,
            target_vm_details: Some(target),
        })
    }
}
