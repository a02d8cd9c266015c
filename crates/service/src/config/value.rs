//! Types a setting can have.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::go;

/// A type that a setting's text can be parsed into.
pub trait Value: Sized {
    /// Parses trimmed, non-empty text. The error is a phrase that follows the variable's name and value.
    ///
    /// # Errors
    /// When the text is not of this type.
    fn parse(text: &str) -> Result<Self, String>;

    /// What [`super::Reader::value`] returns after an error, so that it can go on and find the others. Never used:
    /// [`super::Reader::finish`] fails.
    fn placeholder() -> Self;
}

/// A number of bytes: `1048576`, `64KiB`, `256 MiB`, `1.5GB`. Units with an `i` are powers of 1024, others of 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// As `usize`; the largest one where the platform's is smaller.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.trim()
            .parse::<bytesize::ByteSize>()
            .map(|size| Self(size.as_u64()))
            .map_err(|_| "not a size in bytes such as 1048576, 64KiB or 256MiB".to_owned())
    }
}

impl fmt::Display for ByteSize {
    /// The largest binary unit that shows the number exactly: `256MiB`, `1000` (bytes).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// A duration as Go writes it (`1h30m`, `1.5h`, `250ms`) or as people do (`2 minutes`, `1day`). Never negative.
///
/// # Errors
/// A phrase saying what is wrong with `text`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    match go::parse_duration(text) {
        Ok(nanos) => match u64::try_from(nanos) {
            Ok(nanos) => Ok(Duration::from_nanos(nanos)),
            Err(_) => Err("a duration cannot be negative here".to_owned()),
        },
        Err(go_error) => humantime::parse_duration(text).map_err(|_| go_error.to_string()),
    }
}

impl Value for String {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn placeholder() -> Self {
        Self::new()
    }
}

impl Value for PathBuf {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self::from(text))
    }

    fn placeholder() -> Self {
        Self::new()
    }
}

/// True for exactly `true` or `1`, false for everything else, never an error.
impl Value for bool {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(matches!(text, "true" | "1"))
    }

    fn placeholder() -> Self {
        false
    }
}

impl Value for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        parse_duration(text)
    }

    fn placeholder() -> Self {
        Self::ZERO
    }
}

impl Value for ByteSize {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn placeholder() -> Self {
        Self(0)
    }
}

impl Value for SocketAddr {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
            .map_err(|_| "not an address such as 127.0.0.1:8082".to_owned())
    }

    fn placeholder() -> Self {
        Self::from(([127, 0, 0, 1], 0))
    }
}

impl Value for NonZeroUsize {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
            .map_err(|_| "not a whole number above 0".to_owned())
    }

    fn placeholder() -> Self {
        Self::MIN
    }
}

macro_rules! whole_numbers {
    ($($number:ty),*) => {$(
        impl Value for $number {
            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| {
                    format!("not a whole number from {} to {}", <$number>::MIN, <$number>::MAX)
                })
            }

            fn placeholder() -> Self {
                0
            }
        }
    )*};
}
whole_numbers!(u8, u16, u32, u64, usize, i32, i64);

impl Value for f64 {
    fn parse(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err("not a number".to_owned()),
        }
    }

    fn placeholder() -> Self {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_both_kinds_of_units() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1_048_576),
            ("64KiB", 65_536),
            ("256 MiB", 268_435_456),
            ("1.5GB", 1_500_000_000),
            ("2gib", 2_147_483_648),
        ] {
            assert_eq!(text.parse::<ByteSize>(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "abc", "-1", "12 parsecs", "MiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_exactly_and_read_back() {
        for (bytes, text) in [
            (0, "0"),
            (1000, "1000"),
            (1024, "1KiB"),
            (1536, "1536"),
            (268_435_456, "256MiB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
            assert_eq!(text.parse::<ByteSize>(), Ok(ByteSize(bytes)));
        }
    }

    #[test]
    fn durations_as_go_and_as_people_write_them() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("250ms", 250),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("1m30s", 90_000),
            ("2 minutes", 120_000),
            ("1day", 86_400_000),
            ("1h 30m", 5_400_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
        assert_eq!(
            parse_duration("5").unwrap_err(),
            "time: missing unit in duration \"5\""
        );
        assert_eq!(
            parse_duration("-5s").unwrap_err(),
            "a duration cannot be negative here"
        );
    }

    #[test]
    fn bools_follow_go() {
        for (text, expected) in [
            ("true", true),
            ("1", true),
            ("TRUE", false),
            ("yes", false),
            ("0", false),
        ] {
            assert_eq!(<bool as Value>::parse(text), Ok(expected));
        }
    }

    #[test]
    fn numbers_name_their_range() {
        assert_eq!(
            <u16 as Value>::parse("70000").unwrap_err(),
            "not a whole number from 0 to 65535"
        );
        assert_eq!(<u16 as Value>::parse("4464"), Ok(4464));
        assert!(<f64 as Value>::parse("NaN").is_err());
        assert!(<NonZeroUsize as Value>::parse("0").is_err());
    }
}
