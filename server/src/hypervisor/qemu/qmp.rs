//! What is said over QMP.

use super::args;
use crate::disks::blockdev::{backing_name, layer, node_name};
use crate::disks::space;
use crate::hypervisor::{Control, DiskSwitch, Frozen, HvError, LayerMerge, RunState};
use qapi::futures::{QapiEvents, QapiService, QmpStreamTokio};
use qapi::{Command, Empty, ExecuteError, qmp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::vm::PauseReason;
use shared::{LayerId, VmId};
use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::time::Instant;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::UnixStream;

pub type Qmp = QapiService<QmpStreamTokio<WriteHalf<UnixStream>>>;
pub type QmpEvents = QapiEvents<QmpStreamTokio<ReadHalf<UnixStream>>>;

/// Room that a full storage must have before a guest goes on, in bytes.
const ROOM: u64 = 32 << 20;

/// Connects to a monitor; only one client is served at a time, so this waits for the one before to go.
pub async fn connect(socket: &Path) -> io::Result<(Qmp, QmpEvents)> {
    Ok(QmpStreamTokio::open_uds(socket)
        .await?
        .negotiate()
        .await?
        .into_parts())
}

pub fn failed(op: &'static str, vm: VmId) -> impl Fn(ExecuteError) -> HvError {
    move |e| match e {
        ExecuteError::Qapi(e) => HvError::Refused { op, vm, why: e.desc },
        ExecuteError::Io(source) => HvError::Lost { op, vm, source },
    }
}

/// Commands whose answers grow with every version of QEMU, so only what is needed is read.
macro_rules! commands {
    ($($name:ident = $wire:literal -> $ok:ty;)*) => {$(
        impl Command for $name {
            type Ok = $ok;
            const NAME: &'static str = $wire;
            const ALLOW_OOB: bool = false;
        }
        impl qmp::QmpCommand for $name {}
    )*};
}

#[derive(Serialize)]
struct QueryBlock {}

#[derive(Serialize)]
struct QueryStats {}

#[derive(Serialize)]
struct QueryNodes {
    flat: bool,
}

#[derive(Serialize)]
#[serde(transparent)]
struct AddNode(Value);

#[derive(Serialize)]
struct QueryMigrate {}

#[derive(Serialize)]
struct QueryFilter {
    name: String,
}

#[derive(Serialize)]
#[serde(transparent)]
struct AddNetdev(Value);

#[derive(Serialize)]
#[serde(transparent)]
struct AddDevice(Value);

#[derive(Serialize)]
struct QueryJobs {}

#[derive(Serialize)]
#[serde(transparent)]
struct Stream(Value);

#[derive(Serialize)]
struct Reopen {
    options: [Value; 1],
}

#[derive(Serialize)]
#[serde(transparent)]
struct Resize(Value);

/// A job on a machine's disks.
#[derive(Deserialize)]
pub struct BlockJob {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    #[serde(rename = "current-progress")]
    pub done: u64,
    #[serde(rename = "total-progress")]
    pub total: u64,
    pub error: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct SetMigration {
    max_bandwidth: u64,
    downtime_limit: u64,
}

commands! {
    QueryBlock = "query-block" -> Vec<Drive>;
    QueryStats = "query-blockstats" -> Vec<Stats>;
    QueryNodes = "query-named-block-nodes" -> Vec<Node>;
    AddNode = "blockdev-add" -> Empty;
    QueryMigrate = "query-migrate" -> Migration;
    QueryFilter = "query-rx-filter" -> Vec<Filter>;
    AddNetdev = "netdev_add" -> Empty;
    AddDevice = "device_add" -> Empty;
    SetMigration = "migrate-set-parameters" -> Empty;
    QueryJobs = "query-jobs" -> Vec<BlockJob>;
    Stream = "block-stream" -> Empty;
    Reopen = "blockdev-reopen" -> Empty;
    Resize = "block_resize" -> Empty;
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Drive {
    io_status: Option<String>,
    inserted: Option<Node>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Node {
    node_name: Option<String>,
    file: String,
}

#[derive(Deserialize)]
struct Migration {
    ram: Option<Sent>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Filter {
    main_mac: String,
}

#[derive(Deserialize)]
struct Sent {
    transferred: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Stats {
    node_name: Option<String>,
}

/// The state, and whether the guest agent has its port open.
pub async fn state(monitor: &Qmp, vm: VmId) -> Result<(RunState, bool), HvError> {
    let failed = failed("look at", vm);
    let status = monitor
        .execute(qmp::query_status {})
        .await
        .map_err(&failed)?
        .status;
    let state = match status {
        qmp::RunState::running | qmp::RunState::suspended | qmp::RunState::shutdown => RunState::Running,
        qmp::RunState::io_error => {
            let drives = monitor.execute(QueryBlock {}).await.map_err(&failed)?;
            let full = drives.iter().any(|d| d.io_status.as_deref() == Some("nospace"));
            RunState::Paused(if full {
                PauseReason::NoSpace
            } else {
                PauseReason::IoError
            })
        }
        qmp::RunState::internal_error => RunState::Paused(PauseReason::IoError),
        qmp::RunState::guest_panicked => RunState::Paused(PauseReason::GuestPanicked),
        _ => RunState::Paused(PauseReason::User),
    };
    let channels = monitor.execute(qmp::query_chardev {}).await.map_err(&failed)?;
    let agent = channels
        .iter()
        .any(|c| c.label == super::args::AGENT && c.frontend_open);
    Ok((state, agent))
}

pub async fn control(monitor: &Qmp, vm: VmId, what: Control, now: RunState) -> Result<(), HvError> {
    let op = match what {
        Control::ShutDown => "shut down",
        Control::Reset => "reset",
        Control::Pause => "pause",
        Control::Resume => "resume",
    };
    let failed = failed(op, vm);
    match what {
        Control::ShutDown => monitor.execute(qmp::system_powerdown {}).await.map(drop),
        Control::Pause => monitor.execute(qmp::stop {}).await.map(drop),
        Control::Resume => monitor.execute(qmp::cont {}).await.map(drop),
        Control::Reset => {
            monitor.execute(qmp::system_reset {}).await.map_err(&failed)?;
            // What stood still for an error starts afresh; what a person paused stays paused.
            match now {
                RunState::Paused(PauseReason::User) | RunState::Running | RunState::Stopped => return Ok(()),
                RunState::Paused(_) => monitor.execute(qmp::cont {}).await.map(drop),
            }
        }
    }
    .map_err(failed)
}

/// Whether a node of this name is known.
async fn is_there(monitor: &Qmp, name: &str) -> Result<bool, ExecuteError> {
    let nodes = monitor.execute(QueryNodes { flat: true }).await?;
    Ok(nodes.iter().any(|n| n.node_name.as_deref() == Some(name)))
}

/// Adds nodes; those that are there already are left as they are.
pub async fn add_nodes(monitor: &Qmp, vm: VmId, nodes: Vec<args::Node>) -> Result<(), HvError> {
    let failed = failed("open the disks of", vm);
    let there = monitor
        .execute(QueryNodes { flat: true })
        .await
        .map_err(&failed)?;
    let there: HashSet<_> = there.into_iter().filter_map(|n| n.node_name).collect();
    for node in nodes.into_iter().filter(|n| !there.contains(&n.name)) {
        monitor.execute(AddNode(node.options)).await.map_err(&failed)?;
    }
    Ok(())
}

/// Has a QEMU make its machine that has waited with it.
pub async fn make_machine(monitor: &Qmp, vm: VmId) -> Result<(), HvError> {
    let made = monitor.execute(qmp::x_exit_preconfig {}).await;
    match made.map_err(failed("make", vm)) {
        // An earlier call has come this far.
        Err(HvError::Refused { why, .. }) if why.contains("before machine initialization") => Ok(()),
        made => made.map(drop),
    }
}

/// Has every disk written to its new layer from the same moment on.
pub async fn freeze(monitor: &Qmp, vm: VmId, switch: &[DiskSwitch]) -> Result<Frozen, HvError> {
    let todo = prepare_switch(monitor, vm, switch).await?;
    let start = Instant::now();
    switch_over(monitor, vm, &todo).await?;
    let micros = if todo.is_empty() {
        0
    } else {
        u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
    };
    Ok(Frozen { micros })
}

/// Adds the new layers of the disks that have not switched over yet, and returns those.
pub async fn prepare_switch(
    monitor: &Qmp,
    vm: VmId,
    switch: &[DiskSwitch],
) -> Result<Vec<DiskSwitch>, HvError> {
    let failed = failed("freeze the disks of", vm);
    // Each layer's description would hold the guest up, the longer the longer its chain is; the statistics do not.
    let drives = monitor.execute(QueryStats {}).await.map_err(&failed)?;
    let active: HashSet<_> = drives.into_iter().filter_map(|n| n.node_name).collect();
    let todo: Vec<_> = switch
        .iter()
        .filter(|s| !active.contains(&node_name(s.new.id)))
        .cloned()
        .collect();
    if let Some(wrong) = todo.iter().find(|s| !active.contains(&node_name(s.old.id))) {
        return Err(HvError::NotActive {
            vm,
            layer: wrong.old.id,
        });
    }
    for disk in &todo {
        let added = monitor
            .execute(AddNode(layer(&disk.new, Value::Null, true)))
            .await;
        // An earlier call may have come this far.
        if let Err(e) = added
            && !is_there(monitor, &node_name(disk.new.id))
                .await
                .map_err(&failed)?
        {
            leave(monitor, &todo).await;
            return Err(failed(e));
        }
    }
    Ok(todo)
}

/// Switches all disks over in one moment; all or none.
pub async fn switch_over(monitor: &Qmp, vm: VmId, todo: &[DiskSwitch]) -> Result<(), HvError> {
    if todo.is_empty() {
        return Ok(());
    }
    let actions = todo.iter().map(|disk| {
        qmp::TransactionAction::blockdev_snapshot(qmp::BlockdevSnapshotWrapper {
            data: qmp::BlockdevSnapshot {
                node: node_name(disk.old.id),
                overlay: node_name(disk.new.id),
            },
        })
    });
    let transaction = qmp::transaction {
        properties: None,
        actions: actions.collect(),
    };
    match monitor.execute(transaction).await {
        Ok(_) => Ok(()),
        Err(e) => {
            leave(monitor, todo).await;
            Err(failed("freeze the disks of", vm)(e))
        }
    }
}

/// Removes new layers again, so that their files are free; those that were never added are not there to be removed.
async fn leave(monitor: &Qmp, todo: &[DiskSwitch]) {
    for disk in todo {
        let node_name = node_name(disk.new.id);
        let _ = monitor.execute(qmp::blockdev_del { node_name }).await;
    }
}

/// As fast as it goes, with at most so many milliseconds of standing still.
pub fn migration_limits(downtime_millis: u64) -> impl qmp::QmpCommand<Ok = Empty> {
    SetMigration {
        max_bandwidth: 1 << 40,
        downtime_limit: downtime_millis,
    }
}

/// How many bytes of memory the last migration has sent.
pub async fn migrated(monitor: &Qmp, vm: VmId) -> Result<u64, HvError> {
    let info = monitor.execute(QueryMigrate {}).await;
    let info = info.map_err(failed("look at the migration of", vm))?;
    Ok(info.ram.map_or(0, |r| r.transferred))
}

/// The jobs on a machine's disks.
pub async fn jobs(monitor: &Qmp, vm: VmId) -> Result<Vec<BlockJob>, HvError> {
    let jobs = monitor.execute(QueryJobs {}).await;
    jobs.map_err(failed("look at the block jobs of", vm))
}

/// Begins to take what is between two layers into the upper one. It ends when it is finalized.
pub async fn stream(monitor: &Qmp, vm: VmId, id: &str, merge: &LayerMerge) -> Result<(), HvError> {
    let mut stream = json!({
        "job-id": id,
        "device": node_name(merge.into.id),
        "auto-dismiss": false,
        "auto-finalize": false,
    });
    if let Some(base) = &merge.base {
        stream["base-node"] = node_name(base.id).into();
        stream["backing-file"] = backing_name(base, &merge.into.path).0.into();
    }
    let begun = monitor.execute(Stream(stream)).await;
    begun.map_err(failed("merge the layers of", vm)).map(drop)
}

/// Opens a node anew, with other options.
pub async fn reopen(monitor: &Qmp, vm: VmId, node: Value) -> Result<(), HvError> {
    let opened = monitor.execute(Reopen { options: [node] }).await;
    opened.map_err(failed("open a layer of", vm)).map(drop)
}

/// The address that a NIC has now.
pub async fn address(monitor: &Qmp, vm: VmId, nic: &str) -> Result<Option<String>, HvError> {
    let filters = monitor.execute(QueryFilter { name: nic.into() }).await;
    let filters = filters.map_err(failed("look at the NICs of", vm))?;
    Ok(filters.into_iter().next().map(|f| f.main_mac))
}

/// Puts a device in; one that is in already stays.
pub async fn add_device(monitor: &Qmp, vm: VmId, device: Value) -> Result<(), HvError> {
    let added = monitor.execute(AddDevice(device)).await;
    match added.map_err(failed("put a device into", vm)) {
        Err(HvError::Refused { why, .. }) if why.contains("Duplicate") => Ok(()),
        added => added.map(drop),
    }
}

/// Asks the guest to let go of a device; asking again is no error.
pub async fn ask_out(monitor: &Qmp, vm: VmId, id: String) -> Result<(), HvError> {
    let asked = monitor.execute(qmp::device_del { id }).await;
    match asked.map_err(failed("take a device out of", vm)) {
        Err(HvError::Refused { why, .. })
            if why.contains("in the process of unplug") || why.contains("not found") =>
        {
            Ok(())
        }
        asked => asked.map(drop),
    }
}

/// The ids of the devices that a machine was given.
pub async fn devices(monitor: &Qmp, vm: VmId) -> Result<HashSet<String>, HvError> {
    let path = "/machine/peripheral".into();
    let all = monitor.execute(qmp::qom_list { path }).await;
    let all = all.map_err(failed("look at the devices of", vm))?;
    Ok(all.into_iter().map(|device| device.name).collect())
}

/// Closes the layers that are none of these and that nobody reads through; answers nothing, for another disk may.
pub async fn close_others(monitor: &Qmp, vm: VmId, wanted: &HashSet<String>) -> Result<(), HvError> {
    loop {
        let nodes = monitor.execute(QueryNodes { flat: true }).await;
        let nodes = nodes.map_err(failed("look at the disks of", vm))?;
        let mut closed = false;
        for node_name in nodes.into_iter().filter_map(|n| n.node_name) {
            let layer = node_name.starts_with('l') && node_name.len() == 31;
            if layer && !wanted.contains(&node_name) {
                closed |= monitor.execute(qmp::blockdev_del { node_name }).await.is_ok();
            }
        }
        if !closed {
            return Ok(());
        }
    }
}

/// Has a node show so many bytes.
pub async fn resize(monitor: &Qmp, vm: VmId, layer: LayerId, bytes: u64) -> Result<(), HvError> {
    let resize = Resize(json!({ "node-name": node_name(layer), "size": bytes }));
    let resized = monitor.execute(resize).await;
    resized.map_err(failed("grow a disk of", vm)).map(drop)
}

/// Puts a NIC's cable in, or takes it out.
pub async fn set_link(monitor: &Qmp, vm: VmId, n: u32, up: bool) -> Result<(), HvError> {
    let name = format!("nic{n}");
    let set = monitor.execute(qmp::set_link { name, up }).await;
    set.map_err(failed("connect a NIC of", vm)).map(drop)
}

/// The ids of a machine's objects, filters among them.
pub async fn objects(monitor: &Qmp, vm: VmId) -> Result<Vec<String>, HvError> {
    let path = "/objects".into();
    let all = monitor.execute(qmp::qom_list { path }).await;
    let all = all.map_err(failed("look at the objects of", vm))?;
    Ok(all.into_iter().map(|object| object.name).collect())
}

/// Removes an object.
pub async fn remove_object(monitor: &Qmp, vm: VmId, id: String) -> Result<(), HvError> {
    let gone = monitor.execute(qmp::object_del { id }).await;
    gone.map_err(failed("remove an object of", vm)).map(drop)
}

/// Removes the end of a network; one that is not there is no error.
pub async fn remove_netdev(monitor: &Qmp, vm: VmId, id: String) -> Result<(), HvError> {
    let gone = monitor.execute(qmp::netdev_del { id }).await;
    match gone.map_err(failed("disconnect a NIC of", vm)) {
        Err(HvError::Refused { why, .. }) if why.contains("not found") => Ok(()),
        gone => gone.map(drop),
    }
}

/// Adds ends of networks.
pub async fn add_netdevs(monitor: &Qmp, vm: VmId, all: Vec<Value>) -> Result<(), HvError> {
    for netdev in all {
        let added = monitor.execute(AddNetdev(netdev)).await;
        match added.map_err(failed("connect a NIC of", vm)) {
            // An earlier call may have come this far.
            Err(HvError::Refused { why, .. }) if why.to_lowercase().contains("duplicate") => {}
            Err(e) => return Err(e),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// Writes the screen to a file, as PNG.
pub async fn screen(monitor: &Qmp, vm: VmId, to: &Path) -> Result<(), HvError> {
    let filename = to.to_string_lossy().into_owned();
    let shot = qmp::screendump {
        filename,
        format: Some(qmp::ImageFormat::png),
        device: None,
        head: None,
    };
    monitor
        .execute(shot)
        .await
        .map_err(failed("take the screen of", vm))?;
    Ok(())
}

/// Lets a guest that waits for room go on, if there is some under all of its disks. Returns whether it goes on.
pub async fn resume_with_room(monitor: &Qmp, vm: VmId) -> Result<bool, HvError> {
    let failed = failed("resume", vm);
    let drives = monitor.execute(QueryBlock {}).await.map_err(&failed)?;
    for file in drives
        .iter()
        .filter_map(|d| d.inserted.as_ref())
        .map(|i| Path::new(&i.file))
    {
        match file.parent().map(space) {
            Some(Ok(space)) if space.free < ROOM => return Ok(false),
            _ => {}
        }
    }
    monitor.execute(qmp::cont {}).await.map_err(&failed)?;
    Ok(true)
}
