//! The batches of one shared subscription that not all of its readers have taken: pure bookkeeping, no locks, no waiting.
//!
//! Batches are numbered in the order in which they came. A [`Cursor`] is a reader's place: the number of the batch that it
//! takes next, and how many envelopes had come before that one. What a reader has lost is the difference of two such sums,
//! so it is exact and costs nothing until somebody asks.

use std::collections::VecDeque;

use loggregator_client::Batch;

use super::Unread;

/// What a batch costs besides its bytes.
const OVERHEAD: usize = size_of::<Item>();

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Each is still to be taken by somebody. A later one is to be taken by all who still have to take an earlier one.
    items: VecDeque<Item>,
    /// The number of the first of them.
    first: u64,
    /// Envelopes of all batches so far.
    total: u64,
    bytes: usize,
    readers: usize,
    /// How many of them want no more from the dopplers.
    finishing: usize,
}

#[derive(Debug)]
struct Item {
    batch: Batch,
    envelopes: u64,
    /// Envelopes of all batches before this one.
    before: u64,
    /// How many readers still have to take it.
    waiting: usize,
}

impl Item {
    fn bytes(&self) -> usize {
        self.batch.bytes.len() + OVERHEAD
    }
}

/// A reader's place in a [`Queue`].
#[derive(Debug)]
pub(super) struct Cursor {
    /// The number of the batch that it takes next.
    next: u64,
    /// Envelopes before that batch.
    seen: u64,
    /// Envelopes that were gone when it came to them, and that it has not been told of.
    missed: u64,
    /// It wants no more from the dopplers.
    finishing: bool,
}

impl Cursor {
    /// Whether this reader wants no more from the dopplers.
    pub(super) fn is_finishing(&self) -> bool {
        self.finishing
    }

    /// What was missed since the last call.
    pub(super) fn take_missed(&mut self) -> u64 {
        std::mem::take(&mut self.missed)
    }
}

impl Queue {
    /// A new reader, which starts at the newest: it gets what comes from now on.
    pub(super) fn join(&mut self) -> Cursor {
        self.readers += 1;
        Cursor {
            next: self.end(),
            seen: self.total,
            missed: 0,
            finishing: false,
        }
    }

    /// A reader wants no more from the dopplers, only what others have taken.
    pub(super) fn finish(&mut self, cursor: &mut Cursor) {
        if !std::mem::replace(&mut cursor.finishing, true) {
            self.finishing += 1;
        }
    }

    /// Whether there is nobody any more for whom to take something new.
    pub(super) fn is_finishing(&self) -> bool {
        self.finishing == self.readers
    }

    /// A reader leaves: what it had not taken.
    pub(super) fn leave(&mut self, mut cursor: Cursor) -> Unread {
        self.readers -= 1;
        self.finishing -= usize::from(cursor.finishing);
        self.catch_up(&mut cursor);
        let from = cursor.next.saturating_sub(self.first) as usize;
        for item in self.items.iter_mut().skip(from) {
            item.waiting -= 1;
        }
        self.trim();
        Unread {
            envelopes: self.total - cursor.seen,
            missed: cursor.missed,
        }
    }

    /// Counts what is gone that the reader has not taken.
    fn catch_up(&self, cursor: &mut Cursor) {
        if cursor.next < self.first {
            let gone = self.items.front().map_or(self.total, |item| item.before);
            cursor.missed += gone - cursor.seen;
            (cursor.next, cursor.seen) = (self.first, gone);
        }
    }

    /// How many readers there are.
    pub(super) fn readers(&self) -> usize {
        self.readers
    }

    /// Bytes held for readers that are behind.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many batches are held for readers that are behind.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// The next batch for this reader, if others took it before; `None` when it has all that came and must look for more.
    pub(super) fn take(&mut self, cursor: &mut Cursor) -> Option<Batch> {
        self.catch_up(cursor);
        let item = self.items.get_mut((cursor.next - self.first) as usize)?;
        item.waiting -= 1;
        cursor.next += 1;
        cursor.seen = item.before + item.envelopes;
        let batch = item.batch.clone();
        self.trim();
        Some(batch)
    }

    /// The reader, which has all that came, took a new batch of so many envelopes from the dopplers. The others will have
    /// to take it.
    pub(super) fn push(&mut self, cursor: &mut Cursor, batch: &Batch, envelopes: u64) {
        debug_assert_eq!(
            cursor.next,
            self.end(),
            "only the furthest reader takes from the dopplers"
        );
        let before = self.total;
        self.total += envelopes;
        cursor.seen = self.total;
        if self.readers > 1 {
            let item = Item {
                batch: batch.clone(),
                envelopes,
                before,
                waiting: self.readers - 1,
            };
            self.bytes += item.bytes();
            self.items.push_back(item);
            cursor.next += 1;
        }
    }

    /// Lets the oldest batch go; returns how many envelopes were missed by that, every reader's copy counted. `None` when
    /// nothing is held.
    pub(super) fn evict(&mut self) -> Option<u64> {
        let item = self.items.pop_front()?;
        self.first += 1;
        self.bytes -= item.bytes();
        Some(item.envelopes * item.waiting as u64)
    }

    /// The number of the batch that comes next.
    fn end(&self) -> u64 {
        self.first + self.items.len() as u64
    }

    /// Lets go of what everybody has taken.
    fn trim(&mut self) {
        while self.items.front().is_some_and(|item| item.waiting == 0) {
            self.evict();
        }
    }
}
