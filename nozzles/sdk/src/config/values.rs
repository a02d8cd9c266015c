//! Values of a configuration that TOML has no type for.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use loggregator_service::config::{ByteSize, parse_duration};
use serde::Deserialize;
use serde::de::{self, Deserializer};

/// A time such as `"250ms"`, `"1m30s"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

/// A number of bytes such as `"64MiB"`, or a plain number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A password or token: a text, `{ file = "…" }` or `{ env = "…" }`. Never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Secret {
    /// The secret itself.
    Text(String),
    /// A file that holds it; a line break at its end is left out.
    File {
        /// The file.
        file: PathBuf,
    },
    /// An environment variable that holds it.
    Env {
        /// The variable.
        env: String,
    },
}

/// A secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Its file cannot be read.
    #[error("cannot read the secret in {}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Its variable is not set.
    #[error("the variable {env} is not set")]
    Env {
        /// The variable.
        env: String,
    },
}

impl Secret {
    /// Reads it. Call it again for each use: a file may have changed.
    ///
    /// # Errors
    /// When its file or variable is not there.
    pub fn read(&self) -> Result<String, SecretError> {
        match self {
            Secret::Text(text) => Ok(text.clone()),
            Secret::File { file } => match std::fs::read_to_string(file) {
                Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
                Err(source) => Err(SecretError::File {
                    file: file.clone(),
                    source,
                }),
            },
            Secret::Env { env } => {
                std::env::var(env).map_err(|_| SecretError::Env { env: env.clone() })
            }
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Text(_) => f.write_str("(hidden)"),
            Secret::File { file } => write!(f, "(in {})", file.display()),
            Secret::Env { env } => write!(f, "(in ${env})"),
        }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(Time).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, such as \"64MiB\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                let size: ByteSize = text.parse().map_err(E::custom)?;
                Ok(Size(size.0))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Size, E> {
                u64::try_from(number)
                    .map(Size)
                    .map_err(|_| E::custom("a number of bytes is not negative"))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
