//! Certificates in a temporary folder: one CA and an identity per component, as a deployment has them.

use anyhow::{Context as _, Result};
use loggregator_net::TlsFiles;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Server names of the components, as certificates in a deployment carry them.
pub const NAMES: [&str; 7] = [
    "doppler",
    "metron",
    "trafficcontroller",
    "reverselogproxy",
    "client",
    "uaa",
    "cloud-controller",
];

/// A CA, and a certificate for each of [`NAMES`], valid on loopback too. The folder goes with the value.
#[derive(Debug)]
pub struct Certs {
    dir: TempDir,
}

impl Certs {
    /// Makes everything: ECDSA P-256, valid from yesterday for a year.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn generate() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("loggregator-certs-")
            .tempdir()
            .context("a temporary folder")?;
        let key = KeyPair::generate()?;
        let mut params = base("test CA", Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        std::fs::write(dir.path().join("ca.crt"), params.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(params, key);
        for name in NAMES {
            write_identity(dir.path(), name, &issuer)?;
        }
        Ok(Self { dir })
    }

    /// The files of one component: the CA that it trusts, its certificate, its key.
    pub fn tls(&self, name: &str) -> TlsFiles {
        TlsFiles {
            ca: self.ca(),
            cert: self.file(name, "crt"),
            key: self.file(name, "key"),
        }
    }

    /// The CA's certificate.
    pub fn ca(&self) -> PathBuf {
        self.file("ca", "crt")
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn file(&self, name: &str, kind: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.{kind}"))
    }
}

fn base(name: &str, alternatives: Vec<String>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(alternatives)?;
    params.distinguished_name.push(DnType::CommonName, name);
    let now = std::time::SystemTime::now();
    let day = std::time::Duration::from_secs(24 * 60 * 60);
    params.not_before = (now - day).into();
    params.not_after = (now + 365 * day).into();
    Ok(params)
}

fn write_identity(dir: &Path, name: &str, issuer: &Issuer<'_, KeyPair>) -> Result<()> {
    let mut params = base(
        name,
        [name, "localhost", "127.0.0.1"].map(str::to_owned).to_vec(),
    )?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate()?;
    std::fs::write(
        dir.join(format!("{name}.crt")),
        params.signed_by(&key, issuer)?.pem(),
    )?;
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_component_has_its_files_and_they_go_with_the_value() {
        let certs = Certs::generate().unwrap();
        let dir = certs.dir().to_owned();
        for name in NAMES {
            let files = certs.tls(name);
            assert!(
                files.ca.is_file() && files.cert.is_file() && files.key.is_file(),
                "{name}"
            );
        }
        drop(certs);
        assert!(!dir.exists());
    }
}
