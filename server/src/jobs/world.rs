//! All that jobs work with, and how it is opened.

use crate::db::layers::Layer;
use crate::db::places::StorageRow;
use crate::db::{self, Db, DbError, now};
use crate::disks::{DiskError, Disks, LayerFile, QemuImg, SimDisks};
use crate::hypervisor::qemu::Qemu;
use crate::hypervisor::sim::Sim;
use crate::hypervisor::{HvError, Hypervisor};
use shared::place::Accelerator;
use shared::{ImageId, JobId, LayerId, Name, VmId};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// All that jobs work with.
pub struct World {
    /// The database.
    pub db: Db,
    /// What runs machines.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// What makes layers.
    pub disks: Arc<dyn Disks>,
    /// The directory of everything that this server keeps.
    pub data_dir: PathBuf,
    /// The storage that layers are in.
    pub storage: StorageRow,
}

/// What runs the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machines {
    /// Nothing: every answer comes at once.
    Simulated,
    /// QEMU, as the host allows, or as it is told.
    Real(Option<Accelerator>),
}

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum OpenError {
    #[error("make the directory {path}")]
    Make { path: PathBuf, source: io::Error },
    #[error("the data directory {0} has a name that is not UTF-8")]
    Name(PathBuf),
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Hypervisor(#[from] HvError),
    #[error("find the file of the program that runs")]
    Program(#[source] io::Error),
    #[error("register image {name}")]
    Image { name: Name, source: DiskError },
}

impl World {
    /// Opens a data directory whose database is open, and makes in it what is missing.
    pub async fn open(data_dir: &Path, db: Db, machines: Machines) -> Result<Self, OpenError> {
        let data_dir = std::path::absolute(data_dir).map_err(|source| OpenError::Make {
            path: data_dir.to_owned(),
            source,
        })?;
        let layers = data_dir.join("layers");
        for path in [
            &layers,
            &data_dir.join("seeds"),
            &data_dir.join("screens"),
            &data_dir.join("run"),
        ] {
            std::fs::create_dir_all(path).map_err(|source| OpenError::Make {
                path: path.clone(),
                source,
            })?;
        }
        let path = layers
            .to_str()
            .ok_or_else(|| OpenError::Name(data_dir.clone()))?
            .to_owned();
        db.write(move |tx| Box::pin(async move { db::places::ensure(tx, &path).await }))
            .await?;
        let storage = db::places::storages(&db).await?.into_iter().find(|s| s.default);
        let storage = storage.ok_or(DbError::Column {
            column: "storages",
            why: "none is the default".into(),
        })?;
        let run = data_dir.join("run");
        let (hypervisor, disks): (Arc<dyn Hypervisor>, Arc<dyn Disks>) = match machines {
            Machines::Simulated => (Arc::new(Sim::new(&run)?), Arc::new(SimDisks)),
            Machines::Real(forced) => {
                let program = std::env::current_exe().map_err(OpenError::Program)?;
                (
                    Arc::new(Qemu::new(&run, forced, &program)?),
                    Arc::new(QemuImg::new()),
                )
            }
        };
        Ok(Self {
            db,
            hypervisor,
            disks,
            data_dir,
            storage,
        })
    }

    /// Registers an image that the operator names; one that is there already under this name is left as it is.
    pub async fn register_image(&self, name: &Name, from: &Path) -> Result<(), OpenError> {
        if db::images::find(&self.db, name.as_str()).await?.is_some() {
            return Ok(());
        }
        let id = LayerId(Uuid::now_v7());
        let info = self
            .disks
            .import(from, &self.layer_file(id))
            .await
            .map_err(|source| OpenError::Image {
                name: name.clone(),
                source,
            })?;
        let (storage, name) = (self.storage.id, name.clone());
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    let virtual_bytes = info.virtual_bytes;
                    db::layers::insert(
                        tx,
                        &Layer {
                            id,
                            storage,
                            parent: None,
                            virtual_bytes,
                        },
                    )
                    .await?;
                    db::images::insert(tx, ImageId(Uuid::now_v7()), &name, id, now()).await
                })
            })
            .await?;
        Ok(())
    }

    /// The file of a layer: made of its id, never of what a person typed.
    pub fn layer_file(&self, id: LayerId) -> LayerFile {
        LayerFile {
            id,
            path: PathBuf::from(&self.storage.path).join(format!("{id}.qcow2")),
        }
    }

    /// The NoCloud seed of a machine.
    pub fn seed_file(&self, vm: VmId) -> PathBuf {
        self.data_dir.join("seeds").join(format!("{vm}.img"))
    }

    /// The picture that a job keeps of its guest's screen.
    pub fn screen_file(&self, job: JobId) -> PathBuf {
        self.data_dir.join("screens").join(format!("{job}.png"))
    }
}
