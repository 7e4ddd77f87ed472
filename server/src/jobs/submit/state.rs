//! Whether what is there now allows what is asked for.

use super::{copies, snapshots};
use crate::db::{self, DbError, Tx};
use crate::jobs::check::check_ports;
use shared::can::{self, limit};
use shared::edit::{self, EditVm, PortForward};
use shared::job::JobSpec;
use shared::migrate::can::Verb;
use shared::seed::fault::Fault;
use shared::vm::{PowerAction, Vm};
use shared::{Code, Name, Status};

/// Asks `can` whether the state allows it, and chooses the snapshot of a clone job.
pub(super) async fn check(tx: &mut Tx, spec: &mut JobSpec, vm: Option<&Vm>) -> Result<(), DbError> {
    let starts = matches!(spec, JobSpec::PowerVm(spec) if spec.action == PowerAction::Start)
        || matches!(spec, JobSpec::RevertVm(spec) if spec.memory || spec.request.start);
    let forks = matches!(spec, JobSpec::InstantCloneVm(_));
    if starts || forks || matches!(spec, JobSpec::CreateVm(_) | JobSpec::CloneVm(_)) {
        let host = db::places::host(tx).await?;
        let fault = |e| if forks { Fault::InvalidState.of(e) } else { e };
        can::can_take(&host.name, host.state).map_err(fault)?;
    }
    match (&mut *spec, vm) {
        (JobSpec::CreateVm(request), _) => {
            let nics = request.network_interfaces.iter().flatten();
            forwards_are_free(tx, None, nics.flat_map(|n| &n.forwards)).await?;
            name_is_free(tx, &request.name).await
        }
        (JobSpec::EditVm(spec), Some(vm)) => {
            can::can_edit(vm)?;
            edit::check(vm, &spec.request)?;
            forwards_are_free(tx, Some((vm, &spec.request)), asked_ports(&spec.request)).await
        }
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
        (
            JobSpec::ImportImage(_)
            | JobSpec::ImageOfSnapshot(_)
            | JobSpec::ExportDisk(_)
            | JobSpec::DeleteImage(_),
            vm,
        ) => crate::jobs::images::check(tx, spec, vm).await,
        (
            JobSpec::CopySnapshot(_)
            | JobSpec::RestoreCopy(_)
            | JobSpec::BootCopy(_)
            | JobSpec::AdaptCopy(_)
            | JobSpec::VerifyTarget(_)
            | JobSpec::PruneTarget(_),
            vm,
        ) => copies::check(tx, spec, vm).await,
        (JobSpec::CutOver(spec), _) => {
            let (id, verb) = (spec.migrating_vm, Verb::CutOver);
            crate::jobs::migrations::check(tx, id, verb).await
        }
        (JobSpec::FinalizeMigration(spec), _) => {
            let (id, verb) = (spec.migrating_vm, Verb::Finalize);
            crate::jobs::migrations::check(tx, id, verb).await
        }
        (JobSpec::CutOverGroup(spec), _) => crate::jobs::migrations::check_group(tx, &spec.group).await,
        (JobSpec::DeleteVm(_), Some(vm)) => Ok(can::can_delete(vm)?),
        (JobSpec::CloneVm(spec), Some(vm)) => {
            if let Some(mib) = spec.request.target.as_ref().and_then(|t| t.memory_mib) {
                limit::efi_memory("target.memoryMib", vm.firmware, mib)?;
            }
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

/// The ports of the host that an edit asks for.
fn asked_ports(request: &EditVm) -> impl Iterator<Item = &PortForward> {
    let added = request.add_nics.iter().flat_map(|n| &n.forwards);
    let changed = request
        .change_nics
        .iter()
        .flat_map(|n| n.forwards.iter().flatten());
    added.chain(changed)
}

/// Whether ports of the host are nobody else's: a machine could not be started while another listens there.
async fn forwards_are_free(
    tx: &mut Tx,
    edited: Option<(&Vm, &EditVm)>,
    asked: impl Iterator<Item = &PortForward> + Send,
) -> Result<(), DbError> {
    let asked: Vec<&PortForward> = asked.collect();
    let twice = |n: &usize| asked[..*n].iter().any(|other| other.meets(asked[*n]));
    if let Some(n) = (0..asked.len()).find(twice) {
        let why = format_args!("port {} of the host is given twice", asked[n].host_port);
        return Err(Status::invalid("forwards", why).into());
    }
    if asked.is_empty() {
        return Ok(());
    }
    for (vm, name, number, forwards) in db::hardware::forwards(tx).await? {
        // What it has now, and will not have then.
        let replaced = edited.is_some_and(|(edited, request)| {
            edited.id == vm
                && (request.remove_nics.contains(&number)
                    || request
                        .change_nics
                        .iter()
                        .any(|c| c.nic == number && c.forwards.is_some()))
        });
        let meets = |forward: &&PortForward| forwards.iter().any(|other| other.meets(forward));
        if let Some(forward) = asked.iter().copied().find(meets).filter(|_| !replaced) {
            let message = format!(
                "port {} of the host leads to {name} already: choose another, or take it from there",
                forward.host_port
            );
            return Err(Status::new(Code::AlreadyExists, message).into());
        }
    }
    let next = edited.map(|(vm, _)| vm.started_next());
    let has = next.iter().flat_map(|vm| &vm.network_interfaces);
    let has: Vec<_> = has.flat_map(|nic| nic.forwards.clone()).collect();
    Ok(check_ports(asked.into_iter(), &has)?)
}

pub(super) async fn name_is_free(tx: &mut Tx, name: &Name) -> Result<(), DbError> {
    if db::vms::name_taken(tx, name).await? {
        return Err(Status::new(
            Code::AlreadyExists,
            format!("there is a VM called {name} already: choose another name"),
        )
        .into());
    }
    Ok(())
}

pub(super) async fn snapshot_name_is_free(tx: &mut Tx, vm: &Vm, name: &Name) -> Result<(), DbError> {
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
