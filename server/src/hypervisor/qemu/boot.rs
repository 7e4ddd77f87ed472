//! Proof of boot: waits for the guest agent, the serial port, the firmware's log and the machine's own events.

use super::agent;
use super::monitor::Seen;
use super::rundir::RunDir;
use crate::hypervisor::{BootError, BootExpectation, Ended, HvError, RunState, Say};
use futures::StreamExt;
use futures::future::BoxFuture;
use inotify::{Inotify, WatchMask};
use regex::Regex;
use shared::clone::{Proof, ProofStrength};
use shared::vm::PauseReason;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, PoisonError};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// A kernel that has handed over to init may still panic there, and a guest agent may still start: they are given this
/// long, or on a slow host a multiple of the time from the kernel's first line.
const SETTLE: Duration = Duration::from_secs(10);
const SETTLE_TIMES: u32 = 4;
/// The same, for kernels that do not say when they hand over, and for agents that have opened their port.
const SETTLE_LONG: Duration = Duration::from_secs(30);
/// The longest line that is told, in characters.
const LINE: usize = 300;
/// The longest line that is looked for, in bytes: longer ones are taken in pieces.
const PIECE: usize = 16 << 10;

#[allow(
    clippy::expect_used,
    reason = "constants, compiled by every test of this file"
)]
static KERNEL: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"Linux version \d").expect("a regex"));
#[allow(
    clippy::expect_used,
    reason = "constants, compiled by every test of this file"
)]
static INIT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"Run \S+ as init process").expect("a regex"));
const PANIC: &str = "Kernel panic - not syncing";
const NOTHING_TO_BOOT: &str = "No bootable device";
/// The same by an EFI firmware, which says it on the serial port; or it goes to its shell.
const NOTHING_TO_BOOT_EFI: [&str; 2] = ["No bootable option or device was found", "EFI Internal Shell"];

/// What has been seen of a boot.
#[derive(Default)]
struct Signs {
    kernel: Option<(Instant, String)>,
    init: Option<Instant>,
    panic: Option<String>,
    matched: Option<String>,
    nothing_to_boot: Option<String>,
    last: Option<String>,
}

/// Waits for the proof. Nothing is polled: every wake-up is a line, an event, an answer, or a time limit.
pub async fn watch(
    dir: &RunDir,
    seen: &Seen,
    channel: &Mutex<()>,
    power_on: std::time::Instant,
    expect: &BootExpectation,
    say: Say<'_>,
) -> Result<Proof, BootError> {
    let failed = |op, path: &Path, e| BootError::Watch(HvError::io(op, path)(e));
    let deadline = Instant::now() + expect.timeout;
    let (mut serial, mut bios) = (Follow::new(dir.serial_log()), Follow::new(dir.bios_log()));
    let inotify = Inotify::init().map_err(|e| failed("watch", dir.path(), e))?;
    for log in [&serial.path, &bios.path] {
        inotify
            .watches()
            .add(log, WatchMask::MODIFY)
            .map_err(|e| failed("watch", log, e))?;
    }
    let mut writes = inotify
        .into_event_stream([0; 1024])
        .map_err(|e| failed("watch", dir.path(), e))?;
    let (mut state, mut agent_port) = (seen.state.subscribe(), seen.agent.subscribe());
    let mut signs = Signs::default();
    let socket = dir.agent();
    // One question, asked once: a guest that is slow to answer is not asked again at every line it writes.
    let mut answer: Option<BoxFuture<'_, io::Result<()>>> = None;
    let proof = |strength, matched| {
        let boot_millis = u64::try_from(power_on.elapsed().as_millis()).ok();
        Ok(Proof {
            strength,
            boot_millis,
            matched,
        })
    };

    loop {
        let now = *state.borrow_and_update();
        bios.read(|line, _| signs.bios(line))
            .map_err(|e| failed("read", &bios.path, e))?;
        serial
            .read(|line, whole| signs.serial(line, whole, expect.pattern.as_ref(), say))
            .map_err(|e| failed("read", &serial.path, e))?;
        if let Some(line) = signs.panic {
            return Err(BootError::Panic(line));
        }
        if now == RunState::Paused(PauseReason::GuestPanicked) {
            return Err(BootError::Panic(
                signs.last.unwrap_or_else(|| "it told the hypervisor".into()),
            ));
        }
        if now == RunState::Stopped {
            let ended = seen.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
            return Err(BootError::Ended(match ended {
                Some(Ended::Crashed(log)) => log,
                Some(Ended::Killed) => "its power was taken away".into(),
                Some(Ended::GuestShutDown) => "the guest shut down".into(),
                None => String::new(),
            }));
        }
        if let Some(line) = signs.matched {
            return proof(ProofStrength::Serial, Some(line));
        }
        if let Some(line) = signs.nothing_to_boot {
            return Err(BootError::NoBootableDevice(line));
        }
        // A pattern was asked for: nothing else proves the boot.
        let asked = expect.pattern.is_some();
        let port_open = *agent_port.borrow_and_update();
        let settled = if asked { None } else { signs.settled(port_open) };
        if port_open && !asked && answer.is_none() {
            answer = Some(Box::pin(async {
                let _alone = channel.lock().await;
                agent::connect(&socket).await.map(drop)
            }));
        }
        tokio::select! {
            _ = writes.next() => {}
            _ = state.changed() => {}
            _ = agent_port.changed() => {}
            answered = async { Some(answer.as_mut()?.await) }, if answer.is_some() => match answered {
                Some(Ok(())) => return proof(ProofStrength::Agent, None),
                _ => answer = None,
            },
            () = sleep_until(settled.unwrap_or(deadline)), if settled.is_some() => {
                return proof(ProofStrength::Serial, signs.kernel.map(|(_, line)| line));
            }
            () = sleep_until(deadline) => {
                let last = signs.told(now);
                return Err(BootError::Timeout { seconds: expect.timeout.as_secs(), last });
            }
        }
    }
}

impl Signs {
    fn bios(&mut self, line: &str) {
        if line.contains(NOTHING_TO_BOOT) {
            self.nothing_to_boot = Some(shown(line));
        }
    }

    fn serial(&mut self, line: &str, whole: bool, pattern: Option<&Regex>, say: Say<'_>) {
        // A prompt ends without a new line, so what is there of a line counts for a pattern.
        if self.matched.is_none() && pattern.is_some_and(|p| p.is_match(line)) {
            self.matched = Some(shown(line));
        }
        if !line.trim().is_empty() {
            if self.last.is_none() {
                say("the first text on the serial port");
            }
            self.last = Some(shown(line));
        }
        if !whole {
            return;
        }
        if self.nothing_to_boot.is_none() && NOTHING_TO_BOOT_EFI.iter().any(|said| line.contains(said)) {
            self.nothing_to_boot = Some(shown(line));
        }
        if self.kernel.is_none() && KERNEL.is_match(line) {
            say(&format!("the kernel has started: {}", shown(line)));
            self.kernel = Some((Instant::now(), shown(line)));
        }
        if self.kernel.is_some() && self.init.is_none() && INIT.is_match(line) {
            say("the kernel has handed over to init");
            self.init = Some(Instant::now());
        }
        if self.panic.is_none() && line.contains(PANIC) {
            self.panic = Some(shown(line));
        }
    }

    /// When a kernel that was seen has gone on long enough to be taken for booted.
    fn settled(&self, agent: bool) -> Option<Instant> {
        let (start, _) = self.kernel.as_ref()?;
        let (since, least) = match self.init {
            Some(init) if agent => (init, SETTLE_LONG),
            Some(init) => (init, SETTLE),
            None => (*start, SETTLE_LONG),
        };
        Some(since + least.max((since - *start) * SETTLE_TIMES))
    }

    fn told(&self, state: RunState) -> String {
        let seen = match (&self.kernel, &self.last) {
            (Some(_), Some(last)) => format!("the kernel had started, and the last line was {last:?}"),
            (_, Some(last)) => format!("the serial port last said {last:?}"),
            (_, None) => "nothing on the serial port".into(),
        };
        match state {
            RunState::Paused(why) => format!("{seen}, and the machine stands still: {why}"),
            _ => seen,
        }
    }
}

/// A line as it is told to people.
fn shown(line: &str) -> String {
    line.chars()
        .filter(|c| !c.is_control())
        .take(LINE)
        .collect::<String>()
        .trim()
        .to_owned()
}

/// Reads what is added to a log.
struct Follow {
    path: PathBuf,
    at: u64,
    /// The beginning of a line that has not ended.
    open: Vec<u8>,
}

impl Follow {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            at: 0,
            open: Vec::new(),
        }
    }

    /// Tells each line, and whether it has ended.
    fn read(&mut self, mut tell: impl FnMut(&str, bool)) -> io::Result<()> {
        let mut file = File::open(&self.path)?;
        if file.metadata()?.len() < self.at {
            // The log has been cut.
            self.at = 0;
        }
        file.seek(SeekFrom::Start(self.at))?;
        let mut buf = [0; PIECE];
        let mut told = true;
        loop {
            let n = file.read(&mut buf)?;
            if n == 0 {
                break;
            }
            self.at += n as u64;
            for piece in buf[..n].split_inclusive(|b| *b == b'\n') {
                self.open.extend_from_slice(piece);
                told = piece.ends_with(b"\n") || self.open.len() >= PIECE;
                if told {
                    tell(
                        String::from_utf8_lossy(&self.open).trim_end_matches(['\r', '\n']),
                        true,
                    );
                    self.open.clear();
                }
            }
        }
        if !told {
            tell(&String::from_utf8_lossy(&self.open), false);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::io::Write;

    fn signs(lines: &[&str]) -> Signs {
        let mut signs = Signs::default();
        for line in lines {
            signs.serial(line, true, None, &|_| {});
        }
        signs
    }

    #[test]
    fn a_boot_loader_is_no_kernel_and_a_kernel_must_settle() {
        let loader = signs(&[
            "SYSLINUX 6.04",
            "Which system? Press Enter for Linux.",
            "boot: Linux version",
        ]);
        assert!(loader.settled(false).is_none());
        assert!(loader.told(RunState::Running).contains("boot: Linux version"));
        let kernel = signs(&["[    0.000000] Linux version 6.1.0-40-amd64 (x) #1"]);
        let untold = kernel.settled(false).unwrap();
        let init = signs(&[
            "[    0.000000] Linux version 6.1.0",
            "[    1.2] Run /init as init process",
        ]);
        assert!(init.settled(false).unwrap() < untold);
        assert!(init.settled(false).unwrap() < init.settled(true).unwrap());
        let panic = signs(&[
            "[ 0.0] Linux version 6.1.0",
            "[ 2.0] Kernel panic - not syncing: VFS: x",
        ]);
        assert!(panic.panic.unwrap().ends_with("VFS: x"));
    }

    #[test]
    fn a_pattern_matches_a_prompt_without_an_end() {
        let mut signs = Signs::default();
        let pattern = Regex::new("login: $").unwrap();
        signs.serial("web login: ", false, Some(&pattern), &|_| {});
        assert_eq!(signs.matched.as_deref(), Some("web login:"));
    }

    #[test]
    fn a_log_is_followed_over_pieces_and_cuts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        let mut follow = Follow::new(path);
        let mut read = || {
            let mut lines = Vec::new();
            follow
                .read(|line, whole| lines.push((line.to_owned(), whole)))
                .unwrap();
            lines
        };
        let line = |text: &str, whole| (text.to_owned(), whole);
        log.write_all(b"one\r\ntw").unwrap();
        assert_eq!(read(), [line("one", true), line("tw", false)]);
        assert_eq!(read(), []);
        log.write_all(b"o\n").unwrap();
        assert_eq!(read(), [line("two", true)]);
        log.set_len(0).unwrap();
        log.write_all(b"new\n").unwrap();
        assert_eq!(read(), [line("new", true)]);
    }
}
