//! The layer that writes down what changes something, and what is refused.
//!
//! It lies outside the guard, so that it hears of those who are not let in; what a form asks of the API is written down where the API answers.

use super::error::Failure;
use super::trace::{RequestId, loggable};
use crate::access::{Access, Caller};
use crate::db::now;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{Extensions, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use shared::access::audit::AuditEvent;
use shared::{Code, Status, UserId};
use std::net::SocketAddr;
use std::time::Instant;

/// Most bytes of a text that are kept of what came from outside.
const TEXT_BYTES: usize = 1024;

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Who a request was of; on its way out in the response.
#[derive(Clone, Debug)]
pub struct Who {
    id: Option<UserId>,
    name: String,
}

impl From<&Caller> for Who {
    fn from(caller: &Caller) -> Self {
        Self {
            id: Some(caller.user.id),
            name: caller.label(),
        }
    }
}

/// A sign-in, as it went: its answer is a way to another page in any case.
#[derive(Clone, Debug)]
pub struct SignIn {
    /// Who it is, or the name that was given.
    pub name: String,
    /// The user, if it is one.
    pub id: Option<UserId>,
    /// Why it was refused.
    pub refused: Option<Status>,
}

/// A read that is written down like a change, with what was read: it takes data out of here.
#[derive(Clone, Debug)]
pub struct Noted(pub String);

/// The address that a request came from; empty if it came over no network.
pub fn address(extensions: &Extensions) -> String {
    let peer = extensions.get::<ConnectInfo<Peer>>();
    peer.map(|ConnectInfo(Peer(address))| address.ip().to_string())
        .unwrap_or_default()
}

fn short(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES)].to_owned()
}

/// The layer.
pub async fn layer(State(access): State<Access>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), short(loggable(request.uri().path())));
    let route = match request.extensions().get::<MatchedPath>() {
        Some(route) => route.as_str().to_owned(),
        None => path.clone(),
    };
    let (address, who) = (
        address(request.extensions()),
        request.extensions().get::<Caller>().map(Who::from),
    );
    let request_id = request.extensions().get::<RequestId>().map(|id| id.0.to_string());
    let response = next.run(request).await;

    let refused = matches!(
        response.status(),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
    );
    // Whoever opens a console may type into the guest.
    let reads = matches!(method, Method::GET | Method::HEAD | Method::OPTIONS)
        && response.status() != StatusCode::SWITCHING_PROTOCOLS;
    let sign_in = response.extensions().get::<SignIn>();
    let noted = response.extensions().get::<Noted>().map(|noted| short(&noted.0));
    let form = path.starts_with("/do/");
    if !refused && sign_in.is_none() && noted.is_none() && (reads || form) {
        return response;
    }
    let who = who.or_else(|| response.extensions().get::<Who>().cloned());
    let failure = response.extensions().get::<Failure>().map(|f| &f.0);
    let failure = failure.or_else(|| sign_in?.refused.as_ref());
    let stranger = who.is_none() && failure.is_some();
    if stranger && !access.strangers.one_more(Instant::now()) {
        return response;
    }
    let (user_id, user) = match (sign_in, who) {
        (Some(sign_in), _) => (sign_in.id, short(&sign_in.name)),
        (None, Some(who)) => (who.id, who.name),
        (None, None) => (None, String::new()),
    };
    let made = response
        .headers()
        .get(header::LOCATION)
        .filter(|_| sign_in.is_none());
    let event = AuditEvent {
        id: 0,
        time: now(),
        user_id,
        user,
        address,
        method: method.to_string(),
        route,
        path,
        status: response.status().as_u16(),
        result: failure
            .map_or_else(|| of_status(response.status()), |f| f.code)
            .word()
            .to_owned(),
        detail: match (failure, made, noted) {
            (Some(failure), ..) => short(&failure.message),
            (None, _, Some(noted)) => noted,
            (None, made, None) => made.and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned(),
        },
        request_id: request_id.unwrap_or_default(),
    };
    if let Err(e) = access.note(event).await {
        // It is done already; the log has it at least.
        let _: Status = e.into();
        tracing::error!("an event could not be written down in the audit");
    }
    response
}

/// What came of a request by its answer alone, as of a page that was refused.
fn of_status(status: StatusCode) -> Code {
    let of = |code: &&Code| code.http() == status.as_u16();
    match status.as_u16() {
        ..400 => Code::Ok,
        _ => Code::ALL.iter().find(of).copied().unwrap_or(Code::Unknown),
    }
}
