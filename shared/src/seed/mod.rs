//! Types of the APIs that this one is compatible with, in their own names.

pub mod clone_job;
pub mod copy_snapshot;
pub mod fault;
pub mod instant_clone;
mod json;
mod name;
pub mod target;

pub use clone_job::{CloneJob, CloneStep, Step, TargetVmDetails};
pub use copy_snapshot::{CopySnapshotTaskStatus, CopyStatus};
pub use name::{CloneJobName, CloneJobNameError};
