//! Events that a destination refused for good.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::destination::Reason;
use crate::event::Event;

/// The dead letters of one destination.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    destination: String,
    /// Refused since the start.
    pub count: AtomicU64,
}

impl DeadLetters {
    pub(crate) fn new(destination: &str) -> DeadLetters {
        DeadLetters {
            destination: destination.to_owned(),
            count: AtomicU64::new(0),
        }
    }

    /// Keeps these, each tried so many times.
    pub(crate) async fn keep(&self, letters: &[(Event, Reason)], attempts: u32) {
        self.count
            .fetch_add(letters.len() as u64, Ordering::Relaxed);
        for (event, why) in letters {
            tracing::warn!(
                destination = self.destination,
                seq = event.seq,
                source_id = event.envelope().source_id(),
                attempts,
                %why,
                "dead letter"
            );
        }
    }
}
