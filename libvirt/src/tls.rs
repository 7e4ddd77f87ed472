//! TLS to a QEMU that shows disks, with the certificates that libvirt's own client takes.

use crate::nbd::{self, Stream};
use crate::uri::Uri;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long it may take until somebody answers.
const KNOCKING: Duration = Duration::from_secs(20);

/// Whom to trust, and who we are.
struct Files {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn within(dir: &Path) -> Self {
        Self {
            authority: dir.join("cacert.pem"),
            certificate: dir.join("clientcert.pem"),
            key: dir.join("clientkey.pem"),
        }
    }

    /// Where libvirt looks for them.
    fn of(uri: &Uri) -> Self {
        if let Some(dir) = uri.parameter("pkipath") {
            return Self::within(Path::new(dir));
        }
        let mut files = Self {
            authority: "/etc/pki/CA/cacert.pem".into(),
            certificate: "/etc/pki/libvirt/clientcert.pem".into(),
            key: "/etc/pki/libvirt/private/clientkey.pem".into(),
        };
        // SAFETY: it only answers a number.
        let is_root = unsafe { libc::geteuid() } == 0;
        if !is_root && let Some(home) = std::env::home_dir() {
            let own = Self::within(&home.join(".pki/libvirt"));
            if own.authority.exists() {
                files.authority = own.authority;
            }
            if own.certificate.exists() && own.key.exists() {
                (files.certificate, files.key) = (own.certificate, own.key);
            }
        }
        files
    }
}

fn unread(file: &Path, e: pem::Error) -> io::Error {
    match e {
        pem::Error::Io(e) => io::Error::new(e.kind(), format!("{}: {e}", file.display())),
        e => unfit(file, e),
    }
}

fn unfit(file: &Path, e: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {e}", file.display()))
}

fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match all.map_err(|e| unread(file, e))? {
        all if all.is_empty() => Err(unfit(file, "there is no certificate in it")),
        all => Ok(all),
    }
}

/// What is shown and what is believed at the QEMUs of a host.
#[derive(Clone)]
pub(crate) struct Tls {
    host: ServerName<'static>,
    address: IpAddr,
    own: Arc<ClientConfig>,
    /// Without a certificate.
    stranger: Arc<ClientConfig>,
}

impl Tls {
    /// Reads the certificates, and looks where the host is.
    pub(crate) fn new(uri: &Uri) -> io::Result<Self> {
        let files = Files::of(uri);
        let mut roots = RootCertStore::empty();
        for authority in certificates(&files.authority)? {
            roots.add(authority).map_err(|e| unfit(&files.authority, e))?;
        }
        let chain = certificates(&files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| unread(&files.key, e))?;
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots);
        let stranger = builder.clone().with_no_client_auth();
        let own = builder.with_client_auth_cert(chain, key);
        let host = uri.host();
        let found = (host, 0).to_socket_addrs()?.next();
        Ok(Self {
            host: ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
            address: found.ok_or(io::ErrorKind::HostUnreachable)?.ip(),
            own: Arc::new(own.map_err(|e| unfit(&files.certificate, e))?),
            stranger: Arc::new(stranger),
        })
    }

    /// The host's address. It is told what this is, for it may have another one by its own name.
    pub(crate) const fn address(&self) -> IpAddr {
        self.address
    }

    /// A server that was greeted, and is who it says.
    pub(crate) fn connect(&self, to: SocketAddr, patience: Duration) -> io::Result<Box<dyn Stream>> {
        self.connect_as(&self.own, to, patience)
    }

    fn connect_as(
        &self,
        config: &Arc<ClientConfig>,
        to: SocketAddr,
        patience: Duration,
    ) -> io::Result<Box<dyn Stream>> {
        let mut stream = TcpStream::connect_timeout(&to, KNOCKING)
            .map_err(|e| io::Error::new(e.kind(), format!("{to} is not reached, where QEMU listens: {e}")))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        nbd::greet(&mut stream)?;
        nbd::start_tls(&mut stream)?;
        let mut tls = ClientConnection::new(config.clone(), self.host.clone()).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)
                .map_err(|e| io::Error::new(e.kind(), format!("TLS with QEMU at {to}: {e}")))?;
        }
        Ok(Box::new(StreamOwned::new(tls, stream)))
    }

    /// Whether a server takes our certificate, and nobody who has none.
    pub(crate) fn check(&self, to: SocketAddr, patience: Duration) -> io::Result<()> {
        // What a server thinks of a certificate is told by its first answer.
        let mut own = self.connect_as(&self.own, to, patience)?;
        nbd::probe(&mut *own).map_err(|e| {
            io::Error::new(
                e.kind(),
                format!("QEMU does not take the certificate that it is shown: {e}"),
            )
        })?;
        let stranger = self.connect_as(&self.stranger, to, patience);
        match stranger.and_then(|mut stranger| nbd::probe(&mut *stranger)) {
            Err(_) => Ok(()),
            Ok(()) => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "QEMU shows them to everybody there, also without a certificate: \
                 let neither backup_tls_x509_verify nor default_tls_x509_verify be 0 in qemu.conf",
            )),
        }
    }
}
