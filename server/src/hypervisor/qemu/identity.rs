//! The identity of a fork. The address of a NIC is device state: the guest of a fork wakes with its source's. It is given
//! its own; only then its NICs may be joined to their networks.

use super::args;
use super::machine::Machine;
use super::qmp::{self, Qmp};
use crate::hypervisor::{HvError, MachineSpec};
use shared::fork::Identity;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long a hook in the guest may take. It has a tenth of a second; a busy host needs more, and as much again for each of
/// those that become others beside it, which all have work to do.
const HOOK: Duration = Duration::from_millis(1500);
const HOOK_AT_MOST: Duration = Duration::from_secs(15);
/// How long the agent may take to set an address.
const AGENT: Duration = Duration::from_secs(5);
/// How long a guest may take to let go of a NIC.
const UNPLUG: Duration = Duration::from_secs(3);

const OP: &str = "give an identity to";

/// Waits until the guest has the addresses of `spec`, or sees to it.
pub async fn settle(machine: &Machine, spec: &MachineSpec, beside: usize) -> Result<Identity, HvError> {
    let hook = HOOK.saturating_mul(u32::try_from(beside).unwrap_or(u32::MAX).saturating_add(1));
    Ok(if addressed(machine, spec, hook.min(HOOK_AT_MOST)).await? {
        Identity::Hook
    } else if told_by_agent(machine, spec).await && addressed(machine, spec, AGENT).await? {
        Identity::Agent
    } else if replug(machine, spec).await? {
        Identity::Replugged
    } else {
        Identity::Unchanged
    })
}

/// Returns whether every NIC has its address, as soon as it has or when the time is over.
async fn addressed(machine: &Machine, spec: &MachineSpec, patience: Duration) -> Result<bool, HvError> {
    // A change that is told before it is looked at is told once only: looking makes QEMU tell of the next.
    let mut changes = machine.monitor.seen.addresses.subscribe();
    let all = async {
        loop {
            changes.mark_unchanged();
            if has_addresses(machine, spec).await? {
                return Ok(true);
            }
            if changes.changed().await.is_err() {
                return Ok(false);
            }
        }
    };
    timeout(patience, all).await.unwrap_or(Ok(false))
}

async fn has_addresses(machine: &Machine, spec: &MachineSpec) -> Result<bool, HvError> {
    let vm = machine.vm;
    let macs: Vec<_> = spec
        .nics
        .iter()
        .map(|nic| (nic.number, nic.mac.clone()))
        .collect();
    let ask = move |q: Arc<Qmp>| async move {
        for (n, mac) in &macs {
            let now = qmp::address(&q, vm, &format!("nic{n}")).await?;
            if !now.is_some_and(|now| now.eq_ignore_ascii_case(mac)) {
                return Ok(false);
            }
        }
        Ok(true)
    };
    machine.monitor.ask(OP, ask).await
}

/// Has the guest agent do what a hook would have done; returns whether it could.
async fn told_by_agent(machine: &Machine, spec: &MachineSpec) -> bool {
    match machine.become_another(spec).await {
        Ok(()) => true,
        Err(e) => {
            tracing::info!(vm = %machine.vm, error = %e, "the guest agent gave no identity");
            false
        }
    }
}

/// Takes each NIC out and puts one with its own address in; returns whether the guest let go of them.
async fn replug(machine: &Machine, spec: &MachineSpec) -> Result<bool, HvError> {
    let vm = machine.vm;
    let unplugged = machine.monitor.seen.unplugged.subscribe();
    let before = *unplugged.borrow();
    let count = spec.nics.len();
    let numbers: Vec<_> = spec.nics.iter().map(|nic| nic.number).collect();
    let ask = move |q: Arc<Qmp>| async move {
        for n in numbers {
            qmp::ask_out(&q, vm, format!("nic{n}")).await?;
        }
        Ok(())
    };
    machine.monitor.ask(OP, ask).await?;
    let mut unplugged = unplugged;
    let gone = unplugged.wait_for(|n| n.wrapping_sub(before) as usize >= count);
    if timeout(UNPLUG, gone).await.is_err() {
        return Ok(false);
    }
    let nics: Vec<_> = spec.nics.iter().map(args::nic_device).collect();
    let ask = move |q: Arc<Qmp>| async move {
        for nic in nics {
            qmp::add_device(&q, vm, nic).await?;
        }
        Ok(())
    };
    machine.monitor.ask(OP, ask).await?;
    Ok(true)
}
