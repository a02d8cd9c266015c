//! Reports as aligned text tables for terminals.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{LogFill, Report, SourceLoss, Subscription};

const HEADER: [&str; 9] = [
    "ID",
    "API",
    "PEER",
    "SELECTOR",
    "RECEIVED",
    "DELIVERED",
    "DROPPED",
    "PENDING",
    "STATE",
];
/// Columns of [`HEADER`] that hold numbers and are aligned to the right.
const NUMBERS: [usize; 4] = [4, 5, 6, 7];
/// Longest text shown in a column before it is cut.
const WIDEST: usize = 40;
/// Losing sources shown per subscription.
const LOSERS: usize = 5;

/// Renders reports as text: a heading with ingress per component, then one row per subscription, then what was lost.
///
/// Pure: the same reports give the same text. Control characters in ids and selectors are shown as `?`, since they
/// come from peers and go to a terminal.
#[must_use]
pub fn render(reports: &[Report]) -> String {
    let mut out = String::new();
    for (n, report) in reports.iter().enumerate() {
        if n > 0 {
            out.push('\n');
        }
        heading(&mut out, report);
        subscriptions(&mut out, &report.subscriptions);
    }
    out
}

/// Bytes for people: `512 B`, `4.0 KiB`, `256.0 MiB`.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut scale = 1024_u64;
    while unit + 1 < UNITS.len() && bytes / scale >= 1024 {
        scale *= 1024;
        unit += 1;
    }
    let tenths = u128::from(bytes) * 10 / u128::from(scale);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

fn heading(out: &mut String, report: &Report) {
    let ingress = &report.ingress;
    line(
        out,
        format_args!("{} {}", clean(&report.component), clean(&report.instance)),
    );
    line(
        out,
        format_args!(
            "  ingress: {} received, {} accepted, {} rejected{}, {} dropped{}{}",
            ingress.received,
            ingress.accepted,
            ingress.rejected_total(),
            reasons(&ingress.rejected),
            ingress.dropped_total(),
            reasons(&ingress.dropped),
            if ingress.balanced() {
                ""
            } else {
                "  UNBALANCED"
            },
        ),
    );
    if let Some(log) = &report.log {
        let name = match report.component.as_str() {
            "agent" | "nozzle" => "buffer",
            _ => "log",
        };
        line(out, format_args!("  {name}: {}", fill(log)));
    }
    let lost = reasons(&report.lost_upstream);
    if !lost.is_empty() {
        line(out, format_args!("  lost before they came here:{lost}"));
    }
}

fn fill(log: &LogFill) -> String {
    let percent = if log.limit == 0 {
        0
    } else {
        u128::from(log.bytes) * 100 / u128::from(log.limit)
    };
    let mut text = format!(
        "{} of {} ({percent} %)",
        human_bytes(log.bytes),
        human_bytes(log.limit)
    );
    if log.frames > 0 {
        let (seconds, tenths) = (log.oldest_age_ms / 1000, log.oldest_age_ms % 1000 / 100);
        write!(
            text,
            ", {} envelopes in {} frames, oldest {seconds}.{tenths} s",
            log.envelopes, log.frames
        )
        .ok();
    }
    text
}

fn subscriptions(out: &mut String, subscriptions: &[Subscription]) {
    if subscriptions.is_empty() {
        line(out, format_args!("  no subscriptions"));
        return;
    }
    let rows: Vec<[String; 9]> = subscriptions.iter().map(row).collect();
    let mut widths: [usize; 9] = HEADER.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    write_row(out, &HEADER.map(str::to_owned), &widths);
    for (row, subscription) in rows.iter().zip(subscriptions) {
        write_row(out, row, &widths);
        upstreams(out, subscription);
        left_out(out, subscription);
        losses(out, subscription);
    }
}

fn row(subscription: &Subscription) -> [String; 9] {
    let state = match (
        subscription.balanced(),
        subscription.open,
        subscription.pending,
    ) {
        (false, _, _) => "UNBALANCED",
        (true, true, _) => "open",
        (true, false, 0) => "closed",
        // A named one that may come back for it.
        (true, false, _) => "away",
    };
    [
        cell(&subscription.id),
        cell(&subscription.api),
        cell(&subscription.peer),
        cell(&subscription.selector),
        subscription.received.to_string(),
        subscription.delivered.to_string(),
        subscription.dropped_total().to_string(),
        subscription.pending.to_string(),
        state.to_owned(),
    ]
}

/// Where the envelopes came from, when they came from several.
fn upstreams(out: &mut String, subscription: &Subscription) {
    if subscription.from.len() < 2 {
        return;
    }
    let from: Vec<String> = subscription
        .from
        .iter()
        .map(|(address, n)| format!("{} ({n})", cell(address)))
        .collect();
    line(out, format_args!("      from {}", from.join(", ")));
}

/// What a nozzle's filters left out and its destination refused.
fn left_out(out: &mut String, subscription: &Subscription) {
    for (what, total, counts) in [
        (
            "filtered",
            subscription.filtered_total(),
            &subscription.filtered,
        ),
        (
            "dead-lettered",
            subscription.dead_lettered_total(),
            &subscription.dead_lettered,
        ),
    ] {
        if total > 0 {
            line(out, format_args!("      {what} {total}{}", reasons(counts)));
        }
    }
}

fn losses(out: &mut String, subscription: &Subscription) {
    if subscription.dropped_total() == 0 {
        return;
    }
    let mut text = format!("      lost{}", reasons(&subscription.dropped));
    let mut losers: Vec<_> = subscription.lost_sources.iter().collect();
    losers.sort_by(|a, b| {
        b.dropped
            .cmp(&a.dropped)
            .then_with(|| a.source_id.cmp(&b.source_id))
    });
    for (n, loser) in losers.iter().take(LOSERS).enumerate() {
        let separator = if n == 0 { " of " } else { ", " };
        write!(text, "{separator}{} ({})", loser_name(loser), loser.dropped).ok();
    }
    if losers.len() > LOSERS {
        write!(text, ", {} more sources", losers.len() - LOSERS).ok();
    }
    line(out, format_args!("{text}"));
}

/// `org/space/app` where these are known.
fn loser_name(loser: &SourceLoss) -> String {
    if loser.app.is_empty() {
        return cell(&loser.source_id);
    }
    let names = [&loser.org, &loser.space, &loser.app];
    names.map(|name| cell(name)).join("/")
}

fn reasons(counts: &BTreeMap<String, u64>) -> String {
    let named: Vec<String> = counts
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(reason, n)| format!("{} {n}", clean(reason)))
        .collect();
    if named.is_empty() {
        String::new()
    } else {
        format!(" ({})", named.join(", "))
    }
}

fn write_row(out: &mut String, cells: &[String; 9], widths: &[usize; 9]) {
    let mut text = String::from("  ");
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
        if NUMBERS.contains(&column) {
            text.push_str(&padding);
            text.push_str(cell);
        } else {
            text.push_str(cell);
            text.push_str(&padding);
        }
        text.push_str("  ");
    }
    line(out, format_args!("{}", text.trim_end()));
}

fn cell(text: &str) -> String {
    let text = clean(text);
    if text.is_empty() {
        return "-".to_owned();
    }
    if text.chars().count() <= WIDEST {
        return text;
    }
    let mut cut: String = text.chars().take(WIDEST - 1).collect();
    cut.push('…');
    cut
}

fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    writeln!(out, "{text}").ok();
}

#[cfg(test)]
mod tests {
    use super::super::Ingress;
    use super::*;

    fn report() -> Report {
        Report {
            component: "doppler".into(),
            instance: "127.0.0.1:8082".into(),
            ingress: Ingress {
                received: 1_000_005,
                accepted: 1_000_000,
                rejected: BTreeMap::from([("malformed".into(), 5)]),
                dropped: BTreeMap::new(),
            },
            subscriptions: vec![
                Subscription {
                    id: "my-nozzle".into(),
                    peer: "127.0.0.1:40112".into(),
                    selector: "all kinds, shard my-nozzle".into(),
                    api: "v2".into(),
                    open: true,
                    received: 1_000_000,
                    delivered: 1_000_000,
                    ..Subscription::default()
                },
                Subscription {
                    id: "".into(),
                    peer: "127.0.0.1:40113".into(),
                    selector: "log of 5f2e8a34-app\u{1b}[31m".into(),
                    api: "websocket".into(),
                    open: false,
                    received: 500,
                    delivered: 90,
                    dropped: BTreeMap::from([
                        ("lapped".into(), 400),
                        ("shed".into(), 7),
                        ("closed".into(), 0),
                    ]),
                    pending: 3,
                    from: BTreeMap::from([
                        ("10.0.0.1:8082".into(), 400),
                        ("10.0.0.2:8082".into(), 100),
                    ]),
                    lost_sources: (0..7)
                        .map(|n| SourceLoss {
                            source_id: format!("s{n}"),
                            dropped: n,
                            ..SourceLoss::default()
                        })
                        .collect(),
                    ..Subscription::default()
                },
            ],
            log: Some(LogFill {
                bytes: 201_326_592,
                limit: 268_435_456,
                frames: 4_096,
                envelopes: 409_600,
                oldest_age_ms: 12_345,
            }),
            ..Report::default()
        }
    }

    #[test]
    fn a_report_reads_as_an_aligned_table() {
        let expected = "\
doppler 127.0.0.1:8082
  ingress: 1000005 received, 1000000 accepted, 5 rejected (malformed 5), 0 dropped
  log: 192.0 MiB of 256.0 MiB (75 %), 409600 envelopes in 4096 frames, oldest 12.3 s
  ID         API        PEER             SELECTOR                    RECEIVED  DELIVERED  DROPPED  PENDING  STATE
  my-nozzle  v2         127.0.0.1:40112  all kinds, shard my-nozzle   1000000    1000000        0        0  open
  -          websocket  127.0.0.1:40113  log of 5f2e8a34-app?[31m         500         90      407        3  away
      from 10.0.0.1:8082 (400), 10.0.0.2:8082 (100)
      lost (lapped 400, shed 7) of s6 (6), s5 (5), s4 (4), s3 (3), s2 (2), 2 more sources
";
        assert_eq!(render(&[report()]), expected);
    }

    #[test]
    fn a_nozzle_shows_what_it_filtered_and_could_not_deliver() {
        let nozzle = Report {
            component: "nozzle".into(),
            instance: "audit".into(),
            ingress: Ingress {
                received: 100,
                accepted: 100,
                ..Ingress::default()
            },
            subscriptions: vec![Subscription {
                id: "siem".into(),
                selector: "kind == \"log\"".into(),
                api: "syslog".into(),
                open: true,
                received: 100,
                delivered: 70,
                filtered: BTreeMap::from([("filter".into(), 16), ("kind".into(), 4)]),
                dead_lettered: BTreeMap::from([("oversize".into(), 1)]),
                dropped: BTreeMap::from([("quota".into(), 6)]),
                pending: 3,
                lost_sources: vec![
                    SourceLoss {
                        source_id: "5f2e8a34".into(),
                        dropped: 5,
                        app: "shop".into(),
                        space: "dev".into(),
                        org: "acme".into(),
                    },
                    SourceLoss {
                        source_id: "router".into(),
                        dropped: 1,
                        ..SourceLoss::default()
                    },
                ],
                ..Subscription::default()
            }],
            log: Some(LogFill {
                bytes: 1024,
                limit: 2048,
                ..LogFill::default()
            }),
            lost_upstream: BTreeMap::from([("loggregator.doppler".into(), 12)]),
        };
        let expected = "\
nozzle audit
  ingress: 100 received, 100 accepted, 0 rejected, 0 dropped
  buffer: 1.0 KiB of 2.0 KiB (50 %)
  lost before they came here: (loggregator.doppler 12)
  ID    API     PEER  SELECTOR       RECEIVED  DELIVERED  DROPPED  PENDING  STATE
  siem  syslog  -     kind == \"log\"       100         70        6        3  open
      filtered 20 (filter 16, kind 4)
      dead-lettered 1 (oversize 1)
      lost (quota 6) of acme/dev/shop (5), router (1)
";
        assert_eq!(render(&[nozzle]), expected);
    }

    #[test]
    fn several_components_are_separated_and_faults_stand_out() {
        let mut broken = report();
        broken.log = None;
        broken.ingress.accepted -= 1;
        broken.subscriptions = vec![
            Subscription {
                received: 1,
                ..Subscription::default()
            },
            Subscription {
                id: "b".into(),
                ..Subscription::default()
            },
        ];
        let empty = Report {
            component: "agent".into(),
            instance: "127.0.0.1:3458".into(),
            log: Some(LogFill {
                limit: 33_554_432,
                ..LogFill::default()
            }),
            ..Report::default()
        };
        let expected = "\
agent 127.0.0.1:3458
  ingress: 0 received, 0 accepted, 0 rejected, 0 dropped
  buffer: 0 B of 32.0 MiB (0 %)
  no subscriptions

doppler 127.0.0.1:8082
  ingress: 1000005 received, 999999 accepted, 5 rejected (malformed 5), 0 dropped  UNBALANCED
  ID  API  PEER  SELECTOR  RECEIVED  DELIVERED  DROPPED  PENDING  STATE
  -   -    -     -                1          0        0        0  UNBALANCED
  b   -    -     -                0          0        0        0  closed
";
        assert_eq!(render(&[empty, broken]), expected);
    }

    #[test]
    fn long_ids_are_cut_by_characters() {
        assert_eq!(cell(&"ä".repeat(50)).chars().count(), WIDEST);
    }

    #[test]
    fn bytes_are_shown_in_the_unit_that_fits() {
        assert_eq!(human_bytes(0), "0 B");
        assert_eq!(human_bytes(1023), "1023 B");
        assert_eq!(human_bytes(1536), "1.5 KiB");
        assert_eq!(human_bytes(1 << 20), "1.0 MiB");
        assert_eq!(human_bytes(u64::MAX), "16383.9 PiB");
    }
}
