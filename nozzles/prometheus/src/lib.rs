//! The destination Prometheus: series made of counters, gauges, timers and, where asked for, log lines.
//!
//! ```text
//! event ──► stream (its bytes) ──► series ──┬─► page: text 0.0.4, OpenMetrics 1.0, protobuf   (scraped)
//!            one look-up          store     └─► remote write 1.0, 2.0                        (writes)
//! ```
//!
//! - `deliver` folds events into the store. A stream that is known costs one look-up by its bytes and no allocation.
//! - A profile makes names and labels of a stream's first event: `clean` by the conventions of Prometheus, or
//!   `firehose_exporter` for the dashboards of that program.
//! - The page is rendered while `deliver` goes on: the store is locked for a few hundred series at a time.
//! - With `[destination.prometheus.remote_write]` samples are sent instead, and an event counts as delivered when the receiver
//!   has confirmed the samples of the series that it changed.
//!
//! Members of one shard see any part of the events. Totals of counters are whole at each of them; requests, timers, log rates
//! and deltas are the part that a member saw and must be summed, over the label by which members differ (`labels`, or
//! `node_index` of the profile `firehose_exporter`). With `select.deterministic_name` a source always comes to the same member
//! and there is nothing to sum.

mod clock;
mod config;
mod labels;
mod metrics;
mod name;
mod page;
mod profile;
mod remote;
mod scrape;
mod serve;
mod store;
mod tags;
#[cfg(test)]
mod tests;
mod unit;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use loggregator_envelope::{Kind as EnvelopeKind, KindSet};
use loggregator_nozzle::config::{ConfigErrors, Section};
use loggregator_nozzle::{
    BoxFuture, Context, DynDestination, Event, Kind, Limits, Plan, Reason, Rendered, StartError,
};
use parking_lot::Mutex;

use crate::config::{Config, Mapping};
use crate::store::{Folded, Refusal, Store};

pub use crate::config::Profile;

/// The kind `prometheus`.
#[derive(Debug, Clone, Default)]
pub struct PrometheusKind {
    pages: Pages,
}

/// Where the pages of running destinations are served. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Pages {
    addrs: Arc<Mutex<BTreeMap<String, SocketAddr>>>,
}

impl Pages {
    /// The address of the page of this destination, once it is started. It tells the port where 0 was asked for.
    #[must_use]
    pub fn addr(&self, destination: &str) -> Option<SocketAddr> {
        self.addrs.lock().get(destination).copied()
    }

    fn bound(&self, destination: &str, addr: SocketAddr) {
        self.addrs.lock().insert(destination.to_owned(), addr);
    }
}

impl PrometheusKind {
    /// The kind.
    #[must_use]
    pub fn new() -> PrometheusKind {
        PrometheusKind::default()
    }

    /// Where the pages of the destinations of this kind are served.
    #[must_use]
    pub fn pages(&self) -> Pages {
        self.pages.clone()
    }
}

impl Kind for PrometheusKind {
    fn name(&self) -> &'static str {
        "prometheus"
    }

    fn about(&self) -> &'static str {
        "metrics for Prometheus: a page to scrape, or remote write"
    }

    fn example(&self) -> &'static str {
        include_str!("example.toml")
    }

    fn plan(&self, section: &Section) -> Result<Box<dyn Plan>, ConfigErrors> {
        let config = Config::read(section)?;
        Ok(Box::new(Planned {
            map: Arc::new(config.mapping()),
            pages: self.pages.clone(),
            config,
        }))
    }
}

/// A destination that is configured.
#[derive(Debug)]
struct Planned {
    config: Config,
    map: Arc<Mapping>,
    pages: Pages,
}

impl Plan for Planned {
    fn guarantee(&self) -> String {
        if self.config.remote_write.is_some() {
            return "at least once: an event counts as delivered when the receiver has confirmed a sample, of the event's time or \
                    later, of each series that it changed; a sample that comes twice is the same sample. The series are in memory \
                    and start over with the process: totals of counters then go on where their emitter is, everything else is \
                    counted from 0, which Prometheus takes for the reset that it is"
                .to_owned();
        }
        "at most once: an event counts as delivered when the page shows it. The series are in memory and start over with \
         the process; totals of counters then go on where their emitter is, everything else is counted from 0, which \
         Prometheus takes for the reset that it is"
            .to_owned()
    }

    fn limits(&self) -> Limits {
        if self.config.remote_write.is_none() {
            return Limits::default();
        }
        // One sample per series and batch: longer batches are fewer samples.
        Limits {
            batch_events: 10_000,
            batch_bytes: 8 << 20,
            linger: Duration::from_secs(5),
            in_flight: 1,
        }
    }

    fn accepts(&self) -> KindSet {
        let mut kinds = KindSet::EMPTY;
        kinds.insert(EnvelopeKind::Counter);
        kinds.insert(EnvelopeKind::Gauge);
        if self.map.http || self.map.timers {
            kinds.insert(EnvelopeKind::Timer);
        }
        if self.map.log_rates {
            kinds.insert(EnvelopeKind::Log);
        }
        kinds
    }

    fn render(&self, event: &Event) -> Result<Vec<Rendered>, Reason> {
        let mut store = Store::new(Arc::clone(&self.map));
        store.track();
        if let Folded::Refused(refusal) = store.fold(event, 0) {
            return Err(reason(refusal, &self.map));
        }
        let mut rendered = Vec::new();
        for place in store.take_touched() {
            if let Some((head, series)) = store.at(place) {
                for line in page::lines(head, &series.labels, &series.data, 0) {
                    rendered.push(Rendered {
                        fields: vec![("type", head.kind.name().to_owned())],
                        body: line.into(),
                    });
                }
            }
        }
        Ok(rendered)
    }

    fn start(
        &self,
        context: Context,
    ) -> BoxFuture<'_, Result<Arc<dyn DynDestination>, StartError>> {
        Box::pin(async move {
            let destination: Arc<dyn DynDestination> = match &self.config.remote_write {
                Some(remote) => remote::start(remote, &self.map, &context)?,
                None => Arc::new(scrape::start(
                    &self.config,
                    &self.map,
                    &self.pages,
                    &context,
                )?),
            };
            Ok(destination)
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<String, Reason>> {
        Box::pin(async move {
            match &self.config.remote_write {
                Some(remote) => remote::probe(remote).await,
                None => Ok("nothing to connect to: Prometheus comes here".to_owned()),
            }
        })
    }
}

/// A refusal, for the framework.
fn reason(refusal: Refusal, map: &Mapping) -> Reason {
    let detail = match refusal {
        Refusal::InvalidName => "no metric can have this name".to_owned(),
        Refusal::NameCollision => {
            "another name became the same metric with the same labels before".to_owned()
        }
        Refusal::TypeConflict => "the metric exists with another type".to_owned(),
        Refusal::ReservedName => "the name is one of the profile's own".to_owned(),
        Refusal::SeriesLimit => format!(
            "more than max_series = {}, or than max_bytes = {}",
            map.max_series, map.max_bytes
        ),
        Refusal::FamilyLimit => format!(
            "more than max_series_per_family = {}",
            map.max_series_per_family
        ),
        Refusal::LabelsTooLong => {
            "the labels are longer than 8 KiB, or all tags longer than 16 KiB".to_owned()
        }
        Refusal::NegativeDuration => "the timer ends before it begins".to_owned(),
    };
    Reason::new(refusal.code(), detail)
}
