//! Disks that guestfish and cryptsetup make, and servers of them.

use guestfs::Disk;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub fn kvm() -> bool {
    // As `accelerator=auto`: some machines have a device with which guests hang.
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpu.split_whitespace().any(|f| f == "vmx" || f == "svm");
    let open = || std::fs::File::options().read(true).write(true).open("/dev/kvm");
    flags && open().is_ok()
}

/// What guestfish says to a script.
pub fn guestfish(dir: &Path, script: &str) -> String {
    let file = tempfile::NamedTempFile::new_in(dir).unwrap();
    std::fs::write(file.path(), script).unwrap();
    let mut guestfish = Command::new("guestfish");
    guestfish.arg("-f").arg(file.path()).current_dir(dir);
    guestfish.env("LIBGUESTFS_BACKEND", "direct").env("TMPDIR", dir);
    if !kvm() {
        guestfish.env("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg");
    }
    let out = guestfish.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// An image that is served, and not written, until it is dropped.
pub struct Served {
    child: Child,
    pub disk: Disk,
}

impl Served {
    pub fn new(dir: &Path, name: &str, image: &Path, format: &str) -> Self {
        let socket = dir.join(format!("{name}.sock"));
        let mut nbd = Command::new("qemu-nbd");
        nbd.args([
            "--read-only",
            "--persistent",
            "--shared=0",
            "-f",
            format,
            "-x",
            name,
        ]);
        nbd.arg(format!("--socket={}", socket.display())).arg(image);
        // It complains of every client that leaves.
        let child = nbd.stderr(Stdio::null()).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < end, "no answer at {}", socket.display());
            std::thread::sleep(Duration::from_millis(10));
        }
        let name = name.to_owned();
        Self {
            child,
            disk: Disk {
                export: name.clone(),
                name,
                socket,
            },
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A raw image with holes.
pub fn image(dir: &Path, name: &str, bytes: u64) -> PathBuf {
    let path = dir.join(name);
    std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    path
}

/// An image that is LUKS, with nothing in it.
pub fn luks(path: &Path) {
    let mut luks = Command::new("cryptsetup");
    luks.args([
        "luksFormat",
        "--batch-mode",
        "--pbkdf",
        "pbkdf2",
        "--pbkdf-force-iterations",
        "1000",
    ]);
    let mut luks = luks.arg(path).arg("-").stdin(Stdio::piped()).spawn().unwrap();
    luks.stdin.take().unwrap().write_all(b"secret").unwrap();
    assert!(luks.wait().unwrap().success());
}
