//! The circuit breaker: after failures in a row only one batch is tried at a time.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::BreakerConfig;

/// Closed: everything is tried. Open: nothing is. Half-open: one batch at a time, until one succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Closed,
    HalfOpen,
    Open,
}

impl State {
    /// As in the metric.
    pub(crate) fn number(self) -> u8 {
        match self {
            State::Closed => 0,
            State::HalfOpen => 1,
            State::Open => 2,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Breaker {
    failures: u32,
    pause: Duration,
    in_a_row: u32,
    until: Option<Instant>,
}

impl Breaker {
    pub(crate) fn new(config: &BreakerConfig) -> Breaker {
        Breaker {
            failures: config.failures,
            pause: config.pause.0,
            in_a_row: 0,
            until: None,
        }
    }

    /// A batch was taken, at least in part. Whether that closed it.
    pub(crate) fn succeeded(&mut self) -> bool {
        self.in_a_row = 0;
        self.until.take().is_some()
    }

    /// A batch failed as a whole. Whether that opened it (again).
    pub(crate) fn failed(&mut self, now: Instant) -> bool {
        self.in_a_row = self.in_a_row.saturating_add(1);
        let opens = self.failures > 0 && self.in_a_row >= self.failures;
        if opens {
            self.until = Some(now + self.pause);
        }
        opens
    }

    pub(crate) fn state(&self, now: Instant) -> State {
        match self.until {
            None => State::Closed,
            Some(until) if now < until => State::Open,
            Some(_) => State::HalfOpen,
        }
    }

    /// When something may be tried again.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }

    pub(crate) fn in_a_row(&self) -> u32 {
        self.in_a_row
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Time;

    #[test]
    fn opens_after_failures_in_a_row_and_closes_at_the_first_success() {
        let pause = Duration::from_secs(5);
        let mut breaker = Breaker::new(&BreakerConfig {
            failures: 2,
            pause: Time(pause),
        });
        let now = Instant::now();
        assert!(!breaker.failed(now));
        assert!(!breaker.succeeded());
        assert!(!breaker.failed(now));
        assert_eq!(breaker.state(now), State::Closed);
        assert!(breaker.failed(now));
        assert_eq!(breaker.state(now), State::Open);
        let later = now + pause;
        assert_eq!(breaker.state(later), State::HalfOpen);
        assert!(breaker.failed(later), "a failed try opens it again");
        assert_eq!(breaker.state(later), State::Open);
        assert!(breaker.succeeded());
        assert_eq!(breaker.state(later), State::Closed);
    }

    #[test]
    fn zero_never_opens() {
        let mut breaker = Breaker::new(&BreakerConfig {
            failures: 0,
            pause: Time(Duration::from_secs(5)),
        });
        let now = Instant::now();
        assert!((0..100).all(|_| !breaker.failed(now)));
        assert_eq!(breaker.state(now), State::Closed);
    }
}
