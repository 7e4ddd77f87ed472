//! Notices by webhook, signed as the Standard Webhooks specification has it.

use crate::web::Reach;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, StatusCode, Url, header};
use sha2::Sha256;
use shared::{NoticeId, Timestamp};

/// Why a receiver has not taken a notice. The address may hold a secret, so it is not named.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PostError {
    #[error("post the notice: {0}")]
    Address(String),
    #[error("sign the notice: the channel's secret is none; give it another")]
    Secret,
    #[error("post the notice: the receiver answered {0}, and redirects are not followed")]
    Redirect(StatusCode),
    #[error("post the notice: the receiver answered {0}")]
    Answer(StatusCode),
    #[error("post the notice")]
    Lost(#[source] reqwest::Error),
}

/// Posts notices.
pub struct Webhook {
    http: Client,
    reach: Reach,
}

impl Webhook {
    /// One that posts to private addresses only if that is allowed.
    pub fn new(private: bool) -> Result<Self, reqwest::Error> {
        let reach = Reach::new(private, "notice_urls_private");
        Ok(Self {
            http: reach.client().build()?,
            reach,
        })
    }

    /// The address, if it may be posted to as far as it shows.
    pub fn address(&self, url: &str) -> Result<Url, String> {
        let url = Url::parse(url).map_err(|e| e.to_string())?;
        self.reach.check(&url)?;
        Ok(url)
    }

    /// Posts a notice, with a signature by each secret; the receiver has taken it if it says so.
    pub async fn post(
        &self,
        url: &str,
        secrets: &[String],
        id: NoticeId,
        now: Timestamp,
        body: Vec<u8>,
    ) -> Result<(), PostError> {
        let url = self.address(url).map_err(PostError::Address)?;
        let (id, seconds) = (id.to_string(), now.micros().div_euclid(1_000_000));
        let all: Option<Vec<_>> = secrets
            .iter()
            .map(|secret| signature(secret, &id, seconds, &body))
            .collect();
        let signatures = all.ok_or(PostError::Secret)?.join(" ");
        let request = self
            .http
            .post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", signatures)
            .body(body);
        let answer = request.send().await;
        let status = answer.map_err(|e| PostError::Lost(e.without_url()))?.status();
        match status {
            status if status.is_success() => Ok(()),
            status if status.is_redirection() => Err(PostError::Redirect(status)),
            status => Err(PostError::Answer(status)),
        }
    }
}

/// The signature of a post; none if the secret is not one.
fn signature(secret: &str, id: &str, seconds: i64, body: &[u8]) -> Option<String> {
    let key = STANDARD.decode(secret.strip_prefix("whsec_")?).ok()?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(format!("{id}.{seconds}.").as_bytes());
    mac.update(body);
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_specification() {
        // The example that the specification's own libraries are tested with.
        let (secret, id) = (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
        );
        let signed = signature(secret, id, 1_614_265_330, br#"{"test": 2432232314}"#).unwrap();
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        for none in ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_?", ""] {
            assert_eq!(signature(none, id, 0, b""), None, "{none:?}");
        }
    }
}
