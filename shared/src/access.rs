//! Who may do what: privileges, users, tokens, sessions. Roles and what follows from them are in [`rights`].

pub mod audit;
pub mod rights;

use crate::{GrantId, Name, RoleId, SessionId, Timestamp, TokenId, UserId, VmId, words};
use rights::Rights;
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
        /// Type and look at the screens and serial lines of machines, live.
        VmConsole = "vm.console",
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
        /// See copies, and the tasks that make them.
        CopyRead = "copy.read",
        /// Copy snapshots, boot copies to see that they do, hold and release what copies.
        CopyCreate = "copy.create",
        /// Bring copies back, list and fetch files of them; a new machine asks for `vm.create`, too.
        CopyRestore = "copy.restore",
        /// Remove copies, and put them under legal hold.
        CopyDelete = "copy.delete",
        /// See the places that copies go to, and what policies say.
        TargetRead = "target.read",
        /// Add, change, verify, clean up and detach places that copies go to; change policies.
        TargetManage = "target.manage",
        /// Keep another server's copies: what its REMOTE target is given a token with.
        TargetStore = "target.store",
        /// See sources, machines that are carried over, their cycles, test clones and cutovers.
        MigrationRead = "migration.read",
        /// Add sources, carry machines over, clone what was uploaded, cut over, finalize.
        MigrationManage = "migration.manage",
        /// See jobs and their logs.
        JobRead = "job.read",
        /// Cancel jobs, and try them again.
        JobUpdate = "job.update",
        /// See hosts, storages, networks and images.
        PlaceRead = "place.read",
        /// Bring images in, by upload, by address or by path, or make them of snapshots.
        ImageCreate = "image.create",
        /// Rename images.
        ImageUpdate = "image.update",
        /// Delete images.
        ImageDelete = "image.delete",
        /// Write disks to files, and fetch those.
        ImageExport = "image.export",
        /// Add, change and delete storages and networks; keep hosts free for work on them.
        PlaceUpdate = "place.update",
        /// Listen to the feed.
        EventRead = "event.read",
        /// See and make one's own tokens, see who one is, sign out.
        SelfManage = "self.manage",
        /// See and manage users and roles.
        UserManage = "user.manage",
        /// See who did what, and what was refused.
        AuditRead = "audit.read",
        /// Read how much there is of what, and how long answers take, at `/metrics`.
        MetricsRead = "metrics.read",
        /// See and manage who is told of jobs that fail.
        NoticeManage = "notice.manage",
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
    /// Whether the user is kept out: nobody signs in, sessions have ended, tokens are refused.
    #[serde(default)]
    pub disabled: bool,
    /// Whether there is a password to sign in with.
    #[serde(default)]
    pub has_password: bool,
    /// Whether signing in asks for a code as well.
    #[serde(default)]
    pub two_factor: bool,
    /// What the OpenID Connect provider calls the user, for those who sign in by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oidc_subject: Option<String>,
    /// The roles of the user, and what they are given on.
    #[serde(default)]
    pub grants: Vec<Grant>,
    /// When it was added.
    pub create_time: Timestamp,
    /// When the user last signed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sign_in_time: Option<Timestamp>,
}

/// A role that a user has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// Its id.
    pub id: GrantId,
    /// The role.
    pub role: Name,
    /// The machine that it is given on; on everything if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<VmId>,
    /// The machine's name, unless it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm_name: Option<Name>,
}

/// A set of privileges with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Role {
    /// Its id.
    pub id: RoleId,
    /// Its name.
    pub name: Name,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// What whoever has it may do.
    pub privileges: Vec<Privilege>,
    /// Whether it comes with Offshoot, and stays as it is.
    #[serde(default)]
    pub built_in: bool,
}

/// A request for a role of one's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateRole {
    /// Its name.
    pub name: Name,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// What whoever has it may do.
    pub privileges: Vec<Privilege>,
}

/// A request to change a role; what is not given stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchRole {
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What whoever has it may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privileges: Option<Vec<Privilege>>,
}

/// A request to add a user.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateUser {
    /// The name to sign in with.
    pub name: Name,
    /// A password; without one the user gets in by a one-time link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// A role on everything; none if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Name>,
}

/// A request to change a user; what is not given stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchUser {
    /// Another name to sign in with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Whether the user is kept out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// A request to give a user a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateGrant {
    /// The role, by name.
    pub role: Name,
    /// The machine that it is given on, by name or id; on everything if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
}

/// A request to have somebody of the OpenID Connect provider sign in as a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LinkOidc {
    /// What the provider calls the person: the claim `sub`.
    pub subject: String,
}

/// A link that signs a user in, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct OneTimeLink {
    /// Its address. It is shown this once.
    pub secret: String,
    /// When it ends by itself.
    pub expire_time: Timestamp,
}

/// Who is calling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Me {
    /// The user.
    pub user: User,
    /// What the caller may do.
    pub rights: Rights,
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

impl std::fmt::Debug for CreateUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "CreateUser {{ name: {}, role: {:?}, .. }}",
            self.name, self.role
        )
    }
}

/// What an authenticator app needs to know; shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct TwoFactorSecret {
    /// The secret, in base 32, for those who type it.
    pub secret: String,
    /// The address that the picture stands for.
    pub url: String,
    /// The picture, as SVG.
    pub svg: String,
}

/// A code of an authenticator app, or one to recover with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GiveCode {
    /// The code.
    pub code: String,
}

/// Codes that each sign in once in place of the app; shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RecoveryCodes {
    /// All of them, with a space between.
    pub secret: String,
}

macro_rules! hidden {
    ($($name:ident)*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), " { .. }"))
            }
        }
    )*};
}

hidden! { TwoFactorSecret GiveCode RecoveryCodes }

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
    /// The role that it is confined to; all that its owner may do if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Name>,
    /// When it ends by itself; never if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_time: Option<Timestamp>,
}

/// A request for a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateToken {
    /// What it is for.
    pub name: Name,
    /// A role to confine it to: it may do what the role and its owner both may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Name>,
    /// When it ends by itself; never if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_time: Option<Timestamp>,
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
    /// The address that it was signed in from.
    #[serde(default)]
    pub address: String,
    /// What the browser says it is.
    #[serde(default)]
    pub user_agent: String,
    /// When it signed in.
    pub create_time: Timestamp,
    /// When it ends by itself.
    pub expire_time: Timestamp,
    /// Whether it is the one that asks.
    #[serde(default)]
    pub current: bool,
}
