//! From an event to the records that are sent for it.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use loggregator_envelope::{Kind, KindSet, V1Frame, json};
use loggregator_nozzle::fields::Field;
use loggregator_nozzle::format::Format;
use loggregator_nozzle::template::Template;
use loggregator_nozzle::{BufferIdentity, Outcome, Reason};
use rdkafka::message::{Header, OwnedHeaders};

use crate::config::{Config, HeaderName, Value};
use crate::subject::Subject;
use crate::topic::{Topic, Topics};

/// Code of an envelope that has no v1 form: a log without a payload, a timer that is no request.
pub(crate) const NO_V1_FORM: &str = "no_v1_form";
/// Code of an event that is larger than a record may be.
pub(crate) const RECORD_TOO_LARGE: &str = "record_too_large";

/// What an envelope's own time may be ahead of its arrival. Brokers refuse a record that is more than an hour ahead
/// (`message.timestamp.after.max.ms`), and with it a whole request.
const MOST_AHEAD: i64 = 3_000_000_000_000;
/// What Kafka's record format takes besides key, value and headers, at most (KIP-98).
const RECORD_OVERHEAD: usize = 40;
/// The same for a header.
const HEADER_OVERHEAD: usize = 10;
/// With so much room a record's key and headers are not measured; librdkafka and the brokers still do.
const MOST_HEADERS: usize = 16 << 10;

/// How events become records.
#[derive(Debug)]
pub(crate) struct Mapping {
    pub topics: Topics,
    key: Key,
    value: Value,
    headers: Vec<HeaderName>,
    foundation: Option<String>,
    max_bytes: usize,
}

#[derive(Debug)]
enum Key {
    None,
    SourceId,
    Template(Template),
    /// This field, else the source id.
    Field(Field),
}

/// What one event leaves for the next.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The topic, which they mostly share.
    pub topic: Option<Arc<Topic>>,
    pub room: Room,
}

/// Room for the values of an event's records.
#[derive(Debug, Default)]
pub(crate) struct Room {
    written: Vec<u8>,
    v1: V1Frame,
}

/// The values of an event's records.
pub(crate) enum Values<'a> {
    One(&'a [u8]),
    V1(&'a V1Frame),
}

impl<'a> Values<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Values::One(_) => 1,
            Values::V1(frame) => frame.len(),
        }
    }

    pub(crate) fn get(&self, i: usize) -> &'a [u8] {
        match self {
            Values::One(value) => value,
            Values::V1(frame) => {
                let payload: Option<Range<usize>> = frame.entries().get(i).map(|e| e.payload());
                payload
                    .and_then(|range| frame.bytes().get(range))
                    .unwrap_or_default()
            }
        }
    }
}

impl Mapping {
    /// Reads the part of the configuration that is about records; what is wrong goes to `wrong`, with its key.
    pub(crate) fn new(config: &Config, wrong: &mut Vec<(String, String)>) -> Mapping {
        let key = match config.key.as_str() {
            "none" => Key::None,
            "source_id" => Key::SourceId,
            "app" => Key::Field(Field::AppId),
            "org" => Key::Field(Field::OrgId),
            other => {
                let text = match other {
                    "source_id/instance_id" => "{source_id}/{instance_id}",
                    other => other,
                };
                match Template::parse(text) {
                    Ok(template) if template.constant().is_none() => Key::Template(template),
                    Ok(_) => {
                        let message = format!(
                            "`{other}` is not none, source_id, source_id/instance_id, app, org or a template such as {{job}}/{{index}}"
                        );
                        wrong.push(("key".to_owned(), message));
                        Key::None
                    }
                    Err(error) => {
                        wrong.push(("key".to_owned(), error.to_string()));
                        Key::None
                    }
                }
            }
        };
        if config.foundation.is_some() && !config.headers.contains(&HeaderName::Foundation) {
            let message = "is in no header; add \"foundation\" to headers";
            wrong.push(("foundation".to_owned(), message.to_owned()));
        }
        Mapping {
            topics: Topics::new(config, wrong),
            key,
            value: config.value,
            headers: config.headers.clone(),
            foundation: config.foundation.clone(),
            max_bytes: usize::try_from(config.max_record_bytes.0).unwrap_or(usize::MAX),
        }
    }

    /// The kinds of envelopes that have a value of this form.
    pub(crate) fn accepts(&self) -> KindSet {
        match self.value {
            Value::Protobuf | Value::Json | Value::JsonLine => KindSet::ALL,
            Value::ProtobufV1 => [Kind::Log, Kind::Counter, Kind::Gauge, Kind::Timer]
                .into_iter()
                .collect(),
            Value::Text => [Kind::Log].into_iter().collect(),
        }
    }

    /// The key; `None` spreads records over all partitions.
    pub(crate) fn key<'a>(&self, subject: &Subject<'a>) -> Option<Cow<'a, str>> {
        let source_id = || subject.field(&Field::SourceId);
        match &self.key {
            Key::None => None,
            Key::SourceId => source_id(),
            Key::Field(field) => subject.field(field).or_else(source_id),
            Key::Template(template) => Some(Cow::Owned(template.render(subject.event)))
                .filter(|key: &Cow<'_, str>| !key.is_empty()),
        }
    }

    /// Time of the records, in milliseconds since 1970: when it happened; when it came in, where the envelope says nothing
    /// or a time that brokers refuse.
    pub(crate) fn timestamp(subject: &Subject<'_>) -> i64 {
        let (at, received) = (subject.outline.timestamp, subject.event.received);
        let plausible = at > 0 && (received <= 0 || at <= received.saturating_add(MOST_AHEAD));
        (if plausible { at } else { received.max(0) }) / 1_000_000
    }

    /// The values.
    ///
    /// # Errors
    /// When the envelope has none of this form.
    pub(crate) fn values<'a>(
        &self,
        subject: &Subject<'a>,
        room: &'a mut Room,
    ) -> Result<Values<'a>, Reason> {
        let event = subject.event;
        room.written.clear();
        match self.value {
            Value::Protobuf => Ok(Values::One(event.body())),
            Value::Text => Ok(Values::One(
                subject
                    .outline
                    .log()
                    .map(|log| log.payload)
                    .unwrap_or_default(),
            )),
            Value::Json => {
                json::write_envelope(&mut room.written, event.envelope());
                Ok(Values::One(&room.written))
            }
            Value::JsonLine => {
                Format::Json.write(&mut room.written, event);
                Ok(Values::One(&room.written))
            }
            Value::ProtobufV1 => {
                room.v1 = V1Frame::of_envelope(event.envelope());
                if room.v1.is_empty() {
                    let kind = event.envelope().kind().name();
                    let detail = format!("this {kind} lacks what v1 requires");
                    return Err(Reason::new(NO_V1_FORM, detail));
                }
                Ok(Values::V1(&room.v1))
            }
        }
    }

    /// Key and values of the event's records.
    ///
    /// # Errors
    /// What becomes of it when it has none, or when one is larger than a record may be.
    pub(crate) fn content<'a>(
        &self,
        subject: &Subject<'a>,
        id: &Identity,
        room: &'a mut Room,
    ) -> Result<(Option<Cow<'a, str>>, Values<'a>), Outcome> {
        let key = self.key(subject);
        let values = self.values(subject, room).map_err(Outcome::Rejected)?;
        let largest = (0..values.len()).map(|i| values.get(i).len()).max();
        let room = self.max_bytes.saturating_sub(largest.unwrap_or(0));
        // Headers are read only where they may matter.
        if room < MOST_HEADERS {
            self.check_size(subject, id, key.as_deref(), largest.unwrap_or(0))
                .map_err(Outcome::Oversize)?;
        }
        Ok((key, values))
    }

    fn check_size(
        &self,
        subject: &Subject<'_>,
        id: &Identity,
        key: Option<&str>,
        largest: usize,
    ) -> Result<(), Reason> {
        let mut size = largest + key.map_or(0, str::len) + RECORD_OVERHEAD;
        self.headers(subject, id, 0, |name, value| {
            size += name.len() + value.len() + HEADER_OVERHEAD;
        });
        if size > self.max_bytes {
            let detail = format!(
                "a record of {size} bytes, max_record_bytes is {}",
                self.max_bytes
            );
            return Err(Reason::new(RECORD_TOO_LARGE, detail));
        }
        Ok(())
    }

    /// Calls `add` with each header of the event's records. `part` counts its records from 0.
    pub(crate) fn headers(
        &self,
        subject: &Subject<'_>,
        id: &Identity,
        part: usize,
        mut add: impl FnMut(&'static str, &str),
    ) {
        for header in &self.headers {
            let mut field = |name: &'static str, field: &Field| {
                if let Some(value) = subject.field(field) {
                    add(name, &value);
                }
            };
            match header {
                HeaderName::Kind => field("kind", &Field::Kind),
                HeaderName::Deployment => field("deployment", &Field::Deployment),
                HeaderName::AppId => field("app_id", &Field::AppId),
                HeaderName::SpaceId => field("space_id", &Field::SpaceId),
                HeaderName::OrgId => field("org_id", &Field::OrgId),
                HeaderName::ContentType => add("content_type", self.content_type()),
                HeaderName::Schema => {
                    if let Some(schema) = self.schema() {
                        add("schema", schema);
                    }
                }
                HeaderName::Foundation => {
                    if let Some(foundation) = &self.foundation {
                        add("foundation", foundation);
                    }
                }
                HeaderName::EnvelopeId => add("envelope_id", &id.of(subject.event.seq, part)),
            }
        }
    }

    fn content_type(&self) -> &'static str {
        match self.value {
            Value::Protobuf | Value::ProtobufV1 => "application/x-protobuf",
            Value::Json | Value::JsonLine => "application/json",
            Value::Text => "text/plain",
        }
    }

    fn schema(&self) -> Option<&'static str> {
        match self.value {
            Value::Protobuf | Value::Json => Some("loggregator.v2.Envelope"),
            Value::ProtobufV1 => Some("events.Envelope"),
            Value::JsonLine => Some("loggregator.line.v1"),
            Value::Text => None,
        }
    }
}

/// What all envelope ids of a nozzle begin with.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    nozzle: String,
    pub(crate) buffer: BufferIdentity,
}

impl Identity {
    /// Of this nozzle, whose buffer is this one.
    pub(crate) fn new(nozzle: &str, buffer: BufferIdentity) -> Identity {
        Identity {
            nozzle: nozzle.to_owned(),
            buffer,
        }
    }

    /// The id of the event of this number; the second and later records of one have one of their own.
    fn of(&self, seq: u64, part: usize) -> String {
        let (nozzle, opening) = (&self.nozzle, self.buffer.opening(seq));
        match part {
            0 => format!("{nozzle}/{opening}/{seq}"),
            part => format!("{nozzle}/{opening}/{seq}/{part}"),
        }
    }
}

/// Headers as librdkafka wants them.
pub(crate) fn owned_headers(
    mapping: &Mapping,
    subject: &Subject<'_>,
    id: &Identity,
    part: usize,
) -> Option<OwnedHeaders> {
    if mapping.headers.is_empty() {
        return None;
    }
    let mut headers = Some(OwnedHeaders::new_with_capacity(mapping.headers.len()));
    mapping.headers(subject, id, part, |key, value| {
        let value = Some(value.as_bytes());
        headers = headers
            .take()
            .map(|so_far| so_far.insert(Header { key, value }));
    });
    headers
}
