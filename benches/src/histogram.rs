//! Latencies in a fixed histogram: logarithmic with 64 steps per doubling, so every figure is within 1.6 %.

/// Steps per doubling.
const STEPS: u64 = 64;
/// Doublings above the linear part: up to 2^42 ns, over an hour.
const DOUBLINGS: u64 = 36;

/// Counts of nanoseconds. Recording allocates nothing and is a few instructions.
#[derive(Clone)]
pub struct Histogram {
    counts: Box<[u64]>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; (STEPS * (DOUBLINGS + 1)) as usize].into(),
            total: 0,
            max: 0,
        }
    }
}

fn index(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let exponent = u64::from(63 - value.leading_zeros());
    let shift = exponent - 6;
    let step = (value >> shift) - STEPS;
    (((shift + 1) * STEPS + step).min(STEPS * (DOUBLINGS + 1) - 1)) as usize
}

/// The highest value that falls into the same step.
fn upper(index: usize) -> u64 {
    let index = index as u64;
    if index < STEPS {
        return index;
    }
    let shift = index / STEPS - 1;
    ((STEPS + index % STEPS + 1) << shift) - 1
}

impl Histogram {
    /// Adds `count` observations of `nanos`.
    pub fn record(&mut self, nanos: u64, count: u64) {
        self.counts[index(nanos)] += count;
        self.total += count;
        self.max = self.max.max(nanos);
    }

    /// Adds everything of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts.iter()) {
            *mine += theirs;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// How many observations there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The value below which the given share (0 to 1) of the observations lies, in nanoseconds.
    #[must_use]
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (i, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper(i).min(self.max);
            }
        }
        self.max
    }

    /// Median, 99th, 99.9th percentile and maximum in milliseconds.
    #[must_use]
    pub fn summary(&self) -> Latency {
        let ms = |nanos: u64| nanos as f64 / 1e6;
        Latency {
            count: self.total,
            p50_ms: ms(self.quantile(0.5)),
            p99_ms: ms(self.quantile(0.99)),
            p999_ms: ms(self.quantile(0.999)),
            max_ms: ms(self.max),
        }
    }
}

/// What a report says of a histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Latency {
    /// Observations.
    pub count: u64,
    /// Median, milliseconds.
    pub p50_ms: f64,
    /// 99th percentile, milliseconds.
    pub p99_ms: f64,
    /// 99.9th percentile, milliseconds.
    pub p999_ms: f64,
    /// Largest, milliseconds.
    pub max_ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_step_within_two_percent() {
        let mut value = 1u64;
        while value < 1 << 41 {
            for v in [value - 1, value, value + value / 3] {
                let top = upper(index(v));
                assert!(
                    top >= v && (top - v) as f64 <= v as f64 / 60.0 + 1.0,
                    "{v} -> {top}"
                );
            }
            value *= 2;
        }
        assert!(index(u64::MAX) < (STEPS * (DOUBLINGS + 1)) as usize);
    }

    #[test]
    fn quantiles_of_a_known_set() {
        let mut all = Histogram::default();
        let mut odd = Histogram::default();
        for i in 1..=1000u64 {
            if i % 2 == 0 {
                all.record(i * 1000, 1)
            } else {
                odd.record(i * 1000, 1)
            }
        }
        all.merge(&odd);
        assert_eq!(all.total(), 1000);
        let near =
            |got: u64, want: u64| assert!(got >= want && got - want < want / 50, "{got} {want}");
        near(all.quantile(0.5), 500_000);
        near(all.quantile(0.99), 990_000);
        assert_eq!(all.quantile(1.0), 1_000_000);
        assert_eq!(Histogram::default().quantile(0.5), 0);
    }
}
