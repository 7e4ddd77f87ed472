//! Whom commands trust beside the authorities of the system.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_platform_verifier::Verifier;
use std::path::Path;
use std::sync::Arc;

/// Trusts what given certificates have signed, and a server that shows one of them itself: a certificate that somebody has
/// made for one server is mostly an authority as well, which no server may be elsewhere.
#[derive(Debug)]
struct Given {
    given: Vec<CertificateDer<'static>>,
    others: Verifier,
}

impl ServerCertVerifier for Given {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
        match self.others.verify_server_cert(shown, between, name, ocsp, now) {
            // Its time is looked at before its use.
            Err(Error::InvalidCertificate(
                e @ (Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }),
            )) => Err(e.into()),
            Err(_) if self.given.contains(shown) => {
                verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.others.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.others.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.others.supported_verify_schemes()
    }
}

fn verifier(given: Vec<CertificateDer<'static>>) -> Result<Given, Error> {
    let provider = Arc::new(ring::default_provider());
    let others = Verifier::new_with_extra_roots(given.clone(), provider)?;
    Ok(Given { given, others })
}

/// How TLS is spoken with a server that the certificates of a PEM file vouch for, where there is one, or those of the system.
pub fn with(file: Option<&Path>) -> Result<ClientConfig, String> {
    let given = match file {
        Some(path) => {
            let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let all = all.map_err(|e| e.to_string())?;
            if all.is_empty() {
                return Err("it has no certificate in it".into());
            }
            all
        }
        None => Vec::new(),
    };
    let verifier = verifier(given).map_err(|e| e.to_string())?;
    Ok(ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// Whether TLS is the cause of an error.
pub fn is_cause(e: &(dyn std::error::Error + 'static)) -> bool {
    // An error of I/O names what it is made of by itself, not as its source.
    let made_of = e.downcast_ref::<std::io::Error>().and_then(|e| e.get_ref());
    e.is::<Error>() || made_of.is_some_and(|e| is_cause(e)) || e.source().is_some_and(is_cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    fn made() -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["console.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        certificate.der().clone()
    }

    #[test]
    fn a_certificate_that_is_given_is_the_servers_under_its_name_alone() {
        let (given, other) = (made(), made());
        let verifier = verifier(vec![given.clone()]).unwrap();
        let verify = |shown: &CertificateDer<'_>, name: &str, now| {
            let name = ServerName::try_from(name.to_owned()).unwrap();
            verifier.verify_server_cert(shown, &[], &name, &[], now).is_ok()
        };
        let now = UnixTime::now();
        assert!(verify(&given, "console.example", now));
        assert!(!verify(&given, "another.example", now));
        assert!(!verify(&other, "console.example", now));
        let late = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1 << 38));
        assert!(!verify(&given, "console.example", late));
    }

    #[test]
    fn tls_is_found_beneath_errors_of_io() {
        let tls = std::io::Error::other(Error::HandshakeNotComplete);
        assert!(is_cause(&std::io::Error::other(tls)));
        assert!(!is_cause(&std::io::Error::other("the line is cut")));
    }
}
