//! The files of a copy, as they are looked at without a restore.
//!
//! Names and paths are text: a byte that is no part of UTF-8, or is of a control character, is `\xHH`, and a backslash is
//! `\\`. What was answered can be asked for as it is.

use crate::{Timestamp, words};
use serde::{Deserialize, Serialize};

words! {
    /// How far the files of a copy can be looked at.
    pub enum FilesState {
        /// They are being opened; that takes up to a minute.
        Opening = "OPENING",
        /// They can be listed and downloaded.
        Ready = "READY",
        /// They could not be opened.
        Failed = "FAILED",
    }

    /// What an entry of a directory is.
    pub enum FileKind {
        /// A regular file.
        File = "FILE",
        /// A directory.
        Directory = "DIRECTORY",
        /// A symbolic link.
        Symlink = "SYMLINK",
        /// A device, a pipe or a socket.
        Other = "OTHER",
    }

    /// Why the files of a file system cannot be read.
    pub enum FileSystemTrouble {
        /// LUKS or BitLocker.
        Encrypted = "ENCRYPTED",
        /// It holds memory that was swapped out.
        Swap = "SWAP",
        /// Nothing that is known.
        Unknown = "UNKNOWN",
        /// It cannot be mounted.
        Damaged = "DAMAGED",
    }
}

/// A file system on the disks of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct FileSystem {
    /// What it is asked for by: `/dev/sda1`, `/dev/vg0/home`.
    pub device: String,
    /// The disk that it is on, by its name in the copy; none for a logical volume, which may be on several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// `ext4`, `xfs`, `vfat`, `ntfs`, …
    pub kind: String,
    /// Its label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The size of its device, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The operating system on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// Why its files cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<FileSystemTrouble>,
    /// The same in a sentence, with what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The file systems of a copy, once they are open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CopyFileSystems {
    /// How far it is.
    pub state: FilesState,
    /// Why they could not be opened, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Those that were found; empty until they are open.
    #[serde(default)]
    pub file_systems: Vec<FileSystem>,
}

/// An entry of a directory in a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct FileEntry {
    /// Its name.
    pub name: String,
    /// Where it is in its file system: what it is asked for by.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// Its size.
    pub bytes: u64,
    /// When it was last written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modify_time: Option<Timestamp>,
    /// The permissions, as a number: 420 is `0644`.
    pub mode: u32,
    /// The number of its owner.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
    /// Where a symbolic link leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

fn root() -> String {
    "/".to_owned()
}

/// Which directory of a copy is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilesQuery {
    /// The device of its file system.
    pub file_system: String,
    /// The directory's path; `/` if not given.
    #[serde(default = "root")]
    pub path: String,
    /// At most this many, 1 to 1000; 100 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u32>,
    /// `nextPageToken` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_token: Option<String>,
}

/// Which file or directory of a copy is downloaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileQuery {
    /// The device of its file system.
    pub file_system: String,
    /// Its path.
    pub path: String,
}
