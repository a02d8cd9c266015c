//! A place in the log, and reading on from it.

use std::ops::Range;
use std::sync::Arc;

use loggregator_envelope::KindSet;
use smallvec::SmallVec;

use crate::ring::{Slot, View};
use crate::tally::Tally;

/// A place between two envelopes: before entry `envelope` of frame `ordinal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Frame number since the log began.
    pub ordinal: u64,
    /// Entry in that frame.
    pub envelope: u32,
}

impl Position {
    /// Before the first entry of a frame.
    pub const fn frame(ordinal: u64) -> Self {
        Self {
            ordinal,
            envelope: 0,
        }
    }
}

/// Entries of one slot that were taken together. Holds the slot, so it stays readable after eviction.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The slot.
    pub slot: Arc<Slot>,
    /// Its entries.
    pub range: Range<u32>,
}

/// Reads the log forward. A plain state machine: whoever owns it brings the lock and the [`View`].
#[derive(Debug)]
pub struct Cursor {
    next: Position,
}

impl Cursor {
    /// A cursor that reads what comes from that place on.
    pub fn new(next: Position) -> Self {
        Self { next }
    }

    /// Where it will read on.
    pub fn position(&self) -> Position {
        self.next
    }

    /// True if there is nothing to read.
    pub fn at_head(&self, view: &View<'_>) -> bool {
        self.next.ordinal >= view.head()
    }

    /// Frame bytes between the cursor and the head.
    pub fn lag(&self, view: &View<'_>) -> u64 {
        view.bytes_from(self.next.ordinal)
    }

    /// Takes consecutive pieces of together at most `budget` bytes. With `at_least_one` the first envelope is taken
    /// however big it is. Frames are taken whole where they fit; one that does not fit alone is taken in parts.
    pub fn take(
        &mut self,
        view: &View<'_>,
        budget: usize,
        at_least_one: bool,
    ) -> SmallVec<[Piece; 4]> {
        let mut pieces = SmallVec::new();
        let mut left = budget;
        // An evicted position cannot be here: eviction moves the cursor (see `evicted`).
        for slot in view.from(self.next.ordinal) {
            let entries = slot.frame().entries();
            let start = self.next.envelope as usize;
            if start >= entries.len() {
                self.next = Position::frame(slot.ordinal + 1);
                continue;
            }
            let rest = slot.frame().bytes().len() - entries[start].start as usize;
            let end = if rest <= left {
                entries.len()
            } else if pieces.is_empty() {
                part_of(
                    entries.iter().map(|e| e.len as usize),
                    start,
                    left,
                    at_least_one,
                )
            } else {
                break;
            };
            if end == start {
                break;
            }
            left = left.saturating_sub(rest);
            pieces.push(Piece {
                slot: slot.clone(),
                range: start as u32..end as u32,
            });
            if end < entries.len() {
                self.next = Position {
                    ordinal: slot.ordinal,
                    envelope: end as u32,
                };
                break;
            }
            self.next = Position::frame(slot.ordinal + 1);
            if left == 0 {
                break;
            }
        }
        pieces
    }

    /// To be called with the slots that leave the ring (in order): moves past them and counts what of `kinds` the
    /// cursor had not read.
    pub fn evicted(&mut self, slots: &[Arc<Slot>], kinds: KindSet, missed: &mut Tally) {
        for slot in slots {
            if slot.ordinal < self.next.ordinal {
                continue;
            }
            let from = if slot.ordinal == self.next.ordinal {
                self.next.envelope
            } else {
                0
            };
            missed.add_range(slot, from..slot.frame().len() as u32, kinds);
            self.next = Position::frame(slot.ordinal + 1);
        }
    }
}

/// End of the longest run of records from `start` that fits into `budget`; at least one record long if asked.
fn part_of(
    lengths: impl Iterator<Item = usize>,
    start: usize,
    budget: usize,
    at_least_one: bool,
) -> usize {
    let mut left = budget;
    let mut end = start;
    for len in lengths.skip(start) {
        if len > left && (end > start || !at_least_one) {
            break;
        }
        left = left.saturating_sub(len);
        end += 1;
        if left == 0 {
            break;
        }
    }
    end
}
