//! Which doppler an envelope goes to: rendezvous (highest random weight) hashing of its source id.
//!
//! Every sender computes the same score for a pair of source and doppler, and the doppler with the highest score gets
//! the source. So the lines of one source stay on one doppler and in order, all agents of a deployment agree without
//! talking, and a change of the set moves only the sources of the doppler that left, or those that the newcomer wins.
//!
//! The hash is part of the contract between versions: it must not change, or a rolling update would spread sources
//! over two dopplers. It is therefore defined here and pinned by test vectors, not borrowed from a library:
//!
//! - `hash(bytes)`: start with `0x9e37_79b9_7f4a_7c15 ^ length`; for each group of eight bytes, read little-endian (the
//!   last one padded with zero bytes): `h = fold(h ^ word, 0xa076_1d64_78bd_642f)`, where `fold(a, b)` is the high half
//!   xor the low half of the 128-bit product; an empty text has no group.
//! - `score(source, doppler)`: the `splitmix64` finaliser of `hash(source) ^ rotate_left(hash(doppler), 32)`.
//! - Equal scores go to the doppler whose address is greater in byte order.

/// The fixed 64-bit hash of a source id or of a doppler's address.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    let mut h = 0x9e37_79b9_7f4a_7c15 ^ bytes.len() as u64;
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        h = fold(h ^ u64::from_le_bytes(*word), 0xa076_1d64_78bd_642f);
    }
    if !tail.is_empty() {
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        h = fold(h ^ u64::from_le_bytes(last), 0xa076_1d64_78bd_642f);
    }
    h
}

/// How much the doppler with this [`hash`] wants the source with that one.
#[must_use]
pub fn score(source: u64, doppler: u64) -> u64 {
    let mut z = source ^ doppler.rotate_left(32);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    #[allow(clippy::cast_possible_truncation)] // both halves are wanted
    {
        (product >> 64) as u64 ^ product as u64
    }
}

/// The dopplers to choose from, with their hashes ready.
#[derive(Debug, Clone, Default)]
pub struct Ring {
    /// Sorted by address in descending byte order, so that the first of equal scores is the greater address.
    members: Vec<Member>,
}

#[derive(Debug, Clone)]
struct Member {
    hash: u64,
    position: usize,
}

impl Ring {
    /// A ring of the given addresses. `pick` answers with positions in this order.
    pub fn new<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Ring {
        let mut named: Vec<(usize, &str)> = addresses.into_iter().enumerate().collect();
        named.sort_by(|a, b| b.1.cmp(a.1));
        let members = named
            .into_iter()
            .map(|(position, address)| Member {
                hash: hash(address.as_bytes()),
                position,
            })
            .collect();
        Ring { members }
    }

    /// Position of the doppler for this source id; `None` when the ring is empty.
    #[must_use]
    pub fn pick(&self, source_id: &[u8]) -> Option<usize> {
        match self.members.as_slice() {
            [] => None,
            [only] => Some(only.position),
            members => {
                let source = hash(source_id);
                let mut best = &members[0];
                let mut highest = score(source, best.hash);
                for member in &members[1..] {
                    let score = score(source, member.hash);
                    if score > highest {
                        (best, highest) = (member, score);
                    }
                }
                Some(best.position)
            }
        }
    }

    /// How many dopplers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: [&str; 3] = ["10.0.0.1:8082", "10.0.0.2:8082", "10.0.0.3:8082"];

    fn sources() -> impl Iterator<Item = String> {
        (0..3000).map(|i| format!("app-{i}"))
    }

    #[test]
    fn an_empty_ring_picks_nobody_and_a_ring_of_one_always_picks_it() {
        assert_eq!(Ring::default().pick(b"app"), None);
        let one = Ring::new(["10.0.0.1:8082"]);
        assert!(sources().all(|s| one.pick(s.as_bytes()) == Some(0)));
    }

    /// Computed apart from this code, by the module's text.
    const PINNED: (u64, u64, u64, &str) = (
        0x5352_3a00_5d88_5a95,
        0xb097_4a4b_1d09_0c8e,
        0x052f_8848_75b8_4a4f,
        "121210012000110201201022",
    );

    /// These numbers may never change: see the module's text.
    #[test]
    fn the_hash_is_pinned() {
        assert_eq!(hash(b""), 0x9e37_79b9_7f4a_7c15);
        let picks: String = (0..24)
            .map(|i| {
                Ring::new(THREE)
                    .pick(format!("app-{i}").as_bytes())
                    .unwrap()
            })
            .map(|p| char::from_digit(p as u32, 10).unwrap())
            .collect();
        assert_eq!(
            (
                hash(b"a"),
                hash(b"12345678"),
                hash(b"app-1"),
                picks.as_str()
            ),
            PINNED
        );
    }

    #[test]
    fn sources_spread_evenly() {
        let ring = Ring::new(THREE);
        let mut counts = [0; 3];
        for s in sources() {
            counts[ring.pick(s.as_bytes()).unwrap()] += 1;
        }
        assert!(counts.iter().all(|c| (850..1150).contains(c)), "{counts:?}");
    }

    #[test]
    fn a_leaver_moves_only_its_own_sources_and_they_come_back() {
        let all = Ring::new(THREE);
        let without_second = Ring::new([THREE[0], THREE[2]]);
        for s in sources() {
            let before = THREE[all.pick(s.as_bytes()).unwrap()];
            let after = [THREE[0], THREE[2]][without_second.pick(s.as_bytes()).unwrap()];
            assert!(
                before == after || before == THREE[1],
                "{s} moved from {before} to {after}"
            );
        }
    }

    #[test]
    fn the_order_in_which_dopplers_are_listed_does_not_matter() {
        let one = Ring::new(THREE);
        let reversed = Ring::new(THREE.iter().rev().copied());
        for s in sources() {
            assert_eq!(
                THREE[one.pick(s.as_bytes()).unwrap()],
                THREE[2 - reversed.pick(s.as_bytes()).unwrap()]
            );
        }
    }
}
