//! `nozzle run`: runs what a file says.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use loggregator_nozzle::config::NozzleConfig;
use loggregator_service::{Lifecycle, logging};

use super::kinds;
use super::live::Live;
use super::load::{load_again, load_or_refuse, read_from_up};
use super::reload::Again;
use super::summary::Summary;
use crate::component::LogTable;
use crate::output::{self, ColorArg};
use crate::settings::Flags;
use crate::target::StateArgs;
use crate::view::Paint;

const EXAMPLES: &str = "\
Examples:
  loggregator nozzle run audit.toml               until Ctrl-C, which drains it
  loggregator nozzle run --dry-run audit.toml     counts and renders everything, sends nothing
  kill -HUP PID                                   what changed in the file is taken over, the buffer is kept
  NOZZLE__DESTINATION__SIEM__SYSLOG__URL=syslog-tls://siem:6514 loggregator nozzle run audit.toml

A file without [intake] reads from the `loggregator up` that runs on this machine.
Exit code 0 after an orderly stop, 64 when the file is wrong, 70 when a part failed, 75 when the drain was cut short.";

/// Options of `nozzle run`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    /// The configuration
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Send nothing to any destination; filter, render and count as if
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten, next_help_heading = "Process log")]
    log: Flags<LogTable>,
}

/// Runs it.
///
/// # Errors
/// When the file cannot be read, or the nozzle not be started.
pub fn run(args: RunArgs, color: ColorArg) -> Result<ExitCode> {
    let palette = color.stderr();
    let mut config = match load_or_refuse(&args.file, None, palette)? {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let log = match crate::component::log_config(args.log.clone()) {
        Ok(log) => log,
        Err(errors) => return Ok(crate::component::refuse(&errors)),
    };
    let _guard = logging::init(&log)?;
    if let Some(dir) = adapt(&mut config, &args)? {
        output::tell(&format!(
            "no [intake] in the file: reading from the `up` of {dir}"
        ));
    }
    crate::runtime(None)?.block_on(async {
        let lifecycle = Lifecycle::new();
        lifecycle
            .watch_signals()
            .context("cannot watch for signals")?;
        let drain = config.nozzle.drain_timeout.0;
        let kinds = kinds();
        let summary = Summary::of(&config, &kinds)?;
        let live = Live::start(config, kinds, None, &lifecycle).await;
        let live = live.context("cannot start the nozzle")?;
        let again: Again = Box::new(move || {
            let mut config = load_again(&args.file, None, palette)?;
            let adapted = adapt(&mut config, &args).map(drop);
            adapted.map_err(|error| format!("{error:#}"))?;
            Ok(config)
        });
        super::reload::watch(vec![(live, again)], &lifecycle)?;
        output::tell(summary.render().trim_end());
        for warning in &summary.warnings {
            output::tell(&format!(
                "{} {warning}",
                palette.text(Paint::Notice, "warning:")
            ));
        }
        Ok(lifecycle.run(drain).await)
    })
}

/// What the command line and the machine add to the file; the folder of the `up` that it reads from, if it does.
fn adapt(config: &mut NozzleConfig, args: &RunArgs) -> Result<Option<String>> {
    if args.dry_run {
        for destination in &mut config.destinations {
            destination.dry_run = true;
        }
    }
    read_from_up(config, &args.state)
}
