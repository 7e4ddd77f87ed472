//! The copies among which a retention chooses.

use super::{Db, DbError, sql, time, word};
use shared::policy::retain::Held;
use shared::{MigratingVmId, PolicyId, TargetId, VmId};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};

/// What a retention is asked about copies that are whole. Needed is what is read, what a job that is not over is about, and the
/// only copy of the machine there that has booted.
const HELD: &str = "SELECT copies.id, copies.snapshot_time, copies.legal_hold,
             EXISTS (SELECT 1 FROM layers WHERE copy_of IS NOT NULL AND copy_of LIKE '%' || copies.id || '%')
             OR EXISTS (SELECT 1 FROM jobs WHERE end_time IS NULL AND kind IN ('RESTORE_COPY', 'BOOT_COPY', 'ADAPT_COPY')
                 AND spec LIKE '%' || copies.id || '%')
             OR (json_extract(copies.booted, '$.booted') = 1 AND NOT EXISTS (
                 SELECT 1 FROM copies AS other WHERE other.vm = copies.vm AND other.target = copies.target
                     AND other.id <> copies.id AND json_extract(other.booted, '$.booted') = 1 AND other.damage IS NULL))
             AS needed
         FROM copies WHERE copies.damage IS NULL";

fn read(row: &SqliteRow) -> Result<Held, DbError> {
    Ok(Held {
        id: word(row, "id")?,
        time: time(row, "snapshot_time")?,
        legal_hold: row.get::<i64, _>("legal_hold") != 0,
        // Of what has not booted it is NULL.
        needed: row.get::<Option<i64>, _>("needed") == Some(1),
    })
}

/// The copies of a policy, of one machine at one target.
pub async fn held(db: &Db, policy: PolicyId, vm: VmId, target: TargetId) -> Result<Vec<Held>, DbError> {
    let mut query = QueryBuilder::<Sqlite>::new(HELD);
    query.push(" AND copies.policy = ").push_bind(policy.to_string());
    query.push(" AND copies.vm = ").push_bind(vm.to_string());
    query.push(" AND copies.target = ").push_bind(target.to_string());
    let rows = query.build().fetch_all(db.read()).await;
    let rows = rows.map_err(sql("read the copies of a policy"))?;
    rows.iter().map(read).collect()
}

/// The uploads of a migration.
pub async fn uploads(db: &Db, migration: MigratingVmId) -> Result<Vec<Held>, DbError> {
    let mut query = QueryBuilder::<Sqlite>::new(HELD);
    query
        .push(" AND copies.migration = ")
        .push_bind(migration.to_string());
    let rows = query.build().fetch_all(db.read()).await;
    let rows = rows.map_err(sql("read the uploads of a migration"))?;
    rows.iter().map(read).collect()
}

/// The machines of which a policy has copies, each with the targets where they are.
pub async fn groups(db: &Db, policy: PolicyId) -> Result<Vec<(VmId, TargetId)>, DbError> {
    let rows = sqlx::query("SELECT DISTINCT vm, target FROM copies WHERE policy = $1 ORDER BY vm, target")
        .bind(policy.to_string())
        .fetch_all(db.read())
        .await
        .map_err(sql("read of what a policy has copies"))?;
    rows.iter()
        .map(|row| Ok((word(row, "vm")?, word(row, "target")?)))
        .collect()
}
