//! Counting what was lost, by source.

use std::collections::HashMap;
use std::ops::Range;

use loggregator_envelope::{Entry, KindSet};

use crate::ring::Slot;

/// The most sources a [`Tally`] names; what is lost of further ones is counted under [`Tally::unnamed`].
const MOST_SOURCES: usize = 4096;

/// A count of envelopes, in all and by source id.
///
/// The total is always exact. The split is exact for the first 4,096 sources that lost something.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    total: u64,
    unnamed: u64,
    untold: u64,
    untold_unnamed: u64,
    sources: HashMap<u64, Source, foldhash::fast::FixedState>,
}

/// A source's count, and how much of it has not been told yet.
#[derive(Debug, Clone)]
struct Source {
    source_id: Box<str>,
    count: u64,
    untold: u64,
}

/// One source's share of a [`Tally`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceCount {
    /// The source id.
    pub source_id: Box<str>,
    /// Envelopes of it.
    pub count: u64,
}

impl Tally {
    /// Counts one envelope.
    pub fn add(&mut self, slot: &Slot, entry: &Entry) {
        self.add_named(entry.source_hash, 1, || {
            slot.frame().source_id(entry).into()
        });
    }

    /// Counts the envelopes of `range` in a slot whose kind is in `kinds`; returns how many that were.
    pub fn add_range(&mut self, slot: &Slot, range: Range<u32>, kinds: KindSet) -> u64 {
        let before = self.total;
        let entries = slot.frame().entries();
        let end = (range.end as usize).min(entries.len());
        let start = (range.start as usize).min(end);
        for entry in &entries[start..end] {
            if kinds.contains(entry.kind()) {
                self.add(slot, entry);
            }
        }
        self.total - before
    }

    /// Counts envelopes whose source is not known any more.
    pub fn add_unnamed(&mut self, count: u64) {
        self.total += count;
        self.untold += count;
        self.unnamed += count;
        self.untold_unnamed += count;
    }

    /// Adds another tally to this one.
    pub fn merge(&mut self, other: &Tally) {
        for (hash, source) in &other.sources {
            self.add_named(*hash, source.count, || source.source_id.clone());
        }
        self.add_unnamed(other.unnamed);
    }

    /// Envelopes counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Envelopes of sources beyond the most that are named, or whose source is not known.
    pub fn unnamed(&self) -> u64 {
        self.unnamed
    }

    /// True if nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Envelopes counted since [`Self::take_untold`] was last called.
    pub fn untold(&self) -> u64 {
        self.untold
    }

    /// What was counted since the last call: by source, the greatest first, and the sum of what has no name.
    pub fn take_untold(&mut self) -> (Vec<SourceCount>, u64) {
        self.untold = 0;
        let unnamed = std::mem::take(&mut self.untold_unnamed);
        let untold = self.sources.values_mut().filter(|source| source.untold > 0);
        let mut counts: Vec<SourceCount> = untold
            .map(|source| SourceCount {
                source_id: source.source_id.clone(),
                count: std::mem::take(&mut source.untold),
            })
            .collect();
        greatest_first(&mut counts);
        (counts, unnamed)
    }

    /// The sources, the greatest loss first (equal ones by name).
    pub fn by_loss(&self) -> Vec<SourceCount> {
        let count = |source: &Source| SourceCount {
            source_id: source.source_id.clone(),
            count: source.count,
        };
        let mut all: Vec<SourceCount> = self.sources.values().map(count).collect();
        greatest_first(&mut all);
        all
    }

    fn add_named(&mut self, hash: u64, count: u64, name: impl FnOnce() -> Box<str>) {
        if let Some(source) = self.sources.get_mut(&hash) {
            source.count += count;
            source.untold += count;
        } else if self.sources.len() < MOST_SOURCES {
            let source_id = name();
            let source = Source {
                source_id,
                count,
                untold: count,
            };
            self.sources.insert(hash, source);
        } else {
            self.add_unnamed(count);
            return;
        }
        self.total += count;
        self.untold += count;
    }
}

fn greatest_first(counts: &mut [SourceCount]) {
    counts.sort_by(|a, b| {
        b.count
            .cmp(&a.count)
            .then_with(|| a.source_id.cmp(&b.source_id))
    });
}
