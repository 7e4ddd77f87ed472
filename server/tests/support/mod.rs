//! What the tests of jobs share: an engine on a directory of its own, and what is left on it afterwards.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

pub mod counting;
pub mod migrating;

use server::db::{self, Db};
use server::hypervisor::RunState;
use server::jobs::queue::Limits;
use server::jobs::spares::Spares;
use server::jobs::world::Machines;
use server::jobs::{Asked, By, Hook, Jobs, World};
use shared::access::rights::Sees;
use shared::copy::{Copy, CreateCopyTask};
use shared::image::{CreateUpload, Upload};
use shared::job::Job;
use shared::target::{CreateTarget, LocalPlace, Target};
use shared::vm::{BlankDisk, CreateVm, DiskOfImage, Firmware, NewDisk};
use shared::{JobId, VmId};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Long enough for a guest under TCG on a busy machine; nothing waits this long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A directory of a test; machines that a test leaves behind when it fails end with it.
pub struct Dir(tempfile::TempDir);

pub fn dir() -> Dir {
    Dir(tempfile::tempdir().unwrap())
}

impl Dir {
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.path().join("run"))
            .into_iter()
            .flatten()
            .flatten()
        {
            // Of a machine, or of what shows it the disks of a copy.
            let record = match entry.path().is_dir() {
                true => entry.path().join("process"),
                false => entry.path(),
            };
            let line = std::fs::read_to_string(record).unwrap_or_default();
            let pid = line.split(' ').next().unwrap_or_default();
            if pid.is_empty() {
                continue;
            }
            // The number may be another's by now.
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let path = entry.path();
            let mark = path.file_stem().unwrap_or_default().as_encoded_bytes();
            if arguments.windows(mark.len()).any(|w| w == mark) {
                let _ = Command::new("kill").args(["-KILL", pid]).status();
            }
        }
    }
}

pub async fn engine(dir: &Path, machines: Machines, hook: Option<Arc<dyn Hook>>) -> Jobs {
    engine_that_waits(dir, machines, hook, None).await
}

/// One that waits so long for the signs of forked guests.
pub async fn engine_that_waits(
    dir: &Path,
    machines: Machines,
    hook: Option<Arc<dyn Hook>>,
    answer_within: Option<Duration>,
) -> Jobs {
    engine_of_boot(dir, machines, hook, answer_within, None).await
}

/// One whose host has booted anew, under this name.
pub async fn engine_of_boot(
    dir: &Path,
    machines: Machines,
    hook: Option<Arc<dyn Hook>>,
    answer_within: Option<Duration>,
    boot: Option<&str>,
) -> Jobs {
    engine_of(dir, machines, hook, |world| {
        if let Some(boot) = boot {
            world.boot = boot.to_owned();
        }
        if let Some(within) = answer_within {
            world.answer_within = within;
        }
    })
    .await
}

/// One whose world is set up so.
pub async fn engine_of(
    dir: &Path,
    machines: Machines,
    hook: Option<Arc<dyn Hook>>,
    set_up: impl FnOnce(&mut World),
) -> Jobs {
    let db = Db::open(&dir.join("offshoot.db")).await.unwrap();
    let program = std::env::var_os("CARGO_BIN_EXE_offshoot")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_offshoot")), PathBuf::from);
    let mut world = World::open(dir, db, machines, &program).await.unwrap();
    world.measure_after = Duration::from_millis(100);
    set_up(&mut world);
    world.memory_dir = Some(dir.join("points"));
    world.spares = Spares::new(world.hypervisor.clone(), PATIENCE);
    if machines == Machines::Simulated {
        sim_image(&world).await;
    } else {
        world
            .register_image(&"demo".parse().unwrap(), &guest("menu"))
            .await
            .unwrap();
    }
    Jobs::start(
        world,
        Limits {
            per_host: 16,
            per_vm: 8,
        },
        hook,
    )
    .await
    .unwrap()
}

async fn sim_image(world: &World) {
    let from = world.data_dir.join("image.qcow2");
    std::fs::write(&from, "1073741824 196608\n").unwrap();
    world
        .register_image(&"demo".parse().unwrap(), &from)
        .await
        .unwrap();
}

/// The demo guest, built once and cached: `menu` stands at its boot loader at once, `demo` boots.
pub fn guest(variant: &str) -> PathBuf {
    let script = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../guest/build.sh");
    let out = Command::new(script)
        .args(["--variant", variant])
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "guest/build.sh: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    let text = String::from_utf8(out.stdout).unwrap();
    PathBuf::from(text.lines().last().unwrap())
}

pub fn by() -> By {
    By("test".into())
}

pub fn create(name: &str, start: bool) -> CreateVm {
    CreateVm {
        name: name.parse().unwrap(),
        cpus: 1,
        memory_mib: 128,
        firmware: Firmware::Bios,
        disks: vec![
            NewDisk::Image(DiskOfImage {
                image: "demo".into(),
                size_gib: None,
            }),
            NewDisk::Blank(BlankDisk { size_gib: 1 }),
        ],
        network_interfaces: None,
        labels: Default::default(),
        cloud_init: None,
        start,
        description: String::new(),
        autostart: None,
        storage: None,
        request_id: None,
    }
}

/// Waits for the end of a job, by what the database tells.
pub async fn ended(jobs: &Jobs, id: JobId) -> Job {
    until(jobs, id, |job| job.state.is_final()).await
}

/// Waits until a job is as wanted, by what the database tells.
pub async fn until(jobs: &Jobs, id: JobId, wanted: impl Fn(&Job) -> bool) -> Job {
    let db = &jobs.world().db;
    let mut changes = db.subscribe();
    let wait = async {
        loop {
            let job = db::jobs::by_id(db, id).await.unwrap().unwrap().job;
            if wanted(&job) {
                return job;
            }
            // Lagging behind is no loss: the job is read again.
            drop(changes.recv().await);
        }
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(job) => job,
        Err(_) => {
            let job = db::jobs::by_id(db, id).await.unwrap().unwrap().job;
            panic!("job {id} hangs: {job:#?}");
        }
    }
}

/// The processes that wait for forks that nobody has asked for yet.
pub fn kept_ready(dir: &Path) -> Vec<VmId> {
    let all = std::fs::read_dir(dir.join("run")).unwrap().map(|e| e.unwrap());
    let unasked = all.filter(|entry| entry.path().join("unasked").exists());
    unasked
        .map(|entry| entry.file_name().to_str().unwrap().parse().unwrap())
        .collect()
}

/// Everything that jobs make, as it stands now: rows, files and machines. Two are equal if nothing was left behind.
pub async fn slate(jobs: &Jobs) -> Vec<String> {
    let world = jobs.world();
    let mut all = Vec::new();
    for table in [
        "vms",
        "vm_disks",
        "vm_nics",
        "snapshots",
        "snapshot_disks",
        "fork_points",
        "fork_point_disks",
        "layers",
        "images",
        "uploads",
        "exports",
        "targets",
        "copies",
        "locks",
    ] {
        let query = sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
        let n: i64 = sqlx::query_scalar(query)
            .fetch_one(world.db.read())
            .await
            .unwrap();
        all.push(format!("{table}: {n}"));
    }
    for dir in ["layers", "seeds", "points", "uploads", "exports"] {
        for file in std::fs::read_dir(world.data_dir.join(dir)).unwrap() {
            all.push(format!("{dir}/{}", file.unwrap().file_name().to_string_lossy()));
        }
    }
    // A process that belongs to no machine has a directory of its own.
    let vms = db::vms::ids(&world.db).await.unwrap();
    for file in std::fs::read_dir(world.data_dir.join("run")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        // What shows the disks of a copy ends with the job that asked for it.
        if name.ends_with(".nbd") {
            all.push(format!("run/{name}"));
        }
        let vm = name.parse::<VmId>();
        if vm.is_ok_and(|id| !vms.contains(&id) && !kept_ready(&world.data_dir).contains(&id)) {
            all.push(format!("run/{name}"));
        }
    }
    for id in vms {
        let vm = db::vms::by_id(&world.db, id).await.unwrap().unwrap();
        let running = world.hypervisor.state(id).await != RunState::Stopped;
        assert_eq!(vm.locked_by, None, "{} is still locked", vm.name);
        let connected: Vec<_> = vm.network_interfaces.iter().map(|nic| nic.connected).collect();
        all.push(format!(
            "{} {} process={running} connected={connected:?}",
            vm.name, vm.state
        ));
    }
    all.sort();
    all
}

/// What [`slate`] says, but for layers: their files and rows are the same, and somebody stands on each.
pub async fn slate_without_layers(jobs: &Jobs) -> Vec<String> {
    let world = jobs.world();
    let rows = db::layers::ids(&world.db).await.unwrap();
    let mut files = std::collections::HashSet::new();
    for file in std::fs::read_dir(&world.storage.path).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        files.insert(name.strip_suffix(".qcow2").unwrap().parse().unwrap());
    }
    assert_eq!(rows, files, "layers on the books, and files");
    let loose: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM layers WHERE id NOT IN (SELECT layer FROM vm_disks UNION SELECT layer FROM snapshot_disks
             UNION SELECT layer FROM images UNION SELECT layer FROM fork_point_disks UNION SELECT parent FROM layers WHERE parent IS NOT NULL)",
    )
    .fetch_one(world.db.read())
    .await
    .unwrap();
    assert_eq!(loose, 0, "layers that nobody stands on");
    let mut all = slate(jobs).await;
    all.retain(|line| !line.starts_with("layers"));
    all
}

/// Waits until no job is at work.
pub async fn quiet(jobs: &Jobs) {
    for stored in db::jobs::active(&jobs.world().db).await.unwrap() {
        ended(jobs, stored.job.id).await;
    }
}

/// Ends every machine and the engine: nothing runs on after a test.
pub async fn clean_up(jobs: &Jobs) {
    let world = jobs.world();
    jobs.stop().await;
    for id in db::vms::ids(&world.db).await.unwrap() {
        world.hypervisor.kill(id).await.unwrap();
    }
}

/// A raw disk of one MiB, uploaded whole, to become an image of this name.
pub async fn uploaded(jobs: &Jobs, name: &str) -> Upload {
    let mut disk = vec![0x5a; 1 << 20];
    disk[510..512].copy_from_slice(b"\x55\xaa");
    let request = CreateUpload {
        name: name.parse().unwrap(),
        format: None,
        size_bytes: disk.len() as u64,
        sha256: None,
        fingerprint: None,
    };
    let upload = jobs.create_upload(request, by()).await.unwrap();
    let body = futures::stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from(disk))]);
    jobs.receive(&upload, 0, body).await.unwrap()
}

/// An age recipient whose identity nobody has: a vault here is opened by the key that was kept.
const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

/// A target in the data directory.
pub async fn target(jobs: &Jobs, name: &str) -> Target {
    let path = jobs.world().data_dir.join(format!("{name}.vault"));
    let request = CreateTarget {
        name: name.parse().unwrap(),
        local: Some(LocalPlace {
            path: path.to_string_lossy().into_owned(),
        }),
        s3: None,
        remote: None,
        attach: false,
        passphrase: None,
        recipient: Some(RECIPIENT.into()),
        identity: None,
        bytes_per_second: None,
        at_once: None,
    };
    jobs.world().copies.create(request).await.unwrap()
}

/// Copies a snapshot of a machine, or one that is taken for it.
pub async fn copy(jobs: &Jobs, vm: &str, target: &str, snapshot: Option<&str>) -> Job {
    let vm = db::vms::find(&jobs.world().db, vm).await.unwrap().unwrap();
    let request = CreateCopyTask {
        target: target.into(),
        snapshot: snapshot.map(str::to_owned),
        memory: false,
        quiesce: false,
        boot: false,
        request_id: None,
    };
    jobs.copy_snapshot(&vm, request, Asked::default(), by())
        .await
        .unwrap()
}

/// The one copy that there is.
pub async fn a_copy(jobs: &Jobs) -> Copy {
    let all = server::inventory::copies::copies(jobs.world(), &Default::default(), &Sees::All).await;
    all.unwrap().items.remove(0)
}

pub async fn vm_id(jobs: &Jobs, name: &str) -> VmId {
    db::vms::find(&jobs.world().db, name).await.unwrap().unwrap().id
}
