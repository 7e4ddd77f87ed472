//! The console's pages, rendered here, and the forms that they post. Their data come from the API, called in process
//! with the caller's own identity: privilege, validation and errors are one path.

use super::audit::Peer;
use super::error::{ApiError, ApiResult};
use super::extract::Fields;
use super::trace::RequestId;
use super::{Server, unknown};
use crate::access::secret::Secret;
use crate::access::{Caller, Via};
use crate::db::now;
use app::backend::{Outcome, Pending, outcome};
use app::forms::{self, Action, Flash, LANGUAGE_COOKIE, THEME_COOKIE};
use app::{Backend, Language, SetStatus, ShellOptions, Theme, shell, speaking};
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, OriginalUri, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Extension, Json, Router};
use axum_extra::extract::CookieJar;
use axum_extra::extract::cookie::{Cookie, SameSite};
use leptos::nonce::Nonce;
use leptos::prelude::{Owner, provide_context, use_context};
use leptos_axum::{ResponseOptions, render_app_async_with_context};
use shared::api::RawCall;
use shared::{Code, SessionId, Status};
use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tower::ServiceExt;

/// Largest answer that a page reads from the API, in bytes.
const ANSWER_LIMIT: usize = 64 << 20;
/// How long the outcome of a form waits for the page that shows it.
const FLASH_LIFE: Duration = Duration::from_secs(600);
/// Most outcomes that wait.
const FLASHES: usize = 1000;

/// How forms went, until the session's next page shows it: in memory only, since a new token's secret is among it.
#[derive(Default)]
pub struct Flashes(Mutex<HashMap<SessionId, (Flash, Instant)>>);

impl Flashes {
    fn keep(&self, session: SessionId, flash: Flash) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (_, since)| since.elapsed() < FLASH_LIFE);
        if all.len() < FLASHES {
            all.insert(session, (flash, Instant::now()));
        }
    }

    fn take(&self, session: SessionId) -> Option<Flash> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (flash, since) = all.remove(&session)?;
        (since.elapsed() < FLASH_LIFE).then_some(flash)
    }
}

/// The API, called in process as this caller and in this request's name.
struct InProcess {
    api: Router,
    caller: Option<Caller>,
    id: RequestId,
    peer: Option<ConnectInfo<Peer>>,
    /// The name that the server is come by.
    host: Option<HeaderValue>,
}

impl Backend for InProcess {
    fn call(&self, call: RawCall) -> Pending {
        let request = Request::builder()
            .method(call.method.word())
            .uri(call.path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(call.body.map_or_else(Body::empty, Body::from));
        let (api, caller, id) = (self.api.clone(), self.caller.clone(), self.id.clone());
        let (peer, host) = (self.peer, self.host.clone());
        Box::pin(async move {
            let mut request = request.map_err(|e| Status::invalid("path", e))?;
            request.extensions_mut().insert(id);
            if let Some(host) = host {
                request.headers_mut().insert(header::HOST, host);
            }
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            let response = match api.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            let http = response.status().as_u16();
            let internal = |why: String| Status::new(Code::Internal, why);
            let body = to_bytes(response.into_body(), ANSWER_LIMIT).await;
            let body = body.map_err(|e| internal(format!("the answer did not arrive whole: {e}")))?;
            let body = String::from_utf8(body.into()).map_err(|e| internal(e.to_string()))?;
            outcome(http, body)
        })
    }
}

/// The colours that whoever asks has chosen.
pub fn theme(jar: &CookieJar) -> Theme {
    let cookie = jar.get(THEME_COOKIE);
    cookie
        .and_then(|c| c.value().parse().ok())
        .unwrap_or(Theme::System)
}

/// The language of whoever asks.
pub fn language(headers: &HeaderMap, jar: &CookieJar) -> Language {
    let accepted = headers.get(header::ACCEPT_LANGUAGE);
    Language::of(
        jar.get(LANGUAGE_COOKIE).map(Cookie::value),
        accepted.and_then(|v| v.to_str().ok()),
    )
}

/// A cookie of the console that is kept for a year.
fn kept(server: &Server, name: &'static str, value: &'static str, same_site: SameSite) -> Cookie<'static> {
    Cookie::build((name, value))
        .path("/")
        .secure(server.tls)
        .same_site(same_site)
        .max_age(time::Duration::days(365))
        .build()
}

fn policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; script-src 'self' 'nonce-{nonce}' 'wasm-unsafe-eval'; style-src 'self'; \
         img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; \
         form-action 'self'"
    )
}

/// Everything that no other route answers: the console's pages, and under `/api/` the answer that there is nothing.
pub async fn fallback(State(server): State<Server>, request: Request) -> Response {
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    let path = request.uri().path();
    if !get || path == "/api" || path.starts_with("/api/") {
        return unknown(request).await.into_response();
    }
    page(State(server), request).await.into_response()
}

/// Draws a page. Leptos draws what comes after an await without an owner: it would find the context, and so the
/// language, of whatever page was drawn last on the thread. So the page's own is set at each poll.
async fn draw(
    request: Request,
    context: impl Fn() + Clone + Send + Sync + 'static,
    options: ShellOptions,
) -> Response {
    let owner: Arc<OnceLock<Owner>> = Arc::default();
    let own = owner.clone();
    let context = move || {
        if let Some(page) = Owner::current() {
            // It is set once: a page is drawn once.
            _ = own.set(page);
        }
        context();
    };
    let draw = render_app_async_with_context(context, move || shell(options.clone()));
    let mut draw = draw(request);
    poll_fn(|cx| {
        let owner = owner.get().cloned().unwrap_or_default();
        owner.with(|| draw.as_mut().poll(cx))
    })
    .await
}

/// GET of a page.
pub async fn page(State(server): State<Server>, request: Request) -> ApiResult<Response> {
    let jar = CookieJar::from_headers(request.headers());
    let caller = request.extensions().get::<Caller>().cloned();
    if matches!(request.uri().path(), "/login" | "/login/code") && caller.is_some() {
        return Ok(Redirect::to("/").into_response());
    }
    let id = request
        .extensions()
        .get::<RequestId>()
        .cloned()
        .unwrap_or_else(RequestId::mint);
    let flash = match caller.as_ref().map(|c| &c.via) {
        Some(Via::Session(session)) => server.flashes.take(*session),
        _ => None,
    };
    let secret = Secret::new("").map_err(|e| super::error::internal("rendering a page", &e))?;
    let nonce = Nonce::from_value(secret.expose());
    let options = ShellOptions {
        assets: server.assets.clone(),
        // Read before the page's data are: what changes in between comes by the feed.
        feed_place: match &caller {
            Some(_) => server.feed.place().to_string(),
            None => String::new(),
        },
        now: now(),
        theme: theme(&jar),
        language: language(request.headers(), &jar),
        flash,
        oidc: server
            .config
            .oidc
            .as_ref()
            .map(|oidc| oidc.label.clone().unwrap_or_default()),
        rights: caller.as_ref().map(|c| c.rights.clone()).unwrap_or_default(),
    };
    let backend: Arc<dyn Backend> = Arc::new(InProcess {
        api: server.api(),
        caller,
        id,
        peer: request.extensions().get::<ConnectInfo<Peer>>().copied(),
        host: request.headers().get(header::HOST).cloned(),
    });
    let csp = policy(&nonce);
    let context = move || {
        provide_context(backend.clone());
        provide_context(nonce.clone());
        if let Some(response) = use_context::<ResponseOptions>() {
            provide_context(SetStatus(Arc::new(move |code| {
                if let Ok(code) = StatusCode::from_u16(code) {
                    response.set_status(code);
                }
            })));
        }
    };
    let sets_up = request.uri().path() == "/settings/two-factor";
    let mut response = draw(request, context, options).await;
    // What has not begun begins in the settings.
    if sets_up && response.status() == StatusCode::CONFLICT {
        return Ok(Redirect::to("/settings").into_response());
    }
    let headers = response.headers_mut();
    if let Ok(csp) = HeaderValue::from_str(&csp) {
        headers.insert(header::CONTENT_SECURITY_POLICY, csp);
    }
    headers.insert(header::VARY, HeaderValue::from_static("accept-language, cookie"));
    Ok(response)
}

/// POST /do/…: what a form of the console asks for, in calls of the API, one after another. A page that lives asks for
/// the outcome as JSON; else the next page shows it.
pub async fn form(
    State(server): State<Server>,
    OriginalUri(uri): OriginalUri,
    caller: Option<Extension<Caller>>,
    (Extension(id), peer): (Extension<RequestId>, Option<Extension<ConnectInfo<Peer>>>),
    headers: HeaderMap,
    mut jar: CookieJar,
    Fields(fields): Fields,
) -> ApiResult<Response> {
    let caller = caller.map(|Extension(caller)| caller);
    let language = language(&headers, &jar);
    let results: Vec<Outcome> = match speaking(language, || forms::parse(uri.path(), &fields)) {
        Err(status) if status.code == Code::NotFound => return Err(ApiError(status)),
        Err(status) => vec![Err(status)],
        Ok(Action::Theme(theme)) => {
            jar = jar.add(kept(&server, THEME_COOKIE, theme.word(), SameSite::Strict));
            Vec::new()
        }
        Ok(Action::Language(language)) => {
            // A link from elsewhere opens the console in it, too.
            jar = jar.add(kept(&server, LANGUAGE_COOKIE, language.code(), SameSite::Lax));
            Vec::new()
        }
        Ok(Action::Calls(calls)) => {
            let backend = InProcess {
                api: server.api(),
                caller: caller.clone(),
                id,
                peer: peer.map(|Extension(peer)| peer),
                host: headers.get(header::HOST).cloned(),
            };
            let mut results = Vec::with_capacity(calls.len());
            for call in calls {
                results.push(backend.call(call).await);
            }
            results
        }
    };
    let done = speaking(language, || forms::after(uri.path(), &fields, &results));
    let accepts = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    if accepts.is_some_and(|a| a.contains("application/json")) {
        return Ok((jar, Json(done)).into_response());
    }
    if let Some(Via::Session(session)) = caller.map(|c| c.via) {
        server.flashes.keep(session, done.flash);
    }
    Ok((jar, Redirect::to(&done.to)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_form_did_is_told_once_and_only_to_its_session() {
        let flashes = Flashes::default();
        let session = |n| SessionId(uuid::Uuid::from_u128(n));
        flashes.keep(session(1), Flash::default());
        assert_eq!(flashes.take(session(2)), None);
        assert_eq!(flashes.take(session(1)), Some(Flash::default()));
        assert_eq!(flashes.take(session(1)), None);
    }
}
