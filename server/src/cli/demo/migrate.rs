//! The source is carried over to the demo's vault: cycles while it runs, a test clone, a cutover, and the end.

use super::copies::TARGET;
use super::show::{BOOT, SOURCE, Show};
use super::tell;
use super::ticks::Ticks;
use crate::cli::Failure;
use crate::cli::client::feed::Feed;
use crate::cli::client::http::Socket;
use crate::cli::client::table::{bytes, millis};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use shared::api::{
    CycleNow, DeleteMigratingVm, GetInventory, GetJob, GetMigratingVm, GetVm, ListCutovers, ListCycles,
    ListJobs, ListMigratingVms, ListMigrationClones, ListQuery, ListSources, MAX_PAGE_SIZE, PauseMigration,
    PostCutover, PostFinalize, PostJudgement, PostMigratingVm, PostMigrationClone, PostSource,
    StartMigration, encode,
};
use shared::feed::Noun;
use shared::job::{Job, ResourceRole};
use shared::migrate::views::{CutoverJob, MigrationClone, MoveStepName, ReplicationCycle};
use shared::migrate::{
    CloneVerdict, CreateCutover, CreateMigratingVm, CreateMigrationClone, CreateSource, CyclePolicy,
    CycleState, FinalizeMigration, JudgeClone, LocalSource, MigratingState, MigratingVm, TargetDefaults,
};
use shared::vm::VmState;
use shared::{JobId, Name, VmId};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

/// Name of the source, where there is none yet.
const HERE: &str = "here";
/// What the source becomes, and the name of its migration.
const MIGRATED: &str = "demo-migrated";
const REHEARSAL: &str = "demo-rehearsal";
/// After how many hours the test clone is put up for removal.
const KEEP_HOURS: u32 = 24;
/// How much the guest writes between two cycles, in MiB.
const WRITTEN_MIB: u64 = 4;
/// Where it writes what the cutover alone can bring along.
const WORD: &str = "/root/demo-word";
/// How long a migration may take to become what it is to be, where no job is followed.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long after silence of the feed it is asked for again.
const AGAIN: Duration = Duration::from_secs(1);

/// What became of the source.
pub struct Migrated {
    /// The migration at its end.
    pub vm: MigratingVm,
    cycles: Vec<ReplicationCycle>,
    clones: Vec<MigrationClone>,
    cutovers: Vec<CutoverJob>,
    /// The same as the API told it: the migration, and with it what is below it.
    pub as_told: Value,
    /// How the source's machine is afterwards.
    source: VmState,
}

/// How long a test clone took to run from when it was asked for, in milliseconds.
fn ran_after(clone: &MigrationClone) -> Option<u64> {
    let wanted = MoveStepName::InstantiatingMigratedVm;
    let step = clone.steps.iter().find(|step| step.name == wanted)?;
    u64::try_from(step.end_time?.since(clone.create_time) / 1000).ok()
}

impl Migrated {
    fn downtime(&self) -> Option<u64> {
        self.cutovers.first()?.downtime_millis
    }

    /// What did not hold.
    pub fn wrong(&self) -> Option<String> {
        let good = |cycle: &&ReplicationCycle| cycle.state == CycleState::Succeeded;
        let second = self.cycles.iter().filter(good).find(|cycle| cycle.number == 2);
        if self.vm.state != MigratingState::Finalized {
            return Some(format!("the migration ended {}", self.vm.state));
        }
        if second.is_none_or(|cycle| cycle.changed_bytes < WRITTEN_MIB << 20) {
            return Some("the second cycle has not brought what the guest had written".into());
        }
        if self.clones.first().and_then(ran_after).is_none() {
            return Some("the test clone was not seen to run".into());
        }
        if self.downtime().is_none() {
            return Some("the cutover does not say how long nothing ran".into());
        }
        (self.source != VmState::Stopped).then(|| format!("{SOURCE} is {} after its cutover", self.source))
    }

    /// For people, a line each.
    pub fn report(&self) -> Vec<String> {
        let mut lines = Vec::new();
        // They come newest first.
        for cycle in self.cycles.iter().rev() {
            lines.push(format!(
                "Cycle {} found {} changed, and stored {}.",
                cycle.number,
                bytes(cycle.changed_bytes),
                bytes(cycle.stored_bytes)
            ));
        }
        let ms = |ms: Option<u64>| ms.map_or_else(|| "?".to_owned(), millis);
        for clone in &self.clones {
            let name = clone.target.as_ref().map(|vm| vm.name.to_string());
            lines.push(format!(
                "The test clone ran {} after it was asked for, isolated and from the upload: {}, {}.",
                ms(ran_after(clone)),
                name.unwrap_or_default(),
                clone.judged.verdict.map_or("not judged", CloneVerdict::word)
            ));
        }
        lines.push(format!(
            "The cutover took {}, from the end of {SOURCE} to {} executing, with what the guest had written last.",
            ms(self.downtime()),
            self.vm.name
        ));
        lines
    }
}

/// Listens to a serial line until it has said this.
async fn heard(line: &mut Socket, wanted: &str) -> Result<(), Failure> {
    let mut said = Vec::new();
    while let Some(message) = line.next().await.transpose()? {
        if let Message::Binary(bytes) = message {
            said.extend_from_slice(&bytes);
            if said.windows(wanted.len()).any(|part| part == wanted.as_bytes()) {
                return Ok(());
            }
        }
    }
    Err("the server has closed the serial line".into())
}

/// Lists of a migration are short: all of them.
fn all() -> ListQuery {
    ListQuery {
        page_size: Some(MAX_PAGE_SIZE),
        ..ListQuery::default()
    }
}

impl Show<'_> {
    /// The machines of this server as a source: the one that is there, or a new one.
    async fn here(&self) -> Result<String, Failure> {
        let sources = self.client.call(&ListSources { query: all() }).await?.sources;
        if let Some(here) = sources.iter().find(|source| source.place.local.is_some()) {
            return Ok(here.id.to_string());
        }
        let request = CreateSource {
            name: HERE.parse()?,
            local: Some(LocalSource::default()),
            disks: None,
            libvirt: None,
        };
        Ok(self.client.call(&PostSource { request }).await?.id.to_string())
    }

    /// Takes off the books what an earlier demo has left in the middle.
    async fn clear(&self, source: &str) -> Result<(), Failure> {
        let source = source.to_owned();
        let there = self.client.call(&GetInventory { source }).await?.vms;
        let left = there
            .iter()
            .find(|vm| vm.name == SOURCE)
            .and_then(|vm| vm.migrating_vm);
        let Some(left) = left else { return Ok(()) };
        let vm = left.to_string();
        let mut now = self.client.call(&GetMigratingVm { vm: vm.clone() }).await?;
        if let (true, Some(job)) = (now.state.is_busy(), now.cutover_job) {
            self.end(self.job(job).await?).await?;
            now = self.until(&vm, |vm| !vm.state.is_busy()).await?;
        }
        if now.state.cycles() {
            self.client.call(&PauseMigration { vm: vm.clone() }).await?;
        }
        Ok(self.client.call(&DeleteMigratingVm { vm }).await?)
    }

    async fn job(&self, id: JobId) -> Result<Job, Failure> {
        let id = id.to_string();
        Ok(self.client.call(&GetJob { id }).await?)
    }

    /// Waits until a migration is so, and fails if it never will be.
    async fn until(&self, vm: &str, fits: impl Fn(&MigratingVm) -> bool) -> Result<MigratingVm, Failure> {
        let get = GetMigratingVm { vm: vm.to_owned() };
        let start = Instant::now();
        loop {
            let now = self.client.call(&get).await?;
            if fits(&now) {
                return Ok(now);
            }
            let why = now.error.as_ref().map(|why| format!(": {}", why.message));
            if now.state == MigratingState::Error || start.elapsed() > PATIENCE {
                let why = why.unwrap_or_default();
                return Err(format!("the migration {} stays {}{why}", now.name, now.state).into());
            }
            let mut feed = Feed::open(self.client, now.generation).await?;
            let told = async {
                while let Some(event) = feed.next().await {
                    if event.name == Noun::MigratingVm.word() {
                        return;
                    }
                }
                // The link is lost: it is asked for a little later.
                std::future::pending().await
            };
            _ = timeout(AGAIN, told).await;
        }
    }

    /// Follows the cycle that was asked for to its end.
    async fn cycle(&self, vm: &str, before: &MigratingVm) -> Result<MigratingVm, Failure> {
        let new = |vm: &MigratingVm| vm.last_copy != before.last_copy;
        let begun = self.until(vm, |vm| vm.current_cycle.is_some() || new(vm)).await?;
        if let Some(job) = begun.current_cycle {
            self.follow(self.job(job).await?).await?;
        }
        self.until(vm, |vm| new(vm) && vm.current_cycle.is_none()).await
    }

    /// Types a command into the shell on a machine's serial line, and waits for what it says.
    async fn types(&self, vm: &str, command: &str, says: &str) -> Result<(), Failure> {
        let path = format!("/api/v1/vms/{}/console?last=0", encode(vm));
        let mut line = self.client.socket(&path).await?;
        let talk = async {
            // The first key wakes the shell.
            for (typed, said) in [("\r".to_owned(), "# "), (format!("{command}\r"), says)] {
                let typed = Message::Binary(typed.into_bytes().into());
                line.send(typed).await?;
                heard(&mut line, said).await?;
            }
            Ok::<_, Failure>(())
        };
        let late = |_| format!("the shell on the serial line of {vm} has not answered `{command}`");
        timeout(BOOT, talk).await.map_err(late)?
    }

    /// Waits until the guest of a machine counts.
    async fn counts(&self, vm: VmId, name: &Name) -> Result<(), Failure> {
        let log = self.hypervisor.serial_log(vm);
        let ticks = Ticks::follow(log.clone());
        let ticks = ticks.map_err(|e| format!("cannot follow the serial log {}: {e}", log.display()))?;
        let late = |_| format!("the guest of {name} has not counted within {} s", BOOT.as_secs());
        Ok(timeout(BOOT, ticks.reach(1)).await.map_err(late)?)
    }

    /// A test clone of what was uploaded, which is seen to boot before anything is said of it.
    async fn rehearse(&self, vm: &str) -> Result<(), Failure> {
        let request = CreateMigrationClone {
            target: TargetDefaults {
                name: Some(self.free_name(REHEARSAL).await?),
                ..TargetDefaults::default()
            },
            keep_hours: Some(KEEP_HOURS),
            ..CreateMigrationClone::default()
        };
        let vm = vm.to_owned();
        let call = PostMigrationClone {
            vm: vm.clone(),
            request,
        };
        let clone = self.client.call(&call).await?;
        let job = self.follow(self.job(clone.id).await?).await?;
        let made = job.resource(ResourceRole::Product, Noun::Vm);
        let made = made.ok_or("the test clone's job does not say what it made")?;
        self.counts(made.id.parse()?, &made.name).await?;
        let request = JudgeClone {
            verdict: CloneVerdict::Passed,
            note: "the demo has seen it boot and count".into(),
        };
        let clone = clone.id.to_string();
        self.client.call(&PostJudgement { vm, clone, request }).await?;
        Ok(())
    }

    /// The last step: what the guest has written just before has to be there afterwards.
    async fn cut_over(&self, vm: &str) -> Result<VmId, Failure> {
        let word = uuid::Uuid::new_v4().simple().to_string();
        // What is echoed of the command is not what it says.
        let write = format!("echo {word} > {WORD}; echo writ''ten");
        self.types(SOURCE, &write, "written").await?;
        let (asked, request) = (vm.to_owned(), CreateCutover::default());
        let cutover = self.client.call(&PostCutover { vm: asked, request }).await?;
        self.follow(self.job(cutover.id).await?).await?;
        let now = self.until(vm, |vm| vm.state == MigratingState::Cutover).await?;
        let made = now
            .target_vm
            .ok_or("the migration does not say what the machine has become")?;
        self.counts(made, &now.name).await?;
        self.types(&made.to_string(), &format!("cat {WORD}"), &word)
            .await?;
        Ok(made)
    }

    /// Waits until the disks of the new machine are here: it runs from the upload until then, and that is not removed.
    async fn home(&self, made: VmId) -> Result<(), Failure> {
        let query = ListQuery {
            filter: Some(format!("product={made}")),
            ..all()
        };
        let jobs = self.client.call(&ListJobs { query }).await?.jobs;
        for job in jobs.into_iter().filter(|job| !job.state.is_final()) {
            self.follow(job).await?;
        }
        Ok(())
    }

    /// Carries the source over.
    pub async fn migrate(&mut self) -> Result<(), Failure> {
        let source = self.here().await?;
        self.clear(&source).await?;
        let others = self.client.call(&ListMigratingVms { query: all() }).await?;
        let others: Vec<_> = others.migrating_vms.into_iter().map(|vm| vm.name).collect();
        let name = self.free_beside(MIGRATED, &others).await?;
        tell(format_args!(
            "carrying {SOURCE} over to {TARGET}, to become {name}"
        ));
        let request = CreateMigratingVm {
            name,
            source,
            source_vm: SOURCE.into(),
            target: TARGET.into(),
            target_defaults: TargetDefaults::default(),
            policy: CyclePolicy::default(),
            group: None,
            wave: 1,
        };
        let vm = self
            .client
            .call(&PostMigratingVm { request })
            .await?
            .id
            .to_string();
        let ready = self.until(&vm, |vm| vm.state == MigratingState::Ready).await?;
        self.client.call(&StartMigration { vm: vm.clone() }).await?;
        let first = self.cycle(&vm, &ready).await?;
        self.done("first cycle");

        let write =
            format!("dd if=/dev/urandom of=/root/demo-data bs=1M count={WRITTEN_MIB}; sync; echo writ''ten");
        self.types(SOURCE, &write, "written").await?;
        self.client.call(&CycleNow { vm: vm.clone() }).await?;
        self.cycle(&vm, &first).await?;
        self.done("second cycle");

        self.rehearse(&vm).await?;
        self.done("test clone");

        let made = self.cut_over(&vm).await?;
        self.done("cutover");

        self.home(made).await?;
        self.done("disks at home");

        let request = FinalizeMigration::default();
        let call = PostFinalize {
            vm: vm.clone(),
            request,
        };
        let job = self.client.call(&call).await?;
        self.follow(job).await?;
        self.until(&vm, |vm| vm.state == MigratingState::Finalized)
            .await?;
        self.done("finalized");
        self.migrated = Some(self.told(vm).await?);
        Ok(())
    }

    /// The migration as the API tells it.
    async fn told(&self, vm: String) -> Result<Migrated, Failure> {
        let text = self.client.text(&GetMigratingVm { vm: vm.clone() }).await?;
        let (of, query) = (vm.clone(), all());
        let cycles = self
            .client
            .call(&ListCycles { vm: of, query })
            .await?
            .replication_cycles;
        let (of, query) = (vm.clone(), all());
        let clones = self
            .client
            .call(&ListMigrationClones { vm: of, query })
            .await?
            .clone_jobs;
        let query = all();
        let cutovers = self.client.call(&ListCutovers { vm, query }).await?.cutover_jobs;
        let mut as_told: Value = serde_json::from_str(&text)?;
        as_told["replicationCycles"] = json!(cycles);
        as_told["cloneJobs"] = json!(clones);
        as_told["cutoverJobs"] = json!(cutovers);
        let source = self.client.call(&GetVm { vm: SOURCE.into() }).await?.state;
        Ok(Migrated {
            vm: serde_json::from_str(&text)?,
            cycles,
            clones,
            cutovers,
            as_told,
            source,
        })
    }
}
