//! What a cursor gets next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::event::Event;

use super::place::Point;
use super::segment::{self, Load, Loaded};
use super::state::{Damage, Data, State, weight};
use super::{Lost, Read};

/// Losses to a full share.
pub(crate) const BACKLOG_FULL: &str = "backlog_full";
/// Losses to a disk that does not give back what was written.
const DAMAGED: &str = "damaged";

/// What a cursor is to do.
#[derive(Debug)]
pub(super) enum Step {
    /// Hand this out.
    Ready(Read),
    /// Do this and come again with what it found.
    Load(Load),
    /// Wait for something to arrive.
    Wait,
    /// There will be nothing more.
    End,
}

/// Events that a cursor has read from the disk.
pub(super) type Block = std::vec::IntoIter<Event>;

/// What may still be read.
struct Room {
    events: usize,
    bytes: usize,
    is_first: bool,
}

impl Room {
    fn takes(&mut self, event: &Event) -> bool {
        let bytes = event.body().len();
        if self.events == 0 || (bytes > self.bytes && !self.is_first) {
            // Nothing that comes later either.
            self.events = 0;
            return false;
        }
        self.events -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        self.is_first = false;
        true
    }
}

/// What lies at the place of a reader.
enum Here {
    /// The reader has everything.
    End,
    /// Events, up to this number at most, in this segment.
    Events { segment: usize, limit: u64 },
}

impl State {
    /// The next events of a destination, at most so many, and so many bytes of them, at least one.
    pub(super) fn step(
        &mut self,
        index: usize,
        max_events: usize,
        max_bytes: usize,
        block: &mut Option<Block>,
    ) -> Step {
        self.relieve(index);
        let mut read = Read::default();
        let mut room = Room {
            events: max_events,
            bytes: max_bytes,
            is_first: true,
        };
        while let Here::Events { segment, limit } = self.tell_losses(index, &mut read) {
            let from = self.places[index].read;
            let before = read.events.len();
            if let Some((events, at)) = self.held(segment, from.seq) {
                let events = events[at..].iter();
                for event in events.take_while(|event| event.seq < limit && room.takes(event)) {
                    self.places[index].hand_out(event);
                    read.events.push(event.clone());
                }
            } else if let Some(block) = block
                && skip_to(block, from.seq)
            {
                while let Some(event) = block.as_slice().first()
                    && event.seq < limit
                    && room.takes(event)
                {
                    self.places[index].hand_out(event);
                    read.events.extend(block.next());
                }
            } else if read.events.is_empty() && read.lost.is_empty() {
                match self.load(segment, from) {
                    Some(load) => return Step::Load(load),
                    None => break,
                }
            }
            if read.events.len() == before {
                break;
            }
        }
        if read.events.is_empty() && read.lost.is_empty() {
            let place = &self.places[index];
            if self.closed && place.read.seq == self.end.seq {
                return Step::End;
            }
            return Step::Wait;
        }
        self.forget_read();
        Step::Ready(read)
    }

    /// Moves a reader past what it will not get.
    fn tell_losses(&mut self, index: usize, read: &mut Read) -> Here {
        loop {
            let (end, closed) = (self.end, self.closed);
            let place = &self.places[index];
            let at = place.read;
            let skip = place.skips.iter().find(|skip| skip.to.seq > at.seq);
            let limit = match skip {
                Some(skip) if skip.from.seq <= at.seq => {
                    if place.is_full && !closed && skip.to.seq == end.seq {
                        // Still growing: it is told when it is over.
                        return Here::End;
                    }
                    if place.unnamed > 0 {
                        return Here::End;
                    }
                    let (to, sources) = (skip.to, skip.sources.top());
                    self.lose(index, to, BACKLOG_FULL, sources, read);
                    continue;
                }
                Some(skip) => skip.from,
                None => end,
            };
            if at.seq >= end.seq {
                return Here::End;
            }
            let damage = self.damage.iter().find(|damage| damage.to.seq > at.seq);
            let damage = damage.copied();
            if let Some(damage) = damage.filter(|damage| damage.from.seq <= at.seq) {
                let to = earlier(damage.to, limit);
                self.lose(index, to, DAMAGED, Vec::new(), read);
                continue;
            }
            let segment = self.segments.partition_point(|s| s.end.seq <= at.seq);
            let found = self.segments.get(segment);
            let Some(found) = found.filter(|segment| segment.first.seq <= at.seq) else {
                // Nothing holds it though it was promised.
                let to = earlier(found.map_or(end, |segment| segment.first), limit);
                self.lose(index, to, DAMAGED, Vec::new(), read);
                continue;
            };
            let limit = limit.seq.min(found.end.seq);
            let limit = damage.map_or(limit, |damage| limit.min(damage.from.seq));
            return Here::Events { segment, limit };
        }
    }

    fn lose(
        &mut self,
        index: usize,
        to: Point,
        reason: &'static str,
        sources: Vec<(String, u64)>,
        read: &mut Read,
    ) {
        let place = &mut self.places[index];
        let range = place.read.seq..to.seq;
        place.read = to;
        place.flight.push_back(to);
        match read.lost.last_mut() {
            Some(last) if last.reason == reason && last.range.end == range.start => {
                last.range.end = range.end;
                last.sources.extend(sources);
            }
            _ => read.lost.push(Lost {
                range,
                reason,
                sources,
            }),
        }
    }

    /// Events that are in memory, and which of them has this number.
    fn held(&self, segment: usize, seq: u64) -> Option<(Arc<Vec<Event>>, usize)> {
        let (first, events) = match &self.segments[segment].data {
            Data::Memory(events) => (self.segments[segment].first.seq, events),
            Data::File(_) => {
                let at = self
                    .recent
                    .partition_point(|(from, events)| from.seq + events.len() as u64 <= seq);
                let (from, events) = self.recent.get(at)?;
                (from.seq, events)
            }
        };
        let at = usize::try_from(seq.checked_sub(first)?).ok()?;
        Some((Arc::clone(events), at))
    }

    /// What has to be read of a segment in a file, from there on.
    pub(super) fn load(&self, segment: usize, from: Point) -> Option<Load> {
        let segment = &self.segments[segment];
        let Data::File(file) = &segment.data else {
            return None;
        };
        Some(Load {
            file: Arc::clone(file),
            offset: segment::offset(from.pos.saturating_sub(segment.first.pos)),
            seq: from.seq,
            end_offset: segment::offset(segment.end.pos - segment.first.pos),
            end_seq: segment.end.seq,
            errors: AtomicU64::new(0),
        })
    }

    /// Takes in what a read found.
    pub(super) fn loaded(&mut self, load: &Load, index: usize, loaded: Loaded) -> Option<Block> {
        self.counts.loads += 1;
        self.counts.read_errors += load.errors.load(Ordering::Relaxed);
        match loaded {
            Loaded::Events(events) => Some(events.into_iter()),
            Loaded::Damaged { seq, offset } => {
                let mut segments = self.segments.iter_mut();
                let segment = segments.find(|segment| {
                    matches!(&segment.data, Data::File(file) if Arc::ptr_eq(file, &load.file))
                })?;
                segment.damaged = true;
                let pos = |offset: u64| segment.first.pos + offset - segment::offset(0);
                let from = Point {
                    seq: load.seq,
                    pos: pos(load.offset),
                };
                let to = Point {
                    seq,
                    pos: pos(offset),
                };
                if seq > load.seq {
                    self.add_damage(Damage { from, to }, "read");
                } else if self.places[index].read.seq == seq {
                    // Only bytes between two records were damaged.
                    self.places[index].read = to;
                }
                None
            }
        }
    }

    /// Notes that events are gone, unless that is known.
    pub(super) fn add_damage(&mut self, damage: Damage, when: &'static str) {
        let at = self
            .damage
            .partition_point(|known| known.from.seq < damage.from.seq);
        let known = self.damage[..at].last();
        if known.is_some_and(|known| known.to.seq >= damage.to.seq)
            || self.damage.get(at) == Some(&damage)
        {
            return;
        }
        let (first, behind) = (damage.from.seq, damage.to.seq);
        tracing::error!(first, behind, when, "buffer: events are damaged");
        self.counts.damaged += behind - first;
        self.damage.insert(at, damage);
    }
}

impl super::place::Place {
    fn hand_out(&mut self, event: &Event) {
        self.read = Point {
            seq: self.read.seq + 1,
            pos: self.read.pos + weight(event),
        };
        self.flight.push_back(self.read);
    }
}

fn earlier(a: Point, b: Point) -> Point {
    if a.seq < b.seq { a } else { b }
}

/// Moves a block on to the event of this number. `false`: it does not have it.
fn skip_to(block: &mut Block, seq: u64) -> bool {
    while block
        .as_slice()
        .first()
        .is_some_and(|event| event.seq < seq)
    {
        block.next();
    }
    block
        .as_slice()
        .first()
        .is_some_and(|event| event.seq == seq)
}
