//! `loggregator nozzle`: from a deployment to where logs and metrics should go.

mod cases;
mod check;
mod example;
pub mod live;
mod load;
pub mod reload;
mod replay;
mod run;
mod summary;
mod tap;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use loggregator_nozzle::Kinds;

use crate::output::ColorArg;

pub use load::{load_again, load_or_refuse};

/// Every kind of destination that this program knows.
pub fn kinds() -> Kinds {
    Kinds::new()
        .with(loggregator_nozzle_file::FileKind)
        .with(loggregator_nozzle_http::HttpKind)
        .with(loggregator_nozzle_syslog::SyslogKind)
        .with(loggregator_nozzle_prometheus::PrometheusKind::new())
        .with(loggregator_nozzle_kafka::KafkaKind)
}

/// Options of `nozzle`.
#[derive(Debug, Clone, Args)]
#[command(after_help = help())]
pub struct NozzleArgs {
    #[command(subcommand)]
    command: NozzleCommand,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
enum NozzleCommand {
    /// Run the nozzle that a file describes
    Run(run::RunArgs),
    /// Say whether a file can be run, and what it promises
    Check(check::CheckArgs),
    /// Run the tests in a file: envelopes, and what should become of them
    Test(cases::TestArgs),
    /// Show what flows in a nozzle that runs, live
    Tap(tap::TapArgs),
    /// Put dead letters back through their destination
    Replay(replay::ReplayArgs),
    /// Print a complete file with comments
    Example(example::ExampleArgs),
    /// Print the kinds of destinations
    List(example::ListArgs),
}

fn help() -> String {
    format!(
        "Destinations:\n{}\n\
         Examples:\n\
         \x20 loggregator nozzle example file > lines.toml    a complete file to start from\n\
         \x20 loggregator nozzle check lines.toml             errors with line and key; what it promises\n\
         \x20 loggregator nozzle run lines.toml               until Ctrl-C, which drains it",
        example::table()
    )
}

/// Does it.
///
/// # Errors
/// When the file cannot be read, or the nozzle not be started.
pub fn run(args: NozzleArgs, color: ColorArg) -> Result<ExitCode> {
    match args.command {
        NozzleCommand::Run(args) => run::run(args, color),
        NozzleCommand::Check(args) => check::run(args, color),
        NozzleCommand::Test(args) => cases::run(args, color),
        NozzleCommand::Tap(args) => tap::run(args, color),
        NozzleCommand::Replay(args) => replay::run(args, color),
        NozzleCommand::Example(args) => example::run(&args),
        NozzleCommand::List(args) => example::list(&args),
    }
}
