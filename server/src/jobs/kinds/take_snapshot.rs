//! Takes a snapshot of a machine, running or not.

use super::snapshot::{self, Minted, With};
use crate::db::locks::LockMode;
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use async_trait::async_trait;
use shared::Code;
use shared::job::{JobSpec, SnapshotSpec, step};

pub(super) struct TakeSnapshot;

fn spec(cx: &Cx) -> Result<SnapshotSpec, StepError> {
    match cx.job().spec.into_inner() {
        JobSpec::TakeSnapshot(spec) => Ok(spec),
        _ => Err(StepError::new(Code::Internal, "not a request for a snapshot")),
    }
}

#[async_trait]
impl Kind for TakeSnapshot {
    fn plan(&self, _spec: &JobSpec) -> Vec<Plan> {
        vec![Plan::always(step::MINTING), Plan::always(step::FREEZING_DISKS)]
    }

    fn mode(&self, _spec: &JobSpec) -> LockMode {
        LockMode::Changing
    }

    async fn run(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        let SnapshotSpec { vm, request } = spec(cx)?;
        match name {
            step::MINTING => {
                let minted = match cx.data()? {
                    Some(minted) => minted,
                    None => snapshot::mint(cx, vm, request.name.clone()).await?,
                };
                cx.mint(&minted);
                snapshot::announce(cx, vm, &minted, &request.description, request.memory).await
            }
            _ => {
                let mut minted: Minted = cx.minted()?;
                let with = match request.memory {
                    true => With::Memory,
                    false => With::quiesce(request.quiesce),
                };
                snapshot::freeze(cx, vm, &mut minted, with, |m| cx.mint(m)).await
            }
        }
    }

    async fn undo(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        let Some(minted) = cx.data::<Minted>()? else {
            return Ok(());
        };
        let vm = spec(cx)?.vm;
        match name {
            step::MINTING => snapshot::forget(cx, &minted).await,
            _ => snapshot::unfreeze(cx, vm, &minted).await,
        }
    }
}
