//! Subscriptions: v2 by selectors, v1 by shard and filter.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use loggregator_proto::plumbing::SubscriptionRequest;
use loggregator_proto::rpc;
use loggregator_proto::v2::EgressBatchRequest;
use prost::Message as _;

use crate::merge::{Batch, Merge, Records, Retry, StreamStats, Unread, records};
use crate::set::DopplerSet;

/// A v2 subscription (`Egress/BatchedReceiver`) at every server of a [`DopplerSet`], merged.
///
/// It survives any of them leaving, failing and coming back, and never ends by itself. Reading slowly holds nobody up:
/// what is not read stays at the doppler, which counts what it must drop.
pub struct EgressStream {
    merge: Merge,
}

impl EgressStream {
    /// Subscribes, with the default [`Retry`]. Must be called within a tokio runtime; calls are made as the stream is
    /// polled.
    #[must_use]
    pub fn open(set: &DopplerSet, request: impl Into<EgressBatchRequest>) -> EgressStream {
        EgressStream::with_retry(set, request, Retry::default())
    }

    /// Subscribes and retries like this.
    #[must_use]
    pub fn with_retry(
        set: &DopplerSet,
        request: impl Into<EgressBatchRequest>,
        retry: Retry,
    ) -> EgressStream {
        let request = request.into().encode_to_vec().into();
        EgressStream {
            merge: Merge::new(set, rpc::EGRESS_BATCHED_RECEIVER, None, request, retry),
        }
    }

    /// The next batch: the bytes of an `EnvelopeBatch`, never decoded. `None` when the set is gone. May be cancelled.
    pub async fn next(&mut self) -> Option<Batch> {
        self.merge.next().await
    }

    /// As [`next`](EgressStream::next), for a poll function.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Batch>> {
        self.merge.poll_next(cx)
    }

    /// Waits until `count` servers are subscribed at (all, if there are fewer). What arrives meanwhile is kept.
    pub async fn opened(&mut self, count: usize) {
        std::future::poll_fn(|cx| self.merge.poll_open(count, cx)).await;
    }

    /// Waits until `count` of them (all, if there are fewer) have answered: their subscriptions stand, and nothing that they
    /// take in from now on is missed. Servers that answer with their first message only, as the Go router does, are waited
    /// for until then, so put a limit to it.
    pub async fn answered(&mut self, count: usize) {
        std::future::poll_fn(|cx| self.merge.poll_answered(count, cx)).await;
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> StreamStats {
        self.merge.stats()
    }

    /// Servers at which the subscription stands: [`StreamStats::open`] alone.
    #[must_use]
    pub fn open_calls(&self) -> usize {
        self.merge.open_calls()
    }

    /// Calls that ended and were or will be made again: [`StreamStats::reconnects`] alone.
    #[must_use]
    pub fn reconnects(&self) -> u64 {
        self.merge.reconnects()
    }

    /// Ends the subscription without losing what is under way: every server is asked to end its stream behind what it has
    /// sent. Read on until the end (`None`), which comes after this time at the latest. Servers that do not know how, such as the
    /// Go ones, are read as far as their answer. [`close`](EgressStream::close) instead leaves at once.
    pub fn finish(&mut self, within: Duration) {
        self.merge.finish(within);
    }

    /// Ends the subscription and counts what had arrived unread.
    pub fn close(self) -> Unread {
        self.merge.close()
    }
}

/// A v1 subscription (`Doppler/BatchSubscribe`, or `Subscribe` where the doppler knows only that) at every doppler of a
/// [`DopplerSet`], merged. Apart from the protocol, as [`EgressStream`].
pub struct V1Stream {
    merge: Merge,
}

impl V1Stream {
    /// Subscribes, with the default [`Retry`]. Must be called within a tokio runtime; calls are made as the stream is
    /// polled.
    #[must_use]
    pub fn open(set: &DopplerSet, request: &SubscriptionRequest) -> V1Stream {
        V1Stream::with_retry(set, request, Retry::default())
    }

    /// Subscribes and retries like this.
    #[must_use]
    pub fn with_retry(set: &DopplerSet, request: &SubscriptionRequest, retry: Retry) -> V1Stream {
        let request = request.encode_to_vec().into();
        // A `Response` has the form of a `BatchResponse` of one payload, so the fallback needs no translation.
        let fallback = Some(rpc::DOPPLER_SUBSCRIBE);
        V1Stream {
            merge: Merge::new(set, rpc::DOPPLER_BATCH_SUBSCRIBE, fallback, request, retry),
        }
    }

    /// The next batch: the bytes of a `BatchResponse`, see [`payloads`]. `None` when the set is gone. May be cancelled.
    pub async fn next(&mut self) -> Option<Batch> {
        self.merge.next().await
    }

    /// As [`next`](V1Stream::next), for a poll function.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Batch>> {
        self.merge.poll_next(cx)
    }

    /// Waits until `count` dopplers are subscribed at (all, if there are fewer). What arrives meanwhile is kept.
    pub async fn opened(&mut self, count: usize) {
        std::future::poll_fn(|cx| self.merge.poll_open(count, cx)).await;
    }

    /// Waits until `count` of them (all, if there are fewer) have answered: their subscriptions stand, and nothing that they
    /// take in from now on is missed. Servers that answer with their first message only, as the Go router does, are waited
    /// for until then, so put a limit to it.
    pub async fn answered(&mut self, count: usize) {
        std::future::poll_fn(|cx| self.merge.poll_answered(count, cx)).await;
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> StreamStats {
        self.merge.stats()
    }

    /// Ends the subscription without losing what is under way: every doppler is asked to end its stream behind what it has
    /// sent. Read on until the end (`None`), which comes after this time at the latest. Servers that do not know how, such as the
    /// Go ones, are read as far as their answer. [`close`](V1Stream::close) instead leaves at once.
    pub fn finish(&mut self, within: Duration) {
        self.merge.finish(within);
    }

    /// Ends the subscription and counts what had arrived unread.
    pub fn close(self) -> Unread {
        self.merge.close()
    }
}

/// The serialised v1 envelopes of a `BatchResponse`, as shared slices of it.
#[must_use]
pub fn payloads(batch: &Bytes) -> Records {
    records(batch)
}

impl std::fmt::Debug for EgressStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EgressStream")
            .field("stats", &self.stats())
            .finish()
    }
}

impl std::fmt::Debug for V1Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("V1Stream")
            .field("stats", &self.stats())
            .finish()
    }
}
