//! Envelopes in their v1 form, with what v1 subscriptions ask of them.

use std::{
    fmt,
    ops::{Deref, Range},
};

use bytes::Bytes;

use super::uuid;

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
pub(crate) enum AppForm {
    /// It has none: it belongs to the platform.
    System,
    /// As text.
    Text,
    /// As an `events.UUID`.
    Uuid,
}

impl V1Entry {
    pub(crate) fn new(
        record: Range<u32>,
        head: u8,
        envelope: u32,
        log: bool,
        app_form: AppForm,
        app: Range<u32>,
    ) -> Self {
        let app_len = app.end - app.start;
        let (start, len) = (record.start, record.end - record.start);
        V1Entry {
            start,
            len,
            envelope,
            app: app.start.saturating_sub(start),
            app_len,
            head,
            log,
            app_form,
        }
    }

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
    pub(crate) fn new(
        bytes: Bytes,
        entries: Vec<V1Entry>,
        undeliverable: u32,
        oversized: u32,
    ) -> V1Frame {
        V1Frame {
            bytes,
            entries: entries.into_boxed_slice(),
            undeliverable,
            oversized,
        }
    }

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
