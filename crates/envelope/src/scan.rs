//! The one pass over a received batch: checks what must be right and notes where everything lies.
//!
//! # What is accepted
//!
//! An envelope is accepted when every protobuf decoder in use reads it: lengths and varints hold, fields of the protocol
//! have their wire type, strings are UTF-8. The strict ones among those decoders refuse a whole batch for one bad
//! string, and the batch they read is a join of many emitters' frames, so a bad envelope must not get in. Fields that
//! the protocol does not have are skipped, whatever their type, and stay in the bytes.
//!
//! # How strings are checked
//!
//! Not one by one. Between two strings of an envelope lie only tags and lengths, and as long as those are single bytes
//! they are ASCII. A stretch of strings, tags and lengths is then UTF-8 exactly when each string is (no character spans
//! an ASCII byte). The scan therefore walks the structure first, remembers since where it saw nothing but such bytes,
//! and checks a stretch at once where it ends: at a longer length or number, or at bytes that are no string.

use std::ops::Range;

use thiserror::Error;

use crate::{
    Entry, Flags, Index, Kind,
    hash::SourceHasher,
    wire::{self, BYTES, FIXED64, Fault, VARINT},
};

/// The batch cannot be split into envelopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("malformed batch at byte {offset}: {kind}")]
pub struct ScanError {
    /// Where the record begins that is broken.
    pub offset: usize,
    /// What is wrong.
    pub kind: Fault,
}

/// What [`scan`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The good envelopes.
    pub index: Index,
    /// How many malformed envelopes were left out of the index.
    pub rejected: u32,
    /// Whether the entries cover the batch exactly, in order, each with the shortest header. Otherwise there are
    /// malformed envelopes, fields beside the envelopes, or odd headers in between.
    pub tiles: bool,
}

/// One pass over the bytes of an `EnvelopeBatch`.
///
/// A malformed envelope is left out alone. Allocates the index and nothing else.
///
/// # Errors
/// When the batch has 4 GiB or more, or its own framing is broken so that nobody can tell where envelopes begin.
pub fn scan(batch: &[u8]) -> Result<Scan, ScanError> {
    let (count, mut tiles) = count(batch)?;
    let hasher = SourceHasher::get();
    let mut entries = Vec::with_capacity(count);
    let mut rejected = 0;
    let mut pos = 0;
    while let Some((record, body)) = next_record(batch, &mut pos)? {
        match envelope(&batch[..record.end], body) {
            Ok(seen) => entries.push(seen.entry(&record, body, batch, hasher)),
            Err(_) => {
                rejected += 1;
                tiles = false;
            }
        }
    }
    Ok(Scan {
        index: Index::new(entries),
        rejected,
        tiles,
    })
}

/// What [`survey`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// How many envelopes there are.
    pub envelopes: usize,
    /// Whether any of them has what was asked for.
    pub found: bool,
    /// Whether the envelopes lie side by side and the fields of those that were looked at hold. What is in the fields was not
    /// looked at.
    pub sound: bool,
}

/// A shorter pass than [`scan`], for batches that somebody has scanned before: counts the envelopes and says whether any has
/// one of these flags, out of [`Flags::HAS_TAGS`] and [`Flags::HAS_DEPRECATED_TAGS`]. Looks at no field from inside, and
/// allocates nothing.
///
/// # Errors
/// As for [`scan`].
pub fn survey(batch: &[u8], wanted: Flags) -> Result<Survey, ScanError> {
    let mut survey = Survey {
        sound: true,
        ..Survey::default()
    };
    let (mut pos, mut end) = (0, 0);
    while let Some((record, body)) = next_record(batch, &mut pos)? {
        survey.envelopes += 1;
        survey.sound &= record.start == end;
        end = record.end;
        if !survey.found {
            match has(&batch[body..record.end], wanted) {
                Ok(found) => survey.found = found,
                Err(_) => survey.sound = false,
            }
        }
    }
    survey.sound &= end == batch.len();
    Ok(survey)
}

/// Whether the envelope has a field that stands for one of these flags.
fn has(envelope: &[u8], wanted: Flags) -> Result<bool, Fault> {
    let (tags, deprecated) = (
        wanted.contains(Flags::HAS_TAGS),
        wanted.contains(Flags::HAS_DEPRECATED_TAGS),
    );
    let mut fields = wire::Fields::new(envelope);
    while let Some(field) = fields.read()? {
        match field.number {
            9 if tags => return Ok(true),
            3 if deprecated => return Ok(true),
            _ => {}
        }
    }
    Ok(false)
}

/// Checks one envelope without its header; returns the entry of a frame that holds nothing else.
pub(crate) fn entry_of_body(body: &[u8]) -> Result<Entry, Fault> {
    let head = 1 + wire::varint_len(body.len() as u64);
    if u32::try_from(head + body.len()).is_err() {
        return Err(Fault::TooLarge);
    }
    let seen = envelope(body, 0)?;
    let entry = seen.entry(&(0..body.len()), 0, body, SourceHasher::get());
    Ok(entry.grown(head as u8, 0, 0, entry.flags()))
}

/// How many records there are, and whether nothing else is between them.
fn count(batch: &[u8]) -> Result<(usize, bool), ScanError> {
    if u32::try_from(batch.len()).is_err() {
        return Err(ScanError {
            offset: 0,
            kind: Fault::TooLarge,
        });
    }
    let (mut pos, mut count, mut covered) = (0, 0, 0);
    while let Some((record, body)) = next_record(batch, &mut pos)? {
        count += 1;
        // Only a record with the shortest header counts as covered.
        if wire::is_shortest_head(body - record.start, record.end - body) {
            covered += record.len();
        }
    }
    Ok((count, covered == batch.len()))
}

/// Cuts a batch between its records into parts of at most `bytes` bytes and `envelopes` envelopes each; a single
/// bigger record is a part of its own. An index costs up to 32 bytes per envelope and an envelope may be two bytes
/// long, so whoever takes batches from strangers scans big ones in parts.
///
/// # Errors
/// As for [`scan`]: when the framing is broken anywhere in the batch.
pub fn split(batch: &[u8], bytes: usize, envelopes: usize) -> Result<Vec<&[u8]>, ScanError> {
    let mut parts = Vec::new();
    let (mut from, mut pos, mut count) = (0, 0, 0);
    loop {
        let before = pos;
        let record = next_record(batch, &mut pos)?;
        let full = count >= envelopes || pos - from > bytes;
        if before > from && (full || record.is_none()) {
            parts.push(&batch[from..before]);
            (from, count) = (before, 0);
        }
        if record.is_none() {
            return Ok(parts);
        }
        count += 1;
    }
}

/// The next record and where its body begins. Fields that are no envelope are passed over.
#[inline(always)]
fn next_record(batch: &[u8], pos: &mut usize) -> Result<Option<(Range<usize>, usize)>, ScanError> {
    while *pos < batch.len() {
        let start = *pos;
        // The usual case first.
        if batch[start] == 0x0a
            && let Ok((body, end)) = wire::length(batch, start + 1)
        {
            *pos = end;
            return Ok(Some((start..end, body)));
        }
        let fault = |kind| ScanError {
            offset: start,
            kind,
        };
        let (number, wire, next) = wire::tag(batch, start).map_err(fault)?;
        if number == 1 && wire == BYTES {
            let (body, end) = wire::length(batch, next).map_err(fault)?;
            *pos = end;
            return Ok(Some((start..end, body)));
        }
        *pos = wire::skip(batch, next, number, wire).map_err(fault)?;
    }
    Ok(None)
}

/// What was seen of one envelope.
struct Seen {
    kind: Kind,
    flags: Flags,
    source: Range<usize>,
}

impl Seen {
    #[inline(always)]
    fn entry(
        self,
        record: &Range<usize>,
        body: usize,
        batch: &[u8],
        hasher: SourceHasher,
    ) -> Entry {
        let flags = if self.source.is_empty() {
            self.flags | Flags::NO_SOURCE_ID
        } else {
            self.flags
        };
        let hash = hasher.hash(&batch[self.source.clone()]);
        // The batch is shorter than 4 GiB.
        let narrow = |range: &Range<usize>| range.start as u32..range.end as u32;
        let head = (body - record.start) as u8;
        Entry::new(
            narrow(record),
            head,
            self.kind,
            flags,
            narrow(&self.source),
            hash,
        )
    }
}

/// Checks the envelope that lies in `buf` from `start` to its end.
#[inline]
fn envelope(buf: &[u8], start: usize) -> Result<Seen, Fault> {
    let mut walk = Walk {
        buf,
        text: start,
        flags: Flags::EMPTY,
    };
    let mut seen = Seen {
        kind: Kind::None,
        flags: Flags::EMPTY,
        source: 0..0,
    };
    let mut pos = start;
    while let Some(&tag) = buf.get(pos) {
        pos = match tag {
            TAGS => {
                walk.flags = walk.flags | Flags::HAS_TAGS;
                // Where there is one tag there are more.
                while buf.get(pos) == Some(&TAGS) {
                    pos = match plain_pair(buf, pos + 1) {
                        Some(end) => end,
                        None => walk.message(pos + 1, &shape::TAG)?,
                    }
                }
                pos
            }
            TIMESTAMP => walk.varint(pos + 1)?,
            SOURCE_ID => {
                let (from, to) = walk.length(pos + 1)?;
                seen.source = from..to;
                to
            }
            INSTANCE_ID => walk.length(pos + 1)?.1,
            LOG => {
                seen.kind = Kind::Log;
                walk.log(pos, pos + 1)?
            }
            COUNTER => {
                seen.kind = Kind::Counter;
                walk.message(pos + 1, &shape::COUNTER)?
            }
            GAUGE => {
                seen.kind = Kind::Gauge;
                walk.message(pos + 1, &shape::GAUGE)?
            }
            TIMER => {
                seen.kind = Kind::Timer;
                walk.message(pos + 1, &shape::TIMER)?
            }
            EVENT => {
                seen.kind = Kind::Event;
                walk.message(pos + 1, &shape::EVENT)?
            }
            DEPRECATED_TAGS => {
                walk.flags = walk.flags | Flags::HAS_DEPRECATED_TAGS;
                walk.message(pos + 1, &shape::DEPRECATED_TAG)?
            }
            _ => walk.other(pos, &mut seen)?,
        };
    }
    walk.settle(buf.len())?;
    seen.flags = walk.flags;
    Ok(seen)
}

const TIMESTAMP: u8 = 1 << 3 | VARINT;
const SOURCE_ID: u8 = 2 << 3 | BYTES;
const DEPRECATED_TAGS: u8 = 3 << 3 | BYTES;
const LOG: u8 = 4 << 3 | BYTES;
const COUNTER: u8 = 5 << 3 | BYTES;
const GAUGE: u8 = 6 << 3 | BYTES;
const TIMER: u8 = 7 << 3 | BYTES;
const INSTANCE_ID: u8 = 8 << 3 | BYTES;
const TAGS: u8 = 9 << 3 | BYTES;
const EVENT: u8 = 10 << 3 | BYTES;

/// A map entry in its usual form, length first: `len 0a klen key 12 vlen value`, every length a single byte. All its
/// bytes but the strings are then ASCII. Returns where it ends, or nothing when it has another form.
#[inline(always)]
fn plain_pair(buf: &[u8], pos: usize) -> Option<usize> {
    let len = usize::from(*buf.get(pos)?);
    let entry = buf.get(pos + 1..pos + 1 + len)?;
    let [0x0a, key, rest @ ..] = entry else {
        return None;
    };
    let key = usize::from(*key);
    // `rest` is the key, 12, vlen, and the value. A length of 128 or more has its high bit set, which `len` rules out.
    let usual = len < 0x80
        && rest.get(key) == Some(&0x12)
        && rest.get(key + 1).map(|v| usize::from(*v) + key + 2) == Some(rest.len());
    usual.then_some(pos + 1 + len)
}

/// A log in its usual form: a payload, and a small type or none.
#[inline(always)]
fn is_plain_log(log: &[u8]) -> bool {
    if log.first() != Some(&0x0a) {
        return false;
    }
    match wire::length(log, 1) {
        Ok((_, end)) => matches!(log[end..], [] | [0x10, 0..0x80]),
        Err(_) => false,
    }
}

/// What a field of a nested message is.
enum Shape {
    /// The protocol has no such field.
    Absent,
    Varint,
    Double,
    Text,
    Message(&'static [Shape]),
}

/// The nested messages, as the shapes of the fields 0, 1, 2, …
mod shape {
    use super::Shape::{self, Absent, Double, Message, Text, Varint};

    pub(super) static TAG: [Shape; 3] = [Absent, Text, Text];
    pub(super) static DEPRECATED_TAG: [Shape; 3] = [Absent, Text, Message(&VALUE)];
    static VALUE: [Shape; 4] = [Absent, Text, Varint, Double];
    pub(super) static COUNTER: [Shape; 4] = [Absent, Text, Varint, Varint];
    pub(super) static GAUGE: [Shape; 2] = [Absent, Message(&METRIC)];
    static METRIC: [Shape; 3] = [Absent, Text, Message(&GAUGE_VALUE)];
    static GAUGE_VALUE: [Shape; 3] = [Absent, Text, Double];
    pub(super) static TIMER: [Shape; 4] = [Absent, Text, Varint, Varint];
    pub(super) static EVENT: [Shape; 3] = [Absent, Text, Text];
}

/// A walk through one envelope.
struct Walk<'a> {
    /// Ends where the envelope ends.
    buf: &'a [u8],
    /// From here to the current position lie only strings and single ASCII bytes, not checked yet.
    text: usize,
    flags: Flags,
}

impl Walk<'_> {
    /// Checks the strings before `end`.
    #[inline(always)]
    fn settle(&mut self, end: usize) -> Result<(), Fault> {
        if is_utf8(&self.buf[self.text..end]) {
            Ok(())
        } else {
            Err(Fault::Utf8)
        }
    }

    /// What lies between `from` and `to` is no string; strings before it are checked.
    #[inline(always)]
    fn opaque(&mut self, from: usize, to: usize) -> Result<usize, Fault> {
        self.settle(from)?;
        self.text = to;
        Ok(to)
    }

    /// A varint at `pos`; returns where it ends.
    #[inline(always)]
    fn varint(&mut self, pos: usize) -> Result<usize, Fault> {
        match self.buf.get(pos) {
            Some(&byte) if byte < 0x80 => Ok(pos + 1),
            _ => {
                let end = wire::varint_end(self.buf, pos)?;
                self.opaque(pos, end)
            }
        }
    }

    /// A length at `pos`; returns where what it measures begins and ends.
    #[inline(always)]
    fn length(&mut self, pos: usize) -> Result<(usize, usize), Fault> {
        let (from, to) = wire::length(self.buf, pos)?;
        if from - pos != 1 {
            self.opaque(pos, from)?;
        }
        Ok((from, to))
    }

    /// The length and the log at `pos`. None of it is a string; strings end before `strings`.
    #[inline(always)]
    fn log(&mut self, strings: usize, pos: usize) -> Result<usize, Fault> {
        let (from, to) = wire::length(self.buf, pos)?;
        if !is_plain_log(&self.buf[from..to]) {
            let log = &self.buf[..to];
            let mut pos = from;
            while pos < to {
                let (number, wire, next) = wire::tag(log, pos)?;
                match (number, wire) {
                    (1, BYTES) | (2, VARINT) => {}
                    (1 | 2, _) => return Err(Fault::WireType),
                    _ => self.flags = self.flags | Flags::UNKNOWN_FIELDS,
                }
                pos = wire::skip(log, next, number, wire)?;
            }
        }
        self.opaque(strings, to)
    }

    /// The length and the message at `pos`.
    fn message(&mut self, pos: usize, shape: &[Shape]) -> Result<usize, Fault> {
        let (from, to) = self.length(pos)?;
        let outer = self.buf;
        self.buf = &outer[..to];
        let mut pos = from;
        while pos < to {
            pos = self.field(pos, shape)?;
        }
        self.buf = outer;
        Ok(to)
    }

    fn field(&mut self, pos: usize, shape: &[Shape]) -> Result<usize, Fault> {
        let (number, wire, next) = wire::tag(self.buf, pos)?;
        if next - pos != 1 {
            self.opaque(pos, next)?;
        }
        match (shape.get(number as usize), wire) {
            (None | Some(Shape::Absent), _) => self.unknown(pos, next, number, wire),
            (Some(Shape::Text), BYTES) => Ok(self.length(next)?.1),
            (Some(Shape::Varint), VARINT) => self.varint(next),
            (Some(Shape::Double), FIXED64) => {
                let end = wire::skip(self.buf, next, number, wire)?;
                self.opaque(next, end)
            }
            (Some(Shape::Message(shape)), BYTES) => self.message(next, shape),
            _ => Err(Fault::WireType),
        }
    }

    /// A field of the envelope that the protocol does not have, has with another wire type, or whose tag is longer
    /// than it need be.
    #[cold]
    fn other(&mut self, pos: usize, seen: &mut Seen) -> Result<usize, Fault> {
        let (number, wire, next) = wire::tag(self.buf, pos)?;
        if next - pos != 1 {
            self.opaque(pos, next)?;
        }
        match number {
            11.. => return self.unknown(pos, next, number, wire),
            1 if wire == VARINT => return self.varint(next),
            1 => return Err(Fault::WireType),
            _ if wire != BYTES => return Err(Fault::WireType),
            _ => {}
        }
        if let Some(kind) = Kind::of_field(number) {
            seen.kind = kind;
        }
        match number {
            2 => {
                let (from, to) = self.length(next)?;
                seen.source = from..to;
                Ok(to)
            }
            3 => {
                self.flags = self.flags | Flags::HAS_DEPRECATED_TAGS;
                self.message(next, &shape::DEPRECATED_TAG)
            }
            4 => self.log(next, next),
            5 => self.message(next, &shape::COUNTER),
            6 => self.message(next, &shape::GAUGE),
            7 => self.message(next, &shape::TIMER),
            8 => Ok(self.length(next)?.1),
            9 => {
                self.flags = self.flags | Flags::HAS_TAGS;
                self.message(next, &shape::TAG)
            }
            _ => self.message(next, &shape::EVENT),
        }
    }

    #[cold]
    fn unknown(&mut self, pos: usize, value: usize, number: u32, wire: u8) -> Result<usize, Fault> {
        self.flags = self.flags | Flags::UNKNOWN_FIELDS;
        let end = wire::skip(self.buf, value, number, wire)?;
        self.opaque(pos.max(self.text), end)
    }
}

/// Whether the bytes are UTF-8. Nearly all of it is ASCII, which eight bytes at a time tell.
#[inline(always)]
fn is_utf8(bytes: &[u8]) -> bool {
    is_ascii(bytes) || is_utf8_beyond_ascii(bytes)
}

#[cold]
fn is_utf8_beyond_ascii(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok()
}

#[inline(always)]
fn is_ascii(bytes: &[u8]) -> bool {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let (words, rest) = bytes.as_chunks::<8>();
    let high = words
        .iter()
        .fold(0, |high, word| high | u64::from_le_bytes(*word));
    let rest = rest.iter().fold(0, |high, byte| high | byte);
    high & HIGH == 0 && rest < 0x80
}

#[cfg(test)]
mod tests {
    use super::{scan, split};

    #[test]
    fn parts_are_whole_records_within_both_bounds() {
        let batch: Vec<u8> = (0..100u8)
            .flat_map(|i| {
                let body = vec![0x08, i % 100];
                [vec![0x0a, 2], body].concat()
            })
            .collect();
        for (bytes, envelopes) in [(4, 100), (41, 1000), (1000, 7), (1, 1), (1000, 1000)] {
            let parts = split(&batch, bytes, envelopes).unwrap();
            assert_eq!(parts.concat(), batch);
            for part in &parts {
                let found = scan(part).unwrap();
                assert!(found.tiles);
                assert!(found.index.len() <= envelopes);
                assert!(
                    part.len() <= bytes || found.index.len() == 1,
                    "{} for {bytes}",
                    part.len()
                );
            }
        }
        assert!(split(&[], 10, 10).unwrap().is_empty());
        assert!(
            split(&[0x0a, 9], 10, 10).is_err(),
            "broken anywhere is broken"
        );
    }
}
