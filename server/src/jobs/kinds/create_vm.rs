//! Makes a machine from an image, or blank.

use super::{Taken, is_now, mint_nics, power_off, power_on, unmake};
use crate::db::locks::LockMode;
use crate::db::{self, DbError, Tx, layers::Layer, now};
use crate::disks::DiskError;
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shared::feed::Noun;
use shared::job::{JobSpec, Resource, ResourceRole, step};
use shared::vm::{self, Disk, Firmware, Lineage, LineageKind, NewDisk, NewNic, Nic, Vm, VmState};
use shared::{Code, HostId, ImageId, LayerId, NetworkId, StorageId, VmId};
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
    seed_slot: u32,
    #[serde(default)]
    storage: Option<StorageId>,
}

/// A disk to make.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct MintedLayer {
    pub id: LayerId,
    pub number: u32,
    pub slot: u32,
    pub parent: Option<LayerId>,
    pub image: Option<ImageId>,
    pub virtual_bytes: u64,
}

impl MintedLayer {
    /// As a machine's.
    pub fn disk(&self) -> Disk {
        Disk {
            number: self.number,
            slot: self.slot,
            layer: self.id,
            virtual_bytes: self.virtual_bytes,
            chain_length: 1,
            allocated_bytes: None,
        }
    }
}

fn request(cx: &Cx) -> Result<vm::CreateVm, StepError> {
    match cx.job().spec.into_inner() {
        JobSpec::CreateVm(request) => Ok(request),
        _ => Err(StepError::new(Code::Internal, "not a request for a VM")),
    }
}

/// Disks as they were asked for, with numbers and slots behind those that are taken.
pub(super) async fn mint_disks(
    cx: &Cx,
    asked: &[NewDisk],
    taken: &mut Taken,
) -> Result<Vec<MintedLayer>, StepError> {
    let mut layers = Vec::new();
    for disk in asked {
        let (id, number, slot) = (LayerId(Uuid::now_v7()), taken.disk(), taken.slot()?);
        layers.push(match disk {
            NewDisk::Blank(disk) => MintedLayer {
                id,
                number,
                slot,
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
                    number,
                    slot,
                    parent: Some(image.layer),
                    image: Some(image.id),
                    virtual_bytes: asked.unwrap_or(image.virtual_bytes),
                }
            }
        });
    }
    Ok(layers)
}

/// What an EFI firmware will remember: behind the disks, on no bus.
pub(super) fn mint_variables(cx: &Cx, taken: &mut Taken) -> Result<MintedLayer, StepError> {
    let template = &cx.world().efi()?.variables;
    let found = std::fs::metadata(template).map_err(DiskError::io("look at", template))?;
    Ok(MintedLayer {
        id: LayerId(Uuid::now_v7()),
        number: taken.disk(),
        slot: 0,
        parent: None,
        image: None,
        virtual_bytes: found.len(),
    })
}

/// Writes layers down that are about to be made in this storage.
pub(super) async fn note_layers(
    tx: &mut Tx,
    layers: &[MintedLayer],
    storage: StorageId,
) -> Result<(), DbError> {
    for layer in layers {
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
    Ok(())
}

/// Makes the files of new disks.
pub(super) async fn make_disks(cx: &Cx, layers: &[MintedLayer]) -> Result<(), StepError> {
    let world = cx.world();
    for layer in layers {
        let file = world.layer_file(layer.id);
        match layer.parent {
            Some(parent) => {
                let size = Some(layer.virtual_bytes);
                cx.disks()
                    .create_overlay(&file, &world.layer_file(parent), size)
                    .await?;
            }
            None if layer.disk().is_variables() => {
                let template = &world.efi()?.variables;
                cx.disks().create_variables(&file, template).await?;
            }
            None => cx.disks().create_blank(&file, layer.virtual_bytes).await?,
        }
    }
    Ok(())
}

async fn mint(cx: &Cx, request: &vm::CreateVm) -> Result<Minted, StepError> {
    let mut taken = Taken::default();
    let mut layers = mint_disks(cx, &request.disks, &mut taken).await?;
    if request.firmware == Firmware::Efi {
        layers.push(mint_variables(cx, &mut taken)?);
    }
    let seed_slot = match request.cloud_init {
        Some(_) => taken.slot()?,
        None => 0,
    };
    let default = [NewNic::on(db::places::USER_NETWORK)];
    let asked = request.network_interfaces.as_deref().unwrap_or(&default);
    let (nics, networks) = mint_nics(asked, &db::places::networks(cx.db()).await?, &mut taken)?;
    Ok(Minted {
        vm: VmId(Uuid::now_v7()),
        bios_uuid: Uuid::new_v4(),
        vmgenid: Uuid::new_v4(),
        layers,
        nics,
        networks,
        seed_slot,
        storage: Some(storage_for(cx, request.storage.as_deref()).await?),
    })
}

/// The storage of this name or id, or the default.
pub(super) async fn storage_for(cx: &Cx, asked: Option<&str>) -> Result<StorageId, StepError> {
    let all = db::places::storages(cx.db()).await?;
    let found = all.iter().find(|s| match asked {
        Some(asked) => s.id.to_string() == asked || s.name.as_str() == asked,
        None => s.default,
    });
    Ok(found
        .ok_or_else(|| is_now("storage", asked.unwrap_or("that is the default")))?
        .id)
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
    let storage = minted.storage.unwrap_or(cx.world().storage.id);
    for layer in &minted.layers {
        cx.world().place(layer.id, storage);
    }
    cx.commit(move |tx| {
        Box::pin(async move {
            note_layers(tx, &minted.layers, storage).await?;
            let host = db::vms::first_host(tx.conn()).await?;
            let new = new_vm(&request, &minted, host, job);
            holder.hold_product(tx, minted.vm).await?;
            db::vms::insert(tx, &new).await
        })
    })
    .await
}

fn new_vm(request: &vm::CreateVm, minted: &Minted, host: HostId, job: shared::JobId) -> db::vms::NewVm {
    let disks = minted.layers.iter().map(MintedLayer::disk).collect();
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
            description: request.description.clone(),
            autostart: request.autostart,
            at_next_start: None,
            create_time: now(),
            generation: 0,
        },
        hidden: db::vms::Hidden {
            vmgenid: minted.vmgenid,
            has_seed: request.cloud_init.is_some(),
            seed_slot: minted.seed_slot,
            config: Default::default(),
        },
        networks: minted.networks.clone(),
    }
}

async fn preparing(cx: &Cx) -> Result<(), StepError> {
    let (request, minted): (_, Minted) = (request(cx)?, cx.minted()?);
    let world = cx.world();
    make_disks(cx, &minted.layers).await?;
    if let Some(ci) = &request.cloud_init {
        let id = minted.vm.to_string();
        cx.disks()
            .write_seed(&world.seed_file(minted.vm), &id, request.name.as_str(), ci)
            .await?;
    }
    cx.message(match request.disks.len() {
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
