//! One setting, stated once.

use std::net::SocketAddr;

use super::{ByteSize, parse_duration};

/// One environment variable of a program: what the parser, the command line, `--help` and the reference page know about
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The variable.
    pub name: &'static str,
    /// Text used when the variable is unset or empty; parsed like a given value. `None` for optional settings.
    pub default: Option<&'static str>,
    /// Whether the program refuses to start without it.
    pub required: bool,
    /// Whether its value must not be shown: not in errors, not in reports. There is no flag for it either, because all
    /// users of a machine see its command lines.
    pub secret: bool,
    /// Name of its flag where that is not made of the variable; see [`Setting::flag_name`].
    pub flag: Option<&'static str>,
    /// The variable whose flag says this too: the setting has no flag, and its variable does not count beside that flag.
    pub covered_by: Option<&'static str>,
    /// What its values are where the default does not tell; see [`Setting::placeholder`].
    pub takes: Option<&'static str>,
    /// What it does, its unit, and what happens when it is too small or too large. One or two sentences.
    pub help: &'static str,
}

impl Setting {
    /// A setting with a default. One that is `true` or `false` by default is a switch.
    #[must_use]
    pub const fn new(name: &'static str, default: &'static str, help: &'static str) -> Self {
        Self {
            default: Some(default),
            ..Self::optional(name, help)
        }
    }

    /// A setting that may be absent.
    #[must_use]
    pub const fn optional(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            default: None,
            required: false,
            secret: false,
            flag: None,
            covered_by: None,
            takes: None,
            help,
        }
    }

    /// A setting without which the program does not start.
    #[must_use]
    pub const fn required(name: &'static str, help: &'static str) -> Self {
        Self {
            required: true,
            ..Self::optional(name, help)
        }
    }

    /// The same setting, its value never shown.
    #[must_use]
    pub const fn secret(self) -> Self {
        Self {
            secret: true,
            ..self
        }
    }

    /// The same setting, its flag named `flag`: where the variable's name is the platform's and says less.
    #[must_use]
    pub const fn flag(self, flag: &'static str) -> Self {
        Self {
            flag: Some(flag),
            ..self
        }
    }

    /// The same setting without a flag: that of the variable `other` says it too, and wins over this variable.
    #[must_use]
    pub const fn covered_by(self, other: &'static str) -> Self {
        Self {
            covered_by: Some(other),
            ..self
        }
    }

    /// The same setting, its values called `placeholder` in help texts.
    #[must_use]
    pub const fn takes(self, placeholder: &'static str) -> Self {
        Self {
            takes: Some(placeholder),
            ..self
        }
    }

    /// Name of the command-line flag: the one that was stated, or the variable without `prefix`, lower case, with dashes
    /// (`DOPPLER_LOG_BYTES` is `log-bytes`). `None` for a setting that has no flag.
    #[must_use]
    pub fn flag_name(&self, prefix: &str) -> Option<String> {
        if self.secret || self.covered_by.is_some() {
            return None;
        }
        let made = || {
            let rest = self.name.strip_prefix(prefix).unwrap_or(self.name);
            rest.to_ascii_lowercase().replace('_', "-")
        };
        Some(self.flag.map_or_else(made, str::to_owned))
    }

    /// Whether it is on or off; its flag then needs no value.
    #[must_use]
    pub fn is_switch(&self) -> bool {
        matches!(self.default, Some("true" | "false"))
    }

    /// What stands for its values in help texts: what the table says, or what the default is (`ADDR`, `N`, `SIZE`, `TIME`),
    /// or what the name ends in (`FILE`, `ADDR`), or `VALUE`.
    #[must_use]
    pub fn placeholder(&self) -> &'static str {
        let default = self.default.unwrap_or_default();
        match self.takes {
            Some(stated) => stated,
            None if self.is_switch() => "true|false",
            None if default.parse::<SocketAddr>().is_ok() => "ADDR",
            None if default.parse::<u64>().is_ok() => "N",
            None if parse_duration(default).is_ok() => "TIME",
            None if default.parse::<ByteSize>().is_ok() => "SIZE",
            None if self.name.ends_with("_FILE") || self.name.ends_with("_PATH") => "FILE",
            None if self.name.ends_with("_ADDR") => "ADDR",
            None => "VALUE",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_made_of_variables_unless_they_are_stated() {
        let setting = Setting::new("DOPPLER_LOG_BYTES", "1", "…");
        let flag = |setting: Setting, prefix| setting.flag_name(prefix);
        assert_eq!(flag(setting, "DOPPLER_").unwrap(), "log-bytes");
        assert_eq!(flag(setting, "").unwrap(), "doppler-log-bytes");
        assert_eq!(flag(setting.flag("bytes"), "DOPPLER_").unwrap(), "bytes");
        assert_eq!(flag(setting.covered_by("OTHER"), "DOPPLER_"), None);
    }

    #[test]
    fn a_secret_has_no_flag() {
        let secret = Setting::optional("PASSWORD", "…").secret();
        assert_eq!(secret.flag_name(""), None);
        assert_eq!(secret.flag("password").flag_name(""), None);
    }

    #[test]
    fn placeholders_say_what_a_value_is() {
        let of = |name, default| Setting::new(name, default, "…").placeholder();
        assert_eq!(of("A", "[::]:1"), "ADDR");
        assert_eq!(of("A", "10"), "N");
        assert_eq!(of("A", "10s"), "TIME");
        assert_eq!(of("A", "10KiB"), "SIZE");
        assert_eq!(of("A", "false"), "true|false");
        assert_eq!(of("A_FILE", ""), "FILE");
        assert_eq!(of("A_ADDR", ""), "ADDR");
        assert_eq!(of("A", "some"), "VALUE");
        let stated = Setting::new("A_FILE", "1s", "…").takes("URL");
        assert_eq!(stated.placeholder(), "URL");
    }
}
