//! Who may do what: privileges, tokens, sessions.

use crate::{Name, SessionId, Timestamp, TokenId, UserId, words};
use serde::{Deserialize, Serialize};

words! {
    /// What a route asks of its caller.
    pub enum Privilege {
        /// See machines, their screens and serial lines.
        VmRead = "vm.read",
        /// Make machines.
        VmCreate = "vm.create",
        /// Change what is known of a machine.
        VmUpdate = "vm.update",
        /// Start, stop, pause, resume, reset.
        VmPower = "vm.power",
        /// Delete machines.
        VmDelete = "vm.delete",
        /// See snapshots.
        SnapshotRead = "snapshot.read",
        /// Take snapshots.
        SnapshotCreate = "snapshot.create",
        /// Take machines back to a snapshot.
        SnapshotRevert = "snapshot.revert",
        /// Delete snapshots.
        SnapshotDelete = "snapshot.delete",
        /// Make clones.
        CloneCreate = "clone.create",
        /// Fork running machines, and fork points; together with the four below, as in VMware's documents.
        ProvisioningClone = "VirtualMachine.Provisioning.Clone",
        /// Have a forked machine run.
        InteractPowerOn = "VirtualMachine.Interact.PowerOn",
        /// Make a machine of another.
        InventoryCreateFromExisting = "VirtualMachine.Inventory.CreateFromExisting",
        /// Use a storage.
        DatastoreAllocateSpace = "Datastore.AllocateSpace",
        /// Use a host.
        ResourceAssignVmToPool = "Resource.AssignVMToPool",
        /// See fork points.
        ForkRead = "fork.read",
        /// Delete fork points.
        ForkDelete = "fork.delete",
        /// See jobs and their logs.
        JobRead = "job.read",
        /// Cancel jobs, and try them again.
        JobUpdate = "job.update",
        /// See hosts, storages, networks and images.
        PlaceRead = "place.read",
        /// Keep hosts free for work on them.
        PlaceUpdate = "place.update",
        /// Listen to the feed.
        EventRead = "event.read",
        /// See and make one's own tokens, see who one is, sign out.
        SelfManage = "self.manage",
        /// See and manage users.
        UserManage = "user.manage",
        /// Release what waits in the simulation; only with `--sim`.
        SimRelease = "sim.release",
    }
}

/// What forking asks, all of it.
pub const FORKING: [Privilege; 5] = [
    Privilege::ProvisioningClone,
    Privilege::InteractPowerOn,
    Privilege::InventoryCreateFromExisting,
    Privilege::DatastoreAllocateSpace,
    Privilege::ResourceAssignVmToPool,
];

/// A person who may sign in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// The name to sign in with.
    pub name: Name,
    /// When it was added.
    pub create_time: Timestamp,
}

/// Who is calling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Me {
    /// The user.
    pub user: User,
    /// What the caller may do.
    pub privileges: Vec<Privilege>,
    /// Whether the user has a password to sign in with again.
    pub has_password: bool,
}

/// A request to change one's password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetPassword {
    /// The new password: at least ten characters.
    pub password: String,
}

impl std::fmt::Debug for SetPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SetPassword { .. }")
    }
}

/// An API token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// What it is for.
    pub name: Name,
    /// When it was made.
    pub create_time: Timestamp,
    /// When it was last used, to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_time: Option<Timestamp>,
}

/// A request for a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateToken {
    /// What it is for.
    pub name: Name,
}

/// A new token with its secret, which is shown this once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NewToken {
    /// The token.
    pub token: Token,
    /// What goes behind `Authorization: Bearer`.
    pub secret: String,
}

/// A signed-in browser.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// When it signed in.
    pub create_time: Timestamp,
    /// When it ends by itself.
    pub expire_time: Timestamp,
}
