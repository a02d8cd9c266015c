//! Which envelopes a reader that is behind leaves out: the loudest sources' oldest ones.

use std::collections::HashMap;
use std::ops::Range;

use loggregator_envelope::{Entry, KindSet};

use crate::ring::Slot;

/// What to skip in a stretch of the log so that a part of it remains.
///
/// Bytes are shared out fairly (max-min): every source gets what it has, as long as that is no more than the share T
/// for which the sum of min(bytes of source, T) is what is to remain. Sources above T lose their **oldest** bytes down to
/// T; a source at or below T loses nothing. So one noisy source never costs a quiet one a line.
#[derive(Debug)]
pub struct ShedPlan {
    until: u64,
    skip: HashMap<u64, u64, foldhash::fast::FixedState>,
}

impl ShedPlan {
    /// Plans for the slots (and entry ranges in them) of `backlog`, counting only envelopes whose kind is in `kinds`:
    /// `keep.0` of `keep.1` parts of their bytes shall remain. `None` if they are at most `little` bytes: whoever wants
    /// so little of the log gains nothing by wanting less.
    pub fn new<'a>(
        backlog: impl Iterator<Item = (&'a Slot, Range<u32>)>,
        kinds: KindSet,
        keep: (u64, u64),
        little: u64,
    ) -> Option<Self> {
        let mut bytes: HashMap<u64, u64, foldhash::fast::FixedState> = HashMap::default();
        let mut until = 0;
        let mut total = 0;
        for (slot, range) in backlog {
            until = until.max(slot.ordinal + 1);
            let entries = slot.frame().entries();
            let end = (range.end as usize).min(entries.len());
            for entry in &entries[(range.start as usize).min(end)..end] {
                if kinds.contains(entry.kind()) {
                    *bytes.entry(entry.source_hash).or_default() += u64::from(entry.len);
                    total += u64::from(entry.len);
                }
            }
        }
        if total <= little {
            return None;
        }
        let target =
            u64::try_from(u128::from(total) * u128::from(keep.0) / u128::from(keep.1.max(1)))
                .unwrap_or(total);
        let share = fair_share(bytes.values().copied().collect(), target);
        let skip = bytes
            .into_iter()
            .filter(|(_, bytes)| *bytes > share)
            .map(|(source, bytes)| (source, bytes - share))
            .collect();
        Some(Self { until, skip })
    }

    /// True if the plan says nothing about slots from `ordinal` on.
    pub fn is_over(&self, ordinal: u64) -> bool {
        ordinal >= self.until || self.skip.is_empty()
    }

    /// Whether to leave this envelope out; uses up the source's allowance.
    pub fn skips(&mut self, entry: &Entry) -> bool {
        let Some(left) = self.skip.get_mut(&entry.source_hash) else {
            return false;
        };
        match left.checked_sub(u64::from(entry.len)) {
            Some(rest) if rest > 0 => *left = rest,
            _ => {
                self.skip.remove(&entry.source_hash);
            }
        }
        true
    }
}

/// The share T: the sum of min(b, T) over all `bytes` is `target`.
fn fair_share(mut bytes: Vec<u64>, target: u64) -> u64 {
    bytes.sort_unstable();
    let mut left = target;
    let mut sources = bytes.len() as u64;
    for b in bytes {
        let share = left / sources.max(1);
        if b > share {
            return share;
        }
        left -= b;
        sources -= 1;
    }
    u64::MAX
}

#[cfg(test)]
mod tests {
    use super::fair_share;

    #[test]
    fn quiet_sources_keep_everything_and_the_loud_share_the_rest() {
        assert_eq!(fair_share(vec![10, 1000, 20], 130), 100);
        assert_eq!(fair_share(vec![10, 1000, 1000], 210), 100);
        assert_eq!(fair_share(vec![100, 100], 100), 50);
        assert_eq!(fair_share(vec![5, 5], 100), u64::MAX);
        assert_eq!(fair_share(vec![7], 0), 0);
    }
}
