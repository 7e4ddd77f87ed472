//! Deletes a machine, a snapshot, a fork point or an image: its name, what it alone has, and every layer that nobody else
//! stands on.

use super::instant_clone::{drop_files, everything_of};
use super::{is_now, merge, release, remove_loose};
use crate::db;
use crate::db::locks::LockMode;
use crate::hypervisor::RunState;
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shared::feed::Noun;
use shared::job::{JobSpec, Resource, ResourceRole, step};
use shared::{Code, ForkPointId, ImageId, LayerId, SnapshotId, VmId, can};
use std::path::PathBuf;

pub(super) struct Delete;

enum What {
    Vm(VmId),
    Point(ForkPointId),
    Snapshot(VmId, SnapshotId),
    Image(ImageId),
}

/// What is removed when the thing is off the books.
#[derive(Clone, Serialize, Deserialize)]
struct Minted {
    /// Every layer that it reads through, those of its snapshots among them: what is not on the books afterwards goes.
    layers: Vec<LayerId>,
    /// Where the memory of a fork point is.
    #[serde(default)]
    directory: PathBuf,
    /// Snapshots whose memory goes.
    #[serde(default)]
    memories: Vec<SnapshotId>,
    /// The layers that lose a snapshot's name: who stands on one may take it up.
    #[serde(default)]
    unnamed: Vec<LayerId>,
}

fn what(cx: &Cx) -> Result<What, StepError> {
    match cx.job().spec.into_inner() {
        JobSpec::DeleteVm(spec) => Ok(What::Vm(spec.vm)),
        JobSpec::DeleteForkPoint(spec) => Ok(What::Point(spec.point)),
        JobSpec::DeleteSnapshot(spec) => Ok(What::Snapshot(spec.vm, spec.snapshot)),
        JobSpec::DeleteImage(spec) => Ok(What::Image(spec.image)),
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
                memories: db::snapshots::with_memory(cx.db(), id).await?,
                unnamed: Vec::new(),
            });
        }
        What::Snapshot(vm, id) => {
            let machine = super::vm(cx, vm).await?;
            let snapshot = db::snapshots::by_id(cx.db(), id).await?;
            let snapshot = snapshot.ok_or_else(|| is_now("snapshot", id))?;
            can::can_delete_snapshot(&machine, &snapshot)?;
            let unnamed = db::snapshots::layers(cx.db(), id).await?;
            let mut layers = Vec::new();
            for &layer in &unnamed {
                let chain = db::layers::chain_of(cx.db(), layer).await?;
                layers.extend(chain.iter().map(|layer| layer.id));
            }
            cx.resource(Resource {
                noun: Noun::Snapshot,
                id: id.to_string(),
                name: snapshot.name,
                role: ResourceRole::Source,
            });
            cx.mint(&Minted {
                layers,
                directory: PathBuf::new(),
                memories: vec![id],
                unnamed,
            });
        }
        What::Image(id) => {
            let found = db::images::find(cx.db(), &id.to_string()).await?;
            let image = found.ok_or_else(|| is_now("image", id))?;
            cx.resource(Resource {
                noun: Noun::Image,
                id: id.to_string(),
                name: image.name,
                role: ResourceRole::Source,
            });
            let chain = db::layers::chain_of(cx.db(), image.layer).await?;
            cx.mint(&Minted {
                layers: chain.iter().map(|l| l.id).collect(),
                directory: PathBuf::new(),
                memories: Vec::new(),
                unnamed: Vec::new(),
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
                memories: Vec::new(),
                unnamed: Vec::new(),
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
                What::Snapshot(_, id) => db::snapshots::delete(tx, id).await?,
                What::Image(id) => {
                    let found = db::images::name_of(tx, id).await?;
                    db::images::delete(tx, id).await?;
                    found.into_iter().map(|(_, layer)| layer).collect()
                }
            };
            release(tx, &stood_on).await.map(drop)
        })
    })
    .await
}

async fn remove(cx: &Cx) -> Result<(), StepError> {
    let Minted {
        layers,
        directory,
        memories,
        ..
    } = cx.minted()?;
    for snapshot in memories {
        let point = cx.world().snapshot_point(snapshot, 0);
        cx.hypervisor().drop_point(&point).await?;
    }
    let with = match what(cx)? {
        What::Snapshot(..) => "",
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
        What::Image(_) => "",
    };
    cx.message(match remove_loose(cx, &layers).await? {
        1 => format!("{with}1 layer removed"),
        n => format!("{with}{n} layers removed"),
    });
    Ok(())
}

#[async_trait]
impl Kind for Delete {
    fn plan(&self, spec: &JobSpec) -> Vec<Plan> {
        let mut plan = vec![Plan::always(step::CHECKING), Plan::no_return(step::DELETING)];
        if matches!(spec, JobSpec::DeleteSnapshot(_)) {
            plan.push(Plan::always(step::MERGING_LAYERS));
        }
        plan.push(Plan::always(step::REMOVING_FILES));
        plan
    }

    fn mode(&self, _spec: &JobSpec) -> LockMode {
        LockMode::Exclusive
    }

    async fn run(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        match name {
            step::CHECKING => check(cx).await,
            step::DELETING => delete(cx).await,
            step::MERGING_LAYERS => match what(cx)? {
                What::Snapshot(vm, _) => merge::merge(cx, vm, &cx.minted::<Minted>()?.unnamed).await,
                What::Vm(_) | What::Point(_) | What::Image(_) => Ok(()),
            },
            _ => remove(cx).await,
        }
    }

    /// Nothing is undone: before the point of no return nothing has been done.
    async fn undo(&self, _name: &str, _cx: &Cx) -> Result<(), StepError> {
        Ok(())
    }
}
