//! The command line: the Go programs know none, so only `--help` and `--version` are answered.

use super::go_env::{Field, Program};
use loggregator_service::config::{self, Setting};
use loggregator_service::logging;

/// Exit code for arguments, Go's own for unusable flags.
const EXIT_USAGE: u8 = 2;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// To run.
    Run,
    /// To print this on standard output.
    Print(String),
    /// Something that this program does not know: the exit code, and what to say.
    Refused(u8, String),
}

/// Reads the arguments after the program's name.
pub fn read(program: &Program, mut args: impl Iterator<Item = String>) -> Asked {
    match args.next().as_deref() {
        None => Asked::Run,
        Some("--help" | "-h") => Asked::Print(help(program)),
        Some("--version" | "-V") => {
            Asked::Print(format!("{} {}\n", program.name, env!("CARGO_PKG_VERSION")))
        }
        Some(other) => Asked::Refused(
            EXIT_USAGE,
            format!(
                "{}: unexpected argument {other:?}: this program takes environment variables only; --help lists them",
                program.name
            ),
        ),
    }
}

fn help(program: &Program) -> String {
    let go: Vec<Setting> = program.fields.iter().map(shown).collect();
    format!(
        "{}\n\nIt is configured by environment variables only; an empty one is the same as an unset one.\n\n\
         Variables of the platform's program of this name:\n{}\nMore variables, for what that program does not have:\n{}{}",
        program.about,
        config::help(&go),
        config::help(&program.own_settings()),
        config::help(&log_settings()),
    )
}

/// The program's variables as a section of the reference page.
pub fn markdown(program: &Program) -> String {
    let go: Vec<Setting> = program.fields.iter().map(shown).collect();
    let (_, about) = program.about.split_once(": ").unwrap_or_default();
    let intro = format!(
        "{}{} Announces its port and its profiler's on standard error.",
        about[..1].to_uppercase(),
        &about[1..]
    );
    format!(
        "{}\nBeside them, the settings of this component in [configuration](configuration.md) but for `{}`; of the process\n\
         log, `LOG_LEVEL` and `LOG_BURST`.\n",
        config::markdown(program.name, &intro, None, &go),
        program.replaced.join("`, `")
    )
}

fn shown(field: &Field) -> Setting {
    field.setting
}

/// The settings of the process log that may be set; the form of its lines is the Go program's.
pub fn log_settings() -> Vec<Setting> {
    let all = logging::SETTINGS.iter();
    all.filter(|setting| setting.name != "LOG_FORMAT")
        .copied()
        .collect()
}
