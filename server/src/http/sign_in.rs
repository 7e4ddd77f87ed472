//! Signing in and out: by name and password, or by a one-time link.

use super::error::{ApiResult, escape};
use super::extract::{Fields, Path};
use super::{Server, guard};
use crate::access::{COOKIE_SECONDS, SignedIn};
use axum::extract::State;
use axum::http::{HeaderMap, Method};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum_extra::extract::CookieJar;
use axum_extra::extract::cookie::{Cookie, SameSite};
use shared::Code;

fn cookie(server: &Server, value: String, seconds: i64) -> Cookie<'static> {
    Cookie::build((server.cookie.clone(), value))
        .path("/")
        .http_only(true)
        .same_site(SameSite::Strict)
        .max_age(time::Duration::seconds(seconds))
        .build()
}

/// Ends the session that the browser had before and hands out the new one.
async fn enter(server: &Server, jar: CookieJar, signed_in: &SignedIn) -> ApiResult<CookieJar> {
    if let Some(old) = jar.get(&server.cookie) {
        server.access.sign_out(old.value()).await?;
    }
    let value = signed_in.secret.expose().to_owned();
    tracing::info!(user = %signed_in.user.name, "signed in");
    Ok(jar.add(cookie(server, value, COOKIE_SECONDS)))
}

/// POST /login: on to where the person wanted to go, or back to the form with the reason.
pub async fn log_in(State(server): State<Server>, jar: CookieJar, form: Fields) -> ApiResult<Response> {
    let next = guard::safe_next(form.get("next"));
    match server
        .access
        .sign_in(form.get("name"), form.get("password").to_owned())
        .await
    {
        Ok(signed_in) => {
            let jar = enter(&server, jar, &signed_in).await?;
            Ok((jar, Redirect::to(next)).into_response())
        }
        Err(e) => {
            let status = shared::Status::from(e);
            let error = match status.code {
                Code::Unauthenticated => "wrong",
                Code::ResourceExhausted => "wait",
                _ => return Err(status.into()),
            };
            tracing::info!(user = form.get("name"), reason = error, "sign-in refused");
            let encode = shared::api::encode;
            let to = format!(
                "/login?error={error}&name={}&next={}",
                encode(form.get("name")),
                encode(next)
            );
            Ok(Redirect::to(&to).into_response())
        }
    }
}

/// POST /logout.
pub async fn log_out(State(server): State<Server>, jar: CookieJar) -> ApiResult<Response> {
    if let Some(cookie) = jar.get(&server.cookie) {
        server.access.sign_out(cookie.value()).await?;
    }
    Ok((jar.add(cookie(&server, String::new(), 0)), Redirect::to("/login")).into_response())
}

/// Whether a person has just opened this address themselves: not a link preview, not a prefetch, not a click on
/// another site (whose cookie a browser would hold back on the way on).
fn opened_by_person(headers: &HeaderMap) -> bool {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|v| v == value);
    is("sec-fetch-dest", "document")
        && is("sec-fetch-mode", "navigate")
        && (is("sec-fetch-site", "none") || is("sec-fetch-site", "same-origin"))
        && !headers.contains_key("sec-purpose")
        && !headers.contains_key("purpose")
}

/// GET /welcome/{link}: signs a person in who opened the link in a browser. Whoever else asks gets a page with a
/// button, so that what looks at links does not use them up.
pub async fn welcome(
    State(server): State<Server>,
    method: Method,
    headers: HeaderMap,
    jar: CookieJar,
    Path(link): Path<String>,
) -> ApiResult<Response> {
    if method == Method::GET && opened_by_person(&headers) {
        return redeem(&server, jar, &link).await;
    }
    let page = format!(
        "<form method=\"post\" action=\"/welcome/{}\"><p>This link signs you in once.</p>\
         <p><button type=\"submit\">Sign in</button></p></form>",
        escape(&shared::api::encode(&link))
    );
    Ok(small_page("Welcome to Offshoot", &page).into_response())
}

/// POST /welcome/{link}.
pub async fn welcome_posted(
    State(server): State<Server>,
    jar: CookieJar,
    Path(link): Path<String>,
) -> ApiResult<Response> {
    redeem(&server, jar, &link).await
}

async fn redeem(server: &Server, jar: CookieJar, link: &str) -> ApiResult<Response> {
    match server.access.redeem(link).await? {
        Some(signed_in) => {
            let jar = enter(server, jar, &signed_in).await?;
            Ok((jar, Redirect::to("/")).into_response())
        }
        None => {
            let text = "<p>This link has been used, or is too old. <code>offshoot user link</code> makes a new one.</p>\
                        <p><a href=\"/login\">Sign in with a password</a></p>";
            let page = small_page("This link is spent", text);
            Ok((axum::http::StatusCode::GONE, page).into_response())
        }
    }
}

fn small_page(title: &str, body: &str) -> Html<String> {
    Html(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><link rel=\"icon\" href=\"data:,\"></head>\
         <body><main><h1>{title}</h1>{body}</main></body></html>"
    ))
}
