//! Layers: counted objects, property of no VM.

use super::{Db, DbError, Tx, now, sql, word, word_opt};
use shared::{LayerId, StorageId};
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

/// A layer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Layer {
    pub id: LayerId,
    pub storage: StorageId,
    pub parent: Option<LayerId>,
    pub virtual_bytes: u64,
}

fn read(row: &sqlx::sqlite::SqliteRow) -> Result<Layer, DbError> {
    Ok(Layer {
        id: word(row, "id")?,
        storage: word(row, "storage")?,
        parent: word_opt(row, "parent")?,
        virtual_bytes: row.get::<i64, _>("virtual_bytes") as u64,
    })
}

/// Writes a layer down; writing it again is no change.
pub async fn insert(tx: &mut Tx, layer: &Layer) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO layers (id, storage, parent, virtual_bytes, create_time) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(layer.id.to_string())
    .bind(layer.storage.to_string())
    .bind(layer.parent.map(|p| p.to_string()))
    .bind(layer.virtual_bytes as i64)
    .bind(now().micros())
    .execute(tx.conn())
    .await
    .map_err(sql("write a layer"))?;
    Ok(())
}

/// A layer and all below it: base first, the layer itself last.
pub async fn chain(conn: &mut SqliteConnection, layer: LayerId) -> Result<Vec<Layer>, DbError> {
    let rows = sqlx::query(
        "WITH RECURSIVE chain (id, depth) AS (
             SELECT $1, 0
             UNION ALL
             SELECT layers.parent, depth + 1 FROM chain JOIN layers ON layers.id = chain.id
             WHERE layers.parent IS NOT NULL
         )
         SELECT layers.* FROM chain JOIN layers ON layers.id = chain.id ORDER BY depth DESC",
    )
    .bind(layer.to_string())
    .fetch_all(conn)
    .await
    .map_err(sql("read a chain of layers"))?;
    rows.iter().map(read).collect()
}

/// As [`chain`], outside a transaction.
pub async fn chain_of(db: &Db, layer: LayerId) -> Result<Vec<Layer>, DbError> {
    let mut conn = db.read().acquire().await.map_err(sql("give a connection"))?;
    chain(&mut conn, layer).await
}

/// Takes a layer off the books if nobody stands on it, and then those below it that only it stood on.
/// Answers what went, topmost first: their files may be removed.
pub async fn release(tx: &mut Tx, layer: LayerId) -> Result<Vec<Layer>, DbError> {
    let mut gone = Vec::new();
    let mut next = Some(layer);
    while let Some(id) = next {
        let row = sqlx::query(
            "DELETE FROM layers WHERE id = $1
                 AND NOT EXISTS (SELECT 1 FROM layers AS up WHERE up.parent = layers.id)
                 AND NOT EXISTS (SELECT 1 FROM vm_disks WHERE vm_disks.layer = layers.id)
                 AND NOT EXISTS (SELECT 1 FROM snapshot_disks WHERE snapshot_disks.layer = layers.id)
                 AND NOT EXISTS (SELECT 1 FROM fork_point_disks WHERE fork_point_disks.layer = layers.id)
                 AND NOT EXISTS (SELECT 1 FROM images WHERE images.layer = layers.id)
             RETURNING *",
        )
        .bind(id.to_string())
        .fetch_optional(tx.conn())
        .await
        .map_err(sql("release a layer"))?;
        next = None;
        if let Some(row) = row {
            let layer = read(&row)?;
            next = layer.parent;
            gone.push(layer);
        }
    }
    Ok(gone)
}

/// Ids of all layers, to find files that belong to none.
pub async fn ids(db: &Db) -> Result<std::collections::HashSet<LayerId>, DbError> {
    let rows = sqlx::query("SELECT id FROM layers")
        .fetch_all(db.read())
        .await
        .map_err(sql("read the layers"))?;
    rows.iter().map(|r| word(r, "id")).collect()
}
