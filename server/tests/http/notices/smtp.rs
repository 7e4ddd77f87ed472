//! A mail server, as far as RFC 5321 has a client speak to it: it takes mail, or refuses it as it is told.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_rustls::TlsAcceptor;

/// When TLS begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// With the connection.
    AtOnce,
    /// When it is asked for, and before anything else.
    WhenAsked,
}

/// A connection, with TLS or without.
trait Wire: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Wire for T {}
type Stream = BufStream<Pin<Box<dyn Wire>>>;

/// A mail as it was taken.
#[derive(Debug, Default)]
pub struct Taken {
    pub from: String,
    pub to: Vec<String>,
    /// Headers and body.
    pub text: String,
}

impl Taken {
    /// A header, whole.
    pub fn header(&self, name: &str) -> String {
        let head = self.text.split("\r\n\r\n").next().unwrap().replace("\r\n ", " ");
        let line = head
            .split("\r\n")
            .find_map(|l| l.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {head}")).to_owned()
    }

    /// The body, with the line breaks that the encoding added taken out.
    pub fn body(&self) -> String {
        let (_, body) = self.text.split_once("\r\n\r\n").unwrap();
        body.replace("=\r\n", "").replace("\r\n", "\n")
    }
}

struct Shared {
    /// How many recipients are still refused for now.
    refused: AtomicUsize,
    /// Who has to sign in: user, password.
    login: Option<(String, String)>,
    /// Whether it speaks TLS, and from when on.
    tls: Option<(TlsAcceptor, Tls)>,
    mails: UnboundedSender<Taken>,
}

pub struct Smtp {
    pub address: String,
    mails: UnboundedReceiver<Taken>,
}

impl Smtp {
    /// One that first refuses so many, and lets nobody mail without this user and password if they are given.
    pub async fn start(refused: usize, login: Option<(&str, &str)>) -> Self {
        Self::listen(refused, login, None).await
    }

    /// One that takes mail by TLS only.
    pub async fn with_tls(acceptor: TlsAcceptor, when: Tls) -> Self {
        Self::listen(0, None, Some((acceptor, when))).await
    }

    async fn listen(refused: usize, login: Option<(&str, &str)>, tls: Option<(TlsAcceptor, Tls)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, mails) = unbounded_channel();
        let shared = Arc::new(Shared {
            refused: AtomicUsize::new(refused),
            login: login.map(|(user, password)| (user.to_owned(), password.to_owned())),
            tls,
            mails: sender,
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(speak(stream, shared.clone()));
            }
        });
        Self { address, mails }
    }

    /// The next mail.
    pub async fn next(&mut self) -> Taken {
        let next = tokio::time::timeout(Duration::from_secs(60), self.mails.recv());
        next.await.expect("a mail comes in time").unwrap()
    }
}

/// The address between the angle brackets.
fn address(line: &str) -> String {
    let (_, rest) = line.split_once('<').unwrap();
    rest.split('>').next().unwrap().to_owned()
}

async fn say(stream: &mut Stream, lines: &str) -> io::Result<()> {
    stream.write_all(lines.as_bytes()).await?;
    stream.flush().await
}

async fn hear(stream: &mut Stream) -> io::Result<String> {
    let mut line = String::new();
    match stream.read_line(&mut line).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line),
    }
}

/// Speaks with one client until it leaves.
async fn speak(stream: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    let mut stream: Stream = match &shared.tls {
        Some((acceptor, Tls::AtOnce)) => BufStream::new(Box::pin(acceptor.accept(stream).await?)),
        _ => BufStream::new(Box::pin(stream)),
    };
    let (mut mail, mut known) = (Taken::default(), shared.login.is_none());
    // What is still to come before anything else.
    let mut asks = shared.tls.as_ref().filter(|(_, when)| *when == Tls::WhenAsked);
    say(&mut stream, "220 test ESMTP\r\n").await?;
    loop {
        let line = hear(&mut stream).await?;
        let line = line.trim_end();
        let verb = line.split([' ', ':']).next().unwrap().to_ascii_uppercase();
        let answer = match verb.as_str() {
            "EHLO" if asks.is_some() => "250-test\r\n250 STARTTLS\r\n",
            "STARTTLS" => match asks.take() {
                None => "503 it is there\r\n",
                Some((acceptor, _)) => {
                    say(&mut stream, "220 go on\r\n").await?;
                    let secured = acceptor.accept(stream.into_inner()).await?;
                    stream = BufStream::new(Box::pin(secured));
                    continue;
                }
            },
            "EHLO" if shared.login.is_some() => "250-test\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n",
            "EHLO" => "250-test\r\n250 8BITMIME\r\n",
            "AUTH" => {
                let told = line.strip_prefix("AUTH PLAIN ").unwrap_or_default();
                let right = shared
                    .login
                    .as_ref()
                    .map(|(u, p)| STANDARD.encode(format!("\0{u}\0{p}")));
                known = right.as_deref() == Some(told);
                if known { "235 welcome\r\n" } else { "535 who?\r\n" }
            }
            "MAIL" if asks.is_some() => "530 STARTTLS first\r\n",
            "MAIL" if !known => "530 sign in first\r\n",
            "MAIL" => {
                mail = Taken {
                    from: address(line),
                    ..Taken::default()
                };
                "250 ok\r\n"
            }
            "RCPT" => {
                let spend = |n: usize| n.checked_sub(1);
                let refused = shared
                    .refused
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend);
                if refused.is_ok() {
                    "451 come back later\r\n"
                } else {
                    mail.to.push(address(line));
                    "250 ok\r\n"
                }
            }
            "DATA" => {
                say(&mut stream, "354 go on\r\n").await?;
                loop {
                    let line = hear(&mut stream).await?;
                    if line == ".\r\n" {
                        break;
                    }
                    mail.text.push_str(line.strip_prefix('.').unwrap_or(&line));
                }
                // The test may have ended.
                _ = shared.mails.send(std::mem::take(&mut mail));
                "250 ok\r\n"
            }
            "RSET" | "NOOP" => "250 ok\r\n",
            "QUIT" => return say(&mut stream, "221 bye\r\n").await,
            _ => "500 what?\r\n",
        };
        say(&mut stream, answer).await?;
    }
}
