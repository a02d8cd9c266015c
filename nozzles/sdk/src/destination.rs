//! What a nozzle author writes: a destination, and what it says about each event.

use std::borrow::Cow;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use loggregator_service::Lifecycle;
use loggregator_service::metrics::Metrics;

use crate::buffer::identity::BufferIdentity;
use crate::event::Batch;

/// Takes batches to where they should go.
///
/// The framework calls [`deliver`](Destination::deliver) with at most [`Limits::in_flight`](crate::kind::Limits) batches
/// at a time. The futures of later batches are first polled after those of earlier ones, so what a destination does before
/// it first waits happens in the order of the events. It must not answer [`Delivery::All`] before the destination has
/// confirmed what its guarantee promises: the cursor moves past what was answered and never comes back.
///
/// Retries, backoff, the circuit breaker, rate limits, dead letters and the counts are the framework's.
pub trait Destination: Send + Sync + 'static {
    /// Delivers a batch. Dropping the future gives the batch up: it counts as not delivered and comes again later.
    fn deliver(&self, batch: &Batch) -> impl Future<Output = Delivery> + Send;

    /// The first event that an earlier process has not delivered, where the destination itself keeps that (in the transaction
    /// in which it delivers, say). Asked once, before the first batch; events below it count as delivered and do not come.
    /// It must be of this very buffer: see [`BufferIdentity::resume`].
    fn resume(&self) -> impl Future<Output = Option<u64>> + Send {
        async { None }
    }

    /// Hands on what the destination itself still holds, at the end. The framework limits the time.
    fn close(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Delivery {
    /// Every event was taken.
    All,
    /// One outcome per event, in order. Too short a list counts as its last [`Outcome::Retry`] or [`Outcome::Later`] for the
    /// rest, as a retry without a reason where it has neither.
    Each(Vec<Outcome>),
    /// As [`Delivery::Each`], and the destination asked for a pause, such as by an HTTP `Retry-After`.
    Paused {
        /// One outcome per event, in order.
        each: Vec<Outcome>,
        /// The pause.
        after: Duration,
    },
    /// Nothing is known to have been taken: the same events come again after a backoff, at the earliest after `after`. To wait
    /// as one is asked to is no attempt: with a pause it counts as [`Outcome::Later`] for each event.
    Retry {
        /// Why.
        why: Reason,
        /// What the destination asked for, such as an HTTP `Retry-After`.
        after: Option<Duration>,
    },
    /// The destination refuses the batch as a whole and will go on doing so. The framework halves the batch until the
    /// event that is to blame is alone, and dead-letters that.
    Refused(Reason),
    /// The batch is bigger than the destination takes. It is halved; a single event is dead-lettered as oversize.
    TooLarge(Reason),
}

impl Delivery {
    /// Nothing is known to have been taken; the framework says when it comes again.
    #[must_use]
    pub fn retry(why: Reason) -> Delivery {
        Delivery::Retry { why, after: None }
    }

    /// One outcome per event, and the pause that the destination asked for, where it did.
    #[must_use]
    pub fn each(each: Vec<Outcome>, pause: Option<Duration>) -> Delivery {
        match pause {
            Some(after) => Delivery::Paused { each, after },
            None => Delivery::Each(each),
        }
    }
}

/// What became of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken.
    Delivered,
    /// Not taken; it may be later. It counts as an attempt: after `retry.attempts` of them the event is a dead letter.
    Retry(Reason),
    /// Not tried, or not taken because the destination asked to have it later: it comes again and no attempt is counted. For
    /// what follows an event that failed and must not overtake it, and for what there was no time for.
    Later(Reason),
    /// It will never be taken: dead letter.
    Rejected(Reason),
    /// It is too large, ever: dead letter.
    Oversize(Reason),
}

impl Outcome {
    /// Of an event that was tried and comes again: an attempt, unless the destination asked for a pause.
    #[must_use]
    pub fn again(why: Reason, pause: Option<Duration>) -> Outcome {
        match pause {
            Some(_) => Outcome::Later(why),
            None => Outcome::Retry(why),
        }
    }
}

/// Why something was not taken: a code for metrics and the ledger, and a text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Lower case with underscores, from a small fixed set: `connect`, `timeout`, `status_500`, `invalid_utf8`, ….
    pub code: Cow<'static, str>,
    /// What happened, with the values that explain it. No secrets.
    pub detail: String,
}

impl Reason {
    /// A reason.
    #[must_use]
    pub fn new(code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Reason {
        Reason {
            code: code.into(),
            detail: detail.into(),
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.detail.is_empty() {
            f.write_str(&self.code)
        } else {
            write!(f, "{}: {}", self.code, self.detail)
        }
    }
}

/// What a destination has around it when it starts.
#[derive(Debug, Clone)]
pub struct Context {
    /// Name of the nozzle.
    pub nozzle: String,
    /// Name of the destination, unique in the nozzle.
    pub name: String,
    /// Registry for its own metrics; their label `destination` has its name.
    pub metrics: Metrics,
    /// Owner of its tasks.
    pub lifecycle: Lifecycle,
    /// Identity of the buffer: another one numbers other events with the same numbers.
    pub buffer: BufferIdentity,
    /// A folder of its own, where the nozzle keeps state on disk.
    pub state_dir: Option<PathBuf>,
}

/// A destination could not be started.
#[derive(Debug, thiserror::Error)]
#[error("destination {destination}: {what}")]
pub struct StartError {
    /// Its name.
    pub destination: String,
    /// What could not be done.
    pub what: String,
    /// Why.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A boxed future, one per batch.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// [`Destination`] as an object; every destination is one.
pub trait DynDestination: Send + Sync + 'static {
    /// As [`Destination::deliver`].
    fn deliver<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Delivery>;
    /// As [`Destination::resume`].
    fn resume(&self) -> BoxFuture<'_, Option<u64>>;
    /// As [`Destination::close`].
    fn close(&self) -> BoxFuture<'_, ()>;
}

impl<D: Destination> DynDestination for D {
    fn deliver<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Delivery> {
        Box::pin(Destination::deliver(self, batch))
    }

    fn resume(&self) -> BoxFuture<'_, Option<u64>> {
        Box::pin(Destination::resume(self))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(Destination::close(self))
    }
}
