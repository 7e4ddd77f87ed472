//! What the tests here share: a program that is its own helper, disks that guestfish makes, and servers of them.
#![allow(dead_code)]

use clap::Parser;
use guestfs::helper::{self, HelperArgs};
use guestfs::{Disk, Helper, Setup};
use libtest_mimic::{Arguments, Failed, Trial};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Of overlays, as qcow2's own default.
pub const CLUSTER: u32 = 64 << 10;

#[derive(Parser)]
enum Program {
    FilesHelper(HelperArgs),
}

/// Runs the tests; or is the helper, where it is called as that, for the crate has no program.
pub fn run(trials: impl FnOnce() -> Vec<Trial>) -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(helper::COMMAND) {
        let Program::FilesHelper(args) = Program::parse();
        if let Err(e) = helper::run(args) {
            eprintln!("{e}");
        }
        return ExitCode::FAILURE;
    }
    libtest_mimic::run(&Arguments::from_args(), trials()).exit_code()
}

/// A test that waits for much.
pub fn trial<F>(name: &str, test: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()>,
{
    Trial::test(name, move || {
        let runtime = tokio::runtime::Runtime::new().map_err(Failed::from)?;
        runtime.block_on(test());
        Ok(())
    })
}

pub fn setup(dir: &Path) -> Setup {
    let cache = std::env::var_os("OFFSHOOT_CACHE");
    Setup {
        helper: Helper {
            program: std::env::current_exe().unwrap(),
        },
        run_dir: dir.join("run"),
        cache_dir: cache.map_or(dir.join("cache"), |c| Path::new(&c).join("files")),
        kvm: kvm(),
        idle: Duration::from_secs(600),
    }
}

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
