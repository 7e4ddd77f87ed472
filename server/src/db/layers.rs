//! Layers: counted objects, property of no VM.

use super::{Db, DbError, Tx, json, now, sql, to_json, word, word_opt};
use serde::{Deserialize, Serialize};
use shared::{CopyId, LayerId, StorageId, TargetId, VmId};
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// A layer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Layer {
    pub id: LayerId,
    pub storage: StorageId,
    pub parent: Option<LayerId>,
    pub virtual_bytes: u64,
}

/// Where the data of a layer are that is not here yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CopyOf {
    /// The target.
    pub target: TargetId,
    /// The copy.
    pub copy: CopyId,
    /// The disk's name there.
    pub disk: String,
    /// What shows it.
    pub show: Uuid,
}

/// Notes that the data of a layer are at a target.
pub async fn set_copy_of(tx: &mut Tx, id: LayerId, of: &CopyOf) -> Result<(), DbError> {
    sqlx::query("UPDATE layers SET copy_of = $2 WHERE id = $1")
        .bind(id.to_string())
        .bind(to_json(of)?)
        .execute(tx.conn())
        .await
        .map_err(sql("note where the data of a layer are"))?;
    Ok(())
}

/// The layers whose data are at targets.
pub async fn copies(db: &Db) -> Result<Vec<(LayerId, CopyOf)>, DbError> {
    let rows = sqlx::query("SELECT id, copy_of FROM layers WHERE copy_of IS NOT NULL")
        .fetch_all(db.read())
        .await
        .map_err(sql("read the layers whose data are at targets"))?;
    rows.iter()
        .map(|row| Ok((word(row, "id")?, json(row, "copy_of")?)))
        .collect()
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
    db.reading(async |conn| chain(conn, layer).await).await
}

/// Which of these a snapshot or an image is made of: they are what somebody named.
pub async fn named(db: &Db, layers: &[Layer]) -> Result<HashSet<LayerId>, DbError> {
    let ids: Vec<_> = layers.iter().map(|l| l.id.to_string()).collect();
    let rows = sqlx::query(
        "SELECT value AS id FROM json_each($1)
             WHERE EXISTS (SELECT 1 FROM snapshot_disks WHERE snapshot_disks.layer = value)
                 OR EXISTS (SELECT 1 FROM images WHERE images.layer = value)",
    )
    .bind(serde_json::Value::from(ids).to_string())
    .fetch_all(db.read())
    .await
    .map_err(sql("look for layers that have a name"))?;
    rows.iter().map(|r| word(r, "id")).collect()
}

/// A layer that nobody named and one other stands on, with that; and what it stands on itself.
pub async fn between(db: &Db, layer: LayerId) -> Result<Option<(LayerId, Option<LayerId>)>, DbError> {
    let row = sqlx::query(
        "SELECT MIN(up.id) AS above, layers.parent AS below FROM layers JOIN layers AS up ON up.parent = layers.id
         WHERE layers.id = $1
             AND NOT EXISTS (SELECT 1 FROM vm_disks WHERE vm_disks.layer = layers.id)
             AND NOT EXISTS (SELECT 1 FROM snapshot_disks WHERE snapshot_disks.layer = layers.id)
             AND NOT EXISTS (SELECT 1 FROM fork_point_disks WHERE fork_point_disks.layer = layers.id)
             AND NOT EXISTS (SELECT 1 FROM images WHERE images.layer = layers.id)
         GROUP BY layers.id HAVING COUNT(*) = 1",
    )
    .bind(layer.to_string())
    .fetch_optional(db.read())
    .await
    .map_err(sql("look for who stands on a layer"))?;
    row.map(|row| Ok((word(&row, "above")?, word_opt(&row, "below")?)))
        .transpose()
}

/// The machines that read through a layer.
pub async fn readers(db: &Db, layer: LayerId) -> Result<Vec<VmId>, DbError> {
    let rows = sqlx::query(
        "WITH RECURSIVE above (id) AS (
             SELECT $1
             UNION SELECT layers.id FROM above JOIN layers ON layers.parent = above.id
         )
         SELECT DISTINCT vm FROM above JOIN vm_disks ON vm_disks.layer = above.id",
    )
    .bind(layer.to_string())
    .fetch_all(db.read())
    .await
    .map_err(sql("look for who reads a layer"))?;
    rows.iter().map(|r| word(r, "vm")).collect()
}

/// Has a layer stand on another of its chain, or on nothing.
pub async fn stand_on(tx: &mut Tx, layer: LayerId, parent: Option<LayerId>) -> Result<(), DbError> {
    sqlx::query("UPDATE layers SET parent = $2 WHERE id = $1")
        .bind(layer.to_string())
        .bind(parent.map(|p| p.to_string()))
        .execute(tx.conn())
        .await
        .map_err(sql("change what a layer stands on"))?;
    Ok(())
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

/// The layers that are in other storages than this.
pub async fn elsewhere(db: &Db, storage: StorageId) -> Result<HashMap<LayerId, StorageId>, DbError> {
    let rows = sqlx::query("SELECT id, storage FROM layers WHERE storage <> $1")
        .bind(storage.to_string())
        .fetch_all(db.read())
        .await
        .map_err(sql("read the layers"))?;
    rows.iter()
        .map(|r| Ok((word(r, "id")?, word(r, "storage")?)))
        .collect()
}

/// Ids of all layers, to find files that belong to none.
pub async fn ids(db: &Db) -> Result<HashSet<LayerId>, DbError> {
    let rows = sqlx::query("SELECT id FROM layers")
        .fetch_all(db.read())
        .await
        .map_err(sql("read the layers"))?;
    rows.iter().map(|r| word(r, "id")).collect()
}
