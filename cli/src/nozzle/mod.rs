//! `loggregator nozzle`: from a deployment to where logs and metrics should go.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use loggregator_nozzle::Kinds;
use loggregator_nozzle::config::NozzleConfig;
use loggregator_service::config::EXIT_CONFIG;
use loggregator_service::{Lifecycle, logging};

use crate::component::LogTable;
use crate::output;
use crate::settings::Flags;

/// Every kind of destination that this program knows.
pub fn kinds() -> Kinds {
    Kinds::new()
        .with(loggregator_nozzle_file::FileKind)
        .with(loggregator_nozzle_syslog::SyslogKind)
}

/// Options of `nozzle`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct NozzleArgs {
    #[command(subcommand)]
    command: NozzleCommand,
}

const EXAMPLES: &str = "\
Examples:
  loggregator nozzle run audit.toml       run what the file says, until Ctrl-C";

/// What to do.
#[derive(Debug, Clone, Subcommand)]
enum NozzleCommand {
    /// Run the nozzle that a file describes
    Run(RunArgs),
}

/// Options of `nozzle run`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  loggregator nozzle run audit.toml")]
struct RunArgs {
    /// The configuration
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten, next_help_heading = "Process log")]
    log: Flags<LogTable>,
}

/// Does it.
///
/// # Errors
/// When the file cannot be read, or the nozzle not be started.
pub fn run(args: NozzleArgs) -> Result<ExitCode> {
    match args.command {
        NozzleCommand::Run(args) => run_file(args),
    }
}

fn load(file: &Path) -> Result<Result<NozzleConfig, ExitCode>> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let variables = loggregator_nozzle::config::environment();
    Ok(
        NozzleConfig::load(file, &text, variables, &kinds()).map_err(|errors| {
            output::tell(&format!("error: {errors}"));
            ExitCode::from(EXIT_CONFIG)
        }),
    )
}

fn run_file(args: RunArgs) -> Result<ExitCode> {
    let config = match load(&args.file)? {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let log = match crate::component::log_config(args.log) {
        Ok(log) => log,
        Err(errors) => return Ok(crate::component::refuse(&errors)),
    };
    let _guard = logging::init(&log)?;
    crate::runtime(None)?.block_on(async {
        let lifecycle = Lifecycle::new();
        lifecycle
            .watch_signals()
            .context("cannot watch for signals")?;
        let drain = config.nozzle.drain_timeout.0;
        loggregator_nozzle::start(config, &kinds(), None, &lifecycle)
            .await
            .context("cannot start the nozzle")?;
        Ok(lifecycle.run(drain).await)
    })
}
