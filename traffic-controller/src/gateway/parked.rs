//! Subscriptions between two responses of the same reader.
//!
//! A response ends after its time; the reader connects again and asks for the same. What the reverse log proxy has already
//! sent would be lost if its stream were cancelled with the response, so the stream is parked, unread, and the next
//! response goes on with it. Nobody comes: it is ended, and what it held is counted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use loggregator_proto::v2::EgressBatchRequest;
use loggregator_service::Lifecycle;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::oneshot;

use crate::access::Credentials;
use crate::accounts::{Accounts, Identity};
use crate::provider::Envelopes;

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
    /// Parks for `grace` at most, and at most `limit` at a time. A grace of zero parks nothing.
    pub(crate) fn new(
        grace: Duration,
        limit: usize,
        accounts: Arc<Accounts>,
        lifecycle: Lifecycle,
    ) -> Arc<Self> {
        Arc::new(Self {
            grace,
            limit,
            lots: Mutex::default(),
            accounts,
            lifecycle,
            resumed: AtomicU64::new(0),
            expired: AtomicU64::new(0),
        })
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
                parking.write_off(left.source, left.identity);
            }
        });
        Ok(())
    }

    /// The subscription that was parked longest at this place.
    pub(crate) fn resume(&self, place: &Place) -> Option<Box<dyn Envelopes>> {
        let found = self
            .lots
            .lock()
            .remove(&place.request, |parked| parked.place == *place)?;
        self.resumed.fetch_add(1, Ordering::Relaxed);
        Some(found.source)
    }

    /// Ends a subscription that nobody goes on with; what has arrived for it is lost and counted.
    fn write_off(&self, source: Box<dyn Envelopes>, identity: Identity) {
        let lost = source.close();
        if lost > 0 {
            let account = self.accounts.open(identity, false);
            account.received(lost);
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
