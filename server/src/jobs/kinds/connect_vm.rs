//! Connects NICs of a machine to their networks, or takes them off.

use super::{machine_spec, vm};
use crate::db;
use crate::db::locks::LockMode;
use crate::hypervisor::RunState;
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shared::fork::Identity;
use shared::job::{ConnectSpec, JobSpec, step};
use shared::vm::{LineageKind, Vm};
use shared::{Code, VmId};

pub(super) struct ConnectVm;

/// Which of its NICs were connected before.
#[derive(Clone, Serialize, Deserialize)]
struct Minted {
    before: Vec<bool>,
}

fn spec(cx: &Cx) -> Result<ConnectSpec, StepError> {
    match cx.job().spec.into_inner() {
        JobSpec::ConnectVm(spec) => Ok(spec),
        _ => Err(StepError::new(Code::Internal, "not a request to connect")),
    }
}

fn connected(vm: &Vm) -> Vec<bool> {
    vm.network_interfaces.iter().map(|nic| nic.connected).collect()
}

async fn switch(cx: &Cx) -> Result<(), StepError> {
    let spec = spec(cx)?;
    let machine = vm(cx, spec.vm).await?;
    let before = connected(&machine);
    if cx.data::<Minted>()?.is_none() {
        cx.mint(&Minted {
            before: before.clone(),
        });
        // An undo takes back no more than this job has done.
        cx.commit(|_| Box::pin(async { Ok(()) })).await?;
    }
    let asked = |(n, was): (usize, &bool)| {
        if spec.request.names(machine.network_interfaces[n].number) {
            spec.connected
        } else {
            *was
        }
    };
    let after: Vec<bool> = before.iter().enumerate().map(asked).collect();
    let running = cx.hypervisor().state(spec.vm).await != RunState::Stopped;
    if running {
        let mut machine_spec = machine_spec(cx.world(), &machine).await?;
        for (nic, connected) in machine_spec.nics.iter_mut().zip(&after) {
            nic.connected = *connected;
        }
        let joins = before.iter().zip(&after).any(|(was, is)| !was && *is);
        if joins && machine.lineage.kind == LineageKind::InstantClone {
            let identity = cx.hypervisor().settle(&machine_spec, 0).await?;
            if identity == Identity::Unchanged {
                return Err(StepError::new(
                    Code::FailedPrecondition,
                    format!(
                        "the guest of {} has the address of its source and takes no other: reset it, and connect it then",
                        machine.name
                    ),
                ));
            }
        }
        cx.hypervisor().connect(&machine_spec).await?;
    } else {
        cx.message("from its next start on");
    }
    cx.commit(move |tx| Box::pin(async move { db::hardware::set_connected(tx, &machine, &after).await }))
        .await
}

async fn back(cx: &Cx, id: VmId) -> Result<(), StepError> {
    let Some(Minted { before }) = cx.data()? else {
        return Ok(());
    };
    let machine = vm(cx, id).await?;
    if cx.hypervisor().state(id).await != RunState::Stopped {
        let mut spec = machine_spec(cx.world(), &machine).await?;
        for (nic, connected) in spec.nics.iter_mut().zip(&before) {
            nic.connected = *connected;
        }
        cx.hypervisor().connect(&spec).await?;
    }
    cx.commit(move |tx| Box::pin(async move { db::hardware::set_connected(tx, &machine, &before).await }))
        .await
}

#[async_trait]
impl Kind for ConnectVm {
    fn plan(&self, _spec: &JobSpec) -> Vec<Plan> {
        vec![Plan::always(step::SWITCHING_NETWORKS)]
    }

    fn mode(&self, _spec: &JobSpec) -> LockMode {
        LockMode::Changing
    }

    async fn run(&self, _name: &str, cx: &Cx) -> Result<(), StepError> {
        switch(cx).await
    }

    async fn undo(&self, _name: &str, cx: &Cx) -> Result<(), StepError> {
        back(cx, spec(cx)?.vm).await
    }
}
