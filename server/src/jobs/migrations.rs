//! Migrations at work: machines that are to be carried over are looked at, and their cycles begin when they are due.
//!
//! What is due is only looked at, never counted: whatever was missed while no server ran, one cycle makes up for all of it.

mod change;
mod groups;

use super::{Asked, By, Jobs, changed};
use crate::db::migrations::become_;
use crate::db::{self, DbError, Tx};
use crate::sources::{Origin, Sources};
use shared::copy::CreateCopyTask;
use shared::feed::Noun;
use shared::job::{Job, JobSpec, JobState, step};
use shared::migrate::adapt::{AdaptSpec, AdaptedUpload, LastAdaptation};
use shared::migrate::can::{Verb, can};
use shared::migrate::{CycleOf, MigratingState, MigratingVm};
use shared::{CopyId, JobId, MigratingVmId, Name, Status, Timestamp};

/// How long after the database has failed it is asked again, in microseconds.
const AGAIN_MICROS: i64 = 60 * 1_000_000;
/// How long after its first failure a cycle is tried again, in microseconds: each failure doubles it.
const BACK_OFF_MICROS: i64 = 30 * 1_000_000;

/// Who asks for cycles.
fn migration(vm: &MigratingVm) -> By {
    By(format!("migration {}", vm.name))
}

/// Goes on with what is carried over: at the start, when it has changed, and when a cycle is due.
pub(super) async fn run(jobs: Jobs) {
    let clock = jobs.world().clock.clone();
    let mut changes = jobs.world().db.subscribe();
    loop {
        let seen = clock.now();
        let next = look(&jobs).await.unwrap_or_else(|e| {
            tracing::error!(error = %db::chain(&e), "look after the machines that are carried over");
            Some(clock.now().plus_micros(AGAIN_MICROS))
        });
        tokio::select! {
            () = clock.until_or_set_back(next, seen) => {}
            () = changed(&mut changes, Noun::MigratingVm) => {}
            () = jobs.inner.stop.cancelled() => return,
        }
    }
}

/// Goes on with all of them; answers when there is something to do next.
async fn look(jobs: &Jobs) -> Result<Option<Timestamp>, DbError> {
    let mut next: Option<Timestamp> = None;
    for vm in db::migrations::open(&jobs.world().db).await? {
        let name = vm.name.clone();
        let due = look_after(jobs, vm).await.unwrap_or_else(|e| {
            // The others are looked after all the same.
            tracing::error!(migration = %name, error = %db::chain(&e), "look after a machine that is carried over");
            Some(jobs.world().clock.now().plus_micros(AGAIN_MICROS))
        });
        next = next.into_iter().chain(due).min();
    }
    Ok(next)
}

/// Goes on with one; answers when there is something to do next.
async fn look_after(jobs: &Jobs, vm: MigratingVm) -> Result<Option<Timestamp>, DbError> {
    let db = &jobs.world().db;
    if vm.state == MigratingState::Pending {
        let found = Sources::of(jobs.world()).of_migration(&vm).await;
        let now = jobs.world().clock.now();
        let written = db.write(move |tx| Box::pin(async move { looked_at(tx, &vm, found, now).await }));
        written.await?;
        return Ok(None);
    }
    if let Some(id) = vm.current_cycle {
        let job = db::jobs::by_id(db, id).await?.map(|stored| stored.job);
        match job {
            Some(job) if !job.state.is_final() => {}
            job => {
                let now = jobs.world().clock.now();
                let written = db.write(move |tx| {
                    Box::pin(
                        async move { cycle_is_over(tx, &vm.id.to_string(), id, job.as_ref(), now).await },
                    )
                });
                written.await?;
            }
        }
        // What comes next is seen when that is over: it changes the row.
        return Ok(None);
    }
    if look_after_adaptation(jobs, &vm).await? {
        return Ok(None);
    }
    let now = jobs.world().clock.now();
    let expires = vm.expire_time.filter(|_| may_expire(vm.state));
    if expires.is_some_and(|expires| expires <= now) {
        let written = db.write(move |tx| {
            Box::pin(async move {
                let mut vm = db::migrations::known(tx.conn(), &vm.id.to_string()).await?;
                if may_expire(vm.state) {
                    become_(&mut vm, MigratingState::Expired, now);
                    db::migrations::save(tx, &vm).await?;
                }
                Ok(())
            })
        });
        written.await?;
        return Ok(None);
    }
    let due = vm.next_time.filter(|_| vm.state.cycles());
    let most = now.plus_micros(idle_micros(&vm));
    if due.is_some_and(|due| due > most) {
        // The clock was set back: nobody waits for longer than the rest is.
        let id = vm.id;
        let written = db.write(move |tx| {
            Box::pin(async move {
                let mut vm = db::migrations::known(tx.conn(), &id.to_string()).await?;
                vm.next_time = vm.next_time.map(|next| next.min(most));
                db::migrations::save(tx, &vm).await
            })
        });
        written.await?;
        return Ok(None);
    }
    match due {
        Some(due) if due <= now => {
            begin(jobs, &vm).await?;
            Ok(expires)
        }
        due => Ok(due.into_iter().chain(expires).min()),
    }
}

/// Goes on with the adaptation of its last upload; whether that has changed something, so that it is looked at again.
async fn look_after_adaptation(jobs: &Jobs, vm: &MigratingVm) -> Result<bool, DbError> {
    let db = &jobs.world().db;
    let id = vm.id.to_string();
    if let Some(last) = vm.adaptation.as_ref().filter(|last| !last.over) {
        let Some(of) = last.job else { return Ok(false) };
        let job = db::jobs::by_id(db, of).await?.map(|stored| stored.job);
        if job.as_ref().is_some_and(|job| !job.state.is_final()) {
            return Ok(false);
        }
        let written =
            db.write(move |tx| Box::pin(async move { adaptation_is_over(tx, &id, of, job.as_ref()).await }));
        written.await?;
        return Ok(true);
    }
    let begun = vm.adaptation.as_ref().map(|last| last.upload);
    let upload = vm.last_copy.filter(|upload| begun != Some(*upload));
    let idle = matches!(vm.state, MigratingState::Active | MigratingState::Paused);
    let Some(upload) = upload.filter(|_| vm.adapts && idle) else {
        return Ok(false);
    };
    let Err(e) = jobs.adapt(vm, upload, migration(vm)).await else {
        return Ok(true);
    };
    let begun = vm.adaptation.clone();
    let why = LastAdaptation {
        job: None,
        upload,
        over: true,
        error: Some(e),
    };
    let written = db.write(move |tx| {
        Box::pin(async move {
            let mut vm = db::migrations::known(tx.conn(), &id).await?;
            // Begun by somebody else since it was looked at.
            if vm.adaptation == begun {
                vm.adaptation = Some(why);
                db::migrations::save(tx, &vm).await?;
            }
            Ok(())
        })
    });
    written.await?;
    Ok(true)
}

/// Notes that an upload is being adapted, with the job that does it: one at a time.
pub(super) async fn adapting(tx: &mut Tx, of: &AdaptSpec, job: JobId) -> Result<(), DbError> {
    let mut vm = db::migrations::known(tx.conn(), &of.migrating_vm.to_string()).await?;
    if vm.is_adapted_now() {
        let message = format!("an upload of {} is being adapted already", vm.name);
        return Err(Status::precondition(message).into());
    }
    vm.adaptation = Some(LastAdaptation {
        job: Some(job),
        upload: of.upload,
        over: false,
        error: None,
    });
    db::migrations::save(tx, &vm).await
}

/// Notes how an adaptation ended, once: whoever waits for it may do that.
pub(super) async fn adaptation_is_over(
    tx: &mut Tx,
    id: &str,
    of: JobId,
    job: Option<&Job>,
) -> Result<(), DbError> {
    let mut vm = db::migrations::known(tx.conn(), id).await?;
    let Some(last) = vm
        .adaptation
        .as_mut()
        .filter(|last| last.job == Some(of) && !last.over)
    else {
        return Ok(());
    };
    last.over = true;
    match job {
        Some(job) if job.state == JobState::Succeeded => {
            let upload = last.upload;
            let copy = CopyId(job.id.0);
            vm.adapted = Some(AdaptedUpload { upload, copy });
        }
        job => {
            let why = job.and_then(|job| job.error.clone());
            let cancelled = || Status::new(shared::Code::Cancelled, "it was cancelled");
            last.error = Some(why.unwrap_or_else(cancelled));
        }
    }
    db::migrations::save(tx, &vm).await
}

const fn may_expire(state: MigratingState) -> bool {
    use MigratingState::{Active, FirstSync, Paused, Ready};
    matches!(state, Ready | FirstSync | Active | Paused)
}

/// Notes what a look at a machine has found that is to be carried over.
async fn looked_at(
    tx: &mut Tx,
    vm: &MigratingVm,
    found: Result<Origin, Status>,
    now: Timestamp,
) -> Result<(), DbError> {
    let mut vm = db::migrations::known(tx.conn(), &vm.id.to_string()).await?;
    if vm.state != MigratingState::Pending {
        return Ok(());
    }
    match found {
        Ok(source) => {
            vm.source_vm_name = source.name();
            vm.error = None;
            become_(&mut vm, MigratingState::Ready, now);
        }
        Err(why) => {
            vm.error = Some(why);
            become_(&mut vm, MigratingState::Error, now);
        }
    }
    db::migrations::save(tx, &vm).await
}

/// Begins a cycle.
async fn begin(jobs: &Jobs, vm: &MigratingVm) -> Result<(), DbError> {
    let asked = match Sources::of(jobs.world()).of_migration(vm).await {
        Ok(source) => jobs.cycle(vm, &source, migration(vm)).await,
        Err(why) => Err(why),
    };
    let Err(why) = asked else { return Ok(()) };
    let now = jobs.world().clock.now();
    let (id, was) = (vm.id.to_string(), vm.cycles);
    let written = jobs.world().db.write(move |tx| {
        Box::pin(async move {
            let mut vm = db::migrations::known(tx.conn(), &id).await?;
            // Paused, or begun by somebody else, since it was looked at.
            if vm.state.cycles() && vm.current_cycle.is_none() && vm.cycles == was {
                failed(&mut vm, why, now);
                db::migrations::save(tx, &vm).await?;
            }
            Ok(())
        })
    });
    written.await
}

/// Notes that a cycle begins, with the job that it is: neither is there without the other.
pub(super) async fn begun(tx: &mut Tx, of: &CycleOf, job: JobId) -> Result<(), DbError> {
    let mut vm = db::migrations::known(tx.conn(), &of.migrating_vm.to_string()).await?;
    let its_turn = vm.state.cycles() || vm.state == MigratingState::FinalSync;
    if !its_turn || vm.current_cycle.is_some() || vm.cycles + 1 != of.number {
        let message = format!(
            "cycle {} of {} cannot begin now: ask the migration for a cycle",
            of.number, vm.name
        );
        return Err(Status::precondition(message).into());
    }
    (vm.current_cycle, vm.next_time) = (Some(job), None);
    vm.cycles = of.number;
    db::migrations::save(tx, &vm).await
}

fn idle_micros(vm: &MigratingVm) -> i64 {
    i64::from(vm.policy.idle_seconds) * 1_000_000
}

/// Notes that a cycle failed, and when it is tried again.
fn failed(vm: &mut MigratingVm, why: Status, now: Timestamp) {
    let doubled = BACK_OFF_MICROS << vm.failures.min(20);
    vm.failures += 1;
    vm.error = Some(why);
    vm.next_time = vm
        .state
        .cycles()
        .then(|| now.plus_micros(doubled.min(idle_micros(vm))));
}

/// How much of what had changed a cycle read in a second.
fn rate(job: &Job) -> Option<u64> {
    let copying = job.steps.iter().find(|s| s.name == step::COPYING)?;
    let micros = copying.end_time?.since(copying.start_time?);
    let done = job.outcome.read()?.copy?.figures.read_bytes;
    (micros > 0).then(|| (done as f64 * 1e6 / micros as f64) as u64)
}

/// Notes how a cycle ended, once: whoever waits for it may do that.
pub(super) async fn cycle_is_over(
    tx: &mut Tx,
    id: &str,
    cycle: JobId,
    job: Option<&Job>,
    now: Timestamp,
) -> Result<(), DbError> {
    let mut vm = db::migrations::known(tx.conn(), id).await?;
    if vm.current_cycle != Some(cycle) {
        return Ok(());
    }
    vm.current_cycle = None;
    let idle = idle_micros(&vm);
    match job {
        Some(job) if job.state == JobState::Succeeded => {
            let progress = job.outcome.copy.as_deref();
            vm.last_sync_time = progress.and_then(|p| p.snapshot_time).or(vm.last_sync_time);
            vm.last_copy = Some(CopyId(job.id.0));
            vm.last_rate_bps = rate(job).or(vm.last_rate_bps);
            (vm.failures, vm.error) = (0, None);
            if vm.state == MigratingState::FirstSync {
                become_(&mut vm, MigratingState::Active, now);
            }
            vm.next_time = vm.state.cycles().then(|| now.plus_micros(idle));
        }
        Some(job) if job.state == JobState::Cancelled => {
            vm.next_time = vm.state.cycles().then(|| now.plus_micros(idle));
        }
        Some(job) => {
            let why = job.error.clone();
            let why = why.unwrap_or_else(|| Status::new(shared::Code::Unknown, "it failed"));
            failed(&mut vm, why, now);
        }
        None => {
            let why = Status::new(shared::Code::Unknown, "its job is gone");
            failed(&mut vm, why, now);
        }
    }
    db::migrations::save(tx, &vm).await
}

/// Whether the last steps may be asked for now; one at a time.
pub(super) async fn check(tx: &mut Tx, id: MigratingVmId, verb: Verb) -> Result<(), DbError> {
    let vm = db::migrations::known(tx.conn(), &id.to_string()).await?;
    can(verb, &vm)?;
    match db::migrations::at_work(tx.conn(), id).await?.first() {
        Some(job) => {
            let message = format!("job {job} is at work on {}: wait until it is over", vm.name);
            Err(Status::precondition(message).into())
        }
        None => Ok(()),
    }
}

/// Whether a group may be cut over now; one job at a time.
pub(super) async fn check_group(tx: &mut Tx, group: &Name) -> Result<(), DbError> {
    let Some(id) = db::migrations::group_cutover(tx.conn(), group).await? else {
        return Ok(());
    };
    match db::jobs::get(tx.conn(), id).await? {
        Some(stored) if !stored.job.state.is_final() => {
            let message = format!("job {id} cuts {group} over already: wait until it is over");
            Err(Status::precondition(message).into())
        }
        _ => Ok(()),
    }
}

impl Jobs {
    /// What it is to adapt an upload.
    fn adaptation(&self, vm: &MigratingVm, upload: CopyId) -> AdaptSpec {
        AdaptSpec {
            migrating_vm: vm.id,
            name: vm.name.clone(),
            target: vm.target,
            upload,
            wanted: vm.target_defaults.wanted(),
            check: false,
        }
    }

    /// Adapts an upload.
    pub(super) async fn adapt(&self, vm: &MigratingVm, upload: CopyId, by: By) -> Result<Job, Status> {
        let spec = self.adaptation(vm, upload);
        self.submit(JobSpec::AdaptCopy(spec), None, None, by).await
    }

    /// Begins the next cycle of a machine.
    pub(super) async fn cycle(&self, vm: &MigratingVm, source: &Origin, by: By) -> Result<Job, Status> {
        let number = vm.cycles + 1;
        let request = CreateCopyTask {
            target: vm.target.to_string(),
            snapshot: None,
            memory: false,
            quiesce: vm.policy.quiesce && !matches!(source, Origin::Exported(_)),
            boot: false,
            request_id: None,
        };
        let asked = Asked {
            migration: Some(CycleOf {
                migrating_vm: vm.id,
                number,
            }),
            ..Asked::default()
        };
        match source {
            Origin::Local(source) => self.copy_snapshot(source, request, asked, by).await,
            Origin::Exported(_) | Origin::Libvirt(_) => self.copy_outside(vm, request, asked, by).await,
        }
    }
}
