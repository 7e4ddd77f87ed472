//! Screens and serial lines over real WebSockets.

mod guest;
mod refused;
mod sim;

use crate::support::{PATIENCE, ended};
use futures::{SinkExt, StreamExt};
use serde_json::json;
use server::cli::serve::Running;
use shared::console::Note;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Opens a WebSocket below `/api/v1/vms/`; else the status and the body that it is refused with.
pub async fn connect(
    running: &Running,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<Socket, (u16, String)> {
    let url = format!("ws://{}/api/v1/vms/{path}", running.address);
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match connect_async(request).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(answer)) => {
            let body = answer.body().clone().unwrap_or_default();
            Err((answer.status().as_u16(), String::from_utf8(body).unwrap()))
        }
        Err(e) => panic!("{path}: {e}"),
    }
}

/// Somebody who looks at a serial line or a screen.
pub struct Viewer {
    socket: Socket,
    /// What has been seen, and not been waited for yet.
    seen: Vec<u8>,
    pub notes: Vec<Note>,
}

/// Why a viewer was sent away.
pub type Why = Option<(u16, String)>;

impl Viewer {
    pub async fn open(running: &Running, token: &str, path: &str) -> Self {
        let token = format!("Bearer {token}");
        Self::of(
            connect(running, path, &[("authorization", &token)])
                .await
                .unwrap(),
        )
    }

    pub fn of(socket: Socket) -> Self {
        Self {
            socket,
            seen: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.socket
            .send(Message::Binary(bytes.to_vec().into()))
            .await
            .unwrap();
    }

    /// Reads a message; the reason when there are no more.
    async fn more(&mut self) -> Result<(), Why> {
        let next = tokio::time::timeout(PATIENCE, self.socket.next());
        match next.await.expect("a viewer hears something in time") {
            Some(Ok(Message::Binary(bytes))) => self.seen.extend_from_slice(&bytes),
            Some(Ok(Message::Text(text))) => self.notes.push(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Close(why))) => {
                return Err(why.map(|why| (why.code.into(), why.reason.to_string())));
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Err(None),
        }
        Ok(())
    }

    /// Everything up to this text, and with it.
    pub async fn until(&mut self, text: &str) -> String {
        // What was looked through is not looked through again.
        let mut from = 0;
        loop {
            let found = self.seen[from..]
                .windows(text.len())
                .position(|w| w == text.as_bytes());
            if let Some(at) = found {
                let read: Vec<u8> = self.seen.drain(..from + at + text.len()).collect();
                return String::from_utf8_lossy(&read).into_owned();
            }
            from = (self.seen.len() + 1).saturating_sub(text.len());
            if let Err(why) = self.more().await {
                panic!(
                    "closed before {text:?}: {why:?}, {}",
                    String::from_utf8_lossy(&self.seen)
                );
            }
        }
    }

    /// So many bytes.
    pub async fn bytes(&mut self, n: usize) -> Vec<u8> {
        while self.seen.len() < n {
            self.more().await.unwrap();
        }
        self.seen.drain(..n).collect()
    }

    /// Until it is sent away; with what it saw last.
    pub async fn closed(mut self) -> (Why, Vec<u8>) {
        loop {
            if let Err(why) = self.more().await {
                return (why, self.seen);
            }
        }
    }

    /// Greets as a client of RFB 3.8, and reads how large the screen is.
    pub async fn rfb(&mut self, shared: bool) -> (u16, u16) {
        assert_eq!(self.bytes(12).await, b"RFB 003.008\n");
        self.send(b"RFB 003.008\n").await;
        let kinds = self.bytes(1).await[0];
        assert!(
            self.bytes(kinds.into()).await.contains(&1),
            "no password is asked for"
        );
        self.send(&[1]).await;
        assert_eq!(self.bytes(4).await, [0; 4]);
        self.send(&[shared.into()]).await;
        let hello = self.bytes(24).await;
        let number = |at| u16::from_be_bytes([hello[at], hello[at + 1]]);
        self.bytes(usize::from(number(22))).await;
        (number(0), number(2))
    }

    /// Asks for the whole screen, and reads it as raw pixels.
    pub async fn picture(&mut self) -> Vec<u8> {
        let (width, height) = (u16::MAX.to_be_bytes(), u16::MAX.to_be_bytes());
        self.send(&[2, 0, 0, 1, 0, 0, 0, 0]).await;
        self.send(&[&[3, 0, 0, 0, 0, 0][..], &width[..], &height[..]].concat())
            .await;
        loop {
            let kind = self.bytes(1).await[0];
            assert_eq!(kind, 0, "a picture, and nothing else, was asked for");
            let head = self.bytes(3).await;
            let mut pixels = Vec::new();
            for _ in 0..u16::from_be_bytes([head[1], head[2]]) {
                let r = self.bytes(12).await;
                let number = |at: usize| usize::from(u16::from_be_bytes([r[at], r[at + 1]]));
                assert_eq!(r[8..], [0; 4], "raw pixels were asked for");
                pixels.extend(self.bytes(4 * number(4) * number(6)).await);
            }
            if !pixels.is_empty() {
                return pixels;
            }
        }
    }
}

/// Makes a machine that runs, through the API; without an image of an empty disk.
pub async fn machine(running: &Running, token: &str, name: &str, image: Option<&str>) {
    let disks = match image {
        Some(image) => json!([{ "image": image }]),
        None => json!([{ "sizeGib": 1 }]),
    };
    let request = json!({ "name": name, "disks": disks, "memoryMib": 128, "start": true });
    work(running, token, "", request).await;
}

/// Posts what begins a job below `/api/v1/vms`, and waits for its good end.
pub async fn work(running: &Running, token: &str, path: &str, request: serde_json::Value) {
    let url = format!("http://{}/api/v1/vms{path}", running.address);
    let post = crate::site::client().post(url).bearer_auth(token);
    let begun = post.json(&request).send().await.unwrap();
    assert_eq!(begun.status(), 202);
    let job: shared::job::Job = serde_json::from_str(&begun.text().await.unwrap()).unwrap();
    let job = ended(&running.server.jobs, job.id).await;
    assert_eq!(job.state, shared::job::JobState::Succeeded, "{job:?}");
}
