//! What the HTTP gateway reads from: a reverse log proxy, over gRPC or in the same process.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
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

/// The envelopes of one subscription. Dropping it ends the subscription.
pub trait Envelopes: Send + 'static {
    /// The next encoded `EnvelopeBatch`; an error is the last item. What is not polled for stays where it is bounded and
    /// counted.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>>;
}
