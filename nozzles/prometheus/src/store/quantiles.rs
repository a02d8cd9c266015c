//! Quantiles of the last ten minutes in bounded memory, for the summary of the `firehose_exporter` profile.

/// How long an observation counts, milliseconds, as in the Prometheus client library for Go.
const MAX_AGE: u64 = 600_000;
/// In how many parts the time is forgotten.
const PARTS: usize = 5;
/// Most cells of a part. Sizes of answers span less than 30 octaves of [`PER_OCTAVE`] cells.
const MAX_CELLS: usize = 1024;
/// Cells per doubling: a cell is 2.2 % wide, and a quantile at most so far off. The mean of a cell is told, so that few
/// different sizes are told exactly.
const PER_OCTAVE: f64 = 32.0;

/// Observations by size, in parts of two minutes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Quantiles {
    parts: [Vec<Cell>; PARTS],
    /// Number of the present part since the beginning of the clock.
    part: u64,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    key: i16,
    count: u64,
    sum: f64,
}

impl Quantiles {
    pub(crate) fn observe(&mut self, value: f64, now: u64) {
        self.forget(now);
        let key = if value < 1.0 {
            -1
        } else {
            // At most 1024 octaves, 32 cells each: fits.
            (value.log2() * PER_OCTAVE) as i16
        };
        let part = &mut self.parts[(self.part % PARTS as u64) as usize];
        match part.binary_search_by_key(&key, |cell| cell.key) {
            Ok(at) => {
                part[at].count += 1;
                part[at].sum += value;
            }
            Err(at) if part.len() < MAX_CELLS => part.insert(
                at,
                Cell {
                    key,
                    count: 1,
                    sum: value,
                },
            ),
            Err(_) => {}
        }
    }

    fn forget(&mut self, now: u64) {
        let part = now / (MAX_AGE / PARTS as u64);
        for old in self.part + 1..=part.min(self.part + PARTS as u64) {
            self.parts[(old % PARTS as u64) as usize].clear();
        }
        self.part = self.part.max(part);
    }

    /// The value of each of these quantiles; NaN when nothing was observed lately.
    pub(crate) fn values<const N: usize>(&self, quantiles: [f64; N], now: u64) -> [f64; N] {
        let mut shown = self.clone();
        shown.forget(now);
        let mut cells: Vec<Cell> = shown.parts.into_iter().flatten().collect();
        cells.sort_by_key(|cell| cell.key);
        let all: u64 = cells.iter().map(|cell| cell.count).sum();
        quantiles.map(|quantile| {
            #[expect(clippy::cast_precision_loss, reason = "a rank need not be exact")]
            let mut rank = (quantile * all as f64).ceil().max(1.0) as u64;
            for cell in &cells {
                if rank <= cell.count {
                    #[expect(clippy::cast_precision_loss, reason = "as every Prometheus value")]
                    return cell.sum / cell.count as f64;
                }
                rank -= cell.count;
            }
            f64::NAN
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_last_ten_minutes() {
        let mut quantiles = Quantiles::default();
        quantiles.observe(512.0, 0);
        quantiles.observe(128.0, 1000);
        assert_eq!(
            quantiles.values([0.2, 0.5, 0.75, 0.95], 1000),
            [128.0, 128.0, 512.0, 512.0]
        );
        quantiles.observe(0.0, 300_000);
        assert_eq!(
            quantiles.values([0.2, 0.5, 0.95], 599_999),
            [0.0, 128.0, 512.0]
        );
        assert_eq!(quantiles.values([0.5], 600_000), [0.0]);
        assert!(quantiles.values([0.5], 1_000_000)[0].is_nan());
        for i in 1..=1000 {
            quantiles.observe(f64::from(i), 2_000_000);
        }
        for (quantile, exact) in [(0.2, 200.0), (0.5, 500.0), (0.95, 950.0)] {
            let [value] = quantiles.values([quantile], 2_000_000);
            assert!((value / exact - 1.0).abs() < 0.022, "{value} for {exact}");
        }
    }
}
