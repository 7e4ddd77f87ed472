//! Policies at work: their runs begin when they are due, each with a copy task for every machine and target.
//!
//! A run is written down in the transaction that notes that its moment was dealt with, and filled with its tasks then: a server
//! that ends in between goes on with that. What is due is only looked at, never counted: after a time in which no server ran
//! the newest moment of a policy is made up for, and what passed before it was missed.

mod change;

use super::{Asked, By, Jobs, NotBegun, changed, request_of};
use crate::copies::schedule::{Gate, Schedule, Windows};
use crate::db::copy_runs::Run;
use crate::db::policies::Stored;
use crate::db::{self, Db, DbError, now};
use shared::copy::{CopySpec, CreateCopyTask};
use shared::feed::Noun;
use shared::job::JobSpec;
use shared::policy::Policy;
use shared::target::Target;
use shared::vm::{Vm, VmState};
use shared::{RunId, Status, TargetId, Timestamp, VmId};
use std::collections::HashSet;
use uuid::Uuid;

/// How many missed tasks of a policy are written down in a day.
const MISSED_A_DAY: u64 = 200;
const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;
/// How long after the database has failed it is asked again, in microseconds.
const AGAIN_MICROS: i64 = 60 * 1_000_000;

/// Begins what is due: at the start, when a policy has changed, and when the next is due.
pub(super) async fn run(jobs: Jobs) {
    let clock = jobs.world().clock.clone();
    let started = clock.now();
    let mut changes = jobs.world().db.subscribe();
    loop {
        let next = look(&jobs, started).await.unwrap_or_else(|e| {
            tracing::error!(error = %db::chain(&e), "look for policies that are due");
            Some(clock.now().plus_micros(AGAIN_MICROS))
        });
        tokio::select! {
            () = clock.until_some(next) => {}
            () = changed(&mut changes, Noun::Policy) => {}
            () = jobs.inner.stop.cancelled() => return,
        }
    }
}

/// Begins what is due and goes on with what has begun; answers when the next is due.
async fn look(jobs: &Jobs, started: Timestamp) -> Result<Option<Timestamp>, DbError> {
    let db = &jobs.world().db;
    let mut next: Option<Timestamp> = None;
    for stored in db::policies::enabled(db).await? {
        let due = begin(jobs, &stored, started).await?;
        next = next.into_iter().chain(due).min();
    }
    for run in db::copy_runs::unfilled(db).await? {
        fill(jobs, &run).await?;
    }
    Ok(next)
}

/// Begins the run of a policy whose time has come; answers when it is due next.
async fn begin(jobs: &Jobs, stored: &Stored, started: Timestamp) -> Result<Option<Timestamp>, DbError> {
    let policy = &stored.policy;
    let Some(schedule) = &policy.schedule else {
        return Ok(None);
    };
    let parsed = Schedule::parse(schedule).and_then(|s| Ok((s, Windows::parse(&policy.window)?)));
    let (schedule, windows) = match parsed {
        Ok(parsed) => parsed,
        Err(e) => {
            // It was looked at when it was made; the zones of the host may have changed.
            tracing::error!(policy = %policy.id, "{} is never due: {e}", policy.name);
            return Ok(None);
        }
    };
    let now = jobs.world().clock.now();
    if let Some(due) = schedule.newest(stored.last_time, now) {
        let why = |time: Timestamp| match time < started {
            true => format!("its time, {time}, passed while the server was down"),
            false => format!("its time, {time}, passed while the host slept, or its clock was set"),
        };
        let before = schedule.newest(stored.last_time, due.plus_micros(-1));
        let mut runs: Vec<Run> = before
            .map(|time| scheduled(policy, time, Some(why(time))))
            .into_iter()
            .collect();
        let too_late = closed_since(&windows, due, now);
        let missed = too_late.then(|| format!("{}, and its window has closed", why(due)));
        runs.push(scheduled(policy, due, missed));
        let dealt = stored.clone();
        let written = jobs.world().db.write(move |tx| {
            Box::pin(async move {
                if db::policies::deal_with(tx, &dealt, due).await? {
                    for run in &runs {
                        db::copy_runs::insert(tx, run).await?;
                    }
                }
                Ok(())
            })
        });
        written.await?;
    }
    Ok(schedule.next_after(now.max(stored.last_time)))
}

fn scheduled(policy: &Policy, time: Timestamp, missed: Option<String>) -> Run {
    Run {
        id: RunId(Uuid::now_v7()),
        policy: policy.id,
        policy_name: policy.name.clone(),
        time,
        create_time: now(),
        created_by: format!("policy {}", policy.name),
        scheduled: true,
        missed,
        filled: false,
    }
}

/// Whether copies might have run at some time since, and may not now.
fn closed_since(windows: &Windows, due: Timestamp, now: Timestamp) -> bool {
    let open_then = match windows.open_at(due) {
        Gate::Open { .. } => true,
        Gate::Closed { until } => until < now,
    };
    open_then && matches!(windows.open_at(now), Gate::Closed { .. })
}

/// Gives a run the tasks that it lacks.
async fn fill(jobs: &Jobs, run: &Run) -> Result<(), DbError> {
    let db = &jobs.world().db;
    if let Some(stored) = db::policies::by_id(db, run.policy).await? {
        let there = db::jobs::of_run(db, run.id).await?;
        let there: HashSet<_> = there.iter().filter_map(|job| of(&job.spec)).collect();
        let busy = match run.scheduled {
            true => busy(db, run).await?,
            // A person knows better.
            false => HashSet::new(),
        };
        let since = now().plus_micros(-DAY_MICROS);
        let written = db::copy_runs::missed_since(db, run.policy, since).await?;
        let mut room = MISSED_A_DAY.saturating_sub(written);
        let mut targets = Vec::new();
        for id in &stored.targets {
            targets.push(db::targets::known(db, &id.to_string()).await?.target);
        }
        for vm in machines(db, &stored.policy).await? {
            for target in &targets {
                if jobs.inner.stop.is_cancelled() {
                    // The next start goes on with it.
                    return Ok(());
                }
                let pair = (vm.id, target.id);
                if there.contains(&pair) {
                    continue;
                }
                let missed = run.missed.clone().or_else(|| {
                    let time = run.time;
                    let text = format!("its time, {time}, passed while the copy before it was not over");
                    busy.contains(&pair).then_some(text)
                });
                if missed.is_some() {
                    if room == 0 {
                        tracing::warn!(policy = %run.policy, "{} misses its time, and no more of that is noted today", vm.name);
                        continue;
                    }
                    room -= 1;
                }
                task(jobs, run, &stored.policy, (&vm, target), missed).await?;
            }
        }
    }
    let (id, policy) = (run.id, run.policy);
    db.write(move |tx| Box::pin(async move { db::copy_runs::set_filled(tx, id, policy).await }))
        .await
}

/// What a copy task is of.
fn of(spec: &JobSpec) -> Option<(VmId, TargetId)> {
    match spec {
        JobSpec::CopySnapshot(spec) => Some((spec.vm, spec.target)),
        _ => None,
    }
}

/// What the tasks of other runs of the policy are of that are not over.
async fn busy(db: &Db, run: &Run) -> Result<HashSet<(VmId, TargetId)>, DbError> {
    let other = |spec: &JobSpec| {
        matches!(spec, JobSpec::CopySnapshot(spec)
            if spec.policy == Some(run.policy) && spec.run != Some(run.id))
    };
    let active = db::jobs::active(db).await?;
    let specs = active.iter().map(|stored| &*stored.job.spec);
    Ok(specs.filter(|spec| other(spec)).filter_map(of).collect())
}

/// The machines of a policy as of now, by name: those that it names, and those that have its label.
async fn machines(db: &Db, policy: &Policy) -> Result<Vec<Vm>, DbError> {
    let label = policy.label.as_deref().and_then(|label| label.split_once('='));
    let has = |vm: &Vm| label.is_some_and(|(key, value)| vm.labels.get(key).is_some_and(|v| v == value));
    let named: HashSet<VmId> = policy.vms.iter().copied().collect();
    let mut found = Vec::new();
    for id in db::vms::ids(db).await? {
        let vm = db::vms::by_id(db, id).await?;
        found.extend(vm.filter(|vm| named.contains(&vm.id) || has(vm)));
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// One task of a run; one that cannot be is written down with the reason.
async fn task(
    jobs: &Jobs,
    run: &Run,
    policy: &Policy,
    (vm, target): (&Vm, &Target),
    missed: Option<String>,
) -> Result<(), DbError> {
    // Of a machine that does not run the disks are copied alone.
    let memory = policy.memory && vm.state == VmState::Running;
    let boot = match policy.verify {
        Some(rule) => {
            let made = db::copy_runs::made(&jobs.world().db, policy.id, vm.id, target.id).await?;
            (made + 1).is_multiple_of(u64::from(rule.boot_every))
        }
        None => false,
    };
    let request_id = request_of([run.id.0, vm.id.0, target.id.0]);
    let request = CreateCopyTask {
        target: target.id.to_string(),
        snapshot: None,
        memory,
        quiesce: policy.quiesce && !memory,
        boot,
        request_id: None,
    };
    let by = By(run.created_by.clone());
    let why = match missed {
        Some(why) => NotBegun::Missed(why),
        None => {
            let asked = Asked {
                policy: Some(policy.id),
                run: Some(run.id),
                migration: None,
            };
            let request = CreateCopyTask {
                request_id: Some(request_id),
                ..request.clone()
            };
            match jobs.copy_snapshot(vm, request, asked, by.clone()).await {
                Ok(_) => return Ok(()),
                Err(status) => NotBegun::Refused(status),
            }
        }
    };
    let spec = CopySpec {
        vm: vm.id,
        vm_name: vm.name.clone(),
        target: target.id,
        target_name: target.name.clone(),
        snapshot: None,
        policy: Some(policy.id),
        run: Some(run.id),
        migration: None,
        outside: None,
        request,
    };
    jobs.submit_failed(spec, request_id, by, why).await
}

impl Jobs {
    /// Makes the copies of a policy now; answers the run.
    pub async fn run_policy(&self, reference: &str, By(by): By) -> Result<RunId, Status> {
        let db = &self.world().db;
        let stored = db.reading(async |conn| db::policies::known(conn, reference).await);
        let run = Run {
            created_by: by,
            scheduled: false,
            ..scheduled(&stored.await?.policy, now(), None)
        };
        let written = run.clone();
        db.write(move |tx| Box::pin(async move { db::copy_runs::insert(tx, &written).await }))
            .await?;
        fill(self, &run).await?;
        Ok(run.id)
    }
}
