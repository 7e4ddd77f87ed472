//! Vaults at targets: how they are opened, made and attached, and what is known of the copies there.
//!
//! What machines and jobs are, this room does not know; what a vault is, the crate `vault` says.

pub mod about;
mod adapt;
mod browse;
mod remote;
pub mod retention;
pub mod schedule;
mod seal;
mod shows;
mod targets;

pub use adapt::Overlay;
pub use browse::{Look, Open, refused};
pub use seal::{SealError, Sealer};
pub use shows::Show;

use crate::db::{self, Db, DbError, now, targets::Stored};
use shared::target::{Place, Target};
use shared::{Code, Status, TargetId};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use vault::store::{Local, Objects, Rate, S3, S3Settings, Throttled};
use vault::{Key, Opening, StoreError, Vault};

/// Why something could not be done at a target.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CopiesError {
    #[error("target {target}")]
    Vault { target: String, source: vault::Error },
    #[error("target {target} cannot be used")]
    Settings { target: String, source: StoreError },
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Refused(#[from] Status),
}

impl CopiesError {
    /// Whether the target is away, and may come back by itself.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Vault { source, .. } if source.is_transient())
    }
}

impl From<CopiesError> for Status {
    fn from(e: CopiesError) -> Self {
        let text = db::chain(&e);
        match e {
            CopiesError::Refused(status) => status,
            CopiesError::Db(e) => e.into(),
            CopiesError::Seal(_) => Self::new(Code::Internal, text),
            CopiesError::Settings { .. } => Self::new(Code::InvalidArgument, text),
            CopiesError::Vault { source, .. } => Self::new(code(&source), text),
        }
    }
}

fn code(e: &vault::Error) -> Code {
    use vault::Error as E;
    match e {
        E::Store { source, .. } => match source {
            StoreError::Away(_) => Code::Unavailable,
            StoreError::Full => Code::ResourceExhausted,
            StoreError::Denied(_) | StoreError::NotFound => Code::FailedPrecondition,
            StoreError::Exists | StoreError::Other(_) => Code::FailedPrecondition,
        },
        E::NoCopy(_) => Code::NotFound,
        E::Damaged { .. } | E::Lost { .. } => Code::DataLoss,
        E::Held { .. } => Code::FailedPrecondition,
        E::NoVault | E::Exists { .. } | E::Newer { .. } | E::NoKey | E::WrongKey(_) => {
            Code::FailedPrecondition
        }
        E::BadKey(_) | E::NoteName(_) => Code::InvalidArgument,
        E::Cancelled => Code::Cancelled,
        _ => Code::Internal,
    }
}

/// A vault that is open, and how it is used.
pub struct Opened {
    /// The target, as it was when it was opened.
    pub target: Target,
    /// Its secret.
    pub secret: Option<String>,
    /// The vault.
    pub vault: Vault,
    /// Bytes in a second at most, 0 for as many as go.
    rate: Rate,
}

impl Opened {
    /// An error of its vault, with its name.
    pub fn failed(&self, source: vault::Error) -> CopiesError {
        CopiesError::Vault {
            target: self.target.name.to_string(),
            source,
        }
    }
}

/// The vaults of this server.
pub struct Copies {
    db: Db,
    sealer: Sealer,
    open: Mutex<HashMap<TargetId, Arc<Opened>>>,
    turns: Arc<Turns>,
    /// The program that shows copies to machines; none where all is simulated.
    program: Option<PathBuf>,
    /// What is shown, and what ends its keeper.
    shows: Mutex<HashMap<Uuid, CancellationToken>>,
    /// Where the processes are that show copies.
    run_dir: PathBuf,
    /// Systems are adapted one after the other, as many at once.
    adapting: Semaphore,
    /// Those whose files are looked at.
    browsers: Arc<browse::Browsers>,
    /// Whether KVM is used to look at files.
    pub kvm: bool,
}

/// How many copies run to each target.
#[derive(Default)]
struct Turns {
    running: Mutex<HashMap<TargetId, u32>>,
    freed: Notify,
}

/// The right to copy to a target, until it is dropped.
pub struct Turn {
    turns: Arc<Turns>,
    target: TargetId,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(running) = lock(&self.turns.running).get_mut(&self.target) {
            *running = running.saturating_sub(1);
        }
        self.turns.freed.notify_waiters();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held; if it did, what is in it is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Copies {
    /// Those of a data directory.
    pub fn new(db: Db, data_dir: &Path, program: Option<&Path>) -> Result<Self, SealError> {
        Ok(Self {
            db,
            sealer: Sealer::open(data_dir)?,
            open: Mutex::default(),
            turns: Arc::default(),
            program: program.map(Path::to_owned),
            shows: Mutex::default(),
            run_dir: data_dir.join("run"),
            adapting: Semaphore::new(adapt::AT_ONCE),
            browsers: browse::Browsers::new(data_dir),
            kvm: false,
        })
    }

    /// The right to copy to a target, unless as many do as may.
    pub fn turn(&self, target: &Target) -> Option<Turn> {
        let mut running = lock(&self.turns.running);
        let now = running.entry(target.id).or_default();
        (*now < target.at_once).then(|| {
            *now += 1;
            Turn {
                turns: self.turns.clone(),
                target: target.id,
            }
        })
    }

    /// Waits until a copy to any target has ended, or a target is there again: from now on, not from when it is awaited.
    pub fn freed(&self) -> impl Future<Output = ()> + Send + '_ {
        self.turns.freed.notified()
    }

    /// Has all look again that wait for a target.
    pub fn wake(&self) {
        self.turns.freed.notify_waiters();
    }

    /// The vault of a target, opened with the key that was kept. Notes whether the target is away.
    pub async fn open(&self, id: TargetId) -> Result<Arc<Opened>, CopiesError> {
        if let Some(opened) = lock(&self.open).get(&id) {
            return Ok(opened.clone());
        }
        let stored = db::targets::known(&self.db, &id.to_string()).await?;
        let opened = self.open_stored(&stored).await;
        self.note(id, opened.as_ref().err()).await?;
        let opened = Arc::new(opened?);
        lock(&self.open).insert(id, opened.clone());
        Ok(opened)
    }

    /// Notes whether a target is away, by what became of using it.
    pub async fn note(&self, id: TargetId, failed: Option<&CopiesError>) -> Result<(), DbError> {
        let away = match failed {
            Some(e) if e.is_away() => Some(db::chain(e)),
            // It answered, if not what was hoped for.
            _ => None,
        };
        if away.is_some() {
            self.forget(id);
        }
        self.db
            .write(move |tx| {
                Box::pin(async move { db::targets::set_away(tx, id, away.as_deref(), now()).await })
            })
            .await
    }

    /// Opens a target anew when it is used next.
    pub fn forget(&self, id: TargetId) {
        lock(&self.open).remove(&id);
    }

    async fn open_stored(&self, stored: &Stored) -> Result<Opened, CopiesError> {
        let target = stored.target.clone();
        let secret = self.secret(stored)?;
        let key = self.key(stored)?;
        let rate = Rate::new(target.bytes_per_second.unwrap_or(0));
        let objects = store(target.name.as_str(), &target.place, secret.as_deref(), &rate)?;
        let vault = Vault::open(objects, &Opening::Key(Key::from_bytes(key))).await;
        let vault = vault.map_err(|source| CopiesError::Vault {
            target: target.name.to_string(),
            source,
        })?;
        if vault.id() != target.vault {
            return Err(Status::precondition(format!(
                "there is another vault now where target {} has its own: put that back, or detach the target",
                target.name
            ))
            .into());
        }
        Ok(Opened {
            target,
            secret,
            vault,
            rate,
        })
    }

    fn secret(&self, stored: &Stored) -> Result<Option<String>, CopiesError> {
        let what = secret_of(stored.target.id);
        let open = |sealed: &String| {
            let plain = self.sealer.open_sealed(&what, sealed)?;
            String::from_utf8(plain).map_err(|_| SealError::Closed(what.clone()))
        };
        Ok(stored.secret.as_ref().map(open).transpose()?)
    }

    /// Changes how many bytes may go in a second, also of what is under way.
    fn limit(&self, id: TargetId, bytes_per_second: Option<u64>) {
        if let Some(opened) = lock(&self.open).get(&id) {
            opened.rate.set(bytes_per_second.unwrap_or(0));
        }
    }
}

fn secret_of(target: TargetId) -> String {
    format!("the secret of target {target}")
}

fn vault_key_of(target: TargetId) -> String {
    format!("the vault of target {target}")
}

/// The objects of a place.
pub fn store(
    target: &str,
    place: &Place,
    secret: Option<&str>,
    rate: &Rate,
) -> Result<Arc<dyn Objects>, CopiesError> {
    let settings = |source| CopiesError::Settings {
        target: target.to_owned(),
        source,
    };
    let objects: Arc<dyn Objects> = match (&place.local, &place.s3, &place.remote) {
        (Some(local), ..) => Arc::new(Local::new(PathBuf::from(&local.path))),
        (_, Some(s3), _) => {
            let region = s3.region.clone().unwrap_or_else(|| "us-east-1".to_owned());
            let endpoint = s3.endpoint.clone();
            let endpoint = endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
            let made = S3::new(&S3Settings {
                endpoint,
                region,
                bucket: s3.bucket.clone(),
                prefix: s3.prefix.clone().unwrap_or_default().trim_matches('/').to_owned(),
                access_key: s3.access_key_id.clone(),
                secret_key: secret.unwrap_or_default().to_owned(),
            });
            Arc::new(made.map_err(settings)?)
        }
        (.., Some(remote)) => {
            Arc::new(remote::Remote::new(remote, secret.unwrap_or_default()).map_err(settings)?)
        }
        (None, None, None) => {
            return Err(settings(StoreError::Other("it is no place".into())));
        }
    };
    Ok(Arc::new(Throttled::new(objects, rate.clone())))
}
