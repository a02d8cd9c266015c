//! What is known of apps: read by every event, written by one task.
//!
//! The map is cut into shards. A reader takes a shard's map as it is; the writer makes a new one and puts it in its place.
//! An id that is missing, or due to be asked for, is noted in a set of its shard, unless somebody else is just looking into
//! that: then the next event notes it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use foldhash::fast::FixedState;
use parking_lot::Mutex;

use crate::event::Names;

const SHARDS: usize = 64;
/// Ids that may wait in one shard to be asked for.
const MAX_WAITING: usize = 1024;
/// Seconds after which an id that the Cloud Controller does not know is asked for again; each time twice as many.
const FIRST_DOUBT: u64 = 60;
const LONGEST_DOUBT: u64 = 30 * 60;
/// Seconds after which an id that was noted and not answered may be noted again.
const PATIENCE: u64 = 60;

type Map = HashMap<u128, Arc<Entry>, FixedState>;

/// What is known of one id.
#[derive(Debug)]
struct Entry {
    /// `None`: the Cloud Controller does not know it.
    names: Option<Arc<Names>>,
    /// When the Cloud Controller last told these names, in seconds since 1970.
    confirmed: u64,
    /// From when on it is asked for again if somebody looks it up.
    ask_at: AtomicU64,
    /// When it was last looked up; 0: never.
    used: AtomicU64,
    /// How often in a row the Cloud Controller did not know it.
    doubts: u32,
}

#[derive(Debug, Default)]
struct Shard {
    map: ArcSwap<Map>,
    wanted: Mutex<HashSet<u128, FixedState>>,
}

/// What the Cloud Controller says of an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// Its names.
    Names(Names),
    /// There is no such app, or none that the nozzle may see.
    Unknown,
}

/// Outcomes of look-ups, and what was forgotten.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub hits: AtomicU64,
    pub stale: AtomicU64,
    pub negative: AtomicU64,
    pub misses: AtomicU64,
    pub tags: AtomicU64,
    pub refused: AtomicU64,
    pub evicted: AtomicU64,
    pub expired: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Cache {
    shards: Vec<Shard>,
    max: usize,
    refresh: u64,
    expire: u64,
    /// Seconds since 1970, as the task last looked.
    clock: AtomicU64,
    pub counts: Counts,
}

impl Cache {
    pub(super) fn new(max: usize, refresh: Duration, expire: Duration) -> Cache {
        Cache {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            max: max.max(1),
            refresh: refresh.as_secs(),
            expire: expire.as_secs(),
            clock: AtomicU64::new(now()),
            counts: Counts::default(),
        }
    }

    /// The names of this app. If they are missing, `needed` tells whether they are worth asking for.
    pub(super) fn names(&self, id: u128, needed: impl FnOnce() -> bool) -> Option<Arc<Names>> {
        let now = self.clock.load(Relaxed);
        let shard = self.shard(id);
        let map = shard.map.load();
        let Some(entry) = map.get(&id) else {
            if needed() {
                self.counts.misses.fetch_add(1, Relaxed);
                self.want(shard, id);
            } else {
                self.counts.tags.fetch_add(1, Relaxed);
            }
            return None;
        };
        if entry.used.load(Relaxed) != now {
            entry.used.store(now, Relaxed);
        }
        let due = now >= entry.ask_at.load(Relaxed);
        if due && self.want(shard, id) {
            entry.ask_at.store(now + PATIENCE, Relaxed);
        }
        let counts = &self.counts;
        match &entry.names {
            None => {
                counts.negative.fetch_add(1, Relaxed);
                None
            }
            Some(_) if self.has_expired(entry, now) => {
                counts.misses.fetch_add(1, Relaxed);
                None
            }
            Some(names) => {
                let stale = now.saturating_sub(entry.confirmed) > self.refresh;
                let count = if stale { &counts.stale } else { &counts.hits };
                count.fetch_add(1, Relaxed);
                Some(Arc::clone(names))
            }
        }
    }

    /// Notes an id down to be asked for; false if there is no room, or not just now.
    fn want(&self, shard: &Shard, id: u128) -> bool {
        let Some(mut wanted) = shard.wanted.try_lock() else {
            return false;
        };
        if wanted.len() >= MAX_WAITING && !wanted.contains(&id) {
            self.counts.refused.fetch_add(1, Relaxed);
            return false;
        }
        wanted.insert(id);
        true
    }

    fn has_expired(&self, entry: &Entry, now: u64) -> bool {
        now.saturating_sub(entry.confirmed) > self.expire
    }

    fn is_fresh(&self, entry: &Entry) -> bool {
        let age = self.clock.load(Relaxed).saturating_sub(entry.confirmed);
        entry.names.is_some() && age <= self.refresh
    }

    fn shard(&self, id: u128) -> &Shard {
        &self.shards[shard_of(id)]
    }
}

/// GUIDs are random but for a few digits, and these are not among them.
fn shard_of(id: u128) -> usize {
    (id as usize ^ (id >> 64) as usize) % SHARDS
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// For the one task that writes.
impl Cache {
    /// Tells it the time, in seconds since 1970.
    pub(super) fn set_clock(&self, now: u64) {
        self.clock.store(now, Relaxed);
    }

    /// Takes up to `most` ids that are to be asked for.
    pub(super) fn take_wanted(&self, most: usize) -> Vec<u128> {
        let mut ids = Vec::new();
        // Not always from the same end: under a flood every shard has its turn.
        let first = fastrand::usize(..SHARDS);
        for shard in self.shards[first..].iter().chain(&self.shards[..first]) {
            let mut wanted = shard.wanted.lock();
            // All apps may have been told meanwhile.
            let map = shard.map.load();
            wanted.retain(|id| !map.get(id).is_some_and(|entry| self.is_fresh(entry)));
            let left = most - ids.len();
            if left == 0 {
                break;
            }
            if wanted.len() <= left {
                ids.extend(wanted.drain());
            } else {
                let some: Vec<u128> = wanted.iter().copied().take(left).collect();
                wanted.retain(|id| !some.contains(id));
                ids.extend(some);
            }
        }
        ids
    }

    /// Puts ids back that could not be asked for.
    pub(super) fn want_again(&self, ids: &[u128]) {
        for id in ids {
            let mut wanted = self.shard(*id).wanted.lock();
            if wanted.len() < MAX_WAITING {
                wanted.insert(*id);
            }
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.wanted.lock().len())
            .sum()
    }

    /// Takes in answers about ids that were asked for. When there are too many apps then, those go that were not looked up
    /// for longest.
    pub(super) fn learn(&self, told: Vec<(u128, Told)>) {
        self.apply(told, false);
        self.make_room();
    }

    /// Takes in apps that nobody asked for, as far as there is room.
    pub(super) fn learn_if_room(&self, told: Vec<(u128, Told)>) {
        self.apply(told, true);
    }

    fn apply(&self, told: Vec<(u128, Told)>, if_room: bool) {
        let now = self.clock.load(Relaxed);
        let mut room = self.max.saturating_sub(self.len());
        let mut by_shard: Vec<Vec<(u128, Told)>> = (0..SHARDS).map(|_| Vec::new()).collect();
        for (id, told) in told {
            by_shard[shard_of(id)].push((id, told));
        }
        for (shard, told) in self.shards.iter().zip(by_shard) {
            if told.is_empty() {
                continue;
            }
            let mut map = Map::clone(&shard.map.load());
            for (id, told) in told {
                let old = map.get(&id);
                if old.is_none() && if_room {
                    if room == 0 {
                        continue;
                    }
                    room -= 1;
                }
                let used = match old {
                    Some(old) => old.used.load(Relaxed),
                    None if if_room => 0,
                    None => now,
                };
                let entry = self.entry(old, told, used, now);
                map.insert(id, Arc::new(entry));
            }
            shard.map.store(Arc::new(map));
        }
    }

    fn entry(&self, old: Option<&Arc<Entry>>, told: Told, used: u64, now: u64) -> Entry {
        match told {
            Told::Names(names) => {
                let same = old
                    .and_then(|old| old.names.as_ref())
                    .filter(|old| ***old == names);
                Entry {
                    names: Some(same.map_or_else(|| Arc::new(names), Arc::clone)),
                    confirmed: now,
                    ask_at: AtomicU64::new(now + self.varied_refresh()),
                    used: AtomicU64::new(used),
                    doubts: 0,
                }
            }
            Told::Unknown => {
                // The last logs of an app come after it was deleted: it keeps its names for a while.
                let kept = old.filter(|old| old.names.is_some() && !self.has_expired(old, now));
                let doubts = old.map_or(0, |old| old.doubts);
                let pause = FIRST_DOUBT << doubts.min(10);
                Entry {
                    names: kept.and_then(|old| old.names.clone()),
                    confirmed: kept.map_or(now, |old| old.confirmed),
                    ask_at: AtomicU64::new(now + pause.min(LONGEST_DOUBT)),
                    used: AtomicU64::new(used),
                    doubts: doubts + 1,
                }
            }
        }
    }

    /// A little later than `refresh`: what is asked for regularly is never stale, and the rest not all at once.
    fn varied_refresh(&self) -> u64 {
        self.refresh + fastrand::u64(..=self.refresh / 10)
    }

    /// Forgets those that were not looked up for longest, and a few more, so that this is not done for every app.
    fn make_room(&self) {
        let len = self.len();
        if len <= self.max {
            return;
        }
        let gone = (len - self.max + self.max / 50).min(len - 1);
        let mut all: Vec<(u64, u128)> = Vec::with_capacity(len);
        for shard in &self.shards {
            let map = shard.map.load();
            all.extend(
                map.iter()
                    .map(|(id, entry)| (entry.used.load(Relaxed), *id)),
            );
        }
        all.select_nth_unstable(gone - 1);
        let gone: HashSet<u128, FixedState> = all[..gone].iter().map(|(_, id)| *id).collect();
        self.counts.evicted.fetch_add(gone.len() as u64, Relaxed);
        self.retain(|id, _| !gone.contains(&id));
    }

    /// Forgets what the Cloud Controller has not confirmed for too long, and unknown ids that nobody looks up any more.
    pub(super) fn expire(&self) {
        let now = self.clock.load(Relaxed);
        self.retain(|_, entry| {
            let unused = now.saturating_sub(entry.used.load(Relaxed));
            let gone = match &entry.names {
                Some(_) => self.has_expired(entry, now),
                None => unused > 2 * LONGEST_DOUBT,
            };
            if gone && entry.names.is_some() {
                self.counts.expired.fetch_add(1, Relaxed);
            }
            !gone
        });
    }

    fn retain(&self, mut keep: impl FnMut(u128, &Entry) -> bool) {
        for shard in &self.shards {
            let map = shard.map.load();
            let kept: Map = map
                .iter()
                .filter(|(id, entry)| keep(**id, entry))
                .map(|(id, entry)| (*id, Arc::clone(entry)))
                .collect();
            if kept.len() < map.len() {
                shard.map.store(Arc::new(kept));
            }
        }
    }

    /// How many ids there are, known and unknown ones.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.map.load().len()).sum()
    }

    /// How many apps are known, and how many ids are known to be unknown.
    pub(super) fn known(&self) -> (usize, usize) {
        let mut known = 0;
        for shard in &self.shards {
            let map = shard.map.load();
            known += map.values().filter(|entry| entry.names.is_some()).count();
        }
        (known, self.len() - known)
    }

    /// All names, each with when it was confirmed.
    pub(super) fn all(&self) -> Vec<(u128, Arc<Names>, u64)> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let map = shard.map.load();
            let named = |(id, entry): (&u128, &Arc<Entry>)| {
                Some((*id, Arc::clone(entry.names.as_ref()?), entry.confirmed))
            };
            all.extend(map.iter().filter_map(named));
        }
        all
    }

    /// Takes in what an earlier process knew, before anything else is known.
    pub(super) fn restore(&self, all: Vec<(u128, Names, u64)>) {
        let now = self.clock.load(Relaxed);
        let mut by_shard: Vec<Map> = (0..SHARDS).map(|_| Map::default()).collect();
        for (id, names, confirmed) in all.into_iter().take(self.max) {
            // A clock that was ahead does not make names live for ever.
            let confirmed = confirmed.min(now);
            let entry = Entry {
                names: Some(Arc::new(names)),
                confirmed,
                ask_at: AtomicU64::new(confirmed + self.varied_refresh()),
                used: AtomicU64::new(0),
                doubts: 0,
            };
            by_shard[shard_of(id)].insert(id, Arc::new(entry));
        }
        for (shard, map) in self.shards.iter().zip(by_shard) {
            shard.map.store(Arc::new(map));
        }
    }
}

#[cfg(test)]
mod tests;
