//! skeleton
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

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
}

/// Why TLS material cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// not done yet
    #[error("not done yet")]
    NotYet,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// not done yet
    #[error("not done yet")]
    NotYet,
}

/// The server side of TLS.
#[derive(Debug)]
pub struct ServerTls {}

impl ServerTls {
    /// Mutual TLS.
    pub fn mutual(_files: &TlsFiles, _profile: Profile) -> Result<Arc<Self>, TlsError> {
        Err(TlsError::NotYet)
    }
    /// Server certificate only.
    pub fn server_only(
        _cert: &Path,
        _key: &Path,
        _profile: Profile,
    ) -> Result<Arc<Self>, TlsError> {
        Err(TlsError::NotYet)
    }
    /// Re-reads the files when they change, until `stop`.
    pub async fn watch(self: Arc<Self>, _every: Duration, stop: CancellationToken) {
        stop.cancelled().await;
    }
    /// Reloads that succeeded.
    pub fn reloads(&self) -> u64 {
        0
    }
    /// Reloads that failed and kept the old material.
    pub fn reload_failures(&self) -> u64 {
        0
    }
}

/// The client side of TLS.
#[derive(Debug)]
pub struct ClientTls {}

impl ClientTls {
    /// Mutual TLS for gRPC.
    pub fn mutual(_files: &TlsFiles) -> Result<Arc<Self>, TlsError> {
        Err(TlsError::NotYet)
    }
    /// Verifies the server by this CA file, shows no certificate; for HTTP and WebSocket.
    pub fn ca_only(_ca: &Path) -> Result<Arc<Self>, TlsError> {
        Err(TlsError::NotYet)
    }
    /// Re-reads the files when they change, until `stop`.
    pub async fn watch(self: Arc<Self>, _every: Duration, stop: CancellationToken) {
        stop.cancelled().await;
    }
    /// Reloads that succeeded.
    pub fn reloads(&self) -> u64 {
        0
    }
    /// Reloads that failed and kept the old material.
    pub fn reload_failures(&self) -> u64 {
        0
    }
}

/// A TLS connection: `AsyncRead` and `AsyncWrite`.
#[derive(Debug)]
pub struct TlsStream<IO> {
    io: IO,
}

impl<IO: AsyncRead + Unpin> AsyncRead for TlsStream<IO> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for TlsStream<IO> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.io).poll_write(cx, buf)
    }
    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Server side of a handshake.
pub async fn tls_accept<IO: AsyncRead + AsyncWrite + Unpin>(
    _io: IO,
    _tls: &ServerTls,
    _timeout: Duration,
) -> Result<TlsStream<IO>, HandshakeError> {
    Err(HandshakeError::NotYet)
}

/// Client side of a handshake. `server_name` is the name (or address) that the server's certificate must carry.
pub async fn tls_connect<IO: AsyncRead + AsyncWrite + Unpin>(
    _io: IO,
    _tls: &ClientTls,
    _server_name: &str,
    _timeout: Duration,
) -> Result<TlsStream<IO>, HandshakeError> {
    Err(HandshakeError::NotYet)
}
