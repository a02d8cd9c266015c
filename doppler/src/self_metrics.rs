//! The doppler's own metrics as envelopes, under the names that dashboards of the Go router use.
//!
//! Every interval, the first after one whole interval, six envelopes: counters `ingress`, `dropped`
//! (direction `ingress`), `dropped` (direction `egress`), `egress` twice (to v1 and to v2 readers;
//! consumers add them) and the gauge `subscriptions`. Counters carry the delta since the last
//! emission that succeeded, so that a lost agent costs resolution and no counts.
//!
//! They go to the local agent where one is configured, which adds its tags and brings them back like
//! everybody else's; otherwise straight into this doppler's own log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use loggregator_net::grpc::{Channel, ClientSender, PendingResponse, Status};
use loggregator_proto::{rpc, v2};
use prost::Message as _;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use crate::router::{Router, Stats};

/// Tag `origin` of every own metric.
const ORIGIN: &str = "loggregator.doppler";
/// Tag `metric_version` of every own metric.
const METRIC_VERSION: &str = "2.0";

/// Emits the metrics of `router` until `stop`.
pub(crate) struct SelfMetrics {
    pub(crate) router: Arc<Router>,
    pub(crate) interval: Duration,
    pub(crate) source_id: String,
    pub(crate) destination: Destination,
    pub(crate) stop: CancellationToken,
}

/// Where the metrics go.
pub(crate) enum Destination {
    /// The log of the doppler itself.
    Own,
    /// The local agent.
    Agent(Box<Agent>),
}

impl SelfMetrics {
    /// Emits one round per interval.
    pub(crate) async fn run(mut self) {
        let mut ticks = interval_at(Instant::now() + self.interval, self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut counters = Counters::default();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            counters.observe(&self.router.stats());
            match &mut self.destination {
                Destination::Own => self.emit_own(&mut counters),
                Destination::Agent(agent) => {
                    // An agent that takes nothing for an interval is as good as gone.
                    let round = agent.emit(&mut counters, &self.source_id);
                    if timeout(self.interval.max(Duration::from_secs(1)), round)
                        .await
                        .is_err()
                    {
                        agent.stream = None;
                    }
                }
            }
        }
    }

    fn emit_own(&self, counters: &mut Counters) {
        let metrics = counters.metrics();
        let batch = metrics
            .iter()
            .map(|metric| metric.envelope(&self.source_id, now()))
            .collect();
        let bytes = v2::EnvelopeBatch { batch }.encode_to_vec();
        match self.router.ingest(&bytes) {
            Ok(_) => metrics.iter().for_each(|metric| counters.sent(metric)),
            Err(error) => tracing::error!(%error, "own metrics do not parse"),
        }
    }
}

/// A stream to the local agent, opened when it is needed.
pub(crate) struct Agent {
    channel: Channel,
    stream: Option<(ClientSender, PendingResponse)>,
}

impl Agent {
    pub(crate) fn new(channel: Channel) -> Self {
        Self {
            channel,
            stream: None,
        }
    }

    /// Sends one round. What cannot be sent stays in the deltas of the next.
    async fn emit(&mut self, counters: &mut Counters, source_id: &str) {
        if let Err(status) = self.try_emit(counters, source_id).await {
            self.stream = None;
            tracing::debug!(%status, "own metrics could not be sent to the agent");
        }
    }

    async fn try_emit(&mut self, counters: &mut Counters, source_id: &str) -> Result<(), Status> {
        if self.stream.is_none() {
            self.stream = Some(self.channel.client_stream(rpc::INGRESS_SENDER).await?);
        }
        let Some((sender, _)) = &mut self.stream else {
            return Ok(());
        };
        for metric in counters.metrics() {
            let envelope = Bytes::from(metric.envelope(source_id, now()).encode_to_vec());
            sender
                .send(envelope)
                .await
                .map_err(|_| Status::unavailable("the agent ended the stream"))?;
            counters.sent(&metric);
        }
        Ok(())
    }
}

/// One counter: its name, its direction where it has one.
const COUNTERS: [(&str, Option<&str>); 5] = [
    ("ingress", None),
    ("dropped", Some("ingress")),
    ("dropped", Some("egress")),
    ("egress", None), // to v1 readers
    ("egress", None), // to v2 readers
];

/// Totals as the router has them, and how much of them has been emitted.
#[derive(Debug, Default)]
struct Counters {
    totals: [u64; COUNTERS.len()],
    emitted: [u64; COUNTERS.len()],
    subscriptions: u64,
}

/// One envelope to be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Metric {
    /// Which of [`COUNTERS`], and by how much it grew.
    Counter { index: usize, delta: u64 },
    /// Open subscriptions.
    Subscriptions(u64),
}

impl Counters {
    fn observe(&mut self, stats: &Stats) {
        self.totals = [
            stats.ingress,
            0,
            stats.dropped,
            stats.egress_v1,
            stats.egress_v2,
        ];
        self.subscriptions = stats.subscriptions;
    }

    /// One round. Every round has all of them, also those that did not change.
    fn metrics(&self) -> Vec<Metric> {
        let deltas = self
            .totals
            .iter()
            .zip(&self.emitted)
            .map(|(total, emitted)| total.saturating_sub(*emitted));
        deltas
            .enumerate()
            .map(|(index, delta)| Metric::Counter { index, delta })
            .chain([Metric::Subscriptions(self.subscriptions)])
            .collect()
    }

    /// The envelope of this metric is on its way.
    fn sent(&mut self, metric: &Metric) {
        if let Metric::Counter { index, delta } = *metric {
            self.emitted[index] += delta;
        }
    }
}

impl Metric {
    fn envelope(&self, source_id: &str, timestamp: i64) -> v2::Envelope {
        let mut tags = vec![("origin", ORIGIN), ("metric_version", METRIC_VERSION)];
        let message = match *self {
            Self::Counter { index, delta } => {
                let (name, direction) = COUNTERS[index];
                tags.extend(direction.map(|direction| ("direction", direction)));
                v2::envelope::Message::Counter(v2::Counter {
                    name: name.to_owned(),
                    delta,
                    total: 0,
                })
            }
            Self::Subscriptions(open) => {
                #[allow(clippy::cast_precision_loss)] // far below 2^53
                let value = v2::GaugeValue {
                    unit: "subscriptions".to_owned(),
                    value: open as f64,
                };
                let metrics = BTreeMap::from([("subscriptions".to_owned(), value)]);
                v2::envelope::Message::Gauge(v2::Gauge { metrics })
            }
        };
        v2::Envelope {
            timestamp,
            source_id: source_id.to_owned(),
            deprecated_tags: tags
                .into_iter()
                .map(|(name, value)| (name.to_owned(), text(value)))
                .collect(),
            message: Some(message),
            ..Default::default()
        }
    }
}

fn text(value: &str) -> v2::Value {
    v2::Value {
        data: Some(v2::value::Data::Text(value.to_owned())),
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

    fn counters() -> Counters {
        Counters {
            totals: [10, 1, 2, 3, 4],
            emitted: [4, 0, 0, 3, 0],
            subscriptions: 7,
        }
    }

    fn tags(envelope: &v2::Envelope) -> BTreeMap<&str, &str> {
        envelope
            .deprecated_tags
            .iter()
            .map(|(name, value)| match &value.data {
                Some(v2::value::Data::Text(text)) => (name.as_str(), text.as_str()),
                other => panic!("{name}: {other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_round_has_the_names_tags_and_deltas_of_the_go_router() {
        let envelopes: Vec<_> = counters()
            .metrics()
            .iter()
            .map(|metric| metric.envelope("doppler", 5))
            .collect();
        let seen: Vec<_> = envelopes
            .iter()
            .map(|envelope| {
                assert_eq!(
                    (envelope.timestamp, envelope.source_id.as_str()),
                    (5, "doppler")
                );
                assert!(envelope.tags.is_empty() && envelope.instance_id.is_empty());
                let tags = tags(envelope);
                assert_eq!(
                    (tags["origin"], tags["metric_version"]),
                    ("loggregator.doppler", "2.0")
                );
                match envelope.message.as_ref().unwrap() {
                    v2::envelope::Message::Counter(counter) => {
                        assert_eq!(counter.total, 0);
                        (
                            counter.name.clone(),
                            tags.get("direction").copied(),
                            counter.delta as f64,
                        )
                    }
                    v2::envelope::Message::Gauge(gauge) => {
                        let (name, value) = gauge.metrics.first_key_value().unwrap();
                        assert_eq!(
                            (gauge.metrics.len(), value.unit.as_str()),
                            (1, "subscriptions")
                        );
                        (name.clone(), tags.get("direction").copied(), value.value)
                    }
                    other => panic!("{other:?}"),
                }
            })
            .collect();
        let expected = [
            ("ingress", None, 6.0),
            ("dropped", Some("ingress"), 1.0),
            ("dropped", Some("egress"), 2.0),
            ("egress", None, 0.0),
            ("egress", None, 4.0),
            ("subscriptions", None, 7.0),
        ];
        let expected: Vec<_> = expected
            .iter()
            .map(|(n, d, v)| ((*n).to_owned(), *d, *v))
            .collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn the_envelope_is_the_one_on_the_go_routers_wire() {
        let envelope = Metric::Counter { index: 2, delta: 0 }.envelope("doppler", 1);
        let hex: String = envelope
            .encode_to_vec()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let expected = "0801 1207646f70706c6572 \
            1a15 0a09646972656374696f6e 1208 0a06656772657373 \
            1a17 0a0e6d65747269635f76657273696f6e 1205 0a03322e30 \
            1a1f 0a066f726967696e 1215 0a136c6f676772656761746f722e646f70706c6572 \
            2a09 0a0764726f70706564";
        assert_eq!(hex, expected.replace([' ', '\n'], ""));
    }

    #[test]
    fn what_was_not_sent_stays_in_the_next_delta() {
        let mut counters = counters();
        let round = counters.metrics();
        counters.sent(&round[0]);
        counters.totals[0] += 5;
        counters.totals[1] += 5;
        let next = counters.metrics();
        assert_eq!(next[0], Metric::Counter { index: 0, delta: 5 });
        assert_eq!(next[1], Metric::Counter { index: 1, delta: 6 });
    }
}
