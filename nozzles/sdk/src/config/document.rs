//! A configuration file, and what is wrong with it.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::model::NozzleConfig;

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Its key: `destination.siem.syslog.url`. Empty for the file as a whole.
    pub key: String,
    /// Line and column, counted from 1, where they are known.
    pub place: Option<(usize, usize)>,
    /// What is wrong, with the value.
    pub message: String,
}

/// Everything that is wrong with a file; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file.
    pub file: PathBuf,
    /// The errors in the order of the file.
    pub errors: Vec<ConfigError>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", self.file.display())?;
            if let Some((line, column)) = error.place {
                write!(f, ":{line}:{column}")?;
            }
            if !error.key.is_empty() {
                write!(f, ": {}", error.key)?;
            }
            write!(f, ": {}", error.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// A table of a file that a kind of destination reads by itself.
#[derive(Debug, Clone)]
pub struct Section {
    file: PathBuf,
    key: String,
    table: toml::Table,
}

impl Section {
    /// A section of this text, as if it stood alone in a file; for tests of kinds.
    ///
    /// # Errors
    /// When the text is no TOML.
    pub fn from_text(text: &str) -> Result<Section, ConfigErrors> {
        let file = PathBuf::from("section.toml");
        match text.parse() {
            Ok(table) => Ok(Section {
                file,
                key: String::new(),
                table,
            }),
            Err(error) => Err(one(&file, "", &error)),
        }
    }

    /// Reads it. `T` should refuse unknown fields.
    ///
    /// # Errors
    /// What is wrong, with the place in the file.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ConfigErrors> {
        self.table
            .clone()
            .try_into()
            .map_err(|error| one(&self.file, &self.key, &error))
    }

    /// An error about one of its keys, with that key's place in the file.
    #[must_use]
    pub fn error(&self, key: &str, message: impl Into<String>) -> ConfigErrors {
        let key = if self.key.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.key)
        };
        ConfigErrors {
            file: self.file.clone(),
            errors: vec![ConfigError {
                key,
                place: None,
                message: message.into(),
            }],
        }
    }
}

fn one(file: &Path, key: &str, error: &toml::de::Error) -> ConfigErrors {
    ConfigErrors {
        file: file.to_owned(),
        errors: vec![ConfigError {
            key: key.to_owned(),
            place: None,
            message: error.message().to_owned(),
        }],
    }
}

impl NozzleConfig {
    /// Reads a configuration from its text; `file` is for errors.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(file: &Path, text: &str) -> Result<NozzleConfig, ConfigErrors> {
        let raw: Raw = toml::from_str(text).map_err(|error| one(file, "", &error))?;
        let mut destinations = Vec::new();
        for table in raw.destination {
            destinations.push(table.finish(file)?);
        }
        Ok(NozzleConfig {
            nozzle: raw.nozzle,
            intake: raw
                .intake
                .unwrap_or(super::IntakeConfig::InProcess(super::InProcessIntake {})),
            select: raw.select,
            buffer: raw.buffer,
            enrichment: raw.enrichment,
            destinations,
            tests: raw.test,
        })
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    nozzle: super::NozzleSection,
    intake: Option<super::IntakeConfig>,
    #[serde(default)]
    select: super::SelectConfig,
    #[serde(default)]
    buffer: super::BufferConfig,
    enrichment: Option<super::EnrichmentConfig>,
    #[serde(default)]
    destination: Vec<RawDestination>,
    #[serde(default)]
    test: Vec<super::TestCase>,
}

#[derive(serde::Deserialize)]
struct RawDestination {
    name: String,
    filter: Option<String>,
    #[serde(default)]
    batch: super::BatchConfig,
    #[serde(default)]
    backlog: super::Backlog,
    #[serde(default)]
    retry: super::RetryConfig,
    #[serde(default)]
    breaker: super::BreakerConfig,
    #[serde(default)]
    rate: super::RateConfig,
    quota: Option<super::QuotaConfig>,
    #[serde(default)]
    dead_letter: super::DeadLetterConfig,
    #[serde(default)]
    dry_run: bool,
    #[serde(flatten)]
    kinds: toml::Table,
}

impl RawDestination {
    fn finish(self, file: &Path) -> Result<super::DestinationConfig, ConfigErrors> {
        let key = format!("destination.{}", self.name);
        let mut kinds = self.kinds.into_iter();
        let (Some((kind, toml::Value::Table(table))), None) = (kinds.next(), kinds.next()) else {
            return Err(ConfigErrors {
                file: file.to_owned(),
                errors: vec![ConfigError {
                    key,
                    place: None,
                    message: "needs exactly one table of a kind, such as [destination.file]"
                        .to_owned(),
                }],
            });
        };
        let section = Section {
            file: file.to_owned(),
            key: format!("{key}.{kind}"),
            table,
        };
        Ok(super::DestinationConfig {
            name: self.name,
            kind,
            section,
            filter: self.filter,
            batch: self.batch,
            backlog: self.backlog,
            retry: self.retry,
            breaker: self.breaker,
            rate: self.rate,
            quota: self.quota,
            dead_letter: self.dead_letter,
            dry_run: self.dry_run,
        })
    }
}
