//! Metrics of a component: a registry that is passed down, names from one table, Prometheus text.
//!
//! Stages do not touch this module on their hot path. They count with plain atomics of their own and hand
//! [`Metrics::collect`] a closure that reads them when somebody scrapes:
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU64, Ordering};
//! use loggregator_service::metrics::{Metrics, names};
//!
//! let bytes = Arc::new(AtomicU64::new(0));
//! let metrics = Metrics::new();
//! let counted = Arc::clone(&bytes);
//! metrics.collect(move |samples| {
//!     samples.counter(&names::DOPPLER_INGRESS_BYTES, &[], counted.load(Ordering::Relaxed));
//! });
//! bytes.fetch_add(4096, Ordering::Relaxed);
//! assert!(metrics.encode().contains("loggregator_doppler_ingress_bytes_total 4096\n"));
//! ```
//!
//! For counts that are not hot there are [`Metrics::counter`], [`Metrics::gauge`] and [`Metrics::histogram`]; asking
//! twice for the same name and labels gives the same instance.
//!
//! Every name, its labels, unit and help stand in [`names`], from which the reference page is rendered
//! ([`names::markdown`]).

mod def;
pub mod names;
mod process;
mod samples;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder as _, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
    TextEncoder,
};

pub use def::{Kind, MetricDef, Unit};
pub use prometheus::Histogram;
pub use samples::Samples;

/// Content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A component's metrics. Clones share the registry.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

type Collect = Box<dyn Fn(&mut Samples) + Send + Sync>;

struct Inner {
    registry: Registry,
    families: Mutex<Families>,
    collectors: Mutex<Vec<Arc<Collect>>>,
}

#[derive(Default)]
struct Families {
    counters: BTreeMap<&'static str, IntCounterVec>,
    gauges: BTreeMap<&'static str, GaugeVec>,
    histograms: BTreeMap<&'static str, HistogramVec>,
}

/// A metric was asked for in a way that contradicts its entry in the table.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// For example a counter asked for as a gauge.
    #[error("metric {name} is a {is}, not a {wanted}")]
    Kind {
        /// The metric.
        name: &'static str,
        /// Its kind in the table.
        is: &'static str,
        /// The kind asked for.
        wanted: &'static str,
    },
    /// Labels other than those in the table.
    #[error("metric {name} has the labels {expected:?}, given {given:?}")]
    Labels {
        /// The metric.
        name: &'static str,
        /// Its labels in the table.
        expected: &'static [&'static str],
        /// The labels given.
        given: Vec<String>,
    },
    /// The registry refused it.
    #[error("metric {name}")]
    Registry {
        /// The metric.
        name: &'static str,
        /// What the registry says.
        source: prometheus::Error,
    },
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("collectors", &self.inner.collectors.lock().len())
            .finish_non_exhaustive()
    }
}

impl Metrics {
    /// A registry that holds the build information and the process metrics.
    #[must_use]
    pub fn new() -> Self {
        let metrics = Self::empty();
        metrics.collect(|samples| {
            samples.gauge(
                &names::BUILD_INFO,
                &[("version", env!("CARGO_PKG_VERSION"))],
                1.0,
            );
            process::collect(samples);
        });
        metrics
    }

    /// A registry that holds nothing.
    #[must_use]
    pub fn empty() -> Self {
        let inner = Inner {
            registry: Registry::new(),
            families: Mutex::default(),
            collectors: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Calls `collect` at every scrape to add samples. It runs on the admin thread and must not wait.
    pub fn collect(&self, collect: impl Fn(&mut Samples) + Send + Sync + 'static) {
        self.inner
            .collectors
            .lock()
            .push(Arc::new(Box::new(collect)));
    }

    /// A counter, to be kept by the caller; for counts that are not hot.
    ///
    /// # Errors
    /// When `def` is no counter or `labels` are not its labels.
    pub fn counter(
        &self,
        def: &'static MetricDef,
        labels: &[(&str, &str)],
    ) -> Result<IntCounter, MetricsError> {
        let values = self.check(def, Kind::Counter, labels)?;
        let mut families = self.inner.families.lock();
        let family = match families.counters.get(def.name) {
            Some(family) => family.clone(),
            None => {
                let family = IntCounterVec::new(Opts::new(def.name, def.help), def.labels)
                    .map_err(named(def))?;
                self.inner
                    .registry
                    .register(Box::new(family.clone()))
                    .map_err(named(def))?;
                families.counters.insert(def.name, family.clone());
                family
            }
        };
        family
            .get_metric_with_label_values(&values)
            .map_err(named(def))
    }

    /// A gauge, to be kept by the caller.
    ///
    /// # Errors
    /// When `def` is no gauge or `labels` are not its labels.
    pub fn gauge(
        &self,
        def: &'static MetricDef,
        labels: &[(&str, &str)],
    ) -> Result<prometheus::Gauge, MetricsError> {
        let values = self.check(def, Kind::Gauge, labels)?;
        let mut families = self.inner.families.lock();
        let family = match families.gauges.get(def.name) {
            Some(family) => family.clone(),
            None => {
                let family =
                    GaugeVec::new(Opts::new(def.name, def.help), def.labels).map_err(named(def))?;
                self.inner
                    .registry
                    .register(Box::new(family.clone()))
                    .map_err(named(def))?;
                families.gauges.insert(def.name, family.clone());
                family
            }
        };
        family
            .get_metric_with_label_values(&values)
            .map_err(named(def))
    }

    /// A histogram with the buckets of its entry in the table, to be kept by the caller.
    ///
    /// # Errors
    /// When `def` is no histogram or `labels` are not its labels.
    pub fn histogram(
        &self,
        def: &'static MetricDef,
        labels: &[(&str, &str)],
    ) -> Result<Histogram, MetricsError> {
        let values = self.check(def, Kind::Histogram(&[]), labels)?;
        let buckets = match def.kind {
            Kind::Histogram(buckets) => buckets.to_vec(),
            Kind::Counter | Kind::Gauge => Vec::new(),
        };
        let mut families = self.inner.families.lock();
        let family = match families.histograms.get(def.name) {
            Some(family) => family.clone(),
            None => {
                let opts = HistogramOpts::new(def.name, def.help).buckets(buckets);
                let family = HistogramVec::new(opts, def.labels).map_err(named(def))?;
                self.inner
                    .registry
                    .register(Box::new(family.clone()))
                    .map_err(named(def))?;
                families.histograms.insert(def.name, family.clone());
                family
            }
        };
        family
            .get_metric_with_label_values(&values)
            .map_err(named(def))
    }

    /// Everything, in Prometheus text form, sorted by name.
    #[must_use]
    pub fn encode(&self) -> String {
        // Collectors may take locks of their own; none of ours is held while they run.
        let collectors = self.inner.collectors.lock().clone();
        let mut samples = Samples::default();
        collectors.iter().for_each(|collect| collect(&mut samples));
        let families = merge(self.inner.registry.gather(), samples.into_families());
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&families, &mut text) {
            tracing::error!(%error, "metrics cannot be encoded");
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The label values in the order of the table.
    fn check<'v>(
        &self,
        def: &'static MetricDef,
        wanted: Kind,
        labels: &[(&str, &'v str)],
    ) -> Result<Vec<&'v str>, MetricsError> {
        if def.kind.name() != wanted.name() {
            return Err(MetricsError::Kind {
                name: def.name,
                is: def.kind.name(),
                wanted: wanted.name(),
            });
        }
        let values: Option<Vec<&str>> = def
            .labels
            .iter()
            .map(|wanted| {
                labels
                    .iter()
                    .find(|(label, _)| label == wanted)
                    .map(|(_, value)| *value)
            })
            .collect();
        match values {
            Some(values) if values.len() == labels.len() => Ok(values),
            _ => Err(MetricsError::Labels {
                name: def.name,
                expected: def.labels,
                given: labels
                    .iter()
                    .map(|(label, _)| (*label).to_owned())
                    .collect(),
            }),
        }
    }
}

fn named(def: &'static MetricDef) -> impl Fn(prometheus::Error) -> MetricsError {
    move |source| MetricsError::Registry {
        name: def.name,
        source,
    }
}

/// One family per name, sorted, families without samples left out.
fn merge(registered: Vec<MetricFamily>, collected: Vec<MetricFamily>) -> Vec<MetricFamily> {
    let mut by_name: BTreeMap<String, MetricFamily> = BTreeMap::new();
    for mut family in registered.into_iter().chain(collected) {
        if family.get_metric().is_empty() {
            continue;
        }
        match by_name.get_mut(family.name()) {
            Some(known) => known.mut_metric().append(&mut family.take_metric()),
            None => {
                by_name.insert(family.name().to_owned(), family);
            }
        }
    }
    by_name.into_values().collect()
}

#[cfg(test)]
mod tests;
