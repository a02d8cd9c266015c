//! What a doppler does to each frame on its way in, and the conversion to v1 that it does only on demand.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use loggregator_benches::workload::{BatchRing, GRPC_HEADER, Shape, StampKind};
use loggregator_envelope::{Frame, scan};
use loggregator_proto::v2;
use prost::Message;

/// The batch that all recorded figures are about.
fn logs(batch: usize) -> Bytes {
    let shape = Shape {
        batch,
        ..Shape::default()
    };
    BatchRing::new(shape, 0, 0)
        .unwrap()
        .next(StampKind::Data, 1)
        .slice(GRPC_HEADER..)
}

/// A batch of every kind of envelope, in turn.
fn mixed(batch: usize) -> Bytes {
    use v2::envelope::Message as Kind;
    let logs = v2::EnvelopeBatch::decode(&logs(100)[..]).unwrap().batch;
    let batch = (0..batch)
        .map(|i| {
            let mut envelope = logs[i % logs.len()].clone();
            envelope.message = match i % 5 {
                0 => envelope.message,
                1 => Some(Kind::Counter(v2::Counter {
                    name: "requests".into(),
                    delta: 3,
                    total: 4_711,
                })),
                2 => {
                    let value = |unit: &str, value| v2::GaugeValue {
                        unit: unit.into(),
                        value,
                    };
                    Some(Kind::Gauge(v2::Gauge {
                        metrics: [
                            ("cpu".to_owned(), value("percentage", 12.5)),
                            ("memory".to_owned(), value("bytes", 1e9)),
                            ("disk".to_owned(), value("bytes", 2e9)),
                        ]
                        .into(),
                    }))
                }
                3 => Some(Kind::Timer(v2::Timer {
                    name: "http".into(),
                    start: 1,
                    stop: 2_000_000,
                })),
                _ => Some(Kind::Event(v2::Event {
                    title: "started".into(),
                    body: "instance 0".into(),
                })),
            };
            envelope
        })
        .collect();
    v2::EnvelopeBatch { batch }.encode_to_vec().into()
}

fn index(c: &mut Criterion) {
    let mut group = c.benchmark_group("index");
    for (name, batch) in [
        ("logs-100", logs(100)),
        ("logs-10", logs(10)),
        ("mixed-100", mixed(100)),
    ] {
        group.throughput(Throughput::Bytes(batch.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| scan(black_box(&batch)).unwrap().index.len())
        });
    }
    // What the index spares: a full decode of the same bytes.
    let batch = logs(100);
    group.throughput(Throughput::Bytes(batch.len() as u64));
    group.bench_function("decode-instead-logs-100", |b| {
        b.iter(|| {
            v2::EnvelopeBatch::decode(black_box(&batch[..]))
                .unwrap()
                .batch
                .len()
        });
    });
    group.finish();
}

fn to_v1(c: &mut Criterion) {
    let mut group = c.benchmark_group("v2-to-v1");
    for (name, batch) in [("logs-100", logs(100)), ("mixed-100", mixed(100))] {
        group.throughput(Throughput::Elements(100));
        group.bench_function(name, |b| {
            b.iter_batched(
                || Frame::parse(batch.clone()).unwrap().frame,
                |frame| frame.v1().len(),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn to_v2(c: &mut Criterion) {
    let mut group = c.benchmark_group("v1-to-v2");
    for (name, batch) in [("logs-100", logs(100)), ("mixed-100", mixed(100))] {
        let frame = Frame::parse(batch).unwrap().frame;
        let payloads: Vec<Bytes> = (0..frame.v1().len())
            .map(|i| frame.v1().payload(i))
            .collect();
        group.throughput(Throughput::Elements(payloads.len() as u64));
        group.bench_function(name, |b| {
            let mut builder = loggregator_envelope::v1::V1Builder::new();
            b.iter(|| {
                for payload in &payloads {
                    builder.push(black_box(payload)).unwrap();
                }
                builder.finish().len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, index, to_v1, to_v2);
criterion_main!(benches);
