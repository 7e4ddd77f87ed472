//! The addresses of network cards.

use rustix::net::{AddressFamily, SocketType, socket};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, OwnedFd};

/// What requests about cards are made of. It is there before a fork has to ask for it: what runs there for the first time
/// takes long.
pub struct Cards {
    inet: OwnedFd,
    inet6: Option<Inet6>,
}

impl Cards {
    pub fn open() -> io::Result<Self> {
        let inet = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        let inet6 = match File::open(INET6) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            addresses => Some(Inet6 {
                control: socket(AddressFamily::INET6, SocketType::DGRAM, None)?,
                addresses: addresses?,
            }),
        };
        Ok(Self { inet, inet6 })
    }

    /// Gives a card its address, and takes its IP addresses, which were another's. A card that has its address is left as
    /// it is.
    pub fn take_address(&mut self, card: &str, mac: &str) -> io::Result<()> {
        let own = octets(mac)?;
        let mut request = of(card);
        ask(&self.inet, libc::SIOCGIFHWADDR, &mut request)?;
        // SAFETY: the call before has written the address.
        let now = unsafe { request.ifr_ifru.ifru_hwaddr }.sa_data;
        if now.iter().zip(own).all(|(now, own)| *now as u8 == own) {
            return Ok(());
        }
        let old = match &mut self.inet6 {
            Some(inet6) => inet6.of(card)?,
            None => Vec::new(),
        };
        for (inet6, old) in self
            .inet6
            .iter()
            .flat_map(|inet6| old.iter().map(move |old| (inet6, old)))
        {
            inet6.ask(libc::SIOCDIFADDR, old)?;
        }
        let nowhere = [0; 6];
        match set(
            &self.inet,
            card,
            libc::SIOCSIFADDR,
            libc::AF_INET as u16,
            &nowhere,
        ) {
            // It had none.
            Err(e) if e.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {}
            dropped => dropped?,
        }
        // The card stays up: what it has sent so far nobody gets.
        set(&self.inet, card, libc::SIOCSIFHWADDR, libc::ARPHRD_ETHER, &own)?;
        if let (Some(inet6), Some(old)) = (&self.inet6, old.first()) {
            let address = link_local(own);
            let prefix = 64;
            inet6.ask(
                libc::SIOCSIFADDR,
                &Address {
                    address,
                    prefix,
                    ..*old
                },
            )?;
        }
        Ok(())
    }
}

/// Address, index of the card, prefix, scope, flags, name, all but the last in hexadecimal; no file where the kernel has no
/// IPv6.
const INET6: &str = "/proc/net/if_inet6";

/// A card's link-local address of IPv6 is made of the card's, when that comes up. Switching IPv6 off and on would do as well,
/// and wait for the kernel.
struct Inet6 {
    control: OwnedFd,
    addresses: File,
}

struct Address {
    address: Ipv6Addr,
    card: libc::c_int,
    prefix: u32,
}

/// A request about an address; libc has no `in6_ifreq`.
#[repr(C)]
struct In6 {
    address: libc::in6_addr,
    prefix: u32,
    index: libc::c_int,
}

impl Inet6 {
    /// What a card has.
    fn of(&mut self, card: &str) -> io::Result<Vec<Address>> {
        let mut all = String::new();
        self.addresses.rewind()?;
        self.addresses.read_to_string(&mut all)?;
        let one = |line: &str| {
            let mut fields = line.split_ascii_whitespace();
            let address = u128::from_str_radix(fields.next()?, 16).ok()?.into();
            let index = libc::c_int::from_str_radix(fields.next()?, 16).ok()?;
            let prefix = u32::from_str_radix(fields.next()?, 16).ok()?;
            let its = Address {
                address,
                card: index,
                prefix,
            };
            (fields.nth(2)? == card).then_some(its)
        };
        Ok(all.lines().filter_map(one).collect())
    }

    fn ask(&self, what: libc::c_ulong, address: &Address) -> io::Result<()> {
        let request = In6 {
            address: libc::in6_addr {
                s6_addr: address.address.octets(),
            },
            prefix: address.prefix,
            index: address.card,
        };
        // SAFETY: these calls read one `in6_ifreq`, which lives until they return.
        match unsafe { libc::ioctl(self.control.as_raw_fd(), what as _, &raw const request) } {
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
