//! Objects in a bucket of anything that speaks S3.

use super::{Listed, Objects, Put};
use crate::error::StoreError;
use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum, S3ConditionalPut};
use object_store::path::Path;
use object_store::{
    ClientOptions, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig,
};
use std::ops::Range;
use std::time::Duration;

/// How a bucket is reached.
#[derive(Clone)]
pub struct S3Settings {
    /// `https://host[:port]`.
    pub endpoint: String,
    /// As the store names it; `us-east-1` where it has none.
    pub region: String,
    /// The bucket's name.
    pub bucket: String,
    /// What all names begin with; empty, or ends without `/`.
    pub prefix: String,
    /// Who signs.
    pub access_key: String,
    /// What signs.
    pub secret_key: String,
}

/// A bucket.
pub struct S3 {
    store: AmazonS3,
    bucket: String,
    prefix: String,
}

impl S3 {
    /// How a bucket is spoken to; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// Settings that are none.
    pub fn new(settings: &S3Settings) -> Result<Self, StoreError> {
        let store = AmazonS3Builder::new()
            .with_endpoint(&settings.endpoint)
            .with_region(&settings.region)
            .with_bucket_name(&settings.bucket)
            .with_access_key_id(&settings.access_key)
            .with_secret_access_key(&settings.secret_key)
            .with_allow_http(settings.endpoint.starts_with("http://"))
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            // A bucket that locks objects takes none without. It is the one that is signed: it costs nothing.
            .with_checksum_algorithm(Checksum::SHA256)
            // One is removed at a time; and what is refused within an answer is not told from what fails.
            .with_config(AmazonS3ConfigKey::DisableBulkDelete, "true")
            .with_retry(RetryConfig {
                max_retries: 3,
                retry_timeout: Duration::from_secs(60),
                ..RetryConfig::default()
            })
            .with_client_options(
                ClientOptions::new()
                    .with_allow_http(settings.endpoint.starts_with("http://"))
                    .with_connect_timeout(Duration::from_secs(10))
                    .with_timeout(Duration::from_secs(300)),
            )
            .build()
            .map_err(told)?;
        Ok(Self {
            store,
            bucket: settings.bucket.clone(),
            prefix: settings.prefix.clone(),
        })
    }

    /// Of a request that needs no object to be there.
    fn no_bucket(&self, e: object_store::Error) -> StoreError {
        match told(e) {
            StoreError::NotFound => StoreError::Other(format!("there is no bucket {}", self.bucket)),
            e => e,
        }
    }

    fn path(&self, name: &str) -> Path {
        Path::from_iter(
            self.prefix
                .split('/')
                .chain(name.split('/'))
                .filter(|part| !part.is_empty()),
        )
    }
}

#[async_trait]
impl Objects for S3 {
    async fn put(&self, name: &str, pieces: Vec<Bytes>, put: Put) -> Result<(), StoreError> {
        let mode = match put {
            Put::Replace => PutMode::Overwrite,
            Put::Create => PutMode::Create,
        };
        let payload: PutPayload = pieces.into_iter().collect();
        let options = PutOptions::from(mode);
        let path = self.path(name);
        let put = self.store.put_opts(&path, payload, options).await;
        put.map_err(|e| self.no_bucket(e)).map(drop)
    }

    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let options = GetOptions {
            range: range.clone().map(Into::into),
            ..GetOptions::default()
        };
        let got = self.store.get_opts(&self.path(name), options).await;
        let bytes = got.map_err(told)?.bytes().await.map_err(told)?;
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
        let at = self.path(prefix);
        let skip = match self.prefix.as_str() {
            "" => 0,
            prefix => prefix.len() + 1,
        };
        let all = self.store.list(Some(&at)).map_ok(|meta| Listed {
            name: meta.location.as_ref().get(skip..).unwrap_or_default().to_owned(),
            size: meta.size,
        });
        all.try_collect().await.map_err(|e| self.no_bucket(e))
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        match self.store.delete(&self.path(name)).await {
            Err(object_store::Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(e) => Err(told(e)),
        }
    }
}

fn told(e: object_store::Error) -> StoreError {
    use object_store::Error as E;
    match e {
        E::NotFound { .. } => StoreError::NotFound,
        E::AlreadyExists { .. } | E::Precondition { .. } => StoreError::Exists,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => StoreError::Denied(plain(&chain(&e))),
        E::Generic { .. } => {
            let text = chain(&e);
            // What a server refuses does not go by. Only the text tells it from a server that is away.
            let refused = |text: &str| {
                let (_, code) = text.split_once("status code: 4")?;
                (!code.starts_with("08") && !code.starts_with("29")).then_some(())
            };
            match refused(&text) {
                Some(()) => StoreError::Other(plain(&text)),
                None => StoreError::Away(plain(&text)),
            }
        }
        _ => StoreError::Other(plain(&chain(&e))),
    }
}

/// Without the XML around what a server says.
fn plain(text: &str) -> String {
    let of = |xml: &str, tag: &str| {
        let (_, rest) = xml.split_once(&format!("<{tag}>"))?;
        Some(rest.split_once('<')?.0.to_owned())
    };
    let said = text.split_once("<Error>").and_then(|(before, xml)| {
        let before = before.split("<?xml").next()?;
        Some(format!("{before}{}, {}", of(xml, "Code")?, of(xml, "Message")?))
    });
    said.unwrap_or_else(|| text.to_owned())
}

/// An error with what is behind it.
fn chain(e: &dyn std::error::Error) -> String {
    let mut all = e.to_string();
    let mut next = e.source();
    while let Some(e) = next {
        let text = e.to_string();
        if !all.contains(&text) {
            all = format!("{all}: {text}");
        }
        next = e.source();
    }
    all
}
