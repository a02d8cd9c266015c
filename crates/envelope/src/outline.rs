//! One envelope, read whole in one walk, for those who ask for most of it.

use crate::view::{Members, bytes, raw_pair, text};
use crate::wire::{Fields, Value};
use crate::{EnvelopeRef, Kind, LogRef};

/// What an envelope says beside its tags. Answers are those of [`EnvelopeRef`]; it has walked the bytes once for all of them.
#[derive(Clone, Debug)]
pub struct Outline<'a> {
    /// When it happened, in nanoseconds since 1970.
    pub timestamp: i64,
    /// Who it is about.
    pub source_id: &'a str,
    /// Which instance of the source.
    pub instance_id: &'a str,
    /// What the envelope holds.
    pub kind: Kind,
    /// Whether it has any deprecated tags.
    pub deprecated_tags: bool,
    members: Members<'a>,
}

impl<'a> EnvelopeRef<'a> {
    /// Walks the bytes once. Calls `tag` with name and value of each entry of the map `tags`, in the order of the wire: of a
    /// name that occurs more than once the last one counts. They are UTF-8 if a [`scan`](crate::scan()) has accepted the
    /// envelope, and are not checked here.
    pub fn outline(&self, mut tag: impl FnMut(&'a [u8], &'a [u8])) -> Outline<'a> {
        let (mut timestamp, mut source_id, mut instance_id) = (0, &[][..], &[][..]);
        let (mut kind, mut from) = (Kind::None, 0);
        let mut deprecated_tags = false;
        for field in Fields::new(self.bytes()) {
            match (field.number, field.value) {
                (9, _) => {
                    if let Some(entry) = bytes(field) {
                        let (name, value) = raw_pair(entry);
                        tag(name, value);
                    }
                }
                (3, Value::Bytes(_)) => deprecated_tags = true,
                (1, Value::Varint(value)) => timestamp = value as i64,
                (2, Value::Bytes(bytes)) => source_id = bytes,
                (8, Value::Bytes(bytes)) => instance_id = bytes,
                (number, _) => {
                    if let Some(found) = Kind::of_field(number)
                        && found != kind
                    {
                        (kind, from) = (found, field.start);
                    }
                }
            }
        }
        Outline {
            timestamp,
            source_id: text(source_id),
            instance_id: text(instance_id),
            kind,
            deprecated_tags,
            members: Members::from(self.bytes(), from),
        }
    }
}

impl<'a> Outline<'a> {
    /// The log line, if it is one.
    pub fn log(&self) -> Option<LogRef<'a>> {
        (self.kind == Kind::Log).then(|| LogRef::read(self.members.clone()))
    }
}
