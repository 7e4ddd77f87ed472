//! The offshoot server: its rooms. ARCHITECTURE.md says which speaks to which.

pub mod access;
pub mod cli;
pub mod config;
pub mod consoles;
pub mod copies;
pub mod db;
pub mod disks;
pub mod events;
pub mod fetch;
pub mod http;
pub mod hypervisor;
pub mod inventory;
pub mod jobs;
pub mod nbd;
pub mod notices;
pub mod oidc;
pub mod sources;
pub mod web;

/// Says which cryptography TLS is spoken with, for clients that are not told by themselves; saying it again is no change.
pub fn use_ring() {
    drop(tokio_rustls::rustls::crypto::ring::default_provider().install_default());
}
