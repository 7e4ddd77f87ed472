//! Images and exports: what is asked for becomes a job, and what arrives of an upload is written as it comes.
//!
//! What nobody fetches or goes on with is thrown away.

use super::{By, Inner, Jobs};
use crate::db::{self, DbError, Tx, now};
use crate::disks::roots::below;
use crate::inventory::images as inventory;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use shared::feed::Noun;
use shared::image::{
    self, CreateExport, CreateImage, CreateUpload, DeleteImageSpec, Export, ExportSpec, ImportFrom,
    ImportSpec, SnapshotImageSpec, Upload,
};
use shared::job::{Job, JobSpec};
use shared::vm::{Disk, Vm};
use shared::{Code, ImageId, Name, SnapshotId, Status, UploadId, VmId, can};
use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use uuid::Uuid;

/// How often it is looked for what is to be thrown away.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// How many pieces of an upload may wait to be written; then the sender waits.
const PIECES: usize = 16;

/// The uploads that a part arrives of.
#[derive(Clone, Default)]
pub(super) struct Receiving(Arc<Mutex<HashSet<UploadId>>>);

/// One of them, until it is dropped.
struct Turn {
    all: Receiving,
    id: UploadId,
}

impl Receiving {
    fn take(&self, id: UploadId) -> Option<Turn> {
        let new = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        new.then(|| Turn {
            all: self.clone(),
            id,
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.id);
    }
}

fn turn(inner: &Inner, upload: &Upload) -> Result<Turn, Status> {
    inner.receiving.take(upload.id).ok_or_else(|| {
        let text = format!("a part of {} is arriving already: wait until it has", upload.name);
        Status::new(Code::Aborted, text)
    })
}

impl Jobs {
    /// Begins an upload.
    pub async fn create_upload(&self, request: CreateUpload, By(by): By) -> Result<Upload, Status> {
        let world = self.world();
        can::limit::within("sizeBytes", request.size_bytes, 1, world.images.most, "bytes")?;
        let sha256 = request
            .sha256
            .map(|s| image::checksum("sha256", &s))
            .transpose()?;
        let fingerprint = request.fingerprint.as_deref().unwrap_or_default();
        can::limit::length("fingerprint", fingerprint, image::FINGERPRINT_BYTES)?;
        let mut coming = 0;
        for (id, bytes) in db::uploads::sizes(&world.db).await? {
            let arrived = std::fs::metadata(world.upload_file(id)).map_or(0, |m| m.len());
            coming += bytes.saturating_sub(arrived);
        }
        let dir = world.data_dir.join("uploads");
        let space = world.disks.space(&dir).await;
        let space = space.map_err(|e| Status::new(Code::Internal, db::chain(&e)))?;
        let free = space.free.saturating_sub(coming);
        if request.size_bytes > free {
            return Err(Status::no_space(format!(
                "{} has no room for this upload: it needs {} bytes, and {free} are free and not promised to other uploads. \
                 Free some space first",
                dir.display(),
                request.size_bytes
            )));
        }
        let upload = Upload {
            id: UploadId(Uuid::now_v7()),
            name: request.name,
            format: request.format,
            size_bytes: request.size_bytes,
            received_bytes: 0,
            sha256,
            fingerprint: request.fingerprint,
            created_by: by,
            create_time: now(),
            expire_time: now().plus_micros(inventory::KEPT_MICROS),
            generation: 0,
        };
        let failed = |e: io::Error| unwritten(&upload, &e);
        make_file(&world.upload_file(upload.id)).map_err(failed)?;
        let row = upload.clone();
        let written = world.db.write(move |tx| {
            Box::pin(async move {
                image_name_is_free(tx, &row.name).await?;
                db::uploads::insert(tx, &row).await
            })
        });
        if let Err(e) = written.await {
            // Without a row nobody finds the file: the refusal counts, not whether it went.
            drop(world.disks.remove(&world.upload_file(upload.id)).await);
            return Err(e.into());
        }
        self.upload(upload.id).await
    }

    async fn upload(&self, id: UploadId) -> Result<Upload, Status> {
        let upload = inventory::upload(self.world(), id).await?;
        upload.ok_or_else(|| Status::not_found("upload", id))
    }

    /// Takes a part of an upload that begins at `offset`: where the last one ended. Of a part that breaks off, what came is
    /// kept.
    pub async fn receive<E: std::fmt::Display>(
        &self,
        upload: &Upload,
        offset: u64,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<Upload, Status> {
        let (world, id) = (self.world(), upload.id);
        let turn = turn(&self.inner, upload)?;
        // With the turn taken nothing more arrives: the length is what counts.
        let upload = self.upload(id).await?;
        self.not_at_work(&upload).await?;
        if offset != upload.received_bytes {
            return Err(Status::precondition(format!(
                "{} bytes of {} have arrived, so the next part begins at offset {}, not at {offset}",
                upload.received_bytes, upload.name, upload.received_bytes
            )));
        }
        let failed = |e: io::Error| unwritten(&upload, &e);
        let file = OpenOptions::new().append(true).open(world.upload_file(id));
        let mut file = file.map_err(failed)?;
        let (pieces, mut to_write) = mpsc::channel::<Bytes>(PIECES);
        // Ends after the last piece, also when whoever sends has gone; until then it is this part's turn.
        let writer = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            while let Some(piece) = to_write.blocking_recv() {
                file.write_all(&piece)?;
            }
            Ok::<_, io::Error>(())
        });
        let broke = send(&upload, body, pieces).await;
        let written = writer.await;
        let written = written.map_err(|e| Status::new(Code::Internal, format!("write an upload: {e}")))?;
        world
            .db
            .write(move |tx| {
                Box::pin(async move {
                    tx.changed(Noun::Upload, id, false);
                    Ok(())
                })
            })
            .await?;
        written.map_err(failed)?;
        broke?;
        self.upload(id).await
    }

    async fn not_at_work(&self, upload: &Upload) -> Result<(), Status> {
        let db = &self.world().db;
        match db
            .reading(async |conn| db::uploads::job(conn, upload.id).await)
            .await?
        {
            Some(job) => Err(Status::precondition(format!(
                "job {job} makes an image of {}: wait until it is over, or cancel it",
                upload.name
            ))),
            None => Ok(()),
        }
    }

    /// Throws an upload away.
    pub async fn delete_upload(&self, upload: &Upload) -> Result<(), Status> {
        let _turn = turn(&self.inner, upload)?;
        self.not_at_work(upload).await?;
        let (world, id) = (self.world(), upload.id);
        let removed = world.disks.remove(&world.upload_file(id)).await;
        removed.map_err(|e| Status::new(Code::Internal, db::chain(&e)))?;
        Ok(world
            .db
            .write(move |tx| Box::pin(db::uploads::delete(tx, id)))
            .await?)
    }

    /// Makes an image of what was uploaded.
    pub async fn finish_upload(&self, upload: &Upload, by: By) -> Result<Job, Status> {
        let _turn = turn(&self.inner, upload)?;
        can::can_finish(&self.upload(upload.id).await?)?;
        let spec = ImportSpec {
            name: upload.name.clone(),
            format: upload.format,
            sha256: upload.sha256.clone(),
            from: ImportFrom::Upload(upload.id),
        };
        self.submit(JobSpec::ImportImage(spec), None, None, by).await
    }

    /// Brings an image in by address or by path, or makes one of a snapshot.
    pub async fn create_image(&self, request: CreateImage, by: By) -> Result<Job, Status> {
        let (name, format, request_id) = (request.name, request.format, request.request_id);
        let sha256 = request
            .sha256
            .map(|s| image::checksum("sha256", &s))
            .transpose()?;
        let from = match (request.url, request.path, request.snapshot) {
            (Some(url), None, None) => {
                image::address("url", &url)?;
                ImportFrom::Url(url)
            }
            (None, Some(path), None) => {
                let found = below(&self.world().images.roots, &path)?;
                let found = found
                    .to_str()
                    .ok_or_else(|| Status::invalid("path", "it is not UTF-8"))?;
                ImportFrom::Path(found.to_owned())
            }
            (None, None, Some(of)) => {
                if format.is_some() || sha256.is_some() {
                    return Err(Status::invalid(
                        "snapshot",
                        "a snapshot has neither a format nor a checksum",
                    ));
                }
                let world = self.world();
                let vm = db::vms::find(&world.db, &of.vm).await?;
                let vm = vm.ok_or_else(|| Status::not_found("VM", &of.vm))?.id;
                let spec = SnapshotImageSpec {
                    vm,
                    snapshot: self.snapshot_of(vm, &of.snapshot).await?,
                    disk: of.disk,
                    name,
                };
                return self
                    .submit(JobSpec::ImageOfSnapshot(spec), request_id, None, by)
                    .await;
            }
            _ => {
                return Err(Status::invalid(
                    "url",
                    "give exactly one of url, path and snapshot",
                ));
            }
        };
        let spec = ImportSpec {
            name,
            format,
            sha256,
            from,
        };
        self.submit(JobSpec::ImportImage(spec), request_id, None, by)
            .await
    }

    async fn snapshot_of(&self, vm: VmId, reference: &str) -> Result<SnapshotId, Status> {
        let found = db::snapshots::find(&self.world().db, vm, reference).await?;
        Ok(found.ok_or_else(|| Status::not_found("snapshot", reference))?.id)
    }

    /// Gives an image another name, at once.
    pub async fn rename_image(&self, id: ImageId, name: Name) -> Result<(), Status> {
        let renamed = self
            .world()
            .db
            .write(move |tx| Box::pin(async move { db::images::rename(tx, id, &name).await }));
        renamed
            .await?
            .then_some(())
            .ok_or_else(|| Status::not_found("image", id))
    }

    /// Deletes an image; its layer stays for the machines that stand on it.
    pub async fn delete_image(&self, image: ImageId, by: By) -> Result<Job, Status> {
        self.submit(JobSpec::DeleteImage(DeleteImageSpec { image }), None, None, by)
            .await
    }

    /// Writes a disk of a machine to a file.
    pub async fn export_disk(&self, vm: VmId, mut request: CreateExport, by: By) -> Result<Job, Status> {
        if request.snapshot.is_some() && request.snapshot_now {
            return Err(Status::invalid(
                "snapshotNow",
                "give either snapshot or snapshotNow, not both",
            ));
        }
        let snapshot = match &request.snapshot {
            Some(reference) => Some(self.snapshot_of(vm, reference).await?),
            None => None,
        };
        let request_id = request.request_id.take();
        let spec = ExportSpec {
            vm,
            snapshot,
            request,
        };
        self.submit(JobSpec::ExportDisk(spec), request_id, None, by).await
    }

    /// Removes a file that a disk was written to.
    pub async fn delete_export(&self, export: &Export) -> Result<(), Status> {
        delete_export(&self.inner, export).await
    }
}

async fn delete_export(inner: &Inner, export: &Export) -> Result<(), Status> {
    let (world, id) = (&inner.world, export.id);
    let removed = world.disks.remove(&world.export_file(id, export.format)).await;
    removed.map_err(|e| Status::new(Code::Internal, db::chain(&e)))?;
    Ok(world
        .db
        .write(move |tx| Box::pin(db::exports::delete(tx, id)))
        .await?)
}

/// Makes an empty file that the helper may read as another user; the directory lets nobody else come to it.
fn make_file(path: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)
        .map(drop)
}

fn unwritten(upload: &Upload, e: &io::Error) -> Status {
    if e.kind() == io::ErrorKind::StorageFull {
        return Status::no_space(format!(
            "the disk is full: what has arrived of {} is kept. Free some space, then send the rest",
            upload.name
        ));
    }
    tracing::error!(error = %e, upload = %upload.id, "write an upload");
    let text = format!("write what arrives of {}: {e}", upload.name);
    Status::new(Code::Internal, text)
}

/// Hands what arrives on to the writer, as fast as that writes.
async fn send<E: std::fmt::Display>(
    upload: &Upload,
    body: impl Stream<Item = Result<Bytes, E>>,
    pieces: mpsc::Sender<Bytes>,
) -> Result<(), Status> {
    let mut left = upload.size_bytes - upload.received_bytes;
    tokio::pin!(body);
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|e| {
            let text = format!(
                "the part of {} broke off: {e}. Ask how much has arrived, and go on there",
                upload.name
            );
            Status::new(Code::Aborted, text)
        })?;
        let bytes = piece.len() as u64;
        if bytes > left {
            return Err(Status::invalid(
                "body",
                format_args!(
                    "more arrives than the {} bytes that {} has",
                    upload.size_bytes, upload.name
                ),
            ));
        }
        left -= bytes;
        if pieces.send(piece).await.is_err() {
            // The writer has failed, and says why.
            return Ok(());
        }
    }
    Ok(())
}

async fn image_name_is_free(tx: &mut Tx, name: &Name) -> Result<(), DbError> {
    if db::images::name_taken(tx, name).await? {
        let text = format!("there is an image called {name} already: choose another name");
        return Err(Status::new(Code::AlreadyExists, text).into());
    }
    Ok(())
}

/// Asks whether the state allows a job that has to do with images.
pub(super) async fn check(tx: &mut Tx, spec: &JobSpec, vm: Option<&Vm>) -> Result<(), DbError> {
    match (spec, vm) {
        (JobSpec::ImportImage(spec), _) => {
            if let ImportFrom::Upload(id) = spec.from {
                if db::uploads::get(tx.conn(), id).await?.is_none() {
                    return Err(Status::not_found("upload", id).into());
                }
                if let Some(job) = db::uploads::job(tx.conn(), id).await? {
                    let text = format!("job {job} makes an image of {} already", spec.name);
                    return Err(Status::precondition(text).into());
                }
            }
            image_name_is_free(tx, &spec.name).await
        }
        (JobSpec::ImageOfSnapshot(spec), Some(vm)) => {
            ready(tx, vm, spec.snapshot, spec.disk, "snapshot.disk").await?;
            image_name_is_free(tx, &spec.name).await
        }
        (JobSpec::ExportDisk(spec), Some(vm)) => {
            can::can_export(vm, spec.snapshot.is_some(), spec.request.snapshot_now)?;
            match spec.snapshot {
                Some(snapshot) => ready(tx, vm, snapshot, spec.request.disk, "disk").await,
                None => has_disk(&vm.name, &vm.disks, spec.request.disk, "disk"),
            }
        }
        (JobSpec::DeleteImage(spec), _) => {
            let id = spec.image;
            let found = db::images::name_of(tx, id).await?;
            found
                .map(drop)
                .ok_or_else(|| Status::not_found("image", id).into())
        }
        _ => Ok(()),
    }
}

async fn ready(tx: &mut Tx, vm: &Vm, id: SnapshotId, disk: u32, field: &str) -> Result<(), DbError> {
    let snapshot = db::snapshots::get(tx.conn(), id).await?;
    let snapshot = snapshot.ok_or_else(|| Status::not_found("snapshot", id))?;
    can::can_clone_from(vm, &snapshot)?;
    // The machine may have others by now.
    let disks = db::snapshots::disks(tx.conn(), id).await?;
    has_disk(&snapshot.name, &disks, disk, field)
}

fn has_disk(of: &Name, disks: &[Disk], number: u32, field: &str) -> Result<(), DbError> {
    if disks
        .iter()
        .any(|disk| disk.number == number && !disk.is_variables())
    {
        return Ok(());
    }
    let all = disks.iter().filter(|disk| !disk.is_variables());
    let all: Vec<_> = all.map(|disk| disk.number.to_string()).collect();
    let text = match all.as_slice() {
        [] => format!("{of} has no disks"),
        all => format!("{of} has no disk {number}, but {}", all.join(", ")),
    };
    Err(Status::invalid(field, text).into())
}

/// Throws away what nobody has touched for long: uploads that are not finished, and files that were exported.
pub(super) async fn sweep(inner: Arc<Inner>) {
    let mut tick = tokio::time::interval(SWEEP_EVERY);
    let jobs = Jobs { inner };
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = jobs.inner.stop.cancelled() => return,
        }
        if let Err(e) = jobs.sweep(now()).await {
            tracing::warn!(error = %e, "throw away what is left of uploads and exports");
        }
    }
}

impl Jobs {
    /// Throws away what was to be kept until this time, at most.
    pub async fn sweep(&self, time: shared::Timestamp) -> Result<(), Status> {
        let world = self.world();
        for export in db::exports::expired(&world.db, time).await? {
            delete_export(&self.inner, &export).await?;
        }
        for (id, _) in db::uploads::sizes(&world.db).await? {
            let Some(upload) = inventory::upload(world, id).await? else {
                continue;
            };
            if upload.expire_time <= time {
                match self.delete_upload(&upload).await {
                    Ok(()) => {
                        tracing::info!(upload = %upload.name, "an upload that nobody went on with is gone")
                    }
                    // It arrives after all, or is being made an image of.
                    Err(e) => tracing::debug!(error = %e, upload = %upload.name, "an upload stays"),
                }
            }
        }
        Ok(())
    }
}
