//! What folding an event and rendering a page cost.
//!
//! `cargo bench -p loggregator-nozzle-prometheus`
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::time::Duration;

use common::events::{APP, ROUTER, container, counter, event, gauge, log, request};
use common::{Running, get};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use loggregator_nozzle::{Delivery, Event};
use tokio::runtime::Runtime;

/// Events of a batch, as the framework makes them.
const BATCH: usize = 1000;

/// `n` different events of a kind.
fn events(kind: &str, n: usize) -> Vec<Event> {
    let one = |i: usize| {
        let index = i.to_string();
        let tags = [
            ("deployment", "cf"),
            ("job", "diego-cell"),
            ("index", index.as_str()),
            ("ip", "10.0.16.20"),
            ("origin", "rep"),
        ];
        match kind {
            "counter" => event("gorouter", &index, &ROUTER, counter("requests", 1, 42)),
            "gauge" => event(
                "rep",
                "",
                &tags,
                gauge(&[("CapacityTotalMemory", "MiB", 2.0)]),
            ),
            "container" => {
                let one = container();
                let mut body = one.body().to_vec();
                // Field 8, the instance id, once more: the last one counts.
                body.extend([0x42, u8::try_from(index.len()).unwrap()]);
                body.extend_from_slice(index.as_bytes());
                Event::new(0, one.received, body.into())
            }
            "http" => request("200", 12, "512", &[("app_name", &index)]),
            _ => event(
                APP,
                &index,
                &[("app_name", "shop"), ("source_type", "APP/PROC/WEB")],
                log(false, "a line of a log"),
            ),
        }
    };
    (0..n).map(one).collect()
}

fn fold(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = c.benchmark_group("fold");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (profile, section) in [
        ("clean", "listen_addr = \"127.0.0.1:0\"\nlog_rates = true"),
        (
            "exporter",
            "listen_addr = \"127.0.0.1:0\"\nprofile = \"firehose_exporter\"\nenvironment = \"prod\"",
        ),
    ] {
        let running = runtime.block_on(Running::start(section));
        for kind in ["counter", "gauge", "container", "http", "log"] {
            if profile == "exporter" && kind == "log" {
                continue;
            }
            let batch = running.batch(events(kind, BATCH));
            group.bench_function(BenchmarkId::new(profile, kind), |b| {
                b.iter(|| {
                    let delivered =
                        runtime.block_on(running.destination.deliver(black_box(&batch)));
                    assert_eq!(delivered, Delivery::All);
                });
            });
        }
    }
    group.finish();
}

fn scrape(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = c.benchmark_group("scrape");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(5));
    let section = "listen_addr = \"127.0.0.1:0\"\nmax_series_per_family = 200000";
    let running = runtime.block_on(Running::start(section));
    for chunk in events("container", 20_000).chunks(BATCH) {
        let delivered = runtime.block_on(running.deliver(chunk.to_vec()));
        assert_eq!(delivered, Delivery::All);
    }
    for (name, headers) in [
        ("text", vec![]),
        ("text gzip", vec![("accept-encoding", "gzip")]),
        (
            "openmetrics",
            vec![("accept", "application/openmetrics-text;version=1.0.0")],
        ),
        (
            "protobuf",
            vec![(
                "accept",
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
            )],
        ),
    ] {
        group.bench_function(BenchmarkId::new("100k gauges", name), |b| {
            b.iter(|| {
                let answer = runtime.block_on(get(running.addr(), "/metrics", &headers));
                assert_eq!(answer.status, 200);
                black_box(answer.body.len())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, fold, scrape);
criterion_main!(benches);
