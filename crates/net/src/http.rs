//! A small HTTP server, plain or over TLS, for admin, WebSocket and event ports: HTTP/1.1, whose upgrades pass through, and
//! HTTP/2 for those who prefer it. And a [`client`] for questions to other services.

pub mod client;
mod http2;
mod stall;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;

use crate::accept::{Accepted, Limits, Served, accept_loop};
use crate::{ServerTls, socket};

pub use crate::accept::ConnectionStats;

/// What goes wrong while a response body is made.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// The body of a response.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;
/// A response of a [`Handler`].
pub type Response = ::http::Response<Body>;
/// A request to a [`Handler`]. To upgrade (WebSocket), call `hyper::upgrade::on` with it.
pub type Request = ::http::Request<Incoming>;

/// A body that is all there.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request of the client at `peer`. The future runs in the connection's task; it is
    /// dropped when the client goes away.
    fn handle(
        &self,
        request: Request,
        peer: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = Response> + Send>>;
}

/// Largest head of a request, bytes; over HTTP/2 its names and values decoded.
const MAX_HEAD: u32 = 128 * 1024;

/// Settings of a [`Server`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time for a client to send a complete request head. Default 2 s.
    pub header_timeout: Duration,
    /// Time for the TLS handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// Open connections; more are closed at once and counted. Connections that were upgraded count
    /// no longer: whoever upgrades them bounds them. Default 10,000.
    pub max_connections: usize,
    /// A peer that does not acknowledge sent bytes for so long is cut, upgraded or not. Default 20 s.
    pub tcp_user_timeout: Duration,
    /// After stop, time for the requests under way. Default 10 s.
    pub drain_timeout: Duration,
    /// HTTP/2 only: a connection without requests is closed after this to twice this time. Default 60 s.
    pub idle_timeout: Duration,
    /// HTTP/2 only: a response is reset when its client takes nothing more of it for this to twice this time. Over HTTP/1.1
    /// `tcp_user_timeout` ends it. Default 60 s.
    pub stall_timeout: Duration,
    /// HTTP/2 only: requests that one connection may have under way. Default 250, as Go's server.
    pub max_streams: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(10),
            max_connections: 10_000,
            tcp_user_timeout: Duration::from_secs(20),
            drain_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(60),
            max_streams: 250,
        }
    }
}

/// A bound listener that is not served yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    addr: SocketAddr,
    stats: Arc<ConnectionStats>,
}

impl Server {
    /// Binds now, so that the port is known and taken. `[::]` takes IPv4 too.
    ///
    /// # Errors
    /// The address cannot be bound; the error names it.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        let listener = socket::listen(addr)?;
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
    pub fn stats(&self) -> Arc<ConnectionStats> {
        Arc::clone(&self.stats)
    }

    /// Serves until `stop`; then takes no more requests and waits for those under way. Returns at the
    /// latest after the drain time. Connections that were upgraded are left alone.
    ///
    /// With TLS use [`crate::Profile::Http`], or [`crate::Profile::Http2`] to offer HTTP/2 as well: a plain HTTP request is
    /// then answered with what is wrong.
    pub async fn serve(
        self,
        tls: Option<Arc<ServerTls>>,
        handler: Arc<dyn Handler>,
        settings: Settings,
        stop: CancellationToken,
    ) {
        let limits = Limits {
            max_connections: settings.max_connections,
            handshake_timeout: settings.handshake_timeout,
            tcp_user_timeout: settings.tcp_user_timeout,
        };
        let (settings, stats) = (Arc::new(settings), Arc::clone(&self.stats));
        let serve = move |accepted, peer, stop| {
            let (handler, settings) = (Arc::clone(&handler), Arc::clone(&settings));
            let stats = Arc::clone(&stats);
            async move {
                match accepted {
                    Accepted::Plain(stream) => {
                        run(TokioIo::new(stream), peer, handler, settings, stop).await
                    }
                    Accepted::Tls(stream) if stream.connection().alpn_protocol() == Some(b"h2") => {
                        http2::run(stream, peer, handler, settings, stats, stop).await
                    }
                    Accepted::Tls(stream) => {
                        run(TokioIo::new(stream), peer, handler, settings, stop).await
                    }
                }
            }
        };
        accept_loop(self.listener, tls, limits, self.stats, stop, serve).await;
    }
}

async fn run<IO: Read + Write + Unpin + Send + 'static>(
    io: IO,
    peer: SocketAddr,
    handler: Arc<dyn Handler>,
    settings: Arc<Settings>,
    stop: CancellationToken,
) -> Served {
    let service = service_fn(|request| {
        let response = handler.handle(request, peer);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_buf_size(MAX_HEAD as usize)
        .serve_connection(io, service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut stopping = pin!(stop.cancelled());
    let mut cut = None;
    let outcome = poll_fn(|cx| {
        if cut.is_none() && stopping.as_mut().poll(cx).is_ready() {
            connection.as_mut().graceful_shutdown();
            cut = Some(Box::pin(tokio::time::sleep(settings.drain_timeout)));
        }
        if let Some(cut) = &mut cut
            && cut.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(None);
        }
        connection.as_mut().poll(cx).map(Some)
    })
    .await;
    match outcome {
        None => return Served::Cut,
        // The client's fault and not just that it left; the error says what is wrong, never what was sent.
        Some(Err(error)) if error.is_parse() => {
            tracing::info!(%peer, %error, "HTTP request refused");
        }
        Some(Err(error)) => tracing::debug!(%peer, %error, "HTTP connection failed"),
        Some(Ok(())) => {}
    }
    Served::Ended
}
