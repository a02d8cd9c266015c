//! Names, texts, bytes and numbers.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{DeserializeSeed, Deserializer, Error, Visitor};

use crate::wire::Sink as _;

/// The name of a member; empty when it is none of these.
pub(super) struct Name(pub &'static [&'static str]);
seed!(Name => &'static str);

impl Visitor<'_> for Name {
    type Value = &'static str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<&'static str, E> {
        let known = self.0.iter().find(|known| **known == name);
        Ok(known.copied().unwrap_or_default())
    }
}

/// The key of a map.
pub(super) struct Key<'a>(pub &'a mut String);
seed!(Key<'_> => ());

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<(), E> {
        self.0.clear();
        self.0.push_str(key);
        Ok(())
    }
}

/// A text, as it is.
pub(super) struct Raw<'a>(pub &'a mut Vec<u8>);
seed!(Raw<'_> => ());

impl Visitor<'_> for Raw<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }

    null_is!(());
}

/// A text, as a field.
pub(super) struct Text<'a> {
    pub number: u32,
    pub out: &'a mut Vec<u8>,
}
seed!(Text<'_> => ());

impl Visitor<'_> for Text<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.out.bytes_unless_empty(self.number, text.as_bytes());
        Ok(())
    }

    null_is!(());
}

const ANY_PADDING: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
static PLAIN: GeneralPurpose = GeneralPurpose::new(&STANDARD, ANY_PADDING);
static URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, ANY_PADDING);

/// A log's payload.
pub(super) struct Base64<'a>(pub &'a mut Vec<u8>);
seed!(Base64<'_> => ());

impl Visitor<'_> for Base64<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes in base64")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if text.is_empty() {
            return Ok(());
        }
        let engine = match text.bytes().any(|byte| byte == b'-' || byte == b'_') {
            true => &URL,
            false => &PLAIN,
        };
        // The length is not known until it is decoded, so it is decoded after the place for its field's head.
        let exact = text.trim_end_matches('=').len() * 3 / 4;
        self.0.raw_varint(0x0a);
        self.0.raw_varint(exact as u64);
        let from = self.0.len();
        // The decoder asks for room for whole quanta.
        self.0.resize(from + text.len().div_ceil(4) * 3, 0);
        let bytes = engine
            .decode_slice(text, &mut self.0[from..])
            .map_err(E::custom)?;
        if bytes != exact {
            return Err(E::custom("a length that base64 cannot have"));
        }
        self.0.truncate(from + bytes);
        Ok(())
    }

    null_is!(());
}

/// Which stream a line was written to.
pub(super) struct LogType;
seed!(LogType => i32);

impl Visitor<'_> for LogType {
    type Value = i32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OUT, ERR or a number")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<i32, E> {
        Ok(i32::from(name == "ERR"))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<i32, E> {
        i32::try_from(number).map_err(|_| E::custom(format_args!("{number} is no log type")))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<i32, E> {
        i32::try_from(number).map_err(|_| E::custom(format_args!("{number} is no log type")))
    }

    null_is!(0);
}

/// A whole number of 64 bits.
#[derive(Clone, Copy)]
pub(super) enum Whole {
    I64,
    U64,
}
seed!(Whole => i128);

impl Whole {
    fn check<E: Error>(self, number: i128) -> Result<i128, E> {
        let (least, most) = match self {
            Whole::I64 => (i128::from(i64::MIN), i128::from(i64::MAX)),
            Whole::U64 => (0, i128::from(u64::MAX)),
        };
        if (least..=most).contains(&number) {
            Ok(number)
        } else {
            Err(E::custom(format_args!("{number} is out of range")))
        }
    }
}

impl Visitor<'_> for Whole {
    type Value = i128;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number, or a text of one")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<i128, E> {
        if let Ok(number) = text.parse() {
            return self.check(number);
        }
        let number: f64 = text
            .parse()
            .map_err(|_| E::custom(format_args!("{text:?} is no number")))?;
        self.visit_f64(number)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<i128, E> {
        self.check(i128::from(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<i128, E> {
        self.check(i128::from(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<i128, E> {
        if number.fract() != 0.0 {
            // Of an infinity or a NaN this is NaN.
            return Err(E::custom(format_args!("{number} is no whole number")));
        }
        self.check(number as i128)
    }

    null_is!(0);
}

/// A double.
pub(super) struct Double;
seed!(Double => f64);

impl Visitor<'_> for Double {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, or a text of one")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
        match text {
            "NaN" => Ok(f64::NAN),
            "Infinity" => Ok(f64::INFINITY),
            "-Infinity" => Ok(f64::NEG_INFINITY),
            _ => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(number),
                _ => Err(E::custom(format_args!("{text:?} is no number"))),
            },
        }
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<f64, E> {
        Ok(number)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a double is what the field holds"
    )]
    fn visit_i64<E: Error>(self, number: i64) -> Result<f64, E> {
        Ok(number as f64)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a double is what the field holds"
    )]
    fn visit_u64<E: Error>(self, number: u64) -> Result<f64, E> {
        Ok(number as f64)
    }

    null_is!(0.0);
}
