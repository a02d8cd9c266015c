//! The ring: the slots that are still in memory, oldest first.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use loggregator_envelope::{Frame, V1Frame};
use parking_lot::RwLockReadGuard;

/// One frame in the log and where it stands.
#[derive(Debug)]
pub struct Slot {
    pub(crate) ordinal: u64,
    pub(crate) offset: u64,
    pub(crate) segment: u64,
    pub(crate) at: Instant,
    /// Bytes outside the segment: index, bookkeeping, and the frame itself if it stands alone.
    pub(crate) extra: usize,
    /// Bytes of the dropsonde form that were charged to the log.
    v1_charged: AtomicUsize,
    v1_total: Arc<AtomicUsize>,
    frame: Frame,
}

impl Slot {
    pub(crate) fn new(
        ordinal: u64,
        offset: u64,
        segment: u64,
        extra: usize,
        v1_total: Arc<AtomicUsize>,
        frame: Frame,
    ) -> Self {
        let slot = Self {
            ordinal,
            offset,
            segment,
            at: Instant::now(),
            extra,
            v1_charged: AtomicUsize::new(0),
            v1_total,
            frame,
        };
        if slot.frame.v1_if_made().is_some() {
            slot.v1();
        }
        slot
    }

    /// Number of this frame since the log began: 0, 1, 2, …
    pub fn ordinal(&self) -> u64 {
        self.ordinal
    }

    /// Frame bytes appended before this one since the log began.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The frame.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// The dropsonde form, made by whoever asks first and charged to the log's memory.
    pub fn v1(&self) -> &V1Frame {
        let v1 = self.frame.v1();
        if self.v1_charged.load(Ordering::Relaxed) == 0 {
            let size = v1.memory().max(1);
            if self
                .v1_charged
                .compare_exchange(0, size, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                self.v1_total.fetch_add(size, Ordering::Relaxed);
            }
        }
        v1
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let charged = *self.v1_charged.get_mut();
        if charged > 0 {
            self.v1_total.fetch_sub(charged, Ordering::Relaxed);
        }
    }
}

/// The slots in memory. `base` is the ordinal of the first.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    pub(crate) slots: VecDeque<Arc<Slot>>,
    pub(crate) base: u64,
    pub(crate) head_offset: u64,
    pub(crate) envelopes: u64,
}

/// A consistent look at the ring. While it is held nothing is appended or evicted, so hold it briefly: take what is
/// needed (shared pointers), drop it, and work afterwards.
pub struct View<'a> {
    pub(crate) ring: RwLockReadGuard<'a, Ring>,
}

impl View<'_> {
    /// Ordinal of the oldest frame in memory (equal to [`Self::head`] when the ring is empty).
    pub fn tail(&self) -> u64 {
        self.ring.base
    }

    /// Ordinal that the next frame will get.
    pub fn head(&self) -> u64 {
        self.ring.base + self.ring.slots.len() as u64
    }

    /// Frame bytes appended since the log began.
    pub fn head_offset(&self) -> u64 {
        self.ring.head_offset
    }

    /// The slot with that ordinal; `None` if it was evicted or is not there yet.
    pub fn get(&self, ordinal: u64) -> Option<&Arc<Slot>> {
        let at = ordinal.checked_sub(self.ring.base)?;
        self.ring.slots.get(usize::try_from(at).ok()?)
    }

    /// The slots from that ordinal on, or from the oldest if it was evicted.
    pub fn from(&self, ordinal: u64) -> impl Iterator<Item = &Arc<Slot>> {
        let at = ordinal
            .saturating_sub(self.ring.base)
            .min(self.ring.slots.len() as u64);
        self.ring
            .slots
            .range(usize::try_from(at).unwrap_or(usize::MAX)..)
    }

    /// Frame bytes between the beginning of that slot and the head: how far behind a reader there is.
    pub fn bytes_from(&self, ordinal: u64) -> u64 {
        match self.from(ordinal).next() {
            Some(slot) => self.ring.head_offset - slot.offset,
            None => 0,
        }
    }

    /// Frame bytes in memory: the most that a reader can be behind.
    pub fn retained(&self) -> u64 {
        self.bytes_from(self.tail())
    }
}
