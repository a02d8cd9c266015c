//! The way in and out of every stage: TLS with reload, a gRPC layer over HTTP/2 that does not copy
//! payloads, a small HTTP server, DNS and backoff.

mod backoff;
pub mod dns;
pub mod grpc;
pub mod http;
mod tls;

pub use backoff::Backoff;
pub use tls::{
    ClientTls, HandshakeError, Profile, ServerTls, TlsError, TlsFiles, TlsStream, tls_accept,
    tls_connect,
};
