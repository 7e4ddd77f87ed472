//! Sign-in by an OpenID Connect provider: the authorization code flow with PKCE. What is asked of the provider, and what
//! is believed of its answers; whom it lets in is for `access` to say.

mod attempts;
mod discovery;
mod token;

use crate::access::oidc::Person;
use crate::access::secret::{NoRandom, Secret};
use crate::config::{Oidc, on_this_machine};
pub use attempts::{ATTEMPT_SECONDS, Attempt};
use attempts::{Attempts, Told};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use discovery::{Document, json, read};
use jsonwebtoken::jwk::JwkSet;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use shared::Name;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
pub use token::TokenError;
use token::{Claims, Expected, verify};
use tokio::sync::Mutex;

/// How long the provider may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it is remembered what the provider says of itself.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// Fewest letters of what a browser's cookie holds: one that says nothing would be that of every browser.
const BROWSER_LETTERS: usize = 64;

/// Why nobody is signed in.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ProviderError {
    #[error("ask the provider for {what} at {url}")]
    Away {
        what: &'static str,
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("the provider answered {status} when it was asked for {what} at {url}")]
    Answer {
        what: &'static str,
        url: String,
        status: StatusCode,
    },
    #[error("what the provider answered when it was asked for {what} at {url} is not understood")]
    Unreadable {
        what: &'static str,
        url: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("what the provider answered when it was asked for {what} at {url} is too long")]
    TooLong { what: &'static str, url: String },
    #[error(
        "the provider calls itself {found:?}: oidc_issuer must be that, letter for letter, and is {told:?}"
    )]
    OtherIssuer { found: String, told: String },
    #[error("the provider names {url:?} for {what}, which is neither https nor on this machine")]
    NotSafe { what: &'static str, url: String },
    #[error("the provider does not take the code: {0}")]
    Code(String),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the provider speaks of {found:?} where it spoke of {told:?} before")]
    OtherPerson { found: String, told: String },
    #[error(transparent)]
    Random(#[from] NoRandom),
}

impl ProviderError {
    /// Whether the provider could not be asked, or did not answer as it should.
    pub fn is_away(&self) -> bool {
        !matches!(
            self,
            Self::Code(_) | Self::Token(_) | Self::OtherPerson { .. } | Self::Random(_)
        )
    }
}

/// The secret of this server at the provider. Not printed by `Debug`.
#[derive(Clone)]
pub struct ClientSecret(String);

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret(…)")
    }
}

/// Why the secret cannot be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SecretError {
    #[error("read the client secret of the OpenID Connect provider, {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the file with the client secret of the OpenID Connect provider, {0}, is empty")]
    Empty(PathBuf),
}

impl ClientSecret {
    /// The secret that stands in a file, as its only line.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let text = std::fs::read_to_string(path).map_err(|source| SecretError::Read {
            path: path.to_owned(),
            source,
        })?;
        match text.trim() {
            "" => Err(SecretError::Empty(path.to_owned())),
            secret => Ok(Self(secret.to_owned())),
        }
    }
}

/// What the provider says of itself, and its keys.
#[derive(Clone)]
struct Known {
    document: Arc<Document>,
    keys: Arc<JwkSet>,
    since: Instant,
}

/// A provider.
pub struct Provider {
    settings: Oidc,
    secret: Option<ClientSecret>,
    /// Where it sends browsers back to.
    redirect: String,
    http: reqwest::Client,
    known: Mutex<Option<Known>>,
    attempts: Attempts,
}

/// A sign-in that has begun.
pub struct Begun {
    /// Where the browser goes.
    pub url: String,
    /// What its cookie holds meanwhile.
    pub browser: String,
}

impl Provider {
    /// The one that was configured, for a server that browsers come to by this address.
    pub fn new(
        settings: Oidc,
        secret: Option<ClientSecret>,
        public_url: &str,
    ) -> Result<Self, reqwest::Error> {
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("offshoot/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE);
        // A proxy for the web has no way to a provider on this machine.
        if settings.issuer.parse().is_ok_and(|url| on_this_machine(&url)) {
            http = http.no_proxy();
        }
        Ok(Self {
            redirect: format!("{public_url}/sign-in/oidc/callback"),
            settings,
            secret,
            http: http.build()?,
            known: Mutex::default(),
            attempts: Attempts::default(),
        })
    }

    /// Its address.
    pub fn issuer(&self) -> &str {
        &self.settings.issuer
    }

    /// Asks the provider what it says of itself, and for its keys; answers how many there are.
    pub async fn look(&self) -> Result<usize, ProviderError> {
        Ok(self.known().await?.keys.keys.len())
    }

    async fn known(&self) -> Result<Known, ProviderError> {
        let mut known = self.known.lock().await;
        if let Some(known) = known.as_ref().filter(|k| k.since.elapsed() < REMEMBERED) {
            return Ok(known.clone());
        }
        let document = discovery::ask(&self.http, &self.settings.issuer).await?;
        let fresh = Known {
            keys: Arc::new(self.keys(&document).await?),
            document: Arc::new(document),
            since: Instant::now(),
        };
        Ok(known.insert(fresh).clone())
    }

    /// The keys as they are now: for a token that is signed with one that was not there.
    async fn newer_keys(&self, document: &Document) -> Result<Arc<JwkSet>, ProviderError> {
        let keys = Arc::new(self.keys(document).await?);
        if let Some(known) = self.known.lock().await.as_mut() {
            known.keys = keys.clone();
        }
        Ok(keys)
    }

    async fn keys(&self, document: &Document) -> Result<JwkSet, ProviderError> {
        let (what, url) = ("its keys", document.jwks_uri.as_str());
        json(what, url, self.http.get(url)).await
    }

    /// Begins a sign-in in a browser, which may have a cookie of another, and goes on to `next` after it.
    pub async fn begin(&self, next: &str, browser: Option<&str>) -> Result<Begun, ProviderError> {
        let known = self.known().await?;
        let browser = match browser.filter(|b| b.len() >= BROWSER_LETTERS) {
            Some(browser) => browser.to_owned(),
            None => Secret::new("")?.expose().to_owned(),
        };
        let Told {
            state,
            nonce,
            verifier,
        } = self.attempts.begin(&browser, next, Instant::now())?;
        let mut url = known.document.authorization_endpoint.0.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("redirect_uri", &self.redirect)
            .append_pair("scope", &self.settings.scopes.join(" "))
            .append_pair("state", state.expose())
            .append_pair("nonce", nonce.expose())
            .append_pair(
                "code_challenge",
                &URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.expose())),
            )
            .append_pair("code_challenge_method", "S256");
        Ok(Begun {
            url: url.into(),
            browser,
        })
    }

    /// The sign-in that a browser comes back from, once.
    pub fn take(&self, state: &str, browser: &str) -> Option<Attempt> {
        self.attempts.take(state, browser, Instant::now())
    }

    /// Ends a sign-in with the code that the browser brought: who it is.
    pub async fn end(&self, attempt: &Attempt, code: &str) -> Result<Person, ProviderError> {
        let known = self.known().await?;
        let tokens = self.trade(&known.document, attempt, code).await?;
        let expected = Expected {
            issuer: &self.settings.issuer,
            client_id: &self.settings.client_id,
            nonce: attempt.nonce.expose(),
        };
        let claims = match verify(&tokens.id_token, &known.keys, &expected) {
            Err(TokenError::UnknownKey(_)) => {
                let keys = self.newer_keys(&known.document).await?;
                verify(&tokens.id_token, &keys, &expected)?
            }
            verified => verified?,
        };
        let claims = self.whole(&known.document, claims, &tokens).await?;
        Ok(self.person(&claims))
    }

    /// Trades the code for tokens.
    async fn trade(
        &self,
        document: &Document,
        attempt: &Attempt,
        code: &str,
    ) -> Result<Tokens, ProviderError> {
        let (what, url) = ("a token", document.token_endpoint.as_str());
        let (status, body) = read(what, url, self.trade_request(document, attempt, code)).await?;
        let unreadable = |source| ProviderError::Unreadable {
            what,
            url: url.to_owned(),
            source,
        };
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(unreadable);
        }
        match serde_json::from_slice::<Refusal>(&body) {
            // The code is wrong, spent or another's; all else is between the provider and this server.
            Ok(refusal) if refusal.error == "invalid_grant" => Err(ProviderError::Code(refusal.to_string())),
            Ok(refusal) => {
                tracing::warn!(%refusal, "the provider gives no token");
                Err(ProviderError::Answer {
                    what,
                    url: url.to_owned(),
                    status,
                })
            }
            Err(_) => Err(ProviderError::Answer {
                what,
                url: url.to_owned(),
                status,
            }),
        }
    }

    fn trade_request(&self, document: &Document, attempt: &Attempt, code: &str) -> RequestBuilder {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("redirect_uri", &self.redirect)
            .append_pair("code_verifier", attempt.verifier.expose());
        let mut request = self.http.post(document.token_endpoint.as_str());
        let id = &self.settings.client_id;
        match &self.secret {
            None => {
                form.append_pair("client_id", id);
            }
            Some(ClientSecret(secret)) if document.wants_secret_in_form() => {
                form.append_pair("client_id", id)
                    .append_pair("client_secret", secret);
            }
            Some(ClientSecret(secret)) => {
                let encoded =
                    |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                request = request.basic_auth(encoded(id), Some(encoded(secret)));
            }
        }
        request
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(form.finish())
    }

    /// What the provider says of a person: some have only the subject in the token, and tell the rest when asked.
    async fn whole(
        &self,
        document: &Document,
        mut claims: Claims,
        tokens: &Tokens,
    ) -> Result<Claims, ProviderError> {
        let wanted = [&self.settings.name_claim, &self.settings.groups_claim];
        let missing = wanted.iter().any(|name| !claims.contains_key(*name));
        let Some(url) = document.userinfo_endpoint.as_ref().filter(|_| missing) else {
            return Ok(claims);
        };
        let url = url.as_str();
        let request = self.http.get(url).bearer_auth(&tokens.access_token);
        let more: Claims = json(
            "what it knows of a person",
            url,
            request.header(ACCEPT, "application/json"),
        )
        .await?;
        if more.get("sub") != claims.get("sub") {
            let text = |claims: &Claims| claims.get("sub").map(Value::to_string).unwrap_or_default();
            return Err(ProviderError::OtherPerson {
                found: text(&more),
                told: text(&claims),
            });
        }
        for (name, value) in more {
            // What is signed counts for more.
            claims.entry(name).or_insert(value);
        }
        Ok(claims)
    }

    fn person(&self, claims: &Claims) -> Person {
        let text = |name: &str| {
            claims
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        Person {
            issuer: self.settings.issuer.clone(),
            subject: text("sub"),
            name: text(&self.settings.name_claim),
            roles: roles(&self.settings, claims.get(&self.settings.groups_claim)),
        }
    }
}

/// The roles that groups give, each once.
fn roles(settings: &Oidc, groups: Option<&Value>) -> Vec<Name> {
    let groups: Vec<&str> = match groups {
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(one)) => vec![one],
        _ => Vec::new(),
    };
    let mut roles: Vec<Name> = Vec::new();
    for given in &settings.roles {
        if groups.contains(&given.group.as_str()) && !roles.contains(&given.role) {
            roles.push(given.role.clone());
        }
    }
    if roles.is_empty() {
        roles.extend(settings.default_role.clone());
    }
    roles
}

/// What a code is traded for.
#[derive(Deserialize)]
struct Tokens {
    id_token: String,
    access_token: String,
}

/// Why a provider gives no token, in its words.
#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    error_description: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.error_description.as_str() {
            "" => f.write_str(&self.error),
            description => write!(f, "{}: {description}", self.error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(default_role: Option<&str>) -> Oidc {
        Oidc {
            issuer: "http://127.0.0.1:1".to_owned(),
            client_id: "offshoot".to_owned(),
            client_secret_file: None,
            scopes: vec!["openid".to_owned()],
            name_claim: "preferred_username".to_owned(),
            groups_claim: "groups".to_owned(),
            roles: vec![
                "admins=admin".parse().unwrap(),
                "root=admin".parse().unwrap(),
                "ops=operator".parse().unwrap(),
            ],
            default_role: default_role.map(|r| r.parse().unwrap()),
            label: None,
        }
    }

    #[test]
    fn groups_give_roles_each_once_and_else_there_is_the_default() {
        let given = |default, groups: Option<Value>| {
            let roles = roles(&settings(default), groups.as_ref());
            roles
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            given(None, Some(json!(["ops", "root", "admins", 7]))),
            "admin operator"
        );
        assert_eq!(given(Some("viewer"), Some(json!("ops"))), "operator");
        assert_eq!(given(Some("viewer"), Some(json!(["others"]))), "viewer");
        assert_eq!(given(None, Some(json!({"ops": true}))), "");
        assert_eq!(given(None, None), "");
    }

    #[test]
    fn a_secret_is_the_line_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        assert!(matches!(ClientSecret::read(&path), Err(SecretError::Read { .. })));
        std::fs::write(&path, " \n").unwrap();
        assert!(matches!(ClientSecret::read(&path), Err(SecretError::Empty(_))));
        std::fs::write(&path, "swordfish\n").unwrap();
        let secret = ClientSecret::read(&path).unwrap();
        assert_eq!(secret.0, "swordfish");
        assert!(!format!("{secret:?}").contains("swordfish"));
    }
}
