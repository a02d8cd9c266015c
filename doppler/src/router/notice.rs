//! Telling a reader, in its own stream, that it lost something: in the forms that existing clients know.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use loggregator_log::SourceCount;
use loggregator_proto::{events, v2};
use prost::Message;

use super::member::Member;
use super::selector::Api;

/// At most this many sources are named in one notice; what the others lost is told in one sum.
const NAMED: usize = 16;

/// The notice for what `member` lost, as records of the message it gets next.
pub(crate) fn encode(member: &Member, by_loss: &[SourceCount], unnamed: u64) -> Bytes {
    let (named, rest) = by_loss.split_at(by_loss.len().min(NAMED));
    let unnamed = unnamed + rest.iter().map(|source| source.count).sum::<u64>();
    let mut out = BytesMut::new();
    for SourceCount { source_id, count } in named {
        push(&mut out, member, Some(source_id), *count);
    }
    if unnamed > 0 {
        push(&mut out, member, None, unnamed);
    }
    out.freeze()
}

fn push(out: &mut BytesMut, member: &Member, source_id: Option<&str>, count: u64) {
    match member.api {
        Api::V2 => record(out, &v2_notice(member, source_id, count)),
        Api::V1 => record(out, &v1_notice(member, source_id, count)),
    }
}

/// `0a len message`: one element of an `EnvelopeBatch` or a `BatchResponse`.
fn record(out: &mut BytesMut, message: &impl Message) {
    out.put_u8(0x0a);
    let body = message.encode_to_vec();
    prost::encoding::encode_varint(body.len() as u64, out);
    out.extend_from_slice(&body);
}

fn v2_notice(member: &Member, source_id: Option<&str>, count: u64) -> v2::Envelope {
    let mut tags = tags(member);
    tags.insert("direction".to_owned(), "egress".to_owned());
    tags.insert("origin".to_owned(), "loggregator.doppler".to_owned());
    if let Some(source_id) = source_id {
        tags.insert("dropped_source_id".to_owned(), source_id.to_owned());
    }
    v2::Envelope {
        timestamp: now(),
        source_id: "doppler".to_owned(),
        tags,
        message: Some(v2::envelope::Message::Counter(v2::Counter {
            name: "dropped".to_owned(),
            delta: count,
            total: 0,
        })),
        ..v2::Envelope::default()
    }
}

fn v1_notice(member: &Member, source_id: Option<&str>, count: u64) -> events::Envelope {
    let mut tags = tags(member);
    if let Some(source_id) = source_id {
        tags.insert("app_id".to_owned(), source_id.to_owned());
    }
    events::Envelope {
        origin: "doppler".to_owned(),
        event_type: events::envelope::EventType::CounterEvent as i32,
        timestamp: Some(now()),
        counter_event: Some(events::CounterEvent {
            name: "TruncatingBuffer.DroppedMessages".to_owned(),
            delta: count,
            total: None,
        }),
        tags,
        ..events::Envelope::default()
    }
}

fn tags(member: &Member) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::from([("reason".to_owned(), "slow_consumer".to_owned())]);
    if !member.shard_id.is_empty() {
        tags.insert("shard_id".to_owned(), member.shard_id.to_string());
    }
    tags
}

fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
