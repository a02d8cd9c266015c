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
    sources: HashMap<u64, SourceCount, foldhash::fast::FixedState>,
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
        self.unnamed += count;
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

    /// The sources, the greatest loss first (equal ones by name).
    pub fn by_loss(&self) -> Vec<SourceCount> {
        let mut all: Vec<SourceCount> = self.sources.values().cloned().collect();
        all.sort_by(|a, b| {
            b.count
                .cmp(&a.count)
                .then_with(|| a.source_id.cmp(&b.source_id))
        });
        all
    }

    fn add_named(&mut self, hash: u64, count: u64, name: impl FnOnce() -> Box<str>) {
        self.total += count;
        if let Some(source) = self.sources.get_mut(&hash) {
            source.count += count;
        } else if self.sources.len() < MOST_SOURCES {
            let source_id = name();
            self.sources.insert(hash, SourceCount { source_id, count });
        } else {
            self.unnamed += count;
        }
    }
}
