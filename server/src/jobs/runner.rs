//! Carries jobs through their steps, forwards and, if need be, backwards.

use super::step::{Cx, Kind, Plan, StepError};
use super::{Control, Inner, held_by, kinds};
use crate::db::{self, DbError, now};
use shared::job::{Job, JobState, Step, StepState, UnwindCause};
use shared::{Code, JobId, Status, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often a transient error is met before a job gives up.
const ATTEMPTS: u32 = 5;
/// How often progress is written at most.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// First wait before trying again, doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Longest wait before trying again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Why a job is not carried on.
enum Halt {
    /// The server stops: the job goes on at its next start.
    Stopping,
    /// A person cancelled it.
    Cancelled,
    /// A step failed.
    Failed(StepError),
    /// It is to stand still: for a person, or for what it waits for, until then where that is known.
    Held(String, Option<Timestamp>),
}

impl From<StepError> for Halt {
    fn from(e: StepError) -> Self {
        Self::Failed(e)
    }
}

struct Run {
    cx: Cx,
    kind: &'static dyn Kind,
    plan: Vec<Plan>,
    names: Vec<String>,
    cancel: CancellationToken,
    held: watch::Sender<Option<String>>,
    inner: Arc<Inner>,
}

/// Carries a job to its end, or until the server stops.
pub(super) async fn run(inner: Arc<Inner>, id: JobId, control: Control) {
    let Control { cancel, held } = control;
    let until = inner.lease_end();
    let owner = inner.owner;
    let claimed = inner
        .world
        .db
        .write(move |tx| Box::pin(db::jobs::claim(tx, id, owner, until)))
        .await;
    let stored = match claimed {
        Ok(Some(stored)) => stored,
        Ok(None) => return,
        Err(e) => {
            tracing::error!(job = %id, error = %db::chain(&e), "a job could not be claimed");
            return;
        }
    };
    if stored.cancel_requested {
        cancel.cancel();
    }
    if stored.held_by.is_some() {
        held.send_replace(stored.held_by.clone());
    }
    let kind = kinds::of(stored.job.kind);
    let plan = kind.plan(&stored.job.spec);
    let names = super::gate_names(&stored.job);
    let cx = Cx::new(inner.clone(), stored);
    let run = Run {
        cx,
        kind,
        plan,
        names,
        cancel,
        held,
        inner,
    };
    run.to_the_end().await;
}

impl Run {
    async fn to_the_end(&self) {
        let job = self.cx.job();
        let ended = match job.state {
            JobState::Unwinding => self.backwards().await,
            JobState::UndoBlocked => self.unblocked().await,
            _ => match self.forwards().await {
                Ok(()) => Ok(()),
                // A step that is to stand still does so in its turn.
                Err(halt @ (Halt::Stopping | Halt::Held(..))) => Err(halt),
                Err(Halt::Cancelled) => self.unwind(UnwindCause::Cancel, None).await,
                Err(Halt::Failed(e)) => {
                    self.cx.log(format!("failed: {}", e.status.message));
                    // Under the job's id the server's log has the story.
                    let status = e.status.with_request(self.cx.id());
                    self.unwind(UnwindCause::Failure, Some(status)).await
                }
            },
        };
        if let Err(Halt::Failed(e)) = ended {
            // Only the database can fail here: the next start takes the job from its last written state.
            tracing::error!(job = %self.cx.id(), error = %e.status, "a job's state could not be written");
        }
    }

    /// Changes the job and writes it down.
    async fn save(&self, change: impl FnOnce(&mut Job)) -> Result<(), Halt> {
        {
            let mut live = self.cx.live();
            let before = live.job.state;
            change(&mut live.job);
            debug_assert!(
                before == live.job.state || before.can_become(live.job.state),
                "{before} became {}",
                live.job.state
            );
            if before != live.job.state {
                live.job.state_time = now();
            }
        }
        self.cx.commit(|_| Box::pin(async { Ok(()) })).await?;
        Ok(())
    }

    async fn forwards(&self) -> Result<(), Halt> {
        let mut beginning = true;
        for (n, plan) in self.plan.iter().enumerate() {
            let state = self.cx.live().job.steps[n].state;
            match state {
                StepState::Done | StepState::Skipped => continue,
                _ if !plan.wanted => {
                    self.cx.live().job.steps[n].state = StepState::Skipped;
                    continue;
                }
                _ => {}
            }
            self.begin(n, plan, beginning).await?;
            beginning = false;
            self.step(n, plan).await?;
            let mut live = self.cx.live();
            let step = &mut live.job.steps[n];
            step.state = StepState::Done;
            step.end_time = Some(now());
        }
        self.succeed().await
    }

    /// Writes down that a step begins (and with it that the one before has ended). Where it is the point of no
    /// return, a cancel that was asked for first still counts: flag and check are one transaction.
    async fn begin(&self, n: usize, plan: &Plan, first: bool) -> Result<(), Halt> {
        let returnable = !self.cx.live().job.no_return;
        if returnable && self.cancel.is_cancelled() {
            return Err(Halt::Cancelled);
        }
        let lock = {
            let mut live = self.cx.live();
            let job = &mut live.job;
            if first && job.state != JobState::Running {
                job.state = JobState::Running;
                job.hold_reason = None;
                job.state_time = now();
                job.start_time = job.start_time.or(Some(job.state_time));
            }
            job.no_return |= plan.no_return;
            let step = &mut job.steps[n];
            step.state = StepState::Running;
            step.start_time = step.start_time.or(Some(now()));
            let mode = self.kind.mode(&job.spec);
            job.spec.vm().filter(|_| first).map(|vm| (vm, mode))
        };
        let id = self.cx.id();
        let check = plan.no_return && returnable;
        let begun = self
            .cx
            .commit(move |tx| {
                Box::pin(async move {
                    if check && db::jobs::cancel_requested(tx, id).await? {
                        return Err(cancelled());
                    }
                    match lock {
                        Some((vm, mode)) => super::hold(tx, vm, id, mode).await,
                        None => Ok(()),
                    }
                })
            })
            .await;
        if let Err(e) = begun {
            let mut live = self.cx.live();
            live.job.no_return = !returnable;
            live.job.steps[n].state = StepState::Waiting;
            return Err(halt(e));
        }
        Ok(())
    }

    /// Runs one step until it succeeds, fails for good, or is cancelled.
    async fn step(&self, n: usize, plan: &Plan) -> Result<(), Halt> {
        let (mut attempt, mut stood) = (1, 0);
        let mut told = String::new();
        loop {
            let no_return = self.cx.live().job.no_return;
            match self.attempt(plan.name, no_return).await {
                Ok(()) => return Ok(()),
                Err(Halt::Held(reason, until)) => {
                    stood += 1;
                    // Looked at again and again, it is one line of the log.
                    if told != reason {
                        self.cx.log(format!("stands still: {reason}"));
                        told.clone_from(&reason);
                    }
                    self.stand_still(reason, until, wait_before(stood), no_return)
                        .await?;
                }
                Err(Halt::Failed(e)) if no_return || (e.transient && attempt < ATTEMPTS) => {
                    let wait = wait_before(attempt);
                    self.cx.log(format!(
                        "{}: {}; tried again in {:.1} s",
                        plan.name,
                        e.status.message,
                        wait.as_secs_f32()
                    ));
                    self.cx.message(format!("{}; trying again", e.status.message));
                    if no_return && !e.transient {
                        let reason = e.status.message.clone();
                        self.save(|job| {
                            job.state = JobState::OnHold;
                            job.hold_reason = Some(reason);
                        })
                        .await?;
                    } else {
                        self.save(|_| ()).await?;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = self.inner.stop.cancelled() => return Err(Halt::Stopping),
                        () = self.cancel.cancelled(), if !no_return => return Err(Halt::Cancelled),
                    }
                    if no_return && !e.transient {
                        self.save(|job| {
                            job.state = JobState::Running;
                            job.hold_reason = None;
                        })
                        .await?;
                    }
                    attempt += 1;
                }
                Err(Halt::Failed(e)) => {
                    let mut live = self.cx.live();
                    let step = &mut live.job.steps[n];
                    step.state = StepState::Failed;
                    step.end_time = Some(now());
                    step.message = Some(e.status.message.clone());
                    drop(live);
                    return Err(Halt::Failed(e));
                }
                Err(halt) => return Err(halt),
            }
        }
    }

    /// Waits until nobody has the job stand still, and then, where it waits for something, until that may be there.
    async fn stand_still(
        &self,
        reason: String,
        until: Option<Timestamp>,
        wait: Duration,
        no_return: bool,
    ) -> Result<(), Halt> {
        let vm = self.cx.live().job.spec.vm();
        let freed = self.inner.world.copies.freed();
        let mut held = self.held.subscribe();
        let person = held.borrow().is_some();
        self.save(|job| {
            job.state = JobState::OnHold;
            job.hold_reason = Some(reason);
        })
        .await?;
        self.inner.queue().step_aside(self.cx.id());
        self.inner.wake.notify_one();
        let over = async {
            if person {
                // The sender lives as long as this job.
                _ = held.wait_for(Option::is_none).await;
                return;
            }
            let waited = async {
                match until {
                    Some(until) => self.inner.world.clock.until(until).await,
                    None => tokio::time::sleep(wait).await,
                }
            };
            tokio::select! {
                () = waited => {}
                () = freed => {}
                _ = held.changed() => {}
            }
        };
        let waited = tokio::select! {
            () = over => Ok(()),
            () = self.inner.stop.cancelled() => Err(Halt::Stopping),
            () = self.cancel.cancelled(), if !no_return => Err(Halt::Cancelled),
        };
        self.inner.queue().step_in(self.cx.id(), vm);
        waited?;
        self.save(|job| {
            job.state = JobState::Running;
            job.hold_reason = None;
        })
        .await
    }

    /// Runs one step once, writing progress down as it goes. A cancel drops it where it waits.
    async fn attempt(&self, name: &'static str, no_return: bool) -> Result<(), Halt> {
        let work = async {
            let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
            self.cx.hypervisor().gate(&names, name).await?;
            if let Some(hook) = &self.inner.hook {
                hook.before(&self.cx, name).await?;
                for _ in 0..hook.times() {
                    self.kind.run(name, &self.cx).await?;
                }
                return hook.after(&self.cx, name).await;
            }
            self.kind.run(name, &self.cx).await
        };
        tokio::pin!(work);
        let mut held = self.held.subscribe();
        let mut tick = tokio::time::interval(PROGRESS_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tick.reset();
        loop {
            tokio::select! {
                biased;
                done = &mut work => return match done {
                    Err(e) if e.waits => Err(Halt::Held(e.status.message, e.until)),
                    done => Ok(done?),
                },
                () = self.inner.stop.cancelled() => return Err(Halt::Stopping),
                () = self.cancel.cancelled(), if !no_return => return Err(Halt::Cancelled),
                name = held_now(&mut held) => return Err(Halt::Held(held_by(&name), None)),
                _ = tick.tick() => {
                    if self.cx.live().dirty {
                        self.save(|_| ()).await?;
                    }
                }
            }
        }
    }

    /// The last step is done: unless a cancel came first, the job has succeeded and lets go of everything.
    async fn succeed(&self) -> Result<(), Halt> {
        let before = self.cx.job();
        {
            let mut live = self.cx.live();
            live.job.state = JobState::Succeeded;
            live.job.state_time = now();
            live.job.end_time = Some(live.job.state_time);
        }
        let id = self.cx.id();
        let no_return = before.no_return;
        let done = self
            .cx
            .commit(move |tx| {
                Box::pin(async move {
                    if !no_return && db::jobs::cancel_requested(tx, id).await? {
                        return Err(cancelled());
                    }
                    super::let_go(tx, id).await
                })
            })
            .await;
        match done {
            Ok(()) => Ok(()),
            Err(e) => {
                let mut live = self.cx.live();
                live.job.state = before.state;
                live.job.state_time = before.state_time;
                live.job.end_time = None;
                drop(live);
                Err(halt(e))
            }
        }
    }

    async fn unwind(&self, cause: UnwindCause, error: Option<Status>) -> Result<(), Halt> {
        if cause == UnwindCause::Cancel {
            self.cx.log("cancelled: undoing what was done");
        }
        if self.cx.live().job.state == JobState::Queued {
            // Nothing has begun: there is nothing to undo.
            {
                let mut live = self.cx.live();
                (live.job.unwind_cause, live.job.error) = (Some(cause), error);
            }
            return self.ended().await;
        }
        self.save(|job| {
            job.state = JobState::Unwinding;
            job.hold_reason = None;
            job.unwind_cause = Some(cause);
            job.error = error;
        })
        .await?;
        self.backwards().await
    }

    /// The server ended while an undo waited to be tried again.
    async fn unblocked(&self) -> Result<(), Halt> {
        self.save(unblock).await?;
        self.backwards().await
    }

    async fn backwards(&self) -> Result<(), Halt> {
        for (n, plan) in self.plan.iter().enumerate().rev() {
            let state = self.cx.live().job.steps[n].state;
            if matches!(state, StepState::Waiting | StepState::Skipped | StepState::Undone) {
                continue;
            }
            // The step that failed stays marked as such: its undo runs all the same.
            let failed = state == StepState::Failed;
            if !failed {
                self.save(|job| job.steps[n].state = StepState::Undoing).await?;
            }
            self.undo(plan.name).await?;
            let mut live = self.cx.live();
            let step: &mut Step = &mut live.job.steps[n];
            if !failed {
                step.state = StepState::Undone;
                step.end_time = Some(now());
            }
        }
        self.ended().await
    }

    async fn undo(&self, name: &'static str) -> Result<(), Halt> {
        let mut attempt = 1;
        loop {
            let work = async {
                if let Some(hook) = &self.inner.hook {
                    hook.before_undo(&self.cx, name).await?;
                    for _ in 0..hook.times() {
                        self.kind.undo(name, &self.cx).await?;
                    }
                    return hook.after_undo(&self.cx, name).await;
                }
                self.kind.undo(name, &self.cx).await
            };
            let done = tokio::select! {
                done = work => done,
                () = self.inner.stop.cancelled() => return Err(Halt::Stopping),
            };
            let Err(e) = done else { return Ok(()) };
            let wait = wait_before(attempt);
            attempt += 1;
            self.cx.log(format!(
                "undoing {name}: {}; tried again in {:.1} s",
                e.status.message,
                wait.as_secs_f32()
            ));
            self.save(|job| {
                job.state = JobState::UndoBlocked;
                job.blocked = Some(e.status);
            })
            .await?;
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.inner.stop.cancelled() => return Err(Halt::Stopping),
            }
            self.save(unblock).await?;
        }
    }

    /// Everything is undone: the job ends, and lets go of everything.
    async fn ended(&self) -> Result<(), Halt> {
        self.cx.log("everything is undone");
        {
            let mut live = self.cx.live();
            let job = &mut live.job;
            job.state = match job.unwind_cause.take() {
                Some(UnwindCause::Cancel) => JobState::Cancelled,
                Some(UnwindCause::Failure) | None => JobState::Failed,
            };
            job.state_time = now();
            job.end_time = Some(job.state_time);
        }
        let id = self.cx.id();
        self.cx.commit(move |tx| Box::pin(super::let_go(tx, id))).await?;
        Ok(())
    }
}

fn unblock(job: &mut Job) {
    job.state = JobState::Unwinding;
    job.blocked = None;
}

/// Waits until somebody has the job stand still.
async fn held_now(held: &mut watch::Receiver<Option<String>>) -> String {
    let name = match held.wait_for(Option::is_some).await {
        Ok(name) => name.clone(),
        // The sender lives as long as the job.
        Err(_) => None,
    };
    match name {
        Some(name) => name,
        None => std::future::pending().await,
    }
}

/// The refusal inside a transaction that says: a cancel came first.
fn cancelled() -> DbError {
    Status::new(Code::Cancelled, "a cancel came first").into()
}

fn halt(e: StepError) -> Halt {
    if e.status.code == Code::Cancelled {
        Halt::Cancelled
    } else {
        Halt::Failed(e)
    }
}

fn wait_before(attempt: u32) -> Duration {
    FIRST_WAIT.saturating_mul(1 << attempt.min(16)).min(LONGEST_WAIT)
}
