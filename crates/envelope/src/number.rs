//! Decimal numbers as the Go programs write them.

/// Shortest form without an exponent.
pub(crate) fn plain(number: f64) -> String {
    special(number).map_or_else(|| number.to_string(), str::to_owned)
}

/// Exactly six digits after the point.
pub(crate) fn six_digits(number: f64) -> String {
    special(number).map_or_else(|| format!("{number:.6}"), str::to_owned)
}

/// Shortest form, with an exponent of at least two digits below 10^-4 and from 10^21 on.
pub(crate) fn short(number: f64) -> String {
    let size = number.abs();
    match special(number) {
        Some(name) => name.to_owned(),
        None if size != 0.0 && !(1e-4..1e21).contains(&size) => with_exponent(number, 2),
        None => number.to_string(),
    }
}

/// As JSON numbers are written: shortest form, with an exponent below 10^-6 and from 10^21 on. `None` for what JSON
/// has no number for.
pub(crate) fn json(number: f64) -> Option<String> {
    let size = number.abs();
    if !size.is_finite() {
        return None;
    }
    let small_or_big = size != 0.0 && !(1e-6..1e21).contains(&size);
    Some(if small_or_big {
        with_exponent(number, 1)
    } else {
        number.to_string()
    })
}

fn special(number: f64) -> Option<&'static str> {
    match number {
        f64::INFINITY => Some("+Inf"),
        f64::NEG_INFINITY => Some("-Inf"),
        _ if number.is_nan() => Some("NaN"),
        _ => None,
    }
}

/// Rust writes `1e21` and `1e-7`; the sign is always there in Go, and sometimes a second digit.
fn with_exponent(number: f64, digits: usize) -> String {
    let text = format!("{number:e}");
    let Some((digits_before, exponent)) = text.split_once('e') else {
        return text;
    };
    let sign = if exponent.starts_with('-') { '-' } else { '+' };
    let exponent = exponent.trim_start_matches('-');
    format!("{digits_before}e{sign}{exponent:0>digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_go_writes_them() {
        for (number, plain_text, six, short_text, json_text) in [
            (0.0, "0", "0.000000", "0", Some("0")),
            (-0.0, "-0", "-0.000000", "-0", Some("-0")),
            (2.5, "2.5", "2.500000", "2.5", Some("2.5")),
            (0.8, "0.8", "0.800000", "0.8", Some("0.8")),
            (
                1e20,
                "100000000000000000000",
                "100000000000000000000.000000",
                "100000000000000000000",
                Some("100000000000000000000"),
            ),
            (
                1e21,
                "1000000000000000000000",
                "1000000000000000000000.000000",
                "1e+21",
                Some("1e+21"),
            ),
            (1.5e-5, "0.000015", "0.000015", "1.5e-05", Some("0.000015")),
            (1e-7, "0.0000001", "0.000000", "1e-07", Some("1e-7")),
            (f64::NAN, "NaN", "NaN", "NaN", None),
            (f64::INFINITY, "+Inf", "+Inf", "+Inf", None),
            (f64::NEG_INFINITY, "-Inf", "-Inf", "-Inf", None),
        ] {
            assert_eq!(plain(number), plain_text);
            assert_eq!(six_digits(number), six);
            assert_eq!(short(number), short_text);
            assert_eq!(json(number).as_deref(), json_text);
        }
        assert_eq!(json(1e30).as_deref(), Some("1e+30"));
        assert_eq!(json(-1.25e-100).as_deref(), Some("-1.25e-100"));
    }
}
