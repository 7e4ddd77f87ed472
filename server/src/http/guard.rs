//! Who comes in: the Host, the caller, and where a request that acts was written. One layer over the whole router,
//! default deny.

use super::Server;
use super::audit::Who;
use super::error::ApiError;
use crate::access::Caller;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use axum_extra::extract::CookieJar;
use shared::{Code, Status};
use std::net::SocketAddr;

/// A path that is open to everybody.
pub enum Open {
    /// This one.
    Path(&'static str),
    /// All that begin so.
    Under(&'static str),
}

/// All that answers without a caller. Nothing else does.
pub const OPEN: &[Open] = &[
    Open::Path("/healthz"),
    Open::Path("/readyz"),
    Open::Path("/login"),
    Open::Path("/login/code"),
    Open::Path(super::oidc::BEGIN),
    Open::Path(super::oidc::CALLBACK),
    Open::Path("/do/theme"),
    Open::Path("/do/language"),
    Open::Path("/favicon.svg"),
    Open::Under("/welcome/"),
    Open::Under("/pkg/"),
];

/// Whether a path is open to everybody.
pub fn is_open(path: &str) -> bool {
    OPEN.iter().any(|open| match open {
        Open::Path(exact) => path == *exact,
        Open::Under(prefix) => path.starts_with(prefix),
    })
}

/// The values of the Host header that are answered: a page elsewhere whose name was bent to this address has another.
#[derive(Clone, Debug)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// This machine's own names with the port, those that were configured, and that of the public address.
    pub fn new(listen: SocketAddr, configured: &[String], public_url: Option<&str>) -> Self {
        let port = listen.port();
        let mut all: Vec<String> = configured.iter().map(|h| h.to_ascii_lowercase()).collect();
        let public = public_url.and_then(|url| url.split_once("://"));
        all.extend(public.map(|(_, host)| host.to_owned()));
        for name in ["127.0.0.1", "localhost", "[::1]"] {
            all.push(format!("{name}:{port}"));
            if port == 80 {
                all.push(name.to_owned());
            }
        }
        all.push(listen.to_string());
        Self(all)
    }

    /// Whether a Host (or the authority of an Origin) is one of them.
    pub fn has(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        self.0.contains(&host)
    }
}

fn host(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let mut all = headers.get_all(header::HOST).iter();
    match (all.next(), all.next()) {
        (Some(one), None) => one.to_str().ok().map(str::to_owned),
        (None, None) => uri.authority().map(ToString::to_string),
        (_, Some(_)) => None,
    }
}

/// Refuses a request that changes things and was not written by a page of ours. A browser says where a form or a
/// script came from; what says nothing is not a browser and has no business with its cookies.
fn written_here(hosts: &Hosts, headers: &HeaderMap) -> Result<(), Status> {
    let refuse = |why: String| Err(Status::new(Code::PermissionDenied, why));
    let text = |name: header::HeaderName| headers.get(name).map(|v| v.to_str().unwrap_or("?"));
    let site = text(header::HeaderName::from_static("sec-fetch-site"));
    if let Some(site) = site
        && site != "same-origin"
    {
        return refuse(format!(
            "Sec-Fetch-Site is {site:?}: another site may not act for you here"
        ));
    }
    match text(header::ORIGIN) {
        Some(origin) => {
            let authority = origin
                .strip_prefix("http://")
                .or_else(|| origin.strip_prefix("https://"));
            if !authority.is_some_and(|a| hosts.has(a)) {
                return refuse(format!(
                    "Origin is {origin:?}: another site may not act for you here"
                ));
            }
            Ok(())
        }
        None if site.is_some() => Ok(()),
        None => refuse(
            "a request with a cookie says its Origin; programs use Authorization: Bearer <token>".into(),
        ),
    }
}

/// Whether a request may change things. A WebSocket does, though it begins with GET: any site may open one to any other.
fn acts(method: &Method, headers: &HeaderMap) -> bool {
    let safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    !safe || headers.contains_key(header::UPGRADE)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().unwrap_or_default();
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    Some(if scheme.eq_ignore_ascii_case("bearer") {
        token.trim()
    } else {
        ""
    })
}

/// Only one way back into the console after signing in: a path of its own.
pub fn safe_next(next: &str) -> &str {
    let own = next.starts_with('/') && !next.starts_with("//") && !next.contains(['\\', '\r', '\n', '\t']);
    let doors = ["/login", "/welcome/", "/sign-in/"];
    let sane = own && !doors.iter().any(|door| next.starts_with(door));
    if sane { next } else { "/" }
}

fn nobody(request: &Request) -> Response {
    let path = request.uri().path();
    let page = !path.starts_with("/api/");
    let html = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.contains("text/html"));
    if page && html {
        let get = matches!(*request.method(), Method::GET | Method::HEAD);
        let next = request.uri().path_and_query().filter(|_| get && path != "/");
        let to = match next {
            Some(next) => format!("/login?next={}", shared::api::encode(next.as_str())),
            None => "/login".to_owned(),
        };
        return Redirect::to(&to).into_response();
    }
    let why = "sign in, or send Authorization: Bearer <token>";
    ApiError(Status::new(Code::Unauthenticated, why)).into_response()
}

/// The layer.
pub async fn layer(State(server): State<Server>, mut request: Request, next: Next) -> Response {
    match admit(&server, &mut request).await {
        Ok(()) => {
            let who = request.extensions().get::<Caller>().map(Who::from);
            let mut response = next.run(request).await;
            if let Some(who) = who {
                response.extensions_mut().insert(who);
            }
            if let Some(hsts) = &server.hsts {
                response
                    .headers_mut()
                    .insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
            }
            response
        }
        Err(refusal) => refusal,
    }
}

async fn admit(server: &Server, request: &mut Request) -> Result<(), Response> {
    let refuse = |status: Status| ApiError(status).into_response();
    let host = host(request.headers(), request.uri()).unwrap_or_default();
    if !server.hosts.has(&host) {
        let why = format!("this server does not answer to that name; allowed_hosts can add it ({host:?})");
        return Err(refuse(Status::invalid("Host", why)));
    }
    let path = request.uri().path();
    let (open, acts) = (is_open(path), acts(request.method(), request.headers()));
    // Put there by this process only: by no header can it be sent.
    if request.extensions().get::<Caller>().is_some() {
        return Ok(());
    }
    // Files are the same for everybody.
    if path.starts_with("/pkg/") {
        return Ok(());
    }
    let caller = match bearer(request.headers()) {
        Some(token) => server.access.by_token(token).await,
        None => {
            if acts {
                written_here(&server.hosts, request.headers()).map_err(refuse)?;
            }
            let jar = CookieJar::from_headers(request.headers());
            match jar.get(&server.cookie) {
                Some(cookie) => server.access.by_session(cookie.value()).await,
                None => Ok(None),
            }
        }
    };
    match caller.map_err(|e| refuse(e.into()))? {
        Some(caller) => {
            tracing::Span::current().record("user", caller.label());
            request.extensions_mut().insert(caller);
            Ok(())
        }
        None if open => Ok(()),
        None => Err(nobody(request)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Hosts {
        Hosts::new(
            ([127, 0, 0, 1], 8080).into(),
            &["Console.example".into()],
            Some("https://public.example:8443"),
        )
    }

    #[test]
    fn only_own_names_are_answered() {
        for good in [
            "127.0.0.1:8080",
            "localhost:8080",
            "[::1]:8080",
            "console.EXAMPLE",
            "public.example:8443",
        ] {
            assert!(hosts().has(good), "{good}");
        }
        for bad in [
            "",
            "evil.example:8080",
            "127.0.0.1",
            "127.0.0.1:81",
            "localhost:8080.evil.example",
        ] {
            assert!(!hosts().has(bad), "{bad}");
        }
    }

    #[test]
    fn what_another_site_wrote_is_refused() {
        let check = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().unwrap());
            }
            written_here(&hosts(), &headers).is_ok()
        };
        assert!(check(&[("origin", "http://127.0.0.1:8080")]));
        assert!(check(&[("sec-fetch-site", "same-origin")]));
        assert!(!check(&[]));
        assert!(!check(&[("origin", "null")]));
        assert!(!check(&[("origin", "http://127.0.0.1:9999")]));
        assert!(!check(&[("origin", "http://127.0.0.1:8080.evil.example")]));
        assert!(!check(&[("sec-fetch-site", "same-site")]));
        assert!(!check(&[
            ("sec-fetch-site", "cross-site"),
            ("origin", "http://127.0.0.1:8080")
        ]));
    }

    #[test]
    fn signing_in_leads_nowhere_else() {
        assert_eq!(safe_next("/vms/web-1?tab=jobs"), "/vms/web-1?tab=jobs");
        for bad in [
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "",
            "/login?next=/",
            "/a\r\nx:y",
        ] {
            assert_eq!(safe_next(bad), "/", "{bad}");
        }
    }
}
