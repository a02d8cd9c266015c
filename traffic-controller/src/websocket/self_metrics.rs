//! What the traffic controller tells about itself through the pipeline: metrics, and an event for each slow consumer, under
//! the names that dashboards of the Go traffic controller use.
//!
//! Everything goes to the local agent, which adds its tags and hands it on like everybody else's. Counters carry the delta
//! since the last emission that succeeded, so that a lost agent costs resolution and no counts; events that no agent takes
//! are let go of, the counter of slow consumers has them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use loggregator_net::grpc::{Channel, ClientSender, PendingResponse, Status};
use loggregator_proto::{rpc, v2};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::accounts::{Accounts, Endpoint};
use crate::websocket::{FIREHOSE, STREAM};

/// The source id of everything here.
const SOURCE_ID: &str = "traffic_controller";
/// Tag `origin` of every own metric.
const ORIGIN: &str = "loggregator.trafficcontroller";
/// Tag `metric_version` of every own metric.
const METRIC_VERSION: &str = "2.0";
/// Events that wait for the agent; more are let go of.
const EVENTS_WAITING: usize = 100;
/// How long an event may take.
const EVENT_DEADLINE: Duration = Duration::from_secs(1);

const EVENT_TITLE: &str = "Traffic Controller has disconnected slow consumer";
const EVENT_TEXT: &str = "The connection was cut because it took nothing for several seconds, so that it holds up nobody \
    else. Usual causes are a nozzle with too few instances for the load, and a slow line to the user.";

/// A client that was found not to read.
#[derive(Debug)]
pub(crate) struct SlowConsumer {
    /// The client's address.
    pub(crate) remote_addr: String,
    /// What its `X-Forwarded-For` headers said.
    pub(crate) forwarded_for: String,
    /// What it asked for, query included.
    pub(crate) path: String,
}

/// Where slow consumers are reported; never waits.
#[derive(Debug, Clone)]
pub(crate) struct SlowConsumers(Option<mpsc::Sender<SlowConsumer>>);

impl SlowConsumers {
    /// Reports go nowhere: there is no agent.
    pub(crate) fn nowhere() -> Self {
        Self(None)
    }

    pub(crate) fn report(&self, slow: SlowConsumer) {
        let Some(queue) = &self.0 else { return };
        if queue.try_send(slow).is_err() {
            debug!("an event about a slow consumer was let go of: too many are waiting");
        }
    }
}

/// Emits metrics and events to the local agent until `stop`.
pub(crate) struct SelfMetrics {
    accounts: Arc<Accounts>,
    interval: Duration,
    channel: Channel,
    stream: Option<(ClientSender, PendingResponse)>,
    emitted: [u64; COUNTERS.len()],
    events: mpsc::Receiver<SlowConsumer>,
}

/// One counter: its name, its own tag.
const COUNTERS: [(&str, Option<(&str, &str)>); 4] = [
    ("ingress", Some(("protocol", "grpc"))),
    ("egress", Some(("endpoint", "firehose"))),
    ("egress", Some(("endpoint", "stream"))),
    ("doppler_proxy.slow_consumer", None),
];

const GAUGES: [(&str, Endpoint); 2] = [
    ("doppler_proxy.firehoses", FIREHOSE),
    ("doppler_proxy.app_streams", STREAM),
];

impl SelfMetrics {
    /// Emitter of these accounts' metrics, and where slow consumers are to be reported. An interval of zero means no
    /// metrics; events are sent all the same.
    pub(crate) fn new(
        accounts: Arc<Accounts>,
        interval: Duration,
        channel: Channel,
    ) -> (Self, SlowConsumers) {
        let (queue, events) = mpsc::channel(EVENTS_WAITING);
        let emitter = Self {
            accounts,
            interval,
            channel,
            stream: None,
            emitted: [0; COUNTERS.len()],
            events,
        };
        (emitter, SlowConsumers(Some(queue)))
    }

    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let never = self.interval.is_zero();
        let period = if never {
            Duration::from_secs(86_400)
        } else {
            self.interval
        };
        let mut ticks = interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(slow) = self.events.recv() => self.event(&slow).await,
                _ = ticks.tick(), if !never => {
                    // An agent that takes nothing for an interval is as good as gone.
                    let limit = period.max(Duration::from_secs(1));
                    match timeout(limit, self.metrics()).await {
                        Ok(Ok(())) => {}
                        Ok(Err(status)) => self.lost(&status),
                        Err(_) => self.lost(&Status::unavailable("the agent takes nothing")),
                    }
                }
            }
        }
    }

    fn lost(&mut self, status: &Status) {
        self.stream = None;
        debug!(%status, "own metrics could not be sent to the agent");
    }

    async fn metrics(&mut self) -> Result<(), Status> {
        let totals = totals(&self.accounts);
        for (i, total) in totals.into_iter().enumerate() {
            let delta = total.saturating_sub(self.emitted[i]);
            self.send(&counter(i, delta, now())).await?;
            self.emitted[i] += delta;
        }
        for (name, endpoint) in GAUGES {
            let open = self
                .accounts
                .totals
                .of(endpoint)
                .clients
                .load(Ordering::Relaxed);
            self.send(&gauge(name, open, now())).await?;
        }
        Ok(())
    }

    async fn event(&mut self, slow: &SlowConsumer) {
        let envelope = event(slow, now());
        match timeout(EVENT_DEADLINE, self.send(&envelope)).await {
            Ok(Ok(())) => {}
            Ok(Err(status)) => self.lost(&status),
            Err(_) => self.lost(&Status::unavailable("the agent takes nothing")),
        }
    }

    async fn send(&mut self, envelope: &v2::Envelope) -> Result<(), Status> {
        let bytes = Bytes::from(envelope.encode_to_vec());
        if self.stream.is_none() {
            self.stream = Some(self.channel.client_stream(rpc::INGRESS_SENDER).await?);
        }
        let Some((sender, _)) = &mut self.stream else {
            return Ok(());
        };
        sender
            .send(bytes)
            .await
            .map_err(|_| Status::unavailable("the agent ended the stream"))
    }
}

fn totals(accounts: &Accounts) -> [u64; COUNTERS.len()] {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let totals = &accounts.totals;
    let sum = |of: fn(&crate::accounts::Sums) -> &AtomicU64| {
        [FIREHOSE, STREAM]
            .map(|e| read(of(totals.of(e))))
            .iter()
            .sum()
    };
    [
        read(&totals.ingress),
        read(&totals.of(FIREHOSE).egress),
        read(&totals.of(STREAM).egress),
        sum(|sums| &sums.slow_consumers),
    ]
}

fn counter(index: usize, delta: u64, timestamp: i64) -> v2::Envelope {
    let (name, tag) = COUNTERS[index];
    let message = v2::envelope::Message::Counter(v2::Counter {
        name: name.to_owned(),
        delta,
        total: 0,
    });
    metric(message, tag, timestamp)
}

fn gauge(name: &str, value: u64, timestamp: i64) -> v2::Envelope {
    #[allow(clippy::cast_precision_loss)] // a number of connections
    let value = v2::GaugeValue {
        unit: "connections".to_owned(),
        value: value as f64,
    };
    let metrics = BTreeMap::from([(name.to_owned(), value)]);
    metric(
        v2::envelope::Message::Gauge(v2::Gauge { metrics }),
        None,
        timestamp,
    )
}

fn metric(
    message: v2::envelope::Message,
    tag: Option<(&str, &str)>,
    timestamp: i64,
) -> v2::Envelope {
    let tags = [("origin", ORIGIN), ("metric_version", METRIC_VERSION)]
        .into_iter()
        .chain(tag);
    let text = |value: &str| v2::Value {
        data: Some(v2::value::Data::Text(value.to_owned())),
    };
    v2::Envelope {
        timestamp,
        source_id: SOURCE_ID.to_owned(),
        deprecated_tags: tags
            .map(|(name, value)| (name.to_owned(), text(value)))
            .collect(),
        message: Some(message),
        ..Default::default()
    }
}

fn event(slow: &SlowConsumer, timestamp: i64) -> v2::Envelope {
    let SlowConsumer {
        remote_addr,
        forwarded_for,
        path,
    } = slow;
    let body = format!(
        "Remote Address: {remote_addr}\nX-Forwarded-For: {forwarded_for}\nPath: {path}\n\n{EVENT_TEXT}"
    );
    let event = v2::Event {
        title: EVENT_TITLE.to_owned(),
        body,
    };
    v2::Envelope {
        timestamp,
        source_id: SOURCE_ID.to_owned(),
        message: Some(v2::envelope::Message::Event(event)),
        ..Default::default()
    }
}

/// Nanoseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(envelope: &v2::Envelope) -> Vec<(&str, &str)> {
        assert!(envelope.tags.is_empty());
        let text = |value: &'_ v2::Value| match &value.data {
            Some(v2::value::Data::Text(text)) => text.clone(),
            other => panic!("{other:?}"),
        };
        envelope
            .deprecated_tags
            .iter()
            .map(|(name, value)| (name.as_str(), &*text(value).leak()))
            .collect()
    }

    #[test]
    fn metrics_have_the_names_and_tags_of_the_go_traffic_controller() {
        let ingress = counter(0, 6, 5);
        assert_eq!(
            (ingress.timestamp, ingress.source_id.as_str()),
            (5, "traffic_controller")
        );
        assert_eq!(
            tags(&ingress),
            [
                ("metric_version", "2.0"),
                ("origin", "loggregator.trafficcontroller"),
                ("protocol", "grpc")
            ]
        );
        let expected = v2::Counter {
            name: "ingress".to_owned(),
            delta: 6,
            total: 0,
        };
        assert_eq!(
            ingress.message,
            Some(v2::envelope::Message::Counter(expected))
        );
        assert_eq!(tags(&counter(2, 0, 5))[0], ("endpoint", "stream"));

        let gauge = gauge("doppler_proxy.firehoses", 3, 5);
        let Some(v2::envelope::Message::Gauge(gauge)) = gauge.message else {
            panic!("no gauge")
        };
        let expected = v2::GaugeValue {
            unit: "connections".to_owned(),
            value: 3.0,
        };
        assert_eq!(
            gauge.metrics.get("doppler_proxy.firehoses"),
            Some(&expected)
        );
    }

    #[test]
    fn the_event_tells_who_was_cut() {
        let slow = SlowConsumer {
            remote_addr: "10.0.0.1:99".to_owned(),
            forwarded_for: "1.2.3.4, 5.6.7.8".to_owned(),
            path: "/firehose/a?filter-type=logs".to_owned(),
        };
        let envelope = event(&slow, 1);
        assert!(envelope.deprecated_tags.is_empty());
        let Some(v2::envelope::Message::Event(event)) = envelope.message else {
            panic!("no event")
        };
        assert_eq!(
            event.title,
            "Traffic Controller has disconnected slow consumer"
        );
        let head: Vec<_> = event.body.lines().take(4).collect();
        assert_eq!(
            head,
            [
                "Remote Address: 10.0.0.1:99",
                "X-Forwarded-For: 1.2.3.4, 5.6.7.8",
                "Path: /firehose/a?filter-type=logs",
                ""
            ]
        );
    }

    #[test]
    fn counters_are_sums_over_both_endpoints_where_there_is_one_name() {
        let accounts = Accounts::new(crate::websocket::PROGRAM, String::new(), 1);
        for endpoint in [FIREHOSE, STREAM] {
            accounts
                .totals
                .of(endpoint)
                .slow_consumers
                .fetch_add(2, Ordering::Relaxed);
        }
        accounts
            .totals
            .of(STREAM)
            .egress
            .fetch_add(5, Ordering::Relaxed);
        assert_eq!(totals(&accounts), [0, 0, 5, 4]);
    }
}
