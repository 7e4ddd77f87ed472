//! Copies of snapshots.

pub mod files;
