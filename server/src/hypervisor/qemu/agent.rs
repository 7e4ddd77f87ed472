//! The guest agent: whether it answers, and freezing file systems through it.

use crate::hypervisor::HvError;
use qapi::futures::{QapiService, QgaStreamTokio};
use qapi::{ExecuteError, qga};
use shared::VmId;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::WriteHalf;
use tokio::net::UnixStream;
use tokio::time::timeout;

pub type Agent = QapiService<QgaStreamTokio<WriteHalf<UnixStream>>>;

/// How long the agent may take to say that it is there.
const ANSWER: Duration = Duration::from_secs(5);
/// How long freezing or thawing may take.
const FREEZE: Duration = Duration::from_secs(10);

/// Connects, and waits until the agent answers. The channel serves one client at a time.
pub async fn connect(socket: &Path) -> io::Result<Agent> {
    // An answer to somebody who has gone may still be in the channel: it spoils the first try, not the next.
    const TRIES: i32 = 3;
    let mut last = None;
    for _ in 0..TRIES {
        let (agent, stream) = QgaStreamTokio::open_uds(socket).await?.into_parts();
        stream.spawn_tokio();
        let mark = getrandom::u32().map_err(io::Error::other)? >> 1;
        match agent.guest_sync(mark as i32).await {
            Ok(()) => return Ok(agent),
            Err(e) => last = Some(e),
        }
    }
    Err(last.map_or(io::ErrorKind::NotConnected.into(), io::Error::from))
}

async fn answering(socket: &Path, vm: VmId) -> Result<Agent, HvError> {
    match timeout(ANSWER, connect(socket)).await {
        Ok(Ok(agent)) => Ok(agent),
        _ => Err(HvError::NoAgent(vm)),
    }
}

/// Freezes the file systems; thaws them if that fails half-way. Returns how many.
pub async fn freeze(socket: &Path, vm: VmId) -> Result<u32, HvError> {
    let agent = answering(socket, vm).await?;
    // Left frozen by someone else, they could not be frozen again.
    thaw_with(&agent, vm).await?;
    let frozen = bounded(agent.execute(qga::guest_fsfreeze_freeze {})).await;
    match frozen {
        Ok(n) if n > 0 => Ok(u32::try_from(n).unwrap_or(u32::MAX)),
        other => {
            let why = other
                .err()
                .unwrap_or_else(|| "there is none that can be frozen".into());
            drop(agent);
            // After a time-out the answer may still come: a new connection tells it from the one to this.
            thaw(socket, vm).await?;
            Err(HvError::Agent {
                op: "freeze",
                vm,
                why,
            })
        }
    }
}

/// Thaws the file systems. None frozen is fine.
pub async fn thaw(socket: &Path, vm: VmId) -> Result<(), HvError> {
    thaw_with(&answering(socket, vm).await?, vm).await
}

async fn thaw_with(agent: &Agent, vm: VmId) -> Result<(), HvError> {
    let thawed = bounded(agent.execute(qga::guest_fsfreeze_thaw {})).await;
    thawed
        .map(drop)
        .map_err(|why| HvError::Agent { op: "thaw", vm, why })
}

async fn bounded<T>(answer: impl Future<Output = Result<T, ExecuteError>>) -> Result<T, String> {
    match timeout(FREEZE, answer).await {
        Ok(answer) => answer.map_err(|e| e.to_string()),
        Err(_) => Err(format!("no answer within {} s", FREEZE.as_secs())),
    }
}
