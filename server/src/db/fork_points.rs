//! Instants that machines are forked from, and the layers that they froze.

use super::list::{By, Field, Listing, Page};
use super::{Db, DbError, Tx, json, sql, time, to_json, word};
use shared::feed::Noun;
use shared::fork::{ForkPoint, MemoryPlace};
use shared::snapshot::SnapshotState;
use shared::vm::{Disk, Nic};
use shared::{ForkPointId, LayerId, Name, NetworkId, VmId};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite};
use std::collections::BTreeMap;
use std::path::PathBuf;

macro_rules! select {
    ($more:literal) => {
        concat!(
            "SELECT fork_points.*, COALESCE(changes.generation, 0) AS generation,
                (SELECT COUNT(*) FROM vms WHERE vms.fork_point = fork_points.id) AS clones,
                (SELECT json_group_array(json_object('id', id, 'name', name)) FROM
                    (SELECT id, name FROM vms WHERE vms.fork_point = fork_points.id ORDER BY name LIMIT 8)) AS standing
             FROM fork_points
             LEFT JOIN changes ON changes.noun = 'forkPoint' AND changes.id = fork_points.id WHERE ",
            $more
        )
    };
}

/// What fork points may be listed by.
pub const FIELDS: &[Field] = &[
    Field {
        name: "name",
        column: "fork_points.name",
        by: By::Text,
    },
    Field {
        name: "vm",
        column: "fork_points.vm",
        by: By::Exact,
    },
    Field {
        name: "createTime",
        column: "fork_points.create_time",
        by: By::Number,
    },
];

/// A fork point with what is stored of it and not shown. One that is not kept has its id for a name.
#[derive(Clone, Debug)]
pub struct Stored {
    /// What is shown.
    pub point: ForkPoint,
    /// Whether it outlives the job that took it.
    pub kept: bool,
    /// Labels of the machine.
    pub labels: BTreeMap<String, String>,
    /// The host that it can be forked on.
    pub host: shared::HostId,
    /// The networks of the machine's NICs.
    pub networks: Vec<NetworkId>,
    /// Whether the machine had a NoCloud seed disk.
    pub has_seed: bool,
    /// The PCI slot of that.
    pub seed_slot: u32,
    /// Where its files are.
    pub directory: PathBuf,
}

fn read(row: &SqliteRow) -> Result<Stored, DbError> {
    let kept: Option<&str> = row.get("name");
    let id: ForkPointId = word(row, "id")?;
    let name = kept.map_or_else(|| format!("point-{id}"), str::to_owned);
    Ok(Stored {
        kept: kept.is_some(),
        point: ForkPoint {
            id,
            name: name.parse().map_err(|e: shared::NameError| DbError::Column {
                column: "fork_points.name",
                why: e.to_string(),
            })?,
            vm: word(row, "vm")?,
            vm_name: word(row, "vm_name")?,
            state: word(row, "state")?,
            cpus: row.get::<i64, _>("cpus") as u32,
            memory_mib: row.get::<i64, _>("memory_mib") as u32,
            firmware: word(row, "firmware")?,
            network_interfaces: json::<Vec<Nic>>(row, "nics")?,
            accelerator: word(row, "accelerator")?,
            qemu_version: row.get("qemu_version"),
            pause_micros: row.get::<Option<i64>, _>("pause_micros").map(|p| p as u64),
            memory_bytes: row.get::<i64, _>("memory_bytes") as u64,
            memory_place: word(row, "memory_place")?,
            clones: row.get::<i64, _>("clones") as u64,
            standing: json(row, "standing")?,
            create_time: time(row, "create_time")?,
            generation: row.get::<i64, _>("generation") as u64,
        },
        labels: json(row, "labels")?,
        host: word(row, "host")?,
        networks: json(row, "networks")?,
        has_seed: row.get::<i64, _>("has_seed") != 0,
        seed_slot: row.get::<i64, _>("seed_slot") as u32,
        directory: row.get::<String, _>("directory").into(),
    })
}

/// A page of the fork points that are kept.
pub async fn list(db: &Db, listing: &Listing) -> Result<Page<ForkPoint>, DbError> {
    let from = "FROM fork_points WHERE fork_points.name IS NOT NULL";
    listing
        .run(
            db,
            select!("fork_points.name IS NOT NULL"),
            from,
            "fork_points.id",
            |row| Ok(read(row)?.point),
        )
        .await
}

async fn find_where(
    conn: &mut SqliteConnection,
    column: &'static str,
    value: &str,
) -> Result<Option<Stored>, DbError> {
    let mut query = QueryBuilder::<Sqlite>::new(select!("1 = 1"));
    query.push(" AND ").push(column).push(" = ").push_bind(value);
    let row = query
        .build()
        .fetch_optional(conn)
        .await
        .map_err(sql("read a fork point"))?;
    row.as_ref().map(read).transpose()
}

/// The fork point with this id, as the transaction sees it.
pub async fn get(conn: &mut SqliteConnection, id: ForkPointId) -> Result<Option<Stored>, DbError> {
    find_where(conn, "fork_points.id", &id.to_string()).await
}

/// The fork point with this id.
pub async fn by_id(db: &Db, id: ForkPointId) -> Result<Option<Stored>, DbError> {
    db.reading(async |conn| get(conn, id).await).await
}

/// The fork point that is kept under this name or id.
pub async fn find(db: &Db, reference: &str) -> Result<Option<Stored>, DbError> {
    let column = if reference.parse::<ForkPointId>().is_ok() {
        "fork_points.id"
    } else {
        "fork_points.name"
    };
    let found = db.reading(async |conn| find_where(conn, column, reference).await);
    Ok(found.await?.filter(|s| s.kept))
}

/// Writes a fork point down; writing it again is no change.
pub async fn insert(tx: &mut Tx, s: &Stored) -> Result<(), DbError> {
    let p = &s.point;
    let done = sqlx::query(
        "INSERT INTO fork_points (id, name, vm, vm_name, state, cpus, memory_mib, firmware, labels, host, nics, networks,
             has_seed, accelerator, qemu_version, pause_micros, memory_bytes, memory_place, directory, create_time,
             seed_slot)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(p.id.to_string())
    .bind(s.kept.then(|| p.name.as_str()))
    .bind(p.vm.to_string())
    .bind(p.vm_name.as_str())
    .bind(p.state.word())
    .bind(i64::from(p.cpus))
    .bind(i64::from(p.memory_mib))
    .bind(p.firmware.word())
    .bind(to_json(&s.labels)?)
    .bind(s.host.to_string())
    .bind(to_json(&p.network_interfaces)?)
    .bind(to_json(&s.networks)?)
    .bind(i64::from(s.has_seed))
    .bind(p.accelerator.word())
    .bind(&p.qemu_version)
    .bind(p.pause_micros.map(|p| p as i64))
    .bind(p.memory_bytes as i64)
    .bind(p.memory_place.word())
    .bind(s.directory.to_string_lossy())
    .bind(p.create_time.micros())
    .bind(i64::from(s.seed_slot))
    .execute(tx.conn())
    .await;
    super::taken("fork point", &p.name, done)?;
    if s.kept {
        tx.changed(Noun::ForkPoint, p.id, false);
    }
    Ok(())
}

/// Notes the disks with the layers that were frozen, in their order, and how long the source stood still.
pub async fn froze(
    tx: &mut Tx,
    id: ForkPointId,
    disks: &[Disk],
    pause_micros: Option<u64>,
) -> Result<(), DbError> {
    for disk in disks {
        sqlx::query(
            "INSERT INTO fork_point_disks (point, position, slot, layer) VALUES ($1, $2, $3, $4)
             ON CONFLICT (point, position) DO UPDATE SET layer = excluded.layer",
        )
        .bind(id.to_string())
        .bind(i64::from(disk.number))
        .bind(i64::from(disk.slot))
        .bind(disk.layer.to_string())
        .execute(tx.conn())
        .await
        .map_err(sql("write a disk of a fork point"))?;
    }
    sqlx::query("UPDATE fork_points SET pause_micros = COALESCE($2, pause_micros) WHERE id = $1")
        .bind(id.to_string())
        .bind(pause_micros.map(|p| p as i64))
        .execute(tx.conn())
        .await
        .map_err(sql("change a fork point"))?;
    Ok(())
}

/// Makes a fork point READY.
pub async fn ready(
    tx: &mut Tx,
    id: ForkPointId,
    memory_bytes: u64,
    place: MemoryPlace,
) -> Result<(), DbError> {
    sqlx::query("UPDATE fork_points SET state = $2, memory_bytes = $3, memory_place = $4 WHERE id = $1")
        .bind(id.to_string())
        .bind(SnapshotState::Ready.word())
        .bind(memory_bytes as i64)
        .bind(place.word())
        .execute(tx.conn())
        .await
        .map_err(sql("change a fork point"))?;
    touch(tx, id).await
}

/// Tells the feed of a fork point that is kept.
pub async fn touch(tx: &mut Tx, id: ForkPointId) -> Result<(), DbError> {
    let row = sqlx::query("SELECT 1 FROM fork_points WHERE id = $1 AND name IS NOT NULL")
        .bind(id.to_string())
        .fetch_optional(tx.conn())
        .await
        .map_err(sql("look for a fork point"))?;
    if row.is_some() {
        tx.changed(Noun::ForkPoint, id, false);
    }
    Ok(())
}

/// The disks of a fork point in boot order, which they were written in, with the layers that it froze.
pub async fn disks(conn: &mut SqliteConnection, id: ForkPointId) -> Result<Vec<Disk>, DbError> {
    let rows = sqlx::query(
        "SELECT position, slot, layer, layers.virtual_bytes FROM fork_point_disks
         JOIN layers ON layers.id = fork_point_disks.layer WHERE point = $1 ORDER BY fork_point_disks.rowid",
    )
    .bind(id.to_string())
    .fetch_all(conn)
    .await
    .map_err(sql("read a fork point's disks"))?;
    rows.iter().map(super::hardware::disk).collect()
}

/// Whether a fork point has this name.
pub async fn name_taken(tx: &mut Tx, name: &Name) -> Result<bool, DbError> {
    let row = sqlx::query("SELECT 1 FROM fork_points WHERE name = $1")
        .bind(name.as_str())
        .fetch_optional(tx.conn())
        .await
        .map_err(sql("look for a fork point's name"))?;
    Ok(row.is_some())
}

/// Takes a fork point off the books; answers the layers that it stood on, for [`super::layers::release`].
pub async fn delete(tx: &mut Tx, id: ForkPointId) -> Result<Vec<LayerId>, DbError> {
    let stood_on = disks(tx.conn(), id).await?.iter().map(|d| d.layer).collect();
    touch_gone(tx, id).await?;
    Ok(stood_on)
}

async fn touch_gone(tx: &mut Tx, id: ForkPointId) -> Result<(), DbError> {
    let row = sqlx::query("DELETE FROM fork_points WHERE id = $1 RETURNING name")
        .bind(id.to_string())
        .fetch_optional(tx.conn())
        .await
        .map_err(sql("delete a fork point"))?;
    if row.is_some_and(|r| r.get::<Option<&str>, _>("name").is_some()) {
        tx.changed(Noun::ForkPoint, id, true);
    }
    Ok(())
}

/// The machines that were forked from an instant, and still are there.
pub async fn clones(db: &Db, id: ForkPointId) -> Result<Vec<VmId>, DbError> {
    let rows = sqlx::query("SELECT id FROM vms WHERE fork_point = $1 ORDER BY create_time, id")
        .bind(id.to_string())
        .fetch_all(db.read())
        .await
        .map_err(sql("read the clones of a fork point"))?;
    rows.iter().map(|r| word(r, "id")).collect()
}

/// Whether a job that is not over forks this point.
pub async fn in_use(tx: &mut Tx, id: ForkPointId) -> Result<bool, DbError> {
    let row = sqlx::query(
        "SELECT 1 FROM jobs WHERE end_time IS NULL AND json_extract(spec, '$.instantCloneVm.point') = $1 LIMIT 1",
    )
    .bind(id.to_string())
    .fetch_optional(tx.conn())
    .await
    .map_err(sql("look for a job that forks a point"))?;
    Ok(row.is_some())
}
