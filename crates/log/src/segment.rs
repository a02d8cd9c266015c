//! Memory for frames: segments of equal size, filled back to back and used again once nobody holds a slice of them.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::populate::populate;

/// Copies frames into segments.
///
/// A segment is one allocation. Every frame in it is a [`Bytes`] that shares the allocation, so nothing is freed or
/// allocated per frame, and a small frame that somebody still holds pins one segment and no more. When a segment is
/// full its empty rest is kept: it is the handle by which the whole allocation can be claimed back
/// ([`BytesMut::try_reclaim`]) as soon as the last slice is gone. That makes reuse safe without any `unsafe` of ours.
#[derive(Debug)]
pub(crate) struct Segments {
    size: usize,
    current: BytesMut,
    number: u64,
    full: VecDeque<BytesMut>,
}

/// A stored frame and the number of the segment it is accounted to.
pub(crate) struct Stored {
    pub(crate) bytes: Bytes,
    pub(crate) segment: u64,
    /// Bytes of an allocation of its own, 0 for a frame inside a segment.
    pub(crate) own: usize,
}

impl Segments {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            size,
            current: BytesMut::new(),
            number: 0,
            full: VecDeque::new(),
        }
    }

    /// Bytes of all segments that exist: in use, waiting for reuse, or held by a slow connection.
    pub(crate) fn allocated(&self) -> usize {
        let current = usize::from(self.current.capacity() > 0 || self.number > 0);
        (self.full.len() + current) * self.size
    }

    /// Bytes of segments that wait for reuse.
    pub(crate) fn free(&mut self) -> usize {
        self.full
            .iter_mut()
            .filter_map(|rest| rest.try_reclaim(self.size).then_some(self.size))
            .sum()
    }

    /// Number of the segment that is being filled.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// True if a frame of `len` bytes needs the next segment.
    pub(crate) fn must_rotate(&self, len: usize) -> bool {
        len <= self.size / 2 && self.current.capacity() < len
    }

    /// Starts the next segment: one that nobody holds any more, else a fresh allocation if `may_allocate`.
    /// False if there is none to reuse and none may be allocated.
    pub(crate) fn rotate(&mut self, may_allocate: bool) -> bool {
        let free = self
            .full
            .iter_mut()
            .position(|rest| rest.try_reclaim(self.size));
        let next = match free.and_then(|at| self.full.remove(at)) {
            Some(segment) => segment,
            None if may_allocate => {
                let mut segment = BytesMut::with_capacity(self.size);
                populate(segment.spare_capacity_mut());
                segment
            }
            None => return false,
        };
        let rest = std::mem::replace(&mut self.current, next);
        if rest.capacity() > 0 || self.number > 0 {
            self.full.push_back(rest);
        }
        self.number += 1;
        true
    }

    /// Gives back segments that nobody holds until at most `limit` bytes are allocated.
    pub(crate) fn release(&mut self, limit: usize) {
        let mut at = 0;
        while self.allocated() > limit && at < self.full.len() {
            if self.full[at].try_reclaim(self.size) {
                self.full.remove(at);
            } else {
                at += 1;
            }
        }
    }

    /// Copies a frame in. A frame above half a segment gets an exact allocation of its own.
    pub(crate) fn store(&mut self, frame: &[u8]) -> Stored {
        if frame.len() > self.size / 2 {
            return Stored {
                bytes: Bytes::copy_from_slice(frame),
                segment: self.number,
                own: frame.len(),
            };
        }
        self.current.extend_from_slice(frame);
        Stored {
            bytes: self.current.split().freeze(),
            segment: self.number,
            own: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_reused_once_its_last_slice_is_gone() {
        let mut segments = Segments::new(1024);
        assert!(segments.must_rotate(100));
        assert!(segments.rotate(true));
        let held: Vec<Bytes> = (0..10u8).map(|i| segments.store(&[i; 100]).bytes).collect();
        assert!(segments.must_rotate(100));
        assert!(!segments.rotate(false), "slices are still held");
        assert!(segments.rotate(true));
        assert_eq!(segments.allocated(), 2048);
        let before = held[0].as_ptr();
        assert!(
            held.iter()
                .enumerate()
                .all(|(i, b)| b.as_ref() == [i as u8; 100])
        );
        drop(held);
        assert!(segments.rotate(false), "the first segment is free now");
        assert_eq!(segments.allocated(), 2048);
        assert_eq!(
            segments.store(b"x").bytes.as_ptr(),
            before,
            "the very same memory"
        );
    }

    #[test]
    fn big_frames_stand_alone_and_surplus_is_given_back() {
        let mut segments = Segments::new(1024);
        assert!(!segments.must_rotate(513));
        let big = segments.store(&[7; 4096]);
        assert_eq!(big.own, 4096);
        for _ in 0..4 {
            assert!(segments.rotate(true));
        }
        // nothing was stored in them, so rotate reuses instead of allocating
        assert!(segments.allocated() <= 2048);
        segments.release(1024);
        assert_eq!(segments.allocated(), 1024);
    }
}
