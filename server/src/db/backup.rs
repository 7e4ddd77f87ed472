//! Copies of the database while it is in use, and going back to one.
//!
//! A copy that is to be gone back to is put beside the database; the next server that starts takes it. So nothing is taken
//! from under a server that runs, and its machines go on meanwhile.

use super::{Db, DbError, sql};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Row};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Why a copy was not made, or is not taken.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum BackupError {
    #[error("there is no database at {0}: has a server run with this data directory?")]
    NoDatabase(PathBuf),
    #[error("{0} is there already: name a file that is not")]
    Exists(PathBuf),
    #[error("cannot {op} {path}")]
    File {
        op: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{0} is no back-up of Offshoot")]
    Foreign(PathBuf),
    #[error("{path} is damaged: {why}")]
    Damaged { path: PathBuf, why: String },
    #[error("{0} was made by a newer Offshoot: restore it with that one")]
    Newer(PathBuf),
    #[error(transparent)]
    Database(#[from] DbError),
}

fn failed(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::File { op, path, source }
}

/// Where a copy waits for the next start.
fn waiting(database: &Path) -> PathBuf {
    database.with_extension("db.restore")
}

async fn connect(file: &Path) -> Result<SqliteConnection, DbError> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(false);
    let connected = options.disable_statement_logging().connect().await;
    connected.map_err(sql("be opened"))
}

/// Copies the database as it is in one moment, also while a server writes it. Returns the copy's size in bytes.
pub async fn make(database: &Path, to: &Path) -> Result<u64, BackupError> {
    if !database.exists() {
        return Err(BackupError::NoDatabase(database.to_owned()));
    }
    let part = crate::disks::part(to);
    // It has hashes of passwords and tokens: nobody else reads it. SQLite takes a file that is there and empty.
    let mut options = OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o600).open(&part);
    let file = made.map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists(part.clone()),
        _ => failed("write", &part)(e),
    })?;
    let copied = copy(database, &part, to, &file).await;
    if copied.is_err() {
        // What went wrong is told; what is left of it helps nobody.
        let _ = fs::remove_file(&part);
    }
    copied
}

async fn copy(database: &Path, part: &Path, to: &Path, file: &File) -> Result<u64, BackupError> {
    let mut conn = connect(database).await?;
    let vacuumed = sqlx::query("VACUUM INTO $1")
        .bind(part.to_string_lossy())
        .execute(&mut conn)
        .await;
    vacuumed.map_err(sql("be copied"))?;
    conn.close().await.map_err(sql("be closed"))?;
    whole(part).await?;
    file.sync_all().map_err(failed("write", part))?;
    let bytes = file.metadata().map_err(failed("read", part))?.len();
    name(part, to)?;
    Ok(bytes)
}

/// Gives a file its name, where nothing has that yet.
fn name(part: &Path, to: &Path) -> Result<(), BackupError> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, part, CWD, to, RenameFlags::NOREPLACE).map_err(|e| match io::Error::from(e) {
        e if e.kind() == io::ErrorKind::AlreadyExists => BackupError::Exists(to.to_owned()),
        e => failed("name", to)(e),
    })
}

/// Refuses what is no whole database of an Offshoot like this, or of an older one.
async fn whole(file: &Path) -> Result<(), BackupError> {
    let foreign = || BackupError::Foreign(file.to_owned());
    let mut conn = connect(file).await.map_err(|_| foreign())?;
    let all = "SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version";
    let done = sqlx::query(all)
        .fetch_all(&mut conn)
        .await
        .map_err(|_| foreign())?;
    let ours = sqlx::migrate!("./migrations");
    for row in &done {
        let (version, checksum) = (row.get::<i64, _>("version"), row.get::<Vec<u8>, _>("checksum"));
        match ours.iter().find(|known| known.version == version) {
            Some(known) if *known.checksum == checksum => {}
            Some(_) => return Err(BackupError::Foreign(file.to_owned())),
            None => return Err(BackupError::Newer(file.to_owned())),
        }
    }
    let checked = sqlx::query("PRAGMA integrity_check").fetch_one(&mut conn).await;
    let answer: String = match checked {
        Ok(row) => row.get(0),
        Err(e) => e.to_string(),
    };
    conn.close().await.map_err(sql("be closed"))?;
    if answer != "ok" {
        let (path, why) = (file.to_owned(), answer);
        return Err(BackupError::Damaged { path, why });
    }
    Ok(())
}

/// Has the next server that starts on this database take a copy in its place.
pub async fn restore(database: &Path, from: &Path) -> Result<(), BackupError> {
    File::open(from).map_err(failed("open", from))?;
    let to = waiting(database);
    let part = crate::disks::part(&to);
    // It is looked at where nobody else writes it any more.
    fs::copy(from, &part).map_err(failed("copy", from))?;
    let checked = async {
        whole(&part).await?;
        let mut conn = connect(&part).await?;
        // Whoever follows the feed holds numbers of changes that this one has not seen.
        let gone = sqlx::query("DELETE FROM meta WHERE key = 'feed_epoch'").execute(&mut conn);
        gone.await.map_err(sql("forget its epoch"))?;
        conn.close().await.map_err(sql("be closed"))?;
        let file = File::open(&part).map_err(failed("open", &part))?;
        file.sync_all().map_err(failed("write", &part))
    };
    let named = match checked.await {
        Ok(()) => fs::rename(&part, &to).map_err(failed("name", &to)),
        Err(e) => Err(e),
    };
    if named.is_err() {
        // What went wrong is told; what is left of it helps nobody.
        let _ = fs::remove_file(&part);
    }
    named
}

/// Takes a copy that waits, if there is one; for whoever holds the data directory, before the database is opened.
///
/// Returns where the database that was there until now is kept. A crash in between leaves it to the next start.
pub fn take_restored(database: &Path) -> Result<Option<PathBuf>, BackupError> {
    let waiting = waiting(database);
    if !waiting.exists() {
        return Ok(None);
    }
    let before = database.with_extension(format!("db.before-{}", super::now().micros() / 1_000_000));
    let beside = |file: &Path, what| {
        let mut name = file.as_os_str().to_owned();
        name.push(what);
        PathBuf::from(name)
    };
    // What SQLite had not put into the file itself belongs to it, and goes first: nobody reads it without.
    let parts = ["-shm", "-wal", ""].map(|what| (beside(database, what), beside(&before, what)));
    for (old, new) in parts {
        match fs::rename(&old, &new) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            moved => moved.map_err(failed("move away", &old))?,
        }
    }
    fs::rename(&waiting, database).map_err(failed("name", database))?;
    Ok(Some(before))
}

impl Db {
    /// Layers that the database knows and whose files are not there, of the given directory's files.
    pub async fn missing(
        &self,
        file_of: impl Fn(shared::LayerId) -> PathBuf,
    ) -> Result<Vec<shared::LayerId>, DbError> {
        let rows = sqlx::query("SELECT id FROM layers").fetch_all(self.read()).await;
        let mut missing = Vec::new();
        for row in rows.map_err(sql("read the layers"))? {
            let id = super::word(&row, "id")?;
            if !file_of(id).exists() {
                missing.push(id);
            }
        }
        Ok(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::feed::Noun;

    async fn change(db: &Db, id: &'static str) -> u64 {
        db.write(move |tx| Box::pin(async move { Ok(tx.changed(Noun::Image, id, true)) }))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_copy_made_in_use_is_gone_back_to_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let (file, copy) = (dir.path().join("offshoot.db"), dir.path().join("copy"));
        let db = Db::open(&file).await.unwrap();
        change(&db, "before").await;
        assert!(make(&file, &copy).await.unwrap() > 0);
        change(&db, "after").await;
        let epoch = db.place().epoch;
        // The name is taken: nothing is written over.
        let why = make(&file, &copy).await.unwrap_err();
        assert!(matches!(why, BackupError::Exists(_)), "{why}");

        // Nothing happens to a server that runs.
        restore(&file, &copy).await.unwrap();
        assert_eq!(db.changes_after(0).await.unwrap().len(), 2);
        let before = take_restored(&file).unwrap().unwrap();
        assert!(take_restored(&file).unwrap().is_none());
        let again = Db::open(&file).await.unwrap();
        let changes = again.changes_after(0).await.unwrap();
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].id, "before");
        assert_ne!(again.place().epoch, epoch, "whoever follows the feed begins anew");
        let old = Db::open(&before).await.unwrap();
        assert_eq!(old.changes_after(0).await.unwrap().len(), 2, "nothing is lost");
    }

    #[tokio::test]
    async fn what_is_no_back_up_is_refused_and_nothing_is_left_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let (file, copy) = (dir.path().join("offshoot.db"), dir.path().join("copy"));
        assert!(matches!(
            make(&file, &copy).await,
            Err(BackupError::NoDatabase(_))
        ));
        drop(Db::open(&file).await.unwrap());
        let bad = dir.path().join("bad");
        fs::write(&bad, "not a database").unwrap();
        assert!(matches!(restore(&file, &bad).await, Err(BackupError::Foreign(_))));

        make(&file, &copy).await.unwrap();
        let mut conn = connect(&copy).await.unwrap();
        let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                     VALUES (999999, 'newer', TRUE, x'00', 0)";
        sqlx::query(newer).execute(&mut conn).await.unwrap();
        conn.close().await.unwrap();
        assert!(matches!(restore(&file, &copy).await, Err(BackupError::Newer(_))));
        let left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert!(
            left.iter().all(|name| !name.to_string_lossy().contains("part")),
            "{left:?}"
        );
    }
}
