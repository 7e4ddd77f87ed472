//! Sources, and the machines that are carried over from them.

use super::list::{By, Field, Listing, Page};
use super::{Db, DbError, Tx, json, sql, time, to_json, word, word_opt};
use serde::{Deserialize, Serialize};
use shared::feed::Noun;
use shared::job::Job;
use shared::migrate::adapt::{AdaptedUpload, LastAdaptation};
use shared::migrate::views::Judged;
use shared::migrate::{CyclePolicy, MigratingState, MigratingVm, Source, SourcePlace, TargetDefaults};
use shared::{CopyId, JobId, MigratingVmId, Name, SourceId, Status, TargetId, Timestamp, VmId};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite};

const SOURCE: &str = "SELECT sources.*, COALESCE(changes.generation, 0) AS generation,
        (SELECT COUNT(*) FROM migrating_vms WHERE source = sources.id) AS migrating_vms
    FROM sources LEFT JOIN changes ON changes.noun = 'source' AND changes.id = sources.id WHERE 1 = 1";

const SELECT: &str = "SELECT migrating_vms.*, sources.name AS source_name, sources.place AS source_place, targets.name AS target_name,
        COALESCE(changes.generation, 0) AS generation
    FROM migrating_vms JOIN sources ON sources.id = migrating_vms.source JOIN targets ON targets.id = migrating_vms.target
    LEFT JOIN changes ON changes.noun = 'migratingVm' AND changes.id = migrating_vms.id WHERE 1 = 1";

/// What sources may be listed by.
pub const SOURCE_FIELDS: &[Field] = &[
    Field {
        name: "name",
        column: "sources.name",
        by: By::Text,
    },
    Field {
        name: "createTime",
        column: "sources.create_time",
        by: By::Number,
    },
];

/// What machines that are carried over may be listed by.
pub const FIELDS: &[Field] = &[
    Field {
        name: "name",
        column: "migrating_vms.name",
        by: By::Text,
    },
    Field {
        name: "createTime",
        column: "migrating_vms.create_time",
        by: By::Number,
    },
    Field {
        name: "stateTime",
        column: "migrating_vms.state_time",
        by: By::Number,
    },
    Field {
        name: "state",
        column: "migrating_vms.state",
        by: By::Exact,
    },
    Field {
        name: "source",
        column: "migrating_vms.source",
        by: By::Exact,
    },
    Field {
        name: "target",
        column: "migrating_vms.target",
        by: By::Exact,
    },
    Field {
        name: "group",
        column: "migrating_vms.in_group",
        by: By::Exact,
    },
];

/// What is written of a machine that is carried over, beside what it is found by.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    source_vm_name: String,
    target_defaults: TargetDefaults,
    policy: CyclePolicy,
    error: Option<Status>,
    cycles: u64,
    failures: u32,
    current_cycle: Option<JobId>,
    last_sync_time: Option<Timestamp>,
    last_copy: Option<CopyId>,
    #[serde(default)]
    last_rate_bps: Option<u64>,
    #[serde(default)]
    adaptation: Option<LastAdaptation>,
    #[serde(default)]
    adapted: Option<AdaptedUpload>,
    next_time: Option<Timestamp>,
    cutover_job: Option<JobId>,
    target_vm: Option<VmId>,
    expire_time: Option<Timestamp>,
    #[serde(default = "first_wave")]
    wave: u32,
}

const fn first_wave() -> u32 {
    1
}

fn body(vm: &MigratingVm) -> Result<String, DbError> {
    to_json(&Body {
        source_vm_name: vm.source_vm_name.clone(),
        target_defaults: vm.target_defaults.clone(),
        policy: vm.policy,
        error: vm.error.clone(),
        cycles: vm.cycles,
        failures: vm.failures,
        current_cycle: vm.current_cycle,
        last_sync_time: vm.last_sync_time,
        last_copy: vm.last_copy,
        last_rate_bps: vm.last_rate_bps,
        adaptation: vm.adaptation.clone(),
        adapted: vm.adapted,
        next_time: vm.next_time,
        cutover_job: vm.cutover_job,
        target_vm: vm.target_vm,
        expire_time: vm.expire_time,
        wave: vm.wave,
    })
}

fn read_source(row: &SqliteRow) -> Result<Source, DbError> {
    Ok(Source {
        id: word(row, "id")?,
        name: word(row, "name")?,
        place: json(row, "place")?,
        migrating_vms: row.get::<i64, _>("migrating_vms") as u64,
        create_time: time(row, "create_time")?,
        generation: row.get::<i64, _>("generation") as u64,
    })
}

fn read(row: &SqliteRow) -> Result<MigratingVm, DbError> {
    let body: Body = json(row, "body")?;
    let source: SourcePlace = json(row, "source_place")?;
    // What lives on this server runs on the same hardware already.
    let skips = body.policy.skip_os_adaptation.unwrap_or(source.local.is_some());
    Ok(MigratingVm {
        id: word(row, "id")?,
        name: word(row, "name")?,
        source: word(row, "source")?,
        source_name: word(row, "source_name")?,
        source_vm: row.get("source_vm"),
        source_vm_name: body.source_vm_name,
        target: word(row, "target")?,
        target_name: word(row, "target_name")?,
        target_defaults: body.target_defaults,
        policy: body.policy,
        group: word_opt(row, "in_group")?,
        wave: body.wave,
        state: word(row, "state")?,
        state_time: time(row, "state_time")?,
        error: body.error,
        cycles: body.cycles,
        failures: body.failures,
        current_cycle: body.current_cycle,
        last_sync_time: body.last_sync_time,
        last_copy: body.last_copy,
        last_rate_bps: body.last_rate_bps,
        adaptation: body.adaptation,
        adapts: !skips,
        adapted: body.adapted,
        next_time: body.next_time,
        cutover_job: body.cutover_job,
        target_vm: body.target_vm,
        expire_time: body.expire_time,
        create_time: time(row, "create_time")?,
        generation: row.get::<i64, _>("generation") as u64,
    })
}

/// A page of sources.
pub async fn sources(db: &Db, listing: &Listing) -> Result<Page<Source>, DbError> {
    let from = "FROM sources WHERE 1 = 1";
    listing.run(db, SOURCE, from, "sources.id", read_source).await
}

/// The source with this name or id, or NOT_FOUND.
pub async fn source(conn: &mut SqliteConnection, reference: &str) -> Result<Source, DbError> {
    let mut query = QueryBuilder::<Sqlite>::new(SOURCE);
    query
        .push(" AND (sources.id = ")
        .push_bind(reference)
        .push(" OR sources.name = ")
        .push_bind(reference)
        .push(")");
    let row = query.build().fetch_optional(conn).await;
    let found = row.map_err(sql("read a source"))?;
    match found.as_ref().map(read_source).transpose()? {
        Some(source) => Ok(source),
        None => Err(Status::not_found("source", reference).into()),
    }
}

/// Writes a source down.
pub async fn insert_source(tx: &mut Tx, source: &Source) -> Result<(), DbError> {
    let done = sqlx::query("INSERT INTO sources (id, name, place, create_time) VALUES ($1, $2, $3, $4)")
        .bind(source.id.to_string())
        .bind(source.name.as_str())
        .bind(to_json(&source.place)?)
        .bind(source.create_time.micros())
        .execute(tx.conn())
        .await;
    super::taken("source", &source.name, done)?;
    tx.changed(Noun::Source, source.id, false);
    Ok(())
}

/// Takes a source off the books that nothing is carried over from.
pub async fn delete_source(tx: &mut Tx, id: SourceId) -> Result<(), DbError> {
    sqlx::query("DELETE FROM sources WHERE id = $1")
        .bind(id.to_string())
        .execute(tx.conn())
        .await
        .map_err(sql("delete a source"))?;
    tx.changed(Noun::Source, id, true);
    Ok(())
}

/// A page of machines that are carried over.
pub async fn list(db: &Db, listing: &Listing) -> Result<Page<MigratingVm>, DbError> {
    let from = "FROM migrating_vms WHERE 1 = 1";
    listing.run(db, SELECT, from, "migrating_vms.id", read).await
}

/// Those of a group, or all that are in one, by name.
pub async fn in_group(conn: &mut SqliteConnection, group: Option<&str>) -> Result<Vec<MigratingVm>, DbError> {
    let mut query = QueryBuilder::<Sqlite>::new(SELECT);
    match group {
        Some(group) => query.push(" AND migrating_vms.in_group = ").push_bind(group),
        None => query.push(" AND migrating_vms.in_group IS NOT NULL"),
    };
    query.push(" ORDER BY migrating_vms.name");
    let rows = query.build().fetch_all(conn).await;
    let rows = rows.map_err(sql("read the machines of a group"))?;
    rows.iter().map(read).collect()
}

/// The job that cuts a group over, or did the last time.
pub async fn group_cutover(conn: &mut SqliteConnection, group: &Name) -> Result<Option<JobId>, DbError> {
    let row = sqlx::query(
        "SELECT id FROM jobs WHERE kind = 'CUT_OVER_GROUP' AND json_extract(spec, '$.cutOverGroup.group') = $1
         ORDER BY create_time DESC LIMIT 1",
    )
    .bind(group.as_str())
    .fetch_optional(conn)
    .await
    .map_err(sql("look for the job of a group"))?;
    row.map(|row| word(&row, "id")).transpose()
}

/// Those that are not finalized, by name.
pub async fn open(db: &Db) -> Result<Vec<MigratingVm>, DbError> {
    let mut query = QueryBuilder::<Sqlite>::new(SELECT);
    query.push(" AND migrating_vms.state <> 'FINALIZED' ORDER BY migrating_vms.name");
    let rows = query.build().fetch_all(db.read()).await;
    let rows = rows.map_err(sql("read the machines that are carried over"))?;
    rows.iter().map(read).collect()
}

/// The machine that is carried over with this name or id, or NOT_FOUND.
pub async fn known(conn: &mut SqliteConnection, reference: &str) -> Result<MigratingVm, DbError> {
    let mut query = QueryBuilder::<Sqlite>::new(SELECT);
    query
        .push(" AND (migrating_vms.id = ")
        .push_bind(reference)
        .push(" OR migrating_vms.name = ")
        .push_bind(reference)
        .push(")");
    let row = query.build().fetch_optional(conn).await;
    let found = row.map_err(sql("read a machine that is carried over"))?;
    match found.as_ref().map(read).transpose()? {
        Some(vm) => Ok(vm),
        None => Err(Status::not_found("migrating VM", reference).into()),
    }
}

/// As [`known`], by its id and outside a transaction.
pub async fn by_id(db: &Db, id: MigratingVmId) -> Result<MigratingVm, DbError> {
    db.reading(async |conn| known(conn, &id.to_string()).await).await
}

/// Writes a machine down that is carried over.
pub async fn insert(tx: &mut Tx, vm: &MigratingVm) -> Result<(), DbError> {
    let other = sqlx::query(
        "SELECT name FROM migrating_vms WHERE source = $1 AND source_vm = $2 AND state <> 'FINALIZED'",
    )
    .bind(vm.source.to_string())
    .bind(&vm.source_vm)
    .fetch_optional(tx.conn())
    .await
    .map_err(sql("look whether a machine is carried over already"))?;
    if let Some(row) = other {
        let name: &str = row.get("name");
        let message = format!("{} is carried over already, by {name}", vm.source_vm_name);
        return Err(Status::new(shared::Code::AlreadyExists, message).into());
    }
    let done = sqlx::query(
        "INSERT INTO migrating_vms (id, name, source, source_vm, target, in_group, state, state_time, body, create_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(vm.id.to_string())
    .bind(vm.name.as_str())
    .bind(vm.source.to_string())
    .bind(&vm.source_vm)
    .bind(vm.target.to_string())
    .bind(vm.group.as_ref().map(|group| group.as_str()))
    .bind(vm.state.word())
    .bind(vm.state_time.micros())
    .bind(body(vm)?)
    .bind(vm.create_time.micros())
    .execute(tx.conn())
    .await;
    super::taken("migrating VM", &vm.name, done)?;
    tx.changed(Noun::MigratingVm, vm.id, false);
    tx.changed(Noun::Source, vm.source, false);
    Ok(())
}

/// Writes down how far a machine has come that is carried over; refuses a state that cannot follow.
pub async fn save(tx: &mut Tx, vm: &MigratingVm) -> Result<(), DbError> {
    let was = known(tx.conn(), &vm.id.to_string()).await?.state;
    if was != vm.state && !was.can_become(vm.state) {
        let message = format!("{} is {was}, and cannot become {} from there", vm.name, vm.state);
        return Err(Status::precondition(message).into());
    }
    let done = sqlx::query(
        "UPDATE migrating_vms SET name = $2, in_group = $3, state = $4, state_time = $5, body = $6 WHERE id = $1",
    )
    .bind(vm.id.to_string())
    .bind(vm.name.as_str())
    .bind(vm.group.as_ref().map(|group| group.as_str()))
    .bind(vm.state.word())
    .bind(vm.state_time.micros())
    .bind(body(vm)?)
    .execute(tx.conn())
    .await;
    super::taken("migrating VM", &vm.name, done)?;
    tx.changed(Noun::MigratingVm, vm.id, false);
    Ok(())
}

/// Takes a migration off the books; its uploads stay, as copies like any other.
pub async fn delete(tx: &mut Tx, vm: &MigratingVm) -> Result<(), DbError> {
    for statement in [
        "UPDATE copies SET migration = NULL WHERE migration = $1",
        "DELETE FROM migrating_vms WHERE id = $1",
    ] {
        sqlx::query(statement)
            .bind(vm.id.to_string())
            .execute(tx.conn())
            .await
            .map_err(sql("delete a machine that is carried over"))?;
    }
    tx.changed(Noun::MigratingVm, vm.id, true);
    tx.changed(Noun::Source, vm.source, false);
    Ok(())
}

/// Notes that a migration uploaded a copy.
pub async fn set_upload(tx: &mut Tx, copy: CopyId, migration: MigratingVmId) -> Result<(), DbError> {
    sqlx::query("UPDATE copies SET migration = $2 WHERE id = $1")
        .bind(copy.to_string())
        .bind(migration.to_string())
        .execute(tx.conn())
        .await
        .map_err(sql("note who uploaded a copy"))?;
    Ok(())
}

/// Whether a copy is an upload of a migration.
pub async fn is_upload(db: &Db, copy: CopyId, migration: MigratingVmId) -> Result<bool, DbError> {
    let row = sqlx::query("SELECT 1 FROM copies WHERE id = $1 AND migration = $2")
        .bind(copy.to_string())
        .bind(migration.to_string())
        .fetch_optional(db.read())
        .await
        .map_err(sql("look whose upload a copy is"))?;
    Ok(row.is_some())
}

/// The newest job of a migration of some kind that ended well.
pub async fn last_good(
    db: &Db,
    migration: MigratingVmId,
    kind: shared::job::JobKind,
) -> Result<Option<Job>, DbError> {
    let row = sqlx::query(
        // What is only looked at says nothing of how long it takes to be done.
        "SELECT id FROM jobs WHERE migration = $1 AND kind = $2 AND state = 'SUCCEEDED'
             AND COALESCE(json_extract(spec, '$.adaptCopy.check'), 0) = 0
         ORDER BY create_time DESC LIMIT 1",
    )
    .bind(migration.to_string())
    .bind(kind.word())
    .fetch_optional(db.read())
    .await
    .map_err(sql("look for a job of a migration"))?;
    match row.map(|row| word::<JobId>(&row, "id")).transpose()? {
        Some(id) => Ok(super::jobs::by_id(db, id).await?.map(|stored| stored.job)),
        None => Ok(None),
    }
}

/// The jobs of a migration that are not over, but for its cycles.
pub async fn at_work(conn: &mut SqliteConnection, migration: MigratingVmId) -> Result<Vec<JobId>, DbError> {
    let rows = sqlx::query(
        "SELECT id FROM jobs WHERE migration = $1 AND end_time IS NULL AND kind IN ('CUT_OVER', 'FINALIZE_MIGRATION')",
    )
    .bind(migration.to_string())
    .fetch_all(conn)
    .await
    .map_err(sql("look for the jobs of a migration"))?;
    rows.iter().map(|row| word(row, "id")).collect()
}

/// What people say of a test clone.
pub async fn judged(db: &Db, job: JobId) -> Result<Judged, DbError> {
    let row = sqlx::query("SELECT * FROM judged_clones WHERE job = $1")
        .bind(job.to_string())
        .fetch_optional(db.read())
        .await
        .map_err(sql("read what is said of a test clone"))?;
    let Some(row) = row else {
        return Ok(Judged::default());
    };
    Ok(Judged {
        verdict: word_opt(&row, "verdict")?,
        note: row.get("note"),
        by: row.get("said_by"),
        time: Some(time(&row, "time")?),
    })
}

/// Notes what a person says of a test clone: the last word counts.
pub async fn judge(
    tx: &mut Tx,
    job: JobId,
    judged: &Judged,
    migration: MigratingVmId,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO judged_clones (job, verdict, note, said_by, time) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (job) DO UPDATE SET verdict = excluded.verdict, note = excluded.note, said_by = excluded.said_by,
             time = excluded.time",
    )
    .bind(job.to_string())
    .bind(judged.verdict.map(|verdict| verdict.word()))
    .bind(&judged.note)
    .bind(&judged.by)
    .bind(judged.time.map(Timestamp::micros))
    .execute(tx.conn())
    .await
    .map_err(sql("note what is said of a test clone"))?;
    tx.changed(Noun::MigratingVm, migration, false);
    Ok(())
}

/// Snapshots of a machine that were taken for copies to a target.
pub async fn snapshots_for(db: &Db, vm: VmId, target: TargetId) -> Result<Vec<shared::SnapshotId>, DbError> {
    let rows = sqlx::query(
        "SELECT snapshots.id FROM copy_snapshots JOIN snapshots ON snapshots.id = copy_snapshots.snapshot
         WHERE snapshots.vm = $1 AND copy_snapshots.target = $2 AND snapshots.state = 'READY'",
    )
    .bind(vm.to_string())
    .bind(target.to_string())
    .fetch_all(db.read())
    .await
    .map_err(sql("look for snapshots that were taken for copies"))?;
    rows.iter().map(|row| word(row, "id")).collect()
}

/// Sets a state, from which moment on.
pub fn become_(vm: &mut MigratingVm, state: MigratingState, now: Timestamp) {
    if vm.state != state {
        (vm.state, vm.state_time) = (state, now);
    }
}
