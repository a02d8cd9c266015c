//! A component's settings table as command-line flags.
//!
//! Each setting is a variable with its help and default; the flag is the variable's name without the component's
//! prefix. Values go through the component's own parser, under the variable's name, so that flag and variable obey the
//! same rules.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use loggregator_service::config::{Layered, ProcessEnv, Setting};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::marker::PhantomData;

/// A component with a table of settings.
pub trait Table: Clone + Debug + Send + Sync + 'static {
    /// What its variables begin with.
    const PREFIX: &'static str;
    /// Its settings.
    const SETTINGS: &'static [Setting];
}

/// The flags that were given, under the names of their variables.
#[derive(Debug, Clone)]
pub struct Flags<T> {
    given: BTreeMap<String, String>,
    table: PhantomData<T>,
}

impl<T: Table> Flags<T> {
    /// The flags over the variables of this process.
    pub fn env(self) -> Layered<ProcessEnv> {
        Layered {
            over: self.given,
            under: ProcessEnv,
        }
    }
}

impl<T: Table> FromArgMatches for Flags<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = T::SETTINGS.iter().filter_map(|setting| {
            let value = matches.get_one::<String>(setting.name)?;
            Some((setting.name.to_owned(), value.clone()))
        });
        Ok(Self {
            given: given.collect(),
            table: PhantomData,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.given.extend(Self::from_arg_matches(matches)?.given);
        Ok(())
    }
}

impl<T: Table> Args for Flags<T> {
    fn augment_args(command: Command) -> Command {
        command.args(T::SETTINGS.iter().map(|setting| {
            let mut help = format!(
                "{} [env: {}]",
                setting.help.trim_end_matches('.'),
                setting.name
            );
            if let Some(default) = setting.default {
                help.push_str(&format!(" [default: {default}]"));
            }
            // Clap wants names that live as long as the program; there is one table per process.
            let flag: &'static str = setting.flag(T::PREFIX).leak();
            Arg::new(setting.name)
                .long(flag)
                .value_name(value_name(setting.name))
                .help(help)
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// What a value is, by the last word of the variable.
fn value_name(variable: &str) -> &'static str {
    match variable.rsplit('_').next() {
        Some("FILE" | "PATH") => "FILE",
        Some("ADDR" | "ADDRESS") => "ADDR",
        Some("DOPPLERS" | "ADDRS") => "HOST:PORT,…",
        Some("BYTES" | "LINE" | "MESSAGE") => "SIZE",
        Some("INTERVAL" | "LINGER" | "TIMEOUT") => "TIME",
        Some("ENVELOPES" | "STREAMS" | "COUNTERS" | "CONNECTIONS") => "N",
        _ => "VALUE",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use loggregator_service::config::Env as _;

    #[derive(Debug, Clone)]
    struct Example;

    impl Table for Example {
        const PREFIX: &'static str = "EXAMPLE_";
        const SETTINGS: &'static [Setting] = &[
            Setting::required("EXAMPLE_CA_FILE", "The authority."),
            Setting::new("EXAMPLE_SURELY_UNSET", "7", "A number."),
        ];
    }

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags<Example>,
    }

    #[test]
    fn flags_arrive_under_the_variables_names() {
        let line = Line::try_parse_from(["x", "--ca-file", "ca.crt"]).unwrap();
        let env = line.flags.env();
        assert_eq!(env.get("EXAMPLE_CA_FILE").unwrap(), "ca.crt");
        assert_eq!(env.get("EXAMPLE_SURELY_UNSET"), None);
        assert!(Line::try_parse_from(["x", "--unknown", "1"]).is_err());
    }
}
