//! Machines that are started with their host: one after another, when the host has restarted, and not the server alone.

use super::{By, Jobs};
use crate::db::{self, DbError};
use shared::can;
use shared::vm::{PowerAction, Vm};

/// Who asks for it.
const BY: &str = "autostart";

/// Starts the machines of a host that has restarted, each when the one before it runs. The boot is noted behind the last, so
/// that a server that ends in between goes on with the rest.
pub(super) async fn run(jobs: Jobs) {
    let boot = jobs.world().boot.clone();
    match due(&jobs, &boot).await {
        Ok(machines) => {
            for machine in machines {
                start(&jobs, &machine).await;
            }
        }
        Err(e) => {
            tracing::error!(error = %db::chain(&e), "look for the machines that are started with their host");
            return;
        }
    }
    if jobs.inner.stop.is_cancelled() {
        return;
    }
    let noted = jobs
        .world()
        .db
        .write(move |tx| Box::pin(async move { db::places::set_boot(tx, &boot).await }));
    if let Err(e) = noted.await {
        tracing::error!(error = %db::chain(&e), "note the boot of the host");
    }
}

/// The machines that are to be started, in their turn.
async fn due(jobs: &Jobs, boot: &str) -> Result<Vec<Vm>, DbError> {
    let db = &jobs.world().db;
    // Before the first start of a server there is nothing to restart.
    match db::places::boot(db).await? {
        Some(last) if last != boot => {}
        _ => return Ok(Vec::new()),
    }
    let mut due = Vec::new();
    for id in db::vms::ids(db).await? {
        due.extend(db::vms::by_id(db, id).await?.filter(|vm| vm.autostart.is_some()));
    }
    due.sort_by(|a, b| (a.autostart, &a.name).cmp(&(b.autostart, &b.name)));
    for host in db::places::hosts(db).await? {
        if let Err(why) = can::can_take(&host.name, host.state) {
            tracing::warn!(
                machines = due.len(),
                "the host has restarted, and none of its machines is started: {why}"
            );
            return Ok(Vec::new());
        }
    }
    Ok(due)
}

async fn start(jobs: &Jobs, machine: &Vm) {
    let db = &jobs.world().db;
    let mut changes = db.subscribe();
    let job = match jobs.power(machine.id, PowerAction::Start, By(BY.into())).await {
        Ok(job) => job,
        Err(e) => {
            return tracing::warn!(vm = %machine.id, "{} is not started with its host: {e}", machine.name);
        }
    };
    tracing::info!(job = %job.id, "starting {} with its host", machine.name);
    loop {
        match db::jobs::by_id(db, job.id).await {
            Ok(Some(stored)) if !stored.job.state.is_final() => {}
            _ => return,
        }
        tokio::select! {
            // Lagging behind is no loss: the job is read again.
            _ = changes.recv() => {}
            () = jobs.inner.stop.cancelled() => return,
        }
    }
}
