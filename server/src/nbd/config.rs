//! What the process is told: which disks, of which copy, in which vault.

use crate::copies::{self, CopiesError};
use serde::{Deserialize, Serialize};
use shared::target::Place;
use std::path::PathBuf;
use std::sync::Arc;
use uuid::Uuid;
use vault::store::{Objects, Rate};

/// All that it is told, as JSON on standard input: nothing of it is seen by who looks at processes.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Where it listens.
    pub socket: PathBuf,
    /// Where the vault is.
    pub store: Store,
    /// The vault's key, of 32 bytes.
    #[serde(with = "hex::serde")]
    pub key: [u8; 32],
    /// The copy.
    pub copy: Uuid,
    /// The disks that it shows, by their names in the copy.
    pub disks: Vec<String>,
    /// After how many seconds without a client it ends by itself; never, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u64>,
}

/// Where a vault is, and what is needed to reach it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Store {
    /// The target's name, for messages.
    pub target: String,
    /// Where it is.
    pub place: Place,
    /// What requests are signed with, or admitted by.
    pub secret: Option<String>,
}

impl Store {
    /// Its objects; nothing is asked for yet.
    ///
    /// # Errors
    ///
    /// Settings that are none.
    pub fn objects(&self) -> Result<Arc<dyn Objects>, CopiesError> {
        copies::store(&self.target, &self.place, self.secret.as_deref(), &Rate::new(0))
    }
}
