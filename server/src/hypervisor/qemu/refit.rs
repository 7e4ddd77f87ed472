//! Disks and NICs that come and go while the guest runs, by PCI hot plug: the guest has to let go of what is taken out.

use super::args;
use super::machine::Machine;
use super::nics;
use super::qmp::{self, Qmp};
use crate::hypervisor::{HvError, MachineSpec, RunState, Unfit};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long a guest may take to let go of its devices.
const LETS_GO: Duration = Duration::from_secs(10);

const OP: &str = "change the devices of";

/// Gives the machine the devices of `spec`, and takes those out that are not in it.
pub async fn refit(program: &Path, machine: &Machine, spec: &MachineSpec) -> Result<Unfit, HvError> {
    let vm = machine.vm;
    let wanted = wanted(spec);
    let mut unfit = Unfit::default();
    let surplus: Vec<String> = devices(machine)
        .await?
        .into_iter()
        .filter(|id| number(id).is_some() && !wanted.contains(id))
        .collect();
    for id in take_out(machine, surplus.clone()).await? {
        unfit.why.push(format!(
            "the guest has not let go of {id} within {} s; it goes at the next start",
            LETS_GO.as_secs()
        ));
        note(&mut unfit, &id);
    }
    let kept = unfit.clone();
    let nodes: HashSet<_> = args::nodes(spec)?.into_iter().map(|node| node.name).collect();
    let gone: Vec<u32> = surplus
        .iter()
        .filter_map(|id| id.strip_prefix("nic")?.parse().ok())
        .filter(|n| !kept.nics.contains(n))
        .collect();
    let out = gone.clone();
    let after = move |q: Arc<Qmp>| async move {
        qmp::close_others(&q, vm, &nodes).await?;
        for n in gone {
            let objects = qmp::objects(&q, vm).await?;
            if objects.contains(&args::sink(n)) {
                qmp::remove_object(&q, vm, args::sink(n)).await?;
            }
            for end in args::uplink_ids(n).into_iter().chain([format!("net{n}")]) {
                qmp::remove_netdev(&q, vm, end).await?;
            }
        }
        Ok(())
    };
    machine.monitor.ask(OP, after).await?;
    for nic in out {
        nics::left(&machine.dir, vm, nic).await;
    }
    for why in put_in(machine, spec, &mut unfit).await? {
        unfit.why.push(why);
    }
    let mut joined = spec.clone();
    joined.nics.retain(|nic| !unfit.nics.contains(&nic.number));
    nics::connect(program, machine, &joined).await?;
    Ok(unfit)
}

fn wanted(spec: &MachineSpec) -> HashSet<String> {
    let disks = spec.disks.iter().filter(|disk| !disk.is_variables());
    let disks = disks.map(|disk| format!("disk{}", disk.number));
    disks
        .chain(spec.nics.iter().map(|nic| format!("nic{}", nic.number)))
        .collect()
}

/// The number of a disk or a NIC; other devices have none.
fn number(id: &str) -> Option<u32> {
    id.strip_prefix("disk")
        .or_else(|| id.strip_prefix("nic"))?
        .parse()
        .ok()
}

fn note(unfit: &mut Unfit, id: &str) {
    let Some(n) = number(id) else { return };
    if id.starts_with("disk") {
        unfit.disks.push(n);
    } else {
        unfit.nics.push(n);
    }
}

async fn devices(machine: &Machine) -> Result<HashSet<String>, HvError> {
    let vm = machine.vm;
    machine
        .monitor
        .ask(OP, move |q| async move { qmp::devices(&q, vm).await })
        .await
}

/// Has the guest let go of devices; answers those that it has not.
async fn take_out(machine: &Machine, ids: Vec<String>) -> Result<Vec<String>, HvError> {
    if ids.is_empty() {
        return Ok(ids);
    }
    let vm = machine.vm;
    let mut unplugged = machine.monitor.seen.unplugged.subscribe();
    let mut state = machine.monitor.seen.state.subscribe();
    let asked = ids.clone();
    let ask = move |q: Arc<Qmp>| async move {
        for id in asked {
            qmp::ask_out(&q, vm, id).await?;
        }
        Ok(())
    };
    machine.monitor.ask(OP, ask).await?;
    let all_gone = async {
        loop {
            unplugged.mark_unchanged();
            let there = devices(machine).await?;
            if !ids.iter().any(|id| there.contains(id)) {
                return Ok(());
            }
            tokio::select! {
                _ = unplugged.changed() => {}
                _ = state.wait_for(|s| *s == RunState::Stopped) => return Err(HvError::NotRunning { op: OP, vm }),
            }
        }
    };
    if let Ok(done) = timeout(LETS_GO, all_gone).await {
        done?;
    }
    let there = devices(machine).await?;
    Ok(ids.into_iter().filter(|id| there.contains(id)).collect())
}

/// Puts in what is missing; answers what QEMU says of those that it refuses.
async fn put_in(machine: &Machine, spec: &MachineSpec, unfit: &mut Unfit) -> Result<Vec<String>, HvError> {
    let vm = machine.vm;
    let there = devices(machine).await?;
    let mut missing = Vec::new();
    for disk in spec.disks.iter().filter(|disk| !disk.is_variables()) {
        let id = format!("disk{}", disk.number);
        if !there.contains(&id)
            && let Some(device) = args::disk_device(disk, None)
        {
            missing.push((id, None, device));
        }
    }
    for nic in &spec.nics {
        let id = format!("nic{}", nic.number);
        if !there.contains(&id) {
            missing.push((id, Some(nic.number), args::nic_device(nic)));
        }
    }
    let nodes = args::nodes(spec)?;
    let ask = move |q: Arc<Qmp>| async move {
        qmp::add_nodes(&q, vm, nodes).await?;
        let mut refused = Vec::new();
        for (id, nic, device) in missing {
            if let Some(n) = nic {
                // What an earlier NIC of this number left, where taking it out was interrupted, leads to its network.
                for end in args::uplink_ids(n) {
                    qmp::remove_netdev(&q, vm, end).await?;
                }
                qmp::add_netdevs(&q, vm, vec![args::port(n)]).await?;
            }
            match qmp::add_device(&q, vm, device).await {
                Err(HvError::Refused { why, .. }) => refused.push((id, why)),
                added => added?,
            }
        }
        Ok(refused)
    };
    let refused = machine.monitor.ask(OP, ask).await?;
    Ok(refused
        .into_iter()
        .map(|(id, why)| {
            note(unfit, &id);
            format!("{id} cannot be put in while it runs: {why}; it comes at the next start")
        })
        .collect())
}
