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
        Self {
            stamp,
            palette,
            show_source,
            to_terminal,
            header: Vec::new(),
        }
    }

    /// Appends the envelope's lines, each with a line feed. Nothing for an envelope without a message.
    pub fn write(&mut self, out: &mut Vec<u8>, envelope: &EnvelopeRef<'_>) {
        self.write_header(envelope);
        if let Some(log) = envelope.log() {
            self.write_log(out, log);
        } else if let Some(counter) = envelope.counter() {
            self.begin(out, "COUNTER");
            self.put_text(out, counter.name.as_bytes());
            if counter.total > 0 {
                put_fmt(out, format_args!(":{}", counter.total));
            }
            put_fmt(out, format_args!(" (+{})", counter.delta));
            self.write_tags(out, envelope);
            out.push(b'\n');
        } else if let Some(timer) = envelope.timer() {
            self.begin(out, "TIMER");
            self.put_text(out, timer.name.as_bytes());
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
        for metric in envelope.gauge() {
            if first {
                self.begin(out, "GAUGE");
            } else {
                out.extend_from_slice(b", ");
            }
            first = false;
            self.put_text(out, metric.name.as_bytes());
            out.push(b':');
            write_value(out, metric.value, metric.unit);
        }
        if !first {
            self.write_tags(out, envelope);
            out.push(b'\n');
        }
    }

    /// What tells a metric from others of its name. Tags that say where it comes from are left out.
    fn write_tags(&self, out: &mut Vec<u8>, envelope: &EnvelopeRef<'_>) {
        let mut tags: Vec<_> = envelope
            .tags()
            .filter(|(name, _)| !is_provenance(name))
            .collect();
        if tags.is_empty() {
            return;
        }
        tags.sort_unstable();
        self.palette.on(out, Paint::Time);
        for (name, value) in tags {
            out.push(b' ');
            self.put_text(out, name.as_bytes());
            out.push(b'=');
            self.put_text(out, value.as_bytes());
        }
        self.palette.off(out);
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
                c if u32::from(c) < 0x20 => {
                    put_char(out, char::from_u32(0x2400 + u32::from(c)).unwrap_or('?'))
                }
                // The eight-bit forms of the same controls.
                c if ('\u{80}'..='\u{9f}').contains(&c) => put_char(out, '\u{fffd}'),
                c => put_char(out, c),
            }
            rest = &rest[next.len_utf8()..];
        }
        styled
    }
}

/// Whether a tag only says who emitted: the platform puts these on everything.
fn is_provenance(tag: &str) -> bool {
    const NAMES: [&str; 11] = [
        "origin",
        "deployment",
        "job",
        "index",
        "ip",
        "id",
        "source_type",
        "source_id",
        "instance_id",
        "metric_version",
        "__v1_type",
    ];
    const PREFIXES: [&str; 4] = ["organization_", "space_", "app_", "process_"];
    NAMES.contains(&tag) || PREFIXES.iter().any(|prefix| tag.starts_with(prefix))
}

/// The length of a "select graphic rendition" sequence at the start of the text: `ESC [ digits ; … m`.
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

#[cfg(test)]
mod tests {
    use super::super::clock::LocalTime;
    use super::*;
    use loggregator_client::message::{self, EnvelopeBuilder};
    use prost::Message as _;
    use std::time::{Duration, UNIX_EPOCH};

    const AT: i64 = 1_700_000_000_120_000_000;

    fn shown(text: &mut Text, builder: EnvelopeBuilder) -> String {
        let envelope = builder.source("web-shop", "0").at_nanos(AT).build();
        shown_as_is(text, &envelope)
    }

    fn shown_as_is(text: &mut Text, envelope: &loggregator_proto::v2::Envelope) -> String {
        let bytes = envelope.encode_to_vec();
        let mut out = Vec::new();
        text.write(&mut out, &EnvelopeRef::new(&bytes));
        String::from_utf8(out).unwrap()
    }

    fn plain() -> Text {
        Text::new(
            Stamp::new(LocalTime::utc()),
            Palette::new(false),
            false,
            false,
        )
    }

    fn coloured() -> Text {
        Text::new(Stamp::new(LocalTime::utc()), Palette::new(true), true, true)
    }

    #[test]
    fn logs_look_as_the_cf_client_prints_them() {
        let web = |line: &'static str| message::log(line).source_type("APP/PROC/WEB");
        assert_eq!(
            shown(&mut plain(), web("hello")),
            "   2023-11-14T22:13:20.12+0000 [APP/PROC/WEB/0] OUT hello\n"
        );
        assert_eq!(
            shown(&mut plain(), web("oh").stderr()),
            "   2023-11-14T22:13:20.12+0000 [APP/PROC/WEB/0] ERR oh\n"
        );
    }

    #[test]
    fn each_line_of_a_payload_has_its_header() {
        assert_eq!(
            shown(
                &mut plain(),
                message::log("one\ntwo\r\n\nfour\n").source_type("RTR")
            ),
            "   2023-11-14T22:13:20.12+0000 [RTR/0] OUT one\n\
             \x20  2023-11-14T22:13:20.12+0000 [RTR/0] OUT two\n\
             \x20  2023-11-14T22:13:20.12+0000 [RTR/0] OUT \n\
             \x20  2023-11-14T22:13:20.12+0000 [RTR/0] OUT four\n"
        );
        assert_eq!(
            shown(&mut plain(), message::log("")),
            "   2023-11-14T22:13:20.12+0000 [/0] OUT \n"
        );
    }

    #[test]
    fn metrics_are_one_readable_line() {
        let line = |builder: EnvelopeBuilder| {
            shown(&mut plain(), builder.source_type("WEB"))
                ["   2023-11-14T22:13:20.12+0000 ".len()..]
                .to_owned()
        };
        assert_eq!(
            line(message::counter("hits", 3)),
            "[WEB/0] COUNTER hits (+3)\n"
        );
        assert_eq!(
            line(message::counter_total("hits", 9)),
            "[WEB/0] COUNTER hits:9 (+0)\n"
        );
        assert_eq!(
            line(message::gauge([
                ("cpu", 12.5, "percentage"),
                ("memory", 3e8, "bytes")
            ])),
            "[WEB/0] GAUGE cpu:12.5%, memory:286.1 MiB\n"
        );
        let stop = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let http = message::timer("http", stop - Duration::from_millis(23), stop);
        assert_eq!(
            line(
                http.tag("uri", "https://x/y")
                    .tag("method", "GET")
                    .tag("status_code", "200")
            ),
            "[WEB/0] TIMER http 23.0ms GET https://x/y 200\n"
        );
        assert_eq!(
            line(message::event("deployed", "version 2")),
            "[WEB/0] EVENT deployed: version 2\n"
        );
        assert_eq!(
            line(message::event("deployed", "")),
            "[WEB/0] EVENT deployed\n"
        );
        assert_eq!(
            shown_as_is(&mut plain(), &loggregator_proto::v2::Envelope::default()),
            ""
        );
    }

    #[test]
    fn a_colour_that_begins_ends() {
        let shown = shown(
            &mut coloured(),
            message::log("oh").source_type("APP").stderr(),
        );
        assert!(shown.ends_with("\u{1b}[31mERR oh\u{1b}[0m\n"), "{shown:?}");
        assert!(shown.contains("web-shop\u{1b}[0m [APP/0]"), "{shown:?}");
    }

    #[test]
    fn a_terminal_cannot_be_steered_by_a_log_line() {
        let tail = |line: &'static str| {
            let shown = shown(&mut coloured(), message::log(line));
            shown.split_once("OUT ").unwrap().1.to_owned()
        };
        assert_eq!(tail("\u{1b}]0;owned\u{7}"), "␛]0;owned␇\n");
        assert_eq!(tail("\u{1b}[2J"), "␛[2J\n");
        assert_eq!(tail("\u{9b}31m"), "\u{fffd}31m\n");
        assert_eq!(tail("\u{1b}[1;32mgreen"), "\u{1b}[1;32mgreen\u{1b}[0m\n");
        assert_eq!(tail("tab\tümlaut"), "tab\tümlaut\n");
    }

    #[test]
    fn a_pipe_gets_the_bytes_as_they_came() {
        let bytes: &[u8] = b"\xff\x1b[2J\x00";
        let envelope = message::log(bytes).build().encode_to_vec();
        let mut out = Vec::new();
        plain().write(&mut out, &EnvelopeRef::new(&envelope));
        assert!(out.ends_with(b"OUT \xff\x1b[2J\x00\n"), "{out:?}");
    }
}
