//! Instant clones: machines forked from a running one, memory and all, and the points in time that they are forked from.

use crate::place::Accelerator;
use crate::snapshot::SnapshotState;
use crate::vm::{Firmware, Nic};
use crate::{ForkPointId, Name, Timestamp, VmId, words};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

words! {
    /// What becomes of the NICs of an instant clone.
    pub enum ForkNics {
        /// They join the networks of the source's, each when the guest has taken its new address.
        Keep = "KEEP",
        /// They stay connected to nothing.
        Disconnect = "DISCONNECT",
    }

    /// How a guest came by the identity of a clone.
    pub enum Identity {
        /// A hook in the guest took the new address by itself.
        Hook = "HOOK",
        /// The guest agent was asked to.
        Agent = "AGENT",
        /// Its NICs were taken out and put in again.
        Replugged = "REPLUGGED",
        /// Not at all: it has the source's addresses, and is connected to nothing.
        Unchanged = "UNCHANGED",
    }

    /// What a frozen memory is kept in.
    pub enum MemoryPlace {
        /// The host's memory.
        Ram = "RAM",
        /// A disk.
        Disk = "DISK",
    }
}

/// Most clones of one request.
pub const MOST_CLONES: usize = 64;
/// Most bytes of `config`, as JSON: the guest reads it from a file of fixed size.
pub const CONFIG_BYTES: usize = 56 << 10;

/// A request for instant clones of one and the same instant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstantClone {
    /// The name of the one clone; not together with `names`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// The names of the clones, 1 to 64; made from the source's if none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<Name>,
    /// How many clones, where no name is given; 1 if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// What becomes of their NICs; disconnected if not given, since a copied address takes production down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_interfaces: Option<ForkNics>,
    /// What the guests can read about themselves: `guestinfo.…` keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
    /// The UUID that the one clone's firmware shows, from its next reset on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bios_uuid: Option<uuid::Uuid>,
    /// Keep the instant, so that it can be forked from again.
    #[serde(default)]
    pub keep_point: bool,
    /// The name that it is kept under; made from the source's and the time if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point_name: Option<Name>,
    /// The name or id of a fork point that was kept: the source is not touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork_point: Option<String>,
    /// VMware's [`VirtualMachineInstantCloneSpec`](crate::seed::instant_clone::VirtualMachineInstantCloneSpec), instead of
    /// everything above. As JSON here: a request is part of its job, and the console need not know the whole of that type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub spec: Option<serde_json::Value>,
    /// A UUID that makes the request idempotent for a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<uuid::Uuid>,
}

/// What becomes of one NIC of a clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ForkNic {
    /// Its address; a new one if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Whether it joins the network of the source's; as the request says for all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<bool>,
}

impl InstantClone {
    /// How many clones it asks for.
    pub fn clones(&self) -> usize {
        match (self.names.len(), self.count) {
            (0, Some(n)) => n as usize,
            (0, None) => 1,
            (n, _) => n,
        }
    }

    /// The names that it gives.
    pub fn given(&self) -> impl Iterator<Item = &Name> {
        self.name.iter().chain(&self.names)
    }
}

/// An instant that is kept: memory, devices and disks of a machine, to be forked from as often as wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ForkPoint {
    /// Its id.
    pub id: ForkPointId,
    /// Its name, unique among fork points.
    pub name: Name,
    /// The machine it was taken of; that may be gone by now.
    pub vm: VmId,
    /// That machine's name at the time.
    pub vm_name: Name,
    /// Whether it is whole.
    pub state: SnapshotState,
    /// Number of processors of its forks.
    pub cpus: u32,
    /// Memory of its forks, in MiB.
    pub memory_mib: u32,
    /// What they boot with when they are reset.
    pub firmware: Firmware,
    /// The NICs that the machine had; forks have others' addresses.
    pub network_interfaces: Vec<Nic>,
    /// How guests ran: forks run the same way.
    pub accelerator: Accelerator,
    /// The QEMU that it was taken with: another may not understand the state of its devices.
    pub qemu_version: String,
    /// How long the source stood still for it, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_micros: Option<u64>,
    /// Bytes that the frozen memory takes.
    pub memory_bytes: u64,
    /// What the frozen memory is kept in.
    pub memory_place: MemoryPlace,
    /// How many machines stand on it.
    pub clones: u64,
    /// Which, by name; the first [`STANDING_TOLD`] of them.
    #[serde(default)]
    pub standing: Vec<Standing>,
    /// When it was taken.
    pub create_time: Timestamp,
    /// The feed's generation of its last change.
    #[serde(default)]
    pub generation: u64,
}

/// How many of the machines that stand on a fork point are told with it.
pub const STANDING_TOLD: usize = 8;

/// A machine that stands on a fork point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// Its id.
    pub id: VmId,
    /// Its name.
    pub name: Name,
}

/// What a machine's memory costs the host, in bytes: of the guest's memory, and of its whole process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct MemoryUse {
    /// Guest memory that it alone has: written since the fork.
    pub private_bytes: u64,
    /// Guest memory that it shares with others page by page.
    pub shared_bytes: u64,
    /// What its whole process has alone, the program's own memory included.
    pub process_private_bytes: u64,
}

/// What has been found out of an instant clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ForkedClone {
    /// The clone.
    pub vm: VmId,
    /// Its name at the time.
    pub name: Name,
    /// From the request until its guest executed, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_micros: Option<u64>,
    /// From the request until its guest gave a sign, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_micros: Option<u64>,
    /// From the request until each of its NICs had the address of its own, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identified_micros: Option<u64>,
    /// How its guest came by its identity; nothing where it has no NIC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// What its memory cost when it had just begun to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryUse>,
    /// What its memory cost ten seconds later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_later: Option<MemoryUse>,
    /// What its guest prints that lives in memory only, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// The first tick that its guest printed, if it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_tick: Option<u64>,
}

/// The proof of a job that forks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ForkProof {
    /// How long the source stood still, in microseconds; nothing where a kept point was forked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_pause_micros: Option<u64>,
    /// Whether the source wrote its memory so fast that it had to stand still for what was left of it.
    #[serde(default)]
    pub forced: bool,
    /// From the request until the first clone executed, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_to_running_micros: Option<u64>,
    /// Bytes that the frozen memory takes, for all clones together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen_bytes: Option<u64>,
    /// What it is kept in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_place: Option<MemoryPlace>,
    /// The clones, in the order of the request.
    pub clones: Vec<ForkedClone>,
}
