//! Shapes of a log line.

use std::fmt;
use std::sync::Arc;

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::rate::RateLimit;
use crate::config;

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people: `2026-01-02T03:04:05.678Z  INFO doppler: message key=value`.
    Text {
        /// Whether to colour the level.
        color: bool,
    },
    /// One JSON object per line: `timestamp`, `level`, `target`, `message` and the fields.
    Json,
    /// As the platform's Go programs by default: local time `YYYY/MM/DD HH:MM:SS.uuuuuu `, then the message.
    Go,
    /// As Go's standard logger: the same without the fraction.
    GoSeconds,
    /// As the Go programs with `USE_RFC339`: UTC `YYYY-MM-DDTHH:MM:SS.nnnnnnnnnZ `, then the message.
    GoRfc3339,
}

impl config::Value for Format {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "text" => Self::Text { color: false },
            "json" => Self::Json,
            "go" => Self::Go,
            "go-seconds" => Self::GoSeconds,
            "go-rfc3339" => Self::GoRfc3339,
            _ => return Err("not one of text, json, go, go-seconds, go-rfc3339".to_owned()),
        })
    }

    fn placeholder() -> Self {
        Self::Json
    }
}

const TEXT_TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
const GO_TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]/[month]/[day] [hour]:[minute]:[second].[subsecond digits:6]");
const GO_SECONDS_TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]/[month]/[day] [hour]:[minute]:[second]");
const GO_RFC3339_TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z");

/// Writes events as lines of one format, and what the rate limit left out.
pub(super) struct Lines {
    format: Format,
    /// The local offset at the start; a change of daylight saving time is not followed.
    offset: UtcOffset,
    rate: Arc<RateLimit>,
}

impl Lines {
    pub(super) fn new(format: Format, rate: Arc<RateLimit>) -> Self {
        // Fails in a process that already has threads; UTC is what servers run on.
        let offset = UtcOffset::current_local_offset().unwrap_or(UtcOffset::UTC);
        Self {
            format,
            offset,
            rate,
        }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let meta = event.metadata();
        let now = OffsetDateTime::now_utc();
        for (place, lines) in self.rate.untold() {
            let note = Fields {
                message: "similar lines were left out".to_owned(),
                rest: vec![
                    ("lines", Value::Number(lines.to_string())),
                    ("place", Value::Text(place)),
                ],
            };
            self.line(&mut out, now, Level::WARN, module_path!(), &note)?;
        }
        self.line(&mut out, now, *meta.level(), meta.target(), &fields)
    }
}

impl Lines {
    fn line(
        &self,
        out: &mut Writer<'_>,
        now: OffsetDateTime,
        level: Level,
        target: &str,
        fields: &Fields,
    ) -> fmt::Result {
        match self.format {
            Format::Text { color } => {
                write!(out, "{} ", stamp(now, TEXT_TIME)?)?;
                if color {
                    write!(out, "\x1b[{}m{level:>5}\x1b[0m ", color_of(level))?;
                } else {
                    write!(out, "{level:>5} ")?;
                }
                write!(out, "{target}: ")?;
                fields.write_text(out)
            }
            Format::Json => fields.write_json(out, &stamp(now, GO_RFC3339_TIME)?, level, target),
            Format::Go => {
                write!(out, "{} ", stamp(now.to_offset(self.offset), GO_TIME)?)?;
                fields.write_text(out)
            }
            Format::GoSeconds => {
                let local = now.to_offset(self.offset);
                write!(out, "{} ", stamp(local, GO_SECONDS_TIME)?)?;
                fields.write_text(out)
            }
            Format::GoRfc3339 => {
                write!(out, "{} ", stamp(now, GO_RFC3339_TIME)?)?;
                fields.write_text(out)
            }
        }
    }
}

fn stamp(time: OffsetDateTime, format: &[BorrowedFormatItem<'_>]) -> Result<String, fmt::Error> {
    time.format(format).map_err(|_| fmt::Error)
}

fn color_of(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        _ => 2,
    }
}

/// An event's message and fields.
#[derive(Default)]
struct Fields {
    message: String,
    rest: Vec<(&'static str, Value)>,
}

enum Value {
    Text(String),
    /// Already in JSON's (and everybody's) notation: numbers, booleans.
    Number(String),
}

impl Fields {
    /// `message key=value key="two words"`; control characters are escaped, since values come from peers.
    fn write_text(&self, out: &mut Writer<'_>) -> fmt::Result {
        write_escaped(out, &self.message)?;
        for (name, value) in &self.rest {
            match value {
                Value::Number(number) => write!(out, " {name}={number}")?,
                Value::Text(text) if is_bare(text) => write!(out, " {name}={text}")?,
                Value::Text(text) => write!(out, " {name}={text:?}")?,
            }
        }
        out.write_char('\n')
    }

    fn write_json(
        &self,
        out: &mut Writer<'_>,
        time: &str,
        level: Level,
        target: &str,
    ) -> fmt::Result {
        let quote = |text: &str| serde_json::to_string(text).map_err(|_| fmt::Error);
        write!(
            out,
            "{{\"timestamp\":\"{time}\",\"level\":\"{level}\",\"target\":{}",
            quote(target)?
        )?;
        write!(out, ",\"message\":{}", quote(&self.message)?)?;
        for (name, value) in &self.rest {
            match value {
                Value::Number(number) => write!(out, ",{}:{number}", quote(name)?)?,
                Value::Text(text) => write!(out, ",{}:{}", quote(name)?, quote(text)?)?,
            }
        }
        out.write_str("}\n")
    }

    fn push(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::Text(text) | Value::Number(text)) => self.message = text,
            (name, value) => self.rest.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, Value::Text(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, Value::Text(value.to_owned()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::Number(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Value::Number(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::Number(value.to_string()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON knows no infinities.
        let value = if value.is_finite() {
            Value::Number(value.to_string())
        } else {
            Value::Text(value.to_string())
        };
        self.push(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.push(field, Value::Text(crate::lifecycle::chain(value)));
    }
}

/// Whether a value can stand without quotes.
fn is_bare(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_graphic() && c != '"' && c != '=' && c != '\\')
}

fn write_escaped(out: &mut Writer<'_>, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| {
        if c.is_control() {
            write!(out, "{}", c.escape_default())
        } else {
            out.write_char(c)
        }
    })
}
