//! Numbers for people: bytes, percentages, durations, thousands.

use std::io::Write as _;

/// Appends a gauge's value with its unit, in the form that is read fastest.
pub fn write_value(out: &mut Vec<u8>, value: f64, unit: &str) {
    let done = match unit {
        "percentage" | "percent" | "%" => write!(out, "{}%", trimmed(value, 2)),
        "bytes" | "byte" | "B" => {
            write_bytes(out, value);
            Ok(())
        }
        "nanoseconds" | "ns" => {
            write_nanos(out, value);
            Ok(())
        }
        "" => write!(out, "{}", trimmed(value, 6)),
        unit => write!(out, "{} {unit}", trimmed(value, 6)),
    };
    debug_assert!(done.is_ok(), "writing to a vector cannot fail");
}

/// Appends a byte count in binary units, exact below 10 KiB.
pub fn write_bytes(out: &mut Vec<u8>, bytes: f64) {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes;
    let mut unit = "B";
    for next in UNITS {
        if value.abs() < 10_240.0 && unit == "B" || value.abs() < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    let digits = if unit == "B" { 0 } else { 1 };
    let done = write!(out, "{} {unit}", trimmed(value, digits));
    debug_assert!(done.is_ok(), "writing to a vector cannot fail");
}

/// Appends a duration: `850ns`, `12.3ms`, `2.40s`, `3m07s`.
pub fn write_nanos(out: &mut Vec<u8>, nanos: f64) {
    let abs = nanos.abs();
    let done = if !abs.is_finite() {
        write!(out, "{nanos}")
    } else if abs < 1e3 {
        write!(out, "{nanos:.0}ns")
    } else if abs < 1e6 {
        write!(out, "{:.1}µs", nanos / 1e3)
    } else if abs < 1e9 {
        write!(out, "{:.1}ms", nanos / 1e6)
    } else if abs < 60e9 {
        write!(out, "{:.2}s", nanos / 1e9)
    } else {
        write!(
            out,
            "{:.0}m{:02.0}s",
            (nanos / 60e9).trunc(),
            (abs / 1e9).trunc() % 60.0
        )
    };
    debug_assert!(done.is_ok(), "writing to a vector cannot fail");
}

/// At most `digits` after the point, without zeros that say nothing; very large and very small as they are.
fn trimmed(value: f64, digits: usize) -> String {
    if !value.is_finite() || value.abs() >= 1e15 || (value != 0.0 && value.abs() < 1e-6) {
        return format!("{value:?}");
    }
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// `1234567` as `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 line`, `2 lines`.
pub fn count(number: u64, thing: &str) -> String {
    format!(
        "{} {thing}{}",
        thousands(number),
        if number == 1 { "" } else { "s" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(value: f64, unit: &str) -> String {
        let mut out = Vec::new();
        write_value(&mut out, value, unit);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn units_are_put_as_people_read_them() {
        assert_eq!(value(12.5, "percentage"), "12.5%");
        assert_eq!(value(512.0 * 1024.0 * 1024.0, "bytes"), "512 MiB");
        assert_eq!(value(4000.0, "bytes"), "4000 B");
        assert_eq!(value(1.5e12, "bytes"), "1.4 TiB");
        assert_eq!(value(-3e6, "bytes"), "-2.9 MiB");
        assert_eq!(value(4.0, "orders"), "4 orders");
        assert_eq!(value(0.25, ""), "0.25");
        assert_eq!(value(f64::NAN, ""), "NaN");
        assert_eq!(value(1e300, "x"), "1e300 x");
        assert_eq!(value(12_300_000.0, "ns"), "12.3ms");
    }

    #[test]
    fn durations_grow_through_their_units() {
        let nanos = |n: f64| {
            let mut out = Vec::new();
            write_nanos(&mut out, n);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(nanos(850.0), "850ns");
        assert_eq!(nanos(1500.0), "1.5µs");
        assert_eq!(nanos(2.4e9), "2.40s");
        assert_eq!(nanos(187e9), "3m07s");
        assert_eq!(nanos(-5e6), "-5.0ms");
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1000), "1,000");
        assert_eq!(thousands(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(count(1, "line"), "1 line");
        assert_eq!(count(0, "line"), "0 lines");
    }
}
