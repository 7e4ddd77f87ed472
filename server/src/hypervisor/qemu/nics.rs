//! The cables of NICs. Each NIC stands on a hub of its own; what leads on from there comes and goes.

use super::args;
use super::machine::Machine;
use super::qmp::{self, Qmp};
use crate::hypervisor::{HvError, MachineSpec};
use std::sync::Arc;
use std::time::Duration;

/// How long a cable is out that comes into another network: its guest has to see that, and asks for an address then.
/// Nothing tells when it has.
const SEEN: Duration = Duration::from_millis(300);

const OP: &str = "connect the NICs of";

/// Joins the NICs to their networks that are to be connected, and takes the others off. What is so already stays so.
pub async fn connect(machine: &Machine, spec: &MachineSpec) -> Result<(), HvError> {
    let vm = machine.vm;
    let mut ends = Vec::new();
    for (n, nic) in spec.nics.iter().enumerate() {
        ends.extend(args::uplink(spec, n, nic)?);
    }
    let connected: Vec<_> = spec.nics.iter().map(|nic| nic.connected).collect();
    let join = {
        let connected = connected.clone();
        move |q: Arc<Qmp>| async move {
            let objects = qmp::objects(&q, vm).await?;
            let sunk: Vec<_> = (0..connected.len())
                .filter(|&n| objects.contains(&args::sink(n)))
                .collect();
            for (n, connected) in connected.iter().enumerate() {
                if !connected || sunk.contains(&n) {
                    qmp::set_link(&q, vm, n, false).await?;
                }
            }
            qmp::add_netdevs(&q, vm, ends).await?;
            for &n in &sunk {
                qmp::remove_object(&q, vm, args::sink(n)).await?;
            }
            for n in (0..connected.len()).filter(|&n| !connected[n]) {
                for end in args::uplink_ids(n) {
                    qmp::remove_netdev(&q, vm, end).await?;
                }
            }
            Ok(sunk.iter().any(|&n| connected[n]))
        }
    };
    if machine.monitor.ask(OP, join).await? {
        tokio::time::sleep(SEEN).await;
    }
    let plug = move |q: Arc<Qmp>| async move {
        for n in (0..connected.len()).filter(|&n| connected[n]) {
            qmp::set_link(&q, vm, n, true).await?;
        }
        Ok(())
    };
    machine.monitor.ask(OP, plug).await
}
