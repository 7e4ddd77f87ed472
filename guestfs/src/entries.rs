//! Directories and their entries.

use super::error::FilesError;
use super::name::{escape, quote};
use super::session::Session;
use super::{Entry, EntryKind, LIMIT, Listing};
use std::collections::HashMap;

/// Most entries of a page.
pub(crate) const PAGE: usize = 1000;
/// As many are asked after at once; an answer of guestfish's machine is at most 4 MiB.
const AT_ONCE: usize = 250;

const TYPE: u64 = 0o170_000;
const REGULAR: u64 = 0o100_000;
const DIRECTORY: u64 = 0o040_000;
const SYMLINK: u64 = 0o120_000;

/// A page of a mounted directory, in the order of the names' bytes.
pub(crate) async fn list(
    session: &mut Session,
    path: &[u8],
    from: usize,
    most: usize,
) -> Result<Listing, FilesError> {
    let command = format!("ls0 {} -", quote(path));
    let said = session.run("list a directory", &command, LIMIT).await;
    let said = said.map_err(|e| about(path, e))?;
    let mut names: Vec<&[u8]> = said.bytes.split(|b| *b == 0).filter(|n| !n.is_empty()).collect();
    if said.cut {
        // A part of a name, perhaps.
        names.pop();
    }
    names.sort_unstable();
    let total = names.len();
    let page = names.get(from.min(total)..).unwrap_or_default();
    let page = &page[..page.len().min(most.clamp(1, PAGE))];
    let mut entries = Vec::with_capacity(page.len());
    for some in page.chunks(AT_ONCE) {
        stat(session, path, some, &mut entries).await?;
    }
    let next = from.saturating_add(page.len());
    Ok(Listing {
        entries,
        total,
        complete: !said.cut,
        next: (next < total).then_some(next),
    })
}

async fn stat(
    session: &mut Session,
    path: &[u8],
    names: &[&[u8]],
    entries: &mut Vec<Entry>,
) -> Result<(), FilesError> {
    // The list is one word, of which guestfish makes words again, by rules that not every name can be written in.
    let plain = |name: &[u8]| !name.contains(&b'\'') && !name.contains(&b'\\');
    let mut list = Vec::new();
    for name in names.iter().filter(|n| plain(n)) {
        list.extend_from_slice(&[b"'", *name, b"' "].concat());
    }
    let mut text = String::new();
    if !list.is_empty() {
        let command = format!("lstatnslist {} {}", quote(path), quote(&list));
        let said = session.run("look at files", &command, LIMIT).await;
        let said = said.map_err(|e| about(path, e))?;
        text = String::from_utf8_lossy(&said.bytes).into_owned();
    }
    let mut plains = text.split("] = {\n").skip(1).map(fields);
    let mut stats = Vec::with_capacity(names.len());
    for name in names {
        if plain(name) {
            stats.push(plains.next().unwrap_or_default());
            continue;
        }
        let command = format!("lstatns {}", quote(&join(path, name)));
        let said = session.run("look at a file", &command, LIMIT).await;
        let said = said.map_err(|e| about(path, e))?;
        stats.push(fields(&String::from_utf8_lossy(&said.bytes)));
    }
    for (name, stat) in names.iter().zip(stats) {
        let mut entry = entry(name, &stat);
        if entry.kind == EntryKind::Symlink {
            let command = format!("readlink {}", quote(&join(path, name)));
            entry.target = match session.run("read a link", &command, LIMIT).await {
                Ok(said) => Some(escape(said.bytes.strip_suffix(b"\n").unwrap_or(&said.bytes))),
                Err(FilesError::Refused { .. }) => None,
                Err(e) => return Err(e),
            };
        }
        entries.push(entry);
    }
    Ok(())
}

/// The regular file or directory at a path, links followed.
pub(crate) async fn find(session: &mut Session, path: &[u8]) -> Result<Entry, FilesError> {
    let command = format!("statns {}", quote(path));
    let said = session.run("look at a file", &command, LIMIT).await;
    let said = said.map_err(|e| about(path, e))?;
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
    Ok(entry(name, &fields(&String::from_utf8_lossy(&said.bytes))))
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut joined = path.to_vec();
    if !joined.ends_with(b"/") {
        joined.push(b'/');
    }
    joined.extend_from_slice(name);
    joined
}

fn fields(text: &str) -> HashMap<String, i64> {
    let pairs = text.lines().filter_map(|line| line.split_once(": "));
    pairs
        .filter_map(|(key, value)| Some((key.trim().to_owned(), value.parse().ok()?)))
        .collect()
}

fn entry(name: &[u8], stat: &HashMap<String, i64>) -> Entry {
    let field = |key: &str| stat.get(key).copied().unwrap_or(0);
    let number = |key: &str| u64::try_from(field(key)).unwrap_or(0);
    let id = |key: &str| u32::try_from(field(key)).unwrap_or(0);
    let mode = number("st_mode");
    Entry {
        name: escape(name),
        kind: match mode & TYPE {
            REGULAR => EntryKind::File,
            DIRECTORY => EntryKind::Directory,
            SYMLINK => EntryKind::Symlink,
            _ => EntryKind::Other,
        },
        bytes: number("st_size"),
        modified: time::OffsetDateTime::from_unix_timestamp(field("st_mtime_sec")).ok(),
        mode: u32::try_from(mode & 0o7777).unwrap_or(0),
        uid: id("st_uid"),
        gid: id("st_gid"),
        target: None,
    }
}

/// What guestfish says of a path.
pub(crate) fn about(path: &[u8], error: FilesError) -> FilesError {
    let FilesError::Refused { op, why } = error else {
        return error;
    };
    let path = escape(path);
    if why.ends_with("No such file or directory") {
        FilesError::NotFound(path)
    } else if why.ends_with("Not a directory") {
        FilesError::NotADirectory(path)
    } else {
        FilesError::Refused { op, why }
    }
}
