//! Real machines: QEMU, its disks, and the demo guest.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bare;
mod bridged;
mod fork;
mod guest;
mod host;
mod layers;
mod merged;
#[path = "../snapshots/monitor.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod monitor;
