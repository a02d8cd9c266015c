//! The throw-away certificates of `up`: a CA of its own, and one identity per component.
//!
//! ECDSA P-256, made anew at each start, never leaving the state folder. The CA's key is not even written down: once
//! the identities are signed nobody can sign another.

use super::{StateDir, StateError, write_private};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use std::path::{Path, PathBuf};

/// Names and addresses that every identity is valid for, besides its own name.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A certificate and its key, as files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// PEM file of the certificate.
    pub cert: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
}

/// All certificates of one pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pki {
    /// PEM file of the CA's certificate.
    pub ca: PathBuf,
    /// Of the dopplers: server name `doppler`.
    pub doppler: Identity,
    /// Of the agent: server name `metron`.
    pub agent: Identity,
    /// Of the traffic controller: server name `trafficcontroller`.
    pub traffic_controller: Identity,
    /// Of the reverse log proxy and of its gateway: server name `reverselogproxy`.
    pub reverse_log_proxy: Identity,
    /// Of the people's commands.
    pub client: Identity,
}

/// What can go wrong while making certificates.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The library refused.
    #[error("cannot make a certificate for `{name}`: {source}")]
    Generate {
        /// Whose.
        name: String,
        /// Why.
        source: rcgen::Error,
    },
    /// A file could not be written.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Pki {
    /// Makes everything anew and writes it into the folder.
    ///
    /// # Errors
    /// When a key cannot be made or a file cannot be written.
    pub fn generate(dir: &StateDir) -> Result<Self, PkiError> {
        let ca = authority().map_err(|source| PkiError::Generate {
            name: "CA".to_owned(),
            source,
        })?;
        let ca_file = dir.file("ca.crt");
        write_private(&ca_file, ca.pem.as_bytes())?;
        let identity = |name: &str| ca.identity(name, dir.path());
        Ok(Self {
            ca: ca_file,
            doppler: identity("doppler")?,
            agent: identity("metron")?,
            traffic_controller: identity("trafficcontroller")?,
            reverse_log_proxy: identity("reverselogproxy")?,
            client: identity("client")?,
        })
    }
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn named(mut params: CertificateParams, name: &str) -> CertificateParams {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    let now = std::time::SystemTime::now();
    let day = std::time::Duration::from_secs(24 * 60 * 60);
    // A day back, for clocks that are set while it runs; the folder is made anew at each start.
    params.not_before = (now - day).into();
    params.not_after = (now + 365 * day).into();
    params
}

fn authority() -> Result<Authority, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = named(
        CertificateParams::new(Vec::<String>::new())?,
        "loggregator throw-away CA",
    );
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let pem = params.self_signed(&key)?.pem();
    Ok(Authority {
        pem,
        issuer: Issuer::new(params, key),
    })
}

impl Authority {
    fn identity(&self, name: &str, dir: &Path) -> Result<Identity, PkiError> {
        let failed = |source| PkiError::Generate {
            name: name.to_owned(),
            source,
        };
        let names: Vec<String> = std::iter::once(name)
            .chain(LOOPBACK)
            .map(str::to_owned)
            .collect();
        let mut params = named(CertificateParams::new(names).map_err(failed)?, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Agents and traffic controllers are servers to one side and clients to the other.
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().map_err(failed)?;
        let cert = params.signed_by(&key, &self.issuer).map_err(failed)?;
        let identity = Identity {
            cert: dir.join(format!("{name}.crt")),
            key: dir.join(format!("{name}.key")),
        };
        write_private(&identity.cert, cert.pem().as_bytes())?;
        write_private(&identity.key, key.serialize_pem().as_bytes())?;
        Ok(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn keys_are_private_and_the_authoritys_own_key_is_nowhere() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StateDir::new(Some(temp.path().to_owned()));
        let pki = Pki::generate(&dir).unwrap();
        for identity in [
            &pki.doppler,
            &pki.agent,
            &pki.traffic_controller,
            &pki.reverse_log_proxy,
            &pki.client,
        ] {
            let mode = std::fs::metadata(&identity.key)
                .unwrap()
                .permissions()
                .mode()
                & 0o777;
            assert_eq!(mode, 0o600, "{}", identity.key.display());
            assert!(
                std::fs::read_to_string(&identity.cert)
                    .unwrap()
                    .starts_with("-----BEGIN CERTIFICATE-----")
            );
        }
        assert!(!dir.file("ca.key").exists());
        assert!(
            std::fs::read_to_string(&pki.ca)
                .unwrap()
                .contains("BEGIN CERTIFICATE")
        );
    }

    #[test]
    fn each_start_makes_new_ones() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StateDir::new(Some(temp.path().to_owned()));
        let pki = Pki::generate(&dir).unwrap();
        let first = std::fs::read(&pki.client.cert).unwrap();
        Pki::generate(&dir).unwrap();
        assert_ne!(first, std::fs::read(&pki.client.cert).unwrap());
    }
}
