//! Brings an image in: fetched, looked at, and converted into layers by the helper.

use super::create_vm::storage_for;
use super::{is_now, release, remove_loose};
use crate::db::locks::LockMode;
use crate::db::{self, layers::Layer, now};
use crate::disks::DiskError;
use crate::disks::image::Found;
use crate::disks::roots::below;
use crate::fetch::{FetchError, Fetcher};
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use shared::feed::Noun;
use shared::image::{ImportFrom, ImportSpec};
use shared::job::{JobSpec, Resource, ResourceRole, step};
use shared::{Code, ImageId, LayerId, Name, Status, StorageId};
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use uuid::Uuid;

pub(super) struct ImportImage;

/// The images that come of it: one for each disk.
#[derive(Clone, Serialize, Deserialize)]
struct Minted {
    images: Vec<MintedImage>,
    storage: StorageId,
}

#[derive(Clone, Serialize, Deserialize)]
struct MintedImage {
    id: ImageId,
    name: Name,
    layer: LayerId,
    found: Found,
}

fn spec(cx: &Cx) -> Result<ImportSpec, StepError> {
    match cx.job().spec.into_inner() {
        JobSpec::ImportImage(spec) => Ok(spec),
        _ => Err(StepError::new(Code::Internal, "not a request for an image")),
    }
}

/// Where the image lies.
fn file(cx: &Cx, spec: &ImportSpec) -> Result<PathBuf, StepError> {
    Ok(match &spec.from {
        ImportFrom::Upload(id) => cx.world().upload_file(*id),
        ImportFrom::Url(_) => cx.world().fetched_file(cx.id()),
        ImportFrom::Path(path) => below(&cx.world().images.roots, path)?,
    })
}

async fn fetch(cx: &Cx) -> Result<(), StepError> {
    let ImportFrom::Url(url) = spec(cx)?.from else {
        return Ok(());
    };
    let rules = &cx.world().images;
    let fetcher = Fetcher::new(rules.urls_private, rules.most)
        .map_err(|e| StepError::new(Code::Internal, db::chain(&e)))?;
    let progress = |done, total: Option<u64>| match total {
        Some(total) => cx.progress(done, total),
        None => cx.message(format!("{} MiB so far", done >> 20)),
    };
    let to = cx.world().fetched_file(cx.id());
    let bytes = fetcher.fetch(&url, &to, &progress).await.map_err(|e| {
        let text = db::chain(&e);
        match e {
            FetchError::Write { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Status::no_space(format!(
                    "{text}. Free some space and try again; nothing is left behind"
                ))
                .into()
            }
            FetchError::Write { .. } => StepError::new(Code::Internal, text),
            FetchError::Lost { .. } => StepError::new(Code::Unavailable, text),
            FetchError::Answer { .. } => StepError::new(Code::FailedPrecondition, text),
            FetchError::Refused { .. } | FetchError::TooLarge { .. } => {
                StepError::new(Code::InvalidArgument, text)
            }
        }
    })?;
    cx.log(format!("fetched {bytes} bytes"));
    Ok(())
}

/// The SHA-256 of a file; what is read is told.
async fn sha256(path: PathBuf, cx: &Cx) -> Result<String, StepError> {
    let total = std::fs::metadata(&path).map_or(0, |m| m.len());
    let done = std::sync::Arc::new(AtomicU64::new(0));
    let told = done.clone();
    let work = tokio::task::spawn_blocking(move || -> std::io::Result<String> {
        let (mut file, mut hash, mut buf) = (std::fs::File::open(&path)?, Sha256::new(), vec![0; 1 << 20]);
        loop {
            match file.read(&mut buf)? {
                0 => return Ok(hex::encode(hash.finalize())),
                n => {
                    hash.update(&buf[..n]);
                    told.fetch_add(n as u64, Ordering::Relaxed);
                }
            }
            // Nobody waits for it any more: the job was cancelled.
            if std::sync::Arc::strong_count(&told) == 1 {
                return Err(std::io::ErrorKind::Interrupted.into());
            }
        }
    });
    tokio::pin!(work);
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    let ended = loop {
        tokio::select! {
            ended = &mut work => break ended,
            _ = tick.tick() => cx.progress(done.load(Ordering::Relaxed), total),
        }
    };
    let failed = |why: String| StepError::new(Code::Internal, format!("compute the checksum: {why}"));
    ended
        .map_err(|e| failed(e.to_string()))?
        .map_err(|e| failed(e.to_string()))
}

async fn check(cx: &Cx) -> Result<(), StepError> {
    let spec = spec(cx)?;
    let file = file(cx, &spec)?;
    match spec.from {
        // Whoever opened a pipe would wait for somebody to write to it.
        ImportFrom::Path(_) => crate::disks::plain(&file).await.map_err(|e| named(e, &spec))?,
        // What has arrived is on the disk from here on, also after a power cut.
        _ => crate::disks::settled(&file, true).await.map(drop)?,
    }
    if let Some(wanted) = &spec.sha256 {
        let found = sha256(file.clone(), cx).await?;
        if found != *wanted {
            let why = format!(
                "the image has SHA-256 {found}, and {wanted} was given: it did not arrive whole, or is another"
            );
            return Err(StepError::new(Code::DataLoss, why));
        }
        cx.log("its checksum is right");
    }
    let found = cx
        .disks()
        .inspect(&file, spec.format, cx.world().images.most)
        .await;
    let found = found.map_err(|e| named(e, &spec))?;
    let minted = match cx.data()? {
        Some(minted) => minted,
        None => Minted {
            images: mint(&spec.name, found)?,
            storage: storage_for(cx, None).await?,
        },
    };
    for image in &minted.images {
        cx.resource(Resource {
            noun: Noun::Image,
            id: image.id.to_string(),
            name: image.name.clone(),
            role: ResourceRole::Product,
        });
    }
    let formats = minted
        .images
        .iter()
        .map(|i| i.found.format.word())
        .collect::<Vec<_>>();
    cx.message(format!("{}, stands for itself", formats.join(", ")));
    cx.mint(&minted);
    Ok(())
}

/// The first disk has the name that was asked for, those behind it a number more.
fn mint(name: &Name, found: Vec<Found>) -> Result<Vec<MintedImage>, StepError> {
    let mut images = Vec::new();
    for (n, found) in found.into_iter().enumerate() {
        let name = match n {
            0 => name.clone(),
            n => format!("{name}-{n}").parse().map_err(|e: shared::NameError| {
                StepError::new(Code::InvalidArgument, format!("disk {n}: {e}"))
            })?,
        };
        images.push(MintedImage {
            id: ImageId(Uuid::now_v7()),
            name,
            layer: LayerId(Uuid::now_v7()),
            found,
        });
    }
    Ok(images)
}

/// A refusal speaks of the image by its name: of where it lies for the moment nobody knows.
fn named(e: DiskError, spec: &ImportSpec) -> StepError {
    match e {
        DiskError::Refused { why, .. } => {
            let what = match &spec.from {
                ImportFrom::Path(path) => path.clone(),
                ImportFrom::Upload(_) | ImportFrom::Url(_) => format!("image {}", spec.name),
            };
            StepError::new(Code::InvalidArgument, format!("{what} is not taken: {why}"))
        }
        e => e.into(),
    }
}

/// Writes down the layers that are about to be made.
async fn note_layers(cx: &Cx, minted: &Minted) -> Result<(), StepError> {
    let mut layers = Vec::new();
    for image in &minted.images {
        cx.world().place(image.layer, minted.storage);
        layers.push(Layer {
            id: image.layer,
            storage: minted.storage,
            parent: None,
            virtual_bytes: image.found.virtual_bytes,
        });
    }
    cx.commit(move |tx| {
        Box::pin(async move {
            for layer in &layers {
                db::layers::insert(tx, layer).await?;
            }
            Ok(())
        })
    })
    .await
}

async fn convert(cx: &Cx) -> Result<(), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let file = file(cx, &spec)?;
    note_layers(cx, &minted).await?;
    let mut before = 0;
    for image in &minted.images {
        let last = AtomicU64::new(0);
        let progress = |done, total| {
            last.store(total, Ordering::Relaxed);
            cx.progress(before + done, before + total);
        };
        let layer = cx.world().layer_file(image.layer);
        cx.disks()
            .import(&cx.world().images.helper, &file, &image.found, &layer, &progress)
            .await
            .map_err(|e| named(e, &spec))?;
        before += last.load(Ordering::Relaxed);
    }
    cx.outcome(|o| o.copied_bytes = Some(before));
    Ok(())
}

async fn register(cx: &Cx) -> Result<(), StepError> {
    let Minted { images, .. } = cx.minted()?;
    cx.commit(move |tx| {
        Box::pin(async move {
            for image in &images {
                db::images::insert(tx, image.id, &image.name, image.layer, now()).await?;
            }
            Ok(())
        })
    })
    .await
}

/// Removes what the image was made of.
async fn remove_source(cx: &Cx, spec: &ImportSpec) -> Result<(), StepError> {
    match spec.from {
        ImportFrom::Path(_) => Ok(()),
        ImportFrom::Url(_) => Ok(cx.disks().remove(&cx.world().fetched_file(cx.id())).await?),
        ImportFrom::Upload(id) => {
            cx.disks().remove(&cx.world().upload_file(id)).await?;
            cx.commit(move |tx| Box::pin(db::uploads::delete(tx, id))).await
        }
    }
}

/// An upload that is refused for what it is goes at once. Where something else went wrong it stays, to be tried again.
async fn refused_for_good(cx: &Cx, e: StepError) -> StepError {
    if !matches!(e.status.code, Code::InvalidArgument | Code::DataLoss) {
        return e;
    }
    let removed = match spec(cx) {
        Ok(spec) => remove_source(cx, &spec).await,
        Err(e) => Err(e),
    };
    match removed {
        Ok(()) => e,
        Err(worse) => worse,
    }
}

async fn there(cx: &Cx) -> Result<(), StepError> {
    match spec(cx)?.from {
        ImportFrom::Upload(id) if db::uploads::by_id(cx.db(), id).await?.is_none() => {
            Err(is_now("upload", id))
        }
        _ => Ok(()),
    }
}

#[async_trait]
impl Kind for ImportImage {
    fn plan(&self, spec: &JobSpec) -> Vec<Plan> {
        let (fetched, own) = match spec {
            JobSpec::ImportImage(spec) => (
                matches!(spec.from, ImportFrom::Url(_)),
                !matches!(spec.from, ImportFrom::Path(_)),
            ),
            _ => (false, false),
        };
        vec![
            Plan::only_if(step::FETCHING, fetched),
            Plan::always(step::CHECKING),
            Plan::always(step::CONVERTING),
            Plan::always(step::REGISTERING),
            Plan {
                wanted: own,
                ..Plan::no_return(step::REMOVING_FILES)
            },
        ]
    }

    fn mode(&self, _spec: &JobSpec) -> LockMode {
        LockMode::Shared
    }

    async fn run(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        let done = match name {
            step::FETCHING => fetch(cx).await,
            step::CHECKING => match there(cx).await {
                Ok(()) => check(cx).await,
                e => e,
            },
            step::CONVERTING => convert(cx).await,
            step::REGISTERING => return register(cx).await,
            _ => return remove_source(cx, &spec(cx)?).await,
        };
        match done {
            Ok(()) => Ok(()),
            Err(e) => Err(refused_for_good(cx, e).await),
        }
    }

    async fn undo(&self, name: &str, cx: &Cx) -> Result<(), StepError> {
        let images = cx.data::<Minted>()?.map_or_else(Vec::new, |m| m.images);
        let layers: Vec<_> = images.iter().map(|i| i.layer).collect();
        match name {
            step::FETCHING => Ok(cx.disks().remove(&cx.world().fetched_file(cx.id())).await?),
            step::CONVERTING if layers.is_empty() => Ok(()),
            step::CONVERTING => {
                let all = layers.clone();
                cx.commit(move |tx| Box::pin(async move { release(tx, &all).await.map(drop) }))
                    .await?;
                // Somebody may have made a machine of an image meanwhile.
                remove_loose(cx, &layers).await.map(drop)
            }
            step::REGISTERING => {
                cx.commit(move |tx| {
                    Box::pin(async move {
                        for image in &images {
                            db::images::delete(tx, image.id).await?;
                        }
                        Ok(())
                    })
                })
                .await
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_a_root_is_imported() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("images");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("good"), "").unwrap();
        std::fs::write(dir.path().join("secret"), "").unwrap();
        std::fs::create_dir(dir.path().join("images-not")).unwrap();
        std::fs::write(dir.path().join("images-not/a"), "").unwrap();
        std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();
        let roots = [root.clone()];
        let asked = |path: &str| below(&roots, &format!("{}/{path}", dir.path().display()));
        assert_eq!(
            asked("images/good").unwrap(),
            std::fs::canonicalize(root.join("good")).unwrap()
        );
        for bad in [
            "secret",
            "images/../secret",
            "images/link",
            "images-not/a",
            "images/none",
        ] {
            assert_eq!(asked(bad).unwrap_err().field(), Some("path"), "{bad}");
        }
        assert!(
            below(&[], "/etc/passwd")
                .unwrap_err()
                .message
                .contains("image_roots")
        );
        assert!(below(&roots, "good").is_err());
    }
}
