//! All series, and what goes into them.
//!
//! A *stream* is what one emitter sends under one name with the same tags. It is found by its bytes, without decoding or
//! allocating, and points at its series. Only the first event of a stream makes names and labels. A *series* is what
//! Prometheus sees; several streams may go into one where tags are left out of the labels.
//!
//! Stream and series live from their last sample for the same time. What is shown and what is added to therefore end
//! together: a series that comes back after that starts from nothing, and none vanishes and comes back with an old value.

pub(crate) mod data;
pub(crate) mod family;
mod fold;
pub(crate) mod native;
mod quantiles;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;

use self::data::Data;
use self::family::{Family, Head, Series};
use crate::config::{Mapping, Profile};
use crate::profile;
use crate::unit::Scale;

pub(crate) use self::fold::Folded;

/// Names that may exist at a time.
const MAX_FAMILIES: usize = 10_000;
/// Bytes of the labels of one series.
const MAX_LABELS: usize = 8192;
/// Bytes that a stream or a series counts beside its key or its labels.
const ENTRY: usize = 128;
/// Bytes of a metric's name.
const MAX_NAME: usize = 512;

/// Why a sample is not taken. The codes are those of the metric `…_refused_samples_total` and of dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refusal {
    /// Nothing in the name can stand in a metric's name, or it is too long.
    InvalidName,
    /// Another raw name became the same metric with the same labels before.
    NameCollision,
    /// The name exists with another type.
    TypeConflict,
    /// The name is one of the profile's own.
    ReservedName,
    /// As many series as `max_series` allows, or as many bytes of labels and tags as `max_bytes` does.
    SeriesLimit,
    /// As many series of this name as `max_series_per_family` allows.
    FamilyLimit,
    /// The labels are longer than 8 KiB, or the names and tags that tell its stream apart longer than 16 KiB.
    LabelsTooLong,
    /// The timer ends before it begins.
    NegativeDuration,
}

impl Refusal {
    pub(crate) const ALL: [Refusal; 8] = [
        Refusal::InvalidName,
        Refusal::NameCollision,
        Refusal::TypeConflict,
        Refusal::ReservedName,
        Refusal::SeriesLimit,
        Refusal::FamilyLimit,
        Refusal::LabelsTooLong,
        Refusal::NegativeDuration,
    ];

    pub(crate) fn code(self) -> &'static str {
        match self {
            Refusal::InvalidName => "invalid_name",
            Refusal::NameCollision => "name_collision",
            Refusal::TypeConflict => "type_conflict",
            Refusal::ReservedName => "reserved_name",
            Refusal::SeriesLimit => "series_limit",
            Refusal::FamilyLimit => "family_limit",
            Refusal::LabelsTooLong => "labels_too_long",
            Refusal::NegativeDuration => "negative_duration",
        }
    }
}

/// Where a series lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub family: u32,
    pub slot: u32,
}

/// What becomes of a stream's samples.
#[derive(Debug, Clone, Copy)]
enum Target {
    /// A counter, with another for the deltas.
    Counter(Place, Option<Place>),
    Gauge(Place, Scale),
    /// Requests, their duration, the size of their answers.
    Http(Place, Place, Place),
    /// A timer's histogram.
    Timer(Place),
    /// Lines and bytes.
    Log(Place, Place),
    Refused(Refusal),
}

#[derive(Debug)]
struct Stream {
    seen: u64,
    target: Target,
    /// Of a counter: the last total, what deltas without one added since, and the time of the last event, in nanoseconds.
    total: u64,
    extra: u64,
    at: i64,
}

/// A series to be: what a profile makes of the first event of a stream.
#[derive(Debug)]
pub(crate) struct Described {
    pub head: Head,
    pub labels: String,
}

/// What the store counts of itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    pub envelopes: Seen,
    pub container: Seen,
    pub http: Seen,
    pub counter: Seen,
    pub value: Seen,
    /// By kind of envelope: counter, gauge, timer, log.
    pub samples: [u64; 4],
    /// Timers that are not exported: the client's view of a request, or of other names.
    pub ignored: u64,
    pub refused: [u64; Refusal::ALL.len()],
    pub expired: u64,
}

/// How many, and when the last came, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub count: u64,
    pub last: i64,
}

impl Seen {
    fn one(&mut self, at: i64) {
        self.count += 1;
        self.last = at;
    }
}

/// All series.
#[derive(Debug)]
pub(crate) struct Store {
    map: Arc<Mapping>,
    streams: HashMap<Box<[u8]>, Stream, RandomState>,
    families: Vec<Option<Family>>,
    free: Vec<u32>,
    names: BTreeMap<String, u32>,
    claims: HashMap<String, u32, RandomState>,
    series: usize,
    /// What the labels of all series and the keys of all streams take.
    bytes: usize,
    hosts: HashSet<Box<str>, RandomState>,
    /// The key of the stream that is looked up.
    key: Vec<u8>,
    /// The series that events since the last [`Store::take_touched`] went into, if somebody wants to know.
    touched: Option<Vec<Place>>,
    pub counts: Counts,
}

impl Store {
    pub(crate) fn new(map: Arc<Mapping>) -> Store {
        let mut store = Store {
            streams: HashMap::default(),
            families: Vec::new(),
            free: Vec::new(),
            names: BTreeMap::new(),
            claims: HashMap::default(),
            series: 0,
            bytes: 0,
            hosts: HashSet::default(),
            key: Vec::with_capacity(1024),
            touched: None,
            counts: Counts::default(),
            map,
        };
        // The profile's own names are taken from the start, by families without series.
        for head in profile::reserved(&store.map) {
            if let Err(refusal) = store.family(head) {
                tracing::error!(?refusal, "a name of the profile cannot be reserved");
            }
        }
        store
    }

    pub(crate) fn map(&self) -> &Arc<Mapping> {
        &self.map
    }

    /// Series that exist.
    pub(crate) fn series(&self) -> usize {
        self.series
    }

    /// What the labels of all series and the keys of all streams take, in bytes.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether so many bytes more may be kept.
    fn has_room(&self, bytes: usize) -> bool {
        self.bytes.saturating_add(bytes) <= self.map.max_bytes
    }

    /// Streams that exist.
    pub(crate) fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Notes from now on which series change.
    pub(crate) fn track(&mut self) {
        self.touched = Some(Vec::new());
    }

    /// The series that changed since, each once.
    pub(crate) fn take_touched(&mut self) -> Vec<Place> {
        let mut touched = self
            .touched
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default();
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    /// Families that have series, in the order of their names.
    pub(crate) fn list(&self) -> Vec<u32> {
        let live = |index: &&u32| {
            let family = self.families[**index as usize].as_ref();
            family.is_some_and(|family| family.live > 0)
        };
        self.names.values().filter(live).copied().collect()
    }

    pub(crate) fn get(&self, family: u32) -> Option<&Family> {
        self.families.get(family as usize)?.as_ref()
    }

    pub(crate) fn at(&mut self, place: Place) -> Option<(&Arc<Head>, &mut Series)> {
        let family = self.families.get_mut(place.family as usize)?.as_mut()?;
        let series = family.series.get_mut(place.slot as usize)?.as_mut()?;
        Some((&family.head, series))
    }

    /// The series that was described, and whether it starts from nothing.
    fn place(
        &mut self,
        raw: &str,
        described: Described,
        now: u64,
    ) -> Result<(Place, bool), Refusal> {
        if described.labels.len() > MAX_LABELS {
            return Err(Refusal::LabelsTooLong);
        }
        let index = self.family(described.head)?;
        let weight = described.labels.len() + ENTRY;
        // With its stream, which is kept after it: there is no series that nothing goes into.
        let both = weight + self.key.len() + ENTRY;
        let room = self.series < self.map.max_series && self.has_room(both);
        let Some(family) = self.families[index as usize].as_mut() else {
            return Err(Refusal::SeriesLimit);
        };
        let before = family.live;
        let placed = family.slot(raw, described.labels, now, &self.map, room);
        if family.live > before {
            self.series += 1;
            self.bytes += weight;
        }
        let (slot, fresh) = placed?;
        let place = Place {
            family: index,
            slot,
        };
        Ok((place, fresh))
    }

    /// The family that was described.
    fn family(&mut self, head: Head) -> Result<u32, Refusal> {
        if let Some(index) = self.names.get(&head.name) {
            let known = self.families[*index as usize].as_ref().map(|f| &f.head);
            return match known {
                Some(known) if known.reserved != head.reserved => Err(Refusal::ReservedName),
                Some(known) if known.kind != head.kind => Err(Refusal::TypeConflict),
                _ => Ok(*index),
            };
        }
        if head.name.len() > MAX_NAME || !crate::name::is_metric_name(&head.name) {
            return Err(Refusal::InvalidName);
        }
        if self.names.len() >= MAX_FAMILIES {
            return Err(Refusal::SeriesLimit);
        }
        let claims = head.claims();
        if let Some(by) = claims.iter().find_map(|name| self.claims.get(name)) {
            let by = self.families[*by as usize].as_ref();
            return Err(if by.is_some_and(|family| family.head.reserved) {
                Refusal::ReservedName
            } else {
                Refusal::TypeConflict
            });
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.families.push(None);
                u32::try_from(self.families.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.claims
            .extend(claims.into_iter().map(|name| (name, index)));
        self.names.insert(head.name.clone(), index);
        self.families[index as usize] = Some(Family::new(head));
        Ok(index)
    }

    /// Removes streams and series whose time is up; `gone` gets them.
    pub(crate) fn sweep(&mut self, now: u64, mut gone: impl FnMut(&Arc<Head>, Series)) {
        let expire_ms = self.map.expire_ms;
        // Streams first: a series is as young as its youngest stream, so that none is left without its series.
        let mut freed = 0;
        self.streams.retain(|key, stream| {
            let lives = now.saturating_sub(stream.seen) < expire_ms;
            freed += if lives { 0 } else { key.len() + ENTRY };
            lives
        });
        for index in 0..self.families.len() {
            let Some(family) = &mut self.families[index] else {
                continue;
            };
            let before = family.live;
            let head = Arc::clone(&family.head);
            family.sweep(now, expire_ms, |series| {
                freed += series.labels.len() + ENTRY;
                gone(&head, series);
            });
            let removed = before - family.live;
            self.series -= removed;
            self.counts.expired += removed as u64;
            if family.live == 0 && !head.reserved {
                for name in head.claims() {
                    self.claims.remove(&name);
                }
                self.names.remove(&head.name);
                self.families[index] = None;
                self.free.push(u32::try_from(index).unwrap_or(u32::MAX));
            }
        }
        self.bytes -= freed;
        if self.hosts.len() >= self.map.max_hosts {
            self.forget_hosts();
        }
    }

    /// Keeps the hosts that some series has.
    fn forget_hosts(&mut self) {
        let families = self.families.iter().flatten();
        let series = families
            .filter(|family| family.head.reserved)
            .flat_map(|family| family.series.iter().flatten());
        let hosts = series.flat_map(|series| crate::labels::pairs(&series.labels));
        let live: HashSet<Box<str>, RandomState> = hosts
            .filter(|(name, _)| *name == "host")
            .map(|(_, host)| host.into())
            .collect();
        self.hosts.retain(|host| live.contains(host));
    }

    /// Shows what ticked series have become, as of `at`, milliseconds since 1970.
    pub(crate) fn tick(&mut self, at: i64) {
        if self.map.profile != Profile::FirehoseExporter {
            return;
        }
        let ticked = self.families.iter_mut().flatten().filter(|f| f.head.ticked);
        for series in ticked.flat_map(|f| f.series.iter_mut().flatten()) {
            if series.changed {
                series.changed = false;
                series.shown = Some(Box::new((series.data.clone(), at)));
            }
        }
    }
}

impl Series {
    /// What a page shows of it, and its timestamp if it has one.
    pub(crate) fn shown(&self, head: &Head) -> Option<(&Data, Option<i64>)> {
        if head.ticked {
            let shown = self.shown.as_ref()?;
            Some((&shown.0, Some(shown.1)))
        } else {
            Some((&self.data, None))
        }
    }

    /// Whether its time is up.
    pub(crate) fn expired(&self, now: u64, map: &Mapping) -> bool {
        now.saturating_sub(self.seen) >= map.expire_ms
    }
}
