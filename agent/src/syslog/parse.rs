//! One syslog message: RFC 5424, or what RFC 3164 found in the field.
//!
//! Works on bytes, because a log line is any bytes: nothing of the message text is changed, not its leading blanks and
//! not what is no UTF-8. The header of RFC 5424 is read by its grammar, with three concessions: a timestamp that is none
//! counts as absent, header fields may be longer than the RFC allows, and a priority of `-1`, which Cloud Foundry's
//! syslog agents send for unknown log types, means no priority. RFC 3164 is a description of habits; everything after
//! the priority is optional.

use std::borrow::Cow;

use time::format_description::well_known::Rfc3339;
use time::{Date, Month, OffsetDateTime, Time, UtcOffset};

/// A message as it was sent.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Message<'a> {
    /// Facility × 8 + severity; none for `<-1>`.
    pub priority: Option<u8>,
    /// Nanoseconds since 1970.
    pub timestamp: Option<i64>,
    pub hostname: Option<Cow<'a, str>>,
    /// APP-NAME, or the tag of RFC 3164.
    pub app_name: Option<Cow<'a, str>>,
    pub proc_id: Option<Cow<'a, str>>,
    pub msg_id: Option<Cow<'a, str>>,
    pub data: Vec<Element<'a>>,
    pub payload: &'a [u8],
}

/// An element of the structured data.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Element<'a> {
    pub id: Cow<'a, str>,
    pub params: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseError {
    #[error("no priority `<0>` to `<191>` at the beginning")]
    Priority,
    #[error("an RFC 5424 header with fewer than six fields")]
    Header,
    #[error("structured data that breaks the grammar at byte {0}")]
    StructuredData(usize),
}

impl ParseError {
    /// The value of the `reason` label.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            ParseError::Priority => "priority",
            ParseError::Header => "header",
            ParseError::StructuredData(_) => "structured_data",
        }
    }
}

/// Where the fields of a header stop and its reader stands.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Reads one message. `now` and `offset` complete the dates of RFC 3164, which have no year and no time zone.
pub(crate) fn parse(
    bytes: &[u8],
    now: OffsetDateTime,
    offset: UtcOffset,
) -> Result<Message<'_>, ParseError> {
    let mut reader = Reader { bytes, at: 0 };
    let priority = reader.priority()?;
    let mut message = Message {
        priority,
        ..Message::default()
    };
    if reader.rest().starts_with(b"1 ") {
        reader.at += 2;
        rfc5424(&mut reader, &mut message)?;
    } else {
        rfc3164(&mut reader, &mut message, now, offset);
    }
    Ok(message)
}

fn rfc5424<'a>(reader: &mut Reader<'a>, message: &mut Message<'a>) -> Result<(), ParseError> {
    message.timestamp = reader.field()?.and_then(rfc3339);
    message.hostname = reader.field()?.map(String::from_utf8_lossy);
    message.app_name = reader.field()?.map(String::from_utf8_lossy);
    message.proc_id = reader.field()?.map(String::from_utf8_lossy);
    message.msg_id = reader.field()?.map(String::from_utf8_lossy);
    message.data = reader.structured_data()?;
    let text = match reader.rest() {
        [b' ', text @ ..] => text,
        [] => &[],
        _ => return Err(ParseError::StructuredData(reader.at)),
    };
    message.payload = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    Ok(())
}

fn rfc3164<'a>(
    reader: &mut Reader<'a>,
    message: &mut Message<'a>,
    now: OffsetDateTime,
    offset: UtcOffset,
) {
    if let Some((timestamp, len)) = old_timestamp(reader.rest(), now, offset) {
        message.timestamp = Some(timestamp);
        reader.at += len;
        reader.skip_blank();
        // A host is what comes before the tag, not a tag itself. Without a tag behind it we cannot tell it from the
        // first word of the text; after a timestamp the RFC says that it is the host.
        let word = reader.word();
        if !word.is_empty() && old_tag(reader.rest()).is_none() {
            message.hostname = Some(String::from_utf8_lossy(word));
            reader.at += word.len();
            reader.skip_blank();
        }
    }
    if let Some(tag) = old_tag(reader.rest()) {
        message.app_name = Some(String::from_utf8_lossy(tag.name));
        message.proc_id = tag.pid.map(String::from_utf8_lossy);
        reader.at += tag.len;
    }
    message.payload = reader.rest();
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    fn word(&self) -> &'a [u8] {
        let rest = self.rest();
        &rest[..rest.iter().position(|&b| b == b' ').unwrap_or(rest.len())]
    }

    fn skip_blank(&mut self) {
        if self.rest().first() == Some(&b' ') {
            self.at += 1;
        }
    }

    fn priority(&mut self) -> Result<Option<u8>, ParseError> {
        let digits = self.bytes.strip_prefix(b"<").ok_or(ParseError::Priority)?;
        let len = digits
            .iter()
            .take(4)
            .position(|&b| b == b'>')
            .ok_or(ParseError::Priority)?;
        self.at = len + 2;
        match &digits[..len] {
            b"-1" => Ok(None),
            text if !text.is_empty() && text.iter().all(u8::is_ascii_digit) => {
                let number = text.iter().fold(0_u16, |n, b| n * 10 + u16::from(b - b'0'));
                u8::try_from(number)
                    .ok()
                    .filter(|n| *n <= 191)
                    .map(Some)
                    .ok_or(ParseError::Priority)
            }
            _ => Err(ParseError::Priority),
        }
    }

    /// A header field and the blank behind it; `-` means none.
    fn field(&mut self) -> Result<Option<&'a [u8]>, ParseError> {
        let word = self.word();
        self.at += word.len();
        if word.is_empty() || self.at == self.bytes.len() {
            return Err(ParseError::Header);
        }
        self.at += 1;
        Ok(Some(word).filter(|w| *w != b"-"))
    }

    fn structured_data(&mut self) -> Result<Vec<Element<'a>>, ParseError> {
        let mut elements = Vec::new();
        match self.rest().first() {
            Some(b'-') => self.at += 1,
            Some(b'[') => {
                while self.rest().first() == Some(&b'[') {
                    self.at += 1;
                    elements.push(self.element()?);
                }
            }
            _ => return Err(ParseError::Header),
        }
        Ok(elements)
    }

    /// From behind the opening bracket to behind the closing one.
    fn element(&mut self) -> Result<Element<'a>, ParseError> {
        let id = self.name()?;
        let mut params = Vec::new();
        loop {
            match self.rest() {
                [b']', ..] => {
                    self.at += 1;
                    return Ok(Element { id, params });
                }
                [b' ', b']', ..] => self.at += 1,
                [b' ', ..] => {
                    self.at += 1;
                    let name = self.name()?;
                    if !self.rest().starts_with(b"=\"") {
                        return Err(ParseError::StructuredData(self.at));
                    }
                    self.at += 2;
                    params.push((name, self.value()?));
                }
                _ => return Err(ParseError::StructuredData(self.at)),
            }
        }
    }

    fn name(&mut self) -> Result<Cow<'a, str>, ParseError> {
        let rest = self.rest();
        let len = rest
            .iter()
            .position(|b| b" =]\"".contains(b))
            .unwrap_or(rest.len());
        if len == 0 {
            return Err(ParseError::StructuredData(self.at));
        }
        self.at += len;
        Ok(String::from_utf8_lossy(&rest[..len]))
    }

    /// From behind the opening quote to behind the closing one. A backslash before anything but `"`, `\` and `]` stands
    /// for itself.
    fn value(&mut self) -> Result<Cow<'a, str>, ParseError> {
        let rest = self.rest();
        let mut unescaped = Vec::new();
        let (mut from, mut i) = (0, 0);
        loop {
            match rest.get(i..) {
                Some([b'\\', b'"' | b'\\' | b']', ..]) => {
                    unescaped.extend_from_slice(&rest[from..i]);
                    from = i + 1;
                    i += 2;
                }
                Some([b'"', ..]) => break,
                Some([_, ..]) => i += 1,
                _ => return Err(ParseError::StructuredData(self.bytes.len())),
            }
        }
        self.at += i + 1;
        if from == 0 {
            return Ok(String::from_utf8_lossy(&rest[..i]));
        }
        unescaped.extend_from_slice(&rest[from..i]);
        Ok(Cow::Owned(String::from_utf8_lossy(&unescaped).into_owned()))
    }
}

struct OldTag<'a> {
    name: &'a [u8],
    pid: Option<&'a [u8]>,
    /// Up to the text, with the colon and one blank.
    len: usize,
}

/// `name:` or `name[pid]:` at the beginning. The colon is what makes it a tag.
fn old_tag(rest: &[u8]) -> Option<OldTag<'_>> {
    let end = rest.iter().position(|b| b" :[".contains(b))?;
    let name = &rest[..end];
    let (pid, colon) = match rest[end] {
        b'[' => {
            let close = end + rest[end..].iter().position(|&b| b == b']')?;
            (Some(&rest[end + 1..close]), close + 1)
        }
        _ => (None, end),
    };
    if name.is_empty() || rest.get(colon) != Some(&b':') {
        return None;
    }
    let blank = usize::from(rest.get(colon + 1) == Some(&b' '));
    Some(OldTag {
        name,
        pid,
        len: colon + 1 + blank,
    })
}

fn rfc3339(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    nanos(OffsetDateTime::parse(text, &Rfc3339).ok()?)
}

fn nanos(time: OffsetDateTime) -> Option<i64> {
    i64::try_from(time.unix_timestamp_nanos()).ok()
}

/// `Oct  1 22:14:15` (the day padded with a blank or a zero), or a timestamp of RFC 5424, with its length.
fn old_timestamp(rest: &[u8], now: OffsetDateTime, offset: UtcOffset) -> Option<(i64, usize)> {
    let word = rest.iter().position(|&b| b == b' ').unwrap_or(rest.len());
    if let Some(timestamp) = rfc3339(&rest[..word]) {
        return Some((timestamp, word));
    }
    let text = std::str::from_utf8(rest.get(..15)?).ok()?;
    let month = match &text[..3] {
        "Jan" => Month::January,
        "Feb" => Month::February,
        "Mar" => Month::March,
        "Apr" => Month::April,
        "May" => Month::May,
        "Jun" => Month::June,
        "Jul" => Month::July,
        "Aug" => Month::August,
        "Sep" => Month::September,
        "Oct" => Month::October,
        "Nov" => Month::November,
        "Dec" => Month::December,
        _ => return None,
    };
    let number = |at: std::ops::Range<usize>| text.get(at)?.trim_start().parse::<u8>().ok();
    let fixed = [3, 6].map(|i| text.as_bytes()[i]) == [b' '; 2]
        && [9, 12].map(|i| text.as_bytes()[i]) == [b':'; 2];
    if !fixed {
        return None;
    }
    let time = Time::from_hms(number(7..9)?, number(10..12)?, number(13..15)?).ok()?;
    let day = number(4..6)?;
    // The year is the one that brings the date closest to now: a message of New Year's Eve arrives in January.
    (now.year() - 1..=now.year() + 1)
        .filter_map(|year| Date::from_calendar_date(year, month, day).ok())
        .map(|date| date.with_time(time).assume_offset(offset))
        .min_by_key(|at| (*at - now).abs())
        .and_then(nanos)
        .map(|timestamp| (timestamp, 15))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2024-01-02 03:04:05 UTC);

    fn read(text: &[u8]) -> Result<Message<'_>, ParseError> {
        parse(text, NOW, UtcOffset::UTC)
    }

    fn at(time: OffsetDateTime) -> Option<i64> {
        nanos(time)
    }

    #[test]
    fn a_full_rfc5424_message() {
        let text = b"<165>1 2003-10-11T22:14:15.003+02:00 host.example evntslog [APP/PROC/WEB/0] ID47 \
            [exampleSDID@32473 iut=\"3\" eventSource=\"App\\\"li\\]c\\\\at\\ion\"][tags@47450 ] \xef\xbb\xbf  An \xff event";
        let message = read(text).unwrap();
        assert_eq!(message.priority, Some(165));
        assert_eq!(
            message.timestamp,
            at(datetime!(2003-10-11 20:14:15.003 UTC))
        );
        assert_eq!(message.hostname.as_deref(), Some("host.example"));
        assert_eq!(message.app_name.as_deref(), Some("evntslog"));
        assert_eq!(message.proc_id.as_deref(), Some("[APP/PROC/WEB/0]"));
        assert_eq!(message.msg_id.as_deref(), Some("ID47"));
        assert_eq!(message.data.len(), 2);
        assert_eq!(message.data[0].params[1].1, "App\"li]c\\at\\ion");
        assert_eq!(message.data[1].params, []);
        assert_eq!(message.payload, b"  An \xff event");
    }

    #[test]
    fn absent_fields_and_an_absent_text() {
        let message = read(b"<-1>1 - - - - - -").unwrap();
        assert_eq!(message, Message::default());
        assert_eq!(
            read(b"<14>1 yesterday - - - - - x").unwrap().timestamp,
            None
        );
        assert_eq!(read(b"<14>1 - - - - - - ").unwrap().payload, b"");
    }

    #[test]
    fn broken_messages_are_refused_with_a_reason() {
        for text in [
            "",
            "<",
            "<>1 - - - - - -",
            "<192>x",
            "<1234>x",
            "14>1",
            "<+1>x",
            "hello",
        ] {
            assert_eq!(read(text.as_bytes()), Err(ParseError::Priority), "{text}");
        }
        for text in [
            "<14>1 ",
            "<14>1 - - - -",
            "<14>1 - - - - -",
            "<14>1 - -  - - - x",
            "<14>1 - - - - - x",
        ] {
            assert_eq!(read(text.as_bytes()), Err(ParseError::Header), "{text}");
        }
        for text in [
            "[",
            "[]",
            "[a",
            "[a b]",
            "[a b=\"c]",
            "[a b=c]",
            "[a]x",
            "[a b=\"\\\"] x",
            "-x",
        ] {
            let text = format!("<14>1 - - - - - {text}");
            assert!(
                matches!(read(text.as_bytes()), Err(ParseError::StructuredData(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn rfc3164_with_all_its_parts() {
        let message = read(b"<34>Oct 11 22:14:15 mymachine su[12]: 'su root' failed").unwrap();
        assert_eq!(
            message.timestamp,
            at(datetime!(2023-10-11 22:14:15 UTC)),
            "last October is closer"
        );
        assert_eq!(message.hostname.as_deref(), Some("mymachine"));
        assert_eq!(message.app_name.as_deref(), Some("su"));
        assert_eq!(message.proc_id.as_deref(), Some("12"));
        assert_eq!(message.payload, b"'su root' failed");
    }

    #[test]
    fn rfc3164_with_parts_missing() {
        let local = read(b"<13>Jan  3 01:02:03 logger: hi").unwrap();
        assert_eq!(
            (local.hostname, local.app_name.as_deref(), local.payload),
            (None, Some("logger"), b"hi".as_ref())
        );
        assert_eq!(local.timestamp, at(datetime!(2024-01-03 01:02:03 UTC)));

        let bare = read(b"<13>just some text: here").unwrap();
        assert_eq!(
            (bare.timestamp, bare.app_name, bare.payload),
            (None, None, b"just some text: here".as_ref())
        );

        let tag = read(b"<13>cron[7]:  two blanks").unwrap();
        assert_eq!(
            (tag.app_name.as_deref(), tag.payload),
            (Some("cron"), b" two blanks".as_ref())
        );

        let host = read(b"<13>Jan 03 01:02:03 router link is down").unwrap();
        assert_eq!(
            (host.hostname.as_deref(), host.app_name, host.payload),
            (Some("router"), None, b"link is down".as_ref())
        );

        let modern = read(b"<13>2024-01-01T00:00:00.5Z host app: x").unwrap();
        assert_eq!(modern.timestamp, at(datetime!(2024-01-01 00:00:00.5 UTC)));
        assert_eq!(
            (modern.hostname.as_deref(), modern.app_name.as_deref()),
            (Some("host"), Some("app"))
        );

        let no_date = read(b"<13>Feb 30 01:02:03 h a: x").unwrap();
        assert_eq!(
            (no_date.timestamp, no_date.payload),
            (None, b"Feb 30 01:02:03 h a: x".as_ref())
        );
    }

    #[test]
    fn the_configured_offset_applies_to_dates_without_zone() {
        let east = UtcOffset::from_hms(2, 0, 0).unwrap();
        let message = parse(b"<13>Jan  2 05:00:00 h a: x", NOW, east).unwrap();
        assert_eq!(message.timestamp, at(datetime!(2024-01-02 03:00:00 UTC)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), five in any::<bool>()) {
            let mut text = if five { b"<14>1 - - - - - [a b=\"".to_vec() } else { b"<14>".to_vec() };
            text.extend(&bytes);
            for text in [text.as_slice(), &bytes] {
                prop_assert!(read(text).is_err() || text.starts_with(b"<"));
            }
        }

        #[test]
        fn values_come_back_unescaped(value in "[a\"\\]\\\\ =é]{0,20}", payload in prop::collection::vec(any::<u8>(), 0..50)) {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace(']', "\\]");
            let mut text = format!("<14>1 - - a - - [x y=\"{escaped}\"] ").into_bytes();
            text.extend(&payload);
            let message = read(&text).unwrap();
            prop_assert_eq!(&message.data[0].params[0].1, &value);
            prop_assert_eq!(message.payload, payload.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&payload));
        }
    }
}
