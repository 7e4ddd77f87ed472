//! Operating systems on copies, made fit for where they go: what is changed goes to overlays, and the copy stays as it is.

use super::{Copies, Show};
use guestfs::adapt::{self, AdaptError, Backing, Failure, LicenceKind, Report, Wanted};
use guestfs::{Disk, FilesError, Helper, Setup};
use shared::migrate::adapt::{AdaptWanted, Adapted, AppliedLicence, GuestOs, LicenceType};
use shared::vm::Firmware;
use shared::{Code, JobId, Status};
use std::path::PathBuf;
use std::time::Duration;

/// As many systems are adapted at once, for each has a machine of a GiB.
pub(super) const AT_ONCE: usize = 2;

/// A disk of a copy, with where its changes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// Its name in the copy.
    pub name: String,
    /// The file.
    pub path: PathBuf,
}

/// What an adaptation told.
#[derive(Default)]
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

impl From<Failure> for Failed {
    fn from(Failure { error: e, log }: Failure) -> Self {
        let text = crate::db::chain(&e);
        let status = match e {
            AdaptError::Refused(_) => Status::precondition(text),
            AdaptError::Host(FilesError::Missing(why)) => Status::precondition(format!(
                "OS adaptation needs guestfish on this server: {why}. Install it, as `offshoot doctor` says, or have the \
                 policy skip OS adaptation"
            )),
            AdaptError::TimedOut { .. } => Status::new(Code::DeadlineExceeded, text),
            AdaptError::Host(_) | AdaptError::Overlay { .. } => Status::new(Code::Internal, text),
        };
        Self { status, log }
    }
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
        let Some(setup) = self.guestfs_setup() else {
            return Ok(Told::default());
        };
        // The vault takes whole chunks, and what an overlay stands on is not read again.
        let opened = self.open(show.target).await.map_err(|e| Failed {
            status: e.into(),
            log: String::new(),
        })?;
        let chunk = opened.vault.chunk();
        // It is never closed.
        let _turn = self.adapting.acquire().await.ok();
        let mut disks = Vec::new();
        for overlay in overlays {
            if let Some(dir) = overlay.path.parent() {
                let made = tokio::fs::create_dir_all(dir).await;
                made.map_err(|e| Failed {
                    status: Status::new(
                        Code::Internal,
                        format!("make the directory {}: {e}", dir.display()),
                    ),
                    log: String::new(),
                })?;
            }
            let served = Backing::Served(self.shown(show, &overlay.name));
            let made = adapt::overlay(&overlay.name, &overlay.path, served, chunk).await;
            disks.push(made.map_err(Failure::from)?);
        }
        let report = adapt::adapt(&disks, &asked(wanted, had), &setup).await?;
        Ok(told(report))
    }

    /// Looks what [`Self::adapt`] would change, or why it would be refused. Writes nothing.
    pub async fn check_os(&self, show: &Show, wanted: &AdaptWanted, had: Firmware) -> Result<Told, Failed> {
        let Some(setup) = self.guestfs_setup() else {
            return Ok(Told::default());
        };
        let _turn = self.adapting.acquire().await.ok();
        let disks: Vec<_> = show.disks.iter().map(|name| self.shown(show, name)).collect();
        let report = adapt::check(&disks, &asked(wanted, had), &setup).await?;
        Ok(told(report))
    }

    /// A disk that is shown.
    fn shown(&self, show: &Show, name: &str) -> Disk {
        Disk {
            name: name.to_owned(),
            socket: self.socket(show.id),
            export: name.to_owned(),
        }
    }

    /// How guestfish is run; none on the simulation.
    fn guestfs_setup(&self) -> Option<Setup> {
        let program = self.program.clone()?;
        Some(Setup {
            helper: Helper { program },
            run_dir: self.browsers.run_dir(),
            cache_dir: self.browsers.cache_dir(),
            kvm: self.kvm,
            idle: Duration::MAX,
            first_try: guestfs::FIRST_TRY,
        })
    }
}

const fn firmware(of: Firmware) -> adapt::Firmware {
    match of {
        Firmware::Bios => adapt::Firmware::Bios,
        Firmware::Efi => adapt::Firmware::Efi,
    }
}

fn asked(wanted: &AdaptWanted, had: Firmware) -> Wanted {
    Wanted {
        hostname: wanted.hostname.clone(),
        new_identity: !wanted.keep_identity,
        serial_console: true,
        firmware: wanted.firmware.map(firmware),
        boots_with: firmware(had),
        // NICs are new where it goes; cloud-init is told by a seed disk of the machine's own.
        ..Wanted::default()
    }
}

fn told(report: Report) -> Told {
    let Report {
        os,
        licence,
        done,
        warnings,
        log,
    } = report;
    Told {
        adapted: Adapted {
            os: Some(GuestOs {
                kind: os.kind,
                distribution: os.distribution,
                version: os.version,
                product: os.product,
                architecture: os.arch,
                hostname: os.hostname,
            }),
            applied_license: Some(AppliedLicence {
                kind: match licence.kind {
                    LicenceKind::Free => LicenceType::None,
                    LicenceKind::BringYourOwn => LicenceType::Byol,
                    LicenceKind::Unknown => LicenceType::Unknown,
                },
                os_license: licence.os_licence,
            }),
            done,
            warnings,
            written_bytes: 0,
        },
        log,
    }
}
