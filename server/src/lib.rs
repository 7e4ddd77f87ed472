//! The offshoot server: its rooms. ARCHITECTURE.md says which speaks to which.

pub mod access;
pub mod cli;
pub mod config;
pub mod db;
pub mod disks;
pub mod events;
pub mod http;
pub mod hypervisor;
pub mod inventory;
pub mod jobs;
