//! The server's side of the process: started where it is not there, found again by its pid and start time, ended.

use super::config::Config;
use crate::hypervisor::qemu::process::Process;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

/// How long a process that was found may take to greet.
const GREETS: Duration = Duration::from_secs(10);
/// How long one that was started may take, for whoever waits; it goes on by itself.
const STARTS: Duration = Duration::from_secs(60);

/// Of each socket, only one is started or ended at a time.
static STARTING: Mutex<BTreeMap<PathBuf, Arc<tokio::sync::Mutex<()>>>> = Mutex::new(BTreeMap::new());

async fn alone(socket: &Path) -> OwnedMutexGuard<()> {
    let one = {
        let mut all = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, one| Arc::strong_count(one) > 1);
        all.entry(socket.to_owned()).or_default().clone()
    };
    one.lock_owned().await
}

/// Why there is no process that shows the disks of a copy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something of the system.
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
    /// It has ended at once.
    #[error("{0}")]
    Refused(String),
    /// It waits for the store, and will be there when that is.
    #[error("the vault of copy {0} does not answer: its disks are shown when it does")]
    Away(uuid::Uuid),
}

impl Error {
    fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { op, path, source }
    }
}

/// The file beside its socket that says which process it is, as a line of /proc.
fn record(socket: &Path) -> PathBuf {
    socket.with_extension("process")
}

/// The file beside its socket that has what it logs.
#[must_use]
pub fn log(socket: &Path) -> PathBuf {
    socket.with_extension("log")
}

/// The process of this socket, if it is alive.
fn find(socket: &Path) -> Result<Option<Process>, Error> {
    let record = record(socket);
    // The socket is its one argument.
    Process::find(&record, &socket.to_string_lossy()).map_err(Error::io("look for the process of", &record))
}

/// Whether the process of a socket is alive.
///
/// # Errors
///
/// What the system said.
pub fn alive(socket: &Path) -> Result<bool, Error> {
    find(socket).map(|process| process.is_some())
}

/// Returns when there is no process of a socket.
pub async fn ended(socket: &Path) {
    if let Ok(Some(process)) = find(socket) {
        process.ended().await;
    }
}

/// Sees to it that the disks of a copy are shown: starts a process of `program` unless there is one.
///
/// # Errors
///
/// It cannot be started; the copy cannot be shown; the store is away ([`Error::Away`]), and the process waits for it.
pub async fn ensure(program: &Path, config: &Config) -> Result<(), Error> {
    let socket = config.socket.as_path();
    let _one = alone(socket).await;
    match find(socket)? {
        Some(_) if timeout(GREETS, greets(socket)).await.is_ok_and(|greets| greets) => Ok(()),
        // It waits for the store, with nobody who listens to what it says.
        Some(process) => {
            let ended = process.kill().await;
            ended.map_err(Error::io("end the process of", socket))?;
            start(program, config).await
        }
        None => start(program, config).await,
    }
}

/// Whether somebody serves there.
async fn greets(socket: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(socket).await else {
        return false;
    };
    stream
        .read_u64()
        .await
        .is_ok_and(|magic| magic == super::protocol::NBD_MAGIC)
}

async fn start(program: &Path, config: &Config) -> Result<(), Error> {
    let socket = config.socket.as_path();
    let failed = Error::io("run the server of the disks at", socket);
    let say = async {
        let log = File::options().create(true).append(true).open(log(socket))?;
        let (its_in, mut told) = pipe::pipe().map(|(to, from)| (from.into_blocking_fd(), to))?;
        let (out, says) = pipe::pipe().map(|(to, from)| (to.into_blocking_fd(), from))?;
        let mut command = Command::new(program);
        command.arg(super::COMMAND).arg(socket);
        command.stdin(its_in?).stdout(out?).stderr(log);
        let process = Process::spawn(command, Vec::new(), &record(socket))?;
        // Reaped when it ends.
        let ending = process.clone();
        tokio::spawn(async move { ending.ended().await });
        told.write_all(serde_json::to_string(config)?.as_bytes()).await?;
        drop(told);
        let mut said = String::new();
        BufReader::new(says.take(4096)).read_line(&mut said).await?;
        if said != "ready\n" {
            process.end().await?;
        }
        io::Result::Ok(said)
    };
    let Ok(said) = timeout(STARTS, say).await else {
        return Err(Error::Away(config.copy));
    };
    match said.map_err(failed)?.trim() {
        "ready" => Ok(()),
        "" => Err(Error::Refused(format!(
            "the server of the disks of copy {} has ended at once: see {}",
            config.copy,
            log(socket).display()
        ))),
        why => Err(Error::Refused(why.to_owned())),
    }
}

/// Ends the process of a socket, and removes what is left of it. None there is fine. Whoever still reads from it waits.
///
/// # Errors
///
/// What the system said.
pub async fn end(socket: &Path) -> Result<(), Error> {
    let _one = alone(socket).await;
    if let Some(process) = find(socket)? {
        let ended = process.kill().await;
        ended.map_err(Error::io("end the process of", socket))?;
    }
    for path in [socket.to_owned(), record(socket), log(socket)] {
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", &path)(e)),
            _ => {}
        }
    }
    Ok(())
}
