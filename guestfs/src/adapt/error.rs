//! Why an operating system is not adapted, and what to do about it.

use crate::FilesError;
use std::fmt;
use std::time::Duration;

/// Why it is not done with these disks. Trying again changes nothing; doing what is advised does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// LUKS or BitLocker, where the system would be.
    Encrypted {
        /// The device, as the disks come: `/dev/sda2` is the second partition of the first.
        device: String,
    },
    /// Nothing that is known is on any disk.
    NoOperatingSystem,
    /// One machine boots one; which is not ours to say.
    SeveralOperatingSystems {
        /// What they are.
        found: Vec<String>,
    },
    /// Windows that sleeps, or was shut down for a fast start.
    Hibernated,
    /// A file system that must be written, and cannot be.
    NotClean {
        /// Where it is.
        device: String,
        /// What the kernel says.
        why: String,
    },
    /// Windows boots from virtio only with drivers that it has installed itself.
    WindowsWithoutVirtio {
        /// Those that are not there.
        missing: Vec<String>,
    },
    /// A system that nothing is known about.
    Unknown {
        /// What it says that it is.
        what: String,
    },
    /// Its programs do not run here.
    Architecture {
        /// Of its programs.
        arch: String,
    },
    /// No kernel with modules of its own.
    NoKernel,
    /// A kernel that was made without virtio.
    NoVirtio {
        /// Its release.
        kernel: String,
    },
    /// Drivers are missing in the initramfs, and nothing is there that makes another.
    NoInitramfsTool {
        /// Its release.
        kernel: String,
    },
    /// The other firmware would find nothing to boot.
    Firmware {
        /// Why.
        why: String,
        /// What to do in the guest before.
        advice: String,
    },
    /// A file system of the guest is too full.
    NoSpace {
        /// Where.
        path: String,
        /// What else is known.
        why: String,
    },
    /// A program of the guest failed.
    Program {
        /// What it was to do.
        what: String,
        /// The end of what it said.
        why: String,
    },
    /// No name that a machine can have.
    BadHostname {
        /// The name.
        hostname: String,
    },
}

impl Refusal {
    /// What is wrong, and what to do about it.
    fn parts(&self) -> (String, String) {
        let both = |reason: String, advice: &str| (reason, advice.to_owned());
        match self {
            Self::Encrypted { device } => both(
                format!("{device} is encrypted"),
                "decrypt it in the guest before, or go on without adaptation",
            ),
            Self::NoOperatingSystem => both(
                "no operating system is on the disks".into(),
                "give the disk that it boots from, or go on without adaptation",
            ),
            Self::SeveralOperatingSystems { found } => both(
                format!("several operating systems are on the disks: {}", found.join(", ")),
                "give the disks of one alone, or go on without adaptation",
            ),
            Self::Hibernated => both(
                "Windows is hibernated, or was shut down for a fast start".into(),
                "shut it down by `shutdown /s /f /t 0` with `powercfg /h off` before, and copy it anew",
            ),
            Self::NotClean { device, why } => both(
                format!("the file system on {device} cannot be written: {why}"),
                "shut the guest down, check it there (fsck, chkdsk), and copy it anew",
            ),
            Self::WindowsWithoutVirtio { missing } => both(
                format!("Windows has no virtio drivers ({} missing)", missing.join(", ")),
                "install virtio-win-guest-tools in the guest before: they cannot be put in from outside",
            ),
            Self::Unknown { what } => both(
                format!("{what} is a system that nothing is known about"),
                "see that it has virtio drivers, and go on without adaptation",
            ),
            Self::Architecture { arch } => both(
                format!("the programs of the guest are for {arch}"),
                "x86-64 alone is adapted: go on without adaptation",
            ),
            Self::NoKernel => both(
                "the guest has no kernel with modules in /lib/modules".into(),
                "install its distribution's kernel in the guest before",
            ),
            Self::NoVirtio { kernel } => both(
                format!("the kernel {kernel} has no driver virtio_blk"),
                "install its distribution's own kernel in the guest before",
            ),
            Self::NoInitramfsTool { kernel } => both(
                format!(
                    "the initramfs of kernel {kernel} has no virtio drivers, and there is neither \
                     update-initramfs nor dracut"
                ),
                "build one with virtio_pci and virtio_blk in the guest before",
            ),
            Self::Firmware { why, advice } => (why.clone(), advice.clone()),
            Self::NoSpace { path, why } => both(
                format!("there is no room on {path} of the guest: {why}"),
                "free some there, such as by removing old kernels, and copy it anew",
            ),
            Self::Program { what, why } => both(
                format!("{what} failed in the guest: {why}"),
                "repair it in the guest before, or go on without adaptation",
            ),
            Self::BadHostname { hostname } => both(
                format!("{hostname:?} is no name of a machine"),
                "give one of letters, digits, hyphens and dots, at most 63 between two dots",
            ),
        }
    }

    /// What is wrong.
    pub fn reason(&self) -> String {
        self.parts().0
    }

    /// What to do about it.
    pub fn advice(&self) -> String {
        self.parts().1
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (reason, advice) = self.parts();
        write!(f, "{reason}; {advice}")
    }
}

impl std::error::Error for Refusal {}

/// Why an operating system was not adapted. The overlays are of no more use then.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum AdaptError {
    /// It is for the disks' owner to do something.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// This host failed: guestfish is missing, ended, or was not answered by what shows the disks.
    #[error("adapt the operating system")]
    Host(#[from] FilesError),
    #[error("{op} took more than {} s; try again when the host is less busy", limit.as_secs())]
    TimedOut { op: String, limit: Duration },
    /// `qemu-img` made no overlay.
    #[error("make the overlay {path}: {why}")]
    Overlay { path: String, why: String },
}

impl AdaptError {
    /// Whether the disks are the reason, so that trying again is of no use.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}
