//! What all readers go through, wherever they come from: limits, the check of the request, the subscription.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use loggregator_net::grpc::{Code, Status};
use loggregator_proto::v2::EgressBatchRequest;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::accounts::{Accounts, Endpoint, Identity};
use crate::rlp::form::Tags;
use crate::rlp::reader::{Reader, Wants};
use crate::rlp::request::{checked, describe, shown};
use crate::upstream::Upstream;

/// A limit on how many there are at once.
#[derive(Debug)]
pub(crate) struct Gate {
    open: AtomicUsize,
    limit: usize,
}

/// One of them; gives its place back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Gate>);

impl Gate {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            limit,
        })
    }

    /// How many there are now, those being turned away included.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// `None` when all places are taken.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Place> {
        let place = Place(Arc::clone(self));
        let before = self.open.fetch_add(1, Ordering::AcqRel);
        (before < self.limit).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Who was turned away, by reason.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// Too many streams.
    pub(crate) streams: AtomicU64,
    /// Too many subscriptions.
    pub(crate) subscriptions: AtomicU64,
    /// The request selects nothing.
    pub(crate) selectors: AtomicU64,
    /// The request message was missing or did not decode.
    pub(crate) bad_request: AtomicU64,
}

/// Whose ledger a reader belongs to, and who it is there.
pub(crate) struct Caller<'a> {
    pub(crate) accounts: &'a Arc<Accounts>,
    pub(crate) endpoint: Endpoint,
    pub(crate) peer: String,
}

/// The reverse log proxy without its ports.
pub(crate) struct Proxy {
    pub(crate) upstream: Arc<dyn Upstream<EgressBatchRequest>>,
    pub(crate) streams: Arc<Gate>,
    pub(crate) subscriptions: Arc<Gate>,
    pub(crate) refusals: Refusals,
    /// Bytes of one message at most, unless a single envelope is bigger.
    pub(crate) budget: usize,
    /// Source id of notices about losses.
    pub(crate) source_id: Arc<str>,
    /// How long the dopplers may take to end a reader's stream.
    pub(crate) finish_within: Duration,
    pub(crate) stop: CancellationToken,
}

impl Proxy {
    /// Opens a stream. The order of the checks, the codes and the texts are those of the Go proxy; so a request that makes
    /// no sense counts against the limit while it is answered.
    ///
    /// # Errors
    /// The status with which the stream is to end at once.
    pub(crate) async fn open(
        &self,
        request: EgressBatchRequest,
        caller: Caller<'_>,
    ) -> Result<Reader, Status> {
        let stream = self.streams.enter().ok_or_else(|| {
            self.refusals.streams.fetch_add(1, Ordering::Relaxed);
            let text = format!(
                "unable to create stream, max egress streams reached: {}",
                self.streams.limit
            );
            Status::new(Code::ResourceExhausted, text)
        })?;
        let request = checked(request).inspect_err(|_| {
            self.refusals.selectors.fetch_add(1, Ordering::Relaxed);
        })?;
        let subscription = self.subscriptions.enter().ok_or_else(|| {
            self.refusals.subscriptions.fetch_add(1, Ordering::Relaxed);
            let limit = self.subscriptions.limit;
            warn!(peer = %caller.peer, "Unable to setup subscription: at connection limit: {limit}");
            Status::new(Code::Unknown, "unable to setup subscription")
        })?;
        let identity = Identity {
            id: shown(&request.shard_id),
            peer: caller.peer,
            selector: describe(&request.selectors),
            endpoint: caller.endpoint,
        };
        let wants = Wants {
            tags: Tags::of(request.use_preferred_tags),
            budget: self.budget,
            notices_from: Arc::clone(&self.source_id),
            finish_within: self.finish_within,
        };
        let batches = self.upstream.subscribe(request);
        let account = caller.accounts.open(identity, batches.is_shared());
        let places = [stream, subscription];
        let mut reader = Reader::new(batches, wants, account, self.stop.clone(), places);
        // A client that leaves meanwhile drops the reader, which books what had arrived.
        reader.opened().await;
        Ok(reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let gate = Gate::new(2);
        let (first, second) = (gate.enter().unwrap(), gate.enter().unwrap());
        assert!(gate.enter().is_none());
        assert_eq!(gate.open(), 2);
        drop(first);
        let third = gate.enter().unwrap();
        drop((second, third));
        assert_eq!(gate.open(), 0);
    }
}
