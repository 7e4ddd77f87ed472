//! Adapts the operating system of an upload to where it goes. The upload stays as it is: what is changed is a copy of its own,
//! which takes over from the upload what is not. Or only looks what would be changed.

use super::copied;
use super::copy_snapshot::Session;
use crate::copies::about::{self, About};
use crate::copies::{Opened, Overlay, Show};
use crate::db;
use crate::db::locks::LockMode;
use crate::disks::frozen::Unread;
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shared::copy::{Copy, CopyDisk};
use shared::feed::Noun;
use shared::job::{JobSpec, Resource, ResourceRole, step};
use shared::migrate::adapt::AdaptSpec;
use shared::vm::Firmware;
use shared::{Code, CopyId};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use vault::source::Raw;
use vault::{CancellationToken, Change, Source};

pub(super) struct AdaptCopy;

/// Threads that read, squeeze and seal what was changed: it is little.
const THREADS: usize = 1;

#[derive(Clone, Serialize, Deserialize)]
struct Minted {
    copy: CopyId,
}

fn spec(cx: &Cx) -> Result<AdaptSpec, StepError> {
    match cx.job().spec.into_inner() {
        JobSpec::AdaptCopy(spec) => Ok(spec),
        _ => Err(StepError::new(Code::Internal, "not a request to adapt a copy")),
    }
}

async fn minting(cx: &Cx) -> Result<(), StepError> {
    let copy = copied::copy(cx, spec(cx)?.upload).await?;
    cx.mint(&Minted {
        copy: CopyId(cx.id().0),
    });
    copied::about_copy(cx, &copy);
    cx.commit(|_| Box::pin(async { Ok(()) })).await
}

/// The disks with what a guest has written; what a firmware remembers is none of them.
fn guests(copy: &Copy) -> impl Iterator<Item = &CopyDisk> {
    copy.disks.iter().filter(|disk| disk.slot != 0)
}

fn dir(cx: &Cx) -> PathBuf {
    cx.world().copies.adapted_dir(cx.id())
}

/// Where a disk's changes are.
fn overlay(cx: &Cx, disk: &CopyDisk) -> PathBuf {
    dir(cx).join(&disk.name)
}

/// Removes what was written here, and what shows the upload.
async fn clean(cx: &Cx) -> Result<(), StepError> {
    copied::hide(cx).await?;
    match tokio::fs::remove_dir_all(dir(cx)).await {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            let text = format!("remove {}: {e}", dir(cx).display());
            Err(StepError::new(Code::Internal, text))
        }
        _ => Ok(()),
    }
}

async fn adapt(cx: &Cx) -> Result<(), StepError> {
    let spec = spec(cx)?;
    let copy = copied::copy(cx, spec.upload).await?;
    // Another try begins with what was uploaded.
    clean(cx).await?;
    let show = Show {
        id: cx.id().0,
        target: copy.target,
        copy: copy.id,
        disks: guests(&copy).map(|disk| disk.name.clone()).collect(),
    };
    copied::show_these(cx, &show).await?;
    let overlays: Vec<_> = guests(&copy)
        .map(|disk| Overlay {
            name: disk.name.clone(),
            path: overlay(cx, disk),
        })
        .collect();
    cx.message(format!("looks what {} is", spec.name));
    let (copies, had) = (&cx.world().copies, copy.machine.firmware);
    let told = match spec.check {
        true => copies.check_os(&show, &spec.wanted, had).await,
        false => copies.adapt(&show, &overlays, &spec.wanted, had).await,
    };
    let told = match told {
        Ok(told) => told,
        Err(failed) => {
            cx.log(failed.log);
            clean(cx).await?;
            return Err(failed.status.into());
        }
    };
    copied::hide(cx).await?;
    for line in told.adapted.done.iter().chain(&told.adapted.warnings) {
        cx.log(line);
    }
    if !told.log.is_empty() {
        cx.log(&told.log);
    }
    cx.message(match &told.adapted.os {
        Some(os) => format!("{}: {} changes", os.product, told.adapted.done.len()),
        None => "nothing to adapt".to_owned(),
    });
    cx.outcome(|o| o.adapted = Some(Box::new(told.adapted)));
    cx.commit(|_| Box::pin(async { Ok(()) })).await
}

/// A disk as it is copied: what may differ from the upload's, and where that is read.
type Changed = (Arc<dyn Source>, Vec<Range<u64>>);

async fn changed(cx: &Cx, disk: &CopyDisk) -> Result<Changed, StepError> {
    let path = overlay(cx, disk);
    if !path.exists() {
        return Ok((Arc::new(Unread(disk.bytes)), Vec::new()));
    }
    let written = cx.disks().written(&path).await?;
    Ok((written.source, written.changed.unwrap_or_default()))
}

/// Brings what was changed to the target.
async fn copying(cx: &Cx) -> Result<(), StepError> {
    // Of an earlier try.
    cx.world().sessions.take(cx.id());
    let session = write(cx).await?;
    cx.world().sessions.put(cx.id(), session);
    Ok(())
}

async fn upload(cx: &Cx) -> Result<(), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let opened = cx.world().copies.open(spec.target).await?;
    let found = match opened.vault.copy(minted.copy.0).await {
        Ok(found) => found,
        Err(vault::Error::NoCopy(_)) => {
            // The process may have ended in between: what was brought there is found again.
            let session = match cx.world().sessions.take(cx.id()) {
                Some(session) => session,
                None => write(cx).await?,
            };
            session.commit(minted.copy, &opened).await?
        }
        Err(e) => return Err(opened.failed(e).into()),
    };
    let target = db::targets::known(cx.db(), &spec.target.to_string())
        .await?
        .target;
    let figures = about::figures(&found.moved);
    let copy = about::copy(spec.target, &target.name, &found);
    let mut copy =
        copy.ok_or_else(|| StepError::new(Code::Internal, "the copy does not say what it is of"))?;
    copy.job = Some(cx.id());
    cx.outcome(|o| {
        o.copied_bytes = Some(figures.stored_bytes);
        if let Some(adapted) = o.adapted.as_deref_mut() {
            adapted.written_bytes = figures.read_bytes;
        }
    });
    cx.resource(Resource {
        noun: Noun::Copy,
        id: copy.id.to_string(),
        name: copy.snapshot_name.clone(),
        role: ResourceRole::Product,
    });
    cx.commit(move |tx| Box::pin(async move { db::copies::insert(tx, &copy).await }))
        .await
}

/// Writes what the adapted copy is to have.
async fn write(cx: &Cx) -> Result<Session, StepError> {
    let spec = spec(cx)?;
    let opened = cx.world().copies.open(spec.target).await?;
    let failed = |e| StepError::from(opened.failed(e));
    let writer = opened.vault.begin(THREADS).await.map_err(failed)?;
    let written = match writer.parent(spec.upload.0).await {
        Ok(Some(parent)) => disks(cx, &spec, &opened, &writer, &parent).await,
        Ok(None) => Err(super::is_now("copy", spec.upload)),
        Err(e) => Err(failed(e)),
    };
    match written {
        Ok((about, disks)) => Ok(Session {
            writer,
            disks,
            about,
            parent: Some(spec.upload),
            _turn: None,
        }),
        Err(e) => {
            writer.leave().await;
            Err(e)
        }
    }
}

async fn disks(
    cx: &Cx,
    spec: &AdaptSpec,
    opened: &Opened,
    writer: &vault::Writer,
    parent: &vault::Copy,
) -> Result<(About, Vec<vault::Disk>), StepError> {
    let failed = |e| StepError::from(opened.failed(e));
    let mut about: About = serde_json::from_value(parent.about.clone())
        .map_err(|e| StepError::new(Code::Internal, format!("read what the upload is of: {e}")))?;
    about.adapted_of = Some(spec.upload);
    let cancel = CancellationToken::new();
    // Dropped with this future, the threads end.
    let _guard = cancel.clone().drop_guard();
    let mut all = Vec::new();
    let was = about.machine.firmware;
    about.machine.firmware = spec.wanted.firmware.unwrap_or(was);
    if was != about.machine.firmware {
        // What the other firmware remembered is of no use to this one.
        about.disks.retain(|disk| disk.slot != 0);
    }
    for disk in &about.disks {
        cx.message(disk.name.clone());
        let (source, ranges) = match disk.slot {
            0 => (Arc::new(Unread(disk.bytes)) as Arc<dyn Source>, Vec::new()),
            _ => changed(cx, disk).await?,
        };
        let there = parent.disks.iter().find(|d| d.name == disk.name);
        let there = there.ok_or_else(|| super::is_now("disk", &disk.name))?;
        let change = Some(Change {
            parent: there,
            ranges: &ranges,
        });
        let track = serde_json::Value::Null;
        let written = writer.disk(&disk.name, source, change, track, &cancel).await;
        all.push(written.map_err(failed)?);
    }
    if was != about.machine.firmware && about.machine.firmware == Firmware::Efi {
        let template = &cx.world().efi()?.variables;
        let raw = std::fs::File::open(template).and_then(Raw::new);
        let raw =
            raw.map_err(|e| StepError::new(Code::Internal, format!("open {}: {e}", template.display())))?;
        let number = about.disks.iter().map(|disk| disk.number + 1).max().unwrap_or(0);
        let disk = CopyDisk {
            name: about::disk_name(number),
            number,
            slot: 0,
            bytes: raw.bytes(),
        };
        let track = serde_json::Value::Null;
        let written = writer.disk(&disk.name, Arc::new(raw), None, track, &cancel).await;
        all.push(written.map_err(failed)?);
        about.disks.push(disk);
    }
    Ok((about, all))
}

#[async_trait]
impl Kind for AdaptCopy {
    fn plan(&self, spec: &JobSpec) -> Vec<Plan> {
        let writes = matches!(spec, JobSpec::AdaptCopy(spec) if !spec.check);
        let finalizing = Plan {
            wanted: writes,
            ..Plan::no_return(step::FINALIZING)
        };
        vec![
            Plan::always(step::MINTING),
            Plan::always(step::ADAPTING_OS),
            Plan::only_if(step::COPYING, writes),
            finalizing,
            Plan::always(step::LETTING_GO),
        ]
    }

    fn mode(&self, _spec: &JobSpec) -> LockMode {
        LockMode::Shared
    }

    async fn run(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        match name {
            step::MINTING => minting(cx).await,
            step::ADAPTING_OS => adapt(cx).await,
            step::COPYING => copying(cx).await,
            step::FINALIZING => upload(cx).await,
            _ => clean(cx).await,
        }
    }

    async fn undo(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        match name {
            step::COPYING => {
                // What it has brought there stays until a clean-up takes it.
                if let Some(session) = cx.world().sessions.take(cx.id()) {
                    session.writer.leave().await;
                }
                Ok(())
            }
            step::ADAPTING_OS => clean(cx).await,
            _ => Ok(()),
        }
    }
}
