//! Signing in by the OpenID Connect provider: the way there, and the way back into the same session that a password begins.

use super::error::{ApiResult, escape, internal};
use super::extract::Query;
use super::sign_in::{Plain, enter, noted, went};
use super::{Server, guard};
use crate::access::{Caller, Origin};
use crate::oidc::{ATTEMPT_SECONDS, Provider, ProviderError};
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
fn refused(plain: &Plain, http: StatusCode, title: &str, status: Status) -> Response {
    let w = plain.language.words();
    tracing::info!(why = %status.message, "sign-in by the provider refused");
    let body = format!(
        "<div class=\"alert\" lang=\"en\">{}</div><a class=\"button wide\" href=\"{BEGIN}\">{}</a><a href=\"/login\">{}</a>",
        escape(&status.message),
        w.oidc_again,
        w.by_password
    );
    let page = (http, plain.page(title, &body)).into_response();
    noted(went("", None, Some(status)), page)
}

/// What the provider, or this server, is to blame for. The log has the causes: they are not for everybody.
fn failed(plain: &Plain, e: &ProviderError) -> Response {
    let w = plain.language.words();
    if let ProviderError::Random(e) = e {
        return internal("signing in by the provider", e).into_response();
    }
    let chain = crate::db::chain(e);
    if e.is_away() {
        tracing::warn!(error = chain, "the OpenID Connect provider");
        let why = "the provider does not answer as it should: try again in a while, or sign in with a password. An administrator finds \
                   the reason in the server's log, and by `offshoot doctor`";
        let status = Status::new(Code::Unavailable, why);
        return refused(plain, StatusCode::BAD_GATEWAY, w.oidc_away, status);
    }
    tracing::warn!(error = chain, "a sign-in by the provider is not believed");
    let status = Status::new(Code::Unauthenticated, chain);
    refused(plain, StatusCode::FORBIDDEN, w.oidc_not_believed, status)
}

/// GET /sign-in/oidc: on to the provider.
pub async fn begin(
    State(server): State<Server>,
    caller: Option<Extension<Caller>>,
    jar: CookieJar,
    from: Origin,
    plain: Plain,
    Query(asked): Query<Asked>,
) -> ApiResult<Response> {
    let w = plain.language.words();
    let provider = provider(&server)?;
    let next = guard::safe_next(&asked.next);
    if caller.is_some() {
        return Ok(Redirect::to(next).into_response());
    }
    if let Err(status) = server.access.may_begin(&from) {
        return Ok(refused(
            &plain,
            StatusCode::TOO_MANY_REQUESTS,
            w.oidc_too_many,
            status,
        ));
    }
    let browser = jar.get(&cookie_name(&server)).map(|c| c.value().to_owned());
    Ok(match provider.begin(next, browser.as_deref()).await {
        Ok(begun) => {
            let jar = jar.add(cookie(&server, begun.browser, ATTEMPT_SECONDS.into()));
            (jar, Redirect::to(&begun.url)).into_response()
        }
        Err(e) => failed(&plain, &e),
    })
}

/// GET /sign-in/oidc/callback: back from the provider.
pub async fn callback(
    State(server): State<Server>,
    jar: CookieJar,
    from: Origin,
    plain: Plain,
    Query(answer): Query<Answer>,
) -> ApiResult<Response> {
    let w = plain.language.words();
    let provider = provider(&server)?;
    let browser = jar
        .get(&cookie_name(&server))
        .map(Cookie::value)
        .unwrap_or_default();
    let Some(attempt) = provider.take(&answer.state, browser) else {
        let why = "this sign-in was begun in another browser, ended already, took longer than ten minutes, or the server was started \
                   again meanwhile";
        let status = Status::new(Code::Unauthenticated, why);
        return Ok(refused(&plain, StatusCode::BAD_REQUEST, w.oidc_late, status));
    };
    if answer.iss.as_deref().is_some_and(|iss| iss != provider.issuer()) {
        let why = "the answer is of another provider than the one that was asked";
        let status = Status::new(Code::Unauthenticated, why);
        return Ok(refused(
            &plain,
            StatusCode::FORBIDDEN,
            w.oidc_not_believed,
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
        return Ok(refused(&plain, StatusCode::FORBIDDEN, w.oidc_nobody, status));
    };
    let person = match provider.end(&attempt, &code).await {
        Ok(person) => person,
        Err(e) => return Ok(failed(&plain, &e)),
    };
    let name = person.name.clone();
    match server.access.enter_by_provider(person, &from).await {
        Ok(signed_in) => {
            let jar = jar.add(cookie(&server, String::new(), 0));
            enter(&server, jar, &signed_in, on_by_itself(&plain, &attempt.next)).await
        }
        Err(e) => {
            let status = Status::from(e);
            // A fault of the server is told as any other.
            if status.code == Code::Internal {
                return Err(status.into());
            }
            let mut response = refused(&plain, StatusCode::FORBIDDEN, w.oidc_not_yet, status.clone());
            response.extensions_mut().insert(went(&name, None, Some(status)));
            Ok(response)
        }
    }
}

/// A page that goes on by itself. A browser that another site sends here holds the session's cookie back on each
/// further redirect; not so when a page of ours asks.
fn on_by_itself(plain: &Plain, next: &str) -> Response {
    let w = plain.language.words();
    let next = escape(next);
    let head = format!("<meta http-equiv=\"refresh\" content=\"0;url={next}\">");
    let body = format!("<a class=\"button wide\" href=\"{next}\">{}</a>", w.oidc_go_on);
    plain.page_with(&head, w.oidc_signed_in, &body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use app::{Language, Theme};
    use axum::body::to_bytes;

    #[tokio::test]
    async fn a_page_goes_on_to_nothing_but_an_address() {
        let plain = Plain {
            language: Language::English,
            theme: Theme::System,
            css: String::new(),
        };
        let response = on_by_itself(&plain, "/vms?q=\"><script>");
        let body = to_bytes(response.into_body(), 1 << 16).await.unwrap();
        let text = String::from_utf8(body.into()).unwrap();
        assert!(text.contains("0;url=/vms?q=&quot;&gt;&lt;script&gt;\""), "{text}");
        assert!(!text.contains("<script"), "{text}");
    }
}
