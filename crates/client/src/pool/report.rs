//! What a pool has done, for ledgers and metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Why envelopes were dropped on their way to a doppler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// The buffer was full; the oldest of the fullest queue made room.
    BufferFull,
    /// The envelope is bigger than any doppler takes.
    TooLarge,
    /// It came after the pool was closed.
    Closed,
    /// It could not be sent in the time that closing had.
    NotFlushed,
}

impl DropReason {
    /// All of them.
    pub const ALL: [DropReason; 4] = [
        DropReason::BufferFull,
        DropReason::TooLarge,
        DropReason::Closed,
        DropReason::NotFlushed,
    ];

    /// As metrics, ledgers and in-band notices name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            DropReason::BufferFull => "buffer_full",
            DropReason::TooLarge => "too_large",
            DropReason::Closed => "closed",
            DropReason::NotFlushed => "not_flushed",
        }
    }
}

/// What became of the envelopes for one doppler. `received = delivered + dropped + pending`, at any moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Envelopes whose turn it was to go there, without those that moved to another doppler since.
    pub received: u64,
    /// Envelopes that its connection took.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Envelopes that were dropped, per reason.
    pub dropped: BTreeMap<DropReason, u64>,
    /// Envelopes that went to another doppler instead, because this one left or did not answer.
    pub moved: u64,
    /// Of the delivered ones, those that were possibly still under way when a connection broke: an upper bound of what
    /// was lost with it. The protocol has no acknowledgement, so nobody can know better.
    pub in_doubt: u64,
    /// Streams that broke.
    pub reconnects: u64,
}

impl Counts {
    pub(super) fn drop(&mut self, reason: DropReason, envelopes: u64) {
        *self.dropped.entry(reason).or_default() += envelopes;
    }

    /// Dropped envelopes, whatever the reason.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// Adds another link's counts.
    pub fn add(&mut self, other: &Counts) {
        self.received += other.received;
        self.delivered += other.delivered;
        self.delivered_bytes += other.delivered_bytes;
        self.moved += other.moved;
        self.in_doubt += other.in_doubt;
        self.reconnects += other.reconnects;
        for (reason, envelopes) in &other.dropped {
            self.drop(*reason, *envelopes);
        }
    }
}

/// One stream to one doppler.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkReport {
    /// Address of the doppler; empty for what waits while there is none.
    pub doppler: Arc<str>,
    /// Which of the streams to this doppler, from 0.
    pub lane: u64,
    /// Whether it gets envelopes: it is in the set and answered last time.
    pub up: bool,
    /// What became of its envelopes.
    pub counts: Counts,
    /// Envelopes that wait or are in flight.
    pub pending: u64,
    /// Their bytes.
    pub pending_bytes: u64,
    /// Why the latest stream or attempt ended.
    pub last_error: Option<String>,
}

impl LinkReport {
    /// Whether every envelope is accounted for.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.counts.received == self.counts.delivered + self.counts.dropped_total() + self.pending
    }
}

/// All streams of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolReport {
    /// The dopplers of the set.
    pub links: Vec<LinkReport>,
    /// What waits while there is no doppler at all, and what was dropped before a doppler was chosen.
    pub homeless: LinkReport,
    /// Dopplers that left lately, the latest last.
    pub former: Vec<LinkReport>,
    /// The sum over dopplers that left before them.
    pub forgotten: Counts,
}

impl PoolReport {
    /// The sum over all dopplers, present and former.
    #[must_use]
    pub fn total(&self) -> Counts {
        let mut total = self.forgotten.clone();
        for link in self
            .links
            .iter()
            .chain(&self.former)
            .chain([&self.homeless])
        {
            total.add(&link.counts);
        }
        total
    }

    /// Envelopes that wait or are in flight.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.links.iter().map(|link| link.pending).sum::<u64>() + self.homeless.pending
    }

    /// Bytes that wait or are in flight.
    #[must_use]
    pub fn pending_bytes(&self) -> u64 {
        self.links
            .iter()
            .map(|link| link.pending_bytes)
            .sum::<u64>()
            + self.homeless.pending_bytes
    }
}
