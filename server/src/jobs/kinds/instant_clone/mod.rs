//! Forks a running machine, memory and disks, or an instant of one that was kept.
//!
//! The source stands still within `freezing-source` alone, and goes on in it: nothing is written down meanwhile. What
//! follows needs the source no more. A point that is not kept ends with the job: clones that run have its memory mapped.

mod freeze;
mod instantiate;
mod prepare;
mod spare;

use crate::db;
use crate::db::fork_points::Stored;
use crate::db::locks::LockMode;
use crate::hypervisor::{MachineSpec, Point};
use crate::jobs::kinds::overlays::Overlays;
use crate::jobs::kinds::{chain_files, is_now, machine_spec, power_off, release, unmake};
use crate::jobs::spares::MintedClone;
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use crate::jobs::world::point_file;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shared::fork::ForkNics;
use shared::job::{ForkSpec, JobSpec, step};
use shared::place::NetworkKind;
use shared::vm::{Disk, Nic};
use shared::{Code, ForkPointId, LayerId, VmId};
use std::path::{Path, PathBuf};

pub(super) struct InstantCloneVm;

/// How many processes are started side by side.
const SIDE_BY_SIDE: usize = 4;

#[derive(Clone, Serialize, Deserialize)]
struct Minted {
    point: ForkPointId,
    /// Of the source; none where a point that was kept is forked.
    overlays: Option<Overlays>,
    clones: Vec<MintedClone>,
    /// Layers of the source that were merged; who still stands on one keeps it.
    #[serde(default)]
    merged: Vec<LayerId>,
}

fn spec(cx: &Cx) -> Result<ForkSpec, StepError> {
    match cx.job().spec.into_inner() {
        JobSpec::InstantCloneVm(spec) => Ok(spec),
        _ => Err(StepError::new(
            Code::Internal,
            "not a request for an instant clone",
        )),
    }
}

async fn stored(cx: &Cx, id: ForkPointId) -> Result<Stored, StepError> {
    let point = db::fork_points::by_id(cx.db(), id).await?;
    point.ok_or_else(|| is_now("fork point", id))
}

async fn kept_disks(cx: &Cx, id: ForkPointId) -> Result<Vec<Disk>, StepError> {
    let disks = cx
        .db()
        .reading(async |conn| db::fork_points::disks(conn, id).await);
    Ok(disks.await?)
}

/// What a clone is started with; its NICs are to be joined to their networks if the request says so.
async fn clone_spec(cx: &Cx, request: &ForkSpec, id: VmId) -> Result<MachineSpec, StepError> {
    let machine = super::vm(cx, id).await?;
    let mut spec = machine_spec(cx.world(), &machine).await?;
    for (n, nic) in spec.nics.iter_mut().enumerate() {
        let told = request.nics.get(n).and_then(|nic| nic.connect);
        nic.connected = told.unwrap_or(request.request.network_interfaces == Some(ForkNics::Keep));
    }
    Ok(spec)
}

fn point_seed(stored: &Stored) -> PathBuf {
    point_file(&stored.directory, stored.point.id, "seed")
}

fn files(stored: &Stored) -> Point {
    let outside = |nic: &&Nic| nic.connected && nic.kind == NetworkKind::User;
    Point {
        user_networks: stored.point.network_interfaces.iter().filter(outside).count(),
        ..files_in(stored.point.id, &stored.directory)
    }
}

fn files_in(id: ForkPointId, directory: &Path) -> Point {
    Point {
        id: id.0,
        memory: point_file(directory, id, "memory"),
        state: point_file(directory, id, "state"),
        user_networks: 0,
    }
}

async fn forget_point(cx: &Cx, stored: &Stored) -> Result<(), StepError> {
    cx.hypervisor().drop_point(&files(stored)).await?;
    let id = stored.point.id;
    cx.commit(move |tx| {
        Box::pin(async move {
            let stood_on = db::fork_points::delete(tx, id).await?;
            // The source and its clones stand on them.
            release(tx, &stood_on).await.map(drop)
        })
    })
    .await
}

#[async_trait]
impl Kind for InstantCloneVm {
    fn plan(&self, spec: &JobSpec) -> Vec<Plan> {
        let capture = !matches!(spec, JobSpec::InstantCloneVm(spec) if spec.point.is_some());
        vec![
            Plan::always(step::PREPARING),
            Plan::only_if(step::FREEZING_SOURCE, capture),
            Plan::only_if(step::CAPTURING_MEMORY, capture),
            Plan::only_if(step::THAWING_SOURCE, capture),
            Plan::always(step::INSTANTIATING),
            // The clones run, and may be worked with.
            Plan::no_return(step::VERIFYING),
        ]
    }

    fn mode(&self, _spec: &JobSpec) -> LockMode {
        LockMode::Changing
    }

    async fn run(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        match name {
            step::PREPARING => prepare::prepare(cx).await,
            step::FREEZING_SOURCE => freeze::freeze(cx).await,
            step::CAPTURING_MEMORY => freeze::capture(cx).await,
            step::THAWING_SOURCE => freeze::thaw(cx).await,
            step::INSTANTIATING => instantiate::instantiate(cx).await,
            _ => instantiate::verify(cx).await,
        }
    }

    async fn undo(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        // Nothing minted: nothing was made.
        let Some(minted) = cx.data::<Minted>()? else {
            return Ok(());
        };
        let spec = spec(cx)?;
        match name {
            step::INSTANTIATING => {
                for clone in &minted.clones {
                    power_off(cx, clone.id).await?;
                }
                Ok(())
            }
            step::FREEZING_SOURCE => {
                let stored = db::fork_points::by_id(cx.db(), minted.point).await?;
                if let Some(stored) = stored {
                    // A capture that is under way ends first: with it the source runs.
                    cx.hypervisor().drop_point(&files(&stored)).await?;
                }
                match &minted.overlays {
                    Some(overlays) => overlays.undo(cx, spec.vm).await,
                    None => Ok(()),
                }
            }
            step::PREPARING => {
                for clone in &minted.clones {
                    power_off(cx, clone.id).await?;
                    unmake(cx, clone.id, clone.layers.clone()).await?;
                }
                if spec.point.is_some() {
                    return Ok(());
                }
                if let Some(overlays) = &minted.overlays {
                    // Laid, and the source never asked.
                    overlays.undo(cx, spec.vm).await?;
                }
                let Some(stored) = db::fork_points::by_id(cx.db(), minted.point).await? else {
                    return Ok(());
                };
                cx.disks().remove(&point_seed(&stored)).await?;
                forget_point(cx, &stored).await
            }
            _ => Ok(()),
        }
    }
}

/// The layers of a point, down to the bases, and its files: for whoever deletes it.
pub(super) async fn everything_of(cx: &Cx, id: ForkPointId) -> Result<(Stored, Vec<LayerId>), StepError> {
    let stored = stored(cx, id).await?;
    let mut all = Vec::new();
    for disk in kept_disks(cx, id).await? {
        all.extend(chain_files(cx.world(), disk.layer).await?.iter().map(|l| l.id));
    }
    Ok((stored, all))
}

/// Removes the files of a point.
pub(super) async fn drop_files(cx: &Cx, id: ForkPointId, directory: &Path) -> Result<(), StepError> {
    cx.disks().remove(&point_file(directory, id, "seed")).await?;
    Ok(cx.hypervisor().drop_point(&files_in(id, directory)).await?)
}
