//! The `main` of a program that is nothing but a nozzle.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use loggregator_service::config::{EXIT_CONFIG, ProcessEnv};
use loggregator_service::{Lifecycle, logging};

use crate::config::NozzleConfig;
use crate::kind::Kinds;

/// Runs the nozzle whose configuration is the program's only argument until SIGTERM or Ctrl-C, and drains it then.
///
/// Exit codes are those of every component: 0 after an orderly stop, 64 when the configuration is wrong, 70 when a task
/// failed, 75 when the drain was cut short. The process log is set by `LOG_LEVEL`, `LOG_FORMAT` and `LOG_BURST`.
pub fn main(kinds: &Kinds) -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let (Some(file), None) = (args.next(), args.next()) else {
        return refuse("give one argument: the nozzle's configuration, a TOML file");
    };
    let file = PathBuf::from(file);
    if file.as_os_str() == "--help" {
        return refuse(&help(kinds));
    }
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) => return refuse(&format!("cannot read {}: {error}", file.display())),
    };
    match run(kinds, &file, &text) {
        Ok(code) => code,
        Err(error) => {
            let mut message = error.to_string();
            let mut cause = error.source();
            while let Some(inner) = cause {
                message = format!("{message}: {inner}");
                cause = inner.source();
            }
            refuse(&message)
        }
    }
}

fn run(kinds: &Kinds, file: &Path, text: &str) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let config = NozzleConfig::load(file, text, crate::config::environment(), kinds)?;
    let _guard = logging::init(&logging::Config::from_env(&ProcessEnv)?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let lifecycle = Lifecycle::new();
        lifecycle.watch_signals()?;
        let drain = config.nozzle.drain_timeout.0;
        crate::start(config, kinds, None, &lifecycle).await?;
        Ok(lifecycle.run(drain).await)
    })
}

fn help(kinds: &Kinds) -> String {
    let kinds: Vec<String> = kinds
        .iter()
        .map(|kind| format!("  {:<12} {}", kind.name(), kind.about()))
        .collect();
    format!(
        "runs the nozzle that a TOML file describes; kinds of destinations:\n{}",
        kinds.join("\n")
    )
}

fn refuse(message: &str) -> ExitCode {
    // Without standard error there is nobody to tell.
    writeln!(std::io::stderr(), "{message}").ok();
    ExitCode::from(EXIT_CONFIG)
}
