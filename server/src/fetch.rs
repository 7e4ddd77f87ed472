//! Fetching an image by its address.
//!
//! Where the server stands it reaches more than the web: so an address is resolved here, what is private is refused
//! unless configured, and the connection goes to the address that was checked, also after a redirect.

use futures::StreamExt;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_RANGE, ETAG, IF_RANGE, LAST_MODIFIED, LOCATION, RANGE};
use reqwest::{Response, StatusCode, Url};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// How often a server may send on to another address.
const REDIRECTS: usize = 5;
/// How often in a row a connection may break without a byte.
const BREAKS: u32 = 3;
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(20);
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

/// Whether an address belongs to the web at large.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    // "This network", carriers' private addresses, protocol assignments, benchmarks, and what is reserved.
    let own = matches!(
        (a, b, c),
        (0, ..) | (100, 64..=127, _) | (192, 0, 0) | (198, 18..=19, _) | (240.., ..)
    );
    !(own
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_documentation())
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        // Teredo, documentation, and the translation prefix of a network's own.
        [0x2001, 0, ..] | [0x2001, 0xdb8, ..] | [0x64, 0xff9b, 1, ..] => false,
        // Only global unicast is left of the rest.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

/// Resolves names, and gives only addresses that may be connected to.
struct Checked {
    private: bool,
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let private = self.private;
        Box::pin(async move {
            let all: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let good: Vec<_> = all
                .iter()
                .copied()
                .filter(|a| private || is_public(a.ip()))
                .collect();
            if good.is_empty() {
                return Err(private_address(all.first().map(SocketAddr::ip)).into());
            }
            Ok(Box::new(good.into_iter()) as Addrs)
        })
    }
}

fn private_address(ip: Option<IpAddr>) -> String {
    match ip {
        Some(ip) => format!(
            "it leads to {ip}, which is no public address: image_urls_private = true allows those, if everybody who may \
             bring images in may reach them"
        ),
        None => "its name leads to no address".to_owned(),
    }
}

/// Fetches images.
pub struct Fetcher {
    http: reqwest::Client,
    private: bool,
    most: u64,
}

/// What is fetched, so that the rest of it can be asked for.
struct Version {
    tag: String,
}

impl Fetcher {
    /// One that fetches up to `most` bytes, from private addresses only if that is allowed.
    pub fn new(private: bool, most: u64) -> Result<Self, reqwest::Error> {
        crate::use_ring();
        let http = reqwest::Client::builder()
            .user_agent(concat!("offshoot/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(Arc::new(Checked { private }))
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            // A proxy would resolve the names that are checked here.
            .no_proxy()
            .build()?;
        Ok(Self { http, private, most })
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
            self.check(url, &at)?;
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

    /// A number in place of a name is not resolved: it is looked at here.
    fn check(&self, url: &str, at: &Url) -> Result<(), FetchError> {
        let refused = |why: String| {
            Err(FetchError::Refused {
                url: url.to_owned(),
                why,
            })
        };
        if !matches!(at.scheme(), "http" | "https") {
            return refused(format!(
                "an image is fetched by http or https, not by {}",
                at.scheme()
            ));
        }
        let host = at.host_str().unwrap_or_default();
        let number = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>();
        match number {
            Ok(ip) if !self.private && !is_public(ip) => refused(private_address(Some(ip))),
            _ => Ok(()),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are() {
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "172.32.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for own in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "198.18.0.1",
            "192.0.0.8",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
        ] {
            assert!(!is_public(own.parse().unwrap()), "{own}");
        }
    }
}
