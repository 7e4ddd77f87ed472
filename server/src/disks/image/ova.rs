//! OVAs: a tar archive with one OVF and the VMDKs of its machine. The disks are read where they lie in the archive.

use super::{Found, No, Window, no, vmdk};
use shared::can::limit;
use shared::image::ImageFormat;
use std::io::{Read, Seek, SeekFrom};

/// Most files in an archive.
const FILES: usize = 64;

/// Its disks, in the order of the archive.
pub fn look(file: Window<'_>) -> Result<Vec<Found>, No> {
    let mut archive = tar::Archive::new(Reader { file, at: 0 });
    let (mut descriptions, mut disks) = (0, Vec::new());
    for (n, entry) in archive.entries_with_seek()?.enumerate() {
        let entry = entry?;
        if n == FILES {
            return no(format!("its archive has more than {FILES} files"));
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).to_ascii_lowercase();
        let plain = entry.header().entry_type().is_file();
        if name.ends_with(".ovf") {
            descriptions += 1;
        }
        if !name.ends_with(".vmdk") {
            continue;
        }
        if !plain {
            return no(format!("{name} in its archive is no plain file"));
        }
        let (offset, bytes) = (entry.raw_file_position(), entry.size());
        if offset.checked_add(bytes).is_none_or(|end| end > file.bytes) {
            return no("its archive ends too early");
        }
        let window = Window {
            file: file.file,
            offset,
            bytes,
        };
        if !window.read(0, 4)?.starts_with(b"KDMV") {
            return no(format!("{name} in its archive is no VMDK in one file"));
        }
        let virtual_bytes = vmdk::look(window).map_err(|e| match e {
            No::Refused(why) => No::Refused(format!("{name} in its archive: {why}")),
            e => e,
        })?;
        disks.push(Found {
            format: ImageFormat::Vmdk,
            offset,
            bytes,
            virtual_bytes,
        });
    }
    match (descriptions, disks.len()) {
        (1, 1..=limit::DISKS) => Ok(disks),
        (1, 0) => no("its archive has no VMDK"),
        (1, _) => no(format!("it has more than {} disks", limit::DISKS)),
        (0, _) => no("it is a tar archive, and no OVA: there is no OVF in it"),
        _ => no("its archive has more than one OVF"),
    }
}

struct Reader<'a> {
    file: Window<'a>,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.file.read(self.at, buf.len())?;
        buf[..bytes.len()].copy_from_slice(&bytes);
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }
}

impl Seek for Reader<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.file.bytes.checked_add_signed(by),
        };
        self.at = at.ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
