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
#[derive(Clone, PartialEq, Eq)]
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

/// The form of a secret; what stands there instead is not told, since it may be one.
const SECRET: &str = "a secret is a text, { file = \"…\" } or { env = \"…\" }";

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(SECRET)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret::Text(text.to_owned()))
            }

            fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secret, E> {
                Err(E::custom(SECRET))
            }

            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
                Err(E::custom(SECRET))
            }

            fn visit_u64<E: de::Error>(self, _: u64) -> Result<Secret, E> {
                Err(E::custom(SECRET))
            }

            fn visit_i128<E: de::Error>(self, _: i128) -> Result<Secret, E> {
                Err(E::custom(SECRET))
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
                Err(E::custom(SECRET))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, _: A) -> Result<Secret, A::Error> {
                Err(de::Error::custom(SECRET))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
                #[derive(Deserialize)]
                #[serde(rename_all = "snake_case")]
                enum Key {
                    File,
                    Env,
                }
                let secret = match map.next_key()? {
                    Some(Key::File) => Secret::File {
                        file: map.next_value()?,
                    },
                    Some(Key::Env) => Secret::Env {
                        env: map.next_value()?,
                    },
                    None => return Err(de::Error::custom(SECRET)),
                };
                match map.next_key::<Key>()? {
                    None => Ok(secret),
                    Some(_) => Err(de::Error::custom(SECRET)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl fmt::Display for Time {
    /// The largest units that show it exactly: `1m30s`, `250ms`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        for (unit, name) in [
            (3_600_000_000_000, "h"),
            (60_000_000_000, "m"),
            (1_000_000_000, "s"),
            (1_000_000, "ms"),
            (1_000, "us"),
            (1, "ns"),
        ] {
            if nanos >= unit {
                write!(f, "{}{name}", nanos / unit)?;
                nanos %= unit;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Size {
    /// The largest binary unit that shows it exactly: `64MiB`, `1000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ByteSize(self.0).fmt(f)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time with its unit, such as \"250ms\" or \"1m30s\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Time, E> {
                match parse_duration(text) {
                    Ok(time) => Ok(Time(time)),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, such as \"64MiB\" or 65536")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                match text.parse::<ByteSize>() {
                    Ok(size) => Ok(Size(size.0)),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Size, E> {
                u64::try_from(number)
                    .map(Size)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_shown_as_they_are_written() {
        let shown = |text: &str| Time(parse_duration(text).unwrap()).to_string();
        for text in ["0s", "250ms", "1m30s", "26h", "1us"] {
            assert_eq!(shown(text), text);
        }
        assert_eq!(Size(64 << 20).to_string(), "64MiB");
    }

    #[test]
    fn a_secret_is_read_and_not_shown() {
        let dir = std::env::temp_dir().join(format!("secret-{}", std::process::id()));
        std::fs::write(&dir, "from the file\r\n").unwrap();
        let secret = Secret::File { file: dir.clone() };
        assert_eq!(secret.read().unwrap(), "from the file");
        std::fs::remove_file(&dir).unwrap();
        assert!(
            secret
                .read()
                .unwrap_err()
                .to_string()
                .contains("cannot read the secret")
        );
        let text = Secret::Text("hunter2".to_owned());
        assert_eq!(text.read().unwrap(), "hunter2");
        assert_eq!(format!("{text:?}"), "(hidden)");
        let unset = Secret::Env {
            env: "NO_SUCH_VARIABLE_HERE".to_owned(),
        };
        assert_eq!(
            unset.read().unwrap_err().to_string(),
            "the variable NO_SUCH_VARIABLE_HERE is not set"
        );
    }
}
