//! Images on their way here. How much of one has arrived, and how long it is kept, its file tells, which is not known here.

use super::list::{By, Field, Listing, Page};
use super::{Db, DbError, Tx, sql, time, word, word_opt};
use shared::UploadId;
use shared::feed::Noun;
use shared::image::Upload;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

const SELECT: &str = "SELECT uploads.*, COALESCE(changes.generation, 0) AS generation FROM uploads
    LEFT JOIN changes ON changes.noun = 'upload' AND changes.id = uploads.id WHERE 1 = 1";

/// What uploads may be listed by.
pub const FIELDS: &[Field] = &[
    Field {
        name: "name",
        column: "uploads.name",
        by: By::Text,
    },
    Field {
        name: "createTime",
        column: "uploads.create_time",
        by: By::Number,
    },
];

fn read(row: &SqliteRow) -> Result<Upload, DbError> {
    Ok(Upload {
        id: word(row, "id")?,
        name: word(row, "name")?,
        format: word_opt(row, "format")?,
        size_bytes: row.get::<i64, _>("size_bytes") as u64,
        received_bytes: 0,
        sha256: row.get("sha256"),
        fingerprint: row.get("fingerprint"),
        created_by: row.get("created_by"),
        create_time: time(row, "create_time")?,
        expire_time: time(row, "create_time")?,
        generation: row.get::<i64, _>("generation") as u64,
    })
}

/// A page of uploads.
pub async fn list(db: &Db, listing: &Listing) -> Result<Page<Upload>, DbError> {
    listing
        .run(db, SELECT, "FROM uploads WHERE 1 = 1", "uploads.id", read)
        .await
}

/// The upload with this id.
pub async fn by_id(db: &Db, id: UploadId) -> Result<Option<Upload>, DbError> {
    db.reading(async |conn| get(conn, id).await).await
}

/// As [`by_id`], inside a transaction.
pub async fn get(conn: &mut SqliteConnection, id: UploadId) -> Result<Option<Upload>, DbError> {
    let mut query = sqlx::QueryBuilder::<sqlx::Sqlite>::new(SELECT);
    query.push(" AND uploads.id = ").push_bind(id.to_string());
    let row = query.build().fetch_optional(conn).await;
    row.map_err(sql("read an upload"))?.as_ref().map(read).transpose()
}

/// Every upload with its size, to count what is still to come.
pub async fn sizes(db: &Db) -> Result<Vec<(UploadId, u64)>, DbError> {
    let rows = sqlx::query("SELECT id, size_bytes FROM uploads")
        .fetch_all(db.read())
        .await
        .map_err(sql("read the sizes of uploads"))?;
    rows.iter()
        .map(|r| Ok((word(r, "id")?, r.get::<i64, _>("size_bytes") as u64)))
        .collect()
}

/// Writes an upload down.
pub async fn insert(tx: &mut Tx, upload: &Upload) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO uploads (id, name, format, size_bytes, sha256, created_by, create_time, fingerprint)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(upload.id.to_string())
    .bind(upload.name.as_str())
    .bind(upload.format.map(|f| f.word()))
    .bind(upload.size_bytes as i64)
    .bind(&upload.sha256)
    .bind(&upload.created_by)
    .bind(upload.create_time.micros())
    .bind(&upload.fingerprint)
    .execute(tx.conn())
    .await
    .map_err(sql("write an upload"))?;
    tx.changed(Noun::Upload, upload.id, false);
    Ok(())
}

/// The job that makes an image of it now, if one does.
pub async fn job(conn: &mut SqliteConnection, id: UploadId) -> Result<Option<shared::JobId>, DbError> {
    let row = sqlx::query(
        "SELECT id FROM jobs WHERE end_time IS NULL AND kind = 'IMPORT_IMAGE'
             AND json_extract(spec, '$.importImage.from.upload') = $1",
    )
    .bind(id.to_string())
    .fetch_optional(conn)
    .await
    .map_err(sql("look for the job of an upload"))?;
    row.map(|r| word(&r, "id")).transpose()
}

/// Takes an upload off the books.
pub async fn delete(tx: &mut Tx, id: UploadId) -> Result<(), DbError> {
    let done = sqlx::query("DELETE FROM uploads WHERE id = $1")
        .bind(id.to_string())
        .execute(tx.conn())
        .await
        .map_err(sql("delete an upload"))?;
    if done.rows_affected() > 0 {
        tx.changed(Noun::Upload, id, true);
    }
    Ok(())
}
