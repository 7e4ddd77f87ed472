//! Calls of the API over HTTP.

use super::trust;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use rustls::pki_types::ServerName;
use serde::de::DeserializeOwned;
use shared::api::{Call, Method, RawCall};
use shared::{Code, Status};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite};

/// A connection, with TLS or without.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A WebSocket of the server's.
pub type Socket = WebSocketStream<Box<dyn Wire>>;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a server may say nothing in the midst of an answer.
const SILENCE: Duration = Duration::from_secs(30);
/// How long an answer may take. Work that lasts is a job, so no answer does.
const ANSWER: Duration = Duration::from_secs(60);

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ClientError {
    #[error("{0:?} is no address of a server: write https://host:port, or http://host:port")]
    Address(String),
    #[error("cannot trust the certificates of {path}: {why}")]
    Ca { path: PathBuf, why: String },
    #[error("the token holds characters that no token has")]
    Token,
    #[error("set up HTTP")]
    SetUp(#[source] reqwest::Error),
    #[error(
        "cannot reach a server at {url}: is `offshoot serve` running there? OFFSHOOT_URL names another address"
    )]
    Unreachable {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error(
        "cannot agree with {url} on TLS: is it an address of `offshoot serve` with tls_cert? --tls-ca FILE or OFFSHOOT_TLS_CA has commands \
         trust its certificate"
    )]
    Tls {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("the connection to {url} was lost")]
    Lost {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("the connection to {url} is lost, or did not come about: is `offshoot serve` running there?")]
    Socket {
        url: String,
        #[source]
        source: Box<tungstenite::Error>,
    },
    #[error("{}", told(.0))]
    Refused(Status),
    #[error("the server cannot be reached any more; job {job} goes on there: offshoot job wait {job}")]
    LostJob {
        job: shared::JobId,
        #[source]
        source: Box<ClientError>,
    },
}

/// A refusal with the id to look for in the server's log, and with what to do where the server cannot know it.
fn told(status: &Status) -> String {
    let mut text = status.message.clone();
    if status.code == Code::Unauthenticated {
        text.push_str("; make a token with `offshoot token create NAME` and put it into OFFSHOOT_TOKEN");
    }
    if let Some(id) = status.trace_id() {
        text.push_str(&format!(" (trace id {id})"));
    }
    text
}

impl ClientError {
    /// The number that the program ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Address(_) | Self::Token | Self::Ca { .. } => 2,
            Self::SetUp(_) => 1,
            Self::Unreachable { .. }
            | Self::Tls { .. }
            | Self::Lost { .. }
            | Self::Socket { .. }
            | Self::LostJob { .. } => 4,
            Self::Refused(status) => match status.code {
                Code::Unauthenticated | Code::PermissionDenied => 5,
                Code::Internal
                | Code::Unavailable
                | Code::Unknown
                | Code::DeadlineExceeded
                | Code::DataLoss => 4,
                _ => 3,
            },
        }
    }

    /// Whether the same call may well be answered a little later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Lost { .. } => true,
            Self::Refused(status) => matches!(status.code, Code::Unavailable | Code::ResourceExhausted),
            _ => false,
        }
    }
}

/// A server's API.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    /// For what takes as long as it takes: nothing is read while it is sent.
    sending: reqwest::Client,
    /// How TLS is spoken, where it is.
    tls: Option<rustls::ClientConfig>,
    url: String,
    authorization: Option<HeaderValue>,
}

impl Client {
    /// The API at this address, with this token.
    pub fn new(url: &str, token: Option<&str>) -> Result<Self, ClientError> {
        Self::trusting(url, token, None)
    }

    /// The same, that trusts the certificates of a file beside those of the system.
    pub fn trusting(url: &str, token: Option<&str>, ca: Option<&Path>) -> Result<Self, ClientError> {
        let url = url.trim_end_matches('/');
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(ClientError::Address(url.to_owned()));
        }
        let mut headers = HeaderMap::new();
        let mut authorization = None;
        if let Some(token) = token {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ClientError::Token)?;
            value.set_sensitive(true);
            authorization = Some(value.clone());
            headers.insert(AUTHORIZATION, value);
        }
        crate::use_ring();
        let secure = url.starts_with("https://");
        let tls = secure.then(|| trust::with(ca)).transpose();
        let tls = tls.map_err(|why| ClientError::Ca {
            path: ca.unwrap_or(Path::new("the system")).to_owned(),
            why,
        })?;
        let builder = || {
            let builder = match tls.clone() {
                Some(tls) => reqwest::Client::builder().tls_backend_preconfigured(tls),
                None => reqwest::Client::builder(),
            };
            builder
                .user_agent(concat!("offshoot/", env!("CARGO_PKG_VERSION")))
                .default_headers(headers.clone())
                .connect_timeout(CONNECT)
                // A proxy for the web has no way to a server on this machine.
                .no_proxy()
        };
        // Between two pieces of what is read: the feed says something every five seconds.
        let http = builder().read_timeout(SILENCE).build();
        Ok(Self {
            http: http.map_err(ClientError::SetUp)?,
            sending: builder()
                .tcp_keepalive(SILENCE)
                .build()
                .map_err(ClientError::SetUp)?,
            tls,
            url: url.to_owned(),
            authorization,
        })
    }

    fn lost(&self, source: reqwest::Error) -> ClientError {
        let url = self.url.clone();
        if source.is_builder() {
            ClientError::Address(url)
        } else if trust::is_cause(&source) {
            ClientError::Tls { url, source }
        } else if source.is_connect() {
            ClientError::Unreachable { url, source }
        } else {
            ClientError::Lost { url, source }
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, ClientError> {
        let response = request.send().await.map_err(|e| self.lost(e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.text().await.map_err(|e| self.lost(e))?;
        Err(refused(status.as_u16(), &body))
    }

    fn request(&self, call: RawCall) -> reqwest::RequestBuilder {
        let method = match call.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Patch => reqwest::Method::PATCH,
            Method::Put => reqwest::Method::PUT,
            Method::Delete => reqwest::Method::DELETE,
        };
        let request = self.http.request(method, format!("{}{}", self.url, call.path));
        match call.body {
            Some(body) => request.header("content-type", "application/json").body(body),
            None => request,
        }
    }

    /// What a call answers, as the server wrote it.
    pub async fn text<C: Call>(&self, call: &C) -> Result<String, ClientError> {
        let request = self.request(call.raw()).timeout(ANSWER);
        let response = self.send(request).await?;
        response.text().await.map_err(|e| self.lost(e))
    }

    /// What a call answers.
    pub async fn call<C: Call>(&self, call: &C) -> Result<C::Answer, ClientError> {
        read(&self.text(call).await?)
    }

    /// What a call answers, or nothing if there is no such thing.
    pub async fn find<C: Call>(&self, call: &C) -> Result<Option<C::Answer>, ClientError> {
        match self.call(call).await {
            Err(ClientError::Refused(status)) if status.code == Code::NotFound => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// What is at a path that answers no JSON; `range` asks for a part of it, as the header says.
    pub async fn get(&self, path: &str, range: Option<String>) -> Result<reqwest::Response, ClientError> {
        let mut request = self.http.get(format!("{}{path}", self.url));
        if let Some(range) = range {
            request = request.header("range", range);
        }
        self.send(request).await
    }

    /// The WebSocket at a path.
    pub async fn socket(&self, path: &str) -> Result<Socket, ClientError> {
        let address = format!("ws{}{path}", self.url.trim_start_matches("http"));
        let mut request = address
            .into_client_request()
            .map_err(|_| ClientError::Address(self.url.clone()))?;
        if let Some(value) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, value.clone());
        }
        let connect = async {
            let wire = self.wire(request.uri()).await.map_err(tungstenite::Error::Io)?;
            client_async(request, wire).await
        };
        match timeout(CONNECT, connect).await {
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(tungstenite::Error::Http(answer))) => {
                let body = String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default());
                Err(refused(answer.status().as_u16(), &body))
            }
            Ok(Err(e)) => Err(self.socket_lost(e)),
            Err(_) => {
                let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
                Err(self.socket_lost(tungstenite::Error::Io(late)))
            }
        }
    }

    /// A connection to where an address leads.
    async fn wire(&self, to: &tungstenite::http::Uri) -> std::io::Result<Box<dyn Wire>> {
        let host = to.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = to.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidInput, e))?;
        let tls = TlsConnector::from(Arc::new(tls.clone()));
        Ok(Box::new(tls.connect(name, stream).await?))
    }

    /// The error of a WebSocket that broke off.
    pub fn socket_lost(&self, source: tungstenite::Error) -> ClientError {
        ClientError::Socket {
            url: self.url.clone(),
            source: Box::new(source),
        }
    }

    /// What a part of an upload is answered with, however long it takes to send.
    pub async fn send_body(&self, path: &str, body: reqwest::Body) -> Result<String, ClientError> {
        let request = self.sending.patch(format!("{}{path}", self.url)).body(body);
        let request = request.header("content-type", "application/octet-stream");
        let response = self.send(request).await?;
        response.text().await.map_err(|e| self.lost(e))
    }

    /// The error of a body that broke off.
    pub fn broke_off(&self, source: reqwest::Error) -> ClientError {
        self.lost(source)
    }
}

fn refused(http: u16, body: &str) -> ClientError {
    ClientError::Refused(match shared::api::answer::<()>(http, body) {
        Err(status) => status,
        Ok(()) => Status::new(Code::Unknown, format!("the server answered HTTP {http}")),
    })
}

/// Reads an answer.
pub fn read<A: DeserializeOwned>(text: &str) -> Result<A, ClientError> {
    shared::api::answer(200, text).map_err(ClientError::Refused)
}
