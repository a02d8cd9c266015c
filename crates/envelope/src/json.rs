//! Envelopes as protobuf JSON, in the form in which the Go programs write them.
//!
//! Names are those of the definition (`source_id`, not `sourceId`); every field is written, empty or not; 64-bit
//! numbers are strings; bytes are base64; map keys are sorted. One line, no blanks. What others have written, in any form
//! that the mapping allows, is read by [`read_batch`] and [`read_envelope`].

mod read;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write as _;

use base64::{Engine, engine::general_purpose::STANDARD};

pub use read::{JsonError, envelope_from, read_batch, read_envelope};

use crate::{EnvelopeRef, Frame, Kind, TagValue, number};

/// Appends `{"batch":[…]}` with all envelopes of the frame.
pub fn write_batch(out: &mut Vec<u8>, frame: &Frame) {
    write_envelopes(
        out,
        frame.entries().iter().map(|entry| frame.envelope(entry)),
    );
}

/// Appends `{"batch":[…]}` with these envelopes.
pub fn write_envelopes<'a>(
    out: &mut Vec<u8>,
    envelopes: impl IntoIterator<Item = EnvelopeRef<'a>>,
) {
    out.extend_from_slice(b"{\"batch\":[");
    for (i, envelope) in envelopes.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_envelope(out, envelope);
    }
    out.extend_from_slice(b"]}");
}

/// Appends one envelope.
pub fn write_envelope(out: &mut Vec<u8>, envelope: EnvelopeRef<'_>) {
    out.extend_from_slice(b"{\"timestamp\":");
    quoted(out, envelope.timestamp());
    out.extend_from_slice(b",\"source_id\":");
    string(out, envelope.source_id());
    out.extend_from_slice(b",\"instance_id\":");
    string(out, envelope.instance_id());
    out.extend_from_slice(b",\"deprecated_tags\":");
    map(out, envelope.deprecated_tags(), tag_value);
    out.extend_from_slice(b",\"tags\":");
    map(out, envelope.tags(), string);
    message(out, envelope);
    out.push(b'}');
}

fn message(out: &mut Vec<u8>, envelope: EnvelopeRef<'_>) {
    // Each question answers `None` unless the envelope holds that kind.
    match envelope.kind() {
        Kind::None => {}
        Kind::Log => {
            let Some(log) = envelope.log() else { return };
            out.extend_from_slice(b",\"log\":{\"payload\":");
            base64(out, log.payload);
            out.extend_from_slice(b",\"type\":");
            match log.type_number {
                0 => out.extend_from_slice(b"\"OUT\""),
                1 => out.extend_from_slice(b"\"ERR\""),
                other => plain(out, other),
            }
            out.push(b'}');
        }
        Kind::Counter => {
            let Some(counter) = envelope.counter() else {
                return;
            };
            out.extend_from_slice(b",\"counter\":{\"name\":");
            string(out, counter.name);
            out.extend_from_slice(b",\"delta\":");
            quoted(out, counter.delta);
            out.extend_from_slice(b",\"total\":");
            quoted(out, counter.total);
            out.push(b'}');
        }
        Kind::Gauge => {
            out.extend_from_slice(b",\"gauge\":{\"metrics\":");
            map(
                out,
                envelope.gauge().map(|m| (m.name, (m.unit, m.value))),
                |out, (unit, value)| {
                    out.extend_from_slice(b"{\"unit\":");
                    string(out, unit);
                    out.extend_from_slice(b",\"value\":");
                    double(out, value);
                    out.push(b'}');
                },
            );
            out.push(b'}');
        }
        Kind::Timer => {
            let Some(timer) = envelope.timer() else {
                return;
            };
            out.extend_from_slice(b",\"timer\":{\"name\":");
            string(out, timer.name);
            out.extend_from_slice(b",\"start\":");
            quoted(out, timer.start);
            out.extend_from_slice(b",\"stop\":");
            quoted(out, timer.stop);
            out.push(b'}');
        }
        Kind::Event => {
            let Some(event) = envelope.event() else {
                return;
            };
            out.extend_from_slice(b",\"event\":{\"title\":");
            string(out, event.title);
            out.extend_from_slice(b",\"body\":");
            string(out, event.body);
            out.push(b'}');
        }
    }
}

/// A map, sorted by key; of a key that occurs twice the last value counts.
fn map<'a, V>(
    out: &mut Vec<u8>,
    entries: impl Iterator<Item = (&'a str, V)>,
    value: impl Fn(&mut Vec<u8>, V),
) {
    out.push(b'{');
    for (i, (key, entry)) in entries.collect::<BTreeMap<_, _>>().into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        string(out, key);
        out.push(b':');
        value(out, entry);
    }
    out.push(b'}');
}

fn tag_value(out: &mut Vec<u8>, value: TagValue<'_>) {
    match value {
        TagValue::Unset => out.extend_from_slice(b"{"),
        TagValue::Text(text) => {
            out.extend_from_slice(b"{\"text\":");
            string(out, text);
        }
        TagValue::Integer(number) => {
            out.extend_from_slice(b"{\"integer\":");
            quoted(out, number);
        }
        TagValue::Decimal(number) => {
            out.extend_from_slice(b"{\"decimal\":");
            double(out, number);
        }
    }
    out.push(b'}');
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut copied = 0;
    for (at, byte) in text.bytes().enumerate() {
        let short = match byte {
            b'"' | b'\\' => byte,
            0x08 => b'b',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..0x20 => 0,
            _ => continue,
        };
        out.extend_from_slice(&text.as_bytes()[copied..at]);
        copied = at + 1;
        if short == 0 {
            write!(out, "\\u{byte:04x}").ok();
        } else {
            out.extend_from_slice(&[b'\\', short]);
        }
    }
    out.extend_from_slice(&text.as_bytes()[copied..]);
    out.push(b'"');
}

fn plain(out: &mut Vec<u8>, number: impl Display) {
    // Writing to a vector does not fail.
    write!(out, "{number}").ok();
}

fn quoted(out: &mut Vec<u8>, number: impl Display) {
    out.push(b'"');
    plain(out, number);
    out.push(b'"');
}

fn double(out: &mut Vec<u8>, number: f64) {
    match number::json(number) {
        Some(text) => out.extend_from_slice(text.as_bytes()),
        None if number.is_nan() => out.extend_from_slice(b"\"NaN\""),
        None if number > 0.0 => out.extend_from_slice(b"\"Infinity\""),
        None => out.extend_from_slice(b"\"-Infinity\""),
    }
}

fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let from = out.len();
    out.resize(from + bytes.len().div_ceil(3) * 4, b'=');
    let written = STANDARD
        .encode_slice(bytes, &mut out[from..])
        .unwrap_or_default();
    out.truncate(from + written);
    out.push(b'"');
}
