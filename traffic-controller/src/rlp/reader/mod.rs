//! One client's stream: batches from the dopplers' merged stream become messages when the client's line is free.
//!
//! Nothing queues here: what the client does not take is not read, so that it stays in the stream's window and then in the
//! doppler's log, which counts what falls out of it.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use loggregator_client::{Batch, Records, payloads};
use loggregator_net::grpc::{Message, MessageSource, Receipt, Status};
use smallvec::SmallVec;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::{info, warn};

use crate::accounts::Account;
use crate::rlp::form::{Part, Tags, form};
use crate::rlp::notice;
use crate::rlp::proxy::Place;
use crate::upstream::Batches;
use crate::websocket::records::Records as Whole;

/// Batches that one poll takes before it lets others run.
const STEPS_PER_POLL: usize = 64;

/// Parts below this many bytes are copied together; longer ones are shared slices of what was received. A short part costs
/// more as a slice of its own than as a copy.
const COPY_BELOW: usize = 1024;

/// Why a stream ended: the reason under which its undelivered envelopes are booked.
pub(crate) mod end {
    /// The client cancelled, or its connection broke, while the process ran.
    pub(crate) const CLIENT: &str = "disconnected";
    /// The dopplers' stream is over.
    pub(crate) const UPSTREAM: &str = "upstream_ended";
    /// The process stops.
    pub(crate) const STOPPED: &str = "shutdown";
    /// All of them.
    pub(crate) const ALL: [&str; 3] = [CLIENT, UPSTREAM, STOPPED];
}

/// The reason of envelopes that no client could read.
pub(crate) const MALFORMED: &str = "malformed_envelope";

/// What a client is to get.
pub(crate) struct Wants {
    pub(crate) tags: Tags,
    /// Bytes of one message at most, unless a single envelope is bigger.
    pub(crate) budget: usize,
    /// Source id of notices about losses.
    pub(crate) notices_from: Arc<str>,
    /// How long the dopplers may take to end its stream.
    pub(crate) finish_within: Duration,
}

/// The envelopes of one client, part by part. Dropping it ends the subscription.
pub(crate) struct Reader {
    /// Gone when the stream has ended.
    batches: Option<Box<dyn Batches>>,
    /// Taken from the dopplers, and next to go.
    parts: VecDeque<Part>,
    wants: Wants,
    account: Arc<Account>,
    stop: CancellationToken,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    /// The dopplers were asked for the end, for this reason.
    finishing: Option<&'static str>,
    /// A malformed batch was logged.
    warned: bool,
    _places: [Place; 2],
}

impl Reader {
    pub(crate) fn new(
        batches: Box<dyn Batches>,
        wants: Wants,
        account: Account,
        stop: CancellationToken,
        places: [Place; 2],
    ) -> Self {
        Self {
            batches: Some(batches),
            parts: VecDeque::new(),
            wants,
            account: Arc::new(account),
            stopped: Box::pin(stop.clone().cancelled_owned()),
            stop,
            finishing: None,
            warned: false,
            _places: places,
        }
    }

    /// Waits until the subscription stands at the dopplers, as far as its client should wait for that.
    pub(crate) async fn opened(&mut self) {
        std::future::poll_fn(|cx| match &mut self.batches {
            Some(batches) => batches.poll_open(cx),
            None => Poll::Ready(()),
        })
        .await;
    }

    /// The next part; `None` when there will be no more.
    pub(crate) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Part>> {
        for _ in 0..STEPS_PER_POLL {
            if let Some(part) = self.parts.pop_front() {
                return Poll::Ready(Some(part));
            }
            if self.finishing.is_none() && self.stopped.as_mut().poll(cx).is_ready() {
                self.finish(end::STOPPED);
            }
            let Some(batches) = &mut self.batches else {
                return Poll::Ready(None);
            };
            let polled = batches.poll_batch(cx);
            let missed = batches.take_missed();
            if missed > 0 {
                self.missed(missed);
            }
            match polled {
                Poll::Ready(Some(batch)) => self.take(&batch),
                Poll::Pending if missed > 0 => {}
                Poll::Ready(None) => self.end(self.finishing.unwrap_or(end::UPSTREAM)),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The stream is to end: the dopplers give nothing new, and what is under way from them still comes.
    pub(crate) fn finish(&mut self, why: &'static str) {
        if let Some(batches) = &mut self.batches
            && self.finishing.is_none()
        {
            self.finishing = Some(why);
            batches.finish(self.wants.finish_within);
        }
    }

    /// A part that was asked for and does not fit any more.
    fn put_back(&mut self, part: Part) {
        self.parts.push_front(part);
    }

    /// What tells this client's account that these went out.
    pub(crate) fn receipt(&self, envelopes: u64, bytes: u64) -> Delivered {
        Delivered {
            account: Arc::clone(&self.account),
            envelopes,
            bytes,
        }
    }

    fn take(&mut self, batch: &Batch) {
        let before = self.parts.len();
        match form(
            &batch.bytes,
            self.wants.tags,
            self.wants.budget,
            &mut self.parts,
        ) {
            Ok(formed) => {
                let all = formed.envelopes + formed.malformed;
                self.account.received_from(&batch.doppler, all);
                if formed.malformed > 0 {
                    self.account.lost(MALFORMED, formed.malformed);
                    self.warn(batch, &"malformed envelopes were left out");
                }
            }
            Err(error) => {
                // As many as the shared subscription counts, and as the traffic controller would.
                let mut records = Whole::default();
                let whole = records.load(batch.bytes.clone());
                let whole = whole.unwrap_or_else(|_| records.remaining()) as u64;
                let formed: u64 = self.parts.range(before..).map(|part| part.envelopes).sum();
                self.account
                    .received_from(&batch.doppler, whole.max(formed));
                self.account.lost(MALFORMED, whole.saturating_sub(formed));
                self.account.malformed_batch();
                self.warn(batch, &error);
            }
        }
    }

    /// Others who read the same subscription have long had these.
    fn missed(&mut self, envelopes: u64) {
        self.account.missed(envelopes);
        let Wants {
            notices_from, tags, ..
        } = &self.wants;
        self.parts
            .push_back(notice::dropped(notices_from, envelopes, *tags));
    }

    /// Says it once per stream; the counters have the rest.
    fn warn(&mut self, batch: &Batch, what: &dyn std::fmt::Display) {
        if !self.warned {
            self.warned = true;
            warn!(doppler = %batch.doppler, %what, "a batch is not well-formed");
        }
    }

    /// No more is read. What was taken still goes out.
    fn end(&mut self, why: &'static str) {
        let Some(batches) = self.batches.take() else {
            return;
        };
        self.account.unread(batches.close());
        self.account.ended(why);
        let peer = &self.account.identity().peer;
        match why {
            end::UPSTREAM => info!(%peer, "Subscribe error: the dopplers' stream ended"),
            _ => info!(%peer, "Subscribe error: context canceled"),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // After a stop nobody can tell a client that left from one that was cut.
        self.end(if self.stop.is_cancelled() {
            end::STOPPED
        } else {
            end::CLIENT
        });
    }
}

/// Books envelopes as delivered.
pub(crate) struct Delivered {
    account: Arc<Account>,
    envelopes: u64,
    bytes: u64,
}

impl Receipt for Delivered {
    fn settle(self: Box<Self>, delivered: bool) {
        if delivered {
            self.account.delivered(self.envelopes, self.bytes);
        }
    }
}

/// A stream of batches: what has gathered while the line was busy goes as one message, up to the budget.
pub(crate) struct Joined(pub(crate) Reader);

impl MessageSource for Joined {
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Status>>> {
        let Some(first) = ready!(self.0.poll_part(cx)) else {
            return Poll::Ready(None);
        };
        let budget = self.0.wants.budget;
        let mut joined = Join::default();
        joined.add(first);
        while joined.bytes < budget {
            match self.0.poll_part(cx) {
                Poll::Ready(Some(part)) if joined.bytes + part.bytes.len() <= budget => {
                    joined.add(part);
                }
                Poll::Ready(Some(part)) => {
                    self.0.put_back(part);
                    break;
                }
                // The end is told again.
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        let (chunks, envelopes, bytes) = joined.finish();
        let receipt = self.0.receipt(envelopes, bytes as u64);
        let message = Message::new(chunks).with_receipt(Box::new(receipt));
        Poll::Ready(Some(Ok(message)))
    }

    /// The dopplers are asked in turn.
    fn finish(&mut self) -> bool {
        self.0.finish(end::CLIENT);
        true
    }

    /// The reader ends when the process stops and nothing is left.
    fn drains_itself(&self) -> bool {
        true
    }
}

/// A message in the making.
#[derive(Default)]
struct Join {
    chunks: SmallVec<[Bytes; 8]>,
    small: BytesMut,
    bytes: usize,
    envelopes: u64,
}

impl Join {
    fn add(&mut self, part: Part) {
        self.bytes += part.bytes.len();
        self.envelopes += part.envelopes;
        if part.bytes.len() < COPY_BELOW && self.bytes > part.bytes.len() {
            self.small.extend_from_slice(&part.bytes);
        } else {
            self.flush();
            self.chunks.push(part.bytes);
        }
    }

    fn flush(&mut self) {
        if !self.small.is_empty() {
            self.chunks.push(self.small.split().freeze());
        }
    }

    fn finish(mut self) -> (SmallVec<[Bytes; 8]>, u64, usize) {
        self.flush();
        (self.chunks, self.envelopes, self.bytes)
    }
}

/// A stream of single envelopes.
pub(crate) struct Singly {
    reader: Reader,
    rest: Records,
    /// What each of `rest` counts for: a notice was not received and is not delivered.
    counts: u64,
}

impl Singly {
    pub(crate) fn new(reader: Reader) -> Self {
        Self {
            reader,
            rest: payloads(&Bytes::new()),
            counts: 0,
        }
    }
}

impl MessageSource for Singly {
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Status>>> {
        loop {
            if let Some(envelope) = self.rest.next() {
                let receipt = self.reader.receipt(self.counts, envelope.len() as u64);
                let message = Message::from(envelope).with_receipt(Box::new(receipt));
                return Poll::Ready(Some(Ok(message)));
            }
            let Some(part) = ready!(self.reader.poll_part(cx)) else {
                return Poll::Ready(None);
            };
            self.counts = u64::from(part.envelopes > 0);
            self.rest = payloads(&part.bytes);
        }
    }

    /// As [`Joined`].
    fn finish(&mut self) -> bool {
        self.reader.finish(end::CLIENT);
        true
    }

    /// As [`Joined`].
    fn drains_itself(&self) -> bool {
        true
    }
}
