//! What is copied.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// A disk that does not change while it is read, from several threads.
pub trait Source: Send + Sync {
    /// Its size, in bytes.
    fn bytes(&self) -> u64;

    /// The first range that begins at `offset` or behind it, and before `end`, and may have other bytes than zeros.
    ///
    /// # Errors
    ///
    /// What the system said.
    fn data(&self, offset: u64, end: u64) -> io::Result<Option<Range<u64>>>;

    /// Reads all of the buffer, from `offset` on.
    ///
    /// # Errors
    ///
    /// What the system said.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// A file as it is, with its holes.
pub struct Raw {
    file: File,
    bytes: u64,
}

impl Raw {
    /// A file that is open.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn new(file: File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        Ok(Self { file, bytes })
    }
}

impl Source for Raw {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn data(&self, offset: u64, end: u64) -> io::Result<Option<Range<u64>>> {
        use rustix::fs::{SeekFrom, seek};
        let end = end.min(self.bytes);
        if offset >= end {
            return Ok(None);
        }
        let from = match seek(&self.file, SeekFrom::Data(offset)) {
            Ok(from) => from,
            Err(rustix::io::Errno::NXIO) => return Ok(None),
            // A file system that knows no holes.
            Err(rustix::io::Errno::INVAL) => return Ok(Some(offset..end)),
            Err(e) => return Err(e.into()),
        };
        if from >= end {
            return Ok(None);
        }
        let to = seek(&self.file, SeekFrom::Hole(from))?;
        Ok(Some(from..to.min(end)))
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}
