//! Where a libvirt is.

use percent_encoding::percent_decode_str;
use std::fmt;
use std::str::FromStr;

/// Parameters that are handed on. Others name programs that libvirt would run, or turn checks off.
const ALLOWED: [&str; 5] = ["socket", "keyfile", "pkipath", "mode", "proxy"];

/// How a libvirt is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// On this host.
    Local,
    /// By `ssh`.
    Ssh,
    /// By TLS.
    Tls,
}

/// The URI of a libvirt that runs QEMU: `qemu:///system`, `qemu+ssh://root@host/system`, `qemu+tls://host/system`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    text: String,
    transport: Transport,
    user: Option<String>,
    host: String,
    port: Option<u16>,
    session: bool,
    parameters: Vec<(String, String)>,
}

/// Why an URI is none that is read from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum UriError {
    #[error("this is no URI of libvirt: it is written like qemu:///system or qemu+ssh://root@host/system")]
    Form,
    #[error("libvirt's own test driver has no disks: name a libvirt that runs QEMU, like qemu:///system")]
    Test,
    #[error("{0} cannot be read from: there are qemu, qemu+unix, qemu+ssh and qemu+tls")]
    Scheme(String),
    #[error("{0} is no name of a host or a user")]
    Name(String),
    #[error("the parameter {0} is not taken: there are socket, keyfile, pkipath, mode and proxy")]
    Parameter(String),
}

fn name(text: &str) -> Result<String, UriError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:[]%".contains(c);
    // What begins with a dash would be an option of ssh.
    match text.starts_with('-') || text.is_empty() || !text.chars().all(plain) {
        true => Err(UriError::Name(text.to_owned())),
        false => Ok(text.to_owned()),
    }
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        if text.len() > 1024
            || text
                .chars()
                .any(|c| c.is_whitespace() || c.is_control() || c == '#')
        {
            return Err(UriError::Form);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UriError::Form)?;
        let transport = match scheme {
            "qemu" | "qemu+unix" => Transport::Local,
            "qemu+ssh" => Transport::Ssh,
            "qemu+tls" => Transport::Tls,
            scheme if scheme.split('+').next() == Some("test") => return Err(UriError::Test),
            scheme => return Err(UriError::Scheme(scheme.to_owned())),
        };
        let (authority, path) = rest.split_once('/').ok_or(UriError::Form)?;
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let session = match path {
            "system" => false,
            "session" => true,
            _ => return Err(UriError::Form),
        };
        // Without one it would be reached by TLS; so that is said.
        if authority.is_empty() != (transport == Transport::Local) {
            return Err(UriError::Form);
        }
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(name(user)?), place),
            None => (None, authority),
        };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, Some(port.parse().map_err(|_| UriError::Form)?))
            }
            _ => (place, None),
        };
        let mut parameters = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or(UriError::Form)?;
            if !ALLOWED.contains(&key) {
                return Err(UriError::Parameter(key.to_owned()));
            }
            let value = percent_decode_str(value)
                .decode_utf8()
                .map_err(|_| UriError::Form)?;
            parameters.push((key.to_owned(), value.into_owned()));
        }
        Ok(Self {
            text: text.to_owned(),
            transport,
            user,
            host: match transport {
                Transport::Local => String::new(),
                _ => name(host)?,
            },
            port,
            session,
            parameters,
        })
    }
}

impl Uri {
    /// How it is reached.
    #[must_use]
    pub const fn transport(&self) -> Transport {
        self.transport
    }

    /// Whether it is a user's own, not the host's.
    #[must_use]
    pub const fn is_session(&self) -> bool {
        self.session
    }

    #[cfg(feature = "client")]
    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Without the brackets of an IPv6 address; empty on this host.
    #[cfg(feature = "client")]
    pub(crate) fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    #[cfg(feature = "client")]
    pub(crate) const fn port(&self) -> Option<u16> {
        self.port
    }

    #[cfg(feature = "client")]
    pub(crate) fn parameter(&self, key: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(k, _)| k == key);
        found.map(|(_, value)| value.as_str())
    }

    /// As libvirt is asked: nobody is there to answer a question for a password.
    #[cfg(feature = "client")]
    pub(crate) fn asked(&self) -> String {
        match self.transport {
            Transport::Ssh if self.text.contains('?') => format!("{}&no_tty=1", self.text),
            Transport::Ssh => format!("{}?no_tty=1", self.text),
            _ => self.text.clone(),
        }
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_read_from_is_taken() {
        let uri: Uri = "qemu+ssh://root@host.example:2222/system?keyfile=%2Fkeys%2Fa"
            .parse()
            .unwrap();
        assert_eq!(
            (uri.transport(), uri.user(), uri.host(), uri.port()),
            (Transport::Ssh, Some("root"), "host.example", Some(2222))
        );
        assert_eq!(uri.parameter("keyfile"), Some("/keys/a"));
        assert_eq!(
            uri.asked(),
            "qemu+ssh://root@host.example:2222/system?keyfile=%2Fkeys%2Fa&no_tty=1"
        );
        let local: Uri = "qemu:///session".parse().unwrap();
        assert!(local.is_session() && local.transport() == Transport::Local);
        let six: Uri = "qemu+tls://[fd00::1]/system".parse().unwrap();
        assert_eq!((six.host(), six.port()), ("fd00::1", None));
    }

    #[test]
    fn what_would_run_programs_or_cannot_be_read_is_refused() {
        let refused = |text: &str| text.parse::<Uri>().unwrap_err();
        for text in [
            "",
            "system",
            "qemu://",
            "qemu:///",
            "qemu:///vm",
            "qemu://host/system",
            "qemu+ssh:///system",
            "qemu:///system#a",
            "qemu+ssh://a:b:c/system",
        ] {
            assert_eq!(refused(text), UriError::Form, "{text}");
        }
        assert_eq!(refused("test:///default"), UriError::Test);
        for scheme in ["xen", "qemu+ext", "qemu+libssh2", "qemu+tcp", "esx"] {
            assert_eq!(
                refused(&format!("{scheme}://host/system")),
                UriError::Scheme(scheme.into())
            );
        }
        for (text, key) in [
            ("qemu+ssh://h/system?command=/bin/sh", "command"),
            ("qemu+ssh://h/system?netcat=a", "netcat"),
            ("qemu+tls://h/system?no_verify=1", "no_verify"),
        ] {
            assert_eq!(refused(text), UriError::Parameter(key.into()));
        }
        assert_eq!(
            refused("qemu+ssh://-oProxyCommand=x/system"),
            UriError::Name("-oProxyCommand=x".into())
        );
        assert!(matches!(refused("qemu+ssh://-l@h/system"), UriError::Name(_)));
    }
}
