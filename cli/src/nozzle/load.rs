//! From a file to a configuration, or to words about what is wrong with it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use loggregator_envelope::KindSet;
use loggregator_nozzle::config::{
    ConfigError, ConfigErrors, IntakeConfig, Loader, NozzleConfig, RlpIntake, environment,
};
use loggregator_nozzle::intake::{self, IntakeError};
use loggregator_service::config::EXIT_CONFIG;

use super::kinds;
use crate::output;
use crate::state::{Endpoints, StateError};
use crate::target::StateArgs;
use crate::view::{Paint, Palette};

/// A file and what it says.
pub struct Loaded {
    /// The text, for excerpts.
    pub text: String,
    /// What it says, or everything that is wrong with it.
    pub config: Result<NozzleConfig, ConfigErrors>,
}

/// Reads a file with the variables around it.
///
/// # Errors
/// When there is no such file.
pub fn load(file: &Path, state: Option<PathBuf>) -> Result<Loaded> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let kinds = kinds();
    let mut loader = Loader::new(&kinds).variables(environment());
    if let Some(state) = state {
        loader = loader.state_dir(state);
    }
    let config = loader.load(file, &text).and_then(|config| {
        check_intake(&config).map_err(|error| of_intake(file, &error))?;
        Ok(config)
    });
    Ok(Loaded { text, config })
}

/// Whether the intake can do what is asked of it.
fn check_intake(config: &NozzleConfig) -> Result<(), IntakeError> {
    let request = intake::request(&config.select, &config.nozzle.name, KindSet::ALL, None)?;
    intake::check(&config.intake, &request)
}

/// What the intake says begins with the key that it is about.
fn of_intake(file: &Path, error: &IntakeError) -> ConfigErrors {
    let text = error.to_string();
    let (key, message) = text.split_once(": ").unwrap_or(("intake", &text));
    ConfigErrors {
        file: file.to_owned(),
        errors: vec![ConfigError {
            key: key.to_owned(),
            place: None,
            width: 0,
            variable: None,
            message: message.to_owned(),
        }],
    }
}

/// The configuration; or the exit code, after the errors were told.
///
/// # Errors
/// When there is no such file.
pub fn load_or_refuse(
    file: &Path,
    state: Option<PathBuf>,
    palette: Palette,
) -> Result<Result<NozzleConfig, ExitCode>> {
    let loaded = load(file, state)?;
    Ok(loaded.config.map_err(|errors| {
        output::tell(&render(&errors, &loaded.text, palette));
        ExitCode::from(EXIT_CONFIG)
    }))
}

/// The configuration as the file is now; in words what is wrong with it.
///
/// # Errors
/// The words.
pub fn load_again(
    file: &Path,
    state: Option<PathBuf>,
    palette: Palette,
) -> Result<NozzleConfig, String> {
    let loaded = load(file, state).map_err(|error| format!("{error:#}"))?;
    let Loaded { text, config } = loaded;
    config.map_err(|errors| render(&errors, &text, palette))
}

/// For people on a terminal with the lines that are wrong, otherwise one line per error.
pub fn render(errors: &ConfigErrors, text: &str, palette: Palette) -> String {
    if output::stderr_is_terminal() {
        with_excerpts(errors, text, palette)
    } else {
        errors.to_string()
    }
}

fn with_excerpts(errors: &ConfigErrors, text: &str, palette: Palette) -> String {
    let mut shown = String::new();
    for error in &errors.errors {
        let label = palette.text(Paint::Error, "error:");
        let location = errors.location(error);
        shown.push_str(&format!("{label} {}\n", error.message));
        let key = if error.key.is_empty() {
            String::new()
        } else {
            format!("  {}", error.key)
        };
        let Some(excerpt) = error.excerpt(text) else {
            shown.push_str(&format!("  in {location}{key}\n\n"));
            continue;
        };
        let number = excerpt.line.to_string();
        let gutter = " ".repeat(number.len());
        // A tab before the mark stays one, so that the mark stands where it should.
        let indent: String = excerpt
            .text
            .chars()
            .take(excerpt.at)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        let mark = palette.text(Paint::Error, &"^".repeat(excerpt.width));
        shown.push_str(&format!(
            "{gutter}--> {location}{key}\n{gutter} |\n{number} | {}\n{gutter} | {indent}{mark}\n\n",
            excerpt.text
        ));
    }
    let count = crate::view::count(errors.errors.len() as u64, "error");
    shown.push_str(&format!("{count} in {}", errors.file.display()));
    shown
}

/// Lets a configuration without an intake read from the `up` that runs on this machine; says from where.
///
/// # Errors
/// When none runs, or its addresses cannot be read.
pub fn read_from_up(config: &mut NozzleConfig, state: &StateArgs) -> Result<Option<String>> {
    if !matches!(config.intake, IntakeConfig::InProcess(_)) {
        return Ok(None);
    }
    let dir = state.dir();
    let endpoints = dir.endpoints().map_err(|error| match error {
        StateError::NotRunning { .. } | StateError::Ended { .. } => anyhow::Error::new(error)
            .context("the file has no [intake], and there is no running `up` to read from instead"),
        other => other.into(),
    })?;
    config.intake = IntakeConfig::Rlp(intake_of(&endpoints)?);
    Ok(Some(dir.path().display().to_string()))
}

fn intake_of(endpoints: &Endpoints) -> Result<RlpIntake> {
    let rlp = endpoints
        .rlp
        .as_ref()
        .context("the running `up` has no reverse log proxy; it is of an earlier version")?;
    Ok(RlpIntake::new(
        vec![rlp.grpc.clone()],
        &endpoints.ca_file,
        &endpoints.client_cert_file,
        &endpoints.client_key_file,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intake_that_cannot_do_what_is_asked_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("a.toml");
        let text = "[nozzle]\nname = \"a\"\n[select]\ndeterministic_name = \"x\"\n\
                    [intake.websocket]\nurl = \"wss://a\"\n[[destination]]\nname = \"x\"\n[destination.file]\npath = \"-\"\n";
        std::fs::write(&file, text).unwrap();
        let errors = load(&file, None).unwrap().config.unwrap_err();
        assert_eq!(
            errors.to_string(),
            format!(
                "{}: select.deterministic_name: a WebSocket's members share at random; use [intake.rlp] or [intake.gateway]",
                file.display()
            )
        );
    }

    #[test]
    fn errors_are_shown_in_the_line_that_is_wrong() {
        let text = "[nozzle]\nname = \"a b\"\n\tnoise = 1\n";
        let errors = NozzleConfig::parse(Path::new("a.toml"), text).unwrap_err();
        assert_eq!(
            with_excerpts(&errors, text, Palette::new(false)),
            "\
error: is missing: at least one [[destination]] is needed
  in a.toml  destination

error: `a b` cannot be the name of a file: write letters, digits, `-`, `_` and `.`, at most 64, a letter or digit first
 --> a.toml:2:8  nozzle.name
  |
2 | name = \"a b\"
  |        ^^^^^

error: unknown key; known here: `name`, `admin_addr`, `max_silence`, `max_stuck`, `drain_timeout`
 --> a.toml:3:2  nozzle.noise
  |
3 | \tnoise = …
  | \t^^^^^

3 errors in a.toml"
        );
    }
}
