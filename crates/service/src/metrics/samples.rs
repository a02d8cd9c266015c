//! Samples taken at scrape time.

use std::collections::BTreeMap;

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::{Kind, MetricDef};

/// What a collector adds its samples to.
#[derive(Default)]
pub struct Samples {
    families: BTreeMap<&'static str, MetricFamily>,
}

impl Samples {
    /// A counter's value. Beyond 2^53 the text form loses the last digits, as every Prometheus value does.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus values are doubles")]
    pub fn counter(&mut self, def: &'static MetricDef, labels: &[(&str, &str)], value: u64) {
        self.counter_f64(def, labels, value as f64);
    }

    /// A counter's value that is not whole, such as CPU seconds.
    pub fn counter_f64(&mut self, def: &'static MetricDef, labels: &[(&str, &str)], value: f64) {
        debug_assert!(
            matches!(def.kind, Kind::Counter),
            "{} is no counter",
            def.name
        );
        let mut counter = Counter::default();
        counter.set_value(value);
        let mut metric = Metric::from_label(pairs(def, labels));
        metric.set_counter(counter);
        self.push(def, MetricType::COUNTER, metric);
    }

    /// A gauge's value.
    pub fn gauge(&mut self, def: &'static MetricDef, labels: &[(&str, &str)], value: f64) {
        debug_assert!(matches!(def.kind, Kind::Gauge), "{} is no gauge", def.name);
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = Metric::from_label(pairs(def, labels));
        metric.set_gauge(gauge);
        self.push(def, MetricType::GAUGE, metric);
    }

    /// A gauge's value that is a count.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus values are doubles")]
    pub fn gauge_count(&mut self, def: &'static MetricDef, labels: &[(&str, &str)], value: u64) {
        self.gauge(def, labels, value as f64);
    }

    fn push(&mut self, def: &'static MetricDef, kind: MetricType, metric: Metric) {
        let family = self.families.entry(def.name).or_insert_with(|| {
            let mut family = MetricFamily::default();
            family.set_name(def.name.to_owned());
            family.set_help(def.help.to_owned());
            family.set_field_type(kind);
            family
        });
        family.mut_metric().push(metric);
    }

    pub(super) fn into_families(self) -> Vec<MetricFamily> {
        self.families.into_values().collect()
    }
}

fn pairs(def: &'static MetricDef, labels: &[(&str, &str)]) -> Vec<LabelPair> {
    debug_assert!(
        def.labels.len() == labels.len()
            && labels.iter().all(|(name, _)| def.labels.contains(name)),
        "{} has the labels {:?}, given {labels:?}",
        def.name,
        def.labels,
    );
    labels
        .iter()
        .map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        })
        .collect()
}
