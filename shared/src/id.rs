//! Ids: UUIDs that are never used again, one type for each noun.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                s.parse().map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }
    )*};
}

ids! {
    /// A virtual machine.
    VmId
    /// A snapshot of a virtual machine.
    SnapshotId
    /// A job of any kind.
    JobId
    /// A qcow2 layer: property of no VM.
    LayerId
    /// A disk image to make machines from.
    ImageId
    /// An image on its way here.
    UploadId
    /// A disk that was written to a file.
    ExportId
    /// A host that runs machines.
    HostId
    /// A directory that holds layers.
    StorageId
    /// A network that NICs join.
    NetworkId
    /// A person who may sign in.
    UserId
    /// An API token.
    TokenId
    /// A signed-in browser.
    SessionId
    /// An instant that machines are forked from.
    ForkPointId
    /// A set of privileges with a name.
    RoleId
    /// A role that a user has.
    GrantId
    /// A way to tell people of what happened.
    NoticeChannelId
    /// A notice on its way through a channel.
    NoticeId
    /// A place that copies go to.
    TargetId
    /// A copy of a machine's snapshot.
    CopyId
    /// What says when which machines are copied where, and for how long.
    PolicyId
    /// The copies of one moment.
    RunId
    /// Where machines live that are carried over.
    SourceId
    /// A machine that is carried over.
    MigratingVmId
}
