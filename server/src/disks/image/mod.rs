//! Files with images, looked at before any other program may.
//!
//! What they are, whether they stand for themselves, and how large their disks are. Only heads and tables are read, in safe
//! code, each with a limit.

mod ova;
mod qcow2;
mod vhdx;
mod vmdk;

use super::DiskError;
use serde::{Deserialize, Serialize};
use shared::image::ImageFormat;
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// A disk found in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Its format; never OVA.
    pub format: ImageFormat,
    /// Where it begins in the file.
    pub offset: u64,
    /// How many bytes of the file it has.
    pub bytes: u64,
    /// What a guest sees, in bytes.
    pub virtual_bytes: u64,
}

/// A part of a file, read as if it were one.
#[derive(Clone, Copy)]
struct Window<'a> {
    file: &'a File,
    offset: u64,
    bytes: u64,
}

/// Why a file is not taken, or cannot be read.
enum No {
    Refused(String),
    Io(std::io::Error),
}

impl From<std::io::Error> for No {
    fn from(e: std::io::Error) -> Self {
        Self::Io(e)
    }
}

fn no<T>(why: impl Into<String>) -> Result<T, No> {
    Err(No::Refused(why.into()))
}

impl Window<'_> {
    /// Reads so many bytes; what lies behind the end is left out.
    fn read(&self, at: u64, bytes: usize) -> std::io::Result<Vec<u8>> {
        let bytes = self.bytes.saturating_sub(at).min(bytes as u64) as usize;
        let mut out = vec![0; bytes];
        let Some(from) = self.offset.checked_add(at) else {
            return Ok(Vec::new());
        };
        let mut n = 0;
        while n < bytes {
            match self.file.read_at(&mut out[n..], from + n as u64)? {
                0 => break,
                k => n += k,
            }
        }
        out.truncate(n);
        Ok(out)
    }

    /// Reads exactly so many bytes.
    fn exactly(&self, at: u64, bytes: usize) -> Result<Vec<u8>, No> {
        let out = self.read(at, bytes)?;
        if out.len() == bytes {
            Ok(out)
        } else {
            no("it ends too early")
        }
    }
}

fn le16(b: &[u8], at: usize) -> u16 {
    b.get(at..at + 2)
        .map_or(0, |b| b.iter().rev().fold(0, |n, b| n << 8 | u16::from(*b)))
}

fn le32(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4)
        .map_or(0, |b| b.iter().rev().fold(0, |n, b| n << 8 | u32::from(*b)))
}

fn le64(b: &[u8], at: usize) -> u64 {
    b.get(at..at + 8)
        .map_or(0, |b| b.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
}

/// Looks at a file that is said to be of `format`, or to be what it looks like. `most` is the largest disk, in bytes.
/// Answers its disks in the order of the file; only an OVA has more than one.
pub fn inspect(path: &Path, format: Option<ImageFormat>, most: u64) -> Result<Vec<Found>, DiskError> {
    // A pipe that nobody writes to would be waited for, for ever.
    let file = File::options()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(path)
        .map_err(DiskError::io("open", path))?;
    let meta = file.metadata().map_err(DiskError::io("look at", path))?;
    let whole = Window {
        file: &file,
        offset: 0,
        bytes: meta.len(),
    };
    let looked = if !meta.is_file() {
        no("it is no plain file")
    } else if meta.len() > most {
        no(too_large("it", meta.len(), most))
    } else {
        look(whole, format).and_then(|found| within(found, most))
    };
    looked.map_err(|e| match e {
        No::Refused(why) => DiskError::Refused {
            path: path.to_owned(),
            why,
        },
        No::Io(e) => DiskError::io("read", path)(e),
    })
}

fn too_large(what: &str, bytes: u64, most: u64) -> String {
    format!("{what} has {bytes} bytes, and {most} are allowed: image_max_gib raises that")
}

/// Refuses disks that are too large, or hold nothing.
fn within(found: Vec<Found>, most: u64) -> Result<Vec<Found>, No> {
    for disk in &found {
        if disk.virtual_bytes == 0 {
            return no("its disk has no bytes");
        }
        if disk.virtual_bytes > most {
            return no(too_large("its disk", disk.virtual_bytes, most));
        }
    }
    Ok(found)
}

fn look(whole: Window<'_>, said: Option<ImageFormat>) -> Result<Vec<Found>, No> {
    let head = whole.read(0, 64 << 10)?;
    if head.is_empty() {
        return no("it is empty");
    }
    let seen = recognise(&head);
    let format = match (said, seen) {
        (Some(ImageFormat::Raw), _) => ImageFormat::Raw,
        (None, Seen::Is(format)) => format,
        (Some(said), Seen::Is(seen)) if said == seen => seen,
        (Some(said), Seen::Is(seen)) => return no(format!("it is said to be {said}, and looks like {seen}")),
        (_, Seen::Other(what)) => return no(what),
        (Some(said), Seen::Unknown) => return no(format!("it is said to be {said}, and is none")),
        (None, Seen::Unknown) => {
            return no(
                "its format is not known: qcow2, VMDK, VHDX, OVA, and raw disks with a boot sector are; \
                if it is a raw disk without one, say that its format is RAW",
            );
        }
    };
    let disk = |virtual_bytes| {
        vec![Found {
            format,
            offset: 0,
            bytes: whole.bytes,
            virtual_bytes,
        }]
    };
    match format {
        ImageFormat::Qcow2 => qcow2::look(whole, &head).map(disk),
        // A layer is made of whole sectors.
        ImageFormat::Raw => Ok(disk(whole.bytes.next_multiple_of(512))),
        ImageFormat::Vmdk => vmdk::look(whole).map(disk),
        ImageFormat::Vhdx => vhdx::look(whole).map(disk),
        ImageFormat::Ova => ova::look(whole),
    }
}

/// What the head of a file tells.
enum Seen {
    Is(ImageFormat),
    /// What is known, and not taken.
    Other(&'static str),
    Unknown,
}

const OTHERS: &[(usize, &[u8], &str)] = &[
    (
        0,
        b"# Disk DescriptorFile",
        "it is a VMDK that names other files: export it as one file (monolithicSparse or streamOptimized)",
    ),
    (
        0,
        b"COWD",
        "it is an ESX sparse VMDK, which is not taken: export it as streamOptimized, or as an OVA",
    ),
    (
        0,
        b"conectix",
        "it is a VHD, which is not taken: convert it to VHDX",
    ),
    (
        0x40,
        b"\x7f\x10\xda\xbe",
        "it is a VDI, which is not taken: export it as VMDK or OVA",
    ),
    (
        0,
        b"QED\0",
        "it is a QED image, which is not taken: convert it to qcow2",
    ),
    (0, b"LUKS\xba\xbe", "it is encrypted"),
    (
        0,
        b"json:",
        "it is the description of an image that names other files",
    ),
    (0, b"\x1f\x8b", "it is compressed by gzip: unpack it first"),
    (0, b"\xfd7zXZ\0", "it is compressed by xz: unpack it first"),
    (
        0,
        b"\x28\xb5\x2f\xfd",
        "it is compressed by zstd: unpack it first",
    ),
    (0, b"BZh", "it is compressed by bzip2: unpack it first"),
    (0, b"PK\x03\x04", "it is a zip archive: unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "it is a 7z archive: unpack it first"),
];

fn recognise(head: &[u8]) -> Seen {
    let has = |at: usize, magic: &[u8]| head.get(at..at + magic.len()) == Some(magic);
    if has(0, b"QFI\xfb") {
        return Seen::Is(ImageFormat::Qcow2);
    }
    if has(0, b"KDMV") {
        return Seen::Is(ImageFormat::Vmdk);
    }
    if has(0, b"vhdxfile") {
        return Seen::Is(ImageFormat::Vhdx);
    }
    if has(257, b"ustar") {
        return Seen::Is(ImageFormat::Ova);
    }
    if let Some((_, _, what)) = OTHERS.iter().find(|(at, magic, _)| has(*at, magic)) {
        return Seen::Other(what);
    }
    // A boot sector, or that of a CD.
    if has(510, b"\x55\xaa") || has(32769, b"CD001") {
        return Seen::Is(ImageFormat::Raw);
    }
    Seen::Unknown
}

#[cfg(test)]
mod tests;
