//! `loggregator status`: the ledger of every component as a table.

use crate::exit::{Coded, Exit};
use crate::http_get::get;
use crate::output;
use crate::target::StateArgs;
use anyhow::{Context as _, Result};
use clap::Args;
use loggregator_service::ledger::{self, Report};
use serde::Serialize;
use std::time::Duration;

/// Options of `status`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct StatusArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Admin address of a component elsewhere; several may be given [default: all of the running `up`]
    #[arg(long, value_name = "http://HOST:PORT", help_heading = "Where")]
    url: Vec<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  loggregator status                                what each component received, delivered and dropped
  loggregator status --json | jq .balanced          for scripts
  loggregator status --url http://10.0.0.7:14825    a component of another deployment

The ledger's equation, per subscription: received = delivered + dropped + pending.
Exit code 0 when it holds everywhere, 1 when it does not, 3 when nothing answers.";

/// The JSON document.
#[derive(Debug, Serialize)]
struct Status<'a> {
    balanced: bool,
    components: &'a [Report],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    unreachable: &'a [String],
}

/// Fetches, prints, judges.
///
/// # Errors
/// When no pipeline runs, or none of its components answers.
pub async fn run(args: StatusArgs) -> Result<Exit> {
    let bases = if args.url.is_empty() {
        let endpoints = args.state.dir().endpoints()?;
        let dopplers = endpoints.doppler.into_iter().map(|doppler| doppler.admin);
        let rlp = endpoints.rlp.map(|rlp| rlp.admin);
        let gateway = endpoints.rlp_gateway.map(|gateway| gateway.admin);
        std::iter::once(endpoints.agent.admin)
            .chain(dopplers)
            .chain([endpoints.traffic_controller.admin])
            .chain(rlp)
            .chain(gateway)
            .chain(endpoints.nozzles.into_iter().map(|nozzle| nozzle.admin))
            .collect()
    } else {
        args.url.clone()
    };
    let (reports, unreachable) = collect_at_rest(&bases).await;
    if reports.is_empty() {
        return Err(Coded::error(
            Exit::Unreachable,
            format!("no component answers:\n{}", unreachable.join("\n")),
        ));
    }
    let balanced = reports.iter().all(Report::balanced);
    if args.json {
        let status = Status {
            balanced,
            components: &reports,
            unreachable: &unreachable,
        };
        let mut text =
            serde_json::to_vec_pretty(&status).context("cannot write the ledger as JSON")?;
        text.push(b'\n');
        output::write(&text)?;
    } else {
        output::write(render(&reports, balanced).as_bytes())?;
    }
    for failure in &unreachable {
        output::tell(&format!("loggregator: {failure}"));
    }
    Ok(match (balanced, unreachable.is_empty()) {
        (true, true) => Exit::Done,
        (true, false) => Exit::Unreachable,
        (false, _) => Exit::Negative,
    })
}

/// As [`collect`]. Counts that move while they are read can seem not to add up for a moment; what still does not after
/// three looks is a fault.
async fn collect_at_rest(bases: &[String]) -> (Vec<Report>, Vec<String>) {
    const LOOKS: usize = 3;
    let mut seen = collect(bases).await;
    for _ in 1..LOOKS {
        if seen.0.iter().all(Report::balanced) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        seen = collect(bases).await;
    }
    seen
}

/// Every component's report; those that do not answer, with the reason.
async fn collect(bases: &[String]) -> (Vec<Report>, Vec<String>) {
    let mut reports = Vec::new();
    let mut unreachable = Vec::new();
    for base in bases {
        let report = get(base, "/ledger").await.and_then(|body| {
            serde_json::from_slice(&body)
                .with_context(|| format!("{base}/ledger answers something that is no ledger"))
        });
        match report {
            Ok(report) => reports.push(report),
            Err(error) => unreachable.push(format!("{error:#}")),
        }
    }
    (reports, unreachable)
}

fn render(reports: &[Report], balanced: bool) -> String {
    let mut text = ledger::render(reports);
    text.push('\n');
    text.push_str(if balanced {
        "The ledger balances: received = delivered + dropped + pending, for every subscription.\n"
    } else {
        "The ledger does NOT balance; see the rows marked UNBALANCED.\n"
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use loggregator_service::ledger::Subscription;

    #[test]
    fn an_unbalanced_row_is_called_so() {
        let row = |received| Subscription {
            received,
            delivered: 2,
            ..Subscription::default()
        };
        let report = |received| Report {
            subscriptions: vec![row(received)],
            ..Report::default()
        };
        assert!(render(&[report(2)], report(2).balanced()).contains("ledger balances"));
        let text = render(&[report(3)], report(3).balanced());
        assert!(
            text.contains("NOT balance") && text.contains("UNBALANCED"),
            "{text}"
        );
    }
}
