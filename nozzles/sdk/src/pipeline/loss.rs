//! What the buffer could not keep for a destination.

use loggregator_proto::v2;
use prost::Message as _;

use super::Pipeline;
use super::settle::Class;
use crate::buffer::Lost;
use crate::event::Event;

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
            let names = || {
                let directory = setup.directory.as_ref();
                let known = directory.and_then(|directory| directory.names(&of_source(source_id)));
                known.or_else(|| setup.ledger.talkers.names(source_id))
            };
            setup.state.lost(source_id, *n, names);
        }
        let fate = self.window.fate(Class::Dropped, lost.reason);
        self.window.lose(lost.range, fate);
    }
}

/// An event of which nothing but the source is known.
fn of_source(source_id: &str) -> Event {
    let envelope = v2::Envelope {
        source_id: source_id.to_owned(),
        ..v2::Envelope::default()
    };
    Event::new(0, 0, envelope.encode_to_vec().into())
}
