//! What one frame of a hundred envelopes costs at each step of its way.
//!
//! The frame is the one of the load scenarios: 468 bytes an envelope, a payload of 200 bytes, a UUID as source id, eight
//! tags. `prost` is the decode that is avoided.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use loggregator_envelope::{
    Flags, Frame, FrameBuilder, V1Builder, json, scan,
    splice::{DefaultTags, Edit},
    survey,
};
use loggregator_proto::v2;
use prost::Message;

/// One log line with eight tags.
fn envelope(n: usize) -> v2::Envelope {
    let tags = [
        ("origin", "rep"),
        ("deployment", "cf"),
        ("job", "diego-cell"),
        ("index", "0c7e28d5-6b5a-4f6a-9d3c-2b1a7f5e8c40"),
        ("ip", "10.0.16.12"),
        ("source_type", "APP/PROC/WEB"),
        ("app_name", "dora-the-explorer-demo-a"),
        ("space_name", "development"),
    ];
    v2::Envelope {
        timestamp: 1_700_000_000_000_000_000 + n as i64,
        source_id: format!("b3015d69-09cd-476d-aace-ad2d824d{:04x}", n % 50),
        instance_id: "0".into(),
        tags: tags
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        message: Some(v2::envelope::Message::Log(v2::Log {
            payload: vec![b'x'; 200].into(),
            r#type: 0,
        })),
        ..Default::default()
    }
}

/// The same envelope as Go emitters write it: the oneof member last.
fn go_order(envelope: &v2::Envelope) -> Vec<u8> {
    let without = v2::Envelope {
        message: None,
        ..envelope.clone()
    };
    let only = v2::Envelope {
        message: envelope.message.clone(),
        ..Default::default()
    };
    [without.encode_to_vec(), only.encode_to_vec()].concat()
}

fn batch() -> Bytes {
    let mut builder = FrameBuilder::new();
    for n in 0..100 {
        builder.push_envelope(&go_order(&envelope(n))).unwrap();
    }
    builder.finish().0
}

fn benches(c: &mut Criterion) {
    let batch = batch();
    assert_eq!(
        batch.len() / 100,
        468 + 3,
        "the envelope of the load scenarios, and its header"
    );
    let mut group = c.benchmark_group("frame");
    group.throughput(Throughput::Elements(100));
    group.bench_function("scan", |b| b.iter(|| scan(black_box(&batch)).unwrap()));
    // The whole frame is walked: there are no deprecated tags.
    group.bench_function("survey", |b| {
        b.iter(|| survey(black_box(&batch), Flags::HAS_DEPRECATED_TAGS).unwrap());
    });
    group.bench_function("prost", |b| {
        b.iter(|| v2::EnvelopeBatch::decode(black_box(&batch[..])).unwrap())
    });
    let index = scan(&batch).unwrap().index;
    group.bench_function("to_v1", |b| {
        b.iter(|| Frame::from_parts(batch.clone(), index.clone()).v1().len());
    });
    let frame = Frame::from_parts(batch.clone(), index.clone());
    let v1 = frame.v1().clone();
    let payloads: Vec<Bytes> = (0..v1.len()).map(|i| v1.payload(i)).collect();
    group.bench_function("of_v1", |b| {
        let mut builder = V1Builder::new();
        b.iter(|| {
            for payload in &payloads {
                builder.push(black_box(payload)).unwrap();
            }
            builder.finish()
        });
    });
    let tags = DefaultTags::new([
        ("deployment", "cf"),
        ("job", "api"),
        ("index", "1"),
        ("ip", "10.0.0.1"),
    ]);
    group.bench_function("add_tags", |b| {
        let mut builder = FrameBuilder::new();
        let edit = Edit {
            defaults: Some(&tags),
            copy_deprecated: true,
            ..Edit::default()
        };
        b.iter(|| {
            for entry in frame.entries() {
                builder.push_edited(frame.bytes(), entry, &edit).unwrap();
            }
            builder.finish()
        });
    });
    group.bench_function("json", |b| {
        let mut out = Vec::new();
        b.iter(|| {
            out.clear();
            json::write_batch(&mut out, black_box(&frame));
            out.len()
        });
    });
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
