//! `key=value` pairs.

use std::io::Write as _;

use super::write_time;
use crate::event::Event;
use crate::fields::Field;

pub(super) fn write(out: &mut Vec<u8>, event: &Event) {
    let envelope = event.envelope();
    out.extend_from_slice(b"time=");
    write_time(out, envelope.timestamp());
    pair(out, "kind", envelope.kind().name());
    pair(out, "source_id", envelope.source_id());
    pair(out, "instance_id", envelope.instance_id());
    for field in [Field::App, Field::Space, Field::Org, Field::SourceType] {
        if let Some(value) = event.field(&field) {
            pair(out, &field.to_string(), &value);
        }
    }
    if let Some(log) = envelope.log() {
        pair(out, "stream", if log.err { "err" } else { "out" });
        pair(out, "text", &String::from_utf8_lossy(log.payload));
    } else if let Some(counter) = envelope.counter() {
        pair(out, "name", counter.name);
        write!(out, " delta={} total={}", counter.delta, counter.total).ok();
    } else if let Some(timer) = envelope.timer() {
        pair(out, "name", timer.name);
        let millis = timer.stop.wrapping_sub(timer.start) as f64 / 1e6;
        write!(out, " duration_ms={millis}").ok();
    } else if let Some(event) = envelope.event() {
        pair(out, "title", event.title);
        pair(out, "body", event.body);
    }
    for metric in envelope.gauge() {
        out.push(b' ');
        key(out, metric.name);
        write!(out, "={}", metric.value).ok();
        if !metric.unit.is_empty() {
            out.push(b' ');
            key(out, metric.name);
            out.extend_from_slice(b"_unit=");
            value(out, metric.unit);
        }
    }
}

fn pair(out: &mut Vec<u8>, name: &str, text: &str) {
    out.push(b' ');
    key(out, name);
    out.push(b'=');
    value(out, text);
}

/// A key cannot be quoted: what would end it becomes an underscore.
fn key(out: &mut Vec<u8>, name: &str) {
    let mut utf8 = [0; 4];
    for c in name.chars() {
        let ends = c.is_whitespace() || c.is_control() || c == '=' || c == '"';
        let kept = if ends { '_' } else { c };
        out.extend_from_slice(kept.encode_utf8(&mut utf8).as_bytes());
    }
}

/// A value is quoted where it has to be, with the escapes of JSON.
fn value(out: &mut Vec<u8>, text: &str) {
    let plain = |c: char| !(c.is_whitespace() || c.is_control() || c == '=' || c == '"');
    if !text.is_empty() && text.chars().all(plain) {
        out.extend_from_slice(text.as_bytes());
    } else {
        // Writing a text to a vector does not fail.
        serde_json::to_writer(out, text).ok();
    }
}
