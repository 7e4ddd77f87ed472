//! What may be done in which state. Server and console ask the same functions: a button is disabled, with the
//! reason, exactly where the server would refuse.

use crate::copy::Copy;
use crate::fork::ForkPoint;
use crate::image::Upload;
use crate::job::{Job, JobKind, JobState};
use crate::place::{HostState, ISOLATED_NETWORK, Network, OWN_STORAGE, Storage, USER_NETWORK};
use crate::snapshot::{MemoryNeeds, Snapshot, SnapshotState};
use crate::vm::{ConnectNics, LineageKind, PauseReason, PowerAction, Vm, VmState};
use crate::{Code, JobId, Name, Status};

/// Allowed, or the reason why not, as a person reads it.
pub type Verdict = Result<(), Status>;

fn refuse(message: String) -> Verdict {
    Err(Status::precondition(message))
}

/// Nothing new begins on a machine that is being deleted.
fn stays(vm: &Vm) -> Verdict {
    match &vm.locked_by {
        Some(lock) if lock.kind == JobKind::DeleteVm => {
            refuse(format!("{} is being deleted by job {}", vm.name, lock.job))
        }
        _ => Ok(()),
    }
}

/// Whether a host that is called so takes new machines, and starts those that it has.
pub fn can_take(host: &Name, state: HostState) -> Verdict {
    match state {
        HostState::Up => Ok(()),
        HostState::Maintenance => refuse(format!(
            "{host} is in maintenance and takes no machine: wait until that is over, or end it"
        )),
    }
}

/// Whether a machine's power may be changed.
pub fn can_power(action: PowerAction, vm: &Vm) -> Verdict {
    stays(vm)?;
    let name = &vm.name;
    match (action, vm.state) {
        (PowerAction::Start, VmState::Stopped | VmState::Error) => Ok(()),
        (PowerAction::Start, VmState::Starting) => refuse(format!("{name} is starting already")),
        (PowerAction::Start, VmState::Running) => refuse(format!("{name} is running already")),
        (PowerAction::Start, VmState::Paused) => refuse(format!("{name} is paused: resume it instead")),
        (PowerAction::Start, VmState::Stopping) => {
            refuse(format!("{name} is shutting down: wait until it has stopped"))
        }

        (PowerAction::ShutDown, VmState::Running) => Ok(()),
        (PowerAction::ShutDown, VmState::Paused) => refuse(format!(
            "{name} is paused and cannot hear its power button: resume it first, or power it off"
        )),
        (PowerAction::ShutDown, VmState::Stopping) => refuse(format!(
            "{name} is shutting down already; if its guest does not listen, power it off"
        )),
        (PowerAction::Reset, VmState::Running | VmState::Paused | VmState::Stopping) => Ok(()),
        (PowerAction::PowerOff, VmState::Running | VmState::Paused | VmState::Stopping | VmState::Error) => {
            Ok(())
        }
        (PowerAction::ShutDown | PowerAction::Reset, VmState::Error) => {
            refuse(format!("{name} is in error: power it off, or start it again"))
        }
        (PowerAction::ShutDown | PowerAction::PowerOff | PowerAction::Reset, VmState::Stopped) => {
            refuse(format!("{name} is not running"))
        }
        (PowerAction::ShutDown | PowerAction::PowerOff | PowerAction::Reset, VmState::Starting) => {
            refuse(format!("{name} is still starting"))
        }

        (PowerAction::Pause, VmState::Running) => Ok(()),
        (PowerAction::Pause, VmState::Paused) => refuse(format!("{name} is paused already")),
        (PowerAction::Resume, VmState::Paused) => match vm.pause_reason {
            Some(PauseReason::GuestPanicked) => {
                refuse(format!("the kernel of {name} panicked: reset it or power it off"))
            }
            Some(PauseReason::User | PauseReason::NoSpace | PauseReason::IoError) | None => Ok(()),
        },
        (PowerAction::Resume, VmState::Running) => refuse(format!("{name} is running already")),
        (PowerAction::Pause | PowerAction::Resume, VmState::Stopped | VmState::Error) => {
            refuse(format!("{name} is not running"))
        }
        (PowerAction::Pause | PowerAction::Resume, VmState::Starting) => {
            refuse(format!("{name} is still starting"))
        }
        (PowerAction::Pause | PowerAction::Resume, VmState::Stopping) => {
            refuse(format!("{name} is shutting down"))
        }
    }
}

/// Whether NICs of a machine may be connected to their networks, or taken off them.
pub fn can_connect(connected: bool, request: &ConnectNics, vm: &Vm) -> Verdict {
    stays(vm)?;
    let (name, count) = (&vm.name, vm.network_interfaces.len());
    let has = |number| vm.network_interfaces.iter().any(|nic| nic.number == number);
    if let Some(n) = request.nics.iter().find(|n| !has(**n)) {
        let text = match vm.network_interfaces.last() {
            None => format!("{name} has no NIC"),
            Some(last) => format!("{name} has no NIC {n}: its last is {}", last.number),
        };
        return Err(Status::invalid("nics", text));
    }
    match vm.state {
        VmState::Starting => return refuse(format!("{name} is still starting: wait until it runs")),
        VmState::Stopping => return refuse(format!("{name} is shutting down: wait until it has stopped")),
        VmState::Paused if connected && vm.lineage.kind == LineageKind::InstantClone => {
            return refuse(format!(
                "{name} is paused, and its guest cannot take the address of its own: resume it first"
            ));
        }
        VmState::Running | VmState::Paused | VmState::Stopped | VmState::Error => {}
    }
    let mut asked = vm
        .network_interfaces
        .iter()
        .filter(|nic| request.names(nic.number));
    if asked.all(|nic| nic.connected == connected) {
        return refuse(match (count, connected) {
            (0, _) => format!("{name} has no NIC"),
            (_, true) => format!("{name} is connected already"),
            (_, false) => format!("{name} is connected to nothing already"),
        });
    }
    Ok(())
}

/// Whether what a machine is made of may be changed, at once or at its next start.
pub fn can_edit(vm: &Vm) -> Verdict {
    stays(vm)?;
    let name = &vm.name;
    match vm.state {
        VmState::Stopped | VmState::Running | VmState::Paused => Ok(()),
        VmState::Starting => refuse(format!("{name} is still starting: wait until it runs")),
        VmState::Stopping => refuse(format!("{name} is shutting down: wait until it has stopped")),
        VmState::Error => refuse(format!("{name} is in error: power it off, or start it again")),
    }
}

/// Whether what people see of a machine may be changed.
pub fn can_rename(vm: &Vm) -> Verdict {
    stays(vm)
}

/// Whether a snapshot of a machine may be taken.
pub fn can_snapshot(vm: &Vm) -> Verdict {
    stays(vm)?;
    match vm.state {
        VmState::Running | VmState::Paused | VmState::Stopped | VmState::Stopping => Ok(()),
        VmState::Starting => refuse(format!(
            "{} is still starting: take the snapshot when it runs",
            vm.name
        )),
        VmState::Error => refuse(format!(
            "{} is in error: its disks may be in use; power it off first",
            vm.name
        )),
    }
}

/// Whether a snapshot with memory may be taken.
pub fn can_snapshot_memory(vm: &Vm) -> Verdict {
    can_snapshot(vm)?;
    match vm.state {
        VmState::Running => Ok(()),
        VmState::Paused => refuse(format!(
            "{} is paused, and its memory is captured while it runs: resume it first, or leave the memory out",
            vm.name
        )),
        VmState::Stopped | VmState::Starting | VmState::Stopping | VmState::Error => refuse(format!(
            "{} is not running: there is no memory to keep; leave it out",
            vm.name
        )),
    }
}

fn ready(vm: &Vm, snapshot: &Snapshot) -> Verdict {
    match snapshot.state {
        SnapshotState::Ready => Ok(()),
        SnapshotState::Creating => refuse(format!(
            "snapshot {} of {} is still being taken",
            snapshot.name, vm.name
        )),
    }
}

/// Whether a machine may be taken back to this snapshot.
pub fn can_revert(vm: &Vm, snapshot: &Snapshot) -> Verdict {
    stays(vm)?;
    ready(vm, snapshot)?;
    match vm.state {
        VmState::Running | VmState::Paused | VmState::Stopped | VmState::Stopping | VmState::Error => Ok(()),
        VmState::Starting => refuse(format!("{} is still starting: wait until it runs", vm.name)),
    }
}

/// Whether the memory of a snapshot can go on in its machine, as that is now.
pub fn can_go_on(vm: &Vm, snapshot: &Snapshot) -> Verdict {
    let Some(then) = &snapshot.memory_needs else {
        return Ok(());
    };
    let now = MemoryNeeds::of(vm);
    let mut differ = Vec::new();
    for (what, then, now) in [
        ("processors", then.cpus, now.cpus),
        ("MiB of memory", then.memory_mib, now.memory_mib),
        ("NICs", then.nics, now.nics),
    ] {
        if then != now {
            differ.push(format!("{then} {what} then and {now} now"));
        }
    }
    if then.nics == now.nics && !then.slots.is_empty() && then.slots != now.slots {
        differ.push("its NICs in other PCI slots".to_owned());
    }
    if differ.is_empty() {
        return Ok(());
    }
    refuse(format!(
        "the memory of snapshot {} cannot go on in {}, which had {}: its disks alone can go back",
        snapshot.name,
        vm.name,
        differ.join(", ")
    ))
}

/// Whether a snapshot may be deleted.
pub fn can_delete_snapshot(vm: &Vm, snapshot: &Snapshot) -> Verdict {
    stays(vm)?;
    ready(vm, snapshot)
}

/// Whether a machine may be cloned from its latest successful snapshot.
pub fn can_clone_latest(vm: &Vm) -> Verdict {
    stays(vm)?;
    if vm.latest_snapshot.is_none() {
        return refuse(format!(
            "{} has no snapshot to clone from: take a snapshot first, or choose \"snapshot now and clone\" (snapshotNow)",
            vm.name
        ));
    }
    Ok(())
}

/// Whether a machine may be cloned from this snapshot.
pub fn can_clone_from(vm: &Vm, snapshot: &Snapshot) -> Verdict {
    stays(vm)?;
    ready(vm, snapshot)
}

/// Whether a machine may be cloned from a snapshot taken now.
pub fn can_clone_now(vm: &Vm) -> Verdict {
    can_snapshot(vm)
}

/// Whether a running machine may be forked.
pub fn can_fork(vm: &Vm) -> Verdict {
    stays(vm)?;
    match vm.state {
        VmState::Running => Ok(()),
        VmState::Paused => refuse(format!("{} is paused: resume it, then fork it", vm.name)),
        VmState::Starting => refuse(format!("{} is still starting: fork it when it runs", vm.name)),
        VmState::Stopping => refuse(format!("{} is shutting down", vm.name)),
        VmState::Stopped | VmState::Error => refuse(format!(
            "{} is not running: an instant clone goes on where a running machine is; start it, or make a clone from a snapshot",
            vm.name
        )),
    }
}

/// Whether a fork point may be forked.
pub fn can_fork_point(point: &ForkPoint) -> Verdict {
    match point.state {
        SnapshotState::Ready => Ok(()),
        SnapshotState::Creating => refuse(format!("fork point {} is still being taken", point.name)),
    }
}

/// Whether a fork point may be deleted.
pub fn can_delete_point(point: &ForkPoint) -> Verdict {
    can_fork_point(point)?;
    match point.clones {
        0 => Ok(()),
        1 => refuse(format!(
            "1 machine stands on fork point {}: delete that first",
            point.name
        )),
        n => refuse(format!(
            "{n} machines stand on fork point {}: delete those first",
            point.name
        )),
    }
}

/// Whether a disk of a machine may be written to a file: of a snapshot, of one taken now, or as it is.
pub fn can_export(vm: &Vm, of_snapshot: bool, now: bool) -> Verdict {
    stays(vm)?;
    match vm.state {
        _ if now => can_snapshot(vm),
        _ if of_snapshot => Ok(()),
        VmState::Stopped => Ok(()),
        VmState::Error | VmState::Starting | VmState::Running | VmState::Paused | VmState::Stopping => {
            refuse(format!(
                "{} is {}: export one of its snapshots, take one now (snapshotNow), or power it off first",
                vm.name,
                vm.state.word().to_lowercase()
            ))
        }
    }
}

/// Whether an upload may become an image.
pub fn can_finish(upload: &Upload) -> Verdict {
    if upload.received_bytes == upload.size_bytes {
        return Ok(());
    }
    refuse(format!(
        "{} of the {} bytes of {} have arrived: send the rest first",
        upload.received_bytes, upload.size_bytes, upload.name
    ))
}

/// Whether a machine may be deleted.
pub fn can_delete(vm: &Vm) -> Verdict {
    stays(vm)?;
    match vm.state {
        VmState::Stopped | VmState::Error => Ok(()),
        VmState::Starting | VmState::Running | VmState::Paused | VmState::Stopping => refuse(format!(
            "{} is {}: power it off before you delete it",
            vm.name,
            vm.state.word().to_lowercase()
        )),
    }
}

/// Whether a storage may be deleted.
pub fn can_delete_storage(storage: &Storage) -> Verdict {
    let name = &storage.name;
    match storage.layers {
        _ if storage.default => refuse(format!(
            "{name} is where new disks go: make another storage the default first"
        )),
        _ if storage.name.as_str() == OWN_STORAGE => {
            refuse(format!("{name} is that of the server's own directory"))
        }
        0 => Ok(()),
        1 => refuse(format!(
            "1 layer is in {name}: delete the machine or image that has it first"
        )),
        n => refuse(format!(
            "{n} layers are in {name}: delete the machines and images that have them first"
        )),
    }
}

/// Whether a network may be deleted.
pub fn can_delete_network(network: &Network) -> Verdict {
    let name = &network.name;
    can_rename_network(network)?;
    match network.nics {
        0 => Ok(()),
        1 => refuse(format!("1 NIC is on {name}: move it to another network first")),
        n => refuse(format!(
            "{n} NICs are on {name}: move them to another network first"
        )),
    }
}

/// Whether a network may get another name.
pub fn can_rename_network(network: &Network) -> Verdict {
    if [USER_NETWORK, ISOLATED_NETWORK].contains(&network.name.as_str()) {
        return refuse(format!("{} is always there", network.name));
    }
    Ok(())
}

/// Whether a storage may get another name.
pub fn can_rename_storage(storage: &Storage) -> Verdict {
    if storage.name.as_str() == OWN_STORAGE {
        return refuse(format!("{} is that of the server's own directory", storage.name));
    }
    Ok(())
}

/// Whether a machine's snapshot may be copied; one that is taken for it asks as a snapshot does.
pub fn can_copy(vm: &Vm, snapshot: Option<&Snapshot>, memory: bool) -> Verdict {
    stays(vm)?;
    match snapshot {
        Some(snapshot) => can_clone_from(vm, snapshot),
        None if memory => can_snapshot_memory(vm),
        None => can_snapshot(vm),
    }
}

/// Whether a copy may be removed.
pub fn can_delete_copy(copy: &Copy) -> Verdict {
    if copy.legal_hold {
        return refuse(format!(
            "the copy of {} of {} is under legal hold: take that back first",
            copy.vm_name, copy.snapshot_time
        ));
    }
    Ok(())
}

/// Whether disks of a copy may take the place of a machine's, or come beside them.
pub fn can_restore_onto(vm: &Vm) -> Verdict {
    stays(vm)?;
    match vm.state {
        VmState::Stopped | VmState::Error => Ok(()),
        _ => refuse(format!("{} is not off: stop it first", vm.name)),
    }
}

/// Whether a job may be made to stand still.
pub fn can_hold(job: &Job) -> Verdict {
    if job.kind != JobKind::CopySnapshot {
        return refuse("only a copy can be held".to_owned());
    }
    match job.state {
        JobState::Queued | JobState::Running | JobState::OnHold => Ok(()),
        JobState::Unwinding | JobState::UndoBlocked => {
            refuse(format!("copy task {} is being undone", job.id))
        }
        JobState::Succeeded | JobState::Failed | JobState::Cancelled => {
            refuse(format!("copy task {} is over", job.id))
        }
    }
}

/// Whether a job may be let go on.
pub fn can_release(job: &Job) -> Verdict {
    match job.state {
        JobState::OnHold => Ok(()),
        _ => refuse(format!("job {} does not stand still", job.id)),
    }
}

/// Whether a job is a cycle of a migration.
fn is_cycle(job: &Job) -> bool {
    let number = || job.spec.peek::<u64>("/copySnapshot/migration/number");
    job.kind == JobKind::CopySnapshot && number().is_some()
}

/// The cutover whose machine a job brings.
fn cutover(job: &Job) -> Option<JobId> {
    let cutover = || job.spec.peek("/restoreCopy/migration/cutover");
    (job.kind == JobKind::RestoreCopy).then(cutover).flatten()
}

/// Whether somebody may cancel a job.
pub fn can_cancel(job: &Job) -> Verdict {
    can_stop(job)?;
    match cutover(job) {
        // When its cutover is over, what it brings home has been written to.
        Some(cutover) => refuse(format!(
            "job {} brings the machine of cutover {cutover}: cancel that as long as it may be",
            job.id
        )),
        None => Ok(()),
    }
}

/// Whether a job may still be ended and undone, by somebody or by the job that asked for it.
pub fn can_stop(job: &Job) -> Verdict {
    let aborted = |message: String| Err(Status::new(Code::FailedPrecondition, message));
    match job.state {
        JobState::Queued | JobState::Running | JobState::OnHold if job.no_return => aborted(format!(
            "job {} is past its point of no return: it can only be finished",
            job.id
        )),
        JobState::Queued | JobState::Running | JobState::OnHold => Ok(()),
        JobState::Unwinding | JobState::UndoBlocked => {
            aborted(format!("job {} is undoing what it did already", job.id))
        }
        JobState::Succeeded => aborted(format!(
            "job {} has succeeded: it no longer touches what it made; delete that yourself if you do not want it",
            job.id
        )),
        JobState::Failed => aborted(format!("job {} has failed, and what it did is undone", job.id)),
        JobState::Cancelled => aborted(format!("job {} is cancelled already", job.id)),
    }
}

/// Whether a job may be tried again, as a new job.
pub fn can_retry(job: &Job) -> Verdict {
    match job.state {
        JobState::Failed | JobState::Cancelled if is_cycle(job) => refuse(format!(
            "job {} is a cycle of a migration, which begins the next one itself: ask for it to be now instead",
            job.id
        )),
        JobState::Failed | JobState::Cancelled if cutover(job).is_some() => refuse(format!(
            "job {} was a part of a cutover: cut over again instead",
            job.id
        )),
        JobState::Failed | JobState::Cancelled => Ok(()),
        JobState::Succeeded => refuse(format!(
            "job {} has succeeded: there is nothing to try again",
            job.id
        )),
        _ => refuse(format!("job {} is not over: wait, or cancel it", job.id)),
    }
}

/// Limits of what may be asked, checked by server and form alike.
pub mod limit {
    use crate::vm::Firmware;
    use crate::{Code, Status};

    /// Most processors of a machine.
    pub const CPUS: u32 = 64;
    /// Least memory of a machine, in MiB.
    pub const MIN_MEMORY_MIB: u32 = 64;
    /// Least memory of a machine with EFI, in MiB.
    pub const EFI_MEMORY_MIB: u32 = 256;
    /// Most memory of a machine, in MiB.
    pub const MAX_MEMORY_MIB: u32 = 1 << 20;
    /// Most disks of a machine.
    pub const DISKS: usize = 16;
    /// Most NICs of a machine.
    pub const NICS: usize = 8;
    /// Largest disk, in GiB.
    pub const DISK_GIB: u32 = 65_536;
    /// Largest part of a cloud-init seed, in bytes.
    pub const CLOUD_INIT_BYTES: usize = 64 * 1024;
    /// Longest time for a boot, in seconds.
    pub const BOOT_TIMEOUT_SECONDS: u32 = 3600;
    /// Last turn of a machine that is started with its host.
    pub const TURN: u32 = 9999;
    /// Longest subject of an OpenID Connect provider, in bytes.
    pub const SUBJECT_BYTES: usize = 255;
    /// Longest description, in bytes.
    pub const DESCRIPTION_BYTES: usize = 4096;

    /// Number of processors.
    pub fn cpus(field: &str, n: u32) -> Result<(), Status> {
        within(field, u64::from(n), 1, u64::from(CPUS), "processors")
    }

    /// Memory, in MiB.
    pub fn memory(field: &str, mib: u32) -> Result<(), Status> {
        within(
            field,
            u64::from(mib),
            u64::from(MIN_MEMORY_MIB),
            u64::from(MAX_MEMORY_MIB),
            "MiB",
        )
    }

    /// Whether the firmware has room: it crashes in less.
    pub fn efi_memory(field: &str, firmware: Firmware, mib: u32) -> Result<(), Status> {
        if firmware == Firmware::Efi && mib < EFI_MEMORY_MIB {
            return Err(Status::invalid(
                field,
                format_args!("an EFI machine needs at least {EFI_MEMORY_MIB} MiB"),
            ));
        }
        Ok(())
    }

    /// A number between two others.
    pub fn within(field: &str, n: u64, least: u64, most: u64, unit: &str) -> Result<(), Status> {
        if (least..=most).contains(&n) {
            Ok(())
        } else {
            Err(Status::invalid(
                field,
                format_args!("{n} is not between {least} and {most} {unit}"),
            ))
        }
    }

    /// A text that is not too long.
    pub fn length(field: &str, text: &str, most: usize) -> Result<(), Status> {
        if text.len() <= most {
            Ok(())
        } else {
            let why = format!("{} bytes are more than the {most} allowed", text.len());
            Err(Status {
                code: Code::InvalidArgument,
                ..Status::invalid(field, why)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::{Condition, Firmware, Lineage, LineageKind};
    use crate::{HostId, SnapshotId, Timestamp, VmId};
    use proptest::prelude::*;
    use uuid::Uuid;

    const T: Timestamp = Timestamp::from_micros(1);

    fn vm() -> Vm {
        Vm {
            id: VmId(Uuid::nil()),
            name: "web-1".parse().unwrap(),
            state: VmState::Stopped,
            running_since: None,
            pause_reason: None,
            error: None,
            cpus: 1,
            memory_mib: 128,
            firmware: Firmware::Bios,
            disks: vec![],
            network_interfaces: vec![],
            labels: Default::default(),
            host: HostId(Uuid::nil()),
            bios_uuid: Uuid::nil(),
            lineage: Lineage {
                kind: LineageKind::Created,
                source_image: None,
                source_vm: None,
                source_snapshot: None,
                fork_point: None,
                job: None,
            },
            locked_by: None,
            current_snapshot: None,
            latest_snapshot: None,
            description: String::new(),
            autostart: None,
            at_next_start: None,
            create_time: T,
            generation: 0,
        }
    }

    #[test]
    fn kept_memory_goes_on_in_the_same_machine_only_and_all_that_differs_is_said() {
        let mut vm = vm();
        let snapshot = Snapshot {
            id: SnapshotId(Uuid::nil()),
            vm: vm.id,
            name: "kept".parse().unwrap(),
            description: String::new(),
            parent: None,
            current: true,
            state: SnapshotState::Ready,
            consistency: crate::snapshot::Consistency::Online,
            memory: true,
            memory_bytes: Some(1),
            memory_needs: Some(MemoryNeeds::of(&vm)),
            pause_micros: None,
            allocated_bytes: 0,
            create_time: T,
            generation: 0,
        };
        assert_eq!(can_go_on(&vm, &snapshot), Ok(()));
        (vm.cpus, vm.memory_mib) = (2, 256);
        let why = can_go_on(&vm, &snapshot).unwrap_err().message;
        assert!(
            why.contains("1 processors then and 2 now, 128 MiB of memory then and 256 now"),
            "{why}"
        );
    }

    #[test]
    fn an_efi_firmware_has_its_room() {
        let ok = |firmware, mib| limit::efi_memory("memoryMib", firmware, mib).is_ok();
        assert!(ok(Firmware::Bios, 64) && ok(Firmware::Efi, 256) && !ok(Firmware::Efi, 255));
    }

    #[test]
    fn what_runs_is_exported_by_a_snapshot() {
        let mut vm = vm();
        assert!(can_export(&vm, false, false).is_ok());
        set(&mut vm, Condition::Starting).unwrap();
        assert!(can_export(&vm, false, true).is_err(), "it is still starting");
        set(&mut vm, Condition::Running { since: T }).unwrap();
        let why = can_export(&vm, false, false).unwrap_err().message;
        assert!(
            why.contains("web-1 is running") && why.contains("snapshotNow"),
            "{why}"
        );
        assert!(can_export(&vm, true, false).is_ok() && can_export(&vm, false, true).is_ok());
    }

    fn set(vm: &mut Vm, to: Condition) -> Result<(), String> {
        let (state, since, reason, error) = to.into_parts();
        if state != vm.state && !vm.state.can_become(state) {
            return Err(format!("{} became {state}", vm.state));
        }
        (vm.state, vm.running_since, vm.pause_reason, vm.error) = (state, since, reason, error);
        vm.condition().map(drop).map_err(|e| e.to_string())
    }

    #[derive(Clone, Debug)]
    enum Event {
        Power(PowerAction),
        Snapshot,
        Delete,
        GuestShutsDown,
        QemuDies,
        DiskFull,
        Panics,
        RoomAgain,
        StartFails,
    }

    fn events() -> impl Strategy<Value = Event> {
        prop_oneof![
            5 => prop::sample::select(PowerAction::ALL).prop_map(Event::Power),
            1 => Just(Event::Snapshot),
            1 => Just(Event::Delete),
            1 => Just(Event::GuestShutsDown),
            1 => Just(Event::QemuDies),
            1 => Just(Event::DiskFull),
            1 => Just(Event::Panics),
            1 => Just(Event::RoomAgain),
            1 => Just(Event::StartFails),
        ]
    }

    /// What the server does when the action is allowed, state by state.
    fn power(vm: &mut Vm, action: PowerAction) -> Result<(), String> {
        let since = vm.running_since.unwrap_or(T);
        let running = Condition::Running { since };
        match action {
            PowerAction::Start => {
                set(vm, Condition::Starting)?;
                set(vm, running)
            }
            PowerAction::ShutDown => set(vm, Condition::Stopping { since }),
            PowerAction::PowerOff => set(vm, Condition::Stopped),
            // A guest that was paused when it is reset runs afterwards.
            PowerAction::Reset if vm.state == VmState::Running => Ok(()),
            PowerAction::Reset | PowerAction::Resume => set(vm, running),
            PowerAction::Pause => set(
                vm,
                Condition::Paused {
                    since,
                    reason: PauseReason::User,
                },
            ),
        }
    }

    proptest! {
        #[test]
        fn what_is_allowed_never_leads_to_what_the_model_forbids(all in prop::collection::vec(events(), 1..60)) {
            let mut vm = vm();
            let mut gone = false;
            for event in all {
                let since = vm.running_since.unwrap_or(T);
                let done = match event {
                    Event::Power(action) => match can_power(action, &vm) {
                        Ok(()) => power(&mut vm, action),
                        Err(why) => {
                            prop_assert!(why.message.contains("web-1"), "a reason names the machine: {}", why);
                            Ok(())
                        }
                    },
                    Event::Snapshot => {
                        if can_snapshot(&vm).is_ok() {
                            prop_assert!(vm.state != VmState::Starting && vm.state != VmState::Error);
                            vm.latest_snapshot = Some(SnapshotId(Uuid::nil()));
                        }
                        prop_assert_eq!(can_clone_latest(&vm).is_ok(), vm.latest_snapshot.is_some());
                        Ok(())
                    }
                    Event::Delete => {
                        if can_delete(&vm).is_ok() {
                            prop_assert!(!vm.state.has_process(), "deleted while its QEMU runs");
                            gone = true;
                        }
                        Ok(())
                    }
                    Event::GuestShutsDown | Event::QemuDies if vm.state.has_process() => set(&mut vm, Condition::Stopped),
                    Event::DiskFull if vm.state == VmState::Running =>
                        set(&mut vm, Condition::Paused { since, reason: PauseReason::NoSpace }),
                    Event::Panics if vm.state == VmState::Running =>
                        set(&mut vm, Condition::Paused { since, reason: PauseReason::GuestPanicked }),
                    Event::RoomAgain if vm.pause_reason == Some(PauseReason::NoSpace) =>
                        set(&mut vm, Condition::Running { since }),
                    Event::StartFails if vm.state == VmState::Stopped => {
                        set(&mut vm, Condition::Starting).and_then(|()|
                            set(&mut vm, Condition::Error { error: Status::precondition("no QEMU") }))
                    }
                    _ => Ok(()),
                };
                prop_assert_eq!(done, Ok(()));
                if gone {
                    break;
                }
            }
        }
    }

    #[test]
    fn every_action_in_every_state_has_a_verdict_with_a_reason() {
        for &action in PowerAction::ALL {
            for &state in VmState::ALL {
                let vm = Vm { state, ..vm() };
                if let Err(why) = can_power(action, &vm) {
                    assert_eq!(why.code, Code::FailedPrecondition);
                    assert!(why.message.len() > 15, "{action} in {state}: {why}");
                }
            }
        }
    }

    #[test]
    fn a_machine_being_deleted_takes_nothing_new() {
        let job = crate::JobId(Uuid::nil());
        let vm = Vm {
            locked_by: Some(crate::vm::LockedBy {
                job,
                kind: JobKind::DeleteVm,
            }),
            ..vm()
        };
        for verdict in [
            can_power(PowerAction::Start, &vm),
            can_connect(false, &ConnectNics::default(), &vm),
            can_snapshot(&vm),
            can_edit(&vm),
            can_clone_latest(&vm),
            can_delete(&vm),
        ] {
            assert!(verdict.unwrap_err().message.contains("being deleted"));
        }
    }
}
