//! The forms that speak of machines.

use super::parse::Form;
use super::{NETWORK_NONE, SOURCE_NOW};
use crate::words::{put, w};
use shared::Status;
use shared::api::{
    Call, Connect, DeleteSnapshot, DeleteVm, Disconnect, Edit, Pause, PostCloneJob, PostInstantClone,
    PostRevert, PostSnapshot, PostVm, RawCall, Reset, Resume, Start, Stop, UpdateVm,
};
use shared::can::limit;
use shared::clone::{CloneMode, CloneTarget, CloneVm, DEFAULT_BOOT_TIMEOUT_SECONDS, SnapshotNow};
use shared::edit::{ChangeNic, EditVm, GrowDisk, PortForward};
use shared::fork::{InstantClone, MOST_CLONES};
use shared::place::USER_NETWORK;
use shared::snapshot::{RevertSnapshot, TakeSnapshot};
use shared::vm::{
    BlankDisk, CloudInit, ConnectNics, CreateVm, DiskOfImage, Firmware, NewDisk, NewNic, PatchVm, StopMode,
    StopVm,
};
use std::collections::BTreeMap;

pub fn create(form: Form<'_>) -> Result<RawCall, Status> {
    let mut disks = Vec::new();
    if let Some(image) = form.get("image") {
        disks.push(NewDisk::Image(DiskOfImage {
            image: image.to_owned(),
            size_gib: number(form, "imageGib", gib)?,
        }));
    }
    for size_gib in numbers(form, "blankGib")? {
        gib("blankGib", size_gib)?;
        disks.push(NewDisk::Blank(BlankDisk { size_gib }));
    }
    if disks.is_empty() {
        return Err(Status::invalid("blankGib", w().disk_needed));
    }
    let network = form.get("network").unwrap_or(USER_NETWORK);
    let nic = NewNic {
        connected: !form.is("disconnected"),
        forwards: forwards(form, "forwards")?,
        ..NewNic::on(network)
    };
    let cloud_init = cloud_init(form)?;
    let adapt = form.is("adapt") || cloud_init != CloudInit::default();
    let request = CreateVm {
        name: form.need("name")?,
        cpus: number(form, "cpus", limit::cpus)?.unwrap_or(1),
        memory_mib: number(form, "memoryMib", limit::memory)?.unwrap_or(512),
        firmware: form.parse("firmware")?.unwrap_or(Firmware::Bios),
        disks,
        network_interfaces: Some(if network == NETWORK_NONE {
            Vec::new()
        } else {
            vec![nic]
        }),
        labels: labels(form)?,
        cloud_init: adapt.then_some(cloud_init),
        start: form.is("start"),
        description: form.get("description").unwrap_or_default().to_owned(),
        autostart: number(form, "autostart", turn)?,
        storage: form.parse("storage")?,
        request_id: form.parse("requestId")?,
    };
    Ok(PostVm { request }.raw())
}

fn gib(field: &str, n: u32) -> Result<(), Status> {
    limit::within(field, u64::from(n), 1, u64::from(limit::DISK_GIB), "GiB")
}

fn turn(field: &str, n: u32) -> Result<(), Status> {
    limit::within(field, u64::from(n), 0, u64::from(limit::TURN), "as a turn")
}

/// The values of all fields of a name.
pub fn values<'a>(form: Form<'a>, name: &'a str) -> impl Iterator<Item = &'a str> {
    let all = form.0.iter().filter(move |(n, _)| n == name);
    all.flat_map(|(_, v)| v.split(|c: char| c == ',' || c.is_whitespace()))
        .filter(|v| !v.is_empty())
}

/// Numbers with a space or a comma between, of all fields of a name.
fn numbers(form: Form<'_>, name: &str) -> Result<Vec<u32>, Status> {
    values(form, name).map(|v| whole(name, v)).collect()
}

/// A whole number.
pub fn whole(name: &str, text: &str) -> Result<u32, Status> {
    text.parse()
        .map_err(|_| Status::invalid(name, put(w().no_number, &[text])))
}

fn forwards(form: Form<'_>, name: &str) -> Result<Vec<PortForward>, Status> {
    values(form, name)
        .map(|v| v.parse().map_err(|why| Status::invalid(name, why)))
        .collect()
}

/// Labels, a line for each.
fn labels(form: Form<'_>) -> Result<BTreeMap<String, String>, Status> {
    let lines = form.get("labels").unwrap_or_default().lines();
    lines
        .filter(|l| !l.trim().is_empty())
        .map(|line| match line.split_once('=') {
            Some((key, value)) => Ok((key.trim().to_owned(), value.trim().to_owned())),
            None => Err(Status::invalid("labels", put(w().config_line, &[line]))),
        })
        .collect()
}

fn cloud_init(form: Form<'_>) -> Result<CloudInit, Status> {
    let text = |name: &'static str| -> Result<Option<String>, Status> {
        // Not trimmed: YAML ends with a line break.
        let text = form.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        let text = text.filter(|t| !t.trim().is_empty());
        if let Some(text) = &text {
            limit::length(name, text, limit::CLOUD_INIT_BYTES)?;
        }
        Ok(text.map(|t| t.replace("\r\n", "\n")))
    };
    Ok(CloudInit {
        user_data: text("userData")?,
        meta_data: text("metaData")?,
        network_config: text("networkConfig")?,
    })
}

/// What people see of a machine.
fn describe(form: Form<'_>) -> Result<PatchVm, Status> {
    Ok(PatchVm {
        labels: Some(labels(form)?),
        name: Some(form.need("name")?),
        description: Some(form.get("description").unwrap_or_default().to_owned()),
        autostart: Some(number(form, "autostart", turn)?),
    })
}

/// What a machine is made of. What is given as it is stays so.
fn edit(form: Form<'_>) -> Result<EditVm, Status> {
    let mut add_disks: Vec<NewDisk> = Vec::new();
    for size_gib in numbers(form, "blankGib")? {
        gib("blankGib", size_gib)?;
        add_disks.push(NewDisk::Blank(BlankDisk { size_gib }));
    }
    if let Some(image) = form.get("image") {
        add_disks.push(NewDisk::Image(DiskOfImage {
            image: image.to_owned(),
            size_gib: None,
        }));
    }
    let of = |prefix: &str| -> Vec<(u32, String)> {
        let fields = form.0.iter();
        fields
            .filter_map(|(n, v)| Some((n.strip_prefix(prefix)?.parse().ok()?, v.trim().to_owned())))
            .filter(|(_, v): &(u32, String)| !v.is_empty())
            .collect()
    };
    let mut grow_disks = Vec::new();
    for (disk, size) in of("grow-") {
        let size_gib = whole("growDisks", &size)?;
        grow_disks.push(GrowDisk { disk, size_gib });
    }
    let mut change_nics = Vec::new();
    for (nic, network) in of("network-") {
        let mac = form.get(&format!("mac-{nic}")).map(str::to_owned);
        let forwards = forwards(form, &format!("forwards-{nic}"))?;
        change_nics.push(ChangeNic {
            nic,
            network: Some(network),
            mac,
            forwards: Some(forwards),
        });
    }
    let add_nics = form.get("addNetwork").filter(|n| *n != NETWORK_NONE);
    let remove_disks = numbers(form, "removeDisk")?;
    let remove_nics = numbers(form, "removeNic")?;
    grow_disks.retain(|g| !remove_disks.contains(&g.disk));
    change_nics.retain(|c| !remove_nics.contains(&c.nic));
    Ok(EditVm {
        cpus: number(form, "cpus", limit::cpus)?,
        memory_mib: number(form, "memoryMib", limit::memory)?,
        firmware: form.parse("firmware")?,
        boot_order: numbers(form, "bootFirst")?,
        add_disks,
        grow_disks,
        remove_disks,
        add_nics: add_nics.map(NewNic::on).into_iter().collect(),
        change_nics,
        remove_nics,
        request_id: form.parse("requestId")?,
    })
}

pub fn act(vm: &str, action: &str, form: Form<'_>) -> Result<RawCall, Status> {
    let vm = vm.to_owned();
    let stop = |vm, mode, power_off_after_seconds| Stop {
        vm,
        request: StopVm {
            mode,
            power_off_after_seconds,
        },
    };
    Ok(match action {
        "start" => Start { vm }.raw(),
        "shutdown" => {
            let after = number(form, "powerOffAfterSeconds", |field, n| {
                limit::within(
                    field,
                    u64::from(n),
                    1,
                    u64::from(limit::BOOT_TIMEOUT_SECONDS),
                    "s",
                )
            })?;
            stop(vm, StopMode::ShutDown, after).raw()
        }
        "power-off" => stop(vm, StopMode::PowerOff, None).raw(),
        "describe" => {
            let request = describe(form)?;
            UpdateVm { vm, request }.raw()
        }
        "edit" => {
            let request = edit(form)?;
            Edit { vm, request }.raw()
        }
        "reset" => Reset { vm }.raw(),
        "pause" => Pause { vm }.raw(),
        "resume" => Resume { vm }.raw(),
        "connect" => {
            let request = nics(form)?;
            Connect { vm, request }.raw()
        }
        "disconnect" => {
            let request = nics(form)?;
            Disconnect { vm, request }.raw()
        }
        "snapshot" => {
            let request = TakeSnapshot {
                name: form.parse("name")?,
                description: form.get("description").unwrap_or_default().to_owned(),
                memory: form.get("with") == Some("memory"),
                quiesce: form.get("with") == Some("quiesce"),
                request_id: form.parse("requestId")?,
            };
            limit::length("description", &request.description, limit::DESCRIPTION_BYTES)?;
            PostSnapshot { vm, request }.raw()
        }
        "revert" => {
            let keep_current = form.is("keepCurrent");
            let request = RevertSnapshot {
                keep_current,
                name: form.parse("name")?.filter(|_| keep_current),
                memory: form.is("memory"),
                start: form.is("start"),
                request_id: form.parse("requestId")?,
            };
            PostRevert {
                vm,
                snapshot: form.need("snapshot")?,
                request,
            }
            .raw()
        }
        "delete-snapshot" => {
            let snapshot = form.need("snapshot")?;
            DeleteSnapshot { vm, snapshot }.raw()
        }
        "clone" => {
            let request = clone(form)?;
            PostCloneJob { vm, request }.raw()
        }
        "fork" => {
            let request = fork(form)?;
            PostInstantClone { vm, request }.raw()
        }
        "delete" => {
            let name: String = form.need("name")?;
            if form.get("confirm") != Some(&*name) {
                return Err(Status::invalid("confirm", put(w().confirm_differs, &[&name])));
            }
            DeleteVm { vm }.raw()
        }
        _ => return Err(Status::not_found("action", action)),
    })
}

fn nics(form: Form<'_>) -> Result<ConnectNics, Status> {
    Ok(ConnectNics {
        nics: form.parse("nic")?.into_iter().collect(),
    })
}

fn clone(form: Form<'_>) -> Result<CloneVm, Status> {
    let source = form.get("source");
    let now = source == Some(SOURCE_NOW);
    let cloud_init = cloud_init(form)?;
    let adapt = form.is("adapt") || cloud_init != CloudInit::default();
    Ok(CloneVm {
        clone_job_id: None,
        snapshot: source.filter(|_| !now).map(str::to_owned),
        snapshot_now: now.then(|| SnapshotNow {
            name: None,
            quiesce: form.is("quiesce"),
        }),
        mode: form.parse("mode")?.unwrap_or(CloneMode::Linked),
        target: Some(CloneTarget {
            name: form.parse("name")?,
            cpus: number(form, "cpus", limit::cpus)?,
            memory_mib: number(form, "memoryMib", limit::memory)?,
            labels: None,
            network_interfaces: match form.get("network") {
                None => None,
                Some(NETWORK_NONE) => Some(Vec::new()),
                Some(network) => Some(vec![NewNic::on(network)]),
            },
            storage: form.parse("storage")?,
            cloud_init: adapt.then_some(cloud_init),
            start: form.is("start"),
            boot_timeout_seconds: number(form, "bootTimeoutSeconds", |field, n| {
                let most = u64::from(limit::BOOT_TIMEOUT_SECONDS);
                limit::within(field, u64::from(n), 1, most, "s")
            })?
            .unwrap_or(DEFAULT_BOOT_TIMEOUT_SECONDS),
            boot_pattern: form.get("bootPattern").map(str::to_owned),
        }),
        disks_only: None,
        request_id: form.parse("requestId")?,
    })
}

/// What the dialog of an instant clone, or a button beside a fork point, asks for.
pub fn fork(form: Form<'_>) -> Result<InstantClone, Status> {
    let mut names = Vec::new();
    let given = form.get("names").unwrap_or_default();
    for name in given
        .split(|c: char| c == ',' || c.is_whitespace())
        .filter(|n| !n.is_empty())
    {
        names.push(name.parse().map_err(|why| Status::invalid("names", why))?);
    }
    let mut config = std::collections::BTreeMap::new();
    for line in form
        .get("config")
        .unwrap_or_default()
        .lines()
        .filter(|l| !l.trim().is_empty())
    {
        let (key, value) = line
            .split_once('=')
            .ok_or_else(|| Status::invalid("config", put(w().config_line, &[line])))?;
        config.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    let keep_point = form.is("keepPoint");
    Ok(InstantClone {
        count: number(form, "count", |field, n| {
            limit::within(field, u64::from(n), 1, MOST_CLONES as u64, "clones")
        })?
        // Names say how many.
        .filter(|_| names.is_empty()),
        names,
        network_interfaces: form.parse("networkInterfaces")?,
        config,
        keep_point,
        point_name: form.parse("pointName")?.filter(|_| keep_point),
        request_id: form.parse("requestId")?,
        ..InstantClone::default()
    })
}

/// A field that is a whole number, and within its limits; none if empty.
pub fn number(
    form: Form<'_>,
    name: &str,
    check: fn(&str, u32) -> Result<(), Status>,
) -> Result<Option<u32>, Status> {
    let n = form.get(name).map(|text| whole(name, text)).transpose()?;
    if let Some(n) = n {
        check(name, n)?;
    }
    Ok(n)
}

/// What a page says when an action on a machine was accepted.
pub fn done(action: &str) -> &'static str {
    match action {
        "start" => w().flash_start,
        "shutdown" => w().flash_shutdown,
        "power-off" => w().flash_power_off,
        "reset" => w().flash_reset,
        "pause" => w().flash_pause,
        "resume" => w().flash_resume,
        "connect" => w().flash_connect,
        "disconnect" => w().flash_disconnect,
        "snapshot" => w().flash_snapshot,
        "revert" => w().flash_revert,
        "delete-snapshot" => w().flash_delete_snapshot,
        "clone" => w().flash_clone,
        "fork" => w().flash_fork,
        "describe" => w().flash_described,
        "edit" => w().flash_edited,
        _ => w().flash_delete,
    }
}
