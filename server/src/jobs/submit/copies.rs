//! Requests about copies.

use super::By;
use crate::db::{self, DbError, Tx};
use crate::jobs::Jobs;
use crate::jobs::check::check_labels;
use crate::jobs::kinds::boot_pattern;
use shared::can::{self, limit};
use shared::copy::{BootCopy, BootSpec, Copy, CopySpec, CreateCopyTask, OutsideVm, RestoreCopy, RestoreSpec};
use shared::job::{Job, JobSpec};
use shared::migrate::{CloneOf, CycleOf, MigratingVm};
use shared::target::{PruneSpec, Target, VerifySpec, VerifyTarget};
use shared::vm::Vm;
use shared::{PolicyId, RunId, Status, VmId};

/// What asks for a copy beside a person.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The policy.
    pub policy: Option<PolicyId>,
    /// The run.
    pub run: Option<RunId>,
    /// The cycle of a migration.
    pub migration: Option<CycleOf>,
}

impl Jobs {
    /// Copies a snapshot of a machine to a target.
    pub async fn copy_snapshot(
        &self,
        vm: &Vm,
        mut request: CreateCopyTask,
        asked: Asked,
        by: By,
    ) -> Result<Job, Status> {
        if request.snapshot.is_some() && (request.memory || request.quiesce) {
            return Err(Status::invalid(
                "snapshot",
                "memory and quiesce are of a snapshot that is taken for it: leave them out, or the snapshot",
            ));
        }
        if request.memory && request.quiesce {
            return Err(Status::invalid(
                "quiesce",
                "a snapshot with memory needs no quiesce: choose one",
            ));
        }
        let db = &self.world().db;
        let target = db::targets::known(db, &request.target).await?.target;
        let snapshot = match &request.snapshot {
            Some(reference) => {
                let found = db::snapshots::find(db, vm.id, reference).await?;
                Some(found.ok_or_else(|| Status::not_found("snapshot", reference))?.id)
            }
            None => None,
        };
        let request_id = request.request_id.take();
        let spec = CopySpec {
            vm: vm.id,
            vm_name: vm.name.clone(),
            target: target.id,
            target_name: target.name,
            snapshot,
            policy: asked.policy,
            run: asked.run,
            migration: asked.migration,
            outside: None,
            request,
        };
        self.submit(JobSpec::CopySnapshot(spec), request_id, None, by)
            .await
    }

    /// Uploads a machine that is not of this server.
    pub(in crate::jobs) async fn copy_outside(
        &self,
        vm: &MigratingVm,
        mut request: CreateCopyTask,
        asked: Asked,
        by: By,
    ) -> Result<Job, Status> {
        let request_id = request.request_id.take();
        let spec = CopySpec {
            // Its copies are known by the migration.
            vm: VmId(vm.id.0),
            vm_name: vm.name.clone(),
            target: vm.target,
            target_name: vm.target_name.clone(),
            snapshot: None,
            policy: None,
            run: None,
            migration: asked.migration,
            outside: Some(OutsideVm {
                source: vm.source,
                id: vm.source_vm.clone(),
            }),
            request,
        };
        self.submit(JobSpec::CopySnapshot(spec), request_id, None, by)
            .await
    }

    /// Brings a copy back.
    pub async fn restore(&self, copy: &Copy, request: RestoreCopy, by: By) -> Result<Job, Status> {
        self.restore_for(copy, request, None, by).await
    }

    /// Brings a copy back, for a migration perhaps.
    pub(in crate::jobs) async fn restore_for(
        &self,
        copy: &Copy,
        mut request: RestoreCopy,
        migration: Option<CloneOf>,
        by: By,
    ) -> Result<Job, Status> {
        request.check()?;
        let mut changed = None;
        if let Some(vm) = &mut request.vm {
            limit::within(
                "vm.cpus",
                u64::from(vm.cpus.unwrap_or(copy.machine.cpus)),
                1,
                512,
                "processors",
            )?;
            let memory = vm.memory_mib.unwrap_or(copy.machine.memory_mib);
            limit::efi_memory("vm.memoryMib", copy.machine.firmware, memory)?;
            check_labels("vm.labels", &vm.labels)?;
            self.resolve_storage(vm.storage.as_mut()).await?;
            self.resolve_nics("vm.networkInterfaces", vm.network_interfaces.as_mut())
                .await?;
            if vm.instant {
                vm.start = true;
            }
        }
        if let Some(over) = &mut request.over {
            let vm = self.machine("over.vm", &over.vm).await?;
            if over.confirm != vm.name.as_str() {
                let why = format!("what {0} has now is lost: confirm it by its name, {0}", vm.name);
                return Err(Status::invalid("over.confirm", why));
            }
            if vm.firmware != copy.machine.firmware {
                let why = format!("{} has another firmware than what was copied", vm.name);
                return Err(Status::invalid("over.vm", why));
            }
            over.start |= over.instant;
            changed = Some(vm.id);
        }
        if let Some(disks) = &request.disks {
            changed = Some(self.machine("disks.vm", &disks.vm).await?.id);
            let has = |number: &u32| copy.disks.iter().any(|d| d.number == *number && d.slot != 0);
            if let Some(number) = disks.numbers.iter().find(|n| !has(n)) {
                return Err(Status::invalid(
                    "disks.numbers",
                    format!("the copy has no disk {number}"),
                ));
            }
        }
        if let Some(file) = &request.file
            && !copy.disks.iter().any(|d| d.number == file.disk && d.slot != 0)
        {
            return Err(Status::invalid(
                "file.disk",
                format!("the copy has no disk {}", file.disk),
            ));
        }
        let request_id = request.request_id.take();
        let spec = RestoreSpec {
            copy: copy.id,
            vm: changed,
            of: copy.vm_name.clone(),
            migration,
            request,
        };
        self.submit(JobSpec::RestoreCopy(spec), request_id, None, by)
            .await
    }

    async fn machine(&self, field: &str, reference: &str) -> Result<Vm, Status> {
        let found = db::vms::find(&self.world().db, reference).await?;
        found.ok_or_else(|| Status::invalid(field, format_args!("there is no VM {reference}")))
    }

    /// Boots a copy, to see that it does.
    pub async fn boot_copy(&self, copy: &Copy, request: BootCopy, by: By) -> Result<Job, Status> {
        limit::within(
            "bootTimeoutSeconds",
            u64::from(request.boot_timeout_seconds),
            1,
            3600,
            "seconds",
        )?;
        if let Some(pattern) = &request.boot_pattern {
            boot_pattern(pattern)?;
        }
        let spec = BootSpec {
            copy: copy.id,
            of: copy.vm_name.clone(),
            request,
        };
        self.submit(JobSpec::BootCopy(spec), None, None, by).await
    }

    /// Looks at all that a target has, or at a sample.
    pub async fn verify_target(&self, target: &Target, request: VerifyTarget, by: By) -> Result<Job, Status> {
        limit::within("percent", u64::from(request.percent), 1, 100, "percent")?;
        let spec = VerifySpec {
            target: target.id,
            target_name: target.name.clone(),
            request,
        };
        self.submit(JobSpec::VerifyTarget(spec), None, None, by).await
    }

    /// Takes out of a target what no copy needs.
    pub async fn prune_target(&self, target: &Target, by: By) -> Result<Job, Status> {
        let spec = PruneSpec {
            target: target.id,
            target_name: target.name.clone(),
        };
        self.submit(JobSpec::PruneTarget(spec), None, None, by).await
    }
}

/// Whether what is asked is still possible.
pub(super) async fn check(tx: &mut Tx, spec: &JobSpec, vm: Option<&Vm>) -> Result<(), DbError> {
    match (spec, vm) {
        (JobSpec::CopySnapshot(spec), Some(vm)) => {
            target_is_there(tx, &spec.target.to_string()).await?;
            let snapshot = match spec.snapshot {
                Some(id) => {
                    let found = db::snapshots::get(tx.conn(), id).await?;
                    Some(found.ok_or_else(|| Status::not_found("snapshot", id))?)
                }
                None => None,
            };
            Ok(can::can_copy(vm, snapshot.as_ref(), spec.request.memory)?)
        }
        (JobSpec::CopySnapshot(spec), None) => target_is_there(tx, &spec.target.to_string()).await,
        (JobSpec::RestoreCopy(spec), vm) => {
            let copy = db::copies::get(tx.conn(), spec.copy).await?;
            copy.ok_or_else(|| Status::not_found("copy", spec.copy))?;
            if let Some(vm) = vm {
                can::can_restore_onto(vm)?;
            }
            match &spec.request.vm {
                Some(new) => super::state::name_is_free(tx, &new.name).await,
                None => Ok(()),
            }
        }
        (JobSpec::BootCopy(spec), _) => {
            let copy = db::copies::get(tx.conn(), spec.copy).await?;
            copy.ok_or_else(|| Status::not_found("copy", spec.copy))?;
            Ok(())
        }
        (JobSpec::VerifyTarget(spec), _) => target_is_there(tx, &spec.target.to_string()).await,
        (JobSpec::PruneTarget(spec), _) => target_is_there(tx, &spec.target.to_string()).await,
        _ => Ok(()),
    }
}

async fn target_is_there(tx: &mut Tx, id: &str) -> Result<(), DbError> {
    let found = db::targets::get(tx.conn(), id).await?;
    found.ok_or_else(|| Status::not_found("target", id))?;
    Ok(())
}
