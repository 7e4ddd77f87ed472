//! The live feed, as a client reads it.

use super::http::{Client, ClientError};
use futures::StreamExt;
use futures::stream::BoxStream;
use shared::feed::SILENCE_SECONDS;
use std::time::Duration;

/// An event of the feed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its name: a noun, `alive` or `reset`.
    pub name: String,
    /// Its data.
    pub data: String,
}

/// Puts events together from what arrives.
#[derive(Default)]
struct Parser {
    open: Vec<u8>,
    event: Event,
}

impl Parser {
    /// Takes what has arrived, and tells the events that are whole with it.
    fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut whole = Vec::new();
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            self.open.extend_from_slice(piece);
            if !piece.ends_with(b"\n") {
                continue;
            }
            let line = String::from_utf8_lossy(&self.open);
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() {
                whole.push(std::mem::take(&mut self.event));
            } else if let Some(name) = line.strip_prefix("event:") {
                self.event.name = name.trim_start().to_owned();
            } else if let Some(data) = line.strip_prefix("data:") {
                self.event.data.push_str(data.trim_start());
            }
            self.open.clear();
        }
        whole
    }
}

/// A feed that is listened to.
pub struct Feed {
    bytes: BoxStream<'static, reqwest::Result<axum::body::Bytes>>,
    parser: Parser,
    ready: std::collections::VecDeque<Event>,
}

impl Feed {
    /// Listens from the change behind this generation on.
    pub async fn open(client: &Client, after: u64) -> Result<Self, ClientError> {
        let response = client.get(&format!("/api/v1/events?after={after}"), None).await?;
        Ok(Self {
            bytes: response.bytes_stream().boxed(),
            parser: Parser::default(),
            ready: Default::default(),
        })
    }

    /// The next event; none when the link is lost, which is also what silence means.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let silence = Duration::from_secs(SILENCE_SECONDS);
            let bytes = tokio::time::timeout(silence, self.bytes.next())
                .await
                .ok()??
                .ok()?;
            self.ready.extend(self.parser.feed(&bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_put_together_from_any_pieces() {
        let text = b"id: 1-2\nevent: job\ndata: {\"a\":\ndata: 1}\n\nevent: alive\r\ndata:\r\n\r\nevent: cut";
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let events: Vec<_> = text.chunks(size).flat_map(|c| parser.feed(c)).collect();
            let event = |name: &str, data: &str| Event {
                name: name.into(),
                data: data.into(),
            };
            assert_eq!(
                events,
                [event("job", "{\"a\":1}"), event("alive", "")],
                "in pieces of {size}"
            );
        }
    }
}
