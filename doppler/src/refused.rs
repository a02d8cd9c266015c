//! What ingress refused before it reached the router, by reason.
//!
//! Malformed batches and envelopes that reach the router are counted there; [`Refused::add_to`] adds
//! what was stopped on the way to the same ledger. The log's own rate limit per place keeps a broken
//! emitter from filling it.

use std::sync::atomic::{AtomicU64, Ordering};

use loggregator_service::ledger;

/// Why something was refused before the router saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// A `plumbing.EnvelopeData` does not decode.
    MalformedMessage,
    /// A dropsonde envelope does not decode or lacks a required field.
    BadV1Envelope,
    /// A message above the size limit.
    TooLarge,
}

impl Reason {
    pub(crate) const ALL: [Self; 3] = [Self::MalformedMessage, Self::BadV1Envelope, Self::TooLarge];

    /// The reason as it stands in the ledger and in metric labels.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::MalformedMessage => "malformed_message",
            Self::BadV1Envelope => "bad_v1_envelope",
            Self::TooLarge => "too_large",
        }
    }
}

/// The counts, one per reason. A message that does not tell how many envelopes it has counts as one.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    counts: [AtomicU64; Reason::ALL.len()],
}

impl Refused {
    pub(crate) fn count(&self, reason: Reason) {
        self.counts[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Adds the counts to those of a ledger: these arrived, and were refused.
    pub(crate) fn add_to(&self, ingress: &mut ledger::Ingress) {
        for reason in Reason::ALL {
            let count = self.counts[reason as usize].load(Ordering::Relaxed);
            if count > 0 {
                ingress.received += count;
                *ingress
                    .rejected
                    .entry(reason.name().to_owned())
                    .or_default() += count;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn counts_join_what_the_ledger_already_holds() {
        let refused = Refused::default();
        refused.count(Reason::TooLarge);
        refused.count(Reason::BadV1Envelope);
        refused.count(Reason::BadV1Envelope);
        let mut ingress = ledger::Ingress {
            received: 10,
            accepted: 6,
            ..Default::default()
        };
        ingress.rejected.insert("too_large".to_owned(), 4);
        refused.add_to(&mut ingress);
        let expected = BTreeMap::from([
            ("bad_v1_envelope".to_owned(), 2),
            ("too_large".to_owned(), 5),
        ]);
        assert_eq!((ingress.received, &ingress.rejected), (13, &expected));
        assert!(ingress.balanced());
    }
}
