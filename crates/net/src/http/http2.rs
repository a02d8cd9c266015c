//! One HTTP/2 connection, with everything that belongs to it in one task.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use ::http::Method;
use ::http::header::{CONTENT_LENGTH, HeaderValue};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::stall::{Turn, Watching};
use super::{Body, BodyError, Handler, MAX_HEAD, Response, Settings};
use crate::TlsStream;
use crate::accept::{ConnectionStats, Served};
use crate::grpc::driver::{Driver, Executor};
use crate::grpc::transport::{SharedTransport, Transport};

/// Requests so far, and how many of them have ended.
#[derive(Default)]
struct Requests {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// One request, until its answer has ended.
struct Underway(Arc<Requests>);

impl Requests {
    /// How many there were, and whether all of them have ended.
    fn seen(&self) -> (u64, bool) {
        let begun = self.begun.load(Ordering::Relaxed);
        (begun, begun == self.ended.load(Ordering::Relaxed))
    }
}

impl Underway {
    fn new(requests: &Arc<Requests>) -> Self {
        requests.begun.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(requests))
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// The body of an answer, which is what keeps the connection busy.
struct Busy {
    body: Body,
    turn: Arc<Turn>,
    _underway: Underway,
}

impl Busy {
    fn new(body: Body, underway: Underway) -> Self {
        let turn = Turn::current();
        turn.is_the_clients();
        Self {
            body,
            turn,
            _underway: underway,
        }
    }
}

impl http_body::Body for Busy {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.turn.is_ours();
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.turn.is_the_clients();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The answer to HEAD: over HTTP/1.1 hyper leaves the body out, here it does not.
fn without_body(response: &mut Response) {
    if let Some(length) = response.body().size_hint().exact() {
        let header = response.headers_mut().entry(CONTENT_LENGTH);
        header.or_insert(HeaderValue::from(length));
    }
    *response.body_mut() = super::full(Bytes::new());
}

/// Runs one connection until it ends, is idle for too long, or is drained or cut after `stop`. A request that crosses the
/// word that an idle connection is closed is still answered, for as long as that takes.
pub(super) async fn run(
    stream: Box<TlsStream<TcpStream>>,
    peer: SocketAddr,
    handler: Arc<dyn Handler>,
    settings: Arc<Settings>,
    stats: Arc<ConnectionStats>,
    stop: CancellationToken,
) -> Served {
    let requests = Arc::<Requests>::default();
    let count = Arc::clone(&requests);
    let service = service_fn(move |request: super::Request| {
        let underway = Underway::new(&count);
        let is_head = request.method() == Method::HEAD;
        let response = handler.handle(request, peer);
        async move {
            let mut response = response.await;
            if is_head {
                without_body(&mut response);
            }
            let busy = response.map(|body| Busy::new(body, underway).boxed_unsync());
            Ok::<_, Infallible>(busy)
        }
    });
    let transport = SharedTransport::new(Transport::Tls(stream));
    let executor = Executor::default();
    let watching = Watching {
        streams: executor.clone(),
        patience: settings.stall_timeout,
        stats,
    };
    let http = hyper::server::conn::http2::Builder::new(watching)
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_streams)
        .max_header_list_size(MAX_HEAD)
        .serve_connection(transport.clone(), service);
    let mut driver = Driver::new(http, executor, transport);

    let mut stopping = pin!(stop.cancelled());
    let mut cut = None;
    // The first request must come as soon as over HTTP/1.1.
    let mut look = pin!(sleep(settings.header_timeout));
    let (mut seen, mut closing) = (0, false);
    let outcome = poll_fn(|cx| {
        if cut.is_none() && stopping.as_mut().poll(cx).is_ready() {
            if let Some(http) = driver.connection() {
                http.graceful_shutdown();
            }
            cut = Some(Box::pin(sleep(settings.drain_timeout)));
        }
        if let Some(cut) = &mut cut
            && cut.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(Served::Cut));
        }
        while cut.is_none() && look.as_mut().poll(cx).is_ready() {
            let (begun, all_ended) = requests.seen();
            if closing && all_ended {
                return Poll::Ready(Err(Served::Ended));
            }
            if begun == seen && all_ended {
                if let Some(http) = driver.connection() {
                    http.graceful_shutdown();
                }
                closing = true;
            }
            seen = begun;
            let next = match closing {
                true => settings.drain_timeout,
                false => settings.idle_timeout,
            };
            look.as_mut().reset(Instant::now() + next);
        }
        driver.poll_connection(cx).map(Ok)
    })
    .await;
    match outcome {
        Err(served) => return served,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "HTTP/2 connection failed"),
        Ok(Ok(())) => {}
    }
    Served::Ended
}
