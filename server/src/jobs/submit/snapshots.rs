//! Requests about snapshots.

use super::By;
use crate::db::{self, DbError, Tx};
use crate::jobs::Jobs;
use crate::jobs::kinds::revert_vm::check_qemu;
use shared::can::{self, limit};
use shared::job::{DeleteSnapshotSpec, Job, JobSpec, RevertSpec, SnapshotSpec};
use shared::snapshot::{RevertSnapshot, Snapshot, TakeSnapshot};
use shared::vm::Vm;
use shared::{SnapshotId, Status, VmId};

impl Jobs {
    /// Takes a snapshot.
    pub async fn snapshot(&self, vm: VmId, mut request: TakeSnapshot, by: By) -> Result<Job, Status> {
        limit::length("description", &request.description, limit::DESCRIPTION_BYTES)?;
        if request.memory && request.quiesce {
            return Err(Status::invalid(
                "quiesce",
                "a snapshot with memory needs no quiesce: what its guest has not written yet is in the memory; choose one",
            ));
        }
        let request_id = request.request_id.take();
        let spec = JobSpec::TakeSnapshot(SnapshotSpec { vm, request });
        self.submit(spec, request_id, None, by).await
    }

    /// Takes a machine back to a snapshot.
    pub async fn revert(
        &self,
        vm: VmId,
        snapshot: &Snapshot,
        mut request: RevertSnapshot,
        by: By,
    ) -> Result<Job, Status> {
        if request.name.is_some() && !request.keep_current {
            return Err(Status::invalid(
                "name",
                "it is the name of what is kept: ask for keepCurrent as well, or leave it out",
            ));
        }
        let memory = snapshot.memory && request.memory;
        if memory && snapshot.memory_needs.is_some() {
            let fits = check_qemu(self.world(), snapshot.id).await;
            fits.map_err(|e| disks_alone(e.status))?;
        }
        let request_id = request.request_id.take();
        let spec = JobSpec::RevertVm(RevertSpec {
            vm,
            snapshot: snapshot.id,
            memory,
            request,
        });
        self.submit(spec, request_id, None, by).await
    }

    /// Deletes a snapshot.
    pub async fn delete_snapshot(&self, vm: VmId, snapshot: SnapshotId, by: By) -> Result<Job, Status> {
        let spec = JobSpec::DeleteSnapshot(DeleteSnapshotSpec { vm, snapshot });
        self.submit(spec, None, None, by).await
    }
}

async fn there(tx: &mut Tx, id: SnapshotId) -> Result<Snapshot, DbError> {
    let snapshot = db::snapshots::get(tx.conn(), id).await?;
    Ok(snapshot.ok_or_else(|| Status::not_found("snapshot", id))?)
}

/// Whether a snapshot of the machine may be taken as asked.
pub(super) async fn check_take(tx: &mut Tx, vm: &Vm, request: &TakeSnapshot) -> Result<(), DbError> {
    match request.memory {
        true => can::can_snapshot_memory(vm)?,
        false => can::can_snapshot(vm)?,
    }
    match &request.name {
        Some(name) => super::state::snapshot_name_is_free(tx, vm, name).await,
        None => Ok(()),
    }
}

/// Says to programs how the disks alone go back.
fn disks_alone(mut refused: Status) -> Status {
    refused.details.push(serde_json::json!({
        "@type": "type.googleapis.com/google.rpc.PreconditionFailure",
        "violations": [{"type": "MEMORY", "subject": "memory", "description": "send memory: false"}],
    }));
    refused
}

/// Whether the machine may be taken back as asked.
pub(super) async fn check_revert(tx: &mut Tx, vm: &Vm, spec: &RevertSpec) -> Result<(), DbError> {
    let snapshot = there(tx, spec.snapshot).await?;
    can::can_revert(vm, &snapshot)?;
    if spec.memory {
        can::can_go_on(vm, &snapshot).map_err(disks_alone)?;
    }
    if spec.request.keep_current {
        can::can_snapshot(vm)?;
    }
    match &spec.request.name {
        Some(name) => super::state::snapshot_name_is_free(tx, vm, name).await,
        None => Ok(()),
    }
}

/// Whether the snapshot may be deleted.
pub(super) async fn check_delete(tx: &mut Tx, vm: &Vm, snapshot: SnapshotId) -> Result<(), DbError> {
    Ok(can::can_delete_snapshot(vm, &there(tx, snapshot).await?)?)
}
