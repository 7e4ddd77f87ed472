//! Boots a copy, to see that it does: from where it is, without networks, and with what it writes thrown away.

use super::copied::{self, MintedDisk, MintedVm};
use super::create_vm::storage_for;
use super::{Taken, power_off, power_on, see_it_boot, unmake};
use crate::db::locks::LockMode;
use crate::db::{self, now};
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shared::clone::{Proof, ProofStrength};
use shared::copy::{BootSpec, Booted};
use shared::job::{JobSpec, step};
use shared::{Code, Name, VmId};
use uuid::Uuid;

pub(super) struct BootCopy;

#[derive(Clone, Serialize, Deserialize)]
struct Minted {
    vm: MintedVm,
    disks: Vec<MintedDisk>,
}

fn spec(cx: &Cx) -> Result<BootSpec, StepError> {
    match cx.job().spec.into_inner() {
        JobSpec::BootCopy(spec) => Ok(spec),
        _ => Err(StepError::new(Code::Internal, "not a request to boot a copy")),
    }
}

/// A name that nobody has, of the machine's.
fn name_of(source: &Name) -> Result<Name, StepError> {
    let tail = &Uuid::new_v4().simple().to_string()[..8];
    let stem: String = source.as_str().chars().take(63 - 5 - 9).collect();
    format!("boot-{}-{tail}", stem.trim_end_matches('-'))
        .parse()
        .map_err(|e: shared::NameError| StepError::new(Code::Internal, e.to_string()))
}

async fn minting(cx: &Cx) -> Result<(), StepError> {
    let copy = copied::copy(cx, spec(cx)?.copy).await?;
    let minted = match cx.data()? {
        Some(minted) => minted,
        None => {
            let mut taken = Taken::default();
            let mut disks = Vec::new();
            for disk in &copy.disks {
                let slot = if disk.slot == 0 { 0 } else { taken.slot()? };
                disks.push(MintedDisk::new(disk, disk.number, slot));
            }
            Minted {
                vm: MintedVm {
                    id: VmId(Uuid::now_v7()),
                    name: name_of(&copy.vm_name)?,
                    cpus: copy.machine.cpus,
                    memory_mib: copy.machine.memory_mib,
                    bios_uuid: Uuid::new_v4(),
                    vmgenid: Uuid::new_v4(),
                    nics: Vec::new(),
                    networks: Vec::new(),
                    seed_slot: None,
                },
                disks,
            }
        }
    };
    cx.mint(&minted);
    copied::about_copy(cx, &copy);
    copied::announce(cx, &copy, &minted.vm, Default::default()).await
}

async fn attach(cx: &Cx) -> Result<(), StepError> {
    let minted: Minted = cx.minted()?;
    let copy = copied::copy(cx, spec(cx)?.copy).await?;
    copied::show(cx, &copy, &minted.disks).await?;
    let storage = storage_for(cx, None).await?;
    copied::note_layers(cx, &copy, &minted.disks, storage, true).await?;
    copied::make_overlays(cx, &minted.disks).await?;
    copied::put_disks(cx, minted.vm.id, &minted.disks).await
}

async fn boot(cx: &Cx) -> Result<(), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let id = minted.vm.id;
    power_on(cx, id).await?;
    cx.message("waiting for the guest to boot");
    let request = &spec.request;
    let pattern = request.boot_pattern.as_deref();
    let seen = see_it_boot(cx, id, pattern, request.boot_timeout_seconds).await;
    let none = Proof {
        strength: if cx.job().outcome.screen {
            ProofStrength::Displayed
        } else {
            ProofStrength::NotStarted
        },
        boot_millis: None,
        matched: None,
    };
    let proof = seen.as_ref().map_or(none, Clone::clone);
    let booted = Booted {
        time: now(),
        booted: seen.is_ok() && Booted::proves(&proof),
        error: seen.as_ref().err().map(|e| e.status.message.clone()),
        proof: proof.clone(),
        job: cx.id(),
        screen: cx.job().outcome.screen,
    };
    cx.message(match proof.boot_millis {
        Some(millis) => format!(
            "booted in {:.1} s; proof {}",
            millis as f64 / 1000.0,
            proof.strength
        ),
        None => format!("proof {}", proof.strength),
    });
    cx.outcome(|o| o.proof = Some(proof));
    let copy = copied::copy(cx, spec.copy).await?;
    if let Err(e) = cx.world().copies.keep_sign(copy.target, copy.id, &booted).await {
        cx.log(format!(
            "the sign does not travel with the copy: {}",
            db::chain(&e)
        ));
    }
    cx.commit(move |tx| Box::pin(async move { db::copies::set_booted(tx, copy.id, &booted).await }))
        .await?;
    seen.map(drop)
}

/// Throws away what was made for it.
async fn clean_up(cx: &Cx, minted: &Minted) -> Result<(), StepError> {
    power_off(cx, minted.vm.id).await?;
    unmake(cx, minted.vm.id, copied::layers(&minted.disks)).await?;
    for disk in &minted.disks {
        cx.world().unshow(disk.below);
    }
    copied::hide(cx).await
}

#[async_trait]
impl Kind for BootCopy {
    fn plan(&self, _spec: &JobSpec) -> Vec<Plan> {
        vec![
            Plan::always(step::MINTING),
            Plan::always(step::ATTACHING),
            Plan::always(step::BOOTING),
            Plan::no_return(step::CLEANING_UP),
        ]
    }

    fn mode(&self, _spec: &JobSpec) -> LockMode {
        LockMode::Shared
    }

    async fn run(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        match name {
            step::MINTING => minting(cx).await,
            step::ATTACHING => attach(cx).await,
            step::BOOTING => boot(cx).await,
            _ => clean_up(cx, &cx.minted()?).await,
        }
    }

    async fn undo(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        match (name, cx.data::<Minted>()?) {
            // All that was made is of the machine, whose name goes last.
            (step::MINTING, Some(minted)) => clean_up(cx, &minted).await,
            (step::BOOTING, Some(minted)) => power_off(cx, minted.vm.id).await,
            _ => Ok(()),
        }
    }
}
