//! Signing in and out: by name and password or by a one-time link, and then by a code where the user is asked for one.

use super::audit::{SignIn, address};
use super::error::{ApiResult, escape};
use super::extract::{Fields, Path};
use super::pages::{language, theme};
use super::{Server, guard};
use crate::access::{COOKIE_SECONDS, Entry, Origin, SignedIn, TICKET_SECONDS};
use app::{Language, Theme, put};
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum_extra::extract::CookieJar;
use axum_extra::extract::cookie::{Cookie, SameSite};
use shared::access::User;
use shared::{Code, Status};
use std::convert::Infallible;

impl<S: Send + Sync> FromRequestParts<S> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let agent = parts.headers.get(header::USER_AGENT);
        Ok(Self {
            address: address(&parts.extensions),
            user_agent: agent.and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned(),
        })
    }
}

fn cookie(server: &Server, name: String, value: String, seconds: i64) -> Cookie<'static> {
    Cookie::build((name, value))
        .path("/")
        .http_only(true)
        .secure(server.tls)
        .same_site(SameSite::Strict)
        .max_age(time::Duration::seconds(seconds))
        .build()
}

/// The cookie of those who are being asked for a code.
fn ticket_name(server: &Server) -> String {
    format!("{}-ticket", server.cookie)
}

/// A sign-in, as the audit has it.
pub fn went(name: &str, user: Option<&User>, refused: Option<Status>) -> SignIn {
    SignIn {
        name: name.to_owned(),
        id: user.map(|u| u.id),
        refused,
    }
}

/// Marks an answer for the audit.
pub fn noted(sign_in: SignIn, response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    response.extensions_mut().insert(sign_in);
    response
}

/// Ends the session that the browser had before and hands out the new one, with a way on.
pub async fn enter(
    server: &Server,
    jar: CookieJar,
    signed_in: &SignedIn,
    on: impl IntoResponse,
) -> ApiResult<Response> {
    if let Some(old) = jar.get(&server.cookie) {
        server.access.sign_out(old.value()).await?;
    }
    let value = signed_in.secret.expose().to_owned();
    let user = &signed_in.user;
    tracing::info!(user = %user.name, "signed in");
    let asked = jar.get(&ticket_name(server)).is_some();
    let mut jar = jar.add(cookie(server, server.cookie.clone(), value, COOKIE_SECONDS));
    if asked {
        jar = jar.add(cookie(server, ticket_name(server), String::new(), 0));
    }
    let response = (jar, on.into_response()).into_response();
    Ok(noted(went(user.name.as_str(), Some(user), None), response))
}

/// Lets somebody in, or leads to the form for a code.
async fn on(server: &Server, jar: CookieJar, entry: Entry, next: &str) -> ApiResult<Response> {
    match entry {
        Entry::In(signed_in) => enter(server, jar, &signed_in, Redirect::to(next)).await,
        Entry::Code { ticket, user } => {
            let value = ticket.expose().to_owned();
            let jar = jar.add(cookie(server, ticket_name(server), value, TICKET_SECONDS));
            let to = format!("/login/code?next={}", shared::api::encode(next));
            // Half of it is done, and by whom is known.
            Ok(noted(
                went(user.name.as_str(), Some(&user), None),
                (jar, Redirect::to(&to)),
            ))
        }
    }
}

/// The word by which the form says why; an error that is no answer to what was typed goes on as it is.
fn word(status: &Status) -> Option<&'static str> {
    match status.code {
        Code::Unauthenticated if status.message.contains("disabled") => Some("disabled"),
        Code::Unauthenticated => Some("wrong"),
        Code::ResourceExhausted => Some("wait"),
        Code::FailedPrecondition => Some("late"),
        _ => None,
    }
}

/// POST /login: on to where the person wanted to go, or back to the form with the reason.
pub async fn log_in(
    State(server): State<Server>,
    jar: CookieJar,
    from: Origin,
    form: Fields,
) -> ApiResult<Response> {
    let next = guard::safe_next(form.get("next"));
    let name = form.get("name");
    let entry = server
        .access
        .sign_in(name, form.get("password").to_owned(), &from)
        .await;
    match entry {
        Ok(entry) => on(&server, jar, entry, next).await,
        Err(e) => {
            let status = Status::from(e);
            let Some(error) = word(&status) else {
                return Err(status.into());
            };
            tracing::info!(user = name, reason = error, "sign-in refused");
            let encode = shared::api::encode;
            let to = format!("/login?error={error}&name={}&next={}", encode(name), encode(next));
            Ok(noted(went(name, None, Some(status)), Redirect::to(&to)))
        }
    }
}

/// POST /login/code: the second step.
pub async fn give_code(
    State(server): State<Server>,
    jar: CookieJar,
    from: Origin,
    form: Fields,
) -> ApiResult<Response> {
    let next = guard::safe_next(form.get("next"));
    let ticket = jar
        .get(&ticket_name(&server))
        .map(|c| c.value().to_owned())
        .unwrap_or_default();
    let asked = server.access.asked(&ticket);
    match server.access.give_code(&ticket, form.get("code"), &from).await {
        Ok(signed_in) => enter(&server, jar, &signed_in, Redirect::to(next)).await,
        Err(e) => {
            let status = Status::from(e);
            let Some(error) = word(&status) else {
                return Err(status.into());
            };
            let name = asked.as_ref().map(|u| u.name.to_string()).unwrap_or_default();
            tracing::info!(user = name, reason = error, "code refused");
            let page = if error == "late" { "/login" } else { "/login/code" };
            let to = format!("{page}?error={error}&next={}", shared::api::encode(next));
            Ok(noted(
                went(&name, asked.as_ref(), Some(status)),
                Redirect::to(&to),
            ))
        }
    }
}

/// POST /logout.
pub async fn log_out(State(server): State<Server>, jar: CookieJar) -> ApiResult<Response> {
    if let Some(cookie) = jar.get(&server.cookie) {
        server.access.sign_out(cookie.value()).await?;
    }
    let jar = jar.add(cookie(&server, server.cookie.clone(), String::new(), 0));
    Ok((jar, Redirect::to("/login")).into_response())
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
    from: Origin,
    plain: Plain,
    Path(link): Path<String>,
) -> ApiResult<Response> {
    if method == Method::GET && opened_by_person(&headers) {
        return redeem(&server, jar, &link, &from, &plain).await;
    }
    let w = plain.language.words();
    let page = format!(
        "<form method=\"post\" action=\"/welcome/{}\"><p>{}</p><button class=\"go wide\">{}</button></form>",
        escape(&shared::api::encode(&link)),
        w.welcome_lead,
        w.sign_in
    );
    Ok(plain.page(w.welcome, &page).into_response())
}

/// POST /welcome/{link}.
pub async fn welcome_posted(
    State(server): State<Server>,
    jar: CookieJar,
    from: Origin,
    plain: Plain,
    Path(link): Path<String>,
) -> ApiResult<Response> {
    redeem(&server, jar, &link, &from, &plain).await
}

async fn redeem(
    server: &Server,
    jar: CookieJar,
    link: &str,
    from: &Origin,
    plain: &Plain,
) -> ApiResult<Response> {
    match server.access.redeem(link, from).await? {
        Some(entry) => on(server, jar, entry, "/").await,
        None => {
            let w = plain.language.words();
            let why = put(w.link_spent_why, &["<code>offshoot user link</code>"]);
            let text = format!("<p>{why}</p><p><a href=\"/login\">{}</a></p>", w.by_password);
            let page = plain.page(w.link_spent, &text);
            let spent = Status::new(
                Code::Unauthenticated,
                "a one-time link that is spent, too old or none of ours",
            );
            Ok(noted(
                went("", None, Some(spent)),
                (axum::http::StatusCode::GONE, page),
            ))
        }
    }
}

/// How pages look for whoever asks, that need nothing of the console but its style sheet.
pub struct Plain {
    /// What they are written in.
    pub language: Language,
    /// Their colours.
    pub theme: Theme,
    /// The style sheet.
    pub css: String,
}

impl FromRequestParts<Server> for Plain {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, server: &Server) -> Result<Self, Infallible> {
        let jar = CookieJar::from_headers(&parts.headers);
        Ok(Self {
            language: language(&parts.headers, &jar),
            theme: theme(&jar),
            css: format!("/pkg/{}/app.css", server.assets.version),
        })
    }
}

impl Plain {
    /// A page.
    pub fn page(&self, title: &str, body: &str) -> Html<String> {
        self.page_with("", title, body)
    }

    /// The same with more in its head.
    pub fn page_with(&self, head: &str, title: &str, body: &str) -> Html<String> {
        let (lang, theme, css) = (self.language.code(), self.theme.word(), &self.css);
        Html(format!(
            "<!doctype html><html lang=\"{lang}\" data-theme=\"{theme}\"><head><meta charset=\"utf-8\"><title>{title}</title>{head}\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">\
             <link rel=\"icon\" href=\"data:,\"><link rel=\"stylesheet\" href=\"{css}\"></head>\
             <body><main class=\"door\"><div class=\"sheet\"><div class=\"sheet-in\"><div class=\"brand\">Offshoot</div>\
             <h1>{title}</h1>{body}</div></div></main></body></html>"
        ))
    }
}
