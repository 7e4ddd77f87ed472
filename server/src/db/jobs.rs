//! Jobs, each one row with its steps; their logs.

use super::list::{By, Field, Listing, Page};
use super::{Db, DbError, Tx, json, json_opt, now, sql, time, time_opt, to_json, word, word_opt};
use shared::access::rights::Sees;
use shared::copy::{CopySpec, RestoreSpec};
use shared::feed::Noun;
use shared::job::{Job, JobSpec, LogLine, Phase, PhaseParts, Resource, ResourceRole};
use shared::migrate::CloneOf;
use shared::{JobId, MigratingVmId, RunId, Timestamp, VmId};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite};
use uuid::Uuid;

const SELECT: &str = "SELECT jobs.*, COALESCE(changes.generation, 0) AS generation
    FROM jobs LEFT JOIN changes ON changes.noun = 'job' AND changes.id = jobs.id WHERE 1 = 1";

/// How many lines of a log one statement writes at most.
const LOG_ROWS: usize = 100;

/// What jobs may be listed by.
pub const FIELDS: &[Field] = &[
    Field {
        name: "createTime",
        column: "jobs.create_time",
        by: By::Number,
    },
    Field {
        name: "stateTime",
        column: "jobs.state_time",
        by: By::Number,
    },
    Field {
        name: "kind",
        column: "jobs.kind",
        by: By::Exact,
    },
    Field {
        name: "state",
        column: "jobs.state",
        by: By::Exact,
    },
    Field {
        name: "active",
        column: "(jobs.end_time IS NULL)",
        by: By::Exact,
    },
    Field {
        name: "vm",
        column: "jobs.vm",
        by: By::Exact,
    },
    Field {
        name: "product",
        column: "jobs.product",
        by: By::Exact,
    },
    Field {
        name: "run",
        column: "jobs.run",
        by: By::Exact,
    },
    Field {
        name: "migration",
        column: "jobs.migration",
        by: By::Exact,
    },
    Field {
        name: "createdBy",
        column: "jobs.created_by",
        by: By::Text,
    },
    Field {
        name: "text",
        column: "jobs.resources",
        by: By::Text,
    },
];

/// A job with what is stored of it and not shown.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The job.
    pub job: Job,
    /// What its steps have minted, as JSON.
    pub data: serde_json::Value,
    /// Whether a person asked to cancel it.
    pub cancel_requested: bool,
    /// Who has it stand still.
    pub held_by: Option<String>,
}

fn read(row: &SqliteRow) -> Result<Job, DbError> {
    let phase = Phase::from_parts(
        word(row, "state")?,
        PhaseParts {
            cause: word_opt(row, "unwind_cause")?,
            error: json_opt(row, "error")?,
            blocked: json_opt(row, "blocked")?,
            hold_reason: row.get("hold_reason"),
            end: time_opt(row, "end_time")?,
        },
    )?;
    let (state, parts) = phase.into_parts();
    Ok(Job {
        id: word(row, "id")?,
        kind: word(row, "kind")?,
        state,
        spec: json(row, "spec")?,
        steps: json(row, "steps")?,
        resources: json(row, "resources")?,
        outcome: json(row, "outcome")?,
        error: parts.error,
        unwind_cause: parts.cause,
        blocked: parts.blocked,
        hold_reason: parts.hold_reason,
        no_return: row.get::<i64, _>("no_return") != 0,
        retry_of: word_opt(row, "retry_of")?,
        created_by: row.get("created_by"),
        create_time: time(row, "create_time")?,
        start_time: time_opt(row, "start_time")?,
        state_time: time(row, "state_time")?,
        end_time: parts.end,
        generation: row.get::<i64, _>("generation") as u64,
    })
}

fn read_stored(row: &SqliteRow) -> Result<Stored, DbError> {
    Ok(Stored {
        job: read(row)?,
        data: json(row, "data")?,
        cancel_requested: row.get::<i64, _>("cancel_requested") != 0,
        held_by: row.get("held_by"),
    })
}

/// A page of jobs.
pub async fn list(db: &Db, listing: &Listing) -> Result<Page<Job>, DbError> {
    listing
        .run(db, SELECT, "FROM jobs WHERE 1 = 1", "jobs.id", read)
        .await
}

/// A job, as the transaction sees it.
pub async fn get(conn: &mut SqliteConnection, id: JobId) -> Result<Option<Stored>, DbError> {
    let mut query = QueryBuilder::<Sqlite>::new(SELECT);
    query.push(" AND jobs.id = ").push_bind(id.to_string());
    let row = query
        .build()
        .fetch_optional(conn)
        .await
        .map_err(sql("read a job"))?;
    row.as_ref().map(read_stored).transpose()
}

/// The job with this id.
pub async fn by_id(db: &Db, id: JobId) -> Result<Option<Stored>, DbError> {
    db.reading(async |conn| get(conn, id).await).await
}

/// The newest job that was given this clone job id, of this machine if one is named.
pub async fn by_clone_job_id(db: &Db, alias: &str, vm: Option<VmId>) -> Result<Option<Job>, DbError> {
    let mut query = QueryBuilder::<Sqlite>::new(SELECT);
    query.push(" AND jobs.clone_job_id = ").push_bind(alias);
    if let Some(vm) = vm {
        query.push(" AND jobs.vm = ").push_bind(vm.to_string());
    }
    query.push(" ORDER BY jobs.create_time DESC LIMIT 1");
    let row = query
        .build()
        .fetch_optional(db.read())
        .await
        .map_err(sql("read a clone job"))?;
    row.as_ref().map(read).transpose()
}

/// The job that a request with this id made since a moment.
pub async fn by_request(
    conn: &mut SqliteConnection,
    request: Uuid,
    by: &str,
    since: Timestamp,
) -> Result<Option<Job>, DbError> {
    let mut query = QueryBuilder::<Sqlite>::new(SELECT);
    query
        .push(" AND jobs.request_id = ")
        .push_bind(request.to_string());
    query.push(" AND jobs.created_by = ").push_bind(by);
    query.push(" AND jobs.create_time >= ").push_bind(since.micros());
    let row = query
        .build()
        .fetch_optional(conn)
        .await
        .map_err(sql("read a job by its request"))?;
    row.as_ref().map(read).transpose()
}

/// All jobs that are not over, oldest first.
pub async fn active(db: &Db) -> Result<Vec<Stored>, DbError> {
    let mut query = QueryBuilder::<Sqlite>::new(SELECT);
    query.push(" AND jobs.end_time IS NULL ORDER BY jobs.create_time, jobs.id");
    let rows = query
        .build()
        .fetch_all(db.read())
        .await
        .map_err(sql("read the jobs that are not over"))?;
    rows.iter().map(read_stored).collect()
}

/// The jobs of a copy run, in the order in which they were written.
pub async fn of_run(db: &Db, run: RunId) -> Result<Vec<Job>, DbError> {
    let mut query = QueryBuilder::<Sqlite>::new(SELECT);
    query.push(" AND jobs.run = ").push_bind(run.to_string());
    query.push(" ORDER BY jobs.create_time, jobs.id");
    let rows = query
        .build()
        .fetch_all(db.read())
        .await
        .map_err(sql("read the jobs of a copy run"))?;
    rows.iter().map(read).collect()
}

/// How many jobs are not over, and how many failed since a moment.
pub async fn counts(db: &Db, since: Timestamp, sees: &Sees) -> Result<(u64, u64), DbError> {
    let row = sqlx::query(
        "WITH seen AS (SELECT value FROM json_each($2))
         SELECT (SELECT COUNT(*) FROM jobs WHERE end_time IS NULL
                 AND ($2 IS NULL OR vm IN seen OR product IN seen)) AS active,
             (SELECT COUNT(*) FROM jobs WHERE state = 'FAILED' AND end_time >= $1
                 AND ($2 IS NULL OR vm IN seen OR product IN seen)) AS failed",
    )
    .bind(since.micros())
    .bind(super::seen(sees)?)
    .fetch_one(db.read())
    .await
    .map_err(sql("count the jobs"))?;
    Ok((
        row.get::<i64, _>("active") as u64,
        row.get::<i64, _>("failed") as u64,
    ))
}

/// How many jobs there are of each kind in each state.
pub async fn by_state(db: &Db) -> Result<Vec<(String, String, u64)>, DbError> {
    let rows = sqlx::query("SELECT kind, state, COUNT(*) AS n FROM jobs GROUP BY kind, state")
        .fetch_all(db.read())
        .await
        .map_err(sql("count the jobs"))?;
    let one = |row: &SqliteRow| (row.get("kind"), row.get("state"), row.get::<i64, _>("n") as u64);
    Ok(rows.iter().map(one).collect())
}

/// The machine that a job works on, and the one that it makes; none if there is no such job.
pub async fn machines(db: &Db, id: JobId) -> Result<Vec<VmId>, DbError> {
    let row = sqlx::query("SELECT vm, product FROM jobs WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(db.read())
        .await
        .map_err(sql("read a job"))?;
    let Some(row) = row else { return Ok(Vec::new()) };
    let both = [super::word_opt(&row, "vm")?, super::word_opt(&row, "product")?];
    Ok(both.into_iter().flatten().collect())
}

/// The migration that a job is of. The machine that a cutover makes belongs to the cutover: no test clone.
const fn migration(spec: &JobSpec) -> Option<MigratingVmId> {
    match spec {
        JobSpec::CopySnapshot(CopySpec {
            migration: Some(of), ..
        }) => Some(of.migrating_vm),
        JobSpec::RestoreCopy(RestoreSpec {
            migration: Some(of @ CloneOf { cutover: None, .. }),
            ..
        }) => Some(of.migrating_vm),
        JobSpec::CutOver(spec) => Some(spec.migrating_vm),
        JobSpec::FinalizeMigration(spec) => Some(spec.migrating_vm),
        JobSpec::AdaptCopy(spec) => Some(spec.migrating_vm),
        _ => None,
    }
}

fn product(resources: &[Resource]) -> Option<&str> {
    resources
        .iter()
        .find(|r| r.role == ResourceRole::Product && r.noun == Noun::Vm)
        .map(|r| r.id.as_str())
}

/// Writes a new job down, with the id of the request that made it; answers its generation.
pub async fn insert(tx: &mut Tx, job: &Job, request: Option<Uuid>) -> Result<u64, DbError> {
    let alias = match &*job.spec {
        JobSpec::CloneVm(spec) => spec.request.clone_job_id.as_ref().map(|n| n.as_str()),
        _ => None,
    };
    let run = match &*job.spec {
        JobSpec::CopySnapshot(spec) => spec.run,
        _ => None,
    };
    let migration = migration(&job.spec);
    sqlx::query(
        "INSERT INTO jobs (id, kind, state, vm, clone_job_id, spec, steps, data, resources, outcome, retry_of, created_by,
             request_id, create_time, state_time, run, migration)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'null', $8, $9, $10, $11, $12, $13, $14, $15, $16)",
    )
    .bind(job.id.to_string())
    .bind(job.kind.word())
    .bind(job.state.word())
    .bind(job.spec.vm().map(|v| v.to_string()))
    .bind(alias)
    .bind(to_json(&job.spec)?)
    .bind(to_json(&job.steps)?)
    .bind(to_json(&job.resources)?)
    .bind(to_json(&job.outcome)?)
    .bind(job.retry_of.map(|j| j.to_string()))
    .bind(&job.created_by)
    .bind(request.map(|r| r.to_string()))
    .bind(job.create_time.micros())
    .bind(job.state_time.micros())
    .bind(run.map(|run| run.to_string()))
    .bind(migration.map(|id| id.to_string()))
    .execute(tx.conn())
    .await
    .map_err(sql("write a job"))?;
    if let Some(id) = migration {
        tx.changed(Noun::MigratingVm, id, false);
    }
    Ok(tx.changed(Noun::Job, job.id, false))
}

/// Writes down how far a job has come, and what its steps minted.
pub async fn save(tx: &mut Tx, job: &Job, data: &serde_json::Value) -> Result<(), DbError> {
    // Refuses what makes no sense before it is written, not when it is read.
    job.phase()?;
    sqlx::query(
        "UPDATE jobs SET state = $2, steps = $3, data = $4, resources = $5, outcome = $6, unwind_cause = $7, error = $8,
             blocked = $9, hold_reason = $10, no_return = $11, start_time = $12, state_time = $13, end_time = $14,
             product = $15, lease_owner = CASE WHEN $14 IS NULL THEN lease_owner END,
             lease_until = CASE WHEN $14 IS NULL THEN lease_until END
         WHERE id = $1",
    )
    .bind(job.id.to_string())
    .bind(job.state.word())
    .bind(to_json(&job.steps)?)
    .bind(to_json(data)?)
    .bind(to_json(&job.resources)?)
    .bind(to_json(&job.outcome)?)
    .bind(job.unwind_cause.map(|c| c.word()))
    .bind(job.error.as_ref().map(to_json).transpose()?)
    .bind(job.blocked.as_ref().map(to_json).transpose()?)
    .bind(&job.hold_reason)
    .bind(i64::from(job.no_return))
    .bind(job.start_time.map(|t| t.micros()))
    .bind(job.state_time.micros())
    .bind(job.end_time.map(|t| t.micros()))
    .bind(product(&job.resources))
    .execute(tx.conn())
    .await
    .map_err(sql("save a job"))?;
    tx.changed(Noun::Job, job.id, false);
    // What goes on with a migration waits for this.
    if let Some(id) = migration(&job.spec).filter(|_| job.end_time.is_some()) {
        tx.changed(Noun::MigratingVm, id, false);
    }
    // In the same transaction: whoever is to be told of it is, whatever happens next.
    super::notices::tell(tx, job).await
}

/// Notes who has a job stand still, or that nobody has any more.
pub async fn set_held(tx: &mut Tx, id: JobId, by: Option<&str>) -> Result<(), DbError> {
    sqlx::query("UPDATE jobs SET held_by = $2 WHERE id = $1")
        .bind(id.to_string())
        .bind(by)
        .execute(tx.conn())
        .await
        .map_err(sql("have a job stand still"))?;
    tx.changed(Noun::Job, id, false);
    Ok(())
}

/// Claims a job for a runner until the lease ends; answers it, or none if another runner holds it or it is over.
pub async fn claim(tx: &mut Tx, id: JobId, owner: Uuid, until: Timestamp) -> Result<Option<Stored>, DbError> {
    let row = sqlx::query(
        "UPDATE jobs SET lease_owner = $2, lease_until = $3
         WHERE id = $1 AND end_time IS NULL AND (lease_owner IS NULL OR lease_owner = $2 OR lease_until < $4)
         RETURNING *, 0 AS generation",
    )
    .bind(id.to_string())
    .bind(owner.to_string())
    .bind(until.micros())
    .bind(now().micros())
    .fetch_optional(tx.conn())
    .await
    .map_err(sql("claim a job"))?;
    row.as_ref().map(read_stored).transpose()
}

/// Prolongs the leases of all jobs that a runner holds: its heartbeat.
pub async fn beat(tx: &mut Tx, owner: Uuid, until: Timestamp) -> Result<(), DbError> {
    sqlx::query("UPDATE jobs SET lease_until = $2 WHERE lease_owner = $1 AND end_time IS NULL")
        .bind(owner.to_string())
        .bind(until.micros())
        .execute(tx.conn())
        .await
        .map_err(sql("prolong leases"))?;
    Ok(())
}

/// Ends all leases: the caller holds the data directory's lock, so whoever held them is gone.
pub async fn end_leases(tx: &mut Tx) -> Result<(), DbError> {
    sqlx::query("UPDATE jobs SET lease_owner = NULL, lease_until = NULL WHERE lease_owner IS NOT NULL AND end_time IS NULL")
        .execute(tx.conn())
        .await
        .map_err(sql("end leases"))?;
    Ok(())
}

/// Notes that a person asked to cancel a job.
pub async fn request_cancel(tx: &mut Tx, id: JobId) -> Result<(), DbError> {
    sqlx::query("UPDATE jobs SET cancel_requested = 1 WHERE id = $1")
        .bind(id.to_string())
        .execute(tx.conn())
        .await
        .map_err(sql("note a cancel"))?;
    tx.changed(Noun::Job, id, false);
    Ok(())
}

/// Whether a person has asked to cancel a job.
pub async fn cancel_requested(tx: &mut Tx, id: JobId) -> Result<bool, DbError> {
    let row = sqlx::query("SELECT cancel_requested FROM jobs WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(tx.conn())
        .await
        .map_err(sql("look for a cancel"))?;
    Ok(row.is_some_and(|r| r.get::<i64, _>("cancel_requested") != 0))
}

/// Adds lines to a job's log.
pub async fn log(tx: &mut Tx, id: JobId, lines: &[LogLine]) -> Result<(), DbError> {
    for lines in lines.chunks(LOG_ROWS) {
        let mut query = QueryBuilder::<Sqlite>::new("INSERT INTO job_log (job, time, text) ");
        query.push_values(lines, |mut row, line| {
            row.push_bind(id.to_string())
                .push_bind(line.time.micros())
                .push_bind(&line.text);
        });
        query
            .build()
            .execute(tx.conn())
            .await
            .map_err(sql("write a job's log"))?;
    }
    Ok(())
}

/// A page of a job's log, behind the line with this number; answers the number of the last line too.
pub async fn read_log(
    db: &Db,
    id: JobId,
    after: i64,
    size: u32,
) -> Result<(Vec<LogLine>, Option<i64>, u64), DbError> {
    let total = sqlx::query("SELECT COUNT(*) AS n FROM job_log WHERE job = $1")
        .bind(id.to_string())
        .fetch_one(db.read())
        .await
        .map_err(sql("count a job's log"))?
        .get::<i64, _>("n") as u64;
    let rows =
        sqlx::query("SELECT id, time, text FROM job_log WHERE job = $1 AND id > $2 ORDER BY id LIMIT $3")
            .bind(id.to_string())
            .bind(after)
            .bind(i64::from(size) + 1)
            .fetch_all(db.read())
            .await
            .map_err(sql("read a job's log"))?;
    let more = rows.len() > size as usize;
    let shown = &rows[..rows.len().min(size as usize)];
    let lines = shown
        .iter()
        .map(|r| {
            Ok(LogLine {
                time: time(r, "time")?,
                text: r.get("text"),
            })
        })
        .collect::<Result<_, DbError>>()?;
    let last = shown.last().filter(|_| more).map(|r| r.get::<i64, _>("id"));
    Ok((lines, last, total))
}
