//! QEMU's own jobs on a machine's disks: merging layers while its guest runs.

use super::machine::Machine;
use super::qmp::{self, Qmp, failed};
use crate::disks::blockdev::node_name;
use crate::hypervisor::{HvError, LayerMerge, RunState};
use qapi::qmp as wire;
use shared::VmId;
use std::sync::Arc;

/// How the jobs that are begun here are called.
const MERGE: &str = "merge-";

const OP: &str = "merge the layers of";

/// Refuses to fork a machine while a job works on its disks: QEMU switches no disk over that has one, standing still or
/// not, and a migration fails with some and aborts with others.
pub async fn none(q: &Qmp, vm: VmId) -> Result<(), HvError> {
    let jobs = qmp::jobs(q, vm).await?;
    match jobs.into_iter().find(|job| job.status != "concluded") {
        Some(qmp::BlockJob { id, kind, .. }) => Err(HvError::BlockJob { vm, kind, id }),
        None => Ok(()),
    }
}

/// Takes what the layers in between say into the active one, which stands on the base from then on.
pub async fn merge(machine: &Arc<Machine>, merge: &LayerMerge) -> Result<(), HvError> {
    let vm = machine.vm;
    let id = format!("{MERGE}{}", node_name(merge.active));
    let seen = machine.monitor.seen.clone();
    let mut changes = seen.block_jobs.subscribe();
    let mut state = seen.state.subscribe();
    let (begin, of) = (id.clone(), merge.clone());
    let begun = move |q: Arc<Qmp>| async move {
        // An earlier try may have begun it, and its end been missed.
        if let Some(job) = qmp::jobs(&q, vm).await?.into_iter().find(|job| job.id == begin) {
            if job.status != "concluded" {
                return Ok(());
            }
            let id = begin.clone();
            q.execute(wire::job_dismiss { id })
                .await
                .map_err(failed(OP, vm))?;
        }
        qmp::stream(&q, vm, &begin, &of).await
    };
    machine.monitor.ask(OP, begun).await?;
    let ended = loop {
        changes.borrow_and_update();
        let jobs = machine
            .monitor
            .ask(OP, move |q| async move { qmp::jobs(&q, vm).await })
            .await?;
        match jobs.into_iter().find(|job| job.id == id) {
            Some(job) if job.status == "concluded" => break job,
            Some(_) => {}
            None => return Err(HvError::NotRunning { op: OP, vm }),
        }
        tokio::select! {
            _ = changes.changed() => {}
            _ = state.wait_for(|s| *s == RunState::Stopped) => return Err(HvError::NotRunning { op: OP, vm }),
        }
    };
    let between: Vec<_> = merge.between.iter().map(|layer| node_name(*layer)).collect();
    let done = move |q: Arc<Qmp>| async move {
        q.execute(wire::job_dismiss { id })
            .await
            .map_err(failed(OP, vm))?;
        if let Some(why) = ended.error {
            return Err(HvError::Refused { op: OP, vm, why });
        }
        for node_name in between.into_iter().rev() {
            // Another disk may stand on it.
            if let Err(e) = q.execute(wire::blockdev_del { node_name }).await {
                tracing::debug!(%vm, error = %e, "close a layer that has been merged");
            }
        }
        Ok(())
    };
    machine.monitor.ask(OP, done).await
}
