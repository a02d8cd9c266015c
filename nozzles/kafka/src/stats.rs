//! Statistics of the client, as metrics.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use loggregator_service::metrics::{Metrics, Samples, names};
use parking_lot::Mutex;
use serde::Deserialize;

use crate::topic::Known;

/// Counts of a destination, over all clients that it has had.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// Times that a record had to wait because the client's queue was full.
    pub queue_full: AtomicU64,
    /// Times that the client was rebuilt.
    pub restarts: AtomicU64,
    /// Transactions that were committed.
    pub committed: AtomicU64,
    /// Transactions that were aborted.
    pub aborted: AtomicU64,
    errors: Mutex<BTreeMap<Cow<'static, str>, u64>>,
    client: Mutex<Client>,
}

/// What the client said last, and what earlier ones had counted.
#[derive(Debug, Default)]
struct Client {
    now: Report,
    before: Totals,
}

/// Counters that begin at 0 with each client.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    requests: u64,
    bytes: u64,
    errors: u64,
    retries: u64,
    timeouts: u64,
}

/// The part of librdkafka's statistics that is looked at (its STATISTICS.md).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Report {
    msg_cnt: u64,
    msg_size: u64,
    msg_size_max: u64,
    tx: u64,
    tx_bytes: u64,
    brokers: HashMap<String, Broker>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Broker {
    nodeid: i64,
    state: String,
    txerrs: u64,
    txretries: u64,
    req_timeouts: u64,
    int_latency: Window,
    rtt: Window,
    throttle: Window,
}

/// Times in microseconds, of throttling in milliseconds.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Window {
    avg: u64,
    p99: u64,
    max: u64,
    cnt: u64,
}

impl Report {
    fn totals(&self) -> Totals {
        let sum = |of: fn(&Broker) -> u64| self.brokers.values().map(of).sum();
        Totals {
            requests: self.tx,
            bytes: self.tx_bytes,
            errors: sum(|broker| broker.txerrs),
            retries: sum(|broker| broker.txretries),
            timeouts: sum(|broker| broker.req_timeouts),
        }
    }

    /// The average and the 99th percentile over all brokers that have answered.
    fn latency(&self, of: fn(&Broker) -> Window) -> Option<(u64, u64)> {
        let windows = || self.brokers.values().map(of).filter(|w| w.cnt > 0);
        let count: u64 = windows().map(|window| window.cnt).sum();
        let weighted: u64 = windows().map(|window| window.avg * window.cnt).sum();
        let p99 = windows().map(|window| window.p99).max()?;
        Some((weighted / count.max(1), p99))
    }
}

impl Totals {
    fn add(&mut self, other: Totals) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.errors += other.errors;
        self.retries += other.retries;
        self.timeouts += other.timeouts;
    }
}

impl Stats {
    /// Takes the client's report.
    ///
    /// # Errors
    /// When it is not what it should be.
    pub(crate) fn take(&self, json: &[u8]) -> Result<(), serde_json::Error> {
        self.client.lock().now = serde_json::from_slice(json)?;
        Ok(())
    }

    /// Counts an error of the client as a whole.
    pub(crate) fn error(&self, code: Cow<'static, str>) {
        *self.errors.lock().entry(code).or_default() += 1;
    }

    /// Another client begins to count from 0.
    pub(crate) fn restarted(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
        let mut client = self.client.lock();
        let totals = std::mem::take(&mut client.now).totals();
        client.before.add(totals);
    }

    #[expect(clippy::cast_precision_loss, reason = "times of latencies are small")]
    fn collect(&self, destination: &str, known: &Known, samples: &mut Samples) {
        let only = [("destination", destination)];
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let client = self.client.lock();
        let mut totals = client.before;
        totals.add(client.now.totals());
        let now = &client.now;
        samples.gauge_count(&names::KAFKA_QUEUE_RECORDS, &only, now.msg_cnt);
        samples.gauge_count(&names::KAFKA_QUEUE_BYTES, &only, now.msg_size);
        samples.gauge_count(&names::KAFKA_QUEUE_MAX_BYTES, &only, now.msg_size_max);
        samples.counter(&names::KAFKA_QUEUE_FULL, &only, load(&self.queue_full));
        samples.counter(&names::KAFKA_REQUESTS, &only, totals.requests);
        samples.counter(&names::KAFKA_SENT_BYTES, &only, totals.bytes);
        samples.counter(&names::KAFKA_REQUEST_ERRORS, &only, totals.errors);
        samples.counter(&names::KAFKA_REQUEST_RETRIES, &only, totals.retries);
        samples.counter(&names::KAFKA_REQUEST_TIMEOUTS, &only, totals.timeouts);
        for (def, window) in [
            (&names::KAFKA_RTT, now.latency(|broker| broker.rtt)),
            (
                &names::KAFKA_QUEUE_TIME,
                now.latency(|broker| broker.int_latency),
            ),
        ] {
            let (average, p99) = window.unwrap_or_default();
            for (statistic, micros) in [("mean", average), ("p99", p99)] {
                let labels = [("destination", destination), ("statistic", statistic)];
                samples.gauge(def, &labels, micros as f64 / 1e6);
            }
        }
        let throttle = now.brokers.values().map(|b| b.throttle.max).max();
        samples.gauge(
            &names::KAFKA_THROTTLE,
            &only,
            throttle.unwrap_or(0) as f64 / 1e3,
        );
        // Bootstrap addresses are brokers of their own, with negative numbers, until the cluster has told its own.
        let connected = now
            .brokers
            .values()
            .filter(|b| b.nodeid >= 0 && b.state == "UP");
        samples.gauge_count(&names::KAFKA_BROKERS_UP, &only, connected.count() as u64);
        drop(client);
        samples.counter(&names::KAFKA_PRODUCER_RESTARTS, &only, load(&self.restarts));
        for (result, count) in [("committed", &self.committed), ("aborted", &self.aborted)] {
            let labels = [("destination", destination), ("result", result)];
            samples.counter(&names::KAFKA_TRANSACTIONS, &labels, load(count));
        }
        for (code, count) in &*self.errors.lock() {
            let labels = [("destination", destination), ("code", code)];
            samples.counter(&names::KAFKA_CLIENT_ERRORS, &labels, *count);
        }
        for topic in known.all() {
            let labels = [("destination", destination), ("topic", topic.name.as_str())];
            samples.counter(&names::KAFKA_DELIVERED, &labels, load(&topic.delivered));
        }
        samples.counter(&names::KAFKA_TOPIC_OVERFLOW, &only, load(&known.overflow));
    }
}

/// What a scrape reads, as long as the destination is there.
pub(crate) fn publish(
    metrics: &Metrics,
    destination: &str,
    shared: &Arc<crate::context::Shared>,
    known: &Arc<Known>,
) {
    let destination = destination.to_owned();
    let (shared, known): (Weak<_>, Weak<_>) = (Arc::downgrade(shared), Arc::downgrade(known));
    metrics.collect(move |samples| {
        if let (Some(shared), Some(known)) = (shared.upgrade(), known.upgrade()) {
            shared.stats.collect(&destination, &known, samples);
        }
    });
}
