//! What the traffic controller tells about itself through the pipeline: metrics, and an event for each slow consumer. Events
//! that no agent takes are let go of, the counter of slow consumers has them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use loggregator_net::grpc::Channel;
use loggregator_proto::v2;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::accounts::{Accounts, Sums, Totals};
use crate::emitter::{Emitter, Metric, VERSION};
use crate::websocket::{FIREHOSE, STREAM};

/// The source id of everything here.
const SOURCE_ID: &str = "traffic_controller";
/// Tag `origin` of every own metric.
const ORIGIN: &str = "loggregator.trafficcontroller";
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
    emitter: Emitter,
    events: mpsc::Receiver<SlowConsumer>,
}

impl SelfMetrics {
    /// Emitter of these accounts' metrics, and where slow consumers are to be reported. An interval of zero means no
    /// metrics; events are sent all the same.
    pub(crate) fn new(
        accounts: &Arc<Accounts>,
        interval: Duration,
        channel: Channel,
    ) -> (Self, SlowConsumers) {
        let (queue, events) = mpsc::channel(EVENTS_WAITING);
        let emitter = Emitter::new(SOURCE_ID, ORIGIN, metrics(accounts), interval, channel);
        (Self { emitter, events }, SlowConsumers(Some(queue)))
    }

    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(slow) = self.events.recv() => {
                    self.emitter.event(event(&slow), EVENT_DEADLINE).await;
                }
                () = self.emitter.due() => self.emitter.emit().await,
            }
        }
    }
}

/// The names and tags of the Go traffic controller.
fn metrics(accounts: &Arc<Accounts>) -> Vec<Metric> {
    let sum = |of: fn(&Totals) -> u64| {
        let accounts = Arc::clone(accounts);
        move || of(&accounts.totals)
    };
    vec![
        Metric::counter(
            "ingress",
            &[VERSION, ("protocol", "grpc")],
            sum(|totals| read(&totals.ingress)),
        ),
        Metric::counter(
            "egress",
            &[VERSION, ("endpoint", "firehose")],
            sum(|totals| read(&totals.of(FIREHOSE).egress)),
        ),
        Metric::counter(
            "egress",
            &[VERSION, ("endpoint", "stream")],
            sum(|totals| read(&totals.of(STREAM).egress)),
        ),
        Metric::counter(
            "doppler_proxy.slow_consumer",
            &[VERSION],
            sum(|totals| {
                let slow = |sums: &Sums| read(&sums.slow_consumers);
                slow(totals.of(FIREHOSE)) + slow(totals.of(STREAM))
            }),
        ),
        Metric::gauge(
            "doppler_proxy.firehoses",
            "connections",
            &[VERSION],
            sum(|totals| read(&totals.of(FIREHOSE).clients)),
        ),
        Metric::gauge(
            "doppler_proxy.app_streams",
            "connections",
            &[VERSION],
            sum(|totals| read(&totals.of(STREAM).clients)),
        ),
    ]
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn event(slow: &SlowConsumer) -> v2::Event {
    let SlowConsumer {
        remote_addr,
        forwarded_for,
        path,
    } = slow;
    v2::Event {
        title: EVENT_TITLE.to_owned(),
        body: format!(
            "Remote Address: {remote_addr}\nX-Forwarded-For: {forwarded_for}\nPath: {path}\n\n{EVENT_TEXT}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emitter::tests::described;

    #[test]
    fn metrics_have_the_names_and_tags_of_the_go_traffic_controller() {
        let accounts = Accounts::new(crate::websocket::PROGRAM, String::new(), 1);
        let add = |counter: &AtomicU64, n| counter.fetch_add(n, Ordering::Relaxed);
        add(&accounts.totals.ingress, 1);
        for (endpoint, n) in [(FIREHOSE, 10), (STREAM, 100)] {
            let sums = accounts.totals.of(endpoint);
            add(&sums.egress, n);
            add(&sums.slow_consumers, 2 * n);
            add(&sums.clients, 3 * n);
        }
        assert_eq!(
            described(&metrics(&accounts)),
            [
                "ingress delta metric_version=2.0,protocol=grpc 1",
                "egress delta metric_version=2.0,endpoint=firehose 10",
                "egress delta metric_version=2.0,endpoint=stream 100",
                "doppler_proxy.slow_consumer delta metric_version=2.0 220",
                "doppler_proxy.firehoses connections metric_version=2.0 30",
                "doppler_proxy.app_streams connections metric_version=2.0 300",
            ]
        );
    }

    #[test]
    fn the_event_tells_who_was_cut() {
        let event = event(&SlowConsumer {
            remote_addr: "10.0.0.1:99".to_owned(),
            forwarded_for: "1.2.3.4, 5.6.7.8".to_owned(),
            path: "/firehose/a?filter-type=logs".to_owned(),
        });
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
}
