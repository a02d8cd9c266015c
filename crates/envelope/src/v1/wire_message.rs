//! Reading and writing of proto2 messages as slices of their bytes.
//!
//! The rules are those of the Go runtime, which differ from what Rust libraries do: strings are not checked for UTF-8; a
//! field with another wire type than the definition's counts as unknown; unknown enum numbers are kept; unknown fields
//! are kept and written after the known ones.

use smallvec::SmallVec;

use super::V1Error;
use crate::wire::{Encode, Field, Fields, Sink, Value, varint_len};

/// Pairs of a map from string to string.
pub(crate) type Pairs<'a> = SmallVec<[(&'a [u8], &'a [u8]); 12]>;

/// A field that may occur several times.
pub(crate) type Repeated<'a> = SmallVec<[&'a [u8]; 4]>;

/// A message that is read field by field, and merged when it occurs several times.
pub(crate) trait Message<'a>: Default + Encode {
    /// Takes a field. Answers whether the definition has it with this wire type. `canonical` becomes false when writing
    /// would give other bytes.
    fn set(&mut self, number: u32, value: Value<'a>, canonical: &mut bool)
    -> Result<bool, V1Error>;
    /// Whether the field may occur several times.
    fn repeats(number: u32) -> bool;
    /// Keeps a field that the definition does not have, with its tag.
    fn keep(&mut self, field: &'a [u8]);
    /// Whether required fields are there, at every depth, in the order in which the original complains.
    fn check(&self) -> Result<(), V1Error>;
}

/// Reads a message into one that may hold fields already.
pub(crate) fn merge<'a, M: Message<'a>>(
    message: &mut M,
    buf: &'a [u8],
    canonical: &mut bool,
) -> Result<(), V1Error> {
    let mut fields = Fields::new(buf);
    let mut last = 0;
    while let Some(field) = fields.read().map_err(|_| V1Error::Malformed)? {
        if message.set(field.number, field.value, canonical)? {
            *canonical &= shortest(&field)
                && (field.number > last || field.number == last && M::repeats(last));
            last = field.number;
        } else {
            message.keep(&buf[field.start..field.end]);
            last = u32::MAX;
        }
    }
    Ok(())
}

/// Whether tag, length and number of a field take no more bytes than they need.
fn shortest(field: &Field<'_>) -> bool {
    let value = match field.value {
        Value::Varint(value) => varint_len(value),
        Value::Fixed64(_) => 8,
        Value::Bytes(bytes) => varint_len(bytes.len() as u64) + bytes.len(),
        Value::Other => return true,
    };
    field.end - field.start == varint_len(u64::from(field.number) << 3) + value
}

/// Where the value of a field is kept.
pub(crate) trait Slot<'a> {
    /// Whether the field may occur several times.
    const REPEATS: bool = false;
    /// Takes a value. Answers whether it has the field's wire type.
    fn accept(&mut self, value: Value<'a>, canonical: &mut bool) -> Result<bool, V1Error>;
    /// Whether there is no value.
    fn is_absent(&self) -> bool;
    /// Checks what is inside.
    fn check(&self) -> Result<(), V1Error> {
        Ok(())
    }
    /// Writes the field if there is a value.
    fn write<S: Sink>(&self, number: u32, to: &mut S);
}

/// The check of a required field.
pub(crate) fn required<'a>(slot: &impl Slot<'a>, name: &'static str) -> Result<(), V1Error> {
    if slot.is_absent() {
        Err(V1Error::Required(name))
    } else {
        slot.check()
    }
}

/// The check of any other field.
pub(crate) fn optional<'a>(slot: &impl Slot<'a>, _name: &'static str) -> Result<(), V1Error> {
    slot.check()
}

macro_rules! number_slot {
    ($type:ty, $pattern:pat => $read:expr, $value:ident => $write:expr) => {
        impl<'a> Slot<'a> for Option<$type> {
            fn accept(&mut self, value: Value<'a>, _canonical: &mut bool) -> Result<bool, V1Error> {
                let $pattern = value else { return Ok(false) };
                *self = Some($read);
                Ok(true)
            }
            fn is_absent(&self) -> bool {
                self.is_none()
            }
            fn write<S: Sink>(&self, number: u32, to: &mut S) {
                if let Some($value) = *self {
                    to.varint(number, $write);
                }
            }
        }
    };
}

number_slot!(u64, Value::Varint(value) => value, value => value);
number_slot!(i64, Value::Varint(value) => value as i64, value => value as u64);

impl<'a> Slot<'a> for Option<i32> {
    fn accept(&mut self, value: Value<'a>, canonical: &mut bool) -> Result<bool, V1Error> {
        let Value::Varint(value) = value else {
            return Ok(false);
        };
        // Only the low half counts; it is written with 64 bits of sign.
        *self = Some(value as i32);
        *canonical &= i64::from(value as i32) as u64 == value;
        Ok(true)
    }
    fn is_absent(&self) -> bool {
        self.is_none()
    }
    fn write<S: Sink>(&self, number: u32, to: &mut S) {
        if let Some(value) = *self {
            to.varint(number, i64::from(value) as u64);
        }
    }
}

impl<'a> Slot<'a> for Option<f64> {
    fn accept(&mut self, value: Value<'a>, _canonical: &mut bool) -> Result<bool, V1Error> {
        let Value::Fixed64(bits) = value else {
            return Ok(false);
        };
        *self = Some(f64::from_bits(bits));
        Ok(true)
    }
    fn is_absent(&self) -> bool {
        self.is_none()
    }
    fn write<S: Sink>(&self, number: u32, to: &mut S) {
        if let Some(value) = *self {
            to.double(number, value);
        }
    }
}

impl<'a> Slot<'a> for Option<&'a [u8]> {
    fn accept(&mut self, value: Value<'a>, _canonical: &mut bool) -> Result<bool, V1Error> {
        let Value::Bytes(bytes) = value else {
            return Ok(false);
        };
        *self = Some(bytes);
        Ok(true)
    }
    fn is_absent(&self) -> bool {
        self.is_none()
    }
    fn write<S: Sink>(&self, number: u32, to: &mut S) {
        if let Some(bytes) = *self {
            to.bytes(number, bytes);
        }
    }
}

impl<'a, M: Message<'a>> Slot<'a> for Option<M> {
    fn accept(&mut self, value: Value<'a>, canonical: &mut bool) -> Result<bool, V1Error> {
        let Value::Bytes(bytes) = value else {
            return Ok(false);
        };
        merge(self.get_or_insert_default(), bytes, canonical)?;
        Ok(true)
    }
    fn is_absent(&self) -> bool {
        self.is_none()
    }
    fn check(&self) -> Result<(), V1Error> {
        self.as_ref().map_or(Ok(()), Message::check)
    }
    fn write<S: Sink>(&self, number: u32, to: &mut S) {
        if let Some(message) = self {
            to.message(number, message);
        }
    }
}

impl<'a> Slot<'a> for Repeated<'a> {
    const REPEATS: bool = true;
    fn accept(&mut self, value: Value<'a>, _canonical: &mut bool) -> Result<bool, V1Error> {
        let Value::Bytes(bytes) = value else {
            return Ok(false);
        };
        self.push(bytes);
        Ok(true)
    }
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
    fn write<S: Sink>(&self, number: u32, to: &mut S) {
        for bytes in self {
            to.bytes(number, bytes);
        }
    }
}

impl<'a> Slot<'a> for Pairs<'a> {
    const REPEATS: bool = true;
    fn accept(&mut self, value: Value<'a>, canonical: &mut bool) -> Result<bool, V1Error> {
        let Value::Bytes(entry) = value else {
            return Ok(false);
        };
        self.push(pair(entry, canonical)?);
        Ok(true)
    }
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
    fn write<S: Sink>(&self, number: u32, to: &mut S) {
        for (key, value) in self {
            to.pair(number, key, value);
        }
    }
}

/// An entry of a map. What is neither key nor value is dropped, as the original does.
fn pair<'a>(entry: &'a [u8], canonical: &mut bool) -> Result<(&'a [u8], &'a [u8]), V1Error> {
    let mut fields = Fields::new(entry);
    let (mut key, mut value) = (None, None);
    while let Some(field) = fields.read().map_err(|_| V1Error::Malformed)? {
        match (field.number, field.value) {
            (1, Value::Bytes(bytes)) => {
                *canonical &= key.is_none() && value.is_none() && shortest(&field);
                key = Some(bytes);
            }
            (2, Value::Bytes(bytes)) => {
                *canonical &= key.is_some() && value.is_none() && shortest(&field);
                value = Some(bytes);
            }
            _ => *canonical = false,
        }
    }
    *canonical &= key.is_some() && value.is_some();
    Ok((key.unwrap_or_default(), value.unwrap_or_default()))
}

/// Above so many pairs, sorting finds equal keys faster than comparing all with all.
const FEW: usize = 32;

/// Of pairs with the same key keeps the last; returns whether the pairs are as before.
pub(crate) fn keep_last_of_each<'a, V, A>(pairs: &mut SmallVec<A>) -> bool
where
    V: Copy,
    A: smallvec::Array<Item = (&'a [u8], V)>,
{
    let before = pairs.len();
    if before > FEW {
        // Of equal keys the last one comes first after turning round, and the first one is kept.
        pairs.reverse();
        pairs.sort_by_key(|(key, _)| *key);
        pairs.dedup_by_key(|(key, _)| *key);
        return false;
    }
    let mut keys = Keys::default();
    pairs.iter().for_each(|(key, _)| keys.add(key));
    if keys.all_differ() {
        return true;
    }
    let mut i = 0;
    while let Some((key, _)) = pairs.get(i) {
        if pairs[i + 1..].iter().any(|(other, _)| other == key) {
            pairs.remove(i);
        } else {
            i += 1;
        }
    }
    pairs.len() == before
}

/// A sketch of keys, to see in one pass that they are all different, as they mostly are.
#[derive(Default)]
pub(crate) struct Keys {
    seen: [u64; 16],
    again: bool,
}

impl Keys {
    /// Takes one more key into account.
    #[inline]
    pub(crate) fn add(&mut self, key: &[u8]) {
        let ends = match key {
            [first, .., last] => {
                u32::from(*first) | u32::from(*last) << 8 | u32::from(key[key.len() / 2]) << 16
            }
            _ => 0,
        };
        let place = (ends ^ (key.len() as u32) << 24).wrapping_mul(0x9e37_79b1) >> 22;
        let seen = &mut self.seen[(place >> 6) as usize];
        let bit = 1 << (place & 63);
        self.again |= *seen & bit != 0;
        *seen |= bit;
    }

    /// Whether they are certainly all different. `false` says nothing.
    #[inline]
    pub(crate) fn all_differ(&self) -> bool {
        !self.again
    }
}
