//! Copies whose files somebody looks at: each is opened in the background, and closed when nobody looks any more.
//!
//! Nothing of it outlives this server: guestfish ends with its standard input, what shows it the disks when it has no client,
//! and what is left of their files goes with the next start.

use super::{Copies, CopiesError, Show, lock};
use crate::db;
use crate::nbd::{Config, process};
use futures::StreamExt;
use guestfs::{Browser, Disk, Download, FileSystem, FilesError, Helper, Listing, Setup};
use shared::copy::Copy;
use shared::{Code, CopyId, Status};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// As many copies are open at once, for each has a machine of 512 MiB.
const MOST: usize = 4;
/// A copy is closed when nobody has asked for a file for that long.
const IDLE: Duration = Duration::from_secs(600);
/// That long is remembered why a copy could not be opened.
const REMEMBERED: Duration = Duration::from_secs(60);
/// When the server has died, what shows the disks ends after so many seconds.
const ALONE_SECONDS: u64 = 600;

/// The browsers of this server.
pub(super) struct Browsers {
    /// Where what is open has its sockets. Nothing else is in it.
    dir: PathBuf,
    /// Where what their machines boot is kept.
    cache: PathBuf,
    all: Mutex<HashMap<CopyId, One>>,
    tasks: TaskTracker,
}

struct One {
    id: Uuid,
    look: Look,
    used: Arc<Mutex<Instant>>,
    /// Ends it.
    over: CancellationToken,
    /// Nothing of it is left.
    gone: CancellationToken,
}

/// How far a copy is open.
#[derive(Clone)]
pub enum Look {
    /// It is being opened.
    Opening,
    /// Its files can be read.
    Ready(Open),
    /// It could not be opened.
    Failed(Status),
}

/// A copy whose files can be read.
#[derive(Clone)]
pub struct Open {
    /// Its file systems.
    pub systems: Vec<FileSystem>,
    browser: Browser,
    used: Arc<Mutex<Instant>>,
    over: CancellationToken,
}

impl Open {
    /// A page of a directory, as of [`Browser::list`].
    pub async fn list(
        &self,
        device: &str,
        path: &[u8],
        from: usize,
        most: usize,
    ) -> Result<Listing, FilesError> {
        *lock(&self.used) = Instant::now();
        let listing = self.browser.list(device, path, from, most).await;
        listing.inspect_err(|e| self.broken(e))
    }

    /// A file or a directory, as of [`Browser::download`].
    pub async fn download(&self, device: &str, path: &[u8], from: u64) -> Result<Download, FilesError> {
        *lock(&self.used) = Instant::now();
        let download = self.browser.download(device, path, from).await;
        let download = download.inspect_err(|e| self.broken(e))?;
        let open = self.clone();
        let body = download.body.inspect(move |piece| match piece {
            Ok(_) => *lock(&open.used) = Instant::now(),
            Err(e) => open.broken(e),
        });
        Ok(Download {
            bytes: download.bytes,
            body: body.boxed(),
        })
    }

    /// What has ended is closed, so that it is opened anew by whoever looks next.
    fn broken(&self, e: &FilesError) {
        if let FilesError::Ended | FilesError::TimedOut { .. } | FilesError::Start(_) = e {
            self.over.cancel();
        }
    }
}

impl Browsers {
    pub(super) fn new(data_dir: &Path) -> Arc<Self> {
        Arc::new(Self {
            dir: data_dir.join("run").join("files"),
            cache: data_dir.join("cache").join("files"),
            all: Mutex::default(),
            tasks: TaskTracker::new(),
        })
    }

    /// Where guestfish has its sockets.
    pub(super) fn run_dir(&self) -> PathBuf {
        self.dir.clone()
    }

    /// Where what its machine boots is kept.
    pub(super) fn cache_dir(&self) -> PathBuf {
        self.cache.clone()
    }

    fn look(&self, copy: CopyId) -> Option<Look> {
        let all = lock(&self.all);
        let one = all.get(&copy).filter(|one| !one.over.is_cancelled())?;
        *lock(&one.used) = Instant::now();
        Some(one.look.clone())
    }

    fn set(&self, copy: CopyId, id: Uuid, look: Look) {
        if let Some(one) = lock(&self.all).get_mut(&copy).filter(|one| one.id == id) {
            one.look = look;
        }
    }

    /// Begins to open a copy, unless somebody else has. The one that was unused longest is closed where there is no room.
    fn begin(self: &Arc<Self>, copy: CopyId, config: Config, setup: Setup) -> Result<(), Status> {
        if self.tasks.is_closed() {
            return Err(Status::new(Code::Unavailable, "the server is stopping"));
        }
        let mut all = lock(&self.all);
        if all.get(&copy).is_some_and(|one| !one.over.is_cancelled()) {
            return Ok(());
        }
        all.remove(&copy);
        while all.len() >= MOST {
            let longest = all.iter().min_by_key(|(_, one)| *lock(&one.used));
            let Some(longest) = longest.map(|(copy, _)| *copy) else {
                break;
            };
            if let Some(one) = all.remove(&longest) {
                one.over.cancel();
            }
        }
        let one = One {
            id: Uuid::new_v4(),
            look: Look::Opening,
            used: Arc::new(Mutex::new(Instant::now())),
            over: CancellationToken::new(),
            gone: CancellationToken::new(),
        };
        let life = Life {
            browsers: self.clone(),
            copy,
            id: one.id,
            config: Config {
                socket: self.dir.join(format!("{}.nbd", one.id.simple())),
                idle_seconds: Some(ALONE_SECONDS),
                ..config
            },
            setup,
            used: one.used.clone(),
            over: one.over.clone(),
        };
        let gone = one.gone.clone().drop_guard();
        all.insert(copy, one);
        self.tasks.spawn(async move {
            life.run().await;
            drop(gone);
        });
        Ok(())
    }
}

/// One browser, from its begin to its end.
struct Life {
    browsers: Arc<Browsers>,
    copy: CopyId,
    id: Uuid,
    config: Config,
    setup: Setup,
    used: Arc<Mutex<Instant>>,
    over: CancellationToken,
}

impl Life {
    async fn run(self) {
        let opened = tokio::select! {
            () = self.over.cancelled() => None,
            opened = self.open() => Some(opened),
        };
        let failed = match opened {
            None => None,
            Some(Ok(open)) => {
                let browser = open.browser.clone();
                self.browsers.set(self.copy, self.id, Look::Ready(open));
                tokio::select! {
                    () = self.over.cancelled() => {}
                    () = browser.closed() => {}
                }
                self.over.cancel();
                browser.close().await;
                None
            }
            Some(Err(status)) => Some(status),
        };
        if let Err(e) = process::end(&self.config.socket).await {
            tracing::error!(copy = %self.copy, error = %db::chain(&e), "the disks of a copy are still shown");
        }
        if let Some(status) = failed {
            tracing::warn!(copy = %self.copy, error = %status.message, "the files of a copy cannot be opened");
            self.browsers.set(self.copy, self.id, Look::Failed(status));
            tokio::select! {
                () = self.over.cancelled() => {}
                () = tokio::time::sleep(REMEMBERED) => {}
            }
        }
        let mut all = lock(&self.browsers.all);
        if all.get(&self.copy).is_some_and(|one| one.id == self.id) {
            all.remove(&self.copy);
        }
    }

    async fn open(&self) -> Result<Open, Status> {
        let dir = &self.browsers.dir;
        tokio::fs::create_dir_all(dir).await.map_err(|e| {
            Status::new(
                Code::Internal,
                format!("make the directory {}: {e}", dir.display()),
            )
        })?;
        let shown = process::ensure(&self.setup.helper.program, &self.config).await;
        shown.map_err(|e| Status::from(super::shows::of_process(e)))?;
        let disk = |name: &String| Disk {
            name: name.clone(),
            socket: self.config.socket.clone(),
            export: name.clone(),
        };
        let disks: Vec<_> = self.config.disks.iter().map(disk).collect();
        let browser = Browser::open(&disks, &self.setup).await.map_err(refused)?;
        let systems = browser.file_systems().await.map_err(refused)?;
        Ok(Open {
            systems,
            browser,
            used: self.used.clone(),
            over: self.over.clone(),
        })
    }
}

impl Copies {
    /// How far the files of a copy are open; begins to open them where they are not. Answers at once.
    pub async fn files(&self, copy: &Copy) -> Result<Look, CopiesError> {
        let Some(program) = &self.program else {
            return Err(Status::precondition("the simulation has no files").into());
        };
        if let Some(look) = self.browsers.look(copy.id) {
            return Ok(look);
        }
        let show = Show {
            id: Uuid::nil(),
            target: copy.target,
            copy: copy.id,
            // What a firmware remembers is no disk with files.
            disks: (copy.disks.iter().filter(|disk| disk.slot != 0))
                .map(|disk| disk.name.clone())
                .collect(),
        };
        let setup = Setup {
            helper: Helper {
                program: program.clone(),
            },
            run_dir: self.browsers.dir.clone(),
            cache_dir: self.browsers.cache.clone(),
            kvm: self.kvm,
            idle: IDLE,
            first_try: guestfs::FIRST_TRY,
        };
        let config = self.config(&show).await?;
        self.browsers.begin(copy.id, config, setup)?;
        Ok(Look::Opening)
    }

    /// Closes the files of a copy; returns when nothing of it is left. Fine where they are not open.
    pub async fn close_files(&self, copy: CopyId) {
        let one = lock(&self.browsers.all).remove(&copy);
        if let Some(one) = one {
            one.over.cancel();
            one.gone.cancelled().await;
        }
    }

    /// Closes the files of all copies, for good.
    pub async fn end_files(&self) {
        self.browsers.tasks.close();
        for one in lock(&self.browsers.all).values() {
            one.over.cancel();
        }
        self.browsers.tasks.wait().await;
        // What was killed may have written while its directory was taken away.
        let _ = tokio::fs::remove_dir_all(&self.browsers.dir).await;
    }

    /// Ends what a server that died has left of open files.
    pub async fn end_stale_files(&self) -> std::io::Result<()> {
        let dir = &self.browsers.dir;
        let mut entries = match tokio::fs::read_dir(dir).await {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        while let Some(entry) = entries.next_entry().await? {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "process") {
                let ended = process::end(&path.with_extension("nbd")).await;
                ended.map_err(std::io::Error::other)?;
            }
        }
        tokio::fs::remove_dir_all(dir).await
    }
}

/// What who asks is told.
pub fn refused(e: FilesError) -> Status {
    use FilesError as E;
    let text = db::chain(&e);
    match e {
        E::BadPath(_) | E::NotADirectory(_) | E::NotAFile(_) => Status::invalid("path", text),
        E::NotFound(_) | E::NoSuchFileSystem(_) => Status::new(Code::NotFound, text),
        E::Missing(_)
        | E::NoFileSystem
        | E::Encrypted(_)
        | E::Unknown(_)
        | E::Damaged { .. }
        | E::Refused { .. } => Status::precondition(text),
        E::TimedOut { .. } => Status::new(Code::DeadlineExceeded, text),
        E::Busy | E::Ended => Status::new(Code::Unavailable, text),
        E::Start(_) | E::Io { .. } => Status::new(Code::Internal, text),
    }
}
