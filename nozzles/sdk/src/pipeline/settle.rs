//! What became of each event, and how far a cursor may move.

use std::collections::VecDeque;
use std::ops::Range;

use crate::account::Account;

/// What became of an event, in two bytes: an entry of a [`Window`]'s table of fates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fate(u16);

impl Fate {
    const PENDING: Fate = Fate(0);
    /// The destination confirmed it.
    pub(crate) const DELIVERED: Fate = Fate(1);
}

/// Why an event was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Left out on purpose.
    Filtered,
    /// Refused for good.
    DeadLettered,
    /// Lost.
    Dropped,
}

/// Events with one fate, behind everything that was read before.
#[derive(Debug)]
struct Gap {
    range: Range<u64>,
    fate: Fate,
}

/// So many different fates are told apart; further reasons are counted as [`OTHER`].
pub(super) const MOST_FATES: usize = 256;
/// The reason that stands for those for which there is no room.
pub(super) const OTHER: &str = "other";

/// The events from the first that is not settled to the last that was read.
///
/// Events are settled in any order; [`Window::advance`] takes those off the front that are, and only they are part of the
/// [`Account`]. So the account's total is the distance that the cursor has gone.
#[derive(Debug)]
pub(crate) struct Window {
    next: u64,
    /// One for each event from `next` on that is in no gap.
    slots: VecDeque<Fate>,
    /// Long runs that were lost as a whole, in order: they take no slots.
    gaps: VecDeque<Gap>,
    fates: Vec<(Class, String)>,
    account: Account,
}

impl Window {
    /// Begins at `next`; `account` covers what is before.
    pub(crate) fn new(next: u64, account: Account) -> Window {
        Window {
            next,
            slots: VecDeque::new(),
            gaps: VecDeque::new(),
            fates: Vec::new(),
            account,
        }
    }

    /// The fate of this class and reason.
    pub(crate) fn fate(&mut self, class: Class, reason: &str) -> Fate {
        let known = |fates: &[(Class, String)], reason: &str| {
            let same = |(c, r): &(Class, String)| *c == class && r == reason;
            fates.iter().position(same)
        };
        let full = self.fates.len() >= MOST_FATES;
        let at = known(&self.fates, reason)
            .or_else(|| full.then(|| known(&self.fates, OTHER)).flatten())
            .unwrap_or_else(|| {
                let reason = if full { OTHER } else { reason };
                self.fates.push((class, reason.to_owned()));
                self.fates.len() - 1
            });
        // One of each class may be added when the table is full.
        Fate(u16::try_from(at + 2).unwrap_or(u16::MAX))
    }

    /// Says what became of an event. Whether that is news: an event has one fate, the first.
    pub(crate) fn settle(&mut self, seq: u64, fate: Fate) -> bool {
        let Some(at) = self.slot(seq) else {
            return false;
        };
        if self.slots.len() <= at {
            self.slots.resize(at + 1, Fate::PENDING);
        }
        let slot = &mut self.slots[at];
        let news = *slot == Fate::PENDING;
        if news {
            *slot = fate;
        }
        news
    }

    /// Where the slot of an event is; `None` when it was settled and passed, or is in a gap.
    fn slot(&self, seq: u64) -> Option<usize> {
        let mut at = seq.checked_sub(self.next)?;
        for gap in &self.gaps {
            if gap.range.contains(&seq) {
                return None;
            }
            if gap.range.end <= seq {
                at -= gap.range.end - gap.range.start;
            }
        }
        usize::try_from(at).ok()
    }

    /// Says what became of a run of events that nothing was said of before, and that lies behind everything that was: they
    /// are lost. Any length takes the same room.
    pub(crate) fn lose(&mut self, range: Range<u64>, fate: Fate) {
        let start = range.start.max(self.next);
        if start < range.end {
            let range = start..range.end;
            self.gaps.push_back(Gap { range, fate });
        }
    }

    /// Moves past what is settled at the front. Whether it moved.
    pub(crate) fn advance(&mut self) -> bool {
        let before = self.next;
        loop {
            if let Some(gap) = self.gaps.front()
                && gap.range.start <= self.next
            {
                let (end, fate) = (gap.range.end, gap.fate);
                self.gaps.pop_front();
                self.count(fate, end - self.next);
                self.next = end;
                continue;
            }
            let Some(&fate) = self.slots.front().filter(|fate| **fate != Fate::PENDING) else {
                break;
            };
            let gap = self.gaps.front().map(|gap| gap.range.start - self.next);
            let most = gap.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
            let same = self
                .slots
                .iter()
                .take(most)
                .take_while(|slot| **slot == fate);
            let n = same.count();
            self.slots.drain(..n);
            self.count(fate, n as u64);
            self.next += n as u64;
        }
        self.next > before
    }

    /// The first event that is not settled, as of the last [`advance`](Window::advance).
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// How many events it spans.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The counts of everything before [`next`](Window::next).
    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    fn count(&mut self, fate: Fate, n: u64) {
        let Some((class, reason)) = usize::from(fate.0)
            .checked_sub(2)
            .and_then(|at| self.fates.get(at))
        else {
            self.account.delivered += n;
            return;
        };
        let counts = match class {
            Class::Filtered => &mut self.account.filtered,
            Class::DeadLettered => &mut self.account.dead_lettered,
            Class::Dropped => &mut self.account.dropped,
        };
        match counts.get_mut(reason) {
            Some(count) => *count += n,
            None => {
                counts.insert(reason.clone(), n);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_settled_without_a_gap_is_in_the_account() {
        let mut window = Window::new(10, Account::default());
        let filtered = window.fate(Class::Filtered, "filter");
        assert!(window.settle(11, Fate::DELIVERED));
        assert!(window.settle(12, filtered));
        assert!(!window.advance());
        assert_eq!((window.next(), window.account().total()), (10, 0));
        assert!(window.settle(10, Fate::DELIVERED));
        assert!(window.advance());
        assert_eq!((window.next(), window.account().total()), (13, 3));
        assert_eq!(window.account().delivered, 2);
        assert_eq!(window.account().filtered["filter"], 1);
    }

    #[test]
    fn an_event_has_one_fate() {
        let mut window = Window::new(0, Account::default());
        let dead = window.fate(Class::DeadLettered, "bad");
        assert!(window.settle(0, Fate::DELIVERED));
        assert!(!window.settle(0, dead));
        window.advance();
        assert!(!window.settle(0, dead), "and none that is behind");
        assert_eq!(window.account().total(), 1);
    }

    #[test]
    fn a_long_loss_takes_no_room() {
        let mut window = Window::new(5, Account::default());
        let full = window.fate(Class::Dropped, "backlog_full");
        window.lose(5..1_000_000_005, full);
        assert!(window.advance());
        assert_eq!((window.next(), window.len()), (1_000_000_005, 0));
        assert_eq!(window.account().dropped["backlog_full"], 1_000_000_000);
    }

    #[test]
    fn a_loss_behind_something_pending_waits_for_it_and_takes_no_room_either() {
        let mut window = Window::new(0, Account::default());
        let full = window.fate(Class::Dropped, "backlog_full");
        window.settle(0, Fate::DELIVERED);
        window.lose(2..1_000_000_002, full);
        window.settle(1_000_000_003, Fate::DELIVERED);
        window.lose(1_000_000_004..2_000_000_004, full);
        assert!(!window.settle(7, Fate::DELIVERED), "it is lost");
        assert!(window.advance());
        assert_eq!((window.next(), window.account().total()), (1, 1));
        assert!(window.len() < 10);
        assert!(window.settle(1, Fate::DELIVERED));
        assert!(window.advance());
        assert_eq!(window.next(), 1_000_000_002);
        assert!(window.settle(1_000_000_002, Fate::DELIVERED));
        assert!(window.advance());
        assert_eq!((window.next(), window.len()), (2_000_000_004, 0));
        assert_eq!(window.account().delivered, 4);
        assert_eq!(window.account().total(), 2_000_000_004);
    }

    #[test]
    fn too_many_reasons_are_counted_together() {
        let mut window = Window::new(0, Account::default());
        for seq in 0..1000 {
            let fate = window.fate(Class::DeadLettered, &format!("code_{seq}"));
            window.settle(seq, fate);
        }
        window.advance();
        let dead = &window.account().dead_lettered;
        assert_eq!(dead.len(), MOST_FATES + 1);
        assert_eq!(dead[OTHER], 1000 - MOST_FATES as u64);
        assert_eq!(window.account().total(), 1000);
    }
}
