//! Checks sequence numbers: what was lost, what came twice, what came late.
//!
//! One [`Group`] stands for everything that together must see each envelope once: a firehose of its own, a tail, or
//! all members of one shard id. One bit per envelope makes loss and duplicates exact in any order; order is checked
//! per member and stream by [`Order`].

/// Which envelopes a group has seen.
#[derive(Clone, Debug, Default)]
pub struct Group {
    streams: Vec<Vec<u64>>,
    divisor: u64,
    /// Envelopes seen, each counted once.
    pub unique: u64,
    /// The same by stream.
    pub unique_by_stream: Vec<u64>,
    /// Envelopes seen again.
    pub duplicates: u64,
    /// Envelopes that this group did not ask for.
    pub misrouted: u64,
    source: Option<u32>,
}

impl Group {
    /// A group that is to see everything of `streams` streams.
    #[must_use]
    pub fn of_all(streams: usize) -> Self {
        Self {
            streams: vec![Vec::new(); streams],
            unique_by_stream: vec![0; streams],
            divisor: 1,
            ..Self::default()
        }
    }

    /// A group that is to see the envelopes of one source out of `sources`.
    #[must_use]
    pub fn of_source(streams: usize, source: u32, sources: usize) -> Self {
        Self {
            divisor: sources as u64,
            source: Some(source),
            ..Self::of_all(streams)
        }
    }

    /// Takes note of one envelope; true when it is one that had not been seen.
    pub fn observe(&mut self, stream: u16, source: u32, sequence: u64) -> bool {
        if self.source.is_some_and(|mine| mine != source) {
            self.misrouted += 1;
            return false;
        }
        let Some(bits) = self.streams.get_mut(usize::from(stream)) else {
            self.misrouted += 1;
            return false;
        };
        let position = if self.divisor == 1 {
            sequence
        } else {
            sequence / self.divisor
        };
        let word = (position / 64) as usize;
        if word >= bits.len() {
            bits.resize((word + 1).max(bits.len() * 2), 0);
        }
        let mask = 1 << (position % 64);
        let fresh = bits[word] & mask == 0;
        if fresh {
            bits[word] |= mask;
            self.unique += 1;
            self.unique_by_stream[usize::from(stream)] += 1;
        } else {
            self.duplicates += 1;
        }
        fresh
    }
}

/// Whether one member sees each stream's numbers only going up.
#[derive(Clone, Debug)]
pub struct Order {
    next: Vec<u64>,
    /// Envelopes that came after a later one of their stream.
    pub reordered: u64,
}

impl Order {
    /// For `streams` streams.
    #[must_use]
    pub fn new(streams: usize) -> Self {
        Self {
            next: vec![0; streams],
            reordered: 0,
        }
    }

    /// Takes note of one envelope.
    pub fn observe(&mut self, stream: u16, sequence: u64) {
        if let Some(next) = self.next.get_mut(usize::from(stream)) {
            if sequence < *next {
                self.reordered += 1;
            } else {
                *next = sequence + 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_duplicates_and_order_are_exact() {
        let mut group = Group::of_all(2);
        let mut order = Order::new(2);
        for sequence in [0, 1, 2, 5, 3, 5, 1000, 2] {
            if group.observe(1, 9, sequence) {
                order.observe(1, sequence);
            }
        }
        assert_eq!((group.unique, group.duplicates), (6, 2));
        assert_eq!(
            order.reordered, 1,
            "3 came after 5; what came twice is a duplicate, not a change of order"
        );
    }

    #[test]
    fn a_tail_counts_only_its_source() {
        let mut group = Group::of_source(1, 3, 10);
        for sequence in (3..1003).step_by(10) {
            group.observe(0, 3, sequence);
        }
        group.observe(0, 4, 4);
        assert_eq!(
            (group.unique, group.duplicates, group.misrouted),
            (100, 0, 1)
        );
    }

    #[test]
    fn an_unknown_stream_is_misrouted() {
        let mut group = Group::of_all(1);
        group.observe(7, 0, 0);
        assert_eq!((group.unique, group.misrouted), (0, 1));
    }
}
