//! Where settings come from.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// A source of variables. Library code takes one of these and never reads the process environment itself.
pub trait Env {
    /// The value of `name`, or `None` when it is unset. Callers treat an empty value as unset.
    fn get(&self, name: &str) -> Option<OsString>;
}

/// The environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnv;

/// Two sources: what `over` holds wins, everything else comes from `under`, but for what is in `hidden`.
///
/// A command line puts its flags into `over` under the names of their variables, so that flags and variables go
/// through the same parser and the same checks.
#[derive(Debug, Clone)]
pub struct Layered<U> {
    /// Asked first.
    pub over: BTreeMap<String, String>,
    /// Variables that `under` is not asked for, because what is in `over` says them too.
    pub hidden: Vec<&'static str>,
    /// Asked when `over` has no value, or an empty one.
    pub under: U,
}

impl Env for ProcessEnv {
    fn get(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }
}

impl Env for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<OsString> {
        self.get(name).map(OsString::from)
    }
}

impl Env for BTreeMap<&str, &str> {
    fn get(&self, name: &str) -> Option<OsString> {
        self.get(name).map(OsString::from)
    }
}

impl<U: Env> Env for Layered<U> {
    fn get(&self, name: &str) -> Option<OsString> {
        match self.over.get(name) {
            Some(value) if !value.is_empty() => Some(OsString::from(value)),
            _ if self.hidden.contains(&name) => None,
            _ => self.under.get(name),
        }
    }
}

impl<E: Env + ?Sized> Env for &E {
    fn get(&self, name: &str) -> Option<OsString> {
        (**self).get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_variables_and_empty_flags_do_not() {
        let under = BTreeMap::from([("A", "under"), ("B", "under"), ("D", "under")]);
        let over = BTreeMap::from([
            ("A".to_owned(), "over".to_owned()),
            ("B".to_owned(), String::new()),
        ]);
        let hidden = vec!["A", "D"];
        let env = Layered {
            over,
            hidden,
            under,
        };
        assert_eq!(env.get("A").unwrap(), "over");
        assert_eq!(env.get("B").unwrap(), "under");
        assert_eq!(env.get("C"), None);
        assert_eq!(env.get("D"), None);
    }

    #[test]
    fn the_process_environment_is_a_source() {
        assert!(ProcessEnv.get("PATH").is_some());
        assert!(
            ProcessEnv
                .get("LOGGREGATOR_SURELY_UNSET_VARIABLE")
                .is_none()
        );
    }
}
