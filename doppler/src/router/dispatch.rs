//! Selected subscriptions: those that name a source id, a counter or a gauge.
//!
//! They do not read the log. When a frame is appended, each envelope costs one look into a table keyed by the hash of
//! its source id, whether ten or ten thousand applications are being tailed; only a hit costs more. A hit queues the
//! place of the envelope, not its bytes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use loggregator_envelope::{Entry, Kind, source_hash};
use loggregator_log::{Slot, View};
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use super::hash;
use super::member::{Member, Reason, Ref};
use super::selector::{Api, Of, V1Filter, Wish};

/// The table is cut into this many parts, so that a new subscription copies a small one only.
const PARTS: usize = 256;

/// Which selections look at which sources.
pub(crate) struct Selections {
    parts: ArcSwap<Parts>,
    changing: Mutex<()>,
}

#[derive(Clone)]
struct Parts {
    by_source: Vec<Arc<Part>>,
    /// Selections of a metric whatever its source.
    anywhere: Vec<Arc<Selection>>,
    /// Selections by source in all.
    count: usize,
    /// How many of them are v1 application streams, which also want requests logged under another spelling.
    apps: usize,
}

type Part = HashMap<u64, SmallVec<[Arc<Selection>; 1]>, foldhash::fast::FixedState>;

/// One selector of one shard group: the members that asked for exactly this.
pub(crate) struct Selection {
    api: Api,
    shard_id: Box<str>,
    wish: Wish,
    /// For v1: the filter is part of the group's identity.
    v1: V1Filter,
    turn: AtomicU64,
    members: RwLock<SmallVec<[Seat; 1]>>,
}

/// A member's place in a selection.
#[derive(Clone)]
struct Seat {
    member: Arc<Member>,
    /// Since when its connection is gone; its queue is kept for the grace period.
    left: Option<Instant>,
}

// === impl Selections ===

impl Selections {
    pub(crate) fn new() -> Self {
        Self {
            parts: ArcSwap::from_pointee(Parts {
                by_source: vec![Arc::default(); PARTS],
                anywhere: Vec::new(),
                count: 0,
                apps: 0,
            }),
            changing: Mutex::new(()),
        }
    }

    /// Queues every envelope of the slot for whoever selected it, and returns whom to wake.
    pub(crate) fn dispatch(&self, slot: &Slot) -> SmallVec<[Waker; 8]> {
        let mut wake = SmallVec::new();
        let parts = self.parts.load();
        if parts.count == 0 && parts.anywhere.is_empty() {
            return wake;
        }
        for (i, entry) in slot.frame().entries().iter().enumerate() {
            let mut given: SmallVec<[u64; 4]> = SmallVec::new();
            let mut offer = |selection: &Selection| {
                if let Some(member) = selection.pick(slot, entry)
                    && !given.contains(&member.id)
                {
                    given.push(member.id);
                    wake.extend(member.select(slot, i as u32));
                }
            };
            if let Some(found) = parts.by_source[part_of(entry.source_hash)].get(&entry.source_hash)
            {
                found.iter().for_each(|selection| offer(selection));
            }
            if parts.apps > 0 && entry.kind() == Kind::Timer {
                respelled(slot, entry, &parts, &mut offer);
            }
            if matches!(entry.kind(), Kind::Counter | Kind::Gauge) {
                parts.anywhere.iter().for_each(|selection| offer(selection));
            }
        }
        wake
    }

    /// Enters a member for each of its selections. It takes over what was kept for its subscription id.
    pub(crate) fn join(&self, member: &Arc<Member>, view: &View<'_>) {
        if member.wanted.selections.is_empty() {
            return;
        }
        let _changing = self.changing.lock();
        let mut parts = (**self.parts.load()).clone();
        for wish in &member.wanted.selections {
            let known = parts
                .of(wish)
                .iter()
                .find(|s| s.is_for(member, wish))
                .cloned();
            match known {
                Some(selection) => selection.join(member, view),
                None => parts.insert(Arc::new(Selection::new(member, wish))),
            }
        }
        self.store(parts);
    }

    /// A member's connection is gone. Its queue goes to the other members of its groups; if there are none it is kept
    /// when the subscription has an id, else counted as lost.
    pub(crate) fn leave(&self, member: &Arc<Member>, view: &View<'_>) -> SmallVec<[Waker; 4]> {
        let mut wake = SmallVec::new();
        if member.wanted.selections.is_empty() {
            return wake;
        }
        let _changing = self.changing.lock();
        let mut parts = (**self.parts.load()).clone();
        let named = !member.shard_id.is_empty();
        for wish in &member.wanted.selections {
            let Some(selection) = parts
                .of(wish)
                .iter()
                .find(|s| s.is_for(member, wish))
                .cloned()
            else {
                continue;
            };
            if selection.leave(member, named, view, &mut wake) {
                parts.remove(wish, &selection);
            }
        }
        self.store(parts);
        if !named {
            let rest = {
                let mut queue = member.queue.lock();
                queue.sealed = true;
                std::mem::take(&mut queue.selected)
            };
            member.lost_unseen(rest.iter().map(|r| r.len()).sum(), Reason::Disconnected);
        }
        wake
    }

    /// Forgets members whose grace period is over; what was kept for them is counted as lost.
    pub(crate) fn expire(&self, grace: Duration, view: &View<'_>) {
        let parts = self.parts.load();
        let stale: Vec<Arc<Selection>> = parts
            .by_source
            .iter()
            .flat_map(|part| part.values().flatten())
            .chain(&parts.anywhere)
            .filter(|selection| selection.has_expired(grace))
            .cloned()
            .collect();
        drop(parts);
        if stale.is_empty() {
            return;
        }
        let _changing = self.changing.lock();
        let mut parts = (**self.parts.load()).clone();
        for selection in stale {
            for member in selection.remove_expired(grace) {
                let rest = {
                    let mut queue = member.queue.lock();
                    queue.sealed = true;
                    std::mem::take(&mut queue.selected)
                };
                let mut tally = loggregator_log::Tally::default();
                for r in rest {
                    match view.get(r.ordinal) {
                        Some(slot) => {
                            tally.add_range(slot, r.start..r.end, super::EVERY_KIND);
                        }
                        None => tally.add_unnamed(r.len()),
                    }
                }
                member.lost(&tally, Reason::Expired);
            }
            if selection.members.read().is_empty() {
                parts.remove(&selection.wish.clone(), &selection);
            }
        }
        self.store(parts);
    }

    /// Takes back what a connection did not deliver.
    pub(crate) fn give_back(
        &self,
        refs: &[Ref],
        from: &Arc<Member>,
        view: &View<'_>,
    ) -> SmallVec<[Waker; 4]> {
        let mut wake = SmallVec::new();
        let parts = self.parts.load();
        let mut left: Vec<Ref> = refs.to_vec();
        for wish in &from.wanted.selections {
            if let Some(selection) = parts.of(wish).iter().find(|s| s.is_for(from, wish))
                && let Some(heir) = selection.heir(from)
            {
                hand_over(&mut left, wish, &heir, view, &mut wake);
            }
        }
        // Nobody else: it waits for the subscription id to come back.
        let mut queue = from.queue.lock();
        for r in left {
            from.counts.received.fetch_add(r.len(), Ordering::Relaxed);
            super::group::insert_by_place(&mut queue.selected, r);
        }
        from.note_oldest(&queue);
        wake
    }

    fn store(&self, parts: Parts) {
        self.parts.store(Arc::new(parts));
    }
}

/// A request (timer) is known to v1 clients under the lower-case form of its application's id.
fn respelled(slot: &Slot, entry: &Entry, parts: &Parts, offer: &mut impl FnMut(&Selection)) {
    let source = slot.frame().source_id(entry);
    if !source.bytes().any(|b| b.is_ascii_uppercase()) {
        return;
    }
    let lower = source.to_ascii_lowercase();
    let hash = source_hash(lower.as_bytes());
    if let Some(found) = parts.by_source[part_of(hash)].get(&hash) {
        found
            .iter()
            .filter(|s| s.wish.of == Of::App)
            .for_each(|selection| offer(selection));
    }
}

const fn part_of(hash: u64) -> usize {
    (hash >> 56) as usize % PARTS
}

// === impl Parts ===

impl Parts {
    fn of(&self, wish: &Wish) -> &[Arc<Selection>] {
        match &wish.source_id {
            None => &self.anywhere,
            Some(source) => {
                let hash = source_hash(source.as_bytes());
                self.by_source[part_of(hash)]
                    .get(&hash)
                    .map_or(&[], |found| found)
            }
        }
    }

    fn insert(&mut self, selection: Arc<Selection>) {
        match &selection.wish.source_id {
            None => self.anywhere.push(selection),
            Some(source) => {
                let hash = source_hash(source.as_bytes());
                self.count += 1;
                self.apps += usize::from(selection.wish.of == Of::App);
                Arc::make_mut(&mut self.by_source[part_of(hash)])
                    .entry(hash)
                    .or_default()
                    .push(selection);
            }
        }
    }

    fn remove(&mut self, wish: &Wish, selection: &Arc<Selection>) {
        let Some(source) = &wish.source_id else {
            self.anywhere.retain(|known| !Arc::ptr_eq(known, selection));
            return;
        };
        let hash = source_hash(source.as_bytes());
        let part = Arc::make_mut(&mut self.by_source[part_of(hash)]);
        let Some(found) = part.get_mut(&hash) else {
            return;
        };
        let before = found.len();
        found.retain(|known| !Arc::ptr_eq(known, selection));
        self.count -= before - found.len();
        if wish.of == Of::App {
            self.apps -= before - found.len();
        }
        if found.is_empty() {
            part.remove(&hash);
        }
    }
}

// === impl Selection ===

impl Selection {
    fn new(member: &Arc<Member>, wish: &Wish) -> Self {
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
    fn is_for(&self, member: &Member, wish: &Wish) -> bool {
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
    fn pick(&self, slot: &Slot, entry: &Entry) -> Option<Arc<Member>> {
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

    fn join(&self, member: &Arc<Member>, view: &View<'_>) {
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
    fn leave(
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
    fn heir(&self, member: &Member) -> Option<Arc<Member>> {
        let members = self.members.read();
        members
            .iter()
            .find(|seat| seat.member.id != member.id && seat.left.is_none())
            .map(|seat| seat.member.clone())
    }

    fn has_expired(&self, grace: Duration) -> bool {
        self.members.read().iter().any(|seat| seat.expired(grace))
    }

    fn remove_expired(&self, grace: Duration) -> Vec<Arc<Member>> {
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
    fn expired(&self, grace: Duration) -> bool {
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
fn hand_over(
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
