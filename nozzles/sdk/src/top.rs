//! The biggest of many, in bounded memory: space-saving counters.
//!
//! At most so many keys are counted. A new one takes the place of the smallest and goes on from its count. So a count is
//! never too small, the biggest keys are always there, and as long as there were no more keys than places every count is
//! exact. How far a count may be too large is known.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use foldhash::quality::RandomState;
use loggregator_envelope::source_hash;

use crate::event::{Event, Names};
use crate::fields::Field;

/// Bytes that are kept of a source id or a name: a platform's are shorter, and an emitter may send megabytes.
const KEPT: usize = 256;

/// Counts per source id.
#[derive(Debug)]
pub(crate) struct Top {
    places: usize,
    slots: Vec<Slot>,
    /// By hash of the source id: a collision of 64 bits would count two as one.
    index: HashMap<u64, usize, RandomState>,
    /// One entry per slot, with a count that may be out of date: it is put right when it comes up as the smallest.
    smallest: BinaryHeap<Reverse<(u64, usize)>>,
}

/// One source and its count.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    hash: u64,
    /// Cut, if it is very long.
    pub source_id: Box<str>,
    pub count: u64,
    /// So much of the count may belong to sources that had the place before.
    pub over: u64,
    /// Of the app, as far as its envelopes tell.
    pub names: Option<Arc<Names>>,
    seen: u32,
}

impl Top {
    pub(crate) fn new(places: usize) -> Top {
        Top {
            places: places.max(1),
            slots: Vec::new(),
            index: HashMap::default(),
            smallest: BinaryHeap::new(),
        }
    }

    /// Counts `n` for a source.
    pub(crate) fn add(&mut self, hash: u64, source_id: &str, n: u64) -> &mut Slot {
        let at = match self.index.entry(hash) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let mut slot = Slot {
                    hash,
                    source_id: cut(source_id).into(),
                    count: 0,
                    over: 0,
                    names: None,
                    seen: 0,
                };
                if self.slots.len() < self.places {
                    let at = self.slots.len();
                    entry.insert(at);
                    self.slots.push(slot);
                    self.smallest.push(Reverse((0, at)));
                    at
                } else {
                    let at = smallest(&mut self.smallest, &self.slots);
                    entry.insert(at);
                    slot.count = self.slots[at].count;
                    slot.over = slot.count;
                    let before = std::mem::replace(&mut self.slots[at], slot);
                    self.index.remove(&before.hash);
                    at
                }
            }
        };
        let slot = &mut self.slots[at];
        slot.count += n;
        slot.seen = slot.seen.saturating_add(1);
        slot
    }

    /// The names of a source that is counted.
    pub(crate) fn names(&self, source_id: &str) -> Option<Arc<Names>> {
        let at = self.index.get(&source_hash(source_id.as_bytes()))?;
        self.slots.get(*at)?.names.clone()
    }

    /// The biggest, at most so many, the biggest first.
    pub(crate) fn biggest(&self, most: usize) -> Vec<Slot> {
        let mut slots: Vec<Slot> = self.slots.clone();
        slots.sort_by(|a, b| {
            b.count
                .cmp(&a.count)
                .then_with(|| a.source_id.cmp(&b.source_id))
        });
        slots.truncate(most);
        slots
    }
}

/// The beginning of a text, never with a part of a character.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(KEPT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Place of the slot with the smallest count.
fn smallest(heap: &mut BinaryHeap<Reverse<(u64, usize)>>, slots: &[Slot]) -> usize {
    while let Some(mut top) = heap.peek_mut() {
        let Reverse((count, at)) = *top;
        let now = slots.get(at).map_or(count, |slot| slot.count);
        if now == count {
            return at;
        }
        *top = Reverse((now, at));
    }
    0
}

impl Slot {
    /// Learns the names of the app from one of its events, once it was seen more than once: most sources of a long tail
    /// are not.
    pub(crate) fn learn(&mut self, event: impl FnOnce() -> Event) {
        if self.seen == 2 && self.names.is_none() {
            self.names = names(&event());
        }
    }

    /// `app`, `space`, `org`; empty where not known.
    pub(crate) fn names(&self) -> [&str; 3] {
        self.names.as_ref().map_or([""; 3], |names| {
            [&names.app, &names.space, &names.org].map(String::as_str)
        })
    }
}

/// The names that an event tells, cut if they are very long.
pub(crate) fn names(event: &Event) -> Option<Arc<Names>> {
    let text = |field| event.field(&field).map(|text| cut(&text).to_owned());
    let app = text(Field::App)?;
    Some(Arc::new(Names {
        app,
        space: text(Field::Space).unwrap_or_default(),
        org: text(Field::Org).unwrap_or_default(),
        ..Names::default()
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn shape(top: &Top, most: usize) -> Vec<(String, u64, u64)> {
        let biggest = top.biggest(most).into_iter();
        biggest
            .map(|slot| (slot.source_id.to_string(), slot.count, slot.over))
            .collect()
    }

    #[test]
    fn with_room_every_count_is_exact() {
        let mut top = Top::new(3);
        for (hash, id, n) in [(1, "a", 5), (2, "b", 7), (1, "a", 4), (3, "c", 1)] {
            top.add(hash, id, n);
        }
        assert_eq!(
            shape(&top, 2),
            [("a".to_owned(), 9, 0), ("b".to_owned(), 7, 0)]
        );
    }

    #[test]
    fn a_new_one_takes_the_place_of_the_smallest() {
        let mut top = Top::new(2);
        top.add(1, "a", 5);
        top.add(2, "b", 7);
        top.add(1, "a", 4);
        top.add(3, "c", 1);
        assert_eq!(
            shape(&top, 9),
            [("a".to_owned(), 9, 0), ("c".to_owned(), 8, 7)]
        );
    }

    #[test]
    fn of_a_long_source_id_the_beginning_is_kept() {
        let mut top = Top::new(3);
        let long = "x".repeat(255);
        for (hash, id) in [
            (1, "x".repeat(1 << 20)),
            (2, format!("{long}é")),
            (3, "x".repeat(256)),
        ] {
            top.add(hash, &id, 1);
            let kept = &top.slots[top.index[&hash]].source_id;
            assert_eq!(kept.len(), if hash == 2 { 255 } else { 256 });
            assert!(id.starts_with(&**kept));
        }
    }

    #[test]
    fn of_long_names_the_beginning_is_kept() {
        use prost::Message as _;
        let long = || "x".repeat(1 << 20);
        let tags = ["app_name", "space_name", "organization_name"];
        let envelope = loggregator_proto::v2::Envelope {
            tags: tags.map(|name| (name.to_owned(), long())).into(),
            ..Default::default()
        };
        let event = Event::new(0, 0, envelope.encode_to_vec().into());
        let kept = names(&event).unwrap();
        for name in [&kept.app, &kept.space, &kept.org] {
            assert_eq!(name.len(), KEPT);
        }
    }

    proptest! {
        #[test]
        fn counts_are_never_too_small_and_known_to_be_off_by_how_much(
            adds in prop::collection::vec((0..40_u64, 1..100_u64), 0..400),
            places in 1..20_usize,
        ) {
            let mut top = Top::new(places);
            let mut exact: BTreeMap<u64, u64> = BTreeMap::new();
            for (hash, n) in &adds {
                top.add(*hash, &hash.to_string(), *n);
                *exact.entry(*hash).or_default() += n;
            }
            let total: u64 = exact.values().sum();
            let found = top.biggest(places);
            for slot in &found {
                let is = exact[&slot.hash];
                prop_assert!(slot.count >= is && slot.count - slot.over <= is);
            }
            // Whoever has more than an equal share of everything is there.
            for (hash, n) in exact {
                if n > total / places as u64 {
                    prop_assert!(found.iter().any(|slot| slot.hash == hash));
                }
            }
        }
    }
}
