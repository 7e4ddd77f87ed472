//! Becomes the machine that it is told to be, each time that it was forked, and runs a command then for all that may take
//! longer: `on-fork COMMAND`.
//!
//! The kernel is told of a fork by the vmgenid device, reseeds its random numbers and says so; that line is waited for.
//! What has to be done before anything may speak for the old machine is done here: starting programs takes time.

mod cards;
mod identity;

use cards::Cards;
use identity::Teller;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::process::{Command, ExitCode};

const KERNEL_LOG: &str = "/dev/kmsg";
const FORKED: &[u8] = b"virtual machine fork";
/// What the kernel writes to its consoles is of a level below that of its first number.
const CONSOLE_LEVEL: &str = "/proc/sys/kernel/printk";
/// Warnings and worse: a kernel that writes its line about a fork to a screen and a serial line wakes nobody meanwhile.
const WARNINGS: &str = "5";
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
            eprintln!("on-fork: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &std::ffi::OsStr) -> io::Result<()> {
    std::fs::write(CONSOLE_LEVEL, WARNINGS)?;
    // Opened before it is asked who this is: a fork in the meantime is read afterwards.
    let mut log = OpenOptions::new().read(true).open(KERNEL_LOG)?;
    log.seek(SeekFrom::End(0))?;
    let Some(mut teller) = Teller::open()? else {
        // Another hypervisor tells nothing.
        std::thread::park();
        return Ok(());
    };
    // It has booted as this machine; unless it was forked while it did.
    let (mut cards, told) = (Cards::open()?, teller.read()?);
    told.take_addresses(&mut cards)?;
    let mut now = told.id;
    loop {
        let line = until_forked(&mut log)?;
        let told = teller.read()?;
        if told.id == now {
            // It is back where it was before.
            identity::say(&line)?;
            continue;
        }
        told.become_it(&mut cards, &line)?;
        if let Err(e) = Command::new(command).args([&told.id, &told.name]).status() {
            eprintln!("on-fork: run {}: {e}", command.display());
        }
        now = told.id;
    }
}

/// Waits for the kernel's line about a fork, and answers its text.
fn until_forked(log: &mut File) -> io::Result<String> {
    let mut record = [0; RECORD];
    loop {
        let record = match log.read(&mut record) {
            Ok(n) => &record[..n],
            // Records were overwritten before they were read: the next is read.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => continue,
            Err(e) => return Err(e),
        };
        if record.windows(FORKED.len()).any(|w| w == FORKED) {
            // Numbers come first, as far as a semicolon; behind the line stand others about it.
            let record = String::from_utf8_lossy(record);
            let line = record.lines().next().unwrap_or_default();
            return Ok(line.split_once(';').map_or(line, |(_, text)| text).to_owned());
        }
    }
}
