//! Fetching an image by its address. Each one that it is sent on to is looked at as the first is.

use crate::web::Reach;
use futures::StreamExt;
use reqwest::header::{CONTENT_RANGE, ETAG, IF_RANGE, LAST_MODIFIED, LOCATION, RANGE};
use reqwest::{Response, StatusCode, Url};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// How often a server may send on to another address.
const REDIRECTS: usize = 5;
/// How often in a row a connection may break without a byte.
const BREAKS: u32 = 3;
/// How long a server may say nothing.
const SILENCE: Duration = Duration::from_secs(60);

/// Why an image could not be fetched.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum FetchError {
    #[error("fetch {url}: {why}")]
    Refused { url: String, why: String },
    #[error("fetch {url}: the server answered {status}")]
    Answer { url: String, status: StatusCode },
    #[error("fetch {url}: it has more than the {most} bytes allowed; image_max_gib raises that")]
    TooLarge { url: String, most: u64 },
    #[error("fetch {url}")]
    Lost {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("write what is fetched from {url}")]
    Write {
        url: String,
        #[source]
        source: io::Error,
    },
}

/// Fetches images.
pub struct Fetcher {
    http: reqwest::Client,
    reach: Reach,
    most: u64,
}

/// What is fetched, so that the rest of it can be asked for.
struct Version {
    tag: String,
}

impl Fetcher {
    /// One that fetches up to `most` bytes, from private addresses only if that is allowed.
    pub fn new(private: bool, most: u64) -> Result<Self, reqwest::Error> {
        let reach = Reach::new(private, "image_urls_private");
        let http = reach.client().read_timeout(SILENCE).build()?;
        Ok(Self { http, reach, most })
    }

    /// Fetches into `to`, anew; a connection that breaks is taken up where it broke, if the server can. Tells bytes done
    /// and in all, the latter once it is known.
    pub async fn fetch(
        &self,
        url: &str,
        to: &Path,
        progress: &(dyn Fn(u64, Option<u64>) + Send + Sync),
    ) -> Result<u64, FetchError> {
        let write = |source| FetchError::Write {
            url: url.to_owned(),
            source,
        };
        let mut file = tokio::fs::File::create(to).await.map_err(write)?;
        let (mut done, mut breaks, mut version) = (0_u64, 0, None);
        loop {
            let from = version.as_ref().map(|v| (done, v));
            let before = done;
            let broke = match self.ask(url, from).await {
                Ok((response, goes_on)) => {
                    if !goes_on {
                        // The whole again: what was written is written over.
                        file = tokio::fs::File::create(to).await.map_err(write)?;
                        done = 0;
                    }
                    version = version_of(&response);
                    let total = response.content_length().map(|rest| done + rest);
                    if total.is_some_and(|t| t > self.most) {
                        return Err(self.too_large(url));
                    }
                    progress(done, total);
                    let mut body = response.bytes_stream();
                    let mut broke = None;
                    while let Some(piece) = body.next().await {
                        match piece {
                            Ok(piece) => {
                                done += piece.len() as u64;
                                if done > self.most {
                                    return Err(self.too_large(url));
                                }
                                file.write_all(&piece).await.map_err(write)?;
                                progress(done, total);
                            }
                            Err(source) => {
                                broke = Some(source);
                                break;
                            }
                        }
                    }
                    match broke {
                        Some(source) => source,
                        None => {
                            file.sync_all().await.map_err(write)?;
                            return Ok(done);
                        }
                    }
                }
                Err(FetchError::Lost { source, .. }) if !told_why(&source) => source,
                Err(e) => return Err(e),
            };
            // What came counts as a sign that it is worth going on.
            breaks = if done > before { 1 } else { breaks + 1 };
            if breaks > BREAKS {
                return Err(self.lost(url, broke));
            }
            // What is in the file counts, once it is there.
            file.flush().await.map_err(write)?;
            tokio::time::sleep(Duration::from_millis(200) * breaks).await;
        }
    }

    /// Asks for it, or for what is still missing; follows redirects. Answers whether the rest of it comes.
    async fn ask(&self, url: &str, from: Option<(u64, &Version)>) -> Result<(Response, bool), FetchError> {
        let refused = |why: &str| FetchError::Refused {
            url: url.to_owned(),
            why: why.to_owned(),
        };
        let mut at = Url::parse(url).map_err(|e| refused(&e.to_string()))?;
        for _ in 0..=REDIRECTS {
            self.reach.check(&at).map_err(|why| refused(&why))?;
            let mut request = self.http.get(at.clone());
            if let Some((done, version)) = from.filter(|(done, _)| *done > 0) {
                request = request
                    .header(RANGE, format!("bytes={done}-"))
                    .header(IF_RANGE, &version.tag);
            }
            let response = request.send().await.map_err(|source| self.lost(url, source))?;
            let status = response.status();
            if status.is_redirection() {
                let to = response.headers().get(LOCATION).and_then(|l| l.to_str().ok());
                let to = to.ok_or_else(|| refused("a redirect leads nowhere"))?;
                at = at.join(to).map_err(|e| refused(&e.to_string()))?;
                continue;
            }
            let begins = response
                .headers()
                .get(CONTENT_RANGE)
                .and_then(|r| r.to_str().ok());
            let goes_on = from.is_some_and(|(done, _)| {
                status == StatusCode::PARTIAL_CONTENT
                    && begins.is_some_and(|r| r.starts_with(&format!("bytes {done}-")))
            });
            return match status {
                StatusCode::OK => Ok((response, false)),
                StatusCode::PARTIAL_CONTENT if goes_on => Ok((response, true)),
                status => Err(FetchError::Answer {
                    url: url.to_owned(),
                    status,
                }),
            };
        }
        Err(refused("it is sent on from one address to another too often"))
    }

    fn too_large(&self, url: &str) -> FetchError {
        FetchError::TooLarge {
            url: url.to_owned(),
            most: self.most,
        }
    }

    fn lost(&self, url: &str, source: reqwest::Error) -> FetchError {
        FetchError::Lost {
            url: url.to_owned(),
            // The address is named already, and may hold a secret.
            source: source.without_url(),
        }
    }
}

/// Whether the error is one of ours: trying again would not change it.
fn told_why(e: &reqwest::Error) -> bool {
    crate::db::chain(e).contains("no public address")
}

/// What tells this version of the file from another.
fn version_of(response: &Response) -> Option<Version> {
    let header = |name| response.headers().get(name).and_then(|v| v.to_str().ok());
    let tag = header(ETAG)
        .filter(|t| !t.starts_with("W/"))
        .or(header(LAST_MODIFIED))?;
    Some(Version { tag: tag.to_owned() })
}
