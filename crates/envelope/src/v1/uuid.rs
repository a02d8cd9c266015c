//! UUIDs as v1 has them: two numbers.

use crate::wire::{Encode, Fields, Sink, Value};

/// An `events.UUID`: the sixteen bytes in textual order as two little-endian numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uuid {
    pub(crate) low: u64,
    pub(crate) high: u64,
}

impl Encode for Uuid {
    fn encode<S: Sink>(&self, to: &mut S) {
        to.varint(1, self.low);
        to.varint(2, self.high);
    }
}

/// Where the sixteen bytes stand in the text, in hexadecimal digits.
const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// The usual text form, in lower case.
pub(crate) fn to_text(uuid: Uuid) -> [u8; 36] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'-'; 36];
    let bytes = uuid
        .low
        .to_le_bytes()
        .into_iter()
        .chain(uuid.high.to_le_bytes());
    for (byte, place) in bytes.zip(PLACES) {
        text[place] = DIGITS[usize::from(byte >> 4)];
        text[place + 1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

/// Reads a text of exactly 36 bytes with hexadecimal digits of either case at their places. What stands at the places
/// of the dashes does not matter, as in the original.
pub(crate) fn of_text(text: &[u8]) -> Option<Uuid> {
    let text: &[u8; 36] = text.try_into().ok()?;
    let digit = |at: usize| char::from(text[at]).to_digit(16);
    let mut bytes = [0u8; 16];
    for (byte, place) in bytes.iter_mut().zip(PLACES) {
        *byte = (digit(place)? << 4 | digit(place + 1)?) as u8;
    }
    let number = u128::from_le_bytes(bytes);
    Some(Uuid {
        low: number as u64,
        high: (number >> 64) as u64,
    })
}

/// Reads a serialized `events.UUID`.
pub(crate) fn of_message(message: &[u8]) -> Uuid {
    let mut uuid = Uuid::default();
    for field in Fields::new(message) {
        match (field.number, field.value) {
            (1, Value::Varint(low)) => uuid.low = low,
            (2, Value::Varint(high)) => uuid.high = high,
            _ => {}
        }
    }
    uuid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_pairs_convert_both_ways() {
        for (text, low, high) in [
            (
                "b3015d69-09cd-476d-aace-ad2d824d5ab7",
                0x6d47_cd09_695d_01b3,
                0xb75a_4d82_2dad_ceaa,
            ),
            (
                "954f61c4-ac84-44be-9217-cdfa3117fb41",
                0xbe44_84ac_c461_4f95,
                0x41fb_1731_facd_1792,
            ),
            ("00000000-0000-0000-0000-000000000000", 0, 0),
        ] {
            let uuid = Uuid { low, high };
            assert_eq!(of_text(text.as_bytes()), Some(uuid));
            assert_eq!(of_text(text.to_uppercase().as_bytes()), Some(uuid));
            assert_eq!(to_text(uuid), text.as_bytes());
            let mut message = Vec::new();
            uuid.encode(&mut message);
            assert_eq!(of_message(&message), uuid);
        }
    }

    #[test]
    fn dashes_are_not_looked_at_but_digits_and_length_are() {
        assert!(of_text(b"b3015d69_09cd_476d_aace_ad2d824d5ab7").is_some());
        assert!(of_text(b"b3015d69-09cd-476d-aace-ad2d824d5abg").is_none());
        assert!(of_text(b"b3015d69-09cd-476d-aace-ad2d824d5ab").is_none());
        assert!(of_text(b"not-a-uuid").is_none());
    }
}
