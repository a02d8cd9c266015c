//! Telling a reader, in its own stream, that it lost something: in the forms that existing clients know.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, BytesMut};
use loggregator_proto::{events, v2};
use prost::Message;

/// Envelopes that a reader was too slow for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notice<'a> {
    /// How many.
    pub count: u64,
    /// Of which source; `None`: of several, or not known.
    pub source_id: Option<&'a str>,
    /// The reader's shard group; empty: none.
    pub shard_id: &'a str,
}

impl Notice<'_> {
    /// Appends the v2 notice as one record of an `EnvelopeBatch`: a counter `dropped` of the source `doppler`.
    pub fn put_v2(&self, out: &mut BytesMut) {
        self.put_v2_by("doppler", "loggregator.doppler", out);
    }

    /// As [`put_v2`](Notice::put_v2), by a program of this source id and origin.
    pub fn put_v2_by(&self, by: &str, origin: &str, out: &mut BytesMut) {
        let mut tags = self.tags();
        tags.insert("direction".to_owned(), "egress".to_owned());
        tags.insert("origin".to_owned(), origin.to_owned());
        if let Some(source_id) = self.source_id {
            tags.insert("dropped_source_id".to_owned(), source_id.to_owned());
        }
        let envelope = v2::Envelope {
            timestamp: now(),
            source_id: by.to_owned(),
            tags,
            message: Some(v2::envelope::Message::Counter(v2::Counter {
                name: "dropped".to_owned(),
                delta: self.count,
                total: 0,
            })),
            ..v2::Envelope::default()
        };
        put(out, &envelope);
    }

    /// Appends the v1 notice as one record of a `BatchResponse`: a counter `TruncatingBuffer.DroppedMessages` of the
    /// origin `doppler`, by which nozzles know that they lose envelopes.
    pub fn put_v1(&self, out: &mut BytesMut) {
        let mut tags = self.tags();
        if let Some(source_id) = self.source_id {
            tags.insert("app_id".to_owned(), source_id.to_owned());
        }
        let envelope = events::Envelope {
            origin: "doppler".to_owned(),
            event_type: events::envelope::EventType::CounterEvent as i32,
            timestamp: Some(now()),
            counter_event: Some(events::CounterEvent {
                name: "TruncatingBuffer.DroppedMessages".to_owned(),
                delta: self.count,
                total: None,
            }),
            tags,
            ..events::Envelope::default()
        };
        put(out, &envelope);
    }

    fn tags(&self) -> BTreeMap<String, String> {
        let mut tags = BTreeMap::from([("reason".to_owned(), "slow_consumer".to_owned())]);
        if !self.shard_id.is_empty() {
            tags.insert("shard_id".to_owned(), self.shard_id.to_owned());
        }
        tags
    }
}

/// `0a len message`: one element of an `EnvelopeBatch` or a `BatchResponse`.
fn put(out: &mut BytesMut, message: &impl Message) {
    let len = message.encoded_len();
    out.reserve(len + 11);
    out.put_u8(0x0a);
    prost::encoding::encode_varint(len as u64, out);
    message.encode_raw(out);
}

fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use loggregator_proto::plumbing::BatchResponse;

    const NOTICE: Notice<'_> = Notice {
        count: 7,
        source_id: Some("app"),
        shard_id: "nozzle",
    };

    fn pairs(tags: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
        tags.iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect()
    }

    #[test]
    fn the_v1_form() {
        let mut out = BytesMut::new();
        NOTICE.put_v1(&mut out);
        let batch = BatchResponse::decode(out.freeze()).unwrap();
        let envelope = events::Envelope::decode(batch.payload[0].clone()).unwrap();
        let counter = envelope.counter_event.unwrap();
        assert_eq!(
            (counter.name.as_str(), counter.delta),
            ("TruncatingBuffer.DroppedMessages", 7)
        );
        assert_eq!(envelope.origin, "doppler");
        assert_eq!(
            pairs(&envelope.tags),
            [
                ("app_id", "app"),
                ("reason", "slow_consumer"),
                ("shard_id", "nozzle")
            ]
        );
    }

    #[test]
    fn the_v2_form() {
        let mut out = BytesMut::new();
        NOTICE.put_v2(&mut out);
        let batch = v2::EnvelopeBatch::decode(out.freeze()).unwrap();
        let envelope = &batch.batch[0];
        let Some(v2::envelope::Message::Counter(counter)) = &envelope.message else {
            panic!("{envelope:?}");
        };
        assert_eq!((counter.name.as_str(), counter.delta), ("dropped", 7));
        assert_eq!(envelope.source_id, "doppler");
        assert_eq!(
            pairs(&envelope.tags),
            [
                ("direction", "egress"),
                ("dropped_source_id", "app"),
                ("origin", "loggregator.doppler"),
                ("reason", "slow_consumer"),
                ("shard_id", "nozzle")
            ]
        );
    }
}
