//! `offshoot copy files` and `offshoot copy get`: what is in a copy, without a restore.

use super::http::{Client, ClientError, read};
use super::table::{Table, bytes};
use super::{Api, Failure};
use clap::Args;
use futures::StreamExt;
use reqwest::header::CONTENT_TYPE;
use shared::api::{FilePage, ListFileSystems, ListFiles, MAX_PAGE_SIZE, file_content_path};
use shared::copy::{CopyFileSystems, FileEntry, FileKind, FileSystem, FilesQuery, FilesState};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

/// How long file systems may take to open.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long after it is asked again whether they are.
const AGAIN: Duration = Duration::from_millis(500);

/// `offshoot copy files …`
#[derive(Args)]
pub struct CopyFiles {
    /// The copy's id.
    copy: String,
    /// The device of a file system; all file systems are listed if neither it nor a path is given.
    #[arg(long)]
    file_system: Option<String>,
    /// A directory; its file system need not be named where only one can be read.
    path: Option<String>,
}

/// `offshoot copy get …`
#[derive(Args)]
pub struct CopyGet {
    /// The copy's id.
    copy: String,
    /// The device of its file system; it need not be named where only one can be read.
    #[arg(long)]
    file_system: Option<String>,
    /// The path of a file, or of a directory, which comes as tar: as `offshoot copy files` writes it.
    path: String,
    /// The file to write, `-` for standard output; named as what is downloaded if not given.
    #[arg(short, long)]
    output: Option<PathBuf>,
}

impl CopyFiles {
    /// Runs it.
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        let client = api.client()?;
        let (text, opened) = open(&client, &self.copy).await?;
        if self.file_system.is_none() && self.path.is_none() {
            return api.print(&text, opened, |opened| systems(&opened.file_systems));
        }
        let query = FilesQuery {
            file_system: one_of(&opened, self.file_system)?,
            path: self.path.unwrap_or_else(|| "/".to_owned()),
            page_size: Some(MAX_PAGE_SIZE),
            page_token: None,
        };
        let page = all(&client, self.copy, query).await?;
        api.print(&serde_json::to_string(&page)?, page, |page| listed(&page.entries))
    }
}

impl CopyGet {
    /// Runs it.
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        let client = api.client()?;
        let (_, opened) = open(&client, &self.copy).await?;
        let device = one_of(&opened, self.file_system)?;
        let path = file_content_path(&self.copy, &device, &self.path);
        let response = client.get(&path, None).await?;
        if self.output.as_deref() == Some(Path::new("-")) {
            let out = std::io::stdout().as_fd().try_clone_to_owned()?;
            let mut out = tokio::fs::File::from_std(out.into());
            return save(&client, response, &mut out).await;
        }
        let tar = response.headers().get(CONTENT_TYPE);
        let tar = tar.is_some_and(|kind| kind == "application/x-tar");
        let output = self.output.unwrap_or_else(|| file_name(&self.path, tar));
        let mut part = output.clone().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let cannot = |e| format!("cannot write {}: {e}", part.display());
        let mut file = tokio::fs::File::create(&part).await.map_err(cannot)?;
        save(&client, response, &mut file).await?;
        file.sync_all().await.map_err(cannot)?;
        tokio::fs::rename(&part, &output).await?;
        let told = output.display().to_string();
        api.print(&serde_json::json!({ "file": told }).to_string(), told, |told| {
            told
        })
    }
}

/// Waits until the file systems of a copy are open.
async fn open(client: &Client, copy: &str) -> Result<(String, CopyFileSystems), Failure> {
    let call = ListFileSystems {
        copy: copy.to_owned(),
    };
    let began = Instant::now();
    loop {
        let text = client.text(&call).await?;
        let answer: CopyFileSystems = read(&text)?;
        match answer.state {
            FilesState::Ready => return Ok((text, answer)),
            FilesState::Failed => {
                let why = answer.error.unwrap_or_default();
                return Err(format!("the files of copy {copy} cannot be opened: {why}").into());
            }
            FilesState::Opening if began.elapsed() > PATIENCE => {
                let waited = PATIENCE.as_secs();
                return Err(format!("the files of copy {copy} are not open after {waited} s").into());
            }
            FilesState::Opening => tokio::time::sleep(AGAIN).await,
        }
    }
}

/// The file system that was named, or the one that can be read.
fn one_of(opened: &CopyFileSystems, named: Option<String>) -> Result<String, Failure> {
    if let Some(named) = named {
        return Ok(named);
    }
    let mut readable = opened.file_systems.iter().filter(|fs| fs.trouble.is_none());
    match (readable.next(), readable.next()) {
        (Some(one), None) => Ok(one.device.clone()),
        _ => {
            let all = systems(&opened.file_systems);
            Err(format!("name one of these by --file-system:\n{all}").into())
        }
    }
}

/// A directory, whole.
async fn all(client: &Client, copy: String, query: FilesQuery) -> Result<FilePage, ClientError> {
    let mut call = ListFiles { copy, query };
    let mut whole = client.call(&call).await?;
    while !whole.next_page_token.is_empty() {
        call.query.page_token = Some(std::mem::take(&mut whole.next_page_token));
        let next = client.call(&call).await?;
        whole.entries.extend(next.entries);
        whole.next_page_token = next.next_page_token;
    }
    Ok(whole)
}

async fn save(client: &Client, response: reqwest::Response, to: &mut tokio::fs::File) -> Result<(), Failure> {
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        to.write_all(&piece.map_err(|e| client.broke_off(e))?).await?;
    }
    Ok(to.flush().await?)
}

/// What a download is written to: a file of this directory, whatever it is called there.
fn file_name(path: &str, tar: bool) -> PathBuf {
    let last = path.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default();
    let name = match last.trim_matches('.') {
        "" => "files",
        _ => last,
    };
    PathBuf::from(format!("{name}{}", if tar { ".tar" } else { "" }))
}

fn systems(all: &[FileSystem]) -> String {
    let mut table = Table::new(["DEVICE", "DISK", "KIND", "LABEL", "SIZE", "SYSTEM", "NOTE"]);
    for fs in all {
        table.row([
            fs.device.clone(),
            fs.disk.clone().unwrap_or_default(),
            fs.kind.clone(),
            fs.label.clone().unwrap_or_default(),
            fs.bytes.map(bytes).unwrap_or_default(),
            fs.os.clone().unwrap_or_default(),
            fs.error.clone().unwrap_or_default(),
        ]);
    }
    table.to_string()
}

fn listed(entries: &[FileEntry]) -> String {
    let mut table = Table::new(["MODE", "OWNER", "SIZE", "WRITTEN", "NAME"]);
    for entry in entries {
        let kind = match entry.kind {
            FileKind::File => '-',
            FileKind::Directory => 'd',
            FileKind::Symlink => 'l',
            FileKind::Other => '?',
        };
        let target = entry.target.as_ref().map(|target| format!(" -> {target}"));
        table.row([
            format!("{kind}{}", permissions(entry.mode)),
            format!("{}:{}", entry.uid, entry.gid),
            bytes(entry.bytes),
            entry.modify_time.map(|time| time.to_string()).unwrap_or_default(),
            format!("{}{}", entry.name, target.unwrap_or_default()),
        ]);
    }
    table.to_string()
}

/// As `ls` writes them, without the bits above the nine.
fn permissions(mode: u32) -> String {
    let bit = |(at, letter)| {
        if mode & (0o400_u32 >> at) == 0 {
            '-'
        } else {
            letter
        }
    };
    "rwxrwxrwx".chars().enumerate().map(bit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_stays_in_this_directory() {
        assert_eq!(file_name("/etc/passwd", false), Path::new("passwd"));
        assert_eq!(file_name("/etc/", true), Path::new("etc.tar"));
        assert_eq!(file_name("/", true), Path::new("files.tar"));
        assert_eq!(file_name("/etc/..", false), Path::new("files"));
    }

    #[test]
    fn permissions_are_as_people_know_them() {
        assert_eq!(permissions(0o4754), "rwxr-xr--");
    }

    #[test]
    fn the_one_that_can_be_read_need_not_be_named() {
        let system = |device: &str, trouble| FileSystem {
            device: device.to_owned(),
            disk: None,
            kind: "ext4".to_owned(),
            label: None,
            bytes: None,
            os: None,
            trouble,
            error: None,
        };
        let swap = Some(shared::copy::FileSystemTrouble::Swap);
        let mut opened = CopyFileSystems {
            state: FilesState::Ready,
            error: None,
            file_systems: vec![system("/dev/sda1", swap), system("/dev/sda2", None)],
        };
        assert_eq!(one_of(&opened, None).unwrap(), "/dev/sda2");
        opened.file_systems.push(system("/dev/sdb", None));
        assert!(
            one_of(&opened, None)
                .unwrap_err()
                .to_string()
                .contains("/dev/sdb")
        );
        assert_eq!(one_of(&opened, Some("/dev/sdb".into())).unwrap(), "/dev/sdb");
    }
}
