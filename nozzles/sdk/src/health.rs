//! Whether a nozzle does its work, and if not, why: the conditions of `/readyz`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use loggregator_service::Lifecycle;
use loggregator_service::admin::{Condition, Readiness};
use tokio::time::Instant;

use crate::buffer::BACKLOG_FULL;
use crate::ledger::{LEFT_OUT, Ledger, Line, MALFORMED};

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// So long after a loss for want of room the buffer counts as full.
const FULL_FOR: Duration = Duration::from_secs(10);

/// What is looked at.
pub(crate) struct Health {
    pub ledger: Arc<Ledger>,
    pub readiness: Readiness,
    /// Zero: silence is never a fault.
    pub max_silence: Duration,
    pub max_stuck: Duration,
    intake: Condition,
    buffer: Condition,
    refused: Growth,
    destinations: BTreeMap<String, (Condition, Growth)>,
}

/// When a count last grew.
#[derive(Debug, Default)]
struct Growth {
    count: Option<u64>,
    at: Option<Instant>,
}

impl Growth {
    /// Whether it grew within the last seconds.
    fn recent(&mut self, count: u64, now: Instant) -> bool {
        if self.count.is_some_and(|before| count > before) {
            self.at = Some(now);
        }
        self.count = Some(count);
        self.at
            .is_some_and(|at| now.saturating_duration_since(at) < FULL_FOR)
    }
}

impl Health {
    pub(crate) fn new(
        ledger: Arc<Ledger>,
        readiness: Readiness,
        max_silence: Duration,
        max_stuck: Duration,
    ) -> Health {
        Health {
            intake: readiness.condition("intake"),
            buffer: readiness.condition("buffer"),
            ledger,
            readiness,
            max_silence,
            max_stuck,
            refused: Growth::default(),
            destinations: BTreeMap::new(),
        }
    }

    /// Looks until the nozzle stops.
    pub(crate) async fn watch(mut self, lifecycle: Lifecycle) {
        let stop = lifecycle.token();
        loop {
            self.look(Instant::now());
            if stop
                .run_until_cancelled(tokio::time::sleep(EVERY))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    fn look(&mut self, now: Instant) {
        set(&self.intake, self.intake());
        let buffer = self.buffer(now);
        set(&self.buffer, buffer);
        let buffer = self.ledger.buffer.report();
        let lines = self.ledger.lines.read().clone();
        // Of destinations that are no more nothing is wanted.
        for (name, (condition, _)) in &self.destinations {
            if lines.iter().all(|line| line.name != *name) {
                condition.ready();
            }
        }
        self.destinations
            .retain(|name, _| lines.iter().any(|line| line.name == *name));
        for line in lines {
            let (condition, growth) =
                self.destinations
                    .entry(line.name.clone())
                    .or_insert_with(|| {
                        let name = format!("destination {}", line.name);
                        (self.readiness.condition(&name), Growth::default())
                    });
            let standing = line.standing(&buffer);
            let lost = standing
                .account
                .dropped
                .get(BACKLOG_FULL)
                .copied()
                .unwrap_or(0);
            let full = growth.recent(lost, now);
            set(
                condition,
                destination(&line, standing.pending, full, self.max_stuck, now),
            );
        }
    }

    fn intake(&self) -> Option<String> {
        let silence = self.ledger.intake.silence();
        let silent = !self.max_silence.is_zero() && silence > self.max_silence;
        silent.then(|| {
            let error = self.ledger.intake.last_error();
            let error = error.map_or_else(String::new, |error| format!(": {error}"));
            format!("no envelope for {} s{error}", silence.as_secs())
        })
    }

    fn buffer(&mut self, now: Instant) -> Option<String> {
        let rejected = self.ledger.ingress.lock().rejected.clone();
        let refusals = rejected
            .iter()
            .filter(|(reason, _)| ![LEFT_OUT, MALFORMED].contains(&reason.as_str()));
        let reasons: Vec<&str> = refusals
            .clone()
            .map(|(reason, _)| reason.as_str())
            .collect();
        let recent = self.refused.recent(refusals.map(|(_, n)| *n).sum(), now);
        recent.then(|| format!("takes not everything: {}", reasons.join(", ")))
    }
}

fn destination(
    line: &Line,
    pending: u64,
    full: bool,
    max_stuck: Duration,
    now: Instant,
) -> Option<String> {
    let state = &line.state;
    let trouble = state.trouble();
    let why = trouble.map_or_else(String::new, |why| format!(": {why}"));
    let idle = now.saturating_duration_since(state.progress());
    if pending > 0 && idle > max_stuck {
        let idle = idle.as_secs();
        return Some(format!(
            "nothing delivered for {idle} s, {pending} events wait{why}"
        ));
    }
    if full {
        return Some(format!(
            "its share of the buffer is full, events are lost{why}"
        ));
    }
    if state.breaker() > 0 {
        return Some(format!(
            "the circuit breaker is open, {pending} events wait{why}"
        ));
    }
    None
}

fn set(condition: &Condition, missing: Option<String>) {
    match missing {
        None => condition.ready(),
        Some(why) => condition.not_ready(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_remembered_for_a_while() {
        let mut growth = Growth::default();
        let now = Instant::now();
        assert!(
            !growth.recent(7, now),
            "what was there at first is no growth"
        );
        assert!(growth.recent(8, now));
        assert!(growth.recent(8, now + FULL_FOR / 2));
        assert!(!growth.recent(8, now + FULL_FOR));
    }
}
