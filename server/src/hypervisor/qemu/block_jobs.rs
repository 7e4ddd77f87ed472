//! QEMU's own jobs on a machine's disks: merging layers while its guest runs.

use super::flush::flush;
use super::machine::Machine;
use super::qmp::{self, Qmp, failed};
use crate::disks::blockdev::{self, node_name};
use crate::hypervisor::{HvError, LayerMerge, RunState};
use qapi::qmp as wire;
use serde_json::Value;
use shared::{LayerId, VmId};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

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

/// How often is asked how far a merge has come: nothing tells of it.
const TELL: Duration = Duration::from_millis(500);

/// Opens a frozen layer to be written, or no more to be: `backing` is the node it stands on.
async fn reopen(
    q: &Qmp,
    vm: VmId,
    merge: &LayerMerge,
    backing: Option<LayerId>,
    write: bool,
) -> Result<(), HvError> {
    let backing = backing.map_or(Value::Null, |layer| node_name(layer).into());
    qmp::reopen(q, vm, blockdev::layer(&merge.into, backing, write)).await
}

/// Has a merge whose data are all there count. Answers why it does not, where the layer cannot be written: then it ends.
async fn finalize(q: &Qmp, vm: VmId, merge: &LayerMerge, id: String) -> Result<Option<HvError>, HvError> {
    // By this the layer's head names those in between no more. Tables that are in QEMU's memory then would be lost with its
    // process, and with them what was merged: opened anew, the layer has them in its file.
    let below = merge.between.last().copied();
    let mut unwritten = reopen(q, vm, merge, below, true).await.err();
    if unwritten.is_some() {
        // An earlier try may have come to its end: then it stands on the base. While one is at work QEMU refuses this.
        let base = merge.base.as_ref().map(|base| base.id);
        if reopen(q, vm, merge, base, true).await.is_ok() {
            unwritten = None;
        }
    }
    let ended = match unwritten {
        None => q.execute(wire::job_finalize { id }).await,
        Some(_) => q.execute(wire::job_cancel { id }).await,
    };
    ended.map_err(failed(OP, vm))?;
    Ok(unwritten)
}

/// Takes what the layers in between say into the one above them, which stands on the base from then on.
pub async fn merge(
    machine: &Arc<Machine>,
    merge: &LayerMerge,
    say: &watch::Sender<(u64, u64)>,
) -> Result<(), HvError> {
    let vm = machine.vm;
    let id = format!("{MERGE}{}", node_name(merge.into.id));
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
        let (below, base) = (of.between.last().copied(), of.base.as_ref().map(|base| base.id));
        if of.frozen {
            let opened = reopen(&q, vm, &of, below, true).await;
            if let Err(e) = opened {
                // An earlier try may have come to its end: then it stands on the base.
                return match reopen(&q, vm, &of, base, false).await {
                    Ok(()) => Ok(()),
                    Err(_) => Err(e),
                };
            }
        }
        let begun = qmp::stream(&q, vm, &begin, &of).await;
        if of.frozen && begun.is_err() {
            let _ = reopen(&q, vm, &of, below, false).await;
        }
        begun
    };
    machine.monitor.ask(OP, begun).await?;
    let mut unwritten = None;
    let ended = loop {
        changes.borrow_and_update();
        let jobs = machine
            .monitor
            .ask(OP, move |q| async move { qmp::jobs(&q, vm).await })
            .await?;
        match jobs.into_iter().find(|job| job.id == id) {
            Some(job) if job.status == "concluded" => break Some(job),
            Some(job) if job.status == "pending" => {
                flush(vec![merge.into.path.clone()]).await;
                let (of, id) = (merge.clone(), id.clone());
                let finalized = move |q: Arc<Qmp>| async move { finalize(&q, vm, &of, id).await };
                unwritten = machine.monitor.ask(OP, finalized).await?;
            }
            Some(job) => {
                say.send_replace((job.done, job.total));
            }
            None if merge.frozen => break None,
            None => return Err(HvError::NotRunning { op: OP, vm }),
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(TELL) => {}
            _ = state.wait_for(|s| *s == RunState::Stopped) => return Err(HvError::NotRunning { op: OP, vm }),
        }
    };
    let between: Vec<_> = merge.between.iter().map(|layer| node_name(*layer)).collect();
    let of = merge.clone();
    let done = move |q: Arc<Qmp>| async move {
        if let Some(ended) = ended {
            q.execute(wire::job_dismiss { id })
                .await
                .map_err(failed(OP, vm))?;
            let below = match ended.error {
                Some(_) => of.between.last().copied(),
                None => of.base.as_ref().map(|base| base.id),
            };
            let opened = reopen(&q, vm, &of, below, !of.frozen).await;
            if let Some(why) = ended.error {
                return Err(unwritten.unwrap_or(HvError::Refused { op: OP, vm, why }));
            }
            opened?;
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
