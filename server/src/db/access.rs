//! Users, sessions, tokens and one-time links. Of every secret there is only its hash.
//!
//! Only what takes a `Tx` is told by the feed: `offshoot user` and `offshoot token` run beside a server, and the
//! feed's generations belong to that server's writer.

use super::list::{By, Field, Listing, Page};
use super::{Db, DbError, Tx, sql, time, time_opt, word};
use shared::access::{Token, User};
use shared::feed::Noun;
use shared::{Code, SessionId, Status, Timestamp, TokenId, UserId};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

/// A user with what signing in needs.
#[derive(Clone)]
pub struct UserRow {
    /// The user.
    pub user: User,
    /// The password's PHC string, if there is a password.
    pub password_hash: Option<String>,
}

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
    /// Whose it is.
    pub user: UserRow,
}

const USER: &str = "users.id AS user_id, users.name AS user_name, users.password_hash,
    users.create_time AS user_create_time";

fn read_user(row: &SqliteRow) -> Result<UserRow, DbError> {
    Ok(UserRow {
        user: User {
            id: word(row, "user_id")?,
            name: word(row, "user_name")?,
            create_time: time(row, "user_create_time")?,
        },
        password_hash: row.try_get("password_hash").map_err(sql("read a column"))?,
    })
}

fn read_token(row: &SqliteRow) -> Result<Token, DbError> {
    Ok(Token {
        id: word(row, "id")?,
        name: word(row, "name")?,
        create_time: time(row, "create_time")?,
        last_used_time: time_opt(row, "last_used_time")?,
    })
}

/// How many users there are.
pub async fn count_users(conn: &mut SqliteConnection) -> Result<u64, DbError> {
    let row = sqlx::query("SELECT COUNT(*) AS n FROM users")
        .fetch_one(conn)
        .await
        .map_err(sql("count the users"))?;
    Ok(row.get::<i64, _>("n") as u64)
}

/// Adds a user.
pub async fn insert_user(
    conn: &mut SqliteConnection,
    user: &User,
    password_hash: Option<&str>,
) -> Result<(), DbError> {
    let done =
        sqlx::query("INSERT INTO users (id, name, password_hash, create_time) VALUES ($1, $2, $3, $4)")
            .bind(user.id.to_string())
            .bind(user.name.as_str())
            .bind(password_hash)
            .bind(user.create_time.micros())
            .execute(conn)
            .await;
    super::taken("user", &user.name, done)?;
    Ok(())
}

/// The user of this name.
pub async fn find_user(conn: &mut SqliteConnection, name: &str) -> Result<Option<UserRow>, DbError> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT {USER} FROM users WHERE name = $1"
    )))
    .bind(name)
    .fetch_optional(conn)
    .await
    .map_err(sql("read a user"))?;
    row.as_ref().map(read_user).transpose()
}

/// The user with this id.
pub async fn user(conn: &mut SqliteConnection, id: UserId) -> Result<Option<UserRow>, DbError> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT {USER} FROM users WHERE id = $1"
    )))
    .bind(id.to_string())
    .fetch_optional(conn)
    .await
    .map_err(sql("read a user"))?;
    row.as_ref().map(read_user).transpose()
}

/// Sets a user's password, and ends the user's sessions but one.
pub async fn set_password(
    conn: &mut SqliteConnection,
    user: UserId,
    password_hash: &str,
    keep: Option<SessionId>,
) -> Result<(), DbError> {
    sqlx::query("UPDATE users SET password_hash = $2 WHERE id = $1")
        .bind(user.to_string())
        .bind(password_hash)
        .execute(&mut *conn)
        .await
        .map_err(sql("set a password"))?;
    sqlx::query("DELETE FROM sessions WHERE user_id = $1 AND id <> $2")
        .bind(user.to_string())
        .bind(keep.map(|k| k.to_string()).unwrap_or_default())
        .execute(conn)
        .await
        .map_err(sql("end a user's sessions"))?;
    Ok(())
}

/// Begins a session.
pub async fn insert_session(
    conn: &mut SqliteConnection,
    id: SessionId,
    hash: &str,
    user: UserId,
    create_time: Timestamp,
    expire_time: Timestamp,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO sessions (id, hash, user_id, create_time, expire_time) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(id.to_string())
    .bind(hash)
    .bind(user.to_string())
    .bind(create_time.micros())
    .bind(expire_time.micros())
    .execute(conn)
    .await
    .map_err(sql("begin a session"))?;
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

/// Whether a session lives.
pub async fn session_lives(
    conn: &mut SqliteConnection,
    id: SessionId,
    now: Timestamp,
) -> Result<bool, DbError> {
    let row = sqlx::query("SELECT 1 FROM sessions WHERE id = $1 AND expire_time > $2")
        .bind(id.to_string())
        .bind(now.micros())
        .fetch_optional(conn)
        .await
        .map_err(sql("read a session"))?;
    Ok(row.is_some())
}

/// Whether a token lives.
pub async fn token_lives(conn: &mut SqliteConnection, id: TokenId) -> Result<bool, DbError> {
    let row = sqlx::query("SELECT 1 FROM tokens WHERE id = $1 AND delete_time IS NULL")
        .bind(id.to_string())
        .fetch_optional(conn)
        .await
        .map_err(sql("read a token"))?;
    Ok(row.is_some())
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
    user: UserId,
    hash: &str,
) -> Result<(), DbError> {
    let done =
        sqlx::query("INSERT INTO tokens (id, user_id, name, hash, create_time) VALUES ($1, $2, $3, $4, $5)")
            .bind(token.id.to_string())
            .bind(user.to_string())
            .bind(token.name.as_str())
            .bind(hash)
            .bind(token.create_time.micros())
            .execute(conn)
            .await;
    super::taken("token", &token.name, done)?;
    Ok(())
}

/// The living token behind a hash.
pub async fn find_token(conn: &mut SqliteConnection, hash: &str) -> Result<Option<TokenRow>, DbError> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT tokens.id, tokens.name, tokens.create_time, tokens.last_used_time, {USER}
         FROM tokens JOIN users ON users.id = tokens.user_id
         WHERE tokens.hash = $1 AND tokens.delete_time IS NULL"
    )))
    .bind(hash)
    .fetch_optional(conn)
    .await
    .map_err(sql("read a token"))?;
    row.map(|row| {
        Ok(TokenRow {
            token: read_token(&row)?,
            user: read_user(&row)?,
        })
    })
    .transpose()
}

/// The living token with this id.
pub async fn token(db: &Db, id: &str) -> Result<Option<Token>, DbError> {
    let row = sqlx::query("SELECT * FROM tokens WHERE id = $1 AND delete_time IS NULL")
        .bind(id)
        .fetch_optional(db.read())
        .await
        .map_err(sql("read a token"))?;
    row.as_ref().map(read_token).transpose()
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
    let select = "SELECT tokens.* FROM tokens WHERE tokens.delete_time IS NULL";
    listing.run(db, select, from, "tokens.id", read_token).await
}
