//! The protobuf wire format: reading and writing of single fields.

use thiserror::Error;

/// Varint.
pub(crate) const VARINT: u8 = 0;
/// Eight bytes.
pub(crate) const FIXED64: u8 = 1;
/// Length and bytes.
pub(crate) const BYTES: u8 = 2;
/// Beginning of a group.
pub(crate) const GROUP: u8 = 3;
/// End of a group.
pub(crate) const GROUP_END: u8 = 4;
/// Four bytes.
pub(crate) const FIXED32: u8 = 5;

/// Groups are long dead; one in another is tolerated up to this depth.
const MAX_GROUPS: u32 = 32;

/// What is wrong with bytes that should be a protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// A field reaches beyond the end of the message that holds it.
    #[error("a field reaches beyond the end of its message")]
    Truncated,
    /// A varint has more than ten bytes or more than 64 bits.
    #[error("a varint has more than 64 bits")]
    Varint,
    /// A field has the number 0, one above 2^29 - 1, or the wire type 6 or 7.
    #[error("a field's number or wire type does not exist")]
    Tag,
    /// A field of the protocol has another wire type than the protocol says.
    #[error("a field has the wrong wire type")]
    WireType,
    /// A group does not end, ends without having begun, or is nested too deep.
    #[error("a group is unbalanced or nested too deep")]
    Group,
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
    /// The frame has 4 GiB or more.
    #[error("the frame has 4 GiB or more")]
    TooLarge,
}

/// Reads the varint at `pos`; returns it and where it ends.
#[inline(always)]
pub(crate) fn varint(buf: &[u8], pos: usize) -> Result<(u64, usize), Fault> {
    // Lengths, by far the most of all varints, have one byte or two.
    match buf.get(pos..) {
        Some([first, ..]) if *first < 0x80 => Ok((u64::from(*first), pos + 1)),
        Some([first, second, ..]) if *second < 0x80 => {
            Ok((u64::from(*first & 0x7f) | u64::from(*second) << 7, pos + 2))
        }
        _ => long_varint(buf, pos),
    }
}

fn long_varint(buf: &[u8], pos: usize) -> Result<(u64, usize), Fault> {
    let end = varint_end(buf, pos)?;
    // Timestamps have nine bytes and are in every envelope: the first eight are taken together.
    if end - pos == 9
        && let Some(word) = buf[pos..].first_chunk::<8>()
    {
        let low = u64::from_le_bytes(*word);
        let low = low & 0x007f_007f_007f_007f | (low & 0x7f00_7f00_7f00_7f00) >> 1;
        let low = low & 0x0000_3fff_0000_3fff | (low & 0x3fff_0000_3fff_0000) >> 2;
        let low = low & 0x0fff_ffff | (low & 0x0fff_ffff_0000_0000) >> 4;
        return Ok((low | u64::from(buf[end - 1]) << 56, end));
    }
    let mut value = 0u64;
    for (i, byte) in buf[pos..end].iter().enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
    }
    Ok((value, end))
}

/// Where the varint at `pos` ends.
#[inline(always)]
pub(crate) fn varint_end(buf: &[u8], pos: usize) -> Result<usize, Fault> {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let bytes = buf.get(pos..).unwrap_or_default();
    let Some((word, rest)) = bytes.split_first_chunk::<8>() else {
        return short_varint_end(bytes, pos);
    };
    // The first byte without its high bit is the last one of the varint.
    let last = !u64::from_le_bytes(*word) & HIGH;
    if last != 0 {
        return Ok(pos + 1 + last.trailing_zeros() as usize / 8);
    }
    match rest {
        [last, ..] if *last < 0x80 => Ok(pos + 9),
        // The tenth byte has room for one bit.
        [_, last, ..] if *last < 2 => Ok(pos + 10),
        [] | [_] => Err(Fault::Truncated),
        _ => Err(Fault::Varint),
    }
}

/// The same with fewer than eight bytes left.
fn short_varint_end(bytes: &[u8], pos: usize) -> Result<usize, Fault> {
    let last = bytes
        .iter()
        .position(|byte| *byte < 0x80)
        .ok_or(Fault::Truncated)?;
    Ok(pos + last + 1)
}

/// Reads the tag at `pos`; returns field number, wire type and where the tag ends.
#[inline(always)]
pub(crate) fn tag(buf: &[u8], pos: usize) -> Result<(u32, u8, usize), Fault> {
    let (tag, next) = varint(buf, pos)?;
    match u32::try_from(tag) {
        Ok(tag) if tag >= 8 && tag & 7 <= 5 => Ok((tag >> 3, (tag & 7) as u8, next)),
        _ => Err(Fault::Tag),
    }
}

/// Reads the length at `pos`; returns where the bytes begin and end.
#[inline(always)]
pub(crate) fn length(buf: &[u8], pos: usize) -> Result<(usize, usize), Fault> {
    let (len, from) = varint(buf, pos)?;
    match usize::try_from(len) {
        Ok(len) if len <= buf.len() - from => Ok((from, from + len)),
        _ => Err(Fault::Truncated),
    }
}

/// Where the value at `pos` of a field of this number and wire type ends.
pub(crate) fn skip(buf: &[u8], pos: usize, number: u32, wire: u8) -> Result<usize, Fault> {
    skip_nested(buf, pos, number, wire, 0)
}

fn skip_nested(buf: &[u8], pos: usize, number: u32, wire: u8, depth: u32) -> Result<usize, Fault> {
    let fixed = |len| {
        if buf.len() - pos < len {
            Err(Fault::Truncated)
        } else {
            Ok(pos + len)
        }
    };
    match wire {
        VARINT => varint_end(buf, pos),
        FIXED64 => fixed(8),
        FIXED32 => fixed(4),
        BYTES => length(buf, pos).map(|(_, end)| end),
        GROUP if depth < MAX_GROUPS => {
            let mut pos = pos;
            loop {
                let (inner, wire, next) = tag(buf, pos)?;
                if wire == GROUP_END {
                    return if inner == number {
                        Ok(next)
                    } else {
                        Err(Fault::Group)
                    };
                }
                pos = skip_nested(buf, next, inner, wire, depth + 1)?;
            }
        }
        _ => Err(Fault::Group),
    }
}

/// The value of a field.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    /// Four bytes or a group; no message of ours has such a field.
    Other,
}

/// One field of a message, with the bytes it was read from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    pub(crate) value: Value<'a>,
    /// Where the field begins, at its tag.
    pub(crate) start: usize,
    /// Where it ends.
    pub(crate) end: usize,
}

/// The fields of a message, up to its end or the first fault.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    buf: &'a [u8],
    pos: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(buf: &'a [u8]) -> Self {
        Fields { buf, pos: 0 }
    }

    /// The fields from offset `pos` on.
    pub(crate) fn from(buf: &'a [u8], pos: usize) -> Self {
        Fields { buf, pos }
    }

    /// The next field; `None` at the end of the message.
    #[inline]
    pub(crate) fn read(&mut self) -> Result<Option<Field<'a>>, Fault> {
        let (buf, start) = (self.buf, self.pos);
        // Most fields are short strings and messages with a low number.
        if let Some([tag @ 8..0x80, len @ 0..0x80, rest @ ..]) = buf.get(start..)
            && tag & 7 == BYTES
            && let Some(bytes) = rest.get(..usize::from(*len))
        {
            let end = start + 2 + bytes.len();
            self.pos = end;
            return Ok(Some(Field {
                number: u32::from(*tag >> 3),
                value: Value::Bytes(bytes),
                start,
                end,
            }));
        }
        self.read_any()
    }

    fn read_any(&mut self) -> Result<Option<Field<'a>>, Fault> {
        let (buf, start) = (self.buf, self.pos);
        if start >= buf.len() {
            return Ok(None);
        }
        let (number, wire, pos) = tag(buf, start)?;
        let (value, end) = match wire {
            VARINT => varint(buf, pos).map(|(v, end)| (Value::Varint(v), end))?,
            BYTES => length(buf, pos).map(|(from, to)| (Value::Bytes(&buf[from..to]), to))?,
            FIXED64 => match buf[pos..].first_chunk() {
                Some(bytes) => (Value::Fixed64(u64::from_le_bytes(*bytes)), pos + 8),
                None => return Err(Fault::Truncated),
            },
            _ => (Value::Other, skip(buf, pos, number, wire)?),
        };
        self.pos = end;
        Ok(Some(Field {
            number,
            value,
            start,
            end,
        }))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    #[inline]
    fn next(&mut self) -> Option<Field<'a>> {
        self.read().unwrap_or_else(|_| {
            self.pos = self.buf.len();
            None
        })
    }
}

/// Where a message is written to, or its length counted: one description of a message serves both.
pub(crate) trait Sink {
    fn raw(&mut self, bytes: &[u8]);
    fn raw_varint(&mut self, value: u64);

    /// A varint field.
    #[inline]
    fn varint(&mut self, number: u32, value: u64) {
        self.raw_varint(u64::from(number << 3));
        self.raw_varint(value);
    }

    /// A field of type `int32` or of an enum: negative numbers take ten bytes.
    #[inline]
    fn int32(&mut self, number: u32, value: i32) {
        self.varint(number, i64::from(value) as u64);
    }

    /// A varint field that is left out when 0, as proto3 does.
    #[inline]
    fn varint_unless_zero(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.varint(number, value);
        }
    }

    /// A string or bytes field.
    #[inline]
    fn bytes(&mut self, number: u32, value: &[u8]) {
        self.raw_varint(u64::from(number << 3 | u32::from(BYTES)));
        self.raw_varint(value.len() as u64);
        self.raw(value);
    }

    /// A string or bytes field that is left out when empty, as proto3 does.
    #[inline]
    fn bytes_unless_empty(&mut self, number: u32, value: &[u8]) {
        if !value.is_empty() {
            self.bytes(number, value);
        }
    }

    /// A double field.
    #[inline]
    fn double(&mut self, number: u32, value: f64) {
        self.raw_varint(u64::from(number << 3 | u32::from(FIXED64)));
        self.raw(&value.to_le_bytes());
    }

    /// A message field.
    #[inline]
    fn message(&mut self, number: u32, message: &impl Encode)
    where
        Self: Sized,
    {
        let mut size = Size(0);
        message.encode(&mut size);
        self.raw_varint(u64::from(number << 3 | u32::from(BYTES)));
        self.raw_varint(size.0 as u64);
        message.encode(self);
    }

    /// An entry of a map from string to string, key and value always present.
    #[inline]
    fn pair(&mut self, number: u32, key: &[u8], value: &[u8]) {
        let len = 2
            + varint_len(key.len() as u64)
            + key.len()
            + varint_len(value.len() as u64)
            + value.len();
        self.raw_varint(u64::from(number << 3 | u32::from(BYTES)));
        self.raw_varint(len as u64);
        self.bytes(1, key);
        self.bytes(2, value);
    }
}

/// A message that can be written, and so be counted too.
pub(crate) trait Encode {
    fn encode<S: Sink>(&self, to: &mut S);
}

/// Counts the bytes that would be written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Size(pub(crate) usize);

impl Sink for Size {
    #[inline]
    fn raw(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
    #[inline]
    fn raw_varint(&mut self, value: u64) {
        self.0 += varint_len(value);
    }
}

impl Sink for Vec<u8> {
    #[inline]
    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
    /// Most fields are short and have a low number.
    #[inline]
    fn bytes(&mut self, number: u32, value: &[u8]) {
        let tag = number << 3 | u32::from(BYTES);
        match (u8::try_from(tag), u8::try_from(value.len())) {
            (Ok(tag @ ..0x80), Ok(len @ ..0x80)) => self.extend_from_slice(&[tag, len]),
            (Ok(low), Ok(len @ ..0x80)) => self.extend_from_slice(&[low, 1, len]),
            _ => {
                self.raw_varint(u64::from(tag));
                self.raw_varint(value.len() as u64);
            }
        }
        self.extend_from_slice(value);
    }
    #[inline]
    fn varint(&mut self, number: u32, value: u64) {
        match (u8::try_from(number << 3), u8::try_from(value)) {
            (Ok(tag @ ..0x80), Ok(value @ ..0x80)) => self.extend_from_slice(&[tag, value]),
            _ => {
                self.raw_varint(u64::from(number << 3));
                self.raw_varint(value);
            }
        }
    }
    #[inline]
    fn raw_varint(&mut self, mut value: u64) {
        if value < 0x80 {
            self.push(value as u8);
            return;
        }
        let mut bytes = [0; 10];
        let mut len = 0;
        while value >= 0x80 {
            bytes[len] = value as u8 | 0x80;
            value >>= 7;
            len += 1;
        }
        bytes[len] = value as u8;
        self.extend_from_slice(&bytes[..=len]);
    }
}

/// A message field whose content `write` appends, without its length being known before. Answers what `write` does, and
/// where the content begins.
#[inline]
pub(crate) fn nested<T>(
    to: &mut Vec<u8>,
    number: u32,
    write: impl FnOnce(&mut Vec<u8>) -> T,
) -> (T, usize) {
    // Nearly all lengths take two bytes.
    const ROOM: usize = 2;
    to.raw_varint(u64::from(number << 3 | u32::from(BYTES)));
    let at = to.len();
    to.extend_from_slice(&[0; ROOM]);
    let outcome = write(to);
    let len = to.len() - at - ROOM;
    if varint_len(len as u64) != ROOM {
        let content = to.split_off(at + ROOM);
        to.truncate(at);
        to.raw_varint(len as u64);
        let start = to.len();
        to.extend_from_slice(&content);
        return (outcome, start);
    }
    to[at] = len as u8 | 0x80;
    to[at + 1] = (len >> 7) as u8;
    (outcome, at + ROOM)
}

/// Length of the varint of this value.
#[inline]
pub(crate) fn varint_len(value: u64) -> usize {
    // Seven bits a byte; 0 takes one byte too.
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Whether the header of a record, tag and length, is as short as it can be for a body of this length.
#[inline(always)]
pub(crate) fn is_shortest_head(head: usize, body: usize) -> bool {
    match head {
        2 => true,
        3 => body >= 0x80,
        _ => head == 1 + varint_len(body as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_read_as_they_are_written() {
        for value in [
            0,
            1,
            127,
            128,
            300,
            16383,
            16384,
            u64::from(u32::MAX),
            // As long as a timestamp.
            0x0123_4567_89ab_cdef,
            (1 << 63) - 1,
            1 << 62,
            1 << 63,
            u64::MAX,
        ] {
            let mut bytes = Vec::new();
            bytes.raw_varint(value);
            assert_eq!(bytes.len(), varint_len(value), "{value}");
            assert_eq!(varint(&bytes, 0), Ok((value, bytes.len())), "{value}");
            bytes.pop();
            assert_eq!(varint(&bytes, 0), Err(Fault::Truncated), "{value}");
        }
    }

    #[test]
    fn varints_end_after_64_bits() {
        assert_eq!(varint(&[0xff; 11], 0), Err(Fault::Varint));
        let mut bytes = [0xff; 10];
        bytes[9] = 1;
        assert_eq!(varint(&bytes, 0), Ok((u64::MAX, 10)));
        bytes[9] = 2;
        assert_eq!(varint(&bytes, 0), Err(Fault::Varint));
    }

    #[test]
    fn messages_are_nested_whatever_their_length_takes() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 2_097_152] {
            let mut bytes = vec![7];
            let (answer, start) = nested(&mut bytes, 17, |to| {
                to.resize(to.len() + len, 9);
                "done"
            });
            let mut expected = vec![7];
            expected.bytes(17, &vec![9; len]);
            assert_eq!((answer, start), ("done", expected.len() - len));
            assert!(bytes == expected, "{len}");
        }
    }

    #[test]
    fn groups_are_skipped_when_balanced() {
        // field 20: group { field 1: varint 5, field 2: group { } }
        let group = [0xa3, 0x01, 0x08, 0x05, 0x13, 0x14, 0xa4, 0x01];
        assert_eq!(skip(&group, 2, 20, GROUP), Ok(8));
        assert_eq!(skip(&group[..6], 2, 20, GROUP), Err(Fault::Truncated));
        assert_eq!(skip(&group, 2, 21, GROUP), Err(Fault::Group));
        assert_eq!(skip(&[0x13; 100], 0, 2, GROUP), Err(Fault::Group));
    }

    #[test]
    fn tags_without_a_field_are_refused() {
        for bytes in [
            &[0x02u8][..],
            &[0x0e],
            &[0x0f],
            &[0xff, 0xff, 0xff, 0xff, 0x7f],
        ] {
            assert_eq!(tag(bytes, 0), Err(Fault::Tag), "{bytes:?}");
        }
        assert_eq!(tag(&[0x0a], 0), Ok((1, BYTES, 1)));
    }
}
