//! Numbers as the original converts them: what its processor does with what does not fit, not what Rust does.

/// Truncates towards zero. Negative numbers wrap around as 64-bit integers do; what has no 64-bit integer becomes 2^63.
pub(crate) fn double_to_u64(number: f64) -> u64 {
    const TWO_63: f64 = 9_223_372_036_854_775_808.0;
    if (0.0..2.0 * TWO_63).contains(&number) {
        number as u64
    } else if (-TWO_63..0.0).contains(&number) {
        number as i64 as u64
    } else {
        1 << 63
    }
}

/// Truncates towards zero; what does not fit becomes -2^31.
pub(crate) fn double_to_i32(number: f64) -> i32 {
    let whole = number.trunc();
    let fits = whole >= f64::from(i32::MIN) && whole <= f64::from(i32::MAX);
    if fits { whole as i32 } else { i32::MIN }
}

/// Reads a decimal number with an optional sign; anything else, and what does not fit, is 0.
pub(crate) fn text_to_i64(text: &[u8]) -> i64 {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// Reads a decimal number with an optional sign; anything else, and what does not fit into 32 bits, is 0.
pub(crate) fn text_to_i32(text: &[u8]) -> i32 {
    i32::try_from(text_to_i64(text)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_become_integers_as_on_the_original_machine() {
        for (number, unsigned, narrow) in [
            (0.0, 0, 0),
            (-0.9, 0, 0),
            (1.9, 1, 1),
            (-1.0, u64::MAX, -1),
            (-1.5, u64::MAX, -1),
            (2_147_483_647.9, 2_147_483_647, i32::MAX),
            (2_147_483_648.0, 2_147_483_648, i32::MIN),
            (-2_147_483_648.9, (-2_147_483_648_i64) as u64, i32::MIN),
            (1.5e19, 15_000_000_000_000_000_000, i32::MIN),
            (1.9e19, 1 << 63, i32::MIN),
            (-9.3e18, 1 << 63, i32::MIN),
            (f64::NAN, 1 << 63, i32::MIN),
            (f64::INFINITY, 1 << 63, i32::MIN),
            (f64::NEG_INFINITY, 1 << 63, i32::MIN),
        ] {
            assert_eq!(double_to_u64(number), unsigned, "{number}");
            assert_eq!(double_to_i32(number), narrow, "{number}");
        }
    }

    #[test]
    fn texts_become_integers_or_zero() {
        for (text, number, narrow) in [
            ("200", 200, 200),
            ("+7", 7, 7),
            ("-7", -7, -7),
            ("007", 7, 7),
            ("2147483648", 2_147_483_648, 0),
            ("9223372036854775808", 0, 0),
            ("", 0, 0),
            ("+", 0, 0),
            ("+-1", 0, 0),
            (" 1", 0, 0),
            ("1_0", 0, 0),
            ("0x1", 0, 0),
            ("1.0", 0, 0),
        ] {
            assert_eq!(text_to_i64(text.as_bytes()), number, "{text}");
            assert_eq!(text_to_i32(text.as_bytes()), narrow, "{text}");
        }
        assert_eq!(
            2_147_483_648_i64 as i32, -2_147_483_648,
            "a status code keeps its low half"
        );
    }
}
