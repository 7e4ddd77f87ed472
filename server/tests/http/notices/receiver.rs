//! The other side of a webhook: it answers as it is told, and has every post looked at.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What a post is answered.
#[derive(Clone, Copy)]
pub enum Reply {
    Status(u16),
    /// Sent on to another path of this receiver.
    Elsewhere,
    /// Nothing, as long as the other side waits.
    Never,
}

/// A post as it came.
#[derive(Debug)]
pub struct Post {
    pub path: String,
    headers: HeaderMap,
    pub body: Bytes,
}

impl Post {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Whether one of its signatures is by this secret.
    pub fn signed_by(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let (id, time) = (self.header("webhook-id"), self.header("webhook-timestamp"));
        let mut signed = format!("{id}.{time}.").into_bytes();
        signed.extend_from_slice(&self.body);
        let right = format!("v1,{}", STANDARD.encode(hmac(&key, &signed)));
        self.header("webhook-signature").split(' ').any(|s| s == right)
    }
}

/// HMAC-SHA256 as RFC 2104 writes it, and not as the server's library has it.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let padded = |pad: u8| {
        let mut block = [pad; 64];
        block.iter_mut().zip(key).for_each(|(b, k)| *b ^= k);
        block
    };
    assert!(key.len() <= 64, "a longer key would be hashed first");
    let inner = Sha256::new()
        .chain_update(padded(0x36))
        .chain_update(text)
        .finalize();
    let outer = Sha256::new()
        .chain_update(padded(0x5c))
        .chain_update(inner)
        .finalize();
    outer.to_vec()
}

struct Shared {
    replies: Mutex<VecDeque<Reply>>,
    posts: UnboundedSender<Post>,
}

pub struct Receiver {
    /// With its port.
    pub address: String,
    posts: UnboundedReceiver<Post>,
}

impl Receiver {
    /// One that answers so, and from then on that all is well.
    pub async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, posts) = unbounded_channel();
        let shared = Arc::new(Shared {
            replies: Mutex::new(replies.into_iter().collect()),
            posts: sender,
        });
        let router = Router::new().fallback(answer).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, posts }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// The next post.
    pub async fn next(&mut self) -> Post {
        let next = tokio::time::timeout(Duration::from_secs(60), self.posts.recv());
        next.await.expect("a post comes in time").unwrap()
    }

    /// Whether all that came was looked at.
    pub fn has_no_more(&mut self) -> bool {
        self.posts.try_recv().is_err()
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let reply = shared.replies.lock().unwrap().pop_front();
    let path = uri.path().to_owned();
    // The test may have ended.
    _ = shared.posts.send(Post { path, headers, body });
    match reply.unwrap_or(Reply::Status(204)) {
        Reply::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Reply::Elsewhere => (StatusCode::FOUND, [(header::LOCATION, "/elsewhere")]).into_response(),
        Reply::Never => std::future::pending().await,
    }
}
