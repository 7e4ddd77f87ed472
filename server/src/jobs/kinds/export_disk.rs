//! Writes a disk to a file, to be fetched: of a snapshot, of one taken now, or of a machine that is stopped.

use super::snapshot::{self, With};
use super::{chain_files, is_now, vm};
use crate::db::locks::LockMode;
use crate::db::{self, now};
use crate::hypervisor::RunState;
use crate::inventory::images::KEPT_MICROS;
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shared::feed::Noun;
use shared::image::{Export, ExportSpec};
use shared::job::{JobSpec, Resource, ResourceRole, step};
use shared::{Code, ExportId, LayerId, Name};
use std::path::PathBuf;
use uuid::Uuid;

pub(super) struct ExportDisk;

#[derive(Clone, Serialize, Deserialize)]
struct Minted {
    export: ExportId,
    /// Of the snapshot that this job takes, where it takes its own.
    snapshot: Option<snapshot::Minted>,
}

fn spec(cx: &Cx) -> Result<ExportSpec, StepError> {
    match cx.job().spec.into_inner() {
        JobSpec::ExportDisk(spec) => Ok(spec),
        _ => Err(StepError::new(Code::Internal, "not a request for an export")),
    }
}

fn file(cx: &Cx, id: ExportId) -> Result<PathBuf, StepError> {
    Ok(cx.world().export_file(id, spec(cx)?.request.format))
}

async fn mint(cx: &Cx) -> Result<(), StepError> {
    let spec = spec(cx)?;
    let minted = match cx.data()? {
        Some(minted) => minted,
        None => Minted {
            export: ExportId(Uuid::now_v7()),
            snapshot: if spec.request.snapshot_now {
                Some(snapshot::mint(cx, spec.vm, None).await?)
            } else {
                None
            },
        },
    };
    cx.mint(&minted);
    cx.resource(Resource {
        noun: Noun::Export,
        id: minted.export.to_string(),
        name: vm(cx, spec.vm).await?.name,
        role: ResourceRole::Product,
    });
    match &minted.snapshot {
        Some(taken) => snapshot::announce(cx, spec.vm, taken, "", false).await,
        None => Ok(()),
    }
}

async fn take_snapshot(cx: &Cx) -> Result<(), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let Some(mut taken) = minted.snapshot.clone() else {
        return Ok(());
    };
    let remember = |taken: &snapshot::Minted| {
        cx.mint(&Minted {
            snapshot: Some(taken.clone()),
            ..minted.clone()
        });
    };
    snapshot::freeze(cx, spec.vm, &mut taken, With::Quiesce, remember).await?;
    // What is copied is frozen: others need not wait for that.
    cx.share(spec.vm).await
}

/// The layer that is written out, and the name of the snapshot that it is of.
async fn source(cx: &Cx) -> Result<(LayerId, Option<Name>), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let number = spec.request.disk;
    if let Some(id) = spec.snapshot.or(minted.snapshot.map(|s| s.snapshot)) {
        let layer = snapshot::layer(cx, id, number).await?;
        let named = db::snapshots::by_id(cx.db(), id).await?;
        let named = named.ok_or_else(|| is_now("snapshot", id))?;
        return Ok((layer, Some(named.name)));
    }
    let machine = vm(cx, spec.vm).await?;
    if cx.hypervisor().state(machine.id).await != RunState::Stopped {
        let message = format!("{} runs again: export one of its snapshots", machine.name);
        return Err(StepError::new(Code::FailedPrecondition, message));
    }
    let disk = machine.disks.iter().find(|disk| disk.number == number);
    let disk = disk.ok_or_else(|| is_now("disk", format_args!("{number} of {}", machine.name)))?;
    Ok((disk.layer, None))
}

async fn export(cx: &Cx) -> Result<(), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let (layer, _) = source(cx).await?;
    let chain = chain_files(cx.world(), layer).await?;
    let to = file(cx, minted.export)?;
    let progress = |done, total| cx.progress(done, total);
    cx.disks()
        .export(&chain, &to, spec.request.format, &progress)
        .await?;
    Ok(())
}

async fn register(cx: &Cx) -> Result<(), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let (_, snapshot_name) = source(cx).await?;
    let machine = vm(cx, spec.vm).await?;
    let to = file(cx, minted.export)?;
    let meta = tokio::fs::metadata(&to).await;
    let meta = meta.map_err(|e| StepError::new(Code::Internal, format!("look at {}: {e}", to.display())))?;
    let of = snapshot_name
        .as_ref()
        .map_or_else(String::new, |name| format!("-{name}"));
    let extension = spec.request.format.extension();
    let create_time = now();
    let export = Export {
        id: minted.export,
        name: format!("{}{of}-{}.{extension}", machine.name, spec.request.disk),
        vm: machine.id,
        vm_name: machine.name,
        snapshot_name,
        disk: spec.request.disk,
        format: spec.request.format,
        size_bytes: meta.len(),
        create_time,
        expire_time: create_time.plus_micros(KEPT_MICROS),
        generation: 0,
    };
    cx.outcome(|o| o.copied_bytes = Some(export.size_bytes));
    cx.message(export.name.clone());
    cx.commit(move |tx| Box::pin(async move { db::exports::insert(tx, &export).await }))
        .await
}

#[async_trait]
impl Kind for ExportDisk {
    fn plan(&self, spec: &JobSpec) -> Vec<Plan> {
        let now = matches!(spec, JobSpec::ExportDisk(spec) if spec.request.snapshot_now);
        vec![
            Plan::always(step::MINTING),
            Plan::only_if(step::TAKING_SNAPSHOT, now),
            Plan::always(step::EXPORTING),
            Plan::always(step::REGISTERING),
        ]
    }

    /// What is frozen only has to stay. A machine's disk as it is must not change: it does not start meanwhile.
    fn mode(&self, spec: &JobSpec) -> LockMode {
        match spec {
            JobSpec::ExportDisk(spec) if spec.snapshot.is_some() => LockMode::Shared,
            _ => LockMode::Changing,
        }
    }

    async fn run(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        match name {
            step::MINTING => mint(cx).await,
            step::TAKING_SNAPSHOT => take_snapshot(cx).await,
            step::EXPORTING => export(cx).await,
            _ => register(cx).await,
        }
    }

    async fn undo(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        let Some(minted) = cx.data::<Minted>()? else {
            return Ok(());
        };
        match (name, &minted.snapshot) {
            (step::MINTING, Some(taken)) => snapshot::forget(cx, taken).await,
            (step::TAKING_SNAPSHOT, Some(taken)) => snapshot::unfreeze(cx, spec(cx)?.vm, taken).await,
            (step::EXPORTING, _) => Ok(cx.disks().remove(&file(cx, minted.export)?).await?),
            (step::REGISTERING, _) => {
                let id = minted.export;
                cx.commit(move |tx| Box::pin(db::exports::delete(tx, id))).await
            }
            _ => Ok(()),
        }
    }
}
