//! Machines of a libvirt that runs QEMU: what they are, their disks while they run, and what has changed on them since.
//!
//! All calls block, but for [`Watch::changed`]. A [`Connection`] tells of machines and turns them off and on. [`Connection::back_up`]
//! begins a backup in libvirt's pull mode: QEMU shows the disks of one moment by NBD while the machine goes on, and which blocks
//! have changed since an earlier one, of which libvirt keeps a checkpoint. A machine that is off is started without its
//! processors for as long as it is read: QEMU alone knows its bitmaps, and reaches its disks, wherever they are.

#[cfg(not(feature = "client"))]
mod absent;
#[cfg(feature = "client")]
mod backup;
#[cfg(feature = "client")]
mod connection;
mod error;
#[cfg(feature = "client")]
mod hold;
pub mod machine;
mod moment;
pub mod nbd;
#[cfg(feature = "client")]
mod raw;
#[cfg(feature = "client")]
mod reach;
#[cfg(feature = "client")]
mod tls;
mod uri;

#[cfg(not(feature = "client"))]
pub use absent::{Connection, Watch};
#[cfg(feature = "client")]
pub use connection::{Connection, Watch};
pub use error::{Error, Result};
pub use machine::{Disk, Firmware, Machine};
pub use moment::{Backup, BackupDisk, Quiesced, Since, Wanted};
pub use uri::{Transport, Uri, UriError};
