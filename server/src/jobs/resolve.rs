//! What a request names becomes what it is: names of images, networks and storages become ids.

use super::Jobs;
use super::check::check_mac;
use crate::db;
use db::places::NetworkRow;
use shared::Status;
use shared::can::limit;
use shared::edit::PortForward;
use shared::place::NetworkKind;
use shared::vm::{NewDisk, NewNic};

impl Jobs {
    pub(super) async fn resolve_nics(
        &self,
        field: &str,
        nics: Option<&mut Vec<NewNic>>,
    ) -> Result<(), Status> {
        let Some(nics) = nics else { return Ok(()) };
        limit::within(field, nics.len() as u64, 0, limit::NICS as u64, "NICs")?;
        let networks = db::places::networks(&self.world().db).await?;
        for (n, nic) in nics.iter_mut().enumerate() {
            let network = find_network(&networks, &nic.network)?;
            check_forwards(&format!("{field}[{n}].forwards"), network, &nic.forwards)?;
            nic.network = network.id.to_string();
            if let Some(mac) = &nic.mac {
                check_mac(&format!("{field}[{n}].mac"), mac)?;
            }
        }
        Ok(())
    }

    pub(super) async fn resolve_storage(&self, storage: Option<&mut String>) -> Result<(), Status> {
        let Some(storage) = storage else { return Ok(()) };
        let all = db::places::storages(&self.world().db).await?;
        let known = all
            .iter()
            .find(|s| s.name.as_str() == storage || s.id.to_string() == *storage);
        *storage = known
            .ok_or_else(|| Status::not_found("storage", &*storage))?
            .id
            .to_string();
        Ok(())
    }

    /// Names the image of a disk by its id, and sees that the disk is large enough.
    pub(super) async fn resolve_disk(&self, field: &str, disk: &mut NewDisk) -> Result<(), Status> {
        let gib = match disk {
            NewDisk::Blank(disk) => Some(disk.size_gib),
            NewDisk::Image(disk) => disk.size_gib,
        };
        let field = format!("{field}.sizeGib");
        if let Some(gib) = gib {
            limit::within(&field, u64::from(gib), 1, u64::from(limit::DISK_GIB), "GiB")?;
        }
        let NewDisk::Image(disk) = disk else { return Ok(()) };
        let image = db::images::find(&self.world().db, &disk.image).await?;
        let image = image.ok_or_else(|| Status::not_found("image", &disk.image))?;
        if let Some(gib) = gib
            && u64::from(gib) << 30 < image.virtual_bytes
        {
            let least = image.virtual_bytes.div_ceil(1 << 30);
            let why = format_args!("image {} needs at least {least} GiB", image.name);
            return Err(Status::invalid(&field, why));
        }
        disk.image = image.id.to_string();
        Ok(())
    }
}

/// The network of this name or id.
pub(super) fn find_network<'a>(
    networks: &'a [NetworkRow],
    reference: &str,
) -> Result<&'a NetworkRow, Status> {
    let known = networks
        .iter()
        .find(|k| k.name.as_str() == reference || k.id.to_string() == reference);
    known.ok_or_else(|| Status::not_found("network", reference))
}

/// Refuses ports that would lead nowhere, and be nobody else's.
pub(super) fn check_forwards(field: &str, network: &NetworkRow, asked: &[PortForward]) -> Result<(), Status> {
    if asked.is_empty() || network.kind == NetworkKind::User {
        return Ok(());
    }
    let why = format_args!(
        "network {} is of kind {}, and only those of kind USER forward ports: leave them out, or choose another network",
        network.name, network.kind
    );
    Err(Status::invalid(field, why))
}
