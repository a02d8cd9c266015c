//! skeleton
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use tokio_util::sync::CancellationToken;

use crate::ServerTls;

/// What goes wrong while a response body is made.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// The body of a response.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;
/// A response of a [`Handler`].
pub type Response = ::http::Response<Body>;
/// A request to a [`Handler`]. To upgrade (WebSocket), call `hyper::upgrade::on` with it.
pub type Request = ::http::Request<hyper::body::Incoming>;

/// A body that is all there.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    use http_body_util::BodyExt;
    http_body_util::Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request of the client at `peer`.
    fn handle(
        &self,
        request: Request,
        peer: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = Response> + Send>>;
}

/// Settings of a [`Server`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time for a client to send a complete request head.
    pub header_timeout: Duration,
    /// Time for the TLS handshake.
    pub handshake_timeout: Duration,
    /// Open connections; more are closed at once and counted.
    pub max_connections: usize,
    /// After stop, time for the requests under way.
    pub drain_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(10),
            max_connections: 10_000,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// A bound listener that is not served yet.
#[derive(Debug)]
pub struct Server {
    listener: std::net::TcpListener,
    addr: SocketAddr,
}

impl Server {
    /// Binds now, so that the port is known and taken.
    pub fn bind(addr: SocketAddr) -> std::io::Result<Self> {
        let listener = std::net::TcpListener::bind(addr)?;
        let addr = listener.local_addr()?;
        Ok(Self { listener, addr })
    }

    /// The address that was bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `stop`, then drains.
    pub async fn serve(
        self,
        _tls: Option<Arc<ServerTls>>,
        _handler: Arc<dyn Handler>,
        _settings: Settings,
        stop: CancellationToken,
    ) {
        stop.cancelled().await;
        drop(self.listener);
    }
}
