//! What is made before the source is asked: names, rows, layers, seeds.

use super::{Minted, SIDE_BY_SIDE, kept_disks, point_seed, spec};
use crate::db::fork_points::Stored;
use crate::db::layers::Layer;
use crate::db::now;
use crate::jobs::World;
use crate::jobs::kinds::overlays::Overlays;
use crate::jobs::kinds::{self, is_now, new_mac};
use crate::jobs::spares::MintedClone;
use crate::jobs::step::{Cx, StepError};
use crate::{db, disks};
use futures::{StreamExt, TryStreamExt, stream};
use shared::feed::Noun;
use shared::fork::ForkPoint;
use shared::job::{ForkSpec, Resource, ResourceRole};
use shared::place::Accelerator;
use shared::seed::fault::Fault;
use shared::snapshot::SnapshotState;
use shared::vm::{Disk, Lineage, LineageKind, Nic, Vm, VmState};
use shared::{Code, ForkPointId, LayerId, Name, VmId};
use uuid::Uuid;

/// Hex digits that tell clones apart whose names are made.
const TAIL: usize = 10;

/// A name after that of something else, with `tail` behind it, cut so that it stays a name.
fn name_after(stem: &Name, tail: &str) -> Result<Name, StepError> {
    let stem: String = stem.as_str().chars().take(62 - tail.len()).collect();
    format!("{}-{tail}", stem.trim_end_matches('-'))
        .parse()
        .map_err(|e: shared::NameError| StepError::new(Code::Internal, e.to_string()))
}

/// What the instant of a running machine will be forked as.
async fn describe(cx: &Cx, spec: &ForkSpec, id: ForkPointId) -> Result<Stored, StepError> {
    let source = kinds::vm(cx, spec.vm).await?;
    let networks = db::places::networks(cx.db()).await?;
    let mut ids = Vec::new();
    for nic in &source.network_interfaces {
        let network = networks.iter().find(|n| n.name == nic.network);
        ids.push(network.ok_or_else(|| is_now("network", &nic.network))?.id);
    }
    let hidden = db::vms::hidden(cx.db(), source.id).await?;
    let kept = spec.request.keep_point;
    let (directory, memory_place) = cx.world().room_for_memory(source.memory_mib, kept)?;
    let create_time = now();
    let name = match &spec.request.point_name {
        Some(name) => name.clone(),
        None => name_after(&source.name, &id.0.simple().to_string()[..TAIL])?,
    };
    Ok(Stored {
        kept,
        point: ForkPoint {
            id,
            name,
            vm: source.id,
            vm_name: source.name,
            state: SnapshotState::Creating,
            cpus: source.cpus,
            memory_mib: source.memory_mib,
            firmware: source.firmware,
            network_interfaces: source.network_interfaces,
            accelerator: cx.hypervisor().accelerator(),
            qemu_version: cx.hypervisor().version().await?,
            pause_micros: None,
            memory_bytes: 0,
            memory_place,
            clones: 0,
            standing: Vec::new(),
            create_time,
            generation: 0,
        },
        labels: source.labels,
        host: source.host,
        networks: ids,
        has_seed: hidden.as_ref().is_some_and(|h| h.has_seed),
        seed_slot: hidden.map_or(0, |h| h.seed_slot),
        directory,
    })
}

/// A clone that nobody has asked anything of.
pub(super) fn mint_clone(stored: &Stored, disks: usize) -> Result<MintedClone, StepError> {
    let tail = &Uuid::new_v4().simple().to_string()[..TAIL];
    let nics = stored.point.network_interfaces.iter();
    Ok(MintedClone {
        id: VmId(Uuid::now_v7()),
        name: name_after(&stored.point.vm_name, &format!("fork-{tail}"))?,
        bios_uuid: Uuid::new_v4(),
        vmgenid: Uuid::new_v4(),
        macs: nics.map(|_| new_mac()).collect(),
        layers: (0..disks).map(|_| LayerId(Uuid::now_v7())).collect(),
    })
}

fn mint(
    cx: &Cx,
    spec: &ForkSpec,
    source: Option<&Vm>,
    stored: &Stored,
    disks: usize,
) -> Result<Minted, StepError> {
    // What a process that waits was started with cannot be changed any more.
    let as_it_is = spec.request.bios_uuid.is_none() && spec.nics.iter().all(|nic| nic.mac.is_none());
    let mut ready = spec
        .point
        .filter(|_| as_it_is)
        .and_then(|point| cx.world().spares.take(point));
    if ready.is_some() {
        cx.log("its process was ready");
    }
    let given: Vec<&Name> = spec.request.given().collect();
    let mut clones = Vec::new();
    for n in 0..spec.request.clones() {
        let mut clone = match ready.take() {
            Some(ready) => ready,
            None => mint_clone(stored, disks)?,
        };
        if let Some(&name) = given.get(n) {
            clone.name = name.clone();
        }
        if let Some(uuid) = spec.request.bios_uuid {
            clone.bios_uuid = uuid;
        }
        for (mac, nic) in clone.macs.iter_mut().zip(&spec.nics) {
            if let Some(asked) = &nic.mac {
                mac.clone_from(asked);
            }
        }
        clones.push(clone);
    }
    Ok(Minted {
        point: stored.point.id,
        overlays: source.map(Overlays::mint),
        clones,
        merged: Vec::new(),
    })
}

pub(super) async fn prepare(cx: &Cx) -> Result<(), StepError> {
    let spec = spec(cx)?;
    let minted: Option<Minted> = cx.data()?;
    let source = match spec.point {
        Some(_) => None,
        None => Some(kinds::vm(cx, spec.vm).await?),
    };
    let id = match (&minted, spec.point) {
        (Some(minted), _) => minted.point,
        (None, Some(kept)) => kept,
        (None, None) => ForkPointId(Uuid::now_v7()),
    };
    let stored = match db::fork_points::by_id(cx.db(), id).await? {
        Some(stored) => stored,
        None if source.is_some() => describe(cx, &spec, id).await?,
        None => return Err(is_now("fork point", id)),
    };
    check_same(cx, &stored.point).await?;
    check_room(cx.world(), &stored, spec.point.is_some(), spec.request.clones())
        .await
        .map_err(|e| Fault::InsufficientResourcesFault.of(e))?;
    // What the clones' disks will stand on: the layers that are active until the source stands still.
    let frozen: Vec<Disk> = match &source {
        Some(source) => source.disks.clone(),
        None => kept_disks(cx, id).await?,
    };
    let minted = match minted {
        Some(minted) => minted,
        None => mint(cx, &spec, source.as_ref(), &stored, frozen.len())?,
    };
    if minted
        .overlays
        .as_ref()
        .zip(source.as_ref())
        .is_some_and(|(o, s)| o.are_active(s))
    {
        // Repeated after the source had been frozen: all this is done.
        return Ok(());
    }
    cx.mint(&minted);
    for clone in &minted.clones {
        cx.resource(Resource {
            noun: Noun::Vm,
            id: clone.id.to_string(),
            name: clone.name.clone(),
            role: ResourceRole::Product,
        });
    }
    if stored.kept {
        cx.resource(Resource {
            noun: Noun::ForkPoint,
            id: id.to_string(),
            name: stored.point.name.clone(),
            role: if source.is_some() {
                ResourceRole::Product
            } else {
                ResourceRole::Source
            },
        });
    }
    announce(cx, &spec, &stored, &minted, &frozen).await?;
    if let (Some(source), Some(overlays)) = (&source, &minted.overlays) {
        overlays.note(cx, source).await?;
    }
    let layers = lay(cx, source.as_ref(), &minted, &frozen);
    tokio::try_join!(layers, seeds(cx, source.as_ref(), &stored, &minted))?;
    Ok(())
}

/// Makes the layers that the source and its clones will write, all on those that are frozen.
async fn lay(cx: &Cx, source: Option<&Vm>, minted: &Minted, frozen: &[Disk]) -> Result<(), StepError> {
    let switch = match (source, &minted.overlays) {
        (Some(source), Some(overlays)) => overlays.switch(cx.world(), source),
        _ => Vec::new(),
    };
    let of_disks = frozen.iter().enumerate().map(|(n, below)| {
        let mut layers: Vec<_> = switch.get(n).map(|disk| disk.new.clone()).into_iter().collect();
        let of_clones = minted.clones.iter().filter_map(|clone| clone.layers.get(n));
        layers.extend(of_clones.map(|&id| cx.world().layer_file(id)));
        async move {
            let below = cx.world().layer_file(below.layer);
            cx.disks().create_overlays(&layers, &below).await
        }
    });
    futures::future::try_join_all(of_disks).await?;
    Ok(())
}

/// The seeds of the point and of the clones, which are read when a guest boots from its own disks.
async fn seeds(cx: &Cx, source: Option<&Vm>, stored: &Stored, minted: &Minted) -> Result<(), StepError> {
    if !stored.has_seed {
        return Ok(());
    }
    let from = match source {
        Some(source) => {
            let from = cx.world().seed_file(source.id);
            if stored.kept {
                disks::copy_seed(&from, &point_seed(stored)).await?;
            }
            from
        }
        None => point_seed(stored),
    };
    let renewed = minted.clones.iter().map(|clone| {
        let (from, to, id) = (&from, cx.world().seed_file(clone.id), clone.id.to_string());
        async move { cx.disks().renew_seed(from, &to, &id, clone.name.as_str()).await }
    });
    let renewed: Vec<_> = renewed.collect();
    stream::iter(renewed)
        .buffered(SIDE_BY_SIDE)
        .try_collect::<()>()
        .await?;
    Ok(())
}

/// The state of devices is understood by the QEMU that saved it, and by a guest that runs as it did.
async fn check_same(cx: &Cx, point: &ForkPoint) -> Result<(), StepError> {
    let (version, accelerator) = (cx.hypervisor().version().await?, cx.hypervisor().accelerator());
    if point.qemu_version == version && point.accelerator == accelerator {
        return Ok(());
    }
    Err(StepError::new(
        Code::FailedPrecondition,
        format!(
            "fork point {} was taken with QEMU {} ({}), and here is QEMU {version} ({accelerator}): it cannot be forked \
             with another",
            point.name, point.qemu_version, point.accelerator
        ),
    ))
}

/// Whether the host has the memory for so many clones: what is really free, and what the configuration allows to be promised.
pub(super) async fn check_room(
    world: &World,
    stored: &Stored,
    captured: bool,
    clones: usize,
) -> Result<(), shared::Status> {
    if world.hypervisor.accelerator() == Accelerator::Sim {
        return Ok(());
    }
    let captured = captured || stored.point.state == SnapshotState::Ready;
    world
        .check_memory(
            stored.point.memory_mib,
            clones,
            captured,
            stored.point.memory_place,
        )
        .await
}

/// Writes the point and the clones down, with the layers that they will have.
async fn announce(
    cx: &Cx,
    spec: &ForkSpec,
    stored: &Stored,
    minted: &Minted,
    frozen: &[Disk],
) -> Result<(), StepError> {
    let mut layers = Vec::new();
    for (&id, below) in minted.clones.iter().flat_map(|c| c.layers.iter().zip(frozen)) {
        layers.push(Layer {
            id,
            storage: cx.world().storage_of(below.layer),
            parent: Some(below.layer),
            virtual_bytes: below.virtual_bytes,
        });
        cx.world().place_beside(id, below.layer);
    }
    let mut machines = Vec::new();
    for clone in &minted.clones {
        let mut new = new_vm(cx, spec, stored, clone);
        let disks = clone.layers.iter().zip(frozen);
        new.vm.disks = disks
            .map(|(&layer, disk)| Disk {
                layer,
                ..disk.clone()
            })
            .collect();
        machines.push(new);
    }
    let (holder, stored) = (cx.clone(), stored.clone());
    cx.commit(move |tx| {
        Box::pin(async move {
            db::fork_points::insert(tx, &stored).await?;
            for layer in &layers {
                db::layers::insert(tx, layer).await?;
            }
            for new in &machines {
                holder.hold_product(tx, new.vm.id).await?;
                db::vms::insert(tx, new).await?;
            }
            db::fork_points::touch(tx, stored.point.id).await
        })
    })
    .await
}

fn new_vm(cx: &Cx, spec: &ForkSpec, stored: &Stored, clone: &MintedClone) -> db::vms::NewVm {
    let point = &stored.point;
    let nics = point.network_interfaces.iter().zip(&clone.macs);
    let vm = Vm {
        id: clone.id,
        name: clone.name.clone(),
        state: VmState::Stopped,
        running_since: None,
        pause_reason: None,
        error: None,
        cpus: point.cpus,
        memory_mib: point.memory_mib,
        firmware: point.firmware,
        disks: Vec::new(),
        // Until its guest has another address.
        network_interfaces: nics
            .map(|(nic, mac)| Nic {
                mac: mac.clone(),
                connected: false,
                // The source listens on those ports.
                forwards: Vec::new(),
                ..nic.clone()
            })
            .collect(),
        labels: stored.labels.clone(),
        host: stored.host,
        bios_uuid: clone.bios_uuid,
        lineage: Lineage {
            kind: LineageKind::InstantClone,
            source_image: None,
            source_vm: Some(point.vm),
            source_snapshot: None,
            fork_point: Some(point.id),
            job: Some(cx.id()),
        },
        locked_by: None,
        current_snapshot: None,
        latest_snapshot: None,
        description: String::new(),
        autostart: None,
        at_next_start: None,
        create_time: now(),
        generation: 0,
    };
    db::vms::NewVm {
        vm,
        hidden: db::vms::Hidden {
            vmgenid: clone.vmgenid,
            has_seed: stored.has_seed,
            seed_slot: stored.seed_slot,
            config: spec.request.config.clone(),
        },
        networks: stored.networks.clone(),
    }
}
