//! One client: envelopes from the dopplers' merged stream into its WebSocket.
//!
//! A relay is a single future that is polled whenever its client, its dopplers or its clock have something to say; it
//! owns no thread, no queue and no timer beyond one. A batch is taken from the dopplers only when the previous one went to
//! the connection, so a client that does not read holds a bounded number of bytes here and costs nobody else anything.
//! A payload is copied once, into a frame; everything that is at hand goes out in one flush.

mod end;
mod keepalive;
mod line;
mod outbox;
mod tally;
#[cfg(test)]
mod tests;
mod timing;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use loggregator_client::Batch;
use loggregator_envelope::Notice;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{Error as WsError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};
use tracing::warn;

use crate::accounts::Account;
use crate::upstream::Batches;
use crate::websocket::records::Records;
use crate::websocket::subscribed::Subscribed;
pub(crate) use end::End;
use keepalive::{Duty, KeepAlive};
pub(crate) use line::{ClientLine, Line};
use outbox::Outbox;
use tally::Tally;
pub use timing::Timing;

/// Steps that one poll takes before it lets others run.
const STEPS_PER_POLL: usize = 32;

/// Bytes that may be unflushed before no further batch is taken.
const FLUSH_AT: u64 = 256 << 10;

/// Resolves when the stream has to end for a reason that lies neither with the client nor with the dopplers.
pub(crate) type Over = Pin<Box<dyn Future<Output = End> + Send>>;

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Envelopes flow.
    Relaying,
    /// The process stops: the dopplers were asked for the end of their streams, and what is under way from them still flows,
    /// until `by`.
    Draining { by: Instant },
    /// No new envelopes; what was received goes out until `by`, then the close frame.
    Finishing { why: End, by: Instant },
    /// The close frame of either side was sent or queued; the rest of the handshake may take until `by`.
    Closing { why: End, by: Instant },
}

/// The state of the write side after a turn.
enum Turn {
    /// Nothing to write.
    Idle,
    /// The connection takes no more for now.
    Blocked,
    /// There is more to do at once.
    More,
}

/// What the clock says.
enum Clock {
    /// Something was due and done.
    Changed,
    /// Nothing is due before this time.
    WakeAt(Instant),
}

/// What was taken from the dopplers and is not loaded yet.
struct Left {
    /// Envelopes that others who read the same were too fast for, before the batch.
    missed: u64,
    batch: Batch,
}

/// One client's relay; see the module's text. Dropping it, at whatever point, books what became of every envelope.
pub(crate) struct Relay<L: Line> {
    socket: WebSocketStream<Outbox<L>>,
    /// Whether the socket can still be read; after an error or the end it cannot.
    readable: bool,
    /// The client's close frame came.
    peer_closed: bool,
    /// The closing handshake is complete.
    clean: bool,
    batches: Option<Box<dyn Batches>>,
    /// What was taken and comes next: a batch behind a notice.
    left: Option<Left>,
    records: Records,
    /// A malformed batch was logged.
    warned: bool,
    tally: Tally,
    /// Something was given to the socket and not flushed.
    dirty: bool,
    /// Since when, and at which count of bytes, the connection takes nothing.
    stall: Option<(Instant, u64)>,
    keep_alive: KeepAlive,
    alarm: Pin<Box<Sleep>>,
    over: Over,
    phase: Phase,
    timing: Timing,
    on_slow: Option<Box<dyn FnOnce() + Send>>,
    // The last field: it closes the account when everything else is settled.
    account: Arc<Account>,
}

impl<L: Line> Relay<L> {
    /// Takes over an upgraded connection and what the client sent early.
    pub(crate) async fn new(
        line: L,
        early: Bytes,
        subscribed: Subscribed,
        timing: Timing,
        over: Over,
        on_slow: Box<dyn FnOnce() + Send>,
    ) -> Self {
        // The WebSocket itself writes control frames only, and keeps none: the outbox collects.
        let config = WebSocketConfig::default()
            .read_buffer_size(1024)
            .write_buffer_size(0)
            .max_write_buffer_size(4096)
            .max_message_size(Some(timing.max_client_message))
            .max_frame_size(Some(timing.max_client_message));
        let outbox = Outbox::new(line, timing.write_buffer);
        let socket =
            WebSocketStream::from_partially_read(outbox, early.into(), Role::Server, Some(config))
                .await;
        let now = Instant::now();
        let (batches, account) = subscribed.take();
        Self {
            socket,
            readable: true,
            peer_closed: false,
            clean: false,
            batches,
            left: None,
            records: Records::default(),
            warned: false,
            tally: Tally::default(),
            dirty: false,
            stall: None,
            keep_alive: KeepAlive::new(now, timing.ping_interval, timing.pong_deadline),
            alarm: Box::pin(tokio::time::sleep_until(now)),
            over,
            phase: Phase::Relaying,
            timing,
            on_slow: Some(on_slow),
            account,
        }
    }

    /// Relays until either side ends it, and closes the account.
    pub(crate) async fn run(mut self) -> End {
        let end = std::future::poll_fn(|cx| self.poll(cx)).await;
        self.account.ended(end.name());
        self.give_up_data();
        if self.clean {
            // Both sides said goodbye: end the transport properly too. Whoever does not listen is dropped. What waits goes
            // out first, so the envelopes among it are counted afterwards, when this is dropped.
            let shutdown = self.socket.get_mut().shutdown();
            drop(tokio::time::timeout(self.timing.close_within, shutdown).await);
        }
        end
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        match self.steps(cx) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    /// Goes on until there is nothing to do (`Ok`) or the connection is over (`Err`).
    fn steps(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        for _ in 0..STEPS_PER_POLL {
            let now = Instant::now();
            self.read(cx, now)?;
            if matches!(self.phase, Phase::Relaying)
                && let Poll::Ready(why) = self.over.as_mut().poll(cx)
            {
                self.end_from_outside(why, now);
            }
            let turn = self.write(cx, now)?;
            self.note_stall(now, &turn);
            let blocked = matches!(turn, Turn::Blocked);
            match (turn, self.check_clock(now, blocked)?) {
                (Turn::More, _) | (_, Clock::Changed) => {}
                (_, Clock::WakeAt(at)) => {
                    if self.alarm.deadline() != at {
                        self.alarm.as_mut().reset(at);
                    }
                    if self.alarm.as_mut().poll(cx).is_pending() {
                        return Ok(());
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// The process stops, or the client may read no more.
    fn end_from_outside(&mut self, why: End, now: Instant) {
        if why != End::Stopped {
            self.finish(why, now);
            return;
        }
        let within = self.timing.drain_within;
        if let Some(batches) = &mut self.batches {
            batches.finish(within * 2 / 3);
        }
        self.phase = Phase::Draining { by: now + within };
    }

    /// Listens to the client: pongs, pings, the close frame. Data frames are ignored.
    fn read(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), End> {
        for _ in 0..STEPS_PER_POLL {
            if !self.readable {
                return Ok(());
            }
            match self.socket.poll_next_unpin(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(None) => {
                    // Both close frames are through, ours perhaps only as far as the encryption.
                    self.clean = true;
                    return Err(self.why());
                }
                Poll::Ready(Some(Ok(Message::Pong(_)))) => self.keep_alive.ponged(now),
                Poll::Ready(Some(Ok(Message::Ping(payload)))) => {
                    // The WebSocket queues the answer itself.
                    self.tally.control(payload.len());
                    self.dirty = true;
                }
                Poll::Ready(Some(Ok(Message::Close(_)))) => {
                    self.give_up_data();
                    self.peer_closed = true;
                    self.dirty = true;
                    self.phase = Phase::Closing {
                        why: self.why(),
                        by: now + self.timing.close_within,
                    };
                }
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => {
                    self.readable = false;
                    match (error, self.phase) {
                        (WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake), _) => {
                            return Err(self.why());
                        }
                        (WsError::Capacity(_), Phase::Relaying) => self.finish(End::TooBig, now),
                        (WsError::Protocol(_) | WsError::Utf8(_), Phase::Relaying) => {
                            self.finish(End::Protocol, now)
                        }
                        _ => return Err(self.why()),
                    }
                }
            }
        }
        // The client floods us: the rest is for the next turn.
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Gives the connection what there is to give, and flushes when there is no more at hand.
    fn write(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<Turn, End> {
        match self.phase {
            Phase::Relaying | Phase::Draining { .. } => {
                let relaying = matches!(self.phase, Phase::Relaying);
                if relaying && self.keep_alive.duty(now) == Duty::Ping {
                    if !self.ready(cx)? {
                        return Ok(Turn::Blocked);
                    }
                    self.give(Message::Ping(Bytes::new()))?;
                    self.tally.control(0);
                    self.keep_alive.pinged(now);
                }
                if !self.feed(cx)? {
                    return Ok(Turn::Blocked);
                }
                let full = self.tally.unflushed() >= FLUSH_AT;
                if !full && self.fetch(cx, now) {
                    return Ok(Turn::More);
                }
                match self.flush(cx)? {
                    Turn::Idle if full => Ok(Turn::More),
                    turn => Ok(turn),
                }
            }
            Phase::Finishing { why, .. } => {
                if !self.feed(cx)? {
                    return Ok(Turn::Blocked);
                }
                if self.load_left() {
                    return Ok(Turn::More);
                }
                // Not before all went out: a close frame behind data that nobody takes would help nobody.
                let Turn::Idle = self.flush(cx)? else {
                    return Ok(Turn::Blocked);
                };
                if !self.ready(cx)? {
                    return Ok(Turn::Blocked);
                }
                self.give(Message::Close(Some(why.close_frame())))?;
                self.phase = Phase::Closing {
                    why,
                    by: now + self.timing.close_within,
                };
                Ok(Turn::More)
            }
            Phase::Closing { why, .. } => match self.flush(cx)? {
                Turn::Idle if self.peer_closed || !self.readable => {
                    self.clean = true;
                    Err(why)
                }
                turn => Ok(turn),
            },
        }
    }

    /// Takes the next batch if one is at hand; `false` when there is none yet.
    fn fetch(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if self.load_left() {
            return true;
        }
        let Some(batches) = &mut self.batches else {
            return false;
        };
        match batches.poll_batch(cx) {
            Poll::Pending => false,
            Poll::Ready(Some(batch)) => {
                match batches.take_missed() {
                    0 => self.load(batch),
                    missed => {
                        self.left = Some(Left { missed, batch });
                        self.load_left();
                    }
                }
                true
            }
            Poll::Ready(None) => {
                let missed = batches.take_missed();
                match self.phase {
                    Phase::Draining { by } => {
                        self.give_up_data();
                        let why = End::Stopped;
                        self.phase = Phase::Finishing { why, by };
                    }
                    _ => self.finish(End::Upstream, now),
                }
                if missed > 0 {
                    self.tell_missed(missed);
                }
                true
            }
        }
    }

    /// Loads what was taken and comes next; `false` when there is nothing.
    fn load_left(&mut self) -> bool {
        let Some(Left { missed, batch }) = self.left.take() else {
            return false;
        };
        if missed > 0 {
            self.left = Some(Left { missed: 0, batch });
            self.tell_missed(missed);
        } else {
            self.load(batch);
        }
        true
    }

    /// Others who read the same were faster by too much: tells the client. The notice is an envelope like the dopplers' own
    /// notices, received and delivered.
    fn tell_missed(&mut self, missed: u64) {
        self.account.missed(missed);
        let mut notice = BytesMut::new();
        Notice {
            count: missed,
            ..Notice::default()
        }
        .put_v1(&mut notice);
        if let Ok(envelopes) = self.records.load(notice.freeze()) {
            self.account.received(envelopes as u64);
        }
    }

    fn load(&mut self, batch: Batch) {
        let envelopes = self.records.load(batch.bytes).unwrap_or_else(|error| {
            self.account.malformed_batch();
            if !std::mem::replace(&mut self.warned, true) {
                warn!(%error, peer = %self.account.identity().peer, "a doppler sent a malformed batch, its rest is left out");
            }
            self.records.remaining()
        });
        self.account.received_from(&batch.doppler, envelopes as u64);
    }

    /// Writes what is left of the current batch; `false` when the connection takes no more for now.
    fn feed(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        while self.records.remaining() > 0 {
            if !self.room(cx)? {
                return Ok(false);
            }
            self.dirty = true;
            let outbox = self.socket.get_mut();
            while !outbox.is_full()
                && let Some(payload) = self.records.take()
            {
                self.tally.data(payload.len());
                outbox.add(payload);
            }
        }
        self.records.clear();
        Ok(true)
    }

    /// Whether the connection took what was collected so far, or that is still little.
    fn room(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        match self.socket.get_mut().poll_room(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(_)) => Err(self.why()),
        }
    }

    /// Whether a control frame can be given.
    fn ready(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if !self.room(cx)? {
            return Ok(false);
        }
        match self.socket.poll_ready_unpin(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(_)) => Err(self.why()),
        }
    }

    fn give(&mut self, message: Message) -> Result<(), End> {
        self.dirty = true;
        self.socket
            .start_send_unpin(message)
            .map_err(|_| self.why())
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Result<Turn, End> {
        if !self.dirty {
            return Ok(Turn::Idle);
        }
        let flushed = match self.socket.poll_flush_unpin(cx) {
            // Once the client's close frame came, the WebSocket calls itself flushed although the outbox is not.
            Poll::Ready(Ok(())) => Pin::new(self.socket.get_mut())
                .poll_flush(cx)
                .map_err(WsError::Io),
            flushed => flushed,
        };
        match flushed {
            Poll::Pending => Ok(Turn::Blocked),
            Poll::Ready(Ok(())) => {
                self.dirty = false;
                let (envelopes, bytes) = self.tally.flushed(self.socket.get_ref().taken());
                if envelopes > 0 {
                    self.account.delivered(envelopes, bytes);
                }
                Ok(Turn::Idle)
            }
            Poll::Ready(Err(_)) => Err(self.why()),
        }
    }

    /// Remembers since when the connection takes nothing. A new batch changes nothing about that: it goes to the outbox.
    fn note_stall(&mut self, now: Instant, turn: &Turn) {
        let bytes = self.socket.get_ref().line().taken();
        match (turn, self.stall) {
            (Turn::Idle, _) => self.stall = None,
            (_, Some((_, then))) if then == bytes => {}
            (Turn::Blocked, _) => self.stall = Some((now, bytes)),
            (Turn::More, _) => self.stall = None,
        }
    }

    /// Does what is due, and says when to look again. Only a connection that was just asked and takes nothing (`blocked`)
    /// makes a slow consumer.
    fn check_clock(&mut self, now: Instant, blocked: bool) -> Result<Clock, End> {
        match self.phase {
            Phase::Draining { by } | Phase::Finishing { by, .. } | Phase::Closing { by, .. } => {
                if now < by {
                    Ok(Clock::WakeAt(by))
                } else {
                    Err(self.why())
                }
            }
            Phase::Relaying => {
                let slow_at = self.stall.map(|(since, _)| since + self.timing.slow_after);
                if blocked && slow_at.is_some_and(|at| at <= now) {
                    self.account.slow_consumer();
                    if let Some(report) = self.on_slow.take() {
                        report();
                    }
                    self.give_up_data();
                    let left = self
                        .timing
                        .drop_after
                        .saturating_sub(self.timing.slow_after);
                    self.phase = Phase::Finishing {
                        why: End::SlowConsumer,
                        by: now + left,
                    };
                    return Ok(Clock::Changed);
                }
                let ping_or_pong = match self.keep_alive.duty(now) {
                    Duty::Wait(at) => Some(at),
                    // It goes out as soon as the connection takes it.
                    Duty::Ping => None,
                    Duty::Expired => {
                        self.finish(End::KeepAlive, now);
                        return Ok(Clock::Changed);
                    }
                };
                let next = ping_or_pong.into_iter().chain(slow_at).min();
                Ok(Clock::WakeAt(next.unwrap_or(now + self.timing.slow_after)))
            }
        }
    }

    /// No new data; a close frame behind what the socket already has.
    fn finish(&mut self, why: End, now: Instant) {
        self.give_up_data();
        self.phase = Phase::Finishing {
            why,
            by: now + self.timing.close_within,
        };
    }

    /// Leaves the dopplers and lets go of what is not with the socket yet. All of it stays counted as received, also what
    /// had only arrived: the dopplers count it as delivered.
    fn give_up_data(&mut self) {
        if let Some(Left { missed, batch }) = self.left.take() {
            if missed > 0 {
                self.account.missed(missed);
            }
            self.load(batch);
        }
        self.records.clear();
        if let Some(batches) = self.batches.take() {
            self.account.unread(batches.close());
        }
    }

    /// Why the connection ends if it ends now by itself.
    fn why(&self) -> End {
        match self.phase {
            Phase::Relaying => End::Client,
            Phase::Draining { .. } => End::Stopped,
            Phase::Finishing { why, .. } | Phase::Closing { why, .. } => why,
        }
    }
}

impl<L: Line> Drop for Relay<L> {
    /// Books what became of the envelopes that were under way, also when the task ends before its time.
    fn drop(&mut self) {
        self.give_up_data();
        let outbox = self.socket.get_ref();
        // What waits encrypted never leaves.
        let left = outbox.taken().saturating_sub(outbox.line().unsent());
        let (envelopes, bytes) = self.tally.went_out(left);
        if envelopes > 0 {
            self.account.delivered(envelopes, bytes);
        }
    }
}
