//! What an event says beside its value: its tags, sorted, without allocation for envelopes of a usual size.

use std::borrow::Cow;

use loggregator_nozzle::Event;
use smallvec::SmallVec;

/// Tags of an event, each name once, in the order of the names. Those of the map `tags` win over the deprecated ones, names
/// from the Cloud Controller over both. Names that begin with `__` are left out.
#[derive(Debug)]
pub(crate) struct Tags<'a> {
    list: SmallVec<[(&'a str, Cow<'a, str>); 24]>,
    /// Source id of the envelope.
    pub source_id: &'a str,
    /// Instance id of the envelope.
    pub instance_id: &'a str,
}

impl<'a> Tags<'a> {
    pub(crate) fn of(event: &'a Event) -> Tags<'a> {
        let envelope = event.envelope();
        let mut tags = Tags {
            list: SmallVec::new(),
            source_id: envelope.source_id(),
            instance_id: envelope.instance_id(),
        };
        for (name, value) in envelope.deprecated_tags() {
            tags.put(name, value.to_v1_text());
        }
        for (name, value) in envelope.tags() {
            tags.put(name, Cow::Borrowed(value));
        }
        if let Some(names) = event.names() {
            for (name, value) in [
                ("app_name", &names.app),
                ("space_id", &names.space_id),
                ("space_name", &names.space),
                ("organization_id", &names.org_id),
                ("organization_name", &names.org),
            ] {
                if !value.is_empty() {
                    tags.put(name, Cow::Borrowed(value));
                }
            }
        }
        tags
    }

    fn put(&mut self, name: &'a str, value: Cow<'a, str>) {
        if name.starts_with("__") {
            return;
        }
        match self.list.binary_search_by(|(known, _)| (*known).cmp(name)) {
            Ok(at) => self.list[at].1 = value,
            Err(at) => self.list.insert(at, (name, value)),
        }
    }

    /// The tag of this name, if it is there and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let at = self.list.binary_search_by(|(known, _)| (*known).cmp(name));
        let value: &str = &self.list[at.ok()?].1;
        (!value.is_empty()).then_some(value)
    }

    /// As [`Tags::get`], where `source_id` and `instance_id` are the envelope's own.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let own = match name {
            "source_id" => self.source_id,
            "instance_id" => self.instance_id,
            _ => "",
        };
        if own.is_empty() {
            self.get(name)
        } else {
            Some(own)
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.list.iter().map(|(name, value)| (*name, &**value))
    }

    /// Appends source, instance and all tags to a key.
    pub(crate) fn write_key(&self, key: &mut Vec<u8>) {
        let count = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        key.extend_from_slice(&count.to_le_bytes());
        part(key, self.source_id);
        part(key, self.instance_id);
        for (name, value) in &self.list {
            part(key, name);
            part(key, value);
        }
    }
}

/// Appends a text to a key, so that no two different lists of texts make the same key.
pub(crate) fn part(key: &mut Vec<u8>, text: &str) {
    let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
    key.extend_from_slice(&len.to_le_bytes());
    key.extend_from_slice(text.as_bytes());
}
