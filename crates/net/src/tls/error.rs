//! What can be wrong with TLS material, and with a handshake.

use std::io;
use std::path::PathBuf;

/// Why TLS material cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The own certificate or key file cannot be read.
    #[error("failed to load keypair: open {path}: {source}", path = path.display())]
    OpenKeypair {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The own certificate or key file does not hold what it should.
    #[error("failed to load keypair: {path}: {reason}", path = path.display())]
    BadKeypair {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The own certificate and key do not belong together.
    #[error(
        "failed to load keypair: tls: private key does not match public key (certificate {cert}, key {key})",
        cert = cert.display(), key = key.display()
    )]
    Mismatch {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// The own certificate is past its time.
    #[error("failed to load keypair: certificate has expired: validity ended at {ended} ({path})", path = path.display())]
    Expired {
        /// The certificate file.
        path: PathBuf,
        /// End of its validity.
        ended: String,
    },
    /// The own certificate's time has not come.
    #[error("failed to load keypair: certificate is not yet valid: validity starts at {starts} ({path})", path = path.display())]
    NotYetValid {
        /// The certificate file.
        path: PathBuf,
        /// Start of its validity.
        starts: String,
    },
    /// The machine trusts no authority that can be used.
    #[error(
        "this machine trusts no certificate authority that can be used{detail}; name a CA file"
    )]
    NoSystemCa {
        /// What went wrong, if anything did.
        detail: String,
    },
    /// The CA file cannot be read.
    #[error("failed to read certificate(s) at path {path:?}: {source}")]
    OpenCa {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The CA file holds no usable certificate.
    #[error("no valid certificates read from file {path:?}{detail}")]
    NoCa {
        /// The file.
        path: PathBuf,
        /// Why the one that is there is not usable; may be empty.
        detail: String,
    },
    /// The CA file holds something that is not a certificate.
    #[error("unexpected PEM block type {label:?} in file {path:?}")]
    UnexpectedBlock {
        /// The file.
        path: PathBuf,
        /// The label between `BEGIN` and the dashes.
        label: String,
    },
    /// A block of the CA file has PEM headers.
    #[error("unexpected PEM headers in file {path:?}")]
    PemHeaders {
        /// The file.
        path: PathBuf,
    },
    /// An RSA key is too short to be trusted.
    #[error("RSA key of {bits} bits in {path:?} refused: at least 2048 bits are required")]
    WeakRsa {
        /// The file that holds the key or its certificate.
        path: PathBuf,
        /// Length of the modulus.
        bits: usize,
    },
    /// Anything else that the TLS library does not accept.
    #[error("TLS configuration: {0}")]
    Config(#[from] rustls::Error),
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The peer did not finish in time.
    #[error("TLS handshake not finished in time")]
    Timeout,
    /// The connection broke or was closed before the handshake was finished.
    #[error("connection lost in the TLS handshake: {0}")]
    Io(io::Error),
    /// The client sent an HTTP request in plain text. It was answered.
    #[error("plain HTTP request on a TLS port")]
    PlainHttp,
    /// No application protocol was agreed upon, and one is required.
    #[error("peer did not negotiate the application protocol h2")]
    NoAlpn,
    /// TLS itself failed: bad certificate, no common suite, garbage.
    #[error("TLS handshake: {0}")]
    Tls(rustls::Error),
    /// The name to verify the server by is neither a DNS name nor an address.
    #[error("invalid server name {0:?}")]
    ServerName(String),
}

impl HandshakeError {
    /// The kinds that [`HandshakeError::kind`] can give, for metrics.
    pub const KINDS: [&'static str; 8] = [
        "timeout",
        "io",
        "plain_http",
        "no_alpn",
        "certificate",
        "incompatible",
        "protocol",
        "config",
    ];

    /// A short name of the kind of failure, one of [`HandshakeError::KINDS`].
    pub fn kind(&self) -> &'static str {
        Self::KINDS[self.index()]
    }

    pub(crate) fn index(&self) -> usize {
        use rustls::{AlertDescription as Alert, Error};
        match self {
            Self::Timeout => 0,
            Self::Io(_) => 1,
            Self::PlainHttp => 2,
            Self::NoAlpn | Self::Tls(Error::NoApplicationProtocol) => 3,
            Self::Tls(Error::InvalidCertificate(_) | Error::NoCertificatesPresented) => 4,
            // The other side did not like our certificate.
            Self::Tls(Error::AlertReceived(
                Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::CertificateRequired
                | Alert::UnknownCA
                | Alert::NoCertificate,
            )) => 4,
            Self::Tls(
                Error::PeerIncompatible(_)
                | Error::AlertReceived(Alert::HandshakeFailure | Alert::ProtocolVersion),
            ) => 5,
            Self::Tls(_) => 6,
            Self::ServerName(_) => 7,
        }
    }
}
