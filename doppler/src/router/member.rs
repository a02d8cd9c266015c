//! One subscription's state that others touch: its queue, its counts, its losses.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Instant;

use loggregator_log::{Reader, Slot, Tally, View};
use loggregator_service::ledger;
use parking_lot::Mutex;

use super::selector::{Api, V1Filter, Wanted};

/// Consecutive entries of one frame that a subscription is to get. Does not hold the frame: memory stays the log's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ref {
    pub(crate) ordinal: u64,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Ref {
    pub(crate) const fn len(self) -> u64 {
        (self.end - self.start) as u64
    }
}

/// Why an envelope that a subscription matched was not delivered to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The log had to evict it before the reader came: the reader is slower than the log is long.
    Lapped,
    /// Left out to catch up: its source had more than its fair share of a backlog.
    Shed,
    /// The list of what the subscription was still to get was full.
    QueueFull,
    /// The connection ended before it had taken it, and there was nobody to hand it over to.
    Disconnected,
    /// It has no dropsonde form (a log without payload, a request without id).
    NoV1Form,
    /// It waited for a subscription id that did not come back within the grace period.
    Expired,
}

impl Reason {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 6] = [
        Self::Lapped,
        Self::Shed,
        Self::QueueFull,
        Self::Disconnected,
        Self::NoV1Form,
        Self::Expired,
    ];

    /// The name in the ledger and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lapped => "lapped",
            Self::Shed => "shed",
            Self::QueueFull => "queue_full",
            Self::Disconnected => "disconnected",
            Self::NoV1Form => "no_v1_form",
            Self::Expired => "grace_expired",
        }
    }
}

/// Who subscribes, as its request says it.
#[derive(Clone, Copy)]
pub(crate) struct Who<'a> {
    pub(crate) api: Api,
    pub(crate) shard_id: &'a str,
    /// The deterministic name.
    pub(crate) name: &'a str,
    pub(crate) peer: &'a str,
}

/// A subscription as the router and the other members of its groups see it.
pub(crate) struct Member {
    pub(crate) id: u64,
    pub(crate) shard_id: Box<str>,
    pub(crate) name: Box<str>,
    pub(crate) peer: Box<str>,
    pub(crate) api: Api,
    pub(crate) wanted: Wanted,
    pub(crate) v1: V1Filter,
    pub(crate) counts: Counts,
    pub(crate) losses: Mutex<Losses>,
    pub(crate) queue: Mutex<Queue>,
    pub(crate) open: AtomicBool,
    /// Ordinal of the oldest selected entry, `u64::MAX` when there is none.
    oldest_selected: AtomicU64,
    queue_limit: usize,
}

/// `received = delivered + Σ dropped + pending` at every moment when nobody is between two of these.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) received: AtomicU64,
    pub(crate) delivered: AtomicU64,
    /// Handed to the connection, which has not taken the last byte yet.
    pub(crate) in_flight: AtomicU64,
    dropped: [AtomicU64; Reason::ALL.len()],
}

/// What was lost, by source: since the beginning, and since the reader was last told.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    pub(crate) tally: Tally,
    pub(crate) told_at: Option<Instant>,
}

/// What the subscription is to get, oldest first, besides what it reads from the log itself.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Its share of a group.
    pub(crate) dealt: VecDeque<Ref>,
    /// What its selections matched.
    pub(crate) selected: VecDeque<Ref>,
    pub(crate) waker: Option<Waker>,
    /// Set when the subscription has ended for good: nothing is queued any more.
    pub(crate) sealed: bool,
}

// === impl Member ===

impl Member {
    pub(crate) fn new(
        id: u64,
        who: Who<'_>,
        wanted: Wanted,
        v1: V1Filter,
        queue_limit: usize,
    ) -> Self {
        Self {
            id,
            shard_id: who.shard_id.into(),
            name: who.name.into(),
            peer: who.peer.into(),
            api: who.api,
            wanted,
            v1,
            counts: Counts::default(),
            losses: Mutex::default(),
            queue: Mutex::default(),
            open: AtomicBool::new(true),
            oldest_selected: AtomicU64::new(u64::MAX),
            queue_limit,
        }
    }

    /// Queues one entry that a selection matched. Returns whom to wake.
    pub(crate) fn select(&self, slot: &Slot, entry: u32) -> Option<Waker> {
        let ordinal = slot.ordinal();
        let mut queue = self.queue.lock();
        if queue.sealed {
            return None;
        }
        if let Some(last) = queue.selected.back_mut()
            && last.ordinal == ordinal
            && last.end == entry
        {
            last.end += 1;
            self.counts.received.fetch_add(1, Ordering::Relaxed);
            return queue.waker.take();
        }
        self.counts.received.fetch_add(1, Ordering::Relaxed);
        if queue.selected.len() >= self.queue_limit {
            self.drop_one(slot, entry, Reason::QueueFull);
            return queue.waker.take();
        }
        if queue.selected.is_empty() {
            self.oldest_selected.store(ordinal, Ordering::Release);
        }
        queue.selected.push_back(Ref {
            ordinal,
            start: entry,
            end: entry + 1,
        });
        queue.waker.take()
    }

    /// To be called with the queue locked, after selected entries were taken or put back.
    pub(crate) fn note_oldest(&self, queue: &Queue) {
        let oldest = queue.selected.front().map_or(u64::MAX, |r| r.ordinal);
        self.oldest_selected.store(oldest, Ordering::Release);
    }

    /// Counts a loss, with its sources.
    pub(crate) fn lost(&self, tally: &Tally, reason: Reason) {
        if !tally.is_empty() {
            self.lose(reason, |all| all.merge(tally));
        }
    }

    /// Counts whatever `count` adds to the subscription's tally as lost, and returns how much that was.
    pub(crate) fn lose(&self, reason: Reason, count: impl FnOnce(&mut Tally)) -> u64 {
        let lost = {
            let tally = &mut self.losses.lock().tally;
            let before = tally.total();
            count(tally);
            tally.total() - before
        };
        self.counts.drop(reason, lost);
        lost
    }

    /// Counts entries that are gone without a trace of their source (evicted between two looks).
    pub(crate) fn lost_unseen(&self, count: u64, reason: Reason) {
        if count == 0 {
            return;
        }
        self.lose(reason, |tally| tally.add_unnamed(count));
    }

    /// The subscription's row of the ledger.
    pub(crate) fn row(&self) -> ledger::Subscription {
        let (dealt, selected) = {
            let queue = self.queue.lock();
            let sum = |refs: &VecDeque<Ref>| refs.iter().map(|r| r.len()).sum::<u64>();
            (sum(&queue.dealt), sum(&queue.selected))
        };
        let counts = &self.counts;
        const NAMED: usize = 32;
        let lost_sources = self
            .losses
            .lock()
            .tally
            .by_loss()
            .into_iter()
            .take(NAMED)
            .map(|source| ledger::SourceLoss {
                source_id: source.source_id.into(),
                dropped: source.count,
                ..ledger::SourceLoss::default()
            })
            .collect();
        ledger::Subscription {
            id: self.shard_id.to_string(),
            peer: self.peer.to_string(),
            selector: self.describe(),
            api: self.api.as_str().to_owned(),
            open: self.open.load(Ordering::Relaxed),
            received: counts.received.load(Ordering::Relaxed),
            delivered: counts.delivered.load(Ordering::Relaxed),
            dropped: counts.by_reason(),
            pending: dealt + selected + counts.in_flight.load(Ordering::Relaxed),
            lost_sources,
            ..ledger::Subscription::default()
        }
    }

    fn describe(&self) -> String {
        let what = self.wanted.describe();
        match self.v1.logs {
            Some(true) if self.api == Api::V1 => format!("{what} (logs)"),
            Some(false) if self.api == Api::V1 => format!("{what} (metrics)"),
            _ => what,
        }
    }

    fn drop_one(&self, slot: &Slot, entry: u32, reason: Reason) {
        if let Some(entry) = slot.frame().entries().get(entry as usize) {
            self.lose(reason, |tally| tally.add(slot, entry));
        }
    }
}

/// Members are told what leaves the log because of their selections. Their share of a group is the group's business.
impl Reader for Member {
    fn oldest(&self) -> u64 {
        self.oldest_selected.load(Ordering::Acquire)
    }

    fn evicted(&self, slots: &[Arc<Slot>]) {
        let mut queue = self.queue.lock();
        self.lose(Reason::Lapped, |tally| {
            count_evicted(&mut queue.selected, slots, tally)
        });
        self.note_oldest(&queue);
    }
}

/// Removes what lies in `slots` (consecutive ones that leave the ring) from the front of `refs`, counting it.
pub(crate) fn count_evicted(refs: &mut VecDeque<Ref>, slots: &[Arc<Slot>], tally: &mut Tally) {
    let (Some(first), Some(last)) = (slots.first(), slots.last()) else {
        return;
    };
    while let Some(front) = refs.front().copied() {
        if front.ordinal > last.ordinal() {
            break;
        }
        refs.pop_front();
        let at = front
            .ordinal
            .checked_sub(first.ordinal())
            .and_then(|at| usize::try_from(at).ok());
        match at.and_then(|at| slots.get(at)) {
            Some(slot) => {
                tally.add_range(slot, front.start..front.end, super::EVERY_KIND);
            }
            None => tally.add_unnamed(front.len()),
        }
    }
}

/// Takes entries from a member's queue in the order of the log, at most `budget` bytes of them, but with
/// `at_least_one` the first however big it is.
/// Pieces whose frame has gone meanwhile are returned as a count.
pub(crate) fn take_queued(
    queue: &mut Queue,
    view: &View<'_>,
    budget: usize,
    at_least_one: bool,
    pieces: &mut super::Pieces,
) -> u64 {
    let mut left = budget;
    let mut gone = 0;
    loop {
        let (dealt, selected) = (queue.dealt.front(), queue.selected.front());
        let from_dealt = match (dealt, selected) {
            (None, None) => break,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(d), Some(s)) => (d.ordinal, d.start) <= (s.ordinal, s.start),
        };
        let refs = if from_dealt {
            &mut queue.dealt
        } else {
            &mut queue.selected
        };
        let Some(next) = refs.front_mut() else { break };
        let Some(slot) = view.get(next.ordinal) else {
            gone += next.len();
            refs.pop_front();
            continue;
        };
        let entries = slot.frame().entries();
        let end = (next.end as usize).min(entries.len());
        let mut taken = next.start as usize;
        while taken < end {
            let len = entries[taken].len as usize;
            if len > left && (taken > next.start as usize || !pieces.is_empty() || !at_least_one) {
                break;
            }
            left = left.saturating_sub(len);
            taken += 1;
        }
        if taken == next.start as usize && taken < end {
            break;
        }
        pieces.push(loggregator_log::Piece {
            slot: slot.clone(),
            range: next.start..taken as u32,
        });
        if taken < end {
            next.start = taken as u32;
            break;
        }
        refs.pop_front();
        if left == 0 {
            break;
        }
    }
    gone
}

// === impl Counts ===

impl Counts {
    /// Adds to a reason's count. Whoever calls it moves the envelopes out of another column or into `received`.
    pub(crate) fn drop(&self, reason: Reason, count: u64) {
        self.dropped[reason as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// Envelopes dropped for that reason.
    pub(crate) fn of(&self, reason: Reason) -> u64 {
        self.dropped[reason as usize].load(Ordering::Relaxed)
    }

    fn by_reason(&self) -> std::collections::BTreeMap<String, u64> {
        Reason::ALL
            .into_iter()
            .zip(&self.dropped)
            .map(|(reason, count)| (reason.as_str().to_owned(), count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}
