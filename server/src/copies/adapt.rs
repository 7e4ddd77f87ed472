//! Operating systems on copies, made fit for where they go: what is changed goes to overlays, and the copy stays as it is.

use super::{Copies, Show};
use shared::migrate::adapt::{AdaptWanted, Adapted};
use shared::vm::Firmware;
use shared::{JobId, Status};
use std::path::PathBuf;

/// A disk of a copy, with where its changes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// Its name in the copy.
    pub name: String,
    /// The file.
    pub path: PathBuf,
}

/// What an adaptation told.
pub struct Told {
    /// What was found and done.
    pub adapted: Adapted,
    /// What was asked of the system, and what was answered.
    pub log: String,
}

/// Why a system was not adapted.
pub struct Failed {
    /// Why, and what to do.
    pub status: Status,
    /// As of [`Told`].
    pub log: String,
}

impl Copies {
    /// Where a job has its overlays.
    pub fn adapted_dir(&self, job: JobId) -> PathBuf {
        self.run_dir.join("adapt").join(job.0.simple().to_string())
    }

    /// Adapts the system on disks that are shown: the overlays are made, and have what was changed. The simulation has no
    /// system, and no overlays.
    pub async fn adapt(
        &self,
        show: &Show,
        overlays: &[Overlay],
        wanted: &AdaptWanted,
        had: Firmware,
    ) -> Result<Told, Failed> {
        let Some(program) = &self.program else {
            return Ok(Told {
                adapted: Adapted::default(),
                log: String::new(),
            });
        };
        let _ = (show, overlays, wanted, had, program);
        Err(Failed {
            status: Status::precondition("not yet"),
            log: String::new(),
        })
    }
}
