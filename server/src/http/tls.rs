//! TLS: the certificate's files, read again when they change, and the listener that speaks it.

use super::audit::Peer;
use crate::db::chain;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use futures::StreamExt;
use inotify::{Inotify, WatchMask};
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig, crypto::ring};
use tokio_rustls::server::TlsStream;

/// How long a client may take to agree on how to speak.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Most connections that have agreed and wait to be served.
const WAITING: usize = 64;

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TlsError {
    #[error("cannot read {what} {path}")]
    Read {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    #[error("{0} has no certificate in it")]
    Empty(PathBuf),
    #[error("the certificate {cert} and the key {key} cannot be used")]
    Unfit {
        cert: PathBuf,
        key: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("cannot watch {0} for a new certificate")]
    Watch(PathBuf, #[source] io::Error),
}

/// The certificate and its key: the ones that are used, and where new ones come from.
#[derive(Clone, Debug)]
pub struct Tls {
    cert: PathBuf,
    key: PathBuf,
    now: Arc<RwLock<Arc<ServerConfig>>>,
}

fn read(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let failed = |what, path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Read { what, path, source }
    };
    let certificates = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(failed("the certificate", cert))?;
    if certificates.is_empty() {
        return Err(TlsError::Empty(cert.to_owned()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(failed("the key", key))?;
    let unfit = |source| TlsError::Unfit {
        cert: cert.to_owned(),
        key: key.to_owned(),
        source,
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .with_no_client_auth()
        .with_single_cert(certificates, secret)
        .map_err(unfit)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl Tls {
    /// Reads the certificate and its key.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        Ok(Self {
            cert: cert.to_owned(),
            key: key.to_owned(),
            now: Arc::new(RwLock::new(read(cert, key)?)),
        })
    }

    fn acceptor(&self) -> TlsAcceptor {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(now.clone())
    }

    /// Reads both again. What is no good is not taken, and what was used goes on.
    fn reload(&self) {
        match read(&self.cert, &self.key) {
            Ok(new) => {
                *self.now.write().unwrap_or_else(PoisonError::into_inner) = new;
                tracing::info!(cert = %self.cert.display(), "the certificate was read again");
            }
            // A certificate comes before its key, or the other way round: the second makes both good.
            Err(e) => {
                tracing::warn!(error = %chain(&e), "the new certificate is not taken; the one before stays")
            }
        }
    }

    /// Takes new certificates for as long as it is polled: connections that stand keep theirs.
    pub async fn follow(self) -> Result<(), TlsError> {
        // Whole directories: files are replaced by others, and links by other links.
        let folder = |file: &Path| match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let folders: BTreeSet<_> = [&self.cert, &self.key].into_iter().map(|f| folder(f)).collect();
        let inotify = Inotify::init().map_err(|e| TlsError::Watch(self.cert.clone(), e))?;
        let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::CREATE;
        for folder in folders {
            let added = inotify.watches().add(&folder, mask);
            added.map_err(|e| TlsError::Watch(folder, e))?;
        }
        let mut events = inotify
            .into_event_stream([0; 4096])
            .map_err(|e| TlsError::Watch(self.cert.clone(), e))?;
        while let Some(event) = events.next().await {
            event.map_err(|e| TlsError::Watch(self.cert.clone(), e))?;
            let again = self.clone();
            // Reading files may take a while, and a task that ends has nothing to tell.
            drop(tokio::task::spawn_blocking(move || again.reload()).await);
        }
        Ok(())
    }
}

/// A socket that listens, whose connections send at once: a key that is typed is not to wait for what may come after it.
pub struct Prompt(pub TcpListener);

impl Listener for Prompt {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let (stream, peer) = Listener::accept(&mut self.0).await;
        if let Err(e) = stream.set_nodelay(true) {
            tracing::debug!(%peer, error = %e, "send at once");
        }
        (stream, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Connections that have agreed on how to speak. Those who take their time keep nobody waiting.
pub struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl TlsListener {
    /// Speaks TLS on a socket that listens.
    pub fn new(listener: TcpListener, tls: Tls) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let mut listener = Prompt(listener);
        let (agreed, ready) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = agreed.closed() => return,
                    // Axum's way to accept: it logs and tries again.
                    accepted = listener.accept() => accepted,
                };
                let (stream, peer) = accepted;
                let (acceptor, agreed) = (tls.acceptor(), agreed.clone());
                tokio::spawn(async move {
                    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        // Nobody is there to serve it once the server stops.
                        Ok(Ok(stream)) => drop(agreed.send((stream, peer)).await),
                        Ok(Err(e)) => tracing::debug!(%peer, error = %e, "no TLS came about"),
                        Err(_) => tracing::debug!(%peer, "a client took too long to speak TLS"),
                    }
                });
            }
        });
        Ok(Self { address, ready })
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // The task that accepts ends after this one.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Connected<IncomingStream<'_, Prompt>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Prompt>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        Self(*stream.remote_addr())
    }
}
