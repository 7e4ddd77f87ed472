//! ID tokens: who signed them, for whom, and for which sign-in. What they say is checked by `jsonwebtoken`, their
//! signatures by ring.

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::signature::{Error as SignatureError, Verifier};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, Validation, decode, decode_header,
};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::{Map, Value};

/// How far the clocks of the provider and of this server may be apart, in seconds.
const LEEWAY: u64 = 30;

/// What a token says.
pub type Claims = Map<String, Value>;

/// What a token must say.
pub struct Expected<'a> {
    /// Who made it.
    pub issuer: &'a str,
    /// For whom.
    pub client_id: &'a str,
    /// For which sign-in.
    pub nonce: &'a str,
}

/// Why a token is not believed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TokenError {
    #[error("the provider's ID token is not signed in a way that is known here")]
    Unreadable(#[source] Error),
    #[error("the provider's ID token is signed by {0:?}, which everybody can do who knows the shared secret")]
    Shared(Algorithm),
    #[error(
        "the provider's ID token is signed with the key {0:?}, which is not among those that it publishes"
    )]
    UnknownKey(String),
    #[error("the provider's ID token is refused")]
    Refused(#[source] Error),
    #[error("the provider's ID token is for another sign-in: its nonce is another")]
    Nonce,
    #[error("the provider's ID token was made for {0:?}, not for this server")]
    Party(String),
    #[error("the provider's ID token does not say who it is about")]
    Subject,
}

/// What a token says, if it is to be believed.
pub fn verify(token: &str, keys: &JwkSet, expected: &Expected<'_>) -> Result<Claims, TokenError> {
    use_ring();
    // A token without a signature (`none`) ends here.
    let header = decode_header(token).map_err(TokenError::Unreadable)?;
    if header.alg.family() == AlgorithmFamily::Hmac {
        return Err(TokenError::Shared(header.alg));
    }
    let key = key_of(keys, header.alg, header.kid.as_deref())?;
    let key = DecodingKey::from_jwk(key).map_err(TokenError::Refused)?;
    let mut validation = Validation::new(header.alg);
    validation.leeway = LEEWAY;
    validation.validate_nbf = true;
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.set_issuer(&[expected.issuer]);
    validation.set_audience(&[expected.client_id]);
    let claims: Claims = decode(token, &key, &validation)
        .map_err(TokenError::Refused)?
        .claims;
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    // The crate takes a list as well, which could have others in it.
    if text("iss") != Some(expected.issuer) {
        return Err(TokenError::Refused(ErrorKind::InvalidIssuer.into()));
    }
    if text("nonce") != Some(expected.nonce) {
        return Err(TokenError::Nonce);
    }
    // One that others accept too says to whom it was given.
    let several = claims
        .get("aud")
        .and_then(Value::as_array)
        .is_some_and(|a| a.len() > 1);
    match claims.get("azp") {
        None if !several => {}
        party if party.and_then(Value::as_str) == Some(expected.client_id) => {}
        party => return Err(TokenError::Party(party.map(Value::to_string).unwrap_or_default())),
    }
    match text("sub") {
        Some(subject) if !subject.is_empty() && subject.len() <= shared::can::limit::SUBJECT_BYTES => {}
        _ => return Err(TokenError::Subject),
    }
    Ok(claims)
}

/// The key that a token says it is signed with; without a word of it, the only one that it can be.
fn key_of<'k>(keys: &'k JwkSet, algorithm: Algorithm, id: Option<&str>) -> Result<&'k Jwk, TokenError> {
    let unknown = || TokenError::UnknownKey(id.unwrap_or_default().to_owned());
    let mut fitting = keys
        .keys
        .iter()
        .filter(|key| fits(key, algorithm) && (id.is_none() || key.common.key_id.as_deref() == id));
    match (fitting.next(), fitting.next()) {
        (Some(key), None) => Ok(key),
        _ => Err(unknown()),
    }
}

fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    if matches!(&key.common.public_key_use, Some(used) if *used != PublicKeyUse::Signature) {
        return false;
    }
    if matches!(key.common.key_algorithm, Some(own) if own != KeyAlgorithm::from(algorithm)) {
        return false;
    }
    match (&key.algorithm, algorithm) {
        (AlgorithmParameters::RSA(_), _) => algorithm.family() == AlgorithmFamily::Rsa,
        (AlgorithmParameters::EllipticCurve(ec), Algorithm::ES256) => ec.curve == EllipticCurve::P256,
        (AlgorithmParameters::EllipticCurve(ec), Algorithm::ES384) => ec.curve == EllipticCurve::P384,
        (AlgorithmParameters::OctetKeyPair(okp), Algorithm::EdDSA) => okp.curve == EllipticCurve::Ed25519,
        _ => false,
    }
}

/// Has signatures checked by ring, which TLS is spoken with anyway. Said again it is no change.
fn use_ring() {
    static RING: CryptoProvider = CryptoProvider {
        // Nothing is signed here.
        signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
        verifier_factory: |algorithm, key| {
            Ok(Box::new(ByRing {
                algorithm: *algorithm,
                key: key.clone(),
            }))
        },
        key_utils: KeyUtils::new_unimplemented(),
    };
    _ = RING.install_default();
}

/// A key, and how it is used.
struct ByRing {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for ByRing {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for ByRing {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        let right = match (self.algorithm, self.key.kind()) {
            (algorithm, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                let how = rsa(algorithm).ok_or_else(SignatureError::new)?;
                // Some write a zero before the first digit, which ring does not take.
                let n = n.strip_prefix(&[0]).unwrap_or(n);
                RsaPublicKeyComponents { n, e }.verify(how, message, signature)
            }
            (algorithm, DecodingKeyKind::SecretOrDer(key)) => {
                let how = curve(algorithm).ok_or_else(SignatureError::new)?;
                UnparsedPublicKey::new(how, key).verify(message, signature)
            }
        };
        right.map_err(|_| SignatureError::new())
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::RS256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

fn curve(algorithm: Algorithm) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match algorithm {
        Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED,
        Algorithm::ES384 => &ECDSA_P384_SHA384_FIXED,
        Algorithm::EdDSA => &ED25519,
        _ => return None,
    })
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
