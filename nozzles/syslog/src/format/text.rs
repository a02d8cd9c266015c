//! Parts of messages: times, numbers, names.

use std::io::Write as _;

/// The day of a time, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Civil {
    pub year: i64,
    pub month: u32,
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
}

/// Date and time of a second since 1970, in UTC. The days are counted from a first of March, so that the day that some
/// years have more is the last one.
pub(crate) fn civil(seconds: i64) -> Civil {
    let (days, of_day) = (
        seconds.div_euclid(86_400),
        seconds.rem_euclid(86_400) as u32,
    );
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    Civil {
        year: year_of_era + era * 400 + i64::from(month <= 2),
        month: month as u32,
        day: day as u32,
        hour: of_day / 3600,
        minute: of_day / 60 % 60,
        second: of_day % 60,
    }
}

/// Writes times, and remembers the last second, which the next event mostly shares.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    second: Option<i64>,
    text: Vec<u8>,
}

impl Clock {
    /// `YYYY-MM-DDThh:mm:ss[.ffffff]+00:00`: microseconds, cut and not rounded, without zeros at the end (RFC 5424 §6.2.3, as
    /// the platform's agents write it).
    pub fn rfc3339(&mut self, out: &mut Vec<u8>, nanos: i64) {
        let second = nanos.div_euclid(1_000_000_000);
        if self.second != Some(second) {
            let c = civil(second);
            self.text.clear();
            // Writing to a vector does not fail.
            write!(
                self.text,
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
                c.year, c.month, c.day, c.hour, c.minute, c.second
            )
            .ok();
            self.second = Some(second);
        }
        out.extend_from_slice(&self.text);
        let micros = nanos.rem_euclid(1_000_000_000) / 1000;
        if micros > 0 {
            let mut digits = [b'.'; 7];
            let mut rest = micros;
            for digit in digits[1..].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            let used = digits.iter().rposition(|digit| *digit != b'0');
            out.extend_from_slice(&digits[..=used.unwrap_or_default()]);
        }
        out.extend_from_slice(b"+00:00");
    }
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// `Mmm dd hh:mm:ss`, the day padded with a space (RFC 3164 §4.1.2), in UTC.
pub(crate) fn rfc3164(out: &mut Vec<u8>, nanos: i64) {
    let c = civil(nanos.div_euclid(1_000_000_000));
    write!(
        out,
        "{} {:2} {:02}:{:02}:{:02}",
        MONTHS[c.month as usize - 1],
        c.day,
        c.hour,
        c.minute,
        c.second
    )
    .ok();
}

/// A number as the platform's agents write it: shortest form, with an exponent of at least two digits below 10^-4 and from
/// 10^6 on.
pub(crate) fn number(out: &mut Vec<u8>, number: f64) {
    if !number.is_finite() {
        let name: &[u8] = match number {
            f64::INFINITY => b"+Inf",
            f64::NEG_INFINITY => b"-Inf",
            _ => b"NaN",
        };
        return out.extend_from_slice(name);
    }
    let from = out.len();
    write!(out, "{number:e}").ok();
    let e = from + out[from..].iter().position(|b| *b == b'e').unwrap_or(0);
    let text = std::str::from_utf8(&out[e + 1..]).unwrap_or_default();
    let exponent: i32 = text.parse().unwrap_or_default();
    if number == 0.0 || (-4..=5).contains(&exponent) {
        out.truncate(from);
        write!(out, "{number}").ok();
    } else {
        out.truncate(e);
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(out, "e{sign}{:02}", exponent.unsigned_abs()).ok();
    }
}

/// A whole number.
pub(crate) fn integer(out: &mut Vec<u8>, number: impl std::fmt::Display) {
    write!(out, "{number}").ok();
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | 0x0c | b'\r' | b' ')
}

/// Writes `text` so that runs of white space become a dash and only bytes that `keep` remain, without dashes at the end,
/// at most `max` bytes.
fn squeeze(out: &mut Vec<u8>, text: &[u8], max: usize, keep: impl Fn(u8) -> Option<u8>) {
    let from = out.len();
    let mut in_space = false;
    for byte in text.iter().copied() {
        let space = is_space(byte);
        if space && !in_space {
            out.push(b'-');
        } else if !space {
            out.extend(keep(byte));
        }
        in_space = space;
    }
    while out.len() > from && out.ends_with(b"-") {
        out.pop();
    }
    out.truncate(from + max.min(out.len() - from));
}

/// A name as a part of a host name: letters, digits, dashes, at most 63 (RFC 1034 §3.1).
pub(crate) fn host_label(out: &mut Vec<u8>, name: &[u8]) {
    squeeze(out, name, 63, |byte| {
        (byte == b'-' || byte.is_ascii_alphanumeric()).then_some(byte)
    });
}

/// A source type as a part of PROCID: printable ASCII, upper case.
pub(crate) fn source_type(out: &mut Vec<u8>, name: &[u8], max: usize) {
    squeeze(out, name, max, |byte| {
        byte.is_ascii_graphic().then(|| byte.to_ascii_uppercase())
    });
}

/// The longest beginning of at most `max` bytes that does not end within a character. What is not UTF-8 is cut where the
/// limit is.
pub(crate) fn cut(bytes: &[u8], max: usize) -> &[u8] {
    if bytes.len() <= max {
        return bytes;
    }
    let continues = |at: usize| bytes[at] & 0xc0 == 0x80;
    let back = (0..4.min(max + 1)).find(|back| !continues(max - back));
    &bytes[..max - back.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_in_utc_and_cut_to_microseconds() {
        let mut clock = Clock::default();
        for (nanos, expected) in [
            (0, "1970-01-01T00:00:00+00:00"),
            (-1, "1969-12-31T23:59:59.999999+00:00"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00+00:00"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00+00:00"),
            (1_700_000_000_120_000_999, "2023-11-14T22:13:20.12+00:00"),
            (1_700_000_000_000_000_999, "2023-11-14T22:13:20+00:00"),
            (i64::MIN, "1677-09-21T00:12:43.145224+00:00"),
            (i64::MAX, "2262-04-11T23:47:16.854775+00:00"),
        ] {
            assert_eq!(text(|out| clock.rfc3339(out, nanos)), expected);
            assert_eq!(text(|out| clock.rfc3339(out, nanos)), expected, "again");
        }
        let day = |nanos| text(|out| rfc3164(out, nanos));
        assert_eq!(day(1_700_000_000_999_999_999), "Nov 14 22:13:20");
        assert_eq!(day(0), "Jan  1 00:00:00");
    }

    #[test]
    fn names_are_made_fit() {
        let label = |name: &str| text(|out| host_label(out, name.as_bytes()));
        assert_eq!(label("my_org.inc"), "myorginc");
        assert_eq!(label("pre \t prod-- "), "pre-prod");
        assert_eq!(label(&"o".repeat(100)), "o".repeat(63));
        assert_eq!(label("é"), "");
        let kind = |name: &str| text(|out| source_type(out, name.as_bytes(), 5));
        assert_eq!(kind("app/task"), "APP/T");
    }

    #[test]
    fn a_cut_does_not_split_a_character() {
        assert_eq!(cut("aü".as_bytes(), 2), b"a");
        assert_eq!(cut("aü".as_bytes(), 3), "aü".as_bytes());
        assert_eq!(cut("😀".as_bytes(), 3), b"");
        assert_eq!(cut(&[0x80; 9], 6), [0x80; 6]);
        assert_eq!(cut(b"abc", 0), b"");
    }
}
