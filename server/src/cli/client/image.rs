//! `offshoot image …`

use super::http::{self, Client, ClientError};
use super::table::{Table, bytes};
use super::{Api, Failure, List, Wait};
use clap::{Subcommand, ValueEnum};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use shared::Name;
use shared::api::{
    Call, DeleteExport, DeleteImage, DeleteUpload, FinishUpload, GetExport, GetImage, GetUpload, ListExports,
    ListImages, ListUploads, PostExport, PostImage, PostUpload, UpdateImage, content_path, part_path,
};
use shared::feed::Noun;
use shared::image::{
    CreateExport, CreateImage, CreateUpload, Export, ExportFormat, ImageFormat, PatchImage, SnapshotDisk,
    checksum, fingerprint,
};
use shared::job::{Job, ResourceRole};
use std::io::{IsTerminal, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

/// How often in a row a part may break off without a byte.
const BREAKS: u32 = 10;
/// How long it is waited until an upload goes on.
const AGAIN: Duration = Duration::from_secs(1);

/// What of a file is a hole or none.
const BLOCK: usize = 4096;

/// What a file is said to be.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    /// QEMU's own.
    Qcow2,
    /// The disk, byte for byte.
    Raw,
    /// VMware's, in one file.
    Vmdk,
    /// Hyper-V's.
    Vhdx,
    /// A tar archive with an OVF and VMDKs.
    Ova,
}

impl From<Format> for ImageFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Qcow2 => Self::Qcow2,
            Format::Raw => Self::Raw,
            Format::Vmdk => Self::Vmdk,
            Format::Vhdx => Self::Vhdx,
            Format::Ova => Self::Ova,
        }
    }
}

/// What a disk is written as.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Written {
    /// QEMU's own.
    Qcow2,
    /// The disk, byte for byte.
    Raw,
    /// VMware's, compressed.
    Vmdk,
}

impl From<Written> for ExportFormat {
    fn from(format: Written) -> Self {
        match format {
            Written::Qcow2 => Self::Qcow2,
            Written::Raw => Self::Raw,
            Written::Vmdk => Self::Vmdk,
        }
    }
}

/// `offshoot image …`
#[derive(Subcommand)]
pub enum ImageCommand {
    /// Lists images.
    List(#[command(flatten)] List),
    /// Shows an image.
    Show {
        /// Its name or id.
        image: String,
    },
    /// Uploads an image from this machine; run again after a break, it goes on where that was.
    Upload {
        /// The file.
        file: PathBuf,
        /// The image's name.
        #[arg(long)]
        name: Name,
        /// What the file is; what it looks like if not given.
        #[arg(long, value_enum)]
        format: Option<Format>,
        /// Its SHA-256: the server refuses another file.
        #[arg(long)]
        sha256: Option<String>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Lists uploads that are not finished.
    Uploads(#[command(flatten)] List),
    /// Shows an upload that is not finished.
    ShowUpload {
        /// Its id.
        upload: String,
    },
    /// Throws an upload away.
    DeleteUpload {
        /// Its id.
        upload: String,
    },
    /// Has the server fetch an image by its address, or take a file of its host.
    Import {
        /// http:// or https://, or a path on the server's host.
        from: String,
        /// The image's name.
        #[arg(long)]
        name: Name,
        /// What the file is; what it looks like if not given.
        #[arg(long, value_enum)]
        format: Option<Format>,
        /// Its SHA-256: the server refuses another file.
        #[arg(long)]
        sha256: Option<String>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Makes an image of a snapshot's disk: at once, for nothing is copied.
    OfSnapshot {
        /// The machine, by name or id.
        vm: String,
        /// The snapshot, by name or id.
        snapshot: String,
        /// The number of the disk.
        #[arg(long, default_value_t = 0)]
        disk: u32,
        /// The image's name.
        #[arg(long)]
        name: Name,
        #[command(flatten)]
        wait: Wait,
    },
    /// Gives an image another name.
    Rename {
        /// Its name or id.
        image: String,
        /// The new name.
        name: Name,
    },
    /// Deletes an image; machines that stand on it keep what they stand on.
    Delete {
        /// Its name or id.
        image: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Writes a disk of a machine to a file: of a snapshot, of one taken now, or as it is if the machine is stopped.
    Export {
        /// The machine, by name or id.
        vm: String,
        /// The snapshot, by name or id.
        #[arg(long, conflicts_with = "snapshot_now")]
        snapshot: Option<String>,
        /// Take a snapshot now, and export that.
        #[arg(long)]
        snapshot_now: bool,
        /// The number of the disk.
        #[arg(long, default_value_t = 0)]
        disk: u32,
        /// What the file is to be.
        #[arg(long, value_enum, default_value_t = Written::Qcow2)]
        format: Written,
        /// Wait for the job, fetch the file into this one, and remove it from the server.
        #[arg(long, short)]
        output: Option<PathBuf>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Lists disks that were written to files.
    Exports(#[command(flatten)] List),
    /// Shows one of them.
    ShowExport {
        /// Its id.
        export: String,
    },
    /// Fetches the file of one; run again after a break, it goes on where that was.
    Download {
        /// Its id.
        export: String,
        /// The file to write; its own name, in this directory, if not given.
        #[arg(long, short)]
        output: Option<PathBuf>,
    },
    /// Removes the file of one from the server.
    DeleteExport {
        /// Its id.
        export: String,
    },
}

impl ImageCommand {
    /// Runs it.
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        match self {
            Self::List(list) => list_images(api, list).await,
            Self::Show { image } => {
                api.show(&GetImage { image }, |i| {
                    let size = bytes(i.virtual_bytes);
                    format!(
                        "name  {}\nid    {}\nsize  {size}\nmade  {}",
                        i.name, i.id, i.create_time
                    )
                })
                .await
            }
            Self::Upload {
                file,
                name,
                format,
                sha256,
                wait,
            } => {
                let (size_bytes, fingerprint) = about(&file).await?;
                let request = CreateUpload {
                    name,
                    format: format.map(Into::into),
                    size_bytes,
                    sha256: sha256.map(|s| checksum("sha256", &s)).transpose()?,
                    fingerprint,
                };
                upload(api, &file, request, wait).await
            }
            Self::Uploads(list) => list_uploads(api, list).await,
            Self::ShowUpload { upload } => {
                api.show(&GetUpload { id: upload }, |u| {
                    format!(
                        "name     {}\nid       {}\narrived  {} of {} bytes\nuntil    {}",
                        u.name, u.id, u.received_bytes, u.size_bytes, u.expire_time
                    )
                })
                .await
            }
            Self::DeleteUpload { upload } => api.show(&DeleteUpload { id: upload }, |()| "thrown away").await,
            Self::Import {
                from,
                name,
                format,
                sha256,
                wait,
            } => {
                let web = from.contains("://");
                let request = CreateImage {
                    name,
                    path: (!web).then(|| from.clone()),
                    url: web.then_some(from),
                    snapshot: None,
                    format: format.map(Into::into),
                    sha256,
                    request_id: None,
                };
                api.begin(&PostImage { request }, wait).await
            }
            Self::OfSnapshot {
                vm,
                snapshot,
                disk,
                name,
                wait,
            } => {
                let request = CreateImage {
                    name,
                    url: None,
                    path: None,
                    snapshot: Some(SnapshotDisk { vm, snapshot, disk }),
                    format: None,
                    sha256: None,
                    request_id: None,
                };
                api.begin(&PostImage { request }, wait).await
            }
            Self::Rename { image, name } => {
                let request = PatchImage { name };
                api.show(&UpdateImage { image, request }, |i| {
                    format!("it is {} now", i.name)
                })
                .await
            }
            Self::Delete { image, wait } => api.begin(&DeleteImage { image }, wait).await,
            Self::Export {
                vm,
                snapshot,
                snapshot_now,
                disk,
                format,
                output,
                wait,
            } => {
                let request = CreateExport {
                    format: format.into(),
                    disk,
                    snapshot,
                    snapshot_now,
                    request_id: None,
                };
                let call = PostExport { vm, request };
                match output {
                    Some(output) => export_to(api, &call, &output).await,
                    None => api.begin(&call, wait).await,
                }
            }
            Self::Exports(list) => list_exports(api, list).await,
            Self::ShowExport { export } => api.show(&GetExport { id: export }, |e| shown(&e)).await,
            Self::Download { export, output } => {
                let client = api.client()?;
                let text = client.text(&GetExport { id: export }).await?;
                let export: Export = http::read(&text)?;
                let output = output.unwrap_or_else(|| PathBuf::from(&export.name));
                fetch(&client, &export, &output).await?;
                api.print(&text, export, |_| output.display().to_string())
            }
            Self::DeleteExport { export } => api.show(&DeleteExport { id: export }, |()| "removed").await,
        }
    }
}

async fn list_images(api: &Api, list: List) -> Result<(), Failure> {
    let query = list.into();
    api.show(&ListImages { query }, |page| {
        let mut table = Table::new(["NAME", "SIZE", "CREATED"]);
        for image in &page.images {
            table.row([
                image.name.to_string(),
                bytes(image.virtual_bytes),
                image.create_time.to_string(),
            ]);
        }
        table.of(page.total_size)
    })
    .await
}

async fn list_uploads(api: &Api, list: List) -> Result<(), Failure> {
    let query = list.into();
    api.show(&ListUploads { query }, |page| {
        let mut table = Table::new(["ID", "NAME", "ARRIVED", "OF", "UNTIL", "BY"]);
        for upload in &page.uploads {
            table.row([
                upload.id.to_string(),
                upload.name.to_string(),
                bytes(upload.received_bytes),
                bytes(upload.size_bytes),
                upload.expire_time.to_string(),
                upload.created_by.clone(),
            ]);
        }
        table.of(page.total_size)
    })
    .await
}

async fn list_exports(api: &Api, list: List) -> Result<(), Failure> {
    let query = list.into();
    api.show(&ListExports { query }, |page| {
        let mut table = Table::new(["ID", "NAME", "SIZE", "CREATED", "UNTIL"]);
        for export in &page.exports {
            table.row([
                export.id.to_string(),
                export.name.clone(),
                bytes(export.size_bytes),
                export.create_time.to_string(),
                export.expire_time.to_string(),
            ]);
        }
        table.of(page.total_size)
    })
    .await
}

fn shown(export: &Export) -> String {
    format!(
        "name   {}\nid     {}\nof     {}\nsize   {}\nuntil  {}",
        export.name,
        export.id,
        export.vm_name,
        bytes(export.size_bytes),
        export.expire_time
    )
}

/// A file's size, and what it is told by.
async fn about(file: &Path) -> Result<(u64, Option<String>), Failure> {
    let meta = tokio::fs::metadata(file).await;
    let meta = meta.map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    if !meta.is_file() {
        return Err(format!("{} is no file: name the file of an image", file.display()).into());
    }
    let readable = tokio::fs::File::open(file).await;
    readable.map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    let changed = meta.modified()?.duration_since(UNIX_EPOCH)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    Ok((meta.len(), Some(fingerprint(&name, changed.as_millis() as i64))))
}

/// A bar on a terminal, and nothing elsewhere: a log is not for that.
fn bar(what: &str, total: u64) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(total), target).with_message(what.to_owned());
    let template = "{msg} [{bar:24}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// Goes on with an upload of the same file, or begins one; sends what is missing, over breaks and restarts of
/// the server, and makes the image.
async fn upload(api: &Api, file: &Path, request: CreateUpload, wait: Wait) -> Result<(), Failure> {
    let client = api.client()?;
    let query = List {
        filter: Some(format!("name={}", request.name)),
        order_by: None,
        page_size: None,
        page_token: None,
    };
    let query = query.into();
    let begun = client.call(&ListUploads { query }).await?.uploads;
    let same = begun.into_iter().find(|u| request.goes_on_with(u));
    let mut at = match same {
        Some(upload) => upload,
        None => client.call(&PostUpload { request }).await?,
    };
    let id = at.id.to_string();
    let bar = bar(&format!("uploading {}", at.name), at.size_bytes);
    let mut breaks = 0;
    while at.received_bytes < at.size_bytes {
        let from = at.received_bytes;
        bar.set_position(from);
        let mut open = tokio::fs::File::open(file).await?;
        open.seek(SeekFrom::Start(from)).await?;
        let told = bar.clone();
        let pieces = tokio_util::io::ReaderStream::with_capacity(open, 1 << 20)
            .inspect(move |piece| told.inc(piece.as_ref().map_or(0, |p| p.len() as u64)));
        let body = reqwest::Body::wrap_stream(pieces);
        match client.send_body(&part_path(&id, from), body).await {
            Ok(text) => at = http::read(&text)?,
            // It says how much has arrived: perhaps somebody else sends, or an answer was lost.
            Err(e) if e.may_pass() || is_aborted(&e) => {
                breaks += 1;
                if breaks > BREAKS {
                    return Err(e.into());
                }
                tokio::time::sleep(AGAIN).await;
                match client.call(&GetUpload { id: id.clone() }).await {
                    Ok(now) => {
                        if now.received_bytes > from {
                            breaks = 0;
                        }
                        at = now;
                    }
                    Err(e) if e.may_pass() => {}
                    Err(e) => return Err(e.into()),
                }
            }
            Err(e) => return Err(e.into()),
        }
    }
    bar.finish_and_clear();
    api.begin(&FinishUpload { id }, wait).await
}

fn is_aborted(e: &ClientError) -> bool {
    use shared::Code::{Aborted, FailedPrecondition};
    matches!(e, ClientError::Refused(status) if matches!(status.code, Aborted | FailedPrecondition))
}

/// Follows a job that writes a file, fetches that, and removes it from the server.
pub(super) async fn export_to(
    api: &Api,
    call: &impl Call<Answer = Job>,
    output: &Path,
) -> Result<(), Failure> {
    let client = api.client()?;
    let job: Job = client.call(call).await?;
    let job = api.follow(&client, job).await?;
    super::job::check(&job)?;
    let made = job.resource(ResourceRole::Product, Noun::Export);
    let id = made.ok_or("the job names no file that it wrote")?.id.clone();
    let text = client.text(&GetExport { id: id.clone() }).await?;
    let export: Export = http::read(&text)?;
    fetch(&client, &export, output).await?;
    client.call(&DeleteExport { id }).await?;
    api.print(&text, export, |_| output.display().to_string())
}

/// Parts of a piece that are zeros, or not, by whole blocks.
fn runs(mut rest: &[u8]) -> impl Iterator<Item = (bool, &[u8])> {
    let zeros = |block: &[u8]| block.iter().all(|b| *b == 0);
    std::iter::from_fn(move || {
        let hole = zeros(rest.chunks(BLOCK).next()?);
        let same = rest.chunks(BLOCK).take_while(|block| zeros(block) == hole);
        let (run, after) = rest.split_at(same.map(<[u8]>::len).sum());
        rest = after;
        Some((hole, run))
    })
}

/// Puts a piece behind what a file has, and holes where it is zeros; answers its length.
async fn put(file: &mut tokio::fs::File, end: u64, piece: &[u8]) -> std::io::Result<u64> {
    let mut done = 0;
    for (hole, run) in runs(piece) {
        done += run.len() as u64;
        match hole {
            true => file.set_len(end + done).await?,
            false => file.write_all(run).await?,
        }
    }
    Ok(done)
}

/// Fetches a file into one that has the beginning of it, or nothing.
async fn fetch(client: &Client, export: &Export, output: &Path) -> Result<(), Failure> {
    let mut name = output.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let mut file = tokio::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&part)
        .await
        .map_err(|e| format!("cannot write {}: {e}", part.display()))?;
    let bar = bar(&format!("fetching {}", export.name), export.size_bytes);
    let mut done = file.metadata().await?.len();
    let mut breaks = 0;
    while done < export.size_bytes {
        bar.set_position(done);
        let path = content_path(&export.id.to_string());
        let response = match client.get(&path, Some(format!("bytes={done}-"))).await {
            Ok(response) => response,
            Err(e) if e.may_pass() && breaks < BREAKS => {
                breaks += 1;
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        let mut pieces = response.bytes_stream();
        while let Some(Ok(piece)) = pieces.next().await {
            done += put(&mut file, done, &piece).await?;
            breaks = 0;
            bar.set_position(done);
        }
        file.flush().await?;
    }
    bar.finish_and_clear();
    if done > export.size_bytes {
        return Err(format!("{} is of another file: remove it, and try again", part.display()).into());
    }
    file.sync_all().await?;
    Ok(tokio::fs::rename(&part, output).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[tokio::test]
    async fn zeros_become_holes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        let open = tokio::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .await;
        let mut file = open.unwrap();
        let mut whole = vec![0; 1 << 20];
        whole[300_000..300_005].copy_from_slice(b"here!");
        let mut done = 0;
        for piece in whole.chunks(70_001) {
            done += put(&mut file, done, piece).await.unwrap();
        }
        file.sync_all().await.unwrap();
        assert!(std::fs::read(&path).unwrap() == whole);
        let taken = std::fs::metadata(&path).unwrap().blocks() * 512;
        assert!(taken < 1 << 18, "{taken} bytes");
    }
}
