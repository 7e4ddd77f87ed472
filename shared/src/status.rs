//! Errors in the one shape that everything speaks: google.rpc.Status.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $word:literal, $http:literal;)*) => {
        /// The canonical codes of google.rpc.Code, with their numbers, words and HTTP statuses.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name = $number),* }

        impl Code {
            /// Every code.
            pub const ALL: &[Code] = &[$(Code::$name),*];

            /// The canonical number.
            pub const fn number(self) -> i32 {
                self as i32
            }

            /// The word, such as `FAILED_PRECONDITION`.
            pub const fn word(self) -> &'static str {
                match self { $(Code::$name => $word),* }
            }

            /// The HTTP status that carries it.
            pub const fn http(self) -> u16 {
                match self { $(Code::$name => $http),* }
            }
        }
    };
}

codes! {
    /// No error.
    Ok = 0, "OK", 200;
    /// Cancelled by the caller.
    Cancelled = 1, "CANCELLED", 499;
    /// An error that says nothing better.
    Unknown = 2, "UNKNOWN", 500;
    /// The request itself is wrong, whatever the state.
    InvalidArgument = 3, "INVALID_ARGUMENT", 400;
    /// It did not happen in time.
    DeadlineExceeded = 4, "DEADLINE_EXCEEDED", 504;
    /// There is no such thing.
    NotFound = 5, "NOT_FOUND", 404;
    /// There is one already.
    AlreadyExists = 6, "ALREADY_EXISTS", 409;
    /// The caller lacks a privilege.
    PermissionDenied = 7, "PERMISSION_DENIED", 403;
    /// Too much: space, size or rate.
    ResourceExhausted = 8, "RESOURCE_EXHAUSTED", 429;
    /// The state does not allow it.
    FailedPrecondition = 9, "FAILED_PRECONDITION", 409;
    /// Something else got in between.
    Aborted = 10, "ABORTED", 409;
    /// Beyond the end.
    OutOfRange = 11, "OUT_OF_RANGE", 400;
    /// Not in this version.
    Unimplemented = 12, "UNIMPLEMENTED", 501;
    /// A fault of the program.
    Internal = 13, "INTERNAL", 500;
    /// Away for now: try again.
    Unavailable = 14, "UNAVAILABLE", 503;
    /// Data is lost or damaged.
    DataLoss = 15, "DATA_LOSS", 500;
    /// Nobody is signed in.
    Unauthenticated = 16, "UNAUTHENTICATED", 401;
}

impl Code {
    /// The code with this canonical number.
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.iter().copied().find(|c| c.number() == number)
    }

    /// The code with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|c| c.word() == word)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_i32(self.number())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let number = i32::deserialize(d)?;
        Self::from_number(number)
            .ok_or_else(|| de::Error::custom(format_args!("{number} is no code of google.rpc.Code")))
    }
}

/// google.rpc.Status: what went wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status {
    /// The canonical number of google.rpc.Code.
    #[cfg_attr(feature = "openapi", schema(value_type = i32))]
    pub code: Code,
    /// Which operation on which object failed, why, and what to do.
    #[serde(default)]
    pub message: String,
    /// `google.protobuf.Any` as JSON: an object with `@type`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub details: Vec<serde_json::Value>,
}

impl Status {
    /// A status without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: Vec::new(),
        }
    }

    /// INVALID_ARGUMENT that names the field.
    pub fn invalid(field: &str, why: impl fmt::Display) -> Self {
        let mut status = Self::new(Code::InvalidArgument, format!("{field}: {why}"));
        status.details.push(serde_json::json!({
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{"field": field, "description": why.to_string()}],
        }));
        status
    }

    /// NOT_FOUND for a noun and the reference that was asked for.
    pub fn not_found(noun: &str, reference: impl fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("there is no {noun} {reference}"))
    }

    /// FAILED_PRECONDITION.
    pub fn precondition(message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, message)
    }

    /// The field that a BadRequest detail names first.
    pub fn field(&self) -> Option<&str> {
        self.details
            .iter()
            .find_map(|d| d.pointer("/fieldViolations/0/field")?.as_str())
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

/// What an HTTP answer that is an error carries: `{"error": …}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// The error.
    pub error: HttpError,
}

/// An error as HTTP carries it: `code` is HTTP's here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct HttpError {
    /// The HTTP status.
    pub code: u16,
    /// The word of the canonical code.
    pub status: String,
    /// Which operation on which object failed, why, and what to do.
    pub message: String,
    /// `google.protobuf.Any` as JSON.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub details: Vec<serde_json::Value>,
    /// The id under which the log has the whole story.
    #[serde(default)]
    pub trace_id: String,
}

impl HttpError {
    /// The error of a status; `no_space` makes it 507.
    pub fn new(status: &Status, trace_id: String) -> Self {
        let no_space = status.details.iter().any(|d| d["reason"] == "NO_SPACE");
        Self {
            code: if no_space { 507 } else { status.code.http() },
            status: status.code.word().to_owned(),
            message: status.message.clone(),
            details: status.details.clone(),
            trace_id,
        }
    }
}

impl From<HttpError> for Status {
    fn from(e: HttpError) -> Self {
        let code = Code::from_word(&e.status).unwrap_or(Code::Unknown);
        let status = Self {
            code,
            message: e.message,
            details: e.details,
        };
        if e.trace_id.is_empty() {
            status
        } else {
            status.with_request(e.trace_id)
        }
    }
}

impl Status {
    /// With the id under which the log has the story: of the request, or of the job.
    #[must_use]
    pub fn with_request(mut self, id: impl fmt::Display) -> Self {
        self.details.push(serde_json::json!({
            "@type": "type.googleapis.com/google.rpc.RequestInfo", "requestId": id.to_string(),
        }));
        self
    }

    /// The id of the request that failed, to find it in the log.
    pub fn trace_id(&self) -> Option<&str> {
        self.details.iter().find_map(|d| d.get("requestId")?.as_str())
    }

    /// RESOURCE_EXHAUSTED for a full directory: 507 over HTTP.
    pub fn no_space(message: impl Into<String>) -> Self {
        let mut status = Self::new(Code::ResourceExhausted, message);
        status.details.push(serde_json::json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "NO_SPACE", "domain": "offshoot",
        }));
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_in_a_resource_is_the_canonical_number() {
        let status = Status::precondition("no");
        assert_eq!(
            serde_json::to_value(&status).unwrap(),
            serde_json::json!({"code": 9, "message": "no"})
        );
    }

    #[test]
    fn the_code_over_http_is_https() {
        let e = HttpError::new(&Status::precondition("no"), "t".into());
        assert_eq!((e.code, e.status.as_str()), (409, "FAILED_PRECONDITION"));
        assert_eq!(HttpError::new(&Status::no_space("full"), String::new()).code, 507);
        let back = Status::from(e);
        assert_eq!(
            (back.code, back.trace_id()),
            (Code::FailedPrecondition, Some("t"))
        );
    }

    #[test]
    fn numbers_and_words_are_one_to_one() {
        for (n, code) in Code::ALL.iter().enumerate() {
            assert_eq!(code.number(), n as i32);
            assert_eq!(Code::from_word(code.word()), Some(*code));
        }
    }
}
