//! The outermost layer: gives each request an id and a span, catches panics, writes errors out, sets the headers
//! that every answer has.

use super::error::{ApiError, write};
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use shared::{Code, Status};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;
use tracing::Instrument;

/// The id of a request: in the log, in the header and in errors.
#[derive(Clone, Debug)]
pub struct RequestId(pub Arc<str>);

impl RequestId {
    /// A new one. What a client sends is not taken: the log is ours.
    pub fn mint() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string().into())
    }
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What every answer carries that says nothing of its own.
const HEADERS: &[(&str, &str)] = &[
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    // `no-referrer` would make browsers send `Origin: null` with forms.
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
    (
        "content-security-policy",
        "default-src 'none'; img-src data:; style-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    ),
];

/// The path as the log may have it: what stands behind `/welcome/` is a secret.
pub fn loggable(path: &str) -> &str {
    if path.starts_with("/welcome/") {
        "/welcome/…"
    } else {
        path
    }
}

fn wants_page(request: &Request) -> bool {
    let api = request.uri().path().starts_with("/api/");
    let accept = request.headers().get(header::ACCEPT);
    !api && accept
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.contains("text/html"))
}

/// The layer.
pub async fn layer(mut request: Request, next: Next) -> Response {
    // A page's calls in process are of the page's request.
    let id = match request.extensions().get::<RequestId>() {
        Some(id) => id.clone(),
        None => RequestId::mint(),
    };
    request.extensions_mut().insert(id.clone());
    let span = tracing::info_span!(
        "request", id = %id.0, method = %request.method(), path = loggable(request.uri().path()),
        user = tracing::field::Empty,
    );
    let html = wants_page(&request);
    let quiet = request.method() == Method::GET;
    async move {
        let began = Instant::now();
        let done = AssertUnwindSafe(next.run(request)).catch_unwind().await;
        let response = done.unwrap_or_else(|panic| {
            let what = panic
                .downcast_ref::<&str>()
                .map(|s| (*s).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            tracing::error!(panic = what, "a handler panicked");
            let message = "a fault of the server; its log says more under the id of this request";
            ApiError(Status::new(Code::Internal, message)).into_response()
        });
        let mut response = write(response, &id.0, html);
        let headers = response.headers_mut();
        for (name, value) in HEADERS {
            if !headers.contains_key(*name) {
                headers.insert(*name, HeaderValue::from_static(value));
            }
        }
        if let Ok(id) = HeaderValue::from_str(&id.0) {
            headers.insert(REQUEST_ID, id);
        }
        let (status, ms) = (response.status().as_u16(), began.elapsed().as_secs_f64() * 1000.0);
        if quiet && status < 500 {
            tracing::debug!(status, ms, "answered");
        } else {
            tracing::info!(status, ms, "answered");
        }
        response
    }
    .instrument(span)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::middleware::from_fn;
    use axum::routing::get;
    use tower::ServiceExt;

    async fn broken() -> &'static str {
        panic!("the secret is swordfish")
    }

    async fn ask(accept: &str) -> (Response, String) {
        let router = Router::new().route("/broken", get(broken)).layer(from_fn(layer));
        let request = Request::get("/broken")
            .header("accept", accept)
            .body(Body::empty())
            .unwrap();
        let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
        let body = to_bytes(body, 1 << 16).await.unwrap();
        let text = String::from_utf8(body.into()).unwrap();
        (Response::from_parts(parts, Body::empty()), text)
    }

    #[tokio::test]
    async fn a_panic_is_an_error_like_any_other_and_says_nothing_of_itself() {
        let (response, body) = ask("*/*").await;
        assert_eq!(response.status(), 500);
        let body: shared::status::ErrorBody = serde_json::from_str(&body).unwrap();
        assert_eq!((body.error.code, body.error.status.as_str()), (500, "INTERNAL"));
        assert_eq!(response.headers()["x-request-id"], body.error.trace_id);
        assert!(!body.error.message.contains("swordfish"));
        let (_, page) = ask("text/html").await;
        assert!(page.starts_with("<!doctype html>") && !page.contains("swordfish"));
    }

    #[test]
    fn a_one_time_link_is_not_logged() {
        assert_eq!(loggable("/welcome/deadbeef"), "/welcome/…");
        assert_eq!(loggable("/vms/web-1"), "/vms/web-1");
    }
}
