//! Images to make machines from.

use super::list::{By, Field, Listing, Page};
use super::{Db, DbError, Tx, sql, time, word};
use shared::feed::Noun;
use shared::place::Image;
use shared::{ImageId, LayerId, Name, Timestamp};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

const SELECT: &str = "SELECT images.*, layers.virtual_bytes, COALESCE(changes.generation, 0) AS generation
    FROM images JOIN layers ON layers.id = images.layer
    LEFT JOIN changes ON changes.noun = 'image' AND changes.id = images.id WHERE 1 = 1";

/// What images may be listed by.
pub const FIELDS: &[Field] = &[
    Field {
        name: "name",
        column: "images.name",
        by: By::Text,
    },
    Field {
        name: "createTime",
        column: "images.create_time",
        by: By::Number,
    },
];

fn read(row: &SqliteRow) -> Result<Image, DbError> {
    Ok(Image {
        id: word(row, "id")?,
        name: word(row, "name")?,
        layer: word(row, "layer")?,
        virtual_bytes: row.get::<i64, _>("virtual_bytes") as u64,
        create_time: time(row, "create_time")?,
        generation: row.get::<i64, _>("generation") as u64,
    })
}

/// A page of images.
pub async fn list(db: &Db, listing: &Listing) -> Result<Page<Image>, DbError> {
    listing
        .run(db, SELECT, "FROM images WHERE 1 = 1", "images.id", read)
        .await
}

/// The image with this name or id.
pub async fn find(db: &Db, reference: &str) -> Result<Option<Image>, DbError> {
    let mut query = sqlx::QueryBuilder::<sqlx::Sqlite>::new(SELECT);
    query
        .push(" AND (images.id = ")
        .push_bind(reference)
        .push(" OR images.name = ")
        .push_bind(reference);
    query.push(")");
    let row = query
        .build()
        .fetch_optional(db.read())
        .await
        .map_err(sql("read an image"))?;
    row.as_ref().map(read).transpose()
}

/// Writes an image down; writing it again is no change.
pub async fn insert(
    tx: &mut Tx,
    id: ImageId,
    name: &Name,
    layer: LayerId,
    create_time: Timestamp,
) -> Result<(), DbError> {
    let done = sqlx::query(
        "INSERT INTO images (id, name, layer, create_time) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING",
    )
    .bind(id.to_string())
    .bind(name.as_str())
    .bind(layer.to_string())
    .bind(create_time.micros())
    .execute(tx.conn())
    .await;
    super::taken("image", name, done)?;
    tx.changed(Noun::Image, id, false);
    Ok(())
}

/// Takes an image off the books.
pub async fn delete(tx: &mut Tx, id: ImageId) -> Result<(), DbError> {
    let done = sqlx::query("DELETE FROM images WHERE id = $1")
        .bind(id.to_string())
        .execute(tx.conn())
        .await
        .map_err(sql("delete an image"))?;
    if done.rows_affected() > 0 {
        tx.changed(Noun::Image, id, true);
    }
    Ok(())
}

/// Gives an image another name; answers whether it is there.
pub async fn rename(tx: &mut Tx, id: ImageId, name: &Name) -> Result<bool, DbError> {
    let done = sqlx::query("UPDATE images SET name = $2 WHERE id = $1")
        .bind(id.to_string())
        .bind(name.as_str())
        .execute(tx.conn())
        .await;
    let found = super::taken("image", name, done)?.rows_affected() > 0;
    if found {
        tx.changed(Noun::Image, id, false);
    }
    Ok(found)
}

/// Whether there is an image of this name.
pub async fn name_taken(tx: &mut Tx, name: &Name) -> Result<bool, DbError> {
    let row = sqlx::query("SELECT 1 FROM images WHERE name = $1")
        .bind(name.as_str())
        .fetch_optional(tx.conn())
        .await
        .map_err(sql("look for an image's name"))?;
    Ok(row.is_some())
}

/// An image's name and the layer that holds it, inside a transaction.
pub async fn name_of(tx: &mut Tx, id: ImageId) -> Result<Option<(Name, LayerId)>, DbError> {
    let row = sqlx::query("SELECT name, layer FROM images WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(tx.conn())
        .await
        .map_err(sql("read an image's name"))?;
    row.map(|r| Ok((word(&r, "name")?, word(&r, "layer")?)))
        .transpose()
}
