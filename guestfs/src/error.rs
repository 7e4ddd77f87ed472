//! Why there are no files to be seen, and what to do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// What is missing on this host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Why {
    #[error("{program} is not installed; `apt install guestfish` brings what reads file systems")]
    Program { program: &'static str },
    #[error(
        "there is no kernel in /boot for the small machine that reads file systems; \
         `apt install linux-image-cloud-amd64` brings one (linux-image-virtual on Ubuntu)"
    )]
    NoKernel,
    #[error(
        "{kernel} may not be read by the server's user; `dpkg-statoverride --update --add root root 0644 {kernel}` \
         lets it, until the next kernel comes"
    )]
    Unreadable { kernel: String },
    #[error("guestfish does not tell its version: {0}")]
    Version(String),
}

/// Why the files of a copy cannot be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum FilesError {
    #[error(transparent)]
    Missing(#[from] Why),
    #[error("start what reads the file systems: {0}")]
    Start(String),
    #[error("no file system is on the disks of this copy; restore it to look further")]
    NoFileSystem,
    #[error("there is no file system {0} on the disks of this copy; list them anew")]
    NoSuchFileSystem(String),
    #[error("{0} is encrypted; its files can be seen only after a restore, by who has the key")]
    Encrypted(String),
    #[error("{0} has no file system that is known; it can be restored as a disk")]
    Unknown(String),
    #[error("the file system on {device} cannot be read: {why}; restore the disk to repair it")]
    Damaged { device: String, why: String },
    #[error("there is no {0} in this file system")]
    NotFound(String),
    #[error("{0} is not a directory")]
    NotADirectory(String),
    #[error("{0} is not a regular file; only files and directories can be downloaded")]
    NotAFile(String),
    #[error("{0:?} is no path: it begins with /, and has no NUL in it")]
    BadPath(String),
    #[error("{op} took more than {} s; open the files anew", limit.as_secs())]
    TimedOut { op: String, limit: Duration },
    #[error("the files of this copy are being read by another download; try again when it is done")]
    Busy,
    #[error("the files of this copy were closed; open them anew")]
    Ended,
    #[error("{op}: {why}")]
    Refused { op: String, why: String },
    #[error("{op} {path}")]
    Io {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

pub(crate) fn io<'a>(
    op: &'static str,
    path: &'a std::path::Path,
) -> impl FnOnce(io::Error) -> FilesError + use<'a> {
    move |source| FilesError::Io {
        op,
        path: path.to_owned(),
        source,
    }
}
