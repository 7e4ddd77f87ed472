//! Guests that really run, and count: what they say tells one that went on from one that booted anew.

use super::{by, create, ended, engine, guest, vm_id};
use server::jobs::Jobs;
use server::jobs::world::Machines;
use shared::job::{Job, JobState};
use shared::vm::{DiskOfImage, NewDisk, PowerAction};
use shared::{JobId, VmId};
use std::path::Path;
use std::time::{Duration, Instant};

pub const QEMU: Machines = Machines::Real(None);
pub async fn succeeded(jobs: &Jobs, id: JobId) -> Job {
    let job = ended(jobs, id).await;
    assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
    job
}

/// Nonce, number and the host's name.
pub type Tick = (String, u64, String);

/// Nonce and number of each whole tick that the serial port has, with the host's name.
pub fn ticks(jobs: &Jobs, vm: VmId) -> Vec<Tick> {
    let log = std::fs::read(jobs.world().hypervisor.serial_log(vm)).unwrap_or_default();
    // The shell on the same line may have its own carriage returns added.
    let pattern = regex::Regex::new(r"^offshoot-guest nonce=(\w{16}) tick=(\d+) host=(\S+)\r+$").unwrap();
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
pub async fn until(jobs: &Jobs, vm: VmId, wanted: impl Fn(&[Tick]) -> bool) -> Vec<Tick> {
    let begin = Instant::now();
    loop {
        let all = ticks(jobs, vm);
        if wanted(&all) {
            return all;
        }
        if begin.elapsed() > super::PATIENCE {
            let hypervisor = &jobs.world().hypervisor;
            let log = std::fs::read(hypervisor.serial_log(vm)).unwrap_or_default();
            let end = String::from_utf8_lossy(&log[log.len().saturating_sub(2000)..]).into_owned();
            let state = hypervisor.state(vm).await;
            panic!("{vm} ({state:?}) counts otherwise: {all:?}; its serial line ends: {end}");
        }
        // The log is a file that QEMU writes: nothing tells of it here.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until a machine has ticked so often.
pub async fn counts(jobs: &Jobs, vm: VmId, least: usize) -> Vec<Tick> {
    until(jobs, vm, |all| all.len() >= least).await
}

/// A machine whose guest counts.
pub async fn counting(dir: &Path) -> (Jobs, VmId) {
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

/// Waits until its agent answers: it has booted, or goes on.
pub async fn answers(jobs: &Jobs, vm: VmId) {
    let expect = server::hypervisor::BootExpectation {
        pattern: None,
        timeout: super::PATIENCE,
    };
    let proof = jobs.world().hypervisor.watch_boot(vm, &expect, &|_| ()).await;
    assert_eq!(proof.unwrap().strength, shared::clone::ProofStrength::Agent);
}

pub async fn off_and_gone(jobs: &Jobs, vm: VmId) {
    let off = jobs.power(vm, PowerAction::PowerOff, by()).await.unwrap();
    succeeded(jobs, off.id).await;
    let gone = jobs.delete_vm(vm, by()).await.unwrap();
    succeeded(jobs, gone.id).await;
}

/// No tick is missing, and all are of one boot.
pub fn whole(all: &[Tick]) {
    for pair in all.windows(2) {
        assert_eq!((&pair[1].0, pair[1].1), (&pair[0].0, pair[0].1 + 1), "{all:?}");
    }
}

/// Far more in the soak.
pub fn long_run(most: usize, few: usize) -> usize {
    if std::env::var_os("OFFSHOOT_SOAK_SEED").is_some() {
        most
    } else {
        few
    }
}
