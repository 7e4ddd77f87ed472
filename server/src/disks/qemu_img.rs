//! The real disks: qcow2 files, made and copied by qemu-img.

use super::frozen::{Frozen, FrozenError};
use super::room::Room;
use super::tool::{measured, qemu_img, run, watched};
use super::*;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use tokio::process::Command;

/// Disks made by qemu-img.
#[derive(Clone, Debug, Default)]
pub struct QemuImg {
    room: Room,
    /// The overlays made last. All on the same layer say the same, down to the last byte.
    overlays: Arc<Mutex<VecDeque<Overlay>>>,
}

#[derive(Debug)]
struct Overlay {
    backing: PathBuf,
    virtual_bytes: u64,
    /// The whole file.
    bytes: Arc<Vec<u8>>,
}

/// How many overlays are remembered; each is of some 200 KiB.
const OVERLAYS: usize = 16;

#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Info {
    virtual_size: u64,
}

impl QemuImg {
    /// Disks of this host.
    pub fn new() -> Self {
        Self::default()
    }

    /// The version of qemu-img.
    pub async fn version(&self) -> Result<String, DiskError> {
        let out = run(
            "ask for the version of",
            Path::new("qemu-img"),
            &mut qemu_img(&["--version"]),
        )
        .await?;
        let text = String::from_utf8_lossy(&out);
        Ok(text.split_whitespace().nth(2).unwrap_or("unknown").to_owned())
    }

    fn overlay(&self, backing: &LayerFile, virtual_bytes: u64) -> Option<Arc<Vec<u8>>> {
        let overlays = self.overlays.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |o: &&Overlay| o.backing == backing.path && o.virtual_bytes == virtual_bytes;
        overlays.iter().find(same).map(|o| o.bytes.clone())
    }

    fn remember(&self, overlay: Overlay) {
        let mut overlays = self.overlays.lock().unwrap_or_else(PoisonError::into_inner);
        overlays.push_front(overlay);
        overlays.truncate(OVERLAYS);
    }

    async fn convert(
        &self,
        source: &str,
        to: &Path,
        options: &[&str],
        progress: Progress<'_>,
    ) -> Result<(), DiskError> {
        let mut command = qemu_img(&["measure", "--output=json", "-O", "qcow2", source]);
        let total = measured(&run("measure", to, &mut command).await?, to)?;
        let mut command = qemu_img(&["convert", "-p"]);
        command.args(options).arg(source).arg(part(to));
        self.copy(command, to, total, progress).await?;
        finish(to).await
    }

    /// Runs what copies to a part of `to`, with the room that it needs held for it; it is yet to be finished.
    pub(super) async fn copy(
        &self,
        mut command: Command,
        to: &Path,
        total: u64,
        progress: Progress<'_>,
    ) -> Result<(), DiskError> {
        let promise = self.room.promise(to.parent().unwrap_or(Path::new(".")), total)?;
        progress(0, total);
        watched("copy to", to, &mut command, &promise, total, progress).await
    }
}

/// Opens a chain whose uppermost layer is `top`, away from the runtime.
async fn frozen(
    top: &Path,
    open: impl FnOnce() -> Result<(Frozen, Option<Vec<Range<u64>>>), FrozenError> + Send + 'static,
) -> Result<FrozenDisk, DiskError> {
    let refused = |why: String| DiskError::Refused {
        path: top.to_owned(),
        why,
    };
    let (source, changed) = tokio::task::spawn_blocking(open)
        .await
        .map_err(|e| refused(e.to_string()))?
        .map_err(|e| refused(crate::db::chain(&e)))?;
    Ok(FrozenDisk {
        source: Arc::new(source),
        changed,
    })
}

#[async_trait]
impl Disks for QemuImg {
    async fn create_blank(&self, layer: &LayerFile, virtual_bytes: u64) -> Result<(), DiskError> {
        if layer.path.exists() {
            return Ok(());
        }
        create(layer, &[], virtual_bytes).await?;
        finish(&layer.path).await
    }

    async fn create_variables(&self, layer: &LayerFile, template: &Path) -> Result<(), DiskError> {
        if layer.path.exists() {
            return Ok(());
        }
        let mut command = qemu_img(&["convert", "-f", "raw", "-O", "qcow2"]);
        command.arg(template).arg(part(&layer.path));
        run("make the firmware's variables", &layer.path, &mut command).await?;
        finish(&layer.path).await
    }

    async fn create_overlays(&self, layers: &[LayerFile], backing: &LayerFile) -> Result<(), DiskError> {
        let missing: Vec<_> = layers.iter().filter(|l| !l.path.exists()).collect();
        let Some(first) = missing.first() else {
            return Ok(());
        };
        let virtual_bytes = size(backing).await?;
        let known = self.overlay(backing, virtual_bytes);
        let bytes = match known {
            Some(bytes) => bytes,
            None => {
                overlay(first, backing, virtual_bytes).await?;
                let made = tokio::fs::read(part(&first.path)).await;
                let made = Arc::new(made.map_err(DiskError::io("read layer", &first.path))?);
                self.remember(Overlay {
                    backing: backing.path.clone(),
                    virtual_bytes,
                    bytes: made.clone(),
                });
                finish(&first.path).await?;
                made
            }
        };
        let left = missing.into_iter().filter(|l| !l.path.exists());
        for layer in left {
            let written = tokio::fs::write(part(&layer.path), bytes.as_slice()).await;
            written.map_err(DiskError::io("make layer", &layer.path))?;
            finish(&layer.path).await?;
        }
        Ok(())
    }

    async fn create_overlay(
        &self,
        layer: &LayerFile,
        backing: &LayerFile,
        virtual_bytes: Option<u64>,
    ) -> Result<(), DiskError> {
        if layer.path.exists() {
            return Ok(());
        }
        let virtual_bytes = match virtual_bytes {
            Some(bytes) if backing.shown.is_some() => bytes,
            // It is looked at all the same: an overlay on nothing would be found out by its guest.
            asked => {
                let below = size(backing).await?;
                asked.unwrap_or(below)
            }
        };
        overlay(layer, backing, virtual_bytes).await?;
        finish(&layer.path).await
    }

    async fn grow(&self, layer: &LayerFile, virtual_bytes: u64) -> Result<(), DiskError> {
        if header::Header::read(&layer.path)?.virtual_bytes >= virtual_bytes {
            return Ok(());
        }
        let path = layer.path.to_string_lossy();
        let size = virtual_bytes.to_string();
        let mut command = qemu_img(&["resize", "-q", "-f", "qcow2", &path, &size]);
        run("grow", &layer.path, &mut command).await.map(drop)
    }

    async fn copy_flat(
        &self,
        chain: &[LayerFile],
        to: &LayerFile,
        progress: Progress<'_>,
    ) -> Result<(), DiskError> {
        if chain.is_empty() {
            return Err(DiskError::Refused {
                path: to.path.clone(),
                why: "a chain of no layers".into(),
            });
        }
        if to.path.exists() {
            let LayerInfo { allocated_bytes, .. } = header::info(&to.path)?;
            progress(allocated_bytes, allocated_bytes);
            return Ok(());
        }
        // Written in the order in which it is read it takes a tenth longer.
        let options = ["-W", "-O", "qcow2"];
        let source = format!("json:{}", blockdev::chain(chain));
        self.convert(&source, &to.path, &options, progress).await
    }

    async fn merge_up(
        &self,
        into: &LayerFile,
        between: &[LayerFile],
        base: Option<&LayerFile>,
        progress: Progress<'_>,
    ) -> Result<(), DiskError> {
        let mut total = 0;
        for layer in between {
            total += match layer.shown {
                Some(_) => {
                    let source = format!("json:{}", blockdev::chain(std::slice::from_ref(layer)));
                    let mut command = qemu_img(&["measure", "--output=json", "-O", "qcow2", &source]);
                    measured(&run("measure", &into.path, &mut command).await?, &into.path)?
                }
                None => header::info(&layer.path)?.allocated_bytes,
            };
        }
        let dir = into.path.parent().unwrap_or(Path::new("."));
        let promise = self.room.promise(dir, total)?;
        // One that was ended when it had written the head may have lost tables, and would find nothing to do any more: what is
        // in between is named again.
        if let Some(below) = between.last() {
            let (name, format) = blockdev::backing_name(below, &into.path);
            let mut command = qemu_img(&["rebase", "-u", "-f", "qcow2", "-F", format, "-b", &name]);
            run("merge into", &into.path, command.arg(&into.path)).await?;
        }
        let mut command = qemu_img(&["rebase", "-p", "-f", "qcow2"]);
        match base.map(|base| blockdev::backing_name(base, &into.path)) {
            Some((name, format)) => command.args(["-F", format, "-b", &name]),
            None => command.args(["-b", ""]),
        };
        command.arg(&into.path);
        watched("merge into", &into.path, &mut command, &promise, total, progress).await
    }

    async fn info(&self, layer: &LayerFile) -> Result<LayerInfo, DiskError> {
        match layer.shown {
            Some(_) => Ok(LayerInfo {
                virtual_bytes: size(layer).await?,
                allocated_bytes: 0,
            }),
            None => header::info(&layer.path),
        }
    }

    async fn inspect(
        &self,
        from: &Path,
        format: Option<ImageFormat>,
        most: u64,
    ) -> Result<Vec<Found>, DiskError> {
        let from = from.to_owned();
        blocking(move || image::inspect(&from, format, most)).await
    }

    async fn import(
        &self,
        helper: &Helper,
        from: &Path,
        found: &Found,
        to: &LayerFile,
        progress: Progress<'_>,
    ) -> Result<(), DiskError> {
        if to.path.exists() {
            return Ok(());
        }
        let done = self.convert_shut_in(helper, from, found, to, progress).await;
        if done.is_err() {
            remove_file(&to.path)?;
        }
        done
    }

    async fn frozen(&self, chain: &[LayerFile], below: Option<usize>) -> Result<FrozenDisk, DiskError> {
        let files: Vec<PathBuf> = chain.iter().map(|layer| layer.path.clone()).collect();
        let top = files.last().cloned().unwrap_or_default();
        frozen(&top, move || {
            let frozen = Frozen::open(&files)?;
            let changed = below.map(|below| frozen.changed_above(below)).transpose()?;
            Ok((frozen, changed))
        })
        .await
    }

    async fn written(&self, overlay: &Path) -> Result<FrozenDisk, DiskError> {
        let path = overlay.to_owned();
        frozen(overlay, move || {
            let frozen = Frozen::open_overlay(&path)?;
            let changed = frozen.changed_above(1)?;
            Ok((frozen, Some(changed)))
        })
        .await
    }

    async fn export(
        &self,
        chain: &[LayerFile],
        to: &Path,
        format: ExportFormat,
        progress: Progress<'_>,
    ) -> Result<(), DiskError> {
        if to.exists() {
            return Ok(());
        }
        let options: &[&str] = match format {
            ExportFormat::Qcow2 => &["-W", "-O", "qcow2"],
            ExportFormat::Raw => &["-W", "-O", "raw"],
            ExportFormat::Vmdk => &["-O", "vmdk", "-o", "subformat=streamOptimized"],
        };
        remove_file(to)?;
        let source = format!("json:{}", blockdev::chain(chain));
        self.convert(&source, to, options, progress).await
    }

    async fn renew_seed(
        &self,
        from: &Path,
        to: &Path,
        instance_id: &str,
        hostname: &str,
    ) -> Result<(), DiskError> {
        let (from, to) = (from.to_owned(), to.to_owned());
        let (id, host) = (instance_id.to_owned(), hostname.to_owned());
        blocking(move || seed::renew(&from, &to, &id, &host)).await
    }

    async fn write_seed(
        &self,
        path: &Path,
        instance_id: &str,
        hostname: &str,
        ci: &CloudInit,
    ) -> Result<(), DiskError> {
        let (path, id, host, ci) = (
            path.to_owned(),
            instance_id.to_owned(),
            hostname.to_owned(),
            ci.clone(),
        );
        blocking(move || seed::write(&path, &id, &host, &ci)).await
    }

    async fn remove(&self, path: &Path) -> Result<(), DiskError> {
        let path = path.to_owned();
        // Freeing the blocks of a large file takes long.
        blocking(move || remove_file(&path)).await
    }

    async fn space(&self, dir: &Path) -> Result<Space, DiskError> {
        space(dir)
    }
}

/// Makes an empty layer on another; it is yet to be finished.
async fn overlay(layer: &LayerFile, backing: &LayerFile, virtual_bytes: u64) -> Result<(), DiskError> {
    let (name, format) = blockdev::backing_name(backing, &layer.path);
    // -u: qemu-img does not open the backing file, which a running machine may hold.
    create(layer, &["-u", "-F", format, "-b", &name], virtual_bytes).await
}

/// What a guest sees of a layer, in bytes.
async fn size(layer: &LayerFile) -> Result<u64, DiskError> {
    if layer.shown.is_none() {
        return Ok(header::Header::read(&layer.path)?.virtual_bytes);
    }
    let source = format!("json:{}", blockdev::chain(std::slice::from_ref(layer)));
    let mut command = qemu_img(&["info", "--output=json", &source]);
    let said = run("look at", &layer.path, &mut command).await?;
    let Info { virtual_size } = serde_json::from_slice(&said).map_err(|e| DiskError::Tool {
        op: "look at",
        path: layer.path.clone(),
        why: e.to_string(),
    })?;
    Ok(virtual_size)
}

/// Makes an empty layer; it is yet to be finished.
pub(super) async fn create(
    layer: &LayerFile,
    standing_on: &[&str],
    virtual_bytes: u64,
) -> Result<(), DiskError> {
    let mut command = qemu_img(&["create", "-q", "-f", "qcow2"]);
    command
        .args(standing_on)
        .arg(part(&layer.path))
        .arg(virtual_bytes.to_string());
    run("make layer", &layer.path, &mut command).await.map(drop)
}

/// Gives a file that is whole its name, so that it has it after a power cut too.
pub(super) async fn finish(path: &Path) -> Result<(), DiskError> {
    let path = path.to_owned();
    blocking(move || {
        let error = |e| DiskError::io("finish", &path)(e);
        let part = part(&path);
        std::fs::File::open(&part)
            .and_then(|f| f.sync_all())
            .map_err(error)?;
        std::fs::rename(&part, &path).map_err(error)?;
        let dir = path.parent().unwrap_or(Path::new("."));
        std::fs::File::open(dir).and_then(|d| d.sync_all()).map_err(error)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, DiskError> + Send + 'static,
) -> Result<T, DiskError> {
    match tokio::task::spawn_blocking(f).await {
        Ok(result) => result,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(e) => Err(DiskError::Tool {
                op: "finish",
                path: PathBuf::new(),
                why: format!("the server stops: {e}"),
            }),
        },
    }
}
