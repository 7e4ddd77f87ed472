//! Policies. Machines and targets are written by id, so that they may be renamed.

use super::list::{By, Field, Listing, Page};
use super::{Db, DbError, Tx, json, sql, time, to_json, word};
use serde::{Deserialize, Serialize};
use shared::feed::Noun;
use shared::policy::retain::Retention;
use shared::policy::{Policy, Schedule, VerifyRule, Window};
use shared::{Name, PolicyId, Status, TargetId, Timestamp, VmId};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite};
use std::collections::HashMap;

const SELECT: &str = "SELECT policies.*, COALESCE(changes.generation, 0) AS generation,
        (SELECT json_group_object(targets.id, targets.name) FROM json_each(policies.body, '$.targets') AS named
            JOIN targets ON targets.id = named.value) AS target_names
    FROM policies LEFT JOIN changes ON changes.noun = 'policy' AND changes.id = policies.id WHERE 1 = 1";

/// What policies may be listed by.
pub const FIELDS: &[Field] = &[
    Field {
        name: "name",
        column: "policies.name",
        by: By::Text,
    },
    Field {
        name: "createTime",
        column: "policies.create_time",
        by: By::Number,
    },
];

/// A policy with what is not shown of it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The policy, without when it is due next.
    pub policy: Policy,
    /// Its targets.
    pub targets: Vec<TargetId>,
    /// The last moment of its schedule that was dealt with.
    pub last_time: Timestamp,
}

/// What is written of a policy beside its name.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    schedule: Option<Schedule>,
    vms: Vec<VmId>,
    label: Option<String>,
    targets: Vec<TargetId>,
    retention: Retention,
    memory: bool,
    quiesce: bool,
    verify: Option<VerifyRule>,
    window: Vec<Window>,
}

impl Stored {
    fn body(&self) -> Result<String, DbError> {
        let policy = &self.policy;
        to_json(&Body {
            schedule: policy.schedule.clone(),
            vms: policy.vms.clone(),
            label: policy.label.clone(),
            targets: self.targets.clone(),
            retention: policy.retention,
            memory: policy.memory,
            quiesce: policy.quiesce,
            verify: policy.verify,
            window: policy.window.clone(),
        })
    }
}

fn read(row: &SqliteRow) -> Result<Stored, DbError> {
    let body: Body = json(row, "body")?;
    let names: HashMap<TargetId, Name> = json(row, "target_names")?;
    let policy = Policy {
        id: word(row, "id")?,
        name: word(row, "name")?,
        schedule: body.schedule,
        vms: body.vms,
        label: body.label,
        targets: body
            .targets
            .iter()
            .filter_map(|id| names.get(id).cloned())
            .collect(),
        retention: body.retention,
        memory: body.memory,
        quiesce: body.quiesce,
        verify: body.verify,
        window: body.window,
        enabled: row.get::<i64, _>("enabled") != 0,
        next_time: None,
        create_time: time(row, "create_time")?,
        generation: row.get::<i64, _>("generation") as u64,
    };
    Ok(Stored {
        policy,
        targets: body.targets,
        last_time: time(row, "last_time")?,
    })
}

/// A page of policies.
pub async fn list(db: &Db, listing: &Listing) -> Result<Page<Stored>, DbError> {
    listing
        .run(db, SELECT, "FROM policies WHERE 1 = 1", "policies.id", read)
        .await
}

/// The policies that are at work, by name.
pub async fn enabled(db: &Db) -> Result<Vec<Stored>, DbError> {
    let mut query = QueryBuilder::<Sqlite>::new(SELECT);
    query.push(" AND policies.enabled = 1 ORDER BY policies.name");
    let rows = query.build().fetch_all(db.read()).await;
    rows.map_err(sql("read the policies"))?.iter().map(read).collect()
}

/// The policy with this name or id, as the connection sees it.
pub async fn get(conn: &mut SqliteConnection, reference: &str) -> Result<Option<Stored>, DbError> {
    let mut query = QueryBuilder::<Sqlite>::new(SELECT);
    query
        .push(" AND (policies.id = ")
        .push_bind(reference)
        .push(" OR policies.name = ")
        .push_bind(reference)
        .push(")");
    let row = query
        .build()
        .fetch_optional(conn)
        .await
        .map_err(sql("read a policy"))?;
    row.as_ref().map(read).transpose()
}

/// The policy with this id.
pub async fn by_id(db: &Db, id: PolicyId) -> Result<Option<Stored>, DbError> {
    db.reading(async |conn| get(conn, &id.to_string()).await).await
}

/// The policy with this name or id, or NOT_FOUND.
pub async fn known(conn: &mut SqliteConnection, reference: &str) -> Result<Stored, DbError> {
    let found = get(conn, reference).await?;
    Ok(found.ok_or_else(|| Status::not_found("policy", reference))?)
}

/// Refuses targets that are gone: looked at in the transaction that names them.
async fn targets_are_there(tx: &mut Tx, targets: &[TargetId]) -> Result<(), DbError> {
    for id in targets {
        if super::targets::get(tx.conn(), &id.to_string()).await?.is_none() {
            return Err(Status::invalid("targets", format_args!("there is no target {id}")).into());
        }
    }
    Ok(())
}

/// Writes a policy down.
pub async fn insert(tx: &mut Tx, stored: &Stored) -> Result<(), DbError> {
    targets_are_there(tx, &stored.targets).await?;
    let policy = &stored.policy;
    let done = sqlx::query(
        "INSERT INTO policies (id, name, body, enabled, last_time, create_time) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(policy.id.to_string())
    .bind(policy.name.as_str())
    .bind(stored.body()?)
    .bind(i64::from(policy.enabled))
    .bind(stored.last_time.micros())
    .bind(policy.create_time.micros())
    .execute(tx.conn())
    .await;
    super::taken("policy", &policy.name, done)?;
    tx.changed(Noun::Policy, policy.id, false);
    Ok(())
}

/// Changes a policy.
pub async fn update(tx: &mut Tx, stored: &Stored) -> Result<(), DbError> {
    targets_are_there(tx, &stored.targets).await?;
    let policy = &stored.policy;
    let done =
        sqlx::query("UPDATE policies SET name = $2, body = $3, enabled = $4, last_time = $5 WHERE id = $1")
            .bind(policy.id.to_string())
            .bind(policy.name.as_str())
            .bind(stored.body()?)
            .bind(i64::from(policy.enabled))
            .bind(stored.last_time.micros())
            .execute(tx.conn())
            .await;
    super::taken("policy", &policy.name, done)?;
    tx.changed(Noun::Policy, policy.id, false);
    Ok(())
}

/// Notes that the moments of a policy's schedule up to one were dealt with; answers whether they were not until now. A policy
/// that was changed since it was read is looked at again.
pub async fn deal_with(tx: &mut Tx, stored: &Stored, until: Timestamp) -> Result<bool, DbError> {
    let done =
        sqlx::query("UPDATE policies SET last_time = $3 WHERE id = $1 AND last_time = $2 AND enabled = 1")
            .bind(stored.policy.id.to_string())
            .bind(stored.last_time.micros())
            .bind(until.micros())
            .execute(tx.conn())
            .await
            .map_err(sql("note when a policy was due"))?;
    if done.rows_affected() > 0 {
        tx.changed(Noun::Policy, stored.policy.id, false);
    }
    Ok(done.rows_affected() > 0)
}

/// Takes a policy off the books; its copies stay.
pub async fn delete(tx: &mut Tx, id: PolicyId) -> Result<(), DbError> {
    sqlx::query("DELETE FROM policies WHERE id = $1")
        .bind(id.to_string())
        .execute(tx.conn())
        .await
        .map_err(sql("delete a policy"))?;
    tx.changed(Noun::Policy, id, true);
    Ok(())
}
