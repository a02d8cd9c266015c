//! What an envelope holds, and what a rewriting hop wants to know about it.

use std::{fmt, ops::BitOr};

/// What an envelope holds: the member of the v2 `message` oneof that counts.
///
/// A oneof member that occurs on the wire after another one replaces it, so this is the last one.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// No member is set. Such an envelope matches no selector.
    #[default]
    None = 0,
    /// A log line.
    Log,
    /// A counter.
    Counter,
    /// One or more measured values.
    Gauge,
    /// Something that took time.
    Timer,
    /// An event.
    Event,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const EACH: [Kind; 6] = [
        Kind::None,
        Kind::Log,
        Kind::Counter,
        Kind::Gauge,
        Kind::Timer,
        Kind::Event,
    ];

    /// The kind of the oneof member with this field number of `loggregator.v2.Envelope`.
    pub(crate) const fn of_field(number: u32) -> Option<Kind> {
        Some(match number {
            4 => Kind::Log,
            5 => Kind::Counter,
            6 => Kind::Gauge,
            7 => Kind::Timer,
            10 => Kind::Event,
            _ => return None,
        })
    }

    /// The member's name in the v2 API; `none` when no member is set.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::None => "none",
            Kind::Log => "log",
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Timer => "timer",
            Kind::Event => "event",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of [`Kind`]s.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct KindSet(u8);

impl KindSet {
    /// No kind.
    pub const EMPTY: KindSet = KindSet(0);
    /// Every kind, [`Kind::None`] included.
    pub const ALL: KindSet = KindSet(0b11_1111);

    /// The set of just this kind.
    pub const fn of(kind: Kind) -> KindSet {
        KindSet(1 << kind as u8)
    }

    /// Whether the kind is in the set.
    pub const fn contains(self, kind: Kind) -> bool {
        self.0 & KindSet::of(kind).0 != 0
    }

    /// Adds a kind.
    pub const fn insert(&mut self, kind: Kind) {
        self.0 |= KindSet::of(kind).0;
    }

    /// Everything that is in one of the two.
    #[must_use]
    pub const fn union(self, other: KindSet) -> KindSet {
        KindSet(self.0 | other.0)
    }

    /// Everything that is in both.
    #[must_use]
    pub const fn intersection(self, other: KindSet) -> KindSet {
        KindSet(self.0 & other.0)
    }

    /// Whether everything in `other` is in this set too.
    pub const fn is_superset(self, other: KindSet) -> bool {
        other.0 & !self.0 == 0
    }

    /// Whether nothing is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// One bit per kind, at the kind's number.
    pub const fn bits(self) -> u8 {
        self.0
    }
}

impl fmt::Debug for KindSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(Kind::EACH.iter().filter(|k| self.contains(**k)))
            .finish()
    }
}

impl FromIterator<Kind> for KindSet {
    fn from_iter<I: IntoIterator<Item = Kind>>(kinds: I) -> Self {
        kinds
            .into_iter()
            .fold(KindSet::EMPTY, |set, kind| set.union(KindSet::of(kind)))
    }
}

/// What the scan saw of an envelope beside its kind: the questions of hops that rewrite envelopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// Nothing to say.
    pub const EMPTY: Flags = Flags(0);
    /// The map `tags` has an entry.
    pub const HAS_TAGS: Flags = Flags(1);
    /// The map `deprecated_tags` has an entry.
    pub const HAS_DEPRECATED_TAGS: Flags = Flags(2);
    /// The source id is absent or empty.
    pub const NO_SOURCE_ID: Flags = Flags(4);
    /// Some field, at whatever depth, is not of the protocol as we know it. It survives.
    pub const UNKNOWN_FIELDS: Flags = Flags(8);

    /// Whether all of `other` are set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// All flags of both.
    #[must_use]
    pub const fn union(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// The flags of this set that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }

    /// One bit per flag.
    pub const fn bits(self) -> u8 {
        self.0
    }
}

impl BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        self.union(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let mut set = KindSet::of(Kind::Log);
        set.insert(Kind::Event);
        assert!(set.contains(Kind::Log) && set.contains(Kind::Event) && !set.contains(Kind::None));
        assert!(KindSet::ALL.is_superset(set) && !set.is_superset(KindSet::ALL));
        assert_eq!(Kind::EACH.into_iter().collect::<KindSet>(), KindSet::ALL);
        assert_eq!(format!("{set:?}"), "{Log, Event}");
        assert!(set.intersection(KindSet::of(Kind::Gauge)).is_empty());
    }
}
