//! What the process is told: which disks, of which copy, in which vault.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use uuid::Uuid;
use vault::StoreError;
use vault::store::{Local, Objects, S3, S3Settings};

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
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Store {
    /// A directory.
    Local {
        /// Its path.
        path: PathBuf,
    },
    /// A bucket; see [`S3Settings`].
    S3 {
        /// `https://host[:port]`.
        endpoint: String,
        /// As the store names it.
        region: String,
        /// The bucket's name.
        bucket: String,
        /// What all names begin with.
        #[serde(default)]
        prefix: String,
        /// Who signs.
        access_key: String,
        /// What signs.
        secret_key: String,
    },
    /// The vault of another server.
    Remote {
        /// `https://host[:port]`.
        url: String,
        /// Who asks.
        token: String,
    },
}

impl Store {
    /// Its objects; nothing is asked for yet.
    ///
    /// # Errors
    ///
    /// Settings that are none, or a kind of store that is not known here.
    pub fn objects(&self) -> Result<Arc<dyn Objects>, StoreError> {
        match self.clone() {
            Self::Local { path } => Ok(Arc::new(Local::new(path))),
            Self::S3 {
                endpoint,
                region,
                bucket,
                prefix,
                access_key,
                secret_key,
            } => Ok(Arc::new(S3::new(&S3Settings {
                endpoint,
                region,
                bucket,
                prefix,
                access_key,
                secret_key,
            })?)),
            Self::Remote { url, .. } => Err(StoreError::Other(format!(
                "disks cannot be shown from the vault of {url}: a remote store is not known yet"
            ))),
        }
    }
}
