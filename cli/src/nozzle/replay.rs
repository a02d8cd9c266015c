//! `nozzle replay`: puts dead letters back through their destination.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use loggregator_nozzle::{Letter, dead_letters, replay};
use loggregator_service::{Lifecycle, logging};

use super::kinds;
use super::load::load_or_refuse;
use crate::component::LogTable;
use crate::exit::Exit;
use crate::output::{self, ColorArg};
use crate::settings::Flags;
use crate::target::StateArgs;
use crate::view::{Paint, count};

const EXAMPLES: &str = "\
Examples:
  loggregator nozzle replay audit.toml siem --dry-run              how many there are, by reason
  loggregator nozzle replay audit.toml siem                        after what was wrong is put right
  loggregator nozzle replay audit.toml siem --reason oversize      only those

Each is delivered, or becomes a dead letter again. The nozzle may run meanwhile. A file without [buffer] is that of a nozzle
of `up`, whose state is in its folder. Exit code 0 when all were delivered, 1 when not.";

/// Options of `nozzle replay`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReplayArgs {
    /// The configuration
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The destination
    #[arg(value_name = "DESTINATION")]
    destination: String,
    /// Only those that were refused for this reason
    #[arg(long, value_name = "CODE")]
    reason: Option<String>,
    /// Only show what there is
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: print the letters, a JSON object per line
    #[arg(long, requires = "dry_run")]
    json: bool,
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten, next_help_heading = "Process log")]
    log: Flags<LogTable>,
}

/// How long an interrupted replay may take to end.
const DRAIN: Duration = Duration::from_secs(10);

/// Replays.
///
/// # Errors
/// When the file or the letters cannot be read, or the destination not be started.
pub fn run(args: ReplayArgs, color: ColorArg) -> Result<ExitCode> {
    let state = args.state.dir().file("nozzles");
    let config = match load_or_refuse(&args.file, Some(state), color.stderr())? {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let log = match crate::component::log_config(args.log.clone()) {
        Ok(log) => log,
        Err(errors) => return Ok(crate::component::refuse(&errors)),
    };
    let _guard = logging::init(&log)?;
    let reason = args.reason.as_deref();
    if args.dry_run {
        let mut letters = dead_letters(&config, &args.destination)?;
        letters.retain(|letter| reason.is_none_or(|reason| letter.reason == reason));
        return show(&letters, args.json);
    }
    crate::runtime(None)?.block_on(async {
        let lifecycle = Lifecycle::new();
        lifecycle
            .watch_signals()
            .context("cannot watch for signals")?;
        let replayed = replay(&config, &kinds(), &args.destination, reason, &lifecycle).await?;
        lifecycle.shutdown(DRAIN).await;
        let mut line = format!("{} delivered", count(replayed.delivered, "dead letter"));
        for (n, what) in [
            (replayed.dead_lettered, "refused again"),
            (replayed.damaged, "damaged and left out"),
            (replayed.evicted, "gone for want of room"),
            (replayed.left, "left for the next time"),
        ] {
            if n > 0 {
                line.push_str(&format!(", {n} {what}"));
            }
        }
        let fine =
            replayed.dead_lettered + replayed.damaged + replayed.evicted + replayed.left == 0;
        let paint = if fine { Paint::Kind } else { Paint::Notice };
        output::tell(&color.stderr().text(paint, &line));
        Ok(if fine { Exit::Done } else { Exit::Negative }.into())
    })
}

fn show(letters: &[Letter], json: bool) -> Result<ExitCode> {
    let mut text = String::new();
    if json {
        for letter in letters {
            text.push_str(&serde_json::to_string(letter)?);
            text.push('\n');
        }
    } else {
        let mut reasons: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
        for letter in letters {
            let (n, detail) = reasons.entry(&letter.reason).or_default();
            *n += 1;
            *detail = &letter.detail;
        }
        for (reason, (n, detail)) in reasons {
            text.push_str(&format!("{n:>8}  {reason}: {detail}\n"));
        }
        let all = count(letters.len() as u64, "dead letter");
        text.push_str(&format!("{all}\n"));
    }
    output::write(text.as_bytes())?;
    Ok(Exit::Done.into())
}
