//! Events as text: one line each, for people and for programs that read lines.
//!
//! | format | a line is |
//! | --- | --- |
//! | `json` | an object with time, kind, source, names and the content, texts as texts |
//! | `envelope` | the envelope as protobuf JSON, as a reverse log proxy's gateway writes it: nothing is lost |
//! | `logfmt` | `key=value` pairs |
//! | `text` | time, source, content |
//!
//! Whatever an event holds, it is one line: line breaks inside are escaped. Bytes that are not UTF-8 are replaced, except in
//! `envelope`, which has them in base64.

mod json;
mod logfmt;
mod text;

use loggregator_envelope::json::write_envelope;
use serde::Deserialize;
use time::OffsetDateTime;

use crate::event::Event;

/// How an event is written as a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// An object that is easy to read and to query.
    #[default]
    Json,
    /// Protobuf JSON of the envelope.
    Envelope,
    /// `key=value` pairs.
    Logfmt,
    /// For people.
    Text,
}

impl Format {
    /// Appends the event, without a line break at the end.
    pub fn write(self, out: &mut Vec<u8>, event: &Event) {
        match self {
            Format::Json => json::write(out, event),
            Format::Envelope => write_envelope(out, event.envelope()),
            Format::Logfmt => logfmt::write(out, event),
            Format::Text => text::write(out, event),
        }
    }
}

/// Appends a time given in nanoseconds since 1970: RFC 3339, UTC, always nine digits after the second.
pub fn write_time(out: &mut Vec<u8>, nanos: i64) {
    // Every number of nanoseconds that 64 bits hold is a time between the years 1677 and 2262.
    let Ok(time) = OffsetDateTime::from_unix_timestamp_nanos(i128::from(nanos)) else {
        return;
    };
    let (date, time) = (time.date(), time.time());
    let (year, month, day) = date.to_calendar_date();
    let (hour, minute, second, nano) = time.as_hms_nano();
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    for (place, number) in [
        (0..4, year.unsigned_abs()),
        (5..7, u32::from(u8::from(month))),
        (8..10, u32::from(day)),
        (11..13, u32::from(hour)),
        (14..16, u32::from(minute)),
        (17..19, u32::from(second)),
        (20..29, nano),
    ] {
        let mut rest = number;
        for digit in text[place].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
    out.extend_from_slice(&text);
}

#[cfg(test)]
mod tests;
