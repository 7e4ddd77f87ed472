//! Who calls, and what they may do: users, passwords, sessions, tokens, one-time links.

pub mod guesses;
pub mod password;
pub mod secret;

use crate::db::list::Listing;
use crate::db::{Db, DbError, access as rows, now};
use guesses::Guesses;
use password::PasswordError;
use secret::{NoRandom, Secret, hash};
use shared::access::{CreateToken, Me, NewToken, Privilege, Token, User};
use shared::api::{ListQuery, TokenPage};
use shared::{Code, Name, SessionId, Status, Timestamp, TokenId, UserId};
use std::sync::Arc;
use std::time::Instant;

/// How long a session lives without being used, in microseconds.
const SESSION_IDLE: i64 = 7 * DAY;
/// How long a session lives at all, in microseconds.
const SESSION_WHOLE: i64 = 30 * DAY;
/// A session's end is put off at most this often, in microseconds: not every request writes.
const SESSION_STEP: i64 = DAY / 24;
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
    Token(TokenId, Name),
}

/// Who calls.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The user.
    pub user: User,
    /// Whether the user has a password.
    pub has_password: bool,
    /// What the caller may do.
    pub privileges: Arc<[Privilege]>,
    /// How the caller has shown who they are.
    pub via: Via,
}

impl Caller {
    fn new(row: rows::UserRow, via: Via) -> Self {
        Self {
            user: row.user,
            has_password: row.password_hash.is_some(),
            // Everybody is an administrator until there are roles.
            privileges: Privilege::ALL.into(),
            via,
        }
    }

    /// Whether the caller may do this.
    pub fn may(&self, privilege: Privilege) -> bool {
        self.privileges.contains(&privilege)
    }

    /// The name that is written down with what they do: of the user, or of the user and the token.
    pub fn label(&self) -> String {
        match &self.via {
            Via::Session(_) => self.user.name.to_string(),
            Via::Token(_, name) => format!("{}/{name}", self.user.name),
        }
    }

    /// As the API tells it.
    pub fn me(&self) -> Me {
        Me {
            user: self.user.clone(),
            privileges: self.privileges.to_vec(),
            has_password: self.has_password,
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

/// A session that has just begun.
pub struct SignedIn {
    /// What the cookie holds.
    pub secret: Secret,
    /// Who it is.
    pub user: User,
}

/// How long a browser keeps a session's cookie, in seconds.
pub const COOKIE_SECONDS: i64 = SESSION_WHOLE / 1_000_000;

/// Access to the server.
#[derive(Clone)]
pub struct Access {
    db: Db,
    guesses: Arc<Guesses>,
}

impl Access {
    /// Of this database.
    pub fn new(db: Db) -> Self {
        Self {
            db,
            guesses: Arc::default(),
        }
    }

    async fn conn(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Sqlite>> {
        Ok(self
            .db
            .read()
            .acquire()
            .await
            .map_err(crate::db::sql("give a connection"))?)
    }

    /// Who holds this session, if it lives. Being used, it lives longer.
    pub async fn by_session(&self, secret: &str) -> Result<Option<Caller>> {
        let now = now();
        let Some(row) = rows::find_session(&mut *self.conn().await?, &hash(secret), now).await? else {
            return Ok(None);
        };
        let end = now
            .plus_micros(SESSION_IDLE)
            .min(row.create_time.plus_micros(SESSION_WHOLE));
        if end.since(row.expire_time) > SESSION_STEP {
            let id = row.id;
            self.db
                .write(move |tx| Box::pin(async move { rows::extend_session(tx.conn(), id, end).await }))
                .await?;
        }
        Ok(Some(Caller::new(row.user, Via::Session(row.id))))
    }

    /// Who holds this token, if it lives. Its use is noted to the minute.
    pub async fn by_token(&self, secret: &str) -> Result<Option<Caller>> {
        let Some(row) = rows::find_token(&mut *self.conn().await?, &hash(secret)).await? else {
            return Ok(None);
        };
        let minute = now().micros() / MINUTE * MINUTE;
        let (id, minute) = (row.token.id, Timestamp::from_micros(minute));
        if row.token.last_used_time.is_none_or(|t| t < minute) {
            self.db
                .write(move |tx| Box::pin(async move { rows::touch_token(tx, id, minute).await }))
                .await?;
        }
        Ok(Some(Caller::new(row.user, Via::Token(id, row.token.name))))
    }

    /// Whether a caller's session or token still lives.
    pub async fn still(&self, caller: &Caller) -> Result<bool> {
        let mut conn = self.conn().await?;
        Ok(match &caller.via {
            Via::Session(id) => rows::session_lives(&mut conn, *id, now()).await?,
            Via::Token(id, _) => rows::token_lives(&mut conn, *id).await?,
        })
    }

    /// Signs in by name and password; `Err` is what to tell.
    pub async fn sign_in(&self, name: &str, password: String) -> Result<SignedIn> {
        if let Err(wait) = self.guesses.attempt(name, Instant::now()) {
            return Err(Status::new(
                Code::ResourceExhausted,
                format!(
                    "too many wrong passwords for {name}: wait {} seconds",
                    wait.as_secs().max(1)
                ),
            )
            .into());
        }
        let row = rows::find_user(&mut *self.conn().await?, name).await?;
        let kept = row.as_ref().and_then(|r| r.password_hash.clone());
        match (password::verify(password, kept).await?, row) {
            (true, Some(row)) => {
                self.guesses.right(name);
                self.begin(row.user).await
            }
            _ => Err(Status::new(Code::Unauthenticated, "the name or the password is wrong").into()),
        }
    }

    /// Signs in by a one-time link, the first time; later there is nobody behind it.
    pub async fn redeem(&self, link: &str) -> Result<Option<SignedIn>> {
        let (hash, now) = (hash(link), now());
        let user = self
            .db
            .write(move |tx| {
                Box::pin(async move {
                    let Some(id) = rows::take_link(tx.conn(), &hash, now).await? else {
                        return Ok(None);
                    };
                    rows::user(tx.conn(), id).await
                })
            })
            .await?;
        match user {
            None => Ok(None),
            Some(row) => Ok(Some(self.begin(row.user).await?)),
        }
    }

    /// Begins a session under a fresh secret, whatever the browser had before.
    async fn begin(&self, user: User) -> Result<SignedIn> {
        let secret = Secret::new("")?;
        let (hash, user_id, now) = (secret.hash(), user.id, now());
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    rows::delete_expired(tx.conn(), now).await?;
                    let id = SessionId(uuid::Uuid::now_v7());
                    let end = now.plus_micros(SESSION_IDLE);
                    rows::insert_session(tx.conn(), id, &hash, user_id, now, end).await
                })
            })
            .await?;
        Ok(SignedIn { secret, user })
    }

    /// Ends the session behind a cookie.
    pub async fn sign_out(&self, secret: &str) -> Result<()> {
        let hash = hash(secret);
        self.db
            .write(move |tx| Box::pin(async move { rows::delete_session(tx.conn(), &hash).await }))
            .await?;
        Ok(())
    }

    /// Sets the caller's password; their other sessions end.
    pub async fn set_password(&self, caller: &Caller, password: String) -> Result<()> {
        password::check(&password)?;
        let kept = password::hash(password).await?;
        let user = caller.user.id;
        let keep = match caller.via {
            Via::Session(id) => Some(id),
            Via::Token(..) => None,
        };
        self.db
            .write(move |tx| Box::pin(async move { rows::set_password(tx.conn(), user, &kept, keep).await }))
            .await?;
        Ok(())
    }

    /// The caller's tokens.
    pub async fn list_tokens(&self, caller: &Caller, query: &ListQuery) -> Result<TokenPage> {
        let listing = Listing::parse(query, rows::TOKEN_FIELDS, "name")?;
        let page = rows::list_tokens(&self.db, caller.user.id, listing).await?;
        Ok(TokenPage {
            tokens: page.items,
            next_page_token: page.next,
            total_size: page.total,
        })
    }

    /// Makes a token for the caller.
    pub async fn create_token(&self, caller: &Caller, request: CreateToken) -> Result<NewToken> {
        let (new, kept) = new_token(request.name)?;
        let (token, user) = (new.token.clone(), caller.user.id);
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    rows::insert_token(tx.conn(), &token, user, &kept).await?;
                    tx.changed(shared::feed::Noun::Token, token.id, false);
                    Ok(())
                })
            })
            .await?;
        Ok(new)
    }

    /// Takes a token of the caller's back.
    pub async fn delete_token(&self, caller: &Caller, id: &str) -> Result<()> {
        let (user, id, now) = (caller.user.id, id.to_owned(), now());
        self.db
            .write(move |tx| Box::pin(async move { rows::delete_token(tx, user, &id, now).await }))
            .await?;
        Ok(())
    }

    /// On a database without users: adds `admin`, and answers a one-time link for them.
    pub async fn first_start(&self) -> Result<Option<Secret>> {
        let link = Secret::new("")?;
        let kept = link.hash();
        let made =
            self.db
                .write(move |tx| {
                    Box::pin(async move {
                        if rows::count_users(tx.conn()).await? > 0 {
                            return Ok(false);
                        }
                        let user =
                            new_user("admin".parse().map_err(|e: shared::NameError| {
                                Status::new(Code::Internal, e.to_string())
                            })?);
                        rows::insert_user(tx.conn(), &user, None).await?;
                        let end = now().plus_micros(LINK_LIFE);
                        rows::insert_link(tx.conn(), &kept, user.id, end).await?;
                        Ok(true)
                    })
                })
                .await?;
        Ok(made.then_some(link))
    }
}

fn new_user(name: Name) -> User {
    User {
        id: UserId(uuid::Uuid::now_v7()),
        name,
        create_time: now(),
    }
}

fn new_token(name: Name) -> Result<(NewToken, String)> {
    let secret = Secret::new("ofs_")?;
    let token = Token {
        id: TokenId(uuid::Uuid::now_v7()),
        name,
        create_time: now(),
        last_used_time: None,
    };
    let kept = secret.hash();
    Ok((
        NewToken {
            token,
            secret: secret.expose().to_owned(),
        },
        kept,
    ))
}

/// What the command line does on the database itself, beside a running server: nothing here is told by the feed,
/// whose generations belong to the server's own writer.
impl Access {
    /// Adds a user, with a password or without.
    pub async fn add_user(&self, name: Name, password: Option<String>) -> Result<User> {
        let kept = match password {
            None => None,
            Some(password) => {
                password::check(&password)?;
                Some(password::hash(password).await?)
            }
        };
        let user = new_user(name);
        let row = user.clone();
        self.db
            .write(move |tx| {
                Box::pin(async move { rows::insert_user(tx.conn(), &row, kept.as_deref()).await })
            })
            .await?;
        Ok(user)
    }

    /// Sets a user's password and ends all their sessions.
    pub async fn reset_password(&self, name: &Name, password: String) -> Result<()> {
        password::check(&password)?;
        let user = self.known(name).await?.id;
        let kept = password::hash(password).await?;
        self.db
            .write(move |tx| Box::pin(async move { rows::set_password(tx.conn(), user, &kept, None).await }))
            .await?;
        Ok(())
    }

    /// Makes a one-time link for a user.
    pub async fn link(&self, name: &Name) -> Result<Secret> {
        let user = self.known(name).await?.id;
        let link = Secret::new("")?;
        let (kept, end) = (link.hash(), now().plus_micros(LINK_LIFE));
        self.db
            .write(move |tx| Box::pin(async move { rows::insert_link(tx.conn(), &kept, user, end).await }))
            .await?;
        Ok(link)
    }

    /// Makes a token for a user.
    pub async fn token_for(&self, user: &Name, name: Name) -> Result<NewToken> {
        let user = self.known(user).await?.id;
        let (new, kept) = new_token(name)?;
        let token = new.token.clone();
        self.db
            .write(move |tx| {
                Box::pin(async move { rows::insert_token(tx.conn(), &token, user, &kept).await })
            })
            .await?;
        Ok(new)
    }

    async fn known(&self, name: &Name) -> Result<User> {
        let row = rows::find_user(&mut *self.conn().await?, name.as_str()).await?;
        Ok(row.ok_or_else(|| Status::not_found("user", name))?.user)
    }
}
