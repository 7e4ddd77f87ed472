//! Windows: whether it boots from virtio. Nothing is changed in it.

use super::guest::Guest;
use super::inspect::Found;
use super::{AdaptError, Refusal, Wanted};

/// The drivers of disk and network, and their services.
const DRIVERS: [(&str, &str); 2] = [("viostor.sys", "viostor"), ("netkvm.sys", "netkvm")];

pub(super) async fn adapt(guest: &mut Guest, found: &Found, wanted: &Wanted) -> Result<(), AdaptError> {
    if sleeps(guest).await? {
        return Err(Refusal::Hibernated.into());
    }
    let mut missing = Vec::new();
    for (file, _) in DRIVERS {
        let path = format!("/windows/system32/drivers/{file}");
        if guest.maybe(&["case-sensitive-path", &path]).await?.is_none() {
            missing.push(file.to_owned());
        }
    }
    if missing.is_empty() && !starts_at_boot(guest, found).await? {
        missing.push("the service viostor, to start at boot".to_owned());
    }
    if !missing.is_empty() {
        return Err(Refusal::WindowsWithoutVirtio { missing }.into());
    }
    if wanted.firmware.is_some_and(|f| f != wanted.boots_with) {
        let why = "Windows cannot be given another firmware from outside".to_owned();
        let advice = "run mbr2gpt in the guest before, or keep the firmware".to_owned();
        return Err(Refusal::Firmware { why, advice }.into());
    }
    // The system disk alone, as it is with Windows.
    if guest
        .maybe(&["ntfs-3g-probe", "true", &found.os.root])
        .await?
        .as_deref()
        != Some("0")
    {
        guest.warn(format!(
            "{} was not shut down: Windows repairs it when it boots",
            found.os.root
        ));
    }
    if wanted.hostname.is_some() || wanted.new_identity {
        guest.warn("Windows keeps its name and its identity: run `sysprep /generalize` in it");
    }
    if wanted.serial_console {
        guest.warn("Windows has no serial console: switch it on by `bcdedit /ems on` in it");
    }
    if wanted.cloud_init.is_some() || !wanted.metadata.is_empty() {
        guest.warn("Windows is not told user-data or metadata");
    }
    guest.did("Windows has its virtio drivers: nothing was changed");
    Ok(())
}

/// Whether Windows on the mounted file system has kept its memory to go on with.
pub(super) async fn sleeps(guest: &mut Guest) -> Result<bool, AdaptError> {
    let Some(path) = guest.maybe(&["case-sensitive-path", "/hiberfil.sys"]).await? else {
        return Ok(false);
    };
    // Gone on with, it begins otherwise.
    let head = guest.maybe(&["pread", &path, "4", "0"]).await?;
    Ok(head.is_some_and(|head| head.eq_ignore_ascii_case("hibr")))
}

/// Whether the driver of disks is one of those that the loader takes along.
async fn starts_at_boot(guest: &mut Guest, found: &Found) -> Result<bool, AdaptError> {
    let set = guest
        .maybe(&["inspect-get-windows-current-control-set", &found.os.root])
        .await?;
    let hive = guest
        .maybe(&["inspect-get-windows-system-hive", &found.os.root])
        .await?;
    let (Some(set), Some(hive)) = (set, hive) else {
        return Ok(false);
    };
    guest.ask("open the registry", &["hivex-open", &hive]).await?;
    let mut node = guest.maybe(&["hivex-root"]).await?;
    for key in [set.as_str(), "Services", DRIVERS[0].1] {
        let Some(at) = node else { break };
        // 0 is none.
        node = guest
            .maybe(&["hivex-node-get-child", &at, key])
            .await?
            .filter(|n| n != "0");
    }
    let mut value = None;
    if let Some(node) = node {
        value = guest
            .maybe(&["hivex-node-get-value", &node, "Start"])
            .await?
            .filter(|v| v != "0");
    }
    let mut starts = false;
    if let Some(value) = value {
        // Four bytes of a number, and all are 0.
        starts = guest
            .ask("read the registry", &["hivex-value-value", &value])
            .await?
            .starts_with('\0');
    }
    guest.ask("close the registry", &["hivex-close"]).await?;
    Ok(starts)
}
