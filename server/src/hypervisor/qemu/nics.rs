//! The cables of NICs. Each NIC stands on a hub of its own; what leads on from there comes and goes.

use super::args;
use super::machine::Machine;
use super::qmp::{self, Qmp};
use crate::hypervisor::{HvError, MachineSpec};
use std::sync::Arc;

/// Joins the NICs to their networks that are to be connected, and takes the others off. What is so already stays so.
pub async fn connect(machine: &Machine, spec: &MachineSpec) -> Result<(), HvError> {
    let vm = machine.vm;
    let mut ends = Vec::new();
    for (n, nic) in spec.nics.iter().enumerate() {
        ends.extend(args::uplink(spec, n, nic)?);
    }
    let connected: Vec<_> = spec.nics.iter().map(|nic| nic.connected).collect();
    let ask = move |q: Arc<Qmp>| async move {
        qmp::add_netdevs(&q, vm, ends).await?;
        for (n, connected) in connected.into_iter().enumerate() {
            // With the cable out nothing waits on the hub for a network to come.
            qmp::set_link(&q, vm, n, connected).await?;
            if !connected {
                for end in args::uplink_ids(n) {
                    qmp::remove_netdev(&q, vm, end).await?;
                }
            }
        }
        Ok(())
    };
    machine.monitor.ask("connect the NICs of", ask).await
}
