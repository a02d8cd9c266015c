//! For the tests of this crate.

use loggregator_nozzle::Event;

/// The event of an envelope.
pub(crate) fn event_of(envelope: Vec<u8>) -> Event {
    Event::new(0, 0, envelope.into())
}
