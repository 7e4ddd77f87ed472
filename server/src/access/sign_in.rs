//! Signing in: by name and password or by a one-time link, and then by a code where the user wants to be asked for one.

use super::secret::{Secret, hash};
use super::{Access, DAY, Result, password};
use crate::db::{access as rows, now, users};
use shared::access::{Session, User};
use shared::{Code, SessionId, Status};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a session lives without being used, in microseconds.
pub(super) const SESSION_IDLE: i64 = 7 * DAY;
/// How long a session lives at all, in microseconds.
pub(super) const SESSION_WHOLE: i64 = 30 * DAY;
/// How long a browser keeps a session's cookie, in seconds.
pub const COOKIE_SECONDS: i64 = SESSION_WHOLE / 1_000_000;
/// How long there is to give a code, in seconds.
pub const TICKET_SECONDS: i64 = 300;
/// Most who are being asked for a code.
const TICKETS: usize = 4096;
/// Most bytes that are kept of what a browser says it is.
const AGENT_BYTES: usize = 256;

/// Where a sign-in comes from.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The address.
    pub address: String,
    /// What the browser says it is.
    pub user_agent: String,
}

/// A session that has just begun.
pub struct SignedIn {
    /// What the cookie holds.
    pub secret: Secret,
    /// Who it is.
    pub user: User,
}

/// How far somebody has come in.
pub enum Entry {
    /// All the way.
    In(SignedIn),
    /// A code is still to be given, with this ticket.
    Code {
        /// What the cookie holds meanwhile.
        ticket: Secret,
        /// Who it would be.
        user: User,
    },
}

/// Who has shown a password or a link and is asked for a code, by the hash of their ticket. A restart forgets them.
#[derive(Debug, Default)]
pub struct Tickets(Mutex<HashMap<String, (User, Instant)>>);

impl Tickets {
    fn live(since: Instant) -> bool {
        since.elapsed() < Duration::from_secs(TICKET_SECONDS.unsigned_abs())
    }

    fn keep(&self, ticket: &Secret, user: User) -> std::result::Result<(), Status> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (_, since)| Self::live(*since));
        if all.len() >= TICKETS {
            let why = "too many are signing in: try again in some minutes";
            return Err(Status::new(Code::ResourceExhausted, why));
        }
        all.insert(ticket.hash(), (user, Instant::now()));
        Ok(())
    }

    fn of(&self, ticket: &str) -> Option<User> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (user, since) = all.get(&hash(ticket))?;
        Self::live(*since).then(|| user.clone())
    }

    fn end(&self, ticket: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&hash(ticket));
    }
}

/// Refuses a user who is kept out.
pub(super) fn disabled(user: &User) -> Status {
    let why = format!(
        "{} may not sign in: an administrator has disabled the user",
        user.name
    );
    Status::new(Code::Unauthenticated, why)
}

fn too_many(what: &str, name: &str, wait: Duration) -> Status {
    let seconds = wait.as_secs().max(1);
    let why = format!("too many wrong {what} for {name}: wait {seconds} seconds");
    Status::new(Code::ResourceExhausted, why)
}

impl Access {
    /// Signs in by name and password; `Err` is what to tell.
    pub async fn sign_in(&self, name: &str, password: String, from: &Origin) -> Result<Entry> {
        if let Err(wait) = self.guesses.attempt(name, Instant::now()) {
            return Err(too_many("passwords", name, wait).into());
        }
        let address = format!("from {}", from.address);
        // Whoever tries one password with many names.
        if let Err(wait) = self
            .guesses
            .attempt_of(&address, super::guesses::FREE_OF_ADDRESS, Instant::now())
        {
            return Err(too_many("passwords", &address, wait).into());
        }
        let row = self.found(name).await?;
        // Found by the name alone.
        let row = row.filter(|r| r.user.name.as_str() == name);
        let kept = row.as_ref().and_then(|r| r.password_hash.clone());
        match (password::verify(password, kept).await?, row) {
            (true, Some(row)) => {
                self.guesses.right(name);
                self.guesses.right(&address);
                self.enter(row.user, from).await
            }
            _ => Err(Status::new(Code::Unauthenticated, "the name or the password is wrong").into()),
        }
    }

    /// Signs in by a one-time link, the first time; later there is nobody behind it.
    pub async fn redeem(&self, link: &str, from: &Origin) -> Result<Option<Entry>> {
        let (hash, now) = (hash(link), now());
        let user = self
            .db
            .write(move |tx| {
                Box::pin(async move {
                    let Some(id) = rows::take_link(tx.conn(), &hash, now).await? else {
                        return Ok(None);
                    };
                    users::find(tx.conn(), &id.to_string()).await
                })
            })
            .await?;
        match user {
            None => Ok(None),
            Some(row) => Ok(Some(self.enter(row.user, from).await?)),
        }
    }

    /// Lets somebody in who has shown a password or a link, or asks for a code.
    async fn enter(&self, user: User, from: &Origin) -> Result<Entry> {
        if user.disabled {
            return Err(disabled(&user).into());
        }
        if user.two_factor {
            let ticket = Secret::new("")?;
            self.tickets.keep(&ticket, user.clone())?;
            return Ok(Entry::Code { ticket, user });
        }
        Ok(Entry::In(self.begin(user, from).await?))
    }

    /// Signs in whoever holds this ticket and gives a right code; `Err` has the name where the ticket is known.
    pub async fn give_code(&self, ticket: &str, code: &str, from: &Origin) -> Result<SignedIn> {
        let Some(user) = self.tickets.of(ticket) else {
            let why = "it took too long, or the server was started again: sign in from the beginning";
            return Err(Status::new(Code::FailedPrecondition, why).into());
        };
        let count = format!("code of {}", user.name);
        if let Err(wait) = self.guesses.attempt(&count, Instant::now()) {
            return Err(too_many("codes", user.name.as_str(), wait).into());
        }
        if !self.take_code(user.id, code).await? {
            let why = "the code is wrong, or was used already";
            return Err(Status::new(Code::Unauthenticated, why).into());
        }
        self.guesses.right(&count);
        self.tickets.end(ticket);
        // Meanwhile the user may have been disabled or removed.
        let row = self.found(&user.id.to_string()).await?;
        match row.filter(|r| !r.user.disabled) {
            Some(row) => self.begin(row.user, from).await,
            None => Err(Status::new(Code::Unauthenticated, format!("{} may not sign in", user.name)).into()),
        }
    }

    /// Who is being asked for a code.
    pub fn asked(&self, ticket: &str) -> Option<User> {
        self.tickets.of(ticket)
    }

    /// Begins a session under a fresh secret, whatever the browser had before.
    pub(super) async fn begin(&self, user: User, from: &Origin) -> Result<SignedIn> {
        let secret = Secret::new("")?;
        let (hash, user_id, now) = (secret.hash(), user.id, now());
        let mut user_agent = from.user_agent.clone();
        user_agent.truncate(user_agent.floor_char_boundary(AGENT_BYTES));
        let session = Session {
            id: SessionId(uuid::Uuid::now_v7()),
            address: from.address.clone(),
            user_agent,
            create_time: now,
            expire_time: now.plus_micros(SESSION_IDLE),
            current: false,
        };
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    rows::delete_expired(tx.conn(), now).await?;
                    rows::insert_session(tx.conn(), &session, &hash, user_id).await?;
                    tx.changed(shared::feed::Noun::User, user_id, false);
                    Ok(())
                })
            })
            .await?;
        Ok(SignedIn { secret, user })
    }
}
