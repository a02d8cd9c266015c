//! A throw-away authority and the certificates that it signs.

use std::path::PathBuf;

use loggregator_net::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// The authority, and the folder that everything lies in.
pub struct Certs {
    pub dir: TempDir,
}

impl Certs {
    /// Certificates for a doppler, an agent, a reverse log proxy and a traffic controller.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let ca = params.self_signed(&key).unwrap();
        std::fs::write(dir.path().join("ca.crt"), ca.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        for name in ["doppler", "metron", "reverselogproxy", "trafficcontroller"] {
            let key = KeyPair::generate().unwrap();
            let names = vec![
                name.to_owned(),
                "localhost".to_owned(),
                "127.0.0.1".to_owned(),
            ];
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            let cert = params.signed_by(&key, &issuer).unwrap();
            std::fs::write(dir.path().join(format!("{name}.crt")), cert.pem()).unwrap();
            std::fs::write(dir.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Self { dir }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn of(&self, name: &str) -> TlsFiles {
        TlsFiles {
            ca: self.file("ca.crt"),
            cert: self.file(&format!("{name}.crt")),
            key: self.file(&format!("{name}.key")),
        }
    }
}
