//! Requests become jobs: checked, resolved to ids, and written down in one transaction with their first event.

mod copies;
mod snapshots;
mod state;

pub use copies::Asked;

use super::check::{check_clone, check_create, check_fork, check_labels, check_mac, check_turn};
use super::resolve::{check_forwards, find_network};
use super::{Jobs, kinds};
use crate::db::{self, DbError, Tx, now};
use shared::can::{self, limit};
use shared::clone::CloneVm;
use shared::copy::{CopyProgress, CopySpec};
use shared::edit::{self, EditVm};
use shared::feed::Noun;
use shared::fork::InstantClone;
use shared::job::{
    CloneSpec, ConnectSpec, DeletePointSpec, DeleteSnapshotSpec, DeleteSpec, EditSpec, ForkSpec, Job,
    JobSpec, JobState, PowerSpec, Resource, ResourceRole, RevertSpec, Step, StepState,
};
use shared::place::NetworkKind;
use shared::seed::fault::{Fault, MethodFault};
use shared::seed::instant_clone::VirtualMachineInstantCloneSpec;
use shared::vm::{ConnectNics, CreateVm, Firmware, PatchVm, PowerAction};
use shared::{Code, CopyId, ForkPointId, JobId, Name, Status, Timestamp, VmId};
use uuid::Uuid;

/// How long a request id makes a request idempotent, in microseconds: a day.
const REQUEST_MICROS: i64 = 24 * 3600 * 1_000_000;

/// Who asks.
#[derive(Clone, Debug)]
pub struct By(pub String);

impl Jobs {
    /// Makes a machine.
    pub async fn create_vm(&self, mut request: CreateVm, by: By) -> Result<Job, Status> {
        check_create(&request)?;
        if request.firmware == Firmware::Efi {
            self.world().efi()?;
        }
        for (n, disk) in request.disks.iter_mut().enumerate() {
            self.resolve_disk(&format!("disks[{n}]"), disk).await?;
        }
        self.resolve_storage(request.storage.as_mut()).await?;
        self.resolve_nics("networkInterfaces", request.network_interfaces.as_mut())
            .await?;
        let request_id = request.request_id.take();
        self.submit(JobSpec::CreateVm(request), request_id, None, by)
            .await
    }

    /// Changes a machine's power.
    pub async fn power(&self, vm: VmId, action: PowerAction, by: By) -> Result<Job, Status> {
        self.power_spec(vm, action, None, by).await
    }

    /// Has a guest shut down, and takes the power away if it has not by then.
    pub async fn shut_down(
        &self,
        vm: VmId,
        power_off_after_seconds: Option<u32>,
        by: By,
    ) -> Result<Job, Status> {
        if let Some(seconds) = power_off_after_seconds {
            let most = u64::from(limit::BOOT_TIMEOUT_SECONDS);
            limit::within("powerOffAfterSeconds", u64::from(seconds), 1, most, "seconds")?;
        }
        self.power_spec(vm, PowerAction::ShutDown, power_off_after_seconds, by)
            .await
    }

    async fn power_spec(
        &self,
        vm: VmId,
        action: PowerAction,
        power_off_after_seconds: Option<u32>,
        by: By,
    ) -> Result<Job, Status> {
        let spec = PowerSpec {
            vm,
            action,
            power_off_after_seconds,
        };
        self.submit(JobSpec::PowerVm(spec), None, None, by).await
    }

    /// Changes what a machine is made of.
    pub async fn edit_vm(&self, vm: VmId, mut request: EditVm, by: By) -> Result<Job, Status> {
        let networks = db::places::networks(&self.world().db).await?;
        let now = db::vms::by_id(&self.world().db, vm).await?;
        let now = now.ok_or_else(|| Status::not_found("VM", vm))?;
        // A network may be named by its id: what is the same is known by its name.
        for network in request.change_nics.iter_mut().filter_map(|c| c.network.as_mut()) {
            if let Some(known) = networks.iter().find(|n| n.id.to_string() == *network) {
                *network = known.name.to_string();
            }
        }
        edit::reduce(&now, &mut request);
        if request.firmware == Some(Firmware::Efi) {
            self.world().efi()?;
        }
        for (n, disk) in request.add_disks.iter_mut().enumerate() {
            self.resolve_disk(&format!("addDisks[{n}]"), disk).await?;
        }
        self.resolve_nics("addNics", Some(&mut request.add_nics)).await?;
        let next = now.started_next();
        for (n, change) in request.change_nics.iter_mut().enumerate() {
            let nic = next
                .network_interfaces
                .iter()
                .find(|nic| nic.number == change.nic);
            let on = change.network.as_deref().or(nic.map(|nic| nic.network.as_str()));
            if let Some(on) = on {
                let network = find_network(&networks, on)?;
                let forwards = change.forwards.as_deref().unwrap_or_default();
                check_forwards(&format!("changeNics[{n}].forwards"), network, forwards)?;
                // Ports that lead to it from another network lead nowhere from here.
                if change.network.is_some() && network.kind != NetworkKind::User {
                    change.forwards = Some(Vec::new());
                }
            }
            if let Some(network) = &mut change.network {
                *network = find_network(&networks, network)?.id.to_string();
            }
            if let Some(mac) = &change.mac {
                check_mac(&format!("changeNics[{n}].mac"), mac)?;
            }
        }
        let request_id = request.request_id.take();
        self.submit(JobSpec::EditVm(EditSpec { vm, request }), request_id, None, by)
            .await
    }

    /// Connects NICs of a machine, or takes them off their networks.
    pub async fn connect(
        &self,
        vm: VmId,
        connected: bool,
        request: ConnectNics,
        by: By,
    ) -> Result<Job, Status> {
        let spec = ConnectSpec {
            vm,
            connected,
            request,
        };
        self.submit(JobSpec::ConnectVm(spec), None, None, by).await
    }

    /// Clones a machine: from the snapshot named, or the latest successful one, or one taken now.
    pub async fn clone_vm(&self, vm: VmId, mut request: CloneVm, by: By) -> Result<Job, Status> {
        check_clone(&request)?;
        if let Some(target) = &mut request.target {
            self.resolve_storage(target.storage.as_mut()).await?;
            self.resolve_nics("target.networkInterfaces", target.network_interfaces.as_mut())
                .await?;
        }
        let world = self.world();
        let snapshot = match &request.snapshot {
            Some(reference) => {
                let found = db::snapshots::find(&world.db, vm, reference).await?;
                Some(found.ok_or_else(|| Status::not_found("snapshot", reference))?.id)
            }
            None => None,
        };
        let request_id = request.request_id.take();
        self.submit(
            JobSpec::CloneVm(CloneSpec {
                vm,
                snapshot,
                request,
            }),
            request_id,
            None,
            by,
        )
        .await
    }

    /// Forks a running machine, or an instant of it that was kept.
    pub async fn instant_clone(&self, vm: VmId, mut request: InstantClone, by: By) -> Result<Job, Status> {
        let world = self.world();
        let mut nics = Vec::new();
        if let Some(spec) = request.spec.take() {
            let request_id = request.request_id.take();
            if request != InstantClone::default() {
                return Err(Status::invalid(
                    "spec",
                    "it stands alone: give nothing beside it but requestId",
                ));
            }
            let source = db::vms::by_id(&world.db, vm).await?;
            let source = source.ok_or_else(|| Status::not_found("VM", vm))?;
            let at = world.placement(&source).await?;
            let spec: VirtualMachineInstantCloneSpec =
                serde_json::from_value(spec).map_err(|e| Status::invalid("spec", e))?;
            (request, nics) = spec.request(&at).map_err(MethodFault::status)?;
            request.request_id = request_id;
        }
        check_fork(&request)?;
        let (memory_mib, place, point) = match &request.fork_point {
            Some(reference) => {
                let found = db::fork_points::find(&world.db, reference).await?;
                let found = found
                    .ok_or_else(|| Status::not_found("fork point", reference))?
                    .point;
                if found.vm != vm {
                    return Err(Status::invalid(
                        "forkPoint",
                        format_args!(
                            "{} is a fork point of {}, not of this machine",
                            found.name, found.vm_name
                        ),
                    ));
                }
                (found.memory_mib, found.memory_place, Some(found.id))
            }
            None => {
                let source = db::vms::by_id(&world.db, vm).await?;
                let source = source.ok_or_else(|| Status::not_found("VM", vm))?;
                // Asked again when it is written down; what cannot be at all is said before what there is no room for.
                can::can_fork(&source).map_err(|e| Fault::InvalidState.of(e))?;
                let (_, place) = world.room_for_memory(source.memory_mib, request.keep_point)?;
                (source.memory_mib, place, None)
            }
        };
        world
            .check_memory(memory_mib, request.clones(), point.is_some(), place)
            .await
            .map_err(|e| Fault::InsufficientResourcesFault.of(e))?;
        let request_id = request.request_id.take();
        self.submit(
            JobSpec::InstantCloneVm(ForkSpec {
                vm,
                point,
                nics,
                request,
            }),
            request_id,
            None,
            by,
        )
        .await
    }

    /// Deletes a fork point.
    pub async fn delete_fork_point(&self, point: ForkPointId, by: By) -> Result<Job, Status> {
        self.submit(
            JobSpec::DeleteForkPoint(DeletePointSpec { point }),
            None,
            None,
            by,
        )
        .await
    }

    /// Deletes a machine.
    pub async fn delete_vm(&self, vm: VmId, by: By) -> Result<Job, Status> {
        self.submit(JobSpec::DeleteVm(DeleteSpec { vm }), None, None, by)
            .await
    }

    /// Changes what people see of a machine, at once.
    pub async fn patch_vm(&self, vm: VmId, patch: PatchVm) -> Result<(), Status> {
        if let Some(labels) = &patch.labels {
            check_labels("labels", labels)?;
        }
        if let Some(text) = &patch.description {
            limit::length("description", text, limit::DESCRIPTION_BYTES)?;
        }
        if let Some(turn) = patch.autostart.flatten() {
            check_turn(turn)?;
        }
        let changed = self.world().db.write(move |tx| {
            Box::pin(async move {
                let now = db::vms::get(tx.conn(), vm).await?;
                let now = now.ok_or_else(|| Status::not_found("VM", vm))?;
                can::can_rename(&now)?;
                if let Some(name) = patch.name.as_ref().filter(|name| **name != now.name) {
                    state::name_is_free(tx, name).await?;
                }
                db::hardware::patch(tx, vm, &patch).await.map(drop)
            })
        });
        Ok(changed.await?)
    }

    /// Tries a job again, as a new one.
    pub async fn retry(&self, id: JobId, by: By) -> Result<Job, Status> {
        let stored = db::jobs::by_id(&self.world().db, id).await?;
        let old = stored.ok_or_else(|| Status::not_found("job", id))?.job;
        can::can_retry(&old)?;
        self.submit(old.spec.into_inner(), None, Some(id), by).await
    }

    pub(super) async fn submit(
        &self,
        spec: JobSpec,
        request_id: Option<Uuid>,
        retry_of: Option<JobId>,
        By(by): By,
    ) -> Result<Job, Status> {
        let jobs = self.clone();
        // A caller that goes away, or is cancelled, leaves no job on the books that is not in line.
        let submitted = self.inner.tasks.spawn(async move {
            let db = &jobs.world().db;
            let written = db.write(move |tx| Box::pin(write_down(tx, spec, request_id, retry_of, by)));
            let (job, fresh) = written.await?;
            if fresh {
                jobs.enqueue(&job);
            }
            Ok(job)
        });
        let ended = |_| Status::new(Code::Internal, "write a job down: its task ended early");
        submitted.await.map_err(ended)?
    }

    /// Writes down a copy that has not begun and never will.
    pub(super) async fn submit_failed(
        &self,
        spec: CopySpec,
        request_id: Uuid,
        By(by): By,
        why: NotBegun,
    ) -> Result<(), DbError> {
        let db = &self.world().db;
        db.write(move |tx| Box::pin(write_failed(tx, spec, request_id, by, why)))
            .await
    }
}

/// Why a copy of a policy has not begun.
pub(super) enum NotBegun {
    /// It cannot be made.
    Refused(Status),
    /// Its time passed while it could not run.
    Missed(String),
}

/// Checks the request against what is there now and writes the job; answers it and whether it is new.
async fn write_down(
    tx: &mut Tx,
    mut spec: JobSpec,
    request_id: Option<Uuid>,
    retry_of: Option<JobId>,
    by: String,
) -> Result<(Job, bool), DbError> {
    let create_time = now();
    if let Some(request) = request_id {
        let since = create_time.plus_micros(-REQUEST_MICROS);
        if let Some(job) = db::jobs::by_request(tx.conn(), request, &by, since).await? {
            if !same_request(&job.spec, &spec) {
                return Err(Status::invalid("requestId", "it was used for another request").into());
            }
            return Ok((job, false));
        }
    }
    let vm = match spec.vm() {
        Some(id) => {
            let vm = db::vms::get(tx.conn(), id).await?;
            Some(vm.ok_or_else(|| Status::not_found("VM", id))?)
        }
        None => None,
    };
    state::check(tx, &mut spec, vm.as_ref()).await?;
    let mut resources: Vec<Resource> = vm
        .iter()
        .map(|vm| Resource {
            noun: Noun::Vm,
            id: vm.id.to_string(),
            name: vm.name.clone(),
            role: ResourceRole::Source,
        })
        .collect();
    // Its title names it before anything is done.
    if let JobSpec::RevertVm(RevertSpec { snapshot, .. })
    | JobSpec::DeleteSnapshot(DeleteSnapshotSpec { snapshot, .. }) = &spec
        && let Some(snapshot) = db::snapshots::get(tx.conn(), *snapshot).await?
    {
        resources.push(Resource {
            noun: Noun::Snapshot,
            id: snapshot.id.to_string(),
            name: snapshot.name,
            role: ResourceRole::Source,
        });
    }
    let mut job = queued(spec, resources, by, create_time);
    job.retry_of = retry_of;
    job.generation = db::jobs::insert(tx, &job, request_id).await?;
    if let JobSpec::CopySnapshot(CopySpec {
        migration: Some(cycle),
        ..
    }) = &*job.spec
    {
        super::migrations::begun(tx, cycle, job.id).await?;
    }
    if let JobSpec::AdaptCopy(spec) = &*job.spec
        && !spec.check
    {
        super::migrations::adapting(tx, spec, job.id).await?;
    }
    Ok((job, true))
}

/// A job that nothing has been done of.
fn queued(spec: JobSpec, resources: Vec<Resource>, by: String, create_time: Timestamp) -> Job {
    let steps = kinds::of(spec.kind())
        .plan(&spec)
        .iter()
        .map(|plan| Step {
            name: plan.name.to_owned(),
            state: if plan.wanted {
                StepState::Waiting
            } else {
                StepState::Skipped
            },
            start_time: None,
            end_time: None,
            done_bytes: None,
            total_bytes: None,
            done_count: None,
            total_count: None,
            message: None,
        })
        .collect();
    Job {
        id: JobId(Uuid::now_v7()),
        kind: spec.kind(),
        state: JobState::Queued,
        spec: spec.into(),
        steps,
        resources,
        outcome: Default::default(),
        error: None,
        unwind_cause: None,
        blocked: None,
        hold_reason: None,
        no_return: false,
        retry_of: None,
        created_by: by,
        create_time,
        start_time: None,
        state_time: create_time,
        end_time: None,
        generation: 0,
    }
}

/// Writes down a copy of a machine that failed before it could begin, or was missed: nothing is asked of the machine.
async fn write_failed(
    tx: &mut Tx,
    spec: CopySpec,
    request_id: Uuid,
    by: String,
    why: NotBegun,
) -> Result<(), DbError> {
    let time = now();
    let since = time.plus_micros(-REQUEST_MICROS);
    if db::jobs::by_request(tx.conn(), request_id, &by, since)
        .await?
        .is_some()
    {
        return Ok(());
    }
    let resource = |noun, id: String, name: &Name| Resource {
        noun,
        id,
        name: name.clone(),
        role: ResourceRole::Source,
    };
    let resources = vec![
        resource(Noun::Vm, spec.vm.to_string(), &spec.vm_name),
        resource(Noun::Target, spec.target.to_string(), &spec.target_name),
    ];
    let mut job = queued(JobSpec::CopySnapshot(spec), resources, by, time);
    db::jobs::insert(tx, &job, Some(request_id)).await?;
    job.state = JobState::Failed;
    job.end_time = Some(time);
    job.error = Some(match why {
        NotBegun::Refused(status) => status,
        NotBegun::Missed(text) => {
            let mut missed = CopyProgress::of(CopyId(job.id.0));
            missed.missed = true;
            job.outcome.copy = Some(Box::new(missed));
            Status::new(Code::DeadlineExceeded, text)
        }
    });
    db::jobs::save(tx, &job, &serde_json::Value::Null).await
}

/// Whether two requests ask the same: the snapshot that was chosen for the first does not count.
fn same_request(old: &JobSpec, new: &JobSpec) -> bool {
    match (old, new) {
        (JobSpec::CloneVm(old), JobSpec::CloneVm(new)) => old.vm == new.vm && old.request == new.request,
        _ => old == new,
    }
}
