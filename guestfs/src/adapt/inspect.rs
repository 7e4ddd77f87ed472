//! What is on the disks, and what its devices are called.

use super::guest::Guest;
use super::{AdaptError, Licence, LicenceKind, Os, Refusal};
use std::collections::BTreeMap;

/// What holds a file system for who has its key.
const ENCRYPTED: [&str; 2] = ["crypto_LUKS", "BitLocker"];

/// An operating system and its disks.
pub(super) struct Found {
    pub(super) os: Os,
    /// Where file systems of its are mounted, `/` first, and the devices.
    pub(super) mounts: Vec<(String, String)>,
    pub(super) devices: Devices,
}

/// The devices of guestfish's machine.
#[derive(Default)]
pub(super) struct Devices {
    /// The disks, in the order in which they were added.
    pub(super) disks: Vec<String>,
    /// Of partitions and disks that hold something: what, and its UUID.
    pub(super) held: BTreeMap<String, (String, String)>,
}

impl Devices {
    /// What a name of old hardware's, such as `/dev/sda1`, is by its UUID, if it is known and holds a file system of that type.
    pub(super) fn resolve(&self, spec: &str, kind: Option<&str>) -> Option<String> {
        let (disk, partition) = place(spec)?;
        let disk = match disk {
            Some(disk) => self.disks.get(disk)?,
            // A path or a serial number says nothing where there is more than one.
            None => self.disks.first().filter(|_| self.disks.len() == 1)?,
        };
        let device = match partition {
            Some(partition) => format!("{disk}{partition}"),
            None => disk.clone(),
        };
        let (held, uuid) = self.held.get(&device)?;
        let same = kind.is_none_or(|k| {
            k == "auto" || k == "none" || k == held || (k, held.as_str()) == ("ext3", "ext2")
        });
        let same = same || kind.is_some_and(|k| k.starts_with("ext") && held.starts_with("ext"));
        (same && !uuid.is_empty()).then(|| format!("UUID={uuid}"))
    }
}

/// Which disk and partition a name means that stays only as long as the hardware. `None` for the disk where its number is not said.
pub(super) fn place(spec: &str) -> Option<(Option<usize>, Option<u32>)> {
    let name = spec.strip_prefix("/dev/")?;
    let number = |text: &str| text.parse::<u32>().ok().filter(|n| *n > 0);
    if let Some(id) = name
        .strip_prefix("disk/by-id/")
        .or_else(|| name.strip_prefix("disk/by-path/"))
    {
        // Of LVM's and RAID's there are links, too, which stay.
        if id.starts_with("dm-") || id.starts_with("md-") || id.starts_with("lvm-") {
            return None;
        }
        let partition = match id.rsplit_once("-part") {
            Some((_, partition)) => Some(number(partition)?),
            None => None,
        };
        return Some((None, partition));
    }
    if let Some(rest) = name.strip_prefix("nvme") {
        let (disk, rest) = rest.split_once('n')?;
        let partition = match rest.split_once('p') {
            Some((_, partition)) => Some(number(partition)?),
            None => None,
        };
        return Some((Some(disk.parse().ok()?), partition));
    }
    let rest = ["xvd", "sd", "hd", "vd"]
        .iter()
        .find_map(|p| name.strip_prefix(p))?;
    let letters = rest.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.len());
    let (letters, digits) = rest.split_at(letters);
    if letters.is_empty() || letters.len() > 2 {
        return None;
    }
    let partition = if digits.is_empty() {
        None
    } else {
        Some(number(digits)?)
    };
    let disk = letters.bytes().fold(0, |n, b| n * 26 + usize::from(b - b'a') + 1) - 1;
    Some((Some(disk), partition))
}

/// Finds the operating system and mounts it.
pub(super) async fn find(guest: &mut Guest) -> Result<Found, AdaptError> {
    let (devices, encrypted) = devices(guest).await?;
    let roots = guest.ask("find operating systems", &["inspect-os"]).await?;
    let roots: Vec<_> = roots.lines().map(str::to_owned).collect();
    let root = match &roots[..] {
        [] => return Err(none(guest, &devices, encrypted).await?.into()),
        [root] => root.clone(),
        several => {
            let mut found = Vec::new();
            for root in several {
                let product = guest.maybe(&["inspect-get-product-name", root]).await?;
                found.push(format!("{} on {root}", product.unwrap_or_default()));
            }
            return Err(Refusal::SeveralOperatingSystems { found }.into());
        }
    };
    let mut ask = async |what: &str| guest.maybe(&[what, &root]).await.map(Option::unwrap_or_default);
    let (major, minor) = (
        ask("inspect-get-major-version").await?,
        ask("inspect-get-minor-version").await?,
    );
    let hostname = ask("inspect-get-hostname").await?;
    let os = Os {
        kind: ask("inspect-get-type").await?,
        distribution: ask("inspect-get-distro").await?,
        version: if minor == "0" || minor.is_empty() {
            major
        } else {
            format!("{major}.{minor}")
        },
        product: ask("inspect-get-product-name").await?,
        arch: ask("inspect-get-arch").await?,
        hostname: Some(hostname).filter(|h| !h.is_empty() && h != "unknown"),
        root: root.clone(),
    };
    let mounts = ask("inspect-get-mountpoints").await?;
    let mounts = mounts.lines().filter_map(|l| l.split_once(": "));
    let mut mounts: Vec<_> = mounts
        .map(|(at, device)| (at.to_owned(), device.to_owned()))
        .collect();
    mounts.sort_by_key(|(at, _)| at.len());
    for device in encrypted {
        guest.warn(format!("{device} is encrypted: it was not looked at"));
    }
    let found = Found { os, mounts, devices };
    mount(guest, &found).await?;
    Ok(found)
}

/// Mounts all file systems of an operating system.
pub(super) async fn mount(guest: &mut Guest, found: &Found) -> Result<(), AdaptError> {
    guest.ask("unmount", &["umount-all"]).await?;
    // What is never written needs no journal to be played back, and no clean end.
    let how = if guest.dry || found.os.kind != "linux" {
        "mount-ro"
    } else {
        "mount"
    };
    for (at, device) in &found.mounts {
        let mounted = guest.ask("mount", &[how, device, at]).await;
        let why = match mounted {
            Ok(_) => continue,
            Err(AdaptError::Host(crate::FilesError::Refused { why, .. })) => why,
            Err(e) => return Err(e),
        };
        let why = why.lines().next().unwrap_or_default().to_owned();
        if ["/", "/boot", "/usr", "/boot/efi", "/var"].contains(&at.as_str()) {
            let device = device.clone();
            return Err(Refusal::NotClean { device, why }.into());
        }
        guest.warn(format!("{device} could not be mounted on {at}: {why}"));
    }
    Ok(())
}

async fn devices(guest: &mut Guest) -> Result<(Devices, Vec<String>), AdaptError> {
    let listed = guest.ask("list disks", &["list-devices"]).await?;
    let mut disks: Vec<_> = listed.lines().map(str::to_owned).collect();
    // In the order in which they were added, sdaa behind sdz.
    disks.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    let mut all = disks.clone();
    for list in ["list-partitions", "lvs"] {
        let listed = guest.ask("list devices", &[list]).await?;
        all.extend(listed.lines().map(str::to_owned));
    }
    let (mut held, mut encrypted) = (BTreeMap::new(), Vec::new());
    for device in all {
        let Some(kind) = guest.maybe(&["vfs-type", &device]).await? else {
            continue;
        };
        if ENCRYPTED.contains(&kind.as_str()) {
            encrypted.push(device.clone());
        }
        let uuid = guest.maybe(&["vfs-uuid", &device]).await?.unwrap_or_default();
        held.insert(device, (kind, uuid));
    }
    Ok((Devices { disks, held }, encrypted))
}

/// Why there is no operating system.
async fn none(guest: &mut Guest, devices: &Devices, encrypted: Vec<String>) -> Result<Refusal, AdaptError> {
    if let Some(device) = encrypted.into_iter().next() {
        return Ok(Refusal::Encrypted { device });
    }
    // Windows whose registry cannot be read is not found by it.
    for (device, (kind, _)) in &devices.held {
        if kind != "ntfs" {
            continue;
        }
        guest.ask("unmount", &["umount-all"]).await?;
        match guest.ask("mount", &["mount-ro", device, "/"]).await {
            Ok(_) => {}
            Err(AdaptError::Host(crate::FilesError::Refused { why, .. })) => {
                let (device, why) = (device.clone(), why.lines().next().unwrap_or_default().to_owned());
                return Ok(Refusal::NotClean { device, why });
            }
            Err(e) => return Err(e),
        }
        if super::windows::sleeps(guest).await? {
            return Ok(Refusal::Hibernated);
        }
        if guest
            .maybe(&["case-sensitive-path", "/windows/system32/ntoskrnl.exe"])
            .await?
            .is_some()
        {
            let what = format!("Windows on {device}, whose registry cannot be read,");
            return Ok(Refusal::Unknown { what });
        }
    }
    Ok(Refusal::NoOperatingSystem)
}

/// What it may be run by, by what it says of itself.
pub(super) fn licence(os: &Os) -> Licence {
    let major = os.version.split('.').next().unwrap_or_default();
    if os.kind == "windows" {
        let name = os.product.to_lowercase();
        let name: Vec<_> = name
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|w| {
                ![
                    "",
                    "microsoft",
                    "r",
                    "standard",
                    "datacenter",
                    "evaluation",
                    "edition",
                ]
                .contains(w)
            })
            .collect();
        return Licence {
            kind: LicenceKind::BringYourOwn,
            os_licence: name.join("-"),
        };
    }
    let (kind, of) = match os.distribution.as_str() {
        "rhel" | "sles" | "sled" | "suse-based" => {
            (LicenceKind::BringYourOwn, " (subscription of its owner)")
        }
        "" | "unknown" => (LicenceKind::Unknown, ""),
        _ => (LicenceKind::Free, ""),
    };
    // Ubuntu's and openSUSE's second number is a release of its own.
    let version = if ["ubuntu", "opensuse", "alpinelinux"].contains(&os.distribution.as_str()) {
        &os.version
    } else {
        major
    };
    let name = if os.distribution.is_empty() {
        "linux"
    } else {
        &os.distribution
    };
    let dash = if version.is_empty() { "" } else { "-" };
    Licence {
        kind,
        os_licence: format!("{name}{dash}{version}{of}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_old_names() {
        for (spec, is) in [
            ("/dev/sda1", Some((Some(0), Some(1)))),
            ("/dev/vdb", Some((Some(1), None))),
            ("/dev/sdaa12", Some((Some(26), Some(12)))),
            ("/dev/xvda3", Some((Some(0), Some(3)))),
            ("/dev/nvme1n1p2", Some((Some(1), Some(2)))),
            ("/dev/nvme0n1", Some((Some(0), None))),
            ("/dev/disk/by-id/ata-QEMU_1-part2", Some((None, Some(2)))),
            ("/dev/disk/by-path/pci-0000:00:1f.2-ata-1", Some((None, None))),
            ("/dev/disk/by-id/dm-name-vg-root", None),
            ("/dev/disk/by-uuid/x", None),
            ("/dev/mapper/vg-root", None),
            ("/dev/sr0", None),
            ("/dev/sda0", None),
            ("/dev/sda1x", None),
            ("UUID=x", None),
        ] {
            assert_eq!(place(spec), is, "{spec}");
        }
    }

    #[test]
    fn only_what_is_known_and_of_the_type_is_resolved() {
        let held = |kind: &str, uuid: &str| (kind.to_owned(), uuid.to_owned());
        let mut devices = Devices {
            disks: vec!["/dev/sda".into()],
            held: [
                ("/dev/sda1".to_owned(), held("ext4", "one")),
                ("/dev/sda2".to_owned(), held("swap", "two")),
            ]
            .into(),
        };
        let is = |devices: &Devices, spec: &str, kind| devices.resolve(spec, kind);
        assert_eq!(
            is(&devices, "/dev/hda1", Some("ext3")).as_deref(),
            Some("UUID=one")
        );
        assert_eq!(
            is(&devices, "/dev/sda2", Some("swap")).as_deref(),
            Some("UUID=two")
        );
        assert_eq!(is(&devices, "/dev/sda2", Some("xfs")), None);
        assert_eq!(is(&devices, "/dev/sda3", None), None);
        assert_eq!(is(&devices, "/dev/sdb1", None), None);
        assert_eq!(
            is(&devices, "/dev/disk/by-id/x-part1", None).as_deref(),
            Some("UUID=one")
        );
        devices.disks.push("/dev/sdb".into());
        assert_eq!(is(&devices, "/dev/disk/by-id/x-part1", None), None);
    }

    #[test]
    fn licences() {
        let os = |kind: &str, distribution: &str, version: &str, product: &str| Os {
            kind: kind.into(),
            distribution: distribution.into(),
            version: version.into(),
            product: product.into(),
            ..Os::default()
        };
        for (os, kind, name) in [
            (os("linux", "debian", "12.11", ""), LicenceKind::Free, "debian-12"),
            (
                os("linux", "ubuntu", "24.04", ""),
                LicenceKind::Free,
                "ubuntu-24.04",
            ),
            (
                os("linux", "rhel", "9.4", ""),
                LicenceKind::BringYourOwn,
                "rhel-9 (subscription of its owner)",
            ),
            (
                os("windows", "windows", "10", "Windows Server 2019 Standard"),
                LicenceKind::BringYourOwn,
                "windows-server-2019",
            ),
            (os("linux", "unknown", "", ""), LicenceKind::Unknown, "unknown"),
        ] {
            let licence = licence(&os);
            assert_eq!((licence.kind, licence.os_licence.as_str()), (kind, name));
        }
    }
}
