//! Who the machine is: what the hypervisor tells it, and becoming that.

use crate::cards::Cards;
use rustix::time::{ClockId, Timespec, clock_settime};
use serde::Deserialize;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};

/// JSON in a file of fixed size, padded with zeros.
const TOLD: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/org.offshoot/guest/raw";
/// Seconds since 1970, by the clock of the hardware.
const RTC: &str = "/sys/class/rtc/rtc0/since_epoch";
const SERIAL: &str = "/dev/ttyS0";
/// Where what the machine is told is kept for everybody.
const KEPT: &str = "/run/told";
/// How much is read at once.
const PIECE: usize = 512;

/// What the machine is told of itself.
#[derive(Deserialize)]
pub struct Told {
    pub id: String,
    pub name: String,
    /// In the order of the cards.
    macs: Vec<String>,
    /// All of it, as it was told.
    #[serde(skip)]
    text: Vec<u8>,
}

/// Where it says so.
pub struct Teller(File);

impl Teller {
    /// None with another hypervisor.
    pub fn open() -> io::Result<Option<Self>> {
        match File::open(TOLD) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            file => Ok(Some(Self(file?))),
        }
    }

    /// What it says now. The kernel asks for each byte alone, so it is read no further than it says something.
    pub fn read(&mut self) -> io::Result<Told> {
        let (mut text, mut piece) = (Vec::new(), [0; PIECE]);
        self.0.rewind()?;
        loop {
            let n = self.0.read(&mut piece)?;
            let end = piece[..n].iter().position(|b| *b == 0);
            text.extend_from_slice(&piece[..end.unwrap_or(n)]);
            if n == 0 || end.is_some() {
                break;
            }
        }
        let told: Told = serde_json::from_slice(&text)?;
        Ok(Told { text, ..told })
    }
}

impl Told {
    /// Takes name, time and addresses, and says so, behind what the kernel has said.
    pub fn become_it(&self, cards: &mut Cards, kernel: &str) -> io::Result<()> {
        rustix::system::sethostname(self.name.as_bytes())?;
        step_clock()?;
        // Last, for all may be seen from outside then: the machine is connected when it has its own.
        self.take_addresses(cards)?;
        let macs = self.macs.join(",");
        say(&format!(
            "{kernel}\r\noffshoot-guest forked instance={} host={} macs={macs}",
            self.id, self.name
        ))?;
        fs::write(KEPT, &self.text)
    }

    /// Gives each card its address, and takes from it what another had; one that has its address is left as it is.
    pub fn take_addresses(&self, cards: &mut Cards) -> io::Result<()> {
        for (n, mac) in self.macs.iter().enumerate() {
            cards.take_address(&format!("eth{n}"), mac)?;
        }
        Ok(())
    }
}

/// Writes lines to the serial port.
pub fn say(lines: &str) -> io::Result<()> {
    let mut serial = OpenOptions::new().write(true).open(SERIAL)?;
    serial.write_all(format!("{lines}\r\n").as_bytes())
}

/// The time of the hardware: a moment may have been kept for days.
fn step_clock() -> io::Result<()> {
    let text = match fs::read_to_string(RTC) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text?,
    };
    let seconds = text.trim().parse();
    let seconds =
        seconds.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{RTC}: {text:?}")))?;
    let now = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    Ok(clock_settime(ClockId::Realtime, now)?)
}
