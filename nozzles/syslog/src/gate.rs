//! Keeps the order after a failure: what failed is sent again before anything newer is sent for the first time.
//!
//! When a batch fails, the framework waits until everything under way has landed and then begins again with the oldest. A batch
//! that it sent just before it heard of the failure must not overtake.

/// Lets batches pass, or not.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// First event of the oldest batch that failed.
    expected: Option<u64>,
    /// First event of the oldest batch that was not let pass since.
    refused: Option<u64>,
}

impl Gate {
    /// The batch that begins with this event failed.
    pub fn failed(&mut self, first: u64) {
        self.expected = Some(self.expected.map_or(first, |expected| expected.min(first)));
    }

    /// Whether the batch that begins with this event may pass. One that was refused and comes again although nothing older
    /// came is the oldest that there is: what failed was given up.
    pub fn passes(&mut self, first: u64) -> bool {
        let passes = match self.expected {
            None => true,
            Some(expected) => first <= expected || self.refused == Some(first),
        };
        if passes {
            *self = Gate::default();
        } else {
            self.refused = Some(self.refused.map_or(first, |refused| refused.min(first)));
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overtakes_what_failed() {
        let mut gate = Gate::default();
        assert!(gate.passes(0) && gate.passes(10) && gate.passes(20));
        gate.failed(10);
        gate.failed(20);
        assert!(!gate.passes(30), "sent before the failure was known");
        assert!(gate.passes(10) && gate.passes(20) && gate.passes(30));
    }

    #[test]
    fn what_failed_may_come_in_pieces_or_not_at_all() {
        let mut gate = Gate::default();
        gate.failed(10);
        assert!(gate.passes(3) && gate.passes(15));
        gate.failed(10);
        assert!(!gate.passes(30) && !gate.passes(40));
        assert!(!gate.passes(40), "there is an older one");
        assert!(gate.passes(30) && gate.passes(40));
    }
}
