//! The value of one series.

use std::sync::Arc;

use super::native::Native;
use super::quantiles::Quantiles;

/// What a series holds.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    Counter(u64),
    Gauge(f64),
    Histogram(Box<Histogram>),
    Summary(Box<Summary>),
}

/// Observations in buckets.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    /// Upper bounds, without infinity.
    pub bounds: Arc<[f64]>,
    /// Observations of each bucket alone; the last is of those above all bounds.
    pub counts: Box<[u64]>,
    pub sum: f64,
    pub native: Option<Native>,
    /// One per bucket, once there is any.
    pub exemplars: Box<[Option<Exemplar>]>,
}

/// A request that stands for its bucket.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Exemplar {
    pub request_id: String,
    pub value: f64,
    /// Milliseconds since 1970.
    pub at: i64,
}

/// Most characters of an exemplar's value: names and values together may have 128.
const MAX_ID: usize = 128 - "request_id".len();
/// For so long a slower request keeps its place as exemplar, milliseconds.
const EXEMPLAR_AGE: i64 = 60_000;

impl Histogram {
    pub(crate) fn new(bounds: &Arc<[f64]>, native: bool) -> Histogram {
        Histogram {
            bounds: Arc::clone(bounds),
            counts: vec![0; bounds.len() + 1].into(),
            sum: 0.0,
            native: native.then(Native::default),
            exemplars: Box::default(),
        }
    }

    /// Adds an observation and returns its bucket.
    pub(crate) fn observe(&mut self, value: f64) -> usize {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket] += 1;
        self.sum += value;
        if let Some(native) = &mut self.native {
            native.observe(value);
        }
        bucket
    }

    /// Makes a request the exemplar of its bucket, if it is slower than the present one, or that is old.
    pub(crate) fn remember(&mut self, bucket: usize, value: f64, at: i64, request_id: &str) {
        if request_id.is_empty() || request_id.chars().count() > MAX_ID {
            return;
        }
        if self.exemplars.is_empty() {
            self.exemplars = vec![None; self.counts.len()].into();
        }
        match &mut self.exemplars[bucket] {
            Some(known) if known.value >= value && at - known.at < EXEMPLAR_AGE => {}
            Some(known) => {
                known.request_id.clear();
                known.request_id.push_str(request_id);
                (known.value, known.at) = (value, at);
            }
            none => {
                *none = Some(Exemplar {
                    request_id: request_id.to_owned(),
                    value,
                    at,
                });
            }
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Upper bound and cumulative count of each bucket, infinity included.
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let sums = self.counts.iter().scan(0, |sum: &mut u64, count| {
            *sum += count;
            Some(*sum)
        });
        bounds.zip(sums)
    }
}

/// Observations as quantiles of the last minutes, and what they sum up to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Summary {
    pub quantiles: Quantiles,
    pub count: u64,
    pub sum: f64,
}

impl Summary {
    pub(crate) fn observe(&mut self, value: f64, now: u64) {
        self.quantiles.observe(value, now);
        self.count += 1;
        self.sum += value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_include_their_upper_bound() {
        let mut histogram = Histogram::new(&Arc::from([1.0, 2.0]), false);
        for value in [0.5, 1.0, 1.5, 2.5] {
            histogram.observe(value);
        }
        let sums: Vec<_> = histogram.cumulative().collect();
        assert_eq!(sums, [(1.0, 2), (2.0, 3), (f64::INFINITY, 4)]);
        assert_eq!((histogram.count(), histogram.sum), (4, 5.5));
    }

    #[test]
    fn the_slowest_request_of_the_last_minute_stands_for_its_bucket() {
        let mut histogram = Histogram::new(&Arc::from([1.0, 10.0]), false);
        let mut ask = |value, at, id: &str| {
            let bucket = histogram.observe(value);
            histogram.remember(bucket, value, at, id);
            histogram.exemplars[bucket]
                .as_ref()
                .map(|e| e.request_id.clone())
        };
        assert_eq!(ask(2.0, 0, "a").as_deref(), Some("a"));
        assert_eq!(ask(1.5, 1, "b").as_deref(), Some("a"));
        assert_eq!(ask(3.0, 2, "c").as_deref(), Some("c"));
        assert_eq!(ask(1.5, 60_002, "d").as_deref(), Some("d"));
        assert_eq!(ask(20.0, 0, "").as_deref(), None);
        assert_eq!(ask(20.0, 0, &"x".repeat(119)).as_deref(), None);
        assert!(ask(20.0, 0, &"ü".repeat(118)).is_some());
    }
}
