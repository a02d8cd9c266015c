//! The way in and out of every stage: TLS with certificate reload, gRPC over HTTP/2 that does not copy
//! payloads, a small HTTP server, sets of peers, and backoff.
//!
//! An envelope batch enters through [`grpc::Server`] as [`bytes::Bytes`] that are a slice of what was
//! decrypted from the socket, and leaves as a [`grpc::Message`], a gather list that is encrypted from
//! where it lies. Nothing here knows what a message means.
//!
//! Everything that can be large or many has a limit in a settings struct, and a counter for what was
//! refused: connections, handshake time, message sizes, bytes in flight.

mod accept;
mod backoff;
pub mod dns;
pub mod grpc;
pub mod http;
mod socket;
mod tls;

pub use backoff::Backoff;
pub use tls::{
    ClientTls, HandshakeError, Profile, ServerTls, TlsError, TlsFiles, TlsStream, tls_accept,
    tls_connect,
};
