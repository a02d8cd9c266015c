//! Frames to many dopplers: split by source id, buffered, sent as soon as a line is free.
//!
//! ```text
//! send(frame) ─ split by rendezvous hash, no decode ─► queue per doppler ─► worker ─► BatchSender stream
//! ```
//!
//! - `send` never waits. All queues together are bounded in bytes; when they are full, the fullest loses its oldest
//!   envelopes, and the loss is counted. So one doppler that hangs cannot take the room of the others.
//! - A source stays with its doppler. It moves when the doppler leaves the set or cannot be connected to; what waits for
//!   it then moves too, before anything newer. It moves back when the doppler is back.
//! - A message that its connection did not take is sent again, in order. What it took may be lost with the connection:
//!   the protocol has no acknowledgement. How much that can be at most is counted as `in_doubt`.

mod link;
mod queue;
mod report;
mod route;
mod state;

use std::sync::Arc;
use std::time::Duration;

use bytes::BufMut as _;
use loggregator_envelope::Frame;
use loggregator_proto::v2;
use parking_lot::Mutex;
use prost::Message as _;
use prost::encoding::{encode_varint, encoded_len_varint};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use report::{Counts, DropReason, LinkReport, PoolReport};

use crate::set::{DopplerSet, Peers};
use queue::BatchLimit;
use route::{SplitLimit, split};
use state::{Link, Phase, State, ring_if_due};

/// Dopplers that left whose counts are kept apart.
const MAX_FORMER: usize = 64;

/// How a [`DopplerPool`] buffers and sends.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// Bytes that may wait or be in flight, over all dopplers. Default 32 MiB.
    pub buffer_bytes: usize,
    /// Envelopes per message. Default 100.
    pub batch_envelopes: u32,
    /// Bytes per message, unless one envelope alone is bigger. Default 256 KiB.
    pub batch_bytes: usize,
    /// After a message was sent, how long the next one waits for more envelopes unless it is full. A message that comes
    /// after a longer pause leaves at once. Default 5 ms.
    pub linger: Duration,
    /// Largest envelope that is sent, bytes with its header. Default 10 MiB, what a doppler takes.
    pub max_envelope: usize,
    /// Streams per doppler; a source keeps to one of them. Default 1, which takes a frame without splitting it when
    /// there is one doppler.
    pub streams: usize,
    /// How many bytes a connection may hold on both sides together, see [`Counts::in_doubt`]. Default 1 MiB.
    pub in_doubt_bytes: usize,
}

impl Default for PoolSettings {
    fn default() -> PoolSettings {
        PoolSettings {
            buffer_bytes: 32 * 1024 * 1024,
            batch_envelopes: 100,
            batch_bytes: 256 * 1024,
            linger: Duration::from_millis(5),
            max_envelope: 10 * 1024 * 1024,
            streams: 1,
            in_doubt_bytes: 1024 * 1024,
        }
    }
}

impl PoolSettings {
    fn batch(&self) -> BatchLimit {
        BatchLimit {
            envelopes: self.batch_envelopes.max(1),
            bytes: self.batch_bytes.max(1),
        }
    }

    fn split(&self) -> SplitLimit {
        SplitLimit {
            batch: self.batch(),
            max_envelope: self.max_envelope,
        }
    }
}

/// Sends frames to the dopplers of a [`DopplerSet`]. Clones are the same pool. [`close`](DopplerPool::close) it when done:
/// when the last clone is dropped, what still waits is lost (and logged).
#[derive(Debug, Clone)]
pub struct DopplerPool {
    inner: Arc<Inner>,
    _last: Arc<Last>,
}

/// Stops the workers when nobody has the pool any more.
#[derive(Debug)]
struct Last(Arc<Inner>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.stop.cancel();
        let mut state = self.0.state.lock();
        let lost = state.pending();
        if lost > 0 {
            tracing::warn!(lost, "a pool was dropped before it was closed");
        }
        state.abandon();
    }
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// Rung when bytes were freed or a message was settled.
    freed: Notify,
    /// Workers end their streams.
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl DopplerPool {
    /// Begins to connect to the set's dopplers. Must be called within a tokio runtime. The tasks end with
    /// [`close`](DopplerPool::close), or with the last clone.
    #[must_use]
    pub fn new(set: &DopplerSet, settings: PoolSettings) -> DopplerPool {
        let inner = Arc::new(Inner {
            state: Mutex::new(State::new(settings)),
            freed: Notify::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let mut peers = set.watch();
        inner.follow(&peers.borrow_and_update().clone());
        let (following, set) = (Arc::clone(&inner), set.clone());
        inner.tasks.spawn(async move {
            while let Some(Ok(())) = following.stop.run_until_cancelled(peers.changed()).await {
                let now = peers.borrow_and_update().clone();
                following.follow(&now);
            }
            drop(set);
        });
        let _last = Arc::new(Last(Arc::clone(&inner)));
        DopplerPool { inner, _last }
    }

    /// Takes a frame. Never waits.
    pub fn send(&self, frame: &Frame) {
        if frame.is_empty() {
            return;
        }
        let (routing, limit) = {
            let state = self.inner.state.lock();
            (Arc::clone(&state.routing), state.split_limit())
        };
        let mut parts = split(frame, &routing, limit);
        let mut state = self.inner.state.lock();
        if state.routing.generation != routing.generation {
            parts = split(frame, &state.routing, limit);
        }
        state.accept(parts);
    }

    /// Takes a frame when at most half of the buffer is used; waits for that. For sources that can be asked later. Waits
    /// no longer when the pool is closed.
    pub async fn send_waiting(&self, frame: &Frame) {
        self.room(frame.bytes().len()).await;
        self.send(frame);
    }

    /// Waits until `bytes` more fit into half of the buffer, or the queues are empty, or the pool is closed.
    pub async fn room(&self, bytes: usize) {
        loop {
            let freed = self.inner.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            {
                let state = self.inner.state.lock();
                let fits =
                    state.bytes + bytes <= state.settings.buffer_bytes / 2 || state.bytes == 0;
                if fits || state.phase >= Phase::Closing {
                    return;
                }
            }
            freed.await;
        }
    }

    /// Takes one envelope, if the buffer has room for it. Encodes it straight into the queue.
    ///
    /// # Errors
    /// [`SendError`] when it does not fit; nothing is counted then.
    pub(crate) fn try_send_envelope(&self, envelope: &v2::Envelope) -> Result<(), SendError> {
        let body = envelope.encoded_len();
        let len = 1 + encoded_len_varint(body as u64) + body;
        let mut state = self.inner.state.lock();
        let (batch, settings) = (state.settings.batch(), &state.settings);
        if len > settings.max_envelope {
            return Err(SendError::TooLarge);
        }
        if state.phase >= Phase::Closing {
            return Err(SendError::Closed);
        }
        if state.bytes + len > settings.buffer_bytes {
            return Err(SendError::Full);
        }
        let id = state.routing.pick(envelope.source_id.as_bytes());
        let link = state.link(id);
        let before = link.queue.envelopes();
        link.counts.received += 1;
        link.queue.append(len, 1, batch, |out| {
            out.put_u8(0x0a);
            encode_varint(body as u64, out);
            envelope.encode_raw(out);
        });
        ring_if_due(link, before, u64::from(batch.envelopes));
        state.bytes += len;
        Ok(())
    }

    /// What the pool has done.
    #[must_use]
    pub fn report(&self) -> PoolReport {
        let state = self.inner.state.lock();
        PoolReport {
            links: state.links.values().map(Link::report).collect(),
            homeless: state.homeless.report(),
            former: state.former.iter().cloned().collect(),
            forgotten: state.forgotten.clone(),
        }
    }

    /// Sends what waits without lingering and waits until connections took it all; false when the time is up first.
    pub async fn flush(&self, within: Duration) -> bool {
        self.drain(Phase::Flushing, Instant::now() + within).await
    }

    /// Takes no more envelopes, sends what waits, ends the streams. What cannot be sent in time is dropped and counted.
    pub async fn close(&self, within: Duration) -> PoolReport {
        let deadline = Instant::now() + within;
        let flushed = self.drain(Phase::Closing, deadline).await;
        self.inner.stop.cancel();
        self.inner.tasks.close();
        // Even when the time is up, the workers get a moment to hand back what they hold.
        let last = deadline.max(Instant::now() + Duration::from_millis(100));
        let ended = tokio::time::timeout_at(last, self.inner.tasks.wait())
            .await
            .is_ok();
        self.inner.state.lock().abandon();
        let report = self.report();
        tracing::debug!(
            flushed,
            ended,
            pending = report.pending(),
            "the pool is closed"
        );
        report
    }

    async fn drain(&self, phase: Phase, deadline: Instant) -> bool {
        {
            let mut state = self.inner.state.lock();
            state.phase = state.phase.max(phase);
            state.links.values().for_each(|link| link.wake.notify_one());
        }
        self.inner.freed.notify_waiters();
        let empty = async {
            loop {
                let freed = self.inner.freed.notified();
                tokio::pin!(freed);
                freed.as_mut().enable();
                if self.inner.state.lock().pending() == 0 {
                    return;
                }
                freed.await;
            }
        };
        let empty = tokio::time::timeout_at(deadline, empty).await.is_ok();
        let mut state = self.inner.state.lock();
        if state.phase == Phase::Flushing {
            state.phase = Phase::Open;
        }
        empty
    }
}

/// Why one envelope was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendError {
    Full,
    TooLarge,
    Closed,
}

impl Inner {
    /// Takes note of who is in the set: links for newcomers, an end for leavers, a new routing.
    fn follow(self: &Arc<Self>, peers: &Peers) {
        let mut state = self.state.lock();
        for link in state.links.values_mut() {
            link.leaving |= link
                .peer
                .as_ref()
                .is_some_and(|peer| peer.left().is_cancelled());
        }
        for peer in peers.iter() {
            let same = |link: &Link| {
                link.peer
                    .as_ref()
                    .is_some_and(|other| Arc::ptr_eq(other, peer))
            };
            if state.links.values().any(same) {
                continue;
            }
            for lane in 0..state.settings.streams.max(1) as u64 {
                let id = state.next_link;
                state.next_link += 1;
                let link = Link::new(Some(Arc::clone(peer)), lane);
                self.tasks.spawn(link::run(
                    Arc::clone(self),
                    id,
                    Arc::clone(peer),
                    Arc::clone(&link.wake),
                ));
                state.links.insert(id, link);
            }
        }
        state.reroute();
    }

    /// The doppler answers, or does not.
    fn set_up(&self, id: route::LinkId, up: bool, error: Option<String>) {
        let mut state = self.state.lock();
        let Some(link) = state.links.get_mut(&id) else {
            return;
        };
        if error.is_some() {
            link.last_error = error;
        }
        if link.up == up {
            return;
        }
        let peer = link.peer.clone();
        for link in state.links.values_mut() {
            let same = link
                .peer
                .as_ref()
                .zip(peer.as_ref())
                .is_some_and(|(a, b)| Arc::ptr_eq(a, b));
            if same {
                link.up = up;
            }
        }
        state.reroute();
        drop(state);
        self.freed.notify_waiters();
    }
}
