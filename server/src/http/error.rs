//! Errors on their way out: one shape, with the id under which the log has the whole story.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use shared::status::{ErrorBody, HttpError};
use shared::{Code, Status};

/// What a handler fails with.
#[derive(Debug)]
pub struct ApiError(pub Status);

impl<T: Into<Status>> From<T> for ApiError {
    fn from(e: T) -> Self {
        Self(e.into())
    }
}

/// What a handler answers.
pub type ApiResult<T> = Result<T, ApiError>;

/// A response that is an error, still to be written out: only the outermost layer knows the request's id.
#[derive(Clone)]
pub struct Failure(pub Status);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = http(&self.0);
        if self.0.code == Code::Unauthenticated {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(Failure(self.0));
        response
    }
}

fn http(status: &Status) -> StatusCode {
    StatusCode::from_u16(HttpError::new(status, String::new()).code)
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// A status other than the one that its code has: 405, 413.
pub fn with_http(code: StatusCode, status: Status) -> Response {
    let mut response = ApiError(status).into_response();
    *response.status_mut() = code;
    response
}

/// Writes a failure out, as JSON or, for a person who looks at pages, as a small page.
pub fn write(response: Response, request_id: &str, html: bool) -> Response {
    let (mut parts, body) = response.into_parts();
    let Some(Failure(status)) = parts.extensions.remove::<Failure>() else {
        return Response::from_parts(parts, body);
    };
    let mut error = HttpError::new(&status, request_id.to_owned());
    error.code = parts.status.as_u16();
    let (kind, text) = if html {
        ("text/html; charset=utf-8", page(&error))
    } else {
        let body = ErrorBody { error };
        // Strings, numbers and JSON values always serialise.
        (
            "application/json",
            serde_json::to_string(&body).unwrap_or_default(),
        )
    };
    parts
        .headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Response::from_parts(parts, Body::from(text))
}

fn page(error: &HttpError) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{code} · Offshoot</title>\
         <link rel=\"icon\" href=\"data:,\"></head><body><main><h1>{code}</h1><p>{message}</p>\
         <p>Request <code>{id}</code></p><p><a href=\"/\">To the overview</a></p></main></body></html>",
        code = error.code,
        message = escape(&error.message),
        id = escape(&error.trace_id),
    )
}

/// Text as it may stand in HTML, between tags and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A fault of the program: the log has the chain of causes, the caller only the request's id.
pub fn internal(doing: &str, error: &dyn std::error::Error) -> ApiError {
    tracing::error!(error = %crate::db::chain(error), "{doing}");
    ApiError(Status::new(
        Code::Internal,
        format!("{doing}: a fault of the server; its log says why"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_typed_is_not_markup() {
        let error = HttpError::new(&Status::not_found("VM", "<script>'\"&"), "t".into());
        assert!(page(&error).contains("&lt;script&gt;&#39;&quot;&amp;"));
    }
}
