//! Whose events a jump left out, where they are on the disk and not in memory.
//!
//! A destination that jumps ahead may leave out events that only a file still has. Which sources they are of is read from
//! there after the jump and outside the log's lock; until then the loss is not told.

use std::ops::Range;

use crate::event::Event;

use super::core::Core;
use super::format::{Found, Records};
use super::place::{Place, Point};
use super::segment::{BLOCK, Load};
use super::sources::Sources;
use super::state::State;

/// Bytes that are read for names at one time. A jump is about as long as what made it necessary; what is beyond this is lost
/// without a name.
const MOST: u64 = 16 << 20;

/// A loss of which it has to be read whose it was.
#[derive(Debug)]
pub(super) struct Unnamed {
    /// Whose loss: the index of a destination.
    index: usize,
    /// Where it begins.
    load: Load,
    /// The number behind it.
    behind: u64,
}

impl State {
    /// Notes what lies on the disk of these events, which a destination is about to jump over.
    pub(super) fn leave_unnamed(&mut self, index: usize, from: Point, behind: u64) {
        // From here on they are in memory, and were counted there.
        let behind = self
            .recent
            .front()
            .map_or(behind, |(first, _)| first.seq.min(behind));
        let held = self.segments.partition_point(|s| s.end.seq <= from.seq);
        for at in held..self.segments.len() {
            let segment = &self.segments[at];
            if segment.first.seq >= behind {
                break;
            }
            let first = if segment.first.seq > from.seq {
                segment.first
            } else {
                from
            };
            // What is in memory was counted there.
            if let Some(load) = self.load(at, first) {
                self.places[index].unnamed += 1;
                self.unnamed.push(Unnamed {
                    index,
                    behind: behind.min(load.end_seq),
                    load,
                });
            }
        }
    }
}

impl Place {
    /// Adds whose the events between were, which it has lost.
    fn name(&mut self, seqs: &Range<u64>, sources: Sources) {
        self.unnamed -= 1;
        let mut skips = self.skips.iter_mut();
        // Not there any more only where another user of the cursor was told in between.
        if let Some(skip) =
            skips.find(|skip| skip.from.seq <= seqs.start && seqs.end <= skip.to.seq)
        {
            skip.sources.merge(sources);
        }
    }
}

impl Core {
    /// Reads whose these losses were. Takes as long as the disk does.
    pub(super) fn name(&self, unnamed: Vec<Unnamed>) {
        let mut left = MOST;
        for Unnamed {
            index,
            load,
            behind,
        } in unnamed
        {
            let sources = load.sources(behind, &mut left);
            let mut state = self.state.lock();
            state.places[index].name(&(load.seq..behind), sources);
            state.changed = true;
        }
    }
}

impl Load {
    /// The sources of the events before `behind`, as far as they can be read, in at most `left` bytes.
    fn sources(&self, behind: u64, left: &mut u64) -> Sources {
        let mut sources = Sources::default();
        let (mut offset, mut seq, mut want) = (self.offset, self.seq, BLOCK);
        while offset < self.end_offset && seq < behind && *left > 0 {
            let rest = usize::try_from(self.end_offset - offset).unwrap_or(usize::MAX);
            let Some(bytes) = self.peek(offset, want.min(rest)) else {
                break;
            };
            *left = left.saturating_sub(bytes.len() as u64);
            let mut records = Records::new(self.file.seed, &bytes, seq, self.end_seq);
            let stopped = loop {
                match records.here() {
                    Ok(Found::Event { seq, .. }) if seq >= behind => return sources,
                    Ok(Found::Event {
                        body,
                        seq,
                        received,
                    }) => {
                        sources.add(&[Event::new(seq, received, bytes.slice(body))]);
                    }
                    Ok(_) => {}
                    Err(needed) => break needed,
                }
            };
            if records.offset() > 0 {
                (seq, want) = (records.seq(), BLOCK);
                offset += records.offset() as u64;
            } else if stopped > want && want < rest {
                want = stopped;
            } else {
                // Damaged: nobody knows whose that was.
                break;
            }
        }
        sources
    }
}
