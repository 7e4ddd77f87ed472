//! An operating system on disks, made to run on QEMU's virtio: drivers, devices by what they hold, names of NICs, and what the new
//! machine is to be.
//!
//! Programs of the guest run in guestfish's machine alone, shut in as it is: they meet a kernel that is not this host's, and
//! disks that are theirs. What is written goes to overlays of the caller's. Adapting what is adapted changes nothing, but for the
//! keys of a new identity.

mod boot;
mod disk;
mod edits;
mod error;
mod guest;
mod inspect;
mod linux;
mod windows;

pub use disk::{Backing, WritableDisk, overlay};
pub use error::{AdaptError, Refusal};

use crate::session::{Drive, Session};
use crate::{Disk, Setup, installed};
use guest::Guest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Longest time of all: three initramfs without KVM, on a busy host.
pub const LIMIT: Duration = Duration::from_secs(15 * 60);
/// Memory of the machine in which programs of the guest run, in MiB, and its processors.
const SIZE: (u32, u32) = (1024, 2);

/// What a machine boots with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub enum Firmware {
    #[default]
    Bios,
    Efi,
}

/// What is told to a guest that has cloud-init.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CloudInit {
    /// By this cloud-init knows whether the machine is a new one; a new one where there is none.
    pub instance_id: Option<String>,
    /// As cloud-init takes it: `#cloud-config` or a script.
    pub user_data: Option<String>,
    /// Its network, of version 1 or 2; else it asks for addresses by DHCP.
    pub network_config: Option<String>,
}

/// What the adapted machine is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Wanted {
    /// Its name; `None` keeps the old.
    pub hostname: Option<String>,
    /// A machine id and SSH host keys of its own.
    pub new_identity: bool,
    /// The kernel and a login on the first serial port.
    pub serial_console: bool,
    /// What it boots with there; `None` is what it booted with before.
    pub firmware: Option<Firmware>,
    /// What it booted with before.
    pub boots_with: Firmware,
    /// The MAC addresses of its NICs there, in their order, as `52:54:00:12:34:56`. By them NICs keep their old names; without,
    /// only a single one does.
    pub macs: Vec<String>,
    /// What cloud-init is told.
    pub cloud_init: Option<CloudInit>,
    /// More for cloud-init's metadata.
    pub metadata: BTreeMap<String, String>,
}

/// An operating system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Os {
    /// `linux`, `windows`.
    pub kind: String,
    /// `debian`, `rhel`, `windows`, …
    pub distribution: String,
    /// Such as `12.11`.
    pub version: String,
    /// What it calls itself.
    pub product: String,
    /// `x86_64`, `i386`.
    pub arch: String,
    /// Its name, if it has one.
    pub hostname: Option<String>,
    /// The device of its root, as the disks come.
    pub root: String,
}

/// Who pays for the right to run an operating system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LicenceKind {
    /// Nobody has to.
    Free,
    /// Its owner has a licence or a subscription, and brings it along.
    BringYourOwn,
    /// It is not known.
    #[default]
    Unknown,
}

/// What an operating system may be run by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Licence {
    /// Who pays.
    pub kind: LicenceKind,
    /// Such as `debian-12`, `rhel-9 (subscription of its owner)`, `windows-server-2019`.
    pub os_licence: String,
}

/// What was done, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What is on the disks.
    pub os: Os,
    /// What it may be run by.
    pub licence: Licence,
    /// What was changed, or would be, a short sentence each.
    pub done: Vec<String>,
    /// What somebody should look at.
    pub warnings: Vec<String>,
    /// What guestfish was asked, and said: at most some 260 KiB.
    pub log: String,
}

/// Why a system was not adapted, and how far it came.
#[derive(Debug)]
pub struct Failure {
    /// Why.
    pub error: AdaptError,
    /// As of [`Report`].
    pub log: String,
}

impl<E: Into<AdaptError>> From<E> for Failure {
    fn from(e: E) -> Self {
        Self {
            error: e.into(),
            log: String::new(),
        }
    }
}

/// Looks whether [`adapt`] would refuse disks, and what it would change. Writes nothing. Takes half a minute without KVM.
pub async fn check(disks: &[Disk], wanted: &Wanted, setup: &Setup) -> Result<Report, Failure> {
    let drives: Vec<_> = disks.iter().map(Drive::Shown).collect();
    work(&drives, wanted, setup, true).await
}

/// Adapts the operating system on disks, which nobody else may write or read meanwhile.
///
/// Takes a minute, and some more for an initramfs without KVM. The overlays are whole when it has returned, and of no use where it failed.
pub async fn adapt(disks: &[WritableDisk], wanted: &Wanted, setup: &Setup) -> Result<Report, Failure> {
    let drives: Vec<_> = disks.iter().map(Drive::Overlay).collect();
    work(&drives, wanted, setup, false).await
}

async fn work(drives: &[Drive<'_>], wanted: &Wanted, setup: &Setup, dry: bool) -> Result<Report, Failure> {
    if let Some(hostname) = wanted.hostname.as_ref().filter(|h| !edits::is_hostname(h)) {
        let hostname = hostname.clone();
        return Err(Refusal::BadHostname { hostname }.into());
    }
    installed().map_err(crate::FilesError::from)?;
    let until = Instant::now() + LIMIT;
    let late = |_| AdaptError::TimedOut {
        op: "to adapt the operating system".to_owned(),
        limit: LIMIT,
    };
    let session = timeout_at(until, Session::start(drives, SIZE, setup)).await;
    let session = session.map_err(late)?;
    let session = session.map_err(|e| guest::of_files(e, "a disk"))?;
    let mut guest = Guest::new(session, dry);
    let adapted = timeout_at(until, whole(&mut guest, wanted)).await;
    let adapted = adapted.map_err(late).flatten();
    guest.session.close().await;
    let log = guest.log;
    match adapted {
        Ok((os, licence)) => Ok(Report {
            os,
            licence,
            done: guest.done,
            warnings: guest.warnings,
            log,
        }),
        Err(error) => Err(Failure { error, log }),
    }
}

/// What was written is in the overlays when it has returned, or it says so.
async fn whole(guest: &mut Guest, wanted: &Wanted) -> Result<(Os, Licence), AdaptError> {
    let found = system(guest, wanted).await?;
    guest.ask("unmount", &["umount-all"]).await?;
    guest.ask("shut the machine down", &["shutdown"]).await?;
    Ok(found)
}

async fn system(guest: &mut Guest, wanted: &Wanted) -> Result<(Os, Licence), AdaptError> {
    let found = inspect::find(guest).await?;
    let licence = inspect::licence(&found.os);
    match found.os.kind.as_str() {
        "linux" => linux::adapt(guest, &found, wanted).await?,
        "windows" => windows::adapt(guest, &found, wanted).await?,
        _ => {
            let what = found.os.product;
            return Err(Refusal::Unknown { what }.into());
        }
    }
    Ok((found.os, licence))
}
