//! The guest agent: whether it answers, and freezing file systems through it.

use crate::hypervisor::{HvError, MachineSpec};
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
/// How long the agent may take to refuse to shut down.
const SHUTS_DOWN: Duration = Duration::from_secs(1);
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
                op: "freeze the file systems",
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
    thawed.map(drop).map_err(|why| HvError::Agent {
        op: "thaw the file systems",
        vm,
        why,
    })
}

/// Shuts the guest down. The agent answers nothing when it does.
pub async fn shut_down(socket: &Path, vm: VmId) -> Result<(), HvError> {
    let agent = answering(socket, vm).await?;
    let mode = Some(qga::GuestShutdownMode::Powerdown);
    // No answer is the good one: only a refusal comes.
    match timeout(SHUTS_DOWN, agent.execute(qga::guest_shutdown { mode })).await {
        Ok(Err(ExecuteError::Qapi(e))) => Err(HvError::Agent {
            op: "shut its guest down",
            vm,
            why: e.desc,
        }),
        _ => Ok(()),
    }
}

/// Gives the guest another identity: its name, the addresses of its NICs in their order, none of the old network addresses,
/// and the time. What it runs is plain `sh` with `ip`, as nearly every Linux has them.
pub async fn become_another(socket: &Path, spec: &MachineSpec) -> Result<(), HvError> {
    let vm = spec.id;
    let agent = answering(socket, vm).await?;
    let failed = |why| HvError::Agent {
        op: "give another identity to its guest",
        vm,
        why,
    };
    // Not every guest lets its clock be set; the kernel's own time goes on.
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let time = since.ok().and_then(|t| i64::try_from(t.as_nanos()).ok());
    let _ = bounded(agent.execute(qga::guest_set_time { time })).await;
    let mut script = format!("hostname {name}; echo {name} >/etc/hostname; ", name = spec.name);
    script.push_str(
        "set --; for d in /sys/class/net/*/device; do d=${d%/device}; set -- \"$@\" \"${d##*/}\"; done; ",
    );
    for nic in &spec.nics {
        script.push_str(&format!(
            "ip addr flush dev \"$1\"; ip link set \"$1\" down; ip link set \"$1\" address {}; ip link set \"$1\" up; shift; ",
            nic.mac
        ));
    }
    let run = qga::guest_exec {
        path: "/bin/sh".into(),
        arg: Some(vec!["-c".into(), script]),
        env: None,
        input_data: None,
        capture_output: None,
    };
    bounded(agent.execute(run)).await.map(drop).map_err(failed)
}

async fn bounded<T>(answer: impl Future<Output = Result<T, ExecuteError>>) -> Result<T, String> {
    match timeout(FREEZE, answer).await {
        Ok(answer) => answer.map_err(|e| e.to_string()),
        Err(_) => Err(format!("no answer within {} s", FREEZE.as_secs())),
    }
}
