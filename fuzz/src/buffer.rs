//! What must hold for the bytes of a nozzle's segment. The fuzz target calls this, and a test of `nozzles/sdk` with the
//! seeds. The file that includes this one says which [`format`](crate::format) is meant.

use std::collections::BTreeMap;

use crate::format::{Found, HEADER, Records, Seed, encode, encode_gap};

/// The seeds are of this segment.
pub const SEED: (u64, u64) = (1, 0);

/// Whatever the bytes, what is found is a record that was written, in order and without holes; a flipped bit is always
/// noticed.
pub fn segment(data: &[u8]) {
    events(data);
    let Some((place, bytes)) = data.split_first_chunk::<4>() else {
        return;
    };
    if bytes.is_empty() {
        return;
    }
    let whole = events(bytes);
    let bit = u32::from_le_bytes(*place) as usize % (bytes.len() * 8);
    let mut flipped = bytes.to_vec();
    flipped[bit / 8] ^= 1 << (bit % 8);
    for (start, end) in events(&flipped) {
        let is_new = whole.get(&start) != Some(&end);
        assert!(
            is_new || !(start..end).contains(&(bit / 8)),
            "the flipped bit goes unnoticed"
        );
    }
}

/// Where the records of events begin and end.
fn events(bytes: &[u8]) -> BTreeMap<usize, usize> {
    let seed = Seed::new(SEED.0, SEED.1);
    let mut records = Records::new(seed, bytes, SEED.1, u64::MAX);
    let mut events = BTreeMap::new();
    let (mut seq, mut offset) = (SEED.1, 0);
    while let Some(found) = records.next() {
        assert!(records.offset() > offset && records.offset() <= bytes.len());
        let mut written = Vec::new();
        let first = match found {
            Found::Event {
                seq,
                received,
                body,
            } => {
                assert_eq!(body.end, records.offset());
                encode(seed, seq, received, &bytes[body.clone()], &mut written);
                events.insert(body.start - HEADER, body.end);
                assert_eq!(records.seq(), seq + 1);
                seq
            }
            Found::Gap { seqs } => {
                encode_gap(seed, seqs.start, seqs.end - seqs.start, &mut written);
                assert!(!seqs.is_empty() && records.seq() == seqs.end);
                seqs.start
            }
            Found::Damaged { seqs } => {
                assert!(seqs.start == seq && seqs.end >= seq && records.seq() == seqs.end);
                seqs.start
            }
        };
        assert_eq!(first, seq, "no holes");
        assert!(bytes[offset..records.offset()].ends_with(&written));
        (seq, offset) = (records.seq(), records.offset());
    }
    events
}
