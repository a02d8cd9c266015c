//! Native histograms: sparse buckets of exponentially growing width (Prometheus, "native histograms", standard schemas).

/// Buckets of one series. Bucket `i` of schema `s` holds what is above `2^((i-1)/2^s)` and at most `2^(i/2^s)`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Native {
    pub schema: i8,
    /// Observations in the zero bucket: those of at most [`ZERO`].
    pub zero: u64,
    /// Index and count, in the order of the indices.
    pub buckets: Vec<(i32, u64)>,
}

/// The first schema: a bucket is 9 % wider than the one before.
const SCHEMA: i8 = 3;
/// The coarsest schema that there is.
const COARSEST: i8 = -4;
/// More buckets than these halve the resolution.
const MAX_BUCKETS: usize = 160;
/// Width of the zero bucket, 2^-128 as in the Prometheus client libraries.
pub(crate) const ZERO: f64 = 2.938_735_877_055_719e-39;

impl Default for Native {
    fn default() -> Self {
        Native {
            schema: SCHEMA,
            zero: 0,
            buckets: Vec::new(),
        }
    }
}

impl Native {
    /// Adds an observation, which must be finite and not negative.
    pub(crate) fn observe(&mut self, value: f64) {
        if value <= ZERO {
            self.zero += 1;
            return;
        }
        let index = index(value, self.schema);
        match self.buckets.binary_search_by_key(&index, |(i, _)| *i) {
            Ok(at) => self.buckets[at].1 += 1,
            Err(at) => {
                self.buckets.insert(at, (index, 1));
                while self.buckets.len() > MAX_BUCKETS && self.schema > COARSEST {
                    self.halve();
                }
            }
        }
    }

    /// Joins each two neighbouring buckets.
    fn halve(&mut self) {
        self.schema -= 1;
        let mut joined: Vec<(i32, u64)> = Vec::with_capacity(self.buckets.len());
        for (index, count) in &self.buckets {
            // The upper bound decides: 2i-1 and 2i become i.
            let index = (index + 1).div_euclid(2);
            match joined.last_mut() {
                Some((last, sum)) if *last == index => *sum += count,
                _ => joined.push((index, *count)),
            }
        }
        self.buckets = joined;
    }

    /// Spans (offset, length) and the differences from bucket to bucket, as the protobuf form has them.
    pub(crate) fn spans(&self) -> (Vec<(i32, u32)>, Vec<i64>) {
        let (mut spans, mut deltas) = (Vec::<(i32, u32)>::new(), Vec::new());
        let (mut next, mut before) = (0, 0);
        for (index, count) in &self.buckets {
            match spans.last_mut() {
                Some((_, length)) if *index == next => *length += 1,
                _ => spans.push((index - next, 1)),
            }
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            deltas.push(count - before);
            (next, before) = (index + 1, count);
        }
        (spans, deltas)
    }
}

/// The bucket of a positive value: the smallest `i` with `value <= 2^(i/2^schema)`.
fn index(value: f64, schema: i8) -> i32 {
    let (fraction, exponent) = split(value);
    if schema <= 0 {
        // fraction is in [0.5, 1): the value is at most 2^exponent, and a power of two exactly when fraction is 0.5.
        let power = if fraction == 0.5 {
            exponent - 1
        } else {
            exponent
        };
        let width = 1 << -schema;
        return (power - 1).div_euclid(width) + 1;
    }
    let per_octave = 1_i32 << schema;
    // An estimate, put right by comparing with the bounds themselves.
    let bound = |i: i32| 0.5 * 2_f64.powf(f64::from(i) / f64::from(per_octave));
    let mut step = 0;
    while step < per_octave && bound(step) < fraction {
        step += 1;
    }
    step + (exponent - 1) * per_octave
}

/// `value = fraction * 2^exponent` with the fraction in [0.5, 1), as C's `frexp`.
fn split(value: f64) -> (f64, i32) {
    const SHIFT: f64 = 18_446_744_073_709_551_616.0; // 2^64, which makes a subnormal number normal.
    let (value, shift) = if value < f64::MIN_POSITIVE {
        (value * SHIFT, -64)
    } else {
        (value, 0)
    };
    let bits = value.to_bits();
    let exponent = i32::try_from((bits >> 52) & 0x7ff).unwrap_or_default() - 1022 + shift;
    let fraction = f64::from_bits((bits & !(0x7ff << 52)) | (1022 << 52));
    (fraction, exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(value: f64, index: i32, schema: i8) -> bool {
        let growth = 2_f64.powf(2_f64.powi(-i32::from(schema)));
        let (low, high) = (growth.powi(index - 1), growth.powi(index));
        low * (1.0 - 1e-12) < value && value <= high * (1.0 + 1e-12)
    }

    #[test]
    fn a_value_is_in_the_bucket_of_its_size() {
        for value in [
            1e-9, 0.001, 0.25, 0.3, 0.999, 1.0, 1.000_001, 1.5, 2.0, 3.0, 1e6,
        ] {
            for schema in [-4, -2, -1, 0, 1, 3, 8] {
                let index = index(value, schema);
                assert!(holds(value, index, schema), "{value} {schema} {index}");
            }
        }
        // Bounds themselves belong to the bucket below.
        assert_eq!([1.0, 2.0, 0.5, 4.0].map(|v| index(v, 0)), [0, 1, -1, 2]);
        assert_eq!([1.0, 2.0, 0.5].map(|v| index(v, 3)), [0, 8, -8]);
        assert_eq!(split(5e-324), (0.5, -1073));
    }

    #[test]
    fn too_many_buckets_become_coarser_and_nothing_is_lost() {
        let mut native = Native::default();
        for i in -400..400 {
            native.observe(2_f64.powf(f64::from(i) / 8.0));
        }
        native.observe(0.0);
        assert!(native.buckets.len() <= MAX_BUCKETS);
        assert!(native.schema < SCHEMA);
        let sum: u64 = native.buckets.iter().map(|(_, count)| count).sum();
        assert_eq!((sum, native.zero), (800, 1));
        let mut fresh = Native {
            schema: native.schema,
            ..Native::default()
        };
        for i in -400..400 {
            fresh.observe(2_f64.powf(f64::from(i) / 8.0));
        }
        assert_eq!(fresh.buckets, native.buckets);
    }

    #[test]
    fn spans_and_deltas_are_the_gaps_and_the_differences() {
        let native = Native {
            schema: 3,
            zero: 0,
            buckets: vec![(-2, 3), (-1, 1), (2, 5)],
        };
        assert_eq!(native.spans(), (vec![(-2, 2), (2, 1)], vec![3, -2, 4]));
    }
}
