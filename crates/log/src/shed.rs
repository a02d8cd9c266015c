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

/// How many bytes each source has in a stretch of the log. Readers of the same kinds in the same stretch can share one.
#[derive(Debug)]
pub struct Survey {
    until: u64,
    total: u64,
    bytes: HashMap<u64, u64, foldhash::fast::FixedState>,
}

// === impl Survey ===

impl Survey {
    /// Adds up the slots (and entry ranges in them) of `backlog`, counting only envelopes whose kind is in `kinds`.
    pub fn new<'a>(backlog: impl Iterator<Item = (&'a Slot, Range<u32>)>, kinds: KindSet) -> Self {
        let mut survey = Self {
            until: 0,
            total: 0,
            bytes: HashMap::default(),
        };
        for (slot, range) in backlog {
            survey.until = survey.until.max(slot.ordinal + 1);
            let entries = slot.frame().entries();
            let end = (range.end as usize).min(entries.len());
            for entry in &entries[(range.start as usize).min(end)..end] {
                if kinds.contains(entry.kind()) {
                    *survey.bytes.entry(entry.source_hash).or_default() += u64::from(entry.len);
                    survey.total += u64::from(entry.len);
                }
            }
        }
        survey
    }

    /// Ordinal of the frame after the last that was looked at.
    pub fn until(&self) -> u64 {
        self.until
    }
}

// === impl ShedPlan ===

impl ShedPlan {
    /// Plans for the stretch of `survey`: `keep.0` of `keep.1` parts of its bytes shall remain. `None` if they are at
    /// most `little` bytes: whoever wants so little of the log gains nothing by wanting less.
    pub fn new(survey: &Survey, keep: (u64, u64), little: u64) -> Option<Self> {
        if survey.total <= little {
            return None;
        }
        let part = u128::from(survey.total) * u128::from(keep.0) / u128::from(keep.1.max(1));
        let target = u64::try_from(part).unwrap_or(survey.total);
        let share = fair_share(survey.bytes.values().copied().collect(), target);
        let skip = survey
            .bytes
            .iter()
            .filter(|(_, bytes)| **bytes > share)
            .map(|(source, bytes)| (*source, bytes - share))
            .collect();
        Some(Self {
            until: survey.until,
            skip,
        })
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
