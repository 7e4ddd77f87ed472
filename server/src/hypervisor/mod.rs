//! Machines that run: one trait; `qemu` is the real one, `sim` answers at once, for tests and load.

pub mod qemu;
pub mod sim;

use async_trait::async_trait;
use shared::clone::{Proof, ProofStrength};
use shared::edit::PortForward;
use shared::fork::{Identity, MemoryUse};
use shared::place::{Accelerator, NetworkKind};
use shared::vm::PauseReason;
use shared::{LayerId, Name, NetworkId, VmId};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::broadcast;
use uuid::Uuid;

pub use crate::disks::{LayerFile, Progress};

/// A disk of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSpec {
    /// Its number.
    pub number: u32,
    /// Its PCI slot; 0 for the variables of the firmware.
    pub slot: u32,
    /// Its layers: the base first, the active one last.
    pub chain: Vec<LayerFile>,
}

impl DiskSpec {
    /// Whether it is no disk of the guest's, but the variables of its firmware.
    pub fn is_variables(&self) -> bool {
        self.slot == 0
    }
}

/// A NIC of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicSpec {
    /// Its number.
    pub number: u32,
    /// Its PCI slot.
    pub slot: u32,
    /// Its address, as `52:54:00:…`.
    pub mac: String,
    /// What it is connected to.
    pub kind: NetworkKind,
    /// Which network that is.
    pub network: NetworkId,
    /// Ports of the host that lead to it, for [`NetworkKind::User`].
    pub forwards: Vec<PortForward>,
    /// The host's bridge, for [`NetworkKind::Bridge`].
    pub bridge: Option<String>,
    /// Whether it is connected to it.
    pub connected: bool,
}

/// All that a machine is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineSpec {
    /// Its id.
    pub id: VmId,
    /// Its name.
    pub name: Name,
    /// Number of processors.
    pub cpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// What its firmware shows.
    pub bios_uuid: Uuid,
    /// The generation id: new for every copy of a machine.
    pub vmgenid: Uuid,
    /// Its disks, in boot order, and the variables of its firmware, where it is EFI.
    pub disks: Vec<DiskSpec>,
    /// The file of its firmware; BIOS if none.
    pub firmware: Option<PathBuf>,
    /// Its NoCloud seed, if it has one.
    pub seed: Option<PathBuf>,
    /// The PCI slot of that.
    pub seed_slot: u32,
    /// Its NICs.
    pub nics: Vec<NicSpec>,
    /// What its guest can read about itself.
    pub config: BTreeMap<String, String>,
}

/// Whether a machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// There is no process.
    Stopped,
    /// The guest's processors run.
    Running,
    /// The guest stands still, its memory kept.
    Paused(PauseReason),
}

/// How a machine came to be stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The guest shut itself down.
    GuestShutDown,
    /// Somebody took its power away.
    Killed,
    /// Its process ended by itself; with the last lines of its log.
    Crashed(String),
}

/// A change of a machine's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineEvent {
    /// The machine.
    pub vm: VmId,
    /// Its state from now on.
    pub state: RunState,
    /// How it came to be stopped, where it is.
    pub ended: Option<Ended>,
}

/// What can be asked of a running machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Press the power button: the guest shuts down if it likes.
    ShutDown,
    /// Reset, as by the button.
    Reset,
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
}

/// What a person can be connected to of a running machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// The screen, the keyboard and the pointer: RFB, for any number of clients.
    Screen,
    /// The serial port, for one client at a time. Its guest waits for one that does not read.
    Serial,
}

/// A disk's active layer, to be frozen, and the one that is written from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSwitch {
    /// Active until now.
    pub old: LayerFile,
    /// An overlay on `old` that exists already.
    pub new: LayerFile,
}

/// Layers of a disk that are to be merged into one above them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerMerge {
    /// Takes what they say, and stands on `base` from then on.
    pub into: LayerFile,
    /// Whether that is frozen: else the guest writes into it.
    pub frozen: bool,
    /// Stays as it is; with none `into` stands on nothing from then on.
    pub base: Option<LayerFile>,
    /// What is between them, the lowest first.
    pub between: Vec<LayerId>,
}

/// What freezing the disks took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frozen {
    /// How long the switch took, in microseconds; 0 where an earlier call had done it.
    pub micros: u64,
}

/// The files of a frozen moment that machines are forked from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its id.
    pub id: Uuid,
    /// The guest's memory. Forks map it privately; nobody writes it again.
    pub memory: PathBuf,
    /// The state of its devices; it is there when the point is whole.
    pub state: PathBuf,
    /// How many of its NICs were connected to a network of kind USER: the state has what QEMU kept for each.
    pub user_networks: usize,
}

/// The devices that a running machine has still, or has not yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unfit {
    /// Numbers of disks.
    pub disks: Vec<u32>,
    /// Numbers of NICs.
    pub nics: Vec<u32>,
    /// Why, a line for each.
    pub why: Vec<String>,
}

/// What capturing a running machine took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// How long it stood still, in microseconds; 0 where an earlier call had done it.
    pub pause_micros: u64,
    /// How much of its memory travelled, in bytes.
    pub copied_bytes: u64,
    /// Whether it wrote its memory faster than that travels, and had to be stopped for the rest.
    pub forced: bool,
    /// How often the host had been too slow for it before, and the machine was let go on.
    pub again: usize,
}

/// What proves that a guest has booted.
#[derive(Clone, Debug)]
pub struct BootExpectation {
    /// A line of the serial port that proves it: then nothing else does.
    pub pattern: Option<regex::Regex>,
    /// How long it may take.
    pub timeout: Duration,
}

/// Why something could not be done to a machine.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum HvError {
    #[error("{op} machine {vm}: it is not running")]
    NotRunning { op: &'static str, vm: VmId },
    #[error("start machine {vm}: QEMU ended at once{}", log_text(log))]
    Start { vm: VmId, log: String },
    #[error("start machine {vm}: {why}")]
    Spec { vm: VmId, why: String },
    #[error(
        "connect machine {vm} to bridge {bridge}: {why}. The bridge has to be there, and the server has to run as root or \
         with CAP_NET_ADMIN and the program ip (systemd: AmbientCapabilities=CAP_NET_ADMIN)"
    )]
    Bridge { vm: VmId, bridge: String, why: String },
    #[error("connect machine {vm} to an isolated network: its switch does not run: {why}")]
    Switch { vm: VmId, why: String },
    #[error("run {0}: it is not installed; install the package qemu-system-x86")]
    NotInstalled(PathBuf),
    #[error("the directory {path} is too long for the sockets of a machine: it may have at most {max} bytes")]
    PathTooLong { path: PathBuf, max: usize },
    #[error("{op} machine {vm}: QEMU has not answered within {seconds} s")]
    TimedOut {
        op: &'static str,
        vm: VmId,
        seconds: u64,
    },
    #[error("{op} machine {vm}: QEMU refuses: {why}")]
    Refused { op: &'static str, vm: VmId, why: String },
    #[error("{op} machine {vm}: the connection to QEMU is lost")]
    Lost {
        op: &'static str,
        vm: VmId,
        #[source]
        source: io::Error,
    },
    #[error("{op} machine {vm}: it is still running")]
    StillRunning { op: &'static str, vm: VmId },
    #[error("freeze the disks of machine {vm}: layer {layer} is not the active one of any disk")]
    NotActive { vm: VmId, layer: LayerId },
    #[error(
        "fork machine {0}: its guest writes memory faster than it can be captured; it runs on. Try again when it \
         has less to do"
    )]
    TooBusy(VmId),
    #[error(
        "fork machine {vm}: it would have taken longer than the {millis} ms that a machine may stand still for it, however \
         often it was tried; it runs on. The host is too busy: try again when it has less to do"
    )]
    TooSlow { vm: VmId, millis: u128 },
    #[error(
        "fork machine {0}: an earlier try has frozen its disks and was interrupted before its memory was whole; it runs \
         on. Ask again"
    )]
    MomentLost(VmId),
    #[error(
        "fork machine {vm}: block job {id} ({kind}) works on its disks, and they cannot be switched over meanwhile; wait \
         for its end, or cancel it"
    )]
    BlockJob { vm: VmId, kind: String, id: String },
    #[error("machine {0} has no guest agent that answers")]
    NoAgent(VmId),
    #[error("the guest agent of machine {vm} could not {op}: {why}")]
    Agent { op: &'static str, vm: VmId, why: String },
    #[error("{op} {path}")]
    Io {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("step {step} fails because the name {name} asks for it")]
    Simulated { step: String, name: String },
}

fn log_text(log: &str) -> String {
    if log.is_empty() {
        " and said nothing".into()
    } else {
        format!(": {log}")
    }
}

impl HvError {
    /// Names the operation and the file of an I/O error.
    pub fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { op, path, source }
    }

    /// Whether the same call may well succeed a little later.
    pub fn transient(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::Lost { .. })
    }
}

/// Why a guest is not known to have booted.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum BootError {
    #[error("the guest's kernel panicked: {0}")]
    Panic(String),
    #[error("the firmware found nothing to boot: {0}")]
    NoBootableDevice(String),
    #[error("the machine stopped before its guest had booted{}", log_text(.0))]
    Ended(String),
    #[error(
        "no sign of a booted guest within {seconds} s: {last}; its screen is kept: displayed, not booted"
    )]
    Timeout { seconds: u64, last: String },
    #[error("watch the guest boot")]
    Watch(#[source] HvError),
}

/// Whom a boot is told of, line by line.
pub type Say<'a> = &'a (dyn for<'s> Fn(&'s str) + Send + Sync);

/// What runs machines on this host. Every operation may be repeated, and its future dropped, at any time.
#[async_trait]
pub trait Hypervisor: Send + Sync {
    /// How guests run.
    fn accelerator(&self) -> Accelerator;

    /// The version of what runs them.
    async fn version(&self) -> Result<String, HvError>;

    /// Powers a machine on, and returns when the guest's processors run. A machine that has a process is left as it is.
    async fn start(&self, spec: &MachineSpec) -> Result<(), HvError>;

    /// Finds a machine that was started by an earlier server, and watches it again.
    async fn adopt(&self, vm: VmId) -> Result<RunState, HvError>;

    /// The state now.
    async fn state(&self, vm: VmId) -> RunState;

    /// Asks something of a running machine.
    async fn control(&self, vm: VmId, what: Control) -> Result<(), HvError>;

    /// Takes the power away, and returns when the process is gone.
    async fn kill(&self, vm: VmId) -> Result<(), HvError>;

    /// Freezes the active layers of a running machine, all in one moment. What is done already is left as it is.
    async fn freeze_disks(&self, vm: VmId, switch: &[DiskSwitch]) -> Result<Frozen, HvError>;

    /// Merges layers of a running machine; its guest goes on meanwhile.
    async fn merge_layers(&self, vm: VmId, merge: &LayerMerge, progress: Progress<'_>)
    -> Result<(), HvError>;

    /// Captures memory, devices and disks of a running machine in one moment, and lets it go on; whatever fails, it goes on
    /// first. A point that is whole is left as it is.
    async fn capture(
        &self,
        source: &MachineSpec,
        switch: &[DiskSwitch],
        point: &Point,
    ) -> Result<Captured, HvError>;

    /// Has the process of a fork wait for a point, and load it if it is captured already: then the fork runs at once. One that
    /// has a process is not started again.
    async fn await_point(&self, spec: &MachineSpec, point: &Point) -> Result<(), HvError>;

    /// Has a process wait for a fork of a captured point that nobody has asked for yet. Its name, its seed and what its guest
    /// is told are those of the spec that it is awaited with.
    async fn keep_ready(&self, spec: &MachineSpec, point: &Point) -> Result<(), HvError>;

    /// Ends processes that an earlier server kept ready, but those of `known` machines.
    async fn end_unasked(&self, known: &HashSet<VmId>) -> Result<(), HvError>;

    /// Ends what is left of a capture, and removes the point's files. Machines that run from them go on.
    async fn drop_point(&self, point: &Point) -> Result<(), HvError>;

    /// Gives the guest of a fork its identity. What it sends is swallowed until [`Self::connect`] joins its NICs to networks.
    /// A guest that has not taken its address by itself is asked through its agent; without one its NICs are replugged.
    /// `beside` others do the same at this moment.
    async fn settle(&self, spec: &MachineSpec, beside: usize) -> Result<Identity, HvError>;

    /// Whether this host has such a bridge.
    fn has_bridge(&self, bridge: &str) -> bool;

    /// Joins the NICs of a running machine to their networks, and takes those off that are not to be connected.
    async fn connect(&self, spec: &MachineSpec) -> Result<(), HvError>;

    /// Gives a running machine the disks and NICs of `spec`, and takes those out that are not in it. What cannot be so while
    /// it runs is left as it is, and told.
    async fn refit(&self, spec: &MachineSpec) -> Result<Unfit, HvError>;

    /// Has a running machine's active layer show so many bytes.
    async fn grow(&self, vm: VmId, layer: LayerId, virtual_bytes: u64) -> Result<(), HvError>;

    /// Has the guest agent shut the guest down.
    async fn shut_down_by_agent(&self, vm: VmId) -> Result<(), HvError>;

    /// What the memory of a running machine of this size costs the host.
    async fn memory(&self, vm: VmId, memory_mib: u32) -> Result<MemoryUse, HvError>;

    /// Starts a machine that goes on where the point stands still, and returns when it does. A machine that has a process
    /// is left as it is.
    async fn fork(&self, spec: &MachineSpec, point: &Point) -> Result<(), HvError>;

    /// Has the guest agent freeze the file systems; returns how many. They are thawed by [`Self::unquiesce`], by any
    /// error, and after half a minute.
    async fn quiesce(&self, vm: VmId) -> Result<u32, HvError>;

    /// Thaws the file systems.
    async fn unquiesce(&self, vm: VmId) -> Result<(), HvError>;

    /// The screen, as PNG.
    async fn screen(&self, vm: VmId) -> Result<Vec<u8>, HvError>;

    /// Connects to a running machine.
    async fn dial(&self, vm: VmId, port: Port) -> Result<UnixStream, HvError>;

    /// Where the serial port is written to, since power-on. It is cut to nothing when it grows too long.
    fn serial_log(&self, vm: VmId) -> PathBuf;

    /// Waits until the guest is seen to have booted, or not to. `say` is told what is seen on the way.
    async fn watch_boot(&self, vm: VmId, expect: &BootExpectation, say: Say<'_>) -> Result<Proof, BootError>;

    /// Every change of state from now on.
    fn events(&self) -> broadcast::Receiver<MachineEvent>;

    /// Lets machines that wait for room on a full storage go on, where there is some. Happens by itself too.
    async fn hurry(&self) {}

    /// Removes what is kept of a stopped machine, but none of its layers.
    async fn forget(&self, vm: VmId) -> Result<(), HvError>;

    /// Where tests make a step wait or fail, by the names of what it works on.
    async fn gate(&self, _names: &[&str], _step: &str) -> Result<(), HvError> {
        Ok(())
    }

    /// The simulator, if this is it.
    fn as_sim(&self) -> Option<&sim::Sim> {
        None
    }
}
