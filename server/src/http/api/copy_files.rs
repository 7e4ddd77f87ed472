//! The files of copies: looked at and downloaded without a restore.

use crate::copies::{Look, Open, refused};
use crate::http::Server;
use crate::http::audit::Noted;
use crate::http::error::ApiResult;
use crate::http::extract::{Path, Query};
use crate::http::route::Api;
use crate::inventory::copies as found;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use guestfs::{Download, Entry, EntryKind, FileSystem as Found, FilesError, Listing, Trouble, name};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use shared::access::Privilege;
use shared::api::{DEFAULT_PAGE_SIZE, FilePage, MAX_PAGE_SIZE};
use shared::copy::{
    Copy, CopyFileSystems, FileEntry, FileKind, FileQuery, FileSystem, FileSystemTrouble, FilesQuery,
    FilesState,
};
use shared::place::Accelerator;
use shared::{Code, Status, Timestamp};
use utoipa_axum::routes;

/// What stands for itself in the name of a download (RFC 8187).
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

pub(super) fn routes(api: Api) -> Api {
    api.route(Privilege::CopyRestore, routes!(list_file_systems))
        .route(Privilege::CopyRestore, routes!(close_file_systems))
        .route(Privilege::CopyRestore, routes!(list_files))
        .route(Privilege::CopyRestore, routes!(download_file))
}

/// The file systems of a copy. Opens them if they are not: then it answers OPENING at once, and is asked again until it
/// answers READY or FAILED. They are closed when nobody has asked for a file for ten minutes.
#[utoipa::path(get, path = "/api/v1/copies/{copy}/fileSystems", tag = "copies",
    params(("copy" = String, Path, description = "Its id")), responses((status = 200, body = CopyFileSystems)))]
async fn list_file_systems(
    State(server): State<Server>,
    Path(copy): Path<String>,
) -> ApiResult<Json<CopyFileSystems>> {
    let copy = found::copy(server.world(), &copy).await?;
    if server.world().hypervisor.accelerator() == Accelerator::Sim {
        // Simulated disks have nothing on them.
        return Ok(Json(CopyFileSystems {
            state: FilesState::Ready,
            error: None,
            file_systems: Vec::new(),
        }));
    }
    let look = server.world().copies.files(&copy).await.map_err(Status::from)?;
    let (state, error, file_systems) = match look {
        Look::Opening => (FilesState::Opening, None, Vec::new()),
        Look::Failed(status) => (FilesState::Failed, Some(status.message), Vec::new()),
        Look::Ready(open) => {
            let systems = open.systems.into_iter().map(file_system).collect();
            (FilesState::Ready, None, systems)
        }
    };
    Ok(Json(CopyFileSystems {
        state,
        error,
        file_systems,
    }))
}

/// Closes the file systems of a copy, before they are by themselves. Downloads from it end.
#[utoipa::path(delete, path = "/api/v1/copies/{copy}/fileSystems", tag = "copies",
    params(("copy" = String, Path, description = "Its id")), responses((status = 204)))]
async fn close_file_systems(State(server): State<Server>, Path(copy): Path<String>) -> ApiResult<StatusCode> {
    let copy = found::copy(server.world(), &copy).await?;
    server.world().copies.close_files(copy.id).await;
    Ok(StatusCode::NO_CONTENT)
}

/// A directory of a copy whose file systems are open, by the bytes of the names.
#[utoipa::path(get, path = "/api/v1/copies/{copy}/files", tag = "copies",
    params(("copy" = String, Path, description = "Its id"), FilesQuery),
    responses((status = 200, body = FilePage)))]
async fn list_files(
    State(server): State<Server>,
    Path(copy): Path<String>,
    Query(query): Query<FilesQuery>,
) -> ApiResult<Json<FilePage>> {
    let copy = found::copy(server.world(), &copy).await?;
    let path = path_of(&query.path)?;
    let most = query.page_size.unwrap_or(DEFAULT_PAGE_SIZE);
    if !(1..=MAX_PAGE_SIZE).contains(&most) {
        let why = format!("a page has 1 to {MAX_PAGE_SIZE} entries");
        return Err(Status::invalid("pageSize", why).into());
    }
    let token = query.page_token.as_deref().unwrap_or_default();
    let from = match token {
        "" => 0,
        token => token
            .parse()
            .map_err(|_| Status::invalid("pageToken", "it is not one that this call has given"))?,
    };
    let open = open(&server, &copy).await?;
    let listing = open.list(&query.file_system, &path, from, most as usize).await;
    Ok(Json(page(&path, listing.map_err(refused)?)))
}

/// A file of a copy, whole or from a byte on (`Range: bytes=N-`), or a directory as tar. Links are followed, within their file
/// system. It is written down in the audit.
#[utoipa::path(get, path = "/api/v1/copies/{copy}/files/content", tag = "copies",
    params(("copy" = String, Path, description = "Its id"), FileQuery),
    responses((status = 200, content_type = "application/octet-stream"),
        (status = 206, content_type = "application/octet-stream")))]
async fn download_file(
    State(server): State<Server>,
    Path(copy): Path<String>,
    Query(query): Query<FileQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let copy = found::copy(server.world(), &copy).await?;
    let path = path_of(&query.path)?;
    let open = open(&server, &copy).await?;
    let device = &query.file_system;
    let mut from = beginning(&headers).unwrap_or(0);
    let mut download = open.download(device, &path, from).await.map_err(refused)?;
    if download.bytes.is_none() {
        // A tar has another length each time, so there is no part of it.
        from = 0;
    } else if download.bytes == Some(0) && from > 0 {
        download = open.download(device, &path, 0).await.map_err(refused)?;
        let total = download.bytes.unwrap_or_default();
        if total <= from {
            let range = [(header::CONTENT_RANGE, format!("bytes */{total}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, range).into_response());
        }
        from = 0;
    }
    let Download { bytes, mut body } = download;
    // What fails at once is told as an error, not as a file that breaks off.
    let first = body.next().await.transpose().map_err(refused)?;
    let body = futures::stream::iter(first.map(Ok::<_, FilesError>)).chain(body);
    let mut response = Response::new(Body::from_stream(body));
    if from > 0 {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    let kind = match bytes {
        Some(_) => "application/octet-stream",
        None => "application/x-tar",
    };
    let mut put = |name, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    };
    put(header::CONTENT_TYPE, kind.to_owned());
    put(
        header::CONTENT_DISPOSITION,
        disposition(&path, copy.vm_name.as_str(), bytes.is_none()),
    );
    if let Some(bytes) = bytes {
        put(header::ACCEPT_RANGES, "bytes".to_owned());
        put(header::CONTENT_LENGTH, bytes.to_string());
        if from > 0 {
            let total = from + bytes;
            put(
                header::CONTENT_RANGE,
                format!("bytes {from}-{}/{total}", total - 1),
            );
        }
    }
    let what = format!("{device} {}", name::escape(&path));
    response.extensions_mut().insert(Noted(what));
    Ok(response)
}

/// The open files of a copy; begins to open them where they are not.
async fn open(server: &Server, copy: &Copy) -> Result<Open, Status> {
    match server.world().copies.files(copy).await? {
        Look::Ready(open) => Ok(open),
        Look::Failed(status) => Err(status),
        Look::Opening => Err(Status::new(
            Code::Unavailable,
            format!(
                "the files of copy {} are being opened: ask for its file systems until they are READY",
                copy.id
            ),
        )),
    }
}

fn path_of(text: &str) -> Result<Vec<u8>, Status> {
    name::unescape(text).map_err(|e| Status::invalid("path", e))
}

/// Where a range begins that has no end. All other ranges may be answered as if they were not there.
fn beginning(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(header::IF_RANGE) {
        return None;
    }
    let range = headers.get(header::RANGE)?.to_str().ok()?;
    let from = range.strip_prefix("bytes=")?.strip_suffix('-')?;
    from.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| from.parse().ok())?
}

/// The name that a browser gives a download: in ASCII for old ones, and as it is.
fn disposition(path: &[u8], vm: &str, tar: bool) -> String {
    let last = path.rsplit(|b| *b == b'/').find(|part| !part.is_empty());
    let last = String::from_utf8_lossy(last.unwrap_or_default()).into_owned();
    // No directory of whoever downloads, and no file that is hidden there by its name alone.
    let mut name = match last.trim_matches('.') {
        "" => vm.to_owned(),
        _ => last.replace(|c: char| c.is_control() || "\\/:*?\"<>|".contains(c), "_"),
    };
    if tar {
        name.push_str(".tar");
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._ +@,=".contains(c);
    let ascii = name.replace(|c| !plain(c), "_");
    let whole = utf8_percent_encode(&name, NAME);
    format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{whole}")
}

fn file_system(found: Found) -> FileSystem {
    let device = found.device.clone();
    let (trouble, error) = match found.trouble {
        None => (None, None),
        Some(trouble) => {
            let (trouble, error) = match trouble {
                Trouble::Encrypted => (FileSystemTrouble::Encrypted, FilesError::Encrypted(device)),
                Trouble::Swap => (FileSystemTrouble::Swap, FilesError::Unknown(device)),
                Trouble::Unknown => (FileSystemTrouble::Unknown, FilesError::Unknown(device)),
                Trouble::Damaged(why) => (FileSystemTrouble::Damaged, FilesError::Damaged { device, why }),
            };
            (Some(trouble), Some(error.to_string()))
        }
    };
    FileSystem {
        device: found.device,
        disk: found.disk,
        kind: found.kind,
        label: found.label,
        bytes: found.bytes,
        os: found.os,
        trouble,
        error,
    }
}

fn page(path: &[u8], listing: Listing) -> FilePage {
    let mut directory = name::escape(path);
    if !directory.ends_with('/') {
        directory.push('/');
    }
    FilePage {
        entries: (listing.entries.into_iter())
            .map(|entry| file_entry(&directory, entry))
            .collect(),
        next_page_token: listing.next.map(|next| next.to_string()).unwrap_or_default(),
        total_size: listing.total as u64,
    }
}

fn file_entry(directory: &str, entry: Entry) -> FileEntry {
    let micros = |time: time::OffsetDateTime| i64::try_from(time.unix_timestamp_nanos() / 1000).ok();
    FileEntry {
        path: format!("{directory}{}", entry.name),
        name: entry.name,
        kind: match entry.kind {
            EntryKind::File => FileKind::File,
            EntryKind::Directory => FileKind::Directory,
            EntryKind::Symlink => FileKind::Symlink,
            EntryKind::Other => FileKind::Other,
        },
        bytes: entry.bytes,
        modify_time: entry.modified.and_then(micros).map(Timestamp::from_micros),
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        target: entry.target,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_has_a_name_that_can_do_no_harm() {
        let named = |path: &[u8], tar| disposition(path, "web-1", tar);
        let plain = "attachment; filename=\"a b.txt\"; filename*=UTF-8''a%20b.txt";
        assert_eq!(named(b"/etc/a b.txt", false), plain);
        let umlaut = "attachment; filename=\"_.txt\"; filename*=UTF-8''%C3%A4.txt";
        assert_eq!(named("/ä.txt".as_bytes(), false), umlaut);
        let quoted = "attachment; filename=\"a__x\"; filename*=UTF-8''a__x";
        assert_eq!(named(b"/a\"\nx", false), quoted);
        let root = "attachment; filename=\"web-1.tar\"; filename*=UTF-8''web-1.tar";
        assert_eq!(named(b"/", true), root);
        assert_eq!(named(b"/etc/..", true), root);
    }

    #[test]
    fn only_a_range_without_an_end_is_one() {
        let of = |range: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, range.parse().unwrap());
            beginning(&headers)
        };
        assert_eq!(of("bytes=5-"), Some(5));
        for other in [
            "bytes=-5",
            "bytes=1-5",
            "bytes=1-,7-",
            "bytes=-",
            "bytes=+5-",
            "lines=5-",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, "bytes=5-".parse().unwrap());
        headers.insert(header::IF_RANGE, "\"tag\"".parse().unwrap());
        assert_eq!(beginning(&headers), None);
    }
}
