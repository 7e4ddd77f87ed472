//! Three tests, written once and applied to every kind of job: every step run twice; failure at each step, and at each
//! undo, in turn, and the slate found clean (past a point of no return: finished); the process killed with `kill -9` at
//! each step, started again, and the job ends finished or clean. On the simulation, and on QEMU.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

#[path = "../support/mod.rs"]
mod support;

use async_trait::async_trait;
use libtest_mimic::{Arguments, Failed, Trial};
use server::db;
use server::jobs::step::{Cx, StepError};
use server::jobs::world::Machines;
use server::jobs::{Hook, Jobs};
use shared::clone::{CloneMode, CloneTarget, CloneVm, DisksOnly, SnapshotNow};
use shared::copy::{BootCopy, RestoreCopy, RestoreDisks, RestoreFile, RestoreOver, RestoreVm};
use shared::edit::{EditVm, GrowDisk};
use shared::fork::{ForkNics, InstantClone};
use shared::image::{CreateExport, CreateImage, ExportFormat, SnapshotDisk};
use shared::job::{Job, JobKind, JobState, step};
use shared::migrate::groups::CutOverGroup;
use shared::migrate::{CreateCutover, CyclePolicy, PatchMigratingVm};
use shared::snapshot::{RevertSnapshot, TakeSnapshot};
use shared::vm::{BlankDisk, CloudInit, ConnectNics, NewDisk, NewNic, PowerAction};
use shared::{Code, JobId};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::migrating;
use support::{by, clean_up, create, ended, quiet, slate, vm_id};

/// A kind of job, in the form that has most to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Create,
    Start,
    ShutDown,
    PowerOff,
    Pause,
    Resume,
    Reset,
    Connect,
    Disconnect,
    Snapshot,
    SnapshotMemory,
    Revert,
    DeleteSnapshot,
    Clone,
    CloneFull,
    CloneDisks,
    Fork,
    ForkKept,
    Delete,
    DeletePoint,
    /// Of a machine that runs.
    Edit,
    /// Of one that does not.
    EditOff,
    Import,
    ImageOf,
    Export,
    DeleteImage,
    /// Of a snapshot that is taken for it.
    Copy,
    /// Of one that was there, after another copy.
    CopyKept,
    Restore,
    RestoreInstant,
    RestoreOver,
    RestoreDisks,
    RestoreFile,
    Boot,
    Verify,
    Prune,
    CutOver,
    Finalize,
    Adapt,
    CheckOs,
    CutOverGroup,
}

impl Work {
    const ALL: [(Self, &'static str); 41] = [
        (Self::Create, "create"),
        (Self::Start, "start"),
        (Self::ShutDown, "shut-down"),
        (Self::PowerOff, "power-off"),
        (Self::Pause, "pause"),
        (Self::Resume, "resume"),
        (Self::Reset, "reset"),
        (Self::Connect, "connect"),
        (Self::Disconnect, "disconnect"),
        (Self::Snapshot, "snapshot"),
        (Self::SnapshotMemory, "snapshot-memory"),
        (Self::Revert, "revert"),
        (Self::DeleteSnapshot, "delete-snapshot"),
        (Self::Clone, "clone"),
        (Self::CloneFull, "clone-full"),
        (Self::CloneDisks, "clone-disks"),
        (Self::Fork, "fork"),
        (Self::ForkKept, "fork-kept"),
        (Self::Delete, "delete"),
        (Self::DeletePoint, "delete-point"),
        (Self::Edit, "edit"),
        (Self::EditOff, "edit-off"),
        (Self::Import, "import"),
        (Self::ImageOf, "image-of"),
        (Self::Export, "export"),
        (Self::DeleteImage, "delete-image"),
        (Self::Copy, "copy"),
        (Self::CopyKept, "copy-kept"),
        (Self::Restore, "restore"),
        (Self::RestoreInstant, "restore-instant"),
        (Self::RestoreOver, "restore-over"),
        (Self::RestoreDisks, "restore-disks"),
        (Self::RestoreFile, "restore-file"),
        (Self::Boot, "boot"),
        (Self::Verify, "verify"),
        (Self::Prune, "prune"),
        (Self::CutOver, "cut-over"),
        (Self::Finalize, "finalize"),
        (Self::Adapt, "adapt"),
        (Self::CheckOs, "check-os"),
        (Self::CutOverGroup, "cut-over-group"),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(w, _)| *w == self).unwrap().1
    }

    fn on_qemu(self) -> bool {
        matches!(
            self,
            Self::Create
                | Self::Connect
                | Self::Snapshot
                | Self::SnapshotMemory
                | Self::Revert
                | Self::DeleteSnapshot
                | Self::Clone
                | Self::CloneFull
                | Self::Fork
                | Self::Delete
                | Self::Edit
                | Self::Import
                | Self::Export
                | Self::Copy
                | Self::RestoreInstant
                | Self::RestoreOver
                | Self::Boot
        )
    }

    fn steps(self) -> &'static [&'static str] {
        match self {
            Self::Create => &[step::MINTING, step::PREPARING_VM_DISKS, step::STARTING],
            Self::Start | Self::ShutDown | Self::PowerOff | Self::Pause | Self::Resume | Self::Reset => {
                &[step::SWITCHING_POWER]
            }
            Self::Connect | Self::Disconnect => &[step::SWITCHING_NETWORKS],
            Self::Snapshot | Self::SnapshotMemory => &[step::MINTING, step::FREEZING_DISKS],
            Self::Revert => &[
                step::MINTING,
                step::FREEZING_DISKS,
                step::PREPARING_VM_DISKS,
                step::REVERTING,
                step::STARTING,
                step::REMOVING_FILES,
            ],
            Self::DeleteSnapshot => &[
                step::CHECKING,
                step::DELETING,
                step::MERGING_LAYERS,
                step::REMOVING_FILES,
            ],
            Self::Clone => &[
                step::MINTING,
                step::TAKING_SNAPSHOT,
                step::ADAPTING_OS,
                step::PREPARING_VM_DISKS,
                step::INSTANTIATING,
            ],
            Self::CloneFull | Self::CloneDisks => {
                &[step::MINTING, step::PREPARING_VM_DISKS, step::INSTANTIATING]
            }
            Self::Fork => &[
                step::PREPARING,
                step::FREEZING_SOURCE,
                step::CAPTURING_MEMORY,
                step::THAWING_SOURCE,
                step::INSTANTIATING,
                step::VERIFYING,
            ],
            Self::ForkKept => &[step::PREPARING, step::INSTANTIATING, step::VERIFYING],
            Self::Edit | Self::EditOff => &[step::MINTING, step::PREPARING_VM_DISKS, step::CHANGING_HARDWARE],
            Self::Delete | Self::DeletePoint | Self::DeleteImage => {
                &[step::CHECKING, step::DELETING, step::REMOVING_FILES]
            }
            Self::Import => &[
                step::CHECKING,
                step::CONVERTING,
                step::REGISTERING,
                step::REMOVING_FILES,
            ],
            Self::ImageOf => &[step::REGISTERING],
            Self::Export => &[
                step::MINTING,
                step::TAKING_SNAPSHOT,
                step::EXPORTING,
                step::REGISTERING,
            ],
            Self::Copy => &[
                step::MINTING,
                step::TAKING_SNAPSHOT,
                step::COPYING,
                step::FINALIZING,
                step::LETTING_GO,
            ],
            Self::CopyKept => &[step::MINTING, step::COPYING, step::FINALIZING, step::LETTING_GO],
            Self::Restore => &[
                step::MINTING,
                step::ATTACHING,
                step::BRINGING_HOME,
                step::STARTING,
                step::CLEANING_UP,
            ],
            Self::RestoreInstant => &[
                step::MINTING,
                step::ATTACHING,
                step::INSTANTIATING,
                step::BRINGING_HOME,
                step::CLEANING_UP,
            ],
            Self::RestoreOver => &[
                step::MINTING,
                step::ATTACHING,
                step::BRINGING_HOME,
                step::REVERTING,
                step::STARTING,
                step::CLEANING_UP,
            ],
            Self::RestoreDisks => &[
                step::MINTING,
                step::ATTACHING,
                step::BRINGING_HOME,
                step::REGISTERING,
                step::CLEANING_UP,
            ],
            Self::RestoreFile => &[
                step::MINTING,
                step::ATTACHING,
                step::EXPORTING,
                step::REGISTERING,
                step::CLEANING_UP,
            ],
            Self::Boot => &[step::MINTING, step::ATTACHING, step::BOOTING, step::CLEANING_UP],
            Self::Verify => &[step::VERIFYING],
            Self::Prune => &[step::CLEANING_UP],
            Self::CutOver => &[
                step::PREVIOUS_CYCLE,
                step::SHUTTING_DOWN_SOURCE,
                step::FINAL_SYNC,
                step::ADAPTING_OS,
                step::PREPARING_VM_DISKS,
                step::INSTANTIATING,
                step::FINALIZING,
            ],
            Self::Finalize => &[step::CHECKING, step::LETTING_GO],
            Self::Adapt => &[
                step::MINTING,
                step::ADAPTING_OS,
                step::COPYING,
                step::FINALIZING,
                step::LETTING_GO,
            ],
            Self::CheckOs => &[step::MINTING, step::ADAPTING_OS, step::LETTING_GO],
            Self::CutOverGroup => &[step::CHECKING, step::CUTTING_OVER],
        }
    }

    /// Whether it is about a copy that is there.
    fn of_copy(self) -> bool {
        matches!(
            self,
            Self::CopyKept
                | Self::Restore
                | Self::RestoreInstant
                | Self::RestoreOver
                | Self::RestoreDisks
                | Self::RestoreFile
                | Self::Boot
                | Self::Verify
                | Self::Prune
        )
    }

    /// Whether a failure of this step can no longer be undone.
    fn past_return(self, name: &str) -> bool {
        match self {
            Self::Delete | Self::DeletePoint | Self::DeleteSnapshot | Self::DeleteImage => {
                name != step::CHECKING
            }
            Self::Revert => matches!(name, step::REVERTING | step::STARTING | step::REMOVING_FILES),
            Self::Import => name == step::REMOVING_FILES,
            Self::Copy | Self::CopyKept | Self::Adapt => matches!(name, step::FINALIZING | step::LETTING_GO),
            Self::RestoreOver => matches!(name, step::REVERTING | step::STARTING | step::CLEANING_UP),
            Self::Boot => name == step::CLEANING_UP,
            Self::CutOver => name == step::FINALIZING,
            Self::Finalize => name == step::LETTING_GO,
            Self::Fork | Self::ForkKept => name == step::VERIFYING,
            Self::Edit | Self::EditOff => name == step::CHANGING_HARDWARE,
            _ => false,
        }
    }

    /// What must be there before. A guest that takes no address, as one at its boot loader, is waited for long.
    async fn prepare(self, jobs: &Jobs, nics: bool) {
        if matches!(self, Self::Create | Self::DeleteImage) {
            return;
        }
        if self == Self::Import {
            support::uploaded(jobs, "made").await;
            return;
        }
        let off = matches!(
            self,
            Self::Start | Self::Delete | Self::EditOff | Self::RestoreOver | Self::RestoreDisks
        );
        let mut request = create("source", !off);
        if !nics {
            request.network_interfaces = Some(Vec::new());
        }
        let job = jobs.create_vm(request, by()).await.unwrap();
        succeeded(jobs, job.id).await;
        let source = vm_id(jobs, "source").await;
        if self == Self::Connect {
            let off = jobs.connect(source, false, ConnectNics::default(), by());
            succeeded(jobs, off.await.unwrap().id).await;
        }
        if self == Self::Resume {
            let job = jobs.power(source, PowerAction::Pause, by()).await.unwrap();
            succeeded(jobs, job.id).await;
        }
        let snapshots: &[&str] = match self {
            Self::CloneFull | Self::CloneDisks | Self::Delete | Self::Revert | Self::ImageOf => &["before"],
            Self::DeleteSnapshot => &["first", "before", "after"],
            _ => &[],
        };
        for name in snapshots {
            let request = TakeSnapshot {
                name: Some(name.parse().unwrap()),
                memory: matches!(self, Self::Revert | Self::DeleteSnapshot),
                ..Default::default()
            };
            let job = jobs.snapshot(source, request, by()).await.unwrap();
            succeeded(jobs, job.id).await;
        }
        if self == Self::Copy || self.of_copy() {
            support::target(jobs, "there").await;
        }
        if self.of_copy() {
            let job = support::copy(jobs, "source", "there", None).await;
            succeeded(jobs, job.id).await;
        }
        if self == Self::CopyKept {
            let request = TakeSnapshot {
                name: Some("kept".parse().unwrap()),
                ..Default::default()
            };
            let job = jobs.snapshot(source, request, by()).await.unwrap();
            succeeded(jobs, job.id).await;
        }
        if matches!(
            self,
            Self::CutOver | Self::Finalize | Self::Adapt | Self::CheckOs | Self::CutOverGroup
        ) {
            carried(jobs).await;
        }
        if self == Self::Finalize {
            let job = jobs
                .cut_over("moved", CreateCutover::default(), by())
                .await
                .unwrap();
            succeeded(jobs, job.id).await;
            quiet(jobs).await;
        }
        if matches!(self, Self::ForkKept | Self::DeletePoint) {
            let request = InstantClone {
                name: Some("first".parse().unwrap()),
                keep_point: true,
                point_name: Some("kept".parse().unwrap()),
                ..Default::default()
            };
            let job = jobs.instant_clone(source, request, by()).await.unwrap();
            succeeded(jobs, job.id).await;
        }
        if self == Self::DeletePoint {
            let first = vm_id(jobs, "first").await;
            let off = jobs.power(first, PowerAction::PowerOff, by()).await.unwrap();
            succeeded(jobs, off.id).await;
            let gone = jobs.delete_vm(first, by()).await.unwrap();
            succeeded(jobs, gone.id).await;
        }
    }

    async fn submit(self, jobs: &Jobs) -> Job {
        if self == Self::Create {
            let mut request = create("made", true);
            request.cloud_init = Some(CloudInit::default());
            return jobs.create_vm(request, by()).await.unwrap();
        }
        if self == Self::Import {
            let all = db::uploads::sizes(&jobs.world().db).await.unwrap();
            let upload = db::uploads::by_id(&jobs.world().db, all[0].0).await.unwrap();
            return jobs.finish_upload(&upload.unwrap(), by()).await.unwrap();
        }
        if self == Self::DeleteImage {
            let image = db::images::find(&jobs.world().db, "demo").await.unwrap().unwrap();
            return jobs.delete_image(image.id, by()).await.unwrap();
        }
        let source = vm_id(jobs, "source").await;
        let power = |action| jobs.power(source, action, by());
        let target = CloneTarget {
            name: Some("made".parse().unwrap()),
            start: true,
            boot_timeout_seconds: 60,
            // The boot loader's word: in these tests no guest needs to come further.
            boot_pattern: Some("boot:|Linux version".into()),
            ..Default::default()
        };
        let clone = |request: CloneVm| jobs.clone_vm(source, request, by());
        let plain = CloneVm {
            clone_job_id: None,
            snapshot: None,
            snapshot_now: None,
            mode: CloneMode::Linked,
            target: None,
            disks_only: None,
            request_id: None,
        };
        match self {
            Self::Create | Self::Import | Self::DeleteImage => unreachable!(),
            Self::CutOver => jobs
                .cut_over("moved", CreateCutover::default(), by())
                .await
                .unwrap(),
            Self::Adapt => jobs.adapt_migration("moved", by()).await.unwrap(),
            Self::CheckOs => jobs.check_os("moved", by()).await.unwrap(),
            Self::CutOverGroup => jobs
                .cut_over_group("all", CutOverGroup::default(), by())
                .await
                .unwrap(),
            Self::Finalize => jobs
                .finalize_migration("moved", Default::default(), by())
                .await
                .unwrap(),
            Self::Copy => support::copy(jobs, "source", "there", None).await,
            Self::CopyKept => support::copy(jobs, "source", "there", Some("kept")).await,
            Self::Verify | Self::Prune => {
                let there = db::targets::known(&jobs.world().db, "there")
                    .await
                    .unwrap()
                    .target;
                match self {
                    Self::Verify => jobs
                        .verify_target(&there, Default::default(), by())
                        .await
                        .unwrap(),
                    _ => jobs.prune_target(&there, by()).await.unwrap(),
                }
            }
            Self::Boot => {
                let request = BootCopy {
                    boot_timeout_seconds: 60,
                    boot_pattern: Some("boot:|Linux version".into()),
                };
                jobs.boot_copy(&support::a_copy(jobs).await, request, by())
                    .await
                    .unwrap()
            }
            Self::Restore
            | Self::RestoreInstant
            | Self::RestoreOver
            | Self::RestoreDisks
            | Self::RestoreFile => {
                let copy = support::a_copy(jobs).await;
                jobs.restore(&copy, self.restored(), by()).await.unwrap()
            }
            Self::ImageOf => {
                let request = CreateImage {
                    name: "made".parse().unwrap(),
                    url: None,
                    path: None,
                    snapshot: Some(SnapshotDisk {
                        vm: "source".into(),
                        snapshot: "before".into(),
                        disk: 1,
                    }),
                    format: None,
                    sha256: None,
                    request_id: None,
                };
                jobs.create_image(request, by()).await.unwrap()
            }
            Self::Export => {
                let request = CreateExport {
                    format: ExportFormat::Qcow2,
                    disk: 1,
                    snapshot: None,
                    snapshot_now: true,
                    request_id: None,
                };
                jobs.export_disk(source, request, by()).await.unwrap()
            }
            Self::Start => power(PowerAction::Start).await.unwrap(),
            Self::ShutDown => power(PowerAction::ShutDown).await.unwrap(),
            Self::PowerOff => power(PowerAction::PowerOff).await.unwrap(),
            Self::Pause => power(PowerAction::Pause).await.unwrap(),
            Self::Resume => power(PowerAction::Resume).await.unwrap(),
            Self::Reset => power(PowerAction::Reset).await.unwrap(),
            Self::Connect | Self::Disconnect => jobs
                .connect(source, self == Self::Connect, ConnectNics::default(), by())
                .await
                .unwrap(),
            Self::Snapshot | Self::SnapshotMemory => {
                let request = TakeSnapshot {
                    memory: self == Self::SnapshotMemory,
                    ..TakeSnapshot::default()
                };
                jobs.snapshot(source, request, by()).await.unwrap()
            }
            Self::Revert | Self::DeleteSnapshot => {
                let before = db::snapshots::find(&jobs.world().db, source, "before").await;
                let before = before.unwrap().unwrap();
                if self == Self::DeleteSnapshot {
                    return jobs.delete_snapshot(source, before.id, by()).await.unwrap();
                }
                let request = RevertSnapshot {
                    keep_current: true,
                    ..RevertSnapshot::default()
                };
                jobs.revert(source, &before, request, by()).await.unwrap()
            }
            Self::Clone => clone(CloneVm {
                snapshot_now: Some(SnapshotNow::default()),
                target: Some(CloneTarget {
                    cloud_init: Some(CloudInit::default()),
                    ..target
                }),
                ..plain
            })
            .await
            .unwrap(),
            Self::CloneFull => clone(CloneVm {
                mode: CloneMode::Full,
                target: Some(target),
                ..plain
            })
            .await
            .unwrap(),
            Self::CloneDisks => {
                let disks_only = Some(DisksOnly {
                    name: "made".parse().unwrap(),
                });
                clone(CloneVm { disks_only, ..plain }).await.unwrap()
            }
            Self::Fork | Self::ForkKept => {
                let request = InstantClone {
                    names: vec!["made".parse().unwrap(), "made-too".parse().unwrap()],
                    network_interfaces: Some(ForkNics::Keep),
                    fork_point: (self == Self::ForkKept).then(|| "kept".to_owned()),
                    ..Default::default()
                };
                jobs.instant_clone(source, request, by()).await.unwrap()
            }
            Self::Delete => jobs.delete_vm(source, by()).await.unwrap(),
            Self::Edit | Self::EditOff => {
                let blank = NewDisk::Blank(BlankDisk { size_gib: 1 });
                let request = EditVm {
                    cpus: Some(2),
                    boot_order: vec![1],
                    add_disks: vec![blank.clone(), blank],
                    grow_disks: vec![GrowDisk { disk: 1, size_gib: 2 }],
                    // A guest at its boot loader lets go of nothing.
                    remove_disks: if self == Self::EditOff {
                        vec![0]
                    } else {
                        Vec::new()
                    },
                    add_nics: vec![NewNic::on("isolated")],
                    ..EditVm::default()
                };
                jobs.edit_vm(source, request, by()).await.unwrap()
            }
            Self::DeletePoint => {
                let point = db::fork_points::find(&jobs.world().db, "kept").await.unwrap();
                let point = point.unwrap().point.id;
                jobs.delete_fork_point(point, by()).await.unwrap()
            }
        }
    }
}

impl Work {
    /// What is asked of a restore.
    fn restored(self) -> RestoreCopy {
        let vm = RestoreVm {
            name: "made".parse().unwrap(),
            cpus: None,
            memory_mib: None,
            network_interfaces: None,
            storage: None,
            labels: Default::default(),
            cloud_init: None,
            start: true,
            instant: self == Self::RestoreInstant,
        };
        let none = RestoreCopy::default();
        match self {
            Self::RestoreOver => RestoreCopy {
                over: Some(RestoreOver {
                    vm: "source".into(),
                    confirm: "source".into(),
                    start: true,
                    instant: false,
                }),
                ..none
            },
            Self::RestoreDisks => RestoreCopy {
                disks: Some(RestoreDisks {
                    vm: "source".into(),
                    numbers: Vec::new(),
                }),
                ..none
            },
            Self::RestoreFile => RestoreCopy {
                file: Some(RestoreFile {
                    disk: 1,
                    format: ExportFormat::Qcow2,
                }),
                ..none
            },
            _ => RestoreCopy { vm: Some(vm), ..none },
        }
    }
}

/// The machine is carried over as `moved`, and uploaded once. It is paused: no cycle begins by itself.
async fn carried(jobs: &Jobs) {
    let policy = CyclePolicy {
        skip_os_adaptation: Some(false),
        ..CyclePolicy::default()
    };
    migrating::carried(jobs, "source", policy).await;
    migrating::synced(jobs).await;
    jobs.pause_migration("moved").await.unwrap();
    migrating::when(jobs, |vm| vm.adapted.is_some()).await;
    let patch = PatchMigratingVm {
        group: Some("all".into()),
        ..PatchMigratingVm::default()
    };
    jobs.update_migrating_vm("moved", patch).await.unwrap();
}

async fn succeeded(jobs: &Jobs, id: JobId) -> Job {
    let job = ended(jobs, id).await;
    assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
    job
}

/// Where a hook strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Before,
    After,
    /// After the last step has failed, before the undo of this one.
    BeforeUndo,
    AfterUndo,
}

impl When {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Before, "before"),
        (Self::After, "after"),
        (Self::BeforeUndo, "before-undo"),
        (Self::AfterUndo, "after-undo"),
    ];

    fn is_undo(self) -> bool {
        matches!(self, Self::BeforeUndo | Self::AfterUndo)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Strike {
    /// Fails, once.
    Fail,
    /// Says so and waits for the end of the process.
    Stop,
}

struct At {
    of: Option<JobKind>,
    step: &'static str,
    last: &'static str,
    when: When,
    strike: Strike,
    struck: AtomicBool,
    fell: AtomicBool,
}

impl At {
    fn new(work: Work, step: &'static str, when: When, strike: Strike) -> Arc<Self> {
        let last = work.steps().last().unwrap();
        Arc::new(Self {
            of: match work {
                Work::CutOver => Some(JobKind::CutOver),
                Work::Finalize => Some(JobKind::FinalizeMigration),
                Work::Adapt | Work::CheckOs => Some(JobKind::AdaptCopy),
                Work::CutOverGroup => Some(JobKind::CutOverGroup),
                _ => None,
            },
            step,
            last,
            when,
            strike,
            struck: AtomicBool::new(false),
            fell: AtomicBool::new(false),
        })
    }

    async fn at(&self, cx: &Cx, step: &str, when: When) -> Result<(), StepError> {
        // A job that it has asked for has steps of the same names.
        if self.of.is_some_and(|kind| cx.job().kind != kind) {
            return Ok(());
        }
        // An undo is reached by the failure of the last step.
        if self.when.is_undo()
            && when == When::After
            && step == self.last
            && !self.fell.swap(true, Ordering::SeqCst)
        {
            return Err(StepError::new(Code::Aborted, "made to fail, to be undone"));
        }
        if self.step != step || self.when != when || self.struck.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        match self.strike {
            Strike::Fail => Err(StepError::new(Code::Aborted, "made to fail")),
            Strike::Stop => {
                println!("AT THE STEP");
                std::io::stdout().flush().unwrap();
                std::future::pending().await
            }
        }
    }
}

#[async_trait]
impl Hook for At {
    async fn before(&self, cx: &Cx, step: &str) -> Result<(), StepError> {
        self.at(cx, step, When::Before).await
    }
    async fn after(&self, cx: &Cx, step: &str) -> Result<(), StepError> {
        self.at(cx, step, When::After).await
    }
    async fn before_undo(&self, cx: &Cx, step: &str) -> Result<(), StepError> {
        self.at(cx, step, When::BeforeUndo).await
    }
    async fn after_undo(&self, cx: &Cx, step: &str) -> Result<(), StepError> {
        self.at(cx, step, When::AfterUndo).await
    }
}

/// Everything twice, and a failure at the end of the last step if it is to be undone.
struct Twice {
    undo: Option<&'static str>,
}

#[async_trait]
impl Hook for Twice {
    fn times(&self) -> usize {
        2
    }
    async fn after(&self, _cx: &Cx, step: &str) -> Result<(), StepError> {
        match self.undo {
            Some(last) if last == step => Err(StepError::new(Code::Aborted, "made to fail, to be undone")),
            _ => Ok(()),
        }
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// What is there. Once a running QEMU has switched to new overlays they stay, whatever becomes of the job: the guest
/// writes into them. Then only the names must be gone, and no layer may be loose.
async fn look(jobs: &Jobs, work: Work) -> Vec<String> {
    // What a job has asked of others may go on when it is over itself.
    quiet(jobs).await;
    match work {
        // What was uploaded stays, and the snapshot that it is of.
        Work::CutOver => {
            let mut all = support::slate_without_layers(jobs).await;
            all.retain(|line| {
                !["copies", "snapshots", "snapshot_disks"]
                    .iter()
                    .any(|t| line.starts_with(t))
            });
            all
        }
        Work::Snapshot
        | Work::SnapshotMemory
        | Work::Revert
        | Work::Clone
        | Work::Fork
        | Work::Export
        | Work::Copy => support::slate_without_layers(jobs).await,
        _ => slate(jobs).await,
    }
}

/// What an edit that has gone through leaves: a disk and a NIC more, once, however often its steps were run.
async fn edited(jobs: &Jobs, work: Work) {
    if !matches!(work, Work::Edit | Work::EditOff) {
        return;
    }
    support::slate_without_layers(jobs).await;
    let vm = vm_id(jobs, "source").await;
    let vm = db::vms::by_id(&jobs.world().db, vm).await.unwrap().unwrap();
    let next = vm.at_next_start.clone().unwrap_or_default();
    let disks: Vec<_> = vm.disks.iter().map(|d| (d.number, d.slot)).collect();
    if work == Work::Edit {
        assert_eq!((next.cpus, next.boot_order), (Some(2), vec![1]));
        assert_eq!(disks[..2], [(0, 4), (1, 5)]);
        assert_eq!(disks.len(), 4, "{vm:#?}");
    } else {
        assert_eq!(vm.at_next_start, None);
        assert_eq!((vm.cpus, disks.len(), disks[0]), (2, 3, (1, 5)), "{vm:#?}");
    }
    let grown = vm.disks.iter().find(|d| d.number == 1).unwrap();
    assert_eq!(grown.virtual_bytes, 2 << 30);
    let mut slots: Vec<_> = disks.iter().map(|(_, slot)| *slot).collect();
    slots.extend(vm.network_interfaces.iter().map(|nic| nic.slot));
    slots.sort();
    slots.dedup();
    assert_eq!(
        slots.len(),
        vm.disks.len() + vm.network_interfaces.len(),
        "{vm:#?}"
    );
}

async fn engine(dir: &Path, machines: Machines, hook: Option<Arc<dyn Hook>>) -> Jobs {
    // Guests that stand at their boot loader give no sign at all.
    support::engine_that_waits(dir, machines, hook, Some(Duration::from_millis(300))).await
}

async fn prepared(dir: &Path, machines: Machines, work: Work, nics: bool) -> Vec<String> {
    let jobs = engine(dir, machines, None).await;
    work.prepare(&jobs, nics).await;
    let clean = look(&jobs, work).await;
    jobs.stop().await;
    clean
}

/// What a power job leaves behind if it is undone is the machine as it was; where that cannot be, as it is. What a group has
/// cut over stays.
fn undone(work: Work) -> bool {
    !matches!(
        work,
        Work::PowerOff | Work::Reset | Work::Resume | Work::ShutDown | Work::CutOverGroup
    )
}

fn twice(machines: Machines, work: Work, undo: bool) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    block_on(async {
        let clean = prepared(dir.path(), machines, work, true).await;
        let undo = undo.then(|| *work.steps().last().unwrap());
        let jobs = engine(dir.path(), machines, Some(Arc::new(Twice { undo }))).await;
        let job = ended(&jobs, work.submit(&jobs).await.id).await;
        if undo.is_some() {
            assert_eq!(job.state, JobState::Failed, "{job:#?}");
            let left = look(&jobs, work).await;
            assert!(!undone(work) || left == clean, "left {left:#?}\nwas {clean:#?}");
        } else {
            assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
            edited(&jobs, work).await;
        }
        clean_up(&jobs).await;
    });
    Ok(())
}

/// Whether the machine has NICs where a step is struck: the forks of guests that take no address would take long.
fn nics(machines: Machines, work: Work) -> bool {
    machines == Machines::Simulated || work != Work::Fork
}

fn fail(machines: Machines, work: Work, step: &'static str, when: When) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    block_on(async {
        let clean = prepared(dir.path(), machines, work, nics(machines, work)).await;
        let hook = At::new(work, step, when, Strike::Fail);
        let jobs = engine(dir.path(), machines, Some(hook.clone())).await;
        let job = ended(&jobs, work.submit(&jobs).await.id).await;
        assert!(hook.struck.load(Ordering::SeqCst), "the step was never reached");
        if work.past_return(step) {
            assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
        } else {
            assert_eq!(job.state, JobState::Failed, "{job:#?}");
            assert!(
                job.error.as_ref().unwrap().message.contains("made to fail"),
                "{job:#?}"
            );
            let left = look(&jobs, work).await;
            assert!(!undone(work) || left == clean, "left {left:#?}\nwas {clean:#?}");
        }
        clean_up(&jobs).await;
    });
    Ok(())
}

const CHILD: &str = "OFFSHOOT_TEST_KILLED_CHILD";

fn kill(machines: Machines, work: Work, step: &'static str, when: When) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let clean = block_on(prepared(dir.path(), machines, work, nics(machines, work)));
    let when_word = When::ALL.iter().find(|(w, _)| *w == when).unwrap().1;
    let mut child = Command::new(std::env::current_exe()?)
        .env(
            CHILD,
            format!(
                "{}\n{}\n{step}\n{when_word}",
                machines == Machines::Simulated,
                work.name()
            ),
        )
        .env("OFFSHOOT_TEST_DIR", dir.path())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let id: JobId = out.next().expect("the child ended early")?.parse().unwrap();
    let reached = out.next().expect("the child ended before the step")?;
    assert_eq!(reached, "AT THE STEP");
    // SIGKILL: nothing of the child runs any more.
    child.kill()?;
    child.wait()?;
    block_on(async {
        let jobs = engine(dir.path(), machines, None).await;
        let job = ended(&jobs, id).await;
        if when.is_undo() {
            assert_eq!(job.state, JobState::Failed, "{job:#?}");
            let left = look(&jobs, work).await;
            assert!(!undone(work) || left == clean, "left {left:#?}\nwas {clean:#?}");
        } else {
            assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
            look(&jobs, work).await;
            edited(&jobs, work).await;
        }
        clean_up(&jobs).await;
    });
    Ok(())
}

fn child(told: &str) {
    let mut told = told.lines();
    let machines = if told.next() == Some("true") {
        Machines::Simulated
    } else {
        Machines::Real(None)
    };
    let name = told.next().unwrap();
    let work = Work::ALL.iter().find(|(_, n)| *n == name).unwrap().0;
    let name = told.next().unwrap();
    let step = *work.steps().iter().find(|s| **s == name).unwrap();
    let name = told.next().unwrap();
    let when = When::ALL.iter().find(|(_, n)| *n == name).unwrap().0;
    let dir = std::env::var_os("OFFSHOOT_TEST_DIR").unwrap();
    block_on(async {
        let hook = At::new(work, step, when, Strike::Stop);
        let jobs = engine(Path::new(&dir), machines, Some(hook)).await;
        let id = work.submit(&jobs).await.id;
        println!("{id}");
        std::io::stdout().flush().unwrap();
        let job = ended(&jobs, id).await;
        panic!("the step was never reached: {job:#?}");
    });
}

fn main() {
    if let Ok(told) = std::env::var(CHILD) {
        return child(&told);
    }
    let mut trials = Vec::new();
    for (place, machines) in [("sim", Machines::Simulated), ("qemu", Machines::Real(None))] {
        let real = machines != Machines::Simulated;
        for (work, name) in Work::ALL {
            if real && !work.on_qemu() {
                continue;
            }
            trials.push(Trial::test(format!("{place}::{name}::twice"), move || {
                twice(machines, work, false)
            }));
            if !work.past_return(work.steps().last().unwrap()) {
                let name = format!("{place}::{name}::twice-and-undone");
                trials.push(Trial::test(name, move || twice(machines, work, true)));
            }
            for &step in work.steps() {
                for (when, word) in When::ALL {
                    if when.is_undo() && work.past_return(work.steps().last().unwrap()) {
                        continue;
                    }
                    let test = format!("{place}::{name}::{step}::{word}");
                    trials.push(Trial::test(format!("{test}::fails"), move || {
                        fail(machines, work, step, when)
                    }));
                    trials.push(Trial::test(format!("{test}::killed"), move || {
                        kill(machines, work, step, when)
                    }));
                }
            }
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
