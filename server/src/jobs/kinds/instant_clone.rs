//! Forks a running machine, memory and disks, or an instant of one that was kept.
//!
//! The source stands still within `freezing-source` alone, and goes on in it: nothing is written down meanwhile. What
//! follows needs the source no more. A point that is not kept ends with the job: clones that run have its memory mapped.

use super::overlays::Overlays;
use super::{chain, chain_files, is_now, machine_spec, new_mac, power_off, release, unmake};
use crate::db::fork_points::Stored;
use crate::db::locks::LockMode;
use crate::db::{self, layers::Layer, now};
use crate::disks;
use crate::hypervisor::{BootError, BootExpectation, Control, HvError, MachineSpec, Point, RunState};
use crate::jobs::World;
use crate::jobs::observe;
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use crate::jobs::world::point_file;
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use regex::Regex;
use serde::{Deserialize, Serialize};
use shared::clone::Proof;
use shared::feed::Noun;
use shared::fork::{ForkNics, ForkPoint, ForkProof, ForkedClone, Identity};
use shared::job::{ForkSpec, JobSpec, Resource, ResourceRole, step};
use shared::place::{Accelerator, NetworkKind};
use shared::seed::fault::Fault;
use shared::snapshot::SnapshotState;
use shared::vm::{Lineage, LineageKind, Nic, Vm, VmState};
use shared::{Code, ForkPointId, LayerId, Name, VmId};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use uuid::Uuid;

pub(super) struct InstantCloneVm;

/// How many forks have their process before the moment comes; the others' would only keep the first from running.
const READY: usize = 2;
/// How many processes are started side by side.
const SIDE_BY_SIDE: usize = 4;
/// How long a guest may take to give a sign. It need not give any.
const ANSWER: Duration = Duration::from_secs(2);
/// Hex digits that tell clones apart whose names are made.
const TAIL: usize = 10;

/// What the demo guest, and whoever does as it does, prints of what lives in memory only.
static COUNTS: LazyLock<Regex> = LazyLock::new(|| {
    // It is a constant: it parses.
    #[allow(clippy::unwrap_used)]
    Regex::new(r"nonce=([0-9a-f]{16}) tick=(\d+) host=").unwrap()
});

#[derive(Clone, Serialize, Deserialize)]
struct Minted {
    point: ForkPointId,
    /// Of the source; none where a point that was kept is forked.
    overlays: Option<Overlays>,
    clones: Vec<MintedClone>,
    /// Layers of the source that were merged; who still stands on one keeps it.
    #[serde(default)]
    merged: Vec<LayerId>,
}

#[derive(Clone, Serialize, Deserialize)]
struct MintedClone {
    id: VmId,
    name: Name,
    bios_uuid: Uuid,
    vmgenid: Uuid,
    macs: Vec<String>,
    /// In the order of the disks.
    layers: Vec<LayerId>,
}

fn spec(cx: &Cx) -> Result<ForkSpec, StepError> {
    match cx.job().spec {
        JobSpec::InstantCloneVm(spec) => Ok(spec),
        _ => Err(StepError::new(
            Code::Internal,
            "not a request for an instant clone",
        )),
    }
}

async fn stored(cx: &Cx, id: ForkPointId) -> Result<Stored, StepError> {
    let point = db::fork_points::by_id(cx.db(), id).await?;
    point.ok_or_else(|| is_now("fork point", id))
}

/// A name after that of something else, with `tail` behind it, cut so that it stays a name.
fn name_after(stem: &Name, tail: &str) -> Result<Name, StepError> {
    let stem: String = stem.as_str().chars().take(62 - tail.len()).collect();
    format!("{}-{tail}", stem.trim_end_matches('-'))
        .parse()
        .map_err(|e: shared::NameError| StepError::new(Code::Internal, e.to_string()))
}

/// What the instant of a running machine will be forked as.
async fn describe(cx: &Cx, spec: &ForkSpec, id: ForkPointId) -> Result<Stored, StepError> {
    let source = super::vm(cx, spec.vm).await?;
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
            create_time,
            generation: 0,
        },
        labels: source.labels,
        host: source.host,
        networks: ids,
        has_seed: hidden.is_some_and(|h| h.has_seed),
        directory,
    })
}

fn mint(spec: &ForkSpec, source: Option<&Vm>, stored: &Stored, disks: usize) -> Result<Minted, StepError> {
    let given: Vec<&Name> = spec.request.given().collect();
    let mut clones = Vec::new();
    for n in 0..spec.request.clones() {
        let tail = &Uuid::new_v4().simple().to_string()[..TAIL];
        clones.push(MintedClone {
            id: VmId(Uuid::now_v7()),
            name: match given.get(n) {
                Some(name) => (*name).clone(),
                None => name_after(&stored.point.vm_name, &format!("fork-{tail}"))?,
            },
            bios_uuid: spec.request.bios_uuid.unwrap_or_else(Uuid::new_v4),
            vmgenid: Uuid::new_v4(),
            macs: (0..stored.point.network_interfaces.len())
                .map(|n| {
                    spec.nics
                        .get(n)
                        .and_then(|nic| nic.mac.clone())
                        .unwrap_or_else(new_mac)
                })
                .collect(),
            layers: (0..disks).map(|_| LayerId(Uuid::now_v7())).collect(),
        });
    }
    Ok(Minted {
        point: stored.point.id,
        overlays: source.map(Overlays::mint),
        clones,
        merged: Vec::new(),
    })
}

async fn prepare(cx: &Cx) -> Result<(), StepError> {
    let spec = spec(cx)?;
    let minted: Option<Minted> = cx.data()?;
    let source = match spec.point {
        Some(_) => None,
        None => Some(super::vm(cx, spec.vm).await?),
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
    let frozen: Vec<LayerId> = match &source {
        Some(source) => source.disks.iter().map(|d| d.layer).collect(),
        None => kept_layers(cx, id).await?,
    };
    let minted = match minted {
        Some(minted) => minted,
        None => mint(&spec, source.as_ref(), &stored, frozen.len())?,
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
async fn lay(cx: &Cx, source: Option<&Vm>, minted: &Minted, frozen: &[LayerId]) -> Result<(), StepError> {
    let switch = match (source, &minted.overlays) {
        (Some(source), Some(overlays)) => overlays.switch(cx.world(), source),
        _ => Vec::new(),
    };
    let of_disks = frozen.iter().enumerate().map(|(n, &below)| {
        let mut layers: Vec<_> = switch.get(n).map(|disk| disk.new.clone()).into_iter().collect();
        let of_clones = minted.clones.iter().filter_map(|clone| clone.layers.get(n));
        layers.extend(of_clones.map(|&id| cx.world().layer_file(id)));
        async move {
            let below = cx.world().layer_file(below);
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
        async move {
            cx.disks()
                .renew_seed(from, &to, &id, clone.name.as_str())
                .await
        }
    });
    let renewed: Vec<_> = renewed.collect();
    stream::iter(renewed)
        .buffered(SIDE_BY_SIDE)
        .try_collect::<()>()
        .await?;
    Ok(())
}

async fn kept_layers(cx: &Cx, id: ForkPointId) -> Result<Vec<LayerId>, StepError> {
    let conn = cx.db().read().acquire().await;
    let mut conn = conn.map_err(db::sql("give a connection"))?;
    Ok(db::fork_points::layers(&mut conn, id).await?)
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
pub(crate) async fn check_room(
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
    frozen: &[LayerId],
) -> Result<(), StepError> {
    let storage = cx.world().storage.id;
    let mut layers = Vec::new();
    let mut below = Vec::new();
    for &id in frozen {
        let chain = db::layers::chain_of(cx.db(), id).await?;
        below.push((id, chain.last().map_or(0, |l| l.virtual_bytes)));
    }
    for (&id, &(parent, virtual_bytes)) in minted.clones.iter().flat_map(|c| c.layers.iter().zip(&below)) {
        layers.push(Layer {
            id,
            storage,
            parent: Some(parent),
            virtual_bytes,
        });
    }
    let mut machines = Vec::new();
    for clone in &minted.clones {
        machines.push((new_vm(cx, spec, stored, clone), clone.layers.clone()));
    }
    let (holder, stored) = (cx.clone(), stored.clone());
    cx.commit(move |tx| {
        Box::pin(async move {
            db::fork_points::insert(tx, &stored).await?;
            for layer in &layers {
                db::layers::insert(tx, layer).await?;
            }
            for (new, layers) in &machines {
                holder.hold_product(tx, new.vm.id).await?;
                db::vms::insert(tx, new).await?;
                for (position, layer) in layers.iter().enumerate() {
                    db::vms::put_disk(tx, new.vm.id, position, *layer).await?;
                }
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
        create_time: now(),
        generation: 0,
    };
    db::vms::NewVm {
        vm,
        hidden: db::vms::Hidden {
            vmgenid: clone.vmgenid,
            has_seed: stored.has_seed,
            config: spec.request.config.clone(),
        },
        networks: stored.networks.clone(),
    }
}

/// What a clone is started with; its NICs are to be joined to their networks if the request says so.
async fn clone_spec(cx: &Cx, request: &ForkSpec, id: VmId) -> Result<MachineSpec, StepError> {
    let machine = super::vm(cx, id).await?;
    let mut spec = machine_spec(cx.world(), &machine).await?;
    for (n, nic) in spec.nics.iter_mut().enumerate() {
        let told = request.nics.get(n).and_then(|nic| nic.connect);
        nic.connected = told.unwrap_or(request.request.network_interfaces == Some(ForkNics::Keep));
    }
    Ok(spec)
}

fn point_seed(stored: &Stored) -> PathBuf {
    point_file(&stored.directory, stored.point.id, "seed")
}

fn files(stored: &Stored) -> Point {
    let outside = |nic: &&Nic| nic.connected && nic.kind == NetworkKind::User;
    Point {
        user_networks: stored.point.network_interfaces.iter().filter(outside).count(),
        ..files_in(stored.point.id, &stored.directory)
    }
}

fn files_in(id: ForkPointId, directory: &Path) -> Point {
    Point {
        id: id.0,
        memory: point_file(directory, id, "memory"),
        state: point_file(directory, id, "state"),
        user_networks: 0,
    }
}

async fn freeze(cx: &Cx) -> Result<(), StepError> {
    let (spec, mut minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let Some(overlays) = &mut minted.overlays else {
        return Ok(());
    };
    let source = super::vm(cx, spec.vm).await?;
    if overlays.are_active(&source) {
        return Ok(());
    }
    let stored = stored(cx, minted.point).await?;
    let switch = overlays.switch(cx.world(), &source);
    overlays.live = true;
    let overlays = overlays.clone();
    cx.mint(&minted);
    cx.commit(|_| Box::pin(async { Ok(()) })).await?;

    let (point, source_spec) = (files(&stored), machine_spec(cx.world(), &source).await?);
    let mut ready = Vec::new();
    for clone in minted.clones.iter().take(READY) {
        ready.push(clone_spec(cx, &spec, clone.id).await?);
    }
    let waiting = async {
        for spec in &ready {
            // One that cannot wait says why when it is its turn.
            _ = cx.hypervisor().await_point(spec, &point).await;
        }
    };
    let capture = cx.hypervisor().capture(&source_spec, &switch, &point);
    let (captured, ()) = tokio::join!(capture, waiting);
    let captured = captured?;
    let pause_micros = Some(captured.pause_micros).filter(|m| *m > 0);
    cx.outcome(|o| {
        o.pause_micros = pause_micros;
        o.copied_bytes = Some(captured.copied_bytes).filter(|b| *b > 0);
        let fork = o.fork.get_or_insert_default();
        fork.source_pause_micros = pause_micros;
        fork.forced = captured.forced;
        fork.memory_place = Some(stored.point.memory_place);
    });
    if let Some(micros) = pause_micros {
        let ms = micros as f64 / 1000.0;
        cx.log(format!("{} stood still for {ms:.1} ms", source.name));
        cx.message(if captured.forced {
            format!("stood still for {ms:.1} ms: it writes its memory faster than that travels")
        } else {
            format!("stood still for {ms:.1} ms")
        });
    }
    let (vm, id) = (source.id, stored.point.id);
    let frozen: Vec<LayerId> = switch.iter().map(|d| d.old.id).collect();
    cx.commit(move |tx| {
        Box::pin(async move {
            overlays.take_over(tx, vm).await?;
            db::fork_points::froze(tx, id, &frozen, pause_micros).await
        })
    })
    .await
}

/// The memory is there; where it is kept it is on the disk before anybody is told so.
async fn capture(cx: &Cx) -> Result<(), StepError> {
    let minted: Minted = cx.minted()?;
    let stored = stored(cx, minted.point).await?;
    if stored.point.state == SnapshotState::Ready {
        return Ok(());
    }
    let point = files(&stored);
    disks::settled(&point.state, stored.kept).await?;
    let bytes = disks::settled(&point.memory, stored.kept).await?;
    froze(cx, bytes);
    let (id, place) = (stored.point.id, stored.point.memory_place);
    cx.commit(move |tx| Box::pin(db::fork_points::ready(tx, id, bytes, place)))
        .await
}

fn froze(cx: &Cx, bytes: u64) {
    cx.outcome(|o| o.fork.get_or_insert_default().frozen_bytes = Some(bytes));
    cx.message(format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)));
}

/// It has gone on before this; a source that stands still is let go once more.
async fn thaw(cx: &Cx) -> Result<(), StepError> {
    let spec = spec(cx)?;
    match cx.hypervisor().state(spec.vm).await {
        RunState::Running => cx.message("it runs"),
        RunState::Stopped => cx.message("it has stopped since"),
        RunState::Paused(shared::vm::PauseReason::User) => {
            cx.hypervisor().control(spec.vm, Control::Resume).await?;
            cx.message("it stood still, and was let go");
        }
        RunState::Paused(why) => cx.message(format!("it has been paused since: {why}")),
    }
    observe::look(cx.world(), spec.vm).await?;
    Ok(())
}

async fn instantiate(cx: &Cx) -> Result<(), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let stored = stored(cx, minted.point).await?;
    let point = files(&stored);
    let mut specs = Vec::new();
    for clone in &minted.clones {
        specs.push(clone_spec(cx, &spec, clone.id).await?);
    }
    let total = u32::try_from(minted.clones.len()).unwrap_or(u32::MAX);
    cx.count(0, total);
    // None runs before all are ready to: those that ran would only keep the others from it.
    let all: Vec<_> = specs.iter().map(|spec| stand(cx, spec, &point)).collect();
    stream::iter(all)
        .buffered(SIDE_BY_SIDE)
        .try_collect::<()>()
        .await?;
    let done = AtomicU32::new(0);
    let all = specs.into_iter().zip(&minted.clones).map(|(spec, clone)| {
        let (point, done) = (&point, &done);
        async move {
            let running = run(cx, spec, point, clone).await?;
            cx.count(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            Ok::<_, StepError>(running)
        }
    });
    let running = futures::future::try_join_all(all).await?;
    // All run; now each is given its identity and asked for a sign.
    let all = running.into_iter().map(|(spec, clone)| met(cx, spec, clone));
    let clones: Vec<ForkedClone> = futures::future::try_join_all(all).await?;
    if let Some(first) = clones.first() {
        keep_screen(cx, first.vm).await;
    }
    cx.outcome(|o| {
        let fork = o.fork.get_or_insert_default();
        fork.request_to_running_micros = clones.iter().filter_map(|c| c.running_micros).min();
        fork.clones = clones;
    });
    Ok(())
}

/// Has one clone stand where the point does.
async fn stand(cx: &Cx, spec: &MachineSpec, point: &Point) -> Result<(), StepError> {
    let tried = cx.hypervisor().serial_log(spec.id).exists();
    if tried && cx.hypervisor().state(spec.id).await == RunState::Stopped {
        // It may have written: it begins with the disks of the instant.
        for disk in &spec.disks {
            if let [.., below, active] = disk.chain.as_slice() {
                cx.disks().remove(&active.path).await?;
                cx.disks().create_overlay(active, below, None).await?;
            }
        }
    }
    Ok(cx.hypervisor().await_point(spec, point).await?)
}

/// Has one clone run.
async fn run(
    cx: &Cx,
    spec: MachineSpec,
    point: &Point,
    clone: &MintedClone,
) -> Result<(MachineSpec, ForkedClone), StepError> {
    cx.hypervisor().fork(&spec, point).await?;
    let running_micros = since(cx);
    observe::look(cx.world(), clone.id).await?;
    let memory = cx.hypervisor().memory(clone.id, spec.memory_mib).await.ok();
    Ok((
        spec,
        ForkedClone {
            vm: clone.id,
            name: clone.name.clone(),
            running_micros,
            answered_micros: None,
            identity: None,
            memory,
            memory_later: None,
            nonce: None,
            first_tick: None,
        },
    ))
}

/// Microseconds since the request.
fn since(cx: &Cx) -> Option<u64> {
    u64::try_from(now().micros() - cx.job().create_time.micros()).ok()
}

/// Gives a clone its identity, and waits for a sign of its guest.
async fn met(cx: &Cx, spec: MachineSpec, mut clone: ForkedClone) -> Result<ForkedClone, StepError> {
    let settled = async {
        if spec.nics.is_empty() {
            return Ok(None);
        }
        cx.hypervisor()
            .settle(&spec)
            .await
            .map(Some)
            .map_err(StepError::from)
    };
    let (counted, answered, identity) = tokio::try_join!(
        sign(cx, clone.vm, Some(&COUNTS)),
        sign(cx, clone.vm, None),
        settled
    )?;
    clone.answered_micros = [&counted, &answered]
        .into_iter()
        .flatten()
        .map(|(at, _)| *at)
        .min();
    if let Some(found) = counted.as_ref().and_then(|(_, line)| COUNTS.captures(line)) {
        clone.nonce = Some(found[1].to_owned());
        clone.first_tick = found[2].parse().ok();
    }
    if let Some(identity) = identity {
        clone.identity = Some(identity);
        if identity == Identity::Unchanged {
            cx.log(format!(
                "{} kept the addresses of its source and is connected to nothing: its guest has neither a hook nor an \
                 agent, and did not let go of its NICs",
                clone.name
            ));
        } else if spec.nics.iter().any(|nic| nic.connected) {
            let vm = clone.vm;
            let connected: Vec<bool> = spec.nics.iter().map(|nic| nic.connected).collect();
            cx.commit(move |tx| Box::pin(async move { db::vms::set_connected(tx, vm, &connected).await }))
                .await?;
        }
    }
    Ok(clone)
}

/// When a guest gave a sign, and the line it printed, if that is what is looked for; else its agent's answer is one, too.
/// It need not give any.
async fn sign(cx: &Cx, vm: VmId, pattern: Option<&Regex>) -> Result<Option<(u64, String)>, StepError> {
    let expect = BootExpectation {
        pattern: pattern.cloned(),
        timeout: ANSWER,
    };
    match cx.hypervisor().watch_boot(vm, &expect, &|_| ()).await {
        Ok(Proof { matched, .. }) => Ok(since(cx).map(|at| (at, matched.unwrap_or_default()))),
        Err(BootError::Timeout { .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

async fn keep_screen(cx: &Cx, vm: VmId) {
    let kept = async {
        let png = cx.hypervisor().screen(vm).await?;
        let file = cx.world().screen_file(cx.id());
        tokio::fs::write(&file, png)
            .await
            .map_err(HvError::io("write", &file))
    };
    match kept.await {
        Ok(()) => cx.outcome(|o| o.screen = true),
        Err(e) => cx.log(format!("there is no picture of the screen: {}", db::chain(&e))),
    }
}

/// The clones are whole: they and the source are let go, and looked at once more a little later.
async fn verify(cx: &Cx) -> Result<(), StepError> {
    let (spec, mut minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    if spec.point.is_none()
        && let Some(stored) = db::fork_points::by_id(cx.db(), minted.point).await?
        && !stored.kept
    {
        forget_point(cx, &stored).await?;
    }
    if spec.point.is_none() {
        let remember = |merged: &[LayerId]| {
            minted.merged.extend(merged);
            cx.mint(&minted);
        };
        if let Err(e) = chain::shorten(cx, spec.vm, remember).await {
            // The chain is longer, and that is all.
            cx.log(format!("layers could not be merged: {}", e.status.message));
        }
        chain::tidy(cx, &minted.merged).await?;
    }
    cx.let_go().await?;
    if cx.hypervisor().accelerator() != Accelerator::Sim {
        cx.message("measuring what their memory costs after a while");
        tokio::time::sleep(cx.world().measure_after).await;
    }
    let mut later = Vec::new();
    for clone in &minted.clones {
        // Whoever has it now may have stopped or deleted it.
        later.push(match db::vms::by_id(cx.db(), clone.id).await? {
            Some(vm) => cx.hypervisor().memory(vm.id, vm.memory_mib).await.ok(),
            None => None,
        });
    }
    cx.outcome(|o| {
        let fork: &mut ForkProof = o.fork.get_or_insert_default();
        for (clone, later) in fork.clones.iter_mut().zip(later) {
            clone.memory_later = later;
        }
    });
    let answered = |p: &ForkProof| p.clones.iter().filter(|c| c.answered_micros.is_some()).count();
    let (answered, all) = (
        cx.job().outcome.fork.as_ref().map_or(0, answered),
        minted.clones.len(),
    );
    cx.message(match all {
        1 if answered == 1 => "its guest goes on".to_owned(),
        1 => "it runs; its guest has given no sign".to_owned(),
        n => format!("the guests of {answered} of {n} have given a sign"),
    });
    Ok(())
}

async fn forget_point(cx: &Cx, stored: &Stored) -> Result<(), StepError> {
    cx.hypervisor().drop_point(&files(stored)).await?;
    let id = stored.point.id;
    cx.commit(move |tx| {
        Box::pin(async move {
            let stood_on = db::fork_points::delete(tx, id).await?;
            // The source and its clones stand on them.
            release(tx, &stood_on).await.map(drop)
        })
    })
    .await
}

#[async_trait]
impl Kind for InstantCloneVm {
    fn plan(&self, spec: &JobSpec) -> Vec<Plan> {
        let capture = !matches!(spec, JobSpec::InstantCloneVm(spec) if spec.point.is_some());
        vec![
            Plan::always(step::PREPARING),
            Plan::only_if(step::FREEZING_SOURCE, capture),
            Plan::only_if(step::CAPTURING_MEMORY, capture),
            Plan::only_if(step::THAWING_SOURCE, capture),
            Plan::always(step::INSTANTIATING),
            // The clones run, and may be worked with.
            Plan::no_return(step::VERIFYING),
        ]
    }

    fn mode(&self, _spec: &JobSpec) -> LockMode {
        LockMode::Changing
    }

    async fn run(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        match name {
            step::PREPARING => prepare(cx).await,
            step::FREEZING_SOURCE => freeze(cx).await,
            step::CAPTURING_MEMORY => capture(cx).await,
            step::THAWING_SOURCE => thaw(cx).await,
            step::INSTANTIATING => instantiate(cx).await,
            _ => verify(cx).await,
        }
    }

    async fn undo(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        // Nothing minted: nothing was made.
        let Some(minted) = cx.data::<Minted>()? else {
            return Ok(());
        };
        let spec = spec(cx)?;
        match name {
            step::INSTANTIATING => {
                for clone in &minted.clones {
                    power_off(cx, clone.id).await?;
                }
                Ok(())
            }
            step::FREEZING_SOURCE => {
                let stored = db::fork_points::by_id(cx.db(), minted.point).await?;
                if let Some(stored) = stored {
                    // A capture that is under way ends first: with it the source runs.
                    cx.hypervisor().drop_point(&files(&stored)).await?;
                }
                match &minted.overlays {
                    Some(overlays) => overlays.undo(cx, spec.vm).await,
                    None => Ok(()),
                }
            }
            step::PREPARING => {
                for clone in &minted.clones {
                    power_off(cx, clone.id).await?;
                    unmake(cx, clone.id, clone.layers.clone()).await?;
                }
                if spec.point.is_some() {
                    return Ok(());
                }
                if let Some(overlays) = &minted.overlays {
                    // Laid, and the source never asked.
                    overlays.undo(cx, spec.vm).await?;
                }
                let Some(stored) = db::fork_points::by_id(cx.db(), minted.point).await? else {
                    return Ok(());
                };
                cx.disks().remove(&point_seed(&stored)).await?;
                forget_point(cx, &stored).await
            }
            _ => Ok(()),
        }
    }
}

/// The layers of a point, down to the bases, and its files: for whoever deletes it.
pub(super) async fn everything_of(cx: &Cx, id: ForkPointId) -> Result<(Stored, Vec<LayerId>), StepError> {
    let stored = stored(cx, id).await?;
    let mut all = Vec::new();
    for layer in kept_layers(cx, id).await? {
        all.extend(chain_files(cx.world(), layer).await?.iter().map(|l| l.id));
    }
    Ok((stored, all))
}

/// Removes the files of a point.
pub(super) async fn drop_files(cx: &Cx, id: ForkPointId, directory: &Path) -> Result<(), StepError> {
    cx.disks().remove(&point_file(directory, id, "seed")).await?;
    Ok(cx.hypervisor().drop_point(&files_in(id, directory)).await?)
}
