//! Brings a copy back: as a machine, over one, as disks of one, or as a file.
//!
//! A machine that is to run at once gets overlays on the disks at the target, which a process shows by NBD; what those have is
//! then taken up into the overlays, as layers are merged. Whatever goes wrong with that meanwhile is waited for: the machine
//! has written since, and is thrown away by nobody but a person.

use super::copied::{self, MintedDisk, MintedVm};
use super::create_vm::storage_for;
use super::{
    Taken, is_now, merge, mint_nics, power_off, power_on, release, remove_files, remove_loose, unmake,
};
use crate::db::locks::LockMode;
use crate::db::{self, now};
use crate::hypervisor::{Control, RunState};
use crate::inventory::images::KEPT_MICROS;
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shared::copy::{Copy, RestoreSpec, RestoreVm};
use shared::feed::Noun;
use shared::image::Export;
use shared::job::{JobSpec, Resource, ResourceRole, step};
use shared::place::NetworkKind;
use shared::vm::{NewNic, PauseReason};
use shared::{Code, ExportId, LayerId, VmId};
use std::convert::Infallible;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

pub(super) struct RestoreCopy;

/// How long a machine is left alone that could not read, and may fail again at once: at first and at most.
const READS_AGAIN: Range<Duration> = Duration::from_secs(1)..Duration::from_secs(60);

#[derive(Clone, Serialize, Deserialize)]
struct Minted {
    vm: Option<MintedVm>,
    disks: Vec<MintedDisk>,
    export: Option<ExportId>,
    vmgenid: Uuid,
    /// What the disks of a machine that is changed stood on: what nobody needs afterwards goes.
    #[serde(default)]
    before: Vec<LayerId>,
}

fn spec(cx: &Cx) -> Result<RestoreSpec, StepError> {
    match cx.job().spec.into_inner() {
        JobSpec::RestoreCopy(spec) => Ok(spec),
        _ => Err(StepError::new(
            Code::Internal,
            "not a request to bring a copy back",
        )),
    }
}

/// Whether the machine runs from the copy while its disks are brought here.
fn instant(spec: &RestoreSpec) -> bool {
    let request = &spec.request;
    request.vm.as_ref().is_some_and(|vm| vm.instant) || request.over.as_ref().is_some_and(|over| over.instant)
}

/// The machine that gets the disks, where it gets all of them.
fn machine(spec: &RestoreSpec, minted: &Minted) -> Option<VmId> {
    let over = spec.request.over.as_ref().and(spec.vm);
    minted.vm.as_ref().map(|vm| vm.id).or(over)
}

async fn mint(cx: &Cx, spec: &RestoreSpec, copy: &Copy) -> Result<Minted, StepError> {
    let mut taken = Taken::default();
    let mut disks = Vec::new();
    let mut before = Vec::new();
    let guests = copy.disks.iter().filter(|disk| disk.slot != 0);
    if let Some(asked) = &spec.request.disks {
        let id = spec.vm.ok_or_else(|| is_now("VM", &asked.vm))?;
        let vm = super::vm(cx, id).await?;
        let hidden = db::vms::hidden(cx.db(), id).await?;
        let mut taken = Taken::of(&vm, hidden.filter(|h| h.has_seed).map(|h| h.seed_slot));
        for disk in guests.filter(|d| asked.numbers.is_empty() || asked.numbers.contains(&d.number)) {
            disks.push(MintedDisk::new(disk, taken.disk(), taken.slot()?));
        }
    } else if let Some(asked) = &spec.request.file {
        let disk = guests.clone().find(|disk| disk.number == asked.disk);
        let disk = disk.ok_or_else(|| is_now("disk", asked.disk))?;
        disks.push(MintedDisk::new(disk, 0, 0));
    } else {
        for disk in &copy.disks {
            let slot = if disk.slot == 0 { 0 } else { taken.slot()? };
            disks.push(MintedDisk::new(disk, disk.number, slot));
        }
    }
    if spec.request.over.is_some() {
        let id = spec.vm.ok_or_else(|| is_now("VM", "to restore over"))?;
        for disk in super::vm(cx, id).await?.disks {
            let chain = db::layers::chain_of(cx.db(), disk.layer).await?;
            before.extend(chain.iter().map(|layer| layer.id));
        }
    }
    Ok(Minted {
        vm: match &spec.request.vm {
            Some(asked) => Some(mint_vm(cx, asked, copy, &mut taken).await?),
            None => None,
        },
        disks,
        export: spec.request.file.as_ref().map(|_| ExportId(Uuid::now_v7())),
        vmgenid: Uuid::new_v4(),
        before,
    })
}

async fn mint_vm(cx: &Cx, asked: &RestoreVm, copy: &Copy, taken: &mut Taken) -> Result<MintedVm, StepError> {
    let networks = db::places::networks(cx.db()).await?;
    let (nics, networks) = match &asked.network_interfaces {
        Some(asked) => mint_nics(asked, &networks, taken)?,
        None => {
            let isolated = networks.iter().find(|n| n.kind == NetworkKind::Isolated);
            let isolated = isolated.ok_or_else(|| is_now("network", db::places::ISOLATED_NETWORK))?;
            // Connected to nothing: the machine that was copied may run still.
            let nic = NewNic {
                connected: false,
                ..NewNic::on(isolated.id.to_string())
            };
            mint_nics(&vec![nic; copy.machine.nics as usize], &networks, taken)?
        }
    };
    Ok(MintedVm {
        id: VmId(Uuid::now_v7()),
        name: asked.name.clone(),
        cpus: asked.cpus.unwrap_or(copy.machine.cpus),
        memory_mib: asked.memory_mib.unwrap_or(copy.machine.memory_mib),
        bios_uuid: Uuid::new_v4(),
        vmgenid: Uuid::new_v4(),
        nics,
        networks,
        seed_slot: match asked.cloud_init {
            Some(_) => Some(taken.slot()?),
            None => None,
        },
    })
}

async fn minting(cx: &Cx) -> Result<(), StepError> {
    let spec = spec(cx)?;
    let copy = copied::copy(cx, spec.copy).await?;
    let minted = match cx.data()? {
        Some(minted) => minted,
        None => mint(cx, &spec, &copy).await?,
    };
    cx.mint(&minted);
    copied::about_copy(cx, &copy);
    match &minted.vm {
        Some(new) => {
            let mut labels = copy.machine.labels.clone();
            let more = spec.request.vm.as_ref().map(|vm| vm.labels.clone());
            labels.extend(more.unwrap_or_default());
            copied::announce(cx, &copy, new, labels).await
        }
        None => cx.commit(|_| Box::pin(async { Ok(()) })).await,
    }
}

/// Has the disks shown, and writes down the layers that they come to.
async fn attach(cx: &Cx) -> Result<(), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let copy = copied::copy(cx, spec.copy).await?;
    copied::show(cx, &copy, &minted.disks).await?;
    if spec.request.file.is_some() {
        return Ok(());
    }
    let asked = spec.request.vm.as_ref().and_then(|vm| vm.storage.clone());
    let storage = match (asked, spec.vm) {
        (None, Some(vm)) => {
            let first = super::vm(cx, vm).await?.disks.first().map(|disk| disk.layer);
            match first {
                Some(layer) => cx.world().storage_of(layer),
                None => storage_for(cx, None).await?,
            }
        }
        (asked, _) => storage_for(cx, asked.as_deref()).await?,
    };
    copied::note_layers(cx, &copy, &minted.disks, storage, instant(&spec)).await?;
    if instant(&spec) {
        copied::make_overlays(cx, &minted.disks).await?;
    }
    let Some(vm) = &minted.vm else { return Ok(()) };
    let told = spec
        .request
        .vm
        .as_ref()
        .and_then(|asked| asked.cloud_init.as_ref());
    if let Some(told) = told {
        let file = cx.world().seed_file(vm.id);
        cx.disks()
            .write_seed(&file, &vm.id.to_string(), vm.name.as_str(), told)
            .await?;
    }
    copied::put_disks(cx, vm.id, &minted.disks).await
}

fn file(cx: &Cx) -> Result<(ExportId, PathBuf), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    match (&spec.request.file, minted.export) {
        (Some(asked), Some(id)) => Ok((id, cx.world().export_file(id, asked.format))),
        _ => Err(StepError::new(Code::Internal, "no file was asked for")),
    }
}

async fn export(cx: &Cx) -> Result<(), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let ((_, to), [disk]) = (file(cx)?, &minted.disks[..]) else {
        return Err(StepError::new(Code::Internal, "a file is of one disk"));
    };
    let format = spec.request.file.as_ref().map(|f| f.format);
    let format = format.ok_or_else(|| StepError::new(Code::Internal, "no file was asked for"))?;
    let chain = [copied::shown(cx, disk)];
    let progress = |done, total| cx.progress(done, total);
    Ok(cx.disks().export(&chain, &to, format, &progress).await?)
}

/// Takes the disks of the copy for those that the machine has. From here there is no way back.
async fn replace(cx: &Cx) -> Result<(), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let id = spec.vm.ok_or_else(|| is_now("VM", "to restore over"))?;
    let there = super::vm(cx, id).await?.disks;
    let there = there.iter().map(|disk| disk.layer);
    if there.eq(minted.disks.iter().map(|disk| disk.layer)) {
        return Ok(());
    }
    power_off(cx, id).await?;
    let disks: Vec<_> = minted.disks.iter().map(MintedDisk::disk).collect();
    cx.commit(move |tx| {
        Box::pin(async move {
            let before = db::hardware::set_disks(tx, id, &disks).await?;
            release(tx, &before).await?;
            db::vms::set_vmgenid(tx, id, minted.vmgenid).await?;
            db::vms::set_current(tx, id, None).await?;
            db::hardware::follow_firmware(tx, id).await?;
            tx.changed(Noun::Vm, id, false);
            Ok(())
        })
    })
    .await
}

/// Starts the machine from the copy, and lets others work with it.
async fn start_at_once(cx: &Cx) -> Result<(), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let id = machine(&spec, &minted).ok_or_else(|| is_now("VM", "to start"))?;
    power_on(cx, id).await?;
    cx.message("it runs from the copy");
    cx.share(id).await
}

async fn bring_home(cx: &Cx) -> Result<(), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    if instant(&spec) {
        let id = machine(&spec, &minted).ok_or_else(|| is_now("VM", "that was restored"))?;
        let brought = tokio::select! {
            brought = take_up(cx, id, &minted) => brought,
            never = keep_going(cx, id) => match never {},
        };
        // The last read may have failed just before.
        go_on(cx, id).await;
        // The machine has written since: nothing that goes wrong here may take it away.
        return brought.map_err(|e| StepError::waiting(e.status.message));
    }
    let mut before = 0;
    for disk in &minted.disks {
        cx.message(copied::title(disk));
        let progress = |done, of| cx.progress(before + done, before + of);
        let chain = [copied::shown(cx, disk)];
        let file = cx.world().layer_file(disk.layer);
        cx.disks().copy_flat(&chain, &file, &progress).await?;
        let job = cx.job();
        before = job.current_step().and_then(|s| s.total_bytes).unwrap_or(before);
    }
    cx.progress(before, before);
    cx.outcome(|o| o.copied_bytes = Some(before));
    Ok(())
}

/// Lets a machine go on that stands still since it could not read. QEMU reads again what failed: a read that fell together with
/// the end of the process that shows the copy may fail, though it is waited for until there is another.
async fn go_on(cx: &Cx, id: VmId) -> bool {
    let failed = cx.hypervisor().state(id).await == RunState::Paused(PauseReason::IoError);
    if failed {
        cx.log("it could not read from the copy, and reads again");
        if let Err(e) = cx.hypervisor().control(id, Control::Resume).await {
            tracing::warn!(vm = %id, error = %db::chain(&e), "a machine that could not read from a copy does not go on");
        }
    }
    failed
}

/// Keeps a machine going that runs from a copy.
async fn keep_going(cx: &Cx, id: VmId) -> Infallible {
    let mut events = cx.hypervisor().events();
    let mut wait = READS_AGAIN.start;
    loop {
        if go_on(cx, id).await {
            // It may fail again at once: what is damaged stays so.
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(READS_AGAIN.end);
        } else if let Err(RecvError::Closed) = events.recv().await {
            return std::future::pending().await;
        }
    }
}

/// Takes what is at the target into the machine's own layers, whether it runs or not.
async fn take_up(cx: &Cx, id: VmId, minted: &Minted) -> Result<(), StepError> {
    for disk in &minted.disks {
        cx.message(copied::title(disk));
        merge::merge(cx, id, &[disk.below]).await?;
        let there = db::layers::chain_of(cx.db(), disk.below).await?;
        if !there.is_empty() {
            let why = format!(
                "{} is read by others as well: it is brought here when only one of them runs, and no job is at work on the others",
                copied::title(disk)
            );
            return Err(StepError::waiting(why));
        }
        cx.world().unshow(disk.below);
    }
    Ok(())
}

async fn register(cx: &Cx) -> Result<(), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    if let (Some(asked), Some(vm)) = (&spec.request.disks, spec.vm) {
        tracing::debug!(vm = %asked.vm, "disks of a copy come to a machine");
        let own = super::vm(cx, vm).await?.disks.len();
        let disks = minted.disks.clone();
        return cx
            .commit(move |tx| {
                Box::pin(async move {
                    for (n, disk) in disks.iter().enumerate() {
                        db::hardware::put_disk(tx, vm, own + n, &disk.disk()).await?;
                    }
                    tx.changed(Noun::Vm, vm, false);
                    Ok(())
                })
            })
            .await;
    }
    let (id, path) = file(cx)?;
    let copy = copied::copy(cx, spec.copy).await?;
    let asked = spec.request.file.as_ref();
    let asked = asked.ok_or_else(|| StepError::new(Code::Internal, "no file was asked for"))?;
    let meta = tokio::fs::metadata(&path).await;
    let meta =
        meta.map_err(|e| StepError::new(Code::Internal, format!("look at {}: {e}", path.display())))?;
    let create_time = now();
    let name = format!(
        "{}-{}-{}.{}",
        copy.vm_name,
        copy.snapshot_name,
        asked.disk,
        asked.format.extension()
    );
    let export = Export {
        id,
        name: name.clone(),
        vm: copy.vm,
        vm_name: copy.vm_name,
        snapshot_name: Some(copy.snapshot_name.clone()),
        disk: asked.disk,
        format: asked.format,
        size_bytes: meta.len(),
        create_time,
        expire_time: create_time.plus_micros(KEPT_MICROS),
        generation: 0,
    };
    cx.resource(Resource {
        noun: Noun::Export,
        id: id.to_string(),
        name: copy.snapshot_name,
        role: ResourceRole::Product,
    });
    cx.outcome(|o| o.copied_bytes = Some(export.size_bytes));
    cx.message(name);
    cx.commit(move |tx| Box::pin(async move { db::exports::insert(tx, &export).await }))
        .await
}

async fn start(cx: &Cx) -> Result<(), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let id = machine(&spec, &minted).ok_or_else(|| is_now("VM", "to start"))?;
    power_on(cx, id).await
}

async fn clean_up(cx: &Cx) -> Result<(), StepError> {
    copied::hide(cx).await?;
    remove_loose(cx, &cx.minted::<Minted>()?.before).await.map(drop)
}

#[async_trait]
impl Kind for RestoreCopy {
    fn plan(&self, spec: &JobSpec) -> Vec<Plan> {
        let JobSpec::RestoreCopy(spec) = spec else {
            return Vec::new();
        };
        let request = &spec.request;
        let (file, disks, over) = (
            request.file.is_some(),
            request.disks.is_some(),
            request.over.is_some(),
        );
        let starts = request.vm.as_ref().is_some_and(|vm| vm.start)
            || request.over.as_ref().is_some_and(|over| over.start);
        let at_once = instant(spec);
        let replacing = Plan {
            wanted: over,
            ..Plan::no_return(step::REVERTING)
        };
        let mut plan = vec![
            Plan::always(step::MINTING),
            Plan::always(step::ATTACHING),
            Plan::only_if(step::EXPORTING, file),
        ];
        // A machine that is there loses its disks as late as may be.
        if at_once {
            plan.extend([
                replacing,
                Plan::always(step::INSTANTIATING),
                Plan::always(step::BRINGING_HOME),
            ]);
        } else {
            plan.extend([Plan::only_if(step::BRINGING_HOME, !file), replacing]);
        }
        plan.extend([
            Plan::only_if(step::REGISTERING, file || disks),
            Plan::only_if(step::STARTING, starts && !at_once),
            Plan::always(step::CLEANING_UP),
        ]);
        plan
    }

    fn mode(&self, _spec: &JobSpec) -> LockMode {
        LockMode::Exclusive
    }

    async fn run(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        match name {
            step::MINTING => minting(cx).await,
            step::ATTACHING => attach(cx).await,
            step::EXPORTING => export(cx).await,
            step::REVERTING => replace(cx).await,
            step::INSTANTIATING => start_at_once(cx).await,
            step::BRINGING_HOME => bring_home(cx).await,
            step::REGISTERING => register(cx).await,
            step::STARTING => start(cx).await,
            _ => clean_up(cx).await,
        }
    }

    async fn undo(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        // Nothing minted: nothing was made.
        let Some(minted) = cx.data::<Minted>()? else {
            return Ok(());
        };
        match (name, &minted.vm) {
            (step::MINTING, Some(new)) => {
                unmake(cx, new.id, copied::layers(&minted.disks)).await?;
                for disk in &minted.disks {
                    cx.world().unshow(disk.below);
                }
                Ok(())
            }
            (step::MINTING, None) => copied::unmake_layers(cx, &minted.disks).await,
            (step::ATTACHING, _) => copied::hide(cx).await,
            (step::EXPORTING, _) => Ok(cx.disks().remove(&file(cx)?.1).await?),
            (step::BRINGING_HOME, None) => {
                let layers: Vec<_> = minted.disks.iter().map(|disk| disk.layer).collect();
                remove_files(cx, &layers).await
            }
            (step::INSTANTIATING | step::STARTING, Some(new)) => power_off(cx, new.id).await,
            (step::REGISTERING, _) => unregister(cx, &minted).await,
            _ => Ok(()),
        }
    }
}

async fn unregister(cx: &Cx, minted: &Minted) -> Result<(), StepError> {
    if let Some(id) = minted.export {
        return cx.commit(move |tx| Box::pin(db::exports::delete(tx, id))).await;
    }
    let Some(vm) = spec(cx)?.vm else { return Ok(()) };
    let numbers: Vec<u32> = minted.disks.iter().map(|disk| disk.number).collect();
    cx.commit(move |tx| {
        Box::pin(async move {
            for number in numbers {
                db::hardware::take_disk(tx, vm, number).await?;
            }
            tx.changed(Noun::Vm, vm, false);
            Ok(())
        })
    })
    .await
}
