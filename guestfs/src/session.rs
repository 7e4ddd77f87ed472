//! One guestfish and the small machine it drives: a command goes in, what it says comes out.

use super::error::{FilesError, io};
use super::name::quote;
use super::{Disk, Setup};
use crate::adapt::{Backing, WritableDisk};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;

/// To build what the machine boots, and to boot it; without KVM it takes half a minute.
const START: Duration = Duration::from_secs(300);
/// To leave by itself.
const LEAVE: Duration = Duration::from_secs(5);
/// Most bytes that a command may say.
const SAID: usize = 64 << 20;
/// Longest directory that the sockets of the machine have room below, in bytes.
const DIRECTORY: usize = 72;

pub(crate) struct Session {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    errors: File,
    errors_read: u64,
    /// Where sockets and overlays are. After the child, whose files they are.
    pub(crate) dir: TempDir,
    mark: String,
    /// Marks that were asked for and not yet seen: more than one where somebody did not wait for an answer.
    marks_due: usize,
    group: Pid,
    /// The file system that is mounted.
    pub(crate) mounted: Option<String>,
}

/// A disk of the machine.
pub(crate) enum Drive<'a> {
    /// One that is served, and not written: what mounting changes is thrown away.
    Shown(&'a Disk),
    /// An overlay, which is written.
    Overlay(&'a WritableDisk),
}

impl Drive<'_> {
    /// What serves it.
    fn served(&self) -> Option<&Disk> {
        match self {
            Drive::Shown(disk) => Some(disk),
            Drive::Overlay(disk) => match &disk.backing {
                Backing::Served(disk) => Some(disk),
                Backing::File { .. } => None,
            },
        }
    }

    fn add(&self) -> String {
        match self {
            Drive::Shown(disk) => {
                let socket = format!("server:unix:{}", disk.socket.display());
                format!(
                    "add-drive {} format:raw readonly:true protocol:nbd {}",
                    quote(disk.export.as_bytes()),
                    quote(socket.as_bytes())
                )
            }
            Drive::Overlay(disk) => {
                let path = quote(disk.overlay.as_os_str().as_encoded_bytes());
                format!("add-drive {path} format:qcow2")
            }
        }
    }
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) bytes: Vec<u8>,
    /// It said more than is kept.
    pub(crate) cut: bool,
}

impl Session {
    /// Starts the machine, with that much memory, in MiB, and as many processors.
    pub(crate) async fn start(
        drives: &[Drive<'_>],
        size: (u32, u32),
        setup: &Setup,
    ) -> Result<Self, FilesError> {
        match timeout(setup.first_try, Self::boot(drives, size, setup)).await {
            Ok(started) => started,
            Err(_) => {
                tracing::warn!("the machine that looks into disks does not start, and is started anew");
                Self::boot(drives, size, setup).await
            }
        }
    }

    async fn boot(
        drives: &[Drive<'_>],
        (memory, processors): (u32, u32),
        setup: &Setup,
    ) -> Result<Self, FilesError> {
        for dir in [&setup.run_dir, &setup.cache_dir] {
            std::fs::create_dir_all(dir).map_err(io("make the directory", dir))?;
        }
        for disk in drives.iter().filter_map(Drive::served) {
            // qemu-img says less when it comes to that.
            let there = tokio::net::UnixStream::connect(&disk.socket).await;
            there.map_err(io("connect to", &disk.socket))?;
        }
        let dir = tempfile::Builder::new()
            .prefix("f")
            .tempdir_in(&setup.run_dir)
            .map_err(io("make a directory in", &setup.run_dir))?;
        if dir.path().as_os_str().len() > DIRECTORY {
            let why = format!(
                "the path of {} is longer than {DIRECTORY} bytes",
                dir.path().display()
            );
            return Err(FilesError::Start(why));
        }
        let errors = dir.path().join("errors");
        let open = || File::options().read(true).append(true).create(true).open(&errors);
        let errors = open().map_err(io("write", &errors))?;
        let mut command = setup.helper.command(&setup.cache_dir, dir.path(), setup.kvm);
        for drive in drives {
            let Drive::Overlay(disk) = drive else { continue };
            command.arg("--write").arg(&disk.overlay);
            if let Backing::File { path, .. } = &disk.backing {
                command.arg("--read").arg(path);
            }
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors.try_clone().map_err(io("share a file in", dir.path()))?);
        let program = &setup.helper.program;
        let mut child = command.spawn().map_err(io("run", program))?;
        let none = || FilesError::Start(format!("{} ended at once", program.display()));
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let mut session = Self {
            stdin: child.stdin.take().ok_or_else(none)?,
            stdout: child.stdout.take().ok_or_else(none)?,
            group: id.and_then(Pid::from_raw).ok_or_else(none)?,
            child,
            errors,
            errors_read: 0,
            dir,
            mark: uuid::Uuid::new_v4().simple().to_string(),
            marks_due: 0,
            mounted: None,
        };
        for drive in drives {
            session.run("add a disk", &drive.add(), START).await?;
        }
        let memory = format!("set-memsize {memory}");
        session.run("set the memory", &memory, START).await?;
        let processors = format!("set-smp {processors}");
        session.run("set the processors", &processors, START).await?;
        session.run("boot", "run", START).await.map_err(|e| match e {
            FilesError::Refused { why, .. } => FilesError::Start(why),
            e => e,
        })?;
        Ok(session)
    }

    /// Runs a command. An answer that nobody waited for is passed over first. After a time-out the session is of no more use.
    pub(crate) async fn run(&mut self, op: &str, command: &str, limit: Duration) -> Result<Said, FilesError> {
        let lines = format!("-{command}\necho {}\n", self.mark);
        let timed_out = || FilesError::TimedOut {
            op: op.to_owned(),
            limit,
        };
        let answer = async {
            while self.marks_due > 0 {
                self.answer().await?;
            }
            // What was said to somebody else is not for this one.
            self.complaint();
            self.marks_due += 1;
            let sent = self.stdin.write_all(lines.as_bytes()).await;
            sent.map_err(|_| self.gone())?;
            self.answer().await
        };
        let said = timeout(limit, answer).await.map_err(|_| timed_out())??;
        let complaint = self.complaint();
        if complaint.is_empty() {
            return Ok(said);
        }
        let op = op.to_owned();
        Err(FilesError::Refused { op, why: complaint })
    }

    /// What comes until the next mark.
    async fn answer(&mut self) -> Result<Said, FilesError> {
        let mark = format!("{}\n", self.mark);
        let mark = mark.as_bytes();
        let (mut bytes, mut cut) = (Vec::new(), false);
        let mut piece = vec![0; 64 << 10];
        while !bytes.ends_with(mark) {
            let read = self.stdout.read(&mut piece).await.unwrap_or(0);
            if read == 0 {
                return Err(self.gone());
            }
            bytes.extend_from_slice(&piece[..read]);
            if bytes.len() > SAID + mark.len() {
                // The end is kept, for the mark may have begun there.
                cut = true;
                bytes.drain(SAID..bytes.len() - mark.len());
            }
        }
        self.marks_due = self.marks_due.saturating_sub(1);
        bytes.truncate(bytes.len() - mark.len());
        Ok(Said { bytes, cut })
    }

    /// What was said on the error stream since the last look, without what is the same in front of all.
    fn complaint(&mut self) -> String {
        let mut bytes = vec![0; 16 << 10];
        let mut all = Vec::new();
        while let Ok(read) = self.errors.read_at(&mut bytes, self.errors_read)
            && read > 0
        {
            self.errors_read += read as u64;
            if all.len() < bytes.len() {
                all.extend_from_slice(&bytes[..read]);
            }
        }
        let text = String::from_utf8_lossy(&all);
        let text = text.trim();
        let why = text
            .split_once("libguestfs: error: ")
            .map_or(text, |(_, why)| why);
        // What follows is advice for who is in front of a shell.
        let why = why
            .split_once("\nTo see full error messages")
            .map_or(why, |(why, _)| why);
        why.to_owned()
    }

    fn gone(&mut self) -> FilesError {
        let why = self.complaint();
        FilesError::Start(if why.is_empty() {
            "it ended without a word".to_owned()
        } else {
            why
        })
    }

    /// Lets it end by itself, which takes its files away; by force if it does not.
    pub(crate) async fn close(mut self) {
        let _ = self.stdin.write_all(b"exit\n").await;
        if self.marks_due == 0 {
            let _ = timeout(LEAVE, self.child.wait()).await;
        }
        self.kill();
        let _ = self.child.wait().await;
    }

    fn kill(&mut self) {
        // While it was not waited for, its number is nobody else's. Those that it began may outlive it.
        if self.child.id().is_some() {
            let _ = kill_process_group(self.group, Signal::KILL);
        }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        Path::new(self.dir.path()).join(name)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.kill();
    }
}
