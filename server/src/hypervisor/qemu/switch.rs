//! The switch of an isolated network: a small process that hands frames on between the machines that are on it, and to
//! nobody else. It outlives the server, and ends when no machine is left.
//!
//! The network is a directory that only the server's user can enter. Each NIC's end is a datagram socket in it, by QEMU's `dgram`, and so
//! is the switch: who is there is on it, and nobody has to sign on again after a switch that was ended. QEMU's `stream` was tried before:
//! 7.2 crashes when an end is removed that is not connected yet.

use crate::hypervisor::HvError;
use shared::VmId;
use std::collections::HashMap;
use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixDatagram as Blocking;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::UnixDatagram;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The subcommand of the program that is a switch.
pub const COMMAND: &str = "switch";
/// Its own socket.
const OWN: &str = "switch";
/// How many frames a machine may be behind; what comes then is lost, as on any switch.
const BEHIND: usize = 256;
/// The longest frame, in bytes.
const LONGEST: usize = 70_000;
/// How often it looks whether a machine is left.
const LOOKS: Duration = Duration::from_secs(30);

/// Only one is started at a time.
static STARTING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The switch's end of a network.
pub fn socket(network: &Path) -> PathBuf {
    network.join(OWN)
}

/// A NIC's end of a network. Of the machine's id it has the part that is random: paths of sockets are short.
pub fn port(network: &Path, vm: VmId, nic: u32) -> PathBuf {
    network.join(format!("{}{nic}", stem(vm)))
}

fn stem(vm: VmId) -> String {
    let id = vm.0.simple().to_string();
    format!("{}-", &id[id.len() - 12..])
}

/// Whether somebody listens there.
fn listens(socket: &Path) -> bool {
    Blocking::unbound().is_ok_and(|s| s.connect(socket).is_ok())
}

/// Sees to it that a network has its switch.
pub async fn ensure(program: &Path, network: &Path, vm: VmId) -> Result<(), HvError> {
    let _one = STARTING.lock().await;
    let failed = |why: io::Error| HvError::Switch {
        vm,
        why: why.to_string(),
    };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(network);
    made.map_err(failed)?;
    if listens(&socket(network)) {
        return Ok(());
    }
    let mut child = Command::new(program)
        .arg(COMMAND)
        .arg(network)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // It outlives the server.
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let mut ready = [0];
    if let Some(mut says) = child.stdout.take() {
        says.read_exact(&mut ready).await.map_err(failed)?;
    }
    // Reaped when it ends.
    tokio::spawn(async move { child.wait().await });
    Ok(())
}

/// Removes what machines that have gone left of their ends: of all their NICs, or of one.
pub fn leave(network: &Path, vm: VmId, nic: Option<u32>) {
    let stem = stem(vm);
    for entry in std::fs::read_dir(network).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let of = name.to_str().and_then(|name| name.strip_prefix(&stem));
        let of = of.and_then(|n| n.parse::<u32>().ok());
        if of.is_some_and(|of| nic.is_none_or(|nic| nic == of)) {
            // Gone already.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

type Frame = Arc<Vec<u8>>;

/// The ends of a network, by their names, and behind which each address was seen last.
struct Switch {
    network: PathBuf,
    ports: HashMap<String, mpsc::Sender<Frame>>,
    addresses: HashMap<[u8; 6], String>,
}

/// Is the switch of a network until no machine is on it.
pub async fn serve(network: &Path) -> io::Result<()> {
    let own = socket(network);
    let mut frames = bind(&own)?;
    io::stdout().write_all(b".")?;
    io::stdout().flush()?;
    let mut switch = Switch {
        network: network.to_owned(),
        ports: HashMap::new(),
        addresses: HashMap::new(),
    };
    let mut look = tokio::time::interval_at(Instant::now() + LOOKS, LOOKS);
    let mut frame = vec![0; LONGEST];
    loop {
        tokio::select! {
            received = frames.recv_from(&mut frame) => {
                // A frame that could not be taken is lost, no more.
                if let Ok((length, from)) = received {
                    let from = from.as_pathname().and_then(|p| p.file_name()?.to_str().map(str::to_owned));
                    switch.hand_on(&frame[..length], from);
                }
            }
            _ = look.tick() => {
                if switch.names().iter().any(|name| listens(&network.join(name))) {
                    continue;
                }
                // Whoever comes from here on sees that no switch listens, or is seen now.
                drop(frames);
                let come = switch.names().iter().any(|name| listens(&network.join(name)));
                if !come || listens(&own) {
                    return Ok(());
                }
                frames = bind(&own)?;
            }
        }
    }
}

fn bind(own: &Path) -> io::Result<UnixDatagram> {
    match std::fs::remove_file(own) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => UnixDatagram::bind(own),
    }
}

impl Switch {
    /// The ends that there are now.
    fn names(&self) -> Vec<String> {
        let all = std::fs::read_dir(&self.network).into_iter().flatten().flatten();
        let names = all.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name != OWN).collect()
    }

    fn hand_on(&mut self, frame: &[u8], from: Option<String>) {
        let (Some(to), Some(source), Some(from)) = (address(frame, 0), address(frame, 6), from) else {
            return;
        };
        // The lowest bit of the first byte is that of a group.
        if source[0] & 1 == 0 {
            self.addresses.insert(source, from.clone());
        }
        let frame = Arc::new(frame.to_vec());
        let known = self.addresses.get(&to).filter(|_| to[0] & 1 == 0).cloned();
        match known {
            Some(name) if name == from => {}
            Some(name) => self.send(name, frame),
            None => {
                let names = self.names();
                self.ports.retain(|name, _| names.contains(name));
                self.addresses.retain(|_, name| names.contains(name));
                for name in names.into_iter().filter(|name| *name != from) {
                    self.send(name, frame.clone());
                }
            }
        }
    }

    fn send(&mut self, name: String, frame: Frame) {
        let path = self.network.join(&name);
        let port = self.ports.entry(name).or_insert_with(|| {
            let (sender, frames) = mpsc::channel(BEHIND);
            tokio::spawn(deliver(path, frames));
            sender
        });
        // Who is behind loses it.
        let _ = port.try_send(frame);
    }
}

/// Hands frames to one end, as fast as that takes them.
async fn deliver(path: PathBuf, mut frames: mpsc::Receiver<Frame>) {
    let mut end: Option<UnixDatagram> = None;
    while let Some(frame) = frames.recv().await {
        if end.is_none() {
            end = UnixDatagram::unbound().ok().filter(|s| s.connect(&path).is_ok());
        }
        // A machine that was started anew listens on another socket of that name.
        if let Some(socket) = &end
            && socket.send(&frame).await.is_err()
        {
            end = UnixDatagram::unbound().ok().filter(|s| s.connect(&path).is_ok());
            if let Some(socket) = &end {
                let _ = socket.send(&frame).await;
            }
        }
    }
}

fn address(frame: &[u8], at: usize) -> Option<[u8; 6]> {
    frame.get(at..at + 6)?.try_into().ok()
}
