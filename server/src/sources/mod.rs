//! Where machines live that are carried over, and what they are there.

mod folder;
pub mod libvirt;
mod ovf;

pub use folder::{Disk, Machine};

use crate::db::{self, Db};
use crate::disks::Disks;
use crate::disks::roots::below;
use crate::jobs::world::{ImageRules, World};
use shared::migrate::{LibvirtSource, MigratingVm, Source, SourceVm};
use shared::vm::{Vm, VmState};
use shared::{SourceId, Status, VmId};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SourceError {
    #[error("look into {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "{path} has more than {most} entries: give the machines that are to be carried over a directory of their own"
    )]
    Many { path: PathBuf, most: usize },
    #[error("read {path}: {why}")]
    Refused { path: PathBuf, why: String },
    #[error("read {path}")]
    Disk {
        path: PathBuf,
        #[source]
        source: crate::disks::DiskError,
    },
    #[error("{0}")]
    Uri(::libvirt::UriError),
    #[error("{0} does not answer")]
    Silent(String),
    #[error(transparent)]
    Libvirt(#[from] ::libvirt::Error),
    #[error("a thread ended early")]
    Thread,
}

impl SourceError {
    fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

impl From<SourceError> for Status {
    fn from(e: SourceError) -> Self {
        if matches!(e, SourceError::Uri(_)) {
            return Self::invalid("libvirt.uri", e);
        }
        Self::precondition(db::chain(&e))
    }
}

/// A machine of a source.
#[derive(Clone, Debug)]
pub enum Origin {
    /// One of this server.
    Local(Box<Vm>),
    /// One that was exported.
    Exported(Machine),
    /// One of a libvirt.
    Libvirt(::libvirt::Machine),
}

impl Origin {
    /// How its source calls it.
    pub fn id(&self) -> String {
        match self {
            Self::Local(vm) => vm.id.to_string(),
            Self::Exported(machine) => machine.id.clone(),
            Self::Libvirt(machine) => machine.uuid.clone(),
        }
    }

    /// Its name there.
    pub fn name(&self) -> String {
        match self {
            Self::Local(vm) => vm.name.to_string(),
            Self::Exported(machine) => machine.name.clone(),
            Self::Libvirt(machine) => machine.name.clone(),
        }
    }

    /// Why it cannot be carried over.
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::Local(_) => None,
            Self::Exported(machine) => machine.refusal.clone(),
            Self::Libvirt(machine) => machine.refusal.clone(),
        }
    }

    /// Whether it runs, or stands still with its memory.
    pub fn runs(&self) -> bool {
        match self {
            Self::Local(vm) => vm.state != VmState::Stopped,
            Self::Exported(_) => false,
            Self::Libvirt(machine) => machine.active,
        }
    }

    /// As it is listed.
    fn told(&self) -> SourceVm {
        let base = SourceVm {
            id: self.id(),
            name: self.name(),
            running: None,
            cpus: None,
            memory_mib: None,
            firmware: None,
            disk_bytes: Vec::new(),
            os: None,
            refusal: self.refusal(),
            migrating_vm: None,
        };
        match self {
            Self::Local(vm) => SourceVm {
                running: Some(vm.state == VmState::Running),
                cpus: Some(vm.cpus),
                memory_mib: Some(vm.memory_mib),
                firmware: Some(vm.firmware),
                disk_bytes: vm.disks.iter().map(|disk| disk.virtual_bytes).collect(),
                ..base
            },
            Self::Exported(machine) => SourceVm {
                cpus: machine.cpus,
                memory_mib: machine.memory_mib,
                firmware: machine.firmware,
                disk_bytes: machine
                    .disks
                    .iter()
                    .map(|disk| disk.found.virtual_bytes)
                    .collect(),
                os: machine.os.clone(),
                ..base
            },
            Self::Libvirt(machine) => SourceVm {
                running: Some(machine.active),
                cpus: machine.cpus,
                memory_mib: machine.memory_mib,
                firmware: Some(libvirt::firmware(machine)),
                disk_bytes: machine.disks.iter().map(|disk| disk.bytes).collect(),
                os: machine.os.clone(),
                ..base
            },
        }
    }
}

/// What sources are read with.
pub struct Sources<'a> {
    db: &'a Db,
    disks: &'a Arc<dyn Disks>,
    images: &'a ImageRules,
}

impl<'a> Sources<'a> {
    /// Those of this server.
    pub const fn of(world: &'a World) -> Self {
        Self {
            db: &world.db,
            disks: &world.disks,
            images: &world.images,
        }
    }

    /// The directory of exported machines that a path leads to, if it is below one that is configured.
    pub fn folder(&self, path: &str) -> Result<PathBuf, Status> {
        let found = below(&self.images.roots, path).map_err(|e| Status::invalid("disks.path", e.message))?;
        if !found.is_dir() {
            return Err(Status::invalid(
                "disks.path",
                format_args!("{path} is no directory"),
            ));
        }
        Ok(found)
    }

    /// All machines of a source, by name.
    pub async fn list(&self, source: &Source) -> Result<Vec<SourceVm>, Status> {
        let mut all = Vec::new();
        if let Some(place) = &source.place.libvirt {
            let found = libvirt::machines(place, self.images.most).await?;
            all.extend(found.into_iter().map(|machine| Origin::Libvirt(machine).told()));
        } else if let Some(folder) = &source.place.disks {
            let path = self.folder(&folder.path)?;
            let found = folder::list(self.disks, &path, self.images.most).await?;
            all.extend(found.into_iter().map(|machine| Origin::Exported(machine).told()));
        } else {
            for id in db::vms::ids(self.db).await? {
                if let Some(vm) = db::vms::by_id(self.db, id).await? {
                    all.push(Origin::Local(Box::new(vm)).told());
                }
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// The machine of a source with this id, or with this name.
    pub async fn find(&self, source: &Source, reference: &str) -> Result<Option<Origin>, Status> {
        if let Some(place) = &source.place.libvirt {
            let found = libvirt::find(place, self.images.most, reference).await?;
            return Ok(found.map(Origin::Libvirt));
        }
        let Some(folder) = &source.place.disks else {
            let found = db::vms::find(self.db, reference).await?;
            return Ok(found.map(|vm| Origin::Local(Box::new(vm))));
        };
        let path = self.folder(&folder.path)?;
        let mut all = folder::list(self.disks, &path, self.images.most).await?;
        let by = |named: fn(&Machine) -> &str| all.iter().position(|m| named(m) == reference);
        let found = by(|m| &m.id).or_else(|| by(|m| &m.name));
        Ok(found.map(|n| Origin::Exported(all.swap_remove(n))))
    }

    /// The source with this id.
    pub async fn of_id(&self, id: SourceId) -> Result<Source, Status> {
        let id = id.to_string();
        let source = self
            .db
            .reading(async |conn| db::migrations::source(conn, &id).await);
        Ok(source.await?)
    }

    /// The libvirt that a source is, if it is one.
    pub async fn libvirt(&self, id: SourceId) -> Result<Option<LibvirtSource>, Status> {
        Ok(self.of_id(id).await?.place.libvirt)
    }

    /// The machine that a migration is of; the reason where there is none, or it cannot be carried over.
    pub async fn of_migration(&self, vm: &MigratingVm) -> Result<Origin, Status> {
        let source = self.of_id(vm.source).await?;
        let elsewhere = source.place.local.is_none();
        let found = match (elsewhere, vm.source_vm.parse::<VmId>()) {
            (false, Ok(id)) => {
                let found = db::vms::by_id(self.db, id).await?;
                found.map(|vm| Origin::Local(Box::new(vm)))
            }
            _ => self.find(&source, &vm.source_vm).await?,
        };
        match found {
            Some(found) => match found.refusal() {
                Some(why) => Err(Status::precondition(format!(
                    "{} cannot be carried over: {why}; mend it, and check again",
                    vm.source_vm_name
                ))),
                None => Ok(found),
            },
            None => Err(Status::precondition(format!(
                "{} is not at {} any more: delete the migration, or bring it back and check again",
                vm.source_vm_name, vm.source_name
            ))),
        }
    }
}
