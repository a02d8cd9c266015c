//! Selected subscriptions: those that name a source id, a counter or a gauge.
//!
//! They do not read the log. When a frame is appended, each envelope costs one look into a table keyed by the hash of
//! its source id, whether ten or ten thousand applications are being tailed; only a hit costs more. A hit queues the
//! place of the envelope, not its bytes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use arc_swap::ArcSwap;
use loggregator_envelope::{Entry, Kind, source_hash};
use loggregator_log::{Slot, View};
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::member::{Member, Reason, Ref};
use super::selection::{Selection, hand_over};
use super::selector::{Of, Wish};

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
        if queue.sealed {
            let count = left.iter().map(|r| r.len()).sum();
            from.counts.received.fetch_add(count, Ordering::Relaxed);
            from.lost_unseen(count, Reason::Expired);
            return wake;
        }
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
