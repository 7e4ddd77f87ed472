//! All that jobs work with, and how it is opened.

use crate::db::layers::Layer;
use crate::db::places::StorageRow;
use crate::db::{self, Db, DbError, now};
use crate::disks::{DiskError, Disks, LayerFile, QemuImg, SimDisks};
use crate::hypervisor::qemu::Qemu;
use crate::hypervisor::sim::Sim;
use crate::hypervisor::{HvError, Hypervisor, Point};
use crate::jobs::spares::Spares;
use shared::fork::MemoryPlace;
use shared::place::Accelerator;
use shared::seed::fault::Fault;
use shared::seed::instant_clone::Placement;
use shared::vm::Vm;
use shared::{ImageId, JobId, LayerId, Name, SnapshotId, Status, VmId};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
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
    /// Where frozen memory that is not kept stands; where there is room if none is named.
    pub memory_dir: Option<PathBuf>,
    /// How much memory guests may be promised, as a share of the host's.
    pub memory_overcommit: f64,
    /// Processes that wait for the next fork of a point.
    pub spares: Spares,
    /// How long the guest of a fork may take to give a sign, and as much again for each that begins with it.
    pub answer_within: Duration,
    /// How long after a fork its memory is measured again.
    pub measure_after: Duration,
}

/// The host's shared memory: files in it are in RAM.
const SHARED_MEMORY: &str = "/dev/shm";
/// What a file system of that kind says that it is.
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// What a fork's process costs beside its guest's memory.
const PROCESS_BYTES: u64 = 40 << 20;
/// What is left alone of a file system and of the host's memory.
const RESERVE_BYTES: u64 = 128 << 20;

/// A file of a fork point, or of a snapshot's memory: made of its id, never of what a person typed.
pub fn point_file(directory: &Path, id: impl std::fmt::Display, what: &str) -> PathBuf {
    directory.join(format!("{id}.{what}"))
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
    #[error("register image {name}")]
    Image { name: Name, source: DiskError },
}

/// The host's memory, and what of it is free or can be made so, in bytes.
fn memory() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|l| l.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.unwrap_or_default() << 10
    };
    (field("MemTotal"), field("MemAvailable"))
}

fn is_tmpfs(dir: &Path) -> bool {
    rustix::fs::statfs(dir).is_ok_and(|fs| fs.f_type == TMPFS_MAGIC)
}

impl World {
    /// Opens a data directory whose database is open, and makes in it what is missing. `program` is offshoot itself, for the
    /// guardians of forks.
    pub async fn open(
        data_dir: &Path,
        db: Db,
        machines: Machines,
        program: &Path,
    ) -> Result<Self, OpenError> {
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
            &data_dir.join("points"),
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
            Machines::Real(forced) => (
                Arc::new(Qemu::new(&run, forced, program)?),
                Arc::new(QemuImg::new()),
            ),
        };
        Ok(Self {
            db,
            spares: Spares::new(hypervisor.clone(), Duration::ZERO),
            hypervisor,
            disks,
            data_dir,
            storage,
            memory_dir: None,
            memory_overcommit: crate::config::MEMORY_OVERCOMMIT,
            answer_within: Duration::from_secs(2),
            measure_after: Duration::from_secs(10),
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

    /// Where the memory of a machine is frozen: where it is asked to be, or in RAM if there is room, else on the disk. What is
    /// kept is on the disk, for it outlives the host's next start.
    pub fn room_for_memory(&self, memory_mib: u32, kept: bool) -> Result<(PathBuf, MemoryPlace), Status> {
        let need = (u64::from(memory_mib) << 20) + RESERVE_BYTES;
        let disk = self.data_dir.join("points");
        let free = |dir: &Path| crate::disks::space(dir).map(|s| s.free);
        let (dir, place) = match &self.memory_dir {
            _ if kept => (disk, MemoryPlace::Disk),
            Some(dir) => (
                dir.clone(),
                if is_tmpfs(dir) {
                    MemoryPlace::Ram
                } else {
                    MemoryPlace::Disk
                },
            ),
            None => {
                let ram = Path::new(SHARED_MEMORY);
                if is_tmpfs(ram) && free(ram).is_ok_and(|free| free >= need) {
                    (
                        ram.join(format!("offshoot-{}", rustix::process::getuid().as_raw())),
                        MemoryPlace::Ram,
                    )
                } else {
                    (disk, MemoryPlace::Disk)
                }
            }
        };
        use std::os::unix::fs::DirBuilderExt;
        // Whoever can read it can read what guests have in memory.
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir);
        let file_fault = |why: &dyn std::fmt::Display| {
            let message = format!("the memory file cannot be made in {}: {why}", dir.display());
            let file = dir.display().to_string();
            Fault::FileFault { file }.of(Status::new(shared::Code::FailedPrecondition, message))
        };
        made.map_err(|e| file_fault(&e))?;
        rustix::fs::access(&dir, rustix::fs::Access::WRITE_OK).map_err(|e| file_fault(&e))?;
        let free = free(&dir).map_err(|e| file_fault(&e))?;
        if free < need && self.hypervisor.accelerator() != Accelerator::Sim {
            let file = dir.display().to_string();
            return Err(Fault::FileFault { file }.of(Status::no_space(format!(
                "{} has no room for a memory of {memory_mib} MiB: {} MiB are free, and {} MiB are needed. Free some space, or \
                 set memory_dir",
                dir.display(),
                free >> 20,
                need >> 20
            ))));
        }
        Ok((dir, place))
    }

    /// Where a machine is, in the words of VMware's specs.
    pub async fn placement(&self, vm: &Vm) -> Result<Placement, Status> {
        let hosts = db::places::hosts(&self.db).await?;
        let host = hosts.into_iter().filter(|h| h.id == vm.host);
        Ok(Placement {
            folders: vec!["vm".to_owned()],
            datastores: vec![self.storage.id.to_string(), self.storage.name.to_string()],
            pools: host
                .flat_map(|h| [h.id.to_string(), h.name.to_string()])
                .collect(),
            nics: vm.network_interfaces.len(),
        })
    }

    /// Whether the host has the memory for so many forks of a machine: what is free now, and what may be promised.
    pub async fn check_memory(
        &self,
        memory_mib: u32,
        clones: usize,
        captured: bool,
        place: MemoryPlace,
    ) -> Result<(), Status> {
        if self.hypervisor.accelerator() == Accelerator::Sim {
            return Ok(());
        }
        let insufficient = |message: String| Status::new(shared::Code::ResourceExhausted, message);
        let (total, available) = memory();
        let frozen = if captured || place == MemoryPlace::Disk {
            0
        } else {
            u64::from(memory_mib) << 20
        };
        let need = frozen + clones as u64 * PROCESS_BYTES + RESERVE_BYTES;
        if available < need {
            return Err(insufficient(format!(
                "the host has {} MiB of memory free, and {clones} instant clone(s) of {memory_mib} MiB need {} MiB at least: stop \
                 some machines, or ask for fewer clones",
                available >> 20,
                need >> 20
            )));
        }
        let promised: u64 = db::vms::counts(&self.db, &shared::access::rights::Sees::All)
            .await?
            .iter()
            .filter(|(state, _)| !matches!(state.as_str(), "STOPPED" | "ERROR"))
            .map(|(_, (_, mib))| mib << 20)
            .sum();
        let asked = promised + ((clones as u64 * u64::from(memory_mib)) << 20);
        let most = (total as f64 * self.memory_overcommit) as u64;
        if asked > most {
            return Err(insufficient(format!(
                "with {clones} instant clone(s) of {memory_mib} MiB guests would be promised {} MiB, and memory_overcommit = {} \
                 allows {} MiB: stop some machines, ask for fewer clones, or raise it",
                asked >> 20,
                self.memory_overcommit,
                most >> 20
            )));
        }
        Ok(())
    }

    /// The files of a snapshot's memory.
    pub fn snapshot_point(&self, id: SnapshotId, user_networks: usize) -> Point {
        let points = self.data_dir.join("points");
        Point {
            id: id.0,
            memory: point_file(&points, id, "memory"),
            state: point_file(&points, id, "state"),
            user_networks,
        }
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
