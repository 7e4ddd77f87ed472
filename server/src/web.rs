//! Going out to addresses that people name.
//!
//! Where the server stands it reaches more than the web: so an address is resolved here, what is private is refused
//! unless configured, and the connection goes to the address that was checked.

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{ClientBuilder, Url, redirect};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(20);

/// Which addresses may be gone to.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    private: bool,
    /// The setting that allows private ones.
    setting: &'static str,
}

impl Reach {
    /// Public addresses; private ones too if that is configured, by the setting of this name.
    pub const fn new(private: bool, setting: &'static str) -> Self {
        Self { private, setting }
    }

    /// A client that goes nowhere else. It follows no redirects: where they lead has to be looked at as well.
    pub fn client(self) -> ClientBuilder {
        crate::use_ring();
        reqwest::Client::builder()
            .user_agent(concat!("offshoot/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .dns_resolver(Arc::new(self))
            .connect_timeout(CONNECT)
            // A proxy would resolve the names that are checked here.
            .no_proxy()
    }

    /// Why an address may not be gone to, as far as it shows: a number in place of a name is not resolved, so it is
    /// looked at here.
    pub fn check(self, at: &Url) -> Result<(), String> {
        if !matches!(at.scheme(), "http" | "https") {
            return Err(format!("one goes there by http or https, not by {}", at.scheme()));
        }
        let host = at.host_str().unwrap_or_default();
        let number = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>();
        match number {
            Ok(ip) if !self.private && !is_public(ip) => Err(self.refusal(Some(ip))),
            _ => Ok(()),
        }
    }

    fn refusal(self, ip: Option<IpAddr>) -> String {
        let setting = self.setting;
        match ip {
            Some(ip) => format!(
                "it leads to {ip}, which is no public address: {setting} = true allows those, if everybody who may name \
                 such an address may reach them"
            ),
            None => "its name leads to no address".to_owned(),
        }
    }
}

impl Resolve for Reach {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = *self;
        Box::pin(async move {
            let all: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let good: Vec<_> = all
                .iter()
                .copied()
                .filter(|a| reach.private || is_public(a.ip()))
                .collect();
            if good.is_empty() {
                return Err(reach.refusal(all.first().map(SocketAddr::ip)).into());
            }
            Ok(Box::new(good.into_iter()) as Addrs)
        })
    }
}

/// Whether an address belongs to the web at large.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    // "This network", carriers' private addresses, protocol assignments, benchmarks, and what is reserved.
    let own = matches!(
        (a, b, c),
        (0, ..) | (100, 64..=127, _) | (192, 0, 0) | (198, 18..=19, _) | (240.., ..)
    );
    !(own
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_documentation())
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        // Teredo, documentation, and the translation prefix of a network's own.
        [0x2001, 0, ..] | [0x2001, 0xdb8, ..] | [0x64, 0xff9b, 1, ..] => false,
        // Only global unicast is left of the rest.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are() {
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "172.32.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for own in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "198.18.0.1",
            "192.0.0.8",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
        ] {
            assert!(!is_public(own.parse().unwrap()), "{own}");
        }
    }
}
