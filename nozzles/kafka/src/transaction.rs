//! Exactly once from the buffer on: a transactional producer, and the place in the buffer as a record of the transaction.
//!
//! A transaction holds a batch's records and one record of [`cursor`] that says which event is the next. Whoever reads with
//! `isolation.level=read_committed` sees all of that or nothing. What was committed last is read back when the client is
//! made, so an answer that got lost, a crash, or a zombie that comes back cannot write an event twice:
//!
//! - The transactional id is made of nozzle, destination and buffer. Making a client ends what an earlier one of this id
//!   had open, and fences it.
//! - A client that is fenced looks at what is committed. If somebody else has moved on, it stays away until it is
//!   restarted.
//! - Events below what is committed are not sent again, whoever committed them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use loggregator_nozzle::{Batch, Delivery, Destination, Event, Outcome, Reason};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseRecord, Producer as _};
use tokio::sync::Mutex;

use crate::client;
use crate::cursor::{self, Place};
use crate::outcome;
use crate::pending::Pending;
use crate::producer::{Ahead, Client, Common, detach};
use crate::record::{Mapping, Scratch, owned_headers};
use crate::subject::Subject;
use crate::topic::Topic;

/// One call of librdkafka; between two of them is looked whether it is time to stop.
const CALL: Duration = Duration::from_millis(250);
/// Between two looks for room in the client's queue.
const ROOM: Duration = Duration::from_millis(5);

/// The destination.
#[derive(Debug)]
pub(crate) struct Transactions {
    inner: Arc<Inner>,
    worker: Arc<Mutex<Worker>>,
}

#[derive(Debug)]
struct Inner {
    common: Common,
    /// Transactional id, and key of the record that keeps the place.
    key: String,
    /// The topic of that record.
    cursor_topic: Arc<Topic>,
    /// Changes when a batch did not go through: those that waited behind it must not go before it.
    epoch: AtomicU64,
    closed: AtomicBool,
}

/// The client, and what is known to be committed.
#[derive(Default)]
struct Worker {
    client: Option<Client>,
    /// The first event that is not committed, when that is known.
    next: Option<u64>,
    fenced: bool,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("open", &self.client.is_some())
            .field("next", &self.next)
            .field("fenced", &self.fenced)
            .finish()
    }
}

/// Why a transaction did not go through.
enum Failure {
    /// It can be aborted.
    Abort(Reason),
    /// The client is of no use any more.
    Fatal(Code, Reason),
}

impl Transactions {
    pub(crate) fn new(common: Common) -> Transactions {
        let key = cursor::key(&common.nozzle, &common.name, common.identity.buffer.id());
        let cursor_topic = Arc::new(Topic {
            name: common.config.cursor_topic.clone(),
            delivered: AtomicU64::new(0),
        });
        Transactions {
            inner: Arc::new(Inner {
                common,
                key,
                cursor_topic,
                epoch: AtomicU64::new(0),
                closed: AtomicBool::new(false),
            }),
            worker: Arc::default(),
        }
    }

    /// Has a thread of its own do this with the worker: librdkafka's transactions block. It goes on when nobody waits for
    /// it any more, and the next one waits for it.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner, &mut Worker) -> T + Send + 'static,
    ) -> Option<T> {
        let mut worker = Arc::clone(&self.worker).lock_owned().await;
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&inner, &mut worker))
            .await
            .ok()
    }
}

impl Destination for Transactions {
    async fn deliver(&self, batch: &Batch) -> Delivery {
        let epoch = self.inner.epoch.load(Ordering::Acquire);
        let mut ahead = Ahead {
            epoch: &self.inner.epoch,
            done: false,
        };
        let events = batch.events().to_vec();
        let mut worker = Arc::clone(&self.worker).lock_owned().await;
        let inner = Arc::clone(&self.inner);
        // From here on it is the worker that stops those behind.
        ahead.done = true;
        let transaction = tokio::task::spawn_blocking(move || {
            if inner.epoch.load(Ordering::Acquire) != epoch {
                let detail = "an earlier batch was not committed";
                return retry(Reason::new(outcome::BEHIND_ANOTHER, detail));
            }
            let delivery = worker.deliver(&inner, &events);
            if delivery != Delivery::All {
                inner.epoch.fetch_add(1, Ordering::AcqRel);
            }
            delivery
        });
        transaction
            .await
            .unwrap_or_else(|error| retry(Reason::new(outcome::OTHER, error.to_string())))
    }

    async fn resume(&self) -> Option<u64> {
        // When it fails now, the first batch tries again; until then nothing is sent.
        self.work(|inner, worker| match worker.open(inner) {
            Ok(()) => worker.next,
            Err(why) => {
                tracing::warn!(
                    destination = inner.common.name,
                    %why,
                    "what is committed cannot be read yet"
                );
                None
            }
        })
        .await
        .flatten()
    }

    async fn close(&self) {
        self.inner.closed.store(true, Ordering::Release);
        // A transaction that is under way ends by itself soon, and the client with it.
        if let Ok(mut worker) = Arc::clone(&self.worker).try_lock_owned()
            && let Some(client) = worker.client.take()
        {
            detach(client);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            detach(client);
        }
    }
}

impl Worker {
    /// Has a client that may write, and knows what is committed.
    fn open(&mut self, inner: &Inner) -> Result<(), Reason> {
        if self.client.is_some() {
            return Ok(());
        }
        let common = &inner.common;
        let deadline = Instant::now() + common.config.stall_timeout.0;
        let settings = client::settings(&common.config, "loggregator-nozzle-cursor")?;
        if self.fenced {
            let place = cursor::read(common, &settings, &inner.key, deadline)?;
            if inner.of_this_buffer(place) != self.next {
                let detail = "another process delivers from this buffer under the same name";
                return Err(Reason::new(outcome::FENCED, detail));
            }
            self.fenced = false;
        }
        tokio::runtime::Handle::current().block_on(cursor::make_topic(common, &settings))?;
        let client = common.client(&inner.key)?;
        loop {
            match client.init_transactions(CALL) {
                Ok(()) => break,
                Err(error) if inner.again(&error, deadline) => {}
                Err(error) => {
                    drop(client);
                    return Err(inner.reason(&error));
                }
            }
        }
        let deadline = Instant::now() + common.config.stall_timeout.0;
        let place = cursor::read(common, &settings, &inner.key, deadline);
        match place {
            Ok(place) => self.next = inner.of_this_buffer(place),
            Err(why) => {
                drop(client);
                return Err(why);
            }
        }
        self.client = Some(client);
        Ok(())
    }

    fn deliver(&mut self, inner: &Inner, events: &[Event]) -> Delivery {
        if let Err(why) = self.open(inner) {
            return retry(why);
        }
        let next = self.next.unwrap_or(0);
        let fresh: Vec<&Event> = events.iter().filter(|event| event.seq >= next).collect();
        let done = events.len() - fresh.len();
        let Some(last) = fresh.last().map(|event| event.seq) else {
            return Delivery::All;
        };
        let pending = Pending::new(&fresh);
        let committed = self.transact(inner, &fresh, &pending, last + 1);
        let why = match committed {
            Ok(()) => {
                self.next = Some(last + 1);
                None
            }
            Err(failure) => Some(self.give_up(inner, failure)),
        };
        // It goes through as a whole: one that failed while some of its events were refused was no attempt of the others.
        let refused = (0..fresh.len()).any(|item| {
            let outcome = pending.outcome(item);
            matches!(outcome, Some(Outcome::Rejected(_) | Outcome::Oversize(_)))
        });
        let again = match refused {
            true => Outcome::Later,
            false => Outcome::Retry,
        };
        let fresh = (0..fresh.len()).map(|item| match (pending.outcome(item), &why) {
            (
                Some(Outcome::Delivered | Outcome::Retry(_) | Outcome::Later(_)) | None,
                Some(why),
            ) => again(why.clone()),
            (Some(outcome), _) => outcome,
            (None, None) => Outcome::Delivered,
        });
        let outcomes: Vec<_> = std::iter::repeat_n(Outcome::Delivered, done)
            .chain(fresh)
            .collect();
        let mut large = outcomes.iter().filter(|o| outcome::is_of_request(o));
        let done = outcomes.iter().all(|o| *o == Outcome::Delivered);
        if done {
            Delivery::All
        } else if let (Some(Outcome::Oversize(why)), Some(_)) = (large.next(), large.next()) {
            // A broker says so of a whole request; only smaller transactions can tell who is to blame.
            Delivery::TooLarge(why.clone())
        } else {
            Delivery::Each(outcomes)
        }
    }

    /// One transaction.
    fn transact(
        &self,
        inner: &Inner,
        events: &[&Event],
        pending: &Arc<Pending>,
        next: u64,
    ) -> Result<(), Failure> {
        let Some(client) = &self.client else {
            return Err(Failure::Abort(Reason::new(outcome::OTHER, "no client")));
        };
        let deadline = Instant::now() + inner.common.config.stall_timeout.0;
        client
            .begin_transaction()
            .map_err(|error| inner.failure(&error))?;
        let mut scratch = Scratch::default();
        for (item, event) in events.iter().enumerate() {
            inner.send(client, event, pending, item, &mut scratch, deadline)?;
            pending.handed_over(item);
        }
        inner.send_place(client, next, deadline)?;
        loop {
            match client.commit_transaction(CALL) {
                Ok(()) => break,
                Err(error) if inner.again(&error, deadline) => {}
                Err(error) => return Err(inner.failure(&error)),
            }
        }
        inner
            .common
            .shared
            .stats
            .committed
            .fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Aborts, or gives the client up. Answers why.
    fn give_up(&mut self, inner: &Inner, failure: Failure) -> Reason {
        let deadline = Instant::now() + inner.common.config.stall_timeout.0;
        let (fatal, why) = match failure {
            Failure::Fatal(code, why) => (Some(code), why),
            Failure::Abort(why) => loop {
                let Some(client) = &self.client else {
                    break (None, why);
                };
                match client.abort_transaction(CALL) {
                    Ok(()) => {
                        inner
                            .common
                            .shared
                            .stats
                            .aborted
                            .fetch_add(1, Ordering::Relaxed);
                        break (None, why);
                    }
                    Err(error) if inner.again(&error, deadline) => {}
                    Err(error) => break (Some(inner.code(&error)), why),
                }
            },
        };
        if let Some(code) = fatal {
            let destination = &inner.common.name;
            tracing::error!(destination, ?code, %why, "kafka: the client is made anew");
            self.fenced = matches!(code, Code::Fenced | Code::ProducerFenced);
            if let Some(client) = self.client.take() {
                drop(client);
            }
            inner.common.shared.stats.restarted();
        }
        why
    }
}

impl Inner {
    /// Hands the records of one event to the client.
    fn send(
        &self,
        client: &Client,
        event: &Event,
        pending: &Arc<Pending>,
        item: usize,
        scratch: &mut Scratch,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let Common {
            mapping, identity, ..
        } = &self.common;
        let subject = Subject::new(event);
        let ready = match self.common.ready(&subject, scratch) {
            Ok(ready) => ready,
            Err(outcome) => {
                pending.decide(item, outcome);
                return Ok(());
            }
        };
        for part in 0..ready.values.len() {
            let ticket = pending.ticket(item, &ready.topic);
            let mut record = BaseRecord::with_opaque_to(&ready.topic.name, ticket)
                .payload(ready.values.get(part))
                .timestamp(Mapping::timestamp(&subject));
            record.headers = owned_headers(mapping, &subject, identity, part);
            record.key = ready.key.as_deref();
            self.enqueue(client, record, deadline)?;
        }
        Ok(())
    }

    /// Hands over the record that keeps the place.
    fn send_place(&self, client: &Client, next: u64, deadline: Instant) -> Result<(), Failure> {
        let place = Place {
            buffer_id: self.common.identity.buffer.id().to_owned(),
            opening: self.common.identity.buffer.current().to_owned(),
            next,
        };
        let value = serde_json::to_vec(&place)
            .map_err(|error| Failure::Abort(Reason::new(outcome::OTHER, error.to_string())))?;
        let ticket = Pending::new(&[]).ticket(0, &self.cursor_topic);
        let record = BaseRecord::with_opaque_to(&self.cursor_topic.name, ticket)
            .key(self.key.as_str())
            .payload(value.as_slice());
        self.enqueue(client, record, deadline)
    }

    fn enqueue(
        &self,
        client: &Client,
        mut record: BaseRecord<'_, str, [u8], Box<crate::pending::Ticket>>,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let mut waited = false;
        loop {
            let Err((error, back)) = client.send(record) else {
                return Ok(());
            };
            let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
            if code == Code::QueueFull && Instant::now() < deadline && !self.is_closed() {
                if !waited {
                    waited = true;
                    self.common
                        .shared
                        .stats
                        .queue_full
                        .fetch_add(1, Ordering::Relaxed);
                }
                record = back;
                std::thread::sleep(ROOM);
                continue;
            }
            back.delivery_opaque.report(code);
            // Only what is about this record leaves the transaction whole.
            return match outcome::of_report(code, back.topic) {
                Outcome::Rejected(_) | Outcome::Oversize(_) => Ok(()),
                _ => Err(self.failure(&error)),
            };
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether the same call is to be made again.
    fn again(&self, error: &KafkaError, deadline: Instant) -> bool {
        let retriable = match error {
            KafkaError::Transaction(error) => error.is_retriable() && !error.txn_requires_abort(),
            KafkaError::Flush(code) => *code == Code::OperationTimedOut,
            _ => false,
        };
        retriable && Instant::now() < deadline && !self.is_closed()
    }

    fn code(&self, error: &KafkaError) -> Code {
        match error {
            KafkaError::Transaction(error) => error.code(),
            other => other.rdkafka_error_code().unwrap_or(Code::Fail),
        }
    }

    fn reason(&self, error: &KafkaError) -> Reason {
        let code = self.code(error);
        let what = match outcome::of_client(code) {
            outcome::OTHER => outcome::TRANSACTION,
            known => known,
        };
        let trouble = self.common.shared.trouble();
        trouble.unwrap_or_else(|| Reason::new(what, format!("{code}: {error}")))
    }

    fn failure(&self, error: &KafkaError) -> Failure {
        let code = self.code(error);
        let fatal = match error {
            KafkaError::Transaction(error) => error.is_fatal(),
            _ => code == Code::Fatal,
        };
        if fatal {
            Failure::Fatal(code, self.reason(error))
        } else {
            Failure::Abort(self.reason(error))
        }
    }

    /// The number as it is to be read now, if it is of the buffer that there is now.
    fn of_this_buffer(&self, place: Option<Place>) -> Option<u64> {
        let (place, buffer) = (place?, &self.common.identity.buffer);
        if place.buffer_id != buffer.id() {
            return None;
        }
        let next = buffer.resume(&place.opening, place.next);
        if next != Some(place.next) {
            tracing::warn!(
                destination = self.common.name,
                committed = place.next,
                resume = next,
                "kafka: the buffer has lost events that were delivered, in a crash of the machine"
            );
        }
        next
    }
}

fn retry(why: Reason) -> Delivery {
    Delivery::Retry { why, after: None }
}
