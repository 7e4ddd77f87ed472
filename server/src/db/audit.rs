//! What was done, and what was refused.

use super::list::{By, Field, Listing, Page};
use super::{Db, DbError, sql, time, word_opt};
use shared::Timestamp;
use shared::access::audit::AuditEvent;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

fn read(row: &SqliteRow) -> Result<AuditEvent, DbError> {
    Ok(AuditEvent {
        id: row.get::<i64, _>("id") as u64,
        time: time(row, "time")?,
        user_id: word_opt(row, "user_id")?,
        user: row.get("user_name"),
        address: row.get("address"),
        method: row.get("method"),
        route: row.get("route"),
        path: row.get("path"),
        status: row.get::<i64, _>("status") as u16,
        result: row.get("result"),
        detail: row.get("detail"),
        request_id: row.get("request_id"),
    })
}

/// Writes an event down; it gets its number here.
pub async fn insert(conn: &mut SqliteConnection, event: &AuditEvent) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO audit (time, user_id, user_name, address, method, route, path, status, result, detail, request_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(event.time.micros())
    .bind(event.user_id.map(|id| id.to_string()))
    .bind(&event.user)
    .bind(&event.address)
    .bind(&event.method)
    .bind(&event.route)
    .bind(&event.path)
    .bind(i64::from(event.status))
    .bind(&event.result)
    .bind(&event.detail)
    .bind(&event.request_id)
    .execute(conn)
    .await
    .map_err(sql("write an event down"))?;
    Ok(())
}

/// What events may be listed by.
pub const FIELDS: &[Field] = &[
    Field {
        name: "time",
        column: "audit.time",
        by: By::Number,
    },
    Field {
        name: "user",
        column: "audit.user_name",
        by: By::Text,
    },
    Field {
        name: "address",
        column: "audit.address",
        by: By::Text,
    },
    Field {
        name: "method",
        column: "audit.method",
        by: By::Exact,
    },
    Field {
        name: "route",
        column: "audit.route",
        by: By::Text,
    },
    Field {
        name: "path",
        column: "audit.path",
        by: By::Text,
    },
    Field {
        name: "result",
        column: "audit.result",
        by: By::Text,
    },
    Field {
        name: "requestId",
        column: "audit.request_id",
        by: By::Exact,
    },
];

/// A page of events.
pub async fn list(db: &Db, listing: &Listing) -> Result<Page<AuditEvent>, DbError> {
    let select = "SELECT audit.* FROM audit WHERE 1 = 1";
    listing
        .run(db, select, "FROM audit WHERE 1 = 1", "audit.id", read)
        .await
}

/// Removes what is older.
pub async fn prune(conn: &mut SqliteConnection, before: Timestamp) -> Result<u64, DbError> {
    let done = sqlx::query("DELETE FROM audit WHERE time < $1")
        .bind(before.micros())
        .execute(conn)
        .await
        .map_err(sql("remove old events"))?;
    Ok(done.rows_affected())
}
