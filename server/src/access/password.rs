//! Passwords: Argon2id, off the async threads, a few at a time since each takes 19 MiB.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use shared::Status;
use std::sync::OnceLock;
use tokio::sync::Semaphore;

/// Fewest characters of a password.
pub const MIN_CHARACTERS: usize = 10;
/// Most bytes of a password: Argon2 would take more, a server should not.
pub const MAX_BYTES: usize = 1024;

static AT_ONCE: Semaphore = Semaphore::const_new(2);

/// Hashing a password went wrong.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PasswordError {
    #[error("hashing a password failed")]
    Hash(#[from] argon2::password_hash::Error),
    #[error("the thread that hashed a password ended")]
    Thread(#[from] tokio::task::JoinError),
    #[error("no more passwords are hashed")]
    Closed(#[from] tokio::sync::AcquireError),
}

/// Whether this may be somebody's password.
pub fn check(password: &str) -> Result<(), Status> {
    if password.chars().count() < MIN_CHARACTERS {
        return Err(Status::invalid(
            "password",
            format_args!("it has fewer than {MIN_CHARACTERS} characters"),
        ));
    }
    if password.len() > MAX_BYTES {
        return Err(Status::invalid(
            "password",
            format_args!("it has more than {MAX_BYTES} bytes"),
        ));
    }
    Ok(())
}

async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, argon2::password_hash::Error> + Send + 'static,
) -> Result<T, PasswordError> {
    let _turn = AT_ONCE.acquire().await?;
    Ok(tokio::task::spawn_blocking(work).await??)
}

fn hash_now(password: &str) -> Result<String, argon2::password_hash::Error> {
    let hash: PasswordHash = Argon2::default().hash_password(password.as_bytes())?;
    Ok(hash.to_string())
}

/// The hash to keep, as a PHC string.
pub async fn hash(password: String) -> Result<String, PasswordError> {
    apart(move || hash_now(&password)).await
}

/// Whether the password is the one behind the hash. Without a hash it takes as long and says no, so that an answer's
/// time does not tell which users there are.
pub async fn verify(password: String, hash: Option<String>) -> Result<bool, PasswordError> {
    static NOBODYS: OnceLock<String> = OnceLock::new();
    if password.len() > MAX_BYTES {
        return Ok(false);
    }
    apart(move || {
        let known = hash.is_some();
        let hash = match &hash {
            Some(hash) => hash,
            None => match NOBODYS.get() {
                Some(hash) => hash,
                None => {
                    let made = hash_now("nobody's password")?;
                    NOBODYS.get_or_init(|| made)
                }
            },
        };
        let right = Argon2::default()
            .verify_password(password.as_bytes(), &PasswordHash::new(hash)?)
            .is_ok();
        Ok(known && right)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_is_right() {
        let kept = hash("correct horse".into()).await.unwrap();
        assert!(kept.starts_with("$argon2id$") && !kept.contains("horse"));
        assert!(verify("correct horse".into(), Some(kept.clone())).await.unwrap());
        assert!(!verify("wrong horse".into(), Some(kept)).await.unwrap());
        assert!(!verify("nobody's password".into(), None).await.unwrap());
    }

    #[test]
    fn a_short_password_is_refused_by_name() {
        assert_eq!(check("short").unwrap_err().field(), Some("password"));
        assert!(check(&"x".repeat(MAX_BYTES + 1)).is_err());
        assert!(check("long enough").is_ok());
    }
}
