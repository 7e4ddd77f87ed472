//! What a request carries, parsed into types of `shared`; a refusal names the field.

use super::error::{ApiError, with_http};
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use shared::{Code, Status};

/// A JSON body.
pub struct Body<T>(pub T);

/// A query.
pub struct Query<T>(pub T);

/// The parts of the path, decoded.
pub struct Path<T>(pub T);

/// The fields of a form, in order.
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    /// The first field of this name; empty if there is none.
    pub fn get(&self, name: &str) -> &str {
        let field = self.0.iter().find(|(n, _)| n == name);
        field.map_or("", |(_, value)| value)
    }
}

/// The body of a call that asks for nothing further: `{}`, or no body at all.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

fn says(request: &Request, kind: &str) -> bool {
    let said = request.headers().get(header::CONTENT_TYPE);
    said.and_then(|v| v.to_str().ok())
        .and_then(|v| v.split(';').next())
        .is_some_and(|v| v.trim().eq_ignore_ascii_case(kind))
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        const KIND: &str = "application/x-www-form-urlencoded";
        let form = says(&request, KIND);
        let bytes = Bytes::from_request(request, state).await.map_err(body_refused)?;
        if !form && !bytes.is_empty() {
            let why = format!("a form says {KIND}");
            return Err(ApiError(Status::invalid("Content-Type", why)).into_response());
        }
        Ok(Self(form_urlencoded::parse(&bytes).into_owned().collect()))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let json = says(&request, "application/json");
        let bytes = Bytes::from_request(request, state).await.map_err(body_refused)?;
        if bytes.is_empty() {
            return parse(b"{}").map(Self).map_err(IntoResponse::into_response);
        }
        if !json {
            let why = "a request with a body says application/json";
            return Err(ApiError(Status::invalid("Content-Type", why)).into_response());
        }
        parse(&bytes).map(Self).map_err(IntoResponse::into_response)
    }
}

/// A body that could not be read, or is too large.
pub fn body_refused(rejection: BytesRejection) -> Response {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let why = format!("the body has more than the {} bytes allowed", super::BODY_LIMIT);
        with_http(
            StatusCode::PAYLOAD_TOO_LARGE,
            Status::new(Code::ResourceExhausted, why),
        )
    } else {
        ApiError(Status::invalid("body", "it did not arrive whole")).into_response()
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let (path, error) = (e.path().to_string(), e.inner());
        // What is no JSON at all is the fault of no field.
        let path = if error.is_data() { path } else { String::new() };
        ApiError(named(&path, &without_value(&error.to_string()), "body"))
    })?;
    json.end()
        .map_err(|e| ApiError(Status::invalid("body", e.to_string())))?;
    Ok(value)
}

/// Serde's message without the value of the wrong type, which may be a secret.
fn without_value(message: &str) -> String {
    let found = message.strip_prefix("invalid type: ");
    match found.and_then(|found| found.rsplit_once(", expected ")) {
        None => message.to_owned(),
        Some((found, expected)) => {
            let kind = found.split(['`', '"']).next().unwrap_or_default().trim_end();
            format!("invalid type: {kind}, expected {expected}")
        }
    }
}

/// INVALID_ARGUMENT for the field at which parsing stopped. Serde names unknown and missing fields in the message only.
fn named(path: &str, message: &str, whole: &str) -> Status {
    let path = if path == "." { "" } else { path };
    let last = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start)?.split('`').next());
    let field = match (path, last) {
        ("", None) => whole.to_owned(),
        ("", Some(last)) => last.to_owned(),
        // The path ends with an unknown field where the parser knew it already.
        (path, Some(last)) if path.rsplit('.').next() == Some(last) => path.to_owned(),
        (path, Some(last)) => format!("{path}.{last}"),
        (path, None) => path.to_owned(),
    };
    Status::invalid(&field, message)
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let pairs = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let query = serde_urlencoded::Deserializer::new(pairs);
        serde_path_to_error::deserialize(query)
            .map(Self)
            .map_err(|e| ApiError(named(&e.path().to_string(), &e.inner().to_string(), "query")))
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(e) => Err(ApiError(Status::invalid("path", e.body_text()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::target::CreateTarget;
    use shared::vm::CreateVm;

    fn field(body: &str) -> String {
        let status = parse::<CreateVm>(body.as_bytes()).err().unwrap().0;
        assert_eq!(status.code, Code::InvalidArgument);
        status.field().unwrap().to_owned()
    }

    #[test]
    fn a_value_of_the_wrong_type_is_not_repeated() {
        for (field, value) in [
            ("passphrase", "4815162342"),
            ("passphrase", r#"["4815162342"]"#),
            ("passphrase", r#"{"is":"4815162342"}"#),
            ("local", r#""4815162342, expected \"or\" not""#),
            ("s3", r#""4815162342""#),
        ] {
            let body = format!(r#"{{"name":"there","{field}":{value}}}"#);
            let status = parse::<CreateTarget>(body.as_bytes()).err().unwrap().0;
            assert_eq!(status.field(), Some(field), "{body}");
            assert!(!format!("{status:?}").contains("4815162342"), "{status:?}");
            assert!(status.message.contains("invalid type: "), "{status:?}");
        }
    }

    #[test]
    fn a_refusal_names_the_field() {
        assert_eq!(field(r#"{"name":"A","disks":[]}"#), "name");
        assert_eq!(field(r#"{"name":"a","disks":[],"cpu":2}"#), "cpu");
        assert_eq!(field(r#"{"disks":[]}"#), "name");
        assert_eq!(field(r#"{"name":"a","disks":[],"cpus":"two"}"#), "cpus");
        assert_eq!(
            field(r#"{"name":"a","disks":[],"cloudInit":{"userdata":""}}"#),
            "cloudInit.userdata"
        );
        assert_eq!(field(r#"{"name":"a","disks":[{"size":1}]}"#), "disks[0]");
        assert_eq!(field("{"), "body");
        assert_eq!(field(r#"{"name":"a","disks":[]} x"#), "body");
    }
}
