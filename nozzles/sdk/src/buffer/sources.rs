//! How many events of which source were lost.

use std::collections::HashMap;

use loggregator_envelope::EnvelopeRef;

use crate::event::Event;

/// Sources that are told apart while a loss goes on. Those that come later are only in the total.
const TRACKED: usize = 1024;
/// Sources that are told and written down: the loudest.
const TOLD: usize = 64;

/// Events per source, exact for each source it names, bounded in sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sources {
    counts: HashMap<String, u64, foldhash::quality::RandomState>,
}

impl Sources {
    /// What was written down.
    pub(super) fn of(counts: Vec<(String, u64)>) -> Sources {
        Sources {
            counts: counts.into_iter().collect(),
        }
    }

    /// Counts these events.
    pub(super) fn add(&mut self, events: &[Event]) {
        for event in events {
            self.add_one(event.envelope());
        }
    }

    fn add_one(&mut self, envelope: EnvelopeRef<'_>) {
        let source = envelope.source_id();
        if let Some(count) = self.counts.get_mut(source) {
            *count += 1;
        } else if self.counts.len() < TRACKED {
            self.counts.insert(source.to_owned(), 1);
        }
    }

    /// Adds the counts of `other`.
    pub(super) fn merge(&mut self, other: Sources) {
        for (source, n) in other.counts {
            if let Some(count) = self.counts.get_mut(&source) {
                *count += n;
            } else if self.counts.len() < TRACKED {
                self.counts.insert(source, n);
            }
        }
    }

    /// The loudest, loudest first.
    pub(super) fn top(&self) -> Vec<(String, u64)> {
        let mut all: Vec<_> = self
            .counts
            .iter()
            .map(|(source, n)| (source.clone(), *n))
            .collect();
        all.sort_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
        all.truncate(TOLD);
        all
    }
}
