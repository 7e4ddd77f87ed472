//! Runs a command at start, and again each time that the machine was forked: `on-fork COMMAND`.
//!
//! The kernel is told of a fork by the vmgenid device, reseeds its random numbers and says so; that line is waited for.
//! The command finds out by itself who it is now: a fork may happen at any moment, in the middle of it as well.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::process::{Command, ExitCode};

const KERNEL_LOG: &str = "/dev/kmsg";
const FORKED: &[u8] = b"virtual machine fork";
/// The longest record that the kernel gives at once.
const RECORD: usize = 8192;

fn main() -> ExitCode {
    let Some(command) = std::env::args_os().nth(1) else {
        eprintln!("usage: on-fork COMMAND");
        return ExitCode::from(2);
    };
    match run(&command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("on-fork: read {KERNEL_LOG}: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &std::ffi::OsStr) -> io::Result<()> {
    // Opened before the command runs: a fork in the meantime is read afterwards.
    let mut log = OpenOptions::new().read(true).open(KERNEL_LOG)?;
    log.seek(SeekFrom::End(0))?;
    loop {
        if let Err(e) = Command::new(command).status() {
            eprintln!("on-fork: run {}: {e}", command.display());
        }
        until_forked(&mut log)?;
    }
}

fn until_forked(log: &mut File) -> io::Result<()> {
    let mut record = [0; RECORD];
    loop {
        match log.read(&mut record) {
            Ok(n) if record[..n].windows(FORKED.len()).any(|w| w == FORKED) => return Ok(()),
            Ok(_) => {}
            // Records were overwritten before they were read: the next is read.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
            Err(e) => return Err(e),
        }
    }
}
