//! At least once: an idempotent producer, and what its delivery reports mean for each event.
//!
//! # Order
//!
//! Several batches may be on their way, and records of one key still arrive in the order of the events:
//!
//! - Batches are handed to the client whole and one after the other ([`Producer::turn`] is fair), so its queue has the
//!   order of the events.
//! - The client is idempotent: brokers take its requests for a partition in the order in which they were numbered, so a
//!   request that it sends again cannot overtake another one.
//! - A batch that was given up (its time was up, say) stays in the client's queue, where it was. When its events come
//!   again they are not sent again: they get the reports of their records ([`Given`]).
//! - If a batch is given up before all of it was handed over, those behind it are not handed over either: they come back as
//!   [`BEHIND_ANOTHER`](crate::outcome::BEHIND_ANOTHER), and the framework sends everything again from the first one on. The
//!   same happens when the client has to be made anew.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use loggregator_nozzle::{Batch, Delivery, Destination, Event, Outcome, Reason};
use loggregator_service::Lifecycle;
use parking_lot::Mutex;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use tokio_util::sync::CancellationToken;

use crate::client;
use crate::config::Config;
use crate::context::{Callbacks, Shared};
use crate::outcome;
use crate::pending::Pending;
use crate::record::{Identity, Mapping, Scratch, Values, owned_headers};
use crate::subject::Subject;
use crate::topic::{Known, Topic};

/// A client that polls itself.
pub(crate) type Client = ThreadedProducer<Callbacks>;

/// Room in the client's queue is looked for again after so long, though nobody told of any.
const ROOM: Duration = Duration::from_millis(100);
/// The wait before a client is made anew is at least this, and doubles up to the other.
const RESTART_MIN: Duration = Duration::from_millis(100);
const RESTART_MAX: Duration = Duration::from_secs(10);
/// A client that lived so long was well.
const LIVED: Duration = Duration::from_secs(60);

/// What all forms of the destination have. Threads of clients may hold it for a while after the destination is gone, so it
/// holds nothing of the nozzle.
#[derive(Debug)]
pub(crate) struct Common {
    pub config: Config,
    pub mapping: Mapping,
    pub identity: Identity,
    pub known: Arc<Known>,
    pub shared: Arc<Shared>,
    /// Names of the nozzle and of the destination.
    pub nozzle: String,
    pub name: String,
}

impl Common {
    /// A client of these settings.
    ///
    /// # Errors
    /// When a secret cannot be read or librdkafka does not like the settings.
    pub(crate) fn client(&self, transactional: &str) -> Result<Client, Reason> {
        let id = format!("loggregator-nozzle-{}", self.nozzle);
        let settings = client::producer(&self.config, &id, transactional)?;
        settings
            .create_with_context(self.callbacks())
            .map_err(|error| Reason::new(outcome::OTHER, error.to_string()))
    }

    /// The callbacks of a client.
    pub(crate) fn callbacks(&self) -> Callbacks {
        let oauth = self
            .config
            .sasl
            .as_ref()
            .and_then(|sasl| sasl.oauth.clone());
        Callbacks::new(&self.name, oauth, Arc::clone(&self.shared))
    }

    /// What an event needs to be sent.
    ///
    /// # Errors
    /// What becomes of it instead.
    pub(crate) fn ready<'a>(
        &self,
        subject: &Subject<'a>,
        scratch: &'a mut Scratch,
    ) -> Result<Ready<'a>, Outcome> {
        let Scratch { topic: last, room } = scratch;
        let (key, values) = self.mapping.content(subject, &self.identity, room)?;
        let name = self.mapping.topics.of(subject).map_err(Outcome::Rejected)?;
        let topic = match last {
            Some(last) if last.name == *name => Arc::clone(last),
            _ => self.known.admit(&name).map_err(Outcome::Rejected)?,
        };
        if !matches!(last, Some(last) if Arc::ptr_eq(last, &topic)) {
            *last = Some(Arc::clone(&topic));
        }
        Ok(Ready { topic, key, values })
    }
}

/// An event that can be sent.
pub(crate) struct Ready<'a> {
    pub topic: Arc<Topic>,
    pub key: Option<Cow<'a, str>>,
    pub values: Values<'a>,
}

/// Where an event stands: a batch, and which of its events.
type Place = (Arc<Pending>, usize);

/// The destination.
#[derive(Debug)]
pub(crate) struct Producer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    common: Common,
    /// The client, for whose turn it is to hand a batch over. `None` while there is none.
    turn: tokio::sync::Mutex<Slot>,
    /// Changes when something was given up: who waited behind it must not go before it.
    epoch: AtomicU64,
    given: Given,
    closed: CancellationToken,
}

/// The client of now.
#[derive(Default)]
struct Slot(Option<Client>);

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Slot").field(&self.0.is_some()).finish()
    }
}

/// Batches that were given up while their records were with the client.
#[derive(Debug, Default)]
struct Given(Mutex<Vec<Arc<Pending>>>);

impl Given {
    /// Where the event of this number is with the client, or was decided.
    fn find(&self, seq: u64) -> Option<Place> {
        let given = self.0.lock();
        // Its last attempt is what counts.
        given.iter().rev().find_map(|pending| {
            let item = pending.find(seq)?;
            Some((Arc::clone(pending), item))
        })
    }

    /// Whether nothing was given up that may come again.
    fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Nothing below this number will come again.
    fn forget(&self, first: u64) {
        self.0.lock().retain(|pending| pending.last() >= first);
    }
}

/// The batches that an attempt waits for; given up when it ends before they are decided.
struct Claims<'a> {
    given: &'a Given,
    pending: Vec<Arc<Pending>>,
}

impl Claims<'_> {
    fn add(&mut self, pending: &Arc<Pending>) {
        if !self.pending.iter().any(|known| Arc::ptr_eq(known, pending)) {
            self.pending.push(Arc::clone(pending));
        }
    }

    async fn wait(&self) {
        for pending in &self.pending {
            pending.wait().await;
        }
    }
}

impl Drop for Claims<'_> {
    fn drop(&mut self) {
        let mut given = self.given.0.lock();
        for pending in self.pending.drain(..) {
            if !given.iter().any(|known| Arc::ptr_eq(known, &pending)) {
                given.push(pending);
            }
        }
    }
}

/// An attempt that ends before its batch was handed over stops those behind it.
pub(crate) struct Ahead<'a> {
    pub epoch: &'a AtomicU64,
    pub done: bool,
}

impl Drop for Ahead<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Producer {
    /// Starts it. Brokers need not be there.
    ///
    /// # Errors
    /// When no client can be made of these settings.
    pub(crate) fn start(common: Common, lifecycle: &Lifecycle) -> Result<Producer, Reason> {
        let client = common.client("")?;
        let name = format!("kafka client of {}", common.name);
        let inner = Arc::new(Inner {
            common,
            turn: tokio::sync::Mutex::new(Slot(Some(client))),
            epoch: AtomicU64::new(0),
            given: Given::default(),
            closed: CancellationToken::new(),
        });
        let keeper = Arc::clone(&inner);
        let (closed, cut) = (inner.closed.clone(), lifecycle.cut());
        lifecycle.spawn(name, async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = cut.cancelled() => {}
                () = keeper.keep() => {}
            }
        });
        Ok(Producer { inner })
    }
}

impl Destination for Producer {
    async fn deliver(&self, batch: &Batch) -> Delivery {
        let inner = &self.inner;
        let stall = inner.common.config.stall_timeout.0;
        let deadline = tokio::time::Instant::now() + stall;
        let mut claims = Claims {
            given: &inner.given,
            pending: Vec::new(),
        };
        let handing = inner.hand_over(batch, &mut claims);
        let mut places = match tokio::time::timeout_at(deadline, handing).await {
            Ok(Ok(places)) => places,
            Ok(Err(why)) => return Delivery::Retry { why, after: None },
            Err(_) => {
                let why = inner.trouble();
                return Delivery::Retry { why, after: None };
            }
        };
        let in_time = tokio::time::timeout_at(deadline, claims.wait())
            .await
            .is_ok();
        let mut outcomes = Vec::with_capacity(places.len());
        for (pending, item) in places.drain(..) {
            let outcome = pending.outcome(item);
            outcomes.push(outcome.unwrap_or_else(|| Outcome::Retry(inner.trouble())));
        }
        if in_time {
            // All of it is decided, and told.
            claims.pending.clear();
            let isolating = inner.isolate(batch.events(), &mut outcomes);
            if tokio::time::timeout_at(deadline, isolating).await.is_err() {
                let late = || Outcome::Retry(inner.trouble());
                outcomes
                    .iter_mut()
                    .filter(|outcome| outcome::is_of_request(outcome))
                    .for_each(|outcome| *outcome = late());
            }
        }
        if outcomes
            .iter()
            .all(|outcome| *outcome == Outcome::Delivered)
        {
            Delivery::All
        } else {
            Delivery::Each(outcomes)
        }
    }

    async fn close(&self) {
        self.inner.closed.cancel();
        let client = self.inner.turn.lock().await.0.take();
        if let Some(client) = client {
            // What it still has was given up, and is in the buffer.
            detach(client);
        }
    }
}

/// Lets a client end by itself, on a thread of its own: its end blocks for as long as its own threads take.
pub(crate) fn detach(client: Client) {
    let ends = std::thread::Builder::new().name("kafka client ends".to_owned());
    if let Err(error) = ends.spawn(move || drop(client)) {
        tracing::warn!(%error, "no thread to end a client of Kafka on");
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            detach(client);
        }
    }
}

/// Ends a client on a thread of its own: it blocks. What it could not send comes back.
async fn end(client: Client) {
    tokio::task::spawn_blocking(move || drop(client)).await.ok();
}

/// Two halves, the first one last; one that cannot be halved as it is.
fn halves(all: &[usize]) -> Vec<Vec<usize>> {
    if all.len() < 2 {
        return vec![all.to_vec()];
    }
    let (left, right) = all.split_at(all.len() / 2);
    vec![right.to_vec(), left.to_vec()]
}

impl Inner {
    /// Hands a batch to the client, in its turn. Answers where each event stands.
    async fn hand_over(
        &self,
        batch: &Batch,
        claims: &mut Claims<'_>,
    ) -> Result<Vec<Place>, Reason> {
        let epoch = self.epoch.load(Ordering::Acquire);
        let mut ahead = Ahead {
            epoch: &self.epoch,
            done: false,
        };
        let turn = self.turn.lock().await;
        if self.epoch.load(Ordering::Acquire) != epoch {
            let detail = "an earlier batch was not handed to the client";
            return Err(Reason::new(outcome::BEHIND_ANOTHER, detail));
        }
        let Some(client) = &turn.0 else {
            return Err(self.trouble());
        };
        let (mut places, fresh) = self.claim(batch, claims);
        let pending = Pending::new(&fresh);
        claims.add(&pending);
        let mut scratch = Scratch::default();
        for (item, event) in fresh.iter().enumerate() {
            self.send(client, event, &pending, item, epoch, &mut scratch)
                .await?;
            pending.handed_over(item);
        }
        ahead.done = true;
        drop(turn);
        let mut own = (0..fresh.len()).map(|item| (Arc::clone(&pending), item));
        let places = places
            .drain(..)
            .filter_map(|place| place.or_else(|| own.next()));
        Ok(places.collect())
    }

    /// A broker says of a whole request that it is too large. Sends what was in such a request in ever smaller parts, with
    /// nothing else on its way, until the events that are to blame are alone.
    async fn isolate(&self, events: &[Event], outcomes: &mut [Outcome]) -> Option<()> {
        let blamed = |outcomes: &[Outcome]| -> Vec<usize> {
            (0..outcomes.len())
                .filter(|i| outcomes.get(*i).is_some_and(outcome::is_of_request))
                .collect()
        };
        let first = blamed(outcomes);
        if first.is_empty() {
            return None;
        }
        let turn = self.turn.lock().await;
        let client = turn.0.as_ref()?;
        while client.in_flight_count() > 0 {
            self.room().await;
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        let mut scratch = Scratch::default();
        // Half of them first: they were together already.
        let mut parts = halves(&first);
        while let Some(part) = parts.pop() {
            let of_part: Vec<&Event> = part.iter().filter_map(|i| events.get(*i)).collect();
            let pending = Pending::new(&of_part);
            for (item, event) in of_part.iter().enumerate() {
                self.send(client, event, &pending, item, epoch, &mut scratch)
                    .await
                    .ok()?;
                pending.handed_over(item);
            }
            pending.wait().await;
            let told: Vec<Outcome> = (0..part.len())
                .map(|item| pending.outcome(item).unwrap_or(Outcome::Delivered))
                .collect();
            if part.len() > 1 && told.iter().any(outcome::is_of_request) {
                let again: Vec<usize> = blamed(&told)
                    .into_iter()
                    .filter_map(|item| part.get(item).copied())
                    .collect();
                parts.extend(halves(&again));
            }
            for (at, outcome) in part.iter().zip(told) {
                if let Some(slot) = outcomes.get_mut(*at) {
                    *slot = outcome;
                }
            }
        }
        Some(())
    }

    /// Which events are with the client already, and which are to be sent.
    fn claim<'b>(
        &self,
        batch: &'b Batch,
        claims: &mut Claims<'_>,
    ) -> (Vec<Option<Place>>, Vec<&'b Event>) {
        if let Some(first) = batch.events().first() {
            self.given.forget(first.seq);
        }
        if self.given.is_empty() {
            return (vec![None; batch.len()], batch.events().iter().collect());
        }
        let mut fresh = Vec::with_capacity(batch.len());
        let mut places = Vec::with_capacity(batch.len());
        for event in batch.events() {
            let found = self.given.find(event.seq).filter(|(pending, item)| {
                // What came back from the client is sent anew.
                let outcome = pending.outcome(*item);
                !matches!(outcome, Some(Outcome::Retry(_) | Outcome::Later(_)))
            });
            match &found {
                Some((pending, _)) => claims.add(pending),
                None => fresh.push(event),
            }
            places.push(found);
        }
        (places, fresh)
    }

    /// Hands the records of one event to the client. Waits for room in its queue.
    async fn send(
        &self,
        client: &Client,
        event: &Event,
        pending: &Arc<Pending>,
        item: usize,
        epoch: u64,
        scratch: &mut Scratch,
    ) -> Result<(), Reason> {
        let Common {
            mapping, identity, ..
        } = &self.common;
        let subject = Subject::new(event);
        let ready = self.common.ready(&subject, scratch);
        let ready = match ready {
            Ok(ready) => ready,
            Err(outcome) => {
                pending.decide(item, outcome);
                return Ok(());
            }
        };
        for part in 0..ready.values.len() {
            let headers = owned_headers(mapping, &subject, identity, part);
            let mut record =
                BaseRecord::with_opaque_to(&ready.topic.name, pending.ticket(item, &ready.topic))
                    .payload(ready.values.get(part))
                    .timestamp(Mapping::timestamp(&subject));
            record.headers = headers;
            record.key = ready.key.as_deref();
            let mut waited = false;
            loop {
                let Err((error, back)) = client.send(record) else {
                    break;
                };
                let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
                if code == Code::QueueFull {
                    record = back;
                    if !waited {
                        waited = true;
                        self.common
                            .shared
                            .stats
                            .queue_full
                            .fetch_add(1, Ordering::Relaxed);
                    }
                    self.room().await;
                    if self.epoch.load(Ordering::Acquire) == epoch {
                        continue;
                    }
                    record.delivery_opaque.withdraw();
                    return Err(self.trouble());
                }
                back.delivery_opaque.report(code);
                if code == Code::Fatal {
                    self.common.shared.fatal.notify_one();
                    return Err(Reason::new(outcome::PRODUCER_RESTARTED, error.to_string()));
                }
                break;
            }
        }
        Ok(())
    }

    async fn room(&self) {
        tokio::time::timeout(ROOM, self.common.shared.room.notified())
            .await
            .ok();
    }

    /// Why nothing is confirmed.
    fn trouble(&self) -> Reason {
        self.common.shared.trouble().unwrap_or_else(|| {
            let stall = self.common.config.stall_timeout.0;
            Reason::new(
                outcome::NOT_CONFIRMED,
                format!("not confirmed within {stall:?}"),
            )
        })
    }

    /// Makes the client anew when it can no longer be used.
    async fn keep(&self) {
        let mut born = tokio::time::Instant::now();
        let mut wait = RESTART_MIN;
        loop {
            self.common.shared.fatal.notified().await;
            // Who is handing over stops, and so do those behind.
            self.epoch.fetch_add(1, Ordering::AcqRel);
            let mut turn = self.turn.lock().await;
            let Some(client) = turn.0.take() else {
                continue;
            };
            if let Some((code, why)) = client.client().fatal_error() {
                tracing::error!(
                    destination = self.common.name,
                    ?code,
                    "kafka: {why}; the client is made anew, what was not confirmed is sent again"
                );
            }
            // Gives back every record that is not confirmed.
            end(client).await;
            wait = if born.elapsed() > LIVED {
                RESTART_MIN
            } else {
                wait
            };
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RESTART_MAX);
            while turn.0.is_none() {
                match self.common.client("") {
                    Ok(client) => turn.0 = Some(client),
                    Err(why) => {
                        tracing::error!(destination = self.common.name, %why, "no client");
                        tokio::time::sleep(wait).await;
                        wait = (wait * 2).min(RESTART_MAX);
                    }
                }
            }
            born = tokio::time::Instant::now();
            self.common.shared.stats.restarted();
        }
    }
}
