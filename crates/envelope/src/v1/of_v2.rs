//! From v2 to v1: one envelope becomes none, one or many.
//!
//! Everybody who reads v1 pays for this, so it is one walk over the envelope and one writing of the result, with nothing
//! built in between. Tags are recognised as they are read, and those that stay tags are copied as they lie.

use std::borrow::Cow;

use loggregator_proto::events::{Method, PeerType, envelope::EventType};
use smallvec::SmallVec;

use super::{
    cast,
    frame::{AppForm, Records, Routing},
    tag_names::Name,
    uuid,
    wire_message::{Keys, Pairs, keep_last_of_each},
};
use crate::{
    CounterRef, Kind, LogRef, MetricRef, TagValue, TimerRef,
    view::{deprecated, plain_pair, raw_pair},
    wire::{Encode, Fields, Sink, Value, nested},
};

/// The metrics that together are a container metric.
const CONTAINER: [&str; 5] = ["cpu", "memory", "disk", "memory_quota", "disk_quota"];

/// Adds the v1 forms of the envelope with this body to `records`, as forms of envelope `number` of the frame.
pub(super) fn convert(body: &[u8], number: u32, records: &mut Records) {
    let source = Source::read(body);
    let texts = source.deprecated_texts();
    let tagged = Tagged {
        source: &source,
        deprecated: &texts,
    };
    let members = source.members.iter().copied();
    match source.kind {
        Kind::None | Kind::Event => {}
        Kind::Log if *tagged.tag(Name::V1Type) == *b"Error" => {
            let payload = LogRef::read(members).payload;
            records.write(number, 1, |to| tagged.error(payload, to));
        }
        Kind::Log => {
            let log = LogRef::read(members);
            // The original leaves an empty payload unset, and so cannot write it.
            if log.payload.is_empty() {
                records.undeliverable();
            } else {
                records.write(number, 1, |to| tagged.log(&log, to));
            }
        }
        Kind::Counter => {
            let counter = CounterRef::read(members);
            records.write(number, 1, |to| tagged.counter(&counter, to));
        }
        Kind::Gauge => gauge(tagged, number, records),
        Kind::Timer => match uuid::of_text(tagged.tag(Name::RequestId)) {
            None => records.undeliverable(),
            Some(request) => {
                let timer = TimerRef::read(members);
                records.write(number, 1, |to| tagged.timer(&timer, request, to));
            }
        },
    }
}

/// A tag as it was read.
#[derive(Clone, Copy)]
struct Tag<'a> {
    key: &'a [u8],
    value: &'a [u8],
    /// The map entry, if it is written as we would write it, else nothing.
    entry: &'a [u8],
    name: Name,
}

type Tags<'a> = SmallVec<[Tag<'a>; 12]>;

/// What goes into every v1 form.
struct Source<'a> {
    kind: Kind,
    /// The occurrences of the oneof member that counts, to be merged.
    members: SmallVec<[&'a [u8]; 2]>,
    timestamp: i64,
    source_id: &'a [u8],
    instance_id: &'a [u8],
    tags: Tags<'a>,
    /// The values of tags that have a name, the last of each.
    named: [&'a [u8]; Name::COUNT],
    /// The names that occur.
    names: u32,
    /// A sketch of the keys of `tags`, to see that there is none twice.
    keys: Keys,
    deprecated: Vec<(&'a [u8], TagValue<'a>)>,
}

/// A deprecated tag as text, and whether it has a value at all.
type Deprecated<'a> = (&'a [u8], Cow<'a, str>, bool);

impl<'a> Source<'a> {
    #[inline]
    fn read(body: &'a [u8]) -> Source<'a> {
        let mut source = Source {
            kind: Kind::None,
            members: SmallVec::new(),
            timestamp: 0,
            source_id: &[],
            instance_id: &[],
            tags: Tags::new(),
            named: [&[]; Name::COUNT],
            names: 0,
            keys: Keys::default(),
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
                (9, Value::Bytes(entry)) => source.tag(entry),
                (number, value) => {
                    let Some(kind) = Kind::of_field(number) else {
                        continue;
                    };
                    if kind != source.kind {
                        source.kind = kind;
                        source.members.clear();
                    }
                    if let Value::Bytes(bytes) = value {
                        source.members.push(bytes);
                    }
                }
            }
        }
        source
    }

    #[inline]
    fn tag(&mut self, entry: &'a [u8]) {
        let (key, value, entry) = match plain_pair(entry) {
            Some((key, value)) => (key, value, entry),
            None => {
                let (key, value) = raw_pair(entry);
                (key, value, &[][..])
            }
        };
        let name = Name::of(key);
        self.named[name as usize] = value;
        self.names |= name.bit();
        self.keys.add(key);
        self.tags.push(Tag {
            key,
            value,
            entry,
            name,
        });
    }

    /// The deprecated tags as text, the last of each key.
    fn deprecated_texts(&self) -> Vec<Deprecated<'a>> {
        if self.deprecated.is_empty() {
            return Vec::new();
        }
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
    deprecated: &'s [Deprecated<'a>],
}

impl<'s, 'a: 's> Tagged<'s, 'a> {
    /// One tag: `tags` first, else deprecated, else empty.
    #[inline]
    fn tag(&self, name: Name) -> &'s [u8] {
        if self.source.names & name.bit() != 0 {
            return self.source.named[name as usize];
        }
        let old = self
            .deprecated
            .iter()
            .rev()
            .find(|(key, ..)| Name::of(key) == name);
        old.map_or(&[], |(_, value, _)| value.as_bytes())
    }

    /// Writes all tags: here deprecated ones override. Those whose names are in `used` became fields of the body.
    #[inline]
    fn tags(&self, used: u32, with_instance: bool, to: &mut Vec<u8>) {
        let source = self.source;
        let mut used = used | Name::OF_ENVELOPES;
        if !source.keys.all_differ() || !self.deprecated.is_empty() {
            self.merged_tags(used, with_instance, to);
            return;
        }
        // The envelope's own ids replace tags of these names.
        let source_id = Some(source.source_id).filter(|id| !id.is_empty());
        let instance_id = Some(source.instance_id).filter(|id| with_instance && !id.is_empty());
        if source_id.is_some() {
            used |= Name::SourceId.bit();
        }
        if instance_id.is_some() {
            used |= Name::InstanceId.bit();
        }
        for tag in &source.tags {
            if tag.name.bit() & used == 0 {
                if tag.entry.is_empty() {
                    to.pair(17, tag.key, tag.value);
                } else {
                    to.bytes(17, tag.entry);
                }
            }
        }
        if let Some(id) = source_id {
            to.pair(17, b"source_id", id);
        }
        if let Some(id) = instance_id {
            to.pair(17, b"instance_id", id);
        }
    }

    /// The same when keys may occur more than once: the last one counts.
    #[cold]
    fn merged_tags(&self, used: u32, with_instance: bool, to: &mut Vec<u8>) {
        let source = self.source;
        let tags = source.tags.iter();
        let tags = tags.map(|tag| (tag.key, tag.value, tag.name));
        let deprecated = self.deprecated.iter().filter(|(.., set)| *set);
        let deprecated = deprecated.map(|(key, value, _)| (*key, value.as_bytes(), Name::of(key)));
        let mut pairs: Pairs<'_> = tags
            .chain(deprecated)
            .filter(|(.., name)| name.bit() & used == 0)
            .map(|(key, value, _)| (key, value))
            .collect();
        if !source.source_id.is_empty() {
            pairs.push((b"source_id", source.source_id));
        }
        if with_instance && !source.instance_id.is_empty() {
            pairs.push((b"instance_id", source.instance_id));
        }
        keep_last_of_each(&mut pairs);
        for (key, value) in &pairs {
            to.pair(17, key, value);
        }
    }

    /// The fields in front of the body.
    #[inline]
    fn head(&self, event_type: EventType, to: &mut Vec<u8>) {
        to.bytes(1, self.tag(Name::Origin));
        to.varint(2, event_type as u64);
        to.varint(6, self.source.timestamp as u64);
    }

    /// The fields behind the body. Tags whose names are in `used` became fields of the body.
    #[inline]
    fn tail(&self, used: u32, with_instance: bool, to: &mut Vec<u8>) {
        to.bytes(13, self.tag(Name::Deployment));
        to.bytes(14, self.tag(Name::Job));
        to.bytes(15, self.tag(Name::Index));
        to.bytes(16, self.tag(Name::Ip));
        self.tags(used, with_instance, to);
    }

    fn log(&self, log: &LogRef<'_>, to: &mut Vec<u8>) -> Routing {
        let (start, id) = (to.len(), self.source.source_id);
        self.head(EventType::LogMessage, to);
        let (app, body) = nested(to, 8, |to| {
            let start = to.len();
            to.bytes(1, log.payload);
            to.varint(2, if log.err { 2 } else { 1 });
            to.varint(3, self.source.timestamp as u64);
            to.bytes(4, id);
            let end = to.len() - start;
            to.bytes(5, self.tag(Name::SourceType));
            to.bytes(6, self.source.instance_id);
            end - id.len()..end
        });
        self.tail(Name::SourceType.bit(), false, to);
        let body = body - start;
        Routing {
            log: true,
            form: AppForm::Text,
            app: body + app.start..body + app.end,
        }
    }

    fn error(&self, payload: &[u8], to: &mut Vec<u8>) -> Routing {
        self.head(EventType::Error, to);
        nested(to, 11, |to| {
            to.bytes(1, self.tag(Name::Source));
            to.int32(2, cast::text_to_i64(self.tag(Name::Code)) as i32);
            to.bytes(3, payload);
        });
        let used = Name::Source.bit() | Name::Code.bit();
        self.tail(used, false, to);
        Routing::SYSTEM
    }

    fn counter(&self, counter: &CounterRef<'_>, to: &mut Vec<u8>) -> Routing {
        self.head(EventType::CounterEvent, to);
        nested(to, 10, |to| {
            to.bytes(1, counter.name.as_bytes());
            to.varint(2, counter.delta);
            to.varint(3, counter.total);
        });
        self.tail(0, true, to);
        Routing::SYSTEM
    }

    fn timer(&self, timer: &TimerRef<'_>, request: uuid::Uuid, to: &mut Vec<u8>) -> Routing {
        let start = to.len();
        let name = |tag| std::str::from_utf8(self.tag(tag)).unwrap_or_default();
        // Names that nobody knows become 0, which no enum value has.
        let peer_type = PeerType::from_str_name(name(Name::PeerType)).map_or(0, |peer| peer as i32);
        let method = Method::from_str_name(name(Name::Method)).map_or(0, |method| method as i32);
        self.head(EventType::HttpStartStop, to);
        let (app, body) = nested(to, 7, |to| {
            let start = to.len();
            to.varint(1, timer.start as u64);
            to.varint(2, timer.stop as u64);
            to.message(3, &request);
            to.int32(4, peer_type);
            to.int32(5, method);
            to.bytes(6, self.tag(Name::Uri));
            to.bytes(7, self.tag(Name::RemoteAddress));
            to.bytes(8, self.tag(Name::UserAgent));
            to.int32(9, cast::text_to_i64(self.tag(Name::StatusCode)) as i32);
            to.varint(10, cast::text_to_i64(self.tag(Name::ContentLength)) as u64);
            let app = uuid::of_text(self.source.source_id).map(|app| {
                let ((), at) = nested(to, 12, |to| app.encode(to));
                at - start..to.len() - start
            });
            to.int32(13, cast::text_to_i32(self.source.instance_id));
            to.bytes(14, self.tag(Name::RoutingInstanceId));
            // Nothing at all splits into one empty element.
            for hop in self.tag(Name::Forwarded).split(|byte| *byte == b'\n') {
                to.bytes(15, hop);
            }
            app
        });
        self.tail(Name::OF_REQUESTS, false, to);
        let body = body - start;
        app.map_or(Routing::SYSTEM, |app| Routing {
            log: false,
            form: AppForm::Uuid,
            app: body + app.start..body + app.end,
        })
    }

    fn container(&self, container: &Container, to: &mut Vec<u8>) -> Routing {
        let (start, id) = (to.len(), self.source.source_id);
        self.head(EventType::ContainerMetric, to);
        let (app, body) = nested(to, 12, |to| {
            let start = to.len();
            to.bytes(1, id);
            let end = to.len() - start;
            to.int32(2, container.instance_index);
            let [cpu, sizes @ ..] = container.values;
            to.double(3, cpu);
            for (number, size) in (4..).zip(sizes) {
                to.varint(number, cast::double_to_u64(size));
            }
            end - id.len()..end
        });
        self.tail(0, false, to);
        let body = body - start;
        Routing {
            log: false,
            form: AppForm::Text,
            app: body + app.start..body + app.end,
        }
    }

    fn value(&self, metric: &MetricRef<'_>, to: &mut Vec<u8>) -> Routing {
        self.head(EventType::ValueMetric, to);
        nested(to, 9, |to| {
            to.bytes(1, metric.name.as_bytes());
            to.double(2, metric.value);
            to.bytes(3, metric.unit.as_bytes());
        });
        self.tail(0, true, to);
        Routing::SYSTEM
    }
}

/// The metrics of a gauge by name.
type Metrics<'s> = SmallVec<[(&'s [u8], MetricRef<'s>); 6]>;

/// What a container uses.
struct Container {
    instance_index: i32,
    /// In the order of [`CONTAINER`].
    values: [f64; 5],
}

impl Container {
    /// The container metric that these metrics are together, if they are one.
    fn of(metrics: &Metrics<'_>, source: &Source<'_>) -> Option<Container> {
        let value = |name: &str| {
            let (_, metric) = metrics.iter().find(|(key, _)| *key == name.as_bytes())?;
            Some(metric).filter(|metric| !metric.unit.is_empty() || metric.value != 0.0)
        };
        let mut values = [0.0; 5];
        for (place, name) in values.iter_mut().zip(CONTAINER) {
            *place = value(name)?.value;
        }
        let index = metrics.iter().find(|(key, _)| *key == b"instance_index");
        let instance_index = match index {
            Some((_, metric)) => cast::double_to_i32(metric.value),
            None => cast::text_to_i32(source.instance_id),
        };
        Some(Container {
            instance_index,
            values,
        })
    }
}

/// A gauge becomes one container metric when it looks like one, else one value metric per metric.
fn gauge(tagged: Tagged<'_, '_>, number: u32, records: &mut Records) {
    let mut metrics: Metrics<'_> = MetricRef::read(tagged.source.members.iter().copied())
        .map(|metric| (metric.name.as_bytes(), metric))
        .collect();
    keep_last_of_each(&mut metrics);
    if let Some(container) = Container::of(&metrics, tagged.source) {
        records.write(number, 1, |to| tagged.container(&container, to));
        return;
    }
    if metrics.is_empty() {
        return;
    }
    for (i, (_, metric)) in metrics.iter().enumerate() {
        let left = u32::try_from(metrics.len() - i).unwrap_or(u32::MAX);
        if !records.write(number, left, |to| tagged.value(metric, to)) {
            break;
        }
    }
}
