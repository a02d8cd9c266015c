//! Throw-away certificates, made once per test program.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use loggregator_net::{ClientTls, TlsFiles};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};
use tempfile::TempDir;

/// One authority and what it signed.
pub struct Pki {
    folder: TempDir,
}

impl Pki {
    /// The authority that all tests share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Pki> = OnceLock::new();
        SHARED.get_or_init(Self::new)
    }

    /// An authority of its own, with certificates for a doppler, an agent and a client.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name = named("test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        for name in ["doppler", "metron", "client"] {
            sign(folder.path(), name, &issuer);
        }
        Self { folder }
    }

    pub fn files(&self, name: &str) -> TlsFiles {
        TlsFiles {
            ca: self.path("ca.pem"),
            cert: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
        }
    }

    pub fn doppler(&self) -> TlsFiles {
        self.files("doppler")
    }

    pub fn client_tls(&self) -> Arc<ClientTls> {
        ClientTls::mutual(&self.files("client")).unwrap()
    }

    /// The client certificate of this authority for somebody who trusts `other`'s servers.
    pub fn client_tls_trusting(&self, other: &Self) -> Arc<ClientTls> {
        ClientTls::mutual(&TlsFiles {
            ca: other.path("ca.pem"),
            ..self.files("client")
        })
        .unwrap()
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }
}

/// Subject and issuer must differ, or OpenSSL takes a certificate for self-signed.
fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn sign(folder: &Path, name: &str, issuer: &Issuer<'_, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned(), "127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name = named(name);
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let certificate = params.signed_by(&key, issuer).unwrap();
    std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
    std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}
