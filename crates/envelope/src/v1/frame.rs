//! Envelopes in their v1 form, with what v1 subscriptions ask of them.

use std::{
    fmt,
    ops::{Deref, Range},
};

use bytes::Bytes;

use loggregator_proto::events::envelope::EventType;

use super::{MAX_V1_FRAME, uuid};
use crate::wire::{Fields, Sink, Value, nested, varint_len};

/// The v1 form of a frame: `plumbing.BatchResponse` framing, that is records of `0a`, length and one serialized
/// `events.Envelope`. Records that lie side by side are a valid `BatchResponse`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct V1Frame {
    bytes: Bytes,
    entries: Box<[V1Entry]>,
    undeliverable: u32,
    oversized: u32,
}

/// One v1 envelope of a frame. Offsets are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V1Entry {
    /// Where the record begins, at its header.
    pub start: u32,
    /// Length of the whole record, header included.
    pub len: u32,
    /// Which envelope of the v2 frame it is a form of: an index into its entries. One envelope can have several v1
    /// forms, or none.
    pub envelope: u32,
    /// Where the app id's text or UUID message lies, counted from `start`.
    app: u32,
    app_len: u32,
    head: u8,
    log: bool,
    app_form: AppForm,
}

/// How a v1 envelope tells its app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AppForm {
    /// It has none: it belongs to the platform.
    System,
    /// As text.
    Text,
    /// As an `events.UUID`.
    Uuid,
}

/// What routing wants to know of a v1 envelope.
pub(super) struct Routing {
    pub(super) log: bool,
    pub(super) form: AppForm,
    /// Where the text or UUID lies in the envelope.
    pub(super) app: Range<usize>,
}

impl Routing {
    /// Of what belongs to no app.
    pub(super) const SYSTEM: Routing = Routing {
        log: false,
        form: AppForm::System,
        app: 0..0,
    };

    /// Looks at an envelope in canonical form: ascending fields, no message twice.
    fn of(payload: &[u8]) -> Routing {
        let mut event_type = None;
        for field in Fields::new(payload) {
            match (field.number, field.value) {
                (2, Value::Varint(number)) => event_type = EventType::try_from(number as i32).ok(),
                (1..=6, _) => {}
                (7, Value::Bytes(body)) if event_type == Some(EventType::HttpStartStop) => {
                    let app = last(body, 12);
                    return app.map_or(Routing::SYSTEM, |app| Routing {
                        log: false,
                        form: AppForm::Uuid,
                        app: within(app, field.end, body),
                    });
                }
                (8, Value::Bytes(body)) if event_type == Some(EventType::LogMessage) => {
                    let app = last(body, 4).unwrap_or(0..0);
                    return Routing {
                        log: true,
                        form: AppForm::Text,
                        app: within(app, field.end, body),
                    };
                }
                (12, Value::Bytes(body)) if event_type == Some(EventType::ContainerMetric) => {
                    let app = last(body, 1).unwrap_or(0..0);
                    return Routing {
                        log: false,
                        form: AppForm::Text,
                        app: within(app, field.end, body),
                    };
                }
                (7..=12, _) => {}
                _ => break,
            }
        }
        match event_type {
            // The body is absent.
            Some(EventType::LogMessage) => Routing {
                log: true,
                form: AppForm::Text,
                app: 0..0,
            },
            Some(EventType::ContainerMetric) => Routing {
                log: false,
                form: AppForm::Text,
                app: 0..0,
            },
            _ => Routing::SYSTEM,
        }
    }
}

/// Where the bytes of the last field of this number lie in the message.
fn last(message: &[u8], number: u32) -> Option<Range<usize>> {
    let fields = Fields::new(message).filter(|field| field.number == number);
    let ranges = fields.filter_map(|field| match field.value {
        Value::Bytes(bytes) => Some(field.end - bytes.len()..field.end),
        _ => None,
    });
    ranges.last()
}

/// A range of a body, which ends at `end` of the envelope, as a range of the envelope.
fn within(range: Range<usize>, end: usize, body: &[u8]) -> Range<usize> {
    let start = end - body.len();
    start + range.start..start + range.end
}

/// Records in the making.
#[derive(Debug, Default)]
pub(super) struct Records {
    bytes: Vec<u8>,
    entries: Vec<V1Entry>,
    undeliverable: u32,
    oversized: u32,
}

/// A record's header has no more bytes than this.
const MAX_HEAD: usize = 11;

impl Records {
    pub(super) fn with_capacity(bytes: usize, envelopes: usize) -> Records {
        Records {
            bytes: Vec::with_capacity(bytes),
            entries: Vec::with_capacity(envelopes),
            ..Records::default()
        }
    }

    /// Whether all records together stay within `limit` bytes after another payload of this length.
    pub(super) fn has_room(&self, payload: usize, limit: usize) -> bool {
        payload <= limit && self.bytes.len() + MAX_HEAD + payload <= limit
    }

    /// Adds an envelope in canonical form.
    pub(super) fn push(&mut self, payload: &[u8], envelope: u32) {
        let start = self.bytes.len();
        self.bytes.bytes(1, payload);
        let routing = Routing::of(payload);
        self.note(start, payload.len(), envelope, &routing);
    }

    /// Adds the envelope that `write` appends, unless the records would get too big ([`MAX_V1_FRAME`]): then this many,
    /// it and those that were to follow it, are counted as oversized. Answers whether it was added.
    #[inline]
    pub(super) fn write(
        &mut self,
        envelope: u32,
        with_following: u32,
        write: impl FnOnce(&mut Vec<u8>) -> Routing,
    ) -> bool {
        let start = self.bytes.len();
        let (routing, payload) = nested(&mut self.bytes, 1, write);
        let len = self.bytes.len() - payload;
        if start + MAX_HEAD + len > MAX_V1_FRAME {
            self.bytes.truncate(start);
            self.oversized += with_following;
            return false;
        }
        self.note(start, len, envelope, &routing);
        true
    }

    /// Counts an envelope that has no v1 form because a required field cannot be filled.
    pub(super) fn undeliverable(&mut self) {
        self.undeliverable += 1;
    }

    #[inline]
    fn note(&mut self, start: usize, payload: usize, envelope: u32, routing: &Routing) {
        let head = 1 + varint_len(payload as u64);
        // There was room: everything is within 32 bits.
        self.entries.push(V1Entry {
            start: start as u32,
            len: (head + payload) as u32,
            envelope,
            app: (head + routing.app.start) as u32,
            app_len: routing.app.len() as u32,
            head: head as u8,
            log: routing.log,
            app_form: routing.form,
        });
    }

    pub(super) fn finish(mut self) -> V1Frame {
        // It is kept for long, and its length is what it is counted with.
        if self.bytes.capacity() > self.bytes.len() + self.bytes.len() / 16 {
            self.bytes.shrink_to_fit();
        }
        let (bytes, entries) = (self.bytes.into(), self.entries.into_boxed_slice());
        V1Frame {
            bytes,
            entries,
            undeliverable: self.undeliverable,
            oversized: self.oversized,
        }
    }
}

impl V1Entry {
    /// The record: header and envelope.
    #[inline]
    pub fn record(&self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.len as usize
    }

    /// The serialized `events.Envelope`.
    #[inline]
    pub fn payload(&self) -> Range<usize> {
        let start = self.start as usize;
        start + usize::from(self.head)..start + self.len as usize
    }
}

impl V1Frame {
    /// All records.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Where the records lie, in order; [`envelope`](V1Entry::envelope) never decreases.
    pub fn entries(&self) -> &[V1Entry] {
        &self.entries
    }

    /// How many v1 envelopes there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no envelope of the frame has a v1 form.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many envelopes have no v1 form because a field that v1 requires cannot be filled: a log without payload,
    /// a timer without request id. (Events, and envelopes without any kind, have no v1 form at all and are not
    /// counted.)
    pub fn undeliverable(&self) -> u32 {
        self.undeliverable
    }

    /// How many v1 envelopes were left out because the v1 form of the frame became too big
    /// ([`MAX_V1_FRAME`](super::MAX_V1_FRAME)).
    pub fn oversized(&self) -> u32 {
        self.oversized
    }

    fn slice(&self, range: Range<usize>) -> Bytes {
        if range.start <= range.end && range.end <= self.bytes.len() {
            self.bytes.slice(range)
        } else {
            Bytes::new()
        }
    }

    /// One record, header included, sharing the frame's memory. Empty when there is no such record.
    pub fn record(&self, i: usize) -> Bytes {
        self.entries
            .get(i)
            .map(|entry| self.slice(entry.record()))
            .unwrap_or_default()
    }

    /// Consecutive records, sharing the frame's memory. Empty when the range is, or goes beyond the frame.
    pub fn run(&self, range: Range<usize>) -> Bytes {
        match self.entries.get(range) {
            Some([first, .., last]) => self.slice(first.record().start..last.record().end),
            Some([only]) => self.slice(only.record()),
            _ => Bytes::new(),
        }
    }

    /// One serialized `events.Envelope`, sharing the frame's memory. Empty when there is no such record.
    pub fn payload(&self, i: usize) -> Bytes {
        self.entries
            .get(i)
            .map(|entry| self.slice(entry.payload()))
            .unwrap_or_default()
    }

    /// Whether it is a `LogMessage`.
    pub fn is_log(&self, i: usize) -> bool {
        self.entries.get(i).is_some_and(|entry| entry.log)
    }

    /// The app it belongs to: the id of the app for logs, container metrics and requests, else `system`. `None` when
    /// the id is not UTF-8, so that no subscription can ask for it, and when there is no such record.
    pub fn app_id(&self, i: usize) -> Option<AppId<'_>> {
        let entry = self.entries.get(i)?;
        let start = entry.start as usize + entry.app as usize;
        let bytes = self.bytes.get(start..start + entry.app_len as usize)?;
        match entry.app_form {
            AppForm::System => Some(AppId(Form::Text("system"))),
            AppForm::Text => std::str::from_utf8(bytes)
                .ok()
                .map(|text| AppId(Form::Text(text))),
            AppForm::Uuid => Some(AppId(Form::Uuid(uuid::to_text(uuid::of_message(bytes))))),
        }
    }

    /// Memory that the form takes, in bytes.
    pub fn memory(&self) -> usize {
        self.bytes.len() + size_of_val::<[V1Entry]>(&self.entries)
    }
}

/// The app that a v1 envelope belongs to; a `str`.
#[derive(Clone, Copy)]
pub struct AppId<'a>(Form<'a>);

#[derive(Clone, Copy)]
enum Form<'a> {
    Text(&'a str),
    Uuid([u8; 36]),
}

impl Deref for AppId<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            Form::Text(text) => text,
            // Hexadecimal digits and dashes.
            Form::Uuid(text) => std::str::from_utf8(text).unwrap_or_default(),
        }
    }
}

impl AsRef<str> for AppId<'_> {
    fn as_ref(&self) -> &str {
        self
    }
}

impl fmt::Debug for AppId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for AppId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl PartialEq<str> for AppId<'_> {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}
