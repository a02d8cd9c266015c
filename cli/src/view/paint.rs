//! Colours, or none.

use anstyle::{AnsiColor, Color, Style};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::io::Write as _;

/// What a piece of a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// A timestamp.
    Time,
    /// The name of a metric's kind.
    Kind,
    /// Standard error, and what went wrong.
    Error,
    /// Lines lost, connection lost.
    Notice,
}

/// Puts colours into lines, when there are to be any.
#[derive(Debug, Clone, Copy)]
pub struct Palette {
    on: bool,
}

/// For source ids; readable on dark and on light ground.
const SOURCES: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Green,
    AnsiColor::Yellow,
    AnsiColor::Blue,
    AnsiColor::Magenta,
    AnsiColor::BrightCyan,
];

impl Palette {
    /// With colours or without.
    pub fn new(on: bool) -> Self {
        Self { on }
    }

    /// Whether there are colours.
    pub fn is_on(self) -> bool {
        self.on
    }

    /// Starts a style.
    pub fn on(self, out: &mut Vec<u8>, paint: Paint) {
        self.start(out, style(paint));
    }

    /// Starts the colour of a source: always the same for the same id.
    pub fn source_on(self, out: &mut Vec<u8>, source_id: &str) {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(source_id);
        let color = SOURCES[(hash % SOURCES.len() as u64) as usize];
        self.start(out, Style::new().fg_color(Some(Color::Ansi(color))));
    }

    /// Ends whatever style is on.
    pub fn off(self, out: &mut Vec<u8>) {
        if self.on {
            out.extend_from_slice(b"\x1b[0m");
        }
    }

    /// A piece of text in a style.
    pub fn paint(self, out: &mut Vec<u8>, paint: Paint, text: &[u8]) {
        self.on(out, paint);
        out.extend_from_slice(text);
        self.off(out);
    }

    /// The same, as a string.
    pub fn text(self, paint: Paint, text: &str) -> String {
        if self.on {
            format!("{style}{text}{style:#}", style = style(paint))
        } else {
            text.to_owned()
        }
    }

    fn start(self, out: &mut Vec<u8>, style: Style) {
        if self.on {
            let done = write!(out, "{style}");
            debug_assert!(done.is_ok(), "writing to a vector cannot fail");
        }
    }
}

fn style(paint: Paint) -> Style {
    let fg = |color: AnsiColor| Style::new().fg_color(Some(Color::Ansi(color)));
    match paint {
        Paint::Time => Style::new().dimmed(),
        Paint::Kind => fg(AnsiColor::Cyan),
        Paint::Error => fg(AnsiColor::Red),
        Paint::Notice => fg(AnsiColor::Yellow).bold(),
    }
}
