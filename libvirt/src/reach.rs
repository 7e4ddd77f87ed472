//! How what QEMU shows by NBD is reached: its socket, here or on the other side of an ssh.

use crate::nbd::{Dial, Stream};
use crate::uri::{Transport, Uri};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How long a read may take until it counts as failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// The way to a socket of QEMU's, which ends with it.
pub(crate) struct Reach {
    socket: PathBuf,
    _tunnel: Option<Tunnel>,
}

/// A socket of this host behind which one of another host is.
struct Tunnel {
    ssh: Child,
    dir: TempDir,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // It ends as soon as nobody writes to it any more.
        drop(self.ssh.stdin.take());
        self.ssh.wait().ok();
    }
}

impl Tunnel {
    /// Signs in there, and waits until the way is open: what is written comes back then.
    fn open(uri: &Uri, socket: &str) -> io::Result<Self> {
        const WORD: &[u8] = b"open\n";
        let dir = tempfile::Builder::new().prefix("offshoot-").tempdir()?;
        let mut ssh = Command::new("ssh");
        ssh.args(["-T", "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes"]);
        // Else the other side is only missed when it is written to.
        ssh.args(["-o", "ServerAliveInterval=15"]);
        if let Some(user) = uri.user() {
            ssh.args(["-l", user]);
        }
        if let Some(port) = uri.port() {
            ssh.args(["-p", &port.to_string()]);
        }
        if let Some(key) = uri.parameter("keyfile") {
            ssh.args(["-i", key]);
        }
        ssh.arg("-L").arg(format!("{}:{socket}", local(&dir).display()));
        ssh.args(["--", uri.host(), "cat"]);
        let child = ssh
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut tunnel = Self { ssh: child, dir };
        let mut heard = vec![0; WORD.len()];
        let said = match (&mut tunnel.ssh.stdin, &mut tunnel.ssh.stdout) {
            (Some(to), Some(from)) => to
                .write_all(WORD)
                .and_then(|()| to.flush())
                .and_then(|()| from.read_exact(&mut heard)),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        };
        if said.is_err() || heard != WORD {
            drop(tunnel.ssh.stdin.take());
            let mut why = String::new();
            if let Some(errors) = &mut tunnel.ssh.stderr {
                errors.take(4096).read_to_string(&mut why).ok();
            }
            return Err(io::Error::other(format!("ssh to {}: {}", uri.host(), why.trim())));
        }
        Ok(tunnel)
    }
}

fn local(dir: &TempDir) -> PathBuf {
    dir.path().join("nbd")
}

impl Reach {
    /// Opens the way to a socket that QEMU listens on, where the libvirt is.
    pub(crate) fn open(uri: &Uri, socket: &str) -> io::Result<Self> {
        match uri.transport() {
            Transport::Local => Ok(Self {
                socket: socket.into(),
                _tunnel: None,
            }),
            Transport::Ssh => {
                let tunnel = Tunnel::open(uri, socket)?;
                Ok(Self {
                    socket: local(&tunnel.dir),
                    _tunnel: Some(tunnel),
                })
            }
            Transport::Tls => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "disks are not read by TLS: reach this libvirt by qemu+ssh",
            )),
        }
    }

    pub(crate) fn dial(&self) -> Dial {
        let socket = self.socket.clone();
        Box::new(move || connect(&socket))
    }
}

fn connect(socket: &Path) -> io::Result<Box<dyn Stream>> {
    let stream = UnixStream::connect(socket).map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => io::Error::new(
            e.kind(),
            format!(
                "{} may not be opened: the user that this program runs as must be in the group that QEMU runs as (libvirt-qemu)",
                socket.display()
            ),
        ),
        _ => e,
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(Box::new(stream))
}
