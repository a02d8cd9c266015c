//! Makes a channel's connection, drives it, and makes it again.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use hyper_util::rt::TokioTimer;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::channel::{ChannelState, ChannelStats, Endpoint, RequestBody};
use super::driver::{Driver, Executor};
use super::response;
use super::status::Status;
use super::transport::{SharedTransport, Transport};
use crate::{socket, tls_connect};

/// Where calls are put into a connection.
pub(super) type Requests = hyper::client::conn::http2::SendRequest<RequestBody>;

type Http = hyper::client::conn::http2::Connection<SharedTransport, RequestBody, Executor>;

/// Streams that we have cancelled and whose late frames are still recognised, and late frames for
/// streams that are forgotten: thousands of subscriptions may be cancelled at once.
const MAX_RESETS: usize = 65_536;

/// A connection's calls together with which connection it is.
#[derive(Clone)]
pub(super) struct Sender {
    pub requests: Requests,
    number: u64,
}

/// Keeps one connection to an endpoint. The work is done by a task that lives as long as this.
pub(super) struct Dialer {
    shared: Arc<Shared>,
    started: AtomicBool,
    _stop: DropGuard,
}

struct Shared {
    endpoint: Endpoint,
    state: watch::Sender<ChannelState>,
    sender: Mutex<Option<Sender>>,
    /// How the last attempt ended, or the connection that it made, and which attempt it was.
    last_failure: Mutex<(u64, Status)>,
    wanted: Notify,
    stop: CancellationToken,
    stats: Arc<ChannelStats>,
}

impl Dialer {
    pub fn new(endpoint: Endpoint) -> Self {
        let stop = CancellationToken::new();
        Self {
            started: AtomicBool::new(false),
            _stop: stop.clone().drop_guard(),
            shared: Arc::new(Shared {
                endpoint,
                state: watch::Sender::new(ChannelState::Idle),
                sender: Mutex::new(None),
                last_failure: Mutex::new((0, Status::ok())),
                wanted: Notify::new(),
                stop,
                stats: Arc::default(),
            }),
        }
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    pub fn state(&self) -> watch::Receiver<ChannelState> {
        self.shared.state.subscribe()
    }

    pub fn stats(&self) -> Arc<ChannelStats> {
        Arc::clone(&self.shared.stats)
    }

    /// Where to put a call: connects and waits if need be, fails at once during a backoff.
    pub async fn sender(&self) -> Result<Sender, Status> {
        let mut state = self.shared.state.subscribe();
        let before = self.shared.last_failure.lock().0;
        loop {
            if let Some(sender) = self.shared.sender.lock().clone() {
                return Ok(sender);
            }
            let now = state.borrow_and_update().clone();
            self.want();
            if let ChannelState::Failed(status) = now {
                return Err(status);
            }
            self.failed_after(before)?;
            changed(&mut state).await?;
        }
    }

    /// Waits until the connection is there, or an attempt that was not over at the call has failed.
    pub async fn ready(&self) -> Result<(), Status> {
        let mut state = self.shared.state.subscribe();
        let before = self.shared.last_failure.lock().0;
        loop {
            if *state.borrow_and_update() == ChannelState::Ready {
                return Ok(());
            }
            self.failed_after(before)?;
            self.want();
            changed(&mut state).await?;
        }
    }

    /// An error if an attempt after that one has failed. The state alone does not tell: it may have
    /// moved on before anybody looked.
    fn failed_after(&self, before: u64) -> Result<(), Status> {
        let last = self.shared.last_failure.lock();
        if last.0 > before {
            Err(last.1.clone())
        } else {
            Ok(())
        }
    }

    /// This connection takes no calls any more.
    pub fn forget(&self, sender: &Sender) {
        self.shared.forget(sender.number);
    }

    fn want(&self) {
        self.shared.wanted.notify_one();
        if !self.started.swap(true, Ordering::AcqRel) {
            tokio::spawn(run(Arc::clone(&self.shared)));
        }
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer")
            .field("addr", &self.shared.endpoint.addr)
            .field("state", &*self.shared.state.borrow())
            .finish_non_exhaustive()
    }
}

async fn changed(state: &mut watch::Receiver<ChannelState>) -> Result<(), Status> {
    state
        .changed()
        .await
        .map_err(|_closed| Status::unavailable("the channel is closed"))
}

impl Shared {
    fn forget(&self, number: u64) {
        let mut sender = self.sender.lock();
        if sender
            .as_ref()
            .is_some_and(|sender| sender.number == number)
        {
            *sender = None;
        }
    }
}

/// Connects whenever a connection is wanted and there is none.
async fn run(shared: Arc<Shared>) {
    let mut backoff = shared.endpoint.settings.backoff.clone();
    for number in 1.. {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = shared.wanted.notified() => {}
        }
        let not_before = Instant::now() + backoff.next_delay();
        shared.stats.attempts.fetch_add(1, Ordering::AcqRel);
        shared.state.send_replace(ChannelState::Connecting);
        let connected = tokio::select! {
            () = shared.stop.cancelled() => return,
            connected = connect(&shared.endpoint) => connected,
        };
        let ended = match connected {
            Ok((requests, driver)) => {
                backoff.reset();
                shared.stats.connected.fetch_add(1, Ordering::Relaxed);
                *shared.sender.lock() = Some(Sender { requests, number });
                shared.state.send_replace(ChannelState::Ready);
                let ended = drive(&shared, driver, number).await;
                shared.stats.lost.fetch_add(1, Ordering::Relaxed);
                ended
            }
            Err(status) => status,
        };
        if shared.stop.is_cancelled() {
            return;
        }
        tracing::debug!(addr = shared.endpoint.addr, status = %ended, "not connected");
        *shared.last_failure.lock() = (number, ended.clone());
        if Instant::now() < not_before {
            shared.state.send_replace(ChannelState::Failed(ended));
            tokio::select! {
                () = shared.stop.cancelled() => return,
                () = tokio::time::sleep_until(not_before) => {}
            }
        }
        shared.state.send_replace(ChannelState::Idle);
    }
}

/// Runs a connection until it takes no more calls. Calls that go on are left to a task of their own.
async fn drive(shared: &Arc<Shared>, mut driver: Driver<Http>, number: u64) -> Status {
    let outcome = {
        let connection = poll_fn(|cx| driver.poll_connection(cx));
        tokio::pin!(connection);
        tokio::select! {
            outcome = &mut connection => outcome,
            () = shared.stop.cancelled() => {
                // The last handle is gone. Without this one the connection closes after its calls.
                shared.forget(number);
                connection.await
            }
        }
    };
    shared.forget(number);
    let status = lost(&driver, outcome);
    tokio::spawn(poll_fn(move |cx| driver.poll_rest(cx)));
    status
}

/// Connects, as far as the server's first HTTP/2 frame: only then has it accepted our certificate.
async fn connect(endpoint: &Endpoint) -> Result<(Requests, Driver<Http>), Status> {
    let limit = endpoint.settings.connect_timeout;
    tokio::time::timeout(limit, attempt(endpoint))
        .await
        .unwrap_or_else(|_elapsed| Err(unreachable(endpoint, &"timed out")))
}

async fn attempt(endpoint: &Endpoint) -> Result<(Requests, Driver<Http>), Status> {
    let settings = &endpoint.settings;
    let stream = TcpStream::connect(&endpoint.addr)
        .await
        .map_err(|error| unreachable(endpoint, &error))?;
    socket::tune(&stream, settings.tcp_user_timeout)
        .map_err(|error| unreachable(endpoint, &error))?;
    let transport = match &endpoint.tls {
        None => Transport::Plain(stream),
        Some(tls) => {
            let stream = tls_connect(stream, tls, &endpoint.server_name, settings.connect_timeout)
                .await
                .map_err(|error| unreachable(endpoint, &error))?;
            Transport::Tls(Box::new(stream))
        }
    };
    let transport = SharedTransport::new(transport);
    let executor = Executor::default();
    let keepalive = Some(settings.keepalive_interval).filter(|interval| !interval.is_zero());
    let (requests, http) = hyper::client::conn::http2::Builder::new(executor.clone())
        .timer(TokioTimer::new())
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.max_frame)
        .max_send_buf_size(settings.send_buffer)
        .max_concurrent_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS)
        .keep_alive_interval(keepalive)
        .keep_alive_timeout(settings.keepalive_timeout)
        .keep_alive_while_idle(true)
        .handshake(transport.clone())
        .await
        .map_err(|error| unreachable(endpoint, &response::describe(&error)))?;
    let mut driver = Driver::new(http, executor, transport);
    let outcome = poll_fn(|cx| match driver.poll_connection(cx) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending if driver.transport().heard() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await;
    match outcome {
        None => Ok((requests, driver)),
        Some(outcome) => Err(unreachable(endpoint, &lost(&driver, outcome).message)),
    }
}

fn unreachable(endpoint: &Endpoint, reason: &dyn fmt::Display) -> Status {
    Status::unavailable(format!(
        "connection error: desc = \"transport: {}: {reason}\"",
        endpoint.addr
    ))
}

/// Why a connection ended, as well as can be told.
fn lost(driver: &Driver<Http>, outcome: Result<(), hyper::Error>) -> Status {
    let reason = match (driver.transport().failure(), outcome) {
        (Some(reason), _) => reason,
        (None, Err(error)) => response::describe(&error),
        (None, Ok(())) => "closed by the server".into(),
    };
    Status::unavailable(format!("connection lost: {reason}"))
}
