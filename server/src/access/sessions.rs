//! Who holds a session or a token, and which sessions there are.

use super::secret::hash;
use super::sign_in::{SESSION_IDLE, SESSION_WHOLE};
use super::{Access, AccessError, Caller, DAY, MINUTE, Result, Via};
use crate::db::access::Kept;
use crate::db::{DbError, access as rows, now, roles, users};
use shared::access::rights::may_manage;
use shared::api::SessionPage;
use shared::{Code, Status, Timestamp, UserId};
use std::sync::Arc;

/// A session's end is put off at most this often, in microseconds: not every request writes.
const SESSION_STEP: i64 = DAY / 24;

impl Access {
    /// Who holds this session, if it lives. Being used, it lives longer.
    pub async fn by_session(&self, secret: &str) -> Result<Option<Caller>> {
        self.session_behind(&hash(secret)).await
    }

    async fn session_behind(&self, hash: &str) -> Result<Option<Caller>> {
        let now = now();
        let found = self.db.reading(async |conn| {
            let Some(row) = rows::find_session(conn, hash, now).await? else {
                return Ok(None);
            };
            let rights = roles::rights(conn, row.user.user.id).await?;
            Ok::<_, DbError>(Some((row, rights)))
        });
        let Some((row, rights)) = found.await?.filter(|(row, _)| !row.user.user.disabled) else {
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
        Ok(Some(Caller {
            user: row.user.user,
            rights: Arc::new(rights),
            via: Via::Session(row.id),
        }))
    }

    /// Who holds this token, if it lives. Its use is noted to the minute.
    pub async fn by_token(&self, secret: &str) -> Result<Option<Caller>> {
        self.token_behind(&hash(secret)).await
    }

    async fn token_behind(&self, hash: &str) -> Result<Option<Caller>> {
        let found = self.db.reading(async |conn| {
            let Some(row) = rows::find_token(conn, hash).await? else {
                return Ok(None);
            };
            let mut rights = roles::rights(conn, row.user.user.id).await?;
            if let Some(role) = row.role {
                let mut privileges = roles::privileges(conn, role).await?;
                privileges.extend(shared::access::rights::EVERYBODY);
                rights = rights.confined_to(&privileges);
            }
            Ok::<_, DbError>(Some((row, rights)))
        });
        let Some((row, rights)) = found.await? else {
            return Ok(None);
        };
        let refuse = |why: String| Err(Status::new(Code::Unauthenticated, why).into());
        let (token, user) = (row.token, row.user.user);
        let now = now();
        if let Some(end) = token.expire_time.filter(|end| *end <= now) {
            return refuse(format!(
                "the token {} of {} ended at {end}: make another",
                token.name, user.name
            ));
        }
        if user.disabled {
            return refuse(format!("{} is disabled, and so are the tokens", user.name));
        }
        let minute = Timestamp::from_micros(now.micros() / MINUTE * MINUTE);
        let id = token.id;
        if token.last_used_time.is_none_or(|t| t < minute) {
            self.db
                .write(move |tx| Box::pin(async move { rows::touch_token(tx, id, minute).await }))
                .await?;
        }
        Ok(Some(Caller {
            user,
            rights: Arc::new(rights),
            via: Via::Token {
                id,
                confined: row.role.is_some() || token.expire_time.is_some(),
                name: token.name,
            },
        }))
    }

    /// The caller as they are now; none if what let them in is no more.
    pub async fn again(&self, caller: &Caller) -> Result<Option<Caller>> {
        let (kept, id) = match &caller.via {
            Via::Session(id) => (Kept::Sessions, id.to_string()),
            Via::Token { id, .. } => (Kept::Tokens, id.to_string()),
        };
        let hash = self.db.reading(async |conn| rows::hash_of(conn, kept, &id).await);
        let Some(hash) = hash.await? else {
            return Ok(None);
        };
        let found = match kept {
            Kept::Sessions => self.session_behind(&hash).await,
            Kept::Tokens => self.token_behind(&hash).await,
        };
        match found {
            Err(AccessError::Refused(_)) => Ok(None),
            found => found,
        }
    }

    /// Ends the session behind a cookie.
    pub async fn sign_out(&self, secret: &str) -> Result<()> {
        let hash = hash(secret);
        self.db
            .write(move |tx| Box::pin(async move { rows::delete_session(tx.conn(), &hash).await }))
            .await?;
        Ok(())
    }

    /// Whose sessions are meant: the caller's own, or those of a user that the caller may manage.
    async fn owner(&self, caller: &Caller, user: Option<&str>) -> Result<UserId> {
        let Some(reference) = user else {
            return Ok(caller.user.id);
        };
        self.db
            .reading(async |conn| {
                let user = users::known(conn, reference).await?;
                may_manage(&caller.rights, &roles::rights(conn, user.id).await?)?;
                Ok(user.id)
            })
            .await
    }

    /// The caller's sessions, or those of a user.
    pub async fn list_sessions(&self, caller: &Caller, user: Option<&str>) -> Result<SessionPage> {
        let owner = self.owner(caller, user).await?;
        let mut sessions = self
            .db
            .reading(async |conn| rows::sessions(conn, owner, now()).await)
            .await?;
        for session in &mut sessions {
            session.current = caller.session() == Some(session.id);
        }
        Ok(SessionPage {
            total_size: sessions.len() as u64,
            sessions,
            next_page_token: String::new(),
        })
    }

    /// Ends a session: the caller's, or that of a user.
    pub async fn end_session(&self, caller: &Caller, user: Option<&str>, id: &str) -> Result<()> {
        caller.must_be_whole()?;
        let (owner, id) = (self.owner(caller, user).await?, id.to_owned());
        self.db
            .write(move |tx| Box::pin(async move { rows::end_session(tx.conn(), owner, &id).await }))
            .await?;
        Ok(())
    }
}
