//! The data layer: a typed call in, its answer or a Status out. On the server it runs the API's router in process,
//! in the browser it is `fetch`.

use leptos::prelude::*;
use shared::api::{Call, RawCall};
use shared::{Code, Status};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// A body of JSON, or why there is none.
pub type Outcome = Result<String, Status>;
/// A call on its way.
pub type Pending = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// What carries calls to the API with the rights of the person who looks at the page.
pub trait Backend: Send + Sync {
    /// Makes the call. The answer is the body of a success.
    fn call(&self, call: RawCall) -> Pending;
}

/// The outcome of an answer over HTTP.
pub fn outcome(http: u16, body: String) -> Outcome {
    if (200..300).contains(&http) {
        Ok(body)
    } else {
        // An error in any shape becomes a Status; a success cannot come out of this branch.
        shared::api::answer::<()>(http, &body).map(|()| body)
    }
}

#[cfg(feature = "hydrate")]
fn elsewhere(call: RawCall) -> Pending {
    Box::pin(send_wrapper::SendWrapper::new(fetch(call)))
}

#[cfg(not(feature = "hydrate"))]
fn elsewhere(_: RawCall) -> Pending {
    let none = Status::new(Code::Internal, "this page was rendered without a way to the API");
    Box::pin(std::future::ready(Err(none)))
}

/// Makes a typed call, through the backend in context.
pub fn call<C: Call>(c: &C) -> impl Future<Output = Result<C::Answer, Status>> + Send + use<C> {
    Way::here().call(c)
}

/// Reads the body of a success.
pub fn read<A: serde::de::DeserializeOwned>(body: &str) -> Result<A, Status> {
    shared::api::answer(200, body)
}

/// Makes a call without its types, from the browser.
#[cfg(feature = "hydrate")]
pub async fn send(call: RawCall) -> Outcome {
    fetch(call).await
}

/// Sends a part of a file, and answers what the server made of it.
#[cfg(feature = "hydrate")]
pub async fn send_blob(path: &str, blob: &web_sys::Blob) -> Outcome {
    let body = Some(("application/octet-stream", blob.clone()));
    request(path, gloo_net::http::Method::PATCH, body).await
}

#[cfg(feature = "hydrate")]
async fn fetch(call: RawCall) -> Outcome {
    use shared::api::Method;
    let method = match call.method {
        Method::Get => gloo_net::http::Method::GET,
        Method::Post => gloo_net::http::Method::POST,
        Method::Patch => gloo_net::http::Method::PATCH,
        Method::Put => gloo_net::http::Method::PUT,
        Method::Delete => gloo_net::http::Method::DELETE,
    };
    let body = call.body.map(|body| ("application/json", body));
    request(&call.path, method, body).await
}

/// Sends a form, and answers what the server made of it.
#[cfg(feature = "hydrate")]
pub async fn post(action: &str, fields: &crate::forms::Fields) -> Result<crate::forms::Done, Status> {
    let pairs = fields
        .iter()
        .map(|(name, value)| format!("{}={}", shared::api::encode(name), shared::api::encode(value)));
    let body = pairs.collect::<Vec<_>>().join("&");
    let body = Some(("application/x-www-form-urlencoded", body));
    read(&request(action, gloo_net::http::Method::POST, body).await?)
}

#[cfg(feature = "hydrate")]
async fn request(
    path: &str,
    method: gloo_net::http::Method,
    body: Option<(&str, impl Into<wasm_bindgen::JsValue>)>,
) -> Outcome {
    if crate::live::signed_out() {
        std::future::pending::<()>().await;
    }
    let away = |e: gloo_net::Error| {
        let mut status = Status::new(Code::Unavailable, crate::words::w().server_away);
        status
            .details
            .push(serde_json::json!({ "reason": e.to_string() }));
        status
    };
    let request = gloo_net::http::RequestBuilder::new(path)
        .method(method)
        .header("accept", "application/json");
    let request = match body {
        Some((kind, body)) => request.header("content-type", kind).body(body),
        None => request.build(),
    };
    let answer = request.map_err(away)?.send().await.map_err(away)?;
    let http = answer.status();
    let body = answer.text().await.map_err(away)?;
    if http == 401 {
        crate::live::sign_in_again();
    }
    outcome(http, body)
}

/// The way to the API from one place, for calls that follow each other: after an await the context may be another's.
#[derive(Clone)]
pub struct Way(Option<Arc<dyn Backend>>);

impl Way {
    /// From here.
    pub fn here() -> Self {
        Self(use_context())
    }

    /// Makes a typed call.
    pub fn call<C: Call>(&self, c: &C) -> impl Future<Output = Result<C::Answer, Status>> + Send + use<C> {
        let pending = self.send(c.raw());
        async move { read(&pending.await?) }
    }

    /// Makes a call without its types.
    pub fn send(&self, call: RawCall) -> Pending {
        match &self.0 {
            Some(backend) => backend.call(call),
            None => elsewhere(call),
        }
    }
}
