//! What goes wrong.

use crate::Uri;
#[cfg(feature = "client")]
use crate::reach::PORTS;
#[cfg(feature = "client")]
use crate::uri::Transport;
use std::io;
#[cfg(feature = "client")]
use virt::error::{ErrorDomain, ErrorNumber};

/// What an operation answers.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a libvirt could not be asked, or a machine of it not be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("this build of Offshoot has no libvirt: take the package, or build it with the feature libvirt")]
    Absent,
    #[cfg(feature = "client")]
    #[error("reach {uri}: {}", advice(uri, source))]
    Open {
        uri: Box<Uri>,
        #[source]
        source: virt::error::Error,
    },
    #[error("{uri} is a libvirt that runs {kind}: only QEMU's machines can be read")]
    NotQemu { uri: Box<Uri>, kind: String },
    #[error("{uri} is libvirt {found}: 7.2 or newer is needed, which can tell what has changed")]
    Old { uri: Box<Uri>, found: String },
    #[cfg(feature = "client")]
    #[error("{op} of domain {domain}")]
    Call {
        op: &'static str,
        domain: String,
        #[source]
        source: virt::error::Error,
    },
    #[cfg(feature = "client")]
    #[error("QEMU cannot show the disks of domain {domain}: {}", remedy(source))]
    Show {
        domain: String,
        #[source]
        source: virt::error::Error,
    },
    #[cfg(feature = "client")]
    #[error("QEMU cannot show the disks of domain {0}: the ports {first} to {last} are all taken there", first = PORTS.start(), last = PORTS.end())]
    Taken(String),
    #[error("libvirt has no domain {0} any more")]
    Gone(String),
    #[error("domain {domain} cannot be read: {why}")]
    Refused { domain: String, why: String },
    #[error("domain {0} has another backup, or another long job, at work: wait until it is over")]
    Busy(String),
    #[error("domain {0} was started while it was read")]
    Started(String),
    #[error("{op} of domain {domain}")]
    Read {
        op: &'static str,
        domain: String,
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Whether it may be over when it is tried again: somebody is at work there, or is away.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            #[cfg(feature = "client")]
            Self::Open { .. } | Self::Taken(_) => true,
            Self::Busy(_) => true,
            #[cfg(feature = "client")]
            Self::Call { source, .. } => {
                let passes = [
                    ErrorNumber::Rpc,
                    ErrorNumber::OperationTimeout,
                    ErrorNumber::SystemError,
                ];
                // That the connection is lost is told as an internal error of it.
                source.domain() == ErrorDomain::Rpc || passes.contains(&source.code())
            }
            _ => false,
        }
    }
}

/// What to do where a libvirt is not reached.
#[cfg(feature = "client")]
fn advice(uri: &Uri, source: &virt::error::Error) -> &'static str {
    let denied = matches!(
        source.code(),
        ErrorNumber::AuthFailed | ErrorNumber::AuthUnavailable
    ) || source.message().contains("Permission denied");
    match uri.transport() {
        Transport::Local if denied => {
            "the user that this program runs as must be in the groups libvirt and libvirt-qemu"
        }
        Transport::Local => "libvirtd must run on this host",
        Transport::Ssh => {
            "the user that this program runs as must be able to sign in there by ssh with a key, without being asked anything"
        }
        Transport::Tls => {
            "libvirtd must listen for TLS there, and certificates be where libvirt looks for them, or in pkipath"
        }
    }
}

/// What to do where QEMU does not listen.
#[cfg(feature = "client")]
fn remedy(source: &virt::error::Error) -> &'static str {
    match source.message() {
        // Its credentials.
        said if said.contains("'object-add'") => {
            "on its host ca-cert.pem, server-cert.pem and server-key.pem must be in /etc/pki/qemu, or where \
             backup_tls_x509_cert_dir of qemu.conf says, and the user that QEMU runs as be able to read them"
        }
        said if said.contains("Cannot assign requested address") => {
            "the host that the URI names must have, as seen from here, an address of its own: not one that is translated"
        }
        _ => "it does not listen",
    }
}
