//! QEMU processes: started in a session of their own, found again by pid and start time, their end seen as an event.

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A QEMU process.
#[derive(Clone, Debug)]
pub struct Process {
    fd: Arc<AsyncFd<OwnedFd>>,
    pid: i32,
    /// When it was started.
    pub power_on: Instant,
}

/// How a process ended, where it was ours to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
    Unknown,
}

impl Process {
    /// Starts `command`, which gets `fds` under their numbers. Before QEMU begins, the child writes its line of /proc to
    /// `record`: there is no moment at which a server that dies would lose it.
    pub fn spawn(mut command: Command, fds: Vec<OwnedFd>, record: &Path) -> io::Result<Self> {
        let record = File::create(record)?;
        let power_on = Instant::now();
        let inherited: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let prepare = move || {
            rustix::process::setsid()?;
            for &fd in &inherited {
                // SAFETY: `fds` keeps them open until spawn has returned.
                let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
                rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
            }
            let mut line = [0; 1024];
            let stat = rustix::fs::open(
                c"/proc/self/stat",
                rustix::fs::OFlags::RDONLY,
                rustix::fs::Mode::empty(),
            )?;
            let n = rustix::io::read(&stat, &mut line)?;
            rustix::io::write(&record, &line[..n])?;
            Ok(())
        };
        // SAFETY: between fork and exec there are system calls only; nothing allocates or takes a lock.
        unsafe { command.pre_exec(prepare) };
        let child = command.spawn()?;
        drop(fds);
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(io::ErrorKind::InvalidData)?;
        // Nobody but `reap` waits for it, so the pid is still its own.
        Self::open(pid, power_on)
    }

    /// The process that `record` speaks of, if it still runs for the machine that `mark` is in the arguments of.
    pub fn find(record: &Path, mark: &str) -> io::Result<Option<Self>> {
        let (line, written) = match fs::read_to_string(record) {
            Ok(line) => (line, fs::metadata(record)?.modified()?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let Some((pid, then)) = parse(&line) else {
            return Ok(None);
        };
        let Some(raw) = Pid::from_raw(pid) else {
            return Ok(None);
        };
        let age = SystemTime::now()
            .duration_since(written)
            .unwrap_or(Duration::ZERO);
        let power_on = Instant::now().checked_sub(age).unwrap_or_else(Instant::now);
        let process = match Self::open(raw, power_on) {
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => return Ok(None),
            process => process?,
        };
        // Read after the pidfd is open: from here on the pid cannot become another's.
        let Ok(arguments) = fs::read(format!("/proc/{pid}/cmdline")) else {
            return Ok(None);
        };
        let Ok(now) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            return Ok(None);
        };
        let alive =
            parse(&now).is_some_and(|(_, now)| now.start == then.start && !matches!(now.state, 'Z' | 'X'));
        // `spawn` returns when files are closed for the new program, a moment before its arguments are there to be read.
        let marked = arguments.is_empty() || arguments.windows(mark.len()).any(|w| w == mark.as_bytes());
        Ok((alive && marked).then_some(process))
    }

    fn open(pid: Pid, power_on: Instant) -> io::Result<Self> {
        let fd = pidfd_open(pid, PidfdFlags::empty())?;
        // SAFETY: an `OwnedFd` is the same open descriptor until it is dropped, which only the `AsyncFd` can do.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? };
        Ok(Self {
            fd: Arc::new(fd),
            pid: pid.as_raw_nonzero().get(),
            power_on,
        })
    }

    /// Its number, which may be another's once it has ended.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Returns when the process has ended, and reaps it if it is a child.
    pub async fn ended(&self) -> Exit {
        if self.fd.readable().await.is_err() {
            return Exit::Unknown;
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match waitid(WaitId::PidFd(self.fd.get_ref().as_fd()), options) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Unknown,
            },
            // Not our child, or reaped already.
            _ => Exit::Unknown,
        }
    }

    /// Ends it at once, whatever it holds.
    pub async fn end(&self) -> io::Result<()> {
        match pidfd_send_signal(self.fd.get_ref(), Signal::KILL) {
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            sent => sent?,
        }
        self.ended().await;
        Ok(())
    }

    /// Ends it: QEMU is asked to write back what it holds of the images' tables; if it does not, it is killed.
    pub async fn kill(&self) -> io::Result<()> {
        const PATIENCE: Duration = Duration::from_secs(5);
        match pidfd_send_signal(self.fd.get_ref(), Signal::TERM) {
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            sent => sent?,
        }
        match tokio::time::timeout(PATIENCE, self.ended()).await {
            Ok(_) => Ok(()),
            Err(_) => self.end().await,
        }
    }
}

struct Stat {
    state: char,
    /// In clock ticks since the host booted.
    start: u64,
}

/// Reads a line of /proc/…/stat. The name, in parentheses, may hold anything.
fn parse(line: &str) -> Option<(i32, Stat)> {
    let (pid, rest) = line.split_once(' ')?;
    let fields: Vec<_> = rest.rsplit_once(") ")?.1.split(' ').collect();
    let state = fields.first()?.chars().next()?;
    Some((
        pid.parse().ok()?,
        Stat {
            state,
            start: fields.get(19)?.trim().parse().ok()?,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that waits until it is killed.
    fn waiting(name: &str) -> Command {
        let mut command = Command::new("tail");
        command.arg0(name).args(["-f", "/dev/null"]);
        command
    }

    #[tokio::test]
    async fn a_process_is_found_by_its_record_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let record = dir.path().join("process");
        assert!(Process::find(&record, "tail-m1").unwrap().is_none(), "no record");
        let started = Process::spawn(waiting("tail-m1"), Vec::new(), &record).unwrap();
        let found = Process::find(&record, "tail-m1").unwrap().unwrap();
        assert!(
            Process::find(&record, "tail-m2").unwrap().is_none(),
            "another's arguments"
        );
        let aged = fs::read_to_string(&record).unwrap();
        let (_, stat) = parse(&aged).unwrap();
        fs::write(&record, aged.replace(&format!(" {} ", stat.start), " 1 ")).unwrap();
        assert!(
            Process::find(&record, "tail-m1").unwrap().is_none(),
            "another start time"
        );
        fs::write(&record, &aged).unwrap();
        found.kill().await.unwrap();
        // The one who comes first reaps it; both see the end.
        started.ended().await;
        found.kill().await.unwrap();
        assert!(Process::find(&record, "tail-m1").unwrap().is_none(), "ended");
    }

    #[tokio::test]
    async fn a_process_is_found_at_the_moment_in_which_it_begins() {
        let dir = tempfile::tempdir().unwrap();
        let record = dir.path().join("process");
        for _ in 0..200 {
            let started = Process::spawn(waiting("tail-m1"), Vec::new(), &record).unwrap();
            let found = Process::find(&record, "tail-m1").unwrap();
            started.end().await.unwrap();
            assert!(found.is_some());
        }
    }

    #[tokio::test]
    async fn the_end_is_told_and_zombies_are_not_found() {
        let dir = tempfile::tempdir().unwrap();
        let record = dir.path().join("process");
        let mut command = Command::new("sh");
        command.args(["-c", "exit 3"]);
        let process = Process::spawn(command, Vec::new(), &record).unwrap();
        process.fd.readable().await.unwrap().retain_ready();
        assert!(Process::find(&record, "sh").unwrap().is_none(), "a zombie");
        assert_eq!(process.ended().await, Exit::Code(3));
    }

    #[test]
    fn a_name_with_parentheses_is_read() {
        let fields = (4..=21).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let (pid, stat) = parse(&format!("12 (a) b (c) S {fields} 777 23\n")).unwrap();
        assert_eq!((pid, stat.state, stat.start), (12, 'S', 777));
    }
}
