//! An OpenID Connect provider that says whatever a test wants, with real keys.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::task::JoinHandle;

pub const CLIENT: &str = "offshoot";
pub const SECRET: &str = "sword & fish";

/// A key with its id.
pub struct Key {
    pub id: &'static str,
    pair: EcdsaKeyPair,
}

impl Key {
    pub fn new(id: &'static str) -> Self {
        let (random, how) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let document = EcdsaKeyPair::generate_pkcs8(how, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(how, document.as_ref(), &random).unwrap();
        Self { id, pair }
    }

    /// As the provider publishes it.
    pub fn public(&self) -> Value {
        let point = &self.pair.public_key().as_ref()[1..];
        let part = |at: usize| URL_SAFE_NO_PAD.encode(&point[at..at + 32]);
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.id, "x": part(0), "y": part(32)})
    }

    fn sign(&self, text: &str) -> Vec<u8> {
        let signature = self.pair.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
        signature.as_ref().to_vec()
    }
}

/// What a token is signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signs {
    /// With the key.
    Key,
    /// With nothing: `alg` is `none`.
    Nothing,
    /// With the secret that it shares with the server.
    Secret,
}

/// What it says, and what it was asked.
pub struct Says {
    pub key: Key,
    pub published: Vec<Value>,
    pub signs: Signs,
    /// Of the person, in the token.
    pub person: Value,
    /// Of the person, when asked.
    pub more: Value,
    /// What the token says otherwise; null takes a claim out.
    pub instead: Value,
    /// Of the sign-in that was begun last.
    pub nonce: String,
    pub challenge: String,
    pub redirect: String,
    /// Whether it gives no tokens at the moment.
    pub broken: bool,
    /// How often it was asked for tokens, and for keys.
    pub trades: usize,
    pub key_reads: usize,
}

pub struct Idp {
    pub issuer: String,
    says: Arc<Mutex<Says>>,
    serving: JoinHandle<()>,
}

#[derive(Clone)]
struct Place {
    issuer: String,
    says: Arc<Mutex<Says>>,
}

impl Place {
    fn says(&self) -> MutexGuard<'_, Says> {
        self.says.lock().unwrap()
    }
}

impl Idp {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let key = Key::new("one");
        let says = Arc::new(Mutex::new(Says {
            published: vec![key.public()],
            key,
            signs: Signs::Key,
            person: json!({"sub": "s-eve", "preferred_username": "eve", "groups": ["crew"]}),
            more: json!({}),
            instead: json!({}),
            nonce: String::new(),
            challenge: String::new(),
            redirect: String::new(),
            broken: false,
            trades: 0,
            key_reads: 0,
        }));
        let place = Place {
            issuer: issuer.clone(),
            says: says.clone(),
        };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys))
            .route("/token", post(token))
            .route("/me", get(me))
            .with_state(place);
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            issuer,
            says,
            serving,
        }
    }

    pub fn says(&self) -> MutexGuard<'_, Says> {
        self.says.lock().unwrap()
    }

    /// From now on nobody answers who has not been asked yet: connections that stand go on.
    pub async fn go_away(self) {
        self.serving.abort();
        assert!(self.serving.await.unwrap_err().is_cancelled());
    }
}

async fn discovery(State(place): State<Place>) -> Json<Value> {
    let at = |path: &str| format!("{}{path}", place.issuer);
    Json(json!({
        "issuer": place.issuer,
        "authorization_endpoint": at("/auth"),
        "token_endpoint": at("/token"),
        "jwks_uri": at("/keys"),
        "userinfo_endpoint": at("/me"),
    }))
}

async fn keys(State(place): State<Place>) -> Json<Value> {
    let mut says = place.says();
    says.key_reads += 1;
    Json(json!({"keys": says.published}))
}

async fn me(State(place): State<Place>, headers: HeaderMap) -> Result<Json<Value>, StatusCode> {
    if headers["authorization"] != "Bearer for-more" {
        return Err(StatusCode::UNAUTHORIZED);
    }
    Ok(Json(place.says().more.clone()))
}

/// Trades a code as the standard has it: for who has the secret, and has begun the sign-in.
async fn token(
    State(place): State<Place>,
    headers: HeaderMap,
    body: String,
) -> Result<Json<Value>, (StatusCode, Json<Value>)> {
    let refuse = |http, error: &str| Err((http, Json(json!({"error": error}))));
    let form: HashMap<String, String> = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let mut says = place.says();
    if says.broken {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
    }
    says.trades += 1;
    // Both are encoded before they are put together (RFC 6749, 2.3.1).
    let who = format!("Basic {}", STANDARD.encode(format!("{CLIENT}:sword+%26+fish")));
    if headers["authorization"] != who.as_str() {
        return refuse(StatusCode::UNAUTHORIZED, "invalid_client");
    }
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&form["code_verifier"]));
    let right = form["grant_type"] == "authorization_code" && form["redirect_uri"] == says.redirect;
    if !right || form["code"] != "good" || challenge != says.challenge {
        return refuse(StatusCode::BAD_REQUEST, "invalid_grant");
    }
    Ok(Json(json!({
        "token_type": "Bearer",
        "access_token": "for-more",
        "id_token": signed(&place.issuer, &says),
    })))
}

fn signed(issuer: &str, says: &Says) -> String {
    let now = server::db::now().micros() / 1_000_000;
    let mut claims = json!({"iss": issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": says.nonce});
    let all = claims.as_object_mut().unwrap();
    for other in [&says.person, &says.instead] {
        all.extend(other.as_object().unwrap().clone());
    }
    all.retain(|_, value| !value.is_null());
    let algorithm = match says.signs {
        Signs::Key => "ES256",
        Signs::Nothing => "none",
        Signs::Secret => "HS256",
    };
    let head = json!({"alg": algorithm, "kid": says.key.id});
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", encode(&head), encode(&claims));
    let signature = match says.signs {
        Signs::Key => says.key.sign(&text),
        Signs::Nothing => Vec::new(),
        Signs::Secret => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
            hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
        }
    };
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}
