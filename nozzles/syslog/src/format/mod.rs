//! From an event to messages.

mod firehose;
mod policy;
mod rfc3164;
mod rfc5424;
mod tags;
mod text;

use loggregator_nozzle::{Batch, Event, Outcome};
use serde::Deserialize;

pub use policy::{InvalidName, InvalidUtf8, LineBreaks, Oversize};
pub(crate) use policy::{Policy, Refusal};
use tags::Tags;
use text::Clock;

use crate::page::Page;

/// What messages look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// RFC 5424, as the platform's own agents write it.
    #[default]
    Rfc5424,
    /// RFC 3164, for receivers that know nothing newer.
    Rfc3164,
    /// The JSON of the program firehose-to-syslog, behind its header.
    FirehoseToSyslog,
    /// The same behind a header of RFC 3164 and the mark `@cee:`.
    FirehoseToSyslogCee,
}

/// Writes events into pages. It holds what is used again from event to event.
#[derive(Debug)]
pub(crate) struct Formatter {
    format: Format,
    policy: Policy,
    scratch: Scratch,
}

/// Buffers that are used again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub clock: Clock,
    pub head: Vec<u8>,
    pub data: Vec<u8>,
}

/// An event with what most formats ask of it.
pub(crate) struct Subject<'a> {
    pub event: &'a Event,
    pub tags: Tags<'a>,
}

impl Formatter {
    pub fn new(format: Format, policy: Policy) -> Formatter {
        Formatter {
            format,
            policy,
            scratch: Scratch::default(),
        }
    }

    /// Appends the event's messages, of which there may be none. An event that is refused leaves nothing behind.
    pub fn write(&mut self, event: &Event, page: &mut Page) -> Result<(), Refusal> {
        let mark = page.mark();
        let subject = Subject {
            event,
            tags: Tags::of(event),
        };
        let (policy, scratch) = (&self.policy, &mut self.scratch);
        let written = match self.format {
            Format::Rfc5424 => rfc5424::write(policy, scratch, &subject, page),
            Format::Rfc3164 => rfc3164::write(policy, scratch, &subject, page),
            Format::FirehoseToSyslog => firehose::write(policy, &subject, false, page),
            Format::FirehoseToSyslogCee => firehose::write(policy, &subject, true, page),
        };
        if written.is_err() {
            page.back_to(mark);
        }
        written
    }

    /// Appends the messages of all events. The outcomes are those that hold once the page is delivered: `None` when every
    /// event is in the page.
    pub fn write_all(&mut self, batch: &Batch, page: &mut Page) -> Option<Vec<Outcome>> {
        let mut outcomes: Option<Vec<Outcome>> = None;
        for (at, event) in batch.events().iter().enumerate() {
            if let Err(refusal) = self.write(event, page) {
                let all = outcomes.get_or_insert_with(|| vec![Outcome::Delivered; batch.len()]);
                all[at] = refusal.into();
            }
        }
        outcomes
    }
}
