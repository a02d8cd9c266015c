//! Numbers as Prometheus' own libraries write them.

use std::fmt::{self, Write as _};

/// Appends a value as Go's `strconv.FormatFloat(v, 'g', -1, 64)` does: the shortest text that reads back as the same number,
/// with an exponent below 1e-4 and from 1e6 (1e21 has no part in it).
pub(crate) fn write(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
        return;
    }
    if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
        return;
    }
    let mut buffer = Buffer::default();
    if value == 0.0 || (1e-4..1e6).contains(&value.abs()) {
        // The plain form of Rust is the shortest one too.
        if write!(buffer, "{value}").is_ok() {
            out.extend_from_slice(buffer.bytes());
        }
        return;
    }
    if write!(buffer, "{value:e}").is_err() {
        return;
    }
    let text = buffer.bytes();
    let at = text.iter().position(|b| *b == b'e').unwrap_or(text.len());
    let (digits, exponent) = text.split_at(at);
    out.extend_from_slice(digits);
    let (sign, exponent) = match exponent.get(1..).unwrap_or_default() {
        [b'-', exponent @ ..] => (b'-', exponent),
        exponent => (b'+', exponent),
    };
    out.extend_from_slice(&[b'e', sign]);
    if exponent.len() < 2 {
        out.push(b'0');
    }
    out.extend_from_slice(exponent);
}

/// As [`write`], but always seen as a floating point number, as OpenMetrics wants it of `le` and `quantile`: `1.0`.
pub(crate) fn write_canonical(out: &mut Vec<u8>, value: f64) {
    let from = out.len();
    write(out, value);
    if value.is_finite() && !out[from..].iter().any(|b| matches!(b, b'.' | b'e')) {
        out.extend_from_slice(b".0");
    }
}

/// A number's text on the stack.
#[derive(Default)]
struct Buffer {
    bytes: [u8; 32],
    len: usize,
}

impl Buffer {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let to = self.len + text.len();
        let room = self.bytes.get_mut(self.len..to).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = to;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_go_writes_them() {
        for (value, text, canonical) in [
            (0.0, "0", "0.0"),
            (-0.0, "-0", "-0.0"),
            (42.0, "42", "42.0"),
            (12.5, "12.5", "12.5"),
            (0.0001, "0.0001", "0.0001"),
            (0.00001, "1e-05", "1e-05"),
            (999_999.0, "999999", "999999.0"),
            (1e6, "1e+06", "1e+06"),
            (268_435_456.0, "2.68435456e+08", "2.68435456e+08"),
            (-1.5e300, "-1.5e+300", "-1.5e+300"),
            (5e-324, "5e-324", "5e-324"),
            (
                1.797_693_134_862_315_7e308,
                "1.7976931348623157e+308",
                "1.7976931348623157e+308",
            ),
            (0.1 + 0.2, "0.30000000000000004", "0.30000000000000004"),
            (f64::NAN, "NaN", "NaN"),
            (f64::INFINITY, "+Inf", "+Inf"),
            (f64::NEG_INFINITY, "-Inf", "-Inf"),
        ] {
            let mut out = Vec::new();
            write(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), text);
            let mut out = Vec::new();
            write_canonical(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), canonical);
        }
    }
}
