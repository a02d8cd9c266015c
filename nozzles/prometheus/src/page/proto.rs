//! The protobuf format: messages of `io.prometheus.client`, each behind its length.

use prost::Message;

use super::{QUANTILES, Writer};
use crate::labels;
use crate::store::data::{Data, Exemplar as Kept};
use crate::store::family::{Head, Kind};
use crate::store::native;

/// A page of messages.
#[derive(Debug, Default)]
pub(super) struct Page {
    out: Vec<u8>,
    family: MetricFamily,
}

impl Writer for Page {
    fn begin(&mut self, head: &Head) {
        let end = if head.total { "_total" } else { "" };
        self.family = MetricFamily {
            name: format!("{}{end}", head.name),
            help: head.help.clone(),
            r#type: match head.kind {
                Kind::Counter => 0,
                Kind::Gauge => 1,
                Kind::Summary => 2,
                Kind::Histogram => 4,
            },
            metric: Vec::new(),
            unit: head.unit.unwrap_or_default().to_owned(),
        };
    }

    #[expect(clippy::cast_precision_loss, reason = "as every Prometheus value")]
    fn series(&mut self, _: &Head, labels: &str, data: &Data, timestamp: Option<i64>, now: u64) {
        let label = labels::pairs(labels).map(|(name, value)| LabelPair {
            name: name.to_owned(),
            value: value.into_owned(),
        });
        let mut metric = Metric {
            label: label.collect(),
            timestamp_ms: timestamp.unwrap_or_default(),
            ..Metric::default()
        };
        match data {
            Data::Counter(value) => {
                metric.counter = Some(Counter {
                    value: *value as f64,
                });
            }
            Data::Gauge(value) => metric.gauge = Some(Gauge { value: *value }),
            Data::Summary(summary) => {
                let values = summary.quantiles.values(QUANTILES, now);
                let quantile = QUANTILES.into_iter().zip(values);
                metric.summary = Some(Summary {
                    sample_count: summary.count,
                    sample_sum: summary.sum,
                    quantile: quantile
                        .map(|(quantile, value)| Quantile { quantile, value })
                        .collect(),
                });
            }
            Data::Histogram(histogram) => {
                let bucket = histogram
                    .cumulative()
                    .enumerate()
                    .map(|(i, (bound, count))| {
                        let kept = histogram.exemplars.get(i).and_then(Option::as_ref);
                        Bucket {
                            cumulative_count: count,
                            upper_bound: bound,
                            exemplar: kept.map(exemplar),
                        }
                    });
                let mut message = Histogram {
                    sample_count: histogram.count(),
                    sample_sum: histogram.sum,
                    bucket: bucket.collect(),
                    ..Histogram::default()
                };
                if let Some(native) = &histogram.native {
                    let (spans, deltas) = native.spans();
                    message.schema = i32::from(native.schema);
                    message.zero_threshold = native::ZERO;
                    message.zero_count = native.zero;
                    message.positive_span = spans
                        .into_iter()
                        .map(|(offset, length)| BucketSpan { offset, length })
                        .collect();
                    message.positive_delta = deltas;
                }
                metric.histogram = Some(message);
            }
        }
        self.family.metric.push(metric);
    }

    fn end(&mut self) {
        let family = std::mem::take(&mut self.family);
        self.out.extend(family.encode_length_delimited_to_vec());
    }

    fn finish(self: Box<Self>) -> Vec<u8> {
        self.out
    }
}

fn exemplar(kept: &Kept) -> Exemplar {
    Exemplar {
        label: vec![LabelPair {
            name: "request_id".to_owned(),
            value: kept.request_id.clone(),
        }],
        value: kept.value,
        timestamp: Some(Timestamp {
            seconds: kept.at.div_euclid(1000),
            nanos: i32::try_from(kept.at.rem_euclid(1000) * 1_000_000).unwrap_or_default(),
        }),
    }
}

// The messages of io/prometheus/client/metrics.proto, as far as they are used.

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LabelPair {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Gauge {
    #[prost(double, tag = "1")]
    pub value: f64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Counter {
    #[prost(double, tag = "1")]
    pub value: f64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Quantile {
    #[prost(double, tag = "1")]
    pub quantile: f64,
    #[prost(double, tag = "2")]
    pub value: f64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Summary {
    #[prost(uint64, tag = "1")]
    pub sample_count: u64,
    #[prost(double, tag = "2")]
    pub sample_sum: f64,
    #[prost(message, repeated, tag = "3")]
    pub quantile: Vec<Quantile>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Histogram {
    #[prost(uint64, tag = "1")]
    pub sample_count: u64,
    #[prost(double, tag = "2")]
    pub sample_sum: f64,
    #[prost(message, repeated, tag = "3")]
    pub bucket: Vec<Bucket>,
    #[prost(sint32, tag = "5")]
    pub schema: i32,
    #[prost(double, tag = "6")]
    pub zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    pub zero_count: u64,
    #[prost(message, repeated, tag = "12")]
    pub positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "13")]
    pub positive_delta: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Bucket {
    #[prost(uint64, tag = "1")]
    pub cumulative_count: u64,
    #[prost(double, tag = "2")]
    pub upper_bound: f64,
    #[prost(message, optional, tag = "3")]
    pub exemplar: Option<Exemplar>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct BucketSpan {
    #[prost(sint32, tag = "1")]
    pub offset: i32,
    #[prost(uint32, tag = "2")]
    pub length: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    pub label: Vec<LabelPair>,
    #[prost(double, tag = "2")]
    pub value: f64,
    #[prost(message, optional, tag = "3")]
    pub timestamp: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Metric {
    #[prost(message, repeated, tag = "1")]
    pub label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    pub gauge: Option<Gauge>,
    #[prost(message, optional, tag = "3")]
    pub counter: Option<Counter>,
    #[prost(message, optional, tag = "4")]
    pub summary: Option<Summary>,
    #[prost(int64, tag = "6")]
    pub timestamp_ms: i64,
    #[prost(message, optional, tag = "7")]
    pub histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetricFamily {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub help: String,
    #[prost(int32, tag = "3")]
    pub r#type: i32,
    #[prost(message, repeated, tag = "4")]
    pub metric: Vec<Metric>,
    #[prost(string, tag = "5")]
    pub unit: String,
}
