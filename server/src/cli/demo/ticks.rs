//! The counter of the demo guest, followed on its serial log: the times are those of arrival on the host.

use futures::StreamExt;
use inotify::{Inotify, WatchMask};
use regex::bytes::Regex;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

#[allow(
    clippy::expect_used,
    reason = "a constant, compiled by every test of this file"
)]
static LINE: LazyLock<Regex> = LazyLock::new(|| {
    // The shell on the same line may have its own carriage returns added.
    Regex::new(r"^offshoot-guest nonce=([0-9a-f]{16}) tick=(\d+) host=\S+\r*$").expect("a regex")
});

/// What the counter did since it was marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The longest time between two ticks.
    pub longest: Duration,
    /// How many ticks came.
    pub ticks: u64,
    /// How many numbers were left out.
    pub holes: u64,
    /// Whether the guest was booted anew: its nonce lives in its memory only.
    pub rebooted: bool,
}

/// The counter as it was seen.
#[derive(Clone, Debug, Default)]
struct Seen {
    last: Option<(u64, Instant)>,
    nonce: Vec<u8>,
    longest: Duration,
    ticks: u64,
    holes: u64,
    rebooted: bool,
    /// Another line came since the last tick: it may have torn one.
    disturbed: bool,
}

impl Seen {
    fn line(&mut self, line: &[u8], now: Instant) {
        let tick = LINE.captures(line).and_then(|found| {
            let number = std::str::from_utf8(&found[2]).ok()?.parse::<u64>().ok()?;
            Some((found[1].to_owned(), number))
        });
        let Some((nonce, number)) = tick else {
            self.disturbed = true;
            return;
        };
        if let Some((before, at)) = self.last {
            self.longest = self.longest.max(now - at);
            if nonce != self.nonce || number <= before {
                self.rebooted = true;
            } else if !self.disturbed {
                self.holes += number - before - 1;
            }
        }
        self.ticks += 1;
        self.nonce = nonce;
        self.last = Some((number, now));
        self.disturbed = false;
    }

    fn mark(&mut self) {
        (self.longest, self.ticks, self.holes, self.rebooted) = (Duration::ZERO, 0, 0, false);
    }

    fn counted(&self, now: Instant) -> Counted {
        // A counter that stands still has a gap too.
        let open = self.last.map_or(Duration::ZERO, |(_, at)| now - at);
        Counted {
            longest: self.longest.max(open),
            ticks: self.ticks,
            holes: self.holes,
            rebooted: self.rebooted,
        }
    }
}

/// Follows a counter until it is dropped.
pub struct Ticks {
    seen: watch::Sender<Seen>,
    _task: AbortOnDropHandle<()>,
}

impl Ticks {
    /// Follows the serial log from its end on.
    pub fn follow(log: PathBuf) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        inotify.watches().add(&log, WatchMask::MODIFY)?;
        let mut writes = inotify.into_event_stream([0; 1024])?;
        let mut tail = Tail {
            at: std::fs::metadata(&log)?.len(),
            open: Vec::new(),
            // The first line may have begun before.
            torn: true,
        };
        let seen = watch::Sender::new(Seen::default());
        let told = seen.clone();
        let task = tokio::spawn(async move {
            while writes.next().await.is_some() {
                let now = Instant::now();
                told.send_modify(|seen| {
                    if let Err(error) = tail.read(&log, |line| seen.line(line, now)) {
                        tracing::error!(log = %log.display(), %error, "read a serial log");
                    }
                });
            }
        });
        Ok(Self {
            seen,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// Returns when so many ticks have come since the mark.
    pub async fn reach(&self, ticks: u64) {
        // It fails only when its sender is gone, which is ours.
        _ = self.seen.subscribe().wait_for(|seen| seen.ticks >= ticks).await;
    }

    /// Counts from now on.
    pub fn mark(&self) {
        self.seen.send_if_modified(|seen| {
            seen.mark();
            false
        });
    }

    /// What the guest prints that lives in its memory only.
    pub fn nonce(&self) -> String {
        String::from_utf8_lossy(&self.seen.borrow().nonce).into_owned()
    }

    /// What the counter did since it was marked.
    pub fn counted(&self) -> Counted {
        self.seen.borrow().counted(Instant::now())
    }
}

/// The end of a log that grows, and is cut to nothing when it is too long.
struct Tail {
    at: u64,
    open: Vec<u8>,
    torn: bool,
}

impl Tail {
    fn read(&mut self, log: &Path, mut tell: impl FnMut(&[u8])) -> io::Result<()> {
        let mut file = File::open(log)?;
        if file.metadata()?.len() < self.at {
            self.at = 0;
        }
        file.seek(SeekFrom::Start(self.at))?;
        let start = self.open.len();
        self.at += file.read_to_end(&mut self.open)? as u64;
        let Some(end) = self.open[start..].iter().rposition(|b| *b == b'\n') else {
            return Ok(());
        };
        let rest = self.open.split_off(start + end + 1);
        let whole = std::mem::replace(&mut self.open, rest);
        for line in whole.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            if !std::mem::take(&mut self.torn) {
                tell(line);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn line(nonce: u64, tick: u64) -> String {
        format!("offshoot-guest nonce={nonce:016x} tick={tick} host=demo\r\n")
    }

    fn count(lines: &[(&str, u64)]) -> Counted {
        let start = Instant::now();
        let mut seen = Seen::default();
        for (text, at) in lines {
            seen.line(
                text.trim_end_matches('\n').as_bytes(),
                start + Duration::from_millis(*at),
            );
        }
        seen.counted(start + Duration::from_millis(lines.last().unwrap().1))
    }

    #[test]
    fn gaps_holes_and_reboots_are_told_apart() {
        let [a1, a2, a4, b5] = [line(10, 1), line(10, 2), line(10, 4), line(11, 5)];
        let even = count(&[(&a1, 0), (&a2, 130)]);
        assert_eq!(
            (even.longest.as_millis(), even.holes, even.rebooted),
            (130, 0, false)
        );
        assert_eq!(count(&[(&a2, 0), (&a4, 10)]).holes, 1);
        assert_eq!(
            count(&[(&a2, 0), ("[ 1.0] a kernel's line", 5), (&a4, 10)]).holes,
            0
        );
        assert!(count(&[(&a4, 0), (&b5, 10)]).rebooted);
        assert!(count(&[(&a4, 0), (&a1, 10)]).rebooted);
    }

    #[test]
    fn a_counter_that_stands_still_has_a_gap() {
        let start = Instant::now();
        let mut seen = Seen::default();
        seen.line(line(1, 1).trim_end().as_bytes(), start);
        assert_eq!(
            seen.counted(start + Duration::from_secs(3)).longest,
            Duration::from_secs(3)
        );
    }

    #[tokio::test]
    async fn a_log_is_followed_from_its_end_over_a_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serial.log");
        let mut log = File::options().append(true).create(true).open(&path).unwrap();
        write!(log, "{}{}", line(1, 1), &line(1, 2)[..20]).unwrap();
        let ticks = Ticks::follow(path).unwrap();
        write!(log, "{}{}", &line(1, 2)[20..], line(1, 3)).unwrap();
        ticks.reach(1).await;
        assert_eq!(ticks.counted().ticks, 1, "the torn line is none");
        log.set_len(0).unwrap();
        write!(log, "{}", line(1, 4)).unwrap();
        ticks.reach(2).await;
        let counted = ticks.counted();
        assert_eq!((counted.ticks, counted.holes, counted.rebooted), (2, 0, false));
        ticks.mark();
        assert_eq!(ticks.counted().ticks, 0);
    }
}
