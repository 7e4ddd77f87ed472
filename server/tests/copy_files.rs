//! The files of copies, read from real file systems by the real guestfish.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../../guestfs/tests/common/disks.rs"]
#[allow(dead_code)]
mod disks;
#[path = "copy_files/served.rs"]
mod served;
#[allow(dead_code)]
#[path = "http/site.rs"]
mod site;

use disks::{Served, guestfish, image, kvm, luks};
use futures::StreamExt;
use guestfs::{
    Browser, Disk, EntryKind, FileSystem, FilesError, Helper, Listing, Setup, Trouble, installed, name,
};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What stands in the big file, twenty MiB.
fn big() -> Vec<u8> {
    // A generator with a short period would look the same one piece later.
    let mut x = 88_172_645_463_325_252_u64;
    let words = std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    });
    words.take((20 << 20) / 8).flatten().collect()
}

const MAKE: &str = r#"
run
part-disk /dev/sda mbr
mkfs ext4 /dev/sda1 label:root
mkfs xfs /dev/sdb label:data
part-disk /dev/sdc mbr
mkfs vfat /dev/sdc1 label:EFI
part-disk /dev/sdd mbr
mkfs ntfs /dev/sdd1 label:Windows
pvcreate /dev/sde
vgcreate vg0 /dev/sde
lvcreate home vg0 40
mkfs ext4 /dev/vg0/home label:home
mkfs ext4 /dev/sdf label:broken
mount /dev/sda1 /
mkdir "/sp ace"
write "/sp ace/new\nline" n
write "/sp ace/\xff\xfe" b
write "/sp ace/\xc3\xa4\xe2\x82\xac" u
write "/sp ace/back\\slash \"q\" # | cat" q
write "/sp ace/'it's\\" i
ln-s /etc/os-release /link
ln-s "/sp ace" /folder
mkfifo 0644 /pipe
touch /empty
upload big /big
mkdir /etc
write /etc/os-release "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"
chown 1000 100 /empty
chmod 0640 /empty
mkdir /many
fill-dir /many 2500
umount-all
mount /dev/sdb /
upload big /big
umount-all
mount /dev/sdc1 /
mkdir /EFI
write "/EFI/\xc3\xa4.txt" v
umount-all
mount /dev/sdd1 /
mkdir-p /Windows/System32
write /Windows/System32/ntoskrnl.exe MZ
write "/\xc3\xa4 file.txt" w
umount-all
mount /dev/vg0/home /
write /lv lv
umount-all
"#;
const DISKS: [&str; 8] = ["ext4", "xfs", "vfat", "ntfs", "lvm", "damaged", "luks", "empty"];

/// Makes an image of each disk.
fn images(dir: &Path) {
    std::fs::write(dir.join("big"), big()).unwrap();
    let mut script = String::new();
    for disk in DISKS {
        image(dir, disk, if disk == "xfs" { 320 << 20 } else { 64 << 20 });
        if !["luks", "empty"].contains(&disk) {
            script += &format!("add-drive {disk} format:raw\n");
        }
    }
    script += MAKE;
    guestfish(dir, &script);
    let mut damaged = std::fs::File::options()
        .write(true)
        .open(dir.join("damaged"))
        .unwrap();
    // The superblock stays; what it speaks of does not.
    std::io::Seek::seek(&mut damaged, std::io::SeekFrom::Start(2048)).unwrap();
    damaged.write_all(&big()[..4 << 20]).unwrap();
    luks(&dir.join("luks"));
}

fn setup(dir: &Path) -> Setup {
    Setup {
        helper: Helper {
            program: PathBuf::from(env!("CARGO_BIN_EXE_offshoot")),
        },
        run_dir: dir.join("run"),
        cache_dir: std::env::var_os("OFFSHOOT_CACHE")
            .map_or(dir.join("cache"), |c| Path::new(&c).join("files")),
        kvm: kvm(),
        idle: Duration::from_secs(600),
        first_try: guestfs::FIRST_TRY,
    }
}

async fn read(browser: &Browser, device: &str, path: &str, from: u64) -> Vec<u8> {
    let download = browser.download(device, path.as_bytes(), from).await.unwrap();
    let mut all = Vec::new();
    let mut body = download.body;
    while let Some(piece) = body.next().await {
        all.extend_from_slice(&piece.unwrap());
    }
    if let Some(bytes) = download.bytes {
        assert_eq!(bytes, all.len() as u64);
    }
    all
}

async fn list(browser: &Browser, device: &str, path: &str) -> Listing {
    browser.list(device, path.as_bytes(), 0, 1000).await.unwrap()
}

fn names(listing: &Listing) -> Vec<&str> {
    listing.entries.iter().map(|e| e.name.as_str()).collect()
}

fn said(start: Instant, what: &str) {
    println!("{:6.2} s  {what}", start.elapsed().as_secs_f64());
}

/// The processes whose command line names a path.
fn processes(path: &Path) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|p| {
        std::fs::read(p.path().join("environ"))
            .ok()
            .zip(std::fs::read(p.path().join("cmdline")).ok())
    });
    let path = path.to_str().unwrap();
    lines
        .filter(|(environ, _)| String::from_utf8_lossy(environ).contains(path))
        .map(|(_, cmdline)| String::from_utf8_lossy(&cmdline).replace('\0', " "))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_files_of_a_copy() {
    installed().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let start = Instant::now();
    images(dir.path());
    said(start, "images made");
    let served = DISKS.map(|name| Served::new(dir.path(), name, &dir.path().join(name), "raw"));
    let disks: Vec<_> = served.iter().map(|served| served.disk.clone()).collect();
    let setup = setup(dir.path());
    let start = Instant::now();
    let browser = Browser::open(&disks, &setup).await.unwrap();
    said(start, "opened");

    let start = Instant::now();
    let systems = browser.file_systems().await.unwrap();
    said(start, "file systems");
    all_are_found(&systems);
    let device = |disk: &str| {
        let on = |s: &&FileSystem| s.disk.as_deref() == Some(disk);
        systems.iter().find(on).unwrap().device.clone()
    };
    names_of_any_bytes(&browser, &device("ext4")).await;
    pages(&browser, &device("ext4")).await;
    for (disk, path, text) in [("vfat", "/EFI/ä.txt", "v"), ("ntfs", "/ä file.txt", "w")] {
        assert_eq!(read(&browser, &device(disk), path, 0).await, text.as_bytes());
    }
    assert_eq!(names(&list(&browser, &device("vfat"), "/EFI").await), ["ä.txt"]);
    assert_eq!(read(&browser, "/dev/vg0/home", "/lv", 0).await, b"lv");
    refusals(&browser, &device).await;
    downloads(&browser, &device("ext4"), &device("xfs")).await;

    let start = Instant::now();
    browser.close().await;
    said(start, "closed");
    let gone = browser.list(&device("xfs"), b"/", 0, 10).await;
    assert!(matches!(gone, Err(FilesError::Ended)), "{gone:?}");
    nothing_is_left(&setup);
    ends(&disks[7..], &setup).await;
}

fn all_are_found(systems: &[FileSystem]) {
    let found: Vec<_> = systems
        .iter()
        .map(|s| {
            (
                s.disk.as_deref(),
                s.kind.as_str(),
                s.label.as_deref(),
                s.os.as_deref(),
            )
        })
        .collect();
    let (linux, windows) = (Some("Debian GNU/Linux 12 (bookworm)"), Some("Windows"));
    assert_eq!(
        found,
        [
            (None, "ext4", Some("home"), None),
            (Some("damaged"), "ext4", Some("broken"), None),
            (Some("empty"), "unknown", None, None),
            (Some("ext4"), "ext4", Some("root"), linux),
            (Some("luks"), "crypto_LUKS", None, None),
            (Some("ntfs"), "ntfs", Some("Windows"), windows),
            (Some("vfat"), "vfat", Some("EFI"), None),
            (Some("xfs"), "xfs", Some("data"), None),
        ]
    );
    assert!(
        matches!(systems[1].trouble, Some(Trouble::Damaged(_))),
        "{:?}",
        systems[1]
    );
    assert_eq!(systems[2].trouble, Some(Trouble::Unknown));
    assert_eq!(systems[4].trouble, Some(Trouble::Encrypted));
    assert_eq!(systems[7].bytes, Some(320 << 20));
}

async fn names_of_any_bytes(browser: &Browser, device: &str) {
    let start = Instant::now();
    let root = list(browser, device, "/").await;
    said(start, "the first directory");
    let start = Instant::now();
    list(browser, device, "/etc").await;
    said(start, "one more directory");
    let entry = |name: &str| root.entries.iter().find(|e| e.name == name).unwrap();
    assert_eq!(entry("link").kind, EntryKind::Symlink);
    assert_eq!(entry("link").target.as_deref(), Some("/etc/os-release"));
    assert_eq!(entry("pipe").kind, EntryKind::Other);
    assert_eq!(
        (entry("big").kind, entry("big").bytes),
        (EntryKind::File, 20 << 20)
    );
    let empty = entry("empty");
    assert_eq!(
        (empty.bytes, empty.mode, empty.uid, empty.gid),
        (0, 0o640, 1000, 100)
    );
    let age = time::OffsetDateTime::now_utc() - empty.modified.unwrap();
    assert!(age.whole_minutes().abs() < 10, "{age}");
    assert!(read(browser, device, "/empty", 0).await.is_empty());

    let strange = list(browser, device, "/sp ace").await;
    let wanted = [
        "'it's\\\\",
        "back\\\\slash \"q\" # | cat",
        "new\\x0aline",
        "ä€",
        "\\xff\\xfe",
    ];
    assert_eq!(names(&strange), wanted);
    for (name, text) in wanted.iter().zip(["i", "q", "n", "u", "b"]) {
        let mut path = b"/sp ace/".to_vec();
        path.extend(name::unescape(name).unwrap());
        let mut body = browser.download(device, &path, 0).await.unwrap().body;
        assert_eq!(body.next().await.unwrap().unwrap(), text.as_bytes());
    }
    // A link to a directory is one, within its own file system.
    assert_eq!(list(browser, device, "/folder").await.total, 5);
    assert!(read(browser, device, "/link", 0).await.starts_with(b"ID=debian"));
}

async fn pages(browser: &Browser, device: &str) {
    let start = Instant::now();
    let mut seen = Vec::new();
    let mut from = Some(0);
    while let Some(at) = from {
        let page = browser.list(device, b"/many", at, 900).await.unwrap();
        assert_eq!((page.total, page.complete), (2500, true));
        seen.extend(page.entries.into_iter().map(|e| e.name));
        from = page.next;
    }
    said(start, "2500 entries in three pages");
    assert_eq!(seen.len(), 2500);
    assert!(seen.is_sorted());
    let beyond = browser.list(device, b"/many", 5000, 10).await.unwrap();
    assert_eq!((beyond.entries.len(), beyond.next), (0, None));
}

async fn refusals(browser: &Browser, device: &impl Fn(&str) -> String) {
    let ext4 = device("ext4");
    let list = async |device: &str, path: &[u8]| browser.list(device, path, 0, 10).await.unwrap_err();
    let missing = list(&ext4, b"/no\xff").await;
    assert!(
        matches!(&missing, FilesError::NotFound(p) if p == "/no\\xff"),
        "{missing:?}"
    );
    assert!(matches!(list(&ext4, b"/big").await, FilesError::NotADirectory(_)));
    assert!(matches!(list(&ext4, b"etc").await, FilesError::BadPath(_)));
    assert!(matches!(list(&ext4, b"/etc\0").await, FilesError::BadPath(_)));
    assert!(matches!(
        list("/dev/sdx", b"/").await,
        FilesError::NoSuchFileSystem(_)
    ));
    assert!(matches!(
        list(&device("luks"), b"/").await,
        FilesError::Encrypted(_)
    ));
    assert!(matches!(
        list(&device("empty"), b"/").await,
        FilesError::Unknown(_)
    ));
    assert!(matches!(
        list(&device("damaged"), b"/").await,
        FilesError::Damaged { .. }
    ));
    for (path, is) in [("/pipe", "not a regular file"), ("/nowhere", "there is no")] {
        let refused = browser.download(&ext4, path.as_bytes(), 0).await.err().unwrap();
        assert!(refused.to_string().contains(is), "{refused}");
    }
}

async fn downloads(browser: &Browser, ext4: &str, xfs: &str) {
    let big = big();
    for device in [ext4, xfs] {
        let start = Instant::now();
        assert!(read(browser, device, "/big", 0).await == big, "not the same");
        said(start, "20 MiB read");
    }
    assert!(
        read(browser, ext4, "/big", 3_000_001).await == big[3_000_001..],
        "not the same"
    );

    // Somebody stops in the middle of a piece; the next one has answers to its own questions.
    let mut body = browser.download(ext4, b"/big", 0).await.unwrap().body;
    body.next().await.unwrap().unwrap();
    assert!(
        tokio::time::timeout(Duration::from_millis(20), body.next())
            .await
            .is_err()
    );
    drop(body);
    assert_eq!(list(browser, ext4, "/sp ace").await.total, 5);

    let start = Instant::now();
    let tar = read(browser, ext4, "/", 0).await;
    said(start, "a file system as tar");
    let mut found = Vec::new();
    for entry in tar::Archive::new(&tar[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path_bytes().into_owned();
        if path == b"./big" {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            assert!(bytes == big, "not the same");
        }
        found.push(path);
    }
    for path in [
        &b"./big"[..],
        b"./sp ace/\xff\xfe",
        b"./sp ace/new\nline",
        b"./pipe",
    ] {
        assert!(found.iter().any(|p| p == path), "{}", name::escape(path));
    }
    // Others are told while a tar waits for its reader; then it goes away, and they have their turn.
    let start = Instant::now();
    let mut body = browser.download(ext4, b"/", 0).await.unwrap().body;
    body.next().await.unwrap().unwrap();
    assert!(
        tokio::time::timeout(Duration::from_millis(100), browser.file_systems())
            .await
            .is_err()
    );
    drop(body);
    assert_eq!(list(browser, ext4, "/sp ace").await.total, 5);
    said(start, "a tar stopped, and a directory");
}

fn nothing_is_left(setup: &Setup) {
    assert_eq!(std::fs::read_dir(&setup.run_dir).unwrap().count(), 0);
    assert_eq!(processes(&setup.run_dir), Vec::<String>::new());
}

/// Ends that nobody asked for.
async fn ends(empty: &[Disk], setup: &Setup) {
    let browser = Browser::open(empty, setup).await.unwrap();
    let none = browser.file_systems().await;
    assert!(matches!(none, Err(FilesError::NoFileSystem)), "{none:?}");
    assert!(!processes(&setup.run_dir).is_empty());
    // Dropped without a word: all are killed.
    drop(browser);
    let end = Instant::now() + Duration::from_secs(10);
    while !processes(&setup.run_dir).is_empty() {
        assert!(Instant::now() < end, "{:?}", processes(&setup.run_dir));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    nothing_is_left(setup);

    let mut hasty = setup.clone();
    hasty.idle = Duration::from_millis(1);
    let browser = Browser::open(empty, &hasty).await.unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while !matches!(browser.list("/dev/sda", b"/", 0, 1).await, Err(FilesError::Ended)) {
        assert!(Instant::now() < end, "it does not end when idle");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    nothing_is_left(setup);
}

#[tokio::test]
async fn a_server_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk {
        name: "disk".to_owned(),
        socket: dir.path().join("nobody.sock"),
        export: "disk".to_owned(),
    };
    let setup = setup(dir.path());
    let refused = Browser::open(&[disk], &setup).await.err().unwrap();
    assert!(
        matches!(refused, FilesError::Io { op: "connect to", .. }),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("nobody.sock"), "{refused}");
    nothing_is_left(&setup);
}
