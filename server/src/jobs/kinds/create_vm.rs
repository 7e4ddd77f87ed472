//! Makes a machine from an image, or blank.

use super::{is_now, mint_nics, power_off, power_on, unmake};
use crate::db::locks::LockMode;
use crate::db::{self, layers::Layer, now};
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shared::feed::Noun;
use shared::job::{JobSpec, Resource, ResourceRole, step};
use shared::vm::{self, Disk, Lineage, LineageKind, NewDisk, NewNic, Nic, Vm, VmState};
use shared::{Code, HostId, ImageId, LayerId, NetworkId, VmId};
use uuid::Uuid;

pub(super) struct CreateVm;

#[derive(Clone, Serialize, Deserialize)]
struct Minted {
    vm: VmId,
    bios_uuid: Uuid,
    vmgenid: Uuid,
    layers: Vec<MintedLayer>,
    nics: Vec<Nic>,
    networks: Vec<NetworkId>,
}

#[derive(Clone, Serialize, Deserialize)]
struct MintedLayer {
    id: LayerId,
    parent: Option<LayerId>,
    image: Option<ImageId>,
    virtual_bytes: u64,
}

fn request(cx: &Cx) -> Result<vm::CreateVm, StepError> {
    match cx.job().spec {
        JobSpec::CreateVm(request) => Ok(request),
        _ => Err(StepError::new(Code::Internal, "not a request for a VM")),
    }
}

async fn mint(cx: &Cx, request: &vm::CreateVm) -> Result<Minted, StepError> {
    let mut layers = Vec::new();
    for disk in &request.disks {
        let id = LayerId(Uuid::now_v7());
        layers.push(match disk {
            NewDisk::Blank(disk) => MintedLayer {
                id,
                parent: None,
                image: None,
                virtual_bytes: u64::from(disk.size_gib) << 30,
            },
            NewDisk::Image(disk) => {
                let image = db::images::find(cx.db(), &disk.image).await?;
                let image = image.ok_or_else(|| is_now("image", &disk.image))?;
                let asked = disk.size_gib.map(|gib| u64::from(gib) << 30);
                MintedLayer {
                    id,
                    parent: Some(image.layer),
                    image: Some(image.id),
                    virtual_bytes: asked.unwrap_or(image.virtual_bytes),
                }
            }
        });
    }
    let default = [NewNic {
        network: db::places::USER_NETWORK.to_owned(),
        mac: None,
    }];
    let asked = request.network_interfaces.as_deref().unwrap_or(&default);
    let (nics, networks) = mint_nics(asked, &db::places::networks(cx.db()).await?)?;
    Ok(Minted {
        vm: VmId(Uuid::now_v7()),
        bios_uuid: Uuid::new_v4(),
        vmgenid: Uuid::new_v4(),
        layers,
        nics,
        networks,
    })
}

async fn minting(cx: &Cx) -> Result<(), StepError> {
    let request = request(cx)?;
    let minted = match cx.data()? {
        Some(minted) => minted,
        None => mint(cx, &request).await?,
    };
    cx.mint(&minted);
    cx.resource(Resource {
        noun: Noun::Vm,
        id: minted.vm.to_string(),
        name: request.name.clone(),
        role: ResourceRole::Product,
    });
    let job = cx.id();
    let holder = cx.clone();
    let storage = cx.world().storage.id;
    cx.commit(move |tx| {
        Box::pin(async move {
            for layer in &minted.layers {
                let (id, parent, virtual_bytes) = (layer.id, layer.parent, layer.virtual_bytes);
                db::layers::insert(
                    tx,
                    &Layer {
                        id,
                        storage,
                        parent,
                        virtual_bytes,
                    },
                )
                .await?;
            }
            let host = db::vms::first_host(tx.conn()).await?;
            let new = new_vm(&request, &minted, host, job);
            holder.hold_product(tx, minted.vm).await?;
            db::vms::insert(tx, &new).await
        })
    })
    .await
}

fn new_vm(request: &vm::CreateVm, minted: &Minted, host: HostId, job: shared::JobId) -> db::vms::NewVm {
    let disks = minted
        .layers
        .iter()
        .map(|l| Disk {
            layer: l.id,
            virtual_bytes: l.virtual_bytes,
            chain_length: 1,
            allocated_bytes: None,
        })
        .collect();
    db::vms::NewVm {
        vm: Vm {
            id: minted.vm,
            name: request.name.clone(),
            state: VmState::Stopped,
            running_since: None,
            pause_reason: None,
            error: None,
            cpus: request.cpus,
            memory_mib: request.memory_mib,
            firmware: request.firmware,
            disks,
            network_interfaces: minted.nics.clone(),
            labels: request.labels.clone(),
            host,
            bios_uuid: minted.bios_uuid,
            lineage: Lineage {
                kind: LineageKind::Created,
                source_image: minted.layers.iter().find_map(|l| l.image),
                source_vm: None,
                source_snapshot: None,
                fork_point: None,
                job: Some(job),
            },
            locked_by: None,
            current_snapshot: None,
            latest_snapshot: None,
            create_time: now(),
            generation: 0,
        },
        hidden: db::vms::Hidden {
            vmgenid: minted.vmgenid,
            has_seed: request.cloud_init.is_some(),
            config: Default::default(),
        },
        networks: minted.networks.clone(),
    }
}

async fn preparing(cx: &Cx) -> Result<(), StepError> {
    let (request, minted): (_, Minted) = (request(cx)?, cx.minted()?);
    let world = cx.world();
    for layer in &minted.layers {
        let file = world.layer_file(layer.id);
        match layer.parent {
            Some(parent) => {
                let size = Some(layer.virtual_bytes);
                cx.disks()
                    .create_overlay(&file, &world.layer_file(parent), size)
                    .await?;
            }
            None => cx.disks().create_blank(&file, layer.virtual_bytes).await?,
        }
    }
    if let Some(ci) = &request.cloud_init {
        let id = minted.vm.to_string();
        cx.disks()
            .write_seed(&world.seed_file(minted.vm), &id, request.name.as_str(), ci)
            .await?;
    }
    cx.message(match minted.layers.len() {
        1 => "1 disk".to_owned(),
        n => format!("{n} disks"),
    });
    Ok(())
}

#[async_trait]
impl Kind for CreateVm {
    fn plan(&self, spec: &JobSpec) -> Vec<Plan> {
        let start = matches!(spec, JobSpec::CreateVm(request) if request.start);
        vec![
            Plan::always(step::MINTING),
            Plan::always(step::PREPARING_VM_DISKS),
            Plan::only_if(step::STARTING, start),
        ]
    }

    fn mode(&self, _spec: &JobSpec) -> LockMode {
        LockMode::Exclusive
    }

    async fn run(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        match name {
            step::MINTING => minting(cx).await,
            step::PREPARING_VM_DISKS => preparing(cx).await,
            _ => power_on(cx, cx.minted::<Minted>()?.vm).await,
        }
    }

    async fn undo(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        // Nothing minted: nothing was made.
        let Some(minted) = cx.data::<Minted>()? else {
            return Ok(());
        };
        match name {
            step::MINTING => unmake(cx, minted.vm, minted.layers.iter().map(|l| l.id).collect()).await,
            step::PREPARING_VM_DISKS => Ok(()),
            _ => power_off(cx, minted.vm).await,
        }
    }
}
