//! What a kind of job is: an ordered list of named steps, each with a way back, both safe to repeat.

use super::Inner;
use crate::db::locks::LockMode;
use crate::db::{self, Db, DbError, Tx, now};
use crate::disks::Disks;
use crate::hypervisor::Hypervisor;
use async_trait::async_trait;
use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use shared::job::{Job, JobSpec, LogLine, Outcome, Resource, StepState};
use shared::{Code, JobId, Status, Timestamp, VmId};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A step as a kind plans it for one job.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Its name.
    pub name: &'static str,
    /// Whether this job asks for it.
    pub wanted: bool,
    /// Whether there is no way back once it begins.
    pub no_return: bool,
}

impl Plan {
    /// A step that every job of the kind has.
    pub const fn always(name: &'static str) -> Self {
        Self {
            name,
            wanted: true,
            no_return: false,
        }
    }

    /// A step that is skipped unless it is wanted.
    pub const fn only_if(name: &'static str, wanted: bool) -> Self {
        Self {
            name,
            wanted,
            no_return: false,
        }
    }

    /// A step that begins at the point of no return.
    pub const fn no_return(name: &'static str) -> Self {
        Self {
            name,
            wanted: true,
            no_return: true,
        }
    }
}

/// Why a step did not succeed.
#[derive(Clone, Debug)]
pub struct StepError {
    /// What a person reads.
    pub status: Status,
    /// Whether trying again may help.
    pub transient: bool,
    /// Whether nothing is wrong with the job: it stands still until what it waits for is there.
    pub waits: bool,
    /// When what it waits for is there, where that is known.
    pub until: Option<Timestamp>,
}

impl StepError {
    /// An error that trying again does not mend.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Status::new(code, message).into()
    }

    /// An error that may pass by itself.
    pub fn transient(code: Code, message: impl Into<String>) -> Self {
        Self {
            status: Status::new(code, message),
            transient: true,
            waits: false,
            until: None,
        }
    }

    /// What the job waits for: it stands still meanwhile, for as long as that takes.
    pub fn waiting(reason: impl Into<String>) -> Self {
        Self {
            status: Status::new(Code::Unavailable, reason),
            transient: true,
            waits: true,
            until: None,
        }
    }

    /// What the job waits for, which is there at this moment.
    pub fn waiting_until(until: Timestamp, reason: impl Into<String>) -> Self {
        Self {
            until: Some(until),
            ..Self::waiting(reason)
        }
    }
}

impl From<Status> for StepError {
    fn from(status: Status) -> Self {
        Self {
            status,
            transient: false,
            waits: false,
            until: None,
        }
    }
}

impl From<DbError> for StepError {
    fn from(e: DbError) -> Self {
        let transient = matches!(e, DbError::Sql { .. });
        Self {
            status: e.into(),
            transient,
            waits: false,
            until: None,
        }
    }
}

/// A kind of job.
#[async_trait]
pub trait Kind: Send + Sync {
    /// Its steps, in order.
    fn plan(&self, spec: &JobSpec) -> Vec<Plan>;
    /// How it holds the machine it is about.
    fn mode(&self, spec: &JobSpec) -> LockMode;
    /// Does a step. Safe to repeat: the process may have died right behind it.
    async fn run(&self, step: &str, cx: &Cx) -> Result<(), StepError>;
    /// Undoes a step, finished or half-finished. Safe to repeat.
    async fn undo(&self, step: &str, cx: &Cx) -> Result<(), StepError>;
}

/// A job at work: what is in memory of it between two writes.
pub(super) struct Live {
    pub job: Job,
    pub data: Value,
    pub log: Vec<LogLine>,
    pub dirty: bool,
}

/// What a step works with.
#[derive(Clone)]
pub struct Cx {
    pub(super) inner: Arc<Inner>,
    pub(super) live: Arc<Mutex<Live>>,
    pub(super) id: JobId,
}

impl Cx {
    pub(super) fn new(inner: Arc<Inner>, stored: db::jobs::Stored) -> Self {
        let id = stored.job.id;
        let live = Live {
            job: stored.job,
            data: stored.data,
            log: Vec::new(),
            dirty: false,
        };
        Self {
            inner,
            live: Arc::new(Mutex::new(live)),
            id,
        }
    }

    pub(super) fn live(&self) -> MutexGuard<'_, Live> {
        // Nothing panics while it is held; if it did, the data is still whole.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job's id.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// The job as it is now.
    pub fn job(&self) -> Job {
        self.live().job.clone()
    }

    /// The database.
    pub fn db(&self) -> &Db {
        &self.inner.world.db
    }

    /// The hypervisor.
    pub fn hypervisor(&self) -> &dyn Hypervisor {
        &*self.inner.world.hypervisor
    }

    /// The disks.
    pub fn disks(&self) -> &dyn Disks {
        &*self.inner.world.disks
    }

    /// All that the rooms below offer.
    pub fn world(&self) -> &super::World {
        &self.inner.world
    }

    /// What the steps before have minted; none if nothing is yet.
    pub fn data<T: DeserializeOwned>(&self) -> Result<Option<T>, StepError> {
        let data = self.live().data.clone();
        serde_json::from_value(data).map_err(|e| {
            StepError::new(
                Code::Internal,
                format!("what job {} has minted cannot be read: {e}", self.id),
            )
        })
    }

    /// What the steps before have minted; an error if nothing is.
    pub fn minted<T: DeserializeOwned>(&self) -> Result<T, StepError> {
        self.data()?
            .ok_or_else(|| StepError::new(Code::Internal, format!("job {} has not minted its ids", self.id)))
    }

    /// Notes what has been minted; durable with the next [`commit`](Self::commit).
    pub fn mint(&self, data: &impl Serialize) {
        // Minted data is ids, names and numbers: it always serialises.
        self.live().data = serde_json::to_value(data).unwrap_or(Value::Null);
    }

    /// Runs a transaction that also writes down how far the job has come.
    pub async fn commit<T, F>(&self, work: F) -> Result<T, StepError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, DbError>> + Send + 'static,
    {
        let (job, data, log) = self.take_for_save();
        let id = self.id;
        let lines = log.clone();
        let done = self
            .db()
            .write(move |tx| {
                Box::pin(async move {
                    let done = work(tx).await?;
                    db::jobs::save(tx, &job, &data).await?;
                    db::jobs::log(tx, id, &lines).await?;
                    Ok(done)
                })
            })
            .await;
        if done.is_err() {
            // The lines were not written: they go with the next write.
            self.live().log.splice(0..0, log);
        }
        Ok(done?)
    }

    pub(super) fn take_for_save(&self) -> (Job, Value, Vec<LogLine>) {
        let mut live = self.live();
        live.dirty = false;
        (live.job.clone(), live.data.clone(), std::mem::take(&mut live.log))
    }

    /// Adds a line to the job's log.
    pub fn log(&self, text: impl Into<String>) {
        let line = LogLine {
            time: now(),
            text: text.into(),
        };
        tracing::info!(job = %self.id, "{}", line.text);
        let mut live = self.live();
        live.log.push(line);
        live.dirty = true;
    }

    fn step(&self, change: impl FnOnce(&mut shared::job::Step)) {
        let mut live = self.live();
        let running = |s: &&mut shared::job::Step| matches!(s.state, StepState::Running | StepState::Undoing);
        if let Some(step) = live.job.steps.iter_mut().find(running) {
            change(step);
        }
        live.dirty = true;
    }

    /// Says what the step is doing, or did.
    pub fn message(&self, text: impl Into<String>) {
        let text = text.into();
        self.step(|s| s.message = Some(text));
    }

    /// Says how many bytes are done, of how many.
    pub fn progress(&self, done: u64, total: u64) {
        self.step(|s| (s.done_bytes, s.total_bytes) = (Some(done), Some(total)));
    }

    /// Says how many machines are done, of how many.
    pub fn count(&self, done: u32, total: u32) {
        self.step(|s| (s.done_count, s.total_count) = (Some(done), Some(total)));
    }

    /// Notes what the job has found out.
    pub fn outcome(&self, change: impl FnOnce(&mut Outcome)) {
        let mut live = self.live();
        change(&mut live.job.outcome);
        live.dirty = true;
    }

    /// Notes a thing that the job has to do with; the same one again is no change.
    pub fn resource(&self, resource: Resource) {
        let mut live = self.live();
        if !live
            .job
            .resources
            .iter()
            .any(|r| r.id == resource.id && r.noun == resource.noun)
        {
            live.job.resources.push(resource);
        }
        live.dirty = true;
    }

    /// Lets go of everything that the job holds, and of its turn: what is still to do only looks.
    pub async fn let_go(&self) -> Result<(), StepError> {
        let id = self.id;
        self.commit(move |tx| Box::pin(super::let_go(tx, id))).await?;
        self.inner.queue().done(id);
        self.inner.wake.notify_one();
        Ok(())
    }

    /// Lets others work on a machine that this job has changed, and only needs to stay from here on.
    pub async fn share(&self, vm: VmId) -> Result<(), StepError> {
        let id = self.id;
        self.commit(move |tx| {
            Box::pin(async move {
                db::locks::share(tx, vm, id).await?;
                super::touch(tx, vm).await
            })
        })
        .await?;
        self.inner.queue().share(vm, id);
        self.inner.wake.notify_one();
        Ok(())
    }

    /// Holds one more machine alone, if nobody works on it; answers whether it does.
    pub async fn try_hold(&self, vm: VmId) -> Result<bool, StepError> {
        if !self.inner.queue().try_hold(vm, self.id, LockMode::Exclusive) {
            return Ok(false);
        }
        let id = self.id;
        self.commit(move |tx| {
            Box::pin(async move {
                db::locks::take(tx, vm, id, LockMode::Exclusive).await?;
                super::touch(tx, vm).await
            })
        })
        .await?;
        Ok(true)
    }

    /// Holds a machine that this job makes: nobody else works on it until the job is over.
    pub async fn hold_product(&self, tx: &mut Tx, vm: VmId) -> Result<(), DbError> {
        db::locks::take(tx, vm, self.id, LockMode::Exclusive).await?;
        self.inner.queue().hold(vm, self.id, LockMode::Exclusive);
        Ok(())
    }
}
