//! One file for each kind of job, and what several of them share.

mod adapt_copy;
mod boot_copy;
mod chain;
mod child;
mod clone_vm;
mod connect_vm;
mod copied;
mod copy_snapshot;
mod create_vm;
mod cut_over;
mod cut_over_group;
mod delete;
mod edit_vm;
mod export_disk;
mod finalize_migration;
mod image_of_snapshot;
pub(crate) mod import_image;
mod instant_clone;
mod keep;
mod merge;
mod overlays;
mod power_vm;
mod restore_copy;
pub(super) mod revert_vm;
mod snapshot;
mod take_snapshot;
mod upkeep;

pub(crate) use copy_snapshot::Sessions;

use super::World;
use super::observe;
use super::step::{Cx, Kind, StepError};
use crate::db::layers::Layer;
use crate::db::{self, DbError, Tx};
use crate::disks::DiskError;
use crate::hypervisor::{BootError, Captured, DiskSpec, HvError, LayerFile, MachineSpec, NicSpec, RunState};
use shared::clone::Proof;
use shared::edit::{FIRST_SLOT, LAST_SLOT};
use shared::job::JobKind;
use shared::vm::{Condition, Nic, Vm};
use shared::{Code, LayerId, NetworkId, Status, VmId};
use std::collections::BTreeSet;
use uuid::Uuid;

/// The steps of a kind.
pub(super) fn of(kind: JobKind) -> &'static dyn Kind {
    match kind {
        JobKind::CreateVm => &create_vm::CreateVm,
        JobKind::PowerVm => &power_vm::PowerVm,
        JobKind::ConnectVm => &connect_vm::ConnectVm,
        JobKind::TakeSnapshot => &take_snapshot::TakeSnapshot,
        JobKind::CloneVm => &clone_vm::CloneVm,
        JobKind::InstantCloneVm => &instant_clone::InstantCloneVm,
        JobKind::RevertVm => &revert_vm::RevertVm,
        JobKind::EditVm => &edit_vm::EditVm,
        JobKind::DeleteVm | JobKind::DeleteForkPoint | JobKind::DeleteSnapshot | JobKind::DeleteImage => {
            &delete::Delete
        }
        JobKind::ImportImage => &import_image::ImportImage,
        JobKind::ImageOfSnapshot => &image_of_snapshot::ImageOfSnapshot,
        JobKind::ExportDisk => &export_disk::ExportDisk,
        JobKind::CopySnapshot => &copy_snapshot::CopySnapshot,
        JobKind::RestoreCopy => &restore_copy::RestoreCopy,
        JobKind::BootCopy => &boot_copy::BootCopy,
        JobKind::VerifyTarget => &upkeep::VerifyTarget,
        JobKind::PruneTarget => &upkeep::PruneTarget,
        JobKind::CutOver => &cut_over::CutOver,
        JobKind::FinalizeMigration => &finalize_migration::FinalizeMigration,
        JobKind::AdaptCopy => &adapt_copy::AdaptCopy,
        JobKind::CutOverGroup => &cut_over_group::CutOverGroup,
    }
}

impl From<HvError> for StepError {
    fn from(e: HvError) -> Self {
        let code = match &e {
            HvError::NotRunning { .. } => Code::FailedPrecondition,
            HvError::TimedOut { .. } => Code::DeadlineExceeded,
            HvError::Simulated { .. } => Code::Aborted,
            HvError::TooBusy(_) | HvError::TooSlow { .. } | HvError::MomentLost(_) => Code::Aborted,
            HvError::NotInstalled(_) | HvError::Switch { .. } => Code::Unavailable,
            HvError::Bridge { .. } => Code::FailedPrecondition,
            _ => Code::Internal,
        };
        Self {
            transient: e.transient(),
            waits: false,
            until: None,
            status: Status::new(code, db::chain(&e)),
        }
    }
}

impl From<BootError> for StepError {
    fn from(e: BootError) -> Self {
        let code = match &e {
            BootError::Timeout { .. } => Code::DeadlineExceeded,
            _ => Code::Aborted,
        };
        Self::new(code, db::chain(&e))
    }
}

impl From<DiskError> for StepError {
    fn from(e: DiskError) -> Self {
        let text = db::chain(&e);
        match e {
            DiskError::NoSpace { .. } => Status::no_space(format!(
                "{text}. Free some space, or choose another storage; nothing is left behind"
            ))
            .into(),
            DiskError::NotInstalled => Self::new(Code::Unavailable, text),
            DiskError::Refused { .. } => Self::new(Code::InvalidArgument, text),
            DiskError::Tool { .. } | DiskError::Io { .. } => Self::new(Code::Internal, text),
        }
    }
}

/// Says in a job's log that a capture had to be tried again.
fn tried_again(cx: &Cx, captured: &Captured) {
    if captured.again > 0 {
        let n = captured.again;
        cx.log(format!(
            "the host was too busy for it {n} time(s): the machine went on each time, and it was tried again"
        ));
    }
}

/// A regular expression for a line of the serial port.
pub(super) fn boot_pattern(pattern: &str) -> Result<regex::Regex, Status> {
    regex::RegexBuilder::new(pattern)
        .size_limit(1 << 20)
        .build()
        .map_err(|e| Status::invalid("target.bootPattern", e))
}

fn is_now(noun: &str, id: impl std::fmt::Display) -> StepError {
    StepError::new(Code::NotFound, format!("{noun} {id} is no longer there"))
}

async fn vm(cx: &Cx, id: VmId) -> Result<Vm, StepError> {
    db::vms::by_id(cx.db(), id).await?.ok_or_else(|| is_now("VM", id))
}

/// A new address of the range that QEMU uses, locally administered.
fn new_mac() -> String {
    let random = Uuid::new_v4();
    let [a, b, c, ..] = random.into_bytes();
    format!("52:54:00:{a:02x}:{b:02x}:{c:02x}")
}

/// NICs as they were asked for, each with an address, a number and a slot behind those that are taken; the networks have
/// been resolved to ids.
fn mint_nics(
    asked: &[shared::vm::NewNic],
    networks: &[db::places::NetworkRow],
    taken: &mut Taken,
) -> Result<(Vec<Nic>, Vec<NetworkId>), StepError> {
    let mut nics = (Vec::new(), Vec::new());
    for nic in asked {
        let network = networks
            .iter()
            .find(|n| n.id.to_string() == nic.network || n.name.as_str() == nic.network)
            .ok_or_else(|| is_now("network", &nic.network))?;
        nics.0.push(Nic {
            number: taken.nic(),
            slot: taken.slot()?,
            mac: nic.mac.clone().unwrap_or_else(new_mac),
            network: network.name.clone(),
            kind: network.kind,
            connected: nic.connected,
            forwards: nic.forwards.clone(),
        });
        nics.1.push(network.id);
    }
    Ok(nics)
}

/// The numbers and slots of a machine's devices that cannot be given again.
#[derive(Default)]
struct Taken {
    disks: BTreeSet<u32>,
    nics: BTreeSet<u32>,
    slots: BTreeSet<u32>,
}

impl Taken {
    /// Those of a machine, with what is put in at its next start; its seed has a slot, too.
    fn of(vm: &Vm, seed: Option<u32>) -> Self {
        let mut taken = Self::default();
        taken.slots.extend(seed);
        let next = vm.at_next_start.iter();
        for disk in vm.disks.iter().chain(next.clone().flat_map(|n| &n.add_disks)) {
            taken.disks.insert(disk.number);
            taken.slots.insert(disk.slot);
        }
        for nic in vm.network_interfaces.iter().chain(next.flat_map(|n| &n.add_nics)) {
            taken.nics.insert(nic.number);
            taken.slots.insert(nic.slot);
        }
        taken
    }

    fn disk(&mut self) -> u32 {
        give(&mut self.disks, 0)
    }

    fn nic(&mut self) -> u32 {
        give(&mut self.nics, 0)
    }

    fn slot(&mut self) -> Result<u32, StepError> {
        match give(&mut self.slots, FIRST_SLOT) {
            slot if slot <= LAST_SLOT => Ok(slot),
            _ => Err(StepError::new(
                Code::ResourceExhausted,
                "no PCI slot is free: take a disk or a NIC out, or start it anew",
            )),
        }
    }
}

/// Takes the lowest number that is free.
fn give(taken: &mut BTreeSet<u32>, from: u32) -> u32 {
    let free = (from..).find(|n| !taken.contains(n)).unwrap_or(u32::MAX);
    taken.insert(free);
    free
}

async fn chain_files(world: &World, layer: LayerId) -> Result<Vec<LayerFile>, DbError> {
    let chain = db::layers::chain_of(&world.db, layer).await?;
    Ok(chain.iter().map(|l| world.layer_file(l.id)).collect())
}

/// What a machine is started with, as it stands in the database now.
async fn machine_spec(world: &World, vm: &Vm) -> Result<MachineSpec, StepError> {
    let hidden = db::vms::hidden(&world.db, vm.id)
        .await?
        .ok_or_else(|| is_now("VM", vm.id))?;
    let mut disks = Vec::new();
    for disk in &vm.disks {
        disks.push(DiskSpec {
            number: disk.number,
            slot: disk.slot,
            chain: chain_files(world, disk.layer).await?,
        });
    }
    let networks = db::places::networks(&world.db).await?;
    let mut nics = Vec::new();
    for nic in &vm.network_interfaces {
        let network = networks.iter().find(|n| n.name == nic.network);
        let network = network.ok_or_else(|| is_now("network", &nic.network))?;
        nics.push(NicSpec {
            number: nic.number,
            slot: nic.slot,
            mac: nic.mac.clone(),
            kind: nic.kind,
            network: network.id,
            forwards: nic.forwards.clone(),
            bridge: network.bridge.clone(),
            connected: nic.connected,
        });
    }
    Ok(MachineSpec {
        id: vm.id,
        name: vm.name.clone(),
        cpus: vm.cpus,
        memory_mib: vm.memory_mib,
        bios_uuid: vm.bios_uuid,
        vmgenid: hidden.vmgenid,
        firmware: match vm.variables() {
            Some(_) => Some(world.efi()?.code.clone()),
            None => None,
        },
        disks,
        seed: hidden.has_seed.then(|| world.seed_file(vm.id)),
        seed_slot: hidden.seed_slot,
        nics,
        config: hidden.config,
    })
}

async fn set_starting(cx: &Cx, id: VmId) -> Result<(), StepError> {
    cx.commit(move |tx| {
        Box::pin(async move {
            db::vms::set_condition(tx, id, Condition::Starting)
                .await
                .map(drop)
        })
    })
    .await
}

/// Powers a machine on; one that runs already is left as it is.
async fn power_on(cx: &Cx, id: VmId) -> Result<(), StepError> {
    if cx.hypervisor().state(id).await == RunState::Stopped {
        edit_vm::take_next(cx, id).await?;
        let machine = vm(cx, id).await?;
        set_starting(cx, id).await?;
        let spec = machine_spec(cx.world(), &machine).await?;
        cx.hypervisor().start(&spec).await?;
        cx.log(format!("powered {} on", machine.name));
    }
    observe::look(cx.world(), id).await?;
    Ok(())
}

/// Takes a machine's power away; one that is off already is left as it is.
async fn power_off(cx: &Cx, id: VmId) -> Result<(), StepError> {
    cx.hypervisor().kill(id).await?;
    cx.commit(move |tx| {
        Box::pin(async move {
            if db::vms::exists(tx, id).await? {
                db::vms::set_condition(tx, id, Condition::Stopped).await?;
            }
            Ok(())
        })
    })
    .await
}

/// Sees a machine boot that has been powered on, and keeps a picture of its screen, however that goes.
async fn see_it_boot(
    cx: &Cx,
    id: VmId,
    pattern: Option<&str>,
    timeout_seconds: u32,
) -> Result<Proof, StepError> {
    let expect = crate::hypervisor::BootExpectation {
        pattern: pattern.map(boot_pattern).transpose()?,
        timeout: std::time::Duration::from_secs(u64::from(timeout_seconds)),
    };
    let say = |text: &str| {
        cx.log(text);
        cx.message(text);
    };
    let seen = cx.hypervisor().watch_boot(id, &expect, &say).await;
    let picture = cx.hypervisor().screen(id).await;
    match picture {
        Ok(png) => {
            let file = cx.world().screen_file(cx.id());
            match tokio::fs::write(&file, png).await {
                Ok(()) => cx.outcome(|o| o.screen = true),
                Err(e) => cx.log(format!("the picture of the screen could not be kept: {e}")),
            }
        }
        Err(e) => cx.log(format!("there is no picture of the screen: {}", db::chain(&e))),
    }
    Ok(seen?)
}

/// Takes layers that nobody stands on off the books, and those below that only they stood on.
async fn release(tx: &mut Tx, layers: &[LayerId]) -> Result<Vec<Layer>, DbError> {
    let mut gone = Vec::new();
    for layer in layers {
        gone.extend(db::layers::release(tx, *layer).await?);
    }
    Ok(gone)
}

async fn remove_files(cx: &Cx, layers: &[LayerId]) -> Result<(), StepError> {
    for layer in layers {
        // Off the books nobody knows any more where it was.
        for path in cx.world().layer_paths(*layer) {
            cx.disks().remove(&path).await?;
        }
    }
    Ok(())
}

/// Removes the files of those of the layers that nobody stands on any more; returns how many.
async fn remove_loose(cx: &Cx, layers: &[LayerId]) -> Result<usize, StepError> {
    if layers.is_empty() {
        return Ok(0);
    }
    let living = db::layers::ids(cx.db()).await?;
    let gone: Vec<_> = layers.iter().copied().filter(|l| !living.contains(l)).collect();
    remove_files(cx, &gone).await?;
    Ok(gone.len())
}

/// Undoes the making of a machine: its files first, then its name.
async fn unmake(cx: &Cx, id: VmId, layers: Vec<LayerId>) -> Result<(), StepError> {
    remove_files(cx, &layers).await?;
    cx.disks().remove(&cx.world().seed_file(id)).await?;
    cx.hypervisor().forget(id).await?;
    cx.commit(move |tx| {
        Box::pin(async move {
            db::vms::delete(tx, id).await?;
            release(tx, &layers).await.map(drop)
        })
    })
    .await
}
