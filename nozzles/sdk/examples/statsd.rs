//! A whole nozzle: counters and gauges to a StatsD server, over UDP.

use std::io::Write as _;

use loggregator_envelope::{Kind, KindSet};
use loggregator_nozzle::{Batch, Context, Delivery, Destination, Event, Kinds, Reason, Simple};
use tokio::net::UdpSocket;

#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    addr: String,
}

struct StatsD(UdpSocket);

impl Simple for StatsD {
    const NAME: &'static str = "statsd";
    const ABOUT: &'static str = "counters and gauges to a StatsD server";
    const GUARANTEE: &'static str = "At most once: delivered means that the kernel has it.";
    type Config = Config;

    async fn start(config: Config, _: Context) -> Result<Self, loggregator_nozzle::SimpleError> {
        let socket = UdpSocket::bind("0.0.0.0:0").await?;
        socket.connect(config.addr).await?;
        Ok(StatsD(socket))
    }

    fn accepts() -> KindSet {
        [Kind::Counter, Kind::Gauge].into_iter().collect()
    }

    fn render(_: &Config, event: &Event) -> Result<Vec<u8>, Reason> {
        Ok(lines(event))
    }
}

impl Destination for StatsD {
    async fn deliver(&self, batch: &Batch) -> Delivery {
        for event in batch.events() {
            if let Err(error) = self.0.send(&lines(event)).await {
                return Delivery::retry(Reason::new("send", error.to_string()));
            }
        }
        Delivery::All
    }
}

fn lines(event: &Event) -> Vec<u8> {
    let (envelope, mut lines) = (event.envelope(), Vec::new());
    let source = envelope.source_id();
    for metric in envelope.gauge() {
        writeln!(lines, "{source}.{}:{}|g", metric.name, metric.value).ok();
    }
    if let Some(counter) = envelope.counter() {
        writeln!(lines, "{source}.{}:{}|c", counter.name, counter.delta).ok();
    }
    lines
}

fn main() -> std::process::ExitCode {
    loggregator_nozzle::main(&Kinds::new().with_simple::<StatsD>())
}
