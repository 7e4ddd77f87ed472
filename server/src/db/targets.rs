//! Places that copies go to.

use super::list::{By, Field, Listing, Page};
use super::{Db, DbError, Tx, json, json_opt, sql, time, time_opt, to_json, word};
use shared::feed::Noun;
use shared::notice::NoticeMessage;
use shared::target::{Checked, Found, Place, Target};
use shared::{Status, TargetId, Timestamp};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite};

const SELECT: &str = "SELECT targets.*, COALESCE(changes.generation, 0) AS generation,
        (SELECT COUNT(*) FROM copies WHERE copies.target = targets.id) AS copies,
        (SELECT COALESCE(SUM(stored_bytes), 0) FROM copies WHERE copies.target = targets.id) AS stored_bytes
    FROM targets LEFT JOIN changes ON changes.noun = 'target' AND changes.id = targets.id WHERE 1 = 1";

/// What targets may be listed by.
pub const FIELDS: &[Field] = &[
    Field {
        name: "name",
        column: "targets.name",
        by: By::Text,
    },
    Field {
        name: "createTime",
        column: "targets.create_time",
        by: By::Number,
    },
];

/// A target with what is not shown of it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The target.
    pub target: Target,
    /// Its secret, sealed.
    pub secret: Option<String>,
    /// The key of its vault, sealed.
    pub vault_key: String,
}

fn read(row: &SqliteRow) -> Result<Target, DbError> {
    let place: Place = json(row, "place")?;
    Ok(Target {
        id: word(row, "id")?,
        name: word(row, "name")?,
        kind: place.kind().map_err(|why| DbError::Column {
            column: "place",
            why: why.to_string(),
        })?,
        place,
        vault: word(row, "vault")?,
        found: json(row, "found")?,
        away: row.get("away"),
        away_since: time_opt(row, "away_since")?,
        bytes_per_second: row.get::<Option<i64>, _>("bytes_per_second").map(|n| n as u64),
        at_once: row.get::<i64, _>("at_once") as u32,
        copies: row.get::<i64, _>("copies") as u64,
        stored_bytes: row.get::<i64, _>("stored_bytes") as u64,
        create_time: time(row, "create_time")?,
        checked: json_opt(row, "checked")?,
        generation: row.get::<i64, _>("generation") as u64,
    })
}

fn read_stored(row: &SqliteRow) -> Result<Stored, DbError> {
    Ok(Stored {
        target: read(row)?,
        secret: row.get("secret"),
        vault_key: row.get("vault_key"),
    })
}

/// A page of targets.
pub async fn list(db: &Db, listing: &Listing) -> Result<Page<Target>, DbError> {
    listing
        .run(db, SELECT, "FROM targets WHERE 1 = 1", "targets.id", read)
        .await
}

/// All targets, by name.
pub async fn all(db: &Db) -> Result<Vec<Target>, DbError> {
    let mut query = QueryBuilder::<Sqlite>::new(SELECT);
    query.push(" ORDER BY targets.name");
    let rows = query.build().fetch_all(db.read()).await;
    rows.map_err(sql("read the targets"))?.iter().map(read).collect()
}

/// The target with this name or id, as the connection sees it.
pub async fn get(conn: &mut SqliteConnection, reference: &str) -> Result<Option<Stored>, DbError> {
    let mut query = QueryBuilder::<Sqlite>::new(SELECT);
    query
        .push(" AND (targets.id = ")
        .push_bind(reference)
        .push(" OR targets.name = ")
        .push_bind(reference)
        .push(")");
    let row = query
        .build()
        .fetch_optional(conn)
        .await
        .map_err(sql("read a target"))?;
    row.as_ref().map(read_stored).transpose()
}

/// The target with this name or id, or NOT_FOUND.
pub async fn known(db: &Db, reference: &str) -> Result<Stored, DbError> {
    let found = db.reading(async |conn| get(conn, reference).await).await?;
    Ok(found.ok_or_else(|| Status::not_found("target", reference))?)
}

/// Writes a target down.
pub async fn insert(tx: &mut Tx, stored: &Stored) -> Result<(), DbError> {
    let target = &stored.target;
    let vault = sqlx::query("SELECT name FROM targets WHERE vault = $1")
        .bind(target.vault.to_string())
        .fetch_optional(tx.conn())
        .await
        .map_err(sql("look for a vault"))?;
    if let Some(row) = vault {
        let name: String = row.get("name");
        let message = format!("the vault there is attached already, as target {name}");
        return Err(Status::new(shared::Code::AlreadyExists, message).into());
    }
    let done = sqlx::query(
        "INSERT INTO targets (id, name, place, secret, vault, vault_key, found, bytes_per_second, at_once, create_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(target.id.to_string())
    .bind(target.name.as_str())
    .bind(to_json(&target.place)?)
    .bind(&stored.secret)
    .bind(target.vault.to_string())
    .bind(&stored.vault_key)
    .bind(to_json(&target.found)?)
    .bind(target.bytes_per_second.map(|n| n as i64))
    .bind(i64::from(target.at_once))
    .bind(target.create_time.micros())
    .execute(tx.conn())
    .await;
    super::taken("target", &target.name, done)?;
    tx.changed(Noun::Target, target.id, false);
    Ok(())
}

/// Changes a target's name, place, secret and limits.
pub async fn update(tx: &mut Tx, stored: &Stored) -> Result<(), DbError> {
    let target = &stored.target;
    let done = sqlx::query(
        "UPDATE targets SET name = $2, place = $3, secret = $4, bytes_per_second = $5, at_once = $6 WHERE id = $1",
    )
    .bind(target.id.to_string())
    .bind(target.name.as_str())
    .bind(to_json(&target.place)?)
    .bind(&stored.secret)
    .bind(target.bytes_per_second.map(|n| n as i64))
    .bind(i64::from(target.at_once))
    .execute(tx.conn())
    .await;
    super::taken("target", &target.name, done)?;
    tx.changed(Noun::Target, target.id, false);
    Ok(())
}

/// Notes what trying a target has shown: it is there.
pub async fn set_found(tx: &mut Tx, id: TargetId, found: &Found) -> Result<(), DbError> {
    sqlx::query("UPDATE targets SET found = $2, away = NULL, away_since = NULL WHERE id = $1")
        .bind(id.to_string())
        .bind(to_json(found)?)
        .execute(tx.conn())
        .await
        .map_err(sql("note what a target is like"))?;
    tx.changed(Noun::Target, id, false);
    Ok(())
}

/// Notes that a target cannot be reached, or that it can again.
pub async fn set_away(
    tx: &mut Tx,
    id: TargetId,
    away: Option<&str>,
    since: Timestamp,
) -> Result<(), DbError> {
    let done = sqlx::query(
        "UPDATE targets SET away = $2, away_since = CASE WHEN $2 IS NULL THEN NULL ELSE COALESCE(away_since, $3) END
         WHERE id = $1 AND away IS NOT $2",
    )
    .bind(id.to_string())
    .bind(away)
    .bind(since.micros())
    .execute(tx.conn())
    .await
    .map_err(sql("note whether a target is away"))?;
    if done.rows_affected() > 0 {
        tx.changed(Noun::Target, id, false);
    }
    Ok(())
}

/// The targets that are away and of which people have not been told so, with since when.
pub async fn away_untold(db: &Db) -> Result<Vec<Target>, DbError> {
    let mut query = QueryBuilder::<Sqlite>::new(SELECT);
    query.push(" AND targets.away IS NOT NULL AND targets.away_told IS NOT targets.away_since");
    let rows = query.build().fetch_all(db.read()).await;
    rows.map_err(sql("read the targets that are away"))?
        .iter()
        .map(read)
        .collect()
}

/// Tells that a target is away since then, unless it is there again or that was told.
pub async fn tell_away(tx: &mut Tx, id: TargetId, since: Timestamp, now: Timestamp) -> Result<(), DbError> {
    let done = sqlx::query(
        "UPDATE targets SET away_told = away_since
         WHERE id = $1 AND away_since = $2 AND away_told IS NOT away_since",
    )
    .bind(id.to_string())
    .bind(since.micros())
    .execute(tx.conn())
    .await
    .map_err(sql("note that a target is away for long"))?;
    if done.rows_affected() == 0 {
        return Ok(());
    }
    let stored = get(tx.conn(), &id.to_string()).await?;
    match stored.and_then(|stored| NoticeMessage::away(&stored.target, now)) {
        Some(message) => super::notices::tell_all(tx, &message).await,
        None => Ok(()),
    }
}

/// Notes how a look at all that a target has ended.
pub async fn set_checked(tx: &mut Tx, id: TargetId, checked: &Checked) -> Result<(), DbError> {
    sqlx::query("UPDATE targets SET checked = $2 WHERE id = $1")
        .bind(id.to_string())
        .bind(to_json(checked)?)
        .execute(tx.conn())
        .await
        .map_err(sql("note how a look at a target ended"))?;
    tx.changed(Noun::Target, id, false);
    Ok(())
}

/// Whether a policy, a job or a disk needs a target still, and which.
pub async fn needed(tx: &mut Tx, id: TargetId) -> Result<Option<String>, DbError> {
    let row = sqlx::query(
        "SELECT 'policy ' || name AS what FROM policies WHERE body LIKE '%' || $1 || '%'
         UNION ALL SELECT 'migration ' || name FROM migrating_vms WHERE target = $1
         UNION ALL SELECT 'job ' || id FROM jobs WHERE end_time IS NULL AND spec LIKE '%' || $1 || '%'
         UNION ALL SELECT 'a disk that is still read from there (layer ' || id || ')' FROM layers WHERE copy_of LIKE '%' || $1 || '%'
         LIMIT 1",
    )
    .bind(id.to_string())
    .fetch_optional(tx.conn())
    .await
    .map_err(sql("look for who needs a target"))?;
    Ok(row.map(|row| row.get("what")))
}

/// Takes a target off the books, with what was known of its copies.
pub async fn delete(tx: &mut Tx, id: TargetId) -> Result<(), DbError> {
    let copies = sqlx::query("SELECT id FROM copies WHERE target = $1")
        .bind(id.to_string())
        .fetch_all(tx.conn())
        .await
        .map_err(sql("read the copies of a target"))?;
    for row in &copies {
        tx.changed(Noun::Copy, row.get::<&str, _>("id"), true);
    }
    sqlx::query("DELETE FROM targets WHERE id = $1")
        .bind(id.to_string())
        .execute(tx.conn())
        .await
        .map_err(sql("delete a target"))?;
    tx.changed(Noun::Target, id, true);
    Ok(())
}
