//! The envelope of a test: as the gateway writes it, or shorter.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use loggregator_proto::v2::{self, envelope::Message};
use prost::Message as _;
use serde::Deserialize;
use serde::de::{self, Deserializer};

/// An envelope in the form of protobuf's JSON, in snake case or camel case; numbers may be written as such or as texts.
/// A log's payload may be given as `text`, there or beside `source_id`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TestEnvelope {
    /// Nanoseconds since 1970.
    timestamp: Integer,
    #[serde(alias = "sourceId")]
    source_id: String,
    #[serde(alias = "instanceId")]
    instance_id: String,
    tags: BTreeMap<String, String>,
    #[serde(alias = "deprecatedTags")]
    deprecated_tags: BTreeMap<String, TagValue>,
    /// Short for a log of this text.
    text: Option<String>,
    log: Option<Log>,
    counter: Option<Counter>,
    gauge: Option<Gauge>,
    timer: Option<Timer>,
    event: Option<Event>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Log {
    /// In base64.
    payload: Option<String>,
    text: Option<String>,
    r#type: LogType,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum LogType {
    #[default]
    Out,
    Err,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Counter {
    name: String,
    delta: Unsigned,
    total: Unsigned,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Gauge {
    metrics: BTreeMap<String, GaugeValue>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GaugeValue {
    unit: String,
    value: Decimal,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Timer {
    name: String,
    start: Integer,
    stop: Integer,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Event {
    title: String,
    body: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum TagValue {
    Text(String),
    Integer(Integer),
    Decimal(Decimal),
}

/// What is wrong with an envelope: the key in it, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvelopeError {
    /// The key, such as `log.payload`.
    pub key: &'static str,
    /// What is wrong.
    pub message: String,
}

impl TestEnvelope {
    /// Its bytes.
    ///
    /// # Errors
    /// When it holds more than one kind of thing, or a payload that is no base64.
    pub fn encode(&self) -> Result<Bytes, EnvelopeError> {
        let envelope = v2::Envelope {
            timestamp: self.timestamp.0,
            source_id: self.source_id.clone(),
            instance_id: self.instance_id.clone(),
            deprecated_tags: self
                .deprecated_tags
                .iter()
                .map(|(name, value)| (name.clone(), value.message()))
                .collect(),
            tags: self.tags.clone(),
            message: self.message()?,
        };
        Ok(envelope.encode_to_vec().into())
    }

    fn message(&self) -> Result<Option<Message>, EnvelopeError> {
        let short = self.text.as_ref().map(|text| {
            let log = v2::Log {
                payload: text.clone().into_bytes().into(),
                r#type: 0,
            };
            ("text", Message::Log(log))
        });
        let log = match &self.log {
            Some(log) => Some(("log", Message::Log(log.message()?))),
            None => None,
        };
        let all = [
            short,
            log,
            self.counter.as_ref().map(|it| ("counter", it.message())),
            self.gauge.as_ref().map(|it| ("gauge", it.message())),
            self.timer.as_ref().map(|it| ("timer", it.message())),
            self.event.as_ref().map(|it| ("event", it.message())),
        ];
        let mut there = all.into_iter().flatten();
        let first = there.next();
        match (&first, there.next()) {
            (Some((first, _)), Some((second, _))) => Err(EnvelopeError {
                key: second,
                message: format!("there is `{first}` already; an envelope holds one thing"),
            }),
            _ => Ok(first.map(|(_, message)| message)),
        }
    }
}

impl Log {
    fn message(&self) -> Result<v2::Log, EnvelopeError> {
        let payload = match (&self.payload, &self.text) {
            (Some(_), Some(_)) => {
                return Err(EnvelopeError {
                    key: "log.text",
                    message: "there is `payload` already".to_owned(),
                });
            }
            (Some(base64), None) => STANDARD.decode(base64).map_err(|error| EnvelopeError {
                key: "log.payload",
                message: format!("is no base64 ({error}); plain text is written as `text`"),
            })?,
            (None, text) => text.clone().unwrap_or_default().into_bytes(),
        };
        Ok(v2::Log {
            payload: payload.into(),
            r#type: match self.r#type {
                LogType::Out => 0,
                LogType::Err => 1,
            },
        })
    }
}

impl Counter {
    fn message(&self) -> Message {
        Message::Counter(v2::Counter {
            name: self.name.clone(),
            delta: self.delta.0,
            total: self.total.0,
        })
    }
}

impl Gauge {
    fn message(&self) -> Message {
        let metrics = self.metrics.iter().map(|(name, value)| {
            let value = v2::GaugeValue {
                unit: value.unit.clone(),
                value: value.value.0,
            };
            (name.clone(), value)
        });
        Message::Gauge(v2::Gauge {
            metrics: metrics.collect(),
        })
    }
}

impl Timer {
    fn message(&self) -> Message {
        Message::Timer(v2::Timer {
            name: self.name.clone(),
            start: self.start.0,
            stop: self.stop.0,
        })
    }
}

impl Event {
    fn message(&self) -> Message {
        Message::Event(v2::Event {
            title: self.title.clone(),
            body: self.body.clone(),
        })
    }
}

impl TagValue {
    fn message(&self) -> v2::Value {
        use v2::value::Data;
        v2::Value {
            data: Some(match self {
                TagValue::Text(text) => Data::Text(text.clone()),
                TagValue::Integer(number) => Data::Integer(number.0),
                TagValue::Decimal(number) => Data::Decimal(number.0),
            }),
        }
    }
}

/// Numbers, which JSON writes as texts where they have 64 bits.
macro_rules! number {
    ($name:ident, $of:ty, $what:literal) => {
        #[derive(Debug, Clone, Copy, Default, PartialEq)]
        struct $name($of);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($what)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        let number = text.parse().map($name);
                        number.map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
                    }

                    fn visit_i64<E: de::Error>(self, number: i64) -> Result<$name, E> {
                        self.visit_str(&number.to_string())
                    }

                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$name, E> {
                        self.visit_str(&number.to_string())
                    }

                    fn visit_f64<E: de::Error>(self, number: f64) -> Result<$name, E> {
                        self.visit_str(&number.to_string())
                    }
                }
                deserializer.deserialize_any(Visitor)
            }
        }
    };
}

number!(Integer, i64, "a whole number");
number!(Unsigned, u64, "a whole number, not below 0");
number!(Decimal, f64, "a number");

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(text: &str) -> Result<v2::Envelope, EnvelopeError> {
        let form: TestEnvelope = toml::from_str(text).unwrap();
        form.encode()
            .map(|bytes| v2::Envelope::decode(bytes).unwrap())
    }

    #[test]
    fn what_the_gateway_writes_is_read_back() {
        let original = v2::Envelope {
            timestamp: 1_700_000_000_123_456_789,
            source_id: "app".to_owned(),
            instance_id: "3".to_owned(),
            tags: [("origin".to_owned(), "rep".to_owned())].into(),
            deprecated_tags: [(
                "n".to_owned(),
                v2::Value {
                    data: Some(v2::value::Data::Integer(7)),
                },
            )]
            .into(),
            message: None,
        };
        let log = Message::Log(v2::Log {
            payload: Bytes::from_static(&[0xff, b'x']),
            r#type: 1,
        });
        let gauge = v2::GaugeValue {
            unit: "bytes".to_owned(),
            value: f64::NEG_INFINITY,
        };
        let gauge = Message::Gauge(v2::Gauge {
            metrics: [("memory".to_owned(), gauge)].into(),
        });
        let counter = Message::Counter(v2::Counter {
            name: "hits".to_owned(),
            delta: 0,
            total: u64::MAX,
        });
        let timer = Message::Timer(v2::Timer {
            name: "http".to_owned(),
            start: i64::MIN,
            stop: 2,
        });
        let event = Message::Event(v2::Event {
            title: "t".to_owned(),
            body: "b".to_owned(),
        });
        for message in [log, gauge, counter, timer, event] {
            let original = v2::Envelope {
                message: Some(message),
                ..original.clone()
            };
            let mut json = Vec::new();
            let bytes = original.encode_to_vec();
            let view = loggregator_envelope::EnvelopeRef::new(&bytes);
            loggregator_envelope::json::write_envelope(&mut json, view);
            let form: TestEnvelope = serde_json::from_slice(&json).unwrap();
            let read = v2::Envelope::decode(form.encode().unwrap()).unwrap();
            assert_eq!(read, original);
        }
    }

    #[test]
    fn a_log_may_be_written_as_text() {
        let short = envelope("source_id = \"a\"\ntext = \"hello\"").unwrap();
        let long = envelope("source_id = \"a\"\nlog = { text = \"hello\" }").unwrap();
        let full = envelope("source_id = \"a\"\nlog = { payload = \"aGVsbG8=\", type = \"OUT\" }");
        assert_eq!(short, long);
        assert_eq!(Ok(short), full);
    }

    #[test]
    fn an_envelope_holds_one_thing() {
        let error = envelope("text = \"a\"\nevent = { title = \"t\" }").unwrap_err();
        assert_eq!(error.key, "event");
        let error = envelope("log = { payload = \"?\" }").unwrap_err();
        assert_eq!(error.key, "log.payload");
    }
}
