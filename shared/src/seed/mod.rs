//! Types of the APIs that this one is compatible with, in their own names.

pub mod clone_job;
mod json;
mod name;
pub mod target;

pub use clone_job::{CloneJob, CloneStep, Step, TargetVmDetails};
pub use name::{CloneJobName, CloneJobNameError};
