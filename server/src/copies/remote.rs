//! The objects of a target of another server, over its API.
//!
//! What goes there is sealed already: that server keeps it, and can read it only where it has the vault's key as well.

use crate::db;
use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{Client, RequestBuilder, Response, StatusCode, header};
use shared::api::encode;
use shared::status::ErrorBody;
use shared::target::{RemotePlace, StoredObject};
use std::ops::Range;
use std::time::Duration;
use vault::StoreError;
use vault::store::{Listed, Objects, Put};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(300);
/// How often a request is sent that the server was too busy for, or did not answer.
const ATTEMPTS: u32 = 4;
/// First wait before it is sent again, doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// A target of another server.
pub struct Remote {
    client: Client,
    objects: String,
    token: String,
}

impl Remote {
    /// How the server is spoken to; nothing is sent yet.
    pub fn new(place: &RemotePlace, token: &str) -> Result<Self, StoreError> {
        crate::use_ring();
        let client = Client::builder()
            .user_agent(concat!("offshoot/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .timeout(REQUEST)
            .build()
            .map_err(|e| StoreError::Other(db::chain(&e)))?;
        Ok(Self {
            client,
            objects: format!(
                "{}/api/v1/targets/{}/objects",
                place.url.trim_end_matches('/'),
                encode(&place.target)
            ),
            token: token.to_owned(),
        })
    }

    fn content(&self, name: &str) -> String {
        format!("{}/content?name={}", self.objects, encode(name))
    }

    /// Sends a request, again where that may help; each may be repeated.
    async fn send(&self, request: impl Fn(&Client) -> RequestBuilder) -> Result<Response, StoreError> {
        let mut wait = FIRST_WAIT;
        for attempt in 1.. {
            let sent = request(&self.client).bearer_auth(&self.token).send().await;
            let error = match sent {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => told(response).await,
                Err(e) => StoreError::Away(db::chain(&e)),
            };
            if attempt == ATTEMPTS || !matches!(error, StoreError::Away(_)) {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        Err(StoreError::Away("it was not asked".into()))
    }
}

async fn told(response: Response) -> StoreError {
    let status = response.status();
    let text = response.text().await.unwrap_or_default();
    let message = match serde_json::from_str::<ErrorBody>(&text) {
        Ok(body) => body.error.message,
        Err(_) => format!("it answered HTTP {}", status.as_u16()),
    };
    match status {
        StatusCode::NOT_FOUND if message.contains("object") => StoreError::NotFound,
        StatusCode::CONFLICT => StoreError::Exists,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => StoreError::Denied(message),
        StatusCode::INSUFFICIENT_STORAGE => StoreError::Full,
        StatusCode::TOO_MANY_REQUESTS => StoreError::Away(message),
        _ if status.is_server_error() => StoreError::Away(message),
        _ => StoreError::Other(message),
    }
}

#[async_trait]
impl Objects for Remote {
    async fn put(&self, name: &str, pieces: Vec<Bytes>, put: Put) -> Result<(), StoreError> {
        let url = self.content(name);
        let body = Bytes::from(pieces.concat());
        self.send(|client| {
            let request = client.put(&url).body(body.clone());
            match put {
                Put::Create => request.header(header::IF_NONE_MATCH, "*"),
                Put::Replace => request,
            }
        })
        .await
        .map(drop)
    }

    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let url = self.content(name);
        let asked = range.as_ref().map(|r| format!("&from={}&to={}", r.start, r.end));
        let url = format!("{url}{}", asked.unwrap_or_default());
        let response = self.send(|client| client.get(&url)).await?;
        let bytes = response.bytes().await;
        let bytes = bytes.map_err(|e| StoreError::Away(db::chain(&e)))?;
        match range {
            Some(range) if bytes.len() as u64 != range.end - range.start => Err(StoreError::Other(format!(
                "{} bytes came, and {} were asked for",
                bytes.len(),
                range.end - range.start
            ))),
            _ => Ok(bytes),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let url = format!("{}?prefix={}", self.objects, encode(prefix));
        let response = self.send(|client| client.get(&url)).await?;
        let text = response.text().await;
        let text = text.map_err(|e| StoreError::Away(db::chain(&e)))?;
        let objects: Vec<StoredObject> = serde_json::from_str(&text)
            .map_err(|e| StoreError::Other(format!("its list cannot be read: {e}")))?;
        let listed = objects.into_iter().map(|object| Listed {
            name: object.name,
            size: object.size,
        });
        Ok(listed.collect())
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        let url = self.content(name);
        match self.send(|client| client.delete(&url)).await {
            Ok(_) | Err(StoreError::NotFound) => Ok(()),
            Err(e) => Err(e),
        }
    }
}
