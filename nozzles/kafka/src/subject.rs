//! An event with what its records say of it, read in one walk through its bytes.

use std::borrow::Cow;

use loggregator_envelope::{Kind, Outline};
use loggregator_nozzle::Event;
use loggregator_nozzle::fields::{Field, is_guid};

/// An event, and what most records want to know of it. It answers as [`Event::field`] does.
pub(crate) struct Subject<'a> {
    pub event: &'a Event,
    pub outline: Outline<'a>,
    deployment: &'a [u8],
    app_id: &'a [u8],
    space_id: &'a [u8],
    org_id: &'a [u8],
}

impl<'a> Subject<'a> {
    pub(crate) fn new(event: &'a Event) -> Subject<'a> {
        let (mut deployment, mut app_id) = (&[][..], &[][..]);
        let (mut space_id, mut org_id) = (&[][..], &[][..]);
        let outline = event.envelope().outline(|name, value| match name {
            b"deployment" => deployment = value,
            b"app_id" => app_id = value,
            b"space_id" => space_id = value,
            b"organization_id" => org_id = value,
            _ => {}
        });
        Subject {
            event,
            outline,
            deployment,
            app_id,
            space_id,
            org_id,
        }
    }

    /// What the event says there; nothing when it says nothing or an empty text.
    pub(crate) fn field(&self, field: &Field) -> Option<Cow<'a, str>> {
        let text = |bytes: &'a [u8]| std::str::from_utf8(bytes).unwrap_or_default();
        // Names may know better, and deprecated tags stand in for those that are missing.
        let plain = !self.outline.deprecated_tags && self.event.names().is_none();
        let value = match field {
            Field::Kind => match self.outline.kind {
                Kind::None => "",
                kind => kind.name(),
            },
            Field::SourceId => self.outline.source_id,
            Field::InstanceId => self.outline.instance_id,
            Field::Deployment if plain => text(self.deployment),
            Field::SpaceId if plain => text(self.space_id),
            Field::OrgId if plain => text(self.org_id),
            Field::AppId if plain => match text(self.app_id) {
                "" if is_guid(self.outline.source_id) => self.outline.source_id,
                id => id,
            },
            other => return self.event.field(other),
        };
        Some(value)
            .filter(|value| !value.is_empty())
            .map(Cow::Borrowed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use loggregator_nozzle::Names;
    use loggregator_proto::v2::{Envelope, Value, envelope::Message, value::Data};
    use prost::Message as _;

    use super::*;

    fn event(envelope: &Envelope) -> Event {
        Event::new(7, 0, envelope.encode_to_vec().into())
    }

    #[test]
    fn it_answers_as_the_event_does() {
        let guid = "6f1c0a52-8f2b-4d53-9a0e-3c1f5d7e9b10";
        let tags = |all: &[(&str, &str)]| {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            all.iter().map(owned).collect()
        };
        let old = Value {
            data: Some(Data::Text("old".to_owned())),
        };
        let envelopes = [
            Envelope::default(),
            Envelope {
                source_id: guid.to_owned(),
                instance_id: "3".to_owned(),
                message: Some(Message::Log(Default::default())),
                ..Envelope::default()
            },
            Envelope {
                source_id: "gorouter".to_owned(),
                tags: tags(&[
                    ("deployment", "cf"),
                    ("app_id", "a"),
                    ("space_id", ""),
                    ("organization_id", "o"),
                ]),
                message: Some(Message::Counter(Default::default())),
                ..Envelope::default()
            },
            Envelope {
                source_id: guid.to_owned(),
                tags: tags(&[("space_id", "new"), ("app_id", "")]),
                deprecated_tags: [
                    ("deployment".to_owned(), old.clone()),
                    ("space_id".to_owned(), old),
                ]
                .into(),
                ..Envelope::default()
            },
        ];
        let names = Names {
            space_id: "better".to_owned(),
            ..Names::default()
        };
        let names = Some(Arc::new(names));
        let fields = [
            Field::Kind,
            Field::SourceId,
            Field::InstanceId,
            Field::Deployment,
            Field::AppId,
            Field::SpaceId,
            Field::OrgId,
            Field::Stream,
        ];
        let plain = envelopes.iter().map(event);
        let named = plain.clone().map(|event| event.with_names(names.clone()));
        for event in plain.chain(named) {
            let subject = Subject::new(&event);
            for field in &fields {
                assert_eq!(subject.field(field), event.field(field), "{field}");
            }
        }
    }

    #[test]
    fn of_a_tag_that_occurs_twice_the_last_one_counts() {
        let once = |id: &str| Envelope {
            tags: [("app_id".to_owned(), id.to_owned())].into(),
            ..Envelope::default()
        };
        let bytes = [once("first"), once("last")].map(|envelope| envelope.encode_to_vec());
        let event = Event::new(0, 0, bytes.concat().into());
        let subject = Subject::new(&event);
        assert_eq!(subject.field(&Field::AppId).as_deref(), Some("last"));
    }
}
