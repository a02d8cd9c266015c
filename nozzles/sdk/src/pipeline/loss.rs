//! What the buffer could not keep for a destination.

use super::Pipeline;
use super::settle::Class;
use crate::buffer::Lost;

impl Pipeline {
    /// Counts what the buffer could not keep, and whose it was.
    pub(super) fn lost(&mut self, lost: Lost) {
        let setup = &self.setup;
        let (from, to) = (lost.range.start, lost.range.end);
        tracing::warn!(
            destination = setup.config.name,
            reason = lost.reason,
            events = to - from,
            "events were lost"
        );
        for (source_id, n) in &lost.sources {
            setup
                .state
                .lost(source_id, *n, || setup.ledger.names(source_id));
        }
        let fate = self.window.fate(Class::Dropped, lost.reason);
        self.window.lose(lost.range, fate);
    }
}
