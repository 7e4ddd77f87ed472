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
use shared::fork::{ForkNics, ForkedClone, Identity, InstantClone};
use shared::job::{Job, JobState};
use shared::vm::{DiskOfImage, NewDisk, PowerAction};
use shared::{JobId, VmId};
use std::path::Path;
use std::time::{Duration, Instant};
use support::{by, create, ended, engine, guest, vm_id};

const QEMU: Machines = Machines::Real(None);
async fn succeeded(jobs: &Jobs, id: JobId) -> Job {
    let job = ended(jobs, id).await;
    assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
    job
}

/// Nonce, number and the host's name.
type Tick = (String, u64, String);

/// Nonce and number of each whole tick that the serial port has, with the host's name.
fn ticks(jobs: &Jobs, vm: VmId) -> Vec<Tick> {
    let log = std::fs::read(jobs.world().hypervisor.serial_log(vm)).unwrap_or_default();
    let pattern = regex::Regex::new(r"^offshoot-guest nonce=(\w{16}) tick=(\d+) host=(\S+)\r$").unwrap();
    let log = String::from_utf8_lossy(&log);
    let of = |line: &str| {
        let found = pattern.captures(line)?;
        Some((
            found[1].to_owned(),
            found[2].parse().unwrap(),
            found[3].to_owned(),
        ))
    };
    log.split('\n').filter_map(of).collect()
}

/// Waits until a machine's ticks are as wanted.
async fn until(jobs: &Jobs, vm: VmId, wanted: impl Fn(&[Tick]) -> bool) -> Vec<Tick> {
    let begin = Instant::now();
    loop {
        let all = ticks(jobs, vm);
        if wanted(&all) {
            return all;
        }
        assert!(
            begin.elapsed() < support::PATIENCE,
            "{vm} counts otherwise: {all:?}"
        );
        // The log is a file that QEMU writes: nothing tells of it here.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until a machine has ticked so often.
async fn counts(jobs: &Jobs, vm: VmId, least: usize) -> Vec<Tick> {
    until(jobs, vm, |all| all.len() >= least).await
}

/// A machine whose guest counts.
async fn counting(dir: &Path) -> (Jobs, VmId) {
    let jobs = engine(dir, QEMU, None).await;
    let image = "counting".parse().unwrap();
    jobs.world().register_image(&image, &guest("demo")).await.unwrap();
    let mut request = create("source", true);
    request.disks = vec![NewDisk::Image(DiskOfImage {
        image: "counting".into(),
        size_gib: None,
    })];
    request.cloud_init = Some(Default::default());
    let made = jobs.create_vm(request, by()).await.unwrap();
    succeeded(&jobs, made.id).await;
    let source = vm_id(&jobs, "source").await;
    counts(&jobs, source, 5).await;
    (jobs, source)
}

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

async fn off_and_gone(jobs: &Jobs, vm: VmId) {
    let off = jobs.power(vm, PowerAction::PowerOff, by()).await.unwrap();
    succeeded(jobs, off.id).await;
    let gone = jobs.delete_vm(vm, by()).await.unwrap();
    succeeded(jobs, gone.id).await;
}

/// No tick is missing, and all are of one boot.
fn whole(all: &[Tick]) {
    for pair in all.windows(2) {
        assert_eq!((&pair[1].0, pair[1].1), (&pair[0].0, pair[0].1 + 1), "{all:?}");
    }
}

/// Far more in the soak.
fn long_run(most: usize, few: usize) -> usize {
    if std::env::var_os("OFFSHOOT_SOAK_SEED").is_some() {
        most
    } else {
        few
    }
}
