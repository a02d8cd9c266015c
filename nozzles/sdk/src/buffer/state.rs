//! The log as it stands in memory: what is held, who needs what of it, and who has room for more.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::config::Full;
use crate::event::Event;

use super::format::HEADER;
use super::naming::Unnamed;
use super::place::{Place, Point};
use super::segment::SegmentFile;
use super::sources::Sources;

/// A run of events in one piece: a frame in memory, a file on disk. Space is given back by whole segments.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) first: Point,
    pub(super) end: Point,
    pub(super) data: Data,
    /// Something in it is not what was written.
    pub(super) damaged: bool,
}

/// Where a segment's events are.
#[derive(Debug)]
pub(super) enum Data {
    /// Here.
    Memory(Arc<Vec<Event>>),
    /// In a file, from [`SEGMENT_HEADER`](super::format::SEGMENT_HEADER) on.
    File(Arc<SegmentFile>),
}

/// A point from which a jump may go on, and when what follows was received.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub(super) point: Point,
    pub(super) received: i64,
}

/// Numbers whose events are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) from: Point,
    pub(super) to: Point,
}

/// How big things may become.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// All segments together.
    pub(super) max_bytes: u64,
    /// What a destination may hold back beyond its share because segments are given back whole.
    pub(super) slack: u64,
    /// What a segment takes beside its records.
    pub(super) segment_header: u64,
    /// Newest events kept in memory beside the files.
    pub(super) recent_bytes: u64,
    /// Bytes between two marks.
    pub(super) mark_bytes: u64,
}

/// The log.
#[derive(Debug)]
pub(super) struct State {
    pub(super) bounds: Bounds,
    /// Behind the newest event.
    pub(super) end: Point,
    /// In order. Between them may be numbers that nobody needs, or that are lost.
    pub(super) segments: VecDeque<Segment>,
    /// Bytes of all segments.
    pub(super) bytes: u64,
    /// The newest events of a buffer on disk.
    pub(super) recent: VecDeque<(Point, Arc<Vec<Event>>)>,
    pub(super) recent_bytes: u64,
    pub(super) marks: VecDeque<Mark>,
    /// In order.
    pub(super) damage: Vec<Damage>,
    pub(super) places: Vec<Place>,
    /// Losses of the last commit of which it has to be read whose they were.
    pub(super) unnamed: Vec<Unnamed>,
    /// Nothing more will come.
    pub(super) closed: bool,
    /// A place has changed since it was written down.
    pub(super) changed: bool,
    pub(super) counts: Counts,
}

/// What happened since the buffer was opened.
#[derive(Debug, Default)]
pub(super) struct Counts {
    refused: BTreeMap<&'static str, u64>,
    pub(super) damaged: u64,
    pub(super) syncs: u64,
    pub(super) sync_time: Duration,
    pub(super) sync_errors: u64,
    /// The last sync failed.
    pub(super) sync_failing: bool,
    pub(super) loads: u64,
    pub(super) read_errors: u64,
}

impl Counts {
    pub(super) fn refuse(&mut self, why: &'static str, n: u64) {
        *self.refused.entry(why).or_default() += n;
    }

    pub(super) fn refused(&self) -> Vec<(&'static str, u64)> {
        self.refused.iter().map(|(why, n)| (*why, *n)).collect()
    }
}

/// How many of a frame's events each destination has room for: always its first ones.
#[derive(Debug)]
pub(super) struct Plan {
    takes: Vec<usize>,
    /// How many there are.
    all: usize,
    /// How many at least one takes: these are stored.
    pub(super) stored: usize,
}

impl State {
    /// An empty log.
    pub(super) fn new(bounds: Bounds, places: Vec<Place>) -> State {
        State {
            bounds,
            end: Point::default(),
            segments: VecDeque::new(),
            bytes: 0,
            recent: VecDeque::new(),
            recent_bytes: 0,
            marks: VecDeque::new(),
            damage: Vec::new(),
            places,
            unnamed: Vec::new(),
            closed: false,
            changed: true,
            counts: Counts::default(),
        }
    }

    /// What becomes of these events. They are not in the log yet.
    pub(super) fn plan(&mut self, events: &[Event]) -> Plan {
        let all: u64 = events.iter().map(weight).sum();
        let mut takes = Vec::with_capacity(self.places.len());
        for index in 0..self.places.len() {
            self.relieve(index);
            let place = &self.places[index];
            let used = match place.full {
                Full::DropNewest => self.fill(place, self.end),
                // What was handed out is on its way, everything else can make room.
                Full::DropOldest => self.fill(place, place.read),
            };
            let mut room = place.share.saturating_sub(used);
            takes.push(if place.is_full && place.full == Full::DropNewest {
                0
            } else if all <= room {
                events.len()
            } else {
                let fits = events.iter().take_while(|event| {
                    let weight = weight(event);
                    let fits = weight <= room;
                    room = room.saturating_sub(weight);
                    fits
                });
                fits.count()
            });
        }
        let stored = takes.iter().copied().max().unwrap_or(0);
        Plan {
            takes,
            all: events.len(),
            stored,
        }
    }

    /// Puts planned events behind the log's end, where they have their numbers already. `file`: where they were written, and
    /// with how many bytes.
    pub(super) fn commit(
        &mut self,
        plan: &Plan,
        mut events: Vec<Event>,
        file: Option<(&Arc<SegmentFile>, u64)>,
    ) {
        let from = self.end;
        let stored: u64 = events[..plan.stored].iter().map(weight).sum();
        let end = Point {
            seq: from.seq + events.len() as u64,
            pos: from.pos + file.map_or(stored, |(_, bytes)| bytes),
        };
        self.end = end;
        let received = events.first().map_or(0, |event| event.received);
        self.mark(from, received);
        for (place, take) in self.places.iter_mut().zip(&plan.takes) {
            if *take < events.len() {
                let taken: u64 = events[..*take].iter().map(weight).sum();
                let skipped = Point {
                    seq: from.seq + *take as u64,
                    pos: from.pos + taken,
                };
                place.skip_newest(skipped, end, &events[*take..]);
                self.changed = true;
            }
        }
        let all_stored = plan.stored == plan.all;
        events.truncate(plan.stored);
        match file {
            Some((file, bytes)) => {
                if !all_stored {
                    // The rest of the frame must not stay in memory with them.
                    compact(&mut events);
                }
                self.extend(file, from, end, bytes);
                self.remember(from, Arc::new(events), stored);
            }
            None => self.hold(plan, from, events),
        }
        for index in 0..self.places.len() {
            if self.places[index].full == Full::DropOldest {
                self.jump(index);
            }
        }
    }

    /// Keeps events in memory: in one piece, or in several where one destination takes fewer than another, so that
    /// nobody holds back more than it has taken.
    fn hold(&mut self, plan: &Plan, from: Point, mut events: Vec<Event>) {
        let mut takes: Vec<usize> = plan.takes.iter().copied().filter(|n| *n > 0).collect();
        takes.sort_unstable();
        takes.dedup();
        let (mut first, mut done) = (from, 0);
        for behind in &takes {
            let rest = events.split_off(behind - done);
            if takes.len() > 1 || *behind < plan.all {
                compact(&mut events);
            }
            let bytes: u64 = events.iter().map(weight).sum();
            let end = Point {
                seq: first.seq + events.len() as u64,
                pos: first.pos + bytes,
            };
            self.bytes += bytes;
            self.segments.push_back(Segment {
                first,
                end,
                data: Data::Memory(Arc::new(events)),
                damaged: false,
            });
            (first, done, events) = (end, *behind, rest);
        }
    }

    fn extend(&mut self, file: &Arc<SegmentFile>, from: Point, end: Point, bytes: u64) {
        self.bytes += bytes;
        match self
            .segments
            .back_mut()
            .map(|last| (&last.data, &mut last.end))
        {
            Some((Data::File(last), last_end)) if Arc::ptr_eq(last, file) => *last_end = end,
            _ => {
                self.bytes += super::format::SEGMENT_HEADER as u64;
                self.segments.push_back(Segment {
                    first: from,
                    end,
                    data: Data::File(Arc::clone(file)),
                    damaged: false,
                });
            }
        }
    }

    fn remember(&mut self, from: Point, events: Arc<Vec<Event>>, bytes: u64) {
        if !events.is_empty() {
            self.recent.push_back((from, events));
            self.recent_bytes += bytes;
        }
        while self.recent_bytes > self.bounds.recent_bytes {
            self.forget();
        }
    }

    fn forget(&mut self) {
        match self.recent.pop_front() {
            Some((_, events)) => {
                self.recent_bytes -= events.iter().map(weight).sum::<u64>();
            }
            None => self.recent_bytes = 0,
        }
    }

    /// Forgets the newest events that everybody has got.
    pub(super) fn forget_read(&mut self) {
        let read = self.places.iter().map(|place| place.read.seq).min();
        while let (Some(read), Some((from, events))) = (read, self.recent.front())
            && from.seq + events.len() as u64 <= read
        {
            self.forget();
        }
    }

    pub(super) fn mark(&mut self, point: Point, received: i64) {
        let last = self.marks.back().map(|mark| mark.point.pos);
        if last.is_none_or(|last| point.pos >= last + self.bounds.mark_bytes) {
            self.marks.push_back(Mark { point, received });
        }
    }

    /// Bytes that a destination holds back of those before `end`: those that wait for it, or those of all segments that
    /// they lie in less the slack, whichever is more.
    pub(super) fn fill(&self, place: &Place, end: Point) -> u64 {
        let (mut waiting, mut held, mut counted, mut headers) = (0, 0, 0, 0);
        for (from, to) in place.runs(end) {
            waiting += to.pos.saturating_sub(from.pos);
            let first = self.segments.partition_point(|s| s.end.seq <= from.seq);
            let behind = self.segments.partition_point(|s| s.first.seq < to.seq);
            if first < behind {
                let start = self.segments[first].first.pos.max(counted);
                counted = self.segments[behind - 1].end.pos.max(start);
                held += counted - start;
                held += self.bounds.segment_header * (behind - first.max(headers)) as u64;
                headers = behind;
            }
        }
        waiting.max(held.saturating_sub(self.bounds.slack))
    }

    /// Takes new events in again for a destination that has got rid of enough: a quarter of its share.
    pub(super) fn relieve(&mut self, index: usize) -> bool {
        let place = &self.places[index];
        if place.is_full && self.fill(place, self.end) <= place.share / 4 * 3 {
            self.places[index].is_full = false;
            return true;
        }
        false
    }

    /// Makes a destination that wants to be close to the present skip its oldest events until the rest fits.
    fn jump(&mut self, index: usize) {
        let place = &self.places[index];
        let mut over = self.fill(place, self.end).saturating_sub(place.share);
        let mut to = place.read;
        while over > 0 && to.seq < self.end.seq {
            let behind = to.pos + over;
            let next = self.marks.partition_point(|mark| mark.point.pos < behind);
            let next = self.marks.get(next).map_or(self.end, |mark| mark.point);
            to = if next.seq > to.seq { next } else { self.end };
            let mut sources = Sources::default();
            let place = &self.places[index];
            let runs: Vec<_> = place.runs(to).collect();
            let read = place.read;
            for (from, behind) in runs {
                let from = if from.seq > read.seq { from } else { read };
                self.count_sources(from.seq..behind.seq, &mut sources);
                self.leave_unnamed(index, from, behind.seq);
            }
            self.places[index].skip_oldest(to, sources);
            self.changed = true;
            let place = &self.places[index];
            over = self.fill(place, self.end).saturating_sub(place.share);
        }
    }

    /// Counts events that are in memory.
    fn count_sources(&self, seqs: Range<u64>, sources: &mut Sources) {
        let mut add = |first: u64, events: &[Event]| {
            let cut = |seq: u64| {
                let at = usize::try_from(seq.saturating_sub(first)).unwrap_or(usize::MAX);
                at.min(events.len())
            };
            if seqs.start < seqs.end {
                sources.add(&events[cut(seqs.start)..cut(seqs.end)]);
            }
        };
        let held = self.segments.partition_point(|s| s.end.seq <= seqs.start);
        for segment in self.segments.range(held..) {
            if segment.first.seq >= seqs.end {
                break;
            }
            if let Data::Memory(events) = &segment.data {
                add(segment.first.seq, events);
            }
        }
        for (from, events) in &self.recent {
            add(from.seq, events);
        }
    }

    /// Takes out the segments of a buffer in memory that nobody needs: the first ones, or all of them.
    pub(super) fn release_memory(&mut self, all: bool) {
        let needed = |places: &[Place], segment: &Segment| {
            let seqs = segment.first.seq..segment.end.seq;
            places.iter().any(|place| place.needs(&seqs))
        };
        while let Some(front) = self.segments.front()
            && !needed(&self.places, front)
        {
            self.bytes -= front.end.pos - front.first.pos;
            self.segments.pop_front();
        }
        if all {
            let places = &self.places;
            self.segments.retain(|segment| needed(places, segment));
            let sizes = self.segments.iter().map(|s| s.end.pos - s.first.pos);
            self.bytes = sizes.sum();
        }
        self.trim_lists();
    }

    /// Drops marks and damage that lie before everything that is held.
    pub(super) fn trim_lists(&mut self) {
        let first = self.segments.front().map_or(self.end, |s| s.first);
        while self
            .marks
            .get(1)
            .is_some_and(|mark| mark.point.seq <= first.seq)
        {
            self.marks.pop_front();
        }
        self.damage.retain(|damage| damage.to.seq > first.seq);
    }

    /// When the oldest event was received that a destination has not settled, to the nearest mark before it.
    pub(super) fn oldest(&self, place: &Place) -> Option<i64> {
        let (from, _) = place.runs(self.end).next()?;
        let behind = self
            .marks
            .partition_point(|mark| mark.point.seq <= from.seq);
        let mark = self.marks.get(behind.saturating_sub(1))?;
        Some(mark.received)
    }
}

/// Bytes that an event counts, in memory and on disk.
pub(super) fn weight(event: &Event) -> u64 {
    (HEADER + event.body().len()) as u64
}

/// Copies the bodies into one piece of memory of their own.
fn compact(events: &mut [Event]) {
    let mut all = Vec::with_capacity(events.iter().map(|event| event.body().len()).sum());
    for event in &*events {
        all.extend_from_slice(event.body());
    }
    let all = Bytes::from(all);
    let mut at = 0;
    for event in events {
        let end = at + event.body().len();
        *event = Event::new(event.seq, event.received, all.slice(at..end));
        at = end;
    }
}
