//! From v2 to v1: one envelope becomes none, one or many.

use std::borrow::Cow;

use loggregator_proto::events::{Method, PeerType, envelope::EventType};
use smallvec::SmallVec;

use super::{
    cast,
    model::{Container, Counter, Envelope, Error, Http, Id, Log, ValueMetric},
    uuid,
    wire_message::{Pairs, keep_last_of_each},
};
use crate::{
    CounterRef, Kind, LogRef, MetricRef, TagValue, TimerRef,
    view::{Members, deprecated, raw_pair},
    wire::{Fields, Value},
};

/// Tags that become fields of every v1 envelope, and the one that says what it was before.
const FIELDS: [&[u8]; 6] = [
    b"__v1_type",
    b"origin",
    b"deployment",
    b"job",
    b"index",
    b"ip",
];
/// Tags that become fields of a request.
const HTTP_FIELDS: [&[u8]; 10] = [
    b"peer_type",
    b"method",
    b"request_id",
    b"uri",
    b"remote_address",
    b"user_agent",
    b"status_code",
    b"content_length",
    b"routing_instance_id",
    b"forwarded",
];
/// The metrics that together are a container metric.
const CONTAINER: [&str; 5] = ["cpu", "memory", "disk", "memory_quota", "disk_quota"];

/// Gives the v1 forms of an envelope to `take`, as long as it answers that there is room. Returns whether the envelope
/// has a v1 form that cannot be written because a required field cannot be filled.
pub(crate) fn convert(body: &[u8], mut take: impl FnMut(&Envelope<'_>, Left) -> bool) -> bool {
    let source = Source::read(body);
    let (kind, members) = (source.kind, Members::new(body, source.message));
    let texts = source.deprecated_texts();
    let source = Tagged {
        source: &source,
        deprecated: &texts,
    };
    let built = match kind {
        Kind::None | Kind::Event => return false,
        Kind::Gauge => return gauge(source, members, take),
        Kind::Log if *source.tag("__v1_type") == *b"Error" => source.error(members),
        Kind::Log => source.log(members),
        Kind::Counter => source.counter(members),
        Kind::Timer => source.timer(members),
    };
    if !built.is_complete() {
        return true;
    }
    take(&built, Left(1));
    false
}

/// How many v1 forms of an envelope are still to come, this one included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left(pub(crate) u32);

/// What goes into every v1 form.
struct Source<'a> {
    kind: Kind,
    /// Where the first occurrence of the oneof member that counts begins.
    message: usize,
    timestamp: i64,
    source_id: &'a [u8],
    instance_id: &'a [u8],
    tags: Pairs<'a>,
    deprecated: Vec<(&'a [u8], TagValue<'a>)>,
}

impl<'a> Source<'a> {
    fn read(body: &'a [u8]) -> Source<'a> {
        let mut source = Source {
            kind: Kind::None,
            message: 0,
            timestamp: 0,
            source_id: &[],
            instance_id: &[],
            tags: Pairs::new(),
            deprecated: Vec::new(),
        };
        for field in Fields::new(body) {
            match (field.number, field.value) {
                (1, Value::Varint(value)) => source.timestamp = value as i64,
                (2, Value::Bytes(bytes)) => source.source_id = bytes,
                (3, Value::Bytes(bytes)) => {
                    let (key, value) = deprecated(bytes);
                    source.deprecated.push((key.as_bytes(), value));
                }
                (8, Value::Bytes(bytes)) => source.instance_id = bytes,
                (9, Value::Bytes(bytes)) => source.tags.push(raw_pair(bytes)),
                (number, _) => match Kind::of_field(number) {
                    Some(kind) if kind != source.kind => {
                        (source.kind, source.message) = (kind, field.start)
                    }
                    _ => {}
                },
            }
        }
        source
    }

    /// The deprecated tags as text, the last of each key, and whether they have a value at all.
    fn deprecated_texts(&self) -> Vec<(&'a [u8], Cow<'a, str>, bool)> {
        let mut last: SmallVec<[(&[u8], TagValue<'_>); 4]> = SmallVec::from_slice(&self.deprecated);
        keep_last_of_each(&mut last);
        last.into_iter()
            .map(|(key, value)| (key, value.to_v1_text(), value != TagValue::Unset))
            .collect()
    }
}

/// The source with its deprecated tags as text.
#[derive(Clone, Copy)]
struct Tagged<'s, 'a> {
    source: &'s Source<'a>,
    deprecated: &'s [(&'a [u8], Cow<'a, str>, bool)],
}

impl<'s, 'a: 's> Tagged<'s, 'a> {
    /// One tag: `tags` first, else deprecated, else empty.
    fn tag(&self, name: &str) -> &'s [u8] {
        let tag = self
            .source
            .tags
            .iter()
            .rev()
            .find(|(key, _)| *key == name.as_bytes());
        tag.map(|(_, value)| *value).unwrap_or_else(|| {
            let old = self
                .deprecated
                .iter()
                .rev()
                .find(|(key, ..)| *key == name.as_bytes());
            old.map_or(&[], |(_, value, _)| value.as_bytes())
        })
    }

    /// All tags: here deprecated ones override. `used` became fields of the body.
    fn pairs(&self, used: &[&[u8]], with_instance: bool) -> Pairs<'s> {
        let mut pairs = Pairs::new();
        let mut add = |key: &'s [u8], value: &'s [u8]| {
            if !FIELDS.contains(&key) && !used.contains(&key) {
                pairs.push((key, value));
            }
        };
        for (key, value) in &self.source.tags {
            add(key, value);
        }
        for (key, value, set) in self.deprecated {
            if *set {
                add(key, value.as_bytes());
            }
        }
        if !self.source.source_id.is_empty() {
            add(b"source_id", self.source.source_id);
        }
        if with_instance && !self.source.instance_id.is_empty() {
            add(b"instance_id", self.source.instance_id);
        }
        keep_last_of_each(&mut pairs);
        pairs
    }

    fn envelope(&self, event_type: EventType, used: &[&[u8]]) -> Envelope<'s> {
        let with_instance = matches!(event_type, EventType::CounterEvent | EventType::ValueMetric);
        Envelope {
            origin: Some(self.tag("origin")),
            event_type: Some(event_type as i32),
            timestamp: Some(self.source.timestamp),
            deployment: Some(self.tag("deployment")),
            job: Some(self.tag("job")),
            index: Some(self.tag("index")),
            ip: Some(self.tag("ip")),
            tags: self.pairs(used, with_instance),
            ..Envelope::default()
        }
    }

    fn log(&self, members: Members<'a>) -> Envelope<'s> {
        let log = LogRef::read(members);
        let body = Log {
            // The original leaves an empty payload unset, and so cannot write it.
            message: Some(log.payload).filter(|payload| !payload.is_empty()),
            message_type: Some(if log.err { 2 } else { 1 }),
            timestamp: Some(self.source.timestamp),
            app_id: Some(self.source.source_id),
            source_type: Some(self.tag("source_type")),
            source_instance: Some(self.source.instance_id),
            ..Log::default()
        };
        Envelope {
            log: Some(body),
            ..self.envelope(EventType::LogMessage, &[b"source_type"])
        }
    }

    fn error(&self, members: Members<'a>) -> Envelope<'s> {
        let body = Error {
            source: Some(self.tag("source")),
            code: Some(cast::text_to_i64(self.tag("code")) as i32),
            message: Some(LogRef::read(members).payload),
            ..Error::default()
        };
        Envelope {
            error: Some(body),
            ..self.envelope(EventType::Error, &[b"source", b"code"])
        }
    }

    fn counter(&self, members: Members<'a>) -> Envelope<'s> {
        let counter = CounterRef::read(members);
        let body = Counter {
            name: Some(counter.name.as_bytes()),
            delta: Some(counter.delta),
            total: Some(counter.total),
            ..Counter::default()
        };
        Envelope {
            counter: Some(body),
            ..self.envelope(EventType::CounterEvent, &[])
        }
    }

    fn timer(&self, members: Members<'a>) -> Envelope<'s> {
        let timer = TimerRef::read(members);
        let name = |tag: &str| std::str::from_utf8(self.tag(tag)).unwrap_or_default();
        let body = Http {
            start: Some(timer.start),
            stop: Some(timer.stop),
            request_id: uuid::of_text(self.tag("request_id")).map(Id::new),
            // Names that nobody knows become 0, which no enum value has.
            peer_type: Some(
                PeerType::from_str_name(name("peer_type")).map_or(0, |peer| peer as i32),
            ),
            method: Some(Method::from_str_name(name("method")).map_or(0, |method| method as i32)),
            uri: Some(self.tag("uri")),
            remote_address: Some(self.tag("remote_address")),
            user_agent: Some(self.tag("user_agent")),
            status_code: Some(cast::text_to_i64(self.tag("status_code")) as i32),
            content_length: Some(cast::text_to_i64(self.tag("content_length"))),
            application_id: uuid::of_text(self.source.source_id).map(Id::new),
            instance_index: Some(cast::text_to_i32(self.source.instance_id)),
            instance_id: Some(self.tag("routing_instance_id")),
            // Nothing at all splits into one empty element.
            forwarded: self.tag("forwarded").split(|byte| *byte == b'\n').collect(),
            ..Http::default()
        };
        Envelope {
            http: Some(body),
            ..self.envelope(EventType::HttpStartStop, &HTTP_FIELDS)
        }
    }

    fn container(&self, metrics: &Metrics<'s>) -> Option<Envelope<'s>> {
        let value = |name: &str| {
            let (_, metric) = metrics.iter().find(|(key, _)| *key == name.as_bytes())?;
            Some(metric).filter(|metric| !metric.unit.is_empty() || metric.value != 0.0)
        };
        let mut values = [0.0; 5];
        for (place, name) in values.iter_mut().zip(CONTAINER) {
            *place = value(name)?.value;
        }
        let [cpu, memory, disk, memory_quota, disk_quota] = values;
        let index = metrics.iter().find(|(key, _)| *key == b"instance_index");
        let body = Container {
            application_id: Some(self.source.source_id),
            instance_index: Some(match index {
                Some((_, metric)) => cast::double_to_i32(metric.value),
                None => cast::text_to_i32(self.source.instance_id),
            }),
            cpu: Some(cpu),
            memory: Some(cast::double_to_u64(memory)),
            disk: Some(cast::double_to_u64(disk)),
            memory_quota: Some(cast::double_to_u64(memory_quota)),
            disk_quota: Some(cast::double_to_u64(disk_quota)),
            ..Container::default()
        };
        Some(Envelope {
            container: Some(body),
            ..self.envelope(EventType::ContainerMetric, &[])
        })
    }
}

/// The metrics of a gauge by name.
type Metrics<'s> = SmallVec<[(&'s [u8], MetricRef<'s>); 6]>;

/// A gauge becomes one container metric when it looks like one, else one value metric per metric.
fn gauge<'s, 'a: 's>(
    source: Tagged<'s, 'a>,
    members: Members<'a>,
    mut take: impl FnMut(&Envelope<'_>, Left) -> bool,
) -> bool {
    let mut metrics: Metrics<'s> = MetricRef::read(members)
        .map(|metric| (metric.name.as_bytes(), metric))
        .collect();
    keep_last_of_each(&mut metrics);
    if let Some(container) = source.container(&metrics) {
        take(&container, Left(1));
        return false;
    }
    if metrics.is_empty() {
        return false;
    }
    let mut envelope = source.envelope(EventType::ValueMetric, &[]);
    for (i, (name, metric)) in metrics.iter().enumerate() {
        envelope.value = Some(ValueMetric {
            name: Some(name),
            value: Some(metric.value),
            unit: Some(metric.unit.as_bytes()),
            ..ValueMetric::default()
        });
        let left = u32::try_from(metrics.len() - i).unwrap_or(u32::MAX);
        if !take(&envelope, Left(left)) {
            break;
        }
    }
    false
}
