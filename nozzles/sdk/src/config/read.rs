//! Reads a part of a file into a type, and finds all that is wrong with it.
//!
//! serde stops at the first error. What it complains of is then taken out, or put in, and it reads again, until nothing is
//! wrong or nothing more can be done.

use std::ops::Range;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::de::{Failure, Reader, Why};
use super::errors::{ConfigError, is_secret};
use super::source::{NOWHERE, Source};
use super::tree::{Node, Step, Table, Value, shown};

/// Errors in the making.
pub(super) struct Problems<'a> {
    pub source: &'a Arc<Source>,
    pub found: Vec<ConfigError>,
}

impl<'a> Problems<'a> {
    pub(super) fn new(source: &'a Arc<Source>) -> Problems<'a> {
        Problems {
            source,
            found: Vec::new(),
        }
    }

    /// An error at this place.
    pub(super) fn add(
        &mut self,
        key: impl Into<String>,
        span: &Range<usize>,
        message: impl Into<String>,
    ) {
        self.found.push(error(self.source, key, span, message));
    }
}

pub(super) fn error(
    source: &Source,
    key: impl Into<String>,
    span: &Range<usize>,
    message: impl Into<String>,
) -> ConfigError {
    let place = source.place(span);
    ConfigError {
        key: key.into(),
        place: place.at,
        width: place.width,
        variable: place.variable,
        message: message.into(),
    }
}

/// Reads `node`, which stands at the key `at`, as a `T`. `None` when a value in it is wrong or missing; with unknown keys alone
/// what it says besides can still be looked at. What is wrong is added to `problems`.
pub(super) fn read<T: DeserializeOwned>(
    problems: &mut Problems<'_>,
    at: &str,
    node: &Node,
) -> Option<T> {
    let mut node = node.clone();
    let mut usable = true;
    let mut stand_in: Option<StandIn> = None;
    let mut taken_out: Vec<Vec<Step>> = Vec::new();
    // Each turn takes a key out, puts one in or tries another type; a file has not so many.
    for _ in 0..10_000 {
        let failure = match T::deserialize(Reader(&node)) {
            Ok(value) => return usable.then_some(value),
            Err(failure) => failure,
        };
        let span = failure.span.clone().unwrap_or_else(|| node.span.clone());
        if span == NOWHERE {
            // What was made up for a missing value is not of its type.
            match stand_in.as_mut().map(|it| it.put_next(&mut node)) {
                Some(true) => continue,
                _ => return None,
            }
        }
        if read_as_text(problems.source, &mut node, &failure, &span) {
            continue;
        }
        if let Why::Missing(name) = failure.why {
            let mut path = failure.path;
            path.push(Step::Key(name.to_owned()));
            usable = false;
            if !taken_out.contains(&path) {
                problems.add(shown(at, &path), &span, "is missing");
            }
            let mut next = StandIn { path, tried: 0 };
            if !next.put_next(&mut node) {
                return None;
            }
            stand_in = Some(next);
            continue;
        }
        usable &= matches!(failure.why, Why::UnknownKey { .. });
        let key = shown(at, &failure.path);
        problems.add(&key, &span, in_words(&failure.why, is_secret(&key)));
        if !node.remove(&failure.path) {
            return None;
        }
        taken_out.push(failure.path);
    }
    None
}

/// A variable's text that happens to be a number is still a text where one is wanted.
fn read_as_text(source: &Source, node: &mut Node, failure: &Failure, span: &Range<usize>) -> bool {
    let Some(whole) = source.whole_variable(span) else {
        return false;
    };
    let is_other = node
        .at(&failure.path)
        .is_some_and(|value| value.span == *span && value.text().is_none());
    let text = Node::new(span.clone(), Value::Text(whole.to_owned()));
    is_other && node.put(&failure.path, text)
}

/// A value that is made up where one is missing, so that what else is missing can be found.
struct StandIn {
    path: Vec<Step>,
    tried: usize,
}

impl StandIn {
    /// Puts in a value of the next type; whether there was one left.
    fn put_next(&mut self, node: &mut Node) -> bool {
        let value = match self.tried {
            0 => Value::Text(String::new()),
            1 => Value::Integer(1),
            2 => Value::Table(Table::new()),
            3 => Value::List(Vec::new()),
            4 => Value::Boolean(false),
            _ => return false,
        };
        self.tried += 1;
        node.put(&self.path, Node::new(NOWHERE, value))
    }
}

fn in_words(why: &Why, secret: bool) -> String {
    match why {
        Why::UnknownKey { name, known } => unknown_key(name, known),
        Why::UnknownWord { known, .. } if secret => format!("is none of {}", list(known)),
        Why::UnknownWord { word, known } => not_one_of(word, known),
        Why::Missing(_) => "is missing".to_owned(),
        Why::Wrong { expected, .. } if secret => format!("expected {expected}"),
        Why::Wrong { found, expected } => format!("expected {expected}, found {found}"),
        Why::Other(message) => message.clone(),
    }
}

/// `name` is no key; the known ones are these.
pub(super) fn unknown_key(name: &str, known: &[&str]) -> String {
    match (nearest(name, known), known) {
        (Some(near), _) => format!("unknown key; did you mean `{near}`?"),
        (None, []) => "unknown key; there are none here".to_owned(),
        (None, known) => format!("unknown key; known here: {}", list(known)),
    }
}

/// `value` is none of the words that may stand there.
pub(super) fn not_one_of(value: &str, known: &[&str]) -> String {
    match nearest(value, known) {
        Some(near) => format!(
            "`{value}` is none of {}; did you mean `{near}`?",
            list(known)
        ),
        None => format!("`{value}` is none of {}", list(known)),
    }
}

/// The known word that was probably meant.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let name = plain(name);
    let distance = |other: &&str| strsim::damerau_levenshtein(&name, &plain(other));
    let near = known.iter().copied().min_by_key(distance)?;
    if distance(&near) <= near.len().max(3) / 3 {
        return Some(near);
    }
    // `timeout` for `request_timeout`.
    let part = |other: &&&str| {
        name.len() > 2
            && (other.starts_with(&format!("{name}_")) || other.ends_with(&format!("_{name}")))
    };
    known.iter().find(part).copied()
}

pub(super) fn list(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_if_it_is_near() {
        let known = ["addrs", "server_name", "resolve_interval"];
        assert_eq!(nearest("adrs", &known), Some("addrs"));
        assert_eq!(nearest("Server-Name", &known), Some("server_name"));
        assert_eq!(nearest("interval", &known), Some("resolve_interval"));
        assert_eq!(nearest("x", &known), None);
        assert_eq!(nearest("x", &[]), None);
    }
}
