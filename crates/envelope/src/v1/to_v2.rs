//! From v1 to v2: always one envelope.
//!
//! v1 does not check strings, v2 does. The original's conversion lets bytes through that are not UTF-8, and then the stream
//! of every v2 subscriber that such an envelope reaches ends with an error. Here each malformed sequence becomes U+FFFD
//! in the v2 form, and the v1 form keeps its bytes.

use std::borrow::Cow;

use loggregator_proto::events::{Method, PeerType, envelope::EventType};
use smallvec::{SmallVec, smallvec};

use super::{
    model::{Container, Counter, Envelope, Http, Log, ValueMetric},
    uuid::{self, Uuid},
};
use crate::wire::{Encode, Sink};

type Text<'a> = Cow<'a, str>;

fn text(bytes: Option<&[u8]>) -> Text<'_> {
    let bytes = bytes.unwrap_or_default();
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// A `loggregator.v2.Envelope` to be written.
pub(crate) struct Converted<'a> {
    timestamp: i64,
    source_id: Text<'a>,
    instance_id: Text<'a>,
    tags: Vec<(Text<'a>, Text<'a>)>,
    message: Message<'a>,
}

enum Message<'a> {
    None,
    Log {
        payload: &'a [u8],
        err: bool,
    },
    Counter {
        name: Text<'a>,
        delta: u64,
        total: u64,
    },
    Gauge(Vec<(Text<'a>, Text<'a>, f64)>),
    Timer {
        start: i64,
        stop: i64,
    },
}

/// What differs between the event types.
struct Typed<'a> {
    message: Message<'a>,
    /// Empty: as the tags say.
    source_id: Text<'a>,
    instance_id: Text<'a>,
    /// Tags that are set, whatever the envelope's own tags say.
    tags: SmallVec<[(&'static str, Text<'a>); 10]>,
    /// Whether the tag of this name became the instance id and goes.
    drop_instance_tag: bool,
}

impl<'a> Typed<'a> {
    fn new(message: Message<'a>) -> Self {
        let tags = SmallVec::new();
        Typed {
            message,
            source_id: "".into(),
            instance_id: "".into(),
            tags,
            drop_instance_tag: false,
        }
    }
}

/// The v2 form of an envelope.
pub(crate) fn convert<'a>(v1: &Envelope<'a>) -> Converted<'a> {
    let tag = |name: &str| {
        v1.tags
            .iter()
            .find(|(key, _)| *key == name.as_bytes())
            .map(|(_, value)| *value)
    };
    let number = v1.event_type.unwrap_or_default();
    let event_type = EventType::try_from(number);
    let typed = match event_type {
        Ok(EventType::LogMessage) => log(v1.log.as_ref()),
        Ok(EventType::HttpStartStop) => http(v1.http.as_ref()),
        Ok(EventType::ValueMetric) => Typed {
            instance_id: text(tag("instance_id")),
            ..value(v1.value.as_ref())
        },
        Ok(EventType::CounterEvent) => Typed {
            instance_id: text(tag("instance_id")),
            ..counter(v1.counter.as_ref())
        },
        Ok(EventType::ContainerMetric) => container(v1.container.as_ref()),
        Ok(EventType::Error) => error(v1),
        Err(_) => Typed::new(Message::None),
    };
    let source_id = if !typed.source_id.is_empty() {
        typed.source_id
    } else if let Some(source_id) = tag("source_id") {
        text(Some(source_id))
    } else {
        Cow::Owned(format!("{}/{}", text(v1.deployment), text(v1.job)))
    };
    let type_name = event_type.map_or_else(
        |_| number.to_string().into(),
        |known| known.as_str_name().into(),
    );
    let fields = [
        ("origin", text(v1.origin)),
        ("deployment", text(v1.deployment)),
        ("job", text(v1.job)),
        ("index", text(v1.index)),
        ("ip", text(v1.ip)),
        ("__v1_type", type_name),
    ];
    let set = || fields.iter().chain(&typed.tags);
    let goes = |key: &[u8]| {
        key == b"source_id"
            || (typed.drop_instance_tag && key == b"instance_id")
            || set().any(|(name, _)| name.as_bytes() == key)
    };
    let mut tags = Vec::with_capacity(v1.tags.len() + fields.len() + typed.tags.len());
    tags.extend(
        v1.tags
            .iter()
            .filter(|(key, _)| !goes(key))
            .map(|(k, v)| (text(Some(k)), text(Some(v)))),
    );
    tags.extend(set().map(|(name, value)| (Cow::Borrowed(*name), value.clone())));
    Converted {
        timestamp: v1.timestamp.unwrap_or_default(),
        source_id,
        instance_id: typed.instance_id,
        tags,
        message: typed.message,
    }
}

fn log<'a>(log: Option<&Log<'a>>) -> Typed<'a> {
    let payload = log.and_then(|log| log.message).unwrap_or_default();
    let err = log.and_then(|log| log.message_type) == Some(2);
    Typed {
        source_id: text(log.and_then(|log| log.app_id)),
        instance_id: text(log.and_then(|log| log.source_instance)),
        tags: smallvec![("source_type", text(log.and_then(|log| log.source_type)))],
        ..Typed::new(Message::Log { payload, err })
    }
}

fn error<'a>(v1: &Envelope<'a>) -> Typed<'a> {
    let error = v1.error.as_ref();
    let payload = error.and_then(|error| error.message).unwrap_or_default();
    Typed {
        tags: smallvec![
            ("source", text(error.and_then(|error| error.source))),
            (
                "code",
                decimal(error.and_then(|error| error.code).unwrap_or_default())
            ),
        ],
        ..Typed::new(Message::Log {
            payload,
            err: false,
        })
    }
}

fn value<'a>(value: Option<&ValueMetric<'a>>) -> Typed<'a> {
    let name = text(value.and_then(|value| value.name));
    let unit = text(value.and_then(|value| value.unit));
    let number = value.and_then(|value| value.value).unwrap_or_default();
    Typed::new(Message::Gauge(vec![(name, unit, number)]))
}

fn counter<'a>(counter: Option<&Counter<'a>>) -> Typed<'a> {
    let message = Message::Counter {
        name: text(counter.and_then(|counter| counter.name)),
        delta: counter
            .and_then(|counter| counter.delta)
            .unwrap_or_default(),
        total: counter
            .and_then(|counter| counter.total)
            .unwrap_or_default(),
    };
    Typed {
        drop_instance_tag: true,
        ..Typed::new(message)
    }
}

fn container<'a>(container: Option<&Container<'a>>) -> Typed<'a> {
    let bytes = |name: &'static str, field: fn(&Container<'a>) -> Option<u64>| {
        (
            name.into(),
            "bytes".into(),
            container.and_then(field).unwrap_or_default() as f64,
        )
    };
    let cpu = container
        .and_then(|container| container.cpu)
        .unwrap_or_default();
    let metrics = vec![
        ("cpu".into(), "percentage".into(), cpu),
        bytes("memory", |container| container.memory),
        bytes("disk", |container| container.disk),
        bytes("memory_quota", |container| container.memory_quota),
        bytes("disk_quota", |container| container.disk_quota),
    ];
    Typed {
        source_id: text(container.and_then(|container| container.application_id)),
        instance_id: decimal(
            container
                .and_then(|container| container.instance_index)
                .unwrap_or_default(),
        ),
        ..Typed::new(Message::Gauge(metrics))
    }
}

fn http<'a>(http: Option<&Http<'a>>) -> Typed<'a> {
    let none = Http::default();
    let http = http.unwrap_or(&none);
    let id = |uuid: Uuid| -> Text<'a> {
        String::from_utf8_lossy(&uuid::to_text(uuid))
            .into_owned()
            .into()
    };
    let application = http
        .application_id
        .as_ref()
        .map(|id| id.uuid())
        .filter(|uuid| *uuid != Uuid::default());
    let request = http
        .request_id
        .as_ref()
        .map(|id| id.uuid())
        .unwrap_or_default();
    // An absent enum is its first value.
    let (peer, method) = (http.peer_type.unwrap_or(1), http.method.unwrap_or(1));
    let forwarded = http
        .forwarded
        .iter()
        .map(|element| text(Some(element)))
        .collect::<Vec<_>>()
        .join("\n");
    Typed {
        source_id: application.map(id).unwrap_or_default(),
        instance_id: decimal(http.instance_index.unwrap_or_default()),
        tags: smallvec![
            ("request_id", id(request)),
            (
                "peer_type",
                PeerType::try_from(peer)
                    .map_or_else(|_| decimal(peer), |known| known.as_str_name().into())
            ),
            (
                "method",
                Method::try_from(method)
                    .map_or_else(|_| decimal(method), |known| known.as_str_name().into())
            ),
            ("uri", text(http.uri)),
            ("remote_address", text(http.remote_address)),
            ("user_agent", text(http.user_agent)),
            ("status_code", decimal(http.status_code.unwrap_or_default())),
            (
                "content_length",
                decimal(http.content_length.unwrap_or_default())
            ),
            ("routing_instance_id", text(http.instance_id)),
            ("forwarded", forwarded.into()),
        ],
        ..Typed::new(Message::Timer {
            start: http.start.unwrap_or_default(),
            stop: http.stop.unwrap_or_default(),
        })
    }
}

fn decimal<'a>(number: impl ToString) -> Text<'a> {
    number.to_string().into()
}

impl Encode for Converted<'_> {
    fn encode<S: Sink>(&self, to: &mut S) {
        to.varint_unless_zero(1, self.timestamp as u64);
        to.bytes_unless_empty(2, self.source_id.as_bytes());
        to.bytes_unless_empty(8, self.instance_id.as_bytes());
        for (key, value) in &self.tags {
            to.pair(9, key.as_bytes(), value.as_bytes());
        }
        match &self.message {
            Message::None => {}
            Message::Log { .. } => to.message(4, &self.message),
            Message::Counter { .. } => to.message(5, &self.message),
            Message::Gauge(_) => to.message(6, &self.message),
            Message::Timer { .. } => to.message(7, &self.message),
        }
    }
}

impl Encode for Message<'_> {
    fn encode<S: Sink>(&self, to: &mut S) {
        match self {
            Message::None => {}
            Message::Log { payload, err } => {
                to.bytes_unless_empty(1, payload);
                to.varint_unless_zero(2, u64::from(*err));
            }
            Message::Counter { name, delta, total } => {
                to.bytes_unless_empty(1, name.as_bytes());
                to.varint_unless_zero(2, *delta);
                to.varint_unless_zero(3, *total);
            }
            Message::Gauge(metrics) => {
                for (name, unit, value) in metrics {
                    to.message(
                        1,
                        &Metric {
                            name,
                            unit,
                            value: *value,
                        },
                    );
                }
            }
            Message::Timer { start, stop } => {
                to.bytes(1, b"http");
                to.varint_unless_zero(2, *start as u64);
                to.varint_unless_zero(3, *stop as u64);
            }
        }
    }
}

/// An entry of the map of metrics.
struct Metric<'a> {
    name: &'a str,
    unit: &'a str,
    value: f64,
}

impl Encode for Metric<'_> {
    fn encode<S: Sink>(&self, to: &mut S) {
        to.bytes(1, self.name.as_bytes());
        to.message(
            2,
            &Measured {
                unit: self.unit,
                value: self.value,
            },
        );
    }
}

/// A `GaugeValue`.
struct Measured<'a> {
    unit: &'a str,
    value: f64,
}

impl Encode for Measured<'_> {
    fn encode<S: Sink>(&self, to: &mut S) {
        to.bytes_unless_empty(1, self.unit.as_bytes());
        // Only positive zero is left out.
        if self.value.to_bits() != 0 {
            to.double(2, self.value);
        }
    }
}
