//! All SQL, one file per noun. One writer groups commits; readers have a pool.
//!
//! Every change of a noun gets the next generation number in the transaction of the change. The one writer
//! hands the numbers out, so they need no table of their own: at the start it goes on from the highest there is.

pub mod access;
pub mod audit;
pub mod backup;
pub mod copies;
pub mod copy_runs;
pub mod exports;
pub mod fork_points;
pub mod hardware;
pub mod identities;
pub mod images;
pub mod jobs;
pub mod layers;
pub mod list;
pub mod locks;
pub mod migrations;
pub mod notice_channels;
pub mod notices;
pub mod places;
pub mod policies;
pub mod retention;
pub mod roles;
pub mod snapshots;
pub mod targets;
pub mod uploads;
pub mod users;
pub mod vms;

use futures::future::BoxFuture;
use shared::access::rights::Sees;
use shared::feed::{Noun, Place};
use shared::vm::Inconsistent;
use shared::{Code, Status, Timestamp};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, QueryBuilder, Row, Sqlite, SqlitePool};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot};

/// A change of a noun that has been committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its generation.
    pub generation: u64,
    /// What changed.
    pub noun: Noun,
    /// Which one.
    pub id: String,
    /// Whether it is gone.
    pub deleted: bool,
}

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum DbError {
    #[error("the database could not {op}")]
    Sql { op: &'static str, source: sqlx::Error },
    #[error("the database could not be brought up to this version")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    #[error("a row of the database makes no sense")]
    Row(#[source] Inconsistent),
    #[error("column {column} of the database cannot be read: {why}")]
    Column { column: &'static str, why: String },
    #[error("the database's writer has ended")]
    Closed,
    /// A check inside the transaction says no: for the caller to hear.
    #[error(transparent)]
    Refused(#[from] Status),
}

impl From<Inconsistent> for DbError {
    fn from(e: Inconsistent) -> Self {
        Self::Row(e)
    }
}

impl From<DbError> for Status {
    fn from(e: DbError) -> Self {
        match e {
            DbError::Refused(status) => status,
            other => {
                tracing::error!(error = %chain(&other), "database");
                Status::new(Code::Internal, "the server's database failed; its log says why")
            }
        }
    }
}

/// An error with its sources, once, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(e) = source {
        text.push_str(": ");
        text.push_str(&e.to_string());
        source = e.source();
    }
    text
}

/// The moment that is now.
pub fn now() -> Timestamp {
    let micros = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX));
    Timestamp::from_micros(micros)
}

type Ran = Box<dyn FnOnce(Result<(), Arc<sqlx::Error>>) + Send>;
type Work = Box<dyn for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, (bool, Ran)> + Send>;

/// A transaction of the one writer.
pub struct Tx {
    conn: SqliteConnection,
    generation: u64,
    changed: Vec<Change>,
}

impl Tx {
    /// The connection, to run statements on.
    pub fn conn(&mut self) -> &mut SqliteConnection {
        &mut self.conn
    }

    /// Marks a thing as changed (or gone) in this transaction. Its generation is written with the commit, once for all
    /// changes of it: a row read inside the transaction shows the one before.
    pub fn changed(&mut self, noun: Noun, id: impl ToString, deleted: bool) -> u64 {
        self.generation += 1;
        self.changed.push(Change {
            generation: self.generation,
            noun,
            id: id.to_string(),
            deleted,
        });
        self.generation
    }

    async fn write_changes(&mut self) -> Result<(), sqlx::Error> {
        let last: HashMap<(Noun, &str), &Change> = self
            .changed
            .iter()
            .map(|c| ((c.noun, c.id.as_str()), c))
            .collect();
        let mut last: Vec<_> = last.into_values().collect();
        last.sort_by_key(|c| c.generation);
        for rows in last.chunks(GROUP) {
            let mut query =
                QueryBuilder::<Sqlite>::new("INSERT INTO changes (noun, id, generation, deleted) ");
            query.push_values(rows, |mut row, change| {
                row.push_bind(change.noun.word())
                    .push_bind(&change.id)
                    .push_bind(change.generation as i64)
                    .push_bind(i64::from(change.deleted));
            });
            query.push(
                " ON CONFLICT (noun, id) DO UPDATE SET generation = excluded.generation, deleted = excluded.deleted",
            );
            query.build().execute(&mut self.conn).await?;
        }
        Ok(())
    }
}

/// The error of a statement, with what it was for.
pub fn sql(op: &'static str) -> impl FnOnce(sqlx::Error) -> DbError {
    move |source| DbError::Sql { op, source }
}

tokio::task_local! {
    /// Set while a connection for reading is lent.
    static HOLDS: ();
}

/// The database.
#[derive(Clone)]
pub struct Db {
    read: SqlitePool,
    writer: mpsc::Sender<Work>,
    changes: broadcast::Sender<Arc<[Change]>>,
    generation: Arc<AtomicU64>,
    epoch: u64,
}

/// How many waiting transactions share one commit at most.
const GROUP: usize = 128;

impl Db {
    /// Opens the database file, makes it if there is none, and brings it up to this version.
    pub async fn open(file: &Path) -> Result<Self, DbError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10))
            .pragma("journal_size_limit", "67108864")
            .statement_cache_capacity(256)
            .disable_statement_logging();
        let mut conn = options.connect().await.map_err(sql("be opened"))?;
        sqlx::migrate!("./migrations")
            .run(&mut conn)
            .await
            .map_err(DbError::Migrate)?;
        let epoch = epoch(&mut conn).await?;
        let row = sqlx::query("SELECT COALESCE(MAX(generation), 0) AS g FROM changes")
            .fetch_one(&mut conn)
            .await
            .map_err(sql("read its generation"))?;
        let first = row.get::<i64, _>("g") as u64;
        let read = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options.clone().read_only(true))
            .await
            .map_err(sql("be opened for reading"))?;
        let (writer, queue) = mpsc::channel(1024);
        let (changes, _) = broadcast::channel(4096);
        let generation = Arc::new(AtomicU64::new(first));
        tokio::spawn(write_loop(
            Tx {
                conn,
                generation: first,
                changed: Vec::new(),
            },
            queue,
            changes.clone(),
            generation.clone(),
        ));
        Ok(Self {
            read,
            writer,
            changes,
            generation,
            epoch,
        })
    }

    /// The pool, for a statement by itself. A future that waits in [`reading`](Self::reading) may not ask for it: when all
    /// connections are held by those who wait for a second one, nobody gets any.
    pub fn read(&self) -> &SqlitePool {
        if cfg!(any(test, debug_assertions)) {
            assert!(
                HOLDS.try_get().is_err(),
                "who holds a connection asks for a second one"
            );
        }
        &self.read
    }

    /// Reads by several statements on one connection. It is lent, so it is given back before anything else is awaited.
    pub async fn reading<T, E: From<DbError>>(
        &self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut conn = self.read().acquire().await.map_err(sql("give a connection"))?;
        HOLDS.scope((), work(&mut conn)).await
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), DbError> {
        let done = sqlx::query("SELECT 1").execute(self.read()).await;
        done.map(drop).map_err(sql("answer"))
    }

    /// Changes as they are committed. A receiver that lags asks [`changes_after`](Self::changes_after).
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<[Change]>> {
        self.changes.subscribe()
    }

    /// The feed's place after the last commit.
    pub fn place(&self) -> Place {
        Place {
            epoch: self.epoch,
            generation: self.generation.load(Ordering::Acquire),
        }
    }

    /// What changed after a generation, in order. One row for each thing, with its last generation.
    pub async fn changes_after(&self, generation: u64) -> Result<Vec<Change>, DbError> {
        let rows = sqlx::query(
            "SELECT noun, id, generation, deleted FROM changes WHERE generation > $1 ORDER BY generation",
        )
        .bind(generation as i64)
        .fetch_all(self.read())
        .await
        .map_err(sql("read what changed"))?;
        rows.iter()
            .map(|row| {
                Ok(Change {
                    noun: word(row, "noun")?,
                    id: row.get("id"),
                    generation: row.get::<i64, _>("generation") as u64,
                    deleted: row.get::<i64, _>("deleted") != 0,
                })
            })
            .collect()
    }

    /// Runs a transaction on the one writer: all of it is committed, or nothing. Several that wait share one
    /// commit; an error undoes only the one it is of.
    pub async fn write<T, F>(&self, work: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, DbError>> + Send + 'static,
    {
        let (done, answer) = oneshot::channel();
        let work: Work = Box::new(move |tx| {
            Box::pin(async move {
                let result = work(tx).await;
                let keep = result.is_ok();
                let ran: Ran = Box::new(move |committed| {
                    let result = match committed {
                        Ok(()) => result,
                        Err(e) => result.and(Err(DbError::Sql {
                            op: "commit",
                            source: sqlx::Error::Protocol(e.to_string()),
                        })),
                    };
                    // The caller may have gone: the work is done all the same.
                    drop(done.send(result));
                });
                (keep, ran)
            })
        });
        self.writer.send(work).await.map_err(|_| DbError::Closed)?;
        answer.await.map_err(|_| DbError::Closed)?
    }
}

async fn epoch(conn: &mut SqliteConnection) -> Result<u64, DbError> {
    let fresh = uuid::Uuid::new_v4().as_u64_pair().0;
    let row = sqlx::query(
        "INSERT INTO meta (key, value) VALUES ('feed_epoch', $1)
         ON CONFLICT (key) DO UPDATE SET value = value RETURNING value",
    )
    .bind(format!("{fresh:016x}"))
    .fetch_one(conn)
    .await
    .map_err(sql("read its epoch"))?;
    u64::from_str_radix(row.get("value"), 16).map_err(|e| DbError::Column {
        column: "meta.value",
        why: e.to_string(),
    })
}

async fn write_loop(
    mut tx: Tx,
    mut queue: mpsc::Receiver<Work>,
    changes: broadcast::Sender<Arc<[Change]>>,
    generation: Arc<AtomicU64>,
) {
    let mut batch = Vec::with_capacity(GROUP);
    while queue.recv_many(&mut batch, GROUP).await > 0 {
        let mut ran = Vec::with_capacity(batch.len());
        let before = tx.generation;
        let result = group(&mut tx, batch.drain(..), &mut ran).await.map_err(Arc::new);
        let changed = std::mem::take(&mut tx.changed);
        if let Err(e) = &result {
            tracing::error!(error = %e, "the database could not commit");
            tx.generation = before;
            // Whatever is left of the transaction must not stand in the way of the next.
            _ = sqlx::query("ROLLBACK").execute(&mut tx.conn).await;
        } else {
            generation.store(tx.generation, Ordering::Release);
            if !changed.is_empty() {
                // Nobody may be listening.
                drop(changes.send(changed.into()));
            }
        }
        for ran in ran {
            ran(result.clone());
        }
    }
    _ = tx.conn.close().await;
}

async fn group(
    tx: &mut Tx,
    batch: impl Iterator<Item = Work>,
    ran: &mut Vec<Ran>,
) -> Result<(), sqlx::Error> {
    run(tx, "BEGIN IMMEDIATE; SAVEPOINT work").await?;
    let mut batch = batch.peekable();
    while let Some(work) = batch.next() {
        let (generation, changes) = (tx.generation, tx.changed.len());
        let (keep, done) = work(tx).await;
        ran.push(done);
        if !keep {
            run(tx, "ROLLBACK TO work").await?;
            tx.generation = generation;
            tx.changed.truncate(changes);
        } else if batch.peek().is_some() {
            run(tx, "RELEASE work; SAVEPOINT work").await?;
        }
    }
    tx.write_changes().await?;
    run(tx, "COMMIT").await
}

async fn run(tx: &mut Tx, statements: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(statements).execute(&mut tx.conn).await.map(drop)
}

/// A column that holds a word or an id.
pub(crate) fn word<T>(row: &sqlx::sqlite::SqliteRow, column: &'static str) -> Result<T, DbError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let text: &str = row.try_get(column).map_err(sql("read a column"))?;
    text.parse().map_err(|e: T::Err| DbError::Column {
        column,
        why: e.to_string(),
    })
}

/// A column that may hold a word or an id.
pub(crate) fn word_opt<T>(row: &sqlx::sqlite::SqliteRow, column: &'static str) -> Result<Option<T>, DbError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let text: Option<&str> = row.try_get(column).map_err(sql("read a column"))?;
    text.map(|t| {
        t.parse().map_err(|e: T::Err| DbError::Column {
            column,
            why: e.to_string(),
        })
    })
    .transpose()
}

/// A column that holds JSON.
pub(crate) fn json<T>(row: &sqlx::sqlite::SqliteRow, column: &'static str) -> Result<T, DbError>
where
    T: serde::de::DeserializeOwned,
{
    let text: &str = row.try_get(column).map_err(sql("read a column"))?;
    serde_json::from_str(text).map_err(|e| DbError::Column {
        column,
        why: e.to_string(),
    })
}

/// A column that may hold JSON.
pub(crate) fn json_opt<T>(row: &sqlx::sqlite::SqliteRow, column: &'static str) -> Result<Option<T>, DbError>
where
    T: serde::de::DeserializeOwned,
{
    let text: Option<&str> = row.try_get(column).map_err(sql("read a column"))?;
    text.map(|t| {
        serde_json::from_str(t).map_err(|e| DbError::Column {
            column,
            why: e.to_string(),
        })
    })
    .transpose()
}

/// A value as JSON text.
pub(crate) fn to_json(value: &impl serde::Serialize) -> Result<String, DbError> {
    serde_json::to_string(value).map_err(|e| DbError::Column {
        column: "json",
        why: e.to_string(),
    })
}

/// The machines that somebody sees, as a JSON list; none if it is all of them.
pub(crate) fn seen(sees: &Sees) -> Result<Option<String>, DbError> {
    match sees {
        Sees::All => Ok(None),
        Sees::Only(ids) => to_json(ids).map(Some),
    }
}

/// A column that holds a time.
pub(crate) fn time(row: &sqlx::sqlite::SqliteRow, column: &'static str) -> Result<Timestamp, DbError> {
    row.try_get(column)
        .map(Timestamp::from_micros)
        .map_err(sql("read a column"))
}

/// A column that may hold a time.
pub(crate) fn time_opt(
    row: &sqlx::sqlite::SqliteRow,
    column: &'static str,
) -> Result<Option<Timestamp>, DbError> {
    let micros: Option<i64> = row.try_get(column).map_err(sql("read a column"))?;
    Ok(micros.map(Timestamp::from_micros))
}

/// Turns a broken UNIQUE on a name into the refusal that a person understands.
pub(crate) fn taken<T>(
    noun: &'static str,
    name: &shared::Name,
    done: Result<T, sqlx::Error>,
) -> Result<T, DbError> {
    done.map_err(|e| match e.as_database_error() {
        Some(d) if d.is_unique_violation() => DbError::Refused(Status::new(
            Code::AlreadyExists,
            format!("there is a {noun} called {name} already: choose another name"),
        )),
        _ => sql("write a name")(e),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[should_panic(expected = "who holds a connection asks for a second one")]
    async fn nobody_who_holds_a_connection_gets_a_second_one() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("offshoot.db")).await.unwrap();
        let both = db.reading(async |conn| {
            users::count(conn).await?;
            db.ping().await
        });
        both.await.unwrap();
    }
}
