//! What became of the events of one destination.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Counts of one destination over the life of its cursor, kept with the cursor.
///
/// They cover the events below the cursor and no others, so that `total()` is the distance that the cursor has gone, also
/// after a crash: what was delivered and not yet written down is delivered and counted again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Account {
    /// Confirmed by the destination.
    pub delivered: u64,
    /// Left out on purpose, by the rule that did: `filter`, `kind`, ….
    pub filtered: BTreeMap<String, u64>,
    /// Refused by the destination for good, by reason.
    pub dead_lettered: BTreeMap<String, u64>,
    /// Lost, by reason: `backlog_full`, `damaged`, `quota`, ….
    pub dropped: BTreeMap<String, u64>,
}

impl Account {
    /// All events that it covers.
    #[must_use]
    pub fn total(&self) -> u64 {
        let sum = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
        self.delivered + sum(&self.filtered) + sum(&self.dead_lettered) + sum(&self.dropped)
    }

    /// Adds the counts of `other`.
    pub fn add(&mut self, other: &Account) {
        let add = |to: &mut BTreeMap<String, u64>, from: &BTreeMap<String, u64>| {
            for (reason, n) in from {
                *to.entry(reason.clone()).or_default() += n;
            }
        };
        self.delivered += other.delivered;
        add(&mut self.filtered, &other.filtered);
        add(&mut self.dead_lettered, &other.dead_lettered);
        add(&mut self.dropped, &other.dropped);
    }
}
