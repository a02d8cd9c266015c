//! Series of one name.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::Refusal;
use super::data::{Data, Histogram, Summary};
use crate::config::Mapping;

/// What the series of a family have in common.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Head {
    /// Its name; of a counter the name without `_total`.
    pub name: String,
    pub kind: Kind,
    pub help: String,
    /// The base unit with which the name ends.
    pub unit: Option<&'static str>,
    /// Whether the counter's samples end in `_total`.
    pub total: bool,
    /// Whether what is shown changes only every ten seconds, and says when.
    pub ticked: bool,
    /// Upper bounds of a histogram are those for sizes.
    pub sizes: bool,
    /// The profile's own names, which no emitter can take.
    pub reserved: bool,
}

/// The types of Prometheus that we have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
        }
    }
}

impl Head {
    pub(crate) fn new(kind: Kind, name: String, help: String) -> Head {
        Head {
            name,
            kind,
            help,
            unit: None,
            total: kind == Kind::Counter,
            ticked: false,
            sizes: false,
            reserved: false,
        }
    }

    /// The names of its samples, and those that OpenMetrics keeps for it: no other family may have one of them.
    pub(crate) fn claims(&self) -> Vec<String> {
        let ends: &[&str] = match self.kind {
            Kind::Counter if self.total => &["", "_total", "_created"],
            Kind::Counter | Kind::Gauge => &[""],
            Kind::Histogram => &["", "_bucket", "_sum", "_count", "_created"],
            Kind::Summary => &["", "_sum", "_count", "_created"],
        };
        let name = &self.name;
        ends.iter().map(|end| format!("{name}{end}")).collect()
    }

    /// A series without anything in it.
    pub(crate) fn empty(&self, map: &Mapping) -> Data {
        match self.kind {
            Kind::Counter => Data::Counter(0),
            Kind::Gauge => Data::Gauge(0.0),
            Kind::Histogram => {
                let bounds = if self.sizes {
                    &map.sizes
                } else {
                    &map.durations
                };
                Data::Histogram(Box::new(Histogram::new(bounds, map.native)))
            }
            Kind::Summary => Data::Summary(Box::<Summary>::default()),
        }
    }
}

/// One series.
#[derive(Debug)]
pub(crate) struct Series {
    /// As they stand between the braces.
    pub labels: Arc<str>,
    pub data: Data,
    /// When the last sample came, milliseconds of the store's clock.
    pub seen: u64,
    /// Whether it changed since the last tick.
    pub changed: bool,
    /// What a ticked family shows, and the tick, milliseconds since 1970.
    pub shown: Option<Box<(Data, i64)>>,
    /// Timestamp of the last sample that was made of it for a remote store, milliseconds since 1970; `i64::MIN`: none was.
    pub sent: i64,
    /// Streams of samples that went into it so far.
    pub streams: u32,
    /// Index of the raw name from which it was made.
    raw: u16,
}

/// A family.
#[derive(Debug)]
pub(crate) struct Family {
    pub head: Arc<Head>,
    pub series: Vec<Option<Series>>,
    pub live: usize,
    by_labels: HashMap<Arc<str>, u32, RandomState>,
    free: Vec<u32>,
    raws: Vec<Box<str>>,
    /// Whether a collision was logged already.
    warned: bool,
}

/// Different raw names that may become one name.
const MAX_RAWS: usize = 64;

impl Family {
    pub(crate) fn new(head: Head) -> Family {
        Family {
            head: Arc::new(head),
            series: Vec::new(),
            live: 0,
            by_labels: HashMap::default(),
            free: Vec::new(),
            raws: Vec::new(),
            warned: false,
        }
    }

    /// The slot of the series with these labels, and whether it starts from nothing.
    pub(crate) fn slot(
        &mut self,
        raw: &str,
        labels: String,
        now: u64,
        map: &Mapping,
        room: bool,
    ) -> Result<(u32, bool), Refusal> {
        let raw = self.raw(raw)?;
        if let Some(slot) = self.by_labels.get(labels.as_str()).copied() {
            let Some(series) = &mut self.series[slot as usize] else {
                return Err(Refusal::SeriesLimit);
            };
            let fresh = now.saturating_sub(series.seen) >= map.expire_ms;
            if fresh {
                series.data = self.head.empty(map);
                (series.shown, series.streams, series.raw) = (None, 0, raw);
            } else if series.raw != raw {
                let known = series.raw;
                self.warn(known, raw);
                return Err(Refusal::NameCollision);
            }
            series.streams = series.streams.saturating_add(1);
            return Ok((slot, fresh));
        }
        if !room {
            return Err(Refusal::SeriesLimit);
        }
        if self.live >= map.max_series_per_family {
            return Err(Refusal::FamilyLimit);
        }
        let labels: Arc<str> = labels.into();
        let series = Series {
            labels: Arc::clone(&labels),
            data: self.head.empty(map),
            seen: now,
            changed: true,
            shown: None,
            sent: i64::MIN,
            streams: 1,
            raw,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.series[slot as usize] = Some(series);
                slot
            }
            None => {
                self.series.push(Some(series));
                u32::try_from(self.series.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.by_labels.insert(labels, slot);
        self.live += 1;
        Ok((slot, true))
    }

    fn raw(&mut self, raw: &str) -> Result<u16, Refusal> {
        let known = self.raws.iter().position(|known| **known == *raw);
        let at = match known {
            Some(at) => at,
            None if self.raws.len() < MAX_RAWS => {
                self.raws.push(raw.into());
                self.raws.len() - 1
            }
            None => return Err(Refusal::NameCollision),
        };
        Ok(u16::try_from(at).unwrap_or(u16::MAX))
    }

    fn warn(&mut self, first: u16, second: u16) {
        if !self.warned {
            self.warned = true;
            tracing::warn!(
                metric = self.head.name,
                kept = self.raws[usize::from(first)],
                refused = self.raws[usize::from(second)],
                "two names become the same metric with the same labels; the first is kept"
            );
        }
    }

    /// Removes series whose time is up.
    pub(crate) fn sweep(&mut self, now: u64, expire_ms: u64, mut gone: impl FnMut(Series)) {
        for slot in 0..self.series.len() {
            let expired = self.series[slot]
                .as_ref()
                .is_some_and(|series| now.saturating_sub(series.seen) >= expire_ms);
            if expired && let Some(series) = self.series[slot].take() {
                self.by_labels.remove(&series.labels);
                self.free.push(u32::try_from(slot).unwrap_or(u32::MAX));
                self.live -= 1;
                gone(series);
            }
        }
    }
}
