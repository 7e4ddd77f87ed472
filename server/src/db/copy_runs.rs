//! The runs of policies, which group the copy tasks of one moment.

use super::list::{By, Field, Listing, Page};
use super::{Db, DbError, Tx, sql, time, word};
use shared::feed::Noun;
use shared::{Name, PolicyId, RunId, TargetId, Timestamp, VmId};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

/// What copy runs may be listed by.
pub const FIELDS: &[Field] = &[
    Field {
        name: "time",
        column: "copy_runs.time",
        by: By::Number,
    },
    Field {
        name: "policy",
        column: "copy_runs.policy",
        by: By::Exact,
    },
    Field {
        name: "policyName",
        column: "copy_runs.policy_name",
        by: By::Text,
    },
];

/// A run, whose tasks are jobs.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The policy.
    pub policy: PolicyId,
    /// Its name at the time.
    pub policy_name: Name,
    /// When it was due, or when a person asked.
    pub time: Timestamp,
    /// When it began.
    pub create_time: Timestamp,
    /// Who asked for it.
    pub created_by: String,
    /// Whether its time had come; else a person asked.
    pub scheduled: bool,
    /// Why all of its tasks were missed.
    pub missed: Option<String>,
    /// Whether all of its tasks are there.
    pub filled: bool,
}

fn read(row: &SqliteRow) -> Result<Run, DbError> {
    Ok(Run {
        id: word(row, "id")?,
        policy: word(row, "policy")?,
        policy_name: word(row, "policy_name")?,
        time: time(row, "time")?,
        create_time: time(row, "create_time")?,
        created_by: row.get("created_by"),
        scheduled: row.get::<i64, _>("scheduled") != 0,
        missed: row.get("missed"),
        filled: row.get::<i64, _>("filled") != 0,
    })
}

/// A page of runs.
pub async fn list(db: &Db, listing: &Listing) -> Result<Page<Run>, DbError> {
    let select = "SELECT copy_runs.* FROM copy_runs WHERE 1 = 1";
    listing
        .run(db, select, "FROM copy_runs WHERE 1 = 1", "copy_runs.id", read)
        .await
}

/// The run with this id.
pub async fn by_id(db: &Db, id: RunId) -> Result<Option<Run>, DbError> {
    let row = sqlx::query("SELECT * FROM copy_runs WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(db.read())
        .await
        .map_err(sql("read a copy run"))?;
    row.as_ref().map(read).transpose()
}

/// The runs whose tasks are not all there, the oldest first.
pub async fn unfilled(db: &Db) -> Result<Vec<Run>, DbError> {
    let rows = sqlx::query("SELECT * FROM copy_runs WHERE filled = 0 ORDER BY time, id")
        .fetch_all(db.read())
        .await
        .map_err(sql("read the copy runs that have begun"))?;
    rows.iter().map(read).collect()
}

/// Writes a run down.
pub async fn insert(tx: &mut Tx, run: &Run) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO copy_runs (id, policy, policy_name, time, create_time, created_by, scheduled, missed)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(run.id.to_string())
    .bind(run.policy.to_string())
    .bind(run.policy_name.as_str())
    .bind(run.time.micros())
    .bind(run.create_time.micros())
    .bind(&run.created_by)
    .bind(i64::from(run.scheduled))
    .bind(&run.missed)
    .execute(tx.conn())
    .await
    .map_err(sql("write a copy run"))?;
    Ok(())
}

/// Notes that all tasks of a run are there.
pub async fn set_filled(tx: &mut Tx, id: RunId, policy: PolicyId) -> Result<(), DbError> {
    sqlx::query("UPDATE copy_runs SET filled = 1 WHERE id = $1")
        .bind(id.to_string())
        .execute(tx.conn())
        .await
        .map_err(sql("note that a copy run has its tasks"))?;
    // Runs are no noun of the feed: who shows them looks again when their policy has changed.
    tx.changed(Noun::Policy, policy, false);
    Ok(())
}

/// How many tasks of a policy were missed since a moment.
pub async fn missed_since(db: &Db, policy: PolicyId, since: Timestamp) -> Result<u64, DbError> {
    let row = sqlx::query(
        "SELECT COUNT(*) AS n FROM copy_runs JOIN jobs ON jobs.run = copy_runs.id
         WHERE copy_runs.policy = $1 AND copy_runs.create_time >= $2 AND jobs.state = 'FAILED'
             AND json_extract(jobs.outcome, '$.copy.missed') = 1",
    )
    .bind(policy.to_string())
    .bind(since.micros())
    .fetch_one(db.read())
    .await
    .map_err(sql("count the copies that were missed"))?;
    Ok(row.get::<i64, _>("n") as u64)
}

/// How many copies of a machine a policy has made at a target, also of those that are gone.
pub async fn made(db: &Db, policy: PolicyId, vm: VmId, target: TargetId) -> Result<u64, DbError> {
    let row = sqlx::query(
        "SELECT COUNT(*) AS n FROM copy_runs JOIN jobs ON jobs.run = copy_runs.id
         WHERE copy_runs.policy = $1 AND jobs.vm = $2 AND jobs.state = 'SUCCEEDED'
             AND json_extract(jobs.spec, '$.copySnapshot.target') = $3",
    )
    .bind(policy.to_string())
    .bind(vm.to_string())
    .bind(target.to_string())
    .fetch_one(db.read())
    .await
    .map_err(sql("count the copies of a policy"))?;
    Ok(row.get::<i64, _>("n") as u64)
}
