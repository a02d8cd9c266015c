//! Envelopes for tests.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use loggregator_proto::v2;
use proptest::{collection::vec, prelude::*};
use prost::Message;

/// A plain log line of this source.
pub fn envelope(source_id: &str) -> v2::Envelope {
    v2::Envelope {
        timestamp: 1_700_000_000_000_000_001,
        source_id: source_id.into(),
        instance_id: "0".into(),
        tags: [("origin".to_owned(), "rep".to_owned())].into(),
        message: Some(v2::envelope::Message::Log(v2::Log {
            payload: "hello".into(),
            r#type: 0,
        })),
        ..Default::default()
    }
}

/// Short texts that often repeat, and odd ones.
pub fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => prop::sample::select(vec!["", "a", "b", "origin", "source_id", "instance_id", "__v1_type", "Error", "job"]).prop_map(str::to_owned),
        2 => "[a-z]{1,12}",
        1 => "\\PC{0,12}",
        1 => "[a-zé]{100,140}",
    ]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1u64..200, any::<u64>()]
}

fn double() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), any::<f64>(), Just(f64::INFINITY), (-1e6..1e6)]
}

/// One field of an `Envelope`, encoded. A whole envelope is any sequence of them.
fn field() -> impl Strategy<Value = Vec<u8>> {
    use v2::envelope::Message as M;
    let of = |m: M| {
        v2::Envelope {
            message: Some(m),
            ..Default::default()
        }
        .encode_to_vec()
    };
    prop_oneof![
        any::<i64>().prop_map(|timestamp| v2::Envelope {
            timestamp,
            ..Default::default()
        }
        .encode_to_vec()),
        text().prop_map(|source_id| v2::Envelope {
            source_id,
            ..Default::default()
        }
        .encode_to_vec()),
        text().prop_map(|instance_id| v2::Envelope {
            instance_id,
            ..Default::default()
        }
        .encode_to_vec()),
        (text(), text()).prop_map(|pair| v2::Envelope {
            tags: [pair].into(),
            ..Default::default()
        }
        .encode_to_vec()),
        (text(), value()).prop_map(|pair| v2::Envelope {
            deprecated_tags: [pair].into(),
            ..Default::default()
        }
        .encode_to_vec()),
        (vec(any::<u8>(), 0..200), any::<i32>()).prop_map(move |(payload, r#type)| of(M::Log(
            v2::Log {
                payload: payload.into(),
                r#type
            }
        ))),
        (vec(any::<u8>(), 0..20), 0..3).prop_map(move |(payload, r#type)| of(M::Log(v2::Log {
            payload: payload.into(),
            r#type
        }))),
        (text(), number(), number()).prop_map(move |(name, delta, total)| of(M::Counter(
            v2::Counter { name, delta, total }
        ))),
        metrics().prop_map(move |metrics| of(M::Gauge(v2::Gauge { metrics }))),
        (text(), any::<i64>(), any::<i64>())
            .prop_map(move |(name, start, stop)| of(M::Timer(v2::Timer { name, start, stop }))),
        (text(), text()).prop_map(move |(title, body)| of(M::Event(v2::Event { title, body }))),
        unknown(),
        // Map entries without key, without value, with both the wrong way round, with something unknown.
        prop::sample::select(vec![
            &b"\x4a\x00"[..],
            b"\x4a\x03\x0a\x01k",
            b"\x4a\x03\x12\x01v",
            b"\x4a\x06\x12\x01v\x0a\x01k",
            b"\x4a\x08\x0a\x01k\x18\x05\x12\x01v",
            b"\x1a\x03\x0a\x01k",
            b"\x1a\x05\x0a\x01k\x12\x00",
            b"\x32\x05\x0a\x03\x0a\x01k",
            b"\x22\x00",
            b"\xca\x00\x06\x0a\x01k\x12\x01v",
            b"\x12\x81\x00a",
            b"\xa2\x00\x03\x0a\x01x",
        ])
        .prop_map(<[u8]>::to_vec),
    ]
}

fn value() -> impl Strategy<Value = v2::Value> {
    use v2::value::Data;
    prop_oneof![
        Just(None),
        text().prop_map(|t| Some(Data::Text(t))),
        any::<i64>().prop_map(|n| Some(Data::Integer(n))),
        double().prop_map(|n| Some(Data::Decimal(n))),
    ]
    .prop_map(|data| v2::Value { data })
}

fn metrics() -> impl Strategy<Value = std::collections::BTreeMap<String, v2::GaugeValue>> {
    let name = prop_oneof![
        3 => prop::sample::select(vec!["cpu", "memory", "disk", "memory_quota", "disk_quota", "instance_index"]).prop_map(str::to_owned),
        1 => text()
    ];
    let some = prop::collection::btree_map(name, metric(), 0..6);
    let container = vec(metric(), 6).prop_map(|values| {
        let names = [
            "cpu",
            "memory",
            "disk",
            "memory_quota",
            "disk_quota",
            "instance_index",
        ];
        names.iter().map(|n| (*n).to_owned()).zip(values).collect()
    });
    prop_oneof![2 => some, 1 => container]
}

fn metric() -> impl Strategy<Value = v2::GaugeValue> {
    (text(), double()).prop_map(|(unit, value)| v2::GaugeValue { unit, value })
}

/// A field that the protocol does not have.
pub fn unknown() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec![
        &b"\x58\x05"[..],                        // 11, number
        b"\x61\x01\x02\x03\x04\x05\x06\x07\xff", // 12, eight bytes
        b"\x6a\x03\xff\xfe\x00",                 // 13, bytes
        b"\x75\x01\x02\x03\xff",                 // 14, four bytes
        b"\x7b\x08\x01\x13\x14\x7c",             // 15, group in group
        b"\xf8\xff\xff\xff\x0f\x80\x01",         // the highest number
    ])
    .prop_map(<[u8]>::to_vec)
}

/// A serialized envelope: fields in any order, any number of times.
pub fn any_envelope() -> impl Strategy<Value = Vec<u8>> {
    vec(field(), 0..9).prop_map(|fields| fields.concat())
}

/// A serialized batch, with other fields in between now and then.
pub fn any_batch() -> impl Strategy<Value = Vec<u8>> {
    let record = any_envelope().prop_map(|body| {
        let mut record = vec![0x0a];
        prost::encoding::encode_varint(body.len() as u64, &mut record);
        record.extend(body);
        record
    });
    vec(prop_oneof![12 => record, 1 => unknown()], 0..6).prop_map(|records| records.concat())
}

/// Whether there are so many beginnings of groups that decoders may disagree about the depth.
pub fn has_deep_groups(bytes: &[u8]) -> bool {
    bytes.iter().filter(|b| *b & 7 == 3).count() > 30
}
