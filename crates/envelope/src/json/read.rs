//! Protobuf JSON back to the bytes of envelopes.
//!
//! The rules are those of protobuf's JSON mapping, read as generously as it allows: names as in the definition or in camel
//! case, 64-bit numbers as strings or numbers, doubles also as `"NaN"` and `"Infinity"`, bytes in either alphabet of base64
//! with padding or without, enums by name or number, `null` for what is not set. Unknown members and unknown names of
//! enums are left out.
//!
//! Nothing is built in between: each member is written as it is read, since the fields of a message may come in any order.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::wire::Sink as _;

/// Text that is no envelope, or no batch of them.
#[derive(Debug, thiserror::Error)]
#[error("no envelope in protobuf JSON: {0}")]
pub struct JsonError(#[from] serde_json::Error);

/// Appends the `EnvelopeBatch` that this text (`{"batch":[…]}`) describes, and returns how many envelopes it has.
///
/// # Errors
/// When any of it cannot be understood; `out` is then as before.
pub fn read_batch(text: &[u8], out: &mut Vec<u8>) -> Result<usize, JsonError> {
    let mut scratch = Scratch::default();
    whole(text, out, |from, out| {
        let scratch = &mut scratch;
        BatchSeed { out, scratch }.deserialize(from)
    })
}

/// Appends the `Envelope` that this text describes.
///
/// # Errors
/// As [`read_batch`].
pub fn read_envelope(text: &[u8], out: &mut Vec<u8>) -> Result<(), JsonError> {
    whole(text, out, |from, out| envelope_from(from, out))
}

/// Appends the `Envelope` that any other form of the same members describes, such as a table of TOML.
///
/// # Errors
/// As [`read_batch`], except that `out` may hold a part.
pub fn envelope_from<'de, D: Deserializer<'de>>(
    from: D,
    out: &mut Vec<u8>,
) -> Result<(), D::Error> {
    let scratch = &mut Scratch::default();
    EnvelopeSeed { out, scratch }.deserialize(from)
}

fn whole<'de, T>(
    text: &'de [u8],
    out: &mut Vec<u8>,
    read: impl FnOnce(
        &mut serde_json::Deserializer<serde_json::de::SliceRead<'de>>,
        &mut Vec<u8>,
    ) -> Result<T, serde_json::Error>,
) -> Result<T, JsonError> {
    let before = out.len();
    let mut from = serde_json::Deserializer::from_slice(text);
    let done = read(&mut from, out).and_then(|value| from.end().map(|()| value));
    if done.is_err() {
        out.truncate(before);
    }
    Ok(done?)
}

/// Memory for what must be complete before its length can be written; used again for each envelope.
#[derive(Default)]
struct Scratch {
    body: Vec<u8>,
    message: Vec<u8>,
    value: Vec<u8>,
    key: String,
}

/// A visitor that reads whatever comes.
macro_rules! seed {
    ($name:ident $(<$life:lifetime>)? => $value:ty) => {
        impl<'de> DeserializeSeed<'de> for $name $(<$life>)? {
            type Value = $value;
            fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<$value, D::Error> {
                from.deserialize_any(self)
            }
        }
    };
}

/// What stands for a value that is not set.
macro_rules! null_is {
    ($value:expr) => {
        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
            Ok($value)
        }
    };
}

mod scalar;

use scalar::{Base64, Double, Key, LogType, Name, Raw, Text, Whole};

struct BatchSeed<'a> {
    out: &'a mut Vec<u8>,
    scratch: &'a mut Scratch,
}
seed!(BatchSeed<'_> => usize);

impl<'de> Visitor<'de> for BatchSeed<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a batch: {\"batch\":[…]}")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<usize, M::Error> {
        let mut count = 0;
        while let Some(name) = map.next_key_seed(Name(&["batch"]))? {
            count += match name {
                "batch" => map.next_value_seed(ListSeed {
                    out: self.out,
                    scratch: self.scratch,
                })?,
                _ => map.next_value::<IgnoredAny>().map(|_| 0)?,
            };
        }
        Ok(count)
    }
}

struct ListSeed<'a> {
    out: &'a mut Vec<u8>,
    scratch: &'a mut Scratch,
}
seed!(ListSeed<'_> => usize);

impl<'de> Visitor<'de> for ListSeed<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of envelopes")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<usize, S::Error> {
        let mut count = 0;
        loop {
            let mut body = std::mem::take(&mut self.scratch.body);
            body.clear();
            let (out, scratch) = (&mut body, &mut *self.scratch);
            let one = list.next_element_seed(EnvelopeSeed { out, scratch })?;
            if one.is_some() {
                self.out.bytes(1, &body);
                count += 1;
            }
            self.scratch.body = body;
            if one.is_none() {
                return Ok(count);
            }
        }
    }

    null_is!(0);
}

struct EnvelopeSeed<'a> {
    out: &'a mut Vec<u8>,
    scratch: &'a mut Scratch,
}
seed!(EnvelopeSeed<'_> => ());

const ENVELOPE: &[&str] = &[
    "timestamp",
    "source_id",
    "sourceId",
    "instance_id",
    "instanceId",
    "deprecated_tags",
    "deprecatedTags",
    "tags",
    "log",
    "counter",
    "gauge",
    "timer",
    "event",
];

impl<'de> Visitor<'de> for EnvelopeSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an envelope")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let EnvelopeSeed { out, scratch } = self;
        while let Some(name) = map.next_key_seed(Name(ENVELOPE))? {
            match name {
                "timestamp" => {
                    let timestamp = map.next_value_seed(Whole::I64)?;
                    out.varint_unless_zero(1, timestamp as u64);
                }
                "source_id" | "sourceId" => map.next_value_seed(Text { number: 2, out })?,
                "instance_id" | "instanceId" => map.next_value_seed(Text { number: 8, out })?,
                "deprecated_tags" | "deprecatedTags" => {
                    let (number, of) = (3, Values::Tags);
                    map.next_value_seed(Entries {
                        number,
                        of,
                        out,
                        scratch,
                    })?;
                }
                "tags" => {
                    let (number, of) = (9, Values::Texts);
                    map.next_value_seed(Entries {
                        number,
                        of,
                        out,
                        scratch,
                    })?;
                }
                "log" | "counter" | "gauge" | "timer" | "event" => {
                    let (number, kind) = kind(name);
                    let mut message = std::mem::take(&mut scratch.message);
                    message.clear();
                    let out_of = &mut message;
                    if map.next_value_seed(MessageSeed {
                        kind,
                        out: out_of,
                        scratch,
                    })? {
                        out.bytes(number, &message);
                    }
                    scratch.message = message;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Message {
    Log,
    Counter,
    Gauge,
    Timer,
    Event,
}

fn kind(name: &str) -> (u32, Message) {
    match name {
        "log" => (4, Message::Log),
        "counter" => (5, Message::Counter),
        "gauge" => (6, Message::Gauge),
        "timer" => (7, Message::Timer),
        _ => (10, Message::Event),
    }
}

/// A message of an envelope; false: it is `null`.
struct MessageSeed<'a> {
    kind: Message,
    out: &'a mut Vec<u8>,
    scratch: &'a mut Scratch,
}
seed!(MessageSeed<'_> => bool);

impl<'de> Visitor<'de> for MessageSeed<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a log, counter, gauge, timer or event")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<bool, M::Error> {
        let MessageSeed { kind, out, scratch } = self;
        let names: &[&str] = match kind {
            Message::Log => &["payload", "type"],
            Message::Counter => &["name", "delta", "total"],
            Message::Gauge => &["metrics"],
            Message::Timer => &["name", "start", "stop"],
            Message::Event => &["title", "body"],
        };
        while let Some(name) = map.next_key_seed(Name(names))? {
            match name {
                "payload" => map.next_value_seed(Base64(out))?,
                "type" => {
                    let number = map.next_value_seed(LogType)?;
                    out.varint_unless_zero(2, i64::from(number) as u64);
                }
                "name" | "title" => map.next_value_seed(Text { number: 1, out })?,
                "body" => map.next_value_seed(Text { number: 2, out })?,
                "delta" => out.varint_unless_zero(2, map.next_value_seed(Whole::U64)? as u64),
                "total" => out.varint_unless_zero(3, map.next_value_seed(Whole::U64)? as u64),
                "start" => out.varint_unless_zero(2, map.next_value_seed(Whole::I64)? as u64),
                "stop" => out.varint_unless_zero(3, map.next_value_seed(Whole::I64)? as u64),
                "metrics" => {
                    let (number, of) = (1, Values::Metrics);
                    map.next_value_seed(Entries {
                        number,
                        of,
                        out,
                        scratch,
                    })?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(true)
    }

    null_is!(false);
}

/// What a map of an envelope holds.
#[derive(Clone, Copy)]
enum Values {
    Texts,
    Tags,
    Metrics,
}

/// A map, written as its entries.
struct Entries<'a> {
    number: u32,
    of: Values,
    out: &'a mut Vec<u8>,
    scratch: &'a mut Scratch,
}
seed!(Entries<'_> => ());

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let Scratch { key, value, .. } = self.scratch;
        while map.next_key_seed(Key(key))?.is_some() {
            value.clear();
            match self.of {
                Values::Texts => map.next_value_seed(Raw(value))?,
                Values::Tags => map.next_value_seed(TagSeed(value))?,
                Values::Metrics => map.next_value_seed(MetricSeed(value))?,
            }
            self.out.pair(self.number, key.as_bytes(), value);
        }
        Ok(())
    }

    null_is!(());
}

/// The typed value of a deprecated tag.
struct TagSeed<'a>(&'a mut Vec<u8>);
seed!(TagSeed<'_> => ());

impl<'de> Visitor<'de> for TagSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tag's value: {\"text\":…}, {\"integer\":…} or {\"decimal\":…}")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        // A value that is set is written whatever it is.
        while let Some(name) = map.next_key_seed(Name(&["text", "integer", "decimal"]))? {
            match name {
                "text" => {
                    if let Some(text) = map.next_value::<Option<std::borrow::Cow<'de, str>>>()? {
                        self.0.bytes(1, text.as_bytes());
                    }
                }
                "integer" => self.0.varint(2, map.next_value_seed(Whole::I64)? as u64),
                "decimal" => self.0.double(3, map.next_value_seed(Double)?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    null_is!(());
}

/// A value of a gauge.
struct MetricSeed<'a>(&'a mut Vec<u8>);
seed!(MetricSeed<'_> => ());

impl<'de> Visitor<'de> for MetricSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a metric: {\"unit\":…,\"value\":…}")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let out = self.0;
        while let Some(name) = map.next_key_seed(Name(&["unit", "value"]))? {
            match name {
                "unit" => map.next_value_seed(Text { number: 1, out })?,
                "value" => {
                    let value = map.next_value_seed(Double)?;
                    // Only positive zero is left out.
                    if value.to_bits() != 0 {
                        out.double(2, value);
                    }
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    null_is!(());
}
