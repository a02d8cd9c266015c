//! Subscriptions between two responses of the same reader.
//!
//! A response ends after its time; the reader connects again and asks for the same. What the reverse log proxy has already
//! sent would be lost if its stream were cancelled with the response, so the stream is parked, unread, and the next
//! response goes on with it. Nobody comes: it is ended, and what it held is counted. One whose proxy went meanwhile is not gone
//! on with; what had arrived on it is given to the reader before what comes on a new one.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use loggregator_net::grpc::Status;
use loggregator_proto::v2::EgressBatchRequest;
use loggregator_service::Lifecycle;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::oneshot;

use crate::access::Credentials;
use crate::accounts::{Accounts, Identity};
use crate::provider::{Envelopes, envelopes_in};

/// Bytes that may be taken from a parked subscription to see whether it has ended: more than waits in the window of a stream
/// from the reverse log proxy.
const LOOK_AHEAD: usize = 1024 * 1024;

/// Why what a parked subscription held was lost.
pub(crate) const NOT_RESUMED: &str = "not_resumed";

/// Who may go on with a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The request, encoded: the same one.
    request: Bytes,
    /// Without a shard id, the same reader. Members of a shard group stand in for each other anyway.
    reader: Option<(Arc<Credentials>, IpAddr)>,
}

impl Place {
    /// Where the subscription of this request, made by this reader, is parked.
    pub(crate) fn of(request: &EgressBatchRequest, who: &Arc<Credentials>, from: IpAddr) -> Self {
        Self {
            request: request.encode_to_vec().into(),
            reader: request.shard_id.is_empty().then(|| (Arc::clone(who), from)),
        }
    }
}

/// All parked subscriptions.
pub(crate) struct Parking {
    grace: Duration,
    /// How long the reverse log proxy may take to end a stream.
    finish: Duration,
    /// Most of them at a time; further ones are ended at once.
    limit: usize,
    lots: Mutex<Lots>,
    accounts: Arc<Accounts>,
    lifecycle: Lifecycle,
    resumed: AtomicU64,
    expired: AtomicU64,
}

#[derive(Default)]
struct Lots {
    next: u64,
    parked: usize,
    of: HashMap<Bytes, Vec<Parked>>,
}

struct Parked {
    number: u64,
    place: Place,
    source: Box<dyn Envelopes>,
    identity: Identity,
    /// Ends the task that waits for the grace period to be over.
    _taken: oneshot::Sender<()>,
}

impl Parking {
    /// Parks for `grace` at most, and at most `limit` at a time. A grace of zero parks nothing. `finish`: how long the reverse
    /// log proxy may take to end a stream that nobody goes on with.
    pub(crate) fn new(
        grace: Duration,
        finish: Duration,
        limit: usize,
        accounts: Arc<Accounts>,
        lifecycle: Lifecycle,
    ) -> Arc<Self> {
        Arc::new(Self {
            grace,
            finish,
            limit,
            lots: Mutex::default(),
            accounts,
            lifecycle,
            resumed: AtomicU64::new(0),
            expired: AtomicU64::new(0),
        })
    }

    /// For how long a subscription is parked.
    pub(crate) fn grace(&self) -> Duration {
        self.grace
    }

    /// Parks a subscription. Gives it back when there is no room, no grace, or no time because the program stops.
    pub(crate) fn park(
        self: &Arc<Self>,
        place: Place,
        source: Box<dyn Envelopes>,
        identity: Identity,
    ) -> Result<(), Box<dyn Envelopes>> {
        let stop = self.lifecycle.token();
        if self.grace.is_zero() || stop.is_cancelled() {
            return Err(source);
        }
        let (taken, gone) = oneshot::channel::<()>();
        let request = place.request.clone();
        let number = {
            let mut lots = self.lots.lock();
            if lots.parked >= self.limit {
                return Err(source);
            }
            lots.parked += 1;
            lots.next += 1;
            let number = lots.next;
            lots.of.entry(request.clone()).or_default().push(Parked {
                number,
                place,
                source,
                identity,
                _taken: taken,
            });
            number
        };
        let parking = Arc::clone(self);
        self.lifecycle.spawn("parked stream", async move {
            tokio::select! {
                _ = gone => return,
                () = tokio::time::sleep(parking.grace) => {}
                () = stop.cancelled() => {}
            }
            let left = parking
                .lots
                .lock()
                .remove(&request, |parked| parked.number == number);
            if let Some(left) = left {
                parking.expired.fetch_add(1, Ordering::Relaxed);
                parking.write_off(left.source, left.identity).await;
            }
        });
        Ok(())
    }

    /// The subscription that was parked longest at this place.
    pub(crate) fn resume(&self, place: &Place) -> Option<Resumed> {
        let found = self
            .lots
            .lock()
            .remove(&place.request, |parked| parked.place == *place)?;
        self.resumed.fetch_add(1, Ordering::Relaxed);
        Some(Resumed::of(found.source))
    }

    /// Ends a subscription that nobody goes on with; what has arrived for it, or still does, is lost and counted.
    async fn write_off(&self, mut source: Box<dyn Envelopes>, identity: Identity) {
        source.finish(self.finish);
        let mut lost = 0;
        while let Some(Ok(batch)) = poll_fn(|cx| source.poll_next(cx)).await {
            lost += envelopes_in(&batch);
        }
        self.lost(lost, identity);
    }

    /// Counts what nobody goes on with.
    pub(crate) fn lost(&self, envelopes: u64, identity: Identity) {
        if envelopes > 0 {
            let account = self.accounts.open(identity, false);
            account.received(envelopes);
            account.ended(NOT_RESUMED);
        }
    }

    /// How many are parked now, were gone on with, and were given up.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        (
            self.lots.lock().parked as u64,
            self.resumed.load(Ordering::Relaxed),
            self.expired.load(Ordering::Relaxed),
        )
    }
}

impl Lots {
    fn remove(&mut self, request: &Bytes, is_it: impl Fn(&Parked) -> bool) -> Option<Parked> {
        let lot = self.of.get_mut(request)?;
        let found = lot.iter().position(is_it)?;
        let parked = lot.remove(found);
        if lot.is_empty() {
            self.of.remove(request);
        }
        self.parked -= 1;
        Some(parked)
    }
}

/// A subscription that was parked.
pub(crate) struct Resumed {
    /// What arrived on it meanwhile.
    pub(crate) ahead: Ahead,
    /// `None`: it has ended behind that.
    pub(crate) source: Option<Box<dyn Envelopes>>,
}

impl Resumed {
    fn of(mut source: Box<dyn Envelopes>) -> Self {
        let mut ahead = Ahead::default();
        let mut cx = Context::from_waker(Waker::noop());
        let mut bytes = 0;
        while bytes < LOOK_AHEAD {
            match source.poll_next(&mut cx) {
                Poll::Ready(Some(Ok(batch))) => {
                    bytes += batch.len();
                    ahead.0.push_back(batch);
                }
                Poll::Ready(_) => {
                    return Self {
                        ahead,
                        source: None,
                    };
                }
                Poll::Pending => break,
            }
        }
        let source = Some(source);
        Self { ahead, source }
    }
}

/// Batches that come before what a subscription gives.
#[derive(Default)]
pub(crate) struct Ahead(VecDeque<Bytes>);

impl Ahead {
    /// How many envelopes.
    pub(crate) fn envelopes(&self) -> u64 {
        self.0.iter().map(envelopes_in).sum()
    }

    /// These, and then what the subscription gives.
    pub(crate) fn of(self, then: Box<dyn Envelopes>) -> Box<dyn Envelopes> {
        if self.0.is_empty() {
            return then;
        }
        Box::new(Chained { ahead: self, then })
    }
}

struct Chained {
    ahead: Ahead,
    then: Box<dyn Envelopes>,
}

impl Envelopes for Chained {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        match self.ahead.0.pop_front() {
            Some(batch) => Poll::Ready(Some(Ok(batch))),
            None => self.then.poll_next(cx),
        }
    }

    fn finish(&mut self, within: Duration) {
        self.then.finish(within);
    }

    fn close(self: Box<Self>) -> u64 {
        self.ahead.envelopes() + self.then.close()
    }
}
