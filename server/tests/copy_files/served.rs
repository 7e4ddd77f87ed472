//! The same through a server: a copy in a vault, its files over HTTP, and what is left when the server ends or dies.

use super::site::{Answer, Site, send};
use super::{big, processes};
use reqwest::Method;
use serde_json::json;
use server::config::Config;
use server::copies::about::{About, disk_name};
use shared::api::{Call, CloseFileSystems, FilePage, ListFileSystems, ListFiles, answer, file_content_path};
use shared::copy::{CopiedMachine, CopyDisk, CopyFileSystems, FileKind, FilesQuery, FilesState};
use shared::snapshot::Consistency;
use shared::vm::Firmware;
use shared::{SnapshotId, Timestamp, VmId};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;
use vault::store::Local;
use vault::{CancellationToken, Commit, Opening, Vault};

const PASSPHRASE: &str = "a passphrase for the tests";
/// To build what the machine boots, and to boot it, on a busy host without KVM.
const PATIENCE: Duration = Duration::from_secs(240);

/// A raw disk with a file system: `/big`, `/sub/small` and a name that is not UTF-8.
fn disk(dir: &Path) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let (tree, image) = (dir.join("tree"), dir.join("disk.raw"));
    std::fs::create_dir_all(tree.join("sub")).unwrap();
    std::fs::write(tree.join("big"), big()).unwrap();
    std::fs::write(tree.join("sub/small"), "small").unwrap();
    std::fs::write(tree.join(std::ffi::OsStr::from_bytes(b"\xff \"x")), "odd").unwrap();
    std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let made = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-L", "data", "-d"])
        .args([&tree, &image])
        .status();
    assert!(made.unwrap().success());
    image
}

/// Puts the disk into the vault of the target, as a copy that some other server has made.
async fn copy(place: &Path, image: &Path) -> Uuid {
    let opening = Opening::Passphrase(PASSPHRASE.into());
    let vault = Vault::open(Arc::new(Local::new(place.to_owned())), &opening)
        .await
        .unwrap();
    let writer = vault.begin(1).await.unwrap();
    let source = vault::source::Raw::new(std::fs::File::open(image).unwrap()).unwrap();
    let never = CancellationToken::new();
    let name = disk_name(0);
    let disk = writer.disk(&name, Arc::new(source), None, json!(null), &never);
    let disk = disk.await.unwrap();
    let about = About {
        vm: VmId(Uuid::now_v7()),
        vm_name: "web-1".parse().unwrap(),
        snapshot: SnapshotId(Uuid::now_v7()),
        snapshot_name: "first".parse().unwrap(),
        snapshot_time: Timestamp::from_micros(1),
        consistency: Consistency::Offline,
        machine: CopiedMachine {
            cpus: 1,
            memory_mib: 128,
            firmware: Firmware::Bios,
            labels: BTreeMap::new(),
            description: String::new(),
            nics: 0,
        },
        disks: vec![CopyDisk {
            name: disk_name(0),
            number: 0,
            slot: 1,
            bytes: disk.bytes,
        }],
        policy: None,
        adapted_of: None,
    };
    let what = Commit {
        id: Uuid::now_v7(),
        about: serde_json::to_value(about).unwrap(),
        parent: None,
        now: 2,
    };
    writer.commit(vec![disk], what).await.unwrap().id
}

/// The server's configuration, with what the machines boot where other tests have it, too.
fn config(dir: &Path, sim: bool) -> Config {
    let data = dir.join("data");
    if let Some(kept) = std::env::var_os("OFFSHOOT_CACHE") {
        let (kept, cache) = (Path::new(&kept).join("files"), data.join("cache"));
        std::fs::create_dir_all(&kept).unwrap();
        std::fs::create_dir_all(&cache).unwrap();
        let _ = std::os::unix::fs::symlink(kept, cache.join("files"));
    }
    Config {
        sim,
        program: Some(env!("CARGO_BIN_EXE_offshoot").into()),
        ..Config::simulated(data)
    }
}

/// A server with a target that has a copy.
async fn site(dir: tempfile::TempDir, sim: bool) -> (Site, String) {
    let place = dir.path().join("vault");
    let image = disk(dir.path());
    let config = config(dir.path(), sim);
    let site = Site::start_with(dir, config).await;
    let target = json!({"name": "shelf", "local": {"path": place}, "passphrase": PASSPHRASE});
    let made = site.post("/api/v1/targets", target).await;
    assert_eq!(made.status, 201, "{made:?}");
    let copy = copy(&place, &image).await;
    let checked = site.post("/api/v1/targets/shelf/check", json!({})).await;
    assert_eq!(
        (checked.status, &checked.json()["copies"]),
        (200, &json!(1)),
        "{checked:?}"
    );
    (site, copy.to_string())
}

/// Waits until the files are open; asks as a client does.
async fn opened(ask: impl AsyncFn() -> Answer) -> CopyFileSystems {
    let end = Instant::now() + PATIENCE;
    loop {
        let said = ask().await;
        let systems: CopyFileSystems = answer(said.status, &said.body).unwrap();
        if systems.state != FilesState::Opening {
            return systems;
        }
        assert!(Instant::now() < end, "the files do not open");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn gone(run: &Path) {
    let end = Instant::now() + PATIENCE;
    // What shows the disks is told of in its arguments, and has nothing of this in its environment.
    while !processes(run).is_empty() {
        assert!(Instant::now() < end, "{:?}", processes(run));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The processes that show disks to browsers.
fn shown(run: &Path) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|p| std::fs::read(p.path().join("cmdline")).ok());
    let run = run.to_str().unwrap();
    lines
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .filter(|line| line.contains("nbd-server") && line.contains(run))
        .count()
}

fn left(run: &Path) -> usize {
    std::fs::read_dir(run).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_files_of_a_copy_over_http() {
    let (site, copy) = site(tempfile::tempdir().unwrap(), false).await;
    let data = site.running.server.world().data_dir.clone();
    let run = data.join("run/files");
    let systems_of = ListFileSystems { copy: copy.clone() }.raw().path;
    let list = |device: &str, path: &str| ListFiles {
        copy: copy.clone(),
        query: FilesQuery {
            file_system: device.to_owned(),
            path: path.to_owned(),
            page_size: Some(2),
            page_token: None,
        },
    };

    let asked = Instant::now();
    let first = site.get(&list("/dev/sda", "/").raw().path).await;
    assert_eq!(
        (first.status, first.error().as_str()),
        (503, "UNAVAILABLE"),
        "{first:?}"
    );
    let said = site.get(&systems_of).await;
    assert_eq!(said.json(), json!({"state": "OPENING", "fileSystems": []}));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    let systems = opened(async || site.get(&systems_of).await).await;
    println!("{:6.2} s  open", asked.elapsed().as_secs_f64());
    assert_eq!((systems.state, systems.error), (FilesState::Ready, None));
    let [system] = &systems.file_systems[..] else {
        panic!("{:?}", systems.file_systems)
    };
    assert_eq!(
        (
            system.kind.as_str(),
            system.label.as_deref(),
            system.disk.as_deref()
        ),
        ("ext4", Some("data"), Some("disk0"))
    );
    let device = system.device.as_str();

    let mut call = list(device, "/");
    let mut entries = Vec::new();
    loop {
        let said = site.get(&call.raw().path).await;
        let page: FilePage = answer(said.status, &said.body).unwrap();
        assert_eq!(page.total_size, 4);
        entries.extend(page.entries);
        if page.next_page_token.is_empty() {
            break;
        }
        call.query.page_token = Some(page.next_page_token);
    }
    let names: Vec<_> = entries.iter().map(|e| (e.name.as_str(), e.kind)).collect();
    assert_eq!(
        names,
        [
            ("big", FileKind::File),
            ("lost+found", FileKind::Directory),
            ("sub", FileKind::Directory),
            ("\\xff \"x", FileKind::File),
        ]
    );
    downloads(&site, &copy, device, &entries[3].path).await;

    let content = |path: &str| file_content_path(&copy, device, path);
    for (path, code) in [
        (content("/none"), "NOT_FOUND"),
        (content("\\x"), "INVALID_ARGUMENT"),
        (list(device, "/big").raw().path, "INVALID_ARGUMENT"),
        (list("/dev/sdz", "/").raw().path, "NOT_FOUND"),
        (
            format!("{}&pageToken=x", list(device, "/").raw().path),
            "INVALID_ARGUMENT",
        ),
    ] {
        assert_eq!(site.get(&path).await.error(), code, "{path}");
    }
    let told = site.get("/api/v1/audit").await.json().to_string();
    assert!(told.contains(&format!("{device} /sub")), "{told}");
    assert!(!told.contains("/none"), "{told}");

    // A client that goes away in the midst of a tar: others are answered.
    let response = site.request(Method::GET, &content("/")).send().await.unwrap();
    drop(response);
    assert_eq!(site.get(&list(device, "/sub").raw().path).await.status, 200);

    let close = CloseFileSystems { copy: copy.clone() }.raw();
    let closed = send(site.request(Method::DELETE, &close.path)).await;
    assert_eq!(closed.status, 204, "{closed:?}");
    assert_eq!((left(&run), shown(&run), processes(&run)), (0, 0, Vec::new()));

    // A server that stops while files are being opened leaves nothing, either.
    assert_eq!(site.get(&systems_of).await.json()["state"], "OPENING");
    let _dir = site.stop().await;
    gone(&run).await;
    assert_eq!((left(&run), shown(&run)), (0, 0));
}

async fn downloads(site: &Site, copy: &str, device: &str, odd: &str) {
    let get = |path: &str| site.request(Method::GET, &file_content_path(copy, device, path));
    let big = big();
    let whole = get("/big").send().await.unwrap();
    assert_eq!(whole.status(), 200);
    assert_eq!(whole.headers()["content-length"], big.len().to_string().as_str());
    assert!(whole.bytes().await.unwrap() == big, "not the same");

    let part = get("/big")
        .header("range", "bytes=19000001-")
        .send()
        .await
        .unwrap();
    let range = format!("bytes 19000001-{}/{}", big.len() - 1, big.len());
    assert_eq!(part.status(), 206);
    assert_eq!(part.headers()["content-range"], range.as_str());
    assert!(part.bytes().await.unwrap() == big[19_000_001..], "not the same");
    let beyond = get("/big").header("range", format!("bytes={}-", big.len()));
    let beyond = send(beyond).await;
    let all = format!("bytes */{}", big.len());
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, all.as_str())
    );

    let odd = send(get(odd)).await;
    assert_eq!((odd.status, odd.body.as_str()), (200, "odd"), "{odd:?}");
    let name = "attachment; filename=\"_ _x\"; filename*=UTF-8''%EF%BF%BD%20_x";
    assert_eq!(odd.header("content-disposition"), name);

    let tar = get("/sub").send().await.unwrap();
    assert_eq!(tar.headers()["content-type"], "application/x-tar");
    let tar = tar.bytes().await.unwrap();
    let mut archive = tar::Archive::new(&tar[..]);
    let mut small = archive.entries().unwrap().map(Result::unwrap);
    let mut small = small.find(|e| e.path_bytes().ends_with(b"small")).unwrap();
    let mut text = String::new();
    small.read_to_string(&mut text).unwrap();
    assert_eq!(text, "small");
}

/// What it has started ends, and the next server takes away what stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_while_files_are_open() {
    struct Killed(Child);
    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let (site, copy) = site(tempfile::tempdir().unwrap(), false).await;
    let run = &site.running.server.world().data_dir.join("run/files");
    let (token, systems) = (site.token.clone(), ListFileSystems { copy }.raw().path);
    let dir = site.stop().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let server = Command::new(env!("CARGO_BIN_EXE_offshoot"))
        .args(["serve", "--listen", &address.to_string(), "--data-dir"])
        .arg(dir.path().join("data"))
        .stdout(Stdio::null())
        .spawn();
    let server = Killed(server.unwrap());
    let client = super::site::client();
    let url = format!("http://{address}{systems}");
    let end = Instant::now() + PATIENCE;
    while client.get(&url).bearer_auth(&token).send().await.is_err() {
        assert!(Instant::now() < end, "the server does not start");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let found = opened(async || send(client.get(&url).bearer_auth(&token)).await).await;
    assert_eq!(found.state, FilesState::Ready, "{found:?}");
    assert_eq!(shown(run), 1);
    assert!(!processes(run).is_empty());
    drop(server);
    gone(run).await;
    assert!(left(run) > 0);

    let config = config(dir.path(), false);
    let site = Site::start_with(dir, config).await;
    assert_eq!((left(run), shown(run)), (0, 0));
    site.stop().await;
}

#[tokio::test]
async fn the_simulation_has_no_files() {
    let (site, copy) = site(tempfile::tempdir().unwrap(), true).await;
    let said = site.get(&ListFileSystems { copy }.raw().path).await;
    let said: CopyFileSystems = serde_json::from_str(&said.body).unwrap();
    assert_eq!((said.state, said.file_systems.len()), (FilesState::Ready, 0));
    site.stop().await;
}
