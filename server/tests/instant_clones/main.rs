//! Instant clones with guests that really run: what becomes of them, of their source, and of the instants that are kept.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod killed;
mod lives;
mod many;
mod refused;

use server::db;
use server::jobs::Jobs;
use server::jobs::world::Machines;
use shared::VmId;
use shared::fork::{ForkNics, ForkedClone, Identity, InstantClone};
use shared::job::JobState;
use shared::vm::PowerAction;
use std::path::Path;
use std::time::{Duration, Instant};
use support::by;
use support::counting::{QEMU, counting, counts, long_run, off_and_gone, succeeded, ticks, until, whole};

fn named(names: &[&str]) -> InstantClone {
    InstantClone {
        names: names.iter().map(|n| n.parse().unwrap()).collect(),
        network_interfaces: Some(ForkNics::Keep),
        ..InstantClone::default()
    }
}

async fn forked(jobs: &Jobs, vm: VmId, request: InstantClone) -> Vec<ForkedClone> {
    let job = jobs.instant_clone(vm, request, by()).await.unwrap();
    let job = succeeded(jobs, job.id).await;
    let proof = job.outcome.fork.unwrap();
    for clone in &proof.clones {
        assert_eq!(clone.identity, Some(Identity::Hook), "{proof:#?}");
        assert!(clone.memory_later.unwrap().shared_bytes > 1 << 20, "{proof:#?}");
    }
    proof.clones
}
