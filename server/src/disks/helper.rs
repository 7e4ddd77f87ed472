//! The helper that lets qemu-img loose on what came from outside.
//!
//! `offshoot image-helper` gives up everything but that file, the file to write and the system's programs and libraries, and
//! becomes qemu-img. It is a process of one thread: what it gives up, all of it gives up.

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Gid, Resource, Rlimit, Signal, Uid, setrlimit};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The subcommand of the program that it is.
pub const COMMAND: &str = "image-helper";
/// What stands in qemu-img's arguments for the file to read.
pub const INPUT: &str = "@input@";
/// What stands in qemu-img's arguments for the file to write.
pub const OUTPUT: &str = "@output@";

/// Most time of processors that it may take, in seconds.
const CPU_SECONDS: u64 = 3600;
/// Most memory that it may map, in bytes.
const MEMORY: u64 = 4 << 30;
/// Where programs and libraries are, to be read and run.
const SYSTEM: [&str; 5] = ["/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache"];
/// The newest rules that were tried.
const RULES: ABI = ABI::V6;

/// How the helper is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Helper {
    /// Offshoot itself.
    pub program: PathBuf,
    /// The user that it becomes, where the server is root.
    pub user: Option<String>,
}

/// `offshoot image-helper`
#[derive(Debug, clap::Args)]
pub struct HelperArgs {
    /// The file to read.
    #[arg(long)]
    input: Option<PathBuf>,
    /// The file to write; it is there.
    #[arg(long)]
    output: Option<PathBuf>,
    /// Most bytes that any file may grow to.
    #[arg(long, default_value_t = 0)]
    bytes: u64,
    /// The user to become.
    #[arg(long)]
    user: Option<String>,
    /// Says how far it could shut itself in, and does no more.
    #[arg(long)]
    probe: bool,
    /// What qemu-img is told.
    #[arg(last = true)]
    args: Vec<String>,
}

/// How far it is shut in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shut {
    /// Files: `full`, `partial` or `none`.
    pub files: String,
    /// Whether it has a network of its own, with nothing on it.
    pub network: bool,
    /// Whether it became another user.
    pub user: bool,
}

/// Why it did not come to run qemu-img.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum HelperError {
    #[error("{op}")]
    Io {
        op: String,
        #[source]
        source: io::Error,
    },
    #[error("there is no user {0} on this host: create it, or set image_helper_user to one that there is")]
    NoUser(String),
    #[error("limit the access to files")]
    Rules(#[from] landlock::RulesetError),
}

fn io<E: Into<io::Error>>(op: impl Into<String>) -> impl FnOnce(E) -> HelperError {
    let op = op.into();
    move |e| HelperError::Io { op, source: e.into() }
}

/// A user's number and group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    uid: u32,
    gid: u32,
}

/// A user of this host, by name: one that the packaging creates stands in the file.
pub fn user(name: &str) -> Result<User, HelperError> {
    let users = std::fs::read_to_string("/etc/passwd").map_err(io("read /etc/passwd"))?;
    let found = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (first, uid, gid) = (fields.next()?, fields.nth(1)?, fields.next()?);
        let user = User {
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
        };
        (first == name).then_some(user)
    });
    found.ok_or_else(|| HelperError::NoUser(name.to_owned()))
}

/// Shuts itself in and becomes qemu-img. Returns only if it does not come to that, or is only asked how far it could.
pub fn run(args: HelperArgs) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let open = |path: &Option<PathBuf>, options: &OpenOptions| {
        let path = path.as_deref();
        path.map(|p| options.open(p).map_err(io(format!("open {}", p.display()))))
            .transpose()
    };
    let input = open(&args.input, OpenOptions::new().read(true))?;
    let output = open(&args.output, OpenOptions::new().read(true).write(true))?;
    let become_user = match &args.user {
        Some(name) => Some(user(name)?),
        None => None,
    };
    if let (Some(user), Some(output)) = (become_user, &output) {
        let owner = (Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)));
        rustix::fs::fchown(output, owner.0, owner.1).map_err(io("give the file to write to the user"))?;
    }
    let shut = shut_in(input.as_ref(), output.as_ref(), args.bytes, become_user)?;
    if args.probe {
        crate::cli::say(serde_json::to_string(&shut)?)?;
        return Ok(());
    }
    let name = |file: &Option<File>| {
        file.as_ref()
            .map_or_else(String::new, |f| format!("/proc/self/fd/{}", f.as_raw_fd()))
    };
    let (from, to) = (name(&input), name(&output));
    for file in [&input, &output].into_iter().flatten() {
        fcntl_setfd(file, FdFlags::empty()).map_err(io("keep a file open"))?;
    }
    let told = args
        .args
        .iter()
        .map(|arg| arg.replace(INPUT, &from).replace(OUTPUT, &to));
    let e = Command::new("qemu-img")
        .args(told)
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .exec();
    Err(Box::new(io("run qemu-img; the package qemu-utils has it")(e)))
}

fn shut_in(
    input: Option<&File>,
    output: Option<&File>,
    bytes: u64,
    user: Option<User>,
) -> Result<Shut, HelperError> {
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::Cpu, CPU_SECONDS),
        (Resource::Fsize, bytes),
        (Resource::As, MEMORY),
    ] {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit).map_err(io(format!("limit {resource:?}")))?;
    }
    let network = no_network();
    if let Some(user) = user {
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        rustix::thread::set_thread_groups(&[gid])
            .and_then(|()| rustix::thread::set_thread_gid(gid))
            .and_then(|()| rustix::thread::set_thread_uid(uid))
            .map_err(io("become the user of the helper"))?;
    }
    // Only now: becoming another user takes it back.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(io("ask to end with the server"))?;
    rustix::thread::set_no_new_privs(true).map_err(io("give up gaining privileges"))?;
    let status = only_files(input, output)?;
    Ok(Shut {
        files: match status {
            RulesetStatus::FullyEnforced => "full",
            RulesetStatus::PartiallyEnforced => "partial",
            RulesetStatus::NotEnforced => "none",
        }
        .to_owned(),
        network,
        user: user.is_some(),
    })
}

/// A network of its own has nothing on it. Who is not root needs a user namespace for that, which not every host allows.
fn no_network() -> bool {
    let flags = if rustix::process::geteuid().is_root() {
        UnshareFlags::NEWNET
    } else {
        UnshareFlags::NEWNET | UnshareFlags::NEWUSER
    };
    // SAFETY: no memory or file table is unshared, and this process has one thread.
    unsafe { rustix::thread::unshare_unsafe(flags) }.is_ok()
}

/// From here on: the files that are open are read and written, programs and libraries are read, and nothing else is opened.
fn only_files(input: Option<&File>, output: Option<&File>) -> Result<RulesetStatus, HelperError> {
    let read: BitFlags<AccessFs> = AccessFs::ReadFile.into();
    let write = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RULES))?
        .handle_access(AccessNet::from_all(RULES))?
        .scope(Scope::from_all(RULES))?
        .create()?
        .add_rules(path_beneath_rules(SYSTEM, AccessFs::from_read(RULES)))?
        // QEMU tries out there whether locks work.
        .add_rules(path_beneath_rules(
            ["/dev/null"],
            AccessFs::ReadFile | AccessFs::WriteFile,
        ))?;
    if let Some(file) = input {
        rules = rules.add_rule(PathBeneath::new(file.as_fd(), read))?;
    }
    if let Some(file) = output {
        rules = rules.add_rule(PathBeneath::new(file.as_fd(), write))?;
    }
    Ok(rules.restrict_self()?.ruleset)
}

/// What the helper may do on this host, by its own word; nothing if it does not come to run.
pub async fn probe(helper: &Helper) -> Result<Shut, String> {
    let mut command = command(helper);
    let out = command.arg("--probe").output().await;
    let out = out.map_err(|e| format!("run {}: {e}", helper.program.display()))?;
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).trim().to_owned());
    }
    serde_json::from_slice(&out.stdout).map_err(|e| e.to_string())
}

/// The helper, yet to be told what to do. It ends with whoever waits for it.
pub(super) fn command(helper: &Helper) -> tokio::process::Command {
    use std::process::Stdio;
    let mut command = tokio::process::Command::new(&helper.program);
    command
        .arg(COMMAND)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(user) = helper
        .user
        .as_ref()
        .filter(|_| rustix::process::geteuid().is_root())
    {
        command.args(["--user", user]);
    }
    command
}

/// The helper with a file to read, perhaps one to write, and what qemu-img is told.
pub(super) fn with_files(
    helper: &Helper,
    input: &Path,
    output: Option<&Path>,
    bytes: u64,
    args: &[&str],
) -> tokio::process::Command {
    let mut command = command(helper);
    command.arg("--input").arg(input);
    if let Some(output) = output {
        command.arg("--output").arg(output);
    }
    command.arg("--bytes").arg(bytes.to_string()).arg("--").args(args);
    command
}
