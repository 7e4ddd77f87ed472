//! The job engine: what is tried again, what is shown while an undo fails, and where a cancel comes too late.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

mod support;

use async_trait::async_trait;
use server::jobs::step::{Cx, StepError};
use server::jobs::world::Machines;
use server::jobs::{Hook, Jobs};
use shared::Code;
use shared::job::{Job, JobState, StepState, UnwindCause, step};
use shared::snapshot::TakeSnapshot;
use shared::vm::PowerAction;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{by, clean_up, create, ended, engine, until, vm_id};
use tokio::sync::Semaphore;

/// Fails one step, or one undo, this many times.
struct Fails {
    step: &'static str,
    undo: bool,
    left: AtomicUsize,
    error: fn() -> StepError,
}

impl Fails {
    fn strike(&self, step: &str, undo: bool) -> Result<(), StepError> {
        let hit = step == self.step && undo == self.undo;
        let spend = |n: usize| n.checked_sub(1);
        if hit
            && self
                .left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend)
                .is_ok()
        {
            return Err((self.error)());
        }
        Ok(())
    }
}

#[async_trait]
impl Hook for Fails {
    async fn before(&self, _cx: &Cx, step: &str) -> Result<(), StepError> {
        self.strike(step, false)
    }

    async fn before_undo(&self, _cx: &Cx, step: &str) -> Result<(), StepError> {
        self.strike(step, true)
    }
}

fn passing() -> StepError {
    StepError::transient(Code::Unavailable, "away for a moment")
}

fn lasting() -> StepError {
    StepError::new(Code::Internal, "broken for good")
}

async fn with(dir: &std::path::Path, hook: impl Hook + 'static) -> Jobs {
    engine(dir, Machines::Simulated, Some(Arc::new(hook))).await
}

async fn log_of(jobs: &Jobs, job: &Job) -> Vec<String> {
    let (lines, ..) = server::db::jobs::read_log(&jobs.world().db, job.id, 0, 1000)
        .await
        .unwrap();
    lines.into_iter().map(|l| l.text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let hook = Fails {
        step: step::STARTING,
        undo: false,
        left: 2.into(),
        error: passing,
    };
    let jobs = with(dir.path(), hook).await;
    let job = jobs.create_vm(create("a", true), by()).await.unwrap();
    let job = ended(&jobs, job.id).await;
    assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
    let log = log_of(&jobs, &job).await;
    assert_eq!(
        log.iter()
            .filter(|l| l.contains("away for a moment; tried again"))
            .count(),
        2,
        "{log:#?}"
    );
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_pass_is_not_tried_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let hook = Fails {
        step: step::STARTING,
        undo: false,
        left: 100.into(),
        error: passing,
    };
    let jobs = with(dir.path(), hook).await;
    let job = jobs.create_vm(create("a", true), by()).await.unwrap();
    let job = ended(&jobs, job.id).await;
    assert_eq!(job.state, JobState::Failed, "{job:#?}");
    assert_eq!(job.error.unwrap().code, Code::Unavailable);
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_broken_is_not_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let hook = Fails {
        step: step::STARTING,
        undo: false,
        left: 1.into(),
        error: lasting,
    };
    let jobs = with(dir.path(), hook).await;
    let job = jobs.create_vm(create("a", true), by()).await.unwrap();
    let job = ended(&jobs, job.id).await;
    assert_eq!(job.state, JobState::Failed, "{job:#?}");
    clean_up(&jobs).await;
}

/// Fails a step, and then its undo until it is let.
struct Blocked {
    let_go: Arc<Semaphore>,
}

#[async_trait]
impl Hook for Blocked {
    async fn after(&self, _cx: &Cx, step: &str) -> Result<(), StepError> {
        if step == step::STARTING {
            Err(lasting())
        } else {
            Ok(())
        }
    }

    async fn before_undo(&self, _cx: &Cx, step: &str) -> Result<(), StepError> {
        if step == step::STARTING && self.let_go.available_permits() == 0 {
            return Err(StepError::new(Code::Internal, "cannot undo"));
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_that_fails_is_shown_and_keeps_its_locks() {
    let dir = tempfile::tempdir().unwrap();
    let let_go = Arc::new(Semaphore::new(0));
    let jobs = with(
        dir.path(),
        Blocked {
            let_go: let_go.clone(),
        },
    )
    .await;
    let id = jobs.create_vm(create("a", true), by()).await.unwrap().id;
    let job = until(&jobs, id, |j| j.state == JobState::UndoBlocked).await;
    assert_eq!(job.unwind_cause, Some(UnwindCause::Failure));
    assert!(job.blocked.unwrap().message.contains("cannot undo"));
    let vm = server::db::vms::find(&jobs.world().db, "a")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(vm.locked_by.map(|l| l.job), Some(id), "the machine is still held");
    let why = jobs.cancel(id).await.unwrap_err();
    assert!(why.message.contains("undoing"), "{why}");
    let_go.add_permits(1);
    let job = ended(&jobs, id).await;
    assert_eq!(job.state, JobState::Failed);
    assert!(
        job.error.unwrap().message.contains("broken for good"),
        "the first error is the one that is kept"
    );
    assert!(
        server::db::vms::find(&jobs.world().db, "a")
            .await
            .unwrap()
            .is_none()
    );
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_that_failed_when_the_server_ended_goes_on_with_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let let_go = Arc::new(Semaphore::new(0));
    let jobs = with(dir.path(), Blocked { let_go }).await;
    let id = jobs.create_vm(create("a", true), by()).await.unwrap().id;
    until(&jobs, id, |j| j.state == JobState::UndoBlocked).await;
    jobs.stop().await;
    let job = until(&jobs, id, |_| true).await;
    assert_eq!(job.state, JobState::UndoBlocked);
    drop(jobs);
    let jobs = engine(dir.path(), Machines::Simulated, None).await;
    let job = ended(&jobs, id).await;
    assert_eq!((job.state, job.blocked), (JobState::Failed, None));
    let made = server::db::vms::find(&jobs.world().db, "a").await.unwrap();
    assert_eq!(made, None);
    clean_up(&jobs).await;
}

/// Waits at one step until it is let, and says that it is there.
struct Waits {
    step: &'static str,
    there: Arc<Semaphore>,
    let_go: Arc<Semaphore>,
}

#[async_trait]
impl Hook for Waits {
    async fn before(&self, _cx: &Cx, step: &str) -> Result<(), StepError> {
        if step == self.step {
            self.there.add_permits(1);
            self.let_go.acquire().await.unwrap().forget();
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_point_of_no_return_a_cancel_is_refused_and_the_job_finishes() {
    let dir = tempfile::tempdir().unwrap();
    let (there, let_go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let hook = Waits {
        step: step::DELETING,
        there: there.clone(),
        let_go: let_go.clone(),
    };
    let jobs = with(dir.path(), hook).await;
    let made = jobs.create_vm(create("a", false), by()).await.unwrap();
    ended(&jobs, made.id).await;
    let id = vm_id(&jobs, "a").await;
    let job = jobs.delete_vm(id, by()).await.unwrap();
    there.acquire().await.unwrap().forget();
    let why = jobs.cancel(job.id).await.unwrap_err();
    assert!(why.message.contains("point of no return"), "{why}");
    let why = jobs.power(id, PowerAction::Start, by()).await.unwrap_err();
    assert!(why.message.contains("being deleted"), "{why}");
    let_go.add_permits(1);
    assert_eq!(ended(&jobs, job.id).await.state, JobState::Succeeded);
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_is_tried_again_as_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let hook = Fails {
        step: step::PREPARING_VM_DISKS,
        undo: false,
        left: 1.into(),
        error: lasting,
    };
    let jobs = with(dir.path(), hook).await;
    let first = jobs.create_vm(create("a", false), by()).await.unwrap();
    let first = ended(&jobs, first.id).await;
    assert_eq!(first.state, JobState::Failed);
    let states: Vec<_> = first.steps.iter().map(|s| s.state).collect();
    assert_eq!(states, [StepState::Undone, StepState::Failed, StepState::Skipped]);
    let second = jobs.retry(first.id, by()).await.unwrap();
    assert_eq!(second.retry_of, Some(first.id));
    assert_eq!(ended(&jobs, second.id).await.state, JobState::Succeeded);
    let why = jobs.retry(second.id, by()).await.unwrap_err();
    assert!(why.message.contains("has succeeded"), "{why}");
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_one_machine_run_in_the_order_they_were_asked() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = engine(dir.path(), Machines::Simulated, None).await;
    let made = jobs.create_vm(create("a", true), by()).await.unwrap();
    ended(&jobs, made.id).await;
    let id = vm_id(&jobs, "a").await;
    let mut posted = Vec::new();
    for n in 0..10 {
        let name = Some(format!("s{n}").parse().unwrap());
        posted.push(
            jobs.snapshot(
                id,
                TakeSnapshot {
                    name,
                    ..Default::default()
                },
                by(),
            )
            .await
            .unwrap(),
        );
    }
    let mut ends = Vec::new();
    for job in &posted {
        let job = ended(&jobs, job.id).await;
        assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
        ends.push(job.end_time);
    }
    assert!(ends.is_sorted(), "{ends:?}");
    clean_up(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_comes_behind_the_end_fails_and_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let (there, let_go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let hook = Waits {
        step: step::SWITCHING_POWER,
        there: there.clone(),
        let_go: let_go.clone(),
    };
    let jobs = with(dir.path(), hook).await;
    let made = jobs.create_vm(create("a", true), by()).await.unwrap();
    ended(&jobs, made.id).await;
    let id = vm_id(&jobs, "a").await;
    // Both are asked for while it runs.
    let off = jobs.power(id, PowerAction::PowerOff, by()).await.unwrap();
    there.acquire().await.unwrap().forget();
    let pause = jobs.power(id, PowerAction::Pause, by()).await.unwrap();
    let_go.add_permits(3);
    assert_eq!(ended(&jobs, off.id).await.state, JobState::Succeeded);
    assert_eq!(ended(&jobs, pause.id).await.state, JobState::Failed);
    let on = jobs.power(id, PowerAction::Start, by()).await.unwrap();
    assert_eq!(ended(&jobs, on.id).await.state, JobState::Succeeded);
    clean_up(&jobs).await;
}

/// The machines that were started with their host, in the order in which they were.
async fn started_with_the_host(jobs: &Jobs) -> Vec<String> {
    let rows: Vec<(String,)> = sqlx::query_as(
        "SELECT vms.name FROM jobs JOIN vms ON vms.id = jobs.vm WHERE jobs.created_by = 'autostart' ORDER BY jobs.create_time, jobs.id",
    )
    .fetch_all(jobs.world().db.read())
    .await
    .unwrap();
    rows.into_iter().map(|(name,)| name).collect()
}

/// Waits until the host's boot has been noted: those that are to be started have been by then.
async fn boot_noted(jobs: &Jobs, boot: &str) {
    let begin = std::time::Instant::now();
    while server::db::places::boot(&jobs.world().db)
        .await
        .unwrap()
        .as_deref()
        != Some(boot)
    {
        assert!(begin.elapsed() < support::PATIENCE, "the boot is never noted");
        // The table of hosts tells the feed of its state alone.
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn machines_are_started_with_their_host_in_their_turn_and_not_with_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let boot = async |name| {
        let jobs = support::engine_of_boot(dir.path(), Machines::Simulated, None, None, Some(name)).await;
        boot_noted(&jobs, name).await;
        jobs
    };
    let jobs = boot("first").await;
    for (name, autostart) in [
        ("web", Some(2)),
        ("db", Some(1)),
        ("app", Some(2)),
        ("test", None),
    ] {
        let request = shared::vm::CreateVm {
            autostart,
            ..create(name, false)
        };
        let made = jobs.create_vm(request, by()).await.unwrap();
        assert_eq!(ended(&jobs, made.id).await.state, JobState::Succeeded);
    }
    jobs.stop().await;
    let jobs = boot("first").await;
    assert_eq!(
        started_with_the_host(&jobs).await,
        [""; 0],
        "the server alone has restarted"
    );
    jobs.stop().await;
    let jobs = boot("second").await;
    assert_eq!(started_with_the_host(&jobs).await, ["db", "app", "web"]);
    for (name, runs) in [("db", true), ("test", false)] {
        let vm = server::db::vms::by_id(&jobs.world().db, vm_id(&jobs, name).await).await;
        let state = vm.unwrap().unwrap().state;
        assert_eq!(state == shared::vm::VmState::Running, runs, "{name} is {state}");
    }
    let off = jobs
        .power(vm_id(&jobs, "db").await, PowerAction::PowerOff, by())
        .await;
    ended(&jobs, off.unwrap().id).await;
    let host = server::db::places::hosts(&jobs.world().db)
        .await
        .unwrap()
        .remove(0);
    let keep_free = jobs.world().db.write(move |tx| {
        Box::pin(server::db::places::set_host_state(
            tx,
            host.id,
            shared::place::HostState::Maintenance,
        ))
    });
    keep_free.await.unwrap();
    jobs.stop().await;
    let jobs = boot("third").await;
    assert_eq!(
        started_with_the_host(&jobs).await.len(),
        3,
        "a host in maintenance starts none"
    );
    clean_up(&jobs).await;
}
