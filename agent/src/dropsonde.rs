//! v1 datagrams: one serialised `events.Envelope` (dropsonde-protocol) each.
//!
//! A datagram is checked as the loggregator agent checks it, completed by appending bytes (a later field or map entry is
//! as good as an earlier one), and converted to v2.

use std::sync::Arc;

use loggregator_envelope::V1Builder;
use loggregator_envelope::V1Error;
use prost::encoding::{WireType, decode_key, decode_varint, encode_varint};

use crate::config::V1Defaults;
use crate::intake::Intake;
use crate::stats::Port;
use crate::udp::Handler;

/// Converts datagrams and hands the frames on.
pub(crate) struct Dropsonde {
    intake: Arc<Intake>,
    defaults: V1Defaults,
    builder: V1Builder,
    completed: Vec<u8>,
}

impl Dropsonde {
    pub(crate) fn new(intake: Arc<Intake>, defaults: V1Defaults) -> Dropsonde {
        Dropsonde {
            intake,
            defaults,
            builder: V1Builder::new(),
            completed: Vec::new(),
        }
    }
}

impl Handler for Dropsonde {
    fn datagram(&mut self, datagram: &[u8]) {
        let refused = match complete(datagram, &self.defaults, &mut self.completed) {
            Ok(()) => self.builder.push(&self.completed).err().map(reason),
            Err(reason) => Some(reason),
        };
        if let Some(reason) = refused {
            self.intake.stats.port(Port::Udp).reject(reason, 1);
            tracing::debug!(reason, bytes = datagram.len(), "a v1 datagram is refused");
        }
    }

    fn flush(&mut self) {
        if !self.builder.is_empty() {
            let frame = self.builder.finish();
            self.intake.accept(Port::Udp, frame);
        }
    }
}

fn reason(error: V1Error) -> &'static str {
    match error {
        V1Error::Required(_) => "missing_field",
        V1Error::Full => "too_large",
        _ => "malformed",
    }
}

/// Fields of `events.Envelope`.
mod field {
    pub(super) const ORIGIN: u32 = 1;
    pub(super) const EVENT_TYPE: u32 = 2;
    pub(super) const DEPLOYMENT: u32 = 13;
    pub(super) const JOB: u32 = 14;
    pub(super) const INDEX: u32 = 15;
    pub(super) const IP: u32 = 16;
    pub(super) const TAGS: u32 = 17;
}

/// What was found at the top level of an envelope.
#[derive(Default)]
struct Found<'a> {
    origin: &'a [u8],
    event_type: Option<u64>,
    /// One bit per field number below 32.
    present: u32,
    source_id: &'a [u8],
}

/// Copies the datagram to `out` and appends what it lacks. The error is the reason for refusing it.
fn complete(datagram: &[u8], defaults: &V1Defaults, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let found = look(datagram).ok_or("malformed")?;
    let has = |number: u32| found.present & 1 << number != 0;
    if !has(field::ORIGIN) || !has(field::EVENT_TYPE) {
        return Err("missing_field");
    }
    // The event type says which of the bodies counts, which are not a oneof.
    let body = match found.event_type {
        Some(4) => 7,
        Some(5) => 8,
        Some(6) => 9,
        Some(7) => 10,
        Some(8) => 11,
        Some(9) => 12,
        _ => return Err("event_type"),
    };
    if !has(body) {
        return Err("missing_body");
    }
    out.clear();
    out.extend_from_slice(datagram);
    let fields = [
        (field::DEPLOYMENT, &defaults.deployment),
        (field::JOB, &defaults.job),
        (field::INDEX, &defaults.index),
        (field::IP, &defaults.ip),
    ];
    for (number, value) in fields {
        if !has(number) {
            bytes_field(number, value.as_bytes(), out);
        }
    }
    if found.source_id.is_empty() {
        let mut entry = Vec::with_capacity(found.origin.len() + 16);
        bytes_field(1, b"source_id", &mut entry);
        bytes_field(2, found.origin, &mut entry);
        bytes_field(field::TAGS, &entry, out);
    }
    Ok(())
}

fn look(datagram: &[u8]) -> Option<Found<'_>> {
    let mut found = Found::default();
    let mut rest = datagram;
    while !rest.is_empty() {
        let (number, value) = read_field(&mut rest)?;
        if number < 32 {
            found.present |= 1 << number;
        }
        match (number, value) {
            (field::ORIGIN, Value::Bytes(origin)) => found.origin = origin,
            (field::EVENT_TYPE, Value::Number(number)) => found.event_type = Some(number),
            (field::TAGS, Value::Bytes(entry)) => {
                if let Some((b"source_id", value)) = map_entry(entry) {
                    found.source_id = value;
                }
            }
            _ => {}
        }
    }
    Some(found)
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

/// Takes a field off the front.
fn read_field<'a>(rest: &mut &'a [u8]) -> Option<(u32, Value<'a>)> {
    let (number, wire_type) = decode_key(rest).ok()?;
    let mut take = |len: usize| {
        let (taken, after) = rest.split_at_checked(len)?;
        *rest = after;
        Some(taken)
    };
    let value = match wire_type {
        WireType::Varint => Value::Number(decode_varint(rest).ok()?),
        WireType::SixtyFourBit => take(8).map(|_| Value::Other)?,
        WireType::ThirtyTwoBit => take(4).map(|_| Value::Other)?,
        WireType::LengthDelimited => {
            let len = usize::try_from(decode_varint(rest).ok()?).ok()?;
            let (taken, after) = rest.split_at_checked(len)?;
            *rest = after;
            Value::Bytes(taken)
        }
        // Groups: not in this protocol.
        WireType::StartGroup | WireType::EndGroup => return None,
    };
    Some((number, value))
}

fn map_entry(mut entry: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
    while !entry.is_empty() {
        match read_field(&mut entry)? {
            (1, Value::Bytes(bytes)) => key = bytes,
            (2, Value::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    Some((key, value))
}

fn bytes_field(number: u32, value: &[u8], out: &mut Vec<u8>) {
    encode_varint(u64::from(number << 3 | 2), out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use loggregator_proto::events::{self, Envelope, envelope::EventType};
    use proptest::prelude::*;
    use prost::Message as _;

    fn envelope() -> Envelope {
        Envelope {
            origin: "doppler".to_owned(),
            event_type: EventType::CounterEvent as i32,
            counter_event: Some(events::CounterEvent {
                name: "c".to_owned(),
                delta: 3,
                total: None,
            }),
            ..Envelope::default()
        }
    }

    fn defaults() -> V1Defaults {
        V1Defaults {
            deployment: "cf".to_owned(),
            job: "j".to_owned(),
            index: "i".to_owned(),
            ip: String::new(),
        }
    }

    fn completed(envelope: &Envelope) -> Result<Envelope, &'static str> {
        let mut out = b"left over".to_vec();
        complete(&envelope.encode_to_vec(), &defaults(), &mut out)?;
        Ok(Envelope::decode(out.as_slice()).unwrap())
    }

    #[test]
    fn absent_fields_are_filled_and_present_ones_kept() {
        let mut sent = envelope();
        sent.job = Some(String::new());
        let after = completed(&sent).unwrap();
        assert_eq!(after.deployment.as_deref(), Some("cf"));
        assert_eq!(after.job.as_deref(), Some(""));
        assert_eq!(
            (after.index.as_deref(), after.ip.as_deref()),
            (Some("i"), Some(""))
        );
        assert_eq!(after.counter_event, sent.counter_event);
    }

    #[test]
    fn the_source_id_is_the_origin_unless_a_tag_says_otherwise() {
        let mut sent = envelope();
        assert_eq!(completed(&sent).unwrap().tags["source_id"], "doppler");
        sent.tags.insert("source_id".to_owned(), String::new());
        assert_eq!(completed(&sent).unwrap().tags["source_id"], "doppler");
        sent.tags.insert("source_id".to_owned(), "mine".to_owned());
        assert_eq!(completed(&sent).unwrap().tags["source_id"], "mine");
    }

    #[test]
    fn what_the_protocol_does_not_allow_is_refused_with_a_reason() {
        assert_eq!(
            completed(&Envelope {
                event_type: 3,
                ..envelope()
            })
            .err(),
            Some("event_type")
        );
        let other = EventType::LogMessage as i32;
        assert_eq!(
            completed(&Envelope {
                event_type: other,
                ..envelope()
            })
            .err(),
            Some("missing_body")
        );
        let mut out = Vec::new();
        assert_eq!(complete(b"", &defaults(), &mut out), Err("missing_field"));
        assert_eq!(
            complete(b"\x0a\x01x", &defaults(), &mut out),
            Err("missing_field")
        );
        assert_eq!(
            complete(b"\x0a\x05x", &defaults(), &mut out),
            Err("malformed")
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut out = Vec::new();
            prop_assert!(complete(&bytes, &defaults(), &mut out).is_err() || out.starts_with(&bytes));
        }
    }
}
