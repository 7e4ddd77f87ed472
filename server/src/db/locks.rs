//! Locks on machines: each names the job that holds it and dies with it.

use super::{Db, DbError, Tx, sql, word};
use shared::{JobId, VmId};
use sqlx::Row;

/// How a job holds a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Beside others: it is not deleted meanwhile, nor a layer that it stands on.
    Shared,
    /// To change it: beside those that share, and nobody else.
    Changing,
    /// Alone.
    Exclusive,
}

impl LockMode {
    const fn word(self) -> &'static str {
        match self {
            Self::Shared => "SHARED",
            Self::Changing => "CHANGING",
            Self::Exclusive => "EXCLUSIVE",
        }
    }

    fn from_word(word: &str) -> Result<Self, DbError> {
        match word {
            "SHARED" => Ok(Self::Shared),
            "CHANGING" => Ok(Self::Changing),
            "EXCLUSIVE" => Ok(Self::Exclusive),
            _ => Err(DbError::Column {
                column: "locks.mode",
                why: format!("{word:?} is no mode"),
            }),
        }
    }
}

impl LockMode {
    /// Whether one may hold a machine so while another holds it so.
    pub const fn beside(self, other: Self) -> bool {
        matches!(
            (self, other),
            (Self::Shared, Self::Shared | Self::Changing) | (Self::Changing, Self::Shared)
        )
    }
}

/// Has a job go on sharing what it held to change it.
pub async fn share(tx: &mut Tx, vm: VmId, job: JobId) -> Result<(), DbError> {
    sqlx::query("UPDATE locks SET mode = 'SHARED' WHERE vm = $1 AND job = $2")
        .bind(vm.to_string())
        .bind(job.to_string())
        .execute(tx.conn())
        .await
        .map_err(sql("share a lock"))?;
    Ok(())
}

/// Takes a lock for a job; taking it again is no change.
pub async fn take(tx: &mut Tx, vm: VmId, job: JobId, mode: LockMode) -> Result<(), DbError> {
    sqlx::query("INSERT INTO locks (vm, job, mode) VALUES ($1, $2, $3) ON CONFLICT (vm, job) DO NOTHING")
        .bind(vm.to_string())
        .bind(job.to_string())
        .bind(mode.word())
        .execute(tx.conn())
        .await
        .map_err(sql("take a lock"))?;
    Ok(())
}

/// Gives all locks of a job back; answers the machines that were shown as held.
pub async fn give_back(tx: &mut Tx, job: JobId) -> Result<Vec<VmId>, DbError> {
    let rows = sqlx::query("DELETE FROM locks WHERE job = $1 RETURNING vm, mode")
        .bind(job.to_string())
        .fetch_all(tx.conn())
        .await
        .map_err(sql("give locks back"))?;
    rows.iter()
        .filter(|r| r.get::<&str, _>("mode") != "SHARED")
        .map(|r| word(r, "vm"))
        .collect()
}

/// Every lock there is: who holds what, after a restart.
pub async fn all(db: &Db) -> Result<Vec<(VmId, JobId, LockMode)>, DbError> {
    let rows = sqlx::query("SELECT vm, job, mode FROM locks")
        .fetch_all(db.read())
        .await
        .map_err(sql("read the locks"))?;
    rows.iter()
        .map(|r| {
            Ok((
                word(r, "vm")?,
                word(r, "job")?,
                LockMode::from_word(r.get("mode"))?,
            ))
        })
        .collect()
}
