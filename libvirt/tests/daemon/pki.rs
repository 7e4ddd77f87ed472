//! Authorities, and the certificates that they give.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::path::Path;

pub struct Authority {
    /// Its certificate.
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn named(name: &str, hosts: &[String]) -> CertificateParams {
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        Self {
            pem: params.self_signed(&key).unwrap().pem(),
            issuer: Issuer::new(params, key),
        }
    }

    fn sign(&self, name: &str, hosts: &[String], purpose: ExtendedKeyUsagePurpose) -> (String, String) {
        let mut params = named(name, hosts);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A certificate of a host, and its key.
    pub fn server(&self, host: &str) -> (String, String) {
        self.sign(host, &[host.to_owned()], ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// What a client has, as in a pkipath: this authority to trust, and a certificate.
    pub fn client(&self, dir: &Path) {
        let (certificate, key) = self.sign("client", &[], ExtendedKeyUsagePurpose::ClientAuth);
        std::fs::create_dir_all(dir).unwrap();
        for (name, pem) in [
            ("cacert.pem", &self.pem),
            ("clientcert.pem", &certificate),
            ("clientkey.pem", &key),
        ] {
            std::fs::write(dir.join(name), pem).unwrap();
        }
    }
}
