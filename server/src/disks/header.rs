//! The head of a qcow2 file: its size, and whether it names other files.

use super::{DiskError, LayerInfo};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What the head says.
pub struct Header {
    pub virtual_bytes: u64,
    backing: bool,
    encrypted: bool,
    /// The incompatible features; none before version 3.
    features: u64,
}

/// Incompatible features that QEMU reads without another file: dirty, corrupt, compression type, extended L2 entries.
const TAKEN_FEATURES: u64 = 0b11011;
const DATA_FILE: u64 = 0b100;

impl Header {
    pub fn read(path: &Path) -> Result<Self, DiskError> {
        let mut head = [0; 80];
        let mut file = File::open(path).map_err(DiskError::io("open", path))?;
        let n = fill(&mut file, &mut head).map_err(DiskError::io("read", path))?;
        Self::parse(&head[..n]).map_err(|why| DiskError::Refused {
            path: path.to_owned(),
            why,
        })
    }

    /// Reads the first bytes of a file, 80 of them if it has so many.
    pub fn parse(head: &[u8]) -> Result<Self, String> {
        if head.len() < 72 || head[..4] != *b"QFI\xfb" {
            return Err("it is not a qcow2 image".into());
        }
        let version = be32(head, 4);
        if !matches!(version, 2 | 3) || (version == 3 && head.len() < 80) {
            return Err(format!("version {version} of qcow2 is not known"));
        }
        Ok(Self {
            virtual_bytes: be64(head, 24),
            backing: be64(head, 8) != 0,
            encrypted: be32(head, 32) != 0,
            features: if version == 3 { be64(head, 72) } else { 0 },
        })
    }

    /// Why the image does not stand for itself.
    pub fn refusal(&self) -> Option<&'static str> {
        if self.backing {
            Some("it has a backing file; flatten it first, with qemu-img convert")
        } else if self.features & DATA_FILE != 0 {
            Some("it keeps its data in another file")
        } else if self.encrypted {
            Some("it is encrypted")
        } else if self.features & !TAKEN_FEATURES != 0 {
            Some("it uses features of qcow2 that are not known")
        } else {
            None
        }
    }
}

/// The sizes of a layer, without opening it in QEMU: also while a machine writes to it.
pub fn info(path: &Path) -> Result<LayerInfo, DiskError> {
    let virtual_bytes = Header::read(path)?.virtual_bytes;
    let meta = std::fs::metadata(path).map_err(DiskError::io("look at", path))?;
    Ok(LayerInfo {
        virtual_bytes,
        allocated_bytes: meta.blocks() * 512,
    })
}

fn fill(file: &mut File, buf: &mut [u8]) -> std::io::Result<usize> {
    let mut n = 0;
    while n < buf.len() {
        match file.read(&mut buf[n..])? {
            0 => break,
            k => n += k,
        }
    }
    Ok(n)
}

fn be32(b: &[u8], at: usize) -> u32 {
    b[at..at + 4].iter().fold(0, |n, b| n << 8 | u32::from(*b))
}

fn be64(b: &[u8], at: usize) -> u64 {
    b[at..at + 8].iter().fold(0, |n, b| n << 8 | u64::from(*b))
}
