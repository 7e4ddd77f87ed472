//! Where machines live: hosts, storages, networks, and the images they are made from.

use crate::{HostId, ImageId, LayerId, Name, NetworkId, StorageId, Timestamp, words};
use serde::{Deserialize, Serialize};

words! {
    /// Whether a host takes new machines.
    pub enum HostState {
        /// It does.
        Up = "UP",
        /// A person keeps it free for work on it.
        Maintenance = "MAINTENANCE",
    }

    /// How guests run on a host.
    pub enum Accelerator {
        /// In hardware.
        Kvm = "KVM",
        /// Translated by QEMU.
        Tcg = "TCG",
        /// Not at all: for tests and load.
        Sim = "SIM",
    }

    /// What a network is.
    pub enum NetworkKind {
        /// QEMU's own: out through the host, nothing comes in.
        User = "USER",
        /// An existing bridge of the host.
        Bridge = "BRIDGE",
        /// Connected to nothing outside.
        Isolated = "ISOLATED",
    }
}

/// A host that runs machines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// Its id.
    pub id: HostId,
    /// Its name.
    pub name: Name,
    /// Whether it takes new machines.
    pub state: HostState,
    /// How guests run on it.
    pub accelerator: Accelerator,
    /// Version of its QEMU.
    pub qemu_version: String,
    /// Number of its processors.
    pub cpus: u32,
    /// Its memory, in MiB.
    pub memory_mib: u64,
    /// Memory given to the machines that run, in MiB.
    pub memory_in_use_mib: u64,
    /// How many machines run.
    pub running_vms: u32,
}

/// What is to change of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchHost {
    /// Whether it takes new machines.
    pub state: HostState,
}

/// A directory that holds layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Its id.
    pub id: StorageId,
    /// Its name.
    pub name: Name,
    /// The directory.
    pub path: String,
    /// Size of its file system, in bytes.
    pub total_bytes: u64,
    /// What is free there, in bytes.
    pub free_bytes: u64,
    /// Whether new disks go there unless asked otherwise.
    pub default: bool,
}

/// A network that NICs join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// Its id.
    pub id: NetworkId,
    /// Its name.
    pub name: Name,
    /// What it is.
    pub kind: NetworkKind,
}

/// A disk image to make machines from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Its id.
    pub id: ImageId,
    /// Its name.
    pub name: Name,
    /// The layer that holds it.
    pub layer: LayerId,
    /// What a guest sees of it, in bytes.
    pub virtual_bytes: u64,
    /// When it was added.
    pub create_time: Timestamp,
    /// The feed's generation of its last change.
    #[serde(default)]
    pub generation: u64,
}
