//! Disks that were written to files.

use super::list::{By, Field, Listing, Page};
use super::{Db, DbError, Tx, sql, time, word, word_opt};
use shared::feed::Noun;
use shared::image::Export;
use shared::{ExportId, Timestamp};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

const SELECT: &str = "SELECT exports.*, COALESCE(changes.generation, 0) AS generation FROM exports
    LEFT JOIN changes ON changes.noun = 'export' AND changes.id = exports.id WHERE 1 = 1";

/// What they may be listed by.
pub const FIELDS: &[Field] = &[
    Field {
        name: "name",
        column: "exports.name",
        by: By::Text,
    },
    Field {
        name: "vm",
        column: "exports.vm",
        by: By::Exact,
    },
    Field {
        name: "createTime",
        column: "exports.create_time",
        by: By::Number,
    },
];

fn read(row: &SqliteRow) -> Result<Export, DbError> {
    Ok(Export {
        id: word(row, "id")?,
        name: row.get("name"),
        vm: word(row, "vm")?,
        vm_name: word(row, "vm_name")?,
        snapshot_name: word_opt(row, "snapshot_name")?,
        disk: row.get::<i64, _>("disk") as u32,
        format: word(row, "format")?,
        size_bytes: row.get::<i64, _>("size_bytes") as u64,
        create_time: time(row, "create_time")?,
        expire_time: time(row, "expire_time")?,
        generation: row.get::<i64, _>("generation") as u64,
    })
}

/// A page of them.
pub async fn list(db: &Db, listing: &Listing) -> Result<Page<Export>, DbError> {
    listing
        .run(db, SELECT, "FROM exports WHERE 1 = 1", "exports.id", read)
        .await
}

/// The one with this id.
pub async fn by_id(db: &Db, id: ExportId) -> Result<Option<Export>, DbError> {
    let mut query = sqlx::QueryBuilder::<sqlx::Sqlite>::new(SELECT);
    query.push(" AND exports.id = ").push_bind(id.to_string());
    let row = query.build().fetch_optional(db.read()).await;
    row.map_err(sql("read an export"))?.as_ref().map(read).transpose()
}

/// Those whose time is over, with their names.
pub async fn expired(db: &Db, time: Timestamp) -> Result<Vec<Export>, DbError> {
    let mut query = sqlx::QueryBuilder::<sqlx::Sqlite>::new(SELECT);
    query
        .push(" AND exports.expire_time <= ")
        .push_bind(time.micros());
    let rows = query.build().fetch_all(db.read()).await;
    let rows = rows.map_err(sql("look for exports that are over"))?;
    rows.iter().map(read).collect()
}

/// Writes one down; writing it again is no change.
pub async fn insert(tx: &mut Tx, export: &Export) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO exports (id, name, vm, vm_name, snapshot_name, disk, format, size_bytes, create_time, expire_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (id) DO NOTHING",
    )
    .bind(export.id.to_string())
    .bind(&export.name)
    .bind(export.vm.to_string())
    .bind(export.vm_name.as_str())
    .bind(export.snapshot_name.as_ref().map(shared::Name::as_str))
    .bind(i64::from(export.disk))
    .bind(export.format.word())
    .bind(export.size_bytes as i64)
    .bind(export.create_time.micros())
    .bind(export.expire_time.micros())
    .execute(tx.conn())
    .await
    .map_err(sql("write an export"))?;
    tx.changed(Noun::Export, export.id, false);
    Ok(())
}

/// Takes one off the books.
pub async fn delete(tx: &mut Tx, id: ExportId) -> Result<(), DbError> {
    let done = sqlx::query("DELETE FROM exports WHERE id = $1")
        .bind(id.to_string())
        .execute(tx.conn())
        .await
        .map_err(sql("delete an export"))?;
    if done.rows_affected() > 0 {
        tx.changed(Noun::Export, id, true);
    }
    Ok(())
}
