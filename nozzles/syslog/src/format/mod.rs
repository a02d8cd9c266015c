//! From an event to messages.

mod firehose;
mod policy;
mod rfc3164;
mod rfc5424;
mod text;

use loggregator_envelope::Outline;
use loggregator_nozzle::{Batch, Event, Outcome, Reason, Tags};
use serde::Deserialize;

pub use policy::{InvalidName, InvalidUtf8, LineBreaks, Oversize};
pub(crate) use policy::{Policy, Refusal};
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

/// No further event is written into a page that is longer. A gauge becomes a message for each value, each with all tags, so that
/// a batch of 1 MiB could otherwise become gigabytes.
pub(crate) const MAX_PAGE: usize = 16 << 20;

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
    pub outline: Outline<'a>,
    pub tags: Tags<'a>,
}

impl<'a> Subject<'a> {
    fn new(event: &'a Event) -> Subject<'a> {
        let (tags, outline) = Tags::of(event);
        Subject {
            event,
            outline,
            tags,
        }
    }
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
        let subject = Subject::new(event);
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
    ///
    /// # Errors
    /// When the events before the last one come to more than [`MAX_PAGE`]: they cannot all be in one page.
    pub fn write_all(
        &mut self,
        batch: &Batch,
        page: &mut Page,
    ) -> Result<Option<Vec<Outcome>>, Reason> {
        let mut outcomes: Option<Vec<Outcome>> = None;
        for (at, event) in batch.events().iter().enumerate() {
            if page.bytes.len() > MAX_PAGE {
                let detail = format!("{} events come to more than {MAX_PAGE} bytes", batch.len());
                return Err(Reason::new("page_full", detail));
            }
            if let Err(refusal) = self.write(event, page) {
                let all = outcomes.get_or_insert_with(|| vec![Outcome::Delivered; batch.len()]);
                all[at] = refusal.into();
            }
        }
        Ok(outcomes)
    }
}

#[cfg(test)]
mod tests {
    use loggregator_proto::v2::{Envelope, Gauge, GaugeValue, Log, envelope::Message};
    use prost::Message as _;

    use super::*;
    use crate::page::Prefix;
    use crate::testing::event_of;

    const MIB: usize = 1 << 20;

    fn policy(max_message: usize) -> Policy {
        Policy {
            max_message,
            oversize: Oversize::Split,
            invalid_utf8: InvalidUtf8::default(),
            invalid_name: InvalidName::default(),
            max_tag_name: usize::MAX,
            hostname: String::new(),
            omit_metadata: false,
            line_breaks: None,
        }
    }

    fn event(tag: &str, message: Message) -> Event {
        let tags = [
            ("organization_name".to_owned(), tag.to_owned()),
            ("deployment".to_owned(), tag.to_owned()),
        ];
        let envelope = Envelope {
            tags: tags.into_iter().collect(),
            message: Some(message),
            ..Envelope::default()
        };
        event_of(envelope.encode_to_vec())
    }

    fn gauge(tag: &str, values: usize) -> Event {
        let metric = |at: usize| (at.to_string(), GaugeValue::default());
        let metrics = (0..values).map(metric).collect();
        event(tag, Message::Gauge(Gauge { metrics }))
    }

    fn log(tag: &str, text: usize) -> Event {
        let payload = vec![b'x'; text].into();
        event(tag, Message::Log(Log { payload, r#type: 0 }))
    }

    /// Writes the event behind another and checks that it is too long and leaves nothing but that one.
    fn refused(format: Format, max_message: usize, event: &Event) {
        let mut formatter = Formatter::new(format, policy(max_message));
        let mut page = Page::new(Prefix::Length);
        formatter.write(&gauge("", 1), &mut page).unwrap();
        let (bytes, ends) = (page.bytes.clone(), page.ends.clone());
        let written = formatter.write(event, &mut page);
        let Err(Refusal::Oversize(reason)) = written else {
            panic!("{written:?}")
        };
        assert_eq!(
            (&*reason.code, &*reason.detail),
            (
                "oversize",
                "several messages of more than 16777216 bytes together"
            ),
            "{format:?}"
        );
        assert_eq!((page.bytes.clone(), page.ends.clone()), (bytes, ends));
        assert!(page.bytes.capacity() < 64 * MIB);
        page.clear();
        assert!(page.bytes.capacity() < 8 * MIB);
    }

    #[test]
    fn an_event_does_not_become_messages_without_bound() {
        let tag = "x".repeat(30_000);
        for format in [
            Format::Rfc5424,
            Format::Rfc3164,
            Format::FirehoseToSyslog,
            Format::FirehoseToSyslogCee,
        ] {
            // Host labels are cut: there the heads alone have to fill the room.
            let values = if format == Format::Rfc3164 {
                250_000
            } else {
                2000
            };
            refused(format, 65_536, &gauge(&tag, values));
        }
        refused(Format::Rfc5424, 65_536, &log(&tag, 4 * MIB));
        refused(Format::Rfc3164, 480, &log(&tag, 17 * MIB));
    }

    #[test]
    fn a_page_does_not_grow_without_bound() {
        let tag = "x".repeat(30_000);
        let events: Vec<Event> = (0..40).map(|_| gauge(&tag, 100)).collect();
        let mut formatter = Formatter::new(Format::Rfc5424, policy(65_536));
        let mut page = Page::new(Prefix::Length);
        let all = Batch::new(events, 0);
        let Err(reason) = formatter.write_all(&all, &mut page) else {
            panic!("{} bytes", page.bytes.len())
        };
        assert_eq!(reason.code, "page_full");
        assert!(page.bytes.len() <= 2 * MAX_PAGE + MIB);
        page.clear();
        let few = Batch::new(all.events()[..2].to_vec(), 0);
        assert_eq!(formatter.write_all(&few, &mut page), Ok(None));
        assert_eq!(page.ends.len(), 200);
    }

    #[test]
    fn many_events_and_one_long_message_are_written() {
        let mut formatter = Formatter::new(Format::Rfc5424, policy(16 * MIB));
        let mut page = Page::new(Prefix::Length);
        let tag = "x".repeat(30_000);
        for _ in 0..3 {
            formatter.write(&gauge(&tag, 100), &mut page).unwrap();
            formatter
                .write(&log("", 16 * MIB - 200), &mut page)
                .unwrap();
        }
        assert_eq!(page.ends.len(), 303);
    }
}
