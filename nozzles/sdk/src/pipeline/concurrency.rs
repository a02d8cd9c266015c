//! How many batches are on their way at a time: found out, within what the destination allows.
//!
//! Begins with one. Every time that a full load was confirmed without trouble there may be one more; when the destination
//! pushes back, or answers more slowly than it used to, the number is multiplied by 0.9. "More slowly" is: the smoothed round
//! trip (weight 0.4 of the newest) is more than 2.5 deviations above its mean.

use std::time::Duration;

const WEIGHT: f64 = 0.4;
const DEVIATIONS: f64 = 2.5;
const DECREASE: f64 = 0.9;
/// A rise below this is noise, whatever the deviation: round trips on a local network vary by less than a timer's tick.
const NOISE: f64 = 0.001;
/// Round trips from which a mean means something.
const ENOUGH: u32 = 5;

#[derive(Debug)]
pub(crate) struct Concurrency {
    most: usize,
    limit: f64,
    /// Confirmed since the limit changed.
    confirmed: usize,
    /// Whether the limit was reached since then: without that, more would change nothing.
    reached: bool,
    smoothed: Option<f64>,
    mean: f64,
    variance: f64,
    seen: u32,
}

impl Concurrency {
    /// Up to `most`.
    pub(crate) fn new(most: usize) -> Concurrency {
        Concurrency {
            most: most.max(1),
            limit: 1.0,
            confirmed: 0,
            reached: false,
            smoothed: None,
            mean: 0.0,
            variance: 0.0,
            seen: 0,
        }
    }

    /// How many may be on their way.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and `most`"
    )]
    pub(crate) fn limit(&self) -> usize {
        (self.limit as usize).clamp(1, self.most)
    }

    /// So many are on their way now.
    pub(crate) fn flying(&mut self, n: usize) {
        self.reached |= n >= self.limit();
    }

    /// A batch was confirmed after this time.
    pub(crate) fn confirmed(&mut self, took: Duration) {
        let newest = took.as_secs_f64();
        let smoothed = match self.smoothed {
            None => newest,
            Some(before) => before + WEIGHT * (newest - before),
        };
        self.smoothed = Some(smoothed);
        let slower = self.seen >= ENOUGH
            && smoothed > self.mean + (DEVIATIONS * self.variance.sqrt()).max(NOISE);
        if slower {
            self.decrease();
        } else {
            self.confirmed += 1;
            if self.reached && self.confirmed >= self.limit() {
                self.changed((self.limit.floor() + 1.0).min(self.most as f64));
            }
        }
        self.remember(newest);
    }

    /// The destination pushed back or did not answer.
    pub(crate) fn pushed_back(&mut self) {
        self.decrease();
    }

    fn decrease(&mut self) {
        self.changed((self.limit * DECREASE).max(1.0));
    }

    fn changed(&mut self, limit: f64) {
        self.limit = limit;
        self.confirmed = 0;
        self.reached = false;
    }

    /// Mean and variance that forget slowly, so that a lasting change becomes the normal state.
    fn remember(&mut self, newest: f64) {
        self.seen = self.seen.saturating_add(1);
        let weight = (1.0 / f64::from(self.seen)).max(0.02);
        let away = newest - self.mean;
        self.mean += weight * away;
        self.variance = (1.0 - weight) * (self.variance + weight * away * away);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(10);

    fn used(concurrency: &mut Concurrency, times: usize, took: Duration) {
        for _ in 0..times {
            concurrency.flying(concurrency.limit());
            concurrency.confirmed(took);
        }
    }

    #[test]
    fn grows_by_one_per_full_load_up_to_what_is_allowed() {
        let mut concurrency = Concurrency::new(4);
        let mut limits = Vec::new();
        for _ in 0..12 {
            used(&mut concurrency, 1, FAST);
            limits.push(concurrency.limit());
        }
        assert_eq!(limits, [2, 2, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4]);
    }

    #[test]
    fn does_not_grow_while_it_is_not_used() {
        let mut concurrency = Concurrency::new(8);
        used(&mut concurrency, 1, FAST);
        for _ in 0..100 {
            concurrency.flying(1);
            concurrency.confirmed(FAST);
        }
        assert_eq!(concurrency.limit(), 2);
    }

    #[test]
    fn shrinks_when_pushed_back_and_never_below_one() {
        let mut concurrency = Concurrency::new(20);
        used(&mut concurrency, 300, FAST);
        assert_eq!(concurrency.limit(), 20);
        concurrency.pushed_back();
        assert_eq!(concurrency.limit(), 18);
        (0..100).for_each(|_| concurrency.pushed_back());
        assert_eq!(concurrency.limit(), 1);
    }

    #[test]
    fn shrinks_when_answers_take_longer_than_usual() {
        let mut concurrency = Concurrency::new(20);
        used(&mut concurrency, 300, FAST);
        used(&mut concurrency, 1, Duration::from_millis(200));
        assert_eq!(concurrency.limit(), 18);
    }

    #[test]
    fn a_destination_that_takes_one_gets_one() {
        let mut concurrency = Concurrency::new(1);
        used(&mut concurrency, 10, FAST);
        assert_eq!(concurrency.limit(), 1);
    }
}
