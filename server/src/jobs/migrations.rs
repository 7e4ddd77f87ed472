//! Migrations at work: machines that are to be carried over are looked at, and their cycles begin when they are due.
//!
//! What is due is only looked at, never counted: whatever was missed while no server ran, one cycle makes up for all of it.

mod change;

use super::{Asked, By, Jobs, changed, request_of};
use crate::db::migrations::become_;
use crate::db::{self, DbError, Tx};
use crate::sources::{Origin, Sources};
use shared::copy::CreateCopyTask;
use shared::feed::Noun;
use shared::job::{Job, JobState};
use shared::migrate::can::{Verb, can};
use shared::migrate::{CycleOf, MigratingState, MigratingVm};
use shared::{CopyId, MigratingVmId, Status, Timestamp};
use uuid::Uuid;

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
        let next = look(&jobs).await.unwrap_or_else(|e| {
            tracing::error!(error = %db::chain(&e), "look after the machines that are carried over");
            Some(clock.now().plus_micros(AGAIN_MICROS))
        });
        tokio::select! {
            () = clock.until_some(next) => {}
            () = changed(&mut changes, Noun::MigratingVm) => {}
            () = jobs.inner.stop.cancelled() => return,
        }
    }
}

/// Goes on with all of them; answers when there is something to do next.
async fn look(jobs: &Jobs) -> Result<Option<Timestamp>, DbError> {
    let mut next: Option<Timestamp> = None;
    for vm in db::migrations::open(&jobs.world().db).await? {
        let due = look_after(jobs, vm).await?;
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
    let now = jobs.world().clock.now();
    let expires = vm.expire_time.filter(|_| may_expire(vm.state));
    if expires.is_some_and(|expires| expires <= now) {
        let written = db.write(move |tx| {
            Box::pin(async move {
                let mut vm = db::migrations::known(tx.conn(), &vm.id.to_string()).await?;
                if may_expire(vm.state) {
                    become_(&mut vm, MigratingState::Expired, now);
                    vm.next_time = None;
                    db::migrations::save(tx, &vm).await?;
                }
                Ok(())
            })
        });
        written.await?;
        return Ok(None);
    }
    let due = vm.next_time.filter(|_| vm.state.cycles());
    match due {
        Some(due) if due <= now => {
            begin(jobs, &vm).await?;
            Ok(expires)
        }
        due => Ok(due.into_iter().chain(expires).min()),
    }
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
    let db = &jobs.world().db;
    let asked = match Sources::of(jobs.world()).of_migration(vm).await {
        Ok(source) => jobs.cycle(vm, &source, migration(vm)).await,
        Err(why) => Err(why),
    };
    let now = jobs.world().clock.now();
    let (id, was) = (vm.id.to_string(), vm.cycles);
    let begun = asked.as_ref().map(|job| job.id).ok();
    let written = db.write(move |tx| {
        Box::pin(async move {
            let mut vm = db::migrations::known(tx.conn(), &id).await?;
            // Paused, or begun by somebody else, since it was looked at.
            if !vm.state.cycles() || vm.current_cycle.is_some() || vm.cycles != was {
                if vm.cycles == was && asked.is_ok() {
                    // That number is taken: the next cycle is another job.
                    vm.cycles += 1;
                    db::migrations::save(tx, &vm).await?;
                }
                return Ok(false);
            }
            match asked {
                Ok(job) => {
                    (vm.current_cycle, vm.next_time) = (Some(job.id), None);
                    vm.cycles += 1;
                }
                Err(why) => failed(&mut vm, why, now),
            }
            db::migrations::save(tx, &vm).await?;
            Ok(true)
        })
    });
    let noted = written.await?;
    if let Some(job) = begun.filter(|_| !noted)
        && let Err(e) = jobs.cancel(job).await
    {
        tracing::info!(%job, error = %e, "a cycle that nobody waits for");
    }
    Ok(())
}

/// Notes that a cycle failed, and when it is tried again.
fn failed(vm: &mut MigratingVm, why: Status, now: Timestamp) {
    let idle = i64::from(vm.policy.idle_seconds) * 1_000_000;
    let doubled = BACK_OFF_MICROS << vm.failures.min(20);
    vm.failures += 1;
    vm.error = Some(why);
    vm.next_time = vm.state.cycles().then(|| now.plus_micros(doubled.min(idle)));
}

/// Notes how a cycle ended, once: whoever waits for it may do that.
pub(super) async fn cycle_is_over(
    tx: &mut Tx,
    id: &str,
    cycle: shared::JobId,
    job: Option<&Job>,
    now: Timestamp,
) -> Result<(), DbError> {
    let mut vm = db::migrations::known(tx.conn(), id).await?;
    if vm.current_cycle != Some(cycle) {
        return Ok(());
    }
    vm.current_cycle = None;
    let idle = i64::from(vm.policy.idle_seconds) * 1_000_000;
    match job {
        Some(job) if job.state == JobState::Succeeded => {
            let progress = job.outcome.copy.as_deref();
            vm.last_sync_time = progress.and_then(|p| p.snapshot_time).or(vm.last_sync_time);
            vm.last_copy = Some(CopyId(job.id.0));
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

impl Jobs {
    /// The job of the next cycle of a machine: asked twice it is one.
    pub(super) async fn cycle(&self, vm: &MigratingVm, source: &Origin, by: By) -> Result<Job, Status> {
        let number = vm.cycles + 1;
        let request = CreateCopyTask {
            target: vm.target.to_string(),
            snapshot: None,
            memory: false,
            quiesce: vm.policy.quiesce && !matches!(source, Origin::Exported(_)),
            boot: false,
            request_id: Some(request_of([vm.id.0, Uuid::from_u128(number.into())])),
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
