//! A component's settings table as command-line flags.
//!
//! Each setting is a variable with its help and default; its flag is what the table says, or the variable's name without
//! the component's prefix. Values go through the component's own parser, under the variable's name, so that flag and
//! variable obey the same rules.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use loggregator_service::config::{self, Env, Layered, Setting};
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
    /// The flags over the variables of `under`.
    pub fn over<E: Env>(self, under: E) -> Layered<E> {
        let covered = |setting: &&Setting| {
            let other = setting.covered_by;
            other.is_some_and(|other| self.given.contains_key(other))
        };
        let hidden = T::SETTINGS.iter().filter(covered);
        Layered {
            hidden: hidden.map(|setting| setting.name).collect(),
            over: self.given,
            under,
        }
    }
}

/// The secrets of a table as a section of a help text; empty where it has none.
pub fn secrets<T: Table>() -> String {
    let secret = T::SETTINGS.iter().filter(|setting| setting.secret);
    let secret: Vec<Setting> = secret.copied().collect();
    if secret.is_empty() {
        return String::new();
    }
    format!(
        "Variables without a flag, since everybody on a machine sees its command lines:\n{}\n",
        config::help(&secret)
    )
}

impl<T: Table> FromArgMatches for Flags<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = T::SETTINGS.iter().filter_map(|setting| {
            setting.flag_name(T::PREFIX)?;
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
        command.args(
            T::SETTINGS
                .iter()
                .filter_map(|setting| argument(setting, T::PREFIX)),
        )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The setting's flag, if it has one.
fn argument(setting: &Setting, prefix: &str) -> Option<Arg> {
    // Clap wants names that live as long as the program; there is one table per process.
    let flag: &'static str = setting.flag_name(prefix)?.leak();
    let argument = Arg::new(setting.name)
        .long(flag)
        .value_name(setting.placeholder())
        .help(help(setting));
    Some(if setting.is_switch() {
        // Alone it turns the switch on. A word that is neither would turn it off in silence.
        argument
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(PossibleValuesParser::new(["true", "false"]))
            .hide_possible_values(true)
    } else {
        argument
    })
}

fn help(setting: &Setting) -> String {
    let text = setting.help.trim_end_matches('.');
    let note = match (setting.required, setting.default) {
        (true, _) => " [required]".to_owned(),
        (false, None | Some("")) => String::new(),
        (false, Some(default)) => format!(" [default: {default}]"),
    };
    format!("{text} [env: {}]{note}", setting.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory as _, Parser};

    #[derive(Debug, Clone)]
    struct Example;

    impl Table for Example {
        const PREFIX: &'static str = "EXAMPLE_";
        const SETTINGS: &'static [Setting] = &[
            Setting::required("EXAMPLE_CA_FILE", "The authority."),
            Setting::new("EXAMPLE_COUNT", "7", "A number."),
            Setting::new("EXAMPLE_ADDR", "127.0.0.1:1", "An address.").flag("listen-addr"),
            Setting::optional("EXAMPLE_PORT", "Its port.").covered_by("EXAMPLE_ADDR"),
            Setting::new("EXAMPLE_OPEN", "false", "true: open."),
            Setting::new("EXAMPLE_LIST", "", "A list."),
            Setting::optional("EXAMPLE_PASSWORD", "The password.").secret(),
        ];
    }

    #[derive(Debug, Parser)]
    #[command(term_width = 0)]
    struct Line {
        #[command(flatten)]
        flags: Flags<Example>,
    }

    /// What the component reads, given these flags and variables.
    fn read(
        flags: &[&str],
        variables: &[(&'static str, &'static str)],
        name: &str,
    ) -> Option<String> {
        let under: BTreeMap<&str, &str> = variables.iter().copied().collect();
        let line = Line::try_parse_from(["x"].iter().chain(flags)).unwrap();
        let value = line.flags.over(under).get(name);
        value.map(|value| value.into_string().unwrap())
    }

    #[test]
    fn flags_arrive_under_the_variables_names_and_win() {
        let variable = ("EXAMPLE_CA_FILE", "variable");
        let value = |flags| read(flags, &[variable], variable.0).unwrap();
        assert_eq!(value(&["--ca-file", "flag"]), "flag");
        assert_eq!(value(&["--ca-file=flag"]), "flag");
        assert_eq!(value(&[]), "variable");
        assert!(Line::try_parse_from(["x", "--unknown", "1"]).is_err());
    }

    #[test]
    fn a_flag_covers_the_variables_that_say_a_part_of_it() {
        let port = ("EXAMPLE_PORT", "9");
        let value = |flags| read(flags, &[port], port.0);
        assert_eq!(value(&[]).unwrap(), "9");
        assert_eq!(value(&["--listen-addr", "[::]:1"]), None);
        assert!(Line::try_parse_from(["x", "--port", "1"]).is_err());
    }

    #[test]
    fn a_switch_may_stand_alone() {
        let value = |flags| read(flags, &[("EXAMPLE_OPEN", "1")], "EXAMPLE_OPEN").unwrap();
        assert_eq!(value(&[]), "1");
        assert_eq!(value(&["--open"]), "true");
        assert_eq!(value(&["--open", "--count", "1"]), "true");
        assert_eq!(value(&["--open=true"]), "true");
        assert_eq!(value(&["--open=false"]), "false");
        for refused in ["--open=yes", "--open="] {
            assert!(Line::try_parse_from(["x", refused]).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_secret_comes_from_its_variable_only() {
        assert!(Line::try_parse_from(["x", "--password", "p"]).is_err());
        let value = read(&[], &[("EXAMPLE_PASSWORD", "p")], "EXAMPLE_PASSWORD");
        assert_eq!(value.unwrap(), "p");
        assert_eq!(
            secrets::<Example>(),
            "Variables without a flag, since everybody on a machine sees its command lines:
  EXAMPLE_PASSWORD
        The password.

"
        );
    }

    #[test]
    fn help_says_what_each_takes_and_its_default() {
        assert_eq!(
            Line::command().render_help().to_string(),
            "Usage: loggregator [OPTIONS]

Options:
      --ca-file <FILE>       The authority [env: EXAMPLE_CA_FILE] [required]
      --count <N>            A number [env: EXAMPLE_COUNT] [default: 7]
      --listen-addr <ADDR>   An address [env: EXAMPLE_ADDR] [default: 127.0.0.1:1]
      --open[=<true|false>]  true: open [env: EXAMPLE_OPEN] [default: false]
      --list <VALUE>         A list [env: EXAMPLE_LIST]
  -h, --help                 Print help
"
        );
    }
}
