//! Starts, shuts down, powers off, resets, pauses and resumes a machine.

use super::{power_off, power_on, vm};
use crate::db::locks::LockMode;
use crate::db::{self};
use crate::hypervisor::{Control, HvError, RunState};
use crate::jobs::observe;
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use async_trait::async_trait;
use shared::job::{JobSpec, PowerSpec, step};
use shared::vm::{Condition, PauseReason, PowerAction, VmState};
use shared::{Code, VmId};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

pub(super) struct PowerVm;

/// How long a guest may take to shut down after its power button was pressed.
const SHUT_DOWN_WITHIN: Duration = Duration::from_secs(120);

fn spec(cx: &Cx) -> Result<PowerSpec, StepError> {
    match cx.job().spec.into_inner() {
        JobSpec::PowerVm(spec) => Ok(spec),
        _ => Err(StepError::new(Code::Internal, "not a request for power")),
    }
}

async fn shut_down(cx: &Cx, id: VmId, power_off_after: Option<Duration>) -> Result<(), StepError> {
    let name = vm(cx, id).await?.name;
    let mut events = cx.hypervisor().events();
    if cx.hypervisor().state(id).await == RunState::Stopped {
        observe::look(cx.world(), id).await?;
        return Ok(());
    }
    let asked = match cx.hypervisor().shut_down_by_agent(id).await {
        Ok(()) => "its guest agent",
        Err(e) => {
            if !matches!(e, HvError::NoAgent(_)) {
                cx.log(db::chain(&e));
            }
            cx.hypervisor().control(id, Control::ShutDown).await?;
            "its power button"
        }
    };
    cx.log(format!("asked the guest of {name} to shut down, by {asked}"));
    cx.commit(move |tx| {
        Box::pin(async move {
            let vm = db::vms::get(tx.conn(), id).await?;
            if let Some(since) = vm
                .filter(|v| v.state == VmState::Running)
                .and_then(|v| v.running_since)
            {
                db::vms::set_condition(tx, id, Condition::Stopping { since }).await?;
            }
            Ok(())
        })
    })
    .await?;
    cx.message(match power_off_after {
        Some(after) => format!(
            "asked by {asked}; waiting for the guest to shut down, and powering off after {} s",
            after.as_secs()
        ),
        None => format!("asked by {asked}; waiting for the guest to shut down"),
    });
    let stopped = async {
        while cx.hypervisor().state(id).await != RunState::Stopped {
            match events.recv().await {
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    };
    let within = power_off_after.unwrap_or(SHUT_DOWN_WITHIN);
    if tokio::time::timeout(within, stopped).await.is_err() {
        let seconds = within.as_secs();
        if power_off_after.is_none() {
            return Err(StepError::new(
                Code::DeadlineExceeded,
                format!(
                    "the guest of {name} did not shut down within {seconds} s, asked by {asked}: power it off, or try again"
                ),
            ));
        }
        power_off(cx, id).await?;
        cx.message(format!(
            "powered off: the guest had not shut down within {seconds} s"
        ));
        return Ok(());
    }
    observe::look(cx.world(), id).await?;
    cx.message(format!("the guest has shut down, asked by {asked}"));
    Ok(())
}

async fn control(cx: &Cx, id: VmId, what: Control, already: RunState) -> Result<(), StepError> {
    if cx.hypervisor().state(id).await != already {
        cx.hypervisor().control(id, what).await?;
    }
    observe::look(cx.world(), id).await?;
    Ok(())
}

/// After a shutdown that did not happen: what is seen counts again.
async fn still_there(cx: &Cx, id: VmId) -> Result<(), StepError> {
    let seen = cx.hypervisor().state(id).await;
    cx.commit(move |tx| {
        Box::pin(async move {
            let Some(vm) = db::vms::get(tx.conn(), id).await? else {
                return Ok(());
            };
            if let (VmState::Stopping, RunState::Running, Some(since)) = (vm.state, seen, vm.running_since) {
                db::vms::set_condition(tx, id, Condition::Running { since }).await?;
            }
            Ok(())
        })
    })
    .await
}

#[async_trait]
impl Kind for PowerVm {
    fn plan(&self, _spec: &JobSpec) -> Vec<Plan> {
        vec![Plan::always(step::SWITCHING_POWER)]
    }

    fn mode(&self, _spec: &JobSpec) -> LockMode {
        LockMode::Changing
    }

    async fn run(&self, _name: &str, cx: &Cx) -> Result<(), StepError> {
        let PowerSpec {
            vm: id,
            action,
            power_off_after_seconds: after,
        } = spec(cx)?;
        let after = after.map(|s| Duration::from_secs(s.into()));
        match action {
            PowerAction::Start => power_on(cx, id).await,
            PowerAction::ShutDown => shut_down(cx, id, after).await,
            PowerAction::PowerOff => power_off(cx, id).await,
            PowerAction::Pause => control(cx, id, Control::Pause, RunState::Paused(PauseReason::User)).await,
            PowerAction::Resume => control(cx, id, Control::Resume, RunState::Running).await,
            PowerAction::Reset => {
                cx.hypervisor().control(id, Control::Reset).await?;
                // A guest that stood still when it was reset goes on from there.
                control(cx, id, Control::Resume, RunState::Running).await
            }
        }
    }

    async fn undo(&self, _name: &str, cx: &Cx) -> Result<(), StepError> {
        let PowerSpec { vm: id, action, .. } = spec(cx)?;
        match action {
            // It was off before: a start that did not succeed leaves it off.
            PowerAction::Start => power_off(cx, id).await,
            PowerAction::ShutDown => still_there(cx, id).await,
            PowerAction::Pause if cx.hypervisor().state(id).await != RunState::Stopped => {
                control(cx, id, Control::Resume, RunState::Running).await
            }
            // What the guest has lost by then does not come back; how it is now is written down.
            PowerAction::Pause | PowerAction::PowerOff | PowerAction::Reset | PowerAction::Resume => {
                observe::look(cx.world(), id).await?;
                Ok(())
            }
        }
    }
}
