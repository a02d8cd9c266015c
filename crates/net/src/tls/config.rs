//! TLS configurations of the profile, made from files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, InconsistentKeys, RootCertStore, ServerConfig, SupportedCipherSuite};
use tokio_util::sync::CancellationToken;

use super::error::TlsError;
use super::files::{Keypair, load_keypair, load_roots, load_system_roots};
use super::reload::{Material, watch};
use super::verify::{AnyServer, StrongClients, StrongServers};

/// Where a mutual TLS identity lies on disk. All files are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates that the peer's must chain to.
    pub ca: PathBuf,
    /// Own certificate, followed by intermediates.
    pub cert: PathBuf,
    /// Own private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// What is spoken over the TLS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// gRPC: ALPN `h2` is required of both sides.
    Grpc,
    /// HTTP/1.1 and WebSocket: ALPN `http/1.1` is offered and not required.
    Http,
    /// HTTP/2 or HTTP/1.1, as the client prefers: ALPN offers both, `h2` first. A client without ALPN speaks HTTP/1.1.
    Http2,
    /// Any other protocol: no ALPN.
    Bytes,
}

impl Profile {
    fn alpn(self) -> Vec<Vec<u8>> {
        match self {
            Self::Grpc => vec![b"h2".to_vec()],
            Self::Http => vec![b"http/1.1".to_vec()],
            Self::Http2 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Self::Bytes => Vec::new(),
        }
    }
}

/// The server side of TLS.
#[derive(Debug)]
pub struct ServerTls {
    profile: Profile,
    material: Material<ServerConfig>,
}

impl ServerTls {
    /// Mutual TLS: a client certificate is required and verified by the CA file; no name is checked.
    ///
    /// # Errors
    /// Any of the files cannot be used, see [`TlsError`].
    pub fn mutual(files: &TlsFiles, profile: Profile) -> Result<Arc<Self>, TlsError> {
        Self::mutual_with_suites(files, profile, &[])
    }

    /// As [`ServerTls::mutual`], with only these of the TLS 1.2 suites, by their standard names. None
    /// given is all; unknown names do nothing; TLS 1.3 is not restricted.
    ///
    /// # Errors
    /// As [`ServerTls::mutual`], or none of the names is known.
    pub fn mutual_with_suites(
        files: &TlsFiles,
        profile: Profile,
        suites: &[String],
    ) -> Result<Arc<Self>, TlsError> {
        let watched = vec![files.ca.clone(), files.cert.clone(), files.key.clone()];
        let files = files.clone();
        let provider = restricted(suites)?;
        Self::new(profile, watched, move || {
            let roots = load_roots(&files.ca)?;
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                    .build()
                    .map_err(|error| TlsError::Config(rustls::Error::General(error.to_string())))?;
            server_config(
                Arc::clone(&provider),
                Some(StrongClients(verifier)),
                &files.cert,
                &files.key,
                profile,
            )
        })
    }

    /// Only the server shows a certificate.
    ///
    /// # Errors
    /// Any of the files cannot be used, see [`TlsError`].
    pub fn server_only(cert: &Path, key: &Path, profile: Profile) -> Result<Arc<Self>, TlsError> {
        let (cert, key) = (cert.to_owned(), key.to_owned());
        Self::new(profile, vec![cert.clone(), key.clone()], move || {
            server_config(provider(), None, &cert, &key, profile)
        })
    }

    fn new(
        profile: Profile,
        watched: Vec<PathBuf>,
        build: impl Fn() -> Result<ServerConfig, TlsError> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, TlsError> {
        let material = Material::new(watched, build)?;
        Ok(Arc::new(Self { profile, material }))
    }

    /// The configuration for the next connection.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.material.current()
    }

    /// What is spoken over it.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Looks at the files each `every` and loads them again when one changed, until `stop`. Files
    /// that cannot be used leave the old configuration in force; that is logged and counted.
    /// Connections that are open are not touched.
    pub async fn watch(self: Arc<Self>, every: Duration, stop: CancellationToken) {
        watch(every, stop, move || self.material.refresh()).await;
    }

    /// How often changed files were taken over.
    pub fn reloads(&self) -> u64 {
        self.material.reloads()
    }

    /// How often changed files could not be used.
    pub fn reload_failures(&self) -> u64 {
        self.material.failures()
    }
}

/// The client side of TLS.
#[derive(Debug)]
pub struct ClientTls {
    profile: Profile,
    material: Material<ClientConfig>,
}

impl ClientTls {
    /// Mutual TLS for gRPC: shows a certificate, verifies the server by the CA file and its name.
    ///
    /// # Errors
    /// Any of the files cannot be used, see [`TlsError`].
    pub fn mutual(files: &TlsFiles) -> Result<Arc<Self>, TlsError> {
        Self::mutual_with(files, Profile::Grpc)
    }

    /// As [`ClientTls::mutual`], for any profile.
    ///
    /// # Errors
    /// Any of the files cannot be used, see [`TlsError`].
    pub fn mutual_with(files: &TlsFiles, profile: Profile) -> Result<Arc<Self>, TlsError> {
        let watched = vec![files.ca.clone(), files.cert.clone(), files.key.clone()];
        let files = files.clone();
        Self::new(profile, watched, move || {
            client_config(&files.ca, Some((&files.cert, &files.key)), profile)
        })
    }

    /// Verifies the server by the CA file and its name, and shows no certificate. For HTTP and
    /// WebSocket.
    ///
    /// # Errors
    /// The file cannot be used, see [`TlsError`].
    pub fn ca_only(ca: &Path) -> Result<Arc<Self>, TlsError> {
        Self::ca_only_with(ca, Profile::Http)
    }

    /// As [`ClientTls::ca_only`], for any profile.
    ///
    /// # Errors
    /// The file cannot be used, see [`TlsError`].
    pub fn ca_only_with(ca: &Path, profile: Profile) -> Result<Arc<Self>, TlsError> {
        let ca = ca.to_owned();
        Self::new(profile, vec![ca.clone()], move || {
            client_config(&ca, None, profile)
        })
    }

    /// Verifies the server by the authorities that this machine trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others) and
    /// its name, and shows no certificate. Authorities that cannot be used are left out.
    ///
    /// # Errors
    /// The machine trusts none, see [`TlsError`].
    pub fn system(profile: Profile) -> Result<Arc<Self>, TlsError> {
        Self::verified(None, None, profile)
    }

    /// Verifies the server by a CA file, without one by the authorities that this machine trusts, and by its name. Shows the
    /// certificate of these files (certificate, key), if there are any.
    ///
    /// # Errors
    /// A file cannot be used, or the machine trusts nobody, see [`TlsError`].
    pub fn verified(
        ca: Option<&Path>,
        identity: Option<(&Path, &Path)>,
        profile: Profile,
    ) -> Result<Arc<Self>, TlsError> {
        let ca = ca.map(Path::to_owned);
        let identity = identity.map(|(cert, key)| (cert.to_owned(), key.to_owned()));
        let pair = identity.iter().flat_map(|(cert, key)| [cert, key]);
        let watched = ca.iter().chain(pair).cloned().collect();
        Self::new(profile, watched, move || {
            let roots = ca.as_deref().map_or_else(load_system_roots, load_roots)?;
            let identity = identity.as_ref().map(|(cert, key)| (&**cert, &**key));
            client_config_for(roots, identity, profile)
        })
    }

    /// Takes any server for the one that is meant: neither its certificate nor its name is checked. Shows the certificate
    /// of these files (certificate, key), if there are any. For operators who switch verification off; anybody on the
    /// way can read and change what is sent.
    ///
    /// # Errors
    /// A file cannot be used, see [`TlsError`].
    pub fn unverified(
        identity: Option<(&Path, &Path)>,
        profile: Profile,
    ) -> Result<Arc<Self>, TlsError> {
        let identity = identity.map(|(cert, key)| (cert.to_owned(), key.to_owned()));
        let watched = identity
            .iter()
            .flat_map(|(cert, key)| [cert.clone(), key.clone()])
            .collect();
        Self::new(profile, watched, move || {
            let identity = identity.as_ref().map(|(cert, key)| (&**cert, &**key));
            client_config_with(Arc::new(AnyServer(provider())), identity, profile)
        })
    }

    fn new(
        profile: Profile,
        watched: Vec<PathBuf>,
        build: impl Fn() -> Result<ClientConfig, TlsError> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, TlsError> {
        let material = Material::new(watched, build)?;
        Ok(Arc::new(Self { profile, material }))
    }

    /// The configuration for the next connection.
    pub fn current(&self) -> Arc<ClientConfig> {
        self.material.current()
    }

    /// What is spoken over it.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// As [`ServerTls::watch`].
    pub async fn watch(self: Arc<Self>, every: Duration, stop: CancellationToken) {
        watch(every, stop, move || self.material.refresh()).await;
    }

    /// How often changed files were taken over.
    pub fn reloads(&self) -> u64 {
        self.material.reloads()
    }

    /// How often changed files could not be used.
    pub fn reload_failures(&self) -> u64 {
        self.material.failures()
    }
}

/// The one crypto provider, cut down to the suites of the profile.
fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::cipher_suite as suite;
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            suite::TLS13_AES_128_GCM_SHA256,
            suite::TLS13_AES_256_GCM_SHA384,
            suite::TLS13_CHACHA20_POLY1305_SHA256,
            suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        ],
        ..aws_lc_rs::default_provider()
    })
}

/// [`provider`] with only these of its TLS 1.2 suites; none given is all.
fn restricted(suites: &[String]) -> Result<Arc<CryptoProvider>, TlsError> {
    let all = provider();
    if suites.is_empty() {
        return Ok(all);
    }
    let chosen = |suite: &SupportedCipherSuite| {
        let name = suite.suite().as_str();
        suite.tls13().is_some() || suites.iter().any(|wanted| name == Some(wanted.as_str()))
    };
    let cipher_suites: Vec<_> = all.cipher_suites.iter().copied().filter(chosen).collect();
    if cipher_suites.iter().all(|suite| suite.tls13().is_some()) {
        let reason = "no valid ciphers provided for TLS configuration".to_owned();
        return Err(TlsError::Config(rustls::Error::General(reason)));
    }
    Ok(Arc::new(CryptoProvider {
        cipher_suites,
        ..(*all).clone()
    }))
}

fn server_config(
    provider: Arc<CryptoProvider>,
    verifier: Option<StrongClients>,
    cert: &Path,
    key: &Path,
    profile: Profile,
) -> Result<ServerConfig, TlsError> {
    let Keypair {
        chain,
        key: key_der,
    } = load_keypair(cert, key)?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(Arc::new(verifier)),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, key_der)
        .map_err(|error| keypair_error(error, cert, key))?;
    config.alpn_protocols = profile.alpn();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client_config(
    ca: &Path,
    identity: Option<(&Path, &Path)>,
    profile: Profile,
) -> Result<ClientConfig, TlsError> {
    client_config_for(load_roots(ca)?, identity, profile)
}

fn client_config_for(
    roots: RootCertStore,
    identity: Option<(&Path, &Path)>,
    profile: Profile,
) -> Result<ClientConfig, TlsError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| TlsError::Config(rustls::Error::General(error.to_string())))?;
    client_config_with(Arc::new(StrongServers(verifier)), identity, profile)
}

fn client_config_with(
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<(&Path, &Path)>,
    profile: Profile,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some((cert, key)) => {
            let Keypair {
                chain,
                key: key_der,
            } = load_keypair(cert, key)?;
            builder
                .with_client_auth_cert(chain, key_der)
                .map_err(|error| keypair_error(error, cert, key))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = profile.alpn();
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn keypair_error(error: rustls::Error, cert: &Path, key: &Path) -> TlsError {
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::Mismatch {
            cert: cert.into(),
            key: key.into(),
        },
        other => TlsError::BadKeypair {
            path: key.into(),
            reason: other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls12(suites: &[&str]) -> Result<Vec<String>, TlsError> {
        let suites: Vec<String> = suites.iter().map(|suite| (*suite).to_owned()).collect();
        let provider = restricted(&suites)?;
        let left = provider.cipher_suites.iter();
        assert_eq!(left.clone().filter(|s| s.tls13().is_some()).count(), 3);
        Ok(left
            .filter(|suite| suite.tls13().is_none())
            .map(|suite| suite.suite().as_str().unwrap_or_default().to_owned())
            .collect())
    }

    #[test]
    fn tls_1_2_is_limited_to_the_suites_named() {
        let (aes128, aes256) = (
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        );
        assert_eq!(tls12(&[]).unwrap(), [aes256, aes128]);
        assert_eq!(tls12(&[aes128, "unknown"]).unwrap(), [aes128]);
        assert!(matches!(tls12(&["unknown"]), Err(TlsError::Config(_))));
    }
}
