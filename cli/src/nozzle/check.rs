//! `nozzle check`: whether a file can be run, and what it means.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use loggregator_envelope::KindSet;
use loggregator_nozzle::config::{ConfigError, ConfigErrors, NozzleConfig};
use loggregator_nozzle::intake;
use loggregator_service::Lifecycle;
use loggregator_service::config::EXIT_CONFIG;
use loggregator_service::metrics::Metrics;
use serde::Serialize;

use super::kinds;
use super::load::{load, read_from_up, render};
use super::summary::Summary;
use crate::exit::Exit;
use crate::output::{self, ColorArg};
use crate::target::StateArgs;
use crate::view::Paint;

const EXAMPLES: &str = "\
Examples:
  loggregator nozzle check audit.toml              errors with file, line, column and key; what it promises
  loggregator nozzle check --connect audit.toml    also whether everything that it names answers
  loggregator nozzle check --json audit.toml       for editors and scripts

Exit code 0 when it can be run, 64 when the file is wrong, 3 when --connect finds something that does not answer.";

/// Options of `nozzle check`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct CheckArgs {
    /// The configuration
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Connect to the intake and to every destination; nothing is sent or taken
    #[arg(long)]
    connect: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    state: StateArgs,
}

/// The JSON document.
#[derive(Debug, Serialize)]
struct Document<'a> {
    ok: bool,
    file: String,
    errors: Vec<ErrorLine<'a>>,
    #[serde(flatten)]
    summary: Option<&'a Summary>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    connections: Vec<Probe>,
}

#[derive(Debug, Serialize)]
struct ErrorLine<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    variable: Option<&'a str>,
    message: &'a str,
}

/// Whether something answered.
#[derive(Debug, Serialize)]
struct Probe {
    what: String,
    ok: bool,
    detail: String,
}

/// Checks.
///
/// # Errors
/// When the file cannot be read.
pub fn run(args: CheckArgs, color: ColorArg) -> Result<ExitCode> {
    let loaded = load(&args.file, None)?;
    let kinds = kinds();
    let file = args.file.display().to_string();
    let checked = loaded
        .config
        .and_then(|config| Ok((Summary::of(&config, &kinds)?, config)));
    let (summary, config) = match checked {
        Ok(checked) => checked,
        Err(errors) => {
            if args.json {
                write_json(&Document {
                    ok: false,
                    file,
                    errors: lines(&errors),
                    summary: None,
                    connections: Vec::new(),
                })?;
            } else {
                output::tell(&render(&errors, &loaded.text, color.stderr()));
            }
            return Ok(ExitCode::from(EXIT_CONFIG));
        }
    };
    let connections = if args.connect {
        crate::runtime(Some(2))?.block_on(connect(config, &args.state))
    } else {
        Vec::new()
    };
    let ok = connections.iter().all(|probe| probe.ok);
    if args.json {
        write_json(&Document {
            ok,
            file,
            errors: Vec::new(),
            summary: Some(&summary),
            connections,
        })?;
    } else {
        let palette = color.stdout();
        let mut text = summary.render();
        for warning in &summary.warnings {
            let label = palette.text(Paint::Notice, "warning:");
            text.push_str(&format!("{label} {warning}\n"));
        }
        for probe in &connections {
            let label = if probe.ok {
                "reached".to_owned()
            } else {
                palette.text(Paint::Error, "not reached")
            };
            text.push_str(&format!("{label}: {}: {}\n", probe.what, probe.detail));
        }
        let verdict = if ok {
            "can be run"
        } else {
            "is right, but not everything answers"
        };
        text.push_str(&format!("{file} {verdict}\n"));
        output::write(text.as_bytes())?;
    }
    Ok(if ok { Exit::Done } else { Exit::Unreachable }.into())
}

fn lines(errors: &ConfigErrors) -> Vec<ErrorLine<'_>> {
    errors.errors.iter().map(line).collect()
}

fn line(error: &ConfigError) -> ErrorLine<'_> {
    ErrorLine {
        key: &error.key,
        line: error.place.map(|(line, _)| line),
        column: error.place.map(|(_, column)| column),
        variable: error.variable.as_deref(),
        message: &error.message,
    }
}

fn write_json(document: &Document<'_>) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(document)?;
    text.push(b'\n');
    output::write(&text)
}

/// How long the intake has to answer.
const PATIENCE: Duration = Duration::from_secs(5);

async fn connect(mut config: NozzleConfig, state: &StateArgs) -> Vec<Probe> {
    let mut probes = Vec::new();
    let found = read_from_up(&mut config, state);
    probes.push(match found {
        Ok(_) => probe_intake(&config).await,
        Err(error) => Probe {
            what: "intake".to_owned(),
            ok: false,
            detail: format!("{error:#}"),
        },
    });
    let kinds = kinds();
    for destination in &config.destinations {
        let plan = kinds
            .get(&destination.kind)
            .map(|kind| kind.plan(&destination.section));
        let Some(Ok(plan)) = plan else { continue };
        let answer = tokio::time::timeout(3 * PATIENCE, plan.probe()).await;
        let (ok, detail) = match answer {
            Ok(Ok(detail)) => (true, detail),
            Ok(Err(reason)) => (false, reason.to_string()),
            Err(_) => (
                false,
                format!("no answer within {} s", 3 * PATIENCE.as_secs()),
            ),
        };
        probes.push(Probe {
            what: format!("destination {}", destination.name),
            ok,
            detail,
        });
    }
    probes
}

/// Subscribes beside the nozzle, under a shard id that nobody shares, so that nothing is taken from one that runs.
async fn probe_intake(config: &NozzleConfig) -> Probe {
    let lifecycle = Lifecycle::new();
    let mut select = config.select.clone();
    select.shard_id = Some(format!(
        "{}-check-{:08x}",
        config.nozzle.name,
        fastrand::u32(..)
    ));
    let answer = async {
        let request = intake::request(&select, &config.nozzle.name, KindSet::ALL, None)?;
        let (never, metrics) = (Duration::ZERO, Metrics::new());
        let mut intake =
            intake::open(&config.intake, request, never, None, &metrics, &lifecycle).await?;
        let mut looks = tokio::time::interval(Duration::from_millis(50));
        let mut last = None;
        for _ in 0..PATIENCE.as_millis() / 50 {
            let next = std::future::poll_fn(|cx| intake.poll_next(cx));
            tokio::select! {
                batch = next => if batch.is_some() { return Ok(None) },
                _ = looks.tick() => {}
            }
            let status = intake.status();
            if status.open > 0 {
                return Ok(None);
            }
            last = status.last_error;
        }
        anyhow::Ok(Some(last.unwrap_or_else(|| {
            format!("no answer within {} s", PATIENCE.as_secs())
        })))
    };
    let answer = answer.await;
    lifecycle.shutdown(Duration::from_secs(1)).await;
    let (ok, detail) = match answer {
        Ok(None) => (true, "subscribed".to_owned()),
        Ok(Some(why)) => (false, why),
        Err(error) => (false, format!("{error:#}")),
    };
    Probe {
        what: "intake".to_owned(),
        ok,
        detail,
    }
}
