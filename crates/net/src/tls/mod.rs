//! TLS: the profile that all Loggregator components share, certificate files that may change while
//! the process runs, and a stream that spends as few system calls as it can.
//!
//! The profile: TLS 1.2 and 1.3; in 1.2 only ECDHE-RSA with AES-GCM; ALPN `h2` is a must for gRPC.
//! Servers with mutual TLS verify a client by the CA file alone and look at no name; clients verify
//! the server's name. RSA keys below 2048 bits are refused, own and foreign. Sessions are never
//! resumed, so that every connection is checked against the certificates of the day.

mod buffer;
mod config;
mod error;
mod files;
mod handshake;
mod reload;
mod stream;
mod verify;

pub use config::{ClientTls, Profile, ServerTls, TlsFiles};
pub use error::{HandshakeError, TlsError};
pub use handshake::{tls_accept, tls_connect};
pub use stream::TlsStream;

pub(crate) use stream::Sink;
