//! How many envelopes a second the nozzle hands to Kafka, and what a million of them costs.
//!
//! ```text
//! cargo run --release -p loggregator-nozzle-kafka --example kafka-throughput -- BROKER TOPIC [EVENTS] [PAYLOAD] [HEADERS]
//! ```
//!
//! `EVENTS` log envelopes with a payload of `PAYLOAD` bytes (2,000,000 and 400 unless given), of 100 sources. `HEADERS` is
//! `headers` (the default) or `bare`. The floor is librdkafka's own tool with the same settings: `rdkafka_performance -P -b
//! BROKER -t TOPIC -s SIZE -c EVENTS -z lz4 -X enable.idempotence=true -X linger.ms=20 -X acks=all`, where SIZE is the size
//! that this program tells.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a program for measuring"
)]

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use loggregator_nozzle::config::Section;
use loggregator_nozzle::{Batch, BufferIdentity, Context, Delivery, Event, Kind as _};
use loggregator_nozzle_kafka::KafkaKind;
use loggregator_service::Lifecycle;
use loggregator_service::metrics::Metrics;
use loggregator_testkit::log_line;

const SOURCES: u32 = 100;

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, broker, topic, ..] = args.as_slice() else {
        panic!("usage: throughput BROKER TOPIC [EVENTS] [PAYLOAD] [HEADERS]");
    };
    let number = |i: usize, default: u64| args.get(i).map_or(default, |text| text.parse().unwrap());
    let (events, payload) = (number(3, 2_000_000), number(4, 400));
    let bare = args.get(5).is_some_and(|text| text == "bare");
    let headers = if bare { "headers = []\n" } else { "" };
    let section = format!("brokers = [\"{broker}\"]\ntopic = \"{topic}\"\n{headers}");
    let plan = KafkaKind
        .plan(&Section::from_text(&section).unwrap())
        .unwrap();
    let limits = plan.limits();
    let lifecycle = Lifecycle::new();
    let destination = plan
        .start(Context {
            nozzle: "bench".to_owned(),
            name: "kafka".to_owned(),
            metrics: Metrics::empty(),
            lifecycle: lifecycle.clone(),
            buffer: BufferIdentity::new("bench"),
            state_dir: None,
        })
        .await
        .unwrap();
    let bodies: Vec<bytes::Bytes> = (0..SOURCES)
        .map(|source| log_line(source, usize::try_from(payload).unwrap()))
        .collect();
    let size = bodies[0].len();
    let batches = events.div_ceil(limits.batch_events as u64);
    let (started, cpu) = (Instant::now(), cpu());
    stream::iter(0..batches)
        .map(|batch| {
            let first = batch * limits.batch_events as u64;
            let last = (first + limits.batch_events as u64).min(events);
            let event = |n: u64| {
                let body = bodies[usize::try_from(n % u64::from(SOURCES)).unwrap()].clone();
                Event::new(n, 1_700_000_000_000_000_000, body)
            };
            let batch = Batch::new((first..last).map(event).collect(), 0);
            let destination = &destination;
            async move { assert_eq!(destination.deliver(&batch).await, Delivery::All) }
        })
        .buffered(limits.in_flight)
        .for_each(|()| async {})
        .await;
    let (took, cpu) = (started.elapsed().as_secs_f64(), self::cpu() - cpu);
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let millions = events as f64 / 1e6;
    println!(
        "{events} events of {size} bytes in {took:.2} s: {:.0} a second, {:.2} s of processor time a million",
        millions * 1e6 / took,
        cpu / millions
    );
    destination.close().await;
    lifecycle.shutdown(Duration::from_secs(5)).await;
}

/// Processor time of this process so far, in seconds.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // After the name in brackets; fields 14 and 15 of proc(5), in ticks of 10 ms.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}
