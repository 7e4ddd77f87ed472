//! Changes what a machine is made of: at once where QEMU can, else at its next start.
//!
//! What is wanted is written down first, and stands beside what runs. Then the running machine is made like it as far as it goes;
//! the rest stays wanted, and [`take_next`] makes it so before the machine is started. So behind the files of new
//! disks nothing fails that could be undone: it is done now, or at the next start.

use super::create_vm::{MintedLayer, make_disks, mint_disks, mint_variables, note_layers, storage_for};
use super::{Taken, is_now, machine_spec, mint_nics, release, remove_files, remove_loose, vm};
use crate::db;
use crate::db::hardware::{Added, Left};
use crate::db::locks::LockMode;
use crate::hypervisor::{HvError, RunState, Unfit};
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shared::edit::{self, EditVm as Request, NextStart};
use shared::job::{EditSpec, JobSpec, step};
use shared::vm::{Disk, Firmware, Nic, Vm};
use shared::{Code, LayerId, NetworkId, StorageId, VmId};

pub(super) struct EditVm;

#[derive(Clone, Serialize, Deserialize)]
struct Minted {
    storage: StorageId,
    disks: Vec<MintedLayer>,
    nics: Vec<(Nic, NetworkId)>,
    moves: Vec<(u32, NetworkId)>,
    /// Layers of the disks that are taken out: what is not on the books afterwards goes.
    layers: Vec<LayerId>,
}

fn spec(cx: &Cx) -> Result<EditSpec, StepError> {
    match cx.job().spec.into_inner() {
        JobSpec::EditVm(spec) => Ok(spec),
        _ => Err(StepError::new(Code::Internal, "not a request to edit a VM")),
    }
}

/// Refuses to move a NIC to a bridge that is not there, while it still has the network that it is on.
fn bridges(
    cx: &Cx,
    all: &[db::places::NetworkRow],
    mut joined: impl Iterator<Item = NetworkId>,
) -> Result<(), StepError> {
    let gone = joined.find_map(|id| {
        let network = all.iter().find(|network| network.id == id)?;
        let bridge = network.bridge.as_deref()?;
        (!cx.hypervisor().has_bridge(bridge)).then_some((&network.name, bridge))
    });
    let Some((network, bridge)) = gone else {
        return Ok(());
    };
    let why = format!("this host has no bridge {bridge}, which the network {network} leads to");
    Err(StepError::new(Code::FailedPrecondition, why))
}

async fn mint(cx: &Cx, spec: &EditSpec) -> Result<Minted, StepError> {
    let (machine, request) = (vm(cx, spec.vm).await?, &spec.request);
    // It may have been changed since the job was posted.
    edit::check(&machine, request)?;
    let hidden = db::vms::hidden(cx.db(), spec.vm).await?;
    let seed = hidden.filter(|h| h.has_seed).map(|h| h.seed_slot);
    let networks = db::places::networks(cx.db()).await?;
    let mut taken = Taken::of(&machine, seed);
    let mut disks = mint_disks(cx, &request.add_disks, &mut taken).await?;
    let comes = |next: &NextStart| next.add_disks.iter().any(Disk::is_variables);
    let has = machine.variables().is_some() || machine.at_next_start.as_ref().is_some_and(comes);
    if request.firmware == Some(Firmware::Efi) && !has {
        disks.push(mint_variables(cx, &mut taken)?);
    }
    let (nics, ids) = mint_nics(&request.add_nics, &networks, &mut taken)?;
    let mut moves = Vec::new();
    for change in &request.change_nics {
        let Some(asked) = &change.network else { continue };
        let network = networks.iter().find(|n| n.id.to_string() == *asked);
        moves.push((change.nic, network.ok_or_else(|| is_now("network", asked))?.id));
    }
    if cx.hypervisor().state(spec.vm).await != RunState::Stopped {
        let joins = moves.iter().map(|(_, network)| *network);
        bridges(cx, &networks, joins.chain(ids.iter().copied()))?;
    }
    let mut layers = Vec::new();
    let forgets = |d: &Disk| request.firmware == Some(Firmware::Bios) && d.is_variables();
    let next = machine.at_next_start.iter().flat_map(|next| &next.add_disks);
    let all = machine.disks.iter().chain(next);
    let out = all.filter(|d| request.remove_disks.contains(&d.number) || forgets(d));
    for disk in out {
        let chain = db::layers::chain_of(cx.db(), disk.layer).await?;
        layers.extend(chain.iter().map(|layer| layer.id));
    }
    Ok(Minted {
        storage: storage_for(cx, None).await?,
        disks,
        nics: nics.into_iter().zip(ids).collect(),
        moves,
        layers,
    })
}

async fn minting(cx: &Cx) -> Result<(), StepError> {
    let spec = spec(cx)?;
    let minted: Minted = match cx.data()? {
        Some(minted) => minted,
        None => mint(cx, &spec).await?,
    };
    cx.mint(&minted);
    for layer in &minted.disks {
        cx.world().place(layer.id, minted.storage);
    }
    cx.commit(move |tx| Box::pin(async move { note_layers(tx, &minted.disks, minted.storage).await }))
        .await
}

async fn change(cx: &Cx) -> Result<(), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let added = Added {
        disks: minted.disks.iter().map(MintedLayer::disk).collect(),
        nics: minted.nics,
        moves: minted.moves,
    };
    let (id, request) = (spec.vm, spec.request.clone());
    cx.commit(move |tx| Box::pin(async move { db::hardware::want(tx, id, &request, &added).await }))
        .await?;
    if cx.hypervisor().state(id).await == RunState::Stopped {
        take_next(cx, id).await?;
        cx.message("done: it does not run");
    } else {
        match change_running(cx, &spec).await {
            // It has stopped meanwhile.
            Err(e) if cx.hypervisor().state(id).await == RunState::Stopped => {
                cx.log(e.status.message);
                take_next(cx, id).await?;
            }
            done => done?,
        }
    }
    remove_loose(cx, &minted.layers).await.map(drop)
}

/// Makes a running machine what is wanted, as far as that goes.
async fn change_running(cx: &Cx, spec: &EditSpec) -> Result<(), StepError> {
    let id = spec.vm;
    let machine = vm(cx, id).await?;
    let mut why = grow_running(cx, &machine).await?;
    let moved = |nic: &u32| {
        spec.request
            .change_nics
            .iter()
            .any(|c| c.nic == *nic && (c.network.is_some() || c.forwards.is_some()))
    };
    let mut wanted = machine_spec(cx.world(), &wanted_now(&machine)).await?;
    let connected: Vec<bool> = wanted.nics.iter().map(|nic| nic.connected).collect();
    // What moves is taken off its network, and joins the other.
    if wanted.nics.iter().any(|nic| moved(&nic.number)) {
        let there = |n: u32| machine.network_interfaces.iter().any(|nic| nic.number == n);
        let mut off = wanted.clone();
        off.nics.retain(|nic| there(nic.number));
        for nic in &mut off.nics {
            nic.connected &= !moved(&nic.number);
        }
        cx.hypervisor().connect(&off).await?;
    }
    for (nic, connected) in wanted.nics.iter_mut().zip(connected) {
        nic.connected = connected;
    }
    let unfit = cx.hypervisor().refit(&wanted).await?;
    let Unfit {
        disks,
        nics,
        why: left,
    } = unfit;
    why.extend(left);
    // A running machine keeps its firmware.
    let next = machine.at_next_start.iter().flat_map(|next| &next.add_disks);
    let variables = machine.disks.iter().chain(next).filter(|d| d.is_variables());
    let disks = disks.into_iter().chain(variables.map(|d| d.number)).collect();
    let left = Left { disks, nics };
    cx.commit(move |tx| {
        Box::pin(async move {
            let gone = db::hardware::taken(tx, id, &left).await?;
            release(tx, &gone).await.map(drop)
        })
    })
    .await?;
    let next = vm(cx, id).await?.at_next_start.unwrap_or_default();
    let waits = next.cpus.is_some()
        || next.memory_mib.is_some()
        || !next.boot_order.is_empty()
        || !next.macs.is_empty()
        || spec.request.firmware.is_some();
    if waits {
        why.push(
            "processors, memory, firmware, boot order and addresses change at the next start".to_owned(),
        );
    }
    for line in &why {
        cx.log(line.clone());
    }
    cx.message(match why.is_empty() {
        true => "done while it runs".to_owned(),
        false => why.join("; "),
    });
    Ok(())
}

/// The devices that are wanted; the rest is as it runs.
fn wanted_now(machine: &Vm) -> Vm {
    let mut wanted = machine.clone();
    if let Some(next) = wanted.at_next_start.take() {
        let goes = |d: &Disk| next.remove_disks.contains(&d.number) && !d.is_variables();
        wanted.disks.retain(|d| !goes(d));
        wanted
            .disks
            .extend(next.add_disks.into_iter().filter(|d| !d.is_variables()));
        wanted
            .network_interfaces
            .retain(|n| !next.remove_nics.contains(&n.number));
        wanted.network_interfaces.extend(next.add_nics);
    }
    wanted
}

/// Grows disks under their guest, which sees it; answers why others do not.
async fn grow_running(cx: &Cx, machine: &Vm) -> Result<Vec<String>, StepError> {
    let mut why = Vec::new();
    let growths = machine.at_next_start.iter().flat_map(|next| &next.grow_disks);
    for growth in growths {
        let Some(disk) = machine.disks.iter().find(|d| d.number == growth.disk) else {
            continue;
        };
        let (id, number, layer, bytes) = (machine.id, disk.number, disk.layer, growth.virtual_bytes);
        match cx.hypervisor().grow(id, layer, bytes).await {
            Err(HvError::Refused { why: said, .. }) => {
                why.push(format!(
                    "disk {number} cannot grow while it runs: {said}; it does at the next start"
                ));
                continue;
            }
            grown => grown?,
        }
        cx.commit(move |tx| Box::pin(async move { db::hardware::grown(tx, id, number, layer, bytes).await }))
            .await?;
    }
    Ok(why)
}

/// Makes a machine that does not run what it is wanted to be.
pub(super) async fn take_next(cx: &Cx, id: VmId) -> Result<(), StepError> {
    let machine = vm(cx, id).await?;
    let Some(next) = &machine.at_next_start else {
        return Ok(());
    };
    for growth in &next.grow_disks {
        let mut disks = machine.disks.iter().chain(&next.add_disks);
        let Some(disk) = disks.find(|d| d.number == growth.disk) else {
            continue;
        };
        let (number, layer, bytes) = (disk.number, disk.layer, growth.virtual_bytes);
        cx.disks().grow(&cx.world().layer_file(layer), bytes).await?;
        cx.commit(move |tx| Box::pin(async move { db::hardware::grown(tx, id, number, layer, bytes).await }))
            .await?;
    }
    let gone = cx
        .commit(move |tx| {
            Box::pin(async move {
                let gone = db::hardware::started(tx, id).await?;
                release(tx, &gone).await
            })
        })
        .await?;
    let gone: Vec<LayerId> = gone.iter().map(|layer| layer.id).collect();
    remove_files(cx, &gone).await
}

#[async_trait]
impl Kind for EditVm {
    fn plan(&self, spec: &JobSpec) -> Vec<Plan> {
        let adds =
            |request: &Request| !request.add_disks.is_empty() || request.firmware == Some(Firmware::Efi);
        let adds = matches!(spec, JobSpec::EditVm(spec) if adds(&spec.request));
        vec![
            Plan::always(step::MINTING),
            Plan::only_if(step::PREPARING_VM_DISKS, adds),
            Plan::no_return(step::CHANGING_HARDWARE),
        ]
    }

    fn mode(&self, _spec: &JobSpec) -> LockMode {
        LockMode::Changing
    }

    async fn run(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        match name {
            step::MINTING => minting(cx).await,
            step::PREPARING_VM_DISKS => make_disks(cx, &cx.minted::<Minted>()?.disks).await,
            _ => change(cx).await,
        }
    }

    async fn undo(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        let Some(minted) = cx.data::<Minted>()? else {
            return Ok(());
        };
        if name != step::MINTING {
            return Ok(());
        }
        let layers: Vec<LayerId> = minted.disks.iter().map(|layer| layer.id).collect();
        remove_files(cx, &layers).await?;
        cx.commit(move |tx| Box::pin(async move { release(tx, &layers).await.map(drop) }))
            .await
    }
}
