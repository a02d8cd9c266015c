//! Reads settings and collects everything that is wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::process::ExitCode;

use super::{EXIT_CONFIG, Env, Setting, Value};

/// Reads the settings of one table from a source. Errors are collected; [`Reader::finish`] reports all of them.
pub struct Reader<'a> {
    env: &'a dyn Env,
    settings: &'a [Setting],
    errors: Vec<Error>,
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A required variable is unset or empty.
    #[error("{name} is required and not set")]
    Missing {
        /// The variable.
        name: String,
    },
    /// A variable's value cannot be used.
    #[error("{name}={value}: {reason}")]
    Invalid {
        /// The variable.
        name: String,
        /// Its value; `(hidden)` for secrets.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Settings contradict each other.
    #[error("{0}")]
    Conflict(String),
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors(pub Vec<Error>);

impl<'a> Reader<'a> {
    /// A reader of `settings` from `env`.
    #[must_use]
    pub fn new(env: &'a dyn Env, settings: &'a [Setting]) -> Self {
        Self {
            env,
            settings,
            errors: Vec::new(),
        }
    }

    /// The value of a required setting, or of one with a default.
    ///
    /// After an error this is [`Value::placeholder`], and [`Reader::finish`] will fail.
    pub fn value<T: Value>(&mut self, name: &str) -> T {
        match self.text(name) {
            Some(text) => self.parse(name, &text).unwrap_or_else(T::placeholder),
            None => {
                self.errors.push(Error::Missing {
                    name: name.to_owned(),
                });
                T::placeholder()
            }
        }
    }

    /// The value of a setting that may be absent.
    pub fn optional<T: Value>(&mut self, name: &str) -> Option<T> {
        let missing_is_error = self.setting(name).required;
        match self.text(name) {
            Some(text) => self.parse(name, &text),
            None => {
                if missing_is_error {
                    self.errors.push(Error::Missing {
                        name: name.to_owned(),
                    });
                }
                None
            }
        }
    }

    /// A comma-separated list, each element trimmed. Empty elements (a trailing comma) are left out.
    pub fn list<T: Value>(&mut self, name: &str) -> Vec<T> {
        let text = self.optional::<String>(name).unwrap_or_default();
        let elements: Vec<&str> = text
            .split(',')
            .map(str::trim)
            .filter(|e| !e.is_empty())
            .collect();
        elements
            .into_iter()
            .filter_map(|element| self.parse(name, element))
            .collect()
    }

    /// A comma-separated list of `key:value`, split at the first colon.
    pub fn map(&mut self, name: &str) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        for element in self.list::<String>(name) {
            match element.split_once(':') {
                Some((key, value)) => {
                    map.insert(key.to_owned(), value.to_owned());
                }
                None => self.reject(name, &format!("{element:?} is not of the form key:value")),
            }
        }
        map
    }

    /// Records that the value of `name`, though well-formed, cannot be used.
    pub fn reject(&mut self, name: &str, reason: &str) {
        let value = self.text(name).unwrap_or_default();
        self.invalid(name, &value, reason);
    }

    /// Records that settings contradict each other. `reason` names them.
    pub fn conflict(&mut self, reason: impl Into<String>) {
        self.errors.push(Error::Conflict(reason.into()));
    }

    /// Every setting with the text in effect (defaults included, secrets hidden), for a report at start.
    #[must_use]
    pub fn effective(&self) -> Vec<(&'static str, String)> {
        self.settings
            .iter()
            .map(|setting| {
                let text = self.given(setting.name);
                let shown = match (
                    setting.secret,
                    text.or_else(|| setting.default.map(str::to_owned)),
                ) {
                    (_, None) => String::new(),
                    (true, Some(_)) => "(hidden)".to_owned(),
                    (false, Some(text)) => text,
                };
                (setting.name, shown)
            })
            .collect()
    }

    /// `config`, unless anything was wrong.
    ///
    /// # Errors
    /// All errors met, in the order of reading.
    pub fn finish<C>(self, config: C) -> Result<C, Errors> {
        if self.errors.is_empty() {
            Ok(config)
        } else {
            Err(Errors(self.errors))
        }
    }

    fn setting(&self, name: &str) -> Setting {
        match self.settings.iter().find(|s| s.name == name) {
            Some(setting) => *setting,
            None => {
                debug_assert!(false, "{name} is read but missing from its settings table");
                Setting::optional("", "")
            }
        }
    }

    /// The given text or the default; unset and empty are the same. Text that is not UTF-8 is an error.
    fn text(&mut self, name: &str) -> Option<String> {
        let default = self.setting(name).default.map(str::to_owned);
        match self.env.get(name).map(std::ffi::OsString::into_string) {
            Some(Ok(text)) if !text.is_empty() => Some(text),
            Some(Err(text)) => {
                self.invalid(name, &text.to_string_lossy(), "not valid UTF-8");
                Some(String::new())
            }
            _ => default,
        }
    }

    fn given(&self, name: &str) -> Option<String> {
        self.env
            .get(name)
            .map(|text| text.to_string_lossy().into_owned())
            .filter(|text| !text.is_empty())
    }

    fn parse<T: Value>(&mut self, name: &str, text: &str) -> Option<T> {
        if text.is_empty() {
            return None; // not UTF-8, already recorded
        }
        match T::parse(text) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.invalid(name, text, &reason);
                None
            }
        }
    }

    fn invalid(&mut self, name: &str, value: &str, reason: &str) {
        let secret = self.setting(name).secret;
        let value = if secret {
            "(hidden)".to_owned()
        } else {
            format!("{value:?}")
        };
        self.errors.push(Error::Invalid {
            name: name.to_owned(),
            value,
            reason: reason.to_owned(),
        });
    }
}

impl Errors {
    /// The code the program ends with: [`EXIT_CONFIG`].
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(EXIT_CONFIG)
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "configuration: {one}"),
            all => {
                write!(f, "configuration: {} errors", all.len())?;
                all.iter().try_for_each(|error| write!(f, "\n  {error}"))
            }
        }
    }
}

impl std::error::Error for Errors {}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::super::{ByteSize, go};
    use super::*;

    const SETTINGS: &[Setting] = &[
        Setting::new("ADDR", "127.0.0.1:8082", "Address."),
        Setting::new("BYTES", "1MiB", "Bytes."),
        Setting::new("GRACE", "60s", "Grace."),
        Setting::optional("UDP", "Address or nothing."),
        Setting::required("CA", "File."),
        Setting::required("KEY", "File."),
        Setting::optional("PEERS", "List."),
        Setting::optional("TAGS", "Map."),
        Setting::optional("PASSWORD", "Secret.").secret(),
        Setting::new("PORT", "0", "Port."),
    ];

    fn read<T>(vars: &[(&str, &str)], f: impl FnOnce(&mut Reader<'_>) -> T) -> Result<T, Errors> {
        let env: BTreeMap<&str, &str> = vars.iter().copied().collect();
        let mut reader = Reader::new(&env, SETTINGS);
        let config = f(&mut reader);
        reader.finish(config)
    }

    #[test]
    fn defaults_apply_to_unset_and_empty_variables() {
        let addr = read(&[("ADDR", "")], |r| r.value::<SocketAddr>("ADDR")).unwrap();
        assert_eq!(addr, "127.0.0.1:8082".parse().unwrap());
        assert_eq!(
            read(&[], |r| r.value::<ByteSize>("BYTES")).unwrap(),
            ByteSize(1 << 20)
        );
        assert_eq!(
            read(&[("UDP", "")], |r| r.optional::<SocketAddr>("UDP")).unwrap(),
            None
        );
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let errors = read(
            &[("ADDR", "nowhere"), ("GRACE", "5"), ("PASSWORD", "hunter2")],
            |r| {
                let _: SocketAddr = r.value("ADDR");
                let _: Duration = r.value("GRACE");
                let _: String = r.value("CA");
                let _: String = r.value("KEY");
                r.reject("PASSWORD", "too short");
                r.conflict("BYTES must be at least GRACE");
            },
        )
        .unwrap_err();
        assert_eq!(
            errors.to_string(),
            "configuration: 6 errors
  ADDR=\"nowhere\": not an address such as 127.0.0.1:8082
  GRACE=\"5\": time: missing unit in duration \"5\"
  CA is required and not set
  KEY is required and not set
  PASSWORD=(hidden): too short
  BYTES must be at least GRACE"
        );
    }

    #[test]
    fn one_error_is_one_line() {
        let errors = read(&[], |r| r.value::<String>("CA")).unwrap_err();
        assert_eq!(
            errors.to_string(),
            "configuration: CA is required and not set"
        );
    }

    #[test]
    fn lists_are_trimmed_and_skip_empty_elements() {
        let peers = read(&[("PEERS", " a:1, b:2 ,")], |r| r.list::<String>("PEERS")).unwrap();
        assert_eq!(peers, ["a:1", "b:2"]);
        let none = read(&[], |r| r.list::<String>("PEERS")).unwrap();
        assert!(none.is_empty());
        assert!(
            read(&[("PEERS", "127.0.0.1:1,x")], |r| r
                .list::<SocketAddr>("PEERS"))
            .is_err()
        );
    }

    #[test]
    fn maps_split_at_the_first_colon() {
        let tags = read(&[("TAGS", "deployment:cf, ip:::1,empty:")], |r| {
            r.map("TAGS")
        })
        .unwrap();
        let expected = [("deployment", "cf"), ("ip", "::1"), ("empty", "")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(tags, BTreeMap::from(expected));
        let error = read(&[("TAGS", "a:1,oops")], |r| r.map("TAGS")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "configuration: TAGS=\"a:1,oops\": \"oops\" is not of the form key:value"
        );
    }

    #[test]
    fn go_ports_are_truncated_where_asked_for_and_refused_elsewhere() {
        let vars = [("PORT", "70000")];
        assert_eq!(
            read(&vars, |r| r.value::<go::Uint<u16>>("PORT")).unwrap(),
            go::Uint(4464)
        );
        assert!(read(&vars, |r| r.value::<u16>("PORT")).is_err());
    }

    #[test]
    fn a_value_that_is_not_utf8_is_named() {
        use std::os::unix::ffi::OsStringExt as _;
        struct Odd;
        impl Env for Odd {
            fn get(&self, _: &str) -> Option<std::ffi::OsString> {
                Some(std::ffi::OsString::from_vec(vec![b'a', 0xff]))
            }
        }
        let mut reader = Reader::new(&Odd, SETTINGS);
        let _: String = reader.value("CA");
        assert_eq!(reader.finish(()).unwrap_err().0.len(), 1);
    }

    #[test]
    fn the_report_shows_what_is_in_effect_and_no_secret() {
        let env = BTreeMap::from([("ADDR", "127.0.0.1:1"), ("PASSWORD", "hunter2")]);
        let effective: BTreeMap<_, _> = Reader::new(&env, SETTINGS)
            .effective()
            .into_iter()
            .collect();
        assert_eq!(effective["ADDR"], "127.0.0.1:1");
        assert_eq!(effective["BYTES"], "1MiB");
        assert_eq!(effective["PASSWORD"], "(hidden)");
        assert_eq!(effective["CA"], "");
    }
}
