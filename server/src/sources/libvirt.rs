//! Machines of a libvirt. Its calls block, so each has a thread; a connection is opened for what is asked, and kept by nobody but a
//! cycle that reads.

use super::SourceError;
use libvirt::{Connection, Machine, Uri};
use shared::can::limit;
use shared::migrate::{LibvirtSource, MigratingVm};
use shared::vm::Firmware;
use std::time::Duration;

/// How long one may take to answer that was not spoken to yet.
const PATIENCE: Duration = Duration::from_secs(30);

/// Opens a connection.
pub async fn open(place: &LibvirtSource) -> Result<Connection, SourceError> {
    let uri: Uri = place.uri.parse().map_err(SourceError::Uri)?;
    let opening = tokio::task::spawn_blocking(move || Connection::open(&uri));
    let opened = tokio::time::timeout(PATIENCE, opening).await;
    let opened = opened.map_err(|_| SourceError::Silent(place.uri.clone()))?;
    Ok(opened.map_err(|_| SourceError::Thread)??)
}

/// Asks something of a connection.
pub async fn ask<T: Send + 'static>(
    connection: &Connection,
    call: impl FnOnce(&Connection) -> libvirt::Result<T> + Send + 'static,
) -> Result<T, SourceError> {
    let connection = connection.clone();
    let asked = tokio::task::spawn_blocking(move || call(&connection)).await;
    Ok(asked.map_err(|_| SourceError::Thread)??)
}

/// A machine with the reason why there is no room for it here, if so; `most` is the largest disk, in bytes.
fn fitting(mut machine: Machine, most: u64) -> Machine {
    let (disks, bytes) = (machine.disks.len(), machine.disks.iter().map(|disk| disk.bytes));
    let why = match bytes.max() {
        _ if disks > limit::DISKS => Some(format!("it has {disks} disks, and {} are allowed", limit::DISKS)),
        Some(bytes) if bytes > most => Some(format!(
            "it has a disk of {bytes} bytes, and {most} are allowed (image_max_gib)"
        )),
        _ => None,
    };
    machine.refusal = machine.refusal.or(why);
    machine
}

/// All machines; `most` is the largest disk, in bytes.
pub async fn machines(place: &LibvirtSource, most: u64) -> Result<Vec<Machine>, SourceError> {
    let connection = open(place).await?;
    let all = ask(&connection, Connection::machines).await?;
    Ok(all.into_iter().map(|machine| fitting(machine, most)).collect())
}

/// The machine with this UUID, or with this name.
pub async fn find(place: &LibvirtSource, most: u64, reference: &str) -> Result<Option<Machine>, SourceError> {
    let connection = open(place).await?;
    let uuid = reference.to_owned();
    match ask(&connection, move |c| c.machine(&uuid)).await {
        Ok(machine) => return Ok(Some(fitting(machine, most))),
        Err(SourceError::Libvirt(libvirt::Error::Gone(_))) => {}
        Err(e) => return Err(e),
    }
    let mut all = ask(&connection, Connection::machines).await?;
    all.retain(|machine| machine.name == reference);
    Ok(all.pop().map(|machine| fitting(machine, most)))
}

/// How a machine boots.
pub fn firmware(machine: &Machine) -> Firmware {
    match machine.firmware {
        libvirt::Firmware::Bios => Firmware::Bios,
        libvirt::Firmware::Efi => Firmware::Efi,
    }
}

/// What the moments of a migration are called by.
pub fn key(vm: shared::MigratingVmId) -> String {
    vm.0.simple().to_string()
}

/// Has the libvirt forget what it kept to tell what has changed.
pub async fn forget(place: &LibvirtSource, vm: &MigratingVm) -> Result<(), SourceError> {
    let connection = open(place).await?;
    let (uuid, key) = (vm.source_vm.clone(), key(vm.id));
    let forgotten = ask(&connection, move |c| c.forget(&uuid, &key, |_| true, true)).await;
    match forgotten {
        Err(SourceError::Libvirt(libvirt::Error::Gone(_))) => Ok(()),
        forgotten => forgotten,
    }
}
