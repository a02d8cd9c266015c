//! The programs. `loggregator` is the whole pipeline with one command (`up`), one subcommand per component, and the
//! operator's tools (`tail`, `firehose`, `emit`, `status`); the programs of [`drop_in`] stand in for the platform's Go
//! programs, one to one.
//!
//! Everything that people read goes to a terminal in words and colours, to a pipe in bytes as they came, and with
//! `--json` as JSON. Data goes to standard output, what the program itself has to say to standard error.

mod args;
mod component;
mod demo;
pub mod drop_in;
mod emit;
mod exit;
mod http_get;
mod limits;
mod nozzle;
mod output;
mod reader;
mod settings;
mod signal;
mod state;
mod status;
mod tail;
mod target;
mod up;
mod view;

use args::{Cli, Command};
use clap::{CommandFactory as _, Parser as _};
use exit::Exit;
use std::process::ExitCode;

/// The program `loggregator`.
pub fn loggregator() -> ExitCode {
    limits::raise_open_files();
    // While there is one thread: the system's zone data may not be read later.
    let zone = view::LocalTime::read();
    let cli = Cli::parse();
    let palette = cli.color.stderr();
    match run(cli, zone) {
        Ok(code) => code,
        Err(error) if error.is::<output::Closed>() => Exit::Done.into(),
        Err(error) => {
            let label = palette.text(view::Paint::Error, "error:");
            output::tell(&format!("{label} {error:#}"));
            exit::of(&error).into()
        }
    }
}

fn run(cli: Cli, zone: view::LocalTime) -> anyhow::Result<ExitCode> {
    let color = cli.color;
    let exit = match cli.command {
        Command::Agent(args) => return component::run(*args),
        Command::Doppler(args) => return component::run(*args),
        Command::TrafficController(args) => return component::run(*args),
        Command::Rlp(args) => return component::run(*args),
        Command::RlpGateway(args) => return component::run(*args),
        Command::Nozzle(args) => return nozzle::run(args, color),
        Command::Up(args) => return runtime(None)?.block_on(up::run(*args, color)),
        Command::Tail(args) => runtime(Some(2))?.block_on(tail::run_tail(args, color, zone)),
        Command::Firehose(args) => {
            runtime(Some(2))?.block_on(tail::run_firehose(args, color, zone))
        }
        Command::Emit(args) => runtime(Some(1))?.block_on(emit::run(args)),
        Command::Status(args) => runtime(Some(1))?.block_on(status::run(args)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "loggregator", &mut script);
            output::write(&script).map(|()| Exit::Done)
        }
    };
    exit.map(ExitCode::from)
}

/// A runtime with this many workers, one per processor unless given.
fn runtime(workers: Option<usize>) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = workers {
        builder.worker_threads(workers);
    }
    Ok(builder.enable_all().build()?)
}
