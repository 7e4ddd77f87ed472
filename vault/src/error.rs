//! What can go wrong with a vault, and where.

use std::io;

/// Why an operation on a vault failed. Every message names the object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object store did not do what it was asked.
    #[error("could not {op} {name} in the vault")]
    Store {
        /// What was to be done: `write`, `read`, `list`, `delete`.
        op: &'static str,
        /// The object's name, or what its name begins with.
        name: String,
        /// What the store said.
        #[source]
        source: StoreError,
    },
    /// An object is not as it was written.
    #[error("{name} in the vault is damaged: {why}")]
    Damaged {
        /// The object's name.
        name: String,
        /// How that was seen.
        why: String,
    },
    /// No pack has this chunk.
    #[error("the vault has no chunk {id}: it was lost, or removed")]
    Lost {
        /// The chunk's name.
        id: crate::Id,
    },
    /// There is no vault there.
    #[error("there is no vault here: it has no object named config")]
    NoVault,
    /// There is one already.
    #[error("there is a vault here already, made at {created}")]
    Exists {
        /// When it was made, in microseconds since 1970.
        created: i64,
    },
    /// It was written by a program that is newer.
    #[error("the vault has format {found}, and this program knows {known}: use a newer one")]
    Newer {
        /// The format's number in the vault.
        found: u32,
        /// The one of this program.
        known: u32,
    },
    /// All wrapped keys are gone.
    #[error(
        "the vault's key is lost: it has no object below keys/, and without one nothing in it can be read"
    )]
    NoKey,
    /// What was given opens none of the keys.
    #[error("the {0} does not open the vault's key")]
    WrongKey(&'static str),
    /// A passphrase or recipient that is none.
    #[error("{0}")]
    BadKey(String),
    /// No such copy.
    #[error("the vault has no copy {0}")]
    NoCopy(uuid::Uuid),
    /// It may not be removed.
    #[error("copy {copy} is held by {by} since {since}: it is not removed before that is released")]
    Held {
        /// The copy.
        copy: uuid::Uuid,
        /// By whom.
        by: String,
        /// Since when, in microseconds since 1970.
        since: i64,
    },
    /// A note has a name that is none.
    #[error("a note cannot be named {0:?}: its name has a–z, 0–9 and -, and one of them at least")]
    NoteName(String),
    /// A place was asked for that a disk does not have.
    #[error("the disk {name} has {bytes} bytes: {length} at {offset} were asked for")]
    Beyond {
        /// The disk's name.
        name: String,
        /// What it has.
        bytes: u64,
        /// In bytes.
        offset: u64,
        /// In bytes.
        length: u64,
    },
    /// What is to be copied could not be read.
    #[error("could not read {what} at {offset}")]
    Source {
        /// The disk, as its caller names it.
        what: String,
        /// In bytes.
        offset: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What is restored could not be written.
    #[error("could not write what was restored, at {offset}")]
    Sink {
        /// In bytes.
        offset: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It was cancelled.
    #[error("it was cancelled")]
    Cancelled,
    /// The vault was not reached for so long that others may take this writer for dead.
    #[error(
        "the vault was not reached for {0} s, so that its clean-up may have taken this writer for dead: begin anew"
    )]
    LeaseLost(u64),
    /// A thread of the program ended early.
    #[error("a thread that copies ended early")]
    Thread,
}

impl Error {
    pub(crate) fn damaged(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Damaged {
            name: name.into(),
            why: why.into(),
        }
    }

    /// Whether it may go by itself: the store was away or slow, not wrong.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store { source, .. } if source.is_transient())
    }
}

/// What an object store says.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("there is no such object")]
    NotFound,
    /// There is one already, and it was to be made anew.
    #[error("there is such an object already")]
    Exists,
    /// The credentials are not taken.
    #[error("access is denied: {0}")]
    Denied(String),
    /// No room is left.
    #[error("no room is left")]
    Full,
    /// It cannot be reached, or is not well: it may go by itself.
    #[error("it is away: {0}")]
    Away(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl StoreError {
    /// Whether it may go by itself.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Away(_) | Self::Full)
    }

    pub(crate) fn at(op: &'static str, name: &str) -> impl FnOnce(Self) -> Error {
        let name = name.to_owned();
        move |source| Error::Store { op, name, source }
    }
}

impl From<io::Error> for StoreError {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::AlreadyExists => Self::Exists,
            io::ErrorKind::PermissionDenied => Self::Denied(e.to_string()),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Other(e.to_string()),
        }
    }
}

/// Of this crate.
pub type Result<T> = std::result::Result<T, Error>;
