//! Telling a client, in its own stream, that it lost something: as a doppler does, in the form that existing clients know.

use bytes::BytesMut;
use loggregator_client::payloads;
use loggregator_envelope::Notice;

use crate::rlp::ORIGIN;
use crate::rlp::form::{Part, Tags, record};

/// A counter `dropped` for `lost` envelopes of several sources.
pub(crate) fn dropped(source_id: &str, lost: u64, tags: Tags) -> Part {
    let notice = Notice {
        count: lost,
        ..Notice::default()
    };
    let mut out = BytesMut::new();
    notice.put_v2_by(source_id, ORIGIN, &mut out);
    let mut moved = BytesMut::new();
    let mut body = Vec::new();
    for envelope in payloads(&out.freeze()) {
        body.clear();
        tags.moved(&envelope, &mut body);
        record(&mut moved, &body);
    }
    Part {
        bytes: moved.freeze(),
        // It was not received, so it is not delivered either.
        envelopes: 0,
    }
}

#[cfg(test)]
mod tests {
    use loggregator_proto::v2;
    use prost::Message as _;

    use super::*;

    #[test]
    fn the_notice_is_a_counter_with_its_tags_where_the_client_reads_them() {
        for tags in [Tags::Preferred, Tags::Deprecated] {
            let part = dropped("reverse_log_proxy", 12, tags);
            let batch = v2::EnvelopeBatch::decode(part.bytes).unwrap().batch;
            let [envelope] = batch.as_slice() else {
                panic!("{batch:?}")
            };
            assert_eq!(envelope.source_id, "reverse_log_proxy");
            let counter = v2::Counter {
                name: "dropped".to_owned(),
                delta: 12,
                total: 0,
            };
            assert_eq!(
                envelope.message,
                Some(v2::envelope::Message::Counter(counter))
            );
            let keys: Vec<_> = match tags {
                Tags::Preferred => envelope.tags.keys().collect(),
                Tags::Deprecated => envelope.deprecated_tags.keys().collect(),
            };
            assert_eq!(keys, ["direction", "origin", "reason"]);
            assert_eq!(envelope.tags.len() + envelope.deprecated_tags.len(), 3);
        }
    }
}
