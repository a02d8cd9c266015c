//! RFC 3164, for receivers that know nothing newer.
//!
//! `<PRI>Mmm dd hh:mm:ss HOSTNAME TAG[PROCESS]: MESSAGE`
//!
//! PRI and HOSTNAME are those of the RFC 5424 form. TAG is the name of the app, else the source id; PROCESS is
//! `SOURCE-TYPE/INSTANCE`. There is no structured data: the message of a metric is its kind and what it holds, as in
//! `gauge name="cpu" value="0.5" unit="percentage"`, and tags are left out.

use loggregator_envelope::Kind;

use super::policy::{Oversize, one_line};
use super::rfc5424::{hostname, metrics};
use super::text::{self, cut, integer, number, source_type};
use super::{Policy, Refusal, Scratch, Subject};
use crate::page::Page;

/// Longest TAG (RFC 3164 §4.1.3).
const TAG: usize = 32;

/// Writes the event's messages.
pub(super) fn write(
    policy: &Policy,
    scratch: &mut Scratch,
    subject: &Subject<'_>,
    page: &mut Page,
) -> Result<(), Refusal> {
    let envelope = subject.event.envelope();
    head(policy, &mut scratch.head, subject);
    let (head, data) = (&scratch.head, &mut scratch.data);
    data.clear();
    if let Some(log) = subject.outline.log() {
        let text = policy.text(log.payload)?;
        return message(policy, head, &text, page);
    }
    let param = |out: &mut Vec<u8>, name: &str, value: &str| {
        out.extend_from_slice(format!(" {name}={value:?}").as_bytes());
    };
    if let Some(counter) = envelope.counter() {
        data.extend_from_slice(b"counter");
        param(data, "name", counter.name);
        data.extend_from_slice(b" total=");
        integer(data, counter.total);
        data.extend_from_slice(b" delta=");
        integer(data, counter.delta);
    } else if let Some(timer) = envelope.timer() {
        data.extend_from_slice(b"timer");
        param(data, "name", timer.name);
        data.extend_from_slice(b" start=");
        integer(data, timer.start);
        data.extend_from_slice(b" stop=");
        integer(data, timer.stop);
    } else if let Some(event) = envelope.event() {
        data.extend_from_slice(b"event");
        param(data, "title", event.title);
        param(data, "body", event.body);
    } else {
        for metric in metrics(envelope.gauge()) {
            data.clear();
            data.extend_from_slice(b"gauge");
            param(data, "name", metric.name);
            data.extend_from_slice(b" value=");
            number(data, metric.value);
            param(data, "unit", metric.unit);
            message(policy, head, data, page)?;
        }
        return Ok(());
    }
    message(policy, head, data, page)
}

fn head(policy: &Policy, out: &mut Vec<u8>, subject: &Subject<'_>) {
    let outline = &subject.outline;
    let log = outline.kind == Kind::Log;
    out.clear();
    let err = outline.log().is_some_and(|log| log.err);
    out.extend_from_slice(if err { b"<11>" } else { b"<14>" });
    text::rfc3164(out, outline.timestamp);
    out.push(b' ');
    let from = out.len();
    hostname(policy, out, subject);
    if out.len() == from {
        out.push(b'-');
    }
    fit(&mut out[from..], |byte| byte.is_ascii_graphic());
    out.push(b' ');

    let from = out.len();
    let app = subject.tags.text("app_name");
    let name = if app.is_empty() {
        outline.source_id.as_bytes()
    } else {
        app
    };
    out.extend_from_slice(cut(name, TAG));
    if name.is_empty() {
        out.push(b'-');
    }
    fit(&mut out[from..], |byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
    });

    let (kind, instance) = (subject.tags.text("source_type"), outline.instance_id);
    let from = out.len();
    out.push(b'[');
    if log {
        source_type(out, kind, TAG);
    }
    if out.len() > from + 1 && !instance.is_empty() {
        out.push(b'/');
    }
    out.extend_from_slice(cut(instance.as_bytes(), 64));
    if out.len() == from + 1 {
        out.truncate(from);
    } else {
        fit(&mut out[from + 1..], |byte| {
            byte.is_ascii_graphic() && !matches!(byte, b'[' | b']' | b':')
        });
        out.push(b']');
    }
    out.extend_from_slice(b": ");
}

fn fit(bytes: &mut [u8], valid: impl Fn(u8) -> bool) {
    for byte in bytes {
        if !valid(*byte) {
            *byte = b'_';
        }
    }
}

fn message(policy: &Policy, head: &[u8], text: &[u8], page: &mut Page) -> Result<(), Refusal> {
    let end: &[u8] = if policy.line_breaks.is_some() {
        b"\n"
    } else {
        b""
    };
    let around = head.len() + end.len();
    let mut put = |text: &[u8]| {
        Policy::begin(page)?;
        page.bytes.extend_from_slice(head);
        match policy.line_breaks {
            Some(how) => one_line(&mut page.bytes, text, how),
            None => page.bytes.extend_from_slice(text),
        }
        page.bytes.extend_from_slice(end);
        page.end();
        Ok(())
    };
    if around + text.len() <= policy.max_message {
        return put(text);
    }
    let too_long = policy.oversize(around + text.len());
    let room = policy.max_message.saturating_sub(around);
    match policy.oversize {
        _ if room == 0 => Err(too_long),
        Oversize::DeadLetter => Err(too_long),
        Oversize::Truncate => put(cut(text, room)),
        Oversize::Split => {
            let mut rest = text;
            while !rest.is_empty() {
                let part = cut(rest, room);
                if part.is_empty() {
                    return Err(too_long);
                }
                put(part)?;
                rest = &rest[part.len()..];
            }
            Ok(())
        }
    }
}
