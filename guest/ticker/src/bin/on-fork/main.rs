//! Becomes the machine that it is told to be, each time that it was forked, and runs a command then for all that may take
//! longer: `on-fork COMMAND`.
//!
//! The kernel is told of a fork by the vmgenid device, reseeds its random numbers and says so; that line is waited for.
//! What has to be done before anything may speak for the old machine is done here: starting programs takes time.

mod cards;
mod identity;

use identity::Told;
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
            eprintln!("on-fork: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &std::ffi::OsStr) -> io::Result<()> {
    // Opened before it is asked who this is: a fork in the meantime is read afterwards.
    let mut log = OpenOptions::new().read(true).open(KERNEL_LOG)?;
    log.seek(SeekFrom::End(0))?;
    let Some(told) = Told::read()? else {
        // Another hypervisor tells nothing.
        std::thread::park();
        return Ok(());
    };
    // It has booted as this machine; unless it was forked while it did.
    let mut now = told.id.clone();
    told.take_addresses()?;
    loop {
        until_forked(&mut log)?;
        let Some(told) = Told::read()?.filter(|told| told.id != now) else {
            continue;
        };
        told.become_it()?;
        if let Err(e) = Command::new(command).args([&told.id, &told.name]).status() {
            eprintln!("on-fork: run {}: {e}", command.display());
        }
        now = told.id;
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
