//! A dead letter as a line of JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::destination::Reason;
use crate::event::Event;

/// An event that a destination refused for good.
#[derive(Debug, Clone)]
pub(crate) struct Dead {
    pub event: Event,
    pub why: Reason,
    /// How often it was tried, this time included.
    pub attempts: u32,
}

/// An event that a destination refused, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// When it was refused, RFC 3339.
    pub time: String,
    /// By which destination.
    pub destination: String,
    /// Code of the reason.
    pub reason: String,
    /// What happened.
    pub detail: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Its number in the buffer.
    pub seq: u64,
    /// When it was received, in nanoseconds since 1970.
    pub received: i64,
    /// Its source, for people who look for it.
    pub source_id: String,
    /// The envelope, a `loggregator.v2.Envelope` in base64.
    pub envelope: String,
}

impl Letter {
    pub(crate) fn new(destination: &str, dead: &Dead, now: i64) -> Letter {
        let Dead { event, why, .. } = dead;
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(now)).ok();
        Letter {
            time: time
                .and_then(|time| time.format(&Rfc3339).ok())
                .unwrap_or_default(),
            destination: destination.to_owned(),
            reason: why.code.clone().into_owned(),
            detail: why.detail.clone(),
            attempts: dead.attempts,
            seq: event.seq,
            received: event.received,
            source_id: event.envelope().source_id().to_owned(),
            envelope: STANDARD.encode(event.body()),
        }
    }

    /// The event; `None` when the letter holds none.
    #[must_use]
    pub fn event(&self) -> Option<Event> {
        let body = STANDARD.decode(&self.envelope).ok()?;
        Some(Event::new(self.seq, self.received, body.into()))
    }
}
