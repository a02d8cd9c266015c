//! The accept loop that the gRPC and the HTTP server share: connection limit, TLS handshake with a
//! time limit, draining.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::socket;
use crate::tls::{HandshakeError, ServerTls, TlsStream, tls_accept};

/// Pause after the system could not give us a connection, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a listener has seen. Counters only grow, `open` goes up and down.
#[derive(Debug, Default)]
pub struct ConnectionStats {
    /// Connections accepted, those over the limit included.
    pub accepted: AtomicU64,
    /// Connections open now, those in the TLS handshake included.
    pub open: AtomicU64,
    /// Connections closed at once because as many as allowed were open.
    pub refused_over_limit: AtomicU64,
    /// Times that the system could not give us a connection.
    pub accept_errors: AtomicU64,
    /// Connections that were still open when the drain time was over, and were cut.
    pub cut_at_drain: AtomicU64,
    /// HTTP/2 responses that were reset because the client took nothing more of them.
    pub stalled_responses: AtomicU64,
    handshake_failures: [AtomicU64; HandshakeError::KINDS.len()],
}

impl ConnectionStats {
    /// Failed TLS handshakes by [`HandshakeError::kind`].
    pub fn handshake_failures(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.handshake_failures.iter();
        HandshakeError::KINDS
            .into_iter()
            .zip(counts.map(|count| count.load(Ordering::Relaxed)))
    }

    fn handshake_failed(&self, error: &HandshakeError) {
        self.handshake_failures[error.index()].fetch_add(1, Ordering::Relaxed);
    }
}

/// A connection that is ready to be spoken over.
pub(crate) enum Accepted {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// How connections are accepted.
pub(crate) struct Limits {
    pub max_connections: usize,
    pub handshake_timeout: Duration,
    pub tcp_user_timeout: Duration,
}

/// Accepts connections until `stop`, then waits until those that are open have ended.
///
/// `serve` runs one connection; when its token is cancelled it must drain and end within a time of its
/// own, and it says whether it had to be cut.
pub(crate) async fn accept_loop<F, S>(
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
    limits: Limits,
    stats: Arc<ConnectionStats>,
    stop: CancellationToken,
    serve: S,
) where
    F: Future<Output = Served> + Send + 'static,
    S: Fn(Accepted, SocketAddr, CancellationToken) -> F + Clone + Send + Sync + 'static,
{
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "listener cannot be used");
            return;
        }
    };
    let limits = Arc::new(limits);
    let tracker = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            // An IPv4 client of a port on all addresses is shown as what it is, not as `::ffff:…`.
            Ok((stream, peer)) => (
                stream,
                SocketAddr::new(peer.ip().to_canonical(), peer.port()),
            ),
            Err(error) => {
                stats.accept_errors.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        stats.accepted.fetch_add(1, Ordering::Relaxed);
        let Some(open) = Open::new(&stats, limits.max_connections) else {
            stats.refused_over_limit.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%peer, "connection refused: as many as allowed are open");
            continue;
        };
        let (tls, limits, serve) = (tls.clone(), Arc::clone(&limits), serve.clone());
        let stop = stop.child_token();
        tracker.spawn(async move {
            let prepared = tokio::select! {
                prepared = prepare(stream, peer, tls, &limits, &open.0) => prepared,
                // Nothing was promised to a client in the handshake.
                () = stop.cancelled() => None,
            };
            if let Some(connection) = prepared
                && matches!(serve(connection, peer, stop).await, Served::Cut)
            {
                open.0.cut_at_drain.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    drop(listener);
    tracker.close();
    tracker.wait().await;
}

/// How a connection ended.
pub(crate) enum Served {
    /// By itself, or drained.
    Ended,
    /// It was still busy when the drain time was over.
    Cut,
}

async fn prepare(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<ServerTls>>,
    limits: &Limits,
    stats: &ConnectionStats,
) -> Option<Accepted> {
    if let Err(error) = socket::tune(&stream, limits.tcp_user_timeout) {
        // The client has gone already.
        tracing::debug!(%peer, %error, "connection lost");
        return None;
    }
    let Some(tls) = tls else {
        return Some(Accepted::Plain(stream));
    };
    match tls_accept(stream, &tls, limits.handshake_timeout).await {
        Ok(stream) => Some(Accepted::Tls(Box::new(stream))),
        Err(error) => {
            stats.handshake_failed(&error);
            // In the words of Go's servers. Lines are limited per place, so that a scan costs a few.
            tracing::info!("TLS handshake error from {peer}: {error}");
            None
        }
    }
}

/// Counts a connection as open while it lives.
struct Open(Arc<ConnectionStats>);

impl Open {
    fn new(stats: &Arc<ConnectionStats>, limit: usize) -> Option<Self> {
        let before = stats.open.fetch_add(1, Ordering::Relaxed);
        let open = Self(Arc::clone(stats));
        (before < limit as u64).then_some(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
