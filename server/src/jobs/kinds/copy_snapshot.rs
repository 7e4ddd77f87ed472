//! Copies a snapshot of a machine to a vault, while the machine goes on.
//!
//! What is read is frozen, so nothing is asked of QEMU, and others may work on the machine meanwhile. What has changed since
//! the copy before is what the layers above its have: a layer shows the same for ever, whoever takes it up.

mod libvirt;
mod local;
mod outside;

use super::keep;
use super::snapshot::{self, With};
use crate::copies::about::{self, About};
use crate::copies::{CopiesError, Opened, Turn};
use crate::db::locks::LockMode;
use crate::db::{self, now};
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use crate::jobs::{By, Jobs, request_of};
use crate::sources::Sources;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shared::copy::{CopyFigures, CopyProgress, CopySpec, SubTask, TaskStatus};
use shared::feed::Noun;
use shared::job::{JobSpec, Resource, ResourceRole, step};
use shared::snapshot::Consistency;
use shared::{Code, CopyId, JobId, SnapshotId, Timestamp};
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use vault::{CancellationToken, Change, Source};

pub(super) struct CopySnapshot;

/// Threads that read, squeeze and seal one copy.
const THREADS: usize = 2;
/// How many earlier copies are looked at for one that tells what has changed.
const LOOK_BACK: u32 = 8;
/// How often progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Of what time the recent rate is.
const RECENT: Duration = Duration::from_secs(120);
/// Of what time the rate is that is less lively.
const HALF_HOUR: Duration = Duration::from_secs(1800);

#[derive(Clone, Serialize, Deserialize)]
struct Minted {
    copy: CopyId,
    /// Of the snapshot that this job takes, where it takes its own.
    snapshot: Option<snapshot::Minted>,
}

/// What the step that copies hands to the one that makes it count, unless the process ends in between.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<JobId, Session>>);

pub(super) struct Session {
    pub(super) writer: vault::Writer,
    pub(super) disks: Vec<vault::Disk>,
    pub(super) about: About,
    pub(super) parent: Option<CopyId>,
    // Given back when the copy counts.
    pub(super) _turn: Option<Turn>,
}

impl Session {
    /// Makes the copy, of this id.
    pub(super) async fn commit(self, id: CopyId, opened: &Opened) -> Result<vault::Copy, StepError> {
        let about = serde_json::to_value(&self.about)
            .map_err(|e| StepError::new(Code::Internal, format!("write what the copy is of: {e}")))?;
        let what = vault::Commit {
            id: id.0,
            about,
            parent: self.parent.map(|parent| parent.0),
            now: now().micros(),
        };
        let committed = self.writer.commit(self.disks, what).await;
        committed.map_err(|e| opened.failed(e).into())
    }
}

impl Sessions {
    pub(super) fn put(&self, job: JobId, session: Session) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(job, session);
    }

    pub(super) fn take(&self, job: JobId) -> Option<Session> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&job)
    }
}

fn spec(cx: &Cx) -> Result<CopySpec, StepError> {
    match cx.job().spec.into_inner() {
        JobSpec::CopySnapshot(spec) => Ok(spec),
        _ => Err(StepError::new(Code::Internal, "not a request for a copy")),
    }
}

impl From<CopiesError> for StepError {
    fn from(e: CopiesError) -> Self {
        // It comes back, and the job goes on then.
        if e.is_away() {
            return Self::waiting(db::chain(&e));
        }
        shared::Status::from(e).into()
    }
}

fn progress(cx: &Cx, change: impl FnOnce(&mut CopyProgress)) {
    cx.outcome(|o| {
        if let Some(progress) = o.copy.as_deref_mut() {
            change(progress);
        }
    });
}

fn warn(cx: &Cx, text: impl Into<String>) {
    let text = text.into();
    cx.log(&text);
    progress(cx, |p| {
        if !p.warnings.contains(&text) {
            p.warnings.push(text);
        }
    });
}

async fn minting(cx: &Cx) -> Result<(), StepError> {
    let spec = spec(cx)?;
    let minted = match cx.data()? {
        Some(minted) => minted,
        None => Minted {
            copy: CopyId(cx.id().0),
            snapshot: match (spec.snapshot, &spec.outside) {
                (Some(_), _) | (_, Some(_)) => None,
                (None, None) => Some(snapshot::mint(cx, spec.vm, None).await?),
            },
        },
    };
    cx.mint(&minted);
    cx.outcome(|o| {
        o.copy
            .get_or_insert_with(|| Box::new(CopyProgress::of(minted.copy)));
    });
    cx.resource(Resource {
        noun: Noun::Target,
        id: spec.target.to_string(),
        name: spec.target_name.clone(),
        role: ResourceRole::Source,
    });
    match &minted.snapshot {
        Some(taken) => {
            let why = format!(
                "kept so that the next copy to {} reads only what has changed",
                spec.target_name
            );
            snapshot::announce(cx, spec.vm, taken, &why, spec.request.memory).await
        }
        None => cx.commit(|_| Box::pin(async { Ok(()) })).await,
    }
}

async fn take_snapshot(cx: &Cx) -> Result<(), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let Some(mut taken) = minted.snapshot.clone() else {
        return Ok(());
    };
    let remember = |taken: &snapshot::Minted| {
        cx.mint(&Minted {
            snapshot: Some(taken.clone()),
            ..minted.clone()
        });
    };
    let with = match spec.request.memory {
        true => With::Memory,
        false => With::quiesce(spec.request.quiesce),
    };
    snapshot::freeze(cx, spec.vm, &mut taken, with, remember).await?;
    let (snapshot, target) = (taken.snapshot, spec.target);
    cx.commit(move |tx| Box::pin(async move { db::copies::set_taken_for(tx, snapshot, target).await }))
        .await?;
    // What is copied is frozen: others need not wait for that.
    cx.share(spec.vm).await
}

/// One thing that is copied.
struct Part {
    name: String,
    source: Arc<dyn Source>,
    /// What tells the next copy what has changed since.
    track: serde_json::Value,
    /// What may have changed since the copy that is leaned on.
    changed: Option<Vec<Range<u64>>>,
    /// The file of an exported disk, which has to stay as it is.
    file: Option<crate::sources::Disk>,
}

/// What is to be copied, and what the copy will say of it.
struct Reading {
    parts: Vec<Part>,
    /// The copy that what has not changed is taken over from.
    parent: Option<vault::Copy>,
    about: About,
    /// The snapshot, where it is one of this server.
    snapshot: Option<SnapshotId>,
    /// What has to be ended when it is read.
    backup: Option<::libvirt::Backup>,
}

/// Shows how far a copy has come, until it is dropped.
async fn show(cx: &Cx, meter: impl Fn() -> vault::Moved, total: u64) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    let mut seen: VecDeque<(Instant, u64)> = VecDeque::new();
    loop {
        tick.tick().await;
        let figures = about::figures(&meter());
        let now = Instant::now();
        seen.push_back((now, figures.done_bytes));
        while seen.len() > 2 && seen.front().is_some_and(|(then, _)| now - *then > HALF_HOUR) {
            seen.pop_front();
        }
        let since = |span| seen.iter().find(|(then, _)| now - *then <= span);
        let rate = |(then, done): &(Instant, u64)| {
            let seconds = (now - *then).as_secs_f64();
            (seconds > 0.0).then(|| (figures.done_bytes.saturating_sub(*done) as f64 / seconds) as u64)
        };
        let (recent, half_hour) = (since(RECENT).and_then(rate), since(HALF_HOUR).and_then(rate));
        cx.progress(figures.done_bytes, total);
        progress(cx, |p| {
            // What is behind the disk at hand is of those before it.
            let mut left = figures.done_bytes;
            for disk in &mut p.disks {
                if disk.status != TaskStatus::Success {
                    disk.done_bytes = left.min(disk.bytes);
                }
                left = left.saturating_sub(disk.bytes);
            }
            p.figures = CopyFigures {
                logical_bytes: total,
                ..figures
            };
            p.wire_bytes = figures.stored_bytes;
            p.recent_bps = recent;
            p.half_hour_bps = half_hour;
        });
    }
}

/// Copies, unless it takes longer than until `closes`.
async fn copy(cx: &Cx, closes: Option<Timestamp>) -> Result<Session, StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let copies = &cx.world().copies;
    let target = db::targets::known(cx.db(), &spec.target.to_string())
        .await?
        .target;
    let turn = copies.turn(&target).ok_or_else(|| {
        StepError::waiting(format!(
            "{} copies run to {} already, as many as may: it goes on when one is over",
            target.at_once, target.name
        ))
    })?;
    let opened = copies.open(spec.target).await?;
    let failed = async |e: vault::Error| -> StepError {
        let e = opened.failed(e);
        if let Err(e) = copies.note(spec.target, Some(&e)).await {
            tracing::warn!(error = %db::chain(&e), "whether a target is away could not be noted");
        }
        e.into()
    };
    let writer = match opened.vault.begin(THREADS).await {
        Ok(writer) => writer,
        Err(e) => return Err(failed(e).await),
    };
    let mut reading = match &spec.outside {
        None => local::reading(cx, &opened, &writer).await?,
        Some(of) => match Sources::of(cx.world()).libvirt(of.source).await? {
            Some(place) => libvirt::reading(cx, &opened, &writer, (&place, &of.id)).await?,
            None => outside::reading(cx, &opened, &writer, of).await?,
        },
    };
    let mut backup = reading.backup.take();
    let (parts, parent) = (&reading.parts, reading.parent.as_ref());
    let total: u64 = parts.iter().map(|part| part.source.bytes()).sum();
    told(cx, &target, &reading);
    let cancel = CancellationToken::new();
    // Dropped with this future, the threads end.
    let _guard = cancel.clone().drop_guard();
    let mut disks = Vec::new();
    let work = async {
        for part in parts {
            cx.message(part.name.clone());
            status(cx, &part.name, TaskStatus::Running);
            let there = parent.filter(|_| part.changed.is_some());
            let there = there.and_then(|p| p.disks.iter().find(|d| d.name == part.name));
            let change = match (there, &part.changed) {
                (Some(parent), Some(ranges)) => Some(Change { parent, ranges }),
                _ => None,
            };
            let disk = writer.disk(
                &part.name,
                part.source.clone(),
                change,
                part.track.clone(),
                &cancel,
            );
            disks.push(disk.await?);
            status(cx, &part.name, TaskStatus::Success);
        }
        Ok::<_, vault::Error>(())
    };
    let done = tokio::select! {
        done = work => done.map(|()| true),
        () = show(cx, writer.meter(), total) => Ok(true),
        () = cx.world().clock.until_some(closes) => Ok(false),
    };
    match done {
        Ok(true) => {}
        Ok(false) => {
            cancel.cancel();
            // What it has brought there is found again.
            writer.leave().await;
            libvirt::take_back(backup.take()).await;
            return Err(keep::shut(cx, spec.policy).await);
        }
        Err(e) => {
            writer.leave().await;
            libvirt::take_back(backup.take()).await;
            return Err(failed(e).await);
        }
    }
    let still = match outside::still(parts) {
        Ok(()) => libvirt::end(backup.take()).await,
        gone => gone,
    };
    if let Err(e) = still {
        writer.leave().await;
        return Err(e);
    }
    let figures = about::figures(&writer.moved());
    cx.progress(figures.done_bytes, total);
    Ok(Session {
        writer,
        disks,
        parent: parent.map(|p| CopyId(p.id)),
        about: reading.about,
        _turn: Some(turn),
    })
    .inspect(|_| cx.log(format!("copied as {}", minted.copy)))
}

/// Notes what is copied, before it is.
fn told(cx: &Cx, target: &shared::target::Target, reading: &Reading) {
    let about = &reading.about;
    progress(cx, |p| {
        p.snapshot = reading.snapshot;
        p.snapshot_name = Some(about.snapshot_name.clone());
        p.snapshot_time = Some(about.snapshot_time);
        p.begin_time = p.begin_time.or(Some(now()));
        p.parent = reading.parent.as_ref().map(|parent| CopyId(parent.id));
        p.disks = reading
            .parts
            .iter()
            .map(|part| SubTask {
                name: part.name.clone(),
                status: TaskStatus::Accepted,
                bytes: part.source.bytes(),
                done_bytes: 0,
            })
            .collect();
        p.figures.logical_bytes = p.disks.iter().map(|disk| disk.bytes).sum();
    });
    if !target.found.conditional_put {
        warn(
            cx,
            format!(
                "the store of {} takes a second write of a name: copies are safe, but nothing there keeps others from overwriting",
                target.name
            ),
        );
    }
    match about.consistency {
        Consistency::NoGuestAgent | Consistency::QuiesceFailed => {
            warn(
                cx,
                "the file systems of the guest could not be frozen: the copy is as after a power cut",
            );
        }
        Consistency::Offline | Consistency::Online | Consistency::GuestAgent => {}
    }
}

fn status(cx: &Cx, name: &str, status: TaskStatus) {
    progress(cx, |p| {
        for disk in p.disks.iter_mut().filter(|disk| disk.name == name) {
            disk.status = status;
            if status == TaskStatus::Success {
                disk.done_bytes = disk.bytes;
            }
        }
    });
}

async fn copying(cx: &Cx) -> Result<(), StepError> {
    // Of an earlier try.
    cx.world().sessions.take(cx.id());
    let closes = keep::open_until(cx, spec(cx)?.policy).await?;
    let session = copy(cx, closes).await?;
    cx.world().sessions.put(cx.id(), session);
    Ok(())
}

async fn finalize(cx: &Cx) -> Result<(), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let opened = cx.world().copies.open(spec.target).await?;
    let there = match opened.vault.copy(minted.copy.0).await {
        Ok(copy) => Some(copy),
        Err(vault::Error::NoCopy(_)) => None,
        Err(e) => return Err(opened.failed(e).into()),
    };
    let found = match there {
        Some(copy) => copy,
        None => {
            // The process may have ended in between: what was brought there is found again.
            let session = match cx.world().sessions.take(cx.id()) {
                Some(session) => session,
                // All has been copied once: no window stands in the way.
                None => copy(cx, None).await?,
            };
            session.commit(minted.copy, &opened).await?
        }
    };
    let figures = about::figures(&found.moved);
    progress(cx, |p| {
        p.figures = figures;
        p.wire_bytes = figures.stored_bytes;
    });
    cx.outcome(|o| o.copied_bytes = Some(figures.stored_bytes));
    let copy = about::copy(spec.target, &spec.target_name, &found);
    let mut copy =
        copy.ok_or_else(|| StepError::new(Code::Internal, "the copy does not say what it is of"))?;
    copy.job = Some(cx.id());
    cx.resource(Resource {
        noun: Noun::Copy,
        id: copy.id.to_string(),
        name: copy.snapshot_name.clone(),
        role: ResourceRole::Product,
    });
    cx.message(format!("{} bytes stored", figures.stored_bytes));
    cx.commit(move |tx| {
        Box::pin(async move {
            db::copies::insert(tx, &copy).await?;
            match spec.migration {
                Some(of) => db::migrations::set_upload(tx, copy.id, of.migrating_vm).await,
                None => Ok(()),
            }
        })
    })
    .await
}

/// The snapshots that were taken for copies before are needed no more, nor are copies that the policy keeps no longer; and what
/// is wanted next is asked for. What changes the machine by jobs of its own.
async fn let_go(cx: &Cx) -> Result<(), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    outside::clean(cx).await?;
    libvirt::forget_earlier(cx).await;
    let jobs = Jobs {
        inner: cx.inner.clone(),
    };
    if let Some(own) = minted.snapshot.as_ref().map(|s| s.snapshot) {
        for old in db::copies::taken_before(cx.db(), spec.vm, spec.target, own).await? {
            let job = JobSpec::DeleteSnapshot(shared::job::DeleteSnapshotSpec {
                vm: spec.vm,
                snapshot: old,
            });
            // Of this job and that snapshot: asked twice it is one.
            let request = request_of([cx.id().0, old.0]);
            if let Err(e) = jobs.submit(job, Some(request), None, By("copies".into())).await {
                cx.log(format!("snapshot {old} of an earlier copy stays: {e}"));
            }
        }
    }
    if let Some(policy) = spec.policy {
        keep::apply(cx, &jobs, policy, (spec.vm, spec.target)).await?;
    }
    if let Some(of) = &spec.migration {
        keep::uploads(cx, &jobs, of.migrating_vm, (spec.vm, spec.target)).await?;
    }
    if spec.request.boot {
        let job = JobSpec::BootCopy(shared::copy::BootSpec {
            copy: minted.copy,
            of: spec.vm_name,
            request: shared::copy::BootCopy::default(),
        });
        let by = By(cx.job().created_by);
        let request = request_of([cx.id().0, minted.copy.0]);
        if let Err(e) = jobs.submit(job, Some(request), None, by).await {
            cx.log(format!("the copy is not booted: {e}"));
        }
    }
    Ok(())
}

#[async_trait]
impl Kind for CopySnapshot {
    fn plan(&self, spec: &JobSpec) -> Vec<Plan> {
        let takes =
            matches!(spec, JobSpec::CopySnapshot(spec) if spec.snapshot.is_none() && spec.outside.is_none());
        vec![
            Plan::always(step::MINTING),
            Plan::only_if(step::TAKING_SNAPSHOT, takes),
            Plan::always(step::COPYING),
            Plan::no_return(step::FINALIZING),
            Plan::always(step::LETTING_GO),
        ]
    }

    /// What is frozen only has to stay. One that takes its own snapshot changes the machine until that is taken.
    fn mode(&self, spec: &JobSpec) -> LockMode {
        match spec {
            JobSpec::CopySnapshot(spec) if spec.snapshot.is_none() => LockMode::Changing,
            _ => LockMode::Shared,
        }
    }

    async fn run(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        match name {
            step::MINTING => minting(cx).await,
            step::TAKING_SNAPSHOT => take_snapshot(cx).await,
            step::COPYING => copying(cx).await,
            step::FINALIZING => finalize(cx).await,
            _ => let_go(cx).await,
        }
    }

    async fn undo(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        let Some(minted) = cx.data::<Minted>()? else {
            return Ok(());
        };
        match (name, &minted.snapshot) {
            (step::MINTING, Some(taken)) => snapshot::forget(cx, taken).await,
            (step::TAKING_SNAPSHOT, Some(taken)) => snapshot::unfreeze(cx, spec(cx)?.vm, taken).await,
            (step::COPYING, _) => {
                // What it has brought there stays: the next copy uses it, or a clean-up takes it.
                if let Some(session) = cx.world().sessions.take(cx.id()) {
                    session.writer.leave().await;
                }
                libvirt::forget_own(cx).await;
                outside::clean(cx).await
            }
            _ => Ok(()),
        }
    }
}
