//! All that jobs work with, and how it is opened.

use crate::copies::{Copies, SealError};
use crate::db::layers::Layer;
use crate::db::places::StorageRow;
use crate::db::{self, Db, DbError, now};
use crate::disks::helper::Helper;
use crate::disks::image::Found;
use crate::disks::{DiskError, Disks, LayerFile, QemuImg, Shown, SimDisks};
use crate::hypervisor::qemu::{Efi, Qemu};
use crate::hypervisor::sim::Sim;
use crate::hypervisor::{HvError, Hypervisor, Point};
use crate::jobs::clock::Clock;
use crate::jobs::kinds::Sessions;
use crate::jobs::spares::Spares;
use shared::fork::MemoryPlace;
use shared::image::ExportFormat;
use shared::place::Accelerator;
use shared::seed::fault::Fault;
use shared::seed::instant_clone::Placement;
use shared::vm::Vm;
use shared::{ExportId, ImageId, JobId, LayerId, Name, SnapshotId, Status, StorageId, UploadId, VmId};
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
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
    /// What tells when copies are due.
    pub clock: Clock,
    /// The vaults that copies go to.
    pub copies: Copies,
    /// Copies that are read, and do not count yet.
    pub(crate) sessions: Sessions,
    /// The directory of everything that this server keeps.
    pub data_dir: PathBuf,
    /// The storage of this data directory.
    pub storage: StorageRow,
    /// The directories of the other storages, and the layers that are there.
    elsewhere: RwLock<Elsewhere>,
    /// Where frozen memory that is not kept stands; where there is room if none is named.
    pub memory_dir: Option<PathBuf>,
    /// How much memory guests may be promised, as a share of the host's.
    pub memory_overcommit: f64,
    /// How many layers a disk may have above the last one that a snapshot or an image names.
    pub chain_length: usize,
    /// The boot of this host, as the kernel names it.
    pub boot: String,
    /// The EFI firmware of machines that have one; none if none is installed.
    pub efi: Option<Efi>,
    /// What holds for images from outside.
    pub images: ImageRules,
    /// Processes that wait for the next fork of a point.
    pub spares: Spares,
    /// How long the guest of a fork may take to give a sign, and as much again for each that begins with it.
    pub answer_within: Duration,
    /// How long after a fork its memory is measured again.
    pub measure_after: Duration,
}

#[derive(Default)]
struct Elsewhere {
    paths: HashMap<StorageId, PathBuf>,
    layers: HashMap<LayerId, StorageId>,
    shown: HashMap<LayerId, Shown>,
}

/// What holds for images from outside.
#[derive(Clone, Debug)]
pub struct ImageRules {
    /// Directories that they may be imported from by path.
    pub roots: Vec<PathBuf>,
    /// Whether they may be fetched from private addresses.
    pub urls_private: bool,
    /// Largest image, as a file and as a disk, in bytes.
    pub most: u64,
    /// What converts them.
    pub helper: Helper,
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
    #[error(transparent)]
    Seal(#[from] SealError),
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

/// The id that the kernel gives each boot.
fn boot_of_host() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map_or_else(|_| String::new(), |id| id.trim().to_owned())
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
            &data_dir.join("uploads"),
            &data_dir.join("exports"),
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
        let at = path.clone();
        db.write(move |tx| Box::pin(async move { db::places::ensure(tx, &at).await }))
            .await?;
        let (own, others): (Vec<_>, Vec<_>) = db::places::storages(&db)
            .await?
            .into_iter()
            .partition(|s| s.path == path);
        let storage = own.into_iter().next().ok_or(DbError::Column {
            column: "storages",
            why: "that of the data directory is missing".into(),
        })?;
        let real = (machines != Machines::Simulated).then_some(program);
        let mut copies = Copies::new(db.clone(), &data_dir, real)?;
        let elsewhere = Elsewhere {
            layers: db::layers::elsewhere(&db, storage.id).await?,
            paths: others.into_iter().map(|s| (s.id, s.path.into())).collect(),
            shown: db::layers::copies(&db)
                .await?
                .into_iter()
                .map(|(id, of)| {
                    let socket = copies.socket(of.show);
                    (
                        id,
                        Shown {
                            socket,
                            disk: of.disk,
                        },
                    )
                })
                .collect(),
        };
        let run = data_dir.join("run");
        let efi = match machines {
            Machines::Simulated => {
                let made = Efi::simulated(&run);
                Some(made.map_err(|source| OpenError::Make {
                    path: run.clone(),
                    source,
                })?)
            }
            Machines::Real(_) => Efi::find(),
        };
        let (hypervisor, disks): (Arc<dyn Hypervisor>, Arc<dyn Disks>) = match machines {
            Machines::Simulated => (Arc::new(Sim::new(&run)?), Arc::new(SimDisks)),
            Machines::Real(forced) => (
                Arc::new(Qemu::new(&run, forced, program)?),
                Arc::new(QemuImg::new()),
            ),
        };
        copies.kvm = hypervisor.accelerator() == Accelerator::Kvm;
        Ok(Self {
            db,
            spares: Spares::new(hypervisor.clone(), Duration::ZERO),
            hypervisor,
            disks,
            clock: Clock::default(),
            copies,
            sessions: Sessions::default(),
            data_dir,
            storage,
            boot: boot_of_host(),
            elsewhere: RwLock::new(elsewhere),
            memory_dir: None,
            memory_overcommit: crate::config::MEMORY_OVERCOMMIT,
            chain_length: crate::config::CHAIN_LENGTH as usize,
            efi,
            images: ImageRules {
                roots: Vec::new(),
                urls_private: false,
                most: u64::from(crate::config::IMAGE_MAX_GIB) << 30,
                helper: Helper {
                    program: program.to_owned(),
                    user: None,
                },
            },
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
        let refused = |source| OpenError::Image {
            name: name.clone(),
            source,
        };
        let found = self.disks.inspect(from, None, self.images.most).await;
        let [found] = <[Found; 1]>::try_from(found.map_err(refused)?).map_err(|all| {
            refused(DiskError::Refused {
                path: from.to_owned(),
                why: format!(
                    "it has {} disks: import it in the console or by `offshoot image import`",
                    all.len()
                ),
            })
        })?;
        self.disks
            .import(
                &self.images.helper,
                from,
                &found,
                &self.layer_file(id),
                &|_, _| {},
            )
            .await
            .map_err(refused)?;
        let (storage, name) = (self.storage.id, name.clone());
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    let virtual_bytes = found.virtual_bytes;
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

    /// The EFI firmware, for machines that are to have one.
    pub fn efi(&self) -> Result<&Efi, Status> {
        self.efi.as_ref().ok_or_else(|| {
            Status::precondition("this host has no EFI firmware for machines: install the package ovmf, and start the server again")
        })
    }

    /// Where a machine is, in the words of VMware's specs.
    pub async fn placement(&self, vm: &Vm) -> Result<Placement, Status> {
        let hosts = db::places::hosts(&self.db).await?;
        let host = hosts.into_iter().filter(|h| h.id == vm.host);
        let place = vm
            .disks
            .first()
            .map_or(self.storage.id, |d| self.storage_of(d.layer));
        let storages = db::places::storages(&self.db).await?;
        let storage = storages.into_iter().filter(|s| s.id == place);
        Ok(Placement {
            folders: vec!["vm".to_owned()],
            datastores: storage
                .flat_map(|s| [s.id.to_string(), s.name.to_string()])
                .collect(),
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
        let elsewhere = self.elsewhere.read().unwrap_or_else(PoisonError::into_inner);
        let storage = elsewhere.layers.get(&id).and_then(|s| elsewhere.paths.get(s));
        let directory = storage.map_or(Path::new(&self.storage.path), PathBuf::as_path);
        LayerFile {
            id,
            path: directory.join(format!("{id}.qcow2")),
            shown: elsewhere.shown.get(&id).cloned(),
        }
    }

    /// The layers whose files are not there, of those that have one.
    pub async fn missing_layers(&self) -> Result<Vec<LayerId>, DbError> {
        let shown: HashSet<LayerId> = db::layers::copies(&self.db)
            .await?
            .into_iter()
            .map(|(id, _)| id)
            .collect();
        let missing = self.db.missing(|id| self.layer_file(id).path).await?;
        Ok(missing.into_iter().filter(|id| !shown.contains(id)).collect())
    }

    /// Wherever the file of a layer may be.
    pub fn layer_paths(&self, id: LayerId) -> Vec<PathBuf> {
        let elsewhere = self.elsewhere.read().unwrap_or_else(PoisonError::into_inner);
        let directories = elsewhere.paths.values().map(PathBuf::as_path);
        std::iter::once(Path::new(&self.storage.path))
            .chain(directories)
            .map(|directory| directory.join(format!("{id}.qcow2")))
            .collect()
    }

    /// The storage of a layer.
    pub fn storage_of(&self, id: LayerId) -> StorageId {
        let elsewhere = self.elsewhere.read().unwrap_or_else(PoisonError::into_inner);
        elsewhere.layers.get(&id).copied().unwrap_or(self.storage.id)
    }

    /// Says that a layer is a disk of a copy in the vault, and what shows it.
    pub fn show(&self, id: LayerId, shown: Shown) {
        let mut elsewhere = self.elsewhere.write().unwrap_or_else(PoisonError::into_inner);
        elsewhere.shown.insert(id, shown);
    }

    /// What showed a layer is not there any more.
    pub fn unshow(&self, id: LayerId) {
        let mut elsewhere = self.elsewhere.write().unwrap_or_else(PoisonError::into_inner);
        elsewhere.shown.remove(&id);
    }

    /// Says where a layer will be, before anything is made of it. It is on the books with its storage then, too.
    pub fn place(&self, id: LayerId, storage: StorageId) {
        if storage != self.storage.id {
            let mut elsewhere = self.elsewhere.write().unwrap_or_else(PoisonError::into_inner);
            elsewhere.layers.insert(id, storage);
        }
    }

    /// Says that a layer will be where another is.
    pub fn place_beside(&self, id: LayerId, other: LayerId) {
        self.place(id, self.storage_of(other));
    }

    /// Another storage is there.
    pub fn add_storage(&self, id: StorageId, path: PathBuf) {
        let mut elsewhere = self.elsewhere.write().unwrap_or_else(PoisonError::into_inner);
        elsewhere.paths.insert(id, path);
    }

    /// What has arrived of an upload.
    pub fn upload_file(&self, id: UploadId) -> PathBuf {
        self.data_dir.join("uploads").join(id.to_string())
    }

    /// What a job has fetched.
    pub fn fetched_file(&self, job: JobId) -> PathBuf {
        self.data_dir.join("uploads").join(format!("{job}.fetched"))
    }

    /// What a job has converted a disk to that it copies: of the file as it was then.
    pub fn converted_file(&self, job: JobId, disk: u32, modified: i64) -> PathBuf {
        let name = format!("{job}.disk{disk}-{modified}");
        self.data_dir.join("uploads").join(name)
    }

    /// All that a job has converted.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn converted_files(&self, job: JobId) -> std::io::Result<Vec<PathBuf>> {
        let own = format!("{job}.disk");
        let mut all = Vec::new();
        for entry in std::fs::read_dir(self.data_dir.join("uploads"))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&own) {
                all.push(entry.path());
            }
        }
        Ok(all)
    }

    /// The file that a disk was written to.
    pub fn export_file(&self, id: ExportId, format: ExportFormat) -> PathBuf {
        self.data_dir
            .join("exports")
            .join(format!("{id}.{}", format.extension()))
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
