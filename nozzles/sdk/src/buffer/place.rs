//! Where one destination stands: what it has settled, what it was handed, and what it will not get.

use std::collections::VecDeque;
use std::ops::Range;

use crate::account::Account;
use crate::config::Full;
use crate::event::Event;

use super::sources::Sources;

/// A place in the log: before the event of this number. Positions count the bytes of records since the buffer was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) seq: u64,
    pub(super) pos: u64,
}

/// Events that a destination does not get because its share was full.
#[derive(Debug, Clone)]
pub(super) struct Skip {
    pub(super) from: Point,
    pub(super) to: Point,
    pub(super) sources: Sources,
}

/// One destination's place.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) name: String,
    /// Bytes that may wait for it.
    pub(super) share: u64,
    pub(super) full: Full,
    /// The first event that its account covers.
    pub(super) birth: u64,
    /// Of the events from `birth` up to `at`.
    pub(super) account: Account,
    /// Everything before is settled.
    pub(super) at: Point,
    /// Everything before was handed out.
    pub(super) read: Point,
    /// The points behind each thing that was handed out and is not settled.
    pub(super) flight: VecDeque<Point>,
    /// In order, not overlapping; none ends at or before `at`.
    pub(super) skips: VecDeque<Skip>,
    /// Its share is full: the last skip, if there is one up to the log's end, is still growing.
    pub(super) is_full: bool,
    /// Parts of its first loss that is not told of which it is still read whose they were.
    pub(super) unnamed: usize,
}

impl Place {
    /// A destination that has settled everything before `at`.
    pub(super) fn new(name: String, share: u64, full: Full, birth: u64, at: Point) -> Place {
        Place {
            name,
            share,
            full,
            birth,
            account: Account::default(),
            at,
            read: at,
            flight: VecDeque::new(),
            skips: VecDeque::new(),
            is_full: false,
            unnamed: 0,
        }
    }

    /// The stretches up to `end` that it needs and has not settled.
    pub(super) fn runs(&self, end: Point) -> impl Iterator<Item = (Point, Point)> + '_ {
        let mut from = self.at;
        let mut skips = self.skips.iter();
        let mut done = false;
        std::iter::from_fn(move || {
            while !done {
                let Some(skip) = skips.next().filter(|skip| skip.from.seq < end.seq) else {
                    done = true;
                    return (from.seq < end.seq).then_some((from, end));
                };
                let run = (from, skip.from);
                if skip.to.seq > from.seq {
                    from = skip.to;
                }
                if run.0.seq < run.1.seq {
                    return Some(run);
                }
            }
            None
        })
    }

    /// Bytes and events that wait for it.
    pub(super) fn waiting(&self, end: Point) -> (u64, u64) {
        self.runs(end).fold((0, 0), |(bytes, events), (from, to)| {
            (
                bytes + to.pos.saturating_sub(from.pos),
                events + (to.seq - from.seq),
            )
        })
    }

    /// Events that it lost to a full share and was not told of yet.
    pub(super) fn untold(&self) -> u64 {
        let skips = self.skips.iter();
        skips
            .map(|skip| skip.to.seq.saturating_sub(skip.from.seq.max(self.read.seq)))
            .sum()
    }

    /// The loudest sources of these.
    pub(super) fn untold_sources(&self) -> Vec<(String, u64)> {
        let untold = self.skips.iter();
        let mut untold = untold.filter(|skip| skip.to.seq > self.read.seq);
        let Some(first) = untold.next() else {
            return Vec::new();
        };
        let mut sources = first.sources.clone();
        untold.for_each(|skip| sources.merge(skip.sources.clone()));
        sources.top()
    }

    /// Everything before `next` is settled.
    pub(super) fn settle(&mut self, next: u64, account: &Account) {
        debug_assert_eq!(
            next,
            self.birth + account.total(),
            "{}: the account covers what lies between birth and cursor",
            self.name
        );
        let next = next.min(self.read.seq);
        if next < self.at.seq {
            return;
        }
        while let Some(point) = self.flight.front().filter(|point| point.seq <= next) {
            self.at = *point;
            self.flight.pop_front();
        }
        self.at.seq = next;
        self.account.clone_from(account);
        while self.skips.front().is_some_and(|skip| skip.to.seq <= next) {
            self.skips.pop_front();
        }
    }

    /// The events between do not come any more: there was no room for them.
    pub(super) fn skip_newest(&mut self, from: Point, to: Point, events: &[Event]) {
        match self.skips.back_mut() {
            Some(last) if last.to.seq == from.seq && self.read.seq < last.to.seq => {
                last.to = to;
                last.sources.add(events);
            }
            _ => {
                let mut sources = Sources::default();
                sources.add(events);
                self.skips.push_back(Skip { from, to, sources });
            }
        }
        self.is_full = true;
    }

    /// What was not handed out and lies before `to` does not come any more: newer events need its room.
    pub(super) fn skip_oldest(&mut self, to: Point, mut sources: Sources) {
        let told = self
            .skips
            .iter()
            .filter(|skip| skip.to.seq <= self.read.seq);
        let at = told.count();
        let mut end = to;
        while let Some(next) = self.skips.get(at).filter(|skip| skip.from.seq <= end.seq) {
            if next.to.seq > end.seq {
                end = next.to;
            }
            if let Some(next) = self.skips.remove(at) {
                sources.merge(next.sources);
            }
        }
        if end.seq > self.read.seq {
            let from = self.read;
            self.skips.insert(
                at,
                Skip {
                    from,
                    to: end,
                    sources,
                },
            );
        }
    }

    /// What stands in its cursor file.
    pub(super) fn needed(&self) -> Needed {
        Needed {
            at: self.at.seq,
            skips: self
                .skips
                .iter()
                .map(|skip| skip.from.seq..skip.to.seq)
                .collect(),
        }
    }

    /// Whether it needs any event of these numbers.
    pub(super) fn needs(&self, seqs: &Range<u64>) -> bool {
        let skips = self.skips.iter().map(|skip| skip.from.seq..skip.to.seq);
        needs(self.at.seq, skips, seqs)
    }
}

/// What a destination needed when it was last written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Needed {
    pub(super) at: u64,
    pub(super) skips: Vec<Range<u64>>,
}

impl Needed {
    /// Whether it needed any event of these numbers.
    pub(super) fn needs(&self, seqs: &Range<u64>) -> bool {
        needs(self.at, self.skips.iter().cloned(), seqs)
    }
}

fn needs(at: u64, skips: impl Iterator<Item = Range<u64>>, seqs: &Range<u64>) -> bool {
    let mut from = seqs.start.max(at);
    for skip in skips {
        if skip.start > from {
            break;
        }
        from = from.max(skip.end);
    }
    from < seqs.end
}
