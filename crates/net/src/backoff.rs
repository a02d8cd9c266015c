//! Waiting times between attempts: exponential, with jitter, bounded.

use std::time::Duration;

/// Exponential backoff with jitter. The default is the connection backoff of gRPC: 1 s, growing by
/// 1.6, up to 120 s, each ±20 %.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    factor: f64,
    jitter: f64,
    next: Duration,
}

impl Backoff {
    /// Starts at `base` and grows by 1.6 up to `max`, with ±20 % jitter.
    pub fn new(base: Duration, max: Duration) -> Self {
        Self {
            base,
            max,
            factor: 1.6,
            jitter: 0.2,
            next: base,
        }
    }

    /// Sets by how much the time grows per attempt (at least 1) and the share by which each time is
    /// varied at random (0 to 1).
    pub fn with_shape(mut self, factor: f64, jitter: f64) -> Self {
        self.factor = factor.max(1.0);
        self.jitter = jitter.clamp(0.0, 1.0);
        self
    }

    /// How long to wait before the next attempt. Each call makes the following one longer.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.next.min(self.max);
        self.next = delay.mul_f64(self.factor).min(self.max);
        delay.mul_f64(1.0 + self.jitter * (2.0 * fastrand::f64() - 1.0))
    }

    /// Starts again at the base: the last attempt succeeded.
    pub fn reset(&mut self) {
        self.next = self.base;
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(120))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_maximum_within_the_jitter_and_resets() {
        let mut backoff = Backoff::default();
        let mut expected = 1.0_f64;
        for _ in 0..20 {
            let delay = backoff.next_delay().as_secs_f64();
            assert!(
                (expected * 0.8 - 1e-6..=expected * 1.2 + 1e-6).contains(&delay),
                "{delay} is not within 20 % of {expected}"
            );
            expected = (expected * 1.6).min(120.0);
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(1200));
    }

    #[test]
    fn two_of_the_same_shape_do_not_march_in_step() {
        let mut one = Backoff::default();
        let mut other = Backoff::default();
        assert!((0..8).any(|_| one.next_delay() != other.next_delay()));
    }
}
