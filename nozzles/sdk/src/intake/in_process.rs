//! From a reverse log proxy in the same process.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use loggregator_net::Backoff;
use loggregator_net::grpc::Status as GrpcStatus;
use loggregator_proto::v2::EgressBatchRequest;
use tokio::time::{Instant, Sleep};

use super::monitor::{Ended, Monitor};
use super::watch::Source;

/// A subscription in the making.
pub type Opening = Pin<Box<dyn Future<Output = Result<Box<dyn Envelopes>, GrpcStatus>> + Send>>;

/// What a nozzle can subscribe at without a socket.
pub trait Upstream: Send + Sync + 'static {
    /// Asks for envelopes.
    fn open(&self, request: EgressBatchRequest) -> Opening;
}

/// The envelopes of one subscription; dropping it ends it.
pub trait Envelopes: Send + 'static {
    /// The next encoded `EnvelopeBatch`; an error is the last item.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, GrpcStatus>>>;
}

/// A subscription that lived for so long was well.
const WELL: Duration = Duration::from_secs(10);

enum State {
    Opening(Opening),
    Open(Box<dyn Envelopes>, Instant),
    Waiting(Pin<Box<Sleep>>),
    /// No more is asked for; what has arrived is still there.
    Stopping(Box<dyn Envelopes>),
    Stopped,
}

/// A subscription that is opened again when it ends.
pub(super) struct InProcess {
    upstream: Arc<dyn Upstream>,
    request: EgressBatchRequest,
    state: State,
    backoff: Backoff,
    monitor: Arc<Monitor>,
}

impl InProcess {
    pub(super) fn new(
        upstream: Arc<dyn Upstream>,
        request: EgressBatchRequest,
        monitor: Arc<Monitor>,
    ) -> InProcess {
        InProcess {
            state: State::Opening(upstream.open(request.clone())),
            upstream,
            request,
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(5)),
            monitor,
        }
    }

    fn ended(&mut self, why: Option<GrpcStatus>) {
        if let State::Open(_, since) = &self.state
            && since.elapsed() > WELL
        {
            self.backoff.reset();
        }
        self.monitor.standing(0);
        match why {
            Some(status) => self.monitor.ended(Ended::Failed, status.to_string()),
            None => self
                .monitor
                .ended(Ended::Closed, "the pipeline ended the subscription"),
        }
        let pause = self.backoff.next_delay();
        self.state = State::Waiting(Box::pin(tokio::time::sleep(pause)));
    }
}

impl Source for InProcess {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            match &mut self.state {
                State::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                    Ok(envelopes) => {
                        self.monitor.standing(1);
                        self.state = State::Open(envelopes, Instant::now());
                    }
                    Err(status) => self.ended(Some(status)),
                },
                State::Open(envelopes, _) => match ready!(envelopes.poll_next(cx)) {
                    Some(Ok(batch)) => {
                        self.backoff.reset();
                        return Poll::Ready(Some(batch));
                    }
                    Some(Err(status)) => self.ended(Some(status)),
                    None => self.ended(None),
                },
                State::Waiting(pause) => {
                    ready!(pause.as_mut().poll(cx));
                    self.reopen();
                }
                State::Stopping(envelopes) => match envelopes.poll_next(cx) {
                    Poll::Ready(Some(Ok(batch))) => return Poll::Ready(Some(batch)),
                    Poll::Ready(Some(Err(_)) | None) | Poll::Pending => self.state = State::Stopped,
                },
                State::Stopped => return Poll::Ready(None),
            }
        }
    }

    fn reopen(&mut self) {
        self.monitor.standing(0);
        self.state = State::Opening(self.upstream.open(self.request.clone()));
    }

    fn stop(&mut self) {
        self.monitor.standing(0);
        self.state = match std::mem::replace(&mut self.state, State::Stopped) {
            State::Open(envelopes, _) | State::Stopping(envelopes) => State::Stopping(envelopes),
            State::Opening(_) | State::Waiting(_) | State::Stopped => State::Stopped,
        };
    }
}
