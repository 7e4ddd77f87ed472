//! A machine of a libvirt, as it is read: its disks as QEMU shows them of one moment, by what libvirt's checkpoint of the copy
//! before says has changed. What is read is ended with the step, whatever becomes of it.

use super::outside::{CPUS, MEMORY_MIB, variables};
use super::{LOOK_BACK, Part, Reading, spec, warn};
use crate::copies::Opened;
use crate::copies::about::{self, About};
use crate::db;
use crate::jobs::step::{Cx, StepError};
use crate::sources::{SourceError, Sources, libvirt};
use ::libvirt::{Backup, Quiesced, Since, Wanted};
use serde::{Deserialize, Serialize};
use shared::can::limit;
use shared::copy::{CopiedMachine, CopyDisk};
use shared::migrate::LibvirtSource;
use shared::snapshot::Consistency;
use shared::vm::Firmware;
use shared::{Code, MigratingVmId, SnapshotId, Status};

impl From<SourceError> for StepError {
    fn from(e: SourceError) -> Self {
        let passes = match &e {
            SourceError::Silent(_) => true,
            SourceError::Libvirt(e) => e.passes(),
            _ => false,
        };
        match passes {
            true => Self::transient(Code::Unavailable, db::chain(&e)),
            false => Status::from(e).into(),
        }
    }
}

/// What the next copy needs to ask what has changed of a disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CheckpointTrack {
    checkpoint: String,
    target: String,
}

fn tracks(copy: &vault::Copy) -> Vec<(&str, CheckpointTrack)> {
    let track = |disk: &vault::Disk| serde_json::from_value(disk.track.clone()).ok();
    let all = copy.disks.iter();
    all.filter_map(|disk| Some((disk.name.as_str(), track(disk)?)))
        .collect()
}

/// Since which moment an earlier copy tells what has changed.
fn since(copy: &vault::Copy) -> Option<Since> {
    let tracks = tracks(copy);
    let (_, first) = tracks.first()?;
    Some(Since {
        checkpoint: first.checkpoint.clone(),
        targets: tracks.iter().map(|(_, track)| track.target.clone()).collect(),
    })
}

/// The newest copy that can be leaned on: one whose moment libvirt knows still, else any.
async fn parent(
    cx: &Cx,
    opened: &Opened,
    writer: &vault::Writer,
    moments: &[String],
) -> Result<Option<vault::Copy>, StepError> {
    let spec = spec(cx)?;
    let mut newest = None;
    for id in db::copies::newest(cx.db(), spec.target, spec.vm, LOOK_BACK).await? {
        let copy = match writer.parent(id.0).await {
            Ok(Some(copy)) => copy,
            Ok(None) | Err(vault::Error::Damaged { .. } | vault::Error::Lost { .. }) => continue,
            Err(e) => return Err(opened.failed(e).into()),
        };
        if since(&copy).is_some_and(|since| moments.contains(&since.checkpoint)) {
            return Ok(Some(copy));
        }
        newest = newest.or(Some(copy));
    }
    Ok(newest)
}

/// Of the migration that a copy is for, and of the try.
fn names(cx: &Cx) -> Result<(String, String), StepError> {
    let spec = spec(cx)?;
    let tag = uuid::Uuid::new_v4().simple().to_string();
    // Its copies are known by the migration.
    let key = libvirt::key(MigratingVmId(spec.vm.0));
    Ok((key, format!("{}-{}", cx.id().0.simple(), &tag[..8])))
}

/// What is read of a machine of a libvirt.
pub(super) async fn reading(
    cx: &Cx,
    opened: &Opened,
    writer: &vault::Writer,
    (place, uuid): (&LibvirtSource, &str),
) -> Result<Reading, StepError> {
    let spec = spec(cx)?;
    let (key, number) = names(cx)?;
    let connection = libvirt::open(place).await?;
    let (id, of) = (uuid.to_owned(), key.clone());
    let moments = libvirt::ask(&connection, move |c| c.moments(&id, &of)).await?;
    let parent = parent(cx, opened, writer, &moments).await?;
    let wanted = Wanted {
        uuid: uuid.to_owned(),
        key,
        number,
        since: parent.as_ref().and_then(since),
        quiesce: spec.request.quiesce,
    };
    let time = cx.world().clock.now();
    let backup = libvirt::ask(&connection, move |c| c.back_up(&wanted)).await?;
    if let Some(why) = &backup.lost {
        warn(
            cx,
            format!("what has changed since the last copy cannot be told, and all was read: {why}"),
        );
    }
    match of_backup(cx, backup, parent, time) {
        Ok(reading) => Ok(reading),
        Err((e, backup)) => {
            take_back(Some(*backup)).await;
            Err(e)
        }
    }
}

fn of_backup(
    cx: &Cx,
    backup: Backup,
    parent: Option<vault::Copy>,
    time: shared::Timestamp,
) -> Result<Reading, (StepError, Box<Backup>)> {
    let (mut parts, mut disks) = (Vec::new(), Vec::new());
    let before = parent.as_ref().map(tracks).unwrap_or_default();
    for (disk, number) in backup.disks.iter().zip(0..) {
        let name = about::disk_name(number);
        let target = &disk.disk.target;
        let same = before
            .iter()
            .any(|(n, track)| *n == name && track.target == *target);
        let track = backup.checkpoint.as_ref().filter(|_| disk.disk.keeps_bitmaps());
        let track = track.map(|checkpoint| CheckpointTrack {
            checkpoint: checkpoint.clone(),
            target: target.clone(),
        });
        if parent.is_some() && track.is_none() {
            let format = &disk.disk.format;
            warn(
                cx,
                format!(
                    "{target} is {format}, which cannot remember what changes: all of it is read each time"
                ),
            );
        }
        disks.push(CopyDisk {
            name: name.clone(),
            number,
            slot: number + 1,
            bytes: disk.disk.bytes,
        });
        parts.push(Part {
            name,
            source: disk.source.clone(),
            track: serde_json::to_value(track).unwrap_or_default(),
            changed: disk.changed.clone().filter(|_| same),
            file: None,
        });
    }
    let machine = &backup.machine;
    let firmware = libvirt::firmware(machine);
    let about = || {
        if firmware == Firmware::Efi {
            let (disk, part) = variables(cx, disks.len() as u32)?;
            disks.push(disk);
            parts.push(part);
        }
        let spec = spec(cx)?;
        let number = spec.migration.as_ref().map_or(0, |of| of.number);
        let name = format!("cycle-{number}");
        let memory = limit::MIN_MEMORY_MIB..=limit::MAX_MEMORY_MIB;
        Ok::<_, StepError>(About {
            vm: spec.vm,
            vm_name: spec.vm_name,
            snapshot: SnapshotId(cx.id().0),
            snapshot_name: name
                .parse()
                .map_err(|e: shared::NameError| Status::invalid("name", e))?,
            snapshot_time: time,
            consistency: match &backup.quiesced {
                Quiesced::No => Consistency::Online,
                Quiesced::Yes => Consistency::GuestAgent,
                Quiesced::Failed(_) => Consistency::QuiesceFailed,
                Quiesced::Off => Consistency::Offline,
            },
            machine: CopiedMachine {
                cpus: machine
                    .cpus
                    .filter(|n| (1..=limit::CPUS).contains(n))
                    .unwrap_or(CPUS),
                memory_mib: machine
                    .memory_mib
                    .filter(|n| memory.contains(n))
                    .unwrap_or(MEMORY_MIB),
                firmware,
                labels: Default::default(),
                description: machine.os.clone().unwrap_or_default(),
                nics: machine.nics,
            },
            disks,
            policy: None,
            adapted_of: None,
        })
    };
    match about() {
        Ok(about) => Ok(Reading {
            parts,
            parent,
            about,
            snapshot: None,
            backup: Some(backup),
        }),
        Err(e) => Err((e, Box::new(backup))),
    }
}

/// Ends what was read.
pub(super) async fn end(backup: Option<Backup>) -> Result<(), StepError> {
    let Some(backup) = backup else { return Ok(()) };
    let ended = tokio::task::spawn_blocking(move || backup.end()).await;
    let ended = ended.map_err(|_| SourceError::Thread)?;
    Ok(ended.map_err(SourceError::from)?)
}

/// Ends what was not read to its end, and forgets its moment.
pub(super) async fn take_back(backup: Option<Backup>) {
    if let Some(backup) = backup {
        // A thread that ends early has said why.
        tokio::task::spawn_blocking(move || backup.take_back()).await.ok();
    }
}

/// Has libvirt forget the moments of this migration that `which` says by whether they are of this job.
async fn forget(cx: &Cx, which: fn(bool) -> bool) -> Result<(), StepError> {
    let spec = spec(cx)?;
    let Some(of) = spec.outside else { return Ok(()) };
    let Some(place) = Sources::of(cx.world()).libvirt(of.source).await? else {
        return Ok(());
    };
    let key = libvirt::key(MigratingVmId(spec.vm.0));
    let own = format!(".{}-", cx.id().0.simple());
    let connection = libvirt::open(&place).await?;
    let forgotten = libvirt::ask(&connection, move |c| {
        // What cannot be forgotten while it is off the next cycle forgets.
        c.forget(&of.id, &key, |name| which(name.contains(&own)), false)
    });
    Ok(forgotten.await?)
}

/// The moments before this copy's are needed no more.
pub(super) async fn forget_earlier(cx: &Cx) {
    if let Err(e) = forget(cx, |own| !own).await {
        cx.log(format!("an earlier checkpoint stays: {}", e.status.message));
    }
}

/// The moment of a copy that came to nothing is no use; what changes is told since the one before.
pub(super) async fn forget_own(cx: &Cx) {
    if let Err(e) = forget(cx, |own| own).await {
        cx.log(format!("a checkpoint stays: {}", e.status.message));
    }
}
