//! What a provider says of itself (OpenID Connect Discovery), and how its answers are read.

use super::ProviderError;
use crate::config::is_safe;
use reqwest::{RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::str::FromStr;

/// Largest answer that is read, in bytes.
const MOST: usize = 1 << 20;

/// An address that a provider names.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub struct Endpoint(pub Url);

impl TryFrom<String> for Endpoint {
    type Error = <Url as FromStr>::Err;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl Endpoint {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// What a provider says of itself, as far as it matters here.
#[derive(Deserialize)]
pub struct Document {
    issuer: String,
    /// Where browsers are sent.
    pub authorization_endpoint: Endpoint,
    /// Where a code is traded for tokens.
    pub token_endpoint: Endpoint,
    /// Where its keys are.
    pub jwks_uri: Endpoint,
    /// Where it tells more of a person.
    pub userinfo_endpoint: Option<Endpoint>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

impl Document {
    /// Whether the secret goes into the form: in the header it goes unless the provider says that it cannot.
    pub fn wants_secret_in_form(&self) -> bool {
        let methods = self.token_endpoint_auth_methods_supported.as_deref();
        methods.is_some_and(|all| {
            let has = |method: &str| all.iter().any(|m| m == method);
            has("client_secret_post") && !has("client_secret_basic")
        })
    }

    /// Refuses what could lead elsewhere than to the provider that was meant.
    fn check(self, issuer: &str) -> Result<Self, ProviderError> {
        if self.issuer != issuer {
            return Err(ProviderError::OtherIssuer {
                found: self.issuer,
                told: issuer.to_owned(),
            });
        }
        let all = [
            ("its sign-in page", Some(&self.authorization_endpoint)),
            ("a token", Some(&self.token_endpoint)),
            ("its keys", Some(&self.jwks_uri)),
            ("what it knows of a person", self.userinfo_endpoint.as_ref()),
        ];
        for (what, url) in all {
            if let Some(Endpoint(url)) = url.filter(|url| !is_safe(&url.0)) {
                return Err(ProviderError::NotSafe {
                    what,
                    url: url.to_string(),
                });
            }
        }
        Ok(self)
    }
}

/// Asks a provider what it says of itself.
pub async fn ask(http: &reqwest::Client, issuer: &str) -> Result<Document, ProviderError> {
    let url = format!(
        "{}/.well-known/openid-configuration",
        issuer.trim_end_matches('/')
    );
    let document: Document = json("what it says of itself", &url, http.get(&url)).await?;
    document.check(issuer)
}

/// What was answered, up to a length.
pub async fn read(
    what: &'static str,
    url: &str,
    request: RequestBuilder,
) -> Result<(StatusCode, Vec<u8>), ProviderError> {
    let away = |source: reqwest::Error| ProviderError::Away {
        what,
        url: url.to_owned(),
        source: source.without_url(),
    };
    let mut response = request.send().await.map_err(away)?;
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(away)? {
        if body.len() + part.len() > MOST {
            return Err(ProviderError::TooLong {
                what,
                url: url.to_owned(),
            });
        }
        body.extend_from_slice(&part);
    }
    Ok((response.status(), body))
}

/// What was answered, as JSON.
pub async fn json<T: DeserializeOwned>(
    what: &'static str,
    url: &str,
    request: RequestBuilder,
) -> Result<T, ProviderError> {
    let (status, body) = read(what, url, request).await?;
    if !status.is_success() {
        return Err(ProviderError::Answer {
            what,
            url: url.to_owned(),
            status,
        });
    }
    serde_json::from_slice(&body).map_err(|source| ProviderError::Unreadable {
        what,
        url: url.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document(change: &str, to: serde_json::Value) -> Document {
        let mut document = json!({
            "issuer": "https://login.example",
            "authorization_endpoint": "https://login.example/auth",
            "token_endpoint": "https://login.example/token",
            "jwks_uri": "https://keys.example/jwks",
        });
        document[change] = to;
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn a_provider_leads_to_nothing_that_others_could_be() {
        let check = |change, to| document(change, to).check("https://login.example").map(drop);
        assert!(check("scopes_supported", json!([])).is_ok());
        assert!(matches!(
            check("issuer", json!("https://login.example/")),
            Err(ProviderError::OtherIssuer { .. })
        ));
        for place in [
            "authorization_endpoint",
            "token_endpoint",
            "jwks_uri",
            "userinfo_endpoint",
        ] {
            let plain = check(place, json!("http://login.example/x"));
            assert!(matches!(plain, Err(ProviderError::NotSafe { .. })), "{place}");
        }
    }

    #[test]
    fn the_secret_goes_where_the_provider_wants_it() {
        let in_form = |methods: serde_json::Value| {
            document("token_endpoint_auth_methods_supported", methods).wants_secret_in_form()
        };
        assert!(in_form(json!(["client_secret_post"])));
        assert!(!in_form(json!(["client_secret_post", "client_secret_basic"])));
        assert!(!in_form(json!(null)));
    }
}
