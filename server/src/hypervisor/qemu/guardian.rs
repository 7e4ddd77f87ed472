//! A small process for each fork, with a monitor of its own: whatever becomes of the server or of this fork, the source
//! runs again at once.
//!
//! While a source sends its last pages QEMU hears nobody, for as long as whoever takes them is slow or halted. So the
//! guardian has the connection that they travel by, too, and cuts it.

use super::qmp;
use crate::hypervisor::HvError;
use futures::StreamExt;
use qapi::qmp as wire;
use qapi::qmp::{Event, RunState};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use shared::VmId;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, Interest};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep_until};

/// The subcommand of the program that watches.
pub const COMMAND: &str = "guard";
/// How long a source may stand still.
pub const LIMIT: Duration = Duration::from_millis(400);
/// How long it may take until the monitor is free.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a source may refuse to go on, until it is asked again.
const AGAIN: Duration = Duration::from_millis(2);

/// The server's end of it.
pub struct Guardian {
    child: Child,
    leash: Leash,
}

/// The way to a guardian: closed by whatever ends the server, too.
#[derive(Clone)]
pub struct Leash(Arc<UnixStream>);

impl Leash {
    /// Gives it the connection that the source sends itself by.
    pub fn hand(&self, connection: &UnixStream) -> io::Result<()> {
        let fds = [connection.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(&*self.0, &[IoSlice::new(b".")], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

impl Guardian {
    /// Starts one, and returns when it watches.
    pub async fn start(program: &Path, monitor: &Path, vm: VmId) -> Result<Self, HvError> {
        let failed = |source| HvError::Io {
            op: "run the guardian of a fork with",
            path: program.to_owned(),
            source,
        };
        let (leash, its_end) = UnixStream::pair().map_err(failed)?;
        let mut child = Command::new(program)
            .arg(COMMAND)
            .arg(monitor)
            .arg(vm.to_string())
            .stdin(OwnedFd::from(its_end))
            .stdout(Stdio::piped())
            // An interrupt of the server's terminal is not for it.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let ended = || io::Error::new(io::ErrorKind::BrokenPipe, "it has ended at once");
        let Some(mut says) = child.stdout.take() else {
            return Err(failed(ended()));
        };
        let leash = Leash(Arc::new(leash));
        let mut ready = [0];
        match says.read(&mut ready).await {
            Ok(1) => Ok(Self { child, leash }),
            Ok(_) => Err(failed(ended())),
            Err(e) => Err(failed(e)),
        }
    }

    /// The way to it.
    pub fn leash(&self) -> Leash {
        self.leash.clone()
    }

    /// Ends it, when the source is seen to run.
    pub async fn dismiss(self) {
        let Self { mut child, leash } = self;
        drop(leash);
        if let Err(e) = child.wait().await {
            tracing::warn!(error = %e, "end the guardian of a fork");
        }
    }
}

/// Watches over the source of a fork until standard input is closed: by then it runs.
pub async fn watch(monitor: &Path) -> io::Result<()> {
    let (qmp, mut events) = connect(monitor).await?;
    let leash = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::io::ioctl_fionbio(&leash, true)?;
    // SAFETY: an `OwnedFd` is the same open descriptor until it is dropped, which only the `AsyncFd` can do.
    let leash = unsafe { AsyncFd::register_with_interest(leash, Interest::READABLE)? };
    io::stdout().write_all(b".")?;
    io::stdout().flush()?;
    let mut connection: Option<UnixStream> = None;
    let mut deadline: Option<Instant> = None;
    loop {
        let late = async {
            match deadline {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(Event::STOP { .. })) => deadline = Some(Instant::now() + LIMIT),
                Some(Ok(Event::RESUME { .. })) => deadline = None,
                Some(Ok(_)) => {}
                // It has ended: nothing is left to watch over.
                _ => return Ok(()),
            },
            () = late => {
                deadline = None;
                cut(connection.as_ref());
                tokio::select! {
                    done = release(&qmp) => done?,
                    () = drain(&mut events) => return Ok(()),
                }
            }
            handed = leash.async_io(Interest::READABLE, handed) => {
                if let Ok(Some(handed)) = handed {
                    connection = Some(handed);
                    continue;
                }
                cut(connection.as_ref());
                return tokio::select! {
                    done = release(&qmp) => done,
                    () = drain(&mut events) => Ok(()),
                };
            }
        }
    }
}

/// What has come by the leash; nothing when it is closed.
fn handed(leash: &OwnedFd) -> io::Result<Option<UnixStream>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(
        leash,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    Ok(fds.flatten().next().map(UnixStream::from))
}

/// Cuts the connection that a source sends itself by, for everybody: its migration fails, and QEMU hears again.
fn cut(connection: Option<&UnixStream>) {
    if let Some(connection) = connection {
        // Cut already.
        let _ = connection.shutdown(Shutdown::Both);
    }
}

/// Connects to the monitor. QEMU closes a connection that comes while the one before has not quite gone, as that of the
/// guardian of the last fork.
async fn connect(monitor: &Path) -> io::Result<(qmp::Qmp, qmp::QmpEvents)> {
    let begin = Instant::now();
    loop {
        match qmp::connect(monitor).await {
            // There is no QEMU any more.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
                ) =>
            {
                return Err(e);
            }
            Err(_) if begin.elapsed() < CONNECT => tokio::time::sleep(AGAIN).await,
            connected => return connected,
        }
    }
}

/// Answers come with the events: somebody has to read them.
async fn drain(events: &mut qmp::QmpEvents) {
    while let Some(Ok(_)) = events.next().await {}
}

/// Ends a migration that is under way, and lets the machine run if it stands still for it.
async fn release(qmp: &qmp::Qmp) -> io::Result<()> {
    let _ = qmp.execute(wire::migrate_cancel {}).await;
    loop {
        let status = qmp.execute(wire::query_status {}).await;
        let status = status.map_err(|e| io::Error::other(e.to_string()))?.status;
        match status {
            RunState::finish_migrate | RunState::postmigrate | RunState::paused => {
                if qmp.execute(wire::cont {}).await.is_ok() {
                    return Ok(());
                }
                // It is not over yet; no event says when it is.
                tokio::time::sleep(AGAIN).await;
            }
            _ => return Ok(()),
        }
    }
}
