//! The live summary: one line on a terminal, rewritten once a second.

use crate::view::{count, thousands, write_bytes};
use loggregator_service::ledger::Report;
use std::io::Write as _;
use std::time::Duration;

/// Erases the line.
pub const CLEAR: &str = "\r\x1b[2K";

/// Puts `line` where the last one was. Wrapping is off for the moment, so that a narrow window cuts the line instead of
/// breaking it, and the cursor goes back to its start, where a log line would begin.
pub fn rewrite(line: &str) {
    let mut err = std::io::stderr().lock();
    let text = format!("{CLEAR}\x1b[?7l{line}\x1b[?7h\r");
    // Without a terminal there is nobody to show it to.
    err.write_all(text.as_bytes())
        .and_then(|()| err.flush())
        .ok();
}

/// What the dopplers have seen since they started, summed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    received: u64,
    delivered: u64,
    dropped: u64,
    rejected: u64,
    readers: u64,
    log_bytes: u64,
    log_limit: u64,
}

impl Totals {
    /// Sums the dopplers' reports.
    pub fn of<'a>(reports: impl IntoIterator<Item = &'a Report>) -> Self {
        let mut totals = Self::default();
        for report in reports {
            totals.received += report.ingress.received;
            totals.rejected += report.ingress.rejected_total();
            totals.dropped += report.ingress.dropped_total();
            for subscription in &report.subscriptions {
                totals.delivered += subscription.delivered;
                totals.dropped += subscription.dropped_total();
                totals.readers += u64::from(subscription.open);
            }
            if let Some(log) = &report.log {
                totals.log_bytes += log.bytes;
                totals.log_limit += log.limit;
            }
        }
        totals
    }

    /// Envelopes taken in.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The line: rates over the time since `before`, and what was lost since the start.
    pub fn line(&self, before: &Self, elapsed: Duration) -> String {
        let rate = |now: u64, then: u64| {
            let seconds = elapsed.as_secs_f64().max(0.001);
            thousands((now.saturating_sub(then) as f64 / seconds).round() as u64)
        };
        let mut line = format!(
            "in {}/s · out {}/s to {} · {} so far",
            rate(self.received, before.received),
            rate(self.delivered, before.delivered),
            count(self.readers, "reader"),
            thousands(self.received),
        );
        if self.log_limit > 0 {
            let mut fill = Vec::new();
            write_bytes(&mut fill, self.log_bytes as f64);
            let percent = u128::from(self.log_bytes) * 100 / u128::from(self.log_limit);
            line.push_str(&format!(
                " · log {} ({percent}%)",
                String::from_utf8_lossy(&fill)
            ));
        }
        match (self.dropped, self.rejected) {
            (0, 0) => line.push_str(" · nothing lost"),
            (dropped, 0) => line.push_str(&format!(" · {} lost, see `status`", thousands(dropped))),
            (dropped, rejected) => {
                line.push_str(&format!(
                    " · {} lost, {} malformed, see `status`",
                    thousands(dropped),
                    thousands(rejected)
                ));
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loggregator_service::ledger::{Ingress, LogFill, Subscription};

    fn report(received: u64, delivered: u64, dropped: u64) -> Report {
        Report {
            ingress: Ingress {
                received,
                accepted: received,
                ..Ingress::default()
            },
            subscriptions: vec![Subscription {
                open: true,
                received: delivered + dropped,
                delivered,
                dropped: [("lapped".to_owned(), dropped)].into(),
                ..Subscription::default()
            }],
            log: Some(LogFill {
                bytes: 64 << 20,
                limit: 256 << 20,
                ..LogFill::default()
            }),
            ..Report::default()
        }
    }

    #[test]
    fn rates_are_per_second_over_all_dopplers() {
        let before = Totals::of(&[report(1000, 500, 0), report(0, 0, 0)]);
        let now = Totals::of(&[report(3000, 2500, 0), report(2000, 0, 0)]);
        assert_eq!(
            now.line(&before, Duration::from_secs(2)),
            "in 2,000/s · out 1,000/s to 2 readers · 5,000 so far · log 128 MiB (25%) · nothing lost"
        );
    }

    #[test]
    fn losses_are_never_left_out() {
        let line = Totals::of(&[report(10, 3, 7)]).line(&Totals::default(), Duration::from_secs(1));
        assert!(line.ends_with("· 7 lost, see `status`"), "{line}");
    }
}
