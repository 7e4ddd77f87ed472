//! Requests become jobs: checked, resolved to ids, and written down in one transaction with their first event.

mod snapshots;

use super::{Jobs, kinds};
use crate::db::{self, DbError, Tx, now};
use shared::can::{self, limit};
use shared::clone::CloneVm;
use shared::feed::Noun;
use shared::fork::{self, InstantClone};
use shared::job::{
    CloneSpec, ConnectSpec, DeletePointSpec, DeleteSpec, ForkSpec, Job, JobSpec, JobState, PowerSpec,
    Resource, ResourceRole, Step, StepState,
};
use shared::seed::fault::{Fault, MethodFault};
use shared::seed::instant_clone::VirtualMachineInstantCloneSpec;
use shared::vm::{CloudInit, ConnectNics, CreateVm, NewDisk, NewNic, PowerAction, Vm};
use shared::{Code, ForkPointId, JobId, Name, Status, VmId};
use std::collections::BTreeMap;
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
        let world = self.world();
        for (n, disk) in request.disks.iter_mut().enumerate() {
            if let NewDisk::Image(disk) = disk {
                let image = db::images::find(&world.db, &disk.image).await?;
                let image = image.ok_or_else(|| Status::not_found("image", &disk.image))?;
                if let Some(gib) = disk.size_gib
                    && u64::from(gib) << 30 < image.virtual_bytes
                {
                    let least = image.virtual_bytes.div_ceil(1 << 30);
                    return Err(Status::invalid(
                        &format!("disks[{n}].sizeGib"),
                        format_args!("image {} needs at least {least} GiB", image.name),
                    ));
                }
                disk.image = image.id.to_string();
            }
        }
        self.resolve_nics("networkInterfaces", request.network_interfaces.as_mut())
            .await?;
        let request_id = request.request_id.take();
        self.submit(JobSpec::CreateVm(request), request_id, None, by)
            .await
    }

    /// Changes a machine's power.
    pub async fn power(&self, vm: VmId, action: PowerAction, by: By) -> Result<Job, Status> {
        self.submit(JobSpec::PowerVm(PowerSpec { vm, action }), None, None, by)
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

    /// Sets a machine's labels, at once.
    pub async fn set_labels(&self, vm: VmId, labels: BTreeMap<String, String>) -> Result<(), Status> {
        check_labels("labels", &labels)?;
        let found = self
            .world()
            .db
            .write(move |tx| Box::pin(async move { db::vms::set_labels(tx, vm, &labels).await }))
            .await?;
        found.then_some(()).ok_or_else(|| Status::not_found("VM", vm))
    }

    /// Tries a job again, as a new one.
    pub async fn retry(&self, id: JobId, by: By) -> Result<Job, Status> {
        let stored = db::jobs::by_id(&self.world().db, id).await?;
        let old = stored.ok_or_else(|| Status::not_found("job", id))?.job;
        can::can_retry(&old)?;
        self.submit(old.spec, None, Some(id), by).await
    }

    async fn resolve_nics(&self, field: &str, nics: Option<&mut Vec<NewNic>>) -> Result<(), Status> {
        let Some(nics) = nics else { return Ok(()) };
        limit::within(field, nics.len() as u64, 0, limit::NICS as u64, "NICs")?;
        let networks = db::places::networks(&self.world().db).await?;
        for (n, nic) in nics.iter_mut().enumerate() {
            let known = networks
                .iter()
                .find(|k| k.name.as_str() == nic.network || k.id.to_string() == nic.network);
            nic.network = known
                .ok_or_else(|| Status::not_found("network", &nic.network))?
                .id
                .to_string();
            if let Some(mac) = &nic.mac {
                check_mac(&format!("{field}[{n}].mac"), mac)?;
            }
        }
        Ok(())
    }

    async fn submit(
        &self,
        spec: JobSpec,
        request_id: Option<Uuid>,
        retry_of: Option<JobId>,
        By(by): By,
    ) -> Result<Job, Status> {
        let (job, fresh) = self
            .world()
            .db
            .write(move |tx| Box::pin(write_down(tx, spec, request_id, retry_of, by)))
            .await?;
        if fresh {
            self.enqueue(&job);
        }
        Ok(job)
    }
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
    check_state(tx, &mut spec, vm.as_ref()).await?;
    let resources = vm
        .iter()
        .map(|vm| Resource {
            noun: Noun::Vm,
            id: vm.id.to_string(),
            name: vm.name.clone(),
            role: ResourceRole::Source,
        })
        .collect();
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
    let mut job = Job {
        id: JobId(Uuid::now_v7()),
        kind: spec.kind(),
        state: JobState::Queued,
        spec,
        steps,
        resources,
        outcome: Default::default(),
        error: None,
        unwind_cause: None,
        blocked: None,
        hold_reason: None,
        no_return: false,
        retry_of,
        created_by: by,
        create_time,
        start_time: None,
        state_time: create_time,
        end_time: None,
        generation: 0,
    };
    job.generation = db::jobs::insert(tx, &job, request_id).await?;
    Ok((job, true))
}

/// Whether two requests ask the same: the snapshot that was chosen for the first does not count.
fn same_request(old: &JobSpec, new: &JobSpec) -> bool {
    match (old, new) {
        (JobSpec::CloneVm(old), JobSpec::CloneVm(new)) => old.vm == new.vm && old.request == new.request,
        _ => old == new,
    }
}

/// Asks `can` whether the state allows it, and chooses the snapshot of a clone job.
async fn check_state(tx: &mut Tx, spec: &mut JobSpec, vm: Option<&Vm>) -> Result<(), DbError> {
    let starts = matches!(spec, JobSpec::PowerVm(spec) if spec.action == PowerAction::Start)
        || matches!(spec, JobSpec::RevertVm(spec) if spec.memory || spec.request.start);
    let forks = matches!(spec, JobSpec::InstantCloneVm(_));
    if starts || forks || matches!(spec, JobSpec::CreateVm(_) | JobSpec::CloneVm(_)) {
        let host = db::places::host(tx).await?;
        let fault = |e| if forks { Fault::InvalidState.of(e) } else { e };
        can::can_take(&host.name, host.state).map_err(fault)?;
    }
    match (spec, vm) {
        (JobSpec::CreateVm(request), _) => name_is_free(tx, &request.name).await,
        (JobSpec::PowerVm(spec), Some(vm)) => Ok(can::can_power(spec.action, vm)?),
        (JobSpec::ConnectVm(spec), Some(vm)) => Ok(can::can_connect(spec.connected, &spec.request, vm)?),
        (JobSpec::TakeSnapshot(spec), Some(vm)) => snapshots::check_take(tx, vm, &spec.request).await,
        (JobSpec::RevertVm(spec), Some(vm)) => snapshots::check_revert(tx, vm, spec).await,
        (JobSpec::DeleteSnapshot(spec), Some(vm)) => snapshots::check_delete(tx, vm, spec.snapshot).await,
        (JobSpec::InstantCloneVm(spec), vm) => {
            for name in spec.request.given() {
                name_is_free(tx, name).await?;
            }
            if let Some(name) = &spec.request.point_name
                && db::fork_points::name_taken(tx, name).await?
            {
                return Err(Status::new(
                    Code::AlreadyExists,
                    format!("there is a fork point called {name} already: choose another name"),
                )
                .into());
            }
            match (spec.point, vm) {
                (Some(id), _) => {
                    let point = db::fork_points::get(tx.conn(), id).await?;
                    let point = point.ok_or_else(|| Status::not_found("fork point", id))?;
                    Ok(can::can_fork_point(&point.point)?)
                }
                (None, Some(vm)) => Ok(can::can_fork(vm).map_err(|e| Fault::InvalidState.of(e))?),
                (None, None) => Ok(()),
            }
        }
        (JobSpec::DeleteForkPoint(spec), _) => {
            let point = db::fork_points::get(tx.conn(), spec.point).await?;
            let point = point
                .ok_or_else(|| Status::not_found("fork point", spec.point))?
                .point;
            can::can_delete_point(&point)?;
            if db::fork_points::in_use(tx, spec.point).await? {
                let message = format!(
                    "a job is at work on fork point {}: wait until it is over",
                    point.name
                );
                return Err(Status::precondition(message).into());
            }
            Ok(())
        }
        (JobSpec::DeleteVm(_), Some(vm)) => Ok(can::can_delete(vm)?),
        (JobSpec::CloneVm(spec), Some(vm)) => {
            if let Some(name) = spec.request.target.as_ref().and_then(|t| t.name.as_ref()) {
                name_is_free(tx, name).await?;
            }
            if let Some(now) = &spec.request.snapshot_now {
                can::can_clone_now(vm)?;
                if let Some(name) = &now.name {
                    snapshot_name_is_free(tx, vm, name).await?;
                }
                return Ok(());
            }
            let chosen = match spec.snapshot {
                Some(chosen) => Some(chosen),
                None => {
                    can::can_clone_latest(vm)?;
                    vm.latest_snapshot
                }
            };
            if let Some(id) = chosen {
                let snapshot = db::snapshots::get(tx.conn(), id).await?;
                let snapshot = snapshot.ok_or_else(|| Status::not_found("snapshot", id))?;
                can::can_clone_from(vm, &snapshot)?;
            }
            spec.snapshot = chosen;
            Ok(())
        }
        // `write_down` reads the machine of every spec that has one.
        (_, None) => Ok(()),
    }
}

async fn name_is_free(tx: &mut Tx, name: &Name) -> Result<(), DbError> {
    if db::vms::name_taken(tx, name).await? {
        return Err(Status::new(
            Code::AlreadyExists,
            format!("there is a VM called {name} already: choose another name"),
        )
        .into());
    }
    Ok(())
}

async fn snapshot_name_is_free(tx: &mut Tx, vm: &Vm, name: &Name) -> Result<(), DbError> {
    if db::snapshots::name_taken(tx, vm.id, name).await? {
        return Err(Status::new(
            Code::AlreadyExists,
            format!(
                "{} has a snapshot called {name} already: choose another name",
                vm.name
            ),
        )
        .into());
    }
    Ok(())
}

fn check_create(request: &CreateVm) -> Result<(), Status> {
    limit::cpus("cpus", request.cpus)?;
    limit::memory("memoryMib", request.memory_mib)?;
    can::can_use_firmware(request.firmware)?;
    limit::within(
        "disks",
        request.disks.len() as u64,
        1,
        limit::DISKS as u64,
        "disks",
    )?;
    for (n, disk) in request.disks.iter().enumerate() {
        let gib = match disk {
            NewDisk::Blank(disk) => Some(disk.size_gib),
            NewDisk::Image(disk) => disk.size_gib,
        };
        if let Some(gib) = gib {
            let most = u64::from(limit::DISK_GIB);
            limit::within(&format!("disks[{n}].sizeGib"), u64::from(gib), 1, most, "GiB")?;
        }
    }
    check_labels("labels", &request.labels)?;
    check_cloud_init("cloudInit", request.cloud_init.as_ref())
}

fn check_clone(request: &CloneVm) -> Result<(), Status> {
    if request.snapshot.is_some() && request.snapshot_now.is_some() {
        return Err(Status::invalid(
            "snapshotNow",
            "give either snapshot or snapshotNow, not both",
        ));
    }
    let Some(target) = &request.target else {
        return Ok(());
    };
    if request.disks_only.is_some() {
        return Err(Status::invalid(
            "disksOnly",
            "give either target or disksOnly, not both",
        ));
    }
    if let Some(n) = target.cpus {
        limit::cpus("target.cpus", n)?;
    }
    if let Some(mib) = target.memory_mib {
        limit::memory("target.memoryMib", mib)?;
    }
    if let Some(labels) = &target.labels {
        check_labels("target.labels", labels)?;
    }
    let most = u64::from(limit::BOOT_TIMEOUT_SECONDS);
    let timeout = u64::from(target.boot_timeout_seconds);
    limit::within("target.bootTimeoutSeconds", timeout, 1, most, "seconds")?;
    if let Some(pattern) = &target.boot_pattern {
        limit::length("target.bootPattern", pattern, 1024)?;
        kinds::boot_pattern(pattern)?;
    }
    check_cloud_init("target.cloudInit", target.cloud_init.as_ref())
}

fn check_fork(request: &InstantClone) -> Result<(), Status> {
    if request.name.is_some() && !request.names.is_empty() {
        return Err(Status::invalid("name", "give either name or names, not both"));
    }
    if let Some(n) = request.count {
        let most = fork::MOST_CLONES as u64;
        limit::within("count", u64::from(n), 1, most, "clones")?;
        if request.given().next().is_some() && n as usize != request.clones().max(request.given().count()) {
            return Err(Status::invalid(
                "count",
                "it is not the number of names that are given",
            ));
        }
    }
    let most = fork::MOST_CLONES as u64;
    limit::within("names", request.clones() as u64, 1, most, "clones")?;
    let mut seen = std::collections::HashSet::new();
    if let Some(twice) = request.given().find(|name| !seen.insert(*name)) {
        return Err(Status::invalid("names", format_args!("{twice} is given twice")));
    }
    if request.bios_uuid.is_some() && request.clones() > 1 {
        return Err(Status::invalid(
            "biosUuid",
            "several clones cannot have one UUID: leave it out, and each gets its own",
        ));
    }
    if request.fork_point.is_some() && request.keep_point {
        return Err(Status::invalid(
            "keepPoint",
            "a fork point that is kept already is forked",
        ));
    }
    if request.point_name.is_some() && !request.keep_point {
        return Err(Status::invalid(
            "pointName",
            "only a point that is kept has a name: give keepPoint too",
        ));
    }
    for key in request.config.keys() {
        let rest = key.strip_prefix("guestinfo.").unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if rest.is_empty() || !rest.chars().all(plain) {
            return Err(Status::invalid(
                "config",
                format_args!("{key:?} is no key like guestinfo.role"),
            ));
        }
    }
    let bytes = serde_json::to_string(&request.config).map_or(0, |text| text.len());
    limit::within("config", bytes as u64, 0, fork::CONFIG_BYTES as u64, "bytes")
}

fn check_labels(field: &str, labels: &BTreeMap<String, String>) -> Result<(), Status> {
    limit::within(field, labels.len() as u64, 0, 64, "labels")?;
    for (key, value) in labels {
        if key.is_empty() || key.len() > 63 {
            return Err(Status::invalid(
                field,
                format_args!("the key {key:?} has not 1 to 63 bytes"),
            ));
        }
        limit::length(&format!("{field}.{key}"), value, 255)?;
    }
    Ok(())
}

fn check_cloud_init(field: &str, ci: Option<&CloudInit>) -> Result<(), Status> {
    let Some(ci) = ci else { return Ok(()) };
    for (part, text) in [
        ("userData", &ci.user_data),
        ("metaData", &ci.meta_data),
        ("networkConfig", &ci.network_config),
    ] {
        if let Some(text) = text {
            limit::length(&format!("{field}.{part}"), text, limit::CLOUD_INIT_BYTES)?;
        }
    }
    Ok(())
}

fn check_mac(field: &str, mac: &str) -> Result<(), Status> {
    let bytes: Vec<_> = mac
        .split(':')
        .map(|part| (part.len(), u8::from_str_radix(part, 16)))
        .collect();
    let whole = bytes.len() == 6 && bytes.iter().all(|(len, byte)| *len == 2 && byte.is_ok());
    match bytes.first() {
        Some((_, Ok(first))) if whole && first & 1 == 0 => Ok(()),
        _ => Err(Status::invalid(
            field,
            format_args!("{mac:?} is no unicast address like 52:54:00:12:34:56"),
        )),
    }
}
