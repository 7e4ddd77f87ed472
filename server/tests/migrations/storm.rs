//! Fifty machines that are carried over at once, for an hour of a clock that is set by hand, while steps and undos fail at random,
//! the target goes away, machines crash, cutovers are asked for and cancelled, and the server ends and starts again.

use super::*;
use crate::support::migrating::{is_as_its_snapshot, numbers};
use crate::support::{quiet, slate_without_layers};
use async_trait::async_trait;
use server::hypervisor::RunState;
use server::jobs::Hook;
use server::jobs::step::{Cx, StepError};
use shared::job::JobKind;
use shared::migrate::{CreateSource, LocalSource, MigratingVm};
use shared::target::VerifyTarget;
use shared::{JobId, VmId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How far the clock is set at once, in seconds.
const TICK: i64 = 20;
/// How long the machines have for what is due at a tick; what takes longer goes on in the next.
const FOR_A_TICK: Duration = Duration::from_millis(200);

/// Random numbers that are the same for the same seed, as long as they are asked for in the same order.
struct Dice(AtomicU64);

impl Dice {
    fn below(&self, n: u64) -> u64 {
        // SplitMix64.
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn percent(&self, n: u64) -> bool {
        self.below(100) < n
    }

    fn one_of<'a, T>(&self, all: &'a [T]) -> Option<&'a T> {
        let n = u64::try_from(all.len()).unwrap();
        (n > 0).then(|| &all[self.below(n) as usize])
    }
}

/// Has steps and undos of all kinds fail, while it blows.
struct Weather {
    dice: Dice,
    blows: AtomicBool,
    struck: Mutex<HashMap<(JobKind, String), usize>>,
    lasting: AtomicUsize,
}

impl Weather {
    fn strike(&self, cx: &Cx, step: &str) -> Result<(), StepError> {
        let kind = cx.job().kind;
        // What goes wrong with a machine that runs from a copy is waited for, and fails nothing.
        let spared = kind == JobKind::RestoreCopy && matches!(step, step::BRINGING_HOME | step::CLEANING_UP);
        if spared || !self.blows.load(Ordering::SeqCst) || !self.dice.percent(2) {
            return Ok(());
        }
        *self
            .struck
            .lock()
            .unwrap()
            .entry((kind, step.to_owned()))
            .or_default() += 1;
        if self.dice.percent(40) {
            return Err(StepError::transient(Code::Unavailable, "the wind"));
        }
        self.lasting.fetch_add(1, Ordering::SeqCst);
        Err(StepError::new(Code::Aborted, "the lightning"))
    }
}

#[async_trait]
impl Hook for Weather {
    async fn before(&self, cx: &Cx, step: &str) -> Result<(), StepError> {
        self.strike(cx, step)
    }
    async fn after(&self, cx: &Cx, step: &str) -> Result<(), StepError> {
        self.strike(cx, step)
    }
    async fn before_undo(&self, cx: &Cx, step: &str) -> Result<(), StepError> {
        self.strike(cx, step)
    }
    async fn after_undo(&self, cx: &Cx, step: &str) -> Result<(), StepError> {
        self.strike(cx, step)
    }
}

/// A cutover that was asked for.
struct Asked {
    job: JobId,
    vm: usize,
    /// How many ticks later it is cancelled.
    cancel: Option<u64>,
}

struct Storm {
    dir: support::Dir,
    clock: Clock,
    weather: Arc<Weather>,
    jobs: Jobs,
    sources: Vec<VmId>,
    /// Those that are off since they crashed, with the job that starts each again.
    crashed: HashMap<usize, Option<JobId>>,
    cutovers: Vec<Asked>,
    /// How many ticks the target is away for still.
    away: u64,
    restarts: usize,
    crashes: usize,
}

fn name(n: usize) -> String {
    format!("m{n:02}")
}

async fn start(dir: &Path, clock: &Clock, weather: &Arc<Weather>) -> Jobs {
    engine_of(dir, Machines::Simulated, Some(weather.clone()), |world| {
        world.clock = clock.clone()
    })
    .await
}

impl Storm {
    /// Machines that run and are about to be uploaded for the first time, in calm weather.
    async fn gathers(seed: u64, machines: usize) -> Self {
        let (dir, clock) = (dir(), Clock::stopped(at("2030-01-01T00:00:00Z")));
        let weather = Arc::new(Weather {
            dice: Dice(AtomicU64::new(seed)),
            blows: AtomicBool::new(false),
            struck: Mutex::default(),
            lasting: AtomicUsize::new(0),
        });
        let jobs = start(dir.path(), &clock, &weather).await;
        support::target(&jobs, "vault").await;
        let source = CreateSource {
            name: "here".parse().unwrap(),
            local: Some(LocalSource {}),
            disks: None,
            libvirt: None,
        };
        jobs.create_source(source).await.unwrap();
        for n in 0..machines {
            let made = create(&format!("web{n:02}"), true);
            jobs.create_vm(made, by()).await.unwrap();
        }
        quiet(&jobs).await;
        let mut sources = Vec::new();
        for n in 0..machines {
            let vm = format!("web{n:02}");
            sources.push(vm_id(&jobs, &vm).await);
            let mut request = carry(&name(n), &vm);
            request.policy.idle_seconds = 60 + u32::try_from(weather.dice.below(541)).unwrap();
            jobs.create_migrating_vm(request).await.unwrap();
        }
        let storm = Self {
            dir,
            clock,
            weather,
            jobs,
            sources,
            crashed: HashMap::new(),
            cutovers: Vec::new(),
            away: 0,
            restarts: 0,
            crashes: 0,
        };
        storm
            .when(|all| all.iter().all(|vm| vm.state == MigratingState::Ready))
            .await;
        for n in 0..machines {
            storm.jobs.start_migration(&name(n)).await.unwrap();
        }
        storm
    }

    fn dice(&self) -> &Dice {
        &self.weather.dice
    }

    async fn all(&self) -> Vec<MigratingVm> {
        let query = ListQuery {
            page_size: Some(1000),
            order_by: Some("name".into()),
            ..ListQuery::default()
        };
        let all = inventory::migrating_vms(self.jobs.world(), &query).await;
        all.unwrap().items
    }

    /// Waits until the migrations are as wanted.
    async fn when(&self, wanted: impl Fn(&[MigratingVm]) -> bool) -> Vec<MigratingVm> {
        let mut changes = self.jobs.world().db.subscribe();
        let wait = async {
            loop {
                let all = self.all().await;
                if wanted(&all) {
                    return all;
                }
                // Lagging behind is no loss: they are read again.
                drop(changes.recv().await);
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(all) => all,
            Err(_) => {
                let active = db::jobs::active(&self.jobs.world().db).await.unwrap();
                let active: Vec<_> = active.into_iter().map(|stored| stored.job).collect();
                panic!("they are not as wanted: {:#?}\n{active:#?}", self.all().await)
            }
        }
    }

    /// Waits until all that is due has come to its end or stands still, but not for longer than a tick is.
    async fn passes(&self) {
        let db = &self.jobs.world().db;
        let mut changes = db.subscribe();
        let calm = async {
            loop {
                let due = |vm: &MigratingVm| {
                    vm.state.cycles() && vm.next_time.is_some_and(|next| next <= self.clock.now())
                };
                let active = db::jobs::active(db).await.unwrap();
                if active.iter().all(|stored| stored.job.state == JobState::OnHold)
                    && !self.all().await.iter().any(due)
                {
                    return;
                }
                drop(changes.recv().await);
            }
        };
        drop(tokio::time::timeout(FOR_A_TICK, calm).await);
    }

    async fn is_over(&self, job: JobId) -> bool {
        let stored = db::jobs::by_id(&self.jobs.world().db, job).await.unwrap();
        stored.unwrap().job.state.is_final()
    }

    /// The cutover of this machine that is not over.
    async fn is_cut_over(&self, vm: usize) -> bool {
        for asked in self.cutovers.iter().filter(|asked| asked.vm == vm) {
            if !self.is_over(asked.job).await {
                return true;
            }
        }
        false
    }

    fn vault(&self, away: bool) {
        let (here, there) = (
            self.dir.path().join("vault.vault"),
            self.dir.path().join("elsewhere"),
        );
        let (from, to) = if away { (here, there) } else { (there, here) };
        std::fs::rename(from, to).unwrap();
    }

    async fn tick(&mut self) {
        self.clock.set(self.clock.now().plus_micros(TICK * 1_000_000));
        match self.away {
            0 if self.dice().percent(3) => {
                self.vault(true);
                self.away = 1 + self.dice().below(6);
            }
            0 => {}
            1 => {
                self.vault(false);
                self.away = 0;
            }
            _ => self.away -= 1,
        }
        if self.dice().percent(4) {
            self.starts_again().await;
        }
        self.turns_on().await;
        let all = self.all().await;
        self.crashes(&all).await;
        self.cuts_over(&all).await;
        self.meddles(&all).await;
        self.passes().await;
    }

    /// The server ends where it is, and another goes on.
    async fn starts_again(&mut self) {
        self.jobs.stop().await;
        self.jobs = start(self.dir.path(), &self.clock, &self.weather).await;
        self.restarts += 1;
    }

    /// Somebody starts what has crashed, until it runs.
    async fn turns_on(&mut self) {
        for (n, job) in self.crashed.clone() {
            let vm = self.sources[n];
            if let Some(job) = job
                && !self.is_over(job).await
            {
                continue;
            }
            if self.jobs.world().hypervisor.state(vm).await == RunState::Running {
                self.crashed.remove(&n);
            } else if let Ok(job) = self.jobs.power(vm, PowerAction::Start, by()).await {
                // It is refused until it is seen that it crashed.
                self.crashed.insert(n, Some(job.id));
            }
        }
    }

    /// A machine crashes that is not being cut over: what becomes of those the cutover has to answer for.
    async fn crashes(&mut self, all: &[MigratingVm]) {
        if !self.dice().percent(15) {
            return;
        }
        let n = self.dice().below(self.sources.len() as u64) as usize;
        if !all[n].state.cycles() || self.crashed.contains_key(&n) || self.is_cut_over(n).await {
            return;
        }
        let sim = self.jobs.world().hypervisor.as_sim().unwrap();
        if self.jobs.world().hypervisor.state(self.sources[n]).await == RunState::Running {
            sim.crash(self.sources[n]).unwrap();
            self.crashed.insert(n, None);
            self.crashes += 1;
        }
    }

    async fn cuts_over(&mut self, all: &[MigratingVm]) {
        let gone = all
            .iter()
            .filter(|vm| vm.state == MigratingState::Cutover)
            .count();
        if gone < self.sources.len() / 4 && self.dice().percent(25) {
            let n = self.dice().below(self.sources.len() as u64) as usize;
            // A person cuts over what runs.
            let runs = self.jobs.world().hypervisor.state(self.sources[n]).await == RunState::Running;
            if runs && !self.crashed.contains_key(&n) {
                let request = CreateCutover {
                    power_off_after_seconds: 5,
                    ..CreateCutover::default()
                };
                let cancel = self.dice().percent(40).then(|| self.dice().below(3));
                if let Ok(job) = self.jobs.cut_over(&name(n), request, by()).await {
                    let (job, vm) = (job.id, n);
                    self.cutovers.push(Asked { job, vm, cancel });
                }
            }
        }
        for asked in &mut self.cutovers {
            match &mut asked.cancel {
                Some(0) => {
                    // It may be over, or past its point of no return.
                    drop(self.jobs.cancel(asked.job).await);
                    asked.cancel = None;
                }
                Some(ticks) => *ticks -= 1,
                None => {}
            }
        }
    }

    /// People pause, resume, and ask for cycles; each is refused where it does not fit.
    async fn meddles(&self, all: &[MigratingVm]) {
        if let Some(vm) = self.dice().one_of(all) {
            let vm = vm.name.as_str();
            drop(match self.dice().below(10) {
                0 => self.jobs.pause_migration(vm).await,
                1 => self.jobs.cycle_now(vm).await,
                _ => return self.resumes(all).await,
            });
        }
    }

    async fn resumes(&self, all: &[MigratingVm]) {
        for vm in all.iter().filter(|vm| vm.state == MigratingState::Paused) {
            if self.dice().percent(20) {
                drop(self.jobs.resume_migration(vm.name.as_str()).await);
            }
        }
    }

    /// Waits until all that are not cut over wait for their next cycle, and are as wanted.
    async fn rest(&self, wanted: impl Fn(&MigratingVm) -> bool) -> Vec<MigratingVm> {
        let now = self.clock.now();
        let waits = |vm: &MigratingVm| {
            vm.state == MigratingState::Active
                && vm.current_cycle.is_none()
                && vm.next_time.is_some_and(|next| next > now)
        };
        self.when(|all| {
            all.iter()
                .all(|vm| vm.state == MigratingState::Cutover || (waits(vm) && wanted(vm)))
        })
        .await
    }

    /// The weather clears up, and whoever can goes on until each has had two cycles more.
    async fn clears_up(&mut self) -> Vec<MigratingVm> {
        self.weather.blows.store(false, Ordering::SeqCst);
        if self.away > 0 {
            self.vault(false);
            self.away = 0;
        }
        for _ in 0..2 {
            self.jobs.world().copies.wake();
            quiet(&self.jobs).await;
            while !self.crashed.is_empty() {
                self.turns_on().await;
                quiet(&self.jobs).await;
            }
            for vm in self.all().await {
                if vm.state == MigratingState::Paused {
                    self.jobs.resume_migration(vm.name.as_str()).await.unwrap();
                }
            }
            let before = self.rest(|_| true).await;
            self.clock.set(self.clock.now().plus_micros(600 * 1_000_000));
            self.rest(|vm| {
                let was = before.iter().find(|before| before.id == vm.id).unwrap();
                vm.failures == 0 && vm.cycles > was.cycles
            })
            .await;
        }
        quiet(&self.jobs).await;
        assert!(self.crashed.is_empty());
        self.all().await
    }

    /// No cycle is lost, no upload is broken, no machine is off that is to run, and nothing is left over.
    async fn is_as_it_should(&self, all: &[MigratingVm]) {
        let (jobs, world) = (&self.jobs, self.jobs.world());
        for (n, vm) in all.iter().enumerate() {
            assert_eq!(vm.name.as_str(), name(n));
            assert_eq!(
                numbers(jobs, vm.id).await,
                Vec::from_iter(1..=vm.cycles),
                "{vm:#?}"
            );
            is_as_its_snapshot(jobs, vm.last_copy.unwrap()).await;
            let kept = db::retention::uploads(&world.db, vm.id).await.unwrap();
            assert!((1..=3).contains(&kept.len()), "{kept:#?}");
            let over = vm.state == MigratingState::Cutover;
            let mut good = 0;
            for asked in self.cutovers.iter().filter(|asked| asked.vm == n) {
                let job = db::jobs::by_id(&world.db, asked.job).await.unwrap().unwrap().job;
                good += usize::from(job.state == JobState::Succeeded);
            }
            assert_eq!(good, usize::from(over), "{vm:#?}");
            let source = db::vms::by_id(&world.db, self.sources[n]).await.unwrap().unwrap();
            let runs = world.hypervisor.state(source.id).await;
            if over {
                assert_eq!(
                    (source.state, runs),
                    (VmState::Stopped, RunState::Stopped),
                    "{vm:#?}"
                );
                let target = vm_id(jobs, vm.name.as_str()).await;
                assert_eq!(vm.target_vm, Some(target));
                assert_eq!(
                    state_of(jobs, vm.name.as_str()).await,
                    VmState::Running,
                    "{vm:#?}"
                );
            } else {
                assert_eq!(
                    (source.state, runs),
                    (VmState::Running, RunState::Running),
                    "{vm:#?}"
                );
                // The one that the next cycle leans on.
                let snapshots = db::migrations::snapshots_for(&world.db, source.id, vm.target).await;
                assert_eq!(snapshots.unwrap().len(), 1, "{vm:#?}");
            }
        }
        let over = all
            .iter()
            .filter(|vm| vm.state == MigratingState::Cutover)
            .count();
        let machines = db::vms::ids(&world.db).await.unwrap().len();
        assert_eq!(
            machines,
            all.len() + over,
            "machines of cutovers that did not come to their end"
        );
        assert!(db::jobs::active(&world.db).await.unwrap().is_empty());
        assert!(db::locks::all(&world.db).await.unwrap().is_empty());
        slate_without_layers(jobs).await;
        let target = db::targets::known(&world.db, "vault").await.unwrap().target;
        let turns: Vec<_> = (0..target.at_once).map(|_| world.copies.turn(&target)).collect();
        assert!(turns.iter().all(Option::is_some), "a turn was not given back");
        drop(turns);
        let verify = jobs.verify_target(&target, VerifyTarget::default(), by()).await;
        let verified = ended(jobs, verify.unwrap().id).await;
        assert_eq!(verified.state, JobState::Succeeded, "{verified:#?}");
        let found = verified.outcome.vault.as_ref().unwrap();
        assert!(found.packs > 0);
        assert_eq!((found.damaged, found.hurt_copies), (0, 0), "{found:#?}");
    }

    /// What was cut over is finalized: nothing is left of it.
    async fn ends(&self, all: &[MigratingVm]) {
        for vm in all.iter().filter(|vm| vm.state == MigratingState::Cutover) {
            let request = FinalizeMigration::default();
            let job = self
                .jobs
                .finalize_migration(vm.name.as_str(), request, by())
                .await;
            let job = ended(&self.jobs, job.unwrap().id).await;
            assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
            let db = &self.jobs.world().db;
            let source: VmId = vm.source_vm.parse().unwrap();
            let left = db::migrations::snapshots_for(db, source, vm.target)
                .await
                .unwrap();
            assert!(left.is_empty(), "{left:?}");
            assert!(db::retention::uploads(db, vm.id).await.unwrap().is_empty());
        }
    }
}

/// So many machines for so many minutes of the clock; the seed repeats what the test itself does, not the order of threads.
async fn weathered(seed: u64, machines: usize, minutes: i64) {
    println!("seed {seed}: again with OFFSHOOT_SOAK_SEED={seed}");
    let mut storm = Storm::gathers(seed, machines).await;
    storm.weather.blows.store(true, Ordering::SeqCst);
    for _ in 0..minutes * 60 / TICK {
        storm.tick().await;
    }
    let all = storm.clears_up().await;
    let cycles: u64 = all.iter().map(|vm| vm.cycles).sum();
    let over = all
        .iter()
        .filter(|vm| vm.state == MigratingState::Cutover)
        .count();
    let struck: usize = storm.weather.struck.lock().unwrap().values().sum();
    println!(
        "{cycles} cycles, {} cutovers of which {over} came to their end, {struck} failures of which {} for good, {} crashes, {} restarts",
        storm.cutovers.len(),
        storm.weather.lasting.load(Ordering::SeqCst),
        storm.crashes,
        storm.restarts
    );
    storm.is_as_it_should(&all).await;
    storm.ends(&all).await;
    // Else it was no storm.
    assert!(struck > 0 && over > 0 && storm.crashes > 0 && storm.restarts > 0);
    assert!(cycles > machines as u64 * 4, "{cycles}");
    clean_up(&storm.jobs).await;
}

fn seed() -> u64 {
    let given = std::env::var("OFFSHOOT_SOAK_SEED").ok();
    given.map_or_else(
        || uuid::Uuid::new_v4().as_u64_pair().0,
        |seed| seed.parse().unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_machines_weather_an_hour_of_failures() {
    weathered(seed(), 50, 60).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long: make soak"]
async fn fifty_machines_weather_a_day_of_failures() {
    for n in 0..6 {
        weathered(seed().wrapping_add(n), 50, 240).await;
    }
}
