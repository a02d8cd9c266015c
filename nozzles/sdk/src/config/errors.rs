//! What is wrong with a configuration, and how people and programs are told.

use std::fmt;
use std::path::PathBuf;

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Its key: `destination.siem.syslog.url`. Empty for the file as a whole.
    pub key: String,
    /// Line and column in the file, counted from 1, where they are known.
    pub place: Option<(usize, usize)>,
    /// How many characters from there it is about, within the line; 0 where that is not known.
    pub width: usize,
    /// The variable that set the value, where it is not the file that did.
    pub variable: Option<String>,
    /// What is wrong, with the value unless that may be a secret.
    pub message: String,
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file.
    pub file: PathBuf,
    /// The errors in the order of the file; what variables did wrong at the end.
    pub errors: Vec<ConfigError>,
}

impl ConfigErrors {
    /// Takes over the errors of `other`.
    pub fn merge(&mut self, other: ConfigErrors) {
        self.errors.extend(other.errors);
        self.sort();
    }

    /// In the order of the file, each once.
    pub(super) fn sort(&mut self) {
        self.errors
            .sort_by_key(|error| (error.variable.clone(), error.place));
        self.errors.dedup();
    }

    /// Where the error is, as a compiler writes it: `audit.toml:5:1`, or the variable's name.
    #[must_use]
    pub fn location(&self, error: &ConfigError) -> String {
        match (&error.variable, error.place) {
            (Some(variable), _) => variable.clone(),
            (None, Some((line, column))) => format!("{}:{line}:{column}", self.file.display()),
            (None, None) => self.file.display().to_string(),
        }
    }
}

impl fmt::Display for ConfigErrors {
    /// One line per error: `file:line:column: key: message`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&self.location(error))?;
            if !error.key.is_empty() {
                write!(f, ": {}", error.key)?;
            }
            write!(f, ": {}", error.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The line of a file that an error is about, fit to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The line's number.
    pub line: usize,
    /// The line, without what may be a secret.
    pub text: String,
    /// Where in it the error begins, in characters from 0.
    pub at: usize,
    /// How many characters it is about; at least 1.
    pub width: usize,
}

impl ConfigError {
    /// The line of the file that it is about; `text` is the file. What may be a secret is left out: all values where the
    /// key is not known, since a misspelt `password` is one too, and texts in lines that speak of secrets.
    #[must_use]
    pub fn excerpt(&self, text: &str) -> Option<Excerpt> {
        let (line, column) = self.place?;
        let whole = text.lines().nth(line - 1)?;
        let at = column - 1;
        let mut shown = whole.to_owned();
        let value = whole.find('=').map(|equals| equals + 1);
        if let Some(value) = value
            && (is_secret(whole) || is_secret(&self.key) || at < whole[..value].chars().count())
        {
            shown.truncate(value);
            shown.push_str(" …");
        }
        let length = shown.chars().count();
        let at = at.min(length);
        Some(Excerpt {
            line,
            text: hide_user(&shown),
            at,
            width: self.width.min(length - at).max(1),
        })
    }
}

/// Whether a text speaks of secrets; then what stands beside it is not shown.
pub(super) fn is_secret(text: &str) -> bool {
    const WORDS: [&str; 7] = [
        "secret",
        "passw",
        "token",
        "credential",
        "authorization",
        "cookie",
        "api_key",
    ];
    let text = text.to_ascii_lowercase();
    WORDS.iter().any(|word| text.contains(word))
}

/// The same text with every `//user:password@` made as many dots.
fn hide_user(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(slashes) = rest.find("//") {
        let (before, after) = rest.split_at(slashes + 2);
        shown.push_str(before);
        let end = after
            .find(['/', '"', '\'', ' ', '?', '#'])
            .unwrap_or(after.len());
        if let Some(user) = after[..end].rfind('@') {
            shown.extend(after[..user].chars().map(|_| '·'));
            rest = &after[user..];
        } else {
            rest = after;
        }
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: usize, column: usize, width: usize, key: &str) -> ConfigError {
        ConfigError {
            key: key.to_owned(),
            place: Some((line, column)),
            width,
            variable: None,
            message: "wrong".to_owned(),
        }
    }

    #[test]
    fn an_excerpt_has_the_line_and_no_secret() {
        let text = "a = 1\nbatch = { events = 0 }\npasswrd = \"hunter2\"\noauth = { secret = \"x\", user = 7 }\nurl = \"https://u:hunter2@h/p\"\n";
        let shown = |error: ConfigError| {
            let excerpt = error.excerpt(text).unwrap();
            (excerpt.text, excerpt.at, excerpt.width)
        };
        assert_eq!(
            shown(at(2, 20, 1, "batch.events")),
            ("batch = { events = 0 }".to_owned(), 19, 1)
        );
        assert_eq!(
            shown(at(3, 1, 7, "passwrd")),
            ("passwrd = …".to_owned(), 0, 7)
        );
        assert_eq!(
            shown(at(4, 32, 1, "oauth.user")),
            ("oauth = …".to_owned(), 9, 1)
        );
        assert_eq!(
            shown(at(5, 7, 23, "url")),
            ("url = \"https://·········@h/p\"".to_owned(), 6, 23)
        );
        assert_eq!(at(9, 1, 1, "").excerpt(text), None);
    }
}
