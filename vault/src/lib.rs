//! A vault: copies of disks in an object store, of which each is complete, and none costs more than what is new in it.
//!
//! `docs/vault-format.md` says what is written, so that others can read it; this crate says nothing of machines, jobs or
//! servers. A [`Vault`] is opened with its key. [`Vault::begin`] begins a writer, [`Vault::reader`] reads copies,
//! [`verify`] looks at everything, [`prune`] removes what no copy needs.

mod beside;
pub mod copy;
mod damage;
mod disk_reader;
mod error;
mod filling;
mod id;
mod index;
mod keys;
mod load;
mod pack;
pub mod prune;
mod read;
pub mod source;
pub mod store;
#[cfg(test)]
mod tests;
mod vault;
pub mod verify;
mod work;
mod write;

pub use beside::Hold;
pub use copy::{Copy, Disk, Moved};
pub use disk_reader::{DiskReader, Extent};
pub use error::{Error, Result, StoreError};
pub use id::Id;
pub use keys::{Key, Opening, Wrapping};
pub use read::{Reader, Sink};
pub use source::Source;
pub use tokio_util::sync::CancellationToken;
pub use vault::{Making, Vault};
pub use write::{Change, Commit, Writer};
