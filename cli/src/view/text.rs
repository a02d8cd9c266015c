//! One envelope as lines of text: logs as `cf logs` shows them, metrics in one readable line each.
//!
//! ```text
//!    2026-11-22T01:30:00.12+0000 [APP/PROC/WEB/0] OUT GET /products 200
//!    2026-11-22T01:30:00.13+0000 [APP/PROC/WEB/0] TIMER http 23.1ms GET https://shop.example.com/products 200
//!    2026-11-22T01:30:01.00+0000 [APP/PROC/WEB/0] GAUGE cpu:12.5%, memory:301.2 MiB
//! ```
//!
//! With more than one source the source id stands before the bracket.

use super::clock::Stamp;
use super::paint::{Paint, Palette};
use super::units::{write_nanos, write_value};
use loggregator_envelope::{EnvelopeRef, LogRef};
use std::io::Write as _;

/// Writes envelopes as text.
#[derive(Debug)]
pub struct Text {
    stamp: Stamp,
    palette: Palette,
    /// Whether the source id is part of a line.
    show_source: bool,
    /// Whether a person looks at it: then what would steer the terminal is made visible.
    to_terminal: bool,
    /// The part of a line before its text; the same for all lines of one payload.
    header: Vec<u8>,
}

impl Text {
    /// A writer for a terminal or for a pipe.
    pub fn new(stamp: Stamp, palette: Palette, show_source: bool, to_terminal: bool) -> Self {
        Self { stamp, palette, show_source, to_terminal, header: Vec::new() }
    }

    /// Appends the envelope's lines, each with a line feed. Nothing for an envelope without a message.
    pub fn write(&mut self, out: &mut Vec<u8>, envelope: &EnvelopeRef<'_>) {
        self.write_header(envelope);
        if let Some(log) = envelope.log() {
            self.write_log(out, log);
        } else if let Some(counter) = envelope.counter() {
            self.begin(out, "COUNTER");
            put(out, counter.name);
            if counter.total > 0 {
                put_fmt(out, format_args!(":{}", counter.total));
            }
            put_fmt(out, format_args!(" (+{})", counter.delta));
            out.push(b'\n');
        } else if let Some(timer) = envelope.timer() {
            self.begin(out, "TIMER");
            put(out, timer.name);
            out.push(b' ');
            write_nanos(out, timer.stop.saturating_sub(timer.start) as f64);
            for tag in ["method", "uri", "status_code"] {
                if let Some(value) = envelope.tag(tag).filter(|value| !value.is_empty()) {
                    out.push(b' ');
                    self.put_text(out, value.as_bytes());
                }
            }
            out.push(b'\n');
        } else if let Some(event) = envelope.event() {
            self.begin(out, "EVENT");
            self.put_text(out, event.title.as_bytes());
            if !event.body.is_empty() {
                out.extend_from_slice(b": ");
                self.put_text(out, event.body.as_bytes());
            }
            out.push(b'\n');
        } else {
            self.write_gauge(out, envelope);
        }
    }

    fn write_gauge(&mut self, out: &mut Vec<u8>, envelope: &EnvelopeRef<'_>) {
        let mut first = true;
        for (name, unit, value) in envelope.gauge() {
            if first {
                self.begin(out, "GAUGE");
            } else {
                out.extend_from_slice(b", ");
            }
            first = false;
            self.put_text(out, name.as_bytes());
            out.push(b':');
            write_value(out, value, unit);
        }
        if !first {
            out.push(b'\n');
        }
    }

    fn write_log(&mut self, out: &mut Vec<u8>, log: LogRef<'_>) {
        // A final line feed ends the line, it does not begin another.
        let payload = log.payload.strip_suffix(b"\n").unwrap_or(log.payload);
        for line in payload.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            out.extend_from_slice(&self.header);
            if log.err {
                self.palette.on(out, Paint::Error);
                out.extend_from_slice(b"ERR ");
            } else {
                out.extend_from_slice(b"OUT ");
            }
            let styled = self.put_text(out, line);
            if log.err || styled {
                self.palette.off(out);
            }
            out.push(b'\n');
        }
    }

    fn begin(&self, out: &mut Vec<u8>, kind: &str) {
        out.extend_from_slice(&self.header);
        self.palette.paint(out, Paint::Kind, kind.as_bytes());
        out.push(b' ');
    }

    /// Three blanks, the time, the source id if wanted, source type and instance in brackets, a blank.
    fn write_header(&mut self, envelope: &EnvelopeRef<'_>) {
        let mut header = std::mem::take(&mut self.header);
        header.clear();
        header.extend_from_slice(b"   ");
        self.palette.on(&mut header, Paint::Time);
        self.stamp.write(&mut header, envelope.timestamp());
        self.palette.off(&mut header);
        header.push(b' ');
        if self.show_source {
            let source = envelope.source_id();
            let source = if source.is_empty() { "-" } else { source };
            self.palette.source_on(&mut header, source);
            self.put_text(&mut header, source.as_bytes());
            self.palette.off(&mut header);
            header.push(b' ');
        }
        header.push(b'[');
        let source_type = envelope.tag("source_type").unwrap_or_default();
        let instance = envelope.instance_id();
        self.put_text(&mut header, source_type.as_bytes());
        if !instance.is_empty() {
            header.push(b'/');
            self.put_text(&mut header, instance.as_bytes());
        } else if source_type.is_empty() {
            header.push(b'-');
        }
        header.extend_from_slice(b"] ");
        self.header = header;
    }

    /// Appends text from outside. To a pipe byte by byte as it is; to a terminal without what would move its cursor
    /// or rename its window: colours stay, other control characters are shown as pictures. Says whether the text
    /// set a colour, which then has to be taken back.
    fn put_text(&self, out: &mut Vec<u8>, text: &[u8]) -> bool {
        let harmless = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        if !self.to_terminal || text.iter().all(|byte| harmless(*byte) && byte.is_ascii()) {
            out.extend_from_slice(text);
            return false;
        }
        let text = String::from_utf8_lossy(text);
        let mut styled = false;
        let mut rest = text.as_ref();
        while let Some(next) = rest.chars().next() {
            if let Some(length) = colour_sequence(rest) {
                if self.palette.is_on() {
                    styled = true;
                    put(out, &rest[..length]);
                }
                rest = &rest[length..];
                continue;
            }
            match next {
                '\t' => out.push(b'\t'),
                '\u{7f}' => put(out, "\u{2421}"),
                // The control pictures follow the control characters' own order.
                c if u32::from(c) < 0x20 => put_char(out, char::from_u32(0x2400 + u32::from(c)).unwrap_or('?')),
                // The eight-bit forms of the same controls.
                c if ('\u{80}'..='\u{9f}').contains(&c) => put_char(out, '\u{fffd}'),
                c => put_char(out, c),
            }
            rest = &rest[next.len_utf8()..];
        }
        styled
    }
}

/// The length of an "select graphic rendition" sequence at the start of the text: `ESC [ digits ; … m`.
fn colour_sequence(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';' && c != ':')?;
    parameters[end..].starts_with('m').then_some(2 + end + 1)
}

fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn put_char(out: &mut Vec<u8>, character: char) {
    put(out, character.encode_utf8(&mut [0; 4]));
}

fn put_fmt(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let done = out.write_fmt(text);
    debug_assert!(done.is_ok(), "writing to a vector cannot fail");
}
