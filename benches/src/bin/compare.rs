//! Runs the recorded cases, doppler and floor in turn, and prints the table of ratios.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;
use loggregator_benches::scenario::{Bench, Case, Effort, Measured, cases};
use loggregator_benches::{commands, table};
use serde::Serialize;

/// Compares a doppler with the floor, a relay that looks at nothing, on the recorded cases.
///
/// Prints a Markdown table: medians of both, and the median and range of the ratios of runs made one after the other.
#[derive(Parser)]
#[command(name = "compare", version, max_term_width = 110)]
struct Args {
    /// Only these cases; all without it. See --list.
    #[arg(value_name = "CASE")]
    cases: Vec<String>,
    /// Say what cases there are.
    #[arg(long)]
    list: bool,
    /// Only see that everything runs: seconds, small rates, no goals judged.
    #[arg(long)]
    quick: bool,
    /// Runs of each side and case.
    #[arg(long)]
    runs: Option<usize>,
    /// Seconds measured per run.
    #[arg(long)]
    time: Option<f64>,
    /// Command that starts the doppler, see `load --help`.
    #[arg(long)]
    doppler: Option<String>,
    /// Command that starts the floor.
    #[arg(long)]
    relay: Option<String>,
    /// Folder for a JSON file per case with every run in full.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// A results file.
#[derive(Serialize)]
struct Recorded<'a> {
    machine: Machine,
    commit: Option<String>,
    measured: &'a Measured,
}

#[derive(Clone, Serialize)]
struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
}

impl Machine {
    fn this() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpuinfo.lines().find_map(|l| {
            l.strip_prefix("model name")?
                .split_once(": ")
                .map(|(_, name)| name)
        });
        Self {
            cpu: cpu.unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
        }
    }
}

fn commit() -> Option<String> {
    let output = std::process::Command::new("git")
        .args(["rev-parse", "--short", "HEAD"])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<Case>> {
    let all = cases();
    for name in names {
        if !all.iter().any(|case| case.name == name) {
            bail!(
                "no case `{name}`; there are {}",
                all.iter().map(|c| c.name).collect::<Vec<_>>().join(", ")
            );
        }
    }
    Ok(all
        .into_iter()
        .filter(|case| names.is_empty() || names.iter().any(|n| n == case.name))
        .collect())
}

fn record(out: &Path, measured: &Measured) -> anyhow::Result<()> {
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let path = out.join(format!("{}.json", measured.case));
    let recorded = Recorded {
        machine: Machine::this(),
        commit: commit(),
        measured,
    };
    std::fs::write(&path, serde_json::to_vec_pretty(&recorded)?)
        .with_context(|| path.display().to_string())
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let cases = chosen(&args.cases)?;
    let mut out = std::io::stdout().lock();
    if args.list {
        for case in cases {
            writeln!(out, "{:<12} {}", case.name, case.title)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut effort = if args.quick {
        Effort::quick()
    } else {
        Effort::full()
    };
    effort.runs = args.runs.unwrap_or(effort.runs).max(1);
    if let Some(time) = args.time {
        effort.time = std::time::Duration::try_from_secs_f64(time)?;
    }
    let bench = Bench {
        doppler: args.doppler.unwrap_or_else(commands::doppler),
        relay: args.relay.unwrap_or_else(commands::relay),
        effort,
        progress: Box::new(|line| {
            // Progress that nobody can read is no reason to stop.
            let _unread = writeln!(std::io::stderr(), "{line}");
        }),
    };
    let mut rows = Vec::new();
    let mut complaints = Vec::new();
    for case in &cases {
        let measured = bench.measure(case).with_context(|| case.name.to_owned())?;
        if let Some(folder) = &args.out {
            record(folder, &measured)?;
        }
        for pair in &measured.pairs {
            complaints.extend(
                table::complaints(pair)
                    .into_iter()
                    .map(|c| format!("{}: {c}", case.name)),
            );
        }
        let mut of_case = table::rows(case, &measured);
        if args.quick {
            of_case.iter_mut().for_each(|row| row.met = None);
        }
        rows.extend(of_case);
    }
    write!(out, "{}", table::markdown(&rows))?;
    for complaint in &complaints {
        writeln!(out, "\nnot right: {complaint}")?;
    }
    // Missed goals are for people to judge; what is wrong at any speed is an error.
    Ok(if complaints.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
