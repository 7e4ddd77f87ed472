//! Secrets that the server hands out and keeps only as hashes, but for those that it signs with.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;

/// 256 random bits as text. Not printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// The system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct NoRandom(#[source] getrandom::Error);

impl Secret {
    /// A new one, behind a prefix that tells people and scanners what it is.
    pub fn new(prefix: &str) -> Result<Self, NoRandom> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(NoRandom)?;
        Ok(Self(format!("{prefix}{}", hex::encode(bytes))))
    }

    /// A new one to sign posts with, as the Standard Webhooks specification writes it.
    pub fn for_webhook() -> Result<Self, NoRandom> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(NoRandom)?;
        Ok(Self(format!("whsec_{}", STANDARD.encode(bytes))))
    }

    /// The text, to hand out once.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn hash(&self) -> String {
        hash(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What is kept of a secret. It has 256 random bits, so a fast hash without salt does; a look-up by the hash
/// tells nothing by its timing.
pub fn hash(secret: &str) -> String {
    blake3::hash(secret.as_bytes()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_the_same_and_none_is_printed() {
        let (a, b) = (Secret::new("ofs_").unwrap(), Secret::new("ofs_").unwrap());
        assert_ne!(a, b);
        assert_eq!(a.expose().len(), 4 + 64);
        assert!(!format!("{a:?}").contains(a.expose()));
        assert_ne!(a.hash(), a.expose());
    }
}
