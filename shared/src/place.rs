//! Where machines live: hosts, storages, networks, and the images they are made from.

use crate::{HostId, ImageId, LayerId, Name, NetworkId, StorageId, Timestamp, words};
use serde::{Deserialize, Serialize};

/// Name of the network that leads out through the host.
pub const USER_NETWORK: &str = "user";
/// Name of the isolated network that there always is.
pub const ISOLATED_NETWORK: &str = "isolated";
/// Name of the storage within the server's data directory.
pub const OWN_STORAGE: &str = "local";

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
        /// QEMU's own: out through the host; nothing comes in but by port forwards.
        User = "USER",
        /// An existing bridge of the host.
        Bridge = "BRIDGE",
        /// Of the machines on it alone: they reach each other and nobody else.
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
    /// Why it cannot be reached: its directory is gone, or its disk is not mounted. Its sizes are 0 then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub away: Option<String>,
    /// Size of its file system, in bytes.
    pub total_bytes: u64,
    /// What is free there, in bytes.
    pub free_bytes: u64,
    /// Whether new disks go there unless asked otherwise.
    pub default: bool,
    /// How many layers are in it.
    #[serde(default)]
    pub layers: u64,
}

/// A request for a storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateStorage {
    /// Its name.
    pub name: Name,
    /// The directory, as an absolute path; it is made if it is not there.
    pub path: String,
    /// Whether new disks go there unless asked otherwise.
    #[serde(default)]
    pub default: bool,
}

/// What is to change of a storage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchStorage {
    /// Its new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// True: new disks go there from now on, unless asked otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
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
    /// The host's bridge, of a network of kind BRIDGE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// How many NICs are on it.
    #[serde(default)]
    pub nics: u64,
}

/// A request for a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateNetwork {
    /// Its name.
    pub name: Name,
    /// What it is.
    pub kind: NetworkKind,
    /// The host's bridge, for BRIDGE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
}

/// What is to change of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchNetwork {
    /// Its new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Another bridge of the host: NICs join it when they are connected next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
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
