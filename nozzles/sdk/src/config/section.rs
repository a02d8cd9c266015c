//! The part of a file that a kind of destination reads by itself.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::errors::{ConfigError, ConfigErrors};
use super::read::{self, Problems};
use super::source::{FILE, Source};
use super::tree::{Node, Table, Value, join, steps};

/// A table of a file that a kind of destination reads by itself.
#[derive(Clone)]
pub struct Section {
    source: Arc<Source>,
    key: String,
    node: Node,
}

impl Section {
    /// A section of this text, as if it stood alone in a file; for tests of kinds.
    ///
    /// # Errors
    /// When the text is no TOML.
    pub fn from_text(text: &str) -> Result<Section, ConfigErrors> {
        let source = Arc::new(Source::new(Path::new("section.toml"), text));
        let node = super::document::parse(&source, text)?;
        Ok(Section::new(source, String::new(), node))
    }

    pub(super) fn new(source: Arc<Source>, key: String, node: Node) -> Section {
        Section { source, key, node }
    }

    /// Reads it. `T` should refuse unknown fields.
    ///
    /// # Errors
    /// What is wrong, with the places in the file.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ConfigErrors> {
        let mut problems = Problems::new(&self.source);
        match read::read(&mut problems, &self.key, &self.node) {
            Some(value) if problems.found.is_empty() => Ok(value),
            _ => Err(finish(&self.source, problems.found)),
        }
    }

    /// An error about one of its keys (`tls.ca_file`, `routes[1].topic`; empty for the section as a whole), with the place of
    /// the key's value in the file. Where there is no such key, the place of the table around it.
    #[must_use]
    pub fn error(&self, key: &str, message: impl Into<String>) -> ConfigErrors {
        let span = self.node.place(&steps(key));
        let error = read::error(&self.source, join(&self.key, key), &span, message);
        finish(&self.source, vec![error])
    }

    /// An error about a character of the text that a key holds, counted from 1, such as one in a filter or a template.
    #[must_use]
    pub fn error_at(
        &self,
        key: &str,
        character: usize,
        message: impl Into<String>,
    ) -> ConfigErrors {
        let span = self.node.place(&steps(key));
        let span = self.source.character(&span, character);
        let error = read::error(&self.source, join(&self.key, key), &span, message);
        finish(&self.source, vec![error])
    }

    /// All errors that a look at the values has found: pairs of key and message, as for [`error`](Section::error).
    ///
    /// # Errors
    /// When there is any.
    pub fn errors<K: AsRef<str>, M: Into<String>>(
        &self,
        found: impl IntoIterator<Item = (K, M)>,
    ) -> Result<(), ConfigErrors> {
        let errors = found
            .into_iter()
            .map(|(key, message)| self.error(key.as_ref(), message));
        let all = errors.reduce(|mut all, next| {
            all.merge(next);
            all
        });
        all.map_or(Ok(()), Err)
    }

    /// Whether it has this key.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.node.at(&steps(key)).is_some()
    }

    /// Its key in the file: `destination.siem.syslog`.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// What it says, wherever it says so.
impl PartialEq for Section {
    fn eq(&self, other: &Section) -> bool {
        self.key == other.key && self.node.same(&other.node)
    }
}

/// Without values: some are secret.
impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Section")
            .field("key", &self.key)
            .field("keys", &self.node)
            .finish_non_exhaustive()
    }
}

/// An empty one, for a kind that is configured by a program and not by a file.
impl Default for Section {
    fn default() -> Self {
        let source = Arc::new(Source::new(Path::new(""), ""));
        let node = Node::new(FILE, Value::Table(Table::new()));
        Section::new(source, String::new(), node)
    }
}

pub(super) fn finish(source: &Source, errors: Vec<ConfigError>) -> ConfigErrors {
    let mut errors = ConfigErrors {
        file: source.file.clone(),
        errors,
    };
    errors.sort();
    errors
}
