//! Deletes a machine: its name, its snapshots' names, and every layer that nobody else stands on.

use super::{release, remove_files};
use crate::db::locks::LockMode;
use crate::db::{self};
use crate::hypervisor::RunState;
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shared::job::{JobSpec, step};
use shared::{Code, LayerId, VmId};

pub(super) struct DeleteVm;

/// Every layer that the machine and its snapshots read through: what is not on the books afterwards is removed.
#[derive(Clone, Serialize, Deserialize)]
struct Minted {
    layers: Vec<LayerId>,
}

fn vm_id(cx: &Cx) -> Result<VmId, StepError> {
    match cx.job().spec {
        JobSpec::DeleteVm(spec) => Ok(spec.vm),
        _ => Err(StepError::new(Code::Internal, "not a request to delete")),
    }
}

/// The state may have changed since the job was posted: a machine that runs again is not deleted.
async fn check(cx: &Cx) -> Result<(), StepError> {
    let id = vm_id(cx)?;
    let machine = super::vm(cx, id).await?;
    if cx.hypervisor().state(id).await != RunState::Stopped {
        let message = format!("{} runs: power it off before you delete it", machine.name);
        return Err(StepError::new(Code::FailedPrecondition, message));
    }
    cx.mint(&Minted {
        layers: db::vms::all_layers(cx.db(), id).await?,
    });
    Ok(())
}

async fn delete(cx: &Cx) -> Result<(), StepError> {
    let id = vm_id(cx)?;
    cx.commit(move |tx| {
        Box::pin(async move {
            let stood_on = db::vms::delete(tx, id).await?;
            release(tx, &stood_on).await.map(drop)
        })
    })
    .await
}

async fn remove(cx: &Cx) -> Result<(), StepError> {
    let id = vm_id(cx)?;
    let minted: Minted = cx.minted()?;
    let living = db::layers::ids(cx.db()).await?;
    let gone: Vec<LayerId> = minted
        .layers
        .into_iter()
        .filter(|l| !living.contains(l))
        .collect();
    remove_files(cx, &gone).await?;
    cx.disks().remove(&cx.world().seed_file(id)).await?;
    cx.hypervisor().forget(id).await?;
    cx.message(match gone.len() {
        1 => "1 layer removed".to_owned(),
        n => format!("{n} layers removed"),
    });
    Ok(())
}

#[async_trait]
impl Kind for DeleteVm {
    fn plan(&self, _spec: &JobSpec) -> Vec<Plan> {
        vec![
            Plan::always(step::CHECKING),
            Plan::no_return(step::DELETING),
            Plan::always(step::REMOVING_FILES),
        ]
    }

    fn mode(&self, _spec: &JobSpec) -> LockMode {
        LockMode::Exclusive
    }

    async fn run(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        match name {
            step::CHECKING => check(cx).await,
            step::DELETING => delete(cx).await,
            _ => remove(cx).await,
        }
    }

    /// Nothing is undone: before the point of no return nothing has been done.
    async fn undo(&self, _name: &str, _cx: &Cx) -> Result<(), StepError> {
        Ok(())
    }
}
