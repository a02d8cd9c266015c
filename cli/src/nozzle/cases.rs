//! `nozzle test`: runs the tests in a file.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use loggregator_nozzle::{CaseReport, run_tests};
use serde::Serialize;

use super::kinds;
use super::load::{load_or_refuse, render};
use crate::exit::Exit;
use crate::output::{self, ColorArg};
use crate::view::{Paint, count};

const EXAMPLES: &str = "\
Example:
  loggregator nozzle test audit.toml

with, in audit.toml:
  [[test]]
  name = \"a line of a web app\"
  envelope = { source_id = \"web\", instance_id = \"0\", text = \"hello\" }
  names = { app = \"web\", space = \"prod\", org = \"acme\" }
  [[test.expect]]
  destination = \"lines\"
  body = \"hello\"

Destinations that no [[test.expect]] names must not get it. Exit code 0 when all pass, 1 when one fails.";

/// Options of `nozzle test`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct TestArgs {
    /// The configuration
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    passed: usize,
    failed: usize,
    tests: Vec<Row<'a>>,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    name: &'a str,
    passed: bool,
    failures: Vec<FailureRow<'a>>,
}

#[derive(Debug, Serialize)]
struct FailureRow<'a> {
    destination: &'a str,
    what: &'a str,
    expected: &'a [String],
    found: &'a [String],
}

/// Runs them.
///
/// # Errors
/// When the file cannot be read.
pub fn run(args: TestArgs, color: ColorArg) -> Result<ExitCode> {
    let config = match load_or_refuse(&args.file, None, color.stderr())? {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let reports = match run_tests(&config, &kinds()) {
        Ok(reports) => reports,
        Err(errors) => {
            output::tell(&render(&errors, "", color.stderr()));
            return Ok(ExitCode::from(loggregator_service::config::EXIT_CONFIG));
        }
    };
    let failed = reports.iter().filter(|report| !report.passed()).count();
    if args.json {
        let mut text = serde_json::to_vec_pretty(&document(&reports, failed))?;
        text.push(b'\n');
        output::write(&text)?;
    } else {
        let palette = color.stdout();
        let mut text = String::new();
        for report in &reports {
            if report.passed() {
                text.push_str(&format!("ok      {}\n", report.name));
                continue;
            }
            let label = palette.text(Paint::Error, "FAILED");
            text.push_str(&format!("{label}  {}\n", report.name));
            for failure in &report.failures {
                for line in failure.to_string().lines() {
                    text.push_str(&format!("        {line}\n"));
                }
            }
        }
        let all = count(reports.len() as u64, "test");
        text.push_str(&match failed {
            0 => format!("{all}, all passed\n"),
            failed => format!("{all}, {failed} failed\n"),
        });
        output::write(text.as_bytes())?;
    }
    Ok(if failed == 0 {
        Exit::Done
    } else {
        Exit::Negative
    }
    .into())
}

fn document(reports: &[CaseReport], failed: usize) -> Document<'_> {
    Document {
        passed: reports.len() - failed,
        failed,
        tests: reports.iter().map(row).collect(),
    }
}

fn row(report: &CaseReport) -> Row<'_> {
    Row {
        name: &report.name,
        passed: report.passed(),
        failures: report
            .failures
            .iter()
            .map(|failure| FailureRow {
                destination: &failure.destination,
                what: &failure.what,
                expected: &failure.expected,
                found: &failure.found,
            })
            .collect(),
    }
}
