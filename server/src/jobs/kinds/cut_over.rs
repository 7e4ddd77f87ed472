//! Cuts a machine over: its source is shut down, what has changed last is uploaded, and it starts where it goes.
//!
//! What is done with the machines other jobs do, which this one asks for and waits for. Until the last step all of it can be
//! taken back: what was made is removed, and the source is started again if it ran.

use super::child;
use crate::db::locks::LockMode;
use crate::db::migrations::become_;
use crate::db::{self};
use crate::jobs::migrations::{adaptation_is_over, cycle_is_over};
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use crate::jobs::{By, Jobs, request_of};
use crate::sources::Sources;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shared::feed::Noun;
use shared::job::{Job, JobSpec, Resource, ResourceRole, StepState, step};
use shared::migrate::adapt::AdaptedUpload;
use shared::migrate::can::{Verb, can};
use shared::migrate::{CutoverSpec, MigratingState, MigratingVm};
use shared::vm::{PatchVm, PowerAction, VmState};
use shared::{Code, CopyId, JobId, Timestamp, VmId};

pub(super) struct CutOver;

/// The jobs that it has asked for.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Minted {
    /// Whether the migration was paused before: then it is again if the cutover does not come to its end.
    paused: bool,
    power_off: Option<JobId>,
    /// When the source was off.
    off: Option<Timestamp>,
    sync: Option<JobId>,
    #[serde(default)]
    adapt: Option<JobId>,
    restore: Option<JobId>,
    power_on: Option<JobId>,
    remove: Option<JobId>,
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
    if minted.power_off.is_none() && source.state != VmState::Stopped {
        let after = spec.request.power_off_after_seconds;
        let asked = match source.state {
            VmState::Running => jobs(cx).shut_down(source.id, Some(after), by(cx)).await,
            // Nobody hears the power button.
            _ => jobs(cx).power(source.id, PowerAction::PowerOff, by(cx)).await,
        };
        minted.power_off = Some(asked?.id);
        keep(cx, &minted).await?;
    }
    if let Some(job) = minted.power_off {
        cx.message(format!("{} is shutting down", source.name));
        child::done(cx, job).await?;
    }
    still_off(cx, source.id).await?;
    minted.off = minted.off.or(Some(db::now()));
    keep(cx, &minted).await
}

/// What the source writes from here on would be lost.
async fn still_off(cx: &Cx, source: VmId) -> Result<(), StepError> {
    let vm = super::vm(cx, source).await?;
    if vm.state == VmState::Stopped {
        return Ok(());
    }
    let text = format!(
        "{} was started while it was cut over: what it writes would be lost; leave it off, and cut over again",
        vm.name
    );
    Err(StepError::new(Code::Aborted, text))
}

async fn final_sync(cx: &Cx) -> Result<(), StepError> {
    let (spec, mut minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    become_state(cx, MigratingState::FinalSync, |_| ()).await?;
    let cycle = match minted.sync {
        Some(cycle) => cycle,
        None => {
            let vm = migrating(cx).await?;
            let source = Sources::of(cx.world()).of_migration(&vm).await?;
            let job = jobs(cx).cycle(&vm, &source, by(cx)).await?.id;
            minted.sync = Some(job);
            cx.mint(&minted);
            become_state(cx, MigratingState::FinalSync, move |vm| {
                if vm.current_cycle != Some(job) {
                    vm.current_cycle = Some(job);
                    vm.cycles += 1;
                }
            })
            .await?;
            job
        }
    };
    let job = settle(cx, cycle).await?;
    child::good(job)?;
    match spec.source_vm {
        Some(source) => still_off(cx, source).await,
        None => Ok(()),
    }
}

/// Adapts what was uploaded last, unless that was done ahead: what has not changed since stays as it was adapted.
async fn adapt(cx: &Cx) -> Result<(), StepError> {
    let mut minted: Minted = cx.minted()?;
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
    let job = match minted.adapt {
        Some(job) => job,
        None => {
            if let Some(last) = vm.adaptation.as_ref().filter(|last| !last.over) {
                // Of an earlier upload: nobody needs it any more.
                child::cancelled(cx, last.job).await?;
            }
            let once = request_of([cx.id().0, upload.0]);
            let job = jobs(cx).adapt(&vm, upload, once, by(cx)).await?.id;
            minted.adapt = Some(job);
            keep(cx, &minted).await?;
            job
        }
    };
    let ended = child::until(cx, job, |_| false).await?;
    let (id, of) = (spec(cx)?.migrating_vm, ended.clone());
    cx.commit(move |tx| {
        Box::pin(async move { adaptation_is_over(tx, &id.to_string(), job, Some(&of)).await })
    })
    .await?;
    child::good(ended).map(drop)
}

/// Whether an upload has what another has: its cycle found nothing that had changed since.
async fn is_the_same(cx: &Cx, upload: CopyId, earlier: CopyId) -> Result<bool, StepError> {
    let stored = db::jobs::by_id(cx.db(), JobId(upload.0)).await?;
    let progress = stored.and_then(|stored| stored.job.outcome.read()?.copy);
    Ok(progress.is_some_and(|p| p.parent == Some(earlier) && p.figures.read_bytes == 0))
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
                .cutover_machine(&vm, (cx.id(), &spec.request), by(cx))
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

/// From here on the machine is where it was to go.
async fn finish(cx: &Cx) -> Result<(), StepError> {
    let spec = spec(cx)?;
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
async fn unmake(cx: &Cx, minted: &mut Minted) -> Result<(), StepError> {
    let Some(restore) = minted.restore else {
        return Ok(());
    };
    let job = child::cancelled(cx, restore).await?;
    let product = job.resource(ResourceRole::Product, Noun::Vm);
    let product: Option<VmId> = product.and_then(|product| product.id.parse().ok());
    let Some(product) = product else { return Ok(()) };
    let there = db::vms::by_id(cx.db(), product).await?.is_some();
    if job.state != shared::job::JobState::Succeeded || !there {
        return Ok(());
    }
    // All of it was home already.
    if minted.remove.is_none() {
        minted.remove = Some(jobs(cx).delete_vm(product, by(cx)).await?.id);
        keep(cx, minted).await?;
    }
    if let Some(remove) = minted.remove {
        child::done(cx, remove).await?;
    }
    Ok(())
}

/// Starts the source again, if it ran.
async fn start_again(cx: &Cx, minted: &mut Minted) -> Result<(), StepError> {
    let spec = spec(cx)?;
    if let Some(job) = minted.power_off {
        child::cancelled(cx, job).await?;
    }
    let Some(source) = spec.source_vm else {
        return Ok(());
    };
    let Some(source) = db::vms::by_id(cx.db(), source).await? else {
        return Ok(());
    };
    if !spec.ran || source.state != VmState::Stopped {
        return Ok(());
    }
    if minted.power_on.is_none() {
        let asked = jobs(cx).power(source.id, PowerAction::Start, by(cx)).await;
        minted.power_on = Some(asked?.id);
        keep(cx, minted).await?;
    }
    if let Some(job) = minted.power_on {
        cx.message(format!("{} is started again", source.name));
        if let Err(e) = child::done(cx, job).await {
            // Tried again by another job.
            minted.power_on = None;
            keep(cx, minted).await?;
            return Err(e);
        }
    }
    Ok(())
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
            step::PREPARING_VM_DISKS => unmake(cx, &mut minted).await,
            step::ADAPTING_OS => match minted.adapt {
                Some(job) => child::cancelled(cx, job).await.map(drop),
                None => Ok(()),
            },
            step::FINAL_SYNC => match minted.sync {
                Some(cycle) => {
                    child::cancelled(cx, cycle).await?;
                    settle(cx, cycle).await.map(drop)
                }
                None => Ok(()),
            },
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
