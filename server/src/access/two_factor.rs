//! The second factor: codes of an authenticator app (TOTP, RFC 6238), and codes to recover with.

use super::secret::{Secret as Random, hash};
use super::{Access, Caller, Result};
use crate::db::{now, users};
use qrcodegen::{QrCode, QrCodeEcc};
use shared::access::{RecoveryCodes, TwoFactorSecret};
use shared::feed::Noun;
use shared::{Code, Name, Status, UserId};
use std::fmt::Write;
use totp_rs::{Builder, Secret, Totp};

/// How many codes there are to recover with.
const RECOVERY_CODES: usize = 10;
/// Letters of a recovery code: 64 bits.
const RECOVERY_LETTERS: usize = 16;
/// White around the picture, in modules, as the standard wants it.
const MARGIN: i32 = 4;

fn fault(why: impl std::fmt::Display) -> Status {
    tracing::error!(%why, "a second factor cannot be computed");
    Status::new(
        Code::Internal,
        "the second factor cannot be computed; the server's log says why",
    )
}

fn totp(secret: &str) -> std::result::Result<Totp, Status> {
    let secret = Secret::try_from_base32(secret).map_err(fault)?;
    Builder::new().with_secret(secret).build().map_err(fault)
}

/// The picture of a text, one rectangle for each module.
fn picture(text: &str) -> std::result::Result<String, Status> {
    let code = QrCode::encode_text(text, QrCodeEcc::Medium).map_err(fault)?;
    let side = code.size() + 2 * MARGIN;
    let mut path = String::new();
    for (y, x) in (0..code.size()).flat_map(|y| (0..code.size()).map(move |x| (y, x))) {
        if code.get_module(x, y) {
            // Writing to a String cannot fail.
            _ = write!(path, "M{},{}h1v1h-1z", x + MARGIN, y + MARGIN);
        }
    }
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\">\
         <path fill=\"#fff\" d=\"M0,0h{side}v{side}h-{side}z\"/><path fill=\"#000\" d=\"{path}\"/></svg>"
    ))
}

/// A recovery code as it is kept: people write it with hyphens, spaces and capitals.
fn recovery_hash(code: &str) -> String {
    let plain: String = code.chars().filter(char::is_ascii_alphanumeric).collect();
    hash(&plain.to_ascii_lowercase())
}

fn told(name: &Name, secret: String) -> std::result::Result<TwoFactorSecret, Status> {
    let url = format!("otpauth://totp/Offshoot:{name}?secret={secret}&issuer=Offshoot");
    let svg = picture(&url)?;
    Ok(TwoFactorSecret { secret, url, svg })
}

impl Access {
    async fn factor(&self, user: UserId) -> Result<Option<users::SecondFactor>> {
        let db = &self.db;
        Ok(db
            .reading(async |conn| users::second_factor(conn, user).await)
            .await?)
    }

    /// Whether a code of this user is right; it is used up then.
    pub(super) async fn take_code(&self, user: UserId, code: &str) -> Result<bool> {
        let digits: String = code.chars().filter(|c| !c.is_whitespace()).collect();
        let Some(factor) = self.factor(user).await? else {
            return Ok(false);
        };
        let seconds = now().micros().unsigned_abs() / 1_000_000;
        // The code of the half minute before is right as well, and that of the next: clocks differ.
        let step = totp(&factor.secret)?.check(&digits, seconds);
        let recovery = recovery_hash(code);
        let taken = self.db.write(move |tx| {
            Box::pin(async move {
                match step {
                    Some(step) => users::use_step(tx.conn(), user, step as i64).await,
                    None => users::use_recovery_code(tx.conn(), user, &recovery).await,
                }
            })
        });
        Ok(taken.await?)
    }

    /// Begins to set a second factor up: nothing is asked for until a code has proved that the app has it.
    pub async fn begin_two_factor(&self, caller: &Caller) -> Result<TwoFactorSecret> {
        caller.must_be_whole()?;
        let user = caller.user.id;
        if self.me(caller).await?.user.two_factor {
            let why = "there is a second factor already: remove it before you set up another";
            return Err(Status::precondition(why).into());
        }
        let mut bytes = [0; 20];
        getrandom::fill(&mut bytes).map_err(fault)?;
        let secret = Secret::from(bytes.to_vec()).to_base32();
        let kept = secret.clone();
        self.db
            .write(move |tx| {
                Box::pin(async move { users::set_second_factor(tx.conn(), user, Some(&kept)).await })
            })
            .await?;
        Ok(told(&caller.user.name, secret)?)
    }

    /// What an app needs to know, while the second factor is being set up.
    pub async fn pending_two_factor(&self, caller: &Caller) -> Result<TwoFactorSecret> {
        let found = self.factor(caller.user.id).await?;
        let found = found.filter(|f| !f.confirmed);
        let factor = found.ok_or_else(|| Status::precondition("no second factor is being set up"))?;
        Ok(told(&caller.user.name, factor.secret)?)
    }

    /// Asks for the second factor from now on, if the code is right; the other sessions end.
    pub async fn confirm_two_factor(&self, caller: &Caller, code: &str) -> Result<RecoveryCodes> {
        caller.must_be_whole()?;
        let (user, keep) = (caller.user.id, caller.session());
        match self.factor(user).await? {
            Some(factor) if !factor.confirmed => {}
            Some(_) => return Err(Status::precondition("the second factor is asked for already").into()),
            None => {
                return Err(Status::precondition("no second factor is being set up: begin with that").into());
            }
        }
        self.checked_code(user, code).await?;
        let mut codes = Vec::with_capacity(RECOVERY_CODES);
        for _ in 0..RECOVERY_CODES {
            let random = Random::new("")?;
            let letters = &random.expose()[..RECOVERY_LETTERS];
            let parts: Vec<_> = (0..RECOVERY_LETTERS / 4)
                .map(|n| &letters[4 * n..4 * n + 4])
                .collect();
            codes.push(parts.join("-"));
        }
        let kept: Vec<_> = codes.iter().map(|code| recovery_hash(code)).collect();
        let done = self.db.write(move |tx| {
            Box::pin(async move {
                users::confirm_second_factor(tx.conn(), user, &kept).await?;
                crate::db::access::end_sessions(tx.conn(), user, keep).await?;
                tx.changed(Noun::User, user, false);
                Ok(())
            })
        });
        done.await?;
        Ok(RecoveryCodes {
            secret: codes.join(" "),
        })
    }

    /// Asks the caller for no second factor any more, if the code is right.
    pub async fn remove_two_factor(&self, caller: &Caller, code: &str) -> Result<()> {
        caller.must_be_whole()?;
        let user = caller.user.id;
        self.checked_code(user, code).await?;
        let done = self.db.write(move |tx| {
            Box::pin(async move {
                users::set_second_factor(tx.conn(), user, None).await?;
                tx.changed(Noun::User, user, false);
                Ok(())
            })
        });
        Ok(done.await?)
    }

    async fn checked_code(&self, user: UserId, code: &str) -> Result<()> {
        let count = format!("code of {user}");
        if let Err(wait) = self.guesses.attempt(&count, std::time::Instant::now()) {
            let why = format!("too many wrong codes: wait {} seconds", wait.as_secs().max(1));
            return Err(Status::new(Code::ResourceExhausted, why).into());
        }
        if !self.take_code(user, code).await? {
            return Err(Status::invalid("code", "it is wrong, or was used already").into());
        }
        self.guesses.right(&count);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_standard() {
        // RFC 6238, appendix B, in six digits.
        let totp = totp("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ").unwrap();
        assert!(totp.check("287082", 59).is_some());
        assert!(totp.check("081804", 1_111_111_109).is_some());
        assert!(totp.check("287082", 1_111_111_109).is_none());
    }

    #[test]
    fn a_recovery_code_is_read_as_people_write_it() {
        assert_eq!(recovery_hash("AB12-cd34"), recovery_hash("ab12 cd34"));
    }

    #[test]
    fn the_picture_has_its_margin() {
        let svg = picture("otpauth://totp/Offshoot:a?secret=GEZDGNBV").unwrap();
        assert!(svg.contains("M4,4h1v1h-1z") && !svg.contains("M3,"), "{svg}");
    }
}
