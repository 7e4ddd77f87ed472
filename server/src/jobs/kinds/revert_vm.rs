//! Takes a machine back to a snapshot: onto new overlays on its layers, and with its memory, if that was kept, to the
//! instruction where its guest was. What is now can be kept as a snapshot first.

use super::snapshot::{self, With};
use super::{is_now, machine_spec, power_off, power_on, release, remove_files, remove_loose, vm};
use crate::db::layers::Layer;
use crate::db::locks::LockMode;
use crate::db::snapshots::MemoryOf;
use crate::db::{self};
use crate::jobs::observe;
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shared::job::{JobSpec, RevertSpec, step};
use shared::vm::{Condition, Disk, Vm};
use shared::{Code, LayerId, Status};
use uuid::Uuid;

pub(super) struct RevertVm;

#[derive(Clone, Serialize, Deserialize)]
struct Minted {
    /// What is now, where it is kept.
    now: Option<snapshot::Minted>,
    /// The new active layers, in the order of the snapshot's disks.
    layers: Vec<LayerId>,
    /// What the machine read through before.
    #[serde(default)]
    before: Vec<LayerId>,
    vmgenid: Uuid,
}

fn spec(cx: &Cx) -> Result<RevertSpec, StepError> {
    match cx.job().spec.into_inner() {
        JobSpec::RevertVm(spec) => Ok(spec),
        _ => Err(StepError::new(Code::Internal, "not a request to revert")),
    }
}

/// Whether the memory of a snapshot can go on in this machine, by this QEMU.
pub(in crate::jobs) fn can_go_on(machine: &Vm, memory: &MemoryOf, now: &MemoryOf) -> Result<(), Status> {
    let differs = |what: &str, then: &dyn std::fmt::Display, now: &dyn std::fmt::Display| {
        Err(Status::precondition(format!(
            "the memory of this snapshot cannot go on: {} had {then} {what} then, and has {now} now. Revert the disks alone \
             (memory: false), or change it back",
            machine.name
        )))
    };
    if memory.cpus != now.cpus {
        return differs("processors", &memory.cpus, &now.cpus);
    }
    if memory.memory_mib != now.memory_mib {
        return differs("MiB of memory", &memory.memory_mib, &now.memory_mib);
    }
    if memory.nics != now.nics {
        return differs("NICs", &memory.nics, &now.nics);
    }
    if !memory.slots.is_empty() && memory.slots != now.slots {
        let list = |slots: &[u32]| slots.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        return differs("as PCI slots of NICs", &list(&memory.slots), &list(&now.slots));
    }
    if (memory.accelerator, &memory.qemu_version) != (now.accelerator, &now.qemu_version) {
        return Err(Status::precondition(format!(
            "the memory of this snapshot was taken by QEMU {} with {}, and this host has {} with {}: revert the disks alone \
             (memory: false)",
            memory.qemu_version, memory.accelerator, now.qemu_version, now.accelerator
        )));
    }
    Ok(())
}

async fn check_memory(cx: &Cx, spec: &RevertSpec, machine: &Vm) -> Result<(), StepError> {
    if !spec.memory {
        return Ok(());
    }
    let memory = db::snapshots::memory_of(cx.db(), spec.snapshot).await?;
    let memory = memory.ok_or_else(|| is_now("the memory of snapshot", spec.snapshot))?;
    let now = MemoryOf {
        cpus: machine.cpus,
        memory_mib: machine.memory_mib,
        nics: machine.network_interfaces.len(),
        slots: machine.network_interfaces.iter().map(|nic| nic.slot).collect(),
        accelerator: cx.hypervisor().accelerator(),
        qemu_version: cx.hypervisor().version().await?,
        ..memory.clone()
    };
    Ok(can_go_on(machine, &memory, &now)?)
}

async fn mint(cx: &Cx) -> Result<(), StepError> {
    let spec = spec(cx)?;
    let machine = vm(cx, spec.vm).await?;
    check_memory(cx, &spec, &machine).await?;
    let frozen = snapshot::layers(cx, spec.snapshot).await?;
    let minted = match cx.data()? {
        Some(minted) => minted,
        None => Minted {
            now: match spec.request.keep_current {
                true => Some(snapshot::mint(cx, spec.vm, spec.request.name.clone()).await?),
                false => None,
            },
            layers: frozen.iter().map(|_| LayerId(Uuid::now_v7())).collect(),
            before: Vec::new(),
            vmgenid: Uuid::new_v4(),
        },
    };
    cx.mint(&minted);
    match &minted.now {
        Some(now) => snapshot::announce(cx, spec.vm, now, "", false).await,
        None => cx.commit(|_| Box::pin(async { Ok(()) })).await,
    }
}

async fn keep_now(cx: &Cx) -> Result<(), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let Some(mut now) = minted.now.clone() else {
        return Ok(());
    };
    let remember = |now: &snapshot::Minted| {
        cx.mint(&Minted {
            now: Some(now.clone()),
            ..minted.clone()
        });
    };
    snapshot::freeze(cx, spec.vm, &mut now, With::Nothing, remember).await
}

/// Makes the overlays that the machine will write.
async fn lay(cx: &Cx) -> Result<(), StepError> {
    let (spec, mut minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    if minted.before.is_empty() {
        let machine = vm(cx, spec.vm).await?;
        // What was to come in at the next start is no disk of the snapshot either.
        let next = machine.at_next_start.unwrap_or_default().add_disks;
        for disk in machine.disks.into_iter().chain(next) {
            let chain = db::layers::chain_of(cx.db(), disk.layer).await?;
            minted.before.extend(chain.iter().map(|layer| layer.id));
        }
        cx.mint(&minted);
    }
    let frozen = snapshot::layers(cx, spec.snapshot).await?;
    let mut layers = Vec::new();
    for (&id, &parent) in minted.layers.iter().zip(&frozen) {
        let chain = db::layers::chain_of(cx.db(), parent).await?;
        cx.world().place_beside(id, parent);
        layers.push(Layer {
            id,
            storage: cx.world().storage_of(parent),
            parent: Some(parent),
            virtual_bytes: chain.last().map_or(0, |layer| layer.virtual_bytes),
        });
    }
    cx.commit(move |tx| {
        Box::pin(async move {
            for layer in &layers {
                db::layers::insert(tx, layer).await?;
            }
            Ok(())
        })
    })
    .await?;
    for (&id, &parent) in minted.layers.iter().zip(&frozen) {
        let (file, below) = (cx.world().layer_file(id), cx.world().layer_file(parent));
        cx.disks().create_overlay(&file, &below, None).await?;
    }
    Ok(())
}

async fn revert(cx: &Cx) -> Result<(), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let machine = vm(cx, spec.vm).await?;
    let there = machine.disks.iter().map(|disk| disk.layer);
    if there.eq(minted.layers.iter().copied()) {
        return Ok(());
    }
    power_off(cx, spec.vm).await?;
    let frozen = db::snapshots::disks_of(cx.db(), spec.snapshot).await?;
    let disks = frozen.into_iter().zip(&minted.layers);
    let disks: Vec<Disk> = disks.map(|(disk, &layer)| Disk { layer, ..disk }).collect();
    cx.commit(move |tx| {
        Box::pin(async move {
            let before = db::vms::set_disks(tx, spec.vm, &disks).await?;
            release(tx, &before).await?;
            db::vms::set_vmgenid(tx, spec.vm, minted.vmgenid).await?;
            db::vms::set_current(tx, spec.vm, Some(spec.snapshot)).await
        })
    })
    .await
}

/// Has the guest go on where it was, or powers the machine on. It is back by now: what goes wrong here is said.
async fn start(cx: &Cx) -> Result<(), StepError> {
    let spec = spec(cx)?;
    let started = match spec.memory {
        true => go_on(cx, &spec).await,
        false => power_on(cx, spec.vm).await,
    };
    match started {
        Err(e) if !e.transient => {
            power_off(cx, spec.vm).await?;
            cx.log(format!("it could not be started: {}", e.status.message));
            cx.message(format!(
                "its disks are back, and it is off: it could not be started: {}",
                e.status.message
            ));
            Ok(())
        }
        started => started,
    }
}

async fn go_on(cx: &Cx, spec: &RevertSpec) -> Result<(), StepError> {
    let machine = vm(cx, spec.vm).await?;
    let memory = db::snapshots::memory_of(cx.db(), spec.snapshot).await?;
    let memory = memory.ok_or_else(|| is_now("the memory of snapshot", spec.snapshot))?;
    let id = spec.vm;
    if machine.condition().ok() == Some(Condition::Stopped) {
        super::set_starting(cx, id).await?;
    }
    let point = cx.world().snapshot_point(spec.snapshot, memory.user_networks);
    let machine = machine_spec(cx.world(), &machine).await?;
    cx.hypervisor().fork(&machine, &point).await?;
    cx.hypervisor().connect(&machine).await?;
    observe::look(cx.world(), id).await?;
    cx.message("its guest goes on");
    Ok(())
}

#[async_trait]
impl Kind for RevertVm {
    fn plan(&self, spec: &JobSpec) -> Vec<Plan> {
        let (keep, starts) = match spec {
            JobSpec::RevertVm(spec) => (spec.request.keep_current, spec.memory || spec.request.start),
            _ => (false, false),
        };
        vec![
            Plan::always(step::MINTING),
            Plan::only_if(step::FREEZING_DISKS, keep),
            Plan::always(step::PREPARING_VM_DISKS),
            // What the guest has in memory is lost from here.
            Plan::no_return(step::REVERTING),
            Plan::only_if(step::STARTING, starts),
            Plan::always(step::REMOVING_FILES),
        ]
    }

    fn mode(&self, _spec: &JobSpec) -> LockMode {
        LockMode::Exclusive
    }

    async fn run(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        match name {
            step::MINTING => mint(cx).await,
            step::FREEZING_DISKS => keep_now(cx).await,
            step::PREPARING_VM_DISKS => lay(cx).await,
            step::REVERTING => revert(cx).await,
            step::STARTING => start(cx).await,
            _ => remove_loose(cx, &cx.minted::<Minted>()?.before).await.map(drop),
        }
    }

    async fn undo(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        // Nothing minted: nothing was made.
        let Some(minted) = cx.data::<Minted>()? else {
            return Ok(());
        };
        match (name, &minted.now) {
            (step::MINTING, Some(now)) => snapshot::forget(cx, now).await,
            (step::FREEZING_DISKS, Some(now)) => snapshot::unfreeze(cx, spec(cx)?.vm, now).await,
            (step::PREPARING_VM_DISKS, _) => {
                remove_files(cx, &minted.layers).await?;
                cx.commit(move |tx| Box::pin(async move { release(tx, &minted.layers).await.map(drop) }))
                    .await
            }
            _ => Ok(()),
        }
    }
}
