//! Throw-away certificates of one run: an authority, and one identity that is every server and every client.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::BenchError;

/// The PEM files that a process under test is given.
#[derive(Clone, Debug)]
pub struct Files {
    /// Certificate of the authority.
    pub ca: PathBuf,
    /// Certificate of the identity.
    pub cert: PathBuf,
    /// Its private key, PKCS#8.
    pub key: PathBuf,
}

/// Names that components verify on each other's certificates.
const NAMES: [&str; 6] = [
    "doppler",
    "metron",
    "trafficcontroller",
    "reverselogproxy",
    "localhost",
    "127.0.0.1",
];

/// Writes fresh files into `dir`.
///
/// # Errors
/// When a key cannot be made or a file cannot be written.
pub fn write(dir: &Path) -> Result<Files, BenchError> {
    let err = |what: &str, e: &dyn std::fmt::Display| BenchError::new(format!("{what}: {e}"));
    let ca_key = KeyPair::generate().map_err(|e| err("authority key", &e))?;
    let mut ca = CertificateParams::new(Vec::new()).map_err(|e| err("authority", &e))?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name
        .push(DnType::CommonName, "bench authority");
    let ca_cert = ca.self_signed(&ca_key).map_err(|e| err("authority", &e))?;
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate().map_err(|e| err("key", &e))?;
    let names = NAMES.map(str::to_owned).to_vec();
    let mut params = CertificateParams::new(names).map_err(|e| err("certificate", &e))?;
    params.distinguished_name.push(DnType::CommonName, "bench");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let cert = params
        .signed_by(&key, &issuer)
        .map_err(|e| err("certificate", &e))?;

    let files = Files {
        ca: dir.join("ca.pem"),
        cert: dir.join("cert.pem"),
        key: dir.join("key.pem"),
    };
    for (path, text) in [
        (&files.ca, ca_cert.pem()),
        (&files.cert, cert.pem()),
        (&files.key, key.serialize_pem()),
    ] {
        std::fs::write(path, text).map_err(|e| err(&path.display().to_string(), &e))?;
    }
    Ok(files)
}

struct Loaded {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

fn load(files: &Files) -> Result<Loaded, BenchError> {
    let bad = |path: &Path, e: &dyn std::fmt::Display| {
        BenchError::new(format!("{}: {e}", path.display()))
    };
    let chain = |path: &Path| -> Result<Vec<CertificateDer<'static>>, BenchError> {
        CertificateDer::pem_file_iter(path)
            .map_err(|e| bad(path, &e))?
            .collect::<Result<_, _>>()
            .map_err(|e| bad(path, &e))
    };
    let mut roots = RootCertStore::empty();
    for cert in chain(&files.ca)? {
        roots.add(cert).map_err(|e| bad(&files.ca, &e))?;
    }
    Ok(Loaded {
        roots: Arc::new(roots),
        chain: chain(&files.cert)?,
        key: PrivateKeyDer::from_pem_file(&files.key).map_err(|e| bad(&files.key, &e))?,
    })
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// TLS of a client that shows its certificate. `alpn` is `h2` for gRPC and empty for WebSockets.
///
/// # Errors
/// When a file cannot be read or does not fit.
pub fn client(files: &Files, alpn: &[u8]) -> Result<Arc<ClientConfig>, BenchError> {
    let loaded = load(files)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| BenchError::new(e.to_string()))?
        .with_root_certificates(loaded.roots)
        .with_client_auth_cert(loaded.chain, loaded.key)
        .map_err(|e| BenchError::new(e.to_string()))?;
    if !alpn.is_empty() {
        config.alpn_protocols = vec![alpn.to_vec()];
    }
    Ok(Arc::new(config))
}

/// TLS of a server that demands a certificate of the same authority.
///
/// # Errors
/// When a file cannot be read or does not fit.
pub fn server(files: &Files) -> Result<Arc<ServerConfig>, BenchError> {
    let loaded = load(files)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(loaded.roots, provider())
        .build()
        .map_err(|e| BenchError::new(e.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| BenchError::new(e.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(loaded.chain, loaded.key)
        .map_err(|e| BenchError::new(e.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
