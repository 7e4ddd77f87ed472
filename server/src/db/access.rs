//! Sessions, tokens and one-time links. Of every secret there is only its hash.
//!
//! Only what takes a `Tx` is told by the feed: `offshoot user` and `offshoot token` run beside a server, and the
//! feed's generations belong to that server's writer.

use super::list::{By, Field, Listing, Page};
use super::users::{USER, UserRow, read_user};
use super::{Db, DbError, Tx, sql, time, time_opt, word, word_opt};
use shared::access::{Session, Token};
use shared::feed::Noun;
use shared::{Code, RoleId, SessionId, Status, Timestamp, TokenId, UserId};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

/// A session with its user.
pub struct SessionRow {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub user: UserRow,
    /// When it was signed in.
    pub create_time: Timestamp,
    /// When it ends by itself.
    pub expire_time: Timestamp,
}

/// A token with its user.
pub struct TokenRow {
    /// The token.
    pub token: Token,
    /// The role that it is confined to.
    pub role: Option<RoleId>,
    /// Whose it is.
    pub user: UserRow,
}

fn read_token(row: &SqliteRow) -> Result<Token, DbError> {
    Ok(Token {
        id: word(row, "id")?,
        name: word(row, "name")?,
        create_time: time(row, "create_time")?,
        last_used_time: time_opt(row, "last_used_time")?,
        role: word_opt(row, "role_name")?,
        expire_time: time_opt(row, "expire_time")?,
    })
}

/// Begins a session.
pub async fn insert_session(
    conn: &mut SqliteConnection,
    session: &Session,
    hash: &str,
    user: UserId,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO sessions (id, hash, user_id, create_time, expire_time, address, user_agent)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(session.id.to_string())
    .bind(hash)
    .bind(user.to_string())
    .bind(session.create_time.micros())
    .bind(session.expire_time.micros())
    .bind(&session.address)
    .bind(&session.user_agent)
    .execute(&mut *conn)
    .await
    .map_err(sql("begin a session"))?;
    sqlx::query("UPDATE users SET last_sign_in_time = $2 WHERE id = $1")
        .bind(user.to_string())
        .bind(session.create_time.micros())
        .execute(conn)
        .await
        .map_err(sql("note a sign-in"))?;
    Ok(())
}

/// A user's living sessions, the newest first.
pub async fn sessions(
    conn: &mut SqliteConnection,
    user: UserId,
    now: Timestamp,
) -> Result<Vec<Session>, DbError> {
    let rows = sqlx::query(
        "SELECT id, create_time, expire_time, address, user_agent FROM sessions
         WHERE user_id = $1 AND expire_time > $2 ORDER BY create_time DESC",
    )
    .bind(user.to_string())
    .bind(now.micros())
    .fetch_all(conn)
    .await
    .map_err(sql("read sessions"))?;
    rows.iter()
        .map(|row| {
            Ok(Session {
                id: word(row, "id")?,
                address: row.get("address"),
                user_agent: row.get("user_agent"),
                create_time: time(row, "create_time")?,
                expire_time: time(row, "expire_time")?,
                current: false,
            })
        })
        .collect()
}

/// Ends a session of a user; NOT_FOUND if there is none.
pub async fn end_session(conn: &mut SqliteConnection, user: UserId, id: &str) -> Result<(), DbError> {
    let done = sqlx::query("DELETE FROM sessions WHERE id = $1 AND user_id = $2")
        .bind(id)
        .bind(user.to_string())
        .execute(conn)
        .await
        .map_err(sql("end a session"))?;
    if done.rows_affected() == 0 {
        return Err(Status::not_found("session", id).into());
    }
    Ok(())
}

/// Ends the sessions of a user but one, and takes one-time links back.
pub async fn end_sessions(
    conn: &mut SqliteConnection,
    user: UserId,
    keep: Option<SessionId>,
) -> Result<(), DbError> {
    sqlx::query("DELETE FROM sessions WHERE user_id = $1 AND id <> $2")
        .bind(user.to_string())
        .bind(keep.map(|k| k.to_string()).unwrap_or_default())
        .execute(&mut *conn)
        .await
        .map_err(sql("end a user's sessions"))?;
    sqlx::query("DELETE FROM login_links WHERE user_id = $1")
        .bind(user.to_string())
        .execute(conn)
        .await
        .map_err(sql("take one-time links back"))?;
    Ok(())
}

/// The living session behind a hash.
pub async fn find_session(
    conn: &mut SqliteConnection,
    hash: &str,
    now: Timestamp,
) -> Result<Option<SessionRow>, DbError> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT sessions.id, sessions.create_time, sessions.expire_time, {USER}
         FROM sessions JOIN users ON users.id = sessions.user_id
         WHERE sessions.hash = $1 AND sessions.expire_time > $2"
    )))
    .bind(hash)
    .bind(now.micros())
    .fetch_optional(conn)
    .await
    .map_err(sql("read a session"))?;
    row.map(|row| {
        Ok(SessionRow {
            id: word(&row, "id")?,
            user: read_user(&row)?,
            create_time: time(&row, "create_time")?,
            expire_time: time(&row, "expire_time")?,
        })
    })
    .transpose()
}

/// Puts the end of a session off.
pub async fn extend_session(
    conn: &mut SqliteConnection,
    id: SessionId,
    expire_time: Timestamp,
) -> Result<(), DbError> {
    sqlx::query("UPDATE sessions SET expire_time = $2 WHERE id = $1 AND expire_time < $2")
        .bind(id.to_string())
        .bind(expire_time.micros())
        .execute(conn)
        .await
        .map_err(sql("put the end of a session off"))?;
    Ok(())
}

/// Ends a session.
pub async fn delete_session(conn: &mut SqliteConnection, hash: &str) -> Result<(), DbError> {
    sqlx::query("DELETE FROM sessions WHERE hash = $1")
        .bind(hash)
        .execute(conn)
        .await
        .map_err(sql("end a session"))?;
    Ok(())
}

/// Removes sessions and links that have expired.
pub async fn delete_expired(conn: &mut SqliteConnection, now: Timestamp) -> Result<(), DbError> {
    for statement in [
        "DELETE FROM sessions WHERE expire_time <= $1",
        "DELETE FROM login_links WHERE expire_time <= $1",
    ] {
        sqlx::query(statement)
            .bind(now.micros())
            .execute(&mut *conn)
            .await
            .map_err(sql("remove what has expired"))?;
    }
    Ok(())
}

/// Keeps a one-time link.
pub async fn insert_link(
    conn: &mut SqliteConnection,
    hash: &str,
    user: UserId,
    expire_time: Timestamp,
) -> Result<(), DbError> {
    sqlx::query("INSERT INTO login_links (hash, user_id, expire_time) VALUES ($1, $2, $3)")
        .bind(hash)
        .bind(user.to_string())
        .bind(expire_time.micros())
        .execute(conn)
        .await
        .map_err(sql("keep a one-time link"))?;
    Ok(())
}

/// Takes a one-time link: whose it was, the first time only.
pub async fn take_link(
    conn: &mut SqliteConnection,
    hash: &str,
    now: Timestamp,
) -> Result<Option<UserId>, DbError> {
    let row = sqlx::query("DELETE FROM login_links WHERE hash = $1 AND expire_time > $2 RETURNING user_id")
        .bind(hash)
        .bind(now.micros())
        .fetch_optional(conn)
        .await
        .map_err(sql("take a one-time link"))?;
    row.as_ref().map(|row| word(row, "user_id")).transpose()
}

/// Makes a token.
pub async fn insert_token(
    conn: &mut SqliteConnection,
    token: &Token,
    role: Option<RoleId>,
    user: UserId,
    hash: &str,
) -> Result<(), DbError> {
    let done = sqlx::query(
        "INSERT INTO tokens (id, user_id, name, hash, create_time, role_id, expire_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(token.id.to_string())
    .bind(user.to_string())
    .bind(token.name.as_str())
    .bind(hash)
    .bind(token.create_time.micros())
    .bind(role.map(|r| r.to_string()))
    .bind(token.expire_time.map(Timestamp::micros))
    .execute(conn)
    .await;
    super::taken("token", &token.name, done)?;
    Ok(())
}

/// The token behind a hash, unless it was taken back; one that has ended is here as well.
pub async fn find_token(conn: &mut SqliteConnection, hash: &str) -> Result<Option<TokenRow>, DbError> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT tokens.id, tokens.name, tokens.create_time, tokens.last_used_time, tokens.expire_time, tokens.role_id,
             roles.name AS role_name, {USER}
         FROM tokens JOIN users ON users.id = tokens.user_id LEFT JOIN roles ON roles.id = tokens.role_id
         WHERE tokens.hash = $1 AND tokens.delete_time IS NULL"
    )))
    .bind(hash)
    .fetch_optional(conn)
    .await
    .map_err(sql("read a token"))?;
    row.map(|row| {
        Ok(TokenRow {
            token: read_token(&row)?,
            role: word_opt(&row, "role_id")?,
            user: read_user(&row)?,
        })
    })
    .transpose()
}

/// The living token with this id.
pub async fn token(db: &Db, id: &str) -> Result<Option<Token>, DbError> {
    let row = sqlx::query(
        "SELECT tokens.*, roles.name AS role_name FROM tokens LEFT JOIN roles ON roles.id = tokens.role_id
         WHERE tokens.id = $1 AND tokens.delete_time IS NULL",
    )
    .bind(id)
    .fetch_optional(db.read())
    .await
    .map_err(sql("read a token"))?;
    row.as_ref().map(read_token).transpose()
}

/// The hash behind a living session or token: what it is looked up by when it is asked again whether it lives.
pub async fn hash_of(conn: &mut SqliteConnection, table: Kept, id: &str) -> Result<Option<String>, DbError> {
    let row = sqlx::query(match table {
        Kept::Sessions => "SELECT hash FROM sessions WHERE id = $1",
        Kept::Tokens => "SELECT hash FROM tokens WHERE id = $1 AND delete_time IS NULL",
    })
    .bind(id)
    .fetch_optional(conn)
    .await
    .map_err(sql("read what lets in"))?;
    Ok(row.map(|row| row.get("hash")))
}

/// What lets somebody in.
#[derive(Clone, Copy, Debug)]
pub enum Kept {
    /// Sessions.
    Sessions,
    /// Tokens.
    Tokens,
}

/// Whose token it is, or was.
pub async fn owner_of_token(db: &Db, id: &str) -> Result<Option<UserId>, DbError> {
    let row = sqlx::query("SELECT user_id FROM tokens WHERE id = $1")
        .bind(id)
        .fetch_optional(db.read())
        .await
        .map_err(sql("read a token"))?;
    row.as_ref().map(|row| word(row, "user_id")).transpose()
}

/// Notes that a token was used, to the minute.
pub async fn touch_token(tx: &mut Tx, id: TokenId, minute: Timestamp) -> Result<(), DbError> {
    let done = sqlx::query(
        "UPDATE tokens SET last_used_time = $2
         WHERE id = $1 AND delete_time IS NULL AND COALESCE(last_used_time, 0) < $2",
    )
    .bind(id.to_string())
    .bind(minute.micros())
    .execute(tx.conn())
    .await
    .map_err(sql("note the use of a token"))?;
    if done.rows_affected() > 0 {
        tx.changed(Noun::Token, id, false);
    }
    Ok(())
}

/// Takes a user's token back; NOT_FOUND if the user has no such token.
pub async fn delete_token(tx: &mut Tx, user: UserId, id: &str, now: Timestamp) -> Result<(), DbError> {
    let done = sqlx::query(
        "UPDATE tokens SET delete_time = $3 WHERE id = $1 AND user_id = $2 AND delete_time IS NULL",
    )
    .bind(id)
    .bind(user.to_string())
    .bind(now.micros())
    .execute(tx.conn())
    .await
    .map_err(sql("take a token back"))?;
    if done.rows_affected() == 0 {
        return Err(Status::new(Code::NotFound, format!("you have no token with the id {id}")).into());
    }
    tx.changed(Noun::Token, id, true);
    Ok(())
}

/// What tokens may be listed by.
pub const TOKEN_FIELDS: &[Field] = &[
    Field {
        name: "name",
        column: "tokens.name",
        by: By::Text,
    },
    Field {
        name: "createTime",
        column: "tokens.create_time",
        by: By::Number,
    },
];

/// A page of a user's tokens.
pub async fn list_tokens(db: &Db, user: UserId, mut listing: Listing) -> Result<Page<Token>, DbError> {
    listing.only("tokens.user_id", user);
    let from = "FROM tokens WHERE tokens.delete_time IS NULL";
    let select =
        "SELECT tokens.*, roles.name AS role_name FROM tokens LEFT JOIN roles ON roles.id = tokens.role_id
         WHERE tokens.delete_time IS NULL";
    listing.run(db, select, from, "tokens.id", read_token).await
}
