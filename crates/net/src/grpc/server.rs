//! The gRPC server: settings, what a service is, and how a connection is run.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::ops::Deref;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::Incoming;
use hyper::rt::Executor as _;
use hyper_util::rt::TokioTimer;
use tokio_util::sync::CancellationToken;

use super::call::{self, CallBody, OpenCall};
use super::driver::{Driver, Executor};
use super::finish::Streams;
use super::message::MessageSource;
use super::messages::Messages;
use super::status::Status;
use super::transport::{SharedTransport, Transport};
use crate::accept::{Accepted, ConnectionStats, Limits, Served, accept_loop};
use crate::{ServerTls, socket};

/// Who called.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address.
    pub addr: SocketAddr,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr.fmt(f)
    }
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
    /// Answers one call. The future, and then the source of a stream, are polled inside the
    /// connection's own task, and dropped when the client gives the call up. They must not block; what
    /// takes long belongs into a task of its own.
    fn call(&self, request: Request) -> Pin<Box<dyn Future<Output = Response> + Send>>;
}

/// How a server treats its connections.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Largest message accepted, bytes without header. Default 10 MiB.
    pub max_message: usize,
    /// HTTP/2 window per stream, bytes: what one stream may have in flight. Default 256 KiB.
    pub stream_window: u32,
    /// HTTP/2 window per connection, bytes. Small, so that a flood cannot take the CPU from readers.
    /// Default 512 KiB.
    pub connection_window: u32,
    /// Largest HTTP/2 frame accepted, bytes. Default 256 KiB.
    pub max_frame: u32,
    /// Streams per connection. A traffic controller puts all its subscriptions on one. Default
    /// 100,000.
    pub max_streams: u32,
    /// Bytes of one stream that may wait in the connection to be sent. Default 400 KiB.
    pub send_buffer: usize,
    /// Streams that a client may cancel before the server has looked at them, and streams that the
    /// server itself may reset, before the connection counts as abusive. Default 65,536, so that
    /// thousands of subscriptions may be cancelled at once.
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

/// What a server has seen. Derefs to the counters of its connections.
#[derive(Debug, Default)]
pub struct ServerStats {
    connections: Arc<ConnectionStats>,
    /// Calls that came in, refused ones included.
    pub calls: AtomicU64,
    /// Calls open now.
    pub open_calls: AtomicU64,
    /// Messages refused for their size.
    pub messages_too_large: AtomicU64,
    /// Connections that ended with an error of HTTP/2 or of the transport.
    pub connection_errors: AtomicU64,
}

impl Deref for ServerStats {
    type Target = ConnectionStats;

    fn deref(&self) -> &ConnectionStats {
        &self.connections
    }
}

/// A bound listener that is not served yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    addr: SocketAddr,
    stats: Arc<ServerStats>,
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
    pub fn stats(&self) -> Arc<ServerStats> {
        Arc::clone(&self.stats)
    }

    /// Serves until `stop`, then drains: no new connections; clients are told to go (GOAWAY); what has
    /// come is handed to the service, then [`Messages`] end with `UNAVAILABLE`, unless the service
    /// [reads on](Messages::read_on_after_stop); what a source has ready is sent, then its stream ends
    /// with `UNAVAILABLE`. Returns when all connections are closed, at the latest after the drain time.
    pub async fn serve(
        self,
        tls: Option<Arc<ServerTls>>,
        service: Arc<dyn Service>,
        settings: ServerSettings,
        stop: CancellationToken,
    ) {
        let limits = Limits {
            max_connections: settings.max_connections,
            handshake_timeout: settings.handshake_timeout,
            tcp_user_timeout: settings.tcp_user_timeout,
        };
        let settings = Arc::new(settings);
        let stats = self.stats;
        let connections = Arc::clone(&stats.connections);
        let serve = move |accepted, peer, stop| {
            let connection = Arc::new(Connection {
                service: Arc::clone(&service),
                settings: Arc::clone(&settings),
                stats: Arc::clone(&stats),
                peer,
                executor: Executor::default(),
                streams: Streams::default(),
                draining: AtomicBool::new(false),
            });
            run(connection, accepted, stop)
        };
        accept_loop(self.listener, tls, limits, connections, stop, serve).await;
    }
}

/// What the calls of one connection share.
pub(super) struct Connection {
    pub service: Arc<dyn Service>,
    pub settings: Arc<ServerSettings>,
    pub stats: Arc<ServerStats>,
    pub peer: SocketAddr,
    /// Runs what belongs to the connection inside its task.
    executor: Executor,
    /// Those of its streams that its client may end.
    pub streams: Streams,
    draining: AtomicBool,
}

impl Connection {
    /// Runs a call whose client has been answered for as long as the connection lives; its own answer goes nowhere.
    pub fn read_on(&self, call: Pin<Box<dyn Future<Output = Response> + Send>>, open: OpenCall) {
        self.executor.execute(async move {
            drop(call.await);
            drop(open);
        });
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// How long the calls of a connection that has ended may take for what it brought last.
const REST_WITHIN: Duration = Duration::from_secs(1);

struct Calls(Arc<Connection>);

impl hyper::service::Service<http::Request<Incoming>> for Calls {
    type Response = http::Response<CallBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        Box::pin(call::answer(Arc::clone(&self.0), request))
    }
}

/// Runs one connection until it ends, or until it is drained or cut after `stop`.
async fn run(connection: Arc<Connection>, accepted: Accepted, stop: CancellationToken) -> Served {
    let settings = &connection.settings;
    let transport = SharedTransport::new(match accepted {
        Accepted::Plain(stream) => Transport::Plain(stream),
        Accepted::Tls(stream) => Transport::Tls(stream),
    });
    let executor = connection.executor.clone();
    let keepalive = Some(settings.keepalive_interval).filter(|interval| !interval.is_zero());
    let http = hyper::server::conn::http2::Builder::new(executor.clone())
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.max_frame)
        .max_concurrent_streams(settings.max_streams)
        .max_send_buf_size(settings.send_buffer)
        .max_pending_accept_reset_streams(settings.max_resets)
        .max_local_error_reset_streams(settings.max_resets)
        .keep_alive_interval(keepalive)
        .keep_alive_timeout(settings.keepalive_timeout)
        .serve_connection(transport.clone(), Calls(Arc::clone(&connection)));
    let mut driver = Driver::new(http, executor, transport);

    let mut stopping = pin!(stop.cancelled());
    let mut cut = None;
    let outcome = poll_fn(|cx| {
        if cut.is_none() && stopping.as_mut().poll(cx).is_ready() {
            connection.draining.store(true, Ordering::Relaxed);
            if let Some(http) = driver.connection() {
                http.graceful_shutdown();
            }
            driver.wake_streams();
            cut = Some(Box::pin(tokio::time::sleep(settings.drain_timeout)));
        }
        if let Some(cut) = &mut cut
            && cut.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(None);
        }
        driver.poll_connection(cx).map(Some)
    })
    .await;
    if outcome.is_some() {
        // What came with the connection's last bytes is still with its calls. They see its end when they have taken that.
        let rest = poll_fn(|cx| driver.poll_rest(cx));
        drop(tokio::time::timeout(REST_WITHIN, rest).await);
    }
    drop(driver);
    connection.executor.clear();
    match outcome {
        None => return Served::Cut,
        Some(Err(error)) => {
            let errors = &connection.stats.connection_errors;
            errors.fetch_add(1, Ordering::Relaxed);
            let error = super::response::describe(&error);
            tracing::debug!(peer = %connection.peer, error, "connection failed");
        }
        Some(Ok(())) => {}
    }
    Served::Ended
}
