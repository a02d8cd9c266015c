//! Editing of envelopes where they lie, without decoding them.
//!
//! Protobuf makes most edits a matter of putting bytes in front of an envelope or behind it: of a field or a map key
//! that occurs twice the last one counts, and occurrences of the same oneof member are merged. So defaults go in front,
//! where anything the envelope says itself overrides them, and what must hold whatever the envelope says goes behind.
//! The envelope's own bytes are copied once and not looked at.

use std::{borrow::Cow, collections::BTreeMap};

use crate::{
    Entry, EnvelopeRef, Flags, FrameBuilder, TagValue,
    hash::source_hash,
    select::PushError,
    wire::{Encode, Fields, Sink},
};

/// Numbers of the fields of `loggregator.v2.Envelope` that are edited.
mod field {
    pub(super) const SOURCE_ID: u32 = 2;
    pub(super) const DEPRECATED_TAGS: u32 = 3;
    pub(super) const COUNTER: u32 = 5;
    pub(super) const TAGS: u32 = 9;
}

/// Tags for envelopes that do not have them, encoded once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefaultTags {
    encoded: Vec<u8>,
}

impl DefaultTags {
    /// Encodes the tags.
    pub fn new<K: AsRef<str>, V: AsRef<str>>(
        tags: impl IntoIterator<Item = (K, V)>,
    ) -> DefaultTags {
        let mut encoded = Vec::new();
        for (key, value) in tags {
            encoded.pair(
                field::TAGS,
                key.as_ref().as_bytes(),
                value.as_ref().as_bytes(),
            );
        }
        DefaultTags { encoded }
    }
}

/// What is to be changed of one envelope.
#[derive(Clone, Copy, Debug, Default)]
pub struct Edit<'a> {
    /// Tags that the envelope gets unless it has them. A tag that is present but empty counts as present.
    pub defaults: Option<&'a DefaultTags>,
    /// The source id from now on.
    pub source_id: Option<&'a str>,
    /// Whether deprecated tags are copied into `tags`, where they override. The deprecated map stays.
    pub copy_deprecated: bool,
    /// The counter's total from now on. Only for envelopes that hold a counter: any other would become one.
    pub counter_total: Option<u64>,
}

impl Edit<'_> {
    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        self.front().is_empty()
            && self.source_id.is_none()
            && !self.copy_deprecated
            && self.counter_total.is_none()
    }

    fn front(&self) -> &[u8] {
        self.defaults.map_or(&[], |tags| &tags.encoded)
    }

    /// What goes behind the envelope. The source id comes last.
    fn write_back(&self, body: &[u8], out: &mut Vec<u8>) {
        if self.copy_deprecated {
            for (key, value) in EnvelopeRef::new(body).deprecated_tags() {
                out.pair(
                    field::TAGS,
                    key.as_bytes(),
                    value.to_plain_text().as_bytes(),
                );
            }
        }
        if let Some(total) = self.counter_total {
            out.message(field::COUNTER, &Total(total));
        }
        if let Some(source_id) = self.source_id {
            out.bytes(field::SOURCE_ID, source_id.as_bytes());
        }
    }

    /// Appends the edited envelope to `out`, without any header.
    pub fn write(&self, body: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(self.front());
        out.extend_from_slice(body);
        self.write_back(body, out);
    }
}

struct Total(u64);

impl Encode for Total {
    fn encode<S: Sink>(&self, to: &mut S) {
        to.varint(3, self.0);
    }
}

impl FrameBuilder {
    /// Adds an envelope of another frame with an edit. `bytes` are that frame's and `entry` is of its index; nothing
    /// is scanned again.
    ///
    /// # Errors
    /// When the frame is full; it is then as before.
    pub fn push_edited(
        &mut self,
        bytes: &[u8],
        entry: &Entry,
        edit: &Edit<'_>,
    ) -> Result<(), PushError> {
        let body = bytes.get(entry.body()).unwrap_or_default();
        let front = edit.front();
        let mut back = std::mem::take(&mut self.scratch);
        back.clear();
        edit.write_back(body, &mut back);

        let mut flags = entry.flags();
        if !front.is_empty() || (edit.copy_deprecated && flags.contains(Flags::HAS_DEPRECATED_TAGS))
        {
            flags = flags | Flags::HAS_TAGS;
        }
        if let Some(source_id) = edit.source_id {
            flags = flags.without(Flags::NO_SOURCE_ID);
            if source_id.is_empty() {
                flags = flags | Flags::NO_SOURCE_ID;
            }
        }
        let pushed = self.push_parts([front, body, &back], |start, head| {
            // All three parts together were found to fit into 32 bits.
            let entry = entry
                .at(start)
                .grown(head, front.len() as u32, back.len() as u32, flags);
            match edit.source_id {
                Some(source_id) => {
                    let end = entry.start + entry.len;
                    entry.with_source(
                        end - source_id.len() as u32..end,
                        source_hash(source_id.as_bytes()),
                    )
                }
                None => entry,
            }
        });
        self.scratch = back;
        pushed
    }
}

/// The source id that an agent gives an envelope without one: the tag `origin`, else the deprecated tag of that name if
/// it is a text. `None` when there is neither.
pub fn source_id_from_origin(envelope: EnvelopeRef<'_>) -> Option<&str> {
    let origin = envelope.tags().filter(|(key, _)| *key == "origin").last();
    origin.map(|(_, value)| value).or_else(|| {
        match envelope
            .deprecated_tags()
            .filter(|(key, _)| *key == "origin")
            .last()?
            .1
        {
            TagValue::Text(text) => Some(text),
            _ => Some(""),
        }
    })
}

/// Appends the envelope to `out` with its deprecated tags moved into `tags`, where they override, as a reverse log proxy
/// does for readers that prefer tags. Deprecated tags without a value are dropped.
pub fn move_to_tags(body: &[u8], out: &mut Vec<u8>) {
    copy_without(body, field::DEPRECATED_TAGS, out);
    let last: BTreeMap<_, _> = EnvelopeRef::new(body).deprecated_tags().collect();
    for (key, value) in last {
        if value != TagValue::Unset {
            out.pair(
                field::TAGS,
                key.as_bytes(),
                value.to_short_text().as_bytes(),
            );
        }
    }
}

/// Appends the envelope to `out` with its tags moved into the deprecated tags, where they override, as a reverse log
/// proxy does for old readers.
pub fn move_to_deprecated_tags(body: &[u8], out: &mut Vec<u8>) {
    copy_without(body, field::TAGS, out);
    for (key, value) in EnvelopeRef::new(body).tags() {
        out.message(field::DEPRECATED_TAGS, &TextTag(key, Cow::Borrowed(value)));
    }
}

struct TextTag<'a>(&'a str, Cow<'a, str>);

impl Encode for TextTag<'_> {
    fn encode<S: Sink>(&self, to: &mut S) {
        to.bytes(1, self.0.as_bytes());
        to.message(2, &Text(&self.1));
    }
}

struct Text<'a>(&'a str);

impl Encode for Text<'_> {
    fn encode<S: Sink>(&self, to: &mut S) {
        to.bytes(1, self.0.as_bytes());
    }
}

/// Copies all fields but those of this number.
fn copy_without(body: &[u8], number: u32, out: &mut Vec<u8>) {
    let mut copied = 0;
    for field in Fields::new(body).filter(|field| field.number == number) {
        out.extend_from_slice(&body[copied..field.start]);
        copied = field.end;
    }
    out.extend_from_slice(&body[copied..]);
}
