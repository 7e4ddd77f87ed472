//! What a policy says of a copy that it has asked for: when that may run, and which of those before it stay.

use crate::copies::retention;
use crate::copies::schedule::{self, Gate, Windows};
use crate::db;
use crate::jobs::step::{Cx, StepError};
use crate::jobs::{By, Jobs, request_of};
use shared::job::JobSpec;
use shared::migrate::MigratingVm;
use shared::target::PruneSpec;
use shared::{CopyId, MigratingVmId, PolicyId, TargetId, Timestamp, VmId};
use uuid::Uuid;

/// A day, in microseconds.
const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;

async fn gate(cx: &Cx, policy: Option<PolicyId>) -> Result<Gate, StepError> {
    let stored = match policy {
        Some(id) => db::policies::by_id(cx.db(), id).await?,
        None => None,
    };
    let windows = stored.map(|stored| stored.policy.window).unwrap_or_default();
    Ok(Windows::parse(&windows)?.open_at(cx.world().clock.now()))
}

/// Until when a copy may run; it stands still where that is not now.
pub(super) async fn open_until(cx: &Cx, policy: Option<PolicyId>) -> Result<Option<Timestamp>, StepError> {
    match gate(cx, policy).await? {
        Gate::Open { until } => Ok(until),
        Gate::Closed { until } => Err(closed(until)),
    }
}

fn closed(until: Timestamp) -> StepError {
    StepError::waiting_until(
        until,
        format!("no window of its policy is open: it goes on at {until}"),
    )
}

/// What a copy waits for whose window has closed.
pub(super) async fn shut(cx: &Cx, policy: Option<PolicyId>) -> StepError {
    match gate(cx, policy).await {
        Ok(Gate::Closed { until }) => closed(until),
        // It was changed meanwhile: looked at anew, at once.
        Ok(Gate::Open { .. }) => closed(cx.world().clock.now()),
        Err(e) => e,
    }
}

/// Removes the copies of a machine at a target that a policy made and keeps no longer, and has their target cleaned up once a
/// day. What cannot be removed now is, with the next copy.
pub(super) async fn apply(
    cx: &Cx,
    jobs: &Jobs,
    policy: PolicyId,
    of: (VmId, TargetId),
) -> Result<(), StepError> {
    let Some(stored) = db::policies::by_id(cx.db(), policy).await? else {
        return Ok(());
    };
    let policy = stored.policy;
    if !policy.enabled || policy.retention.keeps_all() {
        return Ok(());
    }
    let zone = schedule::zone("schedule.timeZone", policy.time_zone())?;
    let now = cx.world().clock.now();
    let all = retention::verdicts(cx.db(), policy.id, of, &policy.retention, (&zone, now)).await?;
    let dropped: Vec<_> = all.iter().filter(|verdict| !verdict.keep).collect();
    remove(
        cx,
        dropped.iter().map(|verdict| verdict.copy),
        policy.name.as_str(),
    )
    .await?;
    prune(cx, jobs, of.1, now).await
}

/// Removes the uploads of a migration that it keeps no longer, and has their target cleaned up once a day.
pub(super) async fn uploads(
    cx: &Cx,
    jobs: &Jobs,
    migration: MigratingVmId,
    (of, target): (VmId, TargetId),
) -> Result<(), StepError> {
    let vm = db::migrations::by_id(cx.db(), migration).await?;
    let now = cx.world().clock.now();
    let all = retention::uploads(cx.db(), migration, vm.policy.keep_last, now).await?;
    // On a clock that was set back the newest looks like the oldest.
    let own = CopyId(cx.id().0);
    let dropped = all.iter().filter(|verdict| !verdict.keep && verdict.copy != own);
    let dropped: Vec<_> = dropped.collect();
    remove(cx, dropped.iter().map(|verdict| verdict.copy), vm.name.as_str()).await?;
    adapted(cx, &vm, of, target).await?;
    prune(cx, jobs, target, now).await
}

/// Removes what was adapted of uploads that are gone, and what was adapted anew since.
async fn adapted(cx: &Cx, vm: &MigratingVm, of: VmId, target: TargetId) -> Result<(), StepError> {
    let mut all = db::copies::adapted(cx.db(), target, of).await?;
    // The newest of an upload first.
    all.sort_by(|a, b| b.cmp(a));
    let (mut seen, mut dropped) = (Vec::new(), Vec::new());
    for (copy, upload) in all {
        let there = db::copies::by_id(cx.db(), upload).await?.is_some();
        let in_use = vm.adapted.is_some_and(|adapted| adapted.copy == copy);
        if !in_use && (!there || seen.contains(&upload)) {
            dropped.push(copy);
        }
        seen.push(upload);
    }
    remove(cx, dropped.into_iter(), vm.name.as_str()).await
}

/// Removes copies that somebody keeps no longer; what cannot be removed now is, with the next copy.
async fn remove(cx: &Cx, copies: impl Iterator<Item = CopyId>, keeper: &str) -> Result<(), StepError> {
    for id in copies {
        let Some(copy) = db::copies::by_id(cx.db(), id).await? else {
            continue;
        };
        let what = format!("the copy of {}, {}", copy.snapshot_time, copy.id);
        match cx.world().copies.remove(&copy).await {
            Ok(()) => cx.log(format!("{what}, is removed: {keeper} keeps it no longer")),
            Err(e) => {
                cx.log(format!("{what}, stays for now: {}", db::chain(&e)));
                if e.is_away() {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Cleans a target up, once a day: what was marked a day ago goes then.
async fn prune(cx: &Cx, jobs: &Jobs, target: TargetId, now: Timestamp) -> Result<(), StepError> {
    let stored = db::targets::known(cx.db(), &target.to_string()).await?;
    let day = now.micros().div_euclid(DAY_MICROS);
    let request = request_of([target.0, Uuid::from_u128(day.unsigned_abs().into())]);
    let spec = JobSpec::PruneTarget(PruneSpec {
        target,
        target_name: stored.target.name,
    });
    if let Err(e) = jobs.submit(spec, Some(request), None, By("copies".into())).await {
        cx.log(format!("the target is not cleaned up: {e}"));
    }
    Ok(())
}
