//! Snapshots and the layers that they froze.

use super::list::{By, Field, Listing, Page};
use super::{Db, DbError, Tx, sql, time, to_json, word, word_opt};
use serde::{Deserialize, Serialize};
use shared::access::rights::Sees;
use shared::feed::Noun;
use shared::place::Accelerator;
use shared::snapshot::{Consistency, MemoryNeeds, Snapshot};
use shared::vm::Disk;
use shared::{LayerId, SnapshotId, VmId};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite};

const SELECT: &str = "SELECT snapshots.*, COALESCE(changes.generation, 0) AS generation,
        snapshots.id IS vms.current_snapshot AS is_current
    FROM snapshots JOIN vms ON vms.id = snapshots.vm
    LEFT JOIN changes ON changes.noun = 'snapshot' AND changes.id = snapshots.id WHERE 1 = 1";

/// What snapshots may be listed by.
pub const FIELDS: &[Field] = &[
    Field {
        name: "name",
        column: "snapshots.name",
        by: By::Text,
    },
    Field {
        name: "createTime",
        column: "snapshots.create_time",
        by: By::Number,
    },
    Field {
        name: "state",
        column: "snapshots.state",
        by: By::Exact,
    },
];

/// What a snapshot's memory goes on in: a machine as it was then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct MemoryOf {
    #[serde(flatten)]
    pub needs: MemoryNeeds,
    /// NICs that were connected to a network of kind USER.
    pub user_networks: usize,
    pub accelerator: Accelerator,
    pub qemu_version: String,
    /// What it takes on the host.
    pub bytes: u64,
}

fn read_memory(row: &SqliteRow) -> Result<Option<MemoryOf>, DbError> {
    let text: Option<&str> = row.get("memory_of");
    let read = text.map(serde_json::from_str).transpose();
    read.map_err(|e| DbError::Column {
        column: "snapshots.memory_of",
        why: e.to_string(),
    })
}

fn read(row: &SqliteRow) -> Result<Snapshot, DbError> {
    let memory = read_memory(row)?;
    Ok(Snapshot {
        memory_bytes: memory.as_ref().map(|memory| memory.bytes),
        memory_needs: memory.map(|memory| memory.needs),
        id: word(row, "id")?,
        vm: word(row, "vm")?,
        name: word(row, "name")?,
        description: row.get("description"),
        parent: word_opt(row, "parent")?,
        current: row.get::<i64, _>("is_current") != 0,
        state: word(row, "state")?,
        consistency: word(row, "consistency")?,
        memory: row.get::<i64, _>("memory") != 0,
        pause_micros: row.get::<Option<i64>, _>("pause_micros").map(|p| p as u64),
        allocated_bytes: row.get::<i64, _>("allocated_bytes") as u64,
        create_time: time(row, "create_time")?,
        generation: row.get::<i64, _>("generation") as u64,
    })
}

/// A page of a machine's snapshots.
pub async fn list(db: &Db, vm: VmId, mut listing: Listing) -> Result<Page<Snapshot>, DbError> {
    listing.only("snapshots.vm", vm);
    listing
        .run(db, SELECT, "FROM snapshots WHERE 1 = 1", "snapshots.id", read)
        .await
}

/// The snapshot with this id, as the transaction sees it.
pub async fn get(conn: &mut SqliteConnection, id: SnapshotId) -> Result<Option<Snapshot>, DbError> {
    let mut query = QueryBuilder::<Sqlite>::new(SELECT);
    query.push(" AND snapshots.id = ").push_bind(id.to_string());
    let row = query
        .build()
        .fetch_optional(conn)
        .await
        .map_err(sql("read a snapshot"))?;
    row.as_ref().map(read).transpose()
}

/// The snapshot with this id.
pub async fn by_id(db: &Db, id: SnapshotId) -> Result<Option<Snapshot>, DbError> {
    db.reading(async |conn| get(conn, id).await).await
}

/// A machine's snapshot with this name or id.
pub async fn find(db: &Db, vm: VmId, reference: &str) -> Result<Option<Snapshot>, DbError> {
    let mut query = QueryBuilder::<Sqlite>::new(SELECT);
    query.push(" AND snapshots.vm = ").push_bind(vm.to_string());
    query.push(" AND (snapshots.id = ").push_bind(reference);
    query.push(" OR snapshots.name = ").push_bind(reference).push(")");
    let row = query
        .build()
        .fetch_optional(db.read())
        .await
        .map_err(sql("read a snapshot"))?;
    row.as_ref().map(read).transpose()
}

/// How many snapshots there are.
pub async fn count(db: &Db, sees: &Sees) -> Result<u64, DbError> {
    let count =
        "SELECT COUNT(*) AS n FROM snapshots WHERE $1 IS NULL OR vm IN (SELECT value FROM json_each($1))";
    let row = sqlx::query(count)
        .bind(super::seen(sees)?)
        .fetch_one(db.read())
        .await
        .map_err(sql("count the snapshots"))?;
    Ok(row.get::<i64, _>("n") as u64)
}

/// Writes a snapshot down; writing it again is no change.
pub async fn insert(tx: &mut Tx, s: &Snapshot) -> Result<(), DbError> {
    let done = sqlx::query(
        "INSERT INTO snapshots (id, vm, name, description, parent, state, consistency, memory, pause_micros,
             allocated_bytes, create_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (id) DO NOTHING",
    )
    .bind(s.id.to_string())
    .bind(s.vm.to_string())
    .bind(s.name.as_str())
    .bind(&s.description)
    .bind(s.parent.map(|p| p.to_string()))
    .bind(s.state.word())
    .bind(s.consistency.word())
    .bind(i64::from(s.memory))
    .bind(s.pause_micros.map(|p| p as i64))
    .bind(s.allocated_bytes as i64)
    .bind(s.create_time.micros())
    .execute(tx.conn())
    .await;
    super::taken("snapshot of this VM", &s.name, done)?;
    tx.changed(Noun::Snapshot, s.id, false);
    Ok(())
}

/// What a snapshot turned out to be when its disks were frozen.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Frozen {
    pub consistency: Consistency,
    pub pause_micros: Option<u64>,
    pub allocated_bytes: u64,
    pub create_time: shared::Timestamp,
    /// The machine's disks with the layers that were frozen, in boot order.
    pub disks: Vec<Disk>,
    pub memory: Option<MemoryOf>,
}

/// Makes a snapshot READY, standing on the layers that were frozen.
pub async fn ready(tx: &mut Tx, id: SnapshotId, frozen: &Frozen) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE snapshots SET state = 'READY', consistency = $2, pause_micros = $3, allocated_bytes = $4, create_time = $5,
             memory_of = $6
         WHERE id = $1",
    )
    .bind(id.to_string())
    .bind(frozen.consistency.word())
    .bind(frozen.pause_micros.map(|p| p as i64))
    .bind(frozen.allocated_bytes as i64)
    .bind(frozen.create_time.micros())
    .bind(frozen.memory.as_ref().map(to_json).transpose()?)
    .execute(tx.conn())
    .await
    .map_err(sql("finish a snapshot"))?;
    for disk in &frozen.disks {
        sqlx::query(
            "INSERT INTO snapshot_disks (snapshot, position, slot, layer) VALUES ($1, $2, $3, $4)
             ON CONFLICT (snapshot, position) DO NOTHING",
        )
        .bind(id.to_string())
        .bind(i64::from(disk.number))
        .bind(i64::from(disk.slot))
        .bind(disk.layer.to_string())
        .execute(tx.conn())
        .await
        .map_err(sql("write a snapshot's layer"))?;
    }
    tx.changed(Noun::Snapshot, id, false);
    Ok(())
}

/// The disks of a snapshot with the layers that were frozen, in boot order, which they were written in.
pub async fn disks(conn: &mut SqliteConnection, id: SnapshotId) -> Result<Vec<Disk>, DbError> {
    let rows = sqlx::query(
        "SELECT position, slot, layer, layers.virtual_bytes FROM snapshot_disks
         JOIN layers ON layers.id = snapshot_disks.layer WHERE snapshot = $1 ORDER BY snapshot_disks.rowid",
    )
    .bind(id.to_string())
    .fetch_all(conn)
    .await
    .map_err(sql("read a snapshot's disks"))?;
    rows.iter().map(super::hardware::disk).collect()
}

/// As [`disks`], outside a transaction.
pub async fn disks_of(db: &Db, id: SnapshotId) -> Result<Vec<Disk>, DbError> {
    db.reading(async |conn| disks(conn, id).await).await
}

/// The frozen layers of a snapshot, in the order of its disks.
pub async fn layers(db: &Db, id: SnapshotId) -> Result<Vec<LayerId>, DbError> {
    Ok(disks_of(db, id).await?.iter().map(|disk| disk.layer).collect())
}

/// What a snapshot's memory goes on in.
pub async fn memory_of(db: &Db, id: SnapshotId) -> Result<Option<MemoryOf>, DbError> {
    let row = sqlx::query("SELECT memory_of FROM snapshots WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(db.read())
        .await
        .map_err(sql("read a snapshot's memory"))?;
    row.as_ref().map_or(Ok(None), read_memory)
}

/// The snapshots of a machine that have memory, or may have.
pub async fn with_memory(db: &Db, vm: VmId) -> Result<Vec<SnapshotId>, DbError> {
    let rows = sqlx::query("SELECT id FROM snapshots WHERE vm = $1 AND memory = 1")
        .bind(vm.to_string())
        .fetch_all(db.read())
        .await
        .map_err(sql("read the snapshots with memory"))?;
    rows.iter().map(|r| word(r, "id")).collect()
}

/// The snapshots that froze a layer.
pub async fn of_layer(db: &Db, layer: LayerId) -> Result<Vec<SnapshotId>, DbError> {
    let rows = sqlx::query("SELECT snapshot FROM snapshot_disks WHERE layer = $1")
        .bind(layer.to_string())
        .fetch_all(db.read())
        .await
        .map_err(sql("read the snapshots of a layer"))?;
    rows.iter().map(|r| word(r, "snapshot")).collect()
}

/// Says anew how much a snapshot's layers take.
pub async fn set_allocated(tx: &mut Tx, id: SnapshotId, bytes: u64) -> Result<(), DbError> {
    sqlx::query("UPDATE snapshots SET allocated_bytes = $2 WHERE id = $1")
        .bind(id.to_string())
        .bind(bytes as i64)
        .execute(tx.conn())
        .await
        .map_err(sql("write the size of a snapshot"))?;
    tx.changed(Noun::Snapshot, id, false);
    Ok(())
}

/// Takes a snapshot's name off the books; answers the layers that it froze: for [`super::layers::release`].
pub async fn delete(tx: &mut Tx, id: SnapshotId) -> Result<Vec<LayerId>, DbError> {
    let layers = sqlx::query("SELECT layer FROM snapshot_disks WHERE snapshot = $1")
        .bind(id.to_string())
        .fetch_all(tx.conn())
        .await
        .map_err(sql("read a snapshot's layers"))?;
    let row = sqlx::query("DELETE FROM snapshots WHERE id = $1 RETURNING parent, vm")
        .bind(id.to_string())
        .fetch_optional(tx.conn())
        .await
        .map_err(sql("delete a snapshot"))?;
    let Some(row) = row else { return Ok(Vec::new()) };
    let parent: Option<String> = row.get("parent");
    // What stood on it stands on its parent now.
    sqlx::query("UPDATE snapshots SET parent = $2 WHERE parent = $1")
        .bind(id.to_string())
        .bind(&parent)
        .execute(tx.conn())
        .await
        .map_err(sql("delete a snapshot"))?;
    let moved = sqlx::query("UPDATE vms SET current_snapshot = $2 WHERE current_snapshot = $1")
        .bind(id.to_string())
        .bind(&parent)
        .execute(tx.conn())
        .await
        .map_err(sql("delete a snapshot"))?;
    if moved.rows_affected() > 0 {
        tx.changed(Noun::Vm, row.get::<&str, _>("vm"), false);
    }
    tx.changed(Noun::Snapshot, id, true);
    layers.iter().map(|r| word(r, "layer")).collect()
}

/// Whether a snapshot of the machine has this name.
pub async fn name_taken(tx: &mut Tx, vm: VmId, name: &shared::Name) -> Result<bool, DbError> {
    let row = sqlx::query("SELECT 1 FROM snapshots WHERE vm = $1 AND name = $2")
        .bind(vm.to_string())
        .bind(name.as_str())
        .fetch_optional(tx.conn())
        .await
        .map_err(sql("look for a snapshot's name"))?;
    Ok(row.is_some())
}
