//! Who the machine is: what the hypervisor tells it, and becoming that.

use rustix::net::{AddressFamily, SocketType, socket};
use rustix::time::{ClockId, Timespec, clock_settime};
use serde::Deserialize;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

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

    /// Takes the IP address from each card, which was another's, and gives it its own address. A card that has that already is
    /// left as it is.
    pub fn take_addresses(&self) -> io::Result<()> {
        let control = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        for (n, mac) in self.macs.iter().enumerate() {
            let card = format!("eth{n}");
            let now = fs::read_to_string(format!("/sys/class/net/{card}/address"));
            if now.is_ok_and(|now| now.trim().eq_ignore_ascii_case(mac)) {
                continue;
            }
            // Those of IPv6 are made of the card's: with it off they go, and are made anew.
            let ipv6 = format!("/proc/sys/net/ipv6/conf/{card}/disable_ipv6");
            let has_ipv6 = fs::exists(&ipv6)?;
            if has_ipv6 {
                fs::write(&ipv6, "1")?;
            }
            let nowhere = [0; 6];
            match set(&control, &card, libc::SIOCSIFADDR, libc::AF_INET as u16, &nowhere) {
                // It had none.
                Err(e) if e.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {}
                dropped => dropped?,
            }
            let own = octets(mac)?;
            // The card stays up: what it has sent so far nobody gets.
            set(&control, &card, libc::SIOCSIFHWADDR, libc::ARPHRD_ETHER, &own)?;
            if has_ipv6 {
                fs::write(&ipv6, "0")?;
            }
        }
        Ok(())
    }
}

fn octets(mac: &str) -> io::Result<[u8; 6]> {
    let octets: Result<Vec<_>, _> = mac.split(':').map(|o| u8::from_str_radix(o, 16)).collect();
    let octets = octets.ok().and_then(|octets| octets.try_into().ok());
    octets.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{mac:?} is no address")))
}

/// Sets an address of a card, of whatever kind; `bytes` are those behind the family.
fn set(control: &OwnedFd, card: &str, what: libc::c_ulong, family: u16, bytes: &[u8]) -> io::Result<()> {
    let mut request = of(card);
    let mut address = libc::sockaddr {
        sa_family: family,
        sa_data: [0; 14],
    };
    for (to, from) in address.sa_data.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_addr = address;
    ask(control, what, &mut request)
}

/// A request about a card.
fn of(card: &str) -> libc::ifreq {
    // SAFETY: a C struct of numbers; all zeros are one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(card.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

fn ask(control: &OwnedFd, what: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: these calls read and write one `ifreq`, which lives until they return.
    match unsafe { libc::ioctl(control.as_raw_fd(), what as _, &raw mut *request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
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
