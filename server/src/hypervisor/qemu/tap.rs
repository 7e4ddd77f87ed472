//! Taps: how NICs join a bridge of the host. A tap is the server's to make; QEMU opens it by its name.

use crate::hypervisor::{HvError, NicSpec};
use shared::VmId;
use std::path::Path;
use tokio::process::Command;

/// A tap's name, of at most 15 letters: of the machine's id the part that is random.
pub fn name(vm: VmId, nic: u32) -> String {
    let id = vm.0.simple().to_string();
    format!("osh{}-{nic}", &id[id.len() - 9..])
}

/// Whether this host has such a bridge.
pub fn is_bridge(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && Path::new("/sys/class/net").join(name).join("bridge").exists()
}

/// Makes the tap of a NIC, on its bridge. One that is there already is taken.
pub async fn make(vm: VmId, nic: &NicSpec) -> Result<(), HvError> {
    let bridge = nic.bridge.clone().unwrap_or_default();
    let failed = |why: String| HvError::Bridge {
        vm,
        bridge: bridge.clone(),
        why,
    };
    if !is_bridge(&bridge) {
        return Err(failed("this host has no such bridge".into()));
    }
    let tap = name(vm, nic.number);
    if !Path::new("/sys/class/net").join(&tap).exists() {
        let user = rustix::process::geteuid().as_raw().to_string();
        ip(&["tuntap", "add", "dev", &tap, "mode", "tap", "user", &user])
            .await
            .map_err(&failed)?;
    }
    ip(&["link", "set", "dev", &tap, "master", &bridge, "up"])
        .await
        .map_err(failed)
}

/// Removes the tap of a NIC, if there is one.
pub async fn remove(vm: VmId, nic: u32) {
    let tap = name(vm, nic);
    if Path::new("/sys/class/net").join(&tap).exists()
        && let Err(why) = ip(&["link", "delete", "dev", &tap]).await
    {
        tracing::warn!(%vm, tap, why, "remove a tap");
    }
}

/// Removes all taps of a machine that does not run.
pub async fn remove_all(vm: VmId) {
    let stem = name(vm, 0);
    let stem = stem.trim_end_matches('0');
    let names = std::fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten();
    let nics = names.filter_map(|entry| entry.file_name().to_str()?.strip_prefix(stem)?.parse().ok());
    for nic in nics.collect::<Vec<u32>>() {
        remove(vm, nic).await;
    }
}

async fn ip(arguments: &[&str]) -> Result<(), String> {
    let out = Command::new("ip")
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await;
    match out {
        Ok(out) if out.status.success() => Ok(()),
        Ok(out) => Err(format!(
            "ip {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&out.stderr).trim()
        )),
        Err(e) => Err(format!("run ip: {e}")),
    }
}
