//! The counter of the demo guest: `ticker [RATE]`, RATE ticks a second (1 to 1000, default 10).
//!
//! A tick is one line on the serial port and, at most ten times a second, on the screen:
//! `offshoot-guest nonce=<16 hex digits> tick=<n> host=<hostname>`. The nonce lives in memory only: the same
//! nonce means the same boot. `n` counts lines without a hole, so a hole means that the reader lost some.
//! The length of a pause is read from the arrival of the lines at the host.

mod schedule;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;

use rustix::fs::OFlags;
use rustix::termios::{self, OptionalActions};
use rustix::thread::ClockId;
use schedule::Rate;

const SERIAL: &str = "/dev/ttyS0";
const SCREEN: &str = "/dev/tty0";

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("read the rate `{0}`: not a whole number from 1 to 1000")]
    Rate(String),
    #[error("draw a nonce from /dev/random")]
    Nonce(#[source] io::Error),
    #[error("open {0}")]
    Open(&'static str, #[source] io::Error),
    #[error("set {SERIAL} to raw mode")]
    Raw(#[source] rustix::io::Errno),
    #[error("raise the priority of the ticker")]
    Priority(#[source] rustix::io::Errno),
    #[error("sleep until the next tick")]
    Sleep(#[source] rustix::io::Errno),
    #[error("write a tick to {SERIAL}")]
    Write(#[source] io::Error),
}

fn main() -> ExitCode {
    let Err(error) = run();
    eprint!("ticker: {error}");
    let mut cause = std::error::Error::source(&error);
    while let Some(source) = cause {
        eprint!(": {source}");
        cause = source.source();
    }
    eprintln!();
    ExitCode::FAILURE
}

fn run() -> Result<std::convert::Infallible, Error> {
    let argument = std::env::args().nth(1).unwrap_or_else(|| "10".into());
    let rate = Rate::parse(&argument).ok_or(Error::Rate(argument))?;
    // Nothing else in the guest may delay a tick, and the kernel may not round its wake-up.
    rustix::process::setpriority_process(None, -20).map_err(Error::Priority)?;
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1)).map_err(Error::Priority)?;

    let nonce = nonce().map_err(Error::Nonce)?;
    let mut serial = open_serial()?;
    // A screen that someone stopped (Ctrl-S) loses lines instead of stopping the ticks.
    let mut screen = open(SCREEN, OFlags::NONBLOCK)?;

    let mut deadline = now();
    let mut tick: u64 = 1;
    loop {
        // Written before the sleep: after it there is nothing left to do but send.
        let line = line(&nonce, tick, &hostname());
        sleep_until(deadline)?;
        serial.write_all(line.as_bytes()).map_err(Error::Write)?;
        if rate.on_screen(tick) {
            // The serial line is the record; a full screen is no reason to stop.
            let _ = screen.write(line.as_bytes());
        }
        deadline = rate.after(deadline, now());
        tick += 1;
    }
}

/// The carriage return is for terminals: the port is raw, nobody else adds it.
fn line(nonce: &str, tick: u64, host: &str) -> String {
    format!("offshoot-guest nonce={nonce} tick={tick} host={host}\r\n")
}

/// 16 hex digits, new with every boot. /dev/random waits until the kernel has entropy.
fn nonce() -> io::Result<String> {
    let mut bytes = [0; 8];
    File::open("/dev/random")?.read_exact(&mut bytes)?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

/// The name of this moment: one cheap call, so that a change shows in the next line.
fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn open(path: &'static str, flags: OFlags) -> Result<File, Error> {
    let flags = (flags | OFlags::NOCTTY).bits() as i32;
    OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(path)
        .map_err(|error| Error::Open(path, error))
}

/// Raw: no byte is translated, and what arrives on the port (XOFF) cannot stop the ticks.
fn open_serial() -> Result<File, Error> {
    let serial = open(SERIAL, OFlags::empty())?;
    let mut settings = termios::tcgetattr(&serial).map_err(Error::Raw)?;
    settings.make_raw();
    termios::tcsetattr(&serial, OptionalActions::Now, &settings).map_err(Error::Raw)?;
    Ok(serial)
}

/// Nanoseconds on the monotonic clock.
fn now() -> u64 {
    let time = rustix::time::clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn sleep_until(deadline: u64) -> Result<(), Error> {
    let request = rustix::thread::Timespec {
        tv_sec: (deadline / 1_000_000_000) as i64,
        tv_nsec: (deadline % 1_000_000_000) as i64,
    };
    loop {
        match rustix::thread::clock_nanosleep_absolute(ClockId::Monotonic, &request) {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.map_err(Error::Sleep),
        }
    }
}
