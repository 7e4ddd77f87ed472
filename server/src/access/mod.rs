//! Who calls, and what they may do: users, roles, passwords, second factors, sessions, tokens, one-time links.

pub mod audit;
mod command_line;
pub mod guesses;
pub mod oidc;
pub mod password;
pub mod reach;
mod roles;
pub mod secret;
mod sessions;
mod sign_in;
mod tokens;
mod two_factor;
mod users;

use crate::db::{Db, DbError, access as rows, now};
use guesses::Guesses;
use password::PasswordError;
use secret::{NoRandom, Secret};
use shared::access::rights::{self, Rights};
use shared::access::{Me, Privilege, User};
use shared::can::Verdict;
use shared::{Code, Name, SessionId, Status, TokenId, UserId, VmId};
use sign_in::Tickets;
pub use sign_in::{COOKIE_SECONDS, Entry, Origin, SignedIn, TICKET_SECONDS};
use std::sync::Arc;

/// How long a one-time link can be used, in microseconds.
const LINK_LIFE: i64 = DAY;
const DAY: i64 = 24 * 60 * 60 * 1_000_000;
const MINUTE: i64 = 60 * 1_000_000;

/// How a caller has shown who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// By the cookie of a session.
    Session(SessionId),
    /// By a token.
    Token {
        /// Its id.
        id: TokenId,
        /// Its name.
        name: Name,
        /// Whether it may do less than its owner, or ends by itself: then it manages nobody's account.
        confined: bool,
    },
}

/// Who calls.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The user.
    pub user: User,
    /// What the caller may do.
    pub rights: Arc<Rights>,
    /// How the caller has shown who they are.
    pub via: Via,
}

impl Caller {
    /// Whether the caller may do this on everything.
    pub fn may(&self, privilege: Privilege) -> bool {
        self.rights.has(privilege, None)
    }

    /// Refuses a caller who may not do this: on a machine, or on everything.
    pub fn must(&self, privilege: Privilege, vm: Option<VmId>) -> Verdict {
        rights::may(&self.label(), &self.rights, privilege, vm)
    }

    /// Refuses a token that may do less than its owner: it could get itself more by what it may manage.
    pub fn must_be_whole(&self) -> Verdict {
        match &self.via {
            Via::Token {
                name, confined: true, ..
            } => Err(Status::new(
                Code::PermissionDenied,
                format!(
                    "the token {name} is confined, and manages no account: sign in, or use a token without a role and an end"
                ),
            )),
            Via::Session(_) | Via::Token { .. } => Ok(()),
        }
    }

    /// The name that is written down with what they do: of the user, or of the user and the token.
    pub fn label(&self) -> String {
        match &self.via {
            Via::Session(_) => self.user.name.to_string(),
            Via::Token { name, .. } => format!("{}/{name}", self.user.name),
        }
    }

    /// The session that stays when the others of the caller end.
    fn session(&self) -> Option<SessionId> {
        match self.via {
            Via::Session(id) => Some(id),
            Via::Token { .. } => None,
        }
    }
}

/// Why access could not be given or managed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum AccessError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Random(#[from] NoRandom),
    #[error(transparent)]
    Refused(#[from] Status),
}

impl From<AccessError> for Status {
    fn from(e: AccessError) -> Self {
        match e {
            AccessError::Refused(status) => status,
            AccessError::Db(e) => e.into(),
            AccessError::Password(_) | AccessError::Random(_) => {
                tracing::error!(error = %crate::db::chain(&e), "access");
                Self::new(
                    Code::Internal,
                    "the server could not check who you are; its log says why",
                )
            }
        }
    }
}

type Result<T> = std::result::Result<T, AccessError>;

/// Access to the server.
#[derive(Clone)]
pub struct Access {
    db: Db,
    guesses: Arc<Guesses>,
    tickets: Arc<Tickets>,
    /// Who is refused without being known.
    pub strangers: audit::Strangers,
}

impl Access {
    /// Of this database.
    pub fn new(db: Db) -> Self {
        Self {
            db,
            guesses: Arc::default(),
            tickets: Arc::default(),
            strangers: audit::Strangers::default(),
        }
    }

    /// The caller as the API tells it.
    pub async fn me(&self, caller: &Caller) -> Result<Me> {
        Ok(Me {
            user: self.user(&caller.user.id.to_string()).await?,
            rights: (*caller.rights).clone(),
        })
    }

    /// On a database without users: adds `admin`, and answers a one-time link for them.
    pub async fn first_start(&self) -> Result<Option<Secret>> {
        let link = Secret::new("")?;
        let kept = link.hash();
        let made = self.db.write(move |tx| {
            Box::pin(async move {
                if crate::db::users::count(tx.conn()).await? > 0 {
                    return Ok(false);
                }
                let name = "admin".parse();
                let user = new_user(
                    name.map_err(|e: shared::NameError| Status::new(Code::Internal, e.to_string()))?,
                );
                crate::db::users::insert(tx.conn(), &user, None).await?;
                crate::db::roles::give(tx.conn(), user.id, rights::ADMIN, None, user.create_time).await?;
                let end = now().plus_micros(LINK_LIFE);
                rows::insert_link(tx.conn(), &kept, user.id, end).await?;
                Ok(true)
            })
        });
        Ok(made.await?.then_some(link))
    }
}

fn new_user(name: Name) -> User {
    User {
        id: UserId(uuid::Uuid::now_v7()),
        name,
        disabled: false,
        has_password: false,
        two_factor: false,
        oidc_subject: None,
        grants: Vec::new(),
        create_time: now(),
        last_sign_in_time: None,
    }
}
