//! The variables of a Go program, as its table says: types, defaults, and the rules they are parsed by.
//!
//! Source of the rules: `go-envstruct`, which all of the platform's programs use. An empty value is the same as an unset
//! one; a bool is true for exactly `true` or `1` and never wrong; numbers are read as 64 bits and then truncated; a list is
//! split on commas.

use super::faults::{Fault, Faults};
use loggregator_net::TlsFiles;
use loggregator_service::config::{Env, Errors, Setting, go};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// A program that stands in for a Go one.
#[derive(Debug)]
pub struct Program {
    /// Name of the executable.
    pub name: &'static str,
    /// What it is, for `--help`.
    pub about: &'static str,
    /// The Go program's variables in the order of its report.
    pub fields: &'static [Field],
    /// The table of our stage. What is in it and not in `fields` may be set too.
    pub settings: &'static [Setting],
    /// Settings of the stage that the Go program's variables stand for, under other names.
    pub replaced: &'static [&'static str],
    /// What a configuration error begins with.
    pub config_error: &'static str,
    /// Exit code after a configuration error.
    pub config_exit: u8,
    /// The variable with the profiler's port.
    pub pprof_port: &'static str,
    /// Whether its log lines have no fraction of seconds, unless `USE_RFC339` is set.
    pub seconds_only: bool,
}

/// One variable of a Go program.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Name in the configuration report, `Type.Field`.
    pub name: &'static str,
    /// Its Go type.
    pub kind: Kind,
    /// The variable.
    pub setting: Setting,
    /// Whether the report says that it is required.
    pub required: bool,
    /// Whether the report shows its value.
    pub shown: bool,
}

/// The Go type of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `bool`
    Bool,
    /// `int`
    Int,
    /// `int64`
    Int64,
    /// `uint`
    Uint,
    /// `uint16`
    Uint16,
    /// `uint32`
    Uint32,
    /// `time.Duration`
    Duration,
    /// `string`
    Text,
    /// `[]string`
    List,
}

impl Kind {
    /// As Go prints the type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Int64 => "int64",
            Self::Uint => "uint",
            Self::Uint16 => "uint16",
            Self::Uint32 => "uint32",
            Self::Duration => "time.Duration",
            Self::Text => "string",
            Self::List => "[]string",
        }
    }

    fn check(self, text: &str) -> Result<(), go::ParseError> {
        match self {
            Self::Bool | Self::Text | Self::List => Ok(()),
            Self::Int | Self::Int64 => go::parse_int(text).map(drop),
            Self::Uint | Self::Uint16 | Self::Uint32 => go::parse_uint(text).map(drop),
            Self::Duration => go::parse_duration(text).map(drop),
        }
    }
}

impl Field {
    /// A variable that may be unset; then it has its default, which may be empty.
    pub const fn new(
        name: &'static str,
        kind: Kind,
        variable: &'static str,
        default: &'static str,
        help: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            setting: Setting::new(variable, default, help),
            required: false,
            shown: false,
        }
    }

    /// The same, and the parser refuses to go on without it.
    pub const fn required(self) -> Self {
        let setting = Setting {
            default: None,
            required: true,
            ..self.setting
        };
        Self {
            setting,
            required: true,
            ..self
        }
    }

    /// The same, and the report shows its value.
    pub const fn shown(self) -> Self {
        Self {
            shown: true,
            ..self
        }
    }

    /// The same, and its value is a secret.
    pub const fn secret(self) -> Self {
        Self {
            setting: self.setting.secret(),
            ..self
        }
    }
}

impl Program {
    /// The settings of ours that may be set beside the Go program's variables.
    pub fn own_settings(&self) -> Vec<Setting> {
        let is_own = |setting: &&Setting| {
            !self.replaced.contains(&setting.name)
                && self
                    .fields
                    .iter()
                    .all(|field| field.setting.name != setting.name)
        };
        self.settings.iter().filter(is_own).copied().collect()
    }
}

/// The variables of one process, by a program's table.
pub struct Values<'a> {
    program: &'a Program,
    env: &'a dyn Env,
}

impl<'a> Values<'a> {
    /// Checks all variables; what is wrong with them goes to `faults`.
    pub fn read(program: &'a Program, env: &'a dyn Env, faults: &mut Faults) -> Self {
        let values = Self { program, env };
        for field in program.fields {
            let name = field.setting.name;
            let text = values.text(name);
            if let Some(error) = field.kind.check(&text).err().filter(|_| !text.is_empty()) {
                faults.config(format!("{error} ({name})"));
            }
        }
        let mut missing: Vec<&str> = program
            .fields
            .iter()
            .filter(|field| field.required && values.text(field.setting.name).is_empty())
            .map(|field| field.setting.name)
            .collect();
        if !missing.is_empty() {
            missing.sort_unstable();
            faults.config(format!(
                "missing required environment variables: {}",
                missing.join(", ")
            ));
        }
        values
    }

    /// The text of a variable, or its default; empty when it has none.
    pub fn text(&self, name: &str) -> String {
        let given = self.env.get(name).unwrap_or_default();
        if !given.is_empty() {
            return given.to_string_lossy().into_owned();
        }
        let field = self
            .program
            .fields
            .iter()
            .find(|field| field.setting.name == name);
        debug_assert!(
            field.is_some(),
            "{name} is read and not in the table of {}",
            self.program.name
        );
        field
            .and_then(|field| field.setting.default)
            .unwrap_or_default()
            .to_owned()
    }

    /// A path; empty when it is not set.
    pub fn path(&self, name: &str) -> PathBuf {
        self.text(name).into()
    }

    /// The text, `None` when it is not set.
    pub fn optional(&self, name: &str) -> Option<String> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    /// True for exactly `true` and `1`.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.text(name).as_str(), "true" | "1")
    }

    /// An unsigned number; 0 after an error.
    pub fn uint(&self, name: &str) -> u64 {
        go::parse_uint(&self.text(name)).unwrap_or_default()
    }

    /// A port in a field of 16 bits, truncated as Go does.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the rule being implemented"
    )]
    pub fn port16(&self, name: &str) -> u16 {
        self.uint(name) as u16
    }

    /// A port in a field of 32 bits: truncated to those as Go does, and unusable above 65535, which is told to `faults`
    /// with what Go's listener says.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the rule being implemented"
    )]
    pub fn port32(
        &self,
        name: &str,
        faults: &mut Faults,
        fault: impl FnOnce(String) -> Fault,
    ) -> u16 {
        let port = self.uint(name) as u32;
        u16::try_from(port).unwrap_or_else(|_| {
            faults.push(fault(format!("listen tcp: address {port}: invalid port")));
            0
        })
    }

    /// A signed number; 0 after an error.
    pub fn int(&self, name: &str) -> i64 {
        go::parse_int(&self.text(name)).unwrap_or_default()
    }

    /// An interval; zero, which stands for never, when it is not positive.
    pub fn interval(&self, name: &str) -> Duration {
        let nanos = go::parse_duration(&self.text(name)).unwrap_or_default();
        go::Span { nanos }.positive().unwrap_or_default()
    }

    /// A list. Empty elements, which Go keeps, are left out.
    pub fn list(&self, name: &str) -> Vec<String> {
        let text = self.text(name);
        let elements = text
            .split(',')
            .map(str::trim)
            .filter(|element| !element.is_empty());
        elements.map(str::to_owned).collect()
    }

    /// The files of a mutual TLS identity.
    pub fn tls_files(&self, [ca, cert, key]: [&str; 3]) -> TlsFiles {
        TlsFiles {
            ca: self.path(ca),
            cert: self.path(cert),
            key: self.path(key),
        }
    }

    /// The stage's own settings from this environment, read by the stage's parser. The Go program's variables are hidden
    /// from it; those that it must have are `placeholders`. What is wrong goes to `faults`, and is `None`.
    pub fn own<C>(
        &self,
        placeholders: &[(&str, &str)],
        faults: &mut Faults,
        read: impl FnOnce(&dyn Env) -> Result<C, Errors>,
    ) -> Option<C> {
        let own = Own {
            names: self.program.own_settings(),
            env: self.env,
            placeholders,
        };
        match read(&own) {
            Ok(config) => Some(config),
            Err(errors) => {
                errors.0.iter().for_each(|error| faults.config(error));
                None
            }
        }
    }

    /// Where the values come from.
    pub fn env(&self) -> &dyn Env {
        self.env
    }
}

/// An environment in which only settings of ours are set.
struct Own<'a> {
    names: Vec<Setting>,
    env: &'a dyn Env,
    placeholders: &'a [(&'a str, &'a str)],
}

impl Env for Own<'_> {
    fn get(&self, name: &str) -> Option<OsString> {
        if self.names.iter().any(|setting| setting.name == name) {
            return self.env.get(name);
        }
        let (_, value) = self
            .placeholders
            .iter()
            .find(|(placeholder, _)| *placeholder == name)?;
        Some(OsString::from(value))
    }
}
