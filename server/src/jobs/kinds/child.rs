//! Jobs that other jobs ask for and wait for.

use super::super::Inner;
use super::super::changed;
use crate::db;
use crate::jobs::step::{Cx, StepError};
use shared::feed::Noun;
use shared::job::{Job, JobState};
use shared::{Code, JobId, Status};
use std::sync::Arc;

/// While it is there the job does not count among those that run: what it waits for has to run.
struct Aside {
    inner: Arc<Inner>,
    job: JobId,
}

impl Aside {
    fn of(cx: &Cx) -> Self {
        cx.inner.queue().step_aside(cx.id());
        cx.inner.wake.notify_one();
        Self {
            inner: cx.inner.clone(),
            job: cx.id(),
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.inner.queue().step_in(self.job, None);
    }
}

/// Waits until a job is over, or has come as far as `enough` says; its progress is shown meanwhile.
pub(super) async fn until(
    cx: &Cx,
    id: JobId,
    enough: impl Fn(&Job) -> bool + Send,
) -> Result<Job, StepError> {
    let mut changes = cx.db().subscribe();
    let _aside = Aside::of(cx);
    loop {
        let stored = db::jobs::by_id(cx.db(), id).await?;
        let job = stored.ok_or_else(|| super::is_now("job", id))?.job;
        if job.state.is_final() || enough(&job) {
            return Ok(job);
        }
        if let Some(why) = &job.hold_reason {
            cx.message(why.clone());
        } else if let Some(step) = job.current_step() {
            if let (Some(done), Some(total)) = (step.done_bytes, step.total_bytes) {
                cx.progress(done, total);
            }
            if let Some(message) = &step.message {
                cx.message(message.clone());
            }
        }
        changed(&mut changes, Noun::Job).await;
    }
}

/// Waits until all of these jobs are over. `told` gets those that are, whenever there are more.
pub(super) async fn all(
    cx: &Cx,
    ids: &[JobId],
    mut told: impl FnMut(&[Job]) + Send,
) -> Result<Vec<Job>, StepError> {
    let mut changes = cx.db().subscribe();
    let _aside = Aside::of(cx);
    let mut seen = 0;
    loop {
        let mut over = Vec::new();
        for id in ids {
            let stored = db::jobs::by_id(cx.db(), *id).await?;
            let job = stored.ok_or_else(|| super::is_now("job", id))?.job;
            if job.state.is_final() {
                over.push(job);
            }
        }
        if over.len() > seen {
            seen = over.len();
            told(&over);
        }
        if over.len() == ids.len() {
            return Ok(over);
        }
        changed(&mut changes, Noun::Job).await;
    }
}

/// Waits until a job is over, and fails where it did.
pub(super) async fn done(cx: &Cx, id: JobId) -> Result<Job, StepError> {
    let job = until(cx, id, |_| false).await?;
    good(job)
}

/// The job, unless it failed or was cancelled.
pub(super) fn good(job: Job) -> Result<Job, StepError> {
    match (job.state, &job.error) {
        (JobState::Failed, Some(error)) => Err(error.clone().into()),
        (JobState::Failed | JobState::Cancelled, _) => {
            let text = format!("job {} was {}", job.id, job.state.word().to_lowercase());
            Err(StepError::from(Status::new(Code::Aborted, text)))
        }
        _ => Ok(job),
    }
}

/// Cancels a job that is not over, and waits until it is: what it did is undone then. One that is past its point of no return
/// comes to its end.
pub(super) async fn cancelled(cx: &Cx, id: JobId) -> Result<Job, StepError> {
    cancel(cx, id).await?;
    until(cx, id, |_| false).await
}

/// As [`cancelled`], of several at once.
pub(super) async fn all_cancelled(cx: &Cx, ids: &[JobId]) -> Result<Vec<Job>, StepError> {
    for id in ids {
        cancel(cx, *id).await?;
    }
    all(cx, ids, |_| {}).await
}

async fn cancel(cx: &Cx, id: JobId) -> Result<(), StepError> {
    let jobs = crate::jobs::Jobs {
        inner: cx.inner.clone(),
    };
    let stored = db::jobs::by_id(cx.db(), id).await?;
    let job = stored.ok_or_else(|| super::is_now("job", id))?.job;
    if !job.state.is_final()
        && let Err(e) = jobs.cancel_part(id).await
    {
        cx.log(format!("job {id} is not cancelled: {e}"));
    }
    Ok(())
}
