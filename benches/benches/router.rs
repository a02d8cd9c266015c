//! The router without a network: what taking a frame in costs, and what reading costs, each by itself.
//!
//! `append/N` is the time of `ingest` alone while N firehoses follow the log: it must not grow with N. `read/N` is the
//! time of all N to read what was appended. Both are per frame of 100 envelopes.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use doppler::Router;
use doppler::router::{RouterConfig, Subscription};
use loggregator_benches::workload::{BatchRing, GRPC_HEADER, Shape, StampKind, source_id};
use loggregator_proto::v2::{self, selector::Message as Kind};

/// Frames taken in between two rounds of reading, well within the log.
const ROUND: u64 = 64;
/// Bytes of one joined message.
const BUDGET: usize = 128 << 10;

fn frames(sources: usize) -> Vec<Bytes> {
    let shape = Shape {
        sources,
        ..Shape::default()
    };
    let mut ring = BatchRing::new(shape, 0, 0).unwrap();
    (0..sources.div_ceil(shape.batch))
        .map(|_| ring.next(StampKind::Data, 1).slice(GRPC_HEADER..))
        .collect()
}

fn firehose(router: &Arc<Router>, shard: usize) -> Subscription {
    let kinds = [
        Kind::Log(v2::LogSelector {}),
        Kind::Counter(v2::CounterSelector::default()),
        Kind::Gauge(v2::GaugeSelector::default()),
        Kind::Timer(v2::TimerSelector {}),
        Kind::Event(v2::EventSelector {}),
    ];
    let selectors = kinds
        .map(|kind| v2::Selector {
            source_id: String::new(),
            message: Some(kind),
        })
        .to_vec();
    let request = v2::EgressBatchRequest {
        shard_id: format!("bench-{shard}"),
        selectors,
        ..Default::default()
    };
    router.subscribe_v2(&request, "bench").unwrap()
}

fn tail(router: &Arc<Router>, source: usize) -> Subscription {
    let selector = v2::Selector {
        source_id: source_id(source),
        message: Some(Kind::Log(v2::LogSelector {})),
    };
    let request = v2::EgressBatchRequest {
        selectors: vec![selector],
        ..Default::default()
    };
    router.subscribe_v2(&request, "bench").unwrap()
}

/// Reads all there is; returns the envelopes.
fn drain(subscription: &mut Subscription) -> u64 {
    let mut cx = Context::from_waker(Waker::noop());
    let mut envelopes = 0;
    while let Poll::Ready(Some(batch)) = subscription.poll_batch(&mut cx, BUDGET) {
        envelopes += batch.envelopes;
        batch.receipt.settle(true);
    }
    envelopes
}

/// Takes in `iterations` frames, reading in between; returns the time of both halves.
fn follow(
    router: &Router,
    frames: &[Bytes],
    subscriptions: &mut [Subscription],
    iterations: u64,
) -> (Duration, Duration) {
    let (mut appending, mut reading) = (Duration::ZERO, Duration::ZERO);
    let mut next = frames.iter().cycle();
    let mut left = iterations;
    while left > 0 {
        let round = left.min(ROUND);
        let start = Instant::now();
        for frame in next.by_ref().take(round as usize) {
            router.ingest(frame).unwrap();
        }
        let middle = Instant::now();
        for subscription in subscriptions.iter_mut() {
            drain(subscription);
        }
        appending += middle - start;
        reading += middle.elapsed();
        left -= round;
    }
    (appending, reading)
}

fn wildcards(c: &mut Criterion) {
    let frames = frames(1000);
    for (name, part) in [("append", 0), ("read", 1)] {
        let mut group = c.benchmark_group(name);
        for cursors in [0usize, 1, 4, 16] {
            if cursors == 0 && part == 1 {
                continue;
            }
            group.throughput(Throughput::Elements(100));
            group.bench_function(format!("{cursors}-wildcards"), |b| {
                let router = Router::new(RouterConfig::default());
                let mut subscriptions: Vec<_> =
                    (0..cursors).map(|i| firehose(&router, i)).collect();
                b.iter_custom(|iterations| {
                    let (appending, reading) =
                        follow(&router, &frames, &mut subscriptions, iterations);
                    if part == 0 { appending } else { reading }
                });
            });
        }
        group.finish();
    }
}

fn tails(c: &mut Criterion) {
    // Envelopes of 1,000 sources; 10,000 subscriptions of which these are the ones that get something.
    let frames = frames(1000);
    for (name, part) in [("append", 0), ("read", 1)] {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(100));
        group.bench_function("10000-tails", |b| {
            let router = Router::new(RouterConfig::default());
            let mut subscriptions: Vec<_> = (0..10_000).map(|i| tail(&router, i)).collect();
            b.iter_custom(|iterations| {
                let (appending, reading) =
                    follow(&router, &frames, &mut subscriptions[..1000], iterations);
                if part == 0 { appending } else { reading }
            });
        });
        group.finish();
    }
}

criterion_group!(benches, wildcards, tails);
criterion_main!(benches);
