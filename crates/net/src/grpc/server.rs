//! skeleton
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio_util::sync::CancellationToken;

use super::message::MessageSource;
use super::messages::Messages;
use super::status::Status;
use crate::ServerTls;

/// Who called.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address.
    pub addr: SocketAddr,
}

/// A call that came in.
#[derive(Debug)]
pub struct Request {
    /// The method's full path, e.g. `/loggregator.v2.Ingress/BatchSender`.
    pub path: String,
    /// What the client sends.
    pub messages: Messages,
    /// Who calls.
    pub peer: Peer,
    /// The client's deadline, counted from the call's arrival. The server ends the call by itself
    /// when it has passed.
    pub timeout: Option<Duration>,
    /// The request's headers.
    pub metadata: HeaderMap,
}

/// How a call is answered.
pub enum Response {
    /// One message, or a status.
    Unary(Result<Bytes, Status>),
    /// Messages until the source ends.
    Stream(Box<dyn MessageSource>),
    /// No message, only a status.
    Status(Status),
}

/// Answers the calls of a server.
pub trait Service: Send + Sync + 'static {
    /// Answers one call. The future runs inside the connection's own task, and is dropped when the
    /// client gives the call up.
    fn call(&self, request: Request) -> Pin<Box<dyn Future<Output = Response> + Send>>;
}

/// How a server treats its connections.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Largest message accepted, bytes without header. Default 10 MiB.
    pub max_message: usize,
    /// HTTP/2 window per stream, bytes: what one stream may have in flight. Default 256 KiB.
    pub stream_window: u32,
    /// HTTP/2 window per connection, bytes. Default 512 KiB.
    pub connection_window: u32,
    /// Largest HTTP/2 frame accepted, bytes. Default 256 KiB.
    pub max_frame: u32,
    /// Streams per connection. Default 100,000.
    pub max_streams: u32,
    /// Bytes of one stream that may wait in the connection to be sent. Default 400 KiB.
    pub send_buffer: usize,
    /// Streams that a client may cancel before the server has looked at them, and streams that the
    /// server itself may reset, before the connection counts as abusive. Default 65,536.
    pub max_resets: usize,
    /// Time for the TLS handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// Open connections; more are closed at once and counted. Default 10,000.
    pub max_connections: usize,
    /// A peer that does not acknowledge sent bytes for so long is cut. Default 20 s.
    pub tcp_user_timeout: Duration,
    /// A connection that is silent for so long is pinged. Default 30 s; zero is never.
    pub keepalive_interval: Duration,
    /// A ping that is not answered within this time ends the connection. Default 20 s.
    pub keepalive_timeout: Duration,
    /// After stop, time for open calls to end. Default 10 s.
    pub drain_timeout: Duration,
    /// Send response headers at once instead of with the first message. Default false, as Go does.
    pub early_headers: bool,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            max_message: 10 * 1024 * 1024,
            stream_window: 256 * 1024,
            connection_window: 512 * 1024,
            max_frame: 256 * 1024,
            max_streams: 100_000,
            send_buffer: 400 * 1024,
            max_resets: 65_536,
            handshake_timeout: Duration::from_secs(10),
            max_connections: 10_000,
            tcp_user_timeout: Duration::from_secs(20),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            drain_timeout: Duration::from_secs(10),
            early_headers: false,
        }
    }
}

/// What a server has seen. All counters only grow; what is open now is a difference or a gauge.
#[derive(Debug, Default)]
pub struct ServerStats {
    /// Connections accepted, those over the limit included.
    pub accepted: AtomicU64,
    /// Connections open now.
    pub open: AtomicU64,
    /// Connections closed at once because of `max_connections`.
    pub refused_over_limit: AtomicU64,
    /// Messages refused for their size.
    pub messages_too_large: AtomicU64,
}

/// A bound listener that is not served yet.
#[derive(Debug)]
pub struct Server {
    listener: std::net::TcpListener,
    addr: SocketAddr,
    stats: Arc<ServerStats>,
}

impl Server {
    /// Binds now, so that the port is known and taken.
    pub fn bind(addr: SocketAddr) -> std::io::Result<Self> {
        let listener = std::net::TcpListener::bind(addr)?;
        let addr = listener.local_addr()?;
        Ok(Self {
            listener,
            addr,
            stats: Arc::default(),
        })
    }

    /// The address that was bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// The counters, which outlive the server.
    pub fn stats(&self) -> Arc<ServerStats> {
        Arc::clone(&self.stats)
    }

    /// Serves until `stop`, then drains.
    pub async fn serve(
        self,
        _tls: Option<Arc<ServerTls>>,
        _service: Arc<dyn Service>,
        _settings: ServerSettings,
        stop: CancellationToken,
    ) {
        stop.cancelled().await;
        drop(self.listener);
    }
}
