//! Makes an image of a snapshot's disk, at once: the frozen layer gets one more name.

use super::{release, snapshot};
use crate::db::locks::LockMode;
use crate::db::{self, now};
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shared::feed::Noun;
use shared::image::SnapshotImageSpec;
use shared::job::{JobSpec, Resource, ResourceRole, step};
use shared::{Code, ImageId, LayerId};
use uuid::Uuid;

pub(super) struct ImageOfSnapshot;

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Minted {
    image: ImageId,
    layer: LayerId,
}

fn spec(cx: &Cx) -> Result<SnapshotImageSpec, StepError> {
    match cx.job().spec.into_inner() {
        JobSpec::ImageOfSnapshot(spec) => Ok(spec),
        _ => Err(StepError::new(
            Code::Internal,
            "not a request for an image of a snapshot",
        )),
    }
}

#[async_trait]
impl Kind for ImageOfSnapshot {
    fn plan(&self, _spec: &JobSpec) -> Vec<Plan> {
        vec![Plan::always(step::REGISTERING)]
    }

    fn mode(&self, _spec: &JobSpec) -> LockMode {
        LockMode::Shared
    }

    async fn run(&self, _name: &str, cx: &Cx) -> Result<(), StepError> {
        let SnapshotImageSpec {
            snapshot, disk, name, ..
        } = spec(cx)?;
        let layer = snapshot::layer(cx, snapshot, disk).await?;
        let minted = cx.data()?.unwrap_or(Minted {
            image: ImageId(Uuid::now_v7()),
            layer,
        });
        cx.mint(&minted);
        let (id, name) = (minted.image, name.clone());
        cx.resource(Resource {
            noun: Noun::Image,
            id: id.to_string(),
            name: name.clone(),
            role: ResourceRole::Product,
        });
        cx.message("the frozen layer, by another name");
        cx.commit(move |tx| Box::pin(async move { db::images::insert(tx, id, &name, layer, now()).await }))
            .await
    }

    async fn undo(&self, _name: &str, cx: &Cx) -> Result<(), StepError> {
        let Some(Minted { image, layer }) = cx.data::<Minted>()? else {
            return Ok(());
        };
        cx.commit(move |tx| {
            Box::pin(async move {
                db::images::delete(tx, image).await?;
                release(tx, &[layer]).await.map(drop)
            })
        })
        .await?;
        // The snapshot may have gone meanwhile, and left the layer to the image.
        super::remove_loose(cx, &[layer]).await.map(drop)
    }
}
