//! Running totals of counters.
//!
//! Emitters send what a counter grew by; consumers want to know where it stands. The agent adds up, per counter name,
//! source id and set of tags; the instance id is not part of the key, as in the loggregator agent.
//!
//! | received | stored and passed on |
//! |---|---|
//! | total = 0, delta ≠ 0 | stored + delta |
//! | total ≠ 0 | the given total |
//! | total = 0, delta = 0 | 0: the counter starts again |
//!
//! The table is bounded. The loggregator agent empties its whole table when it is full, so that every counter of the
//! machine restarts; here the counter that was not heard of for longest (roughly: a clock with second chances) makes
//! room for the newcomer, and the eviction is counted.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::{FixedState, RandomState};

/// What identifies a counter: 128 bits of seeded hash over name, source id and tags.
///
/// The tags are a set: their hashes are added up, so that nothing needs sorting or copying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key(u64, u64);

/// Makes keys. The seeds are random per process, so that nobody can prepare two counters that share a key.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    first: RandomState,
    second: FixedState,
}

impl Default for Keys {
    fn default() -> Keys {
        let first = RandomState::default();
        let second = FixedState::with_seed(first.hash_one(0x746f_7461_6c73_u64));
        Keys { first, second }
    }
}

impl Keys {
    /// The key of a counter.
    pub(crate) fn key<'a>(
        &self,
        source_id: &[u8],
        name: &[u8],
        tags: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Key {
        let mut key = self.pair(source_id, name, 1);
        for (name, value) in tags {
            let tag = self.pair(name, value, 2);
            key.0 = key.0.wrapping_add(tag.0);
            key.1 = key.1.wrapping_add(tag.1);
        }
        key
    }

    fn pair(&self, a: &[u8], b: &[u8], domain: u8) -> Key {
        Key(
            pair_hash(&self.first, a, b, domain),
            pair_hash(&self.second, a, b, domain),
        )
    }
}

fn pair_hash(state: &impl BuildHasher, a: &[u8], b: &[u8], domain: u8) -> u64 {
    let mut hasher = state.build_hasher();
    hasher.write_u8(domain);
    hasher.write_usize(a.len());
    hasher.write(a);
    hasher.write(b);
    hasher.finish()
}

/// The totals of at most a fixed number of counters.
#[derive(Debug)]
pub(crate) struct Totals {
    limit: usize,
    places: HashMap<Key, usize, RandomState>,
    counters: Vec<Counter>,
    /// The next place that is asked to make room.
    hand: usize,
    evicted: u64,
}

#[derive(Debug)]
struct Counter {
    key: Key,
    total: u64,
    /// Heard of since the hand last passed.
    recent: bool,
}

impl Totals {
    /// A table for `limit` counters, at least one. It grows as counters appear.
    pub(crate) fn new(limit: usize) -> Totals {
        Totals {
            limit: limit.max(1),
            places: HashMap::default(),
            counters: Vec::new(),
            hand: 0,
            evicted: 0,
        }
    }

    /// Takes note of a received counter and returns the total to pass on.
    pub(crate) fn update(&mut self, key: Key, delta: u64, total: u64) -> u64 {
        let after = |stored: u64| match (delta, total) {
            (0, 0) => 0,
            (delta, 0) => stored.wrapping_add(delta),
            (_, total) => total,
        };
        if let Some(&place) = self.places.get(&key) {
            let counter = &mut self.counters[place];
            counter.total = after(counter.total);
            counter.recent = true;
            return counter.total;
        }
        let total = after(0);
        let counter = Counter {
            key,
            total,
            recent: false,
        };
        let place = if self.counters.len() < self.limit {
            self.counters.push(counter);
            self.counters.len() - 1
        } else {
            let place = self.evict();
            self.counters[place] = counter;
            place
        };
        self.places.insert(key, place);
        total
    }

    /// Counters that were forgotten to make room.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Counters in the table.
    pub(crate) fn len(&self) -> usize {
        self.counters.len()
    }

    /// Frees a place of the full table. Ends after at most one round, which takes every second chance away.
    fn evict(&mut self) -> usize {
        loop {
            let place = self.hand;
            self.hand = (self.hand + 1) % self.counters.len();
            let counter = &mut self.counters[place];
            if !std::mem::take(&mut counter.recent) {
                self.places.remove(&counter.key);
                self.evicted += 1;
                return place;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn key(keys: &Keys, source: &str, name: &str, tags: &BTreeMap<String, String>) -> Key {
        keys.key(
            source.as_bytes(),
            name.as_bytes(),
            tags.iter().map(|(k, v)| (k.as_bytes(), v.as_bytes())),
        )
    }

    #[test]
    fn the_known_sequence_of_the_loggregator_agent() {
        let keys = Keys::default();
        let key = key(&keys, "s", "n", &BTreeMap::new());
        let mut totals = Totals::new(10);
        let received = [(5, 0), (3, 0), (0, 0), (2, 0), (1, 100), (4, 0)];
        let passed: Vec<u64> = received
            .iter()
            .map(|&(delta, total)| totals.update(key, delta, total))
            .collect();
        assert_eq!(passed, [5, 8, 0, 2, 100, 104]);
    }

    #[test]
    fn names_sources_and_tags_are_told_apart_and_the_order_of_tags_is_not() {
        let keys = Keys::default();
        let tags = |pairs: &[(&'static str, &'static str)]| -> Vec<(&'static [u8], &'static [u8])> {
            pairs
                .iter()
                .map(|(k, v)| (k.as_bytes(), v.as_bytes()))
                .collect()
        };
        let of = |source: &str, name: &str, pairs: &[(&'static str, &'static str)]| {
            keys.key(source.as_bytes(), name.as_bytes(), tags(pairs).into_iter())
        };
        let base = of("s", "n", &[("a", "1"), ("b", "2")]);
        assert_eq!(base, of("s", "n", &[("b", "2"), ("a", "1")]));
        for other in [
            of("s", "n", &[("a", "1")]),
            of("s", "n", &[("a", "2"), ("b", "1")]),
            of("sn", "", &[("a", "1"), ("b", "2")]),
            of("s", "n", &[("a", "1"), ("b2", "")]),
            of("a", "1", &[("s", "n"), ("b", "2")]),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_full_table_forgets_whom_it_heard_of_longest_ago() {
        let keys = Keys::default();
        let tags = BTreeMap::new();
        let of = |name: &str| key(&keys, "s", name, &tags);
        let mut totals = Totals::new(3);
        for name in ["a", "b", "c"] {
            totals.update(of(name), 1, 0);
        }
        totals.update(of("a"), 1, 0);
        totals.update(of("c"), 1, 0);
        totals.update(of("d"), 1, 0); // b makes room
        assert_eq!((totals.len(), totals.evicted()), (3, 1));
        assert_eq!(totals.update(of("a"), 1, 0), 3);
        assert_eq!(totals.update(of("c"), 1, 0), 3);
        assert_eq!(totals.update(of("b"), 1, 0), 1, "b was forgotten");
    }

    /// Obviously right, and slow: whole keys, never forgets.
    #[derive(Default)]
    struct Naive(BTreeMap<(String, String, BTreeMap<String, String>), u64>);

    impl Naive {
        fn update(
            &mut self,
            key: (String, String, BTreeMap<String, String>),
            delta: u64,
            total: u64,
        ) -> u64 {
            let stored = self.0.entry(key).or_default();
            *stored = if total != 0 {
                total
            } else if delta == 0 {
                0
            } else {
                stored.wrapping_add(delta)
            };
            *stored
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_table(
            counters in prop::collection::vec(
                (
                    "[ab]{0,2}",
                    "[xy]{0,2}",
                    prop::collection::btree_map("[kl]{1,2}", "[vw]{0,2}", 0..3),
                    prop_oneof![Just(0), 0u64..5, any::<u64>()],
                    prop_oneof![Just(0), any::<u64>()],
                ),
                0..200,
            )
        ) {
            let keys = Keys::default();
            let mut totals = Totals::new(100_000);
            let mut naive = Naive::default();
            for (source, name, tags, delta, total) in counters {
                let passed = totals.update(key(&keys, &source, &name, &tags), delta, total);
                prop_assert_eq!(passed, naive.update((source, name, tags), delta, total));
            }
            prop_assert_eq!(totals.len(), naive.0.len());
            prop_assert_eq!(totals.evicted(), 0);
        }

        #[test]
        fn never_holds_more_than_its_limit(names in prop::collection::vec(0u16..50, 0..300), limit in 1usize..10) {
            let keys = Keys::default();
            let mut totals = Totals::new(limit);
            for name in names {
                totals.update(key(&keys, "s", &name.to_string(), &BTreeMap::new()), 1, 0);
                prop_assert!(totals.len() <= limit);
                prop_assert_eq!(totals.places.len(), totals.len());
            }
        }
    }
}
