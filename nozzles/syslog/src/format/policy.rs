//! What becomes of events that do not fit into a message.

use std::borrow::Cow;

use loggregator_nozzle::{Outcome, Reason};
use serde::Deserialize;

use super::text::cut;
use crate::page::Page;

/// What becomes of a message that is longer than `max_message`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Oversize {
    /// It goes to the dead letters.
    #[default]
    DeadLetter,
    /// Its text is cut, never within a character.
    Truncate,
    /// A log becomes several messages; see the crate's documentation.
    Split,
}

/// What becomes of a log whose text is not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvalidUtf8 {
    /// It goes to the dead letters.
    #[default]
    DeadLetter,
    /// Each part that is not UTF-8 becomes U+FFFD.
    Replace,
    /// The bytes go out as they are, which RFC 5424 allows and the platform's agents do.
    Keep,
}

/// What becomes of an event with a tag, source id or instance id that RFC 5424 has no form for: a byte that is not
/// printable ASCII, and in the name of a tag also `=`, `]`, `"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvalidName {
    /// It goes to the dead letters. The platform's agents refuse it too.
    #[default]
    DeadLetter,
    /// Each such byte becomes `_`.
    Replace,
    /// The tag is left out; a field of the header becomes `-`.
    Omit,
}

/// What line breaks within a message become with newline framing, where they would end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineBreaks {
    /// The two characters `\n`.
    #[default]
    Escape,
    /// A space.
    Space,
}

/// All of it.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    /// Bytes of a message without its frame.
    pub max_message: usize,
    pub oversize: Oversize,
    pub invalid_utf8: InvalidUtf8,
    pub invalid_name: InvalidName,
    /// Longest name of a tag, bytes.
    pub max_tag_name: usize,
    /// HOSTNAME of events without the names of an app.
    pub hostname: String,
    pub omit_metadata: bool,
    /// With newline framing, what line breaks become.
    pub line_breaks: Option<LineBreaks>,
}

/// Why an event makes no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It can never be written.
    Rejected(Reason),
    /// It is too long.
    Oversize(Reason),
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Outcome {
        match refusal {
            Refusal::Rejected(reason) => Outcome::Rejected(reason),
            Refusal::Oversize(reason) => Outcome::Oversize(reason),
        }
    }
}

impl From<Refusal> for Reason {
    fn from(refusal: Refusal) -> Reason {
        match refusal {
            Refusal::Rejected(reason) | Refusal::Oversize(reason) => reason,
        }
    }
}

/// No further message of an event is begun when those before have more bytes than this together. Each message has all tags,
/// so that an event of a few MiB could otherwise become gigabytes. It is the longest that one message may be.
const MAX_EVENT: usize = 16 << 20;

/// How much of a text that cannot be written stands in a reason.
const SHOWN: usize = 64;

impl Policy {
    /// Reason `invalid_CODE`: what it is and the beginning of its value.
    pub fn invalid(code: &'static str, what: &str, value: &str) -> Refusal {
        let shown = String::from_utf8_lossy(cut(value.as_bytes(), SHOWN));
        Refusal::Rejected(Reason::new(
            code,
            format!("{what} {shown:?} cannot stand in a syslog message"),
        ))
    }

    /// Begins a message, if the event's messages before it leave room for it.
    pub fn begin(page: &mut Page) -> Result<(), Refusal> {
        if page.since_mark() > MAX_EVENT {
            return Err(Refusal::Oversize(Reason::new(
                "oversize",
                format!("several messages of more than {MAX_EVENT} bytes together"),
            )));
        }
        page.begin();
        Ok(())
    }

    /// Reason `oversize`.
    pub fn oversize(&self, len: usize) -> Refusal {
        Refusal::Oversize(Reason::new(
            "oversize",
            format!("{len} bytes, at most {} are sent", self.max_message),
        ))
    }

    /// The text of a log as it goes out: without NUL, checked for UTF-8, on one line if it has to be, without a line break at
    /// its end.
    pub fn text<'a>(&self, payload: &'a [u8]) -> Result<Cow<'a, [u8]>, Refusal> {
        let mut text = Cow::Borrowed(payload);
        if memchr::memchr(0, payload).is_some() {
            text = payload.iter().copied().filter(|b| *b != 0).collect();
        }
        if self.invalid_utf8 != InvalidUtf8::Keep
            && let Err(error) = std::str::from_utf8(&text)
        {
            if self.invalid_utf8 == InvalidUtf8::DeadLetter {
                return Err(Refusal::Rejected(Reason::new(
                    "invalid_utf8",
                    format!("the text is not UTF-8 from byte {} on", error.valid_up_to()),
                )));
            }
            text = String::from_utf8_lossy(&text)
                .into_owned()
                .into_bytes()
                .into();
        }
        if text.ends_with(b"\n") {
            text = match text {
                Cow::Borrowed(text) => Cow::Borrowed(&text[..text.len() - 1]),
                Cow::Owned(mut text) => {
                    text.pop();
                    Cow::Owned(text)
                }
            };
        }
        if let Some(how) = self.line_breaks
            && memchr::memchr2(b'\n', b'\r', &text).is_some()
        {
            let mut line = Vec::with_capacity(text.len() + 16);
            one_line(&mut line, &text, how);
            text = Cow::Owned(line);
        }
        Ok(text)
    }
}

/// Writes `text` on one line.
pub(crate) fn one_line(out: &mut Vec<u8>, text: &[u8], how: LineBreaks) {
    for byte in text {
        match (byte, how) {
            (b'\n', LineBreaks::Escape) => out.extend_from_slice(b"\\n"),
            (b'\r', LineBreaks::Escape) => out.extend_from_slice(b"\\r"),
            (b'\n' | b'\r', LineBreaks::Space) => out.push(b' '),
            (byte, _) => out.push(*byte),
        }
    }
}
