//! One envelope, read field by field where somebody asks.

use std::borrow::Cow;

use crate::{
    Kind, number,
    wire::{Field, Fields, Value},
};

/// View of one serialized `loggregator.v2.Envelope`. Every question walks the bytes; nothing is kept.
///
/// Answers follow the protobuf rules: the last occurrence of a field counts, occurrences of the same oneof member are
/// merged, another member replaces. Bytes that no [`scan`](crate::scan()) accepted do no harm: reading ends at the first
/// fault, and what is not UTF-8 reads as empty.
#[derive(Clone, Copy, Debug)]
pub struct EnvelopeRef<'a> {
    body: &'a [u8],
}

/// A log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRef<'a> {
    /// The line. Any bytes.
    pub payload: &'a [u8],
    /// Whether the stream is anything but standard output: an unknown stream counts as standard error, as in v1.
    pub err: bool,
    /// The stream's number on the wire: 0 is `OUT`, 1 is `ERR`.
    pub type_number: i32,
}

/// A counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterRef<'a> {
    /// Its name.
    pub name: &'a str,
    /// Growth since the previous envelope.
    pub delta: u64,
    /// The count so far, 0 when the emitter does not know it.
    pub total: u64,
}

/// One measured value of a gauge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricRef<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its unit.
    pub unit: &'a str,
    /// The value.
    pub value: f64,
}

/// Something that took time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerRef<'a> {
    /// Name of the operation.
    pub name: &'a str,
    /// Beginning, in nanoseconds since 1970.
    pub start: i64,
    /// End, in nanoseconds since 1970.
    pub stop: i64,
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRef<'a> {
    /// What happened, in a few words.
    pub title: &'a str,
    /// The details.
    pub body: &'a str,
}

/// The value of a deprecated tag.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TagValue<'a> {
    /// No value is set.
    Unset,
    /// A text.
    Text(&'a str),
    /// A whole number.
    Integer(i64),
    /// A floating point number.
    Decimal(f64),
}

impl<'a> TagValue<'a> {
    /// The value as v1 has it: decimals with exactly six digits after the point, no value as empty text.
    pub fn to_v1_text(self) -> Cow<'a, str> {
        self.to_text(number::six_digits)
    }

    /// The value as agents copy it into `tags`: decimals in the shortest form without an exponent, no value as empty
    /// text.
    pub fn to_plain_text(self) -> Cow<'a, str> {
        self.to_text(number::plain)
    }

    /// The value as reverse log proxies move it into `tags`: decimals in the shortest form, with an exponent when
    /// very big or small.
    pub fn to_short_text(self) -> Cow<'a, str> {
        self.to_text(number::short)
    }

    fn to_text(self, decimal: fn(f64) -> String) -> Cow<'a, str> {
        match self {
            TagValue::Unset => Cow::Borrowed(""),
            TagValue::Text(text) => Cow::Borrowed(text),
            TagValue::Integer(number) => Cow::Owned(number.to_string()),
            TagValue::Decimal(number) => Cow::Owned(decimal(number)),
        }
    }
}

impl<'a> EnvelopeRef<'a> {
    /// A view of these bytes, an envelope without any header.
    #[inline]
    pub fn new(body: &'a [u8]) -> Self {
        EnvelopeRef { body }
    }

    /// The bytes that are viewed.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.body
    }

    fn fields(&self) -> Fields<'a> {
        Fields::new(self.body)
    }

    fn text_of(&self, number: u32) -> &'a str {
        let last = self
            .fields()
            .filter_map(|f| if f.number == number { bytes(f) } else { None })
            .last();
        text(last.unwrap_or_default())
    }

    /// When it happened, in nanoseconds since 1970.
    pub fn timestamp(&self) -> i64 {
        let values = self
            .fields()
            .filter_map(|f| if f.number == 1 { varint(f) } else { None });
        values.last().unwrap_or_default() as i64
    }

    /// Who it is about.
    pub fn source_id(&self) -> &'a str {
        self.text_of(2)
    }

    /// Which instance of the source.
    pub fn instance_id(&self) -> &'a str {
        self.text_of(8)
    }

    /// What the envelope holds.
    pub fn kind(&self) -> Kind {
        self.message().0
    }

    /// The kind that counts and the occurrences of its member, to be merged in this order.
    fn message(&self) -> (Kind, Members<'a>) {
        let (mut kind, mut from) = (Kind::None, 0);
        for field in self.fields() {
            if let Some(found) = Kind::of_field(field.number)
                && found != kind
            {
                (kind, from) = (found, field.start);
            }
        }
        (kind, Members::from(self.body, from))
    }

    fn members(&self, wanted: Kind) -> Option<Members<'a>> {
        let (kind, members) = self.message();
        (kind == wanted).then_some(members)
    }

    /// The log line, if it is one.
    pub fn log(&self) -> Option<LogRef<'a>> {
        self.members(Kind::Log).map(LogRef::read)
    }

    /// The counter, if it is one.
    pub fn counter(&self) -> Option<CounterRef<'a>> {
        self.members(Kind::Counter).map(CounterRef::read)
    }

    /// The values of the gauge, in the order of the wire; none when it is no gauge. A name may occur more than once:
    /// the last one counts.
    pub fn gauge(&self) -> impl Iterator<Item = MetricRef<'a>> + use<'a> {
        self.members(Kind::Gauge)
            .into_iter()
            .flat_map(MetricRef::read)
    }

    /// The timer, if it is one.
    pub fn timer(&self) -> Option<TimerRef<'a>> {
        self.members(Kind::Timer).map(TimerRef::read)
    }

    /// The event, if it is one.
    pub fn event(&self) -> Option<EventRef<'a>> {
        self.members(Kind::Event).map(EventRef::read)
    }

    /// The map `tags`, in the order of the wire. A key may occur more than once: the last one counts.
    pub fn tags(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.fields()
            .filter(|f| f.number == 9)
            .filter_map(bytes)
            .map(pair)
    }

    /// The map `deprecated_tags`, in the order of the wire. A key may occur more than once: the last one counts.
    pub fn deprecated_tags(&self) -> impl Iterator<Item = (&'a str, TagValue<'a>)> + use<'a> {
        self.fields()
            .filter(|f| f.number == 3)
            .filter_map(bytes)
            .map(deprecated)
    }

    /// The tag of this name: from `tags`, else from `deprecated_tags` as [`TagValue::to_v1_text`] writes it.
    pub fn tag(&self, name: &str) -> Option<Cow<'a, str>> {
        let tag = self.tags().filter(|(key, _)| *key == name).last();
        tag.map(|(_, value)| Cow::Borrowed(value)).or_else(|| {
            let old = self
                .deprecated_tags()
                .filter(|(key, _)| *key == name)
                .last();
            old.map(|(_, value)| value.to_v1_text())
        })
    }
}

/// The occurrences of the oneof member that counts.
#[derive(Clone, Debug)]
pub(crate) struct Members<'a> {
    fields: Fields<'a>,
}

impl<'a> Members<'a> {
    /// Those of an envelope from offset `from` on.
    pub(crate) fn from(body: &'a [u8], from: usize) -> Self {
        Members {
            fields: Fields::from(body, from),
        }
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.fields
            .by_ref()
            .filter(|f| Kind::of_field(f.number).is_some())
            .find_map(bytes)
    }
}

impl<'a> LogRef<'a> {
    pub(crate) fn read(members: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut log = LogRef {
            payload: &[],
            err: false,
            type_number: 0,
        };
        for field in members.flat_map(Fields::new) {
            match (field.number, field.value) {
                (1, Value::Bytes(payload)) => log.payload = payload,
                (2, Value::Varint(number)) => log.type_number = number as i32,
                _ => {}
            }
        }
        log.err = log.type_number != 0;
        log
    }
}

impl<'a> CounterRef<'a> {
    pub(crate) fn read(members: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut counter = CounterRef {
            name: "",
            delta: 0,
            total: 0,
        };
        for field in members.flat_map(Fields::new) {
            match (field.number, field.value) {
                (1, Value::Bytes(name)) => counter.name = text(name),
                (2, Value::Varint(number)) => counter.delta = number,
                (3, Value::Varint(number)) => counter.total = number,
                _ => {}
            }
        }
        counter
    }
}

impl<'a> MetricRef<'a> {
    pub(crate) fn read<I: Iterator<Item = &'a [u8]>>(
        members: I,
    ) -> impl Iterator<Item = Self> + use<'a, I> {
        members
            .flat_map(Fields::new)
            .filter(|field| field.number == 1)
            .filter_map(bytes)
            .map(metric)
    }
}

impl<'a> TimerRef<'a> {
    pub(crate) fn read(members: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut timer = TimerRef {
            name: "",
            start: 0,
            stop: 0,
        };
        for field in members.flat_map(Fields::new) {
            match (field.number, field.value) {
                (1, Value::Bytes(name)) => timer.name = text(name),
                (2, Value::Varint(number)) => timer.start = number as i64,
                (3, Value::Varint(number)) => timer.stop = number as i64,
                _ => {}
            }
        }
        timer
    }
}

impl<'a> EventRef<'a> {
    pub(crate) fn read(members: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut event = EventRef {
            title: "",
            body: "",
        };
        for field in members.flat_map(Fields::new) {
            match (field.number, field.value) {
                (1, Value::Bytes(title)) => event.title = text(title),
                (2, Value::Bytes(body)) => event.body = text(body),
                _ => {}
            }
        }
        event
    }
}

pub(crate) fn bytes(field: Field<'_>) -> Option<&[u8]> {
    match field.value {
        Value::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

fn varint(field: Field<'_>) -> Option<u64> {
    match field.value {
        Value::Varint(value) => Some(value),
        _ => None,
    }
}

/// Strings that the scan saw are UTF-8.
pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn pair(entry: &[u8]) -> (&str, &str) {
    let (key, value) = raw_pair(entry);
    (text(key), text(value))
}

/// Key and value of an entry of the map `tags`.
#[inline]
pub(crate) fn raw_pair(entry: &[u8]) -> (&[u8], &[u8]) {
    if let Some(pair) = plain_pair(entry) {
        return pair;
    }
    let (mut key, mut value) = (&[][..], &[][..]);
    for field in Fields::new(entry) {
        match (field.number, field.value) {
            (1, Value::Bytes(bytes)) => key = bytes,
            (2, Value::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    (key, value)
}

/// The same for an entry in its usual form: key, value, and their lengths a single byte.
#[inline(always)]
pub(crate) fn plain_pair(entry: &[u8]) -> Option<(&[u8], &[u8])> {
    let [0x0a, key_len @ 0..0x80, rest @ ..] = entry else {
        return None;
    };
    let (key, rest) = rest.split_at_checked(usize::from(*key_len))?;
    let [0x12, value_len @ 0..0x80, value @ ..] = rest else {
        return None;
    };
    (value.len() == usize::from(*value_len)).then_some((key, value))
}

pub(crate) fn deprecated(entry: &[u8]) -> (&str, TagValue<'_>) {
    let (mut key, mut value) = ("", TagValue::Unset);
    for field in Fields::new(entry) {
        match (field.number, field.value) {
            (1, Value::Bytes(bytes)) => key = text(bytes),
            (2, Value::Bytes(bytes)) => {
                for field in Fields::new(bytes) {
                    match (field.number, field.value) {
                        (1, Value::Bytes(bytes)) => value = TagValue::Text(text(bytes)),
                        (2, Value::Varint(number)) => value = TagValue::Integer(number as i64),
                        (3, Value::Fixed64(bits)) => {
                            value = TagValue::Decimal(f64::from_bits(bits))
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    (key, value)
}

pub(crate) fn metric(entry: &[u8]) -> MetricRef<'_> {
    let mut metric = MetricRef {
        name: "",
        unit: "",
        value: 0.0,
    };
    for field in Fields::new(entry) {
        match (field.number, field.value) {
            (1, Value::Bytes(bytes)) => metric.name = text(bytes),
            (2, Value::Bytes(bytes)) => {
                for field in Fields::new(bytes) {
                    match (field.number, field.value) {
                        (1, Value::Bytes(bytes)) => metric.unit = text(bytes),
                        (2, Value::Fixed64(bits)) => metric.value = f64::from_bits(bits),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    metric
}
