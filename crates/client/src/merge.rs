//! One server stream per doppler, merged into one: the common part of all subscriptions.
//!
//! There is no queue and no task in between. The merged stream polls the calls of the dopplers in turn; while nobody
//! polls it, nothing is read, the HTTP/2 windows of its calls fill up, and the dopplers see a slow reader and count what
//! they drop for it. What is buffered on this side is therefore bounded by the stream window per doppler
//! ([`ClientSettings::stream_window`](loggregator_net::grpc::ClientSettings)). Neighbours on the same connection are not
//! held up, because the connection window is the sum of all stream windows.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use loggregator_envelope::{Frame, ScanError};
use loggregator_net::grpc::{Code, Messages, Status};
use loggregator_proto::rpc;
use tokio::sync::watch;
use tokio::time::Sleep;

use crate::set::{DopplerSet, Peer, Peers};

/// How a subscription behaves when a doppler fails it.
#[derive(Debug, Clone)]
pub struct Retry {
    /// How long to wait before subscribing again after the first, second, … failure in a row; the last one is for all
    /// further failures. Each is varied by ±20 %. This is for calls that fail on a connection that stands; connections
    /// have their own backoff.
    pub ladder: Vec<Duration>,
    /// A call that lived for so long, or delivered something, starts the ladder again.
    pub healthy_after: Duration,
}

impl Default for Retry {
    /// 1 ms, 10 ms, 100 ms, 1 s, 5 s; healthy after 10 s.
    fn default() -> Retry {
        let ladder = [1, 10, 100, 1000, 5000].map(Duration::from_millis).to_vec();
        Retry {
            ladder,
            healthy_after: Duration::from_secs(10),
        }
    }
}

/// What a merged stream has seen so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamStats {
    /// Messages received, of all dopplers.
    pub batches: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Dopplers in the set now.
    pub dopplers: usize,
    /// Dopplers whose call is open now.
    pub open: usize,
    /// Calls that ended and were or will be made again.
    pub reconnects: u64,
    /// How the latest of them ended.
    pub last_error: Option<String>,
}

/// What was received and never read, told when a stream is closed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unread {
    /// Messages.
    pub batches: u64,
    /// Records (envelopes) in them.
    pub envelopes: u64,
    /// Bytes of the messages.
    pub bytes: u64,
}

/// A message and where it came from.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The message as it was received.
    pub bytes: Bytes,
    /// Address of the doppler.
    pub doppler: Arc<str>,
}

impl Batch {
    /// The batch of a v2 subscription, with an index of its envelopes.
    ///
    /// # Errors
    /// When the bytes are no `EnvelopeBatch`. Malformed envelopes in it are left out.
    pub fn frame(&self) -> Result<Frame, ScanError> {
        Frame::parse(self.bytes.clone()).map(|parsed| parsed.frame)
    }
}

type Opening = Pin<Box<dyn Future<Output = Result<Messages, Failure>> + Send>>;
type SetChange = Pin<Box<dyn Future<Output = Option<watch::Receiver<Peers>>> + Send>>;

/// Why a call could not be made.
enum Failure {
    /// There is no connection. The channel waits by itself before it tries again, so that this needs no waiting of ours.
    Connect(Status),
    Call(Status),
}

enum State {
    Opening(Opening),
    Open(Box<Messages>),
    Waiting(Pin<Box<Sleep>>),
}

struct Call {
    peer: Arc<Peer>,
    path: &'static str,
    state: State,
    opened: Instant,
    /// Failures since the last healthy call.
    failures: usize,
}

/// The merged stream. Never ends by itself as long as the set exists, unless it was asked to finish.
pub(crate) struct Merge {
    request: Bytes,
    path: &'static str,
    /// Used with a doppler that does not know `path`.
    fallback: Option<&'static str>,
    retry: Retry,
    /// Kept alive for its task.
    set: DopplerSet,
    change: SetChange,
    calls: Vec<Call>,
    /// Whose turn it is.
    turn: usize,
    /// No call is made any more.
    finishing: bool,
    batches: u64,
    bytes: u64,
    reconnects: u64,
    last_error: Option<Status>,
}

impl Merge {
    pub(crate) fn new(
        set: &DopplerSet,
        path: &'static str,
        fallback: Option<&'static str>,
        request: Bytes,
        retry: Retry,
    ) -> Merge {
        let mut peers = set.watch();
        let first = peers.borrow_and_update().clone();
        let mut merge = Merge {
            request,
            path,
            fallback,
            retry,
            set: set.clone(),
            change: next_change(peers),
            calls: Vec::new(),
            turn: 0,
            finishing: false,
            batches: 0,
            bytes: 0,
            reconnects: 0,
            last_error: None,
        };
        merge.follow(&first);
        merge
    }

    pub(crate) fn stats(&self) -> StreamStats {
        StreamStats {
            batches: self.batches,
            bytes: self.bytes,
            dopplers: self.set.peers().len(),
            open: self.open_calls(),
            reconnects: self.reconnects,
            last_error: self.last_error.as_ref().map(Status::to_string),
        }
    }

    pub(crate) fn open_calls(&self) -> usize {
        let open = |call: &&Call| matches!(call.state, State::Open(_));
        self.calls.iter().filter(open).count()
    }

    pub(crate) fn reconnects(&self) -> u64 {
        self.reconnects
    }

    /// The next message of any doppler.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Batch>> {
        if !self.poll_set(cx) || self.finishing && self.calls.is_empty() {
            return Poll::Ready(None);
        }
        let mut i = 0;
        while i < self.calls.len() {
            let at = (self.turn + i) % self.calls.len();
            match self.poll_call(at, cx) {
                Poll::Ready(Some(bytes)) => {
                    self.turn = at + 1;
                    self.batches += 1;
                    self.bytes += bytes.len() as u64;
                    return Poll::Ready(Some(Batch {
                        bytes,
                        doppler: Arc::clone(self.calls[at].peer.addr()),
                    }));
                }
                Poll::Ready(None) => {
                    // It left the set and its last call has ended. The others move up; look at all of them again.
                    self.calls.remove(at);
                    i = 0;
                }
                Poll::Pending => i += 1,
            }
        }
        if self.finishing && self.calls.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Pending
    }

    /// Has every doppler end its call behind what it has sent; [`poll_next`](Merge::poll_next) gives what is under way, and
    /// then the end, after this time at the latest.
    pub(crate) fn finish(&mut self, within: Duration) {
        if std::mem::replace(&mut self.finishing, true) {
            return;
        }
        self.calls.retain_mut(|call| match &mut call.state {
            State::Open(messages) => {
                messages.finish(within);
                true
            }
            State::Opening(_) | State::Waiting(_) => false,
        });
    }

    /// As [`poll_next`](Merge::poll_next), for a caller that has a moment to await it.
    pub(crate) async fn next(&mut self) -> Option<Batch> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Waits until the calls to `count` dopplers are open, or to all if there are fewer. A message that arrives while
    /// waiting stays where it is.
    pub(crate) fn poll_open(&mut self, count: usize, cx: &mut Context<'_>) -> Poll<()> {
        if !self.poll_set(cx) {
            return Poll::Ready(());
        }
        let mut at = 0;
        while at < self.calls.len() {
            if matches!(self.calls[at].state, State::Open(_)) {
                at += 1;
                continue;
            }
            match self.step(at, cx) {
                Poll::Pending => at += 1,
                Poll::Ready(None) => {}
                // It left the set before its call was open. The others move up.
                Poll::Ready(Some(_)) => drop(self.calls.remove(at)),
            }
        }
        let open = self
            .calls
            .iter()
            .filter(|call| matches!(call.state, State::Open(_)))
            .count();
        if open >= count.min(self.calls.len()).max(1) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Waits until `count` dopplers (all, if there are fewer) have answered their call: then the subscriptions stand there,
    /// and nothing that they take in from now on is missed. A doppler that holds its answer back until the first message,
    /// as the Go router does, is waited for until then.
    pub(crate) fn poll_answered(&mut self, count: usize, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_open(count, cx));
        let mut answered = 0;
        for at in 0..self.calls.len() {
            let State::Open(messages) = &mut self.calls[at].state else {
                continue;
            };
            let answer = pin!(messages.opened()).poll(cx);
            match answer {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => answered += 1,
                Poll::Ready(Err(status)) => {
                    self.again(at, Failure::Call(status));
                    // It waits now; the next poll sees to that.
                    cx.waker().wake_by_ref();
                }
            }
        }
        if answered >= count.min(self.calls.len()).max(1) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Counts and throws away what has arrived and was not read.
    pub(crate) fn close(mut self) -> Unread {
        let mut unread = Unread::default();
        for call in &mut self.calls {
            if let State::Open(messages) = &mut call.state {
                while let Some(Ok(bytes)) = messages.try_next_buffered() {
                    unread.batches += 1;
                    unread.envelopes += records(&bytes).count() as u64;
                    unread.bytes += bytes.len() as u64;
                }
            }
        }
        unread
    }

    /// Takes note of changes of the set; false when the set is gone.
    fn poll_set(&mut self, cx: &mut Context<'_>) -> bool {
        while let Poll::Ready(change) = self.change.as_mut().poll(cx) {
            let Some(mut peers) = change else {
                return false;
            };
            let now = peers.borrow_and_update().clone();
            self.change = next_change(peers);
            self.follow(&now);
        }
        true
    }

    fn follow(&mut self, peers: &Peers) {
        if self.finishing {
            return;
        }
        for peer in peers.iter() {
            if !self.calls.iter().any(|call| Arc::ptr_eq(&call.peer, peer)) {
                let opening = open(peer, self.path, &self.request);
                self.calls.push(Call {
                    peer: Arc::clone(peer),
                    path: self.path,
                    state: State::Opening(opening),
                    opened: Instant::now(),
                    failures: 0,
                });
            }
        }
        // A doppler that left is read until its call ends, but not called again.
        self.calls.retain(|call| {
            !call.peer.left().is_cancelled() || matches!(call.state, State::Open(_))
        });
    }

    /// Ready with `None`: this doppler is done for good.
    fn poll_call(&mut self, at: usize, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(result) = ready!(self.step(at, cx)) {
                match result {
                    Ok(bytes) => return Poll::Ready(Some(bytes)),
                    Err(()) => return Poll::Ready(None),
                }
            }
        }
    }

    /// Moves one call one state on. Ready with `None` when the state changed.
    fn step(&mut self, at: usize, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ()>>> {
        let call = &mut self.calls[at];
        let ended = match &mut call.state {
            State::Waiting(sleep) => {
                ready!(sleep.as_mut().poll(cx));
                call.state = State::Opening(open(&call.peer, call.path, &self.request));
                return Poll::Ready(None);
            }
            State::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                Ok(messages) => {
                    call.opened = Instant::now();
                    call.state = State::Open(Box::new(messages));
                    return Poll::Ready(None);
                }
                Err(failure) => failure,
            },
            State::Open(messages) => match ready!(messages.poll_next(cx)) {
                Some(Ok(bytes)) => {
                    call.failures = 0;
                    return Poll::Ready(Some(Ok(bytes)));
                }
                Some(Err(status)) => Failure::Call(status),
                None => Failure::Call(Status::ok()),
            },
        };
        if self.finishing || call.peer.left().is_cancelled() {
            return Poll::Ready(Some(Err(())));
        }
        self.again(at, ended);
        Poll::Ready(None)
    }

    /// A call has ended, or could not be made: it waits and is made again.
    fn again(&mut self, at: usize, failure: Failure) {
        let call = &mut self.calls[at];
        let step = |i: usize| {
            self.retry
                .ladder
                .get(i.min(self.retry.ladder.len().saturating_sub(1)))
        };
        let (ended, delay) = match failure {
            Failure::Connect(status) => (status, step(0)),
            Failure::Call(status) => match self.fallback {
                Some(fallback) if status.code == Code::Unimplemented && call.path != fallback => {
                    call.path = fallback;
                    (status, None)
                }
                _ => {
                    let healthy = call.opened.elapsed() >= self.retry.healthy_after;
                    if healthy && matches!(call.state, State::Open(_)) {
                        call.failures = 0;
                    }
                    call.failures += 1;
                    (status, step(call.failures - 1))
                }
            },
        };
        self.tell(at, &ended);
        let call = &mut self.calls[at];
        let delay = delay
            .copied()
            .unwrap_or_default()
            .mul_f64(0.8 + 0.4 * fastrand::f64());
        tracing::debug!(doppler = %call.peer.addr(), status = %ended, ?delay, "the call ended; it is made again");
        call.state = State::Waiting(Box::pin(tokio::time::sleep(delay)));
        self.reconnects += 1;
        self.last_error = Some(ended);
    }
}

impl Merge {
    /// Logs how a call ended in the words of the Go programs, which operators search for.
    fn tell(&self, at: usize, ended: &Status) {
        let call = &self.calls[at];
        if self.path == rpc::EGRESS_BATCHED_RECEIVER {
            return tell_v2(call, ended);
        }
        let other_call = ended.code == Code::Unimplemented && self.fallback == Some(call.path);
        if matches!(call.state, State::Open(_)) {
            // A doppler that stops is nothing to be told of.
            if !other_call && !matches!(ended.code, Code::Ok | Code::Cancelled) {
                tracing::warn!("error getting logs from provider: {}", ended.go());
            }
        } else {
            let addr = call.peer.addr();
            tracing::warn!("Unable to connect to doppler ({addr}): {}", ended.go());
        }
    }
}

/// The words of the Go reverse log proxy, which is silent about calls that could not be made.
fn tell_v2(call: &Call, ended: &Status) {
    let addr = call.peer.addr();
    match (&call.state, ended.code) {
        (State::Open(_), Code::Cancelled) => {}
        (State::Open(_), Code::Ok) => {
            tracing::warn!("Error while reading from stream ({addr}): EOF");
        }
        (State::Open(_), _) => {
            let ended = ended.go();
            tracing::warn!("Error while reading from stream ({addr}): {ended}");
        }
        _ => {}
    }
}

fn open(peer: &Arc<Peer>, path: &'static str, request: &Bytes) -> Opening {
    let (channel, request) = (peer.channel().clone(), request.clone());
    Box::pin(async move {
        channel.ready().await.map_err(Failure::Connect)?;
        channel
            .server_stream(path, request)
            .await
            .map_err(Failure::Call)
    })
}

fn next_change(mut peers: watch::Receiver<Peers>) -> SetChange {
    Box::pin(async move { peers.changed().await.ok().map(|()| peers) })
}

/// The payloads of repeated length-delimited records of field 1: how `EnvelopeBatch`, `BatchResponse` and `Response` all
/// look. Ends early where the bytes break that form.
pub(crate) fn records(bytes: &Bytes) -> Records {
    Records {
        bytes: bytes.clone(),
    }
}

/// See [`records`].
#[derive(Debug, Clone)]
pub struct Records {
    bytes: Bytes,
}

impl Iterator for Records {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.bytes.first() != Some(&0x0a) {
            return None;
        }
        let mut rest = self.bytes.slice(1..);
        let len = prost::encoding::decode_varint(&mut rest)
            .ok()
            .and_then(|len| usize::try_from(len).ok())?;
        if len > rest.len() {
            self.bytes.clear();
            return None;
        }
        let record = rest.split_to(len);
        self.bytes = rest;
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::set::{Connector, DOPPLER};
    use loggregator_proto::plumbing::{BatchResponse, Response};
    use prost::Message as _;

    /// The set tells its peers that they left before it tells the streams.
    #[tokio::test]
    async fn a_doppler_that_leaves_while_it_cannot_be_reached_is_let_go() {
        let connector = Connector::new(DOPPLER, None);
        let set = DopplerSet::fixed(["127.0.0.1:1".to_owned()], connector);
        let retry = Retry {
            ladder: Vec::new(),
            healthy_after: Duration::ZERO,
        };
        let mut merge = Merge::new(
            &set,
            rpc::DOPPLER_BATCH_SUBSCRIBE,
            None,
            Bytes::new(),
            retry,
        );
        set.peers()[0].left().cancel();
        let gone = std::future::poll_fn(|cx| {
            for _ in 0..2 {
                assert!(merge.poll_open(1, cx).is_pending());
            }
            if merge.calls.is_empty() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        tokio::time::timeout(Duration::from_secs(20), gone)
            .await
            .expect("it is let go");
    }

    #[test]
    fn records_of_batches_and_of_single_responses() {
        let batch = BatchResponse {
            payload: vec![
                Bytes::from_static(b"a"),
                Bytes::new(),
                Bytes::from(vec![7; 300]),
            ],
        };
        let found: Vec<Bytes> = records(&batch.encode_to_vec().into()).collect();
        assert_eq!(found, batch.payload);
        let one = Response {
            payload: Bytes::from_static(b"one"),
        };
        assert_eq!(
            records(&one.encode_to_vec().into()).collect::<Vec<_>>(),
            [one.payload]
        );
        for broken in [
            b"\x0a\x05ab".as_ref(),
            b"\x12\x00",
            b"\x0a",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert_eq!(records(&Bytes::copy_from_slice(broken)).count(), 0);
        }
    }
}
