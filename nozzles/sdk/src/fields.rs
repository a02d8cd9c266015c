//! What can be asked of an event: the vocabulary of filters and templates.

use std::borrow::Cow;
use std::fmt;

use loggregator_envelope::{Kind, KindSet};

use crate::event::Event;

/// One thing that an event says about itself. Written as in [`Field::parse`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Field {
    /// `kind`: log, counter, gauge, timer, event; empty for an envelope that holds nothing.
    Kind,
    /// `source_id`
    SourceId,
    /// `instance_id`
    InstanceId,
    /// `org`: name of the organisation.
    Org,
    /// `org_id`
    OrgId,
    /// `space`: name of the space.
    Space,
    /// `space_id`
    SpaceId,
    /// `app`: name of the app.
    App,
    /// `app_id`: the tag, else the source id where that is a GUID.
    AppId,
    /// `source_type`: `APP/PROC/WEB`, `RTR`, ….
    SourceType,
    /// `stream`: out or err, of logs.
    Stream,
    /// `deployment`
    Deployment,
    /// `job`
    Job,
    /// `index`: which instance of the job.
    Index,
    /// `ip`
    Ip,
    /// `origin`: the program that made it.
    Origin,
    /// `name`: of a counter or timer; of a gauge any of its names, the first where one is needed; title of an event.
    Name,
    /// `text`: a log's line, an event's body. What is not UTF-8 is replaced.
    Text,
    /// `tag.NAME`: any tag.
    Tag(String),
}

/// Names of the fields that have a fixed one, with their tags.
const NAMES: &[(&str, Field)] = &[
    ("kind", Field::Kind),
    ("source_id", Field::SourceId),
    ("instance_id", Field::InstanceId),
    ("org", Field::Org),
    ("org_id", Field::OrgId),
    ("space", Field::Space),
    ("space_id", Field::SpaceId),
    ("app", Field::App),
    ("app_id", Field::AppId),
    ("source_type", Field::SourceType),
    ("stream", Field::Stream),
    ("deployment", Field::Deployment),
    ("job", Field::Job),
    ("index", Field::Index),
    ("ip", Field::Ip),
    ("origin", Field::Origin),
    ("name", Field::Name),
    ("text", Field::Text),
];

/// A field that there is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no field; there are {list} and tag.NAME", list = known())]
pub struct UnknownField(pub String);

fn known() -> String {
    let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

impl Field {
    /// The field of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn parse(name: &str) -> Result<Field, UnknownField> {
        if let Some((_, field)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(field.clone());
        }
        match name.strip_prefix("tag.") {
            Some(tag) if !tag.is_empty() => Ok(Field::Tag(tag.to_owned())),
            _ => Err(UnknownField(name.to_owned())),
        }
    }

    /// The kinds of envelopes that can have it.
    #[must_use]
    pub fn kinds(&self) -> KindSet {
        let of = |kinds: &[Kind]| kinds.iter().copied().collect();
        match self {
            Field::Stream => of(&[Kind::Log]),
            Field::Text => of(&[Kind::Log, Kind::Event]),
            Field::Name => of(&[Kind::Counter, Kind::Gauge, Kind::Timer, Kind::Event]),
            _ => KindSet::ALL,
        }
    }

    /// The tag that has it.
    fn tag(&self) -> Option<&str> {
        Some(match self {
            Field::Org => "organization_name",
            Field::OrgId => "organization_id",
            Field::Space => "space_name",
            Field::SpaceId => "space_id",
            Field::App => "app_name",
            Field::AppId => "app_id",
            Field::SourceType => "source_type",
            Field::Deployment => "deployment",
            Field::Job => "job",
            Field::Index => "index",
            Field::Ip => "ip",
            Field::Origin => "origin",
            Field::Tag(name) => name,
            _ => return None,
        })
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Field::Tag(name) = self {
            return write!(f, "tag.{name}");
        }
        let name = NAMES.iter().find(|(_, field)| field == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

impl Event {
    /// What the event says there; nothing when it says nothing or an empty text. Names from enrichment win over tags.
    #[must_use]
    pub fn field(&self, field: &Field) -> Option<Cow<'_, str>> {
        let envelope = self.envelope();
        let text = |text: &str| Some(text).filter(|text| !text.is_empty()).is_some();
        let value = match field {
            Field::Kind => Cow::Borrowed(match envelope.kind() {
                Kind::None => "",
                kind => kind.name(),
            }),
            Field::SourceId => Cow::Borrowed(envelope.source_id()),
            Field::InstanceId => Cow::Borrowed(envelope.instance_id()),
            Field::Stream => Cow::Borrowed(match envelope.log()?.err {
                false => "out",
                true => "err",
            }),
            Field::Name => Cow::Borrowed(self.first_name()?),
            Field::Text => match envelope.log() {
                Some(log) => String::from_utf8_lossy(log.payload),
                None => Cow::Borrowed(envelope.event()?.body),
            },
            _ => match self.known_name(field) {
                Some(name) => Cow::Borrowed(name),
                None => match field.tag().and_then(|tag| envelope.tag(tag)) {
                    Some(value) if text(&value) => value,
                    _ if *field == Field::AppId && is_guid(envelope.source_id()) => {
                        Cow::Borrowed(envelope.source_id())
                    }
                    _ => return None,
                },
            },
        };
        Some(value).filter(|value| !value.is_empty())
    }

    /// The name of a counter, timer or event, the first of a gauge.
    fn first_name(&self) -> Option<&str> {
        let envelope = self.envelope();
        match envelope.kind() {
            Kind::Counter => envelope.counter().map(|counter| counter.name),
            Kind::Timer => envelope.timer().map(|timer| timer.name),
            Kind::Event => envelope.event().map(|event| event.title),
            Kind::Gauge => envelope.gauge().next().map(|metric| metric.name),
            Kind::Log | Kind::None => None,
        }
    }

    /// What enrichment knows.
    pub(crate) fn known_name(&self, field: &Field) -> Option<&str> {
        let names = self.names()?;
        let name = match field {
            Field::Org => &names.org,
            Field::OrgId => &names.org_id,
            Field::Space => &names.space,
            Field::SpaceId => &names.space_id,
            Field::App => &names.app,
            _ => return None,
        };
        Some(name.as_str()).filter(|name| !name.is_empty())
    }
}

/// Whether the text has the form of a GUID, which is what apps are called on the platform.
#[must_use]
pub fn is_guid(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use loggregator_client::message;
    use prost::Message as _;

    use super::*;
    use crate::event::Names;

    fn event(builder: message::EnvelopeBuilder) -> Event {
        Event::new(0, 0, builder.build().encode_to_vec().into())
    }

    #[test]
    fn fields_come_from_tags_and_better_names_win() {
        let log = message::log("hi")
            .source("s", "3")
            .tag("app_name", "old")
            .tag("job", "cell");
        let event = event(log);
        let get = |event: &Event, name: &str| {
            let field = Field::parse(name).unwrap();
            event.field(&field).map(Cow::into_owned)
        };
        assert_eq!(get(&event, "app").as_deref(), Some("old"));
        assert_eq!(get(&event, "tag.job").as_deref(), Some("cell"));
        assert_eq!(get(&event, "instance_id").as_deref(), Some("3"));
        assert_eq!(get(&event, "org"), None);
        let names = Names {
            app: "new".to_owned(),
            org: "acme".to_owned(),
            ..Names::default()
        };
        let event = event.with_names(Some(Arc::new(names)));
        assert_eq!(get(&event, "app").as_deref(), Some("new"));
        assert_eq!(get(&event, "org").as_deref(), Some("acme"));
        assert_eq!(get(&event, "space"), None);
    }

    #[test]
    fn an_app_without_a_tag_is_known_by_its_guid() {
        let guid = "6f1c0a52-8f2b-4d53-9a0e-3c1f5d7e9b10";
        let of = |source: &str| {
            let event = event(message::log("x").source(source, "0"));
            event.field(&Field::AppId).map(Cow::into_owned)
        };
        assert_eq!(of(guid).as_deref(), Some(guid));
        assert_eq!(of("gorouter"), None);
    }

    #[test]
    fn every_field_has_a_name_that_reads_back() {
        for (name, field) in NAMES {
            assert_eq!(field.to_string(), *name);
            assert_eq!(Field::parse(name).as_ref(), Ok(field));
        }
        assert_eq!(Field::parse("tag.x").unwrap().to_string(), "tag.x");
        assert!(Field::parse("tag.").is_err());
    }
}
