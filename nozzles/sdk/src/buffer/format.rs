//! The bytes of a segment on disk.
//!
//! ```text
//! segment  "LGNZBUF1"  version u32  buffer id u64  first number u64  CRC of these u32  │ record │ record │ …
//! record   CRC of the header u32  CRC of the body u32  length u32  number u64  received i64  │ body
//! ```
//!
//! Numbers are little-endian. Both CRCs of a record are CRC-32C and start from a value made of the buffer's id and the
//! segment's first number: a record of another file is no record here, and nobody who writes a log line can put one into it
//! that would be taken for a record. Numbers of a segment have no holes. A record whose length has the top bit set is a gap:
//! it has no body, and says in the place of the time how many numbers, from its own on, were given to events that no
//! destination had room for.

use std::ops::Range;

/// Bytes of a record's header.
pub const HEADER: usize = 28;
/// Bytes of a segment's header.
pub const SEGMENT_HEADER: usize = 32;
/// Bytes of the longest envelope that a record can hold.
pub const MAX_BODY: usize = 64 << 20;
/// Numbers of a gap at most, so that a damaged number cannot be far away.
const MAX_GAP: u64 = 1 << 32;

const MAGIC: &[u8; 8] = b"LGNZBUF1";
const VERSION: u32 = 1;
const GAP: u32 = 1 << 31;

/// What the CRCs of a segment start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(u32);

impl Seed {
    /// That of the segment of the buffer `id` which starts with number `first`.
    #[must_use]
    pub fn new(id: u64, first: u64) -> Seed {
        Seed(crc32c::crc32c_append(
            crc32c::crc32c(&id.to_le_bytes()),
            &first.to_le_bytes(),
        ))
    }
}

/// What a segment's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentHeader {
    /// It is whole: the buffer's id and the segment's first number.
    Good {
        /// The buffer's id.
        id: u64,
        /// The segment's first number.
        first: u64,
    },
    /// It is whole and of a version that this program does not know.
    Version(u32),
    /// It is cut or damaged.
    Damaged,
}

/// The header of a segment.
#[must_use]
pub fn segment_header(id: u64, first: u64) -> [u8; SEGMENT_HEADER] {
    let mut header = [0; SEGMENT_HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..20].copy_from_slice(&id.to_le_bytes());
    header[20..28].copy_from_slice(&first.to_le_bytes());
    let crc = crc32c::crc32c(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Reads the header of a segment.
#[must_use]
pub fn read_segment_header(bytes: &[u8]) -> SegmentHeader {
    let Some(header) = bytes.first_chunk::<SEGMENT_HEADER>() else {
        return SegmentHeader::Damaged;
    };
    if &header[..8] != MAGIC || crc32c::crc32c(&header[..28]) != u32_at(header, 28) {
        return SegmentHeader::Damaged;
    }
    match u32_at(header, 8) {
        VERSION => SegmentHeader::Good {
            id: u64_at(header, 12),
            first: u64_at(header, 20),
        },
        other => SegmentHeader::Version(other),
    }
}

/// Appends a record. The body is no longer than [`MAX_BODY`].
pub fn encode(seed: Seed, seq: u64, received: i64, body: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX) & !GAP;
    let body_crc = crc32c::crc32c_append(seed.0, body);
    put_header(seed, body_crc, length, seq, received.to_le_bytes(), out);
    out.extend_from_slice(body);
}

/// Appends a gap of `count` numbers.
pub fn encode_gap(seed: Seed, seq: u64, count: u64, out: &mut Vec<u8>) {
    put_header(seed, 0, GAP, seq, count.to_le_bytes(), out);
}

fn put_header(seed: Seed, body_crc: u32, length: u32, seq: u64, last: [u8; 8], out: &mut Vec<u8>) {
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&body_crc.to_le_bytes());
    header[8..12].copy_from_slice(&length.to_le_bytes());
    header[12..20].copy_from_slice(&seq.to_le_bytes());
    header[20..].copy_from_slice(&last);
    let crc = crc32c::crc32c_append(seed.0, &header[4..]);
    header[..4].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&header);
}

/// What stands at a place of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// An event.
    Event {
        /// Its number.
        seq: u64,
        /// When it was received.
        received: i64,
        /// Where its body stands in the bytes.
        body: Range<usize>,
    },
    /// Numbers of events that no destination had room for.
    Gap {
        /// The numbers.
        seqs: Range<u64>,
    },
    /// Bytes that are no record, before one that is.
    Damaged {
        /// The numbers that stood there; may be none.
        seqs: Range<u64>,
    },
}

/// Reads records one after another, past damage.
#[derive(Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    seed: Seed,
    at: usize,
    next: u64,
    limit: u64,
}

impl<'a> Records<'a> {
    /// Reads `bytes` from the start of a record on, which has the number `next`. No number reaches `limit`.
    #[must_use]
    pub fn new(seed: Seed, bytes: &'a [u8], next: u64, limit: u64) -> Records<'a> {
        Records {
            bytes,
            seed,
            at: 0,
            next,
            limit,
        }
    }

    /// Where the record after the last one begins.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.at
    }

    /// The number of the record after the last one.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.next
    }

    /// The next good record at the place itself, without a search. `Err`: the bytes that it would need.
    ///
    /// # Errors
    /// When no good record of the right number stands there; how many bytes it needs, as far as its header is good and
    /// the bytes merely end too early, else 0.
    pub fn here(&mut self) -> Result<Found, usize> {
        let header = header_at(self.seed, self.bytes, self.at);
        let Some(header) = header.filter(|header| header.follows(self.next, self.limit)) else {
            return Err(0);
        };
        let body = self.at + HEADER..self.at + HEADER + header.length;
        let Some(bytes) = self.bytes.get(body.clone()) else {
            return Err(HEADER + header.length);
        };
        if !header.is_gap && crc32c::crc32c_append(self.seed.0, bytes) != header.body_crc {
            return Err(0);
        }
        self.at = body.end;
        self.next = header.end();
        Ok(header.found(body))
    }

    /// Skips to the next header that is good, behind the place. `None` when there is none.
    fn resync(&mut self) -> Option<Found> {
        let damaged_from = self.next;
        // A good header with a bad body says where the next one is.
        let here = header_at(self.seed, self.bytes, self.at)
            .filter(|header| header.follows(self.next, self.limit));
        let mut at = match here {
            Some(header) => {
                let end = self.at + HEADER + header.length;
                if end >= self.bytes.len() {
                    self.bytes.len()
                } else {
                    end
                }
            }
            None => self.at + 1,
        };
        while at + HEADER <= self.bytes.len() {
            let seq = u64_at(self.bytes, at + 12);
            if seq >= damaged_from
                && seq < self.limit
                && let Some(header) = header_at(self.seed, self.bytes, at)
                && header.end() <= self.limit
                && at + HEADER + header.length <= self.bytes.len()
            {
                self.at = at;
                self.next = seq;
                return Some(Found::Damaged {
                    seqs: damaged_from..seq,
                });
            }
            at += 1;
        }
        None
    }
}

impl Iterator for Records<'_> {
    type Item = Found;

    /// The next record, or the damage before it. After the last, [`offset`](Records::offset) says where the good ones end.
    fn next(&mut self) -> Option<Found> {
        if self.at >= self.bytes.len() {
            return None;
        }
        match self.here() {
            Ok(found) => Some(found),
            Err(_) => self.resync(),
        }
    }
}

struct Header {
    body_crc: u32,
    length: usize,
    is_gap: bool,
    seq: u64,
    last: [u8; 8],
}

impl Header {
    fn follows(&self, next: u64, limit: u64) -> bool {
        self.seq == next && self.end() <= limit
    }

    fn count(&self) -> u64 {
        if self.is_gap {
            u64::from_le_bytes(self.last)
        } else {
            1
        }
    }

    fn end(&self) -> u64 {
        self.seq.saturating_add(self.count())
    }

    fn found(&self, body: Range<usize>) -> Found {
        if self.is_gap {
            Found::Gap {
                seqs: self.seq..self.end(),
            }
        } else {
            Found::Event {
                seq: self.seq,
                received: i64::from_le_bytes(self.last),
                body,
            }
        }
    }
}

fn header_at(seed: Seed, bytes: &[u8], at: usize) -> Option<Header> {
    let header = bytes.get(at..)?.first_chunk::<HEADER>()?;
    if crc32c::crc32c_append(seed.0, &header[4..]) != u32_at(header, 0) {
        return None;
    }
    let length = u32_at(header, 8);
    let header = Header {
        body_crc: u32_at(header, 4),
        length: (length & !GAP) as usize,
        is_gap: length & GAP != 0,
        seq: u64_at(header, 12),
        last: u64_at(header, 20).to_le_bytes(),
    };
    let sound = if header.is_gap {
        header.length == 0 && (1..=MAX_GAP).contains(&header.count())
    } else {
        header.length <= MAX_BODY
    };
    sound.then_some(header)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    word.map_or(0, |word| u32::from_le_bytes(*word))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    word.map_or(0, |word| u64::from_le_bytes(*word))
}
