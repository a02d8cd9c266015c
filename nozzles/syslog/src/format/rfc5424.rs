//! RFC 5424 as the platform's agents write it.
//!
//! `<PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID - DATA MESSAGE`
//!
//! | field | is |
//! |---|---|
//! | PRI | 14, of a log on standard error 11, of a log of no known stream -1 |
//! | HOSTNAME | `org.space.app` if one of the three is known, else a fixed text |
//! | APP-NAME | source id |
//! | PROCID | `[SOURCE-TYPE/INSTANCE]` of logs, `[INSTANCE]` of the others |
//! | DATA | of counters, gauges, timers, events an element of their own; then all tags, sorted |
//! | MESSAGE | the text of a log and a line break; of the others the line break |

use loggregator_envelope::{Kind, LogRef, MetricRef};
use smallvec::SmallVec;

use super::policy::{InvalidName, Oversize, one_line};
use super::text::{cut, host_label, integer, number, source_type};
use super::{Policy, Refusal, Scratch, Subject};
use crate::page::Page;

/// Longest HOSTNAME, APP-NAME, PROCID (RFC 5424 §6).
const HOSTNAME: usize = 255;
const APP_NAME: usize = 48;
const PROCID: usize = 128;

/// A log is split into at most so many messages.
const PARTS: usize = 999;

/// What the element that numbers parts takes at most.
const PART_ROOM: usize = b"[part@47450 n=\"999\" of=\"999\"]".len();

/// Writes the event's messages.
pub(super) fn write(
    policy: &Policy,
    scratch: &mut Scratch,
    subject: &Subject<'_>,
    page: &mut Page,
) -> Result<(), Refusal> {
    let envelope = subject.event.envelope();
    if subject.outline.kind == Kind::None {
        return Ok(());
    }
    let log = subject.outline.log();
    head(policy, scratch, subject, log.as_ref())?;
    scratch.data.clear();
    if !policy.omit_metadata {
        tags(policy, &mut scratch.data, subject)?;
    }
    if let Some(log) = log {
        return log_message(policy, scratch, log, page);
    }
    let mut element = |name: &str, write: &dyn Fn(&mut Vec<u8>)| {
        Policy::begin(page)?;
        let out = &mut page.bytes;
        out.extend_from_slice(&scratch.head);
        out.push(b'[');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"@47450");
        write(out);
        out.push(b']');
        out.extend_from_slice(&scratch.data);
        out.extend_from_slice(b" \n");
        let len = page.written();
        if len > policy.max_message {
            return Err(policy.oversize(len));
        }
        page.end();
        Ok(())
    };
    let text = |out: &mut Vec<u8>, name: &str, value: &str| {
        param(policy, out, name.as_bytes(), value.as_bytes());
    };
    if let Some(counter) = envelope.counter() {
        element("counter", &|out| {
            text(out, "name", counter.name);
            raw_param(out, b"total", |out| integer(out, counter.total));
            raw_param(out, b"delta", |out| integer(out, counter.delta));
        })?;
    } else if let Some(timer) = envelope.timer() {
        element("timer", &|out| {
            text(out, "name", timer.name);
            raw_param(out, b"start", |out| integer(out, timer.start));
            raw_param(out, b"stop", |out| integer(out, timer.stop));
        })?;
    } else if let Some(event) = envelope.event() {
        element("event", &|out| {
            text(out, "title", event.title);
            text(out, "body", event.body);
        })?;
    } else {
        for metric in metrics(envelope.gauge()) {
            element("gauge", &|out| {
                text(out, "name", metric.name);
                raw_param(out, b"value", |out| number(out, metric.value));
                text(out, "unit", metric.unit);
            })?;
        }
    }
    Ok(())
}

/// The values of a gauge, sorted by name; of a name that occurs twice the last one counts.
pub(super) fn metrics<'a>(
    gauge: impl Iterator<Item = MetricRef<'a>>,
) -> SmallVec<[MetricRef<'a>; 8]> {
    let mut all: SmallVec<[MetricRef<'a>; 8]> = gauge.collect();
    all.sort_by(|one, other| one.name.cmp(other.name));
    let mut kept: SmallVec<[MetricRef<'a>; 8]> = SmallVec::new();
    for metric in all {
        match kept.last_mut() {
            Some(last) if last.name == metric.name => *last = metric,
            _ => kept.push(metric),
        }
    }
    kept
}

/// Everything up to the structured data.
fn head(
    policy: &Policy,
    scratch: &mut Scratch,
    subject: &Subject<'_>,
    log: Option<&LogRef<'_>>,
) -> Result<(), Refusal> {
    let outline = &subject.outline;
    let out = &mut scratch.head;
    out.clear();
    let priority: &[u8] = match log.map_or(0, |log| log.type_number) {
        0 => b"<14>1 ",
        1 => b"<11>1 ",
        _ => b"<-1>1 ",
    };
    out.extend_from_slice(priority);
    scratch.clock.rfc3339(out, outline.timestamp);
    out.push(b' ');

    let from = out.len();
    hostname(policy, out, subject);
    field(
        policy,
        out,
        from,
        HOSTNAME,
        "invalid_hostname",
        "the host name",
    )?;

    let from = out.len();
    out.extend_from_slice(outline.source_id.as_bytes());
    field(
        policy,
        out,
        from,
        APP_NAME,
        "invalid_source_id",
        "the source id",
    )?;

    let from = out.len();
    let instance = outline.instance_id;
    out.push(b'[');
    let mut room = instance.len();
    if log.is_some() {
        source_type(out, subject.tags.text("source_type"), usize::MAX);
        if !instance.is_empty() {
            out.push(b'/');
            // The instance gives way, and the bracket stays.
            room = (from + PROCID).saturating_sub(out.len() + 1);
        }
    }
    out.extend_from_slice(&instance.as_bytes()[..room.min(instance.len())]);
    out.push(b']');
    field(
        policy,
        out,
        from,
        PROCID,
        "invalid_instance_id",
        "the instance id",
    )?;
    out.extend_from_slice(b"- ");
    Ok(())
}

/// `org.space.app` if one of the three is known.
pub(super) fn hostname(policy: &Policy, out: &mut Vec<u8>, subject: &Subject<'_>) {
    let names = ["organization_name", "space_name", "app_name"].map(|name| subject.tags.get(name));
    if names == [None; 3] {
        return out.extend_from_slice(policy.hostname.as_bytes());
    }
    for (at, name) in names.into_iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        host_label(out, name.unwrap_or_default());
    }
}

/// Ends a field of the header that begins at `from`: cuts it, checks it, `-` if there is nothing.
fn field(
    policy: &Policy,
    out: &mut Vec<u8>,
    from: usize,
    max: usize,
    code: &'static str,
    what: &str,
) -> Result<(), Refusal> {
    out.truncate(out.len().min(from + max));
    // To the end also when a byte was wrong: several bytes at a time.
    let graphic = |all, byte: &u8| all & byte.is_ascii_graphic();
    if !out[from..].iter().fold(true, graphic) {
        match policy.invalid_name {
            InvalidName::DeadLetter => {
                let value = String::from_utf8_lossy(&out[from..]).into_owned();
                return Err(Policy::invalid(code, what, &value));
            }
            InvalidName::Replace => replace(&mut out[from..], |byte| byte.is_ascii_graphic()),
            InvalidName::Omit => out.truncate(from),
        }
    }
    if out.len() == from {
        out.push(b'-');
    }
    out.push(b' ');
    Ok(())
}

fn replace(bytes: &mut [u8], valid: impl Fn(u8) -> bool) {
    for byte in bytes {
        if !valid(*byte) {
            *byte = b'_';
        }
    }
}

/// May stand in the name of a parameter (RFC 5424 §6.3.3).
fn is_name(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'=' | b']' | b'"')
}

/// The element with all tags, if there are any.
fn tags(policy: &Policy, out: &mut Vec<u8>, subject: &Subject<'_>) -> Result<(), Refusal> {
    let from = out.len();
    for (name, value) in subject.tags.iter() {
        let valid = !name.is_empty()
            && name.len() <= policy.max_tag_name
            && name.iter().copied().all(is_name);
        if !valid && policy.invalid_name != InvalidName::Replace {
            if policy.invalid_name == InvalidName::Omit {
                continue;
            }
            let name = String::from_utf8_lossy(name);
            return Err(Policy::invalid("invalid_tag", "the tag", &name));
        }
        if out.len() == from {
            out.extend_from_slice(b"[tags@47450");
        }
        let at = out.len() + 1;
        param(policy, out, cut_name(policy, name), value);
        if !valid {
            let len = cut_name(policy, name).len();
            replace(&mut out[at..at + len], is_name);
        }
    }
    if out.len() > from {
        out.push(b']');
    }
    Ok(())
}

/// A name that is to be made fit is cut too; an empty one has a name all the same.
fn cut_name<'a>(policy: &Policy, name: &'a [u8]) -> &'a [u8] {
    match cut(name, policy.max_tag_name) {
        [] => b"_",
        name => name,
    }
}

/// ` NAME="VALUE"`, with a backslash before `"`, `\` and `]` (RFC 5424 §6.3.3).
fn param(policy: &Policy, out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    raw_param(out, name, |out| {
        let mut rest = value;
        while let Some(at) = memchr::memchr3(b'"', b'\\', b']', rest) {
            plain(policy, out, &rest[..at]);
            out.extend_from_slice(&[b'\\', rest[at]]);
            rest = &rest[at + 1..];
        }
        plain(policy, out, rest);
    });
}

fn plain(policy: &Policy, out: &mut Vec<u8>, text: &[u8]) {
    match policy.line_breaks {
        None => out.extend_from_slice(text),
        Some(how) => one_line(out, text, how),
    }
}

fn raw_param(out: &mut Vec<u8>, name: &[u8], value: impl FnOnce(&mut Vec<u8>)) {
    out.push(b' ');
    out.extend_from_slice(name);
    out.extend_from_slice(b"=\"");
    value(out);
    out.push(b'"');
}

fn log_message(
    policy: &Policy,
    scratch: &Scratch,
    log: LogRef<'_>,
    page: &mut Page,
) -> Result<(), Refusal> {
    let text = policy.text(log.payload)?;
    let data: &[u8] = if scratch.data.is_empty() {
        b"-"
    } else {
        &scratch.data
    };
    // The space before the text and the line break behind it.
    let around = scratch.head.len() + data.len() + 2;
    let mut message = |data: &[&[u8]], text: &[u8]| {
        Policy::begin(page)?;
        let out = &mut page.bytes;
        out.extend_from_slice(&scratch.head);
        for element in data {
            out.extend_from_slice(element);
        }
        out.push(b' ');
        out.extend_from_slice(text);
        out.push(b'\n');
        page.end();
        Ok(())
    };
    if around + text.len() <= policy.max_message {
        return message(&[data], &text);
    }
    let too_long = policy.oversize(around + text.len());
    let Some(room) = policy.max_message.checked_sub(around) else {
        return Err(too_long);
    };
    match policy.oversize {
        Oversize::DeadLetter => Err(too_long),
        Oversize::Truncate => message(&[data], cut(&text, room)),
        Oversize::Split => {
            let parts = split(&text, room.saturating_sub(PART_ROOM)).ok_or(too_long)?;
            let mut number = Vec::new();
            for (at, part) in parts.iter().enumerate() {
                number.clear();
                number.extend_from_slice(b"[part@47450");
                raw_param(&mut number, b"n", |out| integer(out, at + 1));
                raw_param(&mut number, b"of", |out| integer(out, parts.len()));
                number.push(b']');
                message(&[&number, &scratch.data], part)?;
            }
            Ok(())
        }
    }
}

/// Pieces of at most `room` bytes, none of which ends within a character; nothing if there would be too many.
fn split(mut text: &[u8], room: usize) -> Option<Vec<&[u8]>> {
    let mut parts = Vec::new();
    while !text.is_empty() {
        let part = cut(text, room);
        if part.is_empty() || parts.len() == PARTS {
            return None;
        }
        parts.push(part);
        text = &text[part.len()..];
    }
    Some(parts)
}
