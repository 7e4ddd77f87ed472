//! Who signs in by an OpenID Connect provider, and the roles that its groups give.

use super::{DbError, Tx, sql, word_opt};
use shared::feed::Noun;
use shared::{GrantId, RoleId, Status, Timestamp, UserId};
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

/// Whom a provider means by a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meant {
    /// Nobody yet.
    Nobody,
    /// A user that was removed here.
    Removed,
    /// This user.
    User(UserId),
}

/// Whom a provider means.
pub async fn find(conn: &mut SqliteConnection, issuer: &str, subject: &str) -> Result<Meant, DbError> {
    let row = sqlx::query("SELECT user_id FROM identities WHERE issuer = $1 AND subject = $2")
        .bind(issuer)
        .bind(subject)
        .fetch_optional(conn)
        .await
        .map_err(sql("read an identity"))?;
    Ok(match row {
        None => Meant::Nobody,
        Some(row) => match word_opt(&row, "user_id")? {
            None => Meant::Removed,
            Some(user) => Meant::User(user),
        },
    })
}

/// Has a subject be a user from now on, in place of what the user was before.
pub async fn link(
    tx: &mut Tx,
    issuer: &str,
    subject: &str,
    user: UserId,
    now: Timestamp,
) -> Result<(), DbError> {
    unlink(tx, user).await?;
    sqlx::query(
        "INSERT INTO identities (issuer, subject, user_id, create_time) VALUES ($1, $2, $3, $4)
         ON CONFLICT (issuer, subject) DO UPDATE SET user_id = excluded.user_id",
    )
    .bind(issuer)
    .bind(subject)
    .bind(user.to_string())
    .bind(now.micros())
    .execute(tx.conn())
    .await
    .map_err(sql("keep an identity"))?;
    tx.changed(Noun::User, user, false);
    Ok(())
}

/// Forgets what a provider calls a user, with the roles that its groups gave; whether it called the user anything.
pub async fn unlink(tx: &mut Tx, user: UserId) -> Result<bool, DbError> {
    let done = sqlx::query("DELETE FROM identities WHERE user_id = $1")
        .bind(user.to_string())
        .execute(tx.conn())
        .await
        .map_err(sql("forget an identity"))?;
    sqlx::query("DELETE FROM user_grants WHERE user_id = $1 AND by_provider = 1")
        .bind(user.to_string())
        .execute(tx.conn())
        .await
        .map_err(sql("take the provider's roles away"))?;
    tx.changed(Noun::User, user, false);
    Ok(done.rows_affected() > 0)
}

/// Gives a user the roles that the provider's groups give, and takes away those that they gave before. What was given
/// here stays.
pub async fn renew_roles(tx: &mut Tx, user: UserId, roles: &[RoleId], now: Timestamp) -> Result<(), DbError> {
    let rows =
        sqlx::query("SELECT id, role_id, by_provider FROM user_grants WHERE user_id = $1 AND vm IS NULL")
            .bind(user.to_string())
            .fetch_all(tx.conn())
            .await
            .map_err(sql("read a user's roles"))?;
    let mut has: Vec<RoleId> = Vec::with_capacity(rows.len());
    for row in &rows {
        let role = super::word(row, "role_id")?;
        if row.get::<i64, _>("by_provider") == 0 || roles.contains(&role) {
            has.push(role);
        } else {
            super::roles::take(tx.conn(), &row.get::<String, _>("id")).await?;
        }
    }
    for role in roles {
        if has.contains(role) {
            continue;
        }
        has.push(*role);
        sqlx::query(
            "INSERT INTO user_grants (id, user_id, role_id, vm, create_time, by_provider)
             VALUES ($1, $2, $3, NULL, $4, 1)",
        )
        .bind(GrantId(uuid::Uuid::now_v7()).to_string())
        .bind(user.to_string())
        .bind(role.to_string())
        .bind(now.micros())
        .execute(tx.conn())
        .await
        .map_err(sql("give a role"))?;
    }
    tx.changed(Noun::User, user, false);
    Ok(())
}

/// Refuses a subject that is another user's.
pub async fn free_for(
    conn: &mut SqliteConnection,
    issuer: &str,
    subject: &str,
    user: UserId,
) -> Result<(), DbError> {
    match find(conn, issuer, subject).await? {
        Meant::User(other) if other != user => {
            let other = super::users::known(conn, &other.to_string()).await?;
            let why = format!(
                "the provider means {} by {subject:?} already: unlink it there first",
                other.name
            );
            Err(Status::new(shared::Code::AlreadyExists, why).into())
        }
        Meant::User(_) | Meant::Removed | Meant::Nobody => Ok(()),
    }
}
