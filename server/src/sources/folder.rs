//! A directory of exported machines: OVAs; OVFs with their disks beside them; directories with the disks of one machine;
//! single disks. Links are not followed.

use super::{SourceError, ovf};
use crate::disks::image::Found;
use crate::disks::{DiskError, Disks};
use serde::{Deserialize, Serialize};
use shared::can::limit;
use shared::image::ImageFormat;
use shared::vm::Firmware;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// Most entries of a directory.
const MOST: usize = 4096;
/// Files that are disks, by the ends of their names.
const DISKS: [&str; 5] = ["qcow2", "raw", "img", "vmdk", "vhdx"];

/// An exported machine, as far as its export says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Where it is in the directory.
    pub id: String,
    /// Its name, as its OVF or its file has it.
    pub name: String,
    /// Its operating system, in the words of its OVF.
    pub os: Option<String>,
    /// Processors.
    pub cpus: Option<u32>,
    /// Memory, in MiB.
    pub memory_mib: Option<u32>,
    /// Firmware.
    pub firmware: Option<Firmware>,
    /// How many NICs it has.
    pub nics: Option<u32>,
    /// In the order in which the machine has them.
    pub disks: Vec<Disk>,
    /// Why it cannot be carried over.
    pub refusal: Option<String>,
}

/// A disk of an exported machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The file that it is in.
    pub path: PathBuf,
    /// Where in the file, and as what.
    pub found: Found,
    /// When the file was last written, in microseconds since 1970.
    pub modified: i64,
}

impl Disk {
    /// Whether the file is as it was when it was looked at.
    ///
    /// # Errors
    ///
    /// It cannot be looked at.
    pub fn is_as_it_was(&self) -> Result<bool, SourceError> {
        let meta = std::fs::metadata(&self.path).map_err(SourceError::io(&self.path))?;
        Ok(modified(&meta) == self.modified)
    }
}

fn modified(meta: &std::fs::Metadata) -> i64 {
    let since = meta
        .modified()
        .ok()
        .and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_micros() as i64)
}

/// A machine whose disks have not been looked at.
struct Plan {
    id: String,
    /// Its name, where it has none of its own.
    called: String,
    described: ovf::Described,
    files: Vec<PathBuf>,
    /// In an archive: where its disks begin, in their order.
    offsets: Vec<u64>,
    refusal: Option<String>,
}

/// All machines of a directory; `most` is the largest disk, in bytes.
pub async fn list(disks: &Arc<dyn Disks>, dir: &Path, most: u64) -> Result<Vec<Machine>, SourceError> {
    let dir = dir.to_owned();
    let plans = tokio::task::spawn_blocking(move || plans(&dir)).await;
    let mut all = Vec::new();
    for plan in plans.map_err(|_| SourceError::Thread)?? {
        all.push(look(disks, plan, most).await?);
    }
    Ok(all)
}

/// Looks at the disks of a machine.
async fn look(disks: &Arc<dyn Disks>, plan: Plan, most: u64) -> Result<Machine, SourceError> {
    let says = plan.described != ovf::Described::default();
    let mut machine = Machine {
        id: plan.id,
        name: plan.described.name.unwrap_or(plan.called),
        os: plan.described.os,
        cpus: plan.described.cpus,
        memory_mib: plan.described.memory_mib,
        firmware: plan.described.firmware,
        nics: says.then_some(plan.described.nics),
        disks: Vec::new(),
        refusal: plan.refusal,
    };
    for path in plan.files {
        let meta = std::fs::metadata(&path).map_err(SourceError::io(&path))?;
        let format = has_end(&path, "raw").then_some(ImageFormat::Raw);
        match disks.inspect(&path, format, most).await {
            Ok(found) => machine.disks.extend(found.into_iter().map(|found| Disk {
                path: path.clone(),
                found,
                modified: modified(&meta),
            })),
            Err(DiskError::Refused { why, .. }) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let why = format!("{name}: {why}");
                machine.refusal.get_or_insert(why);
            }
            Err(source) => return Err(SourceError::Disk { path, source }),
        }
    }
    if !plan.offsets.is_empty() {
        let place = |disk: &Disk| plan.offsets.iter().position(|at| *at == disk.found.offset);
        machine
            .disks
            .sort_by_key(|disk| place(disk).unwrap_or(usize::MAX));
    }
    if machine.disks.is_empty() {
        machine.refusal.get_or_insert_with(|| "it has no disk".to_owned());
    }
    if machine.disks.len() > limit::DISKS {
        let why = format!(
            "it has {} disks, and {} are allowed",
            machine.disks.len(),
            limit::DISKS
        );
        machine.refusal.get_or_insert(why);
    }
    Ok(machine)
}

fn has_end(path: &Path, end: &str) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case(end))
}

fn is_disk(path: &Path) -> bool {
    DISKS.iter().any(|end| has_end(path, end))
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// The plain files and directories of a directory, by name.
fn entries(dir: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), SourceError> {
    let (mut files, mut dirs) = (Vec::new(), Vec::new());
    for (n, entry) in std::fs::read_dir(dir).map_err(SourceError::io(dir))?.enumerate() {
        if n == MOST {
            let path = dir.to_owned();
            return Err(SourceError::Many { path, most: MOST });
        }
        let entry = entry.map_err(SourceError::io(dir))?;
        let kind = entry.file_type().map_err(SourceError::io(&entry.path()))?;
        // What is hidden is being written, or nobody's machine.
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if kind.is_file() {
            files.push(entry.path());
        } else if kind.is_dir() {
            dirs.push(entry.path());
        }
    }
    files.sort();
    dirs.sort();
    Ok((files, dirs))
}

fn plans(dir: &Path) -> Result<Vec<Plan>, SourceError> {
    let (files, dirs) = entries(dir)?;
    let mut all = described(dir, &files)?;
    let named: Vec<PathBuf> = all.iter().flat_map(|plan| plan.files.clone()).collect();
    for path in &files {
        if has_end(path, "ova") {
            all.push(archive(path)?);
        } else if is_disk(path) && !named.contains(path) {
            let file = path.file_name().unwrap_or_default();
            all.push(Plan {
                id: file.to_string_lossy().into_owned(),
                called: stem(path),
                described: ovf::Described::default(),
                files: vec![path.clone()],
                offsets: Vec::new(),
                refusal: None,
            });
        }
    }
    for dir in &dirs {
        let (files, _) = entries(dir)?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut inside = described(dir, &files)?;
        let disks: Vec<_> = files.into_iter().filter(|path| is_disk(path)).collect();
        if inside.is_empty() && !disks.is_empty() {
            all.push(Plan {
                id: name.clone(),
                called: name,
                described: ovf::Described::default(),
                files: disks,
                offsets: Vec::new(),
                refusal: None,
            });
            continue;
        }
        for plan in &mut inside {
            plan.id = format!("{name}/{}", plan.id);
        }
        all.append(&mut inside);
    }
    Ok(all)
}

/// The machines of a directory that an OVF describes.
fn described(dir: &Path, files: &[PathBuf]) -> Result<Vec<Plan>, SourceError> {
    let mut all = Vec::new();
    for path in files.iter().filter(|path| has_end(path, "ovf")) {
        let file = File::open(path).map_err(SourceError::io(path))?;
        let mut text = String::new();
        let read = file.take(ovf::MOST_BYTES).read_to_string(&mut text);
        let (described, mut refusal) = match read.map_err(|e| e.to_string()).and_then(|_| ovf::read(&text)) {
            Ok(described) => (described, None),
            Err(why) => (ovf::Described::default(), Some(why)),
        };
        let mut disks = Vec::new();
        for name in &described.files {
            // Of other directories it has nothing to say.
            let mut parts = Path::new(name).components();
            let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
            let there = plain.then(|| dir.join(name)).filter(|path| files.contains(path));
            match there {
                Some(path) => disks.push(path),
                None => {
                    refusal.get_or_insert_with(|| format!("its disk {name} is not beside its OVF"));
                }
            }
        }
        all.push(Plan {
            id: path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            called: stem(path),
            described,
            files: disks,
            offsets: Vec::new(),
            refusal,
        });
    }
    Ok(all)
}

/// The machine of an OVA.
fn archive(path: &Path) -> Result<Plan, SourceError> {
    let mut plan = Plan {
        id: path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        called: stem(path),
        described: ovf::Described::default(),
        files: vec![path.to_owned()],
        offsets: Vec::new(),
        refusal: None,
    };
    match members(path) {
        Ok((text, members)) => match text.as_deref().map(ovf::read) {
            Some(Ok(described)) => {
                let place = |name: &String| members.iter().find(|(n, _)| n == name).map(|(_, at)| *at);
                plan.offsets = described.files.iter().filter_map(place).collect();
                plan.described = described;
            }
            Some(Err(why)) => plan.refusal = Some(why),
            // The look at its disks says what is wrong.
            None => {}
        },
        Err(e) => plan.refusal = Some(format!("it is no archive: {e}")),
    }
    Ok(plan)
}

/// The OVF of an archive, and where its files begin.
type Members = (Option<String>, Vec<(String, u64)>);

fn members(path: &Path) -> std::io::Result<Members> {
    let mut archive = tar::Archive::new(File::open(path)?);
    let (mut text, mut all) = (None, Vec::new());
    for entry in archive.entries_with_seek()?.take(MOST) {
        let mut entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let is_ovf = Path::new(&name).extension() == Some(OsStr::new("ovf"));
        if is_ovf && text.is_none() {
            let mut said = String::new();
            entry.by_ref().take(ovf::MOST_BYTES).read_to_string(&mut said)?;
            text = Some(said);
        }
        all.push((name, entry.raw_file_position()));
    }
    Ok((text, all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disks::QemuImg;

    async fn listed(dir: &Path) -> Vec<Machine> {
        let disks: Arc<dyn Disks> = Arc::new(QemuImg::default());
        let mut all = list(&disks, dir, 1 << 40).await.unwrap();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// A raw disk with a boot sector.
    fn raw(path: &Path, mib: u64) {
        let mut bytes = vec![0; 512];
        bytes[510..].copy_from_slice(b"\x55\xaa");
        std::fs::write(path, bytes).unwrap();
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(mib << 20)
            .unwrap();
    }

    #[tokio::test]
    async fn machines_are_found_by_how_they_were_exported() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        raw(&at("single.img"), 1);
        std::fs::create_dir_all(at("pair")).unwrap();
        raw(&at("pair/a.raw"), 2);
        raw(&at("pair/b.raw"), 3);
        std::fs::create_dir_all(at("empty")).unwrap();
        std::fs::write(at("notes.txt"), "no machine").unwrap();
        raw(&at(".hidden.raw"), 1);
        std::os::unix::fs::symlink("/etc/passwd", at("link.raw")).unwrap();
        raw(&at("web-disk1.img"), 4);
        let ovf = |file: &str| {
            format!(
                r#"<Envelope><References><File id="f" href="{file}"/></References><DiskSection><Disk diskId="d" fileRef="f"/></DiskSection>
                <VirtualSystem><Name>web</Name><VirtualHardwareSection><Item><ResourceType>17</ResourceType><HostResource>/disk/d</HostResource></Item>
                </VirtualHardwareSection></VirtualSystem></Envelope>"#
            )
        };
        std::fs::write(at("web.ovf"), ovf("web-disk1.img")).unwrap();
        std::fs::write(at("wild.ovf"), ovf("../pair/a.raw")).unwrap();
        std::fs::write(at("broken.qcow2"), "no image").unwrap();
        let all = listed(dir.path()).await;
        let told: Vec<_> = all
            .iter()
            .map(|m| {
                let sizes: Vec<_> = m.disks.iter().map(|d| d.found.virtual_bytes >> 20).collect();
                (m.id.as_str(), m.name.as_str(), sizes, m.refusal.is_some())
            })
            .collect();
        assert_eq!(
            told,
            [
                ("broken.qcow2", "broken", vec![], true),
                ("pair", "pair", vec![2, 3], false),
                ("single.img", "single", vec![1], false),
                ("web.ovf", "web", vec![4], false),
                ("wild.ovf", "web", vec![], true),
            ]
        );
        assert!(
            all[4].refusal.as_ref().unwrap().contains("not beside"),
            "{all:#?}"
        );
        let single = &all[2].disks[0];
        assert!(single.is_as_it_was().unwrap());
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
        File::options()
            .write(true)
            .open(&single.path)
            .unwrap()
            .set_modified(later)
            .unwrap();
        assert!(!single.is_as_it_was().unwrap());
    }
}
