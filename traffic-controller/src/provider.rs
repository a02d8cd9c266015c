//! What the HTTP gateway reads from: a reverse log proxy, over gRPC or in the same process.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use loggregator_envelope::{Flags, survey};
use loggregator_net::grpc::Status;
use loggregator_proto::v2::EgressBatchRequest;

/// A subscription in the making.
pub type Opening = Pin<Box<dyn Future<Output = Result<Box<dyn Envelopes>, Status>> + Send>>;

/// A reverse log proxy, wherever it runs.
pub trait Provider: Send + Sync + 'static {
    /// Asks for envelopes. Fails when the proxy cannot be reached; a request that it refuses may also be answered with a
    /// stream that ends with the refusal.
    fn open(&self, request: EgressBatchRequest) -> Opening;
}

/// The envelopes of one subscription. Dropping it ends the subscription without a count; see [`close`](Envelopes::close).
pub trait Envelopes: Send + 'static {
    /// The next encoded `EnvelopeBatch`; an error is the last item. What is not polled for stays where it is bounded and
    /// counted.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>>;

    /// Asks for the end of the subscription: [`poll_next`](Envelopes::poll_next) gives what is under way, so that all that the
    /// proxy counts as delivered is there, and then `None`, after this time at the latest.
    fn finish(&mut self, within: Duration);

    /// Ends the subscription; returns how many envelopes had arrived and were not taken, so that they can be booked. A batch
    /// whose framing is broken counts as one. What nobody but this reader could count is counted to [`MOST_COUNTED`].
    fn close(mut self: Box<Self>) -> u64 {
        let mut cx = Context::from_waker(Waker::noop());
        let mut left = 0;
        while left < MOST_COUNTED
            && let Poll::Ready(Some(Ok(batch))) = self.poll_next(&mut cx)
        {
            left += envelopes_in(&batch);
        }
        left
    }
}

/// How many envelopes a batch holds; one whose framing is broken counts as one.
pub(crate) fn envelopes_in(batch: &Bytes) -> u64 {
    survey(batch, Flags::default()).map_or(1, |survey| survey.envelopes as u64)
}

/// A provider that always has one more is not counted to its end when its reader leaves.
pub const MOST_COUNTED: u64 = 100_000;
