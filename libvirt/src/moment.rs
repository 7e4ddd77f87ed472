//! A backup: the disks of a machine as they were at one moment, shown by QEMU while the machine goes on.

#[cfg(not(feature = "client"))]
use crate::absent::Work;
#[cfg(feature = "client")]
use crate::backup::Work;
use crate::error::Result;
use crate::machine::{Disk, Machine};
use std::ops::Range;
use std::sync::Arc;
use vault::Source;

/// What is asked to be read.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The machine.
    pub uuid: String,
    /// Whose backup it is: letters, digits and dashes. What is there of an earlier backup of the same is ended.
    pub key: String,
    /// Which one of those: another for each try.
    pub number: String,
    /// Since when to tell what has changed.
    pub since: Option<Since>,
    /// Whether the guest is asked to freeze its file systems for that moment.
    pub quiesce: bool,
}

/// An earlier moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since {
    /// Its checkpoint.
    pub checkpoint: String,
    /// The disks that it is of, by their targets.
    pub targets: Vec<String>,
}

/// Whether the guest has frozen its file systems for the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quiesced {
    /// It was not asked.
    No,
    /// It has.
    Yes,
    /// It did not answer, for this reason.
    Failed(String),
    /// The machine was off.
    Off,
}

/// A disk as it was at the moment.
pub struct BackupDisk {
    /// What it is.
    pub disk: Disk,
    /// What it has.
    pub source: Arc<dyn Source>,
    /// What has changed since the earlier moment, where that can be told.
    pub changed: Option<Vec<Range<u64>>>,
}

/// A backup that is at work. Dropped before it was ended it is taken back, in a thread of its own.
pub struct Backup {
    /// The machine as it was described at the moment.
    pub machine: Machine,
    /// Its disks.
    pub disks: Vec<BackupDisk>,
    /// The checkpoint of the moment, where there are disks that can remember what changes.
    pub checkpoint: Option<String>,
    /// Whether the guest had frozen its file systems.
    pub quiesced: Quiesced,
    /// Why what has changed cannot be told though it was asked.
    pub lost: Option<String>,
    pub(crate) work: Option<Work>,
}

impl Backup {
    /// Ends the backup; its checkpoint stays.
    ///
    /// # Errors
    ///
    /// It does not end, or the machine was off and was started by somebody meanwhile.
    pub fn end(mut self) -> Result<()> {
        self.disks.clear();
        self.work.take().map_or(Ok(()), |mut work| work.end())
    }

    /// Leaves the backup as it is, as one does whose process is killed.
    #[doc(hidden)]
    pub fn leave(mut self) {
        self.disks.clear();
        if let Some(work) = self.work.take() {
            work.leave();
        }
    }

    /// Takes the backup back, with its checkpoint: what has changed is told since the one before.
    pub fn take_back(mut self) {
        self.disks.clear();
        if let Some(mut work) = self.work.take() {
            work.undo();
        }
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        if let Some(mut work) = self.work.take() {
            std::thread::spawn(move || work.undo());
        }
    }
}
