//! Go's parsing of numbers and durations, for the programs that stand in for Go ones.
//!
//! Source of the rules: the Go standard library's `strconv.ParseUint`, `strconv.ParseInt` (base 10, 64 bits) and
//! `time.ParseDuration`. Fields narrower than 64 bits are truncated after parsing, as the platform's environment
//! parser does: `ROUTER_PORT=70000` listens on 4464.

use std::time::Duration;

use super::Value;

/// An unsigned number, parsed as 64 bits and truncated to `T`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Uint<T>(pub T);

/// A signed 64-bit number with an optional sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Int(pub i64);

/// A Go duration; a negative one is kept as it is, since for some intervals it means "never".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Nanoseconds, as Go keeps them.
    pub nanos: i64,
}

/// Why a text is not a Go number or duration; displays as Go's error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// `strconv`: not a number.
    #[error("strconv.{function}: parsing {}: invalid syntax", quote(.text))]
    Syntax {
        /// `ParseUint` or `ParseInt`.
        function: &'static str,
        /// The offending text.
        text: String,
    },
    /// `strconv`: more than 64 bits.
    #[error("strconv.{function}: parsing {}: value out of range", quote(.text))]
    Range {
        /// `ParseUint` or `ParseInt`.
        function: &'static str,
        /// The offending text.
        text: String,
    },
    /// `time`: not a duration, or too long a one.
    #[error("time: invalid duration {}", quote(.text))]
    Duration {
        /// The offending text.
        text: String,
    },
    /// `time`: a number without a unit.
    #[error("time: missing unit in duration {}", quote(.text))]
    MissingUnit {
        /// The offending text.
        text: String,
    },
    /// `time`: a unit that Go does not know.
    #[error("time: unknown unit {} in duration {}", quote(.unit), quote(.text))]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// The offending text.
        text: String,
    },
}

/// `strconv.ParseUint(text, 10, 64)`
///
/// # Errors
/// As Go's: syntax (a sign included) or range.
pub fn parse_uint(text: &str) -> Result<u64, ParseError> {
    const FUNCTION: &str = "ParseUint";
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ParseError::Syntax {
            function: FUNCTION,
            text: text.to_owned(),
        });
    }
    text.parse().map_err(|_| ParseError::Range {
        function: FUNCTION,
        text: text.to_owned(),
    })
}

/// `strconv.ParseInt(text, 10, 64)`
///
/// # Errors
/// As Go's: syntax or range.
pub fn parse_int(text: &str) -> Result<i64, ParseError> {
    const FUNCTION: &str = "ParseInt";
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ParseError::Syntax {
            function: FUNCTION,
            text: text.to_owned(),
        });
    }
    text.parse().map_err(|_| ParseError::Range {
        function: FUNCTION,
        text: text.to_owned(),
    })
}

/// `time.ParseDuration`, in nanoseconds.
///
/// # Errors
/// As Go's.
pub fn parse_duration(text: &str) -> Result<i64, ParseError> {
    let invalid = || ParseError::Duration {
        text: text.to_owned(),
    };
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (nanos, after) = parse_term(rest, text)?;
        total = total
            .checked_add(nanos)
            .filter(|t| *t <= 1 << 63)
            .ok_or_else(invalid)?;
        rest = after;
    }
    if negative {
        // 2^63 ns is the one value that only fits when negative.
        return Ok(0_i64.wrapping_sub_unsigned(total));
    }
    i64::try_from(total).map_err(|_| invalid())
}

/// One `number unit` of a duration in nanoseconds, and the text behind it.
fn parse_term<'a>(term: &'a str, whole: &str) -> Result<(u64, &'a str), ParseError> {
    let invalid = || ParseError::Duration {
        text: whole.to_owned(),
    };
    let (integer, rest) = split_digits(term);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(after) => split_digits(after),
        None => ("", rest),
    };
    if integer.is_empty() && fraction.is_empty() {
        return Err(invalid());
    }
    let unit_len = rest
        .find(|c: char| c == '.' || c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_len);
    if unit.is_empty() {
        return Err(ParseError::MissingUnit {
            text: whole.to_owned(),
        });
    }
    let scale = nanos_of(unit).ok_or_else(|| ParseError::UnknownUnit {
        unit: unit.to_owned(),
        text: whole.to_owned(),
    })?;
    let number = if integer.is_empty() {
        0
    } else {
        integer.parse::<u64>().map_err(|_| invalid())?
    };
    let nanos = number
        .checked_mul(scale)
        .filter(|n| *n <= 1 << 63)
        .ok_or_else(invalid)?;
    let nanos = nanos
        .checked_add(fraction_nanos(fraction, scale))
        .ok_or_else(invalid)?;
    Ok((nanos, rest))
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    )
}

/// `0.fraction` of a unit; digits beyond what 64 bits hold do not count, as in Go.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "below `scale`, which fits"
)]
#[expect(clippy::cast_precision_loss, reason = "Go rounds through a double too")]
fn fraction_nanos(fraction: &str, scale: u64) -> u64 {
    let (mut value, mut divisor) = (0_u64, 1.0_f64);
    for digit in fraction.bytes().map(|b| u64::from(b - b'0')) {
        let Some(next) = value
            .checked_mul(10)
            .and_then(|v| v.checked_add(digit))
            .filter(|v| *v < 1 << 63)
        else {
            break;
        };
        value = next;
        divisor *= 10.0;
    }
    (value as f64 * (scale as f64 / divisor)) as u64
}

fn nanos_of(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        // The micro sign and the Greek letter, as Go.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// Go's quoting of the offending text, near enough: double quotes and escapes.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.escape_debug())
}

impl Span {
    /// The duration, `None` when it is zero or negative.
    #[must_use]
    pub fn positive(self) -> Option<Duration> {
        u64::try_from(self.nanos)
            .ok()
            .filter(|n| *n > 0)
            .map(Duration::from_nanos)
    }
}

impl Value for Int {
    fn parse(text: &str) -> Result<Self, String> {
        parse_int(text).map(Self).map_err(|e| e.to_string())
    }

    fn placeholder() -> Self {
        Self(0)
    }
}

impl Value for Span {
    fn parse(text: &str) -> Result<Self, String> {
        parse_duration(text)
            .map(|nanos| Self { nanos })
            .map_err(|e| e.to_string())
    }

    fn placeholder() -> Self {
        Self { nanos: 0 }
    }
}

macro_rules! truncated {
    ($($number:ty),*) => {$(
        impl Value for Uint<$number> {
            #[allow(clippy::cast_possible_truncation, reason = "the rule being implemented")]
            fn parse(text: &str) -> Result<Self, String> {
                parse_uint(text).map(|n| Self(n as $number)).map_err(|e| e.to_string())
            }

            fn placeholder() -> Self {
                Self(0)
            }
        }
    )*};
}
truncated!(u16, u32, u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_truncated_to_sixteen_bits() {
        assert_eq!(Uint::<u16>::parse("70000"), Ok(Uint(4464)));
        assert_eq!(Uint::<u16>::parse("8082"), Ok(Uint(8082)));
        assert_eq!(Uint::<u32>::parse("4294967297"), Ok(Uint(1)));
    }

    #[test]
    fn number_errors_read_as_go_s() {
        assert_eq!(
            parse_uint("abc").unwrap_err().to_string(),
            r#"strconv.ParseUint: parsing "abc": invalid syntax"#
        );
        assert_eq!(
            parse_uint("+1").unwrap_err().to_string(),
            r#"strconv.ParseUint: parsing "+1": invalid syntax"#
        );
        assert_eq!(
            parse_int("1_0").unwrap_err().to_string(),
            r#"strconv.ParseInt: parsing "1_0": invalid syntax"#
        );
        assert_eq!(
            parse_uint("18446744073709551616").unwrap_err().to_string(),
            r#"strconv.ParseUint: parsing "18446744073709551616": value out of range"#
        );
        assert_eq!(parse_int("+7"), Ok(7));
        assert_eq!(parse_int("-9223372036854775808"), Ok(i64::MIN));
        assert!(parse_int("-").is_err());
    }

    #[test]
    fn durations_that_go_accepts() {
        for (text, nanos) in [
            ("0", 0),
            ("-0", 0),
            ("1h30m", 5_400_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("-1.5h", -5_400_000_000_000),
            ("+5s", 5_000_000_000),
            ("250ms", 250_000_000),
            ("1us", 1_000),
            ("1µs", 1_000),
            ("1μs", 1_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("39h9m14.425s", 140_954_425_000_000),
            ("0.100000000000000000000h", 360_000_000_000),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ] {
            assert_eq!(parse_duration(text), Ok(nanos), "{text}");
        }
    }

    #[test]
    fn duration_errors_read_as_go_s() {
        for (text, error) in [
            ("", r#"time: invalid duration """#),
            ("5", r#"time: missing unit in duration "5""#),
            ("-", r#"time: invalid duration "-""#),
            (".s", r#"time: invalid duration ".s""#),
            ("1d", r#"time: unknown unit "d" in duration "1d""#),
            ("1m5", r#"time: missing unit in duration "1m5""#),
            (
                "9223372036854775808ns",
                r#"time: invalid duration "9223372036854775808ns""#,
            ),
            (
                "9223372036854775808h",
                r#"time: invalid duration "9223372036854775808h""#,
            ),
            ("s", r#"time: invalid duration "s""#),
        ] {
            assert_eq!(
                parse_duration(text).unwrap_err().to_string(),
                error,
                "{text}"
            );
        }
    }

    #[test]
    fn only_positive_spans_are_intervals() {
        assert_eq!(Span::parse("0s").unwrap().positive(), None);
        assert_eq!(Span::parse("-1s").unwrap().positive(), None);
        assert_eq!(
            Span::parse("1s").unwrap().positive(),
            Some(Duration::from_secs(1))
        );
    }
}
