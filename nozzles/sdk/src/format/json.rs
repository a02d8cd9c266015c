//! An object per event.

use std::collections::BTreeMap;
use std::io::Write as _;

use loggregator_envelope::Kind;

use super::write_time;
use crate::event::Event;
use crate::fields::Field;
use crate::tags::Tags;

/// Names of apps, spaces and organisations, and the tags that have them.
const NAMES: [(Field, &str, &str); 3] = [
    (Field::App, "app", "app_name"),
    (Field::Space, "space", "space_name"),
    (Field::Org, "org", "organization_name"),
];

pub(super) fn write(out: &mut Vec<u8>, event: &Event) {
    let (tags, outline) = Tags::told(event);
    out.extend_from_slice(b"{\"time\":\"");
    write_time(out, outline.timestamp);
    out.extend_from_slice(b"\",\"kind\":");
    string(out, outline.kind.name());
    member(out, "source_id", outline.source_id);
    member(out, "instance_id", outline.instance_id);
    for (field, name, tag) in NAMES {
        if outline.deprecated_tags {
            if let Some(value) = event.field(&field) {
                member(out, name, &value);
            }
        } else if let Some(value) = event.known_name(&field) {
            member(out, name, value);
        } else if let Some(value) = tags.get(tag).filter(|value| !value.is_empty()) {
            member(out, name, &String::from_utf8_lossy(value));
        }
    }
    match outline.log() {
        Some(log) => {
            member(out, "stream", if log.err { "err" } else { "out" });
            member(out, "text", &String::from_utf8_lossy(log.payload));
        }
        None => content(out, event),
    }
    if outline.deprecated_tags {
        return all_tags(out, event);
    }
    out.extend_from_slice(b",\"tags\":{");
    for (i, (name, value)) in tags.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        string(out, &String::from_utf8_lossy(name));
        out.push(b':');
        string(out, &String::from_utf8_lossy(value));
    }
    out.extend_from_slice(b"}}");
}

/// What it holds, unless that is a log.
fn content(out: &mut Vec<u8>, event: &Event) {
    let envelope = event.envelope();
    if let Some(counter) = envelope.counter() {
        member(out, "name", counter.name);
        number(out, "delta", counter.delta);
        number(out, "total", counter.total);
    } else if envelope.kind() == Kind::Gauge {
        out.extend_from_slice(b",\"metrics\":{");
        let metrics: BTreeMap<_, _> = envelope
            .gauge()
            .map(|metric| (metric.name, metric))
            .collect();
        for (i, metric) in metrics.into_values().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            string(out, metric.name);
            out.extend_from_slice(b":{\"value\":");
            float(out, metric.value);
            member(out, "unit", metric.unit);
            out.push(b'}');
        }
        out.push(b'}');
    } else if let Some(timer) = envelope.timer() {
        member(out, "name", timer.name);
        for (name, nanos) in [("start", timer.start), ("stop", timer.stop)] {
            key(out, name);
            out.push(b'"');
            write_time(out, nanos);
            out.push(b'"');
        }
        key(out, "duration_ms");
        float(out, timer.stop.wrapping_sub(timer.start) as f64 / 1e6);
    } else if let Some(event) = envelope.event() {
        member(out, "title", event.title);
        member(out, "body", event.body);
    }
}

/// Tags of both kinds, and the end.
fn all_tags(out: &mut Vec<u8>, event: &Event) {
    let envelope = event.envelope();
    let mut tags: BTreeMap<_, _> = envelope
        .deprecated_tags()
        .map(|(name, value)| (name, value.to_plain_text()))
        .collect();
    tags.extend(envelope.tags().map(|(name, value)| (name, value.into())));
    out.extend_from_slice(b",\"tags\":{");
    for (i, (name, value)) in tags.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        string(out, name);
        out.push(b':');
        string(out, value);
    }
    out.extend_from_slice(b"}}");
}

fn key(out: &mut Vec<u8>, name: &str) {
    out.push(b',');
    string(out, name);
    out.push(b':');
}

fn member(out: &mut Vec<u8>, name: &str, value: &str) {
    key(out, name);
    string(out, value);
}

fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    key(out, name);
    write!(out, "{value}").ok();
}

/// What JSON has no number for is a text: `"NaN"`, `"Infinity"`, `"-Infinity"`.
fn float(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        serde_json::to_writer(out, &value).ok();
    } else {
        let text = match (value.is_nan(), value > 0.0) {
            (true, _) => "NaN",
            (_, true) => "Infinity",
            _ => "-Infinity",
        };
        string(out, text);
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    // No early end, so that it is done many bytes at a time.
    let plain = |byte: u8| (byte >= b' ') & (byte != b'"') & (byte != b'\\');
    if text.bytes().fold(true, |all, byte| all & plain(byte)) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // Writing a text to a vector does not fail.
        serde_json::to_writer(out, text).ok();
    }
}
