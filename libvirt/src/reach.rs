//! How what QEMU shows by NBD is reached: its socket, here or on the other side of an ssh; or a port of its, by TLS.

use crate::machine::escaped;
use crate::nbd::{self, Dial, Stream};
use crate::tls::Tls;
use crate::uri::{Transport, Uri};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How long a read may take until it counts as failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where QEMU listens for TLS: at one of these that is free.
pub(crate) const PORTS: RangeInclusive<u16> = 10_809..=10_840;

/// Where QEMU is to listen, over there.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Socket(String),
    Port(SocketAddr),
}

impl Place {
    /// As the XML of a backup has it.
    pub(crate) fn xml(&self) -> String {
        match self {
            Self::Socket(path) => format!("<server transport='unix' socket='{}'/>", escaped(path)),
            Self::Port(at) => {
                let (ip, port) = (at.ip(), at.port());
                format!("<server transport='tcp' tls='yes' name='{ip}' port='{port}'/>")
            }
        }
    }
}

/// What it takes to reach the QEMUs of a libvirt.
pub(crate) enum Way<'a> {
    Local,
    Ssh(&'a Uri),
    Tls(Tls),
}

/// The way to where a QEMU listens, which ends with it.
pub(crate) enum Reach {
    Local(PathBuf),
    Ssh(Tunnel),
    Tls(Tls, SocketAddr),
}

/// A socket of this host behind which one of another host is.
pub(crate) struct Tunnel {
    host: String,
    ssh: Child,
    dir: TempDir,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // By itself it would wait for all who still hold a stream.
        self.ssh.kill().ok();
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
        ssh.args(["-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15"]);
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
        let mut tunnel = Self {
            host: uri.host().to_owned(),
            ssh: child,
            dir,
        };
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

impl<'a> Way<'a> {
    /// Looks whether all is here that it takes.
    pub(crate) fn find(uri: &'a Uri) -> io::Result<Self> {
        Ok(match uri.transport() {
            Transport::Local => Self::Local,
            Transport::Ssh => Self::Ssh(uri),
            Transport::Tls => Self::Tls(Tls::new(uri)?),
        })
    }

    /// Where QEMU may be told to listen: at this socket, or at a port, of which one may be taken. They begin anywhere: whoever
    /// begins at the same time tries another one first.
    pub(crate) fn places(&self, socket: String, anywhere: u16) -> Vec<Place> {
        match self {
            Self::Local | Self::Ssh(_) => vec![Place::Socket(socket)],
            Self::Tls(tls) => {
                let count = PORTS.len() as u16;
                let port = |n| PORTS.start() + (anywhere % count + n) % count;
                let at = |n| Place::Port(SocketAddr::new(tls.address(), port(n)));
                (0..count).map(at).collect()
            }
        }
    }

    /// Opens the way to where QEMU listens.
    pub(crate) fn open(self, place: Place) -> io::Result<Reach> {
        match (self, place) {
            (Self::Local, Place::Socket(socket)) => Ok(Reach::Local(socket.into())),
            (Self::Ssh(uri), Place::Socket(socket)) => Ok(Reach::Ssh(Tunnel::open(uri, &socket)?)),
            (Self::Tls(tls), Place::Port(at)) => {
                tls.check(at, PATIENCE)?;
                Ok(Reach::Tls(tls, at))
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl Reach {
    pub(crate) fn dial(&self) -> Dial {
        match self {
            Self::Local(socket) => {
                let socket = socket.clone();
                Box::new(move || connect(&socket))
            }
            Self::Ssh(tunnel) => {
                let (socket, host) = (local(&tunnel.dir), tunnel.host.clone());
                Box::new(move || {
                    connect(&socket).map_err(|e| {
                        let why = match e.kind() {
                            // ssh answers, and there is nothing behind it.
                            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                                "the user who signs in there must be allowed to open what QEMU listens on"
                            }
                            _ => "it has ended",
                        };
                        io::Error::new(e.kind(), format!("ssh to {host}: {why}: {e}"))
                    })
                })
            }
            Self::Tls(tls, at) => {
                let (tls, at) = (tls.clone(), *at);
                Box::new(move || tls.connect(at, PATIENCE))
            }
        }
    }
}

fn connect(socket: &Path) -> io::Result<Box<dyn Stream>> {
    let mut stream = UnixStream::connect(socket).map_err(|e| match e.kind() {
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
    nbd::greet(&mut stream)?;
    Ok(Box::new(stream))
}
