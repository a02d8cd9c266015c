//! A report as text for a terminal.

use std::fmt::Write;

use crate::plan::Readers;
use crate::report::Report;

/// Several lines, ending in a line break.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _infallible = write(report, &mut out);
    out
}

fn write(r: &Report, out: &mut String) -> std::fmt::Result {
    let readers = match r.readers {
        Readers::Firehoses(n) => format!("{n} firehoses"),
        Readers::Tails(n) => format!("{n} tails of one source each of {}", r.shape.sources),
        Readers::Members(n) => format!("one shard id with {n} members"),
        Readers::WebSockets(n) => format!("{n} WebSocket firehoses"),
        Readers::Proxied(n) => format!("{n} firehoses through a reverse log proxy"),
    };
    writeln!(
        out,
        "{}: {readers}, batches of {} on {} streams",
        r.target, r.shape.batch, r.shape.streams
    )?;
    writeln!(
        out,
        "  sent       {:>12.0} /s   {} in {:.1} s{}",
        r.sent_per_second,
        r.sent,
        r.seconds,
        if r.unsent > 0.0 {
            format!(", {:.2} % of the pace unsent", r.unsent * 100.0)
        } else {
            String::new()
        }
    )?;
    writeln!(
        out,
        "  delivered  {:>12.0} /s   to each; slowest {:.0} /s",
        r.delivered_per_second, r.delivered_per_second_min
    )?;
    if r.latency.count > 0 {
        writeln!(
            out,
            "  latency ms   p50 {:.2}  p99 {:.2}  p99.9 {:.2}  max {:.1}   worst reader's p99 {:.2}",
            r.latency.p50_ms,
            r.latency.p99_ms,
            r.latency.p999_ms,
            r.latency.max_ms,
            r.worst_reader_p99_ms
        )?;
    }
    if r.late.count > 0 {
        writeln!(
            out,
            "  pace late ms p50 {:.2}  p99 {:.2}  max {:.1}",
            r.late.p50_ms, r.late.p99_ms, r.late.max_ms
        )?;
    }
    writeln!(
        out,
        "  lost       {:>12}      {:.4} % of {}; told {} in {} notices",
        r.lost,
        r.loss * 100.0,
        r.expected,
        r.told_lost,
        r.notices
    )?;
    if r.readers_with_loss > 0 {
        writeln!(out, "  readers with loss {}", r.readers_with_loss)?;
    }
    if let Some(quiet) = r.quiet {
        writeln!(
            out,
            "  quiet source: sent {}, lost by the first reader {}, by the others {}",
            quiet.sent, quiet.lost_by_first, quiet.lost_by_others
        )?;
    }
    writeln!(
        out,
        "  twice {}, out of order {}, misrouted {}, damaged {}, not ours {}",
        r.duplicates, r.reordered, r.misrouted, r.damaged, r.foreign
    )?;
    if let Some((least, most)) = r.member_shares {
        writeln!(
            out,
            "  shares of the members from {:.1} % to {:.1} %",
            least * 100.0,
            most * 100.0
        )?;
    }
    for p in &r.processes {
        writeln!(
            out,
            "  {:<20} {:>7.2} CPU s per million   RSS MiB idle {:.1}  peak {:.1}  end {:.1}",
            p.name, p.cpu_per_million, p.rss_idle_mib, p.rss_peak_mib, p.rss_end_mib
        )?;
    }
    writeln!(
        out,
        "  {:<20} {:>7.2} CPU s per million",
        "generator", r.generator_cpu_per_million
    )?;
    for error in &r.errors {
        writeln!(out, "  error: {error}")?;
    }
    Ok(())
}
