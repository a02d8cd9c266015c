//! The text that a configuration came from: a file, and the variables that replace parts of it.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// File and variables as one text, in which every value has its place: first the file, then each variable.
pub(super) struct Source {
    pub file: PathBuf,
    text: String,
    variables: Vec<Variable>,
}

struct Variable {
    name: String,
    text: String,
    start: usize,
}

/// Where something stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Line and column, counted from 1, in the file.
    pub at: Option<(usize, usize)>,
    /// Characters of it that stand in this line.
    pub width: usize,
    /// The variable, where it stands in none of the file's lines.
    pub variable: Option<String>,
}

/// The span of a whole file, which is no place to point at.
pub(super) const FILE: Range<usize> = usize::MAX - 1..usize::MAX - 1;
/// The span of what stands nowhere.
pub(super) const NOWHERE: Range<usize> = usize::MAX..usize::MAX;

impl Source {
    pub(super) fn new(file: &Path, text: &str) -> Source {
        Source {
            file: file.to_owned(),
            text: text.to_owned(),
            variables: Vec::new(),
        }
    }

    /// Adds a variable; returns the place of its value.
    pub(super) fn add(&mut self, name: &str, text: &str) -> Range<usize> {
        let start = match self.variables.last() {
            Some(last) => last.start + last.text.len() + 1,
            None => self.text.len() + 1,
        };
        self.variables.push(Variable {
            name: name.to_owned(),
            text: text.to_owned(),
            start,
        });
        start..start + text.len()
    }

    /// What stands at this place.
    pub(super) fn raw(&self, span: &Range<usize>) -> Option<&str> {
        match self.variable(span) {
            Some(variable) => {
                let end = span.end.checked_sub(variable.start)?;
                variable.text.get(span.start - variable.start..end)
            }
            None => self.text.get(span.clone()),
        }
    }

    /// The whole text of the variable whose value has exactly this place.
    pub(super) fn whole_variable(&self, span: &Range<usize>) -> Option<&str> {
        let variable = self.variable(span)?;
        let whole = variable.start..variable.start + variable.text.len();
        (*span == whole).then_some(variable.text.as_str())
    }

    /// The place of a character, counted from 1, of the text that stands at `span`.
    pub(super) fn character(&self, span: &Range<usize>, at: usize) -> Range<usize> {
        let Some(raw) = self.raw(span) else {
            return span.clone();
        };
        let offset = offset_in_string(raw, at);
        let width = raw[offset..].chars().next().map_or(0, char::len_utf8);
        span.start + offset..span.start + offset + width
    }

    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        if let Some(variable) = self.variable(span) {
            return Place {
                variable: Some(variable.name.clone()),
                ..Place::default()
            };
        }
        let Some(before) = self.text.get(..span.start) else {
            return Place::default();
        };
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.matches('\n').count() + 1;
        let column = before[line_start..].chars().count() + 1;
        let rest = self.text.get(span.clone()).unwrap_or_default();
        let width = rest.lines().next().unwrap_or_default().chars().count();
        Place {
            at: Some((line, column)),
            width,
            variable: None,
        }
    }

    fn variable(&self, span: &Range<usize>) -> Option<&Variable> {
        self.variables.iter().find(|variable| {
            (variable.start..=variable.start + variable.text.len()).contains(&span.start)
        })
    }
}

/// Where, in bytes from its start, the `at`-th character (from 1) of a TOML string stands in its text, quotes included.
pub(super) fn offset_in_string(raw: &str, at: usize) -> usize {
    let (skip, escapes) = if let Some(rest) = raw.strip_prefix("\"\"\"") {
        (3 + line_break(rest), true)
    } else if let Some(rest) = raw.strip_prefix("'''") {
        (3 + line_break(rest), false)
    } else {
        (
            usize::from(raw.starts_with(['"', '\''])),
            raw.starts_with('"'),
        )
    };
    let mut offset = skip;
    for _ in 1..at {
        let Some(rest) = raw.get(offset..) else { break };
        let mut chars = rest.chars();
        match (chars.next(), chars.next()) {
            (Some('\\'), Some(kind)) if escapes => {
                offset += match kind {
                    'u' => 6,
                    'U' => 10,
                    'x' => 4,
                    other => 1 + other.len_utf8(),
                }
            }
            (Some(plain), _) => offset += plain.len_utf8(),
            (None, _) => break,
        }
    }
    offset.min(raw.len())
}

/// The line break after the opening quotes of a string of several lines is not part of it.
fn line_break(rest: &str) -> usize {
    if rest.starts_with("\r\n") {
        2
    } else {
        usize::from(rest.starts_with('\n'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_characters_from_1() {
        let source = Source::new(Path::new("f"), "ä = 1\n  β = \"x\"\n");
        let place = |span| source.place(&span);
        assert_eq!(place(0..2).at, Some((1, 1)));
        assert_eq!(place(5..6).at, Some((1, 5)));
        assert_eq!(place(9..11).at, Some((2, 3)));
        let value = place(14..17);
        assert_eq!((value.at, value.width), (Some((2, 7)), 3));
        assert_eq!(place(NOWHERE), Place::default());
    }

    #[test]
    fn a_variable_is_its_own_place() {
        let mut source = Source::new(Path::new("f"), "a = 1\n");
        let first = source.add("NOZZLE__A", "22");
        let second = source.add("NOZZLE__B", "");
        assert_eq!(source.raw(&first), Some("22"));
        assert_eq!(source.whole_variable(&first), Some("22"));
        assert_eq!(source.whole_variable(&(first.start..first.start + 1)), None);
        assert_eq!(source.place(&first).variable.as_deref(), Some("NOZZLE__A"));
        assert_eq!(source.place(&second).variable.as_deref(), Some("NOZZLE__B"));
    }

    #[test]
    fn characters_of_a_string_are_found_behind_quotes_and_escapes() {
        assert_eq!(offset_in_string("'abc'", 1), 1);
        assert_eq!(offset_in_string("'abc'", 3), 3);
        assert_eq!(offset_in_string(r#""a\"bc""#, 3), 4);
        assert_eq!(offset_in_string(r#""\u00e4bc""#, 2), 7);
        assert_eq!(offset_in_string("'''\nabc'''", 2), 5);
        assert_eq!(offset_in_string("'äb'", 2), 3);
        assert_eq!(offset_in_string("'ab'", 99), 4);
    }
}
