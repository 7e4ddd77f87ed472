//! Processes that show disks of copies, for as long as somebody reads them: one for each restore, or each look.
//!
//! They outlive this server; whichever ends is started again, and whoever reads from it waits meanwhile.

use super::{Copies, CopiesError, vault_key_of};
use crate::db::{self, layers::CopyOf};
use crate::nbd::process::{self, Error};
use crate::nbd::{Config, Store};
use shared::{CopyId, Status, TargetId};
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long is waited until one is started again that could not be.
const AGAIN: Duration = Duration::from_secs(5);

/// What one process shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Show {
    /// Its id: of the job that asked for it.
    pub id: Uuid,
    /// The target.
    pub target: TargetId,
    /// The copy.
    pub copy: CopyId,
    /// The disks, by their names in the copy.
    pub disks: Vec<String>,
}

impl Copies {
    /// Where a show is read.
    pub fn socket(&self, show: Uuid) -> PathBuf {
        self.run_dir.join(format!("{}.nbd", show.simple()))
    }

    pub(super) async fn config(&self, show: &Show) -> Result<Config, CopiesError> {
        let stored = db::targets::known(&self.db, &show.target.to_string()).await?;
        let key = self.key(&stored)?;
        Ok(Config {
            socket: self.socket(show.id),
            store: Store {
                target: stored.target.name.to_string(),
                place: stored.target.place.clone(),
                secret: self.secret(&stored)?,
            },
            key,
            copy: show.copy.0,
            disks: show.disks.clone(),
            idle_seconds: None,
        })
    }

    /// Shows disks of a copy until [`Self::hide`]. One that is shown already is left as it is.
    pub async fn show(&self, show: &Show) -> Result<(), CopiesError> {
        // Of the simulation nothing is read.
        let Some(program) = self.program.clone() else {
            return Ok(());
        };
        let config = self.config(show).await?;
        process::ensure(&program, &config).await.map_err(of_process)?;
        let mut shows = super::lock(&self.shows);
        if shows.contains_key(&show.id) {
            return Ok(());
        }
        let over = CancellationToken::new();
        shows.insert(show.id, over.clone());
        drop(shows);
        tokio::spawn(keep(program, config, over));
        Ok(())
    }

    /// Ends a show.
    pub async fn hide(&self, show: Uuid) -> Result<(), CopiesError> {
        if let Some(over) = super::lock(&self.shows).remove(&show) {
            over.cancel();
        }
        match self.program {
            Some(_) => process::end(&self.socket(show)).await.map_err(of_process),
            None => Ok(()),
        }
    }

    /// Lets the processes be, for the next server to take over.
    pub fn let_be(&self) {
        for (_, over) in super::lock(&self.shows).drain() {
            over.cancel();
        }
    }

    /// Shows again what disks are read from that are not here yet.
    pub async fn show_again(&self, layers: &[CopyOf]) {
        let mut shows: Vec<Show> = Vec::new();
        for of in layers {
            match shows.iter_mut().find(|show| show.id == of.show) {
                Some(show) => show.disks.push(of.disk.clone()),
                None => shows.push(Show {
                    id: of.show,
                    target: of.target,
                    copy: of.copy,
                    disks: vec![of.disk.clone()],
                }),
            }
        }
        for show in shows {
            if let Err(e) = self.show(&show).await {
                tracing::error!(copy = %show.copy, error = %db::chain(&e), "disks that are still read from a copy cannot be shown");
            }
        }
    }
}

/// Starts the process again whenever it has ended.
async fn keep(program: PathBuf, config: Config, over: CancellationToken) {
    loop {
        tokio::select! {
            () = over.cancelled() => return,
            () = process::ended(&config.socket) => {}
        }
        if over.is_cancelled() {
            return;
        }
        if let Err(e) = process::ensure(&program, &config).await {
            tracing::warn!(copy = %config.copy, error = %db::chain(&e), "disks of a copy are not shown: tried again");
            tokio::select! {
                () = over.cancelled() => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }
}

pub(super) fn of_process(e: Error) -> CopiesError {
    let code = match e {
        Error::Away(_) => shared::Code::Unavailable,
        Error::Io { .. } => shared::Code::Internal,
        Error::Refused(_) => shared::Code::FailedPrecondition,
    };
    Status::new(code, db::chain(&e)).into()
}

impl Copies {
    pub(super) fn key(&self, stored: &db::targets::Stored) -> Result<[u8; 32], CopiesError> {
        let what = vault_key_of(stored.target.id);
        let key = self.sealer.open_sealed(&what, &stored.vault_key)?;
        Ok(<[u8; 32]>::try_from(key).map_err(|_| super::SealError::Closed(what))?)
    }
}
