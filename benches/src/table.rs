//! Measured cases as a Markdown table: medians, the ratio of each pair, and the goal beside it.

use std::fmt::Write;

use crate::plan::Readers;
use crate::report::Report;
use crate::scenario::{Case, Kind, Measured, Pair, held};

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// The doppler's median, as text.
    pub doppler: String,
    /// The floor's.
    pub relay: String,
    /// Median of the ratios of the pairs, and the smallest and largest of them.
    pub ratio: Option<(f64, f64, f64)>,
    /// What is wanted.
    pub goal: String,
    /// Whether it was reached; `None` where there is no goal.
    pub met: Option<bool>,
}

/// The middle of `values`; the mean of the two in the middle of an even number; 0 of none.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// A limit on a ratio or a figure.
enum Goal {
    None,
    RatioAtMost(f64),
    RatioAtLeast(f64),
    AtMost(f64),
    AtLeast(f64),
}

/// Puts together a row about `figure`.
fn row(
    what: String,
    measured: &Measured,
    digits: usize,
    figure: fn(&Report) -> f64,
    goal: Goal,
) -> Row {
    let doppler = median(measured.pairs.iter().map(|p| figure(&p.doppler)));
    let relay: Vec<f64> = measured
        .pairs
        .iter()
        .filter_map(|p| p.relay.as_ref().map(figure))
        .collect();
    let ratios: Vec<f64> = measured
        .pairs
        .iter()
        .filter_map(|p| Some(figure(&p.doppler) / p.relay.as_ref().map(figure)?))
        .filter(|ratio| ratio.is_finite())
        .collect();
    let ratio = (!ratios.is_empty()).then(|| {
        let fold =
            |with: fn(f64, f64) -> f64| ratios.iter().copied().reduce(with).unwrap_or_default();
        (
            median(ratios.iter().copied()),
            fold(f64::min),
            fold(f64::max),
        )
    });
    let middle = ratio.map(|r| r.0);
    let (text, met) = match goal {
        Goal::None => (String::new(), None),
        Goal::RatioAtMost(limit) => (format!("≤ {limit} ×"), middle.map(|m| m <= limit)),
        Goal::RatioAtLeast(limit) => (format!("≥ {limit} ×"), middle.map(|m| m >= limit)),
        Goal::AtMost(limit) => (format!("≤ {limit}"), Some(doppler <= limit)),
        Goal::AtLeast(limit) => (format!("≥ {}", grouped(limit, 0)), Some(doppler >= limit)),
    };
    Row {
        what,
        doppler: grouped(doppler, digits),
        relay: if relay.is_empty() {
            "–".into()
        } else {
            grouped(median(relay), digits)
        },
        ratio,
        goal: text,
        met,
    }
}

/// A number with commas between thousands.
fn grouped(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = String::new();
    for (i, digit) in whole.chars().enumerate() {
        let left = whole.len() - i;
        if i > 0 && left.is_multiple_of(3) && !out.ends_with('-') {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}

/// The rows of one case.
#[must_use]
pub fn rows(case: &Case, measured: &Measured) -> Vec<Row> {
    let of = |figure: &str| format!("{}: {figure}", case.title);
    let cpu = |goal| row(of("CPU s/M"), measured, 2, Report::cpu_per_million, goal);
    let p50 = || row(of("p50 ms"), measured, 2, |r| r.latency.p50_ms, Goal::None);
    let p99 = |goal| row(of("p99 ms"), measured, 2, |r| r.latency.p99_ms, goal);
    let loss = |goal| row(of("loss %"), measured, 3, |r| r.loss * 100.0, goal);
    let rate = |goal| {
        row(
            of("delivered/s to each"),
            measured,
            0,
            |r| r.delivered_per_second,
            goal,
        )
    };
    match (&case.kind, case.name) {
        (_, "firehose-1") => vec![
            cpu(Goal::RatioAtMost(1.3)),
            p50(),
            p99(Goal::RatioAtMost(2.0)),
        ],
        (_, "firehose-4") => vec![cpu(Goal::RatioAtMost(1.1)), p50(), p99(Goal::None)],
        (_, "firehose-16") => vec![cpu(Goal::RatioAtMost(0.8)), p50(), p99(Goal::None)],
        // A fifth of Go's 25.1 where the floor took 1.8 for one firehose at this rate.
        (_, "tails-200") => vec![cpu(Goal::RatioAtMost(2.8)), p50(), p99(Goal::AtMost(5.0))],
        // A twelfth of Go's 42.3, 90.9 and 52.6 where the floor took 1.8 for one firehose at 20,000/s.
        (_, "websocket-1") => vec![cpu(Goal::RatioAtMost(1.96)), p50(), p99(Goal::None)],
        (_, "websocket-4") => vec![cpu(Goal::RatioAtMost(4.2)), p50(), p99(Goal::None)],
        (_, "rlp-1") => vec![cpu(Goal::RatioAtMost(2.44)), p50(), p99(Goal::None)],
        (_, "quiet-websocket" | "quiet-rlp") => {
            vec![cpu(Goal::None), p50(), p99(Goal::AtMost(3.0))]
        }
        (_, "quiet") => vec![cpu(Goal::None), p50(), p99(Goal::AtMost(1.5))],
        (_, "bursts") => vec![loss(Goal::AtMost(0.0)), p99(Goal::None)],
        (_, "full-1" | "full-16") => vec![
            rate(Goal::RatioAtLeast(0.9)),
            loss(Goal::None),
            p99(Goal::None),
        ],
        (Kind::Side { .. }, _) => vec![cpu(Goal::None), p50(), p99(Goal::None)],
        (Kind::Highest(readers), _) => {
            let asked: fn(&Report) -> f64 = |r| {
                if r.pace.rate().is_none() {
                    r.delivered_per_second
                } else if held(r) {
                    r.sent_per_second
                } else {
                    0.0
                }
            };
            let mut rows = vec![row(
                of("envelopes/s"),
                measured,
                0,
                asked,
                match readers {
                    Readers::WebSockets(_) | Readers::Proxied(_) => Goal::AtLeast(500_000.0),
                    _ => Goal::RatioAtLeast(0.9),
                },
            )];
            if *readers == Readers::Firehoses(1) {
                rows.push(row(
                    of("the same, absolute"),
                    measured,
                    0,
                    asked,
                    Goal::AtLeast(900_000.0),
                ));
            }
            rows
        }
        (Kind::Overload(_), _) => {
            vec![row(
                of("goodput/s beside flooded"),
                measured,
                0,
                |r| r.delivered_per_second,
                Goal::RatioAtLeast(0.9),
            )]
        }
        (Kind::Memory(_), _) => vec![
            row(
                "idle RSS MiB".into(),
                measured,
                1,
                |r| r.processes[0].rss_idle_mib,
                Goal::AtMost(12.0),
            ),
            row(
                of("peak RSS above log bytes in use, MiB"),
                measured,
                1,
                above_log,
                Goal::AtMost(20.0),
            ),
        ],
        (Kind::Stall(_) | Kind::Fair, _) => {
            let mut rows = vec![
                row(of("lost"), measured, 0, |r| r.lost as f64, Goal::None),
                row(
                    of("told otherwise than lost"),
                    measured,
                    0,
                    untold,
                    Goal::AtMost(0.0),
                ),
                row(
                    of("readers with loss"),
                    measured,
                    0,
                    |r| r.readers_with_loss as f64,
                    Goal::AtMost(1.0),
                ),
            ];
            if matches!(case.kind, Kind::Fair) {
                rows.push(row(
                    of("lost of the quiet source"),
                    measured,
                    0,
                    quiet_lost,
                    Goal::AtMost(0.0),
                ));
            }
            rows
        }
    }
}

/// Peak memory without the log, MiB. The log's fill is the ledger's word for it, else its bound.
fn above_log(report: &Report) -> f64 {
    let log = report
        .ledger
        .as_ref()
        .and_then(|l| l["log"]["bytes"].as_f64())
        .unwrap_or(f64::from(32 << 20));
    report.processes[0].rss_peak_mib - log / f64::from(1 << 20)
}

fn quiet_lost(report: &Report) -> f64 {
    report.quiet.map_or(0.0, |quiet| {
        (quiet.lost_by_first + quiet.lost_by_others) as f64
    })
}

fn untold(report: &Report) -> f64 {
    (report.lost as f64 - report.told_lost as f64).abs()
}

/// A whole table.
#[must_use]
pub fn markdown(rows: &[Row]) -> String {
    let mut out = String::from(
        "| point | doppler | floor | ratio (range) | goal | met |\n|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let ratio = row
            .ratio
            .map(|(m, least, most)| format!("{m:.2} ({least:.2}–{most:.2})"))
            .unwrap_or_default();
        let met = match row.met {
            None => "",
            Some(true) => "yes",
            Some(false) => "**no**",
        };
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            out,
            "| {} | {} | {} | {ratio} | {} | {met} |",
            row.what, row.doppler, row.relay, row.goal
        );
    }
    out
}

/// Whether any run of `pair` is not to be trusted.
#[must_use]
pub fn complaints(pair: &Pair) -> Vec<String> {
    let mut all = Vec::new();
    for report in [Some(&pair.doppler), pair.relay.as_ref()]
        .into_iter()
        .flatten()
    {
        let wrong = report.duplicates + report.reordered + report.misrouted + report.damaged;
        if wrong > 0 {
            all.push(format!(
                "{}: {} twice, {} out of order, {} misrouted, {} damaged",
                report.target,
                report.duplicates,
                report.reordered,
                report.misrouted,
                report.damaged
            ));
        }
        all.extend(
            report
                .errors
                .iter()
                .map(|e| format!("{}: {e}", report.target)),
        );
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_numbers() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median([]), 0.0);
        assert_eq!(grouped(1_234_567.0, 0), "1,234,567");
        assert_eq!(grouped(-123.0, 0), "-123");
        assert_eq!(grouped(999.994, 2), "999.99");
        assert_eq!(grouped(1_000.5, 1), "1,000.5");
    }

    #[test]
    fn a_missed_goal_is_shown_as_such() {
        let row = Row {
            what: "x".into(),
            doppler: "2".into(),
            relay: "1".into(),
            ratio: Some((2.0, 1.5, 2.5)),
            goal: "≤ 1.3 ×".into(),
            met: Some(false),
        };
        assert!(
            markdown(&[row]).ends_with("| x | 2 | 1 | 2.00 (1.50–2.50) | ≤ 1.3 × | **no** |\n")
        );
    }
}
