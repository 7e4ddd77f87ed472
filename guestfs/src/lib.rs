//! The files of a copy: its file systems, their directories, and one file or directory at a time.
//!
//! guestfish reads them, in a small machine of its own: a hostile file system meets the kernel of that machine, not this
//! host's. It is started once for a copy and asked as often as somebody looks, until nobody does.

pub mod adapt;
mod download;
mod entries;
mod error;
pub mod helper;
pub mod name;
mod session;
mod systems;

pub use download::Download;
pub use error::{FilesError, Why};
pub use helper::Helper;

use serde::Serialize;
use session::{Drive, Session};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Longest time of one answer.
const LIMIT: Duration = Duration::from_secs(60);
/// Longest wait for others to be answered.
const WAIT: Duration = Duration::from_secs(20);

/// How long a machine may take to start that is going to: to build what it boots, and to boot it. Without KVM one has been seen to
/// stand still for ever, its processors busy.
pub const FIRST_TRY: Duration = Duration::from_secs(150);

/// Memory of the machine that only reads, in MiB, and its processors.
const SIZE: (u32, u32) = (512, 1);

/// A disk of a copy, as it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What people call it.
    pub name: String,
    /// The unix socket of the NBD server.
    pub socket: PathBuf,
    /// The name of the export there.
    pub export: String,
}

/// What a browser is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// What shuts guestfish in.
    pub helper: Helper,
    /// Where each browser has a directory while it is open. At most 60 bytes long, for sockets are in it.
    pub run_dir: PathBuf,
    /// Where the machine's kernel and system are kept: 380 MiB, written once.
    pub cache_dir: PathBuf,
    /// Whether KVM is used.
    pub kvm: bool,
    /// It closes by itself when nobody has asked for that long.
    pub idle: Duration,
    /// How long the machine may take to start before it is tried anew, once; see [`FIRST_TRY`].
    pub first_try: Duration,
}

/// A file system on the disks of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileSystem {
    /// Its device in guestfish's machine; what it is asked for by.
    pub device: String,
    /// The disk it is on; `None` for a logical volume, which may be on several.
    pub disk: Option<String>,
    /// `ext4`, `xfs`, `vfat`, `ntfs`, …
    pub kind: String,
    /// Its label.
    pub label: Option<String>,
    /// The size of the device, in bytes.
    pub bytes: Option<u64>,
    /// The operating system on it.
    pub os: Option<String>,
    /// Why its files cannot be read.
    pub trouble: Option<Trouble>,
}

/// Why the files of a file system cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Trouble {
    /// LUKS or BitLocker.
    Encrypted,
    /// It holds memory that was swapped out.
    Swap,
    /// Nothing that is known.
    Unknown,
    /// It cannot be mounted, with what the kernel says.
    Damaged(String),
}

/// What an entry of a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)]
pub enum EntryKind {
    File,
    Directory,
    Symlink,
    Other,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its name, as [`name::escape`] writes it.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
    /// Its size.
    pub bytes: u64,
    /// When it was last written.
    #[serde(with = "time::serde::rfc3339::option")]
    pub modified: Option<OffsetDateTime>,
    /// The permissions, without the kind.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Where a symbolic link leads, written as a name is.
    pub target: Option<String>,
}

/// A page of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// In the order of their names' bytes.
    pub entries: Vec<Entry>,
    /// As many are in the directory.
    pub total: usize,
    /// Whether `total` is all: names beyond 64 MiB are left out.
    pub complete: bool,
    /// Where the next page begins.
    pub next: Option<usize>,
}

/// The version of libguestfs on this host, if all is there that [`Browser::open`] needs.
pub fn installed() -> Result<String, Why> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for program in ["guestfish", "supermin", "qemu-system-x86_64", "qemu-img"] {
        if !std::env::split_paths(&path).any(|dir| dir.join(program).is_file()) {
            return Err(Why::Program { program });
        }
    }
    // A kernel that supermin is told of stands for those in /boot.
    if std::env::var_os("SUPERMIN_KERNEL").is_none() {
        let kernels = std::fs::read_dir("/boot").into_iter().flatten().flatten();
        let kernels = kernels.filter(|f| f.file_name().to_string_lossy().starts_with("vmlinuz-"));
        let kernels: Vec<_> = kernels.map(|f| f.path()).collect();
        let unreadable = kernels.first().ok_or(Why::NoKernel)?;
        if !kernels.iter().any(|k| std::fs::File::open(k).is_ok()) {
            let kernel = unreadable.display().to_string();
            return Err(Why::Unreadable { kernel });
        }
    }
    let out = std::process::Command::new("guestfish").arg("--version").output();
    let out = out.map_err(|e| Why::Version(e.to_string()))?;
    let said = String::from_utf8_lossy(&out.stdout);
    let version = said.trim().strip_prefix("guestfish ");
    version
        .map(str::to_owned)
        .ok_or_else(|| Why::Version(said.trim().to_owned()))
}

/// The files of one copy. Clones are the same browser; with the last, all ends.
#[derive(Clone)]
pub struct Browser {
    inner: Arc<Inner>,
}

struct Inner {
    state: Arc<Mutex<State>>,
    disks: Vec<Disk>,
    closed: CancellationToken,
}

struct State {
    session: Option<Session>,
    systems: Option<Vec<FileSystem>>,
    used: Instant,
}

impl Browser {
    /// Starts to look at disks. Takes seconds, and some more where there is no KVM.
    pub async fn open(disks: &[Disk], setup: &Setup) -> Result<Self, FilesError> {
        installed()?;
        let drives: Vec<_> = disks.iter().map(Drive::Shown).collect();
        let session = Session::start(&drives, SIZE, setup).await?;
        let state = Arc::new(Mutex::new(State {
            session: Some(session),
            systems: None,
            used: Instant::now(),
        }));
        let closed = CancellationToken::new();
        tokio::spawn(end_when_idle(Arc::downgrade(&state), setup.idle, closed.clone()));
        let disks = disks.to_vec();
        Ok(Self {
            inner: Arc::new(Inner { state, disks, closed }),
        })
    }

    /// The file systems of all disks. An error where there is none.
    pub async fn file_systems(&self) -> Result<Vec<FileSystem>, FilesError> {
        let mut state = self.turn().await?;
        self.systems(&mut state).await
    }

    /// A page of a directory: at most `most` entries, and 1000, beginning with number `from`.
    pub async fn list(
        &self,
        device: &str,
        path: &[u8],
        from: usize,
        most: usize,
    ) -> Result<Listing, FilesError> {
        let mut state = self.at(device, path).await?;
        let result = entries::list(state.session()?, path, from, most).await;
        state.checked(result)
    }

    /// Returns when it is closed, or has closed by itself.
    pub async fn closed(&self) {
        self.inner.closed.cancelled().await;
    }

    /// Closes it; nothing is left behind. Downloads end with an error.
    pub async fn close(&self) {
        self.inner.closed.cancel();
        let session = self.inner.state.lock().await.session.take();
        if let Some(session) = session {
            session.close().await;
        }
    }

    async fn systems(&self, state: &mut State) -> Result<Vec<FileSystem>, FilesError> {
        if state.systems.is_none() {
            let found = systems::find(state.session()?, &self.inner.disks).await;
            state.systems = Some(state.checked(found)?);
        }
        Ok(state.systems.clone().unwrap_or_default())
    }

    /// Waits for its turn.
    async fn turn(&self) -> Result<OwnedMutexGuard<State>, FilesError> {
        let turn = timeout(WAIT, self.inner.state.clone().lock_owned()).await;
        let mut state = turn.map_err(|_| FilesError::Busy)?;
        state.used = Instant::now();
        Ok(state)
    }

    /// Its turn, with a file system mounted, which must be one that was found.
    async fn at(&self, device: &str, path: &[u8]) -> Result<OwnedMutexGuard<State>, FilesError> {
        if !path.starts_with(b"/") || path.contains(&0) {
            return Err(FilesError::BadPath(name::escape(path)));
        }
        let mut state = self.turn().await?;
        let systems = self.systems(&mut state).await?;
        let system = systems.into_iter().find(|s| s.device == device);
        let system = system.ok_or_else(|| FilesError::NoSuchFileSystem(device.to_owned()))?;
        let device = system.device;
        match system.trouble {
            None => {}
            Some(Trouble::Encrypted) => return Err(FilesError::Encrypted(device)),
            Some(Trouble::Swap | Trouble::Unknown) => return Err(FilesError::Unknown(device)),
            Some(Trouble::Damaged(why)) => return Err(FilesError::Damaged { device, why }),
        }
        let mounted = systems::mount(state.session()?, &device).await;
        state.checked(mounted)?;
        Ok(state)
    }
}

impl State {
    fn session(&mut self) -> Result<&mut Session, FilesError> {
        self.session.as_mut().ok_or(FilesError::Ended)
    }

    /// A session that does not answer is ended.
    fn checked<T>(&mut self, result: Result<T, FilesError>) -> Result<T, FilesError> {
        if let Err(FilesError::TimedOut { .. } | FilesError::Start(_) | FilesError::Ended) = result {
            self.session = None;
        }
        result
    }
}

async fn end_when_idle(state: std::sync::Weak<Mutex<State>>, idle: Duration, closed: CancellationToken) {
    let mut next = Instant::now() + idle;
    loop {
        tokio::time::sleep_until(next).await;
        let Some(state) = state.upgrade() else { return };
        let mut state = state.lock().await;
        next = state.used + idle;
        if next <= Instant::now() {
            if let Some(session) = state.session.take() {
                session.close().await;
            }
            closed.cancel();
            return;
        }
    }
}
