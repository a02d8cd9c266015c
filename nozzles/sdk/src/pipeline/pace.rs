//! When the next batch goes, and how many at a time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::{Pipeline, breaker, work};

impl Pipeline {
    /// How many batches may be on their way.
    pub(super) fn limit(&self, now: Instant) -> usize {
        match self.breaker.state(now) {
            breaker::State::Closed => self.concurrency.limit(),
            breaker::State::HalfOpen => 1,
            breaker::State::Open => 0,
        }
    }

    /// Until when nothing may be sent, because of a failure or of the rate.
    pub(super) fn pause(&mut self, now: Instant) -> Option<Instant> {
        let rate = now + self.rate.wait(now);
        let until = self.not_before.max(rate);
        (until > now).then_some(until)
    }

    /// Counts how long the rate has held back a batch since it was last asked.
    pub(super) fn count_held(&mut self, now: Instant) {
        if let Some(since) = self.held.take() {
            let held = now.saturating_duration_since(since).as_nanos();
            let held = u64::try_from(held).unwrap_or(u64::MAX);
            let counted = &self.setup.state.rate_held;
            counted.fetch_add(held, Ordering::Relaxed);
        }
    }

    /// When there is something to do though nothing happens.
    pub(super) fn wake(&mut self, now: Instant) -> Option<Instant> {
        let linger = (!self.building.events.is_empty()).then(|| self.since + self.limits.linger);
        let most = self.concurrency.limit();
        let pause = match self.lanes.may_send(most) {
            true => self.pause(now).max(self.breaker.until()),
            false => None,
        };
        let drain = self.draining.map(|since| since + self.setup.drain);
        let wakes = [linger, pause, drain].into_iter().flatten();
        wakes.filter(|at| *at > now).min()
    }

    /// What an answer means for the pace of the next batches.
    pub(super) fn heed(&mut self, verdict: &work::Verdict, took: Duration, now: Instant) {
        let name = &self.setup.config.name;
        let state = &self.setup.state;
        for (code, n) in &verdict.retried {
            state.retried(code, *n);
        }
        if verdict.progress() {
            if self.breaker.succeeded() {
                tracing::info!(destination = name, "delivers again");
            }
            self.backoff.reset();
        }
        match &verdict.failed {
            None => {
                self.concurrency.confirmed(took);
                state.set_trouble(None);
            }
            Some(why) => {
                self.failed_at_end |= self.draining.is_some();
                state.failures.fetch_add(1, Ordering::Relaxed);
                state.set_trouble(Some(why.to_string()));
                let asked = verdict.after.unwrap_or_default();
                if now
                    .checked_sub(took)
                    .is_some_and(|begun| begun < self.failed_at)
                {
                    // It was on its way when another one failed: the same failure, not one more.
                    self.not_before = self.not_before.max(now + asked);
                    return;
                }
                self.failed_at = now;
                self.concurrency.pushed_back();
                let wait = self.backoff.next_delay().max(asked);
                self.not_before = now + wait;
                if !verdict.progress() && self.breaker.failed(now) {
                    tracing::warn!(
                        destination = name,
                        failures = self.breaker.in_a_row(),
                        %why,
                        "the circuit breaker is open"
                    );
                } else {
                    tracing::warn!(
                        destination = name,
                        %why,
                        wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                        "not delivered, will be tried again"
                    );
                }
            }
        }
    }
}
