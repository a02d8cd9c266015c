//! What a program tells about itself through the pipeline: its metrics as envelopes, under the names that dashboards of the
//! Go programs use.
//!
//! Everything goes to the local agent, which adds its tags and hands it on like everybody else's. Counters carry the delta
//! since the last emission that succeeded, so that a lost agent costs resolution and no counts.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use loggregator_net::grpc::{Channel, ClientSender, PendingResponse, Status};
use loggregator_proto::v2::envelope::Message;
use loggregator_proto::{rpc, v2};
use prost::Message as _;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// An agent that takes nothing for an interval is as good as gone, but it gets this long.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tags of a metric: all but the program's origin.
type Tags = &'static [(&'static str, &'static str)];

/// The tag of metrics of the second form, which nearly all are.
pub(crate) const VERSION: (&str, &str) = ("metric_version", "2.0");

/// One metric: what it is called and where its value comes from.
pub(crate) struct Metric {
    name: &'static str,
    /// Of a gauge; `None`: it is a counter.
    unit: Option<&'static str>,
    tags: Tags,
    read: Box<dyn Fn() -> u64 + Send + Sync>,
    /// What a counter had at the last emission that succeeded.
    emitted: u64,
}

impl Metric {
    /// A counter; `read` says the sum since the start.
    pub(crate) fn counter(
        name: &'static str,
        tags: Tags,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            unit: None,
            tags,
            read: Box::new(read),
            emitted: 0,
        }
    }

    /// A gauge; `read` says the value now.
    pub(crate) fn gauge(
        name: &'static str,
        unit: &'static str,
        tags: Tags,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self {
            unit: Some(unit),
            ..Self::counter(name, tags, read)
        }
    }

    /// What is to be sent, and what a counter has then.
    fn message(&self) -> (Message, u64) {
        let value = (self.read)();
        let name = self.name.to_owned();
        let message = match self.unit {
            None => Message::Counter(v2::Counter {
                name,
                delta: value.saturating_sub(self.emitted),
                total: 0,
            }),
            Some(unit) => {
                #[allow(clippy::cast_precision_loss)] // a number of connections
                let value = v2::GaugeValue {
                    unit: unit.to_owned(),
                    value: value as f64,
                };
                let metrics = BTreeMap::from([(name, value)]);
                Message::Gauge(v2::Gauge { metrics })
            }
        };
        (message, value.max(self.emitted))
    }
}

/// Emits a program's metrics to the local agent, all on one stream.
pub(crate) struct Emitter {
    source_id: String,
    origin: &'static str,
    metrics: Vec<Metric>,
    /// `None`: never.
    ticks: Option<Interval>,
    channel: Channel,
    stream: Option<(ClientSender, PendingResponse)>,
}

impl Emitter {
    /// Emits each `interval`, which may be zero for never, to the agent at the other end of `channel`. Must be called within
    /// a tokio runtime.
    pub(crate) fn new(
        source_id: impl Into<String>,
        origin: &'static str,
        metrics: Vec<Metric>,
        interval: Duration,
        channel: Channel,
    ) -> Self {
        let ticks = (!interval.is_zero()).then(|| {
            let mut ticks = interval_at(Instant::now() + interval, interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self {
            source_id: source_id.into(),
            origin,
            metrics,
            ticks,
            channel,
            stream: None,
        }
    }

    /// Emits until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while stop.run_until_cancelled(self.due()).await.is_some() {
            if stop.run_until_cancelled(self.emit()).await.is_none() {
                return;
            }
        }
    }

    /// Waits until it is time to [`emit`](Self::emit). May be cancelled.
    pub(crate) async fn due(&mut self) {
        match &mut self.ticks {
            Some(ticks) => {
                ticks.tick().await;
            }
            None => std::future::pending().await,
        }
    }

    /// Emits all metrics. What cannot be sent is part of the next emission.
    pub(crate) async fn emit(&mut self) {
        let period = self.ticks.as_ref().map(Interval::period);
        let limit = period.unwrap_or_default().max(PATIENCE);
        let all = async {
            for i in 0..self.metrics.len() {
                let (message, value) = self.metrics[i].message();
                let envelope = self.envelope(message, self.metrics[i].tags);
                self.send(&envelope).await?;
                self.metrics[i].emitted = value;
            }
            Ok(())
        };
        let outcome = timeout(limit, all).await;
        self.settle(outcome.unwrap_or_else(|_| Err(stuck())));
    }

    /// Sends an event of this program within `limit`, or not at all.
    pub(crate) async fn event(&mut self, event: v2::Event, limit: Duration) {
        let envelope = v2::Envelope {
            timestamp: now(),
            source_id: self.source_id.clone(),
            message: Some(Message::Event(event)),
            ..Default::default()
        };
        let outcome = timeout(limit, self.send(&envelope)).await;
        self.settle(outcome.unwrap_or_else(|_| Err(stuck())));
    }

    fn settle(&mut self, outcome: Result<(), Status>) {
        if let Err(status) = outcome {
            self.stream = None;
            debug!(%status, "own metrics could not be sent to the agent");
        }
    }

    fn envelope(&self, message: Message, tags: Tags) -> v2::Envelope {
        let text = |value: &str| v2::Value {
            data: Some(v2::value::Data::Text(value.to_owned())),
        };
        v2::Envelope {
            timestamp: now(),
            source_id: self.source_id.clone(),
            deprecated_tags: [("origin", self.origin)]
                .iter()
                .chain(tags)
                .map(|(name, value)| ((*name).to_owned(), text(value)))
                .collect(),
            message: Some(message),
            ..Default::default()
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

fn stuck() -> Status {
    Status::unavailable("the agent takes nothing")
}

/// Nanoseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use loggregator_net::grpc::{Request, Response, Server, ServerSettings, Service};
    use parking_lot::Mutex;

    use super::*;

    /// A metric as `name unit tags value`, with the unit `delta` for counters.
    pub(crate) fn described(metrics: &[Metric]) -> Vec<String> {
        let one = |metric: &Metric| {
            let tags: Vec<_> = metric
                .tags
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            format!(
                "{} {} {} {}",
                metric.name,
                metric.unit.unwrap_or("delta"),
                tags.join(","),
                (metric.read)()
            )
        };
        metrics.iter().map(one).collect()
    }

    #[test]
    fn a_counter_carries_what_was_added_since_it_was_last_emitted() {
        let mut counter = Metric::counter("c", &[], || 11);
        counter.emitted = 5;
        let expected = v2::Counter {
            name: "c".to_owned(),
            delta: 6,
            total: 0,
        };
        assert_eq!(counter.message(), (Message::Counter(expected.clone()), 11));
        // A sum that went back is emitted as nothing, not as very much.
        counter.emitted = 12;
        let expected = v2::Counter {
            delta: 0,
            ..expected
        };
        assert_eq!(counter.message(), (Message::Counter(expected), 12));
    }

    /// Keeps the deltas that it is sent.
    #[derive(Clone, Default)]
    struct Agent(Arc<Mutex<Vec<u64>>>);

    impl Service for Agent {
        fn call(&self, mut request: Request) -> Pin<Box<dyn Future<Output = Response> + Send>> {
            let deltas = Arc::clone(&self.0);
            Box::pin(async move {
                while let Some(Ok(message)) = request.messages.next().await {
                    match v2::Envelope::decode(message).unwrap().message {
                        Some(Message::Counter(counter)) => deltas.lock().push(counter.delta),
                        other => panic!("{other:?}"),
                    }
                }
                Response::Unary(Ok(Bytes::new()))
            })
        }
    }

    #[tokio::test]
    async fn what_could_not_be_sent_is_part_of_the_next_emission() {
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let channel = loggregator_client::Connector::new(loggregator_client::AGENT, None)
            .channel(&server.local_addr().to_string());
        let sum = Arc::new(AtomicU64::new(3));
        let read = Arc::clone(&sum);
        let metrics = vec![Metric::counter("c", &[], move || {
            read.load(Ordering::Relaxed)
        })];
        let mut emitter = Emitter::new("me", "origin.of.me", metrics, Duration::ZERO, channel);
        // The port is there, and nobody behind it.
        emitter.emit().await;
        assert_eq!(emitter.metrics[0].emitted, 0);

        sum.store(5, Ordering::Relaxed);
        let agent = Agent::default();
        let serve = server.serve(
            None,
            Arc::new(agent.clone()),
            ServerSettings::default(),
            CancellationToken::new(),
        );
        tokio::spawn(serve);
        while emitter.metrics[0].emitted == 0 {
            emitter.emit().await;
        }
        sum.store(6, Ordering::Relaxed);
        // Also when there is nothing new.
        for _ in 0..2 {
            emitter.emit().await;
        }
        while agent.0.lock().len() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(*agent.0.lock(), [5, 1, 0]);
    }

    #[tokio::test]
    async fn tags_are_deprecated_texts_beside_the_origin() {
        let channel =
            loggregator_client::Connector::new(loggregator_client::AGENT, None).channel("a:1");
        let emitter = Emitter::new("me", "origin.of.me", Vec::new(), Duration::ZERO, channel);
        let gauge = Metric::gauge("g", "total", &[VERSION], || 3);
        let envelope = emitter.envelope(gauge.message().0, gauge.tags);
        assert_eq!(envelope.source_id, "me");
        assert!(envelope.tags.is_empty() && envelope.timestamp > 0);
        let text = |value: &v2::Value| match &value.data {
            Some(v2::value::Data::Text(text)) => text.clone(),
            other => panic!("{other:?}"),
        };
        let tags: Vec<_> = envelope
            .deprecated_tags
            .iter()
            .map(|(name, value)| (name.as_str(), text(value)))
            .collect();
        let expected = [
            ("metric_version", "2.0".to_owned()),
            ("origin", "origin.of.me".to_owned()),
        ];
        assert_eq!(tags, expected);
        let value = v2::GaugeValue {
            unit: "total".to_owned(),
            value: 3.0,
        };
        let metrics = BTreeMap::from([("g".to_owned(), value)]);
        assert_eq!(
            envelope.message,
            Some(Message::Gauge(v2::Gauge { metrics }))
        );
    }
}
