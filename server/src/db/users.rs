//! Users, and what they sign in with.

use super::list::{By, Field, Listing, Page};
use super::{Db, DbError, Tx, sql, time, time_opt, word};
use shared::access::User;
use shared::feed::Noun;
use shared::{Name, Status, UserId};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use std::collections::HashMap;

/// A user with what signing in needs.
#[derive(Clone)]
pub struct UserRow {
    /// The user; without the grants where only who it is matters.
    pub user: User,
    /// The password's PHC string, if there is a password.
    pub password_hash: Option<String>,
}

/// A user's second factor.
pub struct SecondFactor {
    /// The secret, in base 32.
    pub secret: String,
    /// Whether a code has proved it.
    pub confirmed: bool,
}

pub(super) const USER: &str =
    "users.id AS user_id, users.name AS user_name, users.password_hash, users.disabled,
    users.totp_confirmed, users.last_sign_in_time, users.create_time AS user_create_time,
    (SELECT subject FROM identities WHERE identities.user_id = users.id) AS oidc_subject";

pub(super) fn read_user(row: &SqliteRow) -> Result<UserRow, DbError> {
    let password_hash: Option<String> = row.try_get("password_hash").map_err(sql("read a column"))?;
    Ok(UserRow {
        user: User {
            id: word(row, "user_id")?,
            name: word(row, "user_name")?,
            disabled: row.get::<i64, _>("disabled") != 0,
            has_password: password_hash.is_some(),
            two_factor: row.get::<i64, _>("totp_confirmed") != 0,
            oidc_subject: row.try_get("oidc_subject").map_err(sql("read a column"))?,
            grants: Vec::new(),
            create_time: time(row, "user_create_time")?,
            last_sign_in_time: time_opt(row, "last_sign_in_time")?,
        },
        password_hash,
    })
}

/// How many users there are.
pub async fn count(conn: &mut SqliteConnection) -> Result<u64, DbError> {
    let row = sqlx::query("SELECT COUNT(*) AS n FROM users")
        .fetch_one(conn)
        .await
        .map_err(sql("count the users"))?;
    Ok(row.get::<i64, _>("n") as u64)
}

/// Adds a user.
pub async fn insert(
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

/// The user with this name or id, with grants.
pub async fn find(conn: &mut SqliteConnection, reference: &str) -> Result<Option<UserRow>, DbError> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT {USER} FROM users WHERE name = $1 OR id = $1"
    )))
    .bind(reference)
    .fetch_optional(&mut *conn)
    .await
    .map_err(sql("read a user"))?;
    let Some(row) = row else { return Ok(None) };
    let mut found = read_user(&row)?;
    found.user.grants = super::roles::grants(conn, found.user.id).await?;
    Ok(Some(found))
}

/// The user with this name or id, or NOT_FOUND.
pub async fn known(conn: &mut SqliteConnection, reference: &str) -> Result<User, DbError> {
    let found = find(conn, reference).await?;
    Ok(found.ok_or_else(|| Status::not_found("user", reference))?.user)
}

/// What users may be listed by.
pub const FIELDS: &[Field] = &[
    Field {
        name: "name",
        column: "users.name",
        by: By::Text,
    },
    Field {
        name: "createTime",
        column: "users.create_time",
        by: By::Number,
    },
    Field {
        name: "disabled",
        column: "users.disabled",
        by: By::Exact,
    },
];

/// A page of users, with their grants.
pub async fn list(db: &Db, listing: &Listing) -> Result<Page<User>, DbError> {
    let select =
        "SELECT users.id, users.name, users.create_time, users.id AS user_id, users.name AS user_name,
        users.password_hash, users.disabled, users.totp_confirmed, users.last_sign_in_time,
        users.create_time AS user_create_time,
        (SELECT subject FROM identities WHERE identities.user_id = users.id) AS oidc_subject FROM users WHERE 1 = 1";
    let mut page = listing
        .run(db, select, "FROM users WHERE 1 = 1", "users.id", |row| {
            Ok(read_user(row)?.user)
        })
        .await?;
    let mut grants: HashMap<UserId, _> = super::roles::all_grants(db).await?;
    for user in &mut page.items {
        user.grants = grants.remove(&user.id).unwrap_or_default();
    }
    Ok(page)
}

/// Gives a user another name.
pub async fn rename(tx: &mut Tx, id: UserId, name: &Name) -> Result<(), DbError> {
    let done = sqlx::query("UPDATE users SET name = $2 WHERE id = $1")
        .bind(id.to_string())
        .bind(name.as_str())
        .execute(tx.conn())
        .await;
    super::taken("user", name, done)?;
    tx.changed(Noun::User, id, false);
    Ok(())
}

/// Keeps a user out, or lets the user in again.
pub async fn set_disabled(tx: &mut Tx, id: UserId, disabled: bool) -> Result<(), DbError> {
    sqlx::query("UPDATE users SET disabled = $2 WHERE id = $1")
        .bind(id.to_string())
        .bind(i64::from(disabled))
        .execute(tx.conn())
        .await
        .map_err(sql("keep a user out"))?;
    tx.changed(Noun::User, id, false);
    Ok(())
}

/// Removes a user with all that is the user's.
pub async fn delete(tx: &mut Tx, id: UserId) -> Result<(), DbError> {
    sqlx::query("DELETE FROM users WHERE id = $1")
        .bind(id.to_string())
        .execute(tx.conn())
        .await
        .map_err(sql("remove a user"))?;
    tx.changed(Noun::User, id, true);
    Ok(())
}

/// Sets a user's password.
pub async fn set_password(
    conn: &mut SqliteConnection,
    user: UserId,
    password_hash: &str,
) -> Result<(), DbError> {
    sqlx::query("UPDATE users SET password_hash = $2 WHERE id = $1")
        .bind(user.to_string())
        .bind(password_hash)
        .execute(conn)
        .await
        .map_err(sql("set a password"))?;
    Ok(())
}

/// A user's second factor, also one that is still being set up.
pub async fn second_factor(
    conn: &mut SqliteConnection,
    user: UserId,
) -> Result<Option<SecondFactor>, DbError> {
    let row = sqlx::query("SELECT totp_secret, totp_confirmed FROM users WHERE id = $1")
        .bind(user.to_string())
        .fetch_optional(conn)
        .await
        .map_err(sql("read a second factor"))?;
    Ok(row.and_then(|row| {
        Some(SecondFactor {
            secret: row.get::<Option<String>, _>("totp_secret")?,
            confirmed: row.get::<i64, _>("totp_confirmed") != 0,
        })
    }))
}

/// Keeps the secret of a second factor that is being set up, or takes it away with the codes to recover.
pub async fn set_second_factor(
    conn: &mut SqliteConnection,
    user: UserId,
    secret: Option<&str>,
) -> Result<(), DbError> {
    sqlx::query("UPDATE users SET totp_secret = $2, totp_confirmed = 0, totp_last_step = 0 WHERE id = $1")
        .bind(user.to_string())
        .bind(secret)
        .execute(&mut *conn)
        .await
        .map_err(sql("set a second factor"))?;
    sqlx::query("DELETE FROM recovery_codes WHERE user_id = $1")
        .bind(user.to_string())
        .execute(conn)
        .await
        .map_err(sql("take recovery codes away"))?;
    Ok(())
}

/// Asks for the second factor from now on, with these codes to recover.
pub async fn confirm_second_factor(
    conn: &mut SqliteConnection,
    user: UserId,
    recovery: &[String],
) -> Result<(), DbError> {
    sqlx::query("UPDATE users SET totp_confirmed = 1 WHERE id = $1")
        .bind(user.to_string())
        .execute(&mut *conn)
        .await
        .map_err(sql("confirm a second factor"))?;
    for hash in recovery {
        sqlx::query("INSERT INTO recovery_codes (user_id, hash) VALUES ($1, $2)")
            .bind(user.to_string())
            .bind(hash)
            .execute(&mut *conn)
            .await
            .map_err(sql("keep a recovery code"))?;
    }
    Ok(())
}

/// Uses the code of a moment up; whether it was still to be had.
pub async fn use_step(conn: &mut SqliteConnection, user: UserId, step: i64) -> Result<bool, DbError> {
    let done = sqlx::query("UPDATE users SET totp_last_step = $2 WHERE id = $1 AND totp_last_step < $2")
        .bind(user.to_string())
        .bind(step)
        .execute(conn)
        .await
        .map_err(sql("use a code up"))?;
    Ok(done.rows_affected() > 0)
}

/// Uses a recovery code up; whether there was one.
pub async fn use_recovery_code(
    conn: &mut SqliteConnection,
    user: UserId,
    hash: &str,
) -> Result<bool, DbError> {
    let done = sqlx::query("DELETE FROM recovery_codes WHERE user_id = $1 AND hash = $2")
        .bind(user.to_string())
        .bind(hash)
        .execute(conn)
        .await
        .map_err(sql("use a recovery code up"))?;
    Ok(done.rows_affected() > 0)
}
