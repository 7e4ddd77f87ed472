//! Signing in by the OpenID Connect provider: the way there, and the way back into the same session that a password begins.

use super::error::{ApiResult, escape, internal};
use super::extract::Query;
use super::sign_in::{enter, noted, small_page, went};
use super::{Server, guard};
use crate::access::{Caller, Origin};
use crate::oidc::{ATTEMPT_SECONDS, Provider, ProviderError};
use app::Language;
use axum::Extension;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum_extra::extract::CookieJar;
use axum_extra::extract::cookie::{Cookie, SameSite};
use serde::Deserialize;
use shared::{Code, Status};

/// Where a sign-in begins; its cookie goes nowhere else.
pub const BEGIN: &str = "/sign-in/oidc";
/// Where the provider sends browsers back to.
pub const CALLBACK: &str = "/sign-in/oidc/callback";

/// What the link on the sign-in page says.
#[derive(Deserialize)]
pub struct Asked {
    #[serde(default)]
    next: String,
}

/// What the provider sends back with the browser; what else it says is its own business.
#[derive(Deserialize)]
pub struct Answer {
    #[serde(default)]
    state: String,
    code: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
    iss: Option<String>,
}

fn cookie_name(server: &Server) -> String {
    format!("{}-oidc", server.cookie)
}

/// The cookie that ties a sign-in to its browser. A browser sends it along when the provider sends it back.
fn cookie(server: &Server, value: String, seconds: i64) -> Cookie<'static> {
    let public = server.config.public_url.as_deref().unwrap_or_default();
    Cookie::build((cookie_name(server), value))
        .path(BEGIN)
        .http_only(true)
        .secure(server.tls || public.starts_with("https:"))
        .same_site(SameSite::Lax)
        .max_age(time::Duration::seconds(seconds))
        .build()
}

fn provider(server: &Server) -> Result<&Provider, Status> {
    server.oidc.as_ref().ok_or_else(|| {
        let why = "sign-in by OpenID Connect is not configured here: oidc_issuer does that";
        Status::new(Code::NotFound, why)
    })
}

/// A page that says why nobody was signed in, and what to do; the audit has the same.
fn refused(http: StatusCode, title: &str, status: Status) -> Response {
    tracing::info!(why = %status.message, "sign-in by the provider refused");
    let body = format!(
        "<p>{}</p><p><a href=\"{BEGIN}\">Begin again</a></p><p><a href=\"/login\">Sign in with a password</a></p>",
        escape(&status.message)
    );
    let page = (http, small_page(Language::English, title, &body)).into_response();
    noted(went("", None, Some(status)), page)
}

/// What the provider, or this server, is to blame for. The log has the causes: they are not for everybody.
fn failed(e: &ProviderError) -> Response {
    if let ProviderError::Random(e) = e {
        return internal("signing in by the provider", e).into_response();
    }
    let chain = crate::db::chain(e);
    if e.is_away() {
        tracing::warn!(error = chain, "the OpenID Connect provider");
        let why = "the provider does not answer as it should: try again in a while, or sign in with a password. An administrator finds \
                   the reason in the server's log, and by `offshoot doctor`";
        let status = Status::new(Code::Unavailable, why);
        return refused(StatusCode::BAD_GATEWAY, "The provider does not answer", status);
    }
    tracing::warn!(error = chain, "a sign-in by the provider is not believed");
    let status = Status::new(Code::Unauthenticated, chain);
    refused(StatusCode::FORBIDDEN, "The sign-in is not believed", status)
}

/// GET /sign-in/oidc: on to the provider.
pub async fn begin(
    State(server): State<Server>,
    caller: Option<Extension<Caller>>,
    jar: CookieJar,
    from: Origin,
    Query(asked): Query<Asked>,
) -> ApiResult<Response> {
    let provider = provider(&server)?;
    let next = guard::safe_next(&asked.next);
    if caller.is_some() {
        return Ok(Redirect::to(next).into_response());
    }
    if let Err(status) = server.access.may_begin(&from) {
        return Ok(refused(
            StatusCode::TOO_MANY_REQUESTS,
            "Too many sign-ins",
            status,
        ));
    }
    let browser = jar.get(&cookie_name(&server)).map(|c| c.value().to_owned());
    Ok(match provider.begin(next, browser.as_deref()).await {
        Ok(begun) => {
            let jar = jar.add(cookie(&server, begun.browser, ATTEMPT_SECONDS.into()));
            (jar, Redirect::to(&begun.url)).into_response()
        }
        Err(e) => failed(&e),
    })
}

/// GET /sign-in/oidc/callback: back from the provider.
pub async fn callback(
    State(server): State<Server>,
    jar: CookieJar,
    from: Origin,
    Query(answer): Query<Answer>,
) -> ApiResult<Response> {
    let provider = provider(&server)?;
    let browser = jar
        .get(&cookie_name(&server))
        .map(Cookie::value)
        .unwrap_or_default();
    let Some(attempt) = provider.take(&answer.state, browser) else {
        let why = "this sign-in was begun in another browser, ended already, took longer than ten minutes, or the server was started \
                   again meanwhile";
        let status = Status::new(Code::Unauthenticated, why);
        return Ok(refused(
            StatusCode::BAD_REQUEST,
            "This sign-in cannot be ended",
            status,
        ));
    };
    if answer.iss.as_deref().is_some_and(|iss| iss != provider.issuer()) {
        let why = "the answer is of another provider than the one that was asked";
        let status = Status::new(Code::Unauthenticated, why);
        return Ok(refused(
            StatusCode::FORBIDDEN,
            "The sign-in is not believed",
            status,
        ));
    }
    let Some(code) = answer.code.filter(|_| answer.error.is_none()) else {
        let error = answer.error.as_deref().unwrap_or("it sent no code");
        let more = answer
            .error_description
            .map(|d| format!(" ({d})"))
            .unwrap_or_default();
        let why = format!("the provider has signed nobody in: {error}{more}");
        let status = Status::new(Code::Unauthenticated, why);
        return Ok(refused(
            StatusCode::FORBIDDEN,
            "The provider did not sign you in",
            status,
        ));
    };
    let person = match provider.end(&attempt, &code).await {
        Ok(person) => person,
        Err(e) => return Ok(failed(&e)),
    };
    let name = person.name.clone();
    match server.access.enter_by_provider(person, &from).await {
        Ok(signed_in) => {
            let jar = jar.add(cookie(&server, String::new(), 0));
            enter(&server, jar, &signed_in, on_by_itself(&attempt.next)).await
        }
        Err(e) => {
            let status = Status::from(e);
            // A fault of the server is told as any other.
            if status.code == Code::Internal {
                return Err(status.into());
            }
            let mut response = refused(
                StatusCode::FORBIDDEN,
                "You cannot sign in here yet",
                status.clone(),
            );
            response.extensions_mut().insert(went(&name, None, Some(status)));
            Ok(response)
        }
    }
}

/// A page that goes on by itself. A browser that another site sends here holds the session's cookie back on each
/// further redirect; not so when a page of ours asks.
fn on_by_itself(next: &str) -> Response {
    let next = escape(next);
    let head = format!("<meta http-equiv=\"refresh\" content=\"0;url={next}\">");
    let body = format!("<p><a href=\"{next}\">Go on</a></p>");
    super::sign_in::page_with(Language::English, &head, "You are signed in", &body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;

    #[tokio::test]
    async fn a_page_goes_on_to_nothing_but_an_address() {
        let response = on_by_itself("/vms?q=\"><script>");
        let body = to_bytes(response.into_body(), 1 << 16).await.unwrap();
        let text = String::from_utf8(body.into()).unwrap();
        assert!(text.contains("0;url=/vms?q=&quot;&gt;&lt;script&gt;\""), "{text}");
        assert!(!text.contains("<script"), "{text}");
    }
}
