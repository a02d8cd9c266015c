//! The tags of an event, as they are written.

use loggregator_envelope::Outline;
use smallvec::SmallVec;

use crate::event::Event;

/// A tag's name and value; UTF-8, as every accepted envelope's are.
type Tag<'a> = (&'a [u8], &'a [u8]);

/// Tags sorted by name, each name once; deprecated ones are not among them.
#[derive(Debug, Clone)]
pub struct Tags<'a> {
    sorted: SmallVec<[Tag<'a>; 24]>,
}

impl<'a> Tags<'a> {
    /// Of one walk through the event: its tags, and what else it says. With enrichment the names that the Cloud Controller
    /// knows stand in place of those of the envelope, under the names that the platform itself gives them.
    #[must_use]
    pub fn of(event: &'a Event) -> (Tags<'a>, Outline<'a>) {
        let (mut tags, outline) = Tags::read(event);
        if let Some(names) = event.names() {
            let known = [
                ("app_name", &names.app),
                ("space_id", &names.space_id),
                ("space_name", &names.space),
                ("organization_id", &names.org_id),
                ("organization_name", &names.org),
            ];
            let known = known.into_iter().filter(|(_, value)| !value.is_empty());
            let known = known.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            tags.sorted.extend(known);
        }
        tags.sort();
        (tags, outline)
    }

    /// The same, with nothing but what the envelope says itself.
    #[must_use]
    pub fn told(event: &'a Event) -> (Tags<'a>, Outline<'a>) {
        let (mut tags, outline) = Tags::read(event);
        tags.sort();
        (tags, outline)
    }

    fn read(event: &'a Event) -> (Tags<'a>, Outline<'a>) {
        let mut sorted: SmallVec<[Tag<'_>; 24]> = SmallVec::new();
        let outline = event
            .envelope()
            .outline(|name, value| sorted.push((name, value)));
        (Tags { sorted }, outline)
    }

    fn sort(&mut self) {
        let sorted = &mut self.sorted;
        // Stable: of a name that occurs twice the last one counts. Most envelopes come sorted.
        if !sorted.is_sorted_by(|one, next| one.0 < next.0) {
            sorted.sort_by(|one, other| one.0.cmp(other.0));
            let mut kept = 0;
            for at in 0..sorted.len() {
                if at > 0 && sorted[kept - 1].0 == sorted[at].0 {
                    sorted[kept - 1] = sorted[at];
                } else {
                    sorted[kept] = sorted[at];
                    kept += 1;
                }
            }
            sorted.truncate(kept);
        }
    }

    /// The value of the tag of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        // Lengths tell most names apart without a look at them.
        let name = name.as_bytes();
        let found = self.sorted.iter().find(|(tag, _)| *tag == name);
        found.map(|(_, value)| *value)
    }

    /// The value, or nothing.
    #[must_use]
    pub fn text(&self, name: &str) -> &'a [u8] {
        self.get(name).unwrap_or_default()
    }

    /// Names and values, by name.
    pub fn iter(&self) -> impl Iterator<Item = Tag<'a>> {
        self.sorted.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::Names;

    #[test]
    fn each_name_stands_once_and_in_order() {
        let mut body = Vec::new();
        for (name, value) in [("b", "1"), ("a", "2"), ("b", "3"), ("app_name", "old")] {
            body.extend_from_slice(&[0x4a, (4 + name.len() + value.len()) as u8, 0x0a]);
            body.push(name.len() as u8);
            body.extend_from_slice(name.as_bytes());
            body.extend_from_slice(&[0x12, value.len() as u8]);
            body.extend_from_slice(value.as_bytes());
        }
        let event = Event::new(0, 0, body.into());
        let tags = Tags::of(&event).0;
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        let all: Vec<_> = tags
            .iter()
            .map(|(name, value)| (text(name), text(value)))
            .collect();
        assert_eq!(all, [("a", "2"), ("app_name", "old"), ("b", "3")]);

        let names = Names {
            app: "new".to_owned(),
            org: "acme".to_owned(),
            ..Names::default()
        };
        let event = event.clone().with_names(Some(Arc::new(names)));
        let tags = Tags::of(&event).0;
        assert_eq!(tags.get("app_name"), Some(&b"new"[..]));
        assert_eq!(tags.get("organization_name"), Some(&b"acme"[..]));
        assert_eq!(tags.get("space_name"), None);
    }
}
