//! From a reverse log proxy in the same process.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use loggregator_net::grpc::Status as GrpcStatus;
use loggregator_proto::v2::EgressBatchRequest;
use tokio::time::Sleep;

use super::{Intake, Status};

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

/// How long to wait before a subscription is opened again.
const PAUSE: Duration = Duration::from_millis(100);

enum State {
    Opening(Opening),
    Open(Box<dyn Envelopes>),
    Waiting(Pin<Box<Sleep>>),
}

/// A subscription that is opened again when it ends.
pub(super) struct InProcess {
    upstream: Arc<dyn Upstream>,
    request: EgressBatchRequest,
    state: State,
    status: Status,
}

impl InProcess {
    pub(super) fn new(upstream: Arc<dyn Upstream>, request: EgressBatchRequest) -> InProcess {
        InProcess {
            state: State::Opening(upstream.open(request.clone())),
            upstream,
            request,
            status: Status::default(),
        }
    }

    fn ended(&mut self, why: Option<GrpcStatus>) {
        self.status.open = 0;
        self.status.reconnects += 1;
        self.status.last_error = why.map(|status| status.to_string());
        self.state = State::Waiting(Box::pin(tokio::time::sleep(PAUSE)));
    }
}

impl Intake for InProcess {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            match &mut self.state {
                State::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                    Ok(envelopes) => {
                        self.status.open = 1;
                        self.state = State::Open(envelopes);
                    }
                    Err(status) => self.ended(Some(status)),
                },
                State::Open(envelopes) => match ready!(envelopes.poll_next(cx)) {
                    Some(Ok(batch)) => return Poll::Ready(Some(batch)),
                    Some(Err(status)) => self.ended(Some(status)),
                    None => self.ended(None),
                },
                State::Waiting(pause) => {
                    ready!(pause.as_mut().poll(cx));
                    self.state = State::Opening(self.upstream.open(self.request.clone()));
                }
            }
        }
    }

    fn status(&self) -> Status {
        self.status.clone()
    }
}
