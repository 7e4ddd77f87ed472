//! Deletes a machine or a fork point: its name, what it alone has, and every layer that nobody else stands on.

use super::instant_clone::{drop_files, everything_of};
use super::{release, remove_loose};
use crate::db;
use crate::db::locks::LockMode;
use crate::hypervisor::RunState;
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shared::feed::Noun;
use shared::job::{JobSpec, Resource, ResourceRole, step};
use shared::{Code, ForkPointId, LayerId, VmId, can};
use std::path::PathBuf;

pub(super) struct Delete;

enum What {
    Vm(VmId),
    Point(ForkPointId),
}

/// What is removed when the thing is off the books.
#[derive(Clone, Serialize, Deserialize)]
struct Minted {
    /// Every layer that it reads through, those of its snapshots among them: what is not on the books afterwards goes.
    layers: Vec<LayerId>,
    /// Where the memory of a fork point is.
    #[serde(default)]
    directory: PathBuf,
}

fn what(cx: &Cx) -> Result<What, StepError> {
    match cx.job().spec {
        JobSpec::DeleteVm(spec) => Ok(What::Vm(spec.vm)),
        JobSpec::DeleteForkPoint(spec) => Ok(What::Point(spec.point)),
        _ => Err(StepError::new(Code::Internal, "not a request to delete")),
    }
}

/// It may have changed since the job was posted: a machine that runs again is not deleted, nor a point that was forked.
async fn check(cx: &Cx) -> Result<(), StepError> {
    match what(cx)? {
        What::Vm(id) => {
            let machine = super::vm(cx, id).await?;
            if cx.hypervisor().state(id).await != RunState::Stopped {
                let message = format!("{} runs: power it off before you delete it", machine.name);
                return Err(StepError::new(Code::FailedPrecondition, message));
            }
            cx.mint(&Minted {
                layers: db::vms::all_layers(cx.db(), id).await?,
                directory: PathBuf::new(),
            });
        }
        What::Point(id) => {
            let (stored, layers) = everything_of(cx, id).await?;
            can::can_delete_point(&stored.point)?;
            cx.resource(Resource {
                noun: Noun::ForkPoint,
                id: stored.point.id.to_string(),
                name: stored.point.name.clone(),
                role: ResourceRole::Source,
            });
            cx.mint(&Minted {
                layers,
                directory: stored.directory,
            });
        }
    }
    Ok(())
}

async fn delete(cx: &Cx) -> Result<(), StepError> {
    let what = what(cx)?;
    cx.commit(move |tx| {
        Box::pin(async move {
            let stood_on = match what {
                What::Vm(id) => db::vms::delete(tx, id).await?,
                What::Point(id) => db::fork_points::delete(tx, id).await?,
            };
            release(tx, &stood_on).await.map(drop)
        })
    })
    .await
}

async fn remove(cx: &Cx) -> Result<(), StepError> {
    let Minted { layers, directory } = cx.minted()?;
    let with = match what(cx)? {
        What::Vm(id) => {
            cx.disks().remove(&cx.world().seed_file(id)).await?;
            cx.hypervisor().forget(id).await?;
            ""
        }
        What::Point(id) => {
            cx.world().spares.drop_of(id).await;
            drop_files(cx, id, &directory).await?;
            "its memory and "
        }
    };
    cx.message(match remove_loose(cx, &layers).await? {
        1 => format!("{with}1 layer removed"),
        n => format!("{with}{n} layers removed"),
    });
    Ok(())
}

#[async_trait]
impl Kind for Delete {
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
