//! One selector of one shard group: who asked for exactly this, and who gets the next envelope of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use loggregator_envelope::Entry;
use loggregator_log::{Slot, View};
use parking_lot::RwLock;
use smallvec::SmallVec;

use super::hash;
use super::member::{Member, Ref};
use super::selector::{Api, Of, V1Filter, Wish};

/// One selector of one shard group: the members that asked for exactly this.
pub(crate) struct Selection {
    api: Api,
    shard_id: Box<str>,
    pub(super) wish: Wish,
    /// For v1: the filter is part of the group's identity.
    v1: V1Filter,
    turn: AtomicU64,
    pub(super) members: RwLock<SmallVec<[Seat; 1]>>,
}

/// A member's place in a selection.
#[derive(Clone)]
pub(super) struct Seat {
    member: Arc<Member>,
    /// Since when its connection is gone; its queue is kept for the grace period.
    left: Option<Instant>,
}

// === impl Selection ===

impl Selection {
    pub(super) fn new(member: &Arc<Member>, wish: &Wish) -> Self {
        Self {
            api: member.api,
            shard_id: member.shard_id.clone(),
            wish: wish.clone(),
            v1: member.v1.clone(),
            turn: AtomicU64::new(0),
            members: RwLock::new(SmallVec::from_iter([Seat {
                member: member.clone(),
                left: None,
            }])),
        }
    }

    /// Whether a member with this wish belongs here. Without a shard id everybody is a group of one.
    pub(super) fn is_for(&self, member: &Member, wish: &Wish) -> bool {
        if self.shard_id.is_empty() {
            return self.wish == *wish
                && self
                    .members
                    .read()
                    .iter()
                    .any(|seat| seat.member.id == member.id);
        }
        self.api == member.api
            && self.shard_id == member.shard_id
            && self.wish == *wish
            && self.v1 == member.v1
    }

    /// The member that gets this envelope, if it matches.
    pub(super) fn pick(&self, slot: &Slot, entry: &Entry) -> Option<Arc<Member>> {
        let frame = slot.frame();
        if self.wish.source_id.as_deref().is_some_and(|source| {
            let have = frame.source_id(entry);
            have != source && !(self.wish.of == Of::App && have.eq_ignore_ascii_case(source))
        }) || !self.wish.matches(frame, entry)
        {
            return None;
        }
        let members = self.members.read();
        let seat = match members.len() {
            0 => return None,
            1 => &members[0],
            n => {
                let named = members.iter().any(|seat| !seat.member.name.is_empty());
                let routed = if named {
                    hash::route(frame, entry)
                } else {
                    None
                };
                let pick = routed.unwrap_or_else(|| self.turn.fetch_add(1, Ordering::Relaxed));
                &members[(pick % n as u64) as usize]
            }
        };
        Some(seat.member.clone())
    }

    pub(super) fn join(&self, member: &Arc<Member>, view: &View<'_>) {
        let mut members = self.members.write();
        let gone: SmallVec<[Arc<Member>; 1]> = members
            .iter()
            .filter(|seat| seat.left.is_some())
            .map(|seat| seat.member.clone())
            .collect();
        members.retain(|seat| seat.left.is_none());
        let at = members.partition_point(|seat| seat.member.name <= member.name);
        members.insert(
            at,
            Seat {
                member: member.clone(),
                left: None,
            },
        );
        drop(members);
        for old in gone {
            take_over(&old, &self.wish, member, view, &mut SmallVec::new());
        }
    }

    /// True if nobody is left.
    pub(super) fn leave(
        &self,
        member: &Arc<Member>,
        named: bool,
        view: &View<'_>,
        wake: &mut SmallVec<[Waker; 4]>,
    ) -> bool {
        let heir = self.heir(member);
        let mut members = self.members.write();
        match heir {
            Some(heir) => {
                members.retain(|seat| seat.member.id != member.id);
                drop(members);
                take_over(member, &self.wish, &heir, view, wake);
                false
            }
            None if named => {
                for seat in members
                    .iter_mut()
                    .filter(|seat| seat.member.id == member.id)
                {
                    seat.left = Some(Instant::now());
                }
                false
            }
            None => {
                members.retain(|seat| seat.member.id != member.id);
                members.is_empty()
            }
        }
    }

    /// Another member that is connected.
    pub(super) fn heir(&self, member: &Member) -> Option<Arc<Member>> {
        let members = self.members.read();
        members
            .iter()
            .find(|seat| seat.member.id != member.id && seat.left.is_none())
            .map(|seat| seat.member.clone())
    }

    pub(super) fn has_expired(&self, grace: Duration) -> bool {
        self.members.read().iter().any(|seat| seat.expired(grace))
    }

    pub(super) fn remove_expired(&self, grace: Duration) -> Vec<Arc<Member>> {
        let mut members = self.members.write();
        let gone = members
            .iter()
            .filter(|seat| seat.expired(grace))
            .map(|seat| seat.member.clone())
            .collect();
        members.retain(|seat| !seat.expired(grace));
        gone
    }
}

impl Seat {
    pub(super) fn expired(&self, grace: Duration) -> bool {
        self.left.is_some_and(|since| since.elapsed() >= grace)
    }
}

/// Moves what `wish` matches of a queue to another member.
fn take_over(
    from: &Member,
    wish: &Wish,
    heir: &Member,
    view: &View<'_>,
    wake: &mut SmallVec<[Waker; 4]>,
) {
    let mut refs: Vec<Ref> = {
        let mut queue = from.queue.lock();
        let refs = std::mem::take(&mut queue.selected).into();
        from.note_oldest(&queue);
        refs
    };
    let before: u64 = refs.iter().map(|r| r.len()).sum();
    hand_over(&mut refs, wish, heir, view, wake);
    let after: u64 = refs.iter().map(|r| r.len()).sum();
    from.counts
        .received
        .fetch_sub(before - after, Ordering::Relaxed);
    let mut queue = from.queue.lock();
    queue.selected.extend(refs);
    from.note_oldest(&queue);
}

/// Moves the entries that `wish` matches out of `refs` into the heir's queue.
pub(super) fn hand_over(
    refs: &mut Vec<Ref>,
    wish: &Wish,
    heir: &Member,
    view: &View<'_>,
    wake: &mut SmallVec<[Waker; 4]>,
) {
    let mut rest = Vec::new();
    let mut queue = heir.queue.lock();
    for r in refs.drain(..) {
        let Some(slot) = view.get(r.ordinal) else {
            rest.push(r);
            continue;
        };
        for i in r.start..r.end {
            let one = Ref {
                ordinal: r.ordinal,
                start: i,
                end: i + 1,
            };
            let Some(entry) = slot.frame().entries().get(i as usize) else {
                break;
            };
            let of_source = wish
                .source_id
                .as_deref()
                .is_none_or(|source| slot.frame().source_id(entry).eq_ignore_ascii_case(source));
            if of_source && wish.matches(slot.frame(), entry) {
                heir.counts.received.fetch_add(1, Ordering::Relaxed);
                super::group::insert_by_place(&mut queue.selected, one);
            } else {
                rest.push(one);
            }
        }
    }
    heir.note_oldest(&queue);
    wake.extend(queue.waker.take());
    *refs = rest;
}
