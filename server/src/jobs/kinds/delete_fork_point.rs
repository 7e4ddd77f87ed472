//! Deletes a fork point: its name, its memory, and every layer that nobody else stands on.

use super::instant_clone::{drop_files, everything_of};
use super::{release, remove_files};
use crate::db::locks::LockMode;
use crate::db::{self};
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shared::feed::Noun;
use shared::job::{JobSpec, Resource, ResourceRole, step};
use shared::{Code, ForkPointId, LayerId, can};
use std::path::PathBuf;

pub(super) struct DeleteForkPoint;

/// What is removed when the point is off the books.
#[derive(Clone, Serialize, Deserialize)]
struct Minted {
    layers: Vec<LayerId>,
    directory: PathBuf,
}

fn point_id(cx: &Cx) -> Result<ForkPointId, StepError> {
    match cx.job().spec {
        JobSpec::DeleteForkPoint(spec) => Ok(spec.point),
        _ => Err(StepError::new(
            Code::Internal,
            "not a request to delete a fork point",
        )),
    }
}

async fn check(cx: &Cx) -> Result<(), StepError> {
    let (stored, layers) = everything_of(cx, point_id(cx)?).await?;
    // Somebody may have forked it since the job was posted.
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
    Ok(())
}

async fn delete(cx: &Cx) -> Result<(), StepError> {
    let id = point_id(cx)?;
    cx.commit(move |tx| {
        Box::pin(async move {
            let stood_on = db::fork_points::delete(tx, id).await?;
            release(tx, &stood_on).await.map(drop)
        })
    })
    .await
}

async fn remove(cx: &Cx) -> Result<(), StepError> {
    let minted: Minted = cx.minted()?;
    let living = db::layers::ids(cx.db()).await?;
    let gone: Vec<LayerId> = minted
        .layers
        .into_iter()
        .filter(|l| !living.contains(l))
        .collect();
    cx.world().spares.drop_of(point_id(cx)?).await;
    remove_files(cx, &gone).await?;
    drop_files(cx, point_id(cx)?, &minted.directory).await?;
    cx.message(match gone.len() {
        1 => "its memory and 1 layer removed".to_owned(),
        n => format!("its memory and {n} layers removed"),
    });
    Ok(())
}

#[async_trait]
impl Kind for DeleteForkPoint {
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
