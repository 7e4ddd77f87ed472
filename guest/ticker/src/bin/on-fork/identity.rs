//! Who the machine is: what the hypervisor tells it, and becoming that.

use crate::cards;
use rustix::time::{ClockId, Timespec, clock_settime};
use serde::Deserialize;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};

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

impl Told {
    /// What it is told now; nothing by another hypervisor. The kernel asks for each byte of that file alone, so it is read no
    /// further than it says something.
    pub fn read() -> io::Result<Option<Self>> {
        let mut file = match File::open(TOLD) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let (mut text, mut piece) = (Vec::new(), [0; PIECE]);
        loop {
            let n = file.read(&mut piece)?;
            let end = piece[..n].iter().position(|b| *b == 0);
            text.extend_from_slice(&piece[..end.unwrap_or(n)]);
            if n == 0 || end.is_some() {
                break;
            }
        }
        let told: Self = serde_json::from_slice(&text)?;
        Ok(Some(Self { text, ..told }))
    }

    /// Takes addresses, name and time.
    pub fn become_it(&self) -> io::Result<()> {
        // The address first: the machine is connected when it has its own.
        self.take_addresses()?;
        rustix::system::sethostname(self.name.as_bytes())?;
        step_clock()?;
        let mut serial = OpenOptions::new().write(true).open(SERIAL)?;
        let line = format!(
            "offshoot-guest forked instance={} host={} macs={}\r\n",
            self.id,
            self.name,
            self.macs.join(",")
        );
        serial.write_all(line.as_bytes())?;
        fs::write(KEPT, &self.text)
    }

    /// Gives each card its address, and takes from it what another had; one that has its address is left as it is.
    pub fn take_addresses(&self) -> io::Result<()> {
        let control = cards::control()?;
        for (n, mac) in self.macs.iter().enumerate() {
            cards::take_address(&control, &format!("eth{n}"), mac)?;
        }
        Ok(())
    }
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
