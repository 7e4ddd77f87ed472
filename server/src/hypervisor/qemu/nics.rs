//! The cables of NICs. Each NIC stands on a hub of its own; what leads on from there comes and goes.

use super::args;
use super::machine::Machine;
use super::qmp::{self, Qmp};
use super::rundir::RunDir;
use super::switch;
use super::tap;
use crate::hypervisor::{HvError, MachineSpec};
use shared::VmId;
use shared::place::NetworkKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a cable is out that comes into another network: its guest has to see that, and asks for an address then.
/// Nothing tells when it has.
const SEEN: Duration = Duration::from_millis(300);

const OP: &str = "connect the NICs of";

/// Sees to what is outside of QEMU and that the ends of networks need.
pub async fn outside(program: &Path, dir: &RunDir, spec: &MachineSpec) -> Result<(), HvError> {
    for nic in spec.nics.iter().filter(|nic| nic.connected) {
        match nic.kind {
            NetworkKind::User => {}
            NetworkKind::Isolated => switch::ensure(program, &dir.network(nic.network), spec.id).await?,
            NetworkKind::Bridge => tap::make(spec.id, nic).await?,
        }
    }
    Ok(())
}

/// Removes what is outside of QEMU of a NIC that has left its network, whichever that was.
pub async fn left(dir: &RunDir, vm: VmId, nic: u32) {
    tap::remove(vm, nic).await;
    for network in std::fs::read_dir(dir.networks()).into_iter().flatten().flatten() {
        switch::leave(&network.path(), vm, Some(nic));
    }
}

/// Joins the NICs to their networks that are to be connected, and takes the others off. What is so already stays so.
pub async fn connect(program: &Path, machine: &Machine, spec: &MachineSpec) -> Result<(), HvError> {
    let vm = machine.vm;
    outside(program, &machine.dir, spec).await?;
    let mut ends = Vec::new();
    for nic in &spec.nics {
        ends.extend(args::uplink(spec, &machine.dir, nic)?);
    }
    let nics: Vec<_> = spec.nics.iter().map(|nic| (nic.number, nic.connected)).collect();
    let all = nics.clone();
    let join = move |q: Arc<Qmp>| async move {
        let objects = qmp::objects(&q, vm).await?;
        let is_sunk = |n: &u32| objects.contains(&args::sink(*n));
        for &(n, connected) in &all {
            if !connected || is_sunk(&n) {
                qmp::set_link(&q, vm, n, false).await?;
            }
        }
        qmp::add_netdevs(&q, vm, ends).await?;
        let mut comes = false;
        for &(n, connected) in &all {
            if is_sunk(&n) {
                qmp::remove_object(&q, vm, args::sink(n)).await?;
                comes |= connected;
            }
        }
        for (n, _) in all.into_iter().filter(|(_, connected)| !connected) {
            for end in args::uplink_ids(n) {
                qmp::remove_netdev(&q, vm, end).await?;
            }
        }
        Ok(comes)
    };
    let comes = machine.monitor.ask(OP, join).await?;
    // A switch that was about to end, for nobody was on it, has seen who is now; or another begins.
    outside(program, &machine.dir, spec).await?;
    for nic in spec.nics.iter().filter(|nic| !nic.connected) {
        left(&machine.dir, vm, nic.number).await;
    }
    if comes {
        tokio::time::sleep(SEEN).await;
    }
    let plug = move |q: Arc<Qmp>| async move {
        for (n, _) in nics.into_iter().filter(|(_, connected)| *connected) {
            qmp::set_link(&q, vm, n, true).await?;
        }
        Ok(())
    };
    machine.monitor.ask(OP, plug).await
}
