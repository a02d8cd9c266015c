//! Wildcard subscriptions: everything, or everything of some kinds.
//!
//! All members of a group share one cursor. A group of one reads the log directly, in whole frames. With more members
//! whoever comes first *deals*: it reads on from the cursor and gives each member its share as [`Ref`]s; the frames
//! stay where they are. Because shares are dealt when they are read, a new member takes part from the next frame on,
//! and the share of one that leaves is simply dealt again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Instant;

use loggregator_envelope::KindSet;
use loggregator_log::{Cursor, Position, Reader, Slot, Tally, View};
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::EVERY_KIND;
use super::member::{Member, Reason, Ref, count_evicted, take_queued};
use super::{Pieces, hash};

/// The subscriptions that share one cursor.
pub(crate) struct Group {
    /// Empty for a subscription without shard id, which is a group of its own.
    pub(crate) shard_id: Box<str>,
    oldest: AtomicU64,
    state: Mutex<State>,
}

struct State {
    cursor: Cursor,
    members: Vec<Arc<Member>>,
    /// Per kind, how many envelopes have been dealt: whose turn it is.
    turn: [u64; 6],
    /// What nobody has: dealt to a member that left when it was the last one.
    orphans: VecDeque<Ref>,
    /// Kinds that the last members wanted, for counting while nobody is there.
    kinds: KindSet,
    /// Missed while nobody was there.
    missed: Tally,
    abandoned: Option<Instant>,
    /// The grace period is over and all is counted: nobody can join any more.
    expired: bool,
    /// Who left last: in its row stands what the grace period could not save.
    last: Option<Arc<Member>>,
}

/// What a member got when it asked.
#[derive(Default)]
pub(crate) struct Turn {
    pub(crate) pieces: Pieces,
    /// Entries of the queue that were evicted unseen.
    pub(crate) gone: u64,
    /// True if the pieces were counted as received when they were dealt.
    pub(crate) dealt: bool,
    /// Other members that now have something.
    pub(crate) wake: SmallVec<[Waker; 4]>,
    /// Frame bytes that the member is behind.
    pub(crate) lag: u64,
}

// === impl Group ===

impl Group {
    pub(crate) fn new(shard_id: &str, at: Position) -> Arc<Self> {
        Arc::new(Self {
            shard_id: shard_id.into(),
            oldest: AtomicU64::new(at.ordinal),
            state: Mutex::new(State {
                cursor: Cursor::new(at),
                members: Vec::new(),
                turn: [0; 6],
                orphans: VecDeque::new(),
                kinds: KindSet::EMPTY,
                missed: Tally::default(),
                abandoned: Some(Instant::now()),
                expired: false,
                last: None,
            }),
        })
    }

    /// True if the group outlives its members for a while.
    pub(crate) fn is_named(&self) -> bool {
        !self.shard_id.is_empty()
    }

    /// Lets a member in. It takes over what was kept for the subscription id.
    pub(crate) fn join(&self, member: Arc<Member>, view: &View<'_>) -> SmallVec<[Waker; 4]> {
        let mut state = self.state.lock();
        state.abandoned = None;
        state.last = None;
        let missed = std::mem::take(&mut state.missed);
        member
            .counts
            .received
            .fetch_add(missed.total(), Ordering::Relaxed);
        member.lost(&missed, Reason::Lapped);
        let at = state
            .members
            .partition_point(|known| known.name <= member.name);
        state.members.insert(at, member);
        state.kinds = state
            .members
            .iter()
            .fold(KindSet::EMPTY, |all, m| all.union(m.wanted.kinds));
        let orphans = std::mem::take(&mut state.orphans);
        let wake = state.deal_again(orphans, view, None);
        self.note_oldest(&state);
        wake
    }

    /// Lets a member go; deals its share to the others, or keeps it. True if the group is empty now.
    pub(crate) fn leave(
        &self,
        member: &Arc<Member>,
        view: &View<'_>,
    ) -> (bool, SmallVec<[Waker; 4]>) {
        let mut state = self.state.lock();
        state.members.retain(|known| known.id != member.id);
        let share = std::mem::take(&mut member.queue.lock().dealt);
        let count: u64 = share.iter().map(|r| r.len()).sum();
        let mut wake = SmallVec::new();
        if self.is_named() || !state.members.is_empty() {
            member.counts.received.fetch_sub(count, Ordering::Relaxed);
            wake = state.deal_again(share, view, None);
        } else {
            member.lost_unseen(count, Reason::Disconnected);
        }
        if state.members.is_empty() {
            state.abandoned = Some(Instant::now());
            state.last = Some(member.clone());
        } else {
            state.kinds = state
                .members
                .iter()
                .fold(KindSet::EMPTY, |all, m| all.union(m.wanted.kinds));
        }
        self.note_oldest(&state);
        (state.members.is_empty(), wake)
    }

    /// Takes back what a connection did not deliver: for the other members, or for whoever comes next.
    pub(crate) fn give_back(
        &self,
        refs: VecDeque<Ref>,
        from: &Member,
        view: &View<'_>,
    ) -> SmallVec<[Waker; 4]> {
        let mut state = self.state.lock();
        if state.expired {
            let count = refs.iter().map(|r| r.len()).sum();
            from.counts.received.fetch_add(count, Ordering::Relaxed);
            from.lost_unseen(count, Reason::Expired);
            return SmallVec::new();
        }
        let wake = state.deal_again(refs, view, Some(from.id));
        self.note_oldest(&state);
        wake
    }

    /// The member's next pieces, at most `budget` bytes. `kinds` of pieces that were read directly are not filtered
    /// yet, and not counted as received.
    pub(crate) fn take(
        &self,
        member: &Member,
        view: &View<'_>,
        budget: usize,
        at_least_one: bool,
    ) -> Turn {
        let mut state = self.state.lock();
        let mut turn = Turn::default();
        let direct = state.members.len() == 1
            && member.wanted.selections.is_empty()
            && state.orphans.is_empty();
        {
            let queue = member.queue.lock();
            if direct && queue.dealt.is_empty() {
                drop(queue);
                turn.lag = state.cursor.lag(view);
                turn.pieces = state.cursor.take(view, budget, at_least_one);
                self.note_oldest(&state);
                return turn;
            }
        }
        turn.dealt = true;
        let idle = member.queue.lock().dealt.is_empty();
        if idle {
            let share = budget.saturating_mul(state.members.len().max(1));
            turn.wake = state.deal_on(view, share, member.id);
        }
        {
            let mut queue = member.queue.lock();
            let oldest = queue
                .dealt
                .front()
                .into_iter()
                .chain(queue.selected.front())
                .map(|r| r.ordinal)
                .min();
            turn.lag = oldest.map_or(0, |ordinal| view.bytes_from(ordinal));
            turn.gone = take_queued(&mut queue, view, budget, at_least_one, &mut turn.pieces);
            member.note_oldest(&queue);
        }
        self.note_oldest(&state);
        turn
    }

    /// The slots between the group's cursor and the head, and where in them the cursor stands: for planning what to
    /// shed of a backlog that is read directly.
    pub(crate) fn backlog(&self, view: &View<'_>) -> (Position, Vec<Arc<Slot>>) {
        let at = self.state.lock().cursor.position();
        (at, view.from(at.ordinal).cloned().collect())
    }

    /// True if the group has no members, and has had none for the grace period.
    pub(crate) fn is_expired(&self, grace: std::time::Duration) -> bool {
        self.state
            .lock()
            .abandoned
            .is_some_and(|since| since.elapsed() >= grace)
    }

    /// Counts what the group would still have delivered, now that its grace period is over.
    pub(crate) fn expire(&self, view: &View<'_>) {
        let tally = self.remainder(view);
        let mut state = self.state.lock();
        state.expired = true;
        if let Some(last) = &state.last {
            last.counts
                .received
                .fetch_add(tally.total(), Ordering::Relaxed);
            last.lost(&tally, Reason::Expired);
        }
    }

    /// True if the cursor has nothing to read.
    pub(crate) fn at_head(&self, view: &View<'_>) -> bool {
        self.state.lock().cursor.at_head(view)
    }

    fn remainder(&self, view: &View<'_>) -> Tally {
        let state = self.state.lock();
        let mut tally = state.missed.clone();
        for r in &state.orphans {
            match view.get(r.ordinal) {
                Some(slot) => {
                    tally.add_range(slot, r.start..r.end, EVERY_KIND);
                }
                None => tally.add_unnamed(r.len()),
            }
        }
        let at = state.cursor.position();
        for slot in view.from(at.ordinal) {
            let start = if slot.ordinal() == at.ordinal {
                at.envelope
            } else {
                0
            };
            tally.add_range(slot, start..slot.frame().len() as u32, state.kinds);
        }
        tally
    }

    fn note_oldest(&self, state: &State) {
        let dealt = state
            .members
            .iter()
            .filter_map(|m| m.queue.lock().dealt.front().map(|r| r.ordinal));
        let orphans = state.orphans.front().map(|r| r.ordinal);
        let oldest = dealt.chain(orphans).min().unwrap_or(u64::MAX);
        self.oldest.store(
            oldest.min(state.cursor.position().ordinal),
            Ordering::Release,
        );
    }
}

impl Reader for Group {
    fn oldest(&self) -> u64 {
        self.oldest.load(Ordering::Acquire)
    }

    fn evicted(&self, slots: &[Arc<Slot>]) {
        let mut state = self.state.lock();
        let State {
            cursor,
            members,
            orphans,
            missed,
            turn,
            kinds,
            ..
        } = &mut *state;
        for member in members.iter() {
            let mut queue = member.queue.lock();
            member.lose(Reason::Lapped, |tally| {
                count_evicted(&mut queue.dealt, slots, tally)
            });
        }
        let mut count = |tally: &mut Tally| {
            cursor.evicted(slots, *kinds, tally);
            count_evicted(orphans, slots, tally);
        };
        // What had not been dealt is nobody's share: the members are charged in turn.
        let at = turn[0] as usize % members.len().max(1);
        match members.get(at) {
            Some(member) => {
                let lost = member.lose(Reason::Lapped, &mut count);
                member.counts.received.fetch_add(lost, Ordering::Relaxed);
                turn[0] += u64::from(lost > 0);
            }
            None => count(missed),
        }
        self.note_oldest(&state);
    }
}

// === impl State ===

impl State {
    /// Deals what comes next in the log, about `budget` bytes, to all members.
    fn deal_on(&mut self, view: &View<'_>, budget: usize, asking: u64) -> SmallVec<[Waker; 4]> {
        for piece in self.cursor.take(view, budget, true) {
            self.deal(&piece.slot, piece.range.start, piece.range.end, None);
        }
        self.wake_others(asking)
    }

    /// Deals refs that somebody had already: to the members but `except`, else they become orphans.
    fn deal_again(
        &mut self,
        refs: impl IntoIterator<Item = Ref>,
        view: &View<'_>,
        except: Option<u64>,
    ) -> SmallVec<[Waker; 4]> {
        let others = self.members.iter().any(|m| Some(m.id) != except);
        for r in refs {
            match view.get(r.ordinal) {
                Some(slot) if others => self.deal(&slot.clone(), r.start, r.end, except),
                Some(_) => insert_by_place(&mut self.orphans, r),
                None => self.missed.add_unnamed(r.len()),
            }
        }
        if others && !self.missed.is_empty() {
            let missed = std::mem::take(&mut self.missed);
            if let Some(member) = self.members.iter().find(|m| Some(m.id) != except) {
                member
                    .counts
                    .received
                    .fetch_add(missed.total(), Ordering::Relaxed);
                member.lost(&missed, Reason::Lapped);
            }
        }
        self.wake_others(u64::MAX)
    }

    /// Deals entries of one frame. Equal members get equal runs, so that shares stay long slices.
    fn deal(&mut self, slot: &Arc<Slot>, start: u32, end: u32, except: Option<u64>) {
        let members: SmallVec<[Arc<Member>; 8]> = self
            .members
            .iter()
            .filter(|m| Some(m.id) != except)
            .cloned()
            .collect();
        let Some(first) = members.first() else { return };
        let frame = slot.frame();
        let alike = members
            .iter()
            .all(|m| m.wanted.kinds == first.wanted.kinds && m.name.is_empty());
        if alike && first.wanted.kinds.is_superset(frame.index().kinds()) {
            let (n, k) = (members.len() as u64, u64::from(end - start));
            let mut at = start;
            for i in 0..n {
                let member = &members[((self.turn[0] + i) % n) as usize];
                let len = (k / n + u64::from(i < k % n)) as u32;
                if len > 0 {
                    give(
                        member,
                        Ref {
                            ordinal: slot.ordinal(),
                            start: at,
                            end: at + len,
                        },
                    );
                    at += len;
                }
            }
            self.turn[0] += k % n;
            return;
        }
        let named = members.iter().any(|m| !m.name.is_empty());
        for i in start..end {
            let Some(entry) = frame.entries().get(i as usize) else {
                break;
            };
            let kind = entry.kind();
            let takers: SmallVec<[&Arc<Member>; 8]> = members
                .iter()
                .filter(|m| m.wanted.kinds.contains(kind))
                .collect();
            if takers.is_empty() {
                continue;
            }
            let routed = if named {
                hash::route(frame, entry)
            } else {
                None
            };
            let pick = routed.unwrap_or_else(|| {
                let turn = &mut self.turn[kind as usize];
                *turn += 1;
                *turn
            });
            let taker = takers[(pick % takers.len() as u64) as usize];
            give(
                taker,
                Ref {
                    ordinal: slot.ordinal(),
                    start: i,
                    end: i + 1,
                },
            );
        }
    }

    fn wake_others(&self, asking: u64) -> SmallVec<[Waker; 4]> {
        self.members
            .iter()
            .filter(|m| m.id != asking)
            .filter_map(|m| {
                let mut queue = m.queue.lock();
                if queue.dealt.is_empty() {
                    None
                } else {
                    queue.waker.take()
                }
            })
            .collect()
    }
}

/// Gives a member its share of a frame, joined to the share before it where they touch.
fn give(member: &Member, share: Ref) {
    member
        .counts
        .received
        .fetch_add(share.len(), Ordering::Relaxed);
    let mut queue = member.queue.lock();
    match queue.dealt.back_mut() {
        Some(last) if last.ordinal == share.ordinal && last.end == share.start => {
            last.end = share.end
        }
        Some(last) if last.ordinal > share.ordinal => insert_by_place(&mut queue.dealt, share),
        _ => queue.dealt.push_back(share),
    }
}

/// Keeps a queue in the order of the log when something older comes back.
pub(crate) fn insert_by_place(refs: &mut VecDeque<Ref>, r: Ref) {
    let at = refs.partition_point(|known| (known.ordinal, known.start) < (r.ordinal, r.start));
    refs.insert(at, r);
}
