//! What a destination gets: events, in batches.

use std::sync::Arc;

use bytes::Bytes;
use loggregator_envelope::EnvelopeRef;

/// One envelope on its way to a destination: its bytes as they came, and what the nozzle knows besides.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its number in the nozzle's buffer. Numbers have no holes and never go back while the buffer exists; together with
    /// the nozzle's name it is an identity by which consumers can recognise a duplicate.
    pub seq: u64,
    /// When the nozzle received it, in nanoseconds since 1970. When it happened stands in the envelope.
    pub received: i64,
    /// A serialised `loggregator.v2.Envelope` that a scan has accepted.
    body: Bytes,
    names: Option<Arc<Names>>,
}

/// Names of the app that an event is about, from its tags or from the Cloud Controller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Name of the app.
    pub app: String,
    /// Id of the space.
    pub space_id: String,
    /// Name of the space.
    pub space: String,
    /// Id of the organisation.
    pub org_id: String,
    /// Name of the organisation.
    pub org: String,
    /// Labels of the app, if the nozzle asks for them.
    pub labels: Vec<(String, String)>,
    /// Annotations of the app, if the nozzle asks for them.
    pub annotations: Vec<(String, String)>,
}

impl Event {
    /// An event of these bytes, which must be an envelope that a scan has accepted. Bytes that none has seen do no harm:
    /// they read as an empty envelope.
    #[must_use]
    pub fn new(seq: u64, received: i64, body: Bytes) -> Event {
        Event {
            seq,
            received,
            body,
            names: None,
        }
    }

    /// The same event with names.
    #[must_use]
    pub fn with_names(self, names: Option<Arc<Names>>) -> Event {
        Event { names, ..self }
    }

    /// The same event with another envelope.
    pub(crate) fn with_body(&self, body: Bytes) -> Event {
        Event {
            body,
            ..self.clone()
        }
    }

    /// The envelope, read where one asks.
    #[must_use]
    pub fn envelope(&self) -> EnvelopeRef<'_> {
        EnvelopeRef::new(&self.body)
    }

    /// The envelope's bytes; a clone shares them.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Names, where enrichment is on and knows them. Those in the envelope's tags are not repeated here unless the Cloud
    /// Controller knows better ones.
    #[must_use]
    pub fn names(&self) -> Option<&Names> {
        self.names.as_deref()
    }
}

/// Events that are delivered together, in the order of their numbers; never empty.
#[derive(Debug, Clone)]
pub struct Batch {
    events: Vec<Event>,
    attempt: u32,
}

impl Batch {
    /// A batch of these events; none of them was tried more than `attempt` times before.
    #[must_use]
    pub fn new(events: Vec<Event>, attempt: u32) -> Batch {
        Batch { events, attempt }
    }

    /// The events.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The events, without copying them.
    pub(crate) fn into_events(self) -> Vec<Event> {
        self.events
    }

    /// How often any of these events was tried before, at most. Above 0 some of them may have arrived already.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// How many events there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Bytes of all envelopes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.events.iter().map(|event| event.body.len()).sum()
    }
}
