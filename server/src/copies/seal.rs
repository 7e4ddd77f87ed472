//! What is secret and must be used again is kept sealed by a key that is a file of the data directory: a copy of the database
//! alone opens nothing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Name of the key's file.
const FILE: &str = "secrets.key";
/// Bytes of the key.
const KEY: usize = 32;

/// Why something sealed cannot be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SealError {
    #[error("read or make the key of secrets, {path}")]
    File { path: PathBuf, source: io::Error },
    #[error(
        "the key of secrets, {0}, is not as it was made: put it back, or remove it and give the secrets anew"
    )]
    Key(PathBuf),
    #[error(
        "what is sealed for {0} does not open: secrets.key of the data directory is another, or the database was changed"
    )]
    Closed(String),
    #[error("no randomness is to be had from the system")]
    Random,
}

/// Seals and opens.
#[derive(Clone)]
pub struct Sealer {
    key: std::sync::Arc<LessSafeKey>,
}

impl Sealer {
    /// That of a data directory; the key is made where none is.
    pub fn open(data_dir: &Path) -> Result<Self, SealError> {
        let path = data_dir.join(FILE);
        let file = |source| SealError::File {
            path: path.clone(),
            source,
        };
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => make(&path).map_err(file)?,
            Err(e) => return Err(file(e)),
        };
        let key = hex::decode(bytes.trim_ascii())
            .ok()
            .filter(|key| key.len() == KEY);
        let key = key.and_then(|key| UnboundKey::new(&AES_256_GCM, &key).ok());
        let key = key.ok_or_else(|| SealError::Key(path.clone()))?;
        Ok(Self {
            key: std::sync::Arc::new(LessSafeKey::new(key)),
        })
    }

    /// Seals something for a use, which has to be named to open it.
    pub fn seal(&self, what: &str, plain: &[u8]) -> Result<String, SealError> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| SealError::Random)?;
        let mut sealed = plain.to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(what.as_bytes()),
                &mut sealed,
            )
            .map_err(|_| SealError::Closed(what.to_owned()))?;
        Ok(BASE64.encode([&nonce[..], &sealed].concat()))
    }

    /// Opens what was sealed for this use.
    pub fn open_sealed(&self, what: &str, sealed: &str) -> Result<Vec<u8>, SealError> {
        let closed = || SealError::Closed(what.to_owned());
        let bytes = BASE64.decode(sealed).map_err(|_| closed())?;
        let (nonce, body) = bytes.split_first_chunk::<NONCE_LEN>().ok_or_else(closed)?;
        let mut body = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self
            .key
            .open_in_place(nonce, Aad::from(what.as_bytes()), &mut body);
        Ok(plain.map_err(|_| closed())?.to_vec())
    }
}

/// Makes the key, on the disk for certain before anything is sealed by it.
fn make(path: &Path) -> io::Result<Vec<u8>> {
    let mut key = [0; KEY];
    getrandom::fill(&mut key).map_err(|e| io::Error::other(e.to_string()))?;
    let text = hex::encode(key).into_bytes();
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(&text)?;
    file.sync_all()?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_for_its_use_alone() {
        let dir = tempfile::tempdir().unwrap();
        let sealer = Sealer::open(dir.path()).unwrap();
        let sealed = sealer.seal("one", b"secret").unwrap();
        assert!(!sealed.contains("secret"));
        assert_ne!(sealed, sealer.seal("one", b"secret").unwrap());
        assert_eq!(sealer.open_sealed("one", &sealed).unwrap(), b"secret");
        assert!(sealer.open_sealed("two", &sealed).is_err());
        for at in [0, 20, sealed.len() - 1] {
            let mut bad = sealed.clone().into_bytes();
            bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
            let bad = String::from_utf8(bad).unwrap();
            assert!(sealer.open_sealed("one", &bad).is_err(), "at {at}");
        }
        // The next start finds the key.
        let again = Sealer::open(dir.path()).unwrap();
        assert_eq!(again.open_sealed("one", &sealed).unwrap(), b"secret");
        std::fs::write(dir.path().join(FILE), "short").unwrap();
        assert!(matches!(Sealer::open(dir.path()), Err(SealError::Key(_))));
    }
}
