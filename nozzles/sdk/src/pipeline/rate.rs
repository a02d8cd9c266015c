//! How much a destination is sent at most: a bucket of events and one of bytes.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::RateConfig;

/// Both buckets of a destination.
#[derive(Debug)]
pub(crate) struct Rate {
    events: Option<Bucket>,
    bytes: Option<Bucket>,
}

/// Fills with time up to one second's worth. What is taken may exceed what is there, so that a batch bigger than a second's
/// worth passes too; then nothing more passes until the debt is paid.
#[derive(Debug)]
pub(crate) struct Bucket {
    per_second: f64,
    most: f64,
    level: f64,
    at: Instant,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "rates are far below 2^53 per second"
)]
impl Bucket {
    /// A full bucket that holds `seconds` seconds' worth.
    pub(crate) fn new(per_second: u64, seconds: u32, now: Instant) -> Bucket {
        let per_second = per_second as f64;
        let most = per_second * f64::from(seconds.max(1));
        Bucket {
            per_second,
            most,
            level: most,
            at: now,
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + passed * self.per_second).min(self.most);
        self.at = now;
    }

    /// Takes one, if there is one.
    pub(crate) fn one(&mut self, now: Instant) -> bool {
        self.fill(now);
        let there = self.level >= 1.0;
        if there {
            self.level -= 1.0;
        }
        there
    }

    /// How long nothing passes.
    fn wait(&mut self, now: Instant) -> Duration {
        self.fill(now);
        if self.level > 0.0 {
            Duration::ZERO
        } else {
            // At least a little, so that a level of exactly 0 does not spin.
            Duration::from_secs_f64(-self.level / self.per_second) + Duration::from_millis(1)
        }
    }

    fn take(&mut self, n: u64) {
        self.level -= n as f64;
    }

    /// Whether it is full: its owner has not been seen for a while.
    pub(crate) fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.level >= self.most
    }
}

impl Rate {
    pub(crate) fn new(config: &RateConfig, now: Instant) -> Rate {
        let bucket = |n: u64| (n > 0).then(|| Bucket::new(n, 1, now));
        Rate {
            events: bucket(config.events),
            bytes: bucket(config.bytes.0),
        }
    }

    /// How long to wait before the next batch.
    pub(crate) fn wait(&mut self, now: Instant) -> Duration {
        let mut wait = Duration::ZERO;
        for bucket in [&mut self.events, &mut self.bytes].into_iter().flatten() {
            wait = wait.max(bucket.wait(now));
        }
        wait
    }

    /// A batch of this size is sent.
    pub(crate) fn take(&mut self, events: usize, bytes: usize) {
        if let Some(bucket) = &mut self.events {
            bucket.take(events as u64);
        }
        if let Some(bucket) = &mut self.bytes {
            bucket.take(bytes as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Size;

    #[test]
    fn a_debt_is_paid_before_anything_passes() {
        let now = Instant::now();
        let mut rate = Rate::new(
            &RateConfig {
                events: 100,
                bytes: Size(0),
            },
            now,
        );
        assert_eq!(rate.wait(now), Duration::ZERO);
        rate.take(300, 1 << 30);
        assert_eq!(rate.wait(now), Duration::from_millis(2001));
        let later = now + Duration::from_millis(2500);
        assert_eq!(rate.wait(later), Duration::ZERO);
    }

    #[test]
    fn the_scarcer_of_the_two_decides() {
        let now = Instant::now();
        let mut rate = Rate::new(
            &RateConfig {
                events: 1000,
                bytes: Size(1000),
            },
            now,
        );
        rate.take(1, 2000);
        assert_eq!(rate.wait(now), Duration::from_millis(1001));
    }

    #[test]
    fn no_limit_is_no_wait() {
        let now = Instant::now();
        let mut rate = Rate::new(&RateConfig::default(), now);
        rate.take(usize::MAX, usize::MAX);
        assert_eq!(rate.wait(now), Duration::ZERO);
    }
}
