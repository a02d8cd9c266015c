//! Where the envelopes come from: all dopplers, merged into one stream per subscription.

use std::task::{Context, Poll};

use bytes::Bytes;
use loggregator_proto::plumbing::SubscriptionRequest;

/// Something that can be subscribed to. The real one reads every doppler of a set; tests have their own.
pub(crate) trait Upstream: Send + Sync + 'static {
    /// Starts a subscription. Never fails: what cannot be reached is tried again for as long as the subscription lives.
    fn subscribe(&self, request: SubscriptionRequest) -> Box<dyn Batches>;
}

/// The merged stream of one subscription. Dropping it cancels the subscription at every doppler.
pub(crate) trait Batches: Send + 'static {
    /// The next encoded `plumbing.BatchResponse`, from whichever doppler has one; `None` when there will be no more.
    ///
    /// What is not polled for stays at the transport, whose window bounds it, and then at the doppler, which counts what
    /// it has to let go.
    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>>;
}
