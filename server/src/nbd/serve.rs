//! The process itself.

use super::config::Config;
use super::disk::{Chunks, CopyDisk, patiently};
use super::{Export, Exports, client};
use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use vault::{Key, Opening, Vault};

/// How many clients are served at once; a machine has one for each disk.
const CLIENTS: usize = 64;

/// Why the disks of a copy are not shown.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What it was told is no configuration.
    #[error("the disks of a copy cannot be shown: standard input has no configuration")]
    Config(#[source] serde_json::Error),
    /// The vault, or the copy.
    #[error("the disks of copy {copy} cannot be shown")]
    Vault {
        /// Which.
        copy: uuid::Uuid,
        /// What the vault said.
        #[source]
        source: vault::Error,
    },
    /// The store's settings.
    #[error("the disks of copy {copy} cannot be shown")]
    Store {
        /// Which.
        copy: uuid::Uuid,
        /// What is wrong with them.
        #[source]
        source: crate::copies::CopiesError,
    },
    /// No such disk.
    #[error("copy {copy} has no disk {disk}")]
    NoDisk {
        /// Which.
        copy: uuid::Uuid,
        /// Its name.
        disk: String,
    },
    /// The socket, or standard input and output.
    #[error("could not {op} {path}")]
    Io {
        /// What was to be done.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Failure {
    fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { op, path, source }
    }
}

/// Is told on standard input what to show, says `ready` on standard output when it can be read, or why it cannot, and
/// serves until it is ended.
///
/// # Errors
///
/// It cannot be shown. A store that is away is waited for.
pub async fn run() -> Result<(), Failure> {
    let mut told = String::new();
    let stdin = io::stdin().read_to_string(&mut told);
    stdin.map_err(Failure::io("read", Path::new("standard input")))?;
    let config: Config = serde_json::from_str(&told).map_err(Failure::Config)?;
    drop(told);
    let served = serve(config, || say("ready")).await;
    if let Err(e) = &served {
        say(&super::disk::chain(e));
    }
    served
}

fn say(line: &str) {
    // Whoever started it may be gone.
    let mut out = io::stdout();
    _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Opens the copy, and serves its disks until SIGTERM comes, or no client for as long as the configuration says.
///
/// # Errors
///
/// As of [`run`].
pub async fn serve(config: Config, ready: impl FnOnce()) -> Result<(), Failure> {
    let mut end = signal(SignalKind::terminate()).map_err(Failure::io("listen for", Path::new("SIGTERM")))?;
    let opened = async {
        let exports = open(&config).await?;
        let listener = listen(&config.socket).map_err(Failure::io("listen at", &config.socket))?;
        Ok((exports, listener))
    };
    let (exports, listener) = tokio::select! {
        opened = opened => opened?,
        _ = end.recv() => return Ok(()),
    };
    ready();
    let exports = Arc::new(exports);
    let mut clients = JoinSet::new();
    let idle = config.idle_seconds.map(Duration::from_secs);
    loop {
        let lonely = async {
            match idle {
                Some(idle) => tokio::time::sleep(idle).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = listener.accept(), if clients.len() < CLIENTS => match accepted {
                Ok((stream, _)) => {
                    clients.spawn(attend(stream, exports.clone()));
                }
                // Out of descriptors, as it were: a client that goes frees some.
                Err(e) => {
                    tracing::warn!(error = %e, "accept a client");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(gone) = clients.join_next() => {
                if let Err(e) = gone {
                    tracing::error!(error = %e, "a client's task ended early");
                }
            }
            () = lonely, if clients.is_empty() => return Ok(()),
            _ = end.recv() => return Ok(()),
        }
    }
}

async fn attend(stream: UnixStream, exports: Arc<Exports>) {
    if let Err(e) = client(stream, &exports).await {
        tracing::info!(error = %e, "a client's connection ends");
    }
}

async fn open(config: &Config) -> Result<Exports, Failure> {
    let copy = config.copy;
    // For the TLS of stores.
    crate::use_ring();
    let objects = config.store.objects();
    let objects = objects.map_err(|source| Failure::Store { copy, source })?;
    let opening = Opening::Key(Key::from_bytes(config.key));
    let opened = patiently("the copy", || async {
        let vault = Vault::open(objects.clone(), &opening).await?;
        let (copy, chunks) = tokio::try_join!(vault.copy(copy), Chunks::new(vault.clone()))?;
        Ok((copy, chunks))
    });
    let (opened, chunks) = opened.await.map_err(|source| Failure::Vault { copy, source })?;
    let exports = config.disks.iter().map(|name| {
        let disk = opened.disks.iter().find(|disk| disk.name == *name);
        let disk = disk.ok_or_else(|| Failure::NoDisk {
            copy,
            disk: name.clone(),
        })?;
        let export: Arc<dyn Export> = Arc::new(CopyDisk::new(chunks.clone(), disk.clone()));
        Ok((name.clone(), export))
    });
    exports.collect()
}

/// Listens there, in the place of whoever did before: at no moment is there no socket.
fn listen(socket: &Path) -> io::Result<UnixListener> {
    let mut new = socket.as_os_str().to_owned();
    new.push("~");
    let new = PathBuf::from(new);
    match std::fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    std::fs::rename(&new, socket)?;
    Ok(listener)
}
