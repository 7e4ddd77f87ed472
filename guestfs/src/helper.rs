//! What shuts guestfish in: `offshoot files-helper` gives up all but its own directory, and becomes it.
//!
//! File systems are parsed by the kernel of a small machine that guestfish starts, so this is the second wall, around QEMU.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    Scope, path_beneath_rules,
};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::UnshareFlags;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The subcommand of the program that it is.
pub const COMMAND: &str = "files-helper";

/// Most time of processors that it may take, in seconds.
const CPU_SECONDS: u64 = 4 * 3600;
/// Most memory that one of its processes may map, in bytes: the machine's own, and what QEMU translates.
const MEMORY: u64 = 8 << 30;
/// Most bytes that a file may grow to: overlays, which take what mounting changes, or what adapting writes.
const FILE: u64 = 1 << 30;
/// Where programs and libraries are, to be read and run.
const SYSTEM: [&str; 7] = [
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/sbin",
    "/etc/ld.so.cache",
    "/proc",
];
/// What QEMU opens to work.
const DEVICES: [&str; 4] = ["/dev/null", "/dev/urandom", "/dev/random", "/dev/kvm"];
/// Where libguestfs has what its machine is made of.
const PARTS: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/guestfs/supermin.d",
    "/usr/lib64/guestfs/supermin.d",
    "/usr/lib/guestfs/supermin.d",
];
/// The newest rules that were tried.
const RULES: ABI = ABI::V6;

/// How guestfish is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helper {
    /// Offshoot itself.
    pub program: PathBuf,
}

/// `offshoot files-helper`
#[derive(Debug, clap::Args)]
pub struct HelperArgs {
    /// Where what the machine boots is kept.
    #[arg(long)]
    cache: PathBuf,
    /// Its own directory.
    #[arg(long)]
    run: PathBuf,
    /// Without KVM.
    #[arg(long)]
    tcg: bool,
    /// An overlay that it may write.
    #[arg(long)]
    write: Vec<PathBuf>,
    /// A file that an overlay stands on.
    #[arg(long)]
    read: Vec<PathBuf>,
}

impl Helper {
    pub(crate) fn command(&self, cache: &Path, run: &Path, kvm: bool) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .arg(COMMAND)
            .arg("--cache")
            .arg(cache)
            .arg("--run")
            .arg(run);
        if !kvm {
            command.arg("--tcg");
        }
        // With those that it begins it can be ended as one.
        command.process_group(0).kill_on_drop(true);
        command
    }
}

fn failed(op: impl Into<String>) -> impl FnOnce(io::Error) -> io::Error {
    let op = op.into();
    move |e| io::Error::new(e.kind(), format!("{op}: {e}"))
}

/// Shuts itself in and becomes guestfish, which is told what to do by its standard input. Returns only if that fails.
pub fn run(args: HelperArgs) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let appliance = appliance(&args.cache)?;
    shut_in(&appliance, &args)?;
    let mut command = Command::new("guestfish");
    command
        .env_clear()
        .env("LC_ALL", "C.UTF-8")
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", &args.run)
        .env("TMPDIR", &args.run)
        .env("XDG_RUNTIME_DIR", &args.run)
        .env("LIBGUESTFS_CACHEDIR", &args.run)
        .env("LIBGUESTFS_PATH", &appliance)
        .env("LIBGUESTFS_BACKEND", "direct");
    if args.tcg {
        command.env("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg");
    }
    Err(Box::new(failed("run guestfish")(command.exec())))
}

/// What the machine boots, built anew where the system's packages are newer. Nothing of a copy is near it yet.
fn appliance(cache: &Path) -> io::Result<PathBuf> {
    let parts = PARTS.iter().find(|p| Path::new(p).is_dir());
    let parts =
        parts.ok_or_else(|| io::Error::other("libguestfs is not installed as a whole: no supermin.d"))?;
    let lock = cache.join("lock");
    let lock = File::create(&lock).map_err(failed(format!("write {}", lock.display())))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|e| failed("wait for another")(e.into()))?;
    let built = cache.join("appliance");
    let out = Command::new("supermin")
        .args([
            "--build",
            "--if-newer",
            "-f",
            "ext2",
            "--copy-kernel",
            "--host-cpu",
            "x86_64",
        ])
        .arg(parts)
        .arg("-o")
        .arg(&built)
        .stdin(Stdio::null())
        .output()
        .map_err(failed("run supermin"))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        let why = format!("build what the machine boots: {}", said.trim());
        return Err(io::Error::other(why));
    }
    // The kernel comes with the age that it has in /boot, by which all would seem old and be built each time.
    let age = std::fs::metadata(built.join("root")).and_then(|root| root.modified());
    let kernel = File::options().append(true).open(built.join("kernel"));
    let dated = kernel.and_then(|kernel| kernel.set_modified(age?));
    dated.map_err(failed("date the kernel"))?;
    // By this file libguestfs knows that it need not build.
    std::fs::write(built.join("README.fixed"), "").map_err(failed("write README.fixed"))?;
    Ok(built)
}

fn shut_in(appliance: &Path, args: &HelperArgs) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::Cpu, CPU_SECONDS),
        (Resource::Fsize, FILE),
        (Resource::As, MEMORY),
    ] {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit).map_err(|e| failed(format!("limit {resource:?}"))(e.into()))?;
    }
    // In a user namespace of its own it is nobody, even where the server is root: it has a root's files, and no power.
    // SAFETY: no memory or file table is unshared, and this process has one thread.
    let nobody = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNET) };
    if nobody.is_err() && rustix::process::geteuid().is_root() {
        // SAFETY: as above.
        let _ = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) };
    }
    rustix::thread::set_no_new_privs(true).map_err(|e| failed("give up gaining privileges")(e.into()))?;
    let read = AccessFs::from_read(RULES);
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RULES))?
        .handle_access(AccessNet::from_all(RULES))?
        .scope(Scope::from_all(RULES))?
        .create()?
        .add_rules(path_beneath_rules(SYSTEM, read))?
        .add_rules(path_beneath_rules(
            [appliance],
            AccessFs::ReadFile | AccessFs::ReadDir,
        ))?
        .add_rules(path_beneath_rules(DEVICES, device))?
        .add_rules(path_beneath_rules(&args.read, AccessFs::ReadFile))?
        .add_rules(path_beneath_rules(
            &args.write,
            AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate,
        ))?
        .add_rules(path_beneath_rules([&args.run], AccessFs::from_all(RULES)))?;
    if nobody.is_err() && rustix::process::geteuid().is_root() {
        // There libguestfs has root's sockets, and nowhere else.
        let sockets = AccessFs::MakeDir | AccessFs::MakeSock | AccessFs::RemoveDir | AccessFs::RemoveFile;
        rules = rules.add_rules(path_beneath_rules(["/tmp"], sockets | AccessFs::ReadDir))?;
    }
    rules.restrict_self()?;
    Ok(())
}
