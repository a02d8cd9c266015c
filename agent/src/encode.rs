//! Writing log envelopes of the agent's own inputs, straight into the bytes of loggregator-api v2.

use bytes::BufMut;
use prost::encoding::{encode_varint, encoded_len_varint};

/// A log line on its way to becoming an envelope.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogLine<'a> {
    /// Nanoseconds since 1970.
    pub timestamp: i64,
    pub source_id: &'a str,
    pub instance_id: &'a str,
    pub payload: &'a [u8],
    /// Standard error, or a severity of error and worse.
    pub err: bool,
}

const TIMESTAMP: u8 = 1 << 3;
const SOURCE_ID: u8 = 2 << 3 | 2;
const LOG: u8 = 4 << 3 | 2;
const INSTANCE_ID: u8 = 8 << 3 | 2;
const TAGS: u8 = 9 << 3 | 2;
/// Fields of the nested messages.
const FIRST: u8 = 1 << 3 | 2;
const SECOND: u8 = 2 << 3 | 2;
const LOG_TYPE: u8 = 2 << 3;
const ERR: u8 = 1;

impl LogLine<'_> {
    /// Appends the body of the envelope, with these tags.
    pub(crate) fn encode<'t>(
        &self,
        tags: impl IntoIterator<Item = (&'t str, &'t str)>,
        out: &mut Vec<u8>,
    ) {
        if self.timestamp != 0 {
            out.put_u8(TIMESTAMP);
            // A negative number is its two's complement, ten bytes long.
            encode_varint(self.timestamp.cast_unsigned(), out);
        }
        text(SOURCE_ID, self.source_id, out);
        text(INSTANCE_ID, self.instance_id, out);
        for (name, value) in tags {
            tag(name, value, out);
        }
        let payload = if self.payload.is_empty() {
            0
        } else {
            field_len(self.payload.len())
        };
        out.put_u8(LOG);
        encode_varint((payload + if self.err { 2 } else { 0 }) as u64, out);
        bytes(FIRST, self.payload, out);
        if self.err {
            out.put_slice(&[LOG_TYPE, ERR]);
        }
    }
}

/// Appends one entry of an envelope's `tags`.
fn tag(name: &str, value: &str, out: &mut Vec<u8>) {
    out.put_u8(TAGS);
    encode_varint((field_len(name.len()) + field_len(value.len())) as u64, out);
    out.put_u8(FIRST);
    encode_varint(name.len() as u64, out);
    out.put_slice(name.as_bytes());
    out.put_u8(SECOND);
    encode_varint(value.len() as u64, out);
    out.put_slice(value.as_bytes());
}

fn text(key: u8, value: &str, out: &mut Vec<u8>) {
    bytes(key, value.as_bytes(), out);
}

/// Nothing when empty, as proto3 writes it.
fn bytes(key: u8, value: &[u8], out: &mut Vec<u8>) {
    if !value.is_empty() {
        out.put_u8(key);
        encode_varint(value.len() as u64, out);
        out.put_slice(value);
    }
}

fn field_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

#[cfg(test)]
mod tests {
    use super::*;
    use loggregator_proto::v2;
    use prost::Message as _;

    fn check(line: LogLine<'_>, tags: &[(&str, &str)]) {
        let mut body = Vec::new();
        line.encode(tags.iter().copied(), &mut body);
        let expected = v2::Envelope {
            timestamp: line.timestamp,
            source_id: line.source_id.to_owned(),
            instance_id: line.instance_id.to_owned(),
            tags: tags
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            message: Some(v2::envelope::Message::Log(v2::Log {
                payload: bytes::Bytes::copy_from_slice(line.payload),
                r#type: i32::from(line.err),
            })),
            ..Default::default()
        };
        assert_eq!(v2::Envelope::decode(body.as_slice()).unwrap(), expected);
    }

    #[test]
    fn decodes_to_what_was_written() {
        let long = "x".repeat(300);
        let line = LogLine {
            timestamp: 1_700_000_000_123_456_789,
            source_id: "app",
            instance_id: "0",
            payload: b"hi",
            err: false,
        };
        check(
            line,
            &[("deployment", "cf"), ("empty", ""), ("long", &long)],
        );
        check(
            LogLine {
                timestamp: -1,
                source_id: &long,
                instance_id: "",
                payload: long.as_bytes(),
                err: true,
            },
            &[],
        );
        check(
            LogLine {
                timestamp: 0,
                source_id: "",
                instance_id: "",
                payload: b"",
                err: false,
            },
            &[],
        );
        check(
            LogLine {
                payload: &[0xff, 0, b'\n'],
                err: true,
                ..line
            },
            &[("", "")],
        );
    }
}
