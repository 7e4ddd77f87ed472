//! Cuts a machine over: its source is shut down, what has changed last is uploaded, and it starts where it goes.
//!
//! What is done with the machines other jobs do, which this one asks for and waits for. Until the last step all of it can be
//! taken back: what was made is removed, and the source is started again if it ran.

mod outside;

use super::{child, power_off};
use crate::db::locks::LockMode;
use crate::db::migrations::become_;
use crate::db::{self};
use crate::hypervisor::RunState;
use crate::jobs::migrations::{adaptation_is_over, cycle_is_over};
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use crate::jobs::{By, Jobs, observe, request_of};
use crate::sources::Sources;
use async_trait::async_trait;
use outside::Outside;
use serde::{Deserialize, Serialize};
use shared::feed::Noun;
use shared::job::{Job, JobSpec, JobState, PowerSpec, Resource, ResourceRole, StepState, step};
use shared::migrate::adapt::AdaptedUpload;
use shared::migrate::can::{Verb, can};
use shared::migrate::{CutoverSpec, MigratingState, MigratingVm};
use shared::vm::{PatchVm, PowerAction, VmState};
use shared::{Code, CopyId, JobId, Timestamp, VmId};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

pub(super) struct CutOver;

/// The jobs that it has asked for.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Minted {
    /// Whether the migration was paused before: then it is again if the cutover does not come to its end.
    paused: bool,
    power_off: Option<JobId>,
    /// When the source was off, or was waited for in vain.
    off: Option<Timestamp>,
    sync: Option<JobId>,
    restore: Option<JobId>,
}

fn spec(cx: &Cx) -> Result<CutoverSpec, StepError> {
    match cx.job().spec.into_inner() {
        JobSpec::CutOver(spec) => Ok(spec),
        _ => Err(StepError::new(Code::Internal, "not a request to cut over")),
    }
}

fn jobs(cx: &Cx) -> Jobs {
    Jobs {
        inner: cx.inner.clone(),
    }
}

fn by(cx: &Cx) -> By {
    let name = spec(cx).map(|spec| spec.name.to_string()).unwrap_or_default();
    By(format!("cutover {name}"))
}

async fn migrating(cx: &Cx) -> Result<MigratingVm, StepError> {
    Ok(db::migrations::by_id(cx.db(), spec(cx)?.migrating_vm).await?)
}

/// The ids of what it asks for once, however often its steps are repeated.
#[derive(Clone, Copy)]
enum Once {
    PowerOff = 1,
    Restore = 2,
}

fn request(cx: &Cx, what: Once) -> Uuid {
    request_of([cx.id().0, Uuid::from_u128(what as u128)])
}

/// The job that was asked for, if it was: the process may have ended before that was written down.
async fn asked(cx: &Cx, what: Once, kept: Option<JobId>) -> Result<Option<JobId>, StepError> {
    if kept.is_some() {
        return Ok(kept);
    }
    let (request, By(by), ever) = (request(cx, what), by(cx), Timestamp::from_micros(0));
    let found = cx
        .db()
        .reading(async |conn| db::jobs::by_request(conn, request, &by, ever).await);
    Ok(found.await?.map(|job| job.id))
}

/// Writes down what has been minted.
async fn keep(cx: &Cx, minted: &Minted) -> Result<(), StepError> {
    cx.mint(minted);
    cx.commit(|_| Box::pin(async { Ok(()) })).await
}

/// Sets the state of the migration, and does what else belongs to it.
async fn become_state(
    cx: &Cx,
    state: MigratingState,
    change: impl FnOnce(&mut MigratingVm) + Send + 'static,
) -> Result<(), StepError> {
    let (id, now) = (spec(cx)?.migrating_vm, cx.world().clock.now());
    cx.commit(move |tx| {
        Box::pin(async move {
            let mut vm = db::migrations::known(tx.conn(), &id.to_string()).await?;
            become_(&mut vm, state, now);
            change(&mut vm);
            db::migrations::save(tx, &vm).await
        })
    })
    .await
}

/// From here on no cycle begins by itself; the one that is at work comes to its end.
async fn previous_cycle(cx: &Cx) -> Result<(), StepError> {
    let vm = migrating(cx).await?;
    let job = cx.id();
    if vm.cutover_job != Some(job) || !vm.state.is_busy() {
        can(Verb::CutOver, &vm)?;
        let paused = vm.state == MigratingState::Paused;
        cx.mint(&Minted {
            paused,
            ..Minted::default()
        });
        become_state(cx, MigratingState::CuttingOver, move |vm| {
            (vm.cutover_job, vm.next_time) = (Some(job), None);
        })
        .await?;
    }
    if let Some(cycle) = migrating(cx).await?.current_cycle {
        cx.message("the cycle that is at work comes to its end");
        settle(cx, cycle).await?;
    }
    Ok(())
}

/// Waits for a cycle, and notes how it ended.
async fn settle(cx: &Cx, cycle: JobId) -> Result<Job, StepError> {
    let job = child::until(cx, cycle, |_| false).await?;
    let (id, now, ended) = (spec(cx)?.migrating_vm, cx.world().clock.now(), job.clone());
    cx.commit(move |tx| {
        Box::pin(async move { cycle_is_over(tx, &id.to_string(), cycle, Some(&ended), now).await })
    })
    .await?;
    Ok(job)
}

async fn shut_down(cx: &Cx) -> Result<(), StepError> {
    let (spec, mut minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    if let Some(outside) = Outside::of(cx).await? {
        outside.shut_down(cx).await?;
        minted.off = minted.off.or(Some(db::now()));
        return keep(cx, &minted).await;
    }
    let Some(source) = spec.source_vm else {
        // What was exported does not run.
        minted.off = minted.off.or(Some(db::now()));
        return keep(cx, &minted).await;
    };
    let source = super::vm(cx, source).await?;
    cx.resource(Resource {
        noun: Noun::Vm,
        id: source.id.to_string(),
        name: source.name.clone(),
        role: ResourceRole::Source,
    });
    minted.power_off = asked(cx, Once::PowerOff, minted.power_off).await?;
    if minted.power_off.is_none() && source.state != VmState::Stopped {
        let (action, after) = match source.state {
            VmState::Running => (PowerAction::ShutDown, Some(spec.request.power_off_after_seconds)),
            // Nobody hears the power button.
            _ => (PowerAction::PowerOff, None),
        };
        let power = JobSpec::PowerVm(PowerSpec {
            vm: source.id,
            action,
            power_off_after_seconds: after,
        });
        let request = request(cx, Once::PowerOff);
        let job = jobs(cx).submit(power, Some(request), None, by(cx)).await?;
        minted.power_off = Some(job.id);
        keep(cx, &minted).await?;
    }
    if let Some(job) = minted.power_off {
        cx.message(format!("{} is shutting down", source.name));
        child::done(cx, job).await?;
    }
    if super::vm(cx, source.id).await?.state == VmState::Error {
        // It crashed on the way: it is off, and what is on its disks counts.
        power_off(cx, source.id).await?;
    }
    still_off(cx, source.id).await?;
    minted.off = minted.off.or(Some(db::now()));
    keep(cx, &minted).await
}

/// What the source writes from here on would be lost.
async fn still_off(cx: &Cx, source: VmId) -> Result<(), StepError> {
    let vm = super::vm(cx, source).await?;
    match vm.state {
        VmState::Stopped => Ok(()),
        _ => Err(was_started(vm.name.as_str())),
    }
}

fn was_started(name: &str) -> StepError {
    let text = format!(
        "{name} was started while it was cut over: what it writes would be lost; leave it off, and cut over again"
    );
    StepError::new(Code::Aborted, text)
}

async fn final_sync(cx: &Cx) -> Result<(), StepError> {
    let (spec, mut minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    become_state(cx, MigratingState::FinalSync, |_| ()).await?;
    let vm = migrating(cx).await?;
    // The cycle before has ended: one at work is its own.
    let cycle = match minted.sync.or(vm.current_cycle) {
        Some(cycle) => cycle,
        None => {
            let source = Sources::of(cx.world()).of_migration(&vm).await?;
            jobs(cx).cycle(&vm, &source, by(cx)).await?.id
        }
    };
    minted.sync = Some(cycle);
    keep(cx, &minted).await?;
    let job = settle(cx, cycle).await?;
    child::good(job)?;
    if let Some(outside) = Outside::of(cx).await?
        && outside.is_active().await?
    {
        return Err(was_started(&migrating(cx).await?.source_vm_name));
    }
    match spec.source_vm {
        Some(source) => still_off(cx, source).await,
        None => Ok(()),
    }
}

/// Adapts what was uploaded last, unless that was done ahead: what has not changed since stays as it was adapted.
async fn adapt(cx: &Cx) -> Result<(), StepError> {
    let vm = migrating(cx).await?;
    let none = || StepError::new(Code::Internal, "nothing was uploaded");
    let upload = vm.last_copy.ok_or_else(none)?;
    if vm.adapted.is_some_and(|adapted| adapted.upload == upload) {
        return Ok(());
    }
    if let Some(adapted) = vm.adapted
        && is_the_same(cx, upload, adapted.upload).await?
    {
        cx.message("nothing has changed since it was adapted");
        let adapted = AdaptedUpload { upload, ..adapted };
        return become_state(cx, vm.state, move |vm| vm.adapted = Some(adapted)).await;
    }
    let last = vm.adaptation.as_ref().filter(|last| !last.over);
    let job = match last.and_then(|last| Some((last.upload, last.job?))) {
        Some((of, job)) if of == upload => job,
        earlier => {
            if let Some((_, job)) = earlier {
                // Nobody needs it any more.
                adapted_by(cx, child::cancelled(cx, job).await?).await?;
            }
            jobs(cx).adapt(&vm, upload, by(cx)).await?.id
        }
    };
    let ended = child::until(cx, job, |_| false).await?;
    adapted_by(cx, ended.clone()).await?;
    child::good(ended).map(drop)
}

/// Notes how an adaptation ended. One that was cancelled is begun anew when cycles go on.
async fn adapted_by(cx: &Cx, job: Job) -> Result<(), StepError> {
    let id = spec(cx)?.migrating_vm.to_string();
    cx.commit(move |tx| {
        Box::pin(async move {
            if job.state != JobState::Cancelled {
                return adaptation_is_over(tx, &id, job.id, Some(&job)).await;
            }
            let mut vm = db::migrations::known(tx.conn(), &id).await?;
            if vm
                .adaptation
                .as_ref()
                .is_some_and(|last| last.job == Some(job.id))
            {
                vm.adaptation = None;
                db::migrations::save(tx, &vm).await?;
            }
            Ok(())
        })
    })
    .await
}

/// Cancels the adaptation of the last upload, which a later one makes up for.
async fn cancel_adaptation(cx: &Cx) -> Result<(), StepError> {
    let last = migrating(cx).await?.adaptation.filter(|last| !last.over);
    match last.and_then(|last| last.job) {
        Some(job) => adapted_by(cx, child::cancelled(cx, job).await?).await,
        None => Ok(()),
    }
}

/// Whether an upload has what another has: its cycle found nothing that had changed since.
async fn is_the_same(cx: &Cx, upload: CopyId, earlier: CopyId) -> Result<bool, StepError> {
    let stored = db::jobs::by_id(cx.db(), JobId(upload.0)).await?;
    let progress = stored.and_then(|stored| stored.job.outcome.read()?.copy);
    Ok(progress.is_some_and(|p| p.parent == Some(earlier) && p.figures.read_bytes == 0))
}

/// Cancels the final sync. It is not waited for: where its target is away that may take long, and the source is to run again.
async fn cancel_sync(cx: &Cx) -> Result<(), StepError> {
    let vm = migrating(cx).await?;
    let own = vm.cutover_job == Some(cx.id()) && vm.state == MigratingState::FinalSync;
    if let Some(cycle) = vm.current_cycle.filter(|_| own)
        && let Err(e) = jobs(cx).cancel(cycle).await
    {
        cx.log(format!("job {cycle} is not cancelled: {e}"));
    }
    Ok(())
}

/// Whether a step of a job is done.
fn has_done(job: &Job, name: &str) -> bool {
    job.steps
        .iter()
        .any(|s| s.name == name && s.state == StepState::Done)
}

async fn prepare(cx: &Cx) -> Result<(), StepError> {
    let (spec, mut minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let job = match minted.restore {
        Some(job) => job,
        None => {
            let vm = migrating(cx).await?;
            let asked = jobs(cx)
                .cutover_machine(&vm, (cx.id(), &spec.request), request(cx, Once::Restore), by(cx))
                .await;
            let job = asked?.id;
            minted.restore = Some(job);
            keep(cx, &minted).await?;
            job
        }
    };
    let job = child::until(cx, job, |job| has_done(job, step::ATTACHING)).await?;
    child::good(job).map(drop)
}

fn restored(minted: &Minted) -> Result<JobId, StepError> {
    let none = || StepError::new(Code::Internal, "no machine was asked for");
    minted.restore.ok_or_else(none)
}

/// The machine starts from what was uploaded; its disks come after it.
async fn instantiate(cx: &Cx) -> Result<(), StepError> {
    let minted: Minted = cx.minted()?;
    let job = restored(&minted)?;
    let job = child::until(cx, job, |job| has_done(job, step::INSTANTIATING)).await?;
    let job = child::good(job)?;
    if let Some(product) = job.resource(ResourceRole::Product, Noun::Vm) {
        cx.resource(product.clone());
    }
    let started = job
        .steps
        .iter()
        .find(|s| s.name == step::INSTANTIATING)
        .and_then(|s| s.end_time);
    if let (Some(off), Some(started)) = (minted.off, started) {
        let millis = u64::try_from(started.since(off) / 1000).unwrap_or(0);
        cx.outcome(|o| o.downtime_millis = Some(millis));
        cx.message(format!("it runs; nothing ran for {millis} ms"));
    }
    cx.commit(|_| Box::pin(async { Ok(()) })).await
}

async fn no_autostart(cx: &Cx) -> Result<(), StepError> {
    match Outside::of(cx).await? {
        Some(outside) => outside.no_autostart().await,
        None => Ok(()),
    }
}

/// From here on the machine is where it was to go.
async fn finish(cx: &Cx) -> Result<(), StepError> {
    let spec = spec(cx)?;
    if spec.outside.is_some()
        && let Err(e) = no_autostart(cx).await
    {
        cx.log(format!(
            "the source may be started with its host, turn that off there: {}",
            e.status.message
        ));
    }
    let product = cx.job().resource(ResourceRole::Product, Noun::Vm).cloned();
    let product: Option<VmId> = product.and_then(|product| product.id.parse().ok());
    let off = PatchVm {
        autostart: Some(None),
        ..PatchVm::default()
    };
    let (id, now) = (spec.migrating_vm, cx.world().clock.now());
    cx.commit(move |tx| {
        Box::pin(async move {
            let mut vm = db::migrations::known(tx.conn(), &id.to_string()).await?;
            become_(&mut vm, MigratingState::Cutover, now);
            vm.target_vm = product;
            db::migrations::save(tx, &vm).await?;
            // Two machines that are one must not come up together when the host starts.
            if let Some(source) = spec.source_vm
                && db::vms::get(tx.conn(), source).await?.is_some()
            {
                db::hardware::patch(tx, source, &off).await?;
            }
            Ok(())
        })
    })
    .await
}

/// Removes what the restore has made.
async fn unmake(cx: &Cx, minted: &Minted) -> Result<(), StepError> {
    let Some(restore) = asked(cx, Once::Restore, minted.restore).await? else {
        return Ok(());
    };
    let job = child::cancelled(cx, restore).await?;
    let product = job.resource(ResourceRole::Product, Noun::Vm);
    let product: Option<VmId> = product.and_then(|product| product.id.parse().ok());
    let Some(product) = product else { return Ok(()) };
    let there = db::vms::by_id(cx.db(), product).await?;
    let Some(made) = there.filter(|_| job.state == JobState::Succeeded) else {
        return Ok(());
    };
    // All of it was home already.
    if made.state.has_process() {
        let off = jobs(cx).power(product, PowerAction::PowerOff, by(cx)).await?;
        child::done(cx, off.id).await?;
    }
    let gone = jobs(cx).delete_vm(product, by(cx)).await?;
    child::done(cx, gone.id).await.map(drop)
}

/// A guest that has heard its power button may shut down yet, though nobody asks for it any more.
async fn heard(cx: &Cx, source: VmId, within_seconds: u32) -> Result<(), StepError> {
    let mut events = cx.hypervisor().events();
    let off = async {
        while cx.hypervisor().state(source).await != RunState::Stopped {
            cx.message("its guest was asked to shut down, and may do so yet");
            if let Err(RecvError::Closed) = events.recv().await {
                return;
            }
        }
    };
    let within = Duration::from_secs(within_seconds.into());
    // One that has not by then did not hear.
    _ = tokio::time::timeout(within, off).await;
    observe::look(cx.world(), source).await?;
    Ok(())
}

/// Starts the source again, if it ran.
async fn start_again(cx: &Cx, minted: &mut Minted) -> Result<(), StepError> {
    let spec = spec(cx)?;
    if spec.ran
        && let Some(outside) = Outside::of(cx).await?
    {
        cx.message(format!(
            "{} is started again",
            migrating(cx).await?.source_vm_name
        ));
        return outside.start().await;
    }
    let Some(source) = spec.source_vm else {
        return Ok(());
    };
    if let Some(job) = asked(cx, Once::PowerOff, minted.power_off).await? {
        let job = child::cancelled(cx, job).await?;
        let asked = job.start_time.is_some() && job.state != JobState::Succeeded;
        if asked && minted.off.is_none() {
            heard(cx, source, spec.request.power_off_after_seconds).await?;
            minted.off = Some(db::now());
            keep(cx, minted).await?;
        }
    }
    let Some(source) = db::vms::by_id(cx.db(), source).await? else {
        return Ok(());
    };
    if !spec.ran || source.state.has_process() {
        return Ok(());
    }
    cx.message(format!("{} is started again", source.name));
    let on = jobs(cx).power(source.id, PowerAction::Start, by(cx)).await?;
    child::done(cx, on.id).await.map(drop)
}

#[async_trait]
impl Kind for CutOver {
    fn plan(&self, spec: &JobSpec) -> Vec<Plan> {
        let adapts = matches!(spec, JobSpec::CutOver(spec) if spec.adapts);
        vec![
            Plan::always(step::PREVIOUS_CYCLE),
            Plan::always(step::SHUTTING_DOWN_SOURCE),
            Plan::always(step::FINAL_SYNC),
            Plan::only_if(step::ADAPTING_OS, adapts),
            Plan::always(step::PREPARING_VM_DISKS),
            Plan::always(step::INSTANTIATING),
            Plan::no_return(step::FINALIZING),
        ]
    }

    /// It holds no machine itself: what it asks for does.
    fn mode(&self, _spec: &JobSpec) -> LockMode {
        LockMode::Shared
    }

    async fn run(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        match name {
            step::PREVIOUS_CYCLE => previous_cycle(cx).await,
            step::SHUTTING_DOWN_SOURCE => shut_down(cx).await,
            step::FINAL_SYNC => final_sync(cx).await,
            step::ADAPTING_OS => adapt(cx).await,
            step::PREPARING_VM_DISKS => prepare(cx).await,
            step::INSTANTIATING => instantiate(cx).await,
            _ => finish(cx).await,
        }
    }

    async fn undo(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        let Some(mut minted) = cx.data::<Minted>()? else {
            return Ok(());
        };
        match name {
            step::PREPARING_VM_DISKS => unmake(cx, &minted).await,
            step::ADAPTING_OS => cancel_adaptation(cx).await,
            step::FINAL_SYNC => cancel_sync(cx).await,
            step::SHUTTING_DOWN_SOURCE => start_again(cx, &mut minted).await,
            step::PREVIOUS_CYCLE => {
                let vm = migrating(cx).await?;
                if vm.cutover_job != Some(cx.id()) || !vm.state.is_busy() {
                    return Ok(());
                }
                let (paused, now) = (minted.paused, cx.world().clock.now());
                let state = match paused {
                    true => MigratingState::Paused,
                    false => MigratingState::Active,
                };
                become_state(cx, state, move |vm| {
                    vm.next_time = (!paused).then_some(now);
                })
                .await
            }
            _ => Ok(()),
        }
    }
}
