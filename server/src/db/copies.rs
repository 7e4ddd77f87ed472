//! Copies of snapshots, and what tells what has changed since.

use super::list::{By, Field, Listing, Page};
use super::{Db, DbError, Tx, json, json_opt, sql, to_json, word, word_opt};
use shared::access::rights::Sees;
use shared::copy::{Booted, Copy};
use shared::feed::Noun;
use shared::{CopyId, LayerId, SnapshotId, TargetId, VmId};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite};
use std::collections::HashMap;

const SELECT: &str =
    "SELECT copies.*, targets.name AS target_name, COALESCE(changes.generation, 0) AS generation
    FROM copies JOIN targets ON targets.id = copies.target
    LEFT JOIN changes ON changes.noun = 'copy' AND changes.id = copies.id WHERE 1 = 1";

/// What copies may be listed by.
pub const FIELDS: &[Field] = &[
    Field {
        name: "snapshotTime",
        column: "copies.snapshot_time",
        by: By::Number,
    },
    Field {
        name: "createTime",
        column: "copies.create_time",
        by: By::Number,
    },
    Field {
        name: "vm",
        column: "copies.vm",
        by: By::Exact,
    },
    Field {
        name: "vmName",
        column: "copies.vm_name",
        by: By::Text,
    },
    Field {
        name: "target",
        column: "copies.target",
        by: By::Exact,
    },
    Field {
        name: "policy",
        column: "copies.policy",
        by: By::Exact,
    },
    Field {
        name: "storedBytes",
        column: "copies.stored_bytes",
        by: By::Number,
    },
];

fn read(row: &SqliteRow) -> Result<Copy, DbError> {
    let mut copy: Copy = json(row, "body")?;
    copy.target = word(row, "target")?;
    copy.target_name = word(row, "target_name")?;
    copy.booted = json_opt(row, "booted")?;
    copy.damage = json_opt(row, "damage")?.unwrap_or_default();
    copy.legal_hold = row.get::<i64, _>("legal_hold") != 0;
    copy.policy = word_opt(row, "policy")?;
    copy.generation = row.get::<i64, _>("generation") as u64;
    Ok(copy)
}

/// A page of the copies of machines that somebody sees.
pub async fn list(db: &Db, mut listing: Listing, sees: &Sees) -> Result<Page<Copy>, DbError> {
    listing.among(&["copies.vm"], sees)?;
    listing
        .run(
            db,
            SELECT,
            "FROM copies JOIN targets ON targets.id = copies.target WHERE 1 = 1",
            "copies.id",
            read,
        )
        .await
}

/// The copy with this id.
pub async fn get(conn: &mut SqliteConnection, id: CopyId) -> Result<Option<Copy>, DbError> {
    let mut query = QueryBuilder::<Sqlite>::new(SELECT);
    query.push(" AND copies.id = ").push_bind(id.to_string());
    let row = query
        .build()
        .fetch_optional(conn)
        .await
        .map_err(sql("read a copy"))?;
    row.as_ref().map(read).transpose()
}

/// As [`get`], outside a transaction.
pub async fn by_id(db: &Db, id: CopyId) -> Result<Option<Copy>, DbError> {
    db.reading(async |conn| get(conn, id).await).await
}

/// The newest copies of a machine at a target, the newest first; without those that are adapted, which no machine has written.
pub async fn newest(db: &Db, target: TargetId, vm: VmId, most: u32) -> Result<Vec<CopyId>, DbError> {
    let rows = sqlx::query(
        "SELECT id FROM copies WHERE target = $1 AND vm = $2 AND json_extract(body, '$.adaptedOf') IS NULL
         ORDER BY snapshot_time DESC, create_time DESC LIMIT $3",
    )
    .bind(target.to_string())
    .bind(vm.to_string())
    .bind(i64::from(most))
    .fetch_all(db.read())
    .await
    .map_err(sql("look for the newest copies"))?;
    rows.iter().map(|r| word(r, "id")).collect()
}

/// The copies that are adapted of a machine at a target, with what each is but for that.
pub async fn adapted(db: &Db, target: TargetId, vm: VmId) -> Result<Vec<(CopyId, CopyId)>, DbError> {
    let rows = sqlx::query(
        "SELECT id, json_extract(body, '$.adaptedOf') AS adapted_of FROM copies
         WHERE target = $1 AND vm = $2 AND json_extract(body, '$.adaptedOf') IS NOT NULL",
    )
    .bind(target.to_string())
    .bind(vm.to_string())
    .fetch_all(db.read())
    .await
    .map_err(sql("look for copies that are adapted"))?;
    rows.iter()
        .map(|row| Ok((word(row, "id")?, word(row, "adapted_of")?)))
        .collect()
}

/// The ids of all copies of a target.
pub async fn of_target(db: &Db, target: TargetId) -> Result<Vec<CopyId>, DbError> {
    let rows = sqlx::query("SELECT id FROM copies WHERE target = $1")
        .bind(target.to_string())
        .fetch_all(db.read())
        .await
        .map_err(sql("read the copies of a target"))?;
    rows.iter().map(|r| word(r, "id")).collect()
}

/// Writes a copy down; writing it again is no change.
pub async fn insert(tx: &mut Tx, copy: &Copy) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO copies (id, target, vm, vm_name, snapshot_time, create_time, stored_bytes, body, policy)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO NOTHING",
    )
    .bind(copy.id.to_string())
    .bind(copy.target.to_string())
    .bind(copy.vm.to_string())
    .bind(copy.vm_name.as_str())
    .bind(copy.snapshot_time.micros())
    .bind(copy.create_time.micros())
    .bind(copy.figures.stored_bytes as i64)
    .bind(to_json(copy)?)
    .bind(copy.policy.map(|p| p.to_string()))
    .execute(tx.conn())
    .await
    .map_err(sql("write a copy"))?;
    tx.changed(Noun::Copy, copy.id, false);
    tx.changed(Noun::Target, copy.target, false);
    Ok(())
}

/// Puts a copy under legal hold, or takes that back.
pub async fn set_hold(tx: &mut Tx, id: CopyId, hold: bool) -> Result<(), DbError> {
    let done = sqlx::query("UPDATE copies SET legal_hold = $2 WHERE id = $1 AND legal_hold <> $2")
        .bind(id.to_string())
        .bind(i64::from(hold))
        .execute(tx.conn())
        .await
        .map_err(sql("change a copy's legal hold"))?;
    if done.rows_affected() > 0 {
        tx.changed(Noun::Copy, id, false);
    }
    Ok(())
}

/// Notes how a copy booted.
pub async fn set_booted(tx: &mut Tx, id: CopyId, booted: &Booted) -> Result<(), DbError> {
    sqlx::query("UPDATE copies SET booted = $2 WHERE id = $1")
        .bind(id.to_string())
        .bind(to_json(booted)?)
        .execute(tx.conn())
        .await
        .map_err(sql("note how a copy booted"))?;
    tx.changed(Noun::Copy, id, false);
    Ok(())
}

/// Notes what of the copies of a target is damaged: of those that are not named, nothing.
pub async fn set_damage(
    tx: &mut Tx,
    target: TargetId,
    damage: &HashMap<CopyId, Vec<String>>,
) -> Result<(), DbError> {
    let rows = sqlx::query("SELECT id, damage FROM copies WHERE target = $1")
        .bind(target.to_string())
        .fetch_all(tx.conn())
        .await
        .map_err(sql("read the copies of a target"))?;
    for row in &rows {
        let id: CopyId = word(row, "id")?;
        let now = damage.get(&id).map(to_json).transpose()?;
        if row.get::<Option<String>, _>("damage") == now {
            continue;
        }
        sqlx::query("UPDATE copies SET damage = $2 WHERE id = $1")
            .bind(id.to_string())
            .bind(now)
            .execute(tx.conn())
            .await
            .map_err(sql("note what of a copy is damaged"))?;
        tx.changed(Noun::Copy, id, false);
    }
    Ok(())
}

/// Takes a copy off the books.
pub async fn delete(tx: &mut Tx, id: CopyId) -> Result<(), DbError> {
    let row = sqlx::query("DELETE FROM copies WHERE id = $1 RETURNING target")
        .bind(id.to_string())
        .fetch_optional(tx.conn())
        .await
        .map_err(sql("delete a copy"))?;
    if let Some(row) = row {
        tx.changed(Noun::Copy, id, true);
        tx.changed(Noun::Target, row.get::<&str, _>("target"), false);
    }
    Ok(())
}

/// Notes that a layer took up another.
pub async fn set_merged(tx: &mut Tx, layer: LayerId, taken: LayerId) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO merged_layers (layer, taken) VALUES ($1, $2) ON CONFLICT (layer) DO UPDATE SET taken = excluded.taken",
    )
    .bind(layer.to_string())
    .bind(taken.to_string())
    .execute(tx.conn())
    .await
    .map_err(sql("note which layer took up which"))?;
    Ok(())
}

/// The layer that took up another.
pub async fn merged_into(db: &Db, layer: LayerId) -> Result<Option<LayerId>, DbError> {
    let row = sqlx::query("SELECT taken FROM merged_layers WHERE layer = $1")
        .bind(layer.to_string())
        .fetch_optional(db.read())
        .await
        .map_err(sql("look for who took up a layer"))?;
    row.map(|row| word(&row, "taken")).transpose()
}

/// Notes that a snapshot was taken for copies to a target.
pub async fn set_taken_for(tx: &mut Tx, snapshot: SnapshotId, target: TargetId) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO copy_snapshots (snapshot, target) VALUES ($1, $2) ON CONFLICT (snapshot) DO NOTHING",
    )
    .bind(snapshot.to_string())
    .bind(target.to_string())
    .execute(tx.conn())
    .await
    .map_err(sql("note what a snapshot was taken for"))?;
    Ok(())
}

/// The snapshots of a machine that were taken for copies to a target and are older than this one.
pub async fn taken_before(
    db: &Db,
    vm: VmId,
    target: TargetId,
    snapshot: SnapshotId,
) -> Result<Vec<SnapshotId>, DbError> {
    let rows = sqlx::query(
        "SELECT snapshots.id FROM copy_snapshots JOIN snapshots ON snapshots.id = copy_snapshots.snapshot
         WHERE snapshots.vm = $1 AND copy_snapshots.target = $2 AND snapshots.id <> $3 AND snapshots.state = 'READY'
             AND snapshots.create_time < (SELECT create_time FROM snapshots WHERE id = $3)",
    )
    .bind(vm.to_string())
    .bind(target.to_string())
    .bind(snapshot.to_string())
    .fetch_all(db.read())
    .await
    .map_err(sql("look for snapshots that were taken for copies"))?;
    rows.iter().map(|r| word(r, "id")).collect()
}
