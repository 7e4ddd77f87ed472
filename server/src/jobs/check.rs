//! What is wrong with a request by itself, whatever is there.

use super::kinds;
use shared::Status;
use shared::can::limit;
use shared::clone::CloneVm;
use shared::edit::{PortForward, Protocol};
use shared::fork::{self, InstantClone};
use shared::vm::{CloudInit, CreateVm};
use std::collections::BTreeMap;

pub(super) fn check_turn(turn: u32) -> Result<(), Status> {
    limit::within(
        "autostart",
        u64::from(turn),
        0,
        u64::from(limit::TURN),
        "as a turn",
    )
}

pub(super) fn check_create(request: &CreateVm) -> Result<(), Status> {
    limit::cpus("cpus", request.cpus)?;
    limit::memory("memoryMib", request.memory_mib)?;
    limit::efi_memory("memoryMib", request.firmware, request.memory_mib)?;
    limit::within(
        "disks",
        request.disks.len() as u64,
        1,
        limit::DISKS as u64,
        "disks",
    )?;
    limit::length("description", &request.description, limit::DESCRIPTION_BYTES)?;
    if let Some(turn) = request.autostart {
        check_turn(turn)?;
    }
    check_labels("labels", &request.labels)?;
    check_cloud_init("cloudInit", request.cloud_init.as_ref())
}

pub(super) fn check_clone(request: &CloneVm) -> Result<(), Status> {
    if request.snapshot.is_some() && request.snapshot_now.is_some() {
        return Err(Status::invalid(
            "snapshotNow",
            "give either snapshot or snapshotNow, not both",
        ));
    }
    let Some(target) = &request.target else {
        return Ok(());
    };
    if request.disks_only.is_some() {
        return Err(Status::invalid(
            "disksOnly",
            "give either target or disksOnly, not both",
        ));
    }
    if let Some(n) = target.cpus {
        limit::cpus("target.cpus", n)?;
    }
    if let Some(mib) = target.memory_mib {
        limit::memory("target.memoryMib", mib)?;
    }
    if let Some(labels) = &target.labels {
        check_labels("target.labels", labels)?;
    }
    let most = u64::from(limit::BOOT_TIMEOUT_SECONDS);
    let timeout = u64::from(target.boot_timeout_seconds);
    limit::within("target.bootTimeoutSeconds", timeout, 1, most, "seconds")?;
    if let Some(pattern) = &target.boot_pattern {
        limit::length("target.bootPattern", pattern, 1024)?;
        kinds::boot_pattern(pattern)?;
    }
    check_cloud_init("target.cloudInit", target.cloud_init.as_ref())
}

pub(super) fn check_fork(request: &InstantClone) -> Result<(), Status> {
    if request.name.is_some() && !request.names.is_empty() {
        return Err(Status::invalid("name", "give either name or names, not both"));
    }
    if let Some(n) = request.count {
        let most = fork::MOST_CLONES as u64;
        limit::within("count", u64::from(n), 1, most, "clones")?;
        if request.given().next().is_some() && n as usize != request.clones().max(request.given().count()) {
            return Err(Status::invalid(
                "count",
                "it is not the number of names that are given",
            ));
        }
    }
    let most = fork::MOST_CLONES as u64;
    limit::within("names", request.clones() as u64, 1, most, "clones")?;
    let mut seen = std::collections::HashSet::new();
    if let Some(twice) = request.given().find(|name| !seen.insert(*name)) {
        return Err(Status::invalid("names", format_args!("{twice} is given twice")));
    }
    if request.bios_uuid.is_some() && request.clones() > 1 {
        return Err(Status::invalid(
            "biosUuid",
            "several clones cannot have one UUID: leave it out, and each gets its own",
        ));
    }
    if request.fork_point.is_some() && request.keep_point {
        return Err(Status::invalid(
            "keepPoint",
            "a fork point that is kept already is forked",
        ));
    }
    if request.point_name.is_some() && !request.keep_point {
        return Err(Status::invalid(
            "pointName",
            "only a point that is kept has a name: give keepPoint too",
        ));
    }
    for key in request.config.keys() {
        let rest = key.strip_prefix("guestinfo.").unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if rest.is_empty() || !rest.chars().all(plain) {
            return Err(Status::invalid(
                "config",
                format_args!("{key:?} is no key like guestinfo.role"),
            ));
        }
    }
    let bytes = serde_json::to_string(&request.config).map_or(0, |text| text.len());
    limit::within("config", bytes as u64, 0, fork::CONFIG_BYTES as u64, "bytes")
}

/// Whether the host's ports can be listened on that are to lead to a guest, but for those that it has already.
pub(super) fn check_ports<'a>(
    asked: impl Iterator<Item = &'a PortForward>,
    has: &[PortForward],
) -> Result<(), Status> {
    for forward in asked.filter(|f| !has.contains(f)) {
        let at = (forward.host_address, forward.host_port);
        let bound = match forward.protocol {
            Protocol::Tcp => std::net::TcpListener::bind(at).map(drop),
            Protocol::Udp => std::net::UdpSocket::bind(at).map(drop),
        };
        if let Err(why) = bound {
            return Err(Status::precondition(format!(
                "port {} of {} cannot be listened on: {why}; choose another",
                forward.host_port, forward.host_address
            )));
        }
    }
    Ok(())
}

pub(super) fn check_labels(field: &str, labels: &BTreeMap<String, String>) -> Result<(), Status> {
    limit::within(field, labels.len() as u64, 0, 64, "labels")?;
    for (key, value) in labels {
        if key.is_empty() || key.len() > 63 {
            return Err(Status::invalid(
                field,
                format_args!("the key {key:?} has not 1 to 63 bytes"),
            ));
        }
        limit::length(&format!("{field}.{key}"), value, 255)?;
    }
    Ok(())
}

pub(super) fn check_cloud_init(field: &str, ci: Option<&CloudInit>) -> Result<(), Status> {
    let Some(ci) = ci else { return Ok(()) };
    for (part, text) in [
        ("userData", &ci.user_data),
        ("metaData", &ci.meta_data),
        ("networkConfig", &ci.network_config),
    ] {
        if let Some(text) = text {
            limit::length(&format!("{field}.{part}"), text, limit::CLOUD_INIT_BYTES)?;
        }
    }
    Ok(())
}

pub(super) fn check_mac(field: &str, mac: &str) -> Result<(), Status> {
    let bytes: Vec<_> = mac
        .split(':')
        .map(|part| (part.len(), u8::from_str_radix(part, 16)))
        .collect();
    let whole = bytes.len() == 6 && bytes.iter().all(|(len, byte)| *len == 2 && byte.is_ok());
    match bytes.first() {
        Some((_, Ok(first))) if whole && first & 1 == 0 => Ok(()),
        _ => Err(Status::invalid(
            field,
            format_args!("{mac:?} is no unicast address like 52:54:00:12:34:56"),
        )),
    }
}
