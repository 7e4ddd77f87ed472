//! Which file systems there are on the disks of a copy.

use super::error::FilesError;
use super::name::{escape, quote};
use super::session::Session;
use super::{Disk, FileSystem, LIMIT, Trouble};
use std::time::Duration;

/// To look at all disks.
const LOOK: Duration = Duration::from_secs(180);
/// Most file systems that are looked at, for each takes its time.
const MOST: usize = 64;
/// As much of a file that names a system is read.
const RELEASE: usize = 64 << 10;

/// What holds a file system for who has its key.
const ENCRYPTED: [&str; 2] = ["crypto_LUKS", "BitLocker"];

/// All file systems, and what is wrong with those that cannot be read.
pub(crate) async fn find(session: &mut Session, disks: &[Disk]) -> Result<Vec<FileSystem>, FilesError> {
    let listed = text(session, "list disks", "list-devices", LOOK).await?;
    let mut devices: Vec<_> = listed.lines().collect();
    // In the order in which they were added, sdaa behind sdz.
    devices.sort_by_key(|d| (d.len(), *d));
    let devices: Vec<_> = devices.into_iter().zip(disks).collect();
    let listed = text(session, "list file systems", "list-filesystems", LOOK).await?;
    let systems = listed.lines().filter_map(|line| line.rsplit_once(": "));
    let systems: Vec<_> = systems.take(MOST).collect();
    let mut found = Vec::new();
    for (device, kind) in &systems {
        found.push(look_at(session, device, kind, disk_of(device, &devices)).await?);
    }
    // What is encrypted is not listed among them.
    let partitions = text(session, "list partitions", "list-partitions", LOOK).await?;
    let volumes = text(session, "list logical volumes", "lvs", LOOK).await?;
    let whole = devices.iter().map(|(device, _)| *device);
    let others = whole.chain(partitions.lines()).chain(volumes.lines());
    for device in others.filter(|o| systems.iter().all(|(s, _)| s != o)).take(MOST) {
        let command = format!("vfs-type {}", quote(device.as_bytes()));
        let kind = optional(session, &command).await?.unwrap_or_default();
        if ENCRYPTED.contains(&kind.as_str()) {
            found.push(look_at(session, device, &kind, disk_of(device, &devices)).await?);
        }
    }
    let nothing = |f: &FileSystem| matches!(f.trouble, Some(Trouble::Unknown | Trouble::Swap));
    if found.iter().all(nothing) {
        return Err(FilesError::NoFileSystem);
    }
    found.sort_by(|a, b| (&a.disk, &a.device).cmp(&(&b.disk, &b.device)));
    Ok(found)
}

async fn look_at(
    session: &mut Session,
    device: &str,
    kind: &str,
    disk: Option<String>,
) -> Result<FileSystem, FilesError> {
    let word = quote(device.as_bytes());
    let bytes = optional(session, &format!("blockdev-getsize64 {word}")).await?;
    let mut system = FileSystem {
        device: device.to_owned(),
        disk,
        label: optional(session, &format!("vfs-label {word}")).await?,
        bytes: bytes.and_then(|b| b.parse().ok()),
        os: None,
        trouble: match kind {
            "swap" => Some(Trouble::Swap),
            "unknown" => Some(Trouble::Unknown),
            kind if ENCRYPTED.contains(&kind) => Some(Trouble::Encrypted),
            _ => None,
        },
        kind: kind.to_owned(),
    };
    if system.trouble.is_some() {
        return Ok(system);
    }
    match mount(session, device).await {
        Ok(()) => system.os = os(session).await?,
        Err(FilesError::Damaged { why, .. }) => system.trouble = Some(Trouble::Damaged(why)),
        Err(e) => return Err(e),
    }
    Ok(system)
}

fn disk_of(device: &str, devices: &[(&str, &Disk)]) -> Option<String> {
    let on = devices.iter().filter(|(disk, _)| is_on(device, disk));
    on.max_by_key(|(disk, _)| disk.len())
        .map(|(_, disk)| disk.name.clone())
}

/// A partition's name is its disk's with a number behind it.
fn is_on(device: &str, disk: &str) -> bool {
    let device = device.strip_prefix("btrfsvol:").unwrap_or(device);
    let rest = device.strip_prefix(disk);
    rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_lowercase()))
}

/// Mounts a file system to be read, in place of the one before.
pub(crate) async fn mount(session: &mut Session, device: &str) -> Result<(), FilesError> {
    if session.mounted.as_deref() == Some(device) {
        return Ok(());
    }
    session.mounted = None;
    session.run("unmount", "umount-all", LIMIT).await?;
    let command = format!("mount-ro {} /", quote(device.as_bytes()));
    match session.run("mount", &command, LIMIT).await {
        Ok(_) => session.mounted = Some(device.to_owned()),
        Err(FilesError::Refused { why, .. }) => {
            let device = device.to_owned();
            // The first line says it; what follows is advice about this host.
            let why = why.lines().next().unwrap_or_default();
            let why = why
                .rsplit_once("status 32: ")
                .map_or(why, |(_, why)| why)
                .to_owned();
            return Err(FilesError::Damaged { device, why });
        }
        Err(e) => return Err(e),
    }
    Ok(())
}

/// The operating system on the mounted file system, by what it says of itself.
async fn os(session: &mut Session) -> Result<Option<String>, FilesError> {
    for file in ["/etc/os-release", "/usr/lib/os-release"] {
        let command = format!("download-offset {file} - 0 {RELEASE}");
        if let Some(release) = optional(session, &command).await? {
            let name = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
            return Ok(name.map(|n| n.trim_matches(['"', '\'']).to_owned()));
        }
    }
    let windows = optional(session, "case-sensitive-path /windows/system32/ntoskrnl.exe").await?;
    Ok(windows.map(|_| "Windows".to_owned()))
}

async fn text(session: &mut Session, op: &str, command: &str, limit: Duration) -> Result<String, FilesError> {
    let said = session.run(op, command, limit).await?;
    Ok(String::from_utf8_lossy(&said.bytes).into_owned())
}

/// What a command says, if anything; nothing where it fails, too.
async fn optional(session: &mut Session, command: &str) -> Result<Option<String>, FilesError> {
    match session.run("look", command, LIMIT).await {
        Ok(said) => {
            let said = said.bytes.trim_ascii();
            let clean = || match std::str::from_utf8(said) {
                Ok(text) => text.to_owned(),
                Err(_) => escape(said),
            };
            Ok((!said.is_empty()).then(clean))
        }
        Err(FilesError::Refused { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_on_its_disk_and_on_no_other() {
        assert!(is_on("/dev/sda1", "/dev/sda"));
        assert!(is_on("/dev/sdab", "/dev/sdab"));
        assert!(is_on("btrfsvol:/dev/sda2/home", "/dev/sda"));
        assert!(!is_on("/dev/sdab1", "/dev/sda"));
        assert!(!is_on("/dev/vg0/home", "/dev/sda"));
    }
}
