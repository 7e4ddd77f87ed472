//! Durable jobs: the queue, the runner, and the way back in after the process has died.
//!
//! `kinds/` has one file for each kind of job. `observe` writes down what machines do by themselves.

mod autostart;
mod away;
mod check;
pub mod clock;
pub mod images;
pub mod kinds;
mod migrations;
pub mod observe;
mod policies;
pub mod queue;
mod resolve;
mod runner;
pub mod spares;
pub mod step;
mod submit;
pub mod world;

use crate::db::locks::LockMode;
use crate::db::{self, Change, DbError, Tx, now};
use async_trait::async_trait;
use queue::{Entry, Limits, Queue};
use shared::feed::Noun;
use shared::job::{Job, JobState};
use shared::{JobId, Status, Timestamp, VmId, can};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use step::{Cx, StepError};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use submit::NotBegun;
pub use submit::{Asked, By};
pub use world::World;

/// How long a claim holds without a heartbeat.
const LEASE: Duration = Duration::from_secs(30);
/// How often claims are prolonged.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What tests put around steps: to repeat them, to make them fail, to stop the process there.
#[async_trait]
pub trait Hook: Send + Sync {
    /// How often each step runs, and each undo.
    fn times(&self) -> usize {
        1
    }
    /// Before a step runs.
    async fn before(&self, _cx: &Cx, _step: &str) -> Result<(), StepError> {
        Ok(())
    }
    /// After a step ran well.
    async fn after(&self, _cx: &Cx, _step: &str) -> Result<(), StepError> {
        Ok(())
    }
    /// Before a step is undone.
    async fn before_undo(&self, _cx: &Cx, _step: &str) -> Result<(), StepError> {
        Ok(())
    }
    /// After a step was undone.
    async fn after_undo(&self, _cx: &Cx, _step: &str) -> Result<(), StepError> {
        Ok(())
    }
}

/// What a person may do to a job that runs.
#[derive(Clone)]
struct Control {
    cancel: CancellationToken,
    /// Who has it stand still.
    held: watch::Sender<Option<String>>,
}

pub(crate) struct Inner {
    world: World,
    queue: Mutex<Queue>,
    controls: Mutex<HashMap<JobId, Control>>,
    wake: Notify,
    tasks: TaskTracker,
    stop: CancellationToken,
    owner: Uuid,
    hook: Option<Arc<dyn Hook>>,
    receiving: images::Receiving,
}

impl Inner {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it is held; if it did, the queue is still whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn controls(&self) -> MutexGuard<'_, HashMap<JobId, Control>> {
        self.controls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lease_end(&self) -> Timestamp {
        now().plus_micros(LEASE.as_micros() as i64)
    }
}

/// The job engine.
#[derive(Clone)]
pub struct Jobs {
    inner: Arc<Inner>,
}

impl Jobs {
    /// Starts the engine: adopts the machines that run, takes up every job that is not over, and goes on from there.
    /// The caller holds the data directory's lock, so that no other server can be at work on it.
    pub async fn start(world: World, limits: Limits, hook: Option<Arc<dyn Hook>>) -> Result<Self, DbError> {
        let inner = Arc::new(Inner {
            world,
            queue: Mutex::new(Queue::new(limits)),
            controls: Mutex::default(),
            wake: Notify::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            owner: Uuid::new_v4(),
            hook,
            receiving: images::Receiving::default(),
        });
        let events = inner.world.hypervisor.events();
        let known = db::vms::ids(&inner.world.db).await?.into_iter().collect();
        if let Err(e) = inner.world.hypervisor.end_unasked(&known).await {
            tracing::warn!(error = %db::chain(&e), "end processes that an earlier server kept ready");
        }
        if let Err(e) = inner.world.copies.end_stale_files().await {
            tracing::warn!(error = %db::chain(&e), "end what an earlier server looked at files with");
        }
        let shown = db::layers::copies(&inner.world.db).await?;
        let shown: Vec<_> = shown.into_iter().map(|(_, of)| of).collect();
        // Before any machine is started that reads them.
        inner.world.copies.show_again(&shown).await;
        observe::adopt(&inner.world).await?;
        inner
            .world
            .db
            .write(|tx| Box::pin(db::jobs::end_leases(tx)))
            .await?;
        for (vm, job, mode) in db::locks::all(&inner.world.db).await? {
            inner.queue().hold(vm, job, mode);
        }
        let unfinished = db::jobs::active(&inner.world.db).await?;
        if !unfinished.is_empty() {
            tracing::info!(
                jobs = unfinished.len(),
                "going on with the jobs that were not over"
            );
        }
        // Those that had begun come first: they hold locks that others wait for.
        let (begun, fresh): (Vec<_>, Vec<_>) = unfinished
            .into_iter()
            .partition(|s| s.job.state != JobState::Queued);
        // What a person has held before it began stays out of the line until it is released.
        let stays = |s: &&db::jobs::Stored| {
            s.job.state == JobState::OnHold && s.job.start_time.is_none() && s.held_by.is_some()
        };
        for stored in begun.iter().chain(&fresh).filter(|s| !stays(s)) {
            inner.queue().push(entry(&stored.job));
        }
        inner.tasks.spawn(observe::watch(inner.clone(), events));
        inner.tasks.spawn(dispatch(inner.clone()));
        inner.tasks.spawn(heartbeat(inner.clone()));
        inner.tasks.spawn(images::sweep(inner.clone()));
        let jobs = Self { inner };
        jobs.inner.tasks.spawn(autostart::run(jobs.clone()));
        jobs.inner.tasks.spawn(policies::run(jobs.clone()));
        jobs.inner.tasks.spawn(migrations::run(jobs.clone()));
        jobs.inner.tasks.spawn(away::run(jobs.clone()));
        Ok(jobs)
    }

    /// What the engine works with.
    pub fn world(&self) -> &World {
        &self.inner.world
    }

    /// Stops the engine: steps are left where they are, and the next start goes on with them.
    pub async fn stop(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        self.world().spares.close().await;
        self.world().copies.end_files().await;
        self.world().copies.let_be();
    }

    /// Asks to cancel a job; answers it as it is then.
    pub async fn cancel(&self, id: JobId) -> Result<Job, Status> {
        self.cancel_where(id, can::can_cancel).await
    }

    /// Cancels a job that another has asked for, which is undone itself.
    async fn cancel_part(&self, id: JobId) -> Result<Job, Status> {
        self.cancel_where(id, can::can_stop).await
    }

    async fn cancel_where(&self, id: JobId, may: fn(&Job) -> can::Verdict) -> Result<Job, Status> {
        // Out of the queue it can no longer begin; what has begun sees the token.
        let waited = self.inner.queue().remove(id);
        let done = self
            .inner
            .world
            .db
            .write(move |tx| {
                Box::pin(async move {
                    let Some(mut stored) = db::jobs::get(tx.conn(), id).await? else {
                        return Err(Status::not_found("job", id).into());
                    };
                    may(&stored.job)?;
                    db::jobs::request_cancel(tx, id).await?;
                    if waited && stored.job.start_time.is_none() {
                        let job = &mut stored.job;
                        job.state = JobState::Cancelled;
                        job.state_time = now();
                        job.end_time = Some(job.state_time);
                        db::jobs::save(tx, job, &stored.data).await?;
                    }
                    Ok(db::jobs::get(tx.conn(), id).await?.map_or(stored.job, |s| s.job))
                })
            })
            .await;
        let over = matches!(&done, Ok(job) if job.state.is_final());
        if waited && !over {
            // It has begun before (and waited for its turn to go on), or could not be cancelled: back in line.
            self.back_in_line(id).await?;
        }
        let job = done?;
        if let Some(control) = self.inner.controls().get(&id) {
            control.cancel.cancel();
        }
        Ok(job)
    }

    /// Has a job stand still until it is released; answers it as it is then.
    pub async fn hold(&self, id: JobId, By(by): By) -> Result<Job, Status> {
        let waited = self.inner.queue().remove(id);
        let name = by.clone();
        let done = self.inner.world.db.write(move |tx| {
            Box::pin(async move {
                let Some(mut stored) = db::jobs::get(tx.conn(), id).await? else {
                    return Err(Status::not_found("job", id).into());
                };
                can::can_hold(&stored.job)?;
                db::jobs::set_held(tx, id, Some(&by)).await?;
                // One that has begun stands still where it is: it sees the control.
                if waited && stored.job.start_time.is_none() {
                    let job = &mut stored.job;
                    job.state = JobState::OnHold;
                    job.hold_reason = Some(held_by(&by));
                    job.state_time = now();
                    db::jobs::save(tx, job, &stored.data).await?;
                }
                Ok(db::jobs::get(tx.conn(), id).await?.map_or(stored.job, |s| s.job))
            })
        });
        let done = done.await;
        let stands = matches!(&done, Ok(job) if job.state == JobState::OnHold);
        if waited && !stands {
            self.back_in_line(id).await?;
        }
        let job = done?;
        if let Some(control) = self.inner.controls().get(&id) {
            control.held.send_replace(Some(name));
        }
        Ok(job)
    }

    /// Lets a job go on that stands still; one that waits for something looks for it at once.
    pub async fn release(&self, id: JobId) -> Result<Job, Status> {
        let runs = self.inner.controls().contains_key(&id);
        let done = self.inner.world.db.write(move |tx| {
            Box::pin(async move {
                let Some(mut stored) = db::jobs::get(tx.conn(), id).await? else {
                    return Err(Status::not_found("job", id).into());
                };
                // One that is held and has just begun stands still in a moment.
                if stored.held_by.is_none() || stored.job.state.is_final() {
                    can::can_release(&stored.job)?;
                }
                db::jobs::set_held(tx, id, None).await?;
                if !runs {
                    let job = &mut stored.job;
                    job.state = JobState::Queued;
                    job.hold_reason = None;
                    job.state_time = now();
                    db::jobs::save(tx, job, &stored.data).await?;
                }
                Ok(db::jobs::get(tx.conn(), id).await?.map_or(stored.job, |s| s.job))
            })
        });
        let job = done.await?;
        match self.inner.controls().get(&id) {
            Some(control) => {
                control.held.send_replace(None);
            }
            None => self.enqueue(&job),
        }
        self.inner.world.copies.wake();
        Ok(job)
    }

    /// Puts a job in line again that was taken out, unless it is over.
    async fn back_in_line(&self, id: JobId) -> Result<(), Status> {
        if let Some(stored) = db::jobs::by_id(&self.inner.world.db, id).await?
            && !stored.job.state.is_final()
        {
            self.enqueue(&stored.job);
        }
        Ok(())
    }

    /// Puts a job in line that has been written down.
    fn enqueue(&self, job: &Job) {
        self.inner.queue().push(entry(job));
        self.inner.wake.notify_one();
    }
}

/// The id of a request that is made of these: asked twice it is one.
fn request_of<const N: usize>(ids: [Uuid; N]) -> Uuid {
    let hash = blake3::hash(&ids.map(Uuid::into_bytes).concat());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// Waits until something of this noun has changed.
async fn changed(changes: &mut broadcast::Receiver<Arc<[Change]>>, noun: Noun) {
    loop {
        match changes.recv().await {
            Ok(batch) if !batch.iter().any(|change| change.noun == noun) => {}
            // Lagging behind is no loss: all is looked at anew.
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

fn held_by(name: &str) -> String {
    format!("held by {name}")
}

fn entry(job: &Job) -> Entry {
    Entry {
        job: job.id,
        vm: job.spec.vm(),
        mode: kinds::of(job.kind).mode(&job.spec),
    }
}

async fn dispatch(inner: Arc<Inner>) {
    loop {
        // Registered before the queue is asked, so that no wake-up is lost.
        let woken = inner.wake.notified();
        while let Some(next) = (!inner.stop.is_cancelled())
            .then(|| inner.queue().take_next())
            .flatten()
        {
            let control = Control {
                cancel: CancellationToken::new(),
                held: watch::channel(None).0,
            };
            inner.controls().insert(next.job, control.clone());
            let inner = inner.clone();
            inner.tasks.clone().spawn(async move {
                let ran = tokio::spawn(runner::run(inner.clone(), next.job, control)).await;
                if let Err(e) = ran {
                    // It stays claimed and locked; the next start takes it from its last written state.
                    tracing::error!(job = %next.job, error = %e, "a job's task panicked");
                }
                inner.controls().remove(&next.job);
                inner.queue().done(next.job);
                inner.wake.notify_one();
            });
        }
        tokio::select! {
            () = woken => {}
            () = inner.stop.cancelled() => return,
        }
    }
}

async fn heartbeat(inner: Arc<Inner>) {
    let mut tick = tokio::time::interval(HEARTBEAT);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = inner.stop.cancelled() => return,
        }
        if inner.queue().running() > 0 {
            let (owner, until) = (inner.owner, inner.lease_end());
            if let Err(e) = inner
                .world
                .db
                .write(move |tx| Box::pin(db::jobs::beat(tx, owner, until)))
                .await
            {
                tracing::error!(error = %db::chain(&e), "leases could not be prolonged");
            }
        }
    }
}

/// The names that a step works on: in the simulation they may ask for a failure, or to wait.
fn gate_names(job: &Job) -> Vec<String> {
    use shared::job::JobSpec;
    let mut names: Vec<String> = match &*job.spec {
        JobSpec::CreateVm(spec) => vec![spec.name.to_string()],
        JobSpec::CloneVm(spec) => {
            let request = &spec.request;
            let target = request.target.as_ref().and_then(|t| t.name.as_ref());
            let disks = request.disks_only.as_ref().map(|d| &d.name);
            target.into_iter().chain(disks).map(ToString::to_string).collect()
        }
        JobSpec::TakeSnapshot(spec) => spec.request.name.iter().map(ToString::to_string).collect(),
        JobSpec::InstantCloneVm(spec) => spec.request.given().map(ToString::to_string).collect(),
        JobSpec::RevertVm(spec) => spec.request.name.iter().map(ToString::to_string).collect(),
        JobSpec::ImportImage(spec) => vec![spec.name.to_string()],
        JobSpec::ImageOfSnapshot(spec) => vec![spec.name.to_string()],
        JobSpec::RestoreCopy(spec) => {
            let made = spec.request.vm.as_ref().map(|vm| vm.name.to_string());
            made.into_iter().collect()
        }
        JobSpec::BootCopy(spec) => vec![spec.of.to_string()],
        JobSpec::VerifyTarget(spec) => vec![spec.target_name.to_string()],
        JobSpec::PruneTarget(spec) => vec![spec.target_name.to_string()],
        JobSpec::CutOver(spec) => vec![spec.name.to_string()],
        JobSpec::FinalizeMigration(spec) => vec![spec.name.to_string()],
        JobSpec::AdaptCopy(spec) => vec![spec.name.to_string()],
        JobSpec::CutOverGroup(spec) => vec![spec.group.to_string()],
        JobSpec::CopySnapshot(_)
        | JobSpec::PowerVm(_)
        | JobSpec::ConnectVm(_)
        | JobSpec::DeleteVm(_)
        | JobSpec::DeleteSnapshot(_)
        | JobSpec::DeleteForkPoint(_)
        | JobSpec::EditVm(_)
        | JobSpec::ExportDisk(_)
        | JobSpec::DeleteImage(_) => Vec::new(),
    };
    if names.is_empty() {
        names.extend(job.resources.iter().map(|r| r.name.to_string()));
    }
    names
}

/// Takes a lock on a machine for a job, and shows it where others have to wait.
async fn hold(tx: &mut Tx, vm: VmId, job: JobId, mode: LockMode) -> Result<(), DbError> {
    db::locks::take(tx, vm, job, mode).await?;
    if mode != LockMode::Shared {
        touch(tx, vm).await?;
    }
    Ok(())
}

/// Gives back all that a job holds.
async fn let_go(tx: &mut Tx, job: JobId) -> Result<(), DbError> {
    for vm in db::locks::give_back(tx, job).await? {
        touch(tx, vm).await?;
    }
    Ok(())
}

/// Tells the feed that a machine's lock has changed, if the machine is still there.
async fn touch(tx: &mut Tx, vm: VmId) -> Result<(), DbError> {
    if db::vms::exists(tx, vm).await? {
        tx.changed(Noun::Vm, vm, false);
    }
    Ok(())
}
