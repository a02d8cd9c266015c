//! From pieces of the log to the bytes of one message.

use bytes::{Bytes, BytesMut};
use loggregator_envelope::{Entry, KindSet};
use loggregator_log::{Piece, ShedPlan, Tally};
use smallvec::SmallVec;

use super::member::{Member, Ref};
use super::selector::Api;

/// Runs below this many bytes are copied together; longer ones are shared slices of the log. A short run costs more as
/// a slice of its own (reference counts, gather lists) than as a copy.
const COPY_BELOW: usize = 1024;

/// A reader that is behind: what it leaves out, and where that is counted.
pub(crate) struct Shedding<'a> {
    pub(crate) plan: &'a mut ShedPlan,
    pub(crate) tally: &'a mut Tally,
}

/// Bytes of one message in the making.
#[derive(Default)]
pub(crate) struct Gathered {
    pub(crate) chunks: SmallVec<[Bytes; 8]>,
    small: BytesMut,
    pub(crate) bytes: usize,
    /// Envelopes in it, as received.
    pub(crate) envelopes: u64,
    /// Envelopes in it, as sent: a gauge may be several in dropsonde form.
    pub(crate) sent: u64,
    /// Where they lie, to give them back if they are not delivered.
    pub(crate) refs: SmallVec<[Ref; 8]>,
    /// Matched envelopes: all of the above, and what was lost on the way.
    pub(crate) matched: u64,
    /// Envelopes that have no dropsonde form.
    pub(crate) formless: u64,
}

// === impl Gathered ===

impl Gathered {
    /// Adds what `member` wants of a piece. `kinds` filters pieces that were read directly.
    pub(crate) fn add(
        &mut self,
        member: &Member,
        piece: &Piece,
        kinds: KindSet,
        shed: Option<Shedding<'_>>,
    ) {
        let shed = shed.filter(|shed| !shed.plan.is_over(piece.slot.ordinal()));
        match member.api {
            Api::V2 => self.add_v2(piece, kinds, shed),
            Api::V1 => self.add_v1(member, piece, kinds, shed),
        }
    }

    /// Everything, in order.
    pub(crate) fn finish(mut self) -> Self {
        self.flush();
        self
    }

    fn add_v2(&mut self, piece: &Piece, kinds: KindSet, mut shed: Option<Shedding<'_>>) {
        let frame = piece.slot.frame();
        let (start, end) = (piece.range.start as usize, piece.range.end as usize);
        if shed.is_none() && kinds.is_superset(frame.index().kinds()) {
            let whole = start == 0 && end == frame.len();
            self.push(piece, start, end, || {
                if whole {
                    frame.bytes().clone()
                } else {
                    frame.run(start..end)
                }
            });
            self.matched += (end - start) as u64;
            return;
        }
        let mut run = start;
        for (i, entry) in frame.entries().iter().enumerate().take(end).skip(start) {
            if self.keeps(piece, entry, kinds, shed.as_mut()) {
                continue;
            }
            self.push(piece, run, i, || frame.run(run..i));
            run = i + 1;
        }
        self.push(piece, run, end, || frame.run(run..end));
    }

    fn add_v1(
        &mut self,
        member: &Member,
        piece: &Piece,
        kinds: KindSet,
        mut shed: Option<Shedding<'_>>,
    ) {
        let frame = piece.slot.frame();
        let v1 = piece.slot.v1();
        let forms = v1.entries();
        let mut at = forms.partition_point(|form| form.envelope < piece.range.start);
        // A run is a stretch of dropsonde forms that are all wanted.
        let mut run = at;
        for i in piece.range.clone() {
            let Some(entry) = frame.entries().get(i as usize) else {
                break;
            };
            let first = at;
            while forms.get(at).is_some_and(|form| form.envelope == i) {
                at += 1;
            }
            let wanted = if kinds.contains(entry.kind()) {
                if first == at {
                    self.matched += 1;
                    self.formless += 1;
                    false
                } else {
                    (first..at).all(|form| wants_v1(member, v1, form))
                        && self.keeps(piece, entry, kinds, shed.as_mut())
                }
            } else {
                false
            };
            if wanted {
                self.envelopes += 1;
                self.sent += (at - first) as u64;
                self.note_ref(piece.slot.ordinal(), i, i + 1);
            } else {
                self.push_chunk(run, first, || v1.run(run..first));
                run = at;
            }
        }
        self.push_chunk(run, at, || v1.run(run..at));
    }

    /// Counts an entry as matched, unless it is of another kind; false if it is to be left out.
    fn keeps(
        &mut self,
        piece: &Piece,
        entry: &Entry,
        kinds: KindSet,
        shed: Option<&mut Shedding<'_>>,
    ) -> bool {
        if !kinds.contains(entry.kind()) {
            return false;
        }
        self.matched += 1;
        if let Some(shed) = shed
            && shed.plan.skips(entry)
        {
            shed.tally.add(&piece.slot, entry);
            return false;
        }
        true
    }

    fn push(&mut self, piece: &Piece, start: usize, end: usize, bytes: impl FnOnce() -> Bytes) {
        if start >= end {
            return;
        }
        self.envelopes += (end - start) as u64;
        self.sent += (end - start) as u64;
        self.note_ref(piece.slot.ordinal(), start as u32, end as u32);
        self.push_chunk(start, end, bytes);
    }

    fn push_chunk(&mut self, start: usize, end: usize, bytes: impl FnOnce() -> Bytes) {
        if start >= end {
            return;
        }
        let chunk = bytes();
        self.bytes += chunk.len();
        if chunk.len() < COPY_BELOW {
            self.small.extend_from_slice(&chunk);
        } else {
            self.flush();
            self.chunks.push(chunk);
        }
    }

    fn note_ref(&mut self, ordinal: u64, start: u32, end: u32) {
        match self.refs.last_mut() {
            Some(last) if last.ordinal == ordinal && last.end == start => last.end = end,
            _ => self.refs.push(Ref {
                ordinal,
                start,
                end,
            }),
        }
    }

    fn flush(&mut self) {
        if !self.small.is_empty() {
            self.chunks.push(self.small.split().freeze());
        }
    }
}

fn wants_v1(member: &Member, v1: &loggregator_envelope::V1Frame, form: usize) -> bool {
    if member.v1.logs.is_some_and(|logs| logs != v1.is_log(form)) {
        return false;
    }
    let app = &*member.v1.app_id;
    app.is_empty() || v1.app_id(form).is_some_and(|id| &*id == app)
}
