//! An exported machine, as it is read: its disks as they lie there where our own reader takes them, else converted first, shut
//! in. A file that was not written since the copy before is not read again; of one that was, what the vault has not yet is stored.

use super::{LOOK_BACK, Part, Reading, spec};
use crate::copies::Opened;
use crate::copies::about::{self, About};
use crate::db;
use crate::disks::LayerFile;
use crate::disks::frozen::{Frozen, FrozenError, Unread};
use crate::jobs::step::{Cx, StepError};
use crate::sources::{self, Machine, Origin, Sources};
use serde::{Deserialize, Serialize};
use shared::copy::{CopiedMachine, CopyDisk, OutsideVm};
use shared::image::ImageFormat;
use shared::snapshot::Consistency;
use shared::vm::Firmware;
use shared::{Code, LayerId, SnapshotId, Status, Timestamp};
use std::io;
use std::path::Path;
use std::sync::Arc;
use vault::Source;
use vault::source::Raw;

/// What a machine gets whose source does not say what it had.
pub(super) const CPUS: u32 = 2;
pub(super) const MEMORY_MIB: u32 = 2048;

/// What a disk is told by, to know whether its file was written since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileTrack {
    file: sources::Disk,
}

/// What is read of an exported machine.
pub(super) async fn reading(
    cx: &Cx,
    opened: &Opened,
    writer: &vault::Writer,
    of: &OutsideVm,
) -> Result<Reading, StepError> {
    let spec = spec(cx)?;
    let machine = machine(cx, of).await?;
    let parent = parent(cx, opened, writer).await?;
    let mut parts = Vec::new();
    for (n, disk) in machine.disks.iter().enumerate() {
        parts.push(part(cx, n as u32, disk, parent.as_ref()).await?);
    }
    let firmware = match (machine.firmware, parts.first()) {
        (Some(said), _) => said,
        // Where nothing says so the disk itself tells how it boots.
        (None, Some(first)) => match parent.as_ref().and_then(about_of) {
            // One that is the same is not read.
            Some(about) if first.changed.is_some() => about.machine.firmware,
            _ => boots_by(&*first.source).map_err(|e| failed("look how the first disk boots", &e))?,
        },
        (None, None) => Firmware::Bios,
    };
    let mut disks: Vec<_> = machine
        .disks
        .iter()
        .zip(0..)
        .map(|(disk, n)| of_machine(n, n + 1, disk))
        .collect();
    if firmware == Firmware::Efi {
        let (disk, part) = variables(cx, disks.len() as u32)?;
        disks.push(disk);
        parts.push(part);
    }
    let newest = machine
        .disks
        .iter()
        .map(|disk| disk.modified)
        .max()
        .unwrap_or_default();
    let number = spec.migration.as_ref().map_or(0, |of| of.number);
    let name = format!("export-{number}");
    Ok(Reading {
        parts,
        parent,
        snapshot: None,
        backup: None,
        about: About {
            vm: spec.vm,
            vm_name: spec.vm_name,
            snapshot: SnapshotId(cx.id().0),
            snapshot_name: name
                .parse()
                .map_err(|e: shared::NameError| Status::invalid("name", e))?,
            // What was exported shows the machine as of then, at the latest.
            snapshot_time: Timestamp::from_micros(newest),
            consistency: Consistency::Offline,
            machine: CopiedMachine {
                cpus: machine.cpus.unwrap_or(CPUS),
                memory_mib: machine.memory_mib.unwrap_or(MEMORY_MIB),
                firmware,
                labels: Default::default(),
                description: machine.os.unwrap_or_default(),
                nics: machine.nics.unwrap_or(1),
            },
            disks,
            policy: None,
            adapted_of: None,
        },
    })
}

/// What an EFI firmware remembers: it does not come along from elsewhere, and begins with nothing to remember.
pub(super) fn variables(cx: &Cx, number: u32) -> Result<(CopyDisk, Part), StepError> {
    let template = &cx.world().efi()?.variables;
    let raw = std::fs::File::open(template).and_then(Raw::new);
    let raw = raw.map_err(|e| failed(&format!("open {}", template.display()), &e))?;
    let name = about::disk_name(number);
    let disk = CopyDisk {
        name: name.clone(),
        number,
        slot: 0,
        bytes: raw.bytes(),
    };
    let part = Part {
        name,
        source: Arc::new(raw),
        track: serde_json::Value::Null,
        changed: None,
        file: None,
    };
    Ok((disk, part))
}

fn failed(op: &str, e: &(dyn std::error::Error + 'static)) -> StepError {
    StepError::new(Code::FailedPrecondition, format!("{op}: {}", db::chain(e)))
}

fn of_machine(number: u32, slot: u32, disk: &sources::Disk) -> CopyDisk {
    CopyDisk {
        name: about::disk_name(number),
        number,
        slot,
        bytes: disk.found.virtual_bytes,
    }
}

async fn machine(cx: &Cx, of: &OutsideVm) -> Result<Machine, StepError> {
    let id = of.source.to_string();
    let source = cx
        .db()
        .reading(async |conn| db::migrations::source(conn, &id).await)
        .await?;
    match Sources::of(cx.world()).find(&source, &of.id).await? {
        Some(Origin::Exported(machine)) => match machine.refusal {
            None => Ok(machine),
            Some(why) => Err(Status::precondition(format!("{} cannot be read: {why}", machine.name)).into()),
        },
        _ => Err(super::super::is_now("machine", &of.id)),
    }
}

/// The newest copy that can be leaned on.
async fn parent(cx: &Cx, opened: &Opened, writer: &vault::Writer) -> Result<Option<vault::Copy>, StepError> {
    let spec = spec(cx)?;
    for id in db::copies::newest(cx.db(), spec.target, spec.vm, LOOK_BACK).await? {
        match writer.parent(id.0).await {
            Ok(Some(copy)) => return Ok(Some(copy)),
            Ok(None) | Err(vault::Error::Damaged { .. } | vault::Error::Lost { .. }) => {}
            Err(e) => return Err(opened.failed(e).into()),
        }
    }
    Ok(None)
}

fn about_of(copy: &vault::Copy) -> Option<About> {
    serde_json::from_value(copy.about.clone()).ok()
}

async fn part(
    cx: &Cx,
    number: u32,
    disk: &sources::Disk,
    parent: Option<&vault::Copy>,
) -> Result<Part, StepError> {
    let name = about::disk_name(number);
    let track = FileTrack { file: disk.clone() };
    let before = parent.and_then(|copy| copy.disks.iter().find(|d| d.name == name));
    let before = before.and_then(|d| serde_json::from_value::<FileTrack>(d.track.clone()).ok());
    let same = before.is_some_and(|before| before == track);
    Ok(Part {
        source: match same {
            // Nobody reads it.
            true => Arc::new(Unread(disk.found.virtual_bytes)),
            false => opened(cx, number, disk).await?,
        },
        changed: same.then(Vec::new),
        track: serde_json::to_value(track).unwrap_or_default(),
        file: Some(disk.clone()),
        name,
    })
}

/// A disk that is read: in its place where it is raw, or qcow2 as QEMU writes it itself.
async fn opened(cx: &Cx, number: u32, disk: &sources::Disk) -> Result<Arc<dyn Source>, StepError> {
    let found = &disk.found;
    let open = |op: &str| format!("{op} {}", disk.path.display());
    match found.format {
        ImageFormat::Raw if found.bytes == found.virtual_bytes => {
            let raw = std::fs::File::open(&disk.path).and_then(Raw::new);
            return Ok(Arc::new(raw.map_err(|e| failed(&open("open"), &e))?));
        }
        ImageFormat::Qcow2 => match plain(&disk.path) {
            Ok(frozen) => return Ok(Arc::new(frozen)),
            // Compressed, perhaps: many exports are.
            Err(FrozenError::Refused { .. }) => {}
            Err(e) => return Err(failed(&open("read"), &e)),
        },
        _ => {}
    }
    let file = LayerFile {
        id: LayerId(cx.id().0),
        path: scratch(cx, number, disk),
        shown: None,
    };
    cx.message(format!("{} is converted", about::disk_name(number)));
    let progress = |done, of| cx.progress(done, of);
    let helper = &cx.world().images.helper;
    cx.disks()
        .import(helper, &disk.path, found, &file, &progress)
        .await?;
    Ok(cx.disks().frozen(&[file], None).await?.source)
}

/// A qcow2 that can be read as it lies there: all of its tables are looked at, for each entry may be of a compressed cluster.
fn plain(path: &Path) -> Result<Frozen, FrozenError> {
    let frozen = Frozen::open(&[path.to_owned()])?;
    frozen.changed_above(0)?;
    Ok(frozen)
}

/// Where a disk is converted to: another try finds it again, as long as the file is the same.
fn scratch(cx: &Cx, number: u32, disk: &sources::Disk) -> std::path::PathBuf {
    cx.world().converted_file(cx.id(), number, disk.modified)
}

/// Whether all files are as they were when they were looked at.
pub(super) fn still(parts: &[Part]) -> Result<(), StepError> {
    for file in parts.iter().filter_map(|part| part.file.as_ref()) {
        if !file.is_as_it_was().map_err(Status::from)? {
            let path = file.path.display();
            let text =
                format!("{path} was written while it was read: it is tried again when the export is done");
            return Err(StepError::new(Code::Aborted, text));
        }
    }
    Ok(())
}

/// Removes what was converted.
pub(super) async fn clean(cx: &Cx) -> Result<(), StepError> {
    if spec(cx)?.outside.is_none() {
        return Ok(());
    }
    for file in cx
        .world()
        .converted_files(cx.id())
        .map_err(|e| failed("look for what was converted", &e))?
    {
        cx.disks().remove(&file).await?;
    }
    Ok(())
}

/// A GPT's type of a partition with EFI programs, as it is stored.
const EFI_PARTITION: [u8; 16] = [
    0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
];
/// And of one with the boot loader of a BIOS.
const BIOS_PARTITION: [u8; 16] = *b"Hah!IdontNeedEFI";

/// How a disk boots: by EFI if it has a partition for that, and nothing that a BIOS would start.
fn boots_by(disk: &dyn Source) -> io::Result<Firmware> {
    const SECTOR: usize = 512;
    let mut head = vec![0; 34 * SECTOR];
    if disk.bytes() < head.len() as u64 {
        return Ok(Firmware::Bios);
    }
    disk.read(0, &mut head)?;
    let (mbr, gpt) = head.split_at(SECTOR);
    let types: Vec<_> = gpt[SECTOR..].chunks(128).map(|entry| &entry[..16]).collect();
    let has = |kind: &[u8; 16]| types.contains(&&kind[..]);
    let efi = gpt.starts_with(b"EFI PART") && has(&EFI_PARTITION) && !has(&BIOS_PARTITION);
    Ok(match efi && mbr[..440].iter().all(|byte| *byte == 0) {
        true => Firmware::Efi,
        false => Firmware::Bios,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(boot_code: u8, kinds: &[[u8; 16]]) -> Raw {
        let mut bytes = vec![0; 1 << 20];
        bytes[..440].fill(boot_code);
        if !kinds.is_empty() {
            bytes[512..520].copy_from_slice(b"EFI PART");
        }
        for (n, kind) in kinds.iter().enumerate() {
            let at = 1024 + 128 * n;
            bytes[at..at + 16].copy_from_slice(kind);
        }
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &bytes).unwrap();
        Raw::new(file).unwrap()
    }

    #[test]
    fn a_disk_tells_how_it_boots() {
        let data = [7; 16];
        for (disk, boots) in [
            (disk(0, &[]), Firmware::Bios),
            (disk(0x90, &[]), Firmware::Bios),
            (disk(0, &[data]), Firmware::Bios),
            (disk(0, &[data, EFI_PARTITION]), Firmware::Efi),
            (disk(0x90, &[EFI_PARTITION]), Firmware::Bios),
            (disk(0, &[BIOS_PARTITION, EFI_PARTITION]), Firmware::Bios),
        ] {
            assert_eq!(boots_by(&disk).unwrap(), boots);
        }
    }
}
