//! One setting, stated once.

/// One environment variable of a program: what the parser, `--help` and the reference page know about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The variable.
    pub name: &'static str,
    /// Text used when the variable is unset or empty; parsed like a given value. `None` for optional settings.
    pub default: Option<&'static str>,
    /// Whether the program refuses to start without it.
    pub required: bool,
    /// Whether its value must not be shown: not in errors, not in reports.
    pub secret: bool,
    /// What it does, its unit, and what happens when it is too small or too large. One or two sentences.
    pub help: &'static str,
}

impl Setting {
    /// A setting with a default.
    #[must_use]
    pub const fn new(name: &'static str, default: &'static str, help: &'static str) -> Self {
        Self {
            name,
            default: Some(default),
            required: false,
            secret: false,
            help,
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
            help,
        }
    }

    /// A setting without which the program does not start.
    #[must_use]
    pub const fn required(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            default: None,
            required: true,
            secret: false,
            help,
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

    /// Name of the command-line flag: the variable without `prefix`, lower case, with dashes (`LOG_BYTES` is
    /// `log-bytes`).
    #[must_use]
    pub fn flag(&self, prefix: &str) -> String {
        self.name
            .strip_prefix(prefix)
            .unwrap_or(self.name)
            .to_ascii_lowercase()
            .replace('_', "-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_derived_from_variables() {
        let setting = Setting::new("DOPPLER_LOG_BYTES", "1", "…");
        assert_eq!(setting.flag("DOPPLER_"), "log-bytes");
        assert_eq!(setting.flag(""), "doppler-log-bytes");
    }
}
