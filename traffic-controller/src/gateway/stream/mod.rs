//! One reader's response: server-sent events, pulled by the connection.
//!
//! The connection asks for the next piece when the last one is in its socket's buffer. Only then is the provider asked for
//! the next batch, so that one batch is in flight and a slow reader holds the provider up, nobody else. A batch that was
//! taken is always written whole before anything else is. What ends a stream does so whether or not its client reads: the
//! subscription goes at once, and the rest of the response a while later.

mod events;
mod line;
mod question;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body::{Body, Frame};
use loggregator_net::grpc::{Code, Status};
use thiserror::Error as ThisError;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::{debug, info, warn};

use crate::access::recheck::{Patience, until_denied};
use crate::access::{Allowed, Denied};
use crate::accounts::Account;
use crate::gateway::parked::{Parking, Place};
use crate::provider::Envelopes;

use events::DataEvent;
use line::Line;
pub(crate) use question::Question;

/// How a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The client left.
    Disconnected,
    /// The stream's time was over; the subscription waits for the client to come back, or was ended.
    StreamTimeout,
    /// The gateway stops.
    Shutdown,
    /// The client may not read any more.
    Denied,
    /// The reverse log proxy ended the stream, or refused it.
    ProviderEnded,
    /// The reverse log proxy sent what is no batch of envelopes.
    Malformed,
}

impl End {
    /// All of them, for the metrics.
    pub(crate) const ALL: [Self; 6] = [
        Self::Disconnected,
        Self::StreamTimeout,
        Self::Shutdown,
        Self::Denied,
        Self::ProviderEnded,
        Self::Malformed,
    ];

    /// The reason in ledger and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::StreamTimeout => "stream_timeout",
            Self::Shutdown => "shutdown",
            Self::Denied => "denied",
            Self::ProviderEnded => "provider_ended",
            Self::Malformed => "malformed_batch",
        }
    }

    /// What the closing event says; none when there is no such event.
    fn farewell(self) -> Option<&'static str> {
        match self {
            Self::StreamTimeout => Some("closing due to stream timeout"),
            Self::Shutdown => Some("closing due to gateway shutdown"),
            Self::Denied => Some("closing due to authorization"),
            Self::Disconnected | Self::ProviderEnded | Self::Malformed => None,
        }
    }
}

/// Times of a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// From the start to the closing event.
    pub(crate) stream_timeout: Duration,
    /// From the last event to a heartbeat.
    pub(crate) heartbeat: Duration,
    /// How long it goes on when nobody can say whether its reader may still read.
    pub(crate) recheck_patience: Duration,
    /// How long the client may take for what is still to be written when the stream's end has come.
    pub(crate) farewell: Duration,
    /// How long the reverse log proxy may take to end its stream.
    pub(crate) finish: Duration,
}

/// The client did not take the end of its stream in time.
#[derive(Debug, ThisError)]
#[error("the client did not take the end of the stream in time")]
pub(crate) struct Untaken;

/// What a stream is made of.
pub(crate) struct Parts {
    pub(crate) source: Box<dyn Envelopes>,
    pub(crate) account: Account,
    pub(crate) times: Times,
    pub(crate) question: Question,
    pub(crate) allowed: Allowed,
    pub(crate) parking: Arc<Parking>,
    pub(crate) place: Place,
    pub(crate) slot: OwnedSemaphorePermit,
    pub(crate) stop: CancellationToken,
}

/// The body of a reader's response.
pub(crate) struct Stream {
    state: State,
    line: Arc<Line>,
    /// Of the piece on the line: envelopes and bytes that are delivered with it.
    on_line: Option<(u64, u64)>,
    /// The batch that is being written, and its bytes so far.
    event: Option<(DataEvent, u64)>,
    account: Account,
    last_event: Instant,
    heartbeat_every: Duration,
    heartbeat: Pin<Box<Sleep>>,
    timeout: Pin<Box<Sleep>>,
    /// Ready when the reader may read no more.
    denied: Pin<Box<dyn Future<Output = Denied> + Send>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    farewell: Duration,
    finish: Duration,
    /// Ready when the end has taken too long.
    cut: Option<Pin<Box<Sleep>>>,
    parking: Arc<Parking>,
    place: Option<Place>,
    _slot: OwnedSemaphorePermit,
}

enum State {
    /// Events come from here.
    Open(Box<dyn Envelopes>),
    /// Ends with this, after what is under way from the reverse log proxy, which was asked for the end.
    Ending(Box<dyn Envelopes>, End),
    /// The closing event is still to be written.
    Closing(End),
    /// All was said.
    Over,
}

impl Stream {
    /// Starts the clocks.
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            source,
            account,
            times,
            question,
            allowed,
            parking,
            place,
            slot,
            stop,
        } = parts;
        // Unless something else happens first.
        account.ended(End::Disconnected.name());
        Self {
            state: State::Open(source),
            line: Arc::default(),
            on_line: None,
            event: None,
            account,
            last_event: Instant::now(),
            heartbeat_every: times.heartbeat,
            heartbeat: Box::pin(sleep(times.heartbeat)),
            timeout: Box::pin(sleep(times.stream_timeout)),
            denied: Box::pin(async move {
                let patience = Patience::of(times.recheck_patience);
                until_denied(allowed, patience, || question.ask()).await
            }),
            stop: Box::pin(stop.cancelled_owned()),
            farewell: times.farewell,
            finish: times.finish,
            cut: None,
            parking,
            place: Some(place),
            _slot: slot,
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        ready!(self.line.poll_free(cx));
        if let Some((envelopes, bytes)) = self.on_line.take() {
            self.account.delivered(envelopes, bytes);
        }
        loop {
            if let Some((event, before)) = &mut self.event {
                let (piece, last) = event.next_piece();
                *before += piece.len() as u64;
                if last {
                    self.on_line = Some((event.envelopes(), *before));
                    self.event = None;
                }
                return self.send(piece);
            }
            match std::mem::replace(&mut self.state, State::Over) {
                State::Over => return Poll::Ready(None),
                State::Closing(end) => {
                    let Some(farewell) = end.farewell() else {
                        continue;
                    };
                    return self.send(events::closing(farewell));
                }
                State::Open(mut source) => match source.poll_next(cx) {
                    Poll::Ready(Some(Ok(batch))) => {
                        self.state = State::Open(source);
                        self.take(batch);
                    }
                    Poll::Ready(ended) => self.provider_ended(ended.and_then(Result::err)),
                    Poll::Pending => {
                        self.state = State::Open(source);
                        return self.poll_heartbeat(cx);
                    }
                },
                State::Ending(mut source, end) => match source.poll_next(cx) {
                    Poll::Ready(Some(Ok(batch))) => {
                        self.state = State::Ending(source, end);
                        self.take(batch);
                    }
                    Poll::Ready(_) => self.state = State::Closing(end),
                    Poll::Pending => {
                        self.state = State::Ending(source, end);
                        return Poll::Pending;
                    }
                },
            }
        }
    }

    /// Looks whether something ends the stream. A batch that is being written is still written whole.
    fn look_at_the_clock(&mut self, cx: &mut Context<'_>) {
        if !matches!(self.state, State::Open(_)) {
            return;
        }
        let end = if self.stop.as_mut().poll(cx).is_ready() {
            End::Shutdown
        } else if self.timeout.as_mut().poll(cx).is_ready() {
            End::StreamTimeout
        } else if let Poll::Ready(why) = self.denied.as_mut().poll(cx) {
            self.log_denied(&why);
            End::Denied
        } else {
            return;
        };
        self.end(end);
    }

    fn end(&mut self, end: End) {
        self.account.ended(end.name());
        self.cut = Some(Box::pin(sleep(self.farewell)));
        let State::Open(mut source) = std::mem::replace(&mut self.state, State::Closing(end))
        else {
            return;
        };
        match end {
            // Whoever may not read any more gets nothing more.
            End::Denied => return self.leave(source),
            End::StreamTimeout => {
                if let Some(place) = self.place.take() {
                    let identity = self.account.identity().clone();
                    match self.parking.park(place, source, identity) {
                        Ok(()) => return,
                        Err(back) => source = back,
                    }
                }
            }
            _ => {}
        }
        source.finish(self.finish);
        self.state = State::Ending(source, end);
    }

    /// Takes over a batch from the provider.
    fn take(&mut self, batch: Bytes) {
        match DataEvent::of(batch) {
            Ok((event, rejected)) => {
                let good = event.as_ref().map_or(0, DataEvent::envelopes);
                self.account.received(good + u64::from(rejected));
                if rejected > 0 {
                    self.account.lost("malformed", u64::from(rejected));
                    debug!(rejected, "malformed envelopes left out");
                }
                self.event = event.map(|event| (event, 0));
            }
            Err(error) => {
                warn!("error marshaling envelope batch to string: {error}");
                self.account.malformed_batch();
                self.account.ended(End::Malformed.name());
                self.abandon();
            }
        }
    }

    /// Ends a subscription; what had arrived for it and is not written any more is booked under the reason of the end.
    fn leave(&self, source: Box<dyn Envelopes>) {
        let left = source.close();
        if left > 0 {
            self.account.received(left);
        }
    }

    /// Ends the stream at once.
    fn abandon(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Over);
        if let State::Open(source) | State::Ending(source, _) = state {
            self.leave(source);
        }
    }

    fn provider_ended(&mut self, status: Option<Status>) {
        self.account.ended(End::ProviderEnded.name());
        match status {
            Some(status) if status.code == Code::Cancelled => {}
            Some(status) => warn!("error getting logs from provider: {}", status.go()),
            None => warn!("error getting logs from provider: EOF"),
        }
    }

    fn log_denied(&self, why: &Denied) {
        let peer = &self.account.identity().peer;
        match why {
            Denied::Unavailable(_) => {
                warn!(%peer, %why, "access could not be checked again, stream ends");
            }
            _ => info!(%peer, %why, "access is no longer allowed, stream ends"),
        }
    }

    /// Whether the client has taken too long for the end.
    fn is_untaken(&mut self, cx: &mut Context<'_>) -> bool {
        let cut = self.cut.as_mut();
        cut.is_some_and(|cut| cut.as_mut().poll(cx).is_ready())
    }

    /// A heartbeat, when there was no event for its time.
    fn poll_heartbeat(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            ready!(self.heartbeat.as_mut().poll(cx));
            // The timer is not touched at every event: it looks here whether there was one.
            let due = self.last_event + self.heartbeat_every;
            if due <= Instant::now() {
                return self.send(events::heartbeat(SystemTime::now()));
            }
            self.heartbeat.as_mut().reset(due);
        }
    }

    fn send(&mut self, piece: Vec<u8>) -> Poll<Option<Bytes>> {
        self.last_event = Instant::now();
        if self.heartbeat.is_elapsed() {
            let due = self.last_event + self.heartbeat_every;
            self.heartbeat.as_mut().reset(due);
        }
        Poll::Ready(Some(self.line.chunk(piece)))
    }
}

impl Drop for Stream {
    /// The client left, or everything was said.
    fn drop(&mut self) {
        self.abandon();
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Untaken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Untaken>>> {
        let stream = self.get_mut();
        stream.look_at_the_clock(cx);
        if stream.is_untaken(cx) {
            info!(peer = %stream.account.identity().peer, "{Untaken}");
            return Poll::Ready(Some(Err(Untaken)));
        }
        let piece = ready!(stream.poll_piece(cx));
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }
}
