//! The vault's key, and how it is wrapped; what is sealed with it.

use crate::Id;
use crate::error::{Error, Result};
use age::secrecy::SecretString;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{Read, Write};
use uuid::Uuid;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// What a sealed piece is longer than its plain one.
pub const TAG: usize = 16;

/// What every sealed object begins with.
const SEALED: &[u8; 8] = b"OVSEAL01";

/// The key of a vault. Every other key comes of it, by BLAKE3's `derive_key`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Key([u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// What a vault's key is wrapped with.
#[derive(Clone)]
pub enum Wrapping {
    /// Words that people keep.
    Passphrase(String),
    /// The public half of an age key, `age1…`.
    Recipient(String),
}

/// What opens a vault's key.
#[derive(Clone)]
pub enum Opening {
    /// Words that people keep.
    Passphrase(String),
    /// The secret half of an age key, `AGE-SECRET-KEY-1…`.
    Identity(String),
    /// The key itself, as it was opened once.
    Key(Key),
}

/// What an object below `keys/` has within.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(rename_all = "camelCase")]
struct Wrapped {
    #[zeroize(skip)]
    vault: Uuid,
    key: String,
}

impl Key {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(random())
    }

    /// The key of these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes, for somebody who seals them.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Wraps it, for `vault`: an age file.
    pub(crate) fn wrap(&self, vault: Uuid, wrapping: &Wrapping) -> Result<Vec<u8>> {
        let encryptor = match wrapping {
            Wrapping::Passphrase(words) if words.is_empty() => {
                return Err(Error::BadKey("a passphrase has at least one letter".into()));
            }
            Wrapping::Passphrase(words) => {
                age::Encryptor::with_user_passphrase(SecretString::from(words.clone()))
            }
            Wrapping::Recipient(recipient) => {
                let recipient: age::x25519::Recipient = recipient
                    .trim()
                    .parse()
                    .map_err(|e| Error::BadKey(format!("that is no age recipient (age1…): {e}")))?;
                age::Encryptor::with_recipients([&recipient as &dyn age::Recipient].into_iter())
                    .map_err(|e| Error::BadKey(e.to_string()))?
            }
        };
        let plain = Wrapped {
            vault,
            key: hex::encode(self.0),
        };
        let mut wrapped = Vec::new();
        let write = (|| {
            let mut writer = encryptor.wrap_output(&mut wrapped)?;
            serde_json::to_writer(&mut writer, &plain)?;
            writer.flush()?;
            writer.finish().map(drop)
        })();
        write.map_err(|e| Error::BadKey(format!("the key could not be wrapped: {e}")))?;
        Ok(wrapped)
    }

    /// Opens one that was wrapped; `None` if it is not for this opening.
    pub(crate) fn unwrap(name: &str, wrapped: &[u8], vault: Uuid, opening: &Opening) -> Result<Option<Self>> {
        let damaged = |why: String| Error::damaged(name, why);
        let decryptor = age::Decryptor::new(wrapped).map_err(|e| damaged(e.to_string()))?;
        let opened = match opening {
            Opening::Key(key) => return Ok(Some(key.clone())),
            Opening::Passphrase(words) if decryptor.is_scrypt() => {
                let mut identity = age::scrypt::Identity::new(SecretString::from(words.clone()));
                // What a damaged or hostile header asks for must not stop the program for hours.
                identity.set_max_work_factor(22);
                decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity))
            }
            Opening::Identity(identity) if !decryptor.is_scrypt() => {
                let identity: age::x25519::Identity = identity.trim().parse().map_err(|e| {
                    Error::BadKey(format!("that is no age identity (AGE-SECRET-KEY-1…): {e}"))
                })?;
                decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity))
            }
            Opening::Passphrase(_) | Opening::Identity(_) => return Ok(None),
        };
        let mut reader = match opened {
            Ok(reader) => reader,
            Err(age::DecryptError::NoMatchingKeys | age::DecryptError::DecryptionFailed) => return Ok(None),
            Err(e) => return Err(damaged(e.to_string())),
        };
        let mut plain = Vec::new();
        reader
            .read_to_end(&mut plain)
            .map_err(|e| damaged(e.to_string()))?;
        let within: Wrapped = serde_json::from_slice(&plain).map_err(|e| damaged(e.to_string()))?;
        plain.zeroize();
        if within.vault != vault {
            return Err(damaged(format!(
                "it is the key of another vault, {}",
                within.vault
            )));
        }
        let mut key = [0; 32];
        hex::decode_to_slice(&within.key, &mut key).map_err(|e| damaged(e.to_string()))?;
        Ok(Some(Self(key)))
    }

    fn derive(&self, context: &str) -> [u8; 32] {
        blake3::derive_key(context, &self.0)
    }

    /// What says that `config` is as it was written.
    pub(crate) fn authenticate(&self, config: &[u8]) -> [u8; 32] {
        blake3::keyed_hash(&self.derive("offshoot vault 1 config"), config).into()
    }
}

/// Seals and opens everything in a vault, and names its chunks.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Seals {
    chunks: [u8; 32],
    tables: [u8; 32],
    packs: [u8; 32],
    objects: [u8; 32],
}

impl Seals {
    pub(crate) fn new(key: &Key) -> Self {
        Self {
            chunks: key.derive("offshoot vault 1 chunk id"),
            tables: key.derive("offshoot vault 1 table id"),
            packs: key.derive("offshoot vault 1 pack"),
            objects: key.derive("offshoot vault 1 object"),
        }
    }

    /// The name of a chunk of a disk.
    pub(crate) fn chunk(&self, plain: &[u8]) -> Id {
        Id(blake3::keyed_hash(&self.chunks, plain).into())
    }

    /// The name of a piece of a disk's table.
    pub(crate) fn table(&self, plain: &[u8]) -> Id {
        Id(blake3::keyed_hash(&self.tables, plain).into())
    }

    /// What seals the records of one pack.
    pub(crate) fn pack(&self, pack: Uuid) -> Seal {
        Seal::new(blake3::keyed_hash(&self.packs, pack.as_bytes()).into())
    }

    fn object(&self, name: &str) -> Seal {
        Seal::new(blake3::keyed_hash(&self.objects, name.as_bytes()).into())
    }

    /// An object of this name with these bytes within.
    pub(crate) fn seal_object(&self, name: &str, plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = random();
        let mut sealed = Vec::with_capacity(SEALED.len() + NONCE_LEN + plain.len() + TAG);
        sealed.extend(SEALED);
        sealed.extend(nonce);
        sealed.extend(plain);
        let at = SEALED.len() + NONCE_LEN;
        self.object(name).seal_from(nonce, SEALED, &mut sealed, at);
        sealed
    }

    /// What is within an object of this name.
    pub(crate) fn open_object(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>> {
        let damaged = |why: &str| Error::damaged(name, why);
        let (magic, rest) = sealed
            .split_first_chunk()
            .ok_or_else(|| damaged("it is too short"))?;
        if magic != SEALED {
            return Err(damaged("it does not begin as it must"));
        }
        let (nonce, sealed) = rest
            .split_first_chunk::<NONCE_LEN>()
            .ok_or_else(|| damaged("it is too short"))?;
        let mut plain = sealed.to_vec();
        let opened = self.object(name).open(*nonce, SEALED, &mut plain);
        let length = opened.ok_or_else(|| damaged("its seal is broken"))?.len();
        plain.truncate(length);
        Ok(plain)
    }
}

/// AES-256-GCM with one key.
pub(crate) struct Seal(LessSafeKey);

impl Seal {
    fn new(key: [u8; 32]) -> Self {
        // Fails only for a key of another length.
        #[allow(clippy::unwrap_used)]
        Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap()))
    }

    /// Seals what a buffer has from `at` on, in place, and puts the tag behind it.
    pub(crate) fn seal_from(&self, nonce: [u8; NONCE_LEN], about: &[u8], buffer: &mut Vec<u8>, at: usize) {
        let plain = buffer.get_mut(at..).unwrap_or_default();
        // Fails only for 64 GiB and more.
        #[allow(clippy::unwrap_used)]
        let tag = self
            .0
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(about), plain)
            .unwrap();
        buffer.extend(tag.as_ref());
    }

    /// Opens a buffer in place; `None` if its seal is broken.
    pub(crate) fn open<'b>(
        &self,
        nonce: [u8; NONCE_LEN],
        about: &[u8],
        buffer: &'b mut [u8],
    ) -> Option<&'b [u8]> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.0.open_in_place(nonce, Aad::from(about), buffer);
        opened.ok().map(|plain| &*plain)
    }
}

/// Random bytes of the system.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Fails only where the system has no randomness, and nothing could be kept secret there.
    #[allow(clippy::unwrap_used)]
    SystemRandom::new().fill(&mut bytes).unwrap();
    bytes
}
