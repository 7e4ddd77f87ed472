//! The addresses of network cards.

use rustix::net::{AddressFamily, SocketType, socket};
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::{fs, io};

/// What requests about cards are made of.
pub fn control() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::INET, SocketType::DGRAM, None)?)
}

/// Gives a card its address, and takes its IP addresses, which were another's. A card that has its address is left as it is.
pub fn take_address(control: &OwnedFd, card: &str, mac: &str) -> io::Result<()> {
    let now = fs::read_to_string(format!("/sys/class/net/{card}/address"));
    if now.is_ok_and(|now| now.trim().eq_ignore_ascii_case(mac)) {
        return Ok(());
    }
    let own = octets(mac)?;
    let ipv6 = Ipv6::of(control, card)?;
    for (address, prefix) in &ipv6.addresses {
        ipv6.ask(libc::SIOCDIFADDR, *address, *prefix)?;
    }
    let nowhere = [0; 6];
    match set(control, card, libc::SIOCSIFADDR, libc::AF_INET as u16, &nowhere) {
        // It had none.
        Err(e) if e.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {}
        dropped => dropped?,
    }
    // The card stays up: what it has sent so far nobody gets.
    set(control, card, libc::SIOCSIFHWADDR, libc::ARPHRD_ETHER, &own)?;
    if !ipv6.addresses.is_empty() {
        ipv6.ask(libc::SIOCSIFADDR, link_local(own), 64)?;
    }
    Ok(())
}

/// What a card has of IPv6. Its link-local address is made of the card's, when that comes up. Switching IPv6 off and on would do as well,
/// and wait for the kernel.
struct Ipv6 {
    control: Option<OwnedFd>,
    index: libc::c_int,
    addresses: Vec<(Ipv6Addr, u32)>,
}

/// A request about an address; libc has no `in6_ifreq`.
#[repr(C)]
struct In6 {
    address: libc::in6_addr,
    prefix: u32,
    index: libc::c_int,
}

impl Ipv6 {
    fn of(control: &OwnedFd, card: &str) -> io::Result<Self> {
        let mut request = of(card);
        ask(control, libc::SIOCGIFINDEX, &mut request)?;
        // SAFETY: the call before has written the index.
        let index = unsafe { request.ifr_ifru.ifru_ifindex };
        // Address, index, prefix, scope, flags, name; no file where the kernel has no IPv6.
        let all = match fs::read_to_string("/proc/net/if_inet6") {
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            all => all?,
        };
        let one = |line: &str| {
            let mut fields = line.split_ascii_whitespace();
            let address = u128::from_str_radix(fields.next()?, 16).ok()?;
            let prefix = u32::from_str_radix(fields.nth(1)?, 16).ok()?;
            (fields.nth(2)? == card).then_some((address.into(), prefix))
        };
        let addresses: Vec<_> = all.lines().filter_map(one).collect();
        let control = match addresses.is_empty() {
            true => None,
            false => Some(socket(AddressFamily::INET6, SocketType::DGRAM, None)?),
        };
        Ok(Self {
            control,
            index,
            addresses,
        })
    }

    fn ask(&self, what: libc::c_ulong, address: Ipv6Addr, prefix: u32) -> io::Result<()> {
        let Some(control) = &self.control else {
            return Ok(());
        };
        let request = In6 {
            address: libc::in6_addr {
                s6_addr: address.octets(),
            },
            prefix,
            index: self.index,
        };
        // SAFETY: these calls read one `in6_ifreq`, which lives until they return.
        match unsafe { libc::ioctl(control.as_raw_fd(), what as _, &raw const request) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
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
