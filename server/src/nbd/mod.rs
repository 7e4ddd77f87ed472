//! Disks of a copy in the vault, shown to QEMU as they are: a machine runs from them before they are here.
//!
//! It is NBD over a Unix socket, read only, by a process of its own: guests go on while the server is ended and started
//! anew. The one crate that is a server of NBD has no structured replies, and a licence that does not fit.

mod config;
mod disk;
mod handshake;
pub mod process;
mod protocol;
mod serve;
mod transmission;

pub use config::{Config, Store};
pub use serve::{Failure, run, serve};

use async_trait::async_trait;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;

/// The subcommand of the program that is the server of a copy's disks.
pub const COMMAND: &str = "nbd-server";

/// A piece of a disk that is a hole, or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its length.
    pub bytes: u64,
    /// Whether it reads as zeros, and nothing is kept of it.
    pub hole: bool,
}

/// A disk that does not change.
#[async_trait]
pub trait Export: Send + Sync {
    /// Its size.
    fn bytes(&self) -> u64;

    /// Fills the buffer with what is there from `offset` on; it lies within the disk.
    ///
    /// # Errors
    ///
    /// It cannot be read, and never will: what may go by itself is waited for.
    async fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// What this range has of holes, from its begin on: one extent at least, and of all of it or less.
    ///
    /// # Errors
    ///
    /// As of reading.
    async fn status(&self, offset: u64, bytes: u64) -> io::Result<Vec<Extent>>;
}

/// Disks under the names that clients ask for.
pub type Exports = Vec<(String, Arc<dyn Export>)>;

/// How long a client may take until it has said which disk it wants.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// Serves a client until it goes.
///
/// # Errors
///
/// The connection broke, or the client does not speak NBD.
pub async fn client(mut stream: UnixStream, exports: &Exports) -> io::Result<()> {
    let agreed = tokio::time::timeout(HANDSHAKE, handshake::shake_hands(&mut stream, exports));
    match agreed.await?? {
        Some(agreed) => transmission::transmit(stream, agreed).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
