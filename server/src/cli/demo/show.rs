//! What the demo does, step by step, and what it has seen.

use super::copies::Copied;
use super::migrate::Migrated;
use super::tell;
use super::ticks::{Counted, Ticks};
use crate::cli::Failure;
use crate::cli::client::follow::{self, Progress};
use crate::cli::client::http::Client;
use crate::cli::client::job;
use crate::hypervisor::Hypervisor;
use serde_json::Value;
use shared::Name;
use shared::api::{
    GetCloneJob, GetImage, GetJob, GetSnapshot, GetVm, ListQuery, ListVms, MAX_PAGE_SIZE, PostCloneJob,
    PostInstantClone, PostSnapshot, PostVm, Reset, Resume, Start, Stop,
};
use shared::clone::{CloneMode, CloneTarget, CloneVm, DEFAULT_BOOT_TIMEOUT_SECONDS, ProofStrength};
use shared::feed::Noun;
use shared::fork::{ForkNics, ForkedClone, InstantClone};
use shared::job::{Job, JobState, ResourceRole};
use shared::snapshot::{Snapshot, TakeSnapshot};
use shared::vm::{
    CloudInit, CreateVm, DiskOfImage, Firmware, NewDisk, PauseReason, StopMode, StopVm, Vm, VmState,
};
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const SOURCE: &str = "demo-source";
const CLONE: &str = "demo-clone";
const FORK: &str = "demo-fork";
const IMAGE: &str = "demo";
/// The least that the demo guest is comfortable with.
const MEMORY_MIB: u32 = 128;
/// How long the source's guest may take until it counts.
pub(super) const BOOT: Duration = Duration::from_secs(DEFAULT_BOOT_TIMEOUT_SECONDS as u64);
/// The counter may stop no longer.
pub const LONGEST_GAP: Duration = Duration::from_millis(1000);

pub struct Show<'a> {
    pub(super) client: &'a Client,
    pub(super) hypervisor: Arc<dyn Hypervisor>,
    /// Whether the source is carried over in the end.
    pub migrates: bool,
    /// What was done, and how long it took.
    pub steps: Vec<(String, Duration)>,
    pub made_source: bool,
    pub counted: Option<Counted>,
    pub snapshot: Option<(Snapshot, Value)>,
    pub clone: Option<(Job, Value)>,
    /// The job of the instant clone, and the source's nonce at the time.
    pub fork: Option<(Job, Value, String)>,
    /// The copy of the snapshot.
    pub copied: Option<Copied>,
    /// The source, carried over.
    pub migrated: Option<Migrated>,
    since: Instant,
}

impl<'a> Show<'a> {
    /// With a server that runs; `start` is when the command began.
    pub fn new(client: &'a Client, hypervisor: Arc<dyn Hypervisor>, start: Instant, migrates: bool) -> Self {
        let mut show = Self {
            client,
            hypervisor,
            migrates,
            steps: Vec::new(),
            made_source: false,
            counted: None,
            snapshot: None,
            clone: None,
            fork: None,
            copied: None,
            migrated: None,
            since: start,
        };
        show.done("server ready");
        show
    }

    pub(super) fn done(&mut self, what: impl Into<String>) {
        self.steps.push((what.into(), self.since.elapsed()));
        self.since = Instant::now();
    }

    /// Follows a job to its end, and fails if it does.
    pub(super) async fn follow(&self, job: Job) -> Result<Job, Failure> {
        let job = self.end(job).await?;
        job::check(&job)?;
        Ok(job)
    }

    pub(super) async fn end(&self, job: Job) -> Result<Job, Failure> {
        let mut progress = Progress::new(std::io::stderr().is_terminal());
        Ok(follow::to_end(self.client, job, |job| progress.update(job)).await?)
    }

    /// All of it.
    pub async fn run(&mut self, data_dir: &Path) -> Result<(), Failure> {
        let source = self.source().await?;
        tell(format_args!(
            "waiting for the guest of {SOURCE} to boot and to count"
        ));
        let log = self.hypervisor.serial_log(source.id);
        let ticks = Ticks::follow(log.clone())
            .map_err(|e| format!("cannot follow the serial log {}: {e}", log.display()))?;
        tokio::time::timeout(BOOT, ticks.reach(1)).await.map_err(|_| {
            format!(
                "the guest of {SOURCE} has not counted within {} s; see `offshoot vm serial {SOURCE}`, or begin anew \
                 with make clean-data",
                BOOT.as_secs()
            )
        })?;
        self.done(if self.made_source {
            "source made and booted"
        } else {
            "source counts"
        });

        ticks.mark();
        let vm = source.id.to_string();
        let request = TakeSnapshot {
            description: "taken by the demo while the machine ran".into(),
            ..TakeSnapshot::default()
        };
        let job = self
            .client
            .call(&PostSnapshot {
                vm: vm.clone(),
                request,
            })
            .await?;
        let job = self.follow(job).await?;
        let taken = job.resource(ResourceRole::Product, Noun::Snapshot);
        let snapshot = taken
            .ok_or("the snapshot's job does not say what it made")?
            .id
            .clone();
        let get = GetSnapshot {
            vm: vm.clone(),
            snapshot: snapshot.clone(),
        };
        let text = self.client.text(&get).await?;
        self.snapshot = Some((serde_json::from_str(&text)?, serde_json::from_str(&text)?));
        self.done("snapshot");

        self.copy(&vm, &snapshot, data_dir).await?;

        let request = self.clone_of(snapshot).await?;
        let view = self.client.call(&PostCloneJob { vm, request }).await?;
        let id = view.offshoot.id.to_string();
        let job = self.client.call(&GetJob { id: id.clone() }).await?;
        let job = self.end(job).await?;
        let text = self.client.text(&GetCloneJob { id }).await?;
        self.clone = Some((job, serde_json::from_str(&text)?));
        self.done("clone");

        let request = InstantClone {
            name: Some(self.free_name(FORK).await?),
            network_interfaces: Some(ForkNics::Keep),
            config: [("guestinfo.role".to_owned(), "demo".to_owned())].into(),
            ..InstantClone::default()
        };
        let vm = source.id.to_string();
        let job = self.client.call(&PostInstantClone { vm, request }).await?;
        let id = job.id.to_string();
        let job = self.end(job).await?;
        self.counted = Some(ticks.counted());
        let text = self.client.text(&GetJob { id }).await?;
        self.fork = Some((job, serde_json::from_str(&text)?, ticks.nonce()));
        self.done("instant clone");

        if self.migrates {
            self.migrate().await?;
        }
        Ok(())
    }

    /// The source, running: the one that is there, or a new one.
    async fn source(&mut self) -> Result<Vm, Failure> {
        let vm = SOURCE.to_owned();
        if self.client.find(&GetVm { vm: vm.clone() }).await?.is_none() {
            let image = IMAGE.to_owned();
            if self.client.find(&GetImage { image }).await?.is_none() {
                return Err(
                    "there is no image `demo` yet: give --image demo=PATH; `make demo` builds one".into(),
                );
            }
            let job = self
                .client
                .call(&PostVm {
                    request: new_source()?,
                })
                .await?;
            self.follow(job).await?;
            self.made_source = true;
        }
        loop {
            let source = self.client.call(&GetVm { vm: vm.clone() }).await?;
            if let Some(lock) = &source.locked_by {
                let id = lock.job.to_string();
                let job = self.client.call(&GetJob { id }).await?;
                self.end(job).await?;
                continue;
            }
            let (vm, off) = (
                vm.clone(),
                StopVm {
                    mode: StopMode::PowerOff,
                    power_off_after_seconds: None,
                },
            );
            let job = match (source.state, source.pause_reason) {
                (VmState::Running, _) => return Ok(source),
                (VmState::Stopped | VmState::Error, _) => self.client.call(&Start { vm }).await?,
                (VmState::Paused, Some(PauseReason::GuestPanicked)) => {
                    self.client.call(&Reset { vm }).await?
                }
                (VmState::Paused, _) => self.client.call(&Resume { vm }).await?,
                (VmState::Starting | VmState::Stopping, _) => {
                    self.client.call(&Stop { vm, request: off }).await?
                }
            };
            tell(format_args!(
                "{SOURCE} is there, {}",
                source.state.word().to_lowercase()
            ));
            self.follow(job).await?;
        }
    }

    /// `stem`, or with the first number behind it that no machine has.
    pub(super) async fn free_name(&self, stem: &str) -> Result<Name, Failure> {
        self.free_beside(stem, &[]).await
    }

    /// As [`Self::free_name`], and none of these either.
    pub(super) async fn free_beside(&self, stem: &str, others: &[Name]) -> Result<Name, Failure> {
        let query = ListQuery {
            page_size: Some(MAX_PAGE_SIZE),
            filter: Some(format!("name:{stem}")),
            ..ListQuery::default()
        };
        let taken = self.client.call(&ListVms { query }).await?.vms;
        let taken = taken.iter().map(|vm| &vm.name).chain(others);
        let mut name = stem.to_owned();
        let mut n = 2;
        while taken.clone().any(|there| there.as_str() == name) {
            name = format!("{stem}-{n}");
            n += 1;
        }
        Ok(name.parse()?)
    }

    async fn clone_of(&self, snapshot: String) -> Result<CloneVm, Failure> {
        let name = Some(self.free_name(CLONE).await?);
        Ok(CloneVm {
            clone_job_id: None,
            snapshot: Some(snapshot),
            snapshot_now: None,
            mode: CloneMode::Linked,
            target: Some(CloneTarget {
                name,
                // A hostname of its own, to be seen in its ticks.
                cloud_init: Some(CloudInit::default()),
                start: true,
                boot_timeout_seconds: DEFAULT_BOOT_TIMEOUT_SECONDS,
                ..CloneTarget::default()
            }),
            disks_only: None,
            request_id: None,
        })
    }

    /// How long the clone took to boot, if it was seen to.
    pub fn boot(&self) -> Option<Duration> {
        let (job, _) = self.clone.as_ref()?;
        let proof = job.outcome.proof.as_ref()?;
        let booted = matches!(proof.strength, ProofStrength::Agent | ProofStrength::Serial);
        booted.then(|| Duration::from_millis(proof.boot_millis.unwrap_or_default()))
    }

    /// What is known of the instant clone.
    pub fn forked(&self) -> Option<&ForkedClone> {
        let (job, _, _) = self.fork.as_ref()?;
        job.outcome.fork.as_ref()?.clones.first()
    }

    /// Fails with what did not hold.
    pub fn held(&self) -> Result<(), Failure> {
        let (Some((job, _)), Some(counted), Some((fork, _, nonce))) =
            (&self.clone, &self.counted, &self.fork)
        else {
            return Err("the demo did not come to its end".into());
        };
        job::check(job)?;
        job::check(fork)?;
        let mut wrong: Vec<String> = self.copied.as_ref().and_then(Copied::wrong).into_iter().collect();
        wrong.extend(self.migrated.as_ref().and_then(Migrated::wrong));
        if self
            .forked()
            .is_none_or(|clone| clone.nonce.as_ref() != Some(nonce))
        {
            wrong.push(
                "the instant clone does not go on where the source was: it has not its nonce".to_owned(),
            );
        }
        if job.state == JobState::Succeeded && self.boot().is_none() {
            wrong.push("the clone was not seen to boot".to_owned());
        }
        if counted.longest > LONGEST_GAP {
            let (gap, most) = (counted.longest.as_millis(), LONGEST_GAP.as_millis());
            wrong.push(format!(
                "the source's counter stopped for {gap} ms: more than {most}"
            ));
        }
        if counted.rebooted {
            wrong.push("the source was booted anew".into());
        }
        if counted.holes > 0 {
            wrong.push(format!("the source's counter left {} numbers out", counted.holes));
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(wrong.join("; ").into())
        }
    }
}

fn new_source() -> Result<CreateVm, Failure> {
    Ok(CreateVm {
        name: SOURCE.parse()?,
        cpus: 1,
        memory_mib: MEMORY_MIB,
        firmware: Firmware::Bios,
        disks: vec![NewDisk::Image(DiskOfImage {
            image: IMAGE.into(),
            size_gib: None,
        })],
        network_interfaces: None,
        labels: Default::default(),
        // A hostname of its own, to be seen in its ticks.
        cloud_init: Some(CloudInit::default()),
        start: true,
        description: String::new(),
        autostart: None,
        storage: None,
        request_id: None,
    })
}
