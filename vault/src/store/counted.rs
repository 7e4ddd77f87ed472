//! What a store is asked for.

use super::{Listed, Objects, Put};
use crate::error::StoreError;
use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many objects a store names in one answer.
const PAGE: u64 = 1000;

/// Requests and bytes, since the store was wrapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requests {
    /// Objects that were to be written.
    pub puts: u64,
    /// Objects, or parts of them, that were to be read.
    pub gets: u64,
    /// Pages of a thousand names.
    pub lists: u64,
    /// Objects that were to be removed.
    pub deletes: u64,
    /// Bytes that were to be written.
    pub bytes_put: u64,
    /// Bytes that came.
    pub bytes_got: u64,
}

impl Requests {
    /// Of all kinds.
    #[must_use]
    pub const fn all(&self) -> u64 {
        self.puts + self.gets + self.lists + self.deletes
    }
}

/// A store that counts what it is asked for. What it does again by itself after a failure it does not tell.
pub struct Counted {
    objects: Arc<dyn Objects>,
    counters: [AtomicU64; 6],
}

impl Counted {
    /// Counts from now on.
    #[must_use]
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self {
            objects,
            counters: Default::default(),
        }
    }

    /// What was counted until now.
    #[must_use]
    pub fn requests(&self) -> Requests {
        let [puts, gets, lists, deletes, bytes_put, bytes_got] = self
            .counters
            .each_ref()
            .map(|counter| counter.load(Ordering::Relaxed));
        Requests {
            puts,
            gets,
            lists,
            deletes,
            bytes_put,
            bytes_got,
        }
    }

    fn add(&self, more: Requests) {
        let more = [
            more.puts,
            more.gets,
            more.lists,
            more.deletes,
            more.bytes_put,
            more.bytes_got,
        ];
        for (counter, n) in self.counters.iter().zip(more) {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }
}

#[async_trait]
impl Objects for Counted {
    async fn put(&self, name: &str, pieces: Vec<Bytes>, put: Put) -> Result<(), StoreError> {
        self.add(Requests {
            puts: 1,
            bytes_put: pieces.iter().map(|piece| piece.len() as u64).sum(),
            ..Requests::default()
        });
        self.objects.put(name, pieces, put).await
    }

    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let got = self.objects.get(name, range).await;
        self.add(Requests {
            gets: 1,
            bytes_got: got.as_ref().map_or(0, |got| got.len() as u64),
            ..Requests::default()
        });
        got
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let listed = self.objects.list(prefix).await;
        self.add(Requests {
            lists: 1 + listed.as_ref().map_or(0, |listed| listed.len() as u64 / PAGE),
            ..Requests::default()
        });
        listed
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.add(Requests {
            deletes: 1,
            ..Requests::default()
        });
        self.objects.delete(name).await
    }
}
