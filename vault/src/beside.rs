//! What is said of a copy beside itself, and travels with it: that it is held, and notes.

use crate::error::{Error, Result, StoreError};
use crate::store::Put;
use crate::vault::{AT_ONCE, Vault};
use futures::{StreamExt, TryStreamExt, stream};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Somebody wants a copy to stay: it is not forgotten before that is released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// The copy.
    pub copy: Uuid,
    /// By whom.
    pub by: String,
    /// Since when, in microseconds since 1970.
    pub since: i64,
}

fn hold_name(copy: Uuid) -> String {
    format!("holds/{}", copy.simple())
}

fn notes_of(copy: Uuid) -> String {
    format!("notes/{}/", copy.simple())
}

impl Vault {
    /// Holds a copy, for every server that has this vault. Where it is held already that stays, and is the answer. A removal
    /// that is under way at this very moment may still be faster.
    ///
    /// # Errors
    ///
    /// There is no such copy; what the store said.
    pub async fn hold(&self, copy: Uuid, by: &str, now: i64) -> Result<Hold> {
        if let Some(hold) = self.held(copy).await? {
            return Ok(hold);
        }
        let hold = Hold {
            copy,
            by: by.to_owned(),
            since: now,
        };
        self.write_json(&hold_name(copy), &hold, Put::Replace).await?;
        // Behind it: whoever removes the copy from now on sees the hold.
        match self.copy(copy).await {
            Err(e @ Error::NoCopy(_)) => {
                self.release(copy).await?;
                Err(e)
            }
            // That it is damaged is no reason to let it go.
            Ok(_) | Err(Error::Damaged { .. }) => Ok(hold),
            Err(e) => Err(e),
        }
    }

    /// Ends a hold. That there is none is no error.
    ///
    /// # Errors
    ///
    /// What the store said.
    pub async fn release(&self, copy: Uuid) -> Result<()> {
        self.delete(&hold_name(copy)).await
    }

    /// A copy's hold, if it has one.
    ///
    /// # Errors
    ///
    /// It is damaged; what the store said.
    pub async fn held(&self, copy: Uuid) -> Result<Option<Hold>> {
        self.read_if_there(&hold_name(copy)).await
    }

    /// All holds, the oldest first.
    ///
    /// # Errors
    ///
    /// One is damaged; what the store said.
    pub async fn holds(&self) -> Result<Vec<Hold>> {
        let mut all: Vec<Hold> = self.all("holds/").await?.into_values().collect();
        all.sort_by_key(|hold| (hold.since, hold.copy));
        Ok(all)
    }

    /// Notes something of a copy, under a name of `a`–`z`, `0`–`9` and `-`, in the place of what was noted there before.
    ///
    /// # Errors
    ///
    /// There is no such copy; the name is none; what the store said.
    pub async fn note(&self, copy: Uuid, name: &str, what: &Value) -> Result<()> {
        let right = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || !name.bytes().all(right) {
            return Err(Error::NoteName(name.to_owned()));
        }
        self.copy(copy).await?;
        let object = notes_of(copy) + name;
        self.write_json(&object, what, Put::Replace).await
    }

    /// What is noted of a copy, by its names.
    ///
    /// # Errors
    ///
    /// Some of it is damaged; what the store said.
    pub async fn notes(&self, copy: Uuid) -> Result<BTreeMap<String, Value>> {
        self.all(&notes_of(copy)).await
    }

    pub(crate) async fn forget_notes(&self, copy: Uuid) -> Result<()> {
        for name in self.list(&notes_of(copy)).await?.into_keys() {
            self.delete(&name).await?;
        }
        Ok(())
    }

    async fn read_if_there<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        match self.read_json(name).await {
            Ok(value) => Ok(Some(value)),
            Err(Error::Store {
                source: StoreError::NotFound,
                ..
            }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// All objects below a prefix, by the rest of their names.
    async fn all<T: DeserializeOwned>(&self, prefix: &str) -> Result<BTreeMap<String, T>> {
        stream::iter(self.list(prefix).await?.into_keys())
            .map(|name| async move {
                let value = self.read_if_there(&name).await?;
                let rest = name.strip_prefix(prefix).unwrap_or(&name).to_owned();
                Ok::<_, Error>(value.map(|value| (rest, value)))
            })
            .buffer_unordered(AT_ONCE)
            .try_filter_map(|one| async { Ok(one) })
            .try_collect()
            .await
    }
}
