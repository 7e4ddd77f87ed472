//! Removes what a migration kept, after its cutover: snapshots of the source, and its uploads.

use super::child;
use crate::copies::CopiesError;
use crate::db;
use crate::db::locks::LockMode;
use crate::db::migrations::become_;
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use crate::jobs::{By, Jobs};
use crate::sources::{Sources, libvirt};
use async_trait::async_trait;
use shared::job::{DeleteSnapshotSpec, JobSpec, step};
use shared::migrate::can::{Verb, can};
use shared::migrate::{FinalizeSpec, MigratingState};
use shared::{Code, VmId};

pub(super) struct FinalizeMigration;

fn spec(cx: &Cx) -> Result<FinalizeSpec, StepError> {
    match cx.job().spec.into_inner() {
        JobSpec::FinalizeMigration(spec) => Ok(spec),
        _ => Err(StepError::new(Code::Internal, "not a request to finalize")),
    }
}

async fn become_state(cx: &Cx, state: MigratingState) -> Result<(), StepError> {
    let (id, now) = (spec(cx)?.migrating_vm, cx.world().clock.now());
    cx.commit(move |tx| {
        Box::pin(async move {
            let mut vm = db::migrations::known(tx.conn(), &id.to_string()).await?;
            if vm.state == state {
                return Ok(());
            }
            if state == MigratingState::Finalizing {
                can(Verb::Finalize, &vm)?;
            }
            become_(&mut vm, state, now);
            db::migrations::save(tx, &vm).await
        })
    })
    .await
}

/// Removes the uploads. One that a machine still runs from is waited for: its disks are coming home.
async fn remove_uploads(cx: &Cx) -> Result<(), StepError> {
    let spec = spec(cx)?;
    let uploads = db::retention::uploads(cx.db(), spec.migrating_vm).await?;
    let mut all: Vec<_> = uploads.iter().map(|held| held.id).collect();
    if let Some(first) = all.first()
        && let Some(upload) = db::copies::by_id(cx.db(), *first).await?
    {
        let adapted = db::copies::adapted(cx.db(), upload.target, upload.vm).await?;
        all.extend(adapted.iter().map(|(copy, _)| *copy));
    }
    for id in all {
        let Some(copy) = db::copies::by_id(cx.db(), id).await? else {
            continue;
        };
        if copy.legal_hold {
            cx.log(format!(
                "the copy of {}, {}, stays: it is under legal hold",
                copy.snapshot_time, copy.id
            ));
            continue;
        }
        match cx.world().copies.remove(&copy).await {
            Ok(()) => cx.log(format!(
                "the copy of {}, {}, is removed",
                copy.snapshot_time, copy.id
            )),
            Err(CopiesError::Refused(why)) if why.code == Code::FailedPrecondition => {
                return Err(StepError::waiting(why.message));
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

async fn let_go(cx: &Cx) -> Result<(), StepError> {
    let spec = spec(cx)?;
    let vm = db::migrations::by_id(cx.db(), spec.migrating_vm).await?;
    if !spec.request.keep_copies {
        remove_uploads(cx).await?;
    }
    let jobs = Jobs {
        inner: cx.inner.clone(),
    };
    if let Ok(source) = vm.source_vm.parse::<VmId>() {
        for snapshot in db::migrations::snapshots_for(cx.db(), source, vm.target).await? {
            let job = JobSpec::DeleteSnapshot(DeleteSnapshotSpec { vm: source, snapshot });
            // Each try asks anew: one that failed would be answered again and again.
            match jobs
                .submit(job, None, None, By(format!("migration {}", vm.name)))
                .await
            {
                Ok(job) => drop(child::done(cx, job.id).await?),
                // Gone since, or held: it is the source's own affair.
                Err(e) => cx.log(format!("snapshot {snapshot} stays: {e}")),
            }
        }
    }
    if let Some(place) = Sources::of(cx.world()).libvirt(vm.source).await?
        && let Err(e) = libvirt::forget(&place, &vm).await
    {
        // Gone since, or away: it is the source's own affair.
        cx.log(format!("checkpoints stay: {}", db::chain(&e)));
    }
    become_state(cx, MigratingState::Finalized).await
}

#[async_trait]
impl Kind for FinalizeMigration {
    fn plan(&self, _spec: &JobSpec) -> Vec<Plan> {
        vec![Plan::always(step::CHECKING), Plan::no_return(step::LETTING_GO)]
    }

    fn mode(&self, _spec: &JobSpec) -> LockMode {
        LockMode::Shared
    }

    async fn run(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        match name {
            step::CHECKING => become_state(cx, MigratingState::Finalizing).await,
            _ => let_go(cx).await,
        }
    }

    async fn undo(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        let vm = db::migrations::by_id(cx.db(), spec(cx)?.migrating_vm).await?;
        match name {
            step::CHECKING if vm.state == MigratingState::Finalizing => {
                become_state(cx, MigratingState::Cutover).await
            }
            _ => Ok(()),
        }
    }
}
