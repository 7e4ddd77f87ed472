//! Images and chains of layers: the only place that runs qemu-img.

pub mod blockdev;
pub mod frozen;
mod header;
pub mod helper;
pub mod image;
mod outside;
mod qemu_img;
mod room;
pub mod roots;
mod seed;
mod sim;
mod tool;

pub use qemu_img::QemuImg;
pub use sim::{SimDisks, take_up};

use async_trait::async_trait;
use helper::Helper;
use image::Found;
use shared::LayerId;
use shared::image::{ExportFormat, ImageFormat};
use shared::vm::CloudInit;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A layer, and where it is: a qcow2 file, or a disk of a copy in the vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerFile {
    /// The layer.
    pub id: LayerId,
    /// Its file.
    pub path: PathBuf,
    /// What shows it, in the place of a file.
    pub shown: Option<Shown>,
}

/// A disk of a copy in the vault, as a process shows it by NBD; nobody writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Where that process listens.
    pub socket: PathBuf,
    /// The disk's name in the copy.
    pub disk: String,
}

/// The sizes of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// What a guest sees, in bytes.
    pub virtual_bytes: u64,
    /// What it takes on the host, in bytes.
    pub allocated_bytes: u64,
}

/// The room in a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Its size, in bytes.
    pub total: u64,
    /// What is free, in bytes.
    pub free: u64,
}

/// Why something could not be done to a disk.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum DiskError {
    #[error("{dir} has no room for the copy: it needs {need} bytes, {free} are free")]
    NoSpace { need: u64, free: u64, dir: PathBuf },
    #[error("{op} {path}: {why}")]
    Tool {
        op: &'static str,
        path: PathBuf,
        why: String,
    },
    #[error("run qemu-img: it is not installed; install the package qemu-utils")]
    NotInstalled,
    #[error("{op} {path}")]
    Io {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not taken: {why}")]
    Refused { path: PathBuf, why: String },
}

impl DiskError {
    /// Names the operation and the file of an I/O error.
    pub fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { op, path, source }
    }
}

/// What a chain of frozen layers shows.
pub struct FrozenDisk {
    /// The disk.
    pub source: Arc<dyn vault::Source>,
    /// What may be different, in bytes, ascending and apart; none if nothing was asked for.
    pub changed: Option<Vec<Range<u64>>>,
}

/// What is told of a copy under way: bytes done, bytes in all.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// Layers on this host. Every operation may be repeated, and its future dropped, at any time; what is made stands
/// under its name only when it is whole.
#[async_trait]
pub trait Disks: Send + Sync {
    /// Makes an empty layer that stands on nothing.
    async fn create_blank(&self, layer: &LayerFile, virtual_bytes: u64) -> Result<(), DiskError>;

    /// Makes a layer of what an EFI firmware remembers at first, which stands in a raw file.
    async fn create_variables(&self, layer: &LayerFile, template: &Path) -> Result<(), DiskError>;

    /// Makes empty layers that stand on the same `backing`, with its size.
    async fn create_overlays(&self, layers: &[LayerFile], backing: &LayerFile) -> Result<(), DiskError>;

    /// Makes an empty layer that stands on `backing`; with the size of that, unless given.
    async fn create_overlay(
        &self,
        layer: &LayerFile,
        backing: &LayerFile,
        virtual_bytes: Option<u64>,
    ) -> Result<(), DiskError>;

    /// Has a layer that nobody has open show so many bytes; one that shows as many or more stays as it is.
    async fn grow(&self, layer: &LayerFile, virtual_bytes: u64) -> Result<(), DiskError>;

    /// Copies what a chain shows (the base first) into one layer that stands on nothing.
    async fn copy_flat(
        &self,
        chain: &[LayerFile],
        to: &LayerFile,
        progress: Progress<'_>,
    ) -> Result<(), DiskError>;

    /// Takes what the layers between say into one above them, which stands on `base` from then on. Nobody may have it open.
    async fn merge_up(
        &self,
        into: &LayerFile,
        between: &[LayerFile],
        base: Option<&LayerFile>,
        progress: Progress<'_>,
    ) -> Result<(), DiskError>;

    /// The sizes of a layer.
    async fn info(&self, layer: &LayerFile) -> Result<LayerInfo, DiskError>;

    /// Looks at a file that came from outside; see [`image::inspect`].
    async fn inspect(
        &self,
        from: &Path,
        format: Option<ImageFormat>,
        most: u64,
    ) -> Result<Vec<Found>, DiskError>;

    /// Converts a disk that was found in a file that came from outside into a layer, by the helper.
    async fn import(
        &self,
        helper: &Helper,
        from: &Path,
        found: &Found,
        to: &LayerFile,
        progress: Progress<'_>,
    ) -> Result<(), DiskError>;

    /// What a chain of frozen layers (the base first) shows, to be read beside QEMU. With `below`, also what may be different
    /// from what so many of the lowest show.
    async fn frozen(&self, chain: &[LayerFile], below: Option<usize>) -> Result<FrozenDisk, DiskError>;

    /// What an overlay has itself, whatever it stands on, to be read when nobody writes it any more.
    async fn written(&self, overlay: &Path) -> Result<FrozenDisk, DiskError>;

    /// Writes what a chain shows (the base first) to a file of this format.
    async fn export(
        &self,
        chain: &[LayerFile],
        to: &Path,
        format: ExportFormat,
        progress: Progress<'_>,
    ) -> Result<(), DiskError>;

    /// Makes a seed disk that says what another says, of another instance.
    async fn renew_seed(
        &self,
        from: &Path,
        to: &Path,
        instance_id: &str,
        hostname: &str,
    ) -> Result<(), DiskError>;

    /// Makes a NoCloud seed disk. `instance-id` and `local-hostname` are added where `ci` has none.
    async fn write_seed(
        &self,
        path: &Path,
        instance_id: &str,
        hostname: &str,
        ci: &CloudInit,
    ) -> Result<(), DiskError>;

    /// Removes a layer or a seed, whole or half made. None there is fine.
    async fn remove(&self, path: &Path) -> Result<(), DiskError>;

    /// The room where `dir` is.
    async fn space(&self, dir: &Path) -> Result<Space, DiskError>;
}

/// What a file is called until it is whole.
pub(crate) fn part(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// The room where `dir` is, without what is kept for root.
pub fn space(dir: &Path) -> Result<Space, DiskError> {
    let fs = rustix::fs::statvfs(dir).map_err(|e| DiskError::io("ask for the room in", dir)(e.into()))?;
    Ok(Space {
        total: fs.f_blocks * fs.f_frsize,
        free: fs.f_bavail * fs.f_frsize,
    })
}

/// Copies a NoCloud seed; it is small.
pub async fn copy_seed(from: &Path, to: &Path) -> Result<(), DiskError> {
    let part = part(to);
    tokio::fs::copy(from, &part)
        .await
        .map_err(DiskError::io("copy the seed", from))?;
    tokio::fs::rename(&part, to)
        .await
        .map_err(DiskError::io("name the seed", to))
}

/// Refuses what is no plain file, without opening it.
pub async fn plain(path: &Path) -> Result<(), DiskError> {
    let found = tokio::fs::metadata(path).await;
    if found.map_err(DiskError::io("look at", path))?.is_file() {
        return Ok(());
    }
    Err(DiskError::Refused {
        path: path.to_owned(),
        why: "it is no plain file".into(),
    })
}

/// How many bytes a file takes, on the disk for certain if that is asked.
pub async fn settled(path: &Path, durable: bool) -> Result<u64, DiskError> {
    use std::os::unix::fs::MetadataExt;
    let file = tokio::fs::File::open(path).await;
    let file = file.map_err(DiskError::io("open", path))?;
    if durable {
        file.sync_all().await.map_err(DiskError::io("sync", path))?;
    }
    let told = file.metadata().await.map_err(DiskError::io("look at", path))?;
    Ok(told.blocks() * 512)
}

fn remove_file(path: &Path) -> Result<(), DiskError> {
    for path in [&part(path), path] {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(DiskError::io("remove", path)(e)),
            _ => {}
        }
    }
    Ok(())
}
