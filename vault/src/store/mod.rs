//! Where objects are: a directory, or a bucket. Objects are written whole, once, and never changed.

mod counted;
mod direct;
mod local;
mod s3;
mod throttle;

pub use counted::{Counted, Requests};
pub use local::Local;
pub use s3::{S3, S3Settings};
pub use throttle::{Rate, Throttled};

use crate::error::{Error, Result, StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;

/// An object that a store lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// In bytes.
    pub size: u64,
}

/// Whether an object may be there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// What is there is replaced.
    Replace,
    /// What is there is an error, where the store honours that.
    Create,
}

/// An object store. Names have `a`–`z`, `0`–`9`, `-`, `.` and `/`.
#[async_trait]
pub trait Objects: Send + Sync {
    /// Writes an object, whole or not at all; when it returns, the object is safe. The pieces are its bytes, in order.
    async fn put(&self, name: &str, pieces: Vec<Bytes>, put: Put) -> std::result::Result<(), StoreError>;

    /// Reads an object, or this range of its bytes.
    async fn get(&self, name: &str, range: Option<Range<u64>>) -> std::result::Result<Bytes, StoreError>;

    /// All objects whose names begin with `prefix`, which ends with `/` or is empty.
    async fn list(&self, prefix: &str) -> std::result::Result<Vec<Listed>, StoreError>;

    /// Removes an object. That there is none is no error.
    async fn delete(&self, name: &str) -> std::result::Result<(), StoreError>;
}

/// What trying a store has shown.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Whether a second write of the same name is refused when it is to be.
    pub conditional_put: bool,
    /// From the request to write until the object was safe, in microseconds.
    pub write_micros: u64,
    /// To read it, in microseconds.
    pub read_micros: u64,
}

/// Tries all that a vault asks of a store, with an object of its own.
///
/// # Errors
///
/// The first thing that the store cannot do.
pub async fn probe(objects: &dyn Objects) -> Result<Probe> {
    let name = format!("probe/{}", uuid::Uuid::new_v4());
    let tried = tries(objects, &name).await;
    let removed = objects.delete(&name).await;
    let probe = tried?;
    removed.map_err(StoreError::at("delete", &name))?;
    match objects.get(&name, None).await {
        Err(StoreError::NotFound) => Ok(probe),
        Err(e) => Err(StoreError::at("read", &name)(e)),
        Ok(_) => Err(Error::Store {
            op: "delete",
            name,
            source: StoreError::Other("it is still there after it was deleted".into()),
        }),
    }
}

async fn tries(objects: &dyn Objects, name: &str) -> Result<Probe> {
    let body = Bytes::from_static(b"Offshoot looks whether it can keep copies here.");
    let wrong = |op: &'static str, why: &str| Error::Store {
        op,
        name: name.to_owned(),
        source: StoreError::Other(why.to_owned()),
    };
    let begin = std::time::Instant::now();
    let put = objects.put(name, vec![body.slice(..9), body.slice(9..)], Put::Create);
    put.await.map_err(StoreError::at("write", name))?;
    let write_micros = begin.elapsed().as_micros() as u64;
    let begin = std::time::Instant::now();
    let read = objects
        .get(name, None)
        .await
        .map_err(StoreError::at("read", name))?;
    let read_micros = begin.elapsed().as_micros() as u64;
    if read != body {
        return Err(wrong("read", "it has other bytes than were written"));
    }
    let part = objects.get(name, Some(9..14)).await;
    if part.map_err(StoreError::at("read", name))? != body.slice(9..14) {
        return Err(wrong("read", "a range of it has other bytes than were asked for"));
    }
    let listed = objects.list("probe/").await;
    let listed = listed.map_err(StoreError::at("list", "probe/"))?;
    if !listed
        .iter()
        .any(|o| o.name == name && o.size == body.len() as u64)
    {
        return Err(wrong("list", "an object that was just written is not listed"));
    }
    // Stores say that they refuse a second one, and take it: only the bytes tell.
    let other = Bytes::from_static(b"A second write.");
    let second = objects.put(name, vec![other], Put::Create).await;
    let now = objects
        .get(name, None)
        .await
        .map_err(StoreError::at("read", name))?;
    let conditional_put = second.is_err() && now == body;
    Ok(Probe {
        conditional_put,
        write_micros,
        read_micros,
    })
}
