//! Clones a machine from a snapshot while the machine goes on.

use super::create_vm::storage_for;
use super::snapshot::{self, With};
use super::{Taken, is_now, mint_nics, power_off, power_on, release, remove_files, see_it_boot, unmake};
use crate::db::locks::LockMode;
use crate::db::{self, layers::Layer, now};
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shared::clone::{CloneMode, CloneTarget, Proof, ProofStrength};
use shared::edit::FIRST_SLOT;
use shared::feed::Noun;
use shared::job::{CloneSpec, JobSpec, Resource, ResourceRole, step};
use shared::place::NetworkKind;
use shared::vm::{Disk, Lineage, LineageKind, NewNic, Nic, Vm, VmState};
use shared::{Code, ImageId, LayerId, Name, NetworkId, SnapshotId, VmId};
use uuid::Uuid;

pub(super) struct CloneVm;

#[derive(Clone, Serialize, Deserialize)]
struct Minted {
    product: Product,
    layers: Vec<LayerId>,
    /// Of the snapshot that this job takes, where it takes its own.
    snapshot: Option<snapshot::Minted>,
}

#[derive(Clone, Serialize, Deserialize)]
enum Product {
    Vm(Box<MintedVm>),
    Images(Vec<(ImageId, Name)>),
}

#[derive(Clone, Serialize, Deserialize)]
struct MintedVm {
    id: VmId,
    name: Name,
    bios_uuid: Uuid,
    vmgenid: Uuid,
    nics: Vec<Nic>,
    networks: Vec<NetworkId>,
}

fn spec(cx: &Cx) -> Result<CloneSpec, StepError> {
    match cx.job().spec.into_inner() {
        JobSpec::CloneVm(spec) => Ok(spec),
        _ => Err(StepError::new(Code::Internal, "not a request for a clone")),
    }
}

fn target(spec: &CloneSpec) -> CloneTarget {
    spec.request.target.clone().unwrap_or_else(|| CloneTarget {
        start: true,
        boot_timeout_seconds: shared::clone::DEFAULT_BOOT_TIMEOUT_SECONDS,
        ..CloneTarget::default()
    })
}

/// Hex digits that tell clones apart: so many that thousands of one machine do not meet.
const TAIL: usize = 10;

/// The source's name with a few random letters behind, cut so that it stays a name.
fn name_after(source: &Name) -> Result<Name, StepError> {
    let tail = &Uuid::new_v4().simple().to_string()[..TAIL];
    let stem: String = source.as_str().chars().take(63 - 7 - TAIL).collect();
    format!("{}-clone-{tail}", stem.trim_end_matches('-'))
        .parse()
        .map_err(|e: shared::NameError| StepError::new(Code::Internal, e.to_string()))
}

async fn mint(cx: &Cx, spec: &CloneSpec, source: &Vm) -> Result<Minted, StepError> {
    let snapshot = match &spec.request.snapshot_now {
        Some(taken) => Some(snapshot::mint(cx, spec.vm, taken.name.clone()).await?),
        None => None,
    };
    // The disks are those of the snapshot: the machine may have others by now.
    let mut disks = match spec.snapshot {
        Some(id) => snapshot::disks(cx, id).await?,
        None => source.disks.clone(),
    };
    disks.retain(|disk| is_cloned(spec, disk));
    let disks = disks.len();
    let layers: Vec<_> = (0..disks).map(|_| LayerId(Uuid::now_v7())).collect();
    let product = match &spec.request.disks_only {
        Some(disks) => {
            let mut images = Vec::new();
            for n in 0..layers.len() {
                let name = format!("{}-{n}", disks.name)
                    .parse()
                    .map_err(|e: shared::NameError| {
                        StepError::new(Code::InvalidArgument, format!("disksOnly.name: {e}"))
                    })?;
                images.push((ImageId(Uuid::now_v7()), name));
            }
            Product::Images(images)
        }
        None => Product::Vm(Box::new(mint_vm(cx, &target(spec), source, disks).await?)),
    };
    Ok(Minted {
        product,
        layers,
        snapshot,
    })
}

async fn mint_vm(cx: &Cx, target: &CloneTarget, source: &Vm, disks: usize) -> Result<MintedVm, StepError> {
    let mut taken = Taken::default();
    for _ in 0..disks + usize::from(target.cloud_init.is_some()) {
        taken.slot()?;
    }
    let networks = db::places::networks(cx.db()).await?;
    let (nics, networks) = match &target.network_interfaces {
        Some(asked) => mint_nics(asked, &networks, &mut taken)?,
        None => {
            let isolated = networks
                .iter()
                .find(|n| n.kind == NetworkKind::Isolated)
                .ok_or_else(|| is_now("network", db::places::ISOLATED_NETWORK))?;
            // Connected to nothing: beside other clones it would be one of several with one address.
            let nic = NewNic {
                connected: false,
                ..NewNic::on(isolated.id.to_string())
            };
            mint_nics(&vec![nic; source.network_interfaces.len()], &networks, &mut taken)?
        }
    };
    Ok(MintedVm {
        id: VmId(Uuid::now_v7()),
        name: match &target.name {
            Some(name) => name.clone(),
            None => name_after(&source.name)?,
        },
        bios_uuid: Uuid::new_v4(),
        vmgenid: Uuid::new_v4(),
        nics,
        networks,
    })
}

/// What a firmware remembers is no use without a machine.
fn is_cloned(spec: &CloneSpec, disk: &Disk) -> bool {
    spec.request.disks_only.is_none() || !disk.is_variables()
}

async fn minting(cx: &Cx) -> Result<(), StepError> {
    let spec = spec(cx)?;
    let source = super::vm(cx, spec.vm).await?;
    let minted = match cx.data()? {
        Some(minted) => minted,
        None => mint(cx, &spec, &source).await?,
    };
    cx.mint(&minted);
    if let Some(id) = spec.snapshot {
        let snapshot = db::snapshots::by_id(cx.db(), id)
            .await?
            .ok_or_else(|| is_now("snapshot", id))?;
        cx.resource(Resource {
            noun: Noun::Snapshot,
            id: id.to_string(),
            name: snapshot.name,
            role: ResourceRole::Source,
        });
    }
    match &minted.product {
        Product::Vm(new) => announce_vm(cx, &spec, &source, new).await?,
        Product::Images(images) => {
            for (id, name) in images {
                let (noun, id, name) = (Noun::Image, id.to_string(), name.clone());
                cx.resource(Resource {
                    noun,
                    id,
                    name,
                    role: ResourceRole::Product,
                });
            }
        }
    }
    match &minted.snapshot {
        Some(taken) => snapshot::announce(cx, spec.vm, taken, "", false).await,
        None => Ok(()),
    }
}

async fn announce_vm(cx: &Cx, spec: &CloneSpec, source: &Vm, new: &MintedVm) -> Result<(), StepError> {
    let target = target(spec);
    cx.resource(Resource {
        noun: Noun::Vm,
        id: new.id.to_string(),
        name: new.name.clone(),
        role: ResourceRole::Product,
    });
    let vm = Vm {
        id: new.id,
        name: new.name.clone(),
        state: VmState::Stopped,
        running_since: None,
        pause_reason: None,
        error: None,
        cpus: target.cpus.unwrap_or(source.cpus),
        memory_mib: target.memory_mib.unwrap_or(source.memory_mib),
        firmware: source.firmware,
        disks: Vec::new(),
        network_interfaces: new.nics.clone(),
        labels: target.labels.clone().unwrap_or_else(|| source.labels.clone()),
        host: source.host,
        bios_uuid: new.bios_uuid,
        lineage: Lineage {
            kind: LineageKind::Clone,
            source_image: None,
            source_vm: Some(source.id),
            source_snapshot: spec.snapshot.or_else(|| taken_id(cx)),
            fork_point: None,
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
    let disks = cx.minted::<Minted>()?.layers.len();
    let new = db::vms::NewVm {
        vm,
        hidden: db::vms::Hidden {
            vmgenid: new.vmgenid,
            has_seed: target.cloud_init.is_some(),
            seed_slot: slot_of(disks),
            config: Default::default(),
        },
        networks: new.networks.clone(),
    };
    let holder = cx.clone();
    cx.commit(move |tx| {
        Box::pin(async move {
            holder.hold_product(tx, new.vm.id).await?;
            db::vms::insert(tx, &new).await
        })
    })
    .await
}

/// The slot of the disk of this number, and of the seed behind the last: they come first.
fn slot_of(disk: usize) -> u32 {
    FIRST_SLOT + disk as u32
}

fn taken_id(cx: &Cx) -> Option<SnapshotId> {
    cx.data::<Minted>().ok().flatten()?.snapshot.map(|s| s.snapshot)
}

async fn take_snapshot(cx: &Cx) -> Result<(), StepError> {
    let spec = spec(cx)?;
    let minted: Minted = cx.minted()?;
    let Some(mut taken) = minted.snapshot.clone() else {
        return Ok(());
    };
    let quiesce = spec.request.snapshot_now.is_some_and(|s| s.quiesce);
    let remember = |taken: &snapshot::Minted| {
        cx.mint(&Minted {
            snapshot: Some(taken.clone()),
            ..minted.clone()
        });
    };
    snapshot::freeze(cx, spec.vm, &mut taken, With::quiesce(quiesce), remember).await?;
    // What is copied is frozen: others need not wait for that.
    cx.share(spec.vm).await
}

async fn adapt(cx: &Cx) -> Result<(), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let (Product::Vm(new), Some(ci)) = (&minted.product, target(&spec).cloud_init) else {
        return Ok(());
    };
    let file = cx.world().seed_file(new.id);
    cx.disks()
        .write_seed(&file, &new.id.to_string(), new.name.as_str(), &ci)
        .await?;
    cx.message("new instance id and hostname, by a cloud-init seed");
    Ok(())
}

async fn prepare(cx: &Cx) -> Result<(), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let snapshot = spec.snapshot.or(minted.snapshot.as_ref().map(|s| s.snapshot));
    let snapshot = snapshot.ok_or_else(|| is_now("snapshot", "of the clone job"))?;
    let mut frozen = snapshot::disks(cx, snapshot).await?;
    frozen.retain(|disk| is_cloned(&spec, disk));
    let (world, mode) = (cx.world(), spec.request.mode);
    let chosen = match &target(&spec).storage {
        Some(asked) => Some(storage_for(cx, Some(asked)).await?),
        None => None,
    };
    let mut layers = Vec::new();
    let mut sources = Vec::new();
    for (&id, below) in minted.layers.iter().zip(&frozen) {
        let from = below.layer;
        let chain = db::layers::chain_of(cx.db(), from).await?;
        let virtual_bytes = chain.last().map_or(0, |l| l.virtual_bytes);
        let parent = (mode == CloneMode::Linked).then_some(from);
        let storage = chosen.unwrap_or_else(|| world.storage_of(from));
        world.place(id, storage);
        layers.push(Layer {
            id,
            storage,
            parent,
            virtual_bytes,
        });
        sources.push((
            id,
            chain.iter().map(|l| world.layer_file(l.id)).collect::<Vec<_>>(),
        ));
    }
    let product = minted.product.clone();
    cx.commit(move |tx| {
        Box::pin(async move {
            for (position, (layer, below)) in layers.iter().zip(&frozen).enumerate() {
                db::layers::insert(tx, layer).await?;
                match &product {
                    Product::Vm(new) => {
                        let disk = Disk {
                            number: position as u32,
                            slot: if below.is_variables() {
                                0
                            } else {
                                slot_of(position)
                            },
                            layer: layer.id,
                            virtual_bytes: layer.virtual_bytes,
                            chain_length: 1,
                            allocated_bytes: None,
                        };
                        db::hardware::put_disk(tx, new.id, position, &disk).await?;
                    }
                    Product::Images(_) => {}
                }
            }
            if let Product::Vm(new) = &product {
                db::hardware::follow_firmware(tx, new.id).await?;
                tx.changed(Noun::Vm, new.id, false);
            }
            Ok(())
        })
    })
    .await?;
    match mode {
        CloneMode::Linked => {
            for (id, chain) in &sources {
                let Some(frozen) = chain.last() else { continue };
                cx.disks()
                    .create_overlay(&world.layer_file(*id), frozen, None)
                    .await?;
            }
            cx.message(match sources.len() {
                1 => "an overlay on the frozen layer".to_owned(),
                n => format!("{n} overlays on the frozen layers"),
            });
        }
        CloneMode::Full => copy(cx, &sources).await?,
    }
    if let Product::Images(images) = minted.product {
        let pairs: Vec<_> = images.into_iter().zip(minted.layers).collect();
        cx.commit(move |tx| {
            Box::pin(async move {
                for ((id, name), layer) in &pairs {
                    db::images::insert(tx, *id, name, *layer, now()).await?;
                }
                Ok(())
            })
        })
        .await?;
    }
    Ok(())
}

async fn copy(cx: &Cx, sources: &[(LayerId, Vec<crate::hypervisor::LayerFile>)]) -> Result<(), StepError> {
    let world = cx.world();
    let mut before = 0;
    for (id, chain) in sources {
        let progress = |done, total| cx.progress(before + done, before + total);
        cx.disks()
            .copy_flat(chain, &world.layer_file(*id), &progress)
            .await?;
        let job = cx.job();
        before = job.current_step().and_then(|s| s.total_bytes).unwrap_or(before);
    }
    cx.progress(before, before);
    cx.outcome(|o| o.copied_bytes = Some(before));
    Ok(())
}

async fn instantiate(cx: &Cx) -> Result<(), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let target = target(&spec);
    let not_started = Proof {
        strength: ProofStrength::NotStarted,
        boot_millis: None,
        matched: None,
    };
    let proof = match &minted.product {
        Product::Vm(new) if target.start => {
            power_on(cx, new.id).await?;
            cx.message("waiting for the guest to boot");
            let pattern = target.boot_pattern.as_deref();
            let seen = see_it_boot(cx, new.id, pattern, target.boot_timeout_seconds).await;
            if seen.is_err() && cx.job().outcome.screen {
                let strength = ProofStrength::Displayed;
                cx.outcome(|o| {
                    o.proof = Some(Proof {
                        strength,
                        boot_millis: None,
                        matched: None,
                    })
                });
            }
            seen?
        }
        Product::Vm(_) | Product::Images(_) => not_started,
    };
    cx.message(match (proof.strength, proof.boot_millis) {
        (ProofStrength::NotStarted, _) => "defined, not started".to_owned(),
        (strength, Some(millis)) => {
            format!("booted in {:.1} s; proof {strength}", millis as f64 / 1000.0)
        }
        (strength, None) => format!("proof {strength}"),
    });
    cx.outcome(|o| o.proof = Some(proof));
    Ok(())
}

#[async_trait]
impl Kind for CloneVm {
    fn plan(&self, spec: &JobSpec) -> Vec<Plan> {
        let (now, adapt) = match spec {
            JobSpec::CloneVm(spec) => (
                spec.request.snapshot_now.is_some(),
                spec.request
                    .target
                    .as_ref()
                    .is_some_and(|t| t.cloud_init.is_some()),
            ),
            _ => (false, false),
        };
        vec![
            Plan::always(step::MINTING),
            Plan::only_if(step::TAKING_SNAPSHOT, now),
            Plan::only_if(step::ADAPTING_OS, adapt),
            Plan::always(step::PREPARING_VM_DISKS),
            Plan::always(step::INSTANTIATING),
        ]
    }

    /// The source stays meanwhile, and others may work on it. A job that takes its own snapshot changes the source until
    /// it is taken.
    fn mode(&self, spec: &JobSpec) -> LockMode {
        match spec {
            JobSpec::CloneVm(spec) if spec.request.snapshot_now.is_some() => LockMode::Changing,
            _ => LockMode::Shared,
        }
    }

    async fn run(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        match name {
            step::MINTING => minting(cx).await,
            step::TAKING_SNAPSHOT => take_snapshot(cx).await,
            step::ADAPTING_OS => adapt(cx).await,
            step::PREPARING_VM_DISKS => prepare(cx).await,
            _ => instantiate(cx).await,
        }
    }

    async fn undo(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        // Nothing minted: nothing was made.
        let Some(minted) = cx.data::<Minted>()? else {
            return Ok(());
        };
        match (name, &minted.product) {
            (step::MINTING, product) => {
                match product {
                    Product::Vm(new) => unmake(cx, new.id, minted.layers.clone()).await?,
                    Product::Images(images) => {
                        unmake_images(cx, images.clone(), minted.layers.clone()).await?
                    }
                }
                match &minted.snapshot {
                    Some(taken) => snapshot::forget(cx, taken).await,
                    None => Ok(()),
                }
            }
            (step::TAKING_SNAPSHOT, _) => match &minted.snapshot {
                Some(taken) => snapshot::unfreeze(cx, spec(cx)?.vm, taken).await,
                None => Ok(()),
            },
            (step::INSTANTIATING, Product::Vm(new)) => power_off(cx, new.id).await,
            _ => Ok(()),
        }
    }
}

async fn unmake_images(cx: &Cx, images: Vec<(ImageId, Name)>, layers: Vec<LayerId>) -> Result<(), StepError> {
    remove_files(cx, &layers).await?;
    cx.commit(move |tx| {
        Box::pin(async move {
            for (id, _) in &images {
                db::images::delete(tx, *id).await?;
            }
            release(tx, &layers).await.map(drop)
        })
    })
    .await
}
