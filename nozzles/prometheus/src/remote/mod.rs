//! A destination that writes: every batch becomes samples, and counts as delivered when the receiver has confirmed them.
//!
//! A batch is folded into the store once, however often it is tried. Of each series that it changed one sample is made, with
//! the time of the last event that changed it; samples of one series have growing times. They are kept until the receiver has
//! confirmed them, so that a part of a batch, too, finds the samples of its events.

mod answer;
mod client;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use loggregator_nozzle::{
    Batch, Context, Delivery, Destination, Event, Outcome, Reason, StartError,
};
use parking_lot::Mutex;
use tokio::time::Instant;

use self::answer::Verdict;
use self::client::{Receiver, SendError};
use self::wire::Snapshot;
use crate::clock::unix_millis;
use crate::config::{Mapping, Protocol, RemoteWrite};
use crate::scrape::sweep_interval;
use crate::store::data::Data;
use crate::store::{Folded, Place, Refusal, Store};
use crate::{metrics, reason};

/// An event may be so far ahead of its arrival before its time is not believed, milliseconds.
const MAX_AHEAD: i64 = 600_000;
/// After so long without a batch the nozzle has caught up, and series expire by the clock of the machine.
const CAUGHT_UP: Duration = Duration::from_secs(30);
/// Ended series whose markers wait for the receiver.
const MAX_ENDED: usize = 10_000;
/// How often certificate files are looked at.
const TLS_CHECK: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Remote {
    map: Arc<Mapping>,
    store: Arc<Mutex<Store>>,
    receiver: Receiver,
    max_samples: usize,
    /// Whether 2.0 is spoken; false for ever once the receiver does not know it.
    v2: AtomicBool,
    counts: Arc<RemoteCounts>,
    /// Held while something is sent: samples of a series stay in order.
    sending: tokio::sync::Mutex<Sending>,
}

/// What a writer counts.
#[derive(Debug, Default)]
pub(crate) struct RemoteCounts {
    /// By outcome: written, later, refused, failed.
    pub requests: [AtomicU64; 4],
    pub samples: AtomicU64,
    pub markers: AtomicU64,
    pub markers_dropped: AtomicU64,
}

impl RemoteCounts {
    pub(crate) const OUTCOMES: [&'static str; 4] = ["written", "later", "refused", "failed"];
}

/// What is on its way.
#[derive(Debug)]
struct Sending {
    /// Events below this number are in the store.
    folded: u64,
    /// What the receiver has not confirmed, with the number of the event that made it.
    pending: BTreeMap<Place, (u64, Snapshot)>,
    /// Why events that are in the store were refused, until their batch is over.
    refused: BTreeMap<u64, Refusal>,
    /// Ends of series, not written yet.
    ended: Vec<Snapshot>,
    /// The store's clock: when the newest event came, milliseconds since 1970.
    newest: u64,
    last_batch: Instant,
}

pub(crate) fn start(
    config: &RemoteWrite,
    map: &Arc<Mapping>,
    context: &Context,
) -> Result<Arc<Remote>, StartError> {
    let receiver = Receiver::new(config).map_err(|error| StartError {
        destination: context.name.clone(),
        what: "cannot use the certificates of `remote_write`".to_owned(),
        source: Some(error.into()),
    })?;
    let (lifecycle, name) = (&context.lifecycle, &context.name);
    if let Some(tls) = receiver.tls() {
        let watch = Arc::clone(tls).watch(TLS_CHECK, lifecycle.token());
        lifecycle.spawn(format!("{name} certificates"), watch);
    }
    let mut store = Store::new(Arc::clone(map));
    store.track();
    let remote = Arc::new(Remote {
        map: Arc::clone(map),
        store: Arc::new(Mutex::new(store)),
        receiver,
        max_samples: config.max_samples,
        v2: AtomicBool::new(config.protocol == Protocol::V2),
        counts: Arc::default(),
        sending: tokio::sync::Mutex::new(Sending {
            folded: 0,
            pending: BTreeMap::new(),
            refused: BTreeMap::new(),
            ended: Vec::new(),
            newest: 0,
            last_batch: Instant::now(),
        }),
    });
    metrics::collect(context, &remote.store, None, Some(&remote.counts));
    lifecycle.spawn(format!("{name} expiry"), {
        let (remote, stop) = (Arc::clone(&remote), lifecycle.token());
        let every = sweep_interval(map);
        async move {
            let turn = || async {
                tokio::time::sleep(every).await;
                remote.end_series().await;
            };
            while stop.run_until_cancelled(turn()).await.is_some() {}
        }
    });
    Ok(remote)
}

/// Asks the receiver whether it would take anything.
pub(crate) async fn probe(config: &RemoteWrite) -> Result<String, Reason> {
    let receiver = Receiver::new(config).map_err(|error| Reason::new("tls", error.to_string()))?;
    let empty = wire::encode(&[], config.protocol);
    match receiver.send(&empty, config.protocol).await {
        Ok(answer) if matches!(answer.verdict, Verdict::Written | Verdict::FallBack) => {
            Ok(format!("the receiver answers {}", answer.status))
        }
        Ok(answer) => Err(told(&answer)),
        Err(error) => Err(Reason::new(error.code(), error.to_string())),
    }
}

impl Remote {
    fn protocol(&self) -> Protocol {
        if self.v2.load(Relaxed) {
            Protocol::V2
        } else {
            Protocol::V1
        }
    }

    /// Folds events that are not in the store yet, and makes the samples of the series that they changed.
    fn fold(&self, sending: &mut Sending, batch: &Batch) {
        let mut store = self.store.lock();
        for event in batch.events() {
            if event.seq < sending.folded {
                continue;
            }
            sending.folded = event.seq + 1;
            let came = u64::try_from(event.received / 1_000_000).unwrap_or_default();
            sending.newest = sending.newest.max(came);
            if let Folded::Refused(refusal) = store.fold(event, sending.newest) {
                sending.refused.insert(event.seq, refusal);
            }
            let at = time_of(event);
            for place in store.take_touched() {
                let Some((head, series)) = store.at(place) else {
                    continue;
                };
                let gauge = matches!(series.data, Data::Gauge(_));
                if gauge && at <= series.sent {
                    // Overtaken by a newer value.
                    continue;
                }
                // What only grows is as true a moment later.
                let at = at.max(series.sent.saturating_add(1));
                series.sent = at;
                let snapshot = Snapshot {
                    head: Arc::clone(head),
                    labels: Arc::clone(&series.labels),
                    data: series.data.clone(),
                    at,
                    stale: false,
                };
                sending.pending.insert(place, (event.seq, snapshot));
            }
        }
    }

    /// Sends snapshots in requests of a bounded size; returns how many were written before something went wrong.
    async fn write(&self, snapshots: &[Snapshot]) -> (usize, Result<(), Failure>) {
        let mut from = 0;
        while from < snapshots.len() {
            let (mut to, mut samples) = (from, 0);
            while to < snapshots.len()
                && (to == from || samples + snapshots[to].len() <= self.max_samples)
            {
                samples += snapshots[to].len();
                to += 1;
            }
            if let Err(failure) = self.request(&snapshots[from..to]).await {
                return (from, Err(failure));
            }
            self.counts.samples.fetch_add(samples as u64, Relaxed);
            from = to;
        }
        (from, Ok(()))
    }

    async fn request(&self, snapshots: &[Snapshot]) -> Result<(), Failure> {
        loop {
            let protocol = self.protocol();
            let body = wire::encode(snapshots, protocol);
            let count = |outcome: usize| self.counts.requests[outcome].fetch_add(1, Relaxed);
            let answer = match self.receiver.send(&body, protocol).await {
                Ok(answer) => answer,
                Err(error) => {
                    count(3);
                    return Err(Failure::Unsent(error));
                }
            };
            let why = told(&answer);
            match answer.verdict {
                Verdict::Written => {
                    count(0);
                    return Ok(());
                }
                Verdict::FallBack => {
                    tracing::warn!("the receiver does not know remote write 2.0; 1.0 from now on");
                    self.v2.store(false, Relaxed);
                }
                Verdict::Later(after) => {
                    count(1);
                    return Err(Failure::Later(why, after));
                }
                Verdict::Split => {
                    count(2);
                    return Err(Failure::Split(why));
                }
                Verdict::TooLarge => {
                    count(2);
                    return Err(Failure::TooLarge(why));
                }
                Verdict::Never => {
                    count(2);
                    return Err(Failure::Never(why));
                }
            }
        }
    }

    /// Tells the receiver which series have ended, so that it does not show their last value for minutes.
    async fn end_series(&self) {
        let mut sending = self.sending.lock().await;
        // With a batch on its way, or a backlog, time stands where the events are.
        let caught_up = sending.pending.is_empty() && sending.last_batch.elapsed() > CAUGHT_UP;
        let wall = u64::try_from(unix_millis()).unwrap_or_default();
        let now = if caught_up {
            wall.max(sending.newest)
        } else {
            sending.newest
        };
        let counts = &self.counts;
        self.store.lock().sweep(now, |head, series| {
            if series.sent == i64::MIN {
                return;
            }
            if sending.ended.len() >= MAX_ENDED {
                counts.markers_dropped.fetch_add(1, Relaxed);
                return;
            }
            let now = i64::try_from(now).unwrap_or(i64::MAX);
            sending.ended.push(Snapshot {
                head: Arc::clone(head),
                labels: series.labels,
                data: series.data,
                at: now.max(series.sent.saturating_add(1)),
                stale: true,
            });
        });
        if sending.ended.is_empty() || !sending.pending.is_empty() {
            return;
        }
        let (written, result) = self.write(&sending.ended).await;
        sending.ended.drain(..written);
        counts.markers.fetch_add(written as u64, Relaxed);
        if let Err(Failure::Split(_) | Failure::TooLarge(_) | Failure::Never(_)) = result {
            // The receiver will not take them, now or later.
            let dropped = sending.ended.len() as u64;
            counts.markers_dropped.fetch_add(dropped, Relaxed);
            sending.ended.clear();
        }
    }
}

impl Destination for Remote {
    async fn deliver(&self, batch: &Batch) -> Delivery {
        let mut sending = self.sending.lock().await;
        sending.last_batch = Instant::now();
        self.fold(&mut sending, batch);
        let events = batch.events();
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return Delivery::All;
        };
        // Batches come in their order: what is older and still here is of events that were given up, and true all the same.
        let last = last.seq;
        sending.refused = sending.refused.split_off(&first.seq);
        let (places, snapshots): (Vec<Place>, Vec<Snapshot>) = sending
            .pending
            .iter()
            .filter(|(_, (seq, _))| *seq <= last)
            .map(|(place, (_, snapshot))| (*place, snapshot.clone()))
            .unzip();
        let (written, result) = self.write(&snapshots).await;
        for place in &places[..written] {
            sending.pending.remove(place);
        }
        sending.last_batch = Instant::now();
        let Err(failure) = result else {
            return self.confirmed(&mut sending, batch);
        };
        match failure {
            Failure::Unsent(error) => Delivery::retry(Reason::new(error.code(), error.to_string())),
            Failure::Later(why, after) => Delivery::Retry { why, after },
            // What is refused for good must not come again with what follows.
            Failure::Split(why) => {
                if events.len() == 1 {
                    sending.pending.retain(|_, (seq, _)| *seq > last);
                }
                Delivery::Refused(why)
            }
            Failure::TooLarge(why) => {
                if events.len() == 1 {
                    sending.pending.retain(|_, (seq, _)| *seq > last);
                }
                Delivery::TooLarge(why)
            }
            Failure::Never(why) => {
                sending.pending.retain(|_, (seq, _)| *seq > last);
                let outcome = Outcome::Rejected(why);
                Delivery::Each(vec![outcome; events.len()])
            }
        }
    }
}

impl Remote {
    fn confirmed(&self, sending: &mut Sending, batch: &Batch) -> Delivery {
        let mut any = false;
        let outcomes: Vec<Outcome> = batch
            .events()
            .iter()
            .map(|event| match sending.refused.remove(&event.seq) {
                None => Outcome::Delivered,
                Some(refusal) => {
                    any = true;
                    Outcome::Rejected(reason(refusal, &self.map))
                }
            })
            .collect();
        if any {
            Delivery::Each(outcomes)
        } else {
            Delivery::All
        }
    }
}

/// Why something was not written.
#[derive(Debug)]
enum Failure {
    Unsent(SendError),
    Later(Reason, Option<Duration>),
    Split(Reason),
    TooLarge(Reason),
    Never(Reason),
}

/// An answer as a reason, `status_503`.
fn told(answer: &client::Answer) -> Reason {
    Reason::new(
        format!("status_{}", answer.status.as_u16()),
        answer.text.clone(),
    )
}

/// When the event happened, or came where its time cannot be right; milliseconds since 1970.
fn time_of(event: &Event) -> i64 {
    let (at, came) = (
        event.envelope().timestamp() / 1_000_000,
        event.received / 1_000_000,
    );
    if at > 0 && at <= came.saturating_add(MAX_AHEAD) {
        at
    } else {
        came
    }
}
