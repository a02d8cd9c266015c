//! Where the envelopes come from: all dopplers, merged into one stream per subscription, and one subscription for all who
//! ask for the same.

mod queue;
mod shared;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use loggregator_client::{Batch, DopplerSet, EgressStream, V1Stream};
use loggregator_proto::plumbing::SubscriptionRequest;
use loggregator_proto::v2::EgressBatchRequest;
use tokio::time::Sleep;
use tracing::info;

pub use shared::SharedLimits;
pub(crate) use shared::{Hub, Shared};

/// How long a new subscription waits for its requests to be on the way to every doppler before its client hears that it is
/// connected. A doppler that cannot be reached is joined when it can.
const OPEN_WITHIN: Duration = Duration::from_millis(100);

/// Something that can be subscribed to with requests of the form `R`: `SubscriptionRequest` for v1, `EgressBatchRequest` for
/// v2. The real one reads every doppler of a set; tests have their own.
pub(crate) trait Upstream<R>: Send + Sync + 'static {
    /// Starts a subscription. Never fails: what cannot be reached is tried again for as long as the subscription lives.
    ///
    /// What comes may arrive from now on, so the caller opens its account at once and waits with it
    /// ([`Batches::poll_open`]): whoever gives up waiting closes what it has, and nothing is lost uncounted.
    fn subscribe(&self, request: R) -> Box<dyn Batches>;
}

/// The merged stream of one subscription. Dropping it cancels the subscription at every doppler.
pub(crate) trait Batches: Send + 'static {
    /// Ready when a new subscription stands at the dopplers, as far as its client should wait for that. Nothing is taken.
    fn poll_open(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// The next encoded `plumbing.BatchResponse` (v1) or `EnvelopeBatch` (v2), from whichever doppler has one; `None` when
    /// there will be no more.
    ///
    /// What is not polled for stays at the transport, whose window bounds it, and then at the doppler, which counts what
    /// it has to let go.
    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Batch>>;

    /// Takes nothing new from the dopplers: [`poll_batch`](Batches::poll_batch) gives what is under way, so that all that they
    /// count as delivered is there, and then `None`, after this time at the latest.
    fn finish(&mut self, within: Duration);

    /// Envelopes that this reader of a shared subscription was too slow for since the last call. They came before the batch
    /// that was taken last. The caller books them as received and as lost.
    fn take_missed(&mut self) -> u64 {
        0
    }

    /// Whether others may read the same subscription. Then what comes from the dopplers is counted where it is taken from
    /// them, once, and not again in every reader's account.
    fn is_shared(&self) -> bool {
        false
    }

    /// Ends the subscription, or this reader's share of it; returns what had arrived and was not taken.
    fn close(self: Box<Self>) -> Unread;
}

/// What had arrived for a reader that ends, and was not taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Unread {
    /// Envelopes that it could have taken.
    pub(crate) envelopes: u64,
    /// Envelopes that were gone already, because it was too slow for them: what [`Batches::take_missed`] would still have
    /// told.
    pub(crate) missed: u64,
}

impl Unread {
    /// Nothing was missed.
    fn of(envelopes: u64) -> Self {
        Self {
            envelopes,
            missed: 0,
        }
    }
}

impl Upstream<SubscriptionRequest> for DopplerSet {
    fn subscribe(&self, request: SubscriptionRequest) -> Box<dyn Batches> {
        let stream = V1Stream::open(self, &request);
        let dopplers = self.peers().len();
        info!("Connecting to {dopplers} dopplers");
        Box::new(V1 {
            stream,
            wait: Wait::new(dopplers),
            _told: Disconnecting(self.clone()),
        })
    }
}

/// How long the client of a new subscription waits for the dopplers.
struct Wait {
    dopplers: usize,
    /// `None`: no longer.
    until: Option<Pin<Box<Sleep>>>,
}

impl Wait {
    fn new(dopplers: usize) -> Self {
        Self {
            dopplers,
            until: (dopplers > 0).then(|| Box::pin(tokio::time::sleep(OPEN_WITHIN))),
        }
    }

    /// Ready when `opened`, which gets the number of dopplers, is, or the time is over.
    fn poll<F: Future<Output = ()>>(
        &mut self,
        cx: &mut Context<'_>,
        opened: impl FnOnce(usize) -> F,
    ) -> Poll<()> {
        let Some(until) = &mut self.until else {
            return Poll::Ready(());
        };
        if pin!(opened(self.dopplers)).poll(cx).is_pending() && until.as_mut().poll(cx).is_pending()
        {
            return Poll::Pending;
        }
        self.until = None;
        Poll::Ready(())
    }
}

struct V1 {
    stream: V1Stream,
    wait: Wait,
    _told: Disconnecting,
}

impl Batches for V1 {
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.wait.poll(cx, |dopplers| self.stream.opened(dopplers))
    }

    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Batch>> {
        self.stream.poll_next(cx)
    }

    fn finish(&mut self, within: Duration) {
        self.stream.finish(within);
    }

    fn close(self: Box<Self>) -> Unread {
        Unread::of(self.stream.close().envelopes)
    }
}

/// Says, when it is dropped, that the dopplers' streams are left, in the words of the Go traffic controller.
struct Disconnecting(DopplerSet);

impl Drop for Disconnecting {
    fn drop(&mut self) {
        for peer in self.0.peers().iter() {
            info!(
                "Disconnecting from stream ({}) (doppler.disconnect=false) (ctx.disconnect=1)",
                peer.addr()
            );
        }
    }
}

impl Upstream<EgressBatchRequest> for DopplerSet {
    /// Waits until the dopplers have answered, so that a client that hears that its stream is open misses nothing from then
    /// on. Go routers answer with their first message only and are not waited for beyond [`OPEN_WITHIN`].
    fn subscribe(&self, request: EgressBatchRequest) -> Box<dyn Batches> {
        let stream = EgressStream::open(self, request);
        let wait = Wait::new(self.peers().len());
        Box::new(V2 { stream, wait })
    }
}

struct V2 {
    stream: EgressStream,
    wait: Wait,
}

impl Batches for V2 {
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.wait
            .poll(cx, |dopplers| self.stream.answered(dopplers))
    }

    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Batch>> {
        self.stream.poll_next(cx)
    }

    fn finish(&mut self, within: Duration) {
        self.stream.finish(within);
    }

    fn close(self: Box<Self>) -> Unread {
        Unread::of(self.stream.close().envelopes)
    }
}
