//! The messages of remote write: `prometheus.WriteRequest` of 1.0, `io.prometheus.write.v2.Request` of 2.0.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message;

use crate::config::Protocol;
use crate::labels;
use crate::page::{QUANTILES, number};
use crate::store::data::Data;
use crate::store::family::{Head, Kind};

/// A value that says that a series has ended. It is a NaN that no measurement is.
pub(super) const STALE: u64 = 0x7ff0_0000_0000_0002;

/// A series as it is to be written.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub head: Arc<Head>,
    pub labels: Arc<str>,
    pub data: Data,
    /// Milliseconds since 1970.
    pub at: i64,
    /// The series has ended.
    pub stale: bool,
}

/// One sample with all labels, `__name__` among them, in the order of their names.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    labels: Vec<(String, String)>,
    value: f64,
}

impl Snapshot {
    /// How many samples it is.
    pub(super) fn len(&self) -> usize {
        match &self.data {
            Data::Counter(_) | Data::Gauge(_) => 1,
            Data::Histogram(histogram) => histogram.counts.len() + 2,
            Data::Summary(_) => QUANTILES.len() + 2,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "as every Prometheus value")]
    fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::with_capacity(self.len());
        let mut line = |end: &str, extra: Option<(&str, f64)>, value: f64| {
            lines.push(self.line(end, extra, value));
        };
        match &self.data {
            Data::Counter(value) => {
                let end = if self.head.total { "_total" } else { "" };
                line(end, None, *value as f64);
            }
            Data::Gauge(value) => line("", None, *value),
            Data::Histogram(histogram) => {
                for (bound, count) in histogram.cumulative() {
                    line("_bucket", Some(("le", bound)), count as f64);
                }
                line("_sum", None, histogram.sum);
                line("_count", None, histogram.count() as f64);
            }
            Data::Summary(summary) => {
                // The clock of a store that is written remotely is milliseconds since 1970.
                let now = u64::try_from(self.at).unwrap_or_default();
                let values = summary.quantiles.values(QUANTILES, now);
                for (quantile, value) in QUANTILES.into_iter().zip(values) {
                    line("", Some(("quantile", quantile)), value);
                }
                line("_sum", None, summary.sum);
                line("_count", None, summary.count as f64);
            }
        }
        lines
    }

    fn line(&self, end: &str, extra: Option<(&str, f64)>, value: f64) -> Line {
        let mut labels: Vec<(String, String)> = labels::pairs(&self.labels)
            .map(|(name, value)| (name.to_owned(), value.into_owned()))
            .collect();
        if let Some((name, bound)) = extra {
            let mut text = Vec::new();
            number::write(&mut text, bound);
            let text = String::from_utf8_lossy(&text).into_owned();
            labels.push((name.to_owned(), text));
        }
        labels.push(("__name__".to_owned(), format!("{}{end}", self.head.name)));
        labels.sort();
        let value = match (self.stale, value.is_nan()) {
            (true, _) => f64::from_bits(STALE),
            // No other NaN may look like the end of a series.
            (false, true) => f64::NAN,
            (false, false) => value,
        };
        Line { labels, value }
    }

    /// The family's name as receivers know it, and its type in the messages.
    fn metadata(&self) -> (String, i32) {
        let end = if self.head.total { "_total" } else { "" };
        let name = format!("{}{end}", self.head.name);
        let kind = match self.head.kind {
            Kind::Counter => 1,
            Kind::Gauge => 2,
            Kind::Histogram => 3,
            Kind::Summary => 5,
        };
        (name, kind)
    }
}

/// The body of a request, before compression.
pub(super) fn encode(snapshots: &[Snapshot], protocol: Protocol) -> Vec<u8> {
    match protocol {
        Protocol::V1 => v1(snapshots).encode_to_vec(),
        Protocol::V2 => v2(snapshots).encode_to_vec(),
    }
}

fn v1(snapshots: &[Snapshot]) -> WriteRequest {
    let mut request = WriteRequest::default();
    for snapshot in snapshots {
        for line in snapshot.lines() {
            let labels = line.labels.into_iter();
            request.timeseries.push(TimeSeries {
                labels: labels.map(|(name, value)| Label { name, value }).collect(),
                samples: vec![Sample {
                    value: line.value,
                    timestamp: snapshot.at,
                }],
            });
        }
        let (metric_family_name, kind) = snapshot.metadata();
        let known = &request.metadata;
        if !snapshot.stale
            && !known
                .iter()
                .any(|m| m.metric_family_name == metric_family_name)
        {
            request.metadata.push(MetricMetadata {
                r#type: kind,
                metric_family_name,
                help: snapshot.head.help.clone(),
                unit: snapshot.head.unit.unwrap_or_default().to_owned(),
            });
        }
    }
    request
}

fn v2(snapshots: &[Snapshot]) -> Request {
    // The first symbol is the empty text.
    let mut symbols = Symbols::default();
    symbols.get("");
    let mut timeseries = Vec::new();
    for snapshot in snapshots {
        let (_, kind) = snapshot.metadata();
        let metadata = Metadata {
            r#type: kind,
            help_ref: symbols.get(&snapshot.head.help),
            unit_ref: symbols.get(snapshot.head.unit.unwrap_or_default()),
        };
        for line in snapshot.lines() {
            let refs = line
                .labels
                .iter()
                .flat_map(|(name, value)| [symbols.get(name), symbols.get(value)]);
            timeseries.push(TimeSeries2 {
                labels_refs: refs.collect::<Vec<u32>>(),
                samples: vec![Sample {
                    value: line.value,
                    timestamp: snapshot.at,
                }],
                metadata: Some(metadata),
            });
        }
    }
    Request {
        symbols: symbols.list,
        timeseries,
    }
}

#[derive(Debug, Default)]
struct Symbols {
    list: Vec<String>,
    known: HashMap<String, u32>,
}

impl Symbols {
    fn get(&mut self, text: &str) -> u32 {
        if let Some(at) = self.known.get(text) {
            return *at;
        }
        let at = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.list.push(text.to_owned());
        self.known.insert(text.to_owned(), at);
        at
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
    #[prost(message, repeated, tag = "3")]
    pub metadata: Vec<MetricMetadata>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Label {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Sample {
    #[prost(double, tag = "1")]
    pub value: f64,
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetricMetadata {
    #[prost(int32, tag = "1")]
    pub r#type: i32,
    #[prost(string, tag = "2")]
    pub metric_family_name: String,
    #[prost(string, tag = "4")]
    pub help: String,
    #[prost(string, tag = "5")]
    pub unit: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Request {
    #[prost(string, repeated, tag = "4")]
    pub symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    pub timeseries: Vec<TimeSeries2>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TimeSeries2 {
    #[prost(uint32, repeated, tag = "1")]
    pub labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    #[prost(message, optional, tag = "5")]
    pub metadata: Option<Metadata>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Metadata {
    #[prost(int32, tag = "1")]
    pub r#type: i32,
    #[prost(uint32, tag = "3")]
    pub help_ref: u32,
    #[prost(uint32, tag = "4")]
    pub unit_ref: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(stale: bool) -> Snapshot {
        let mut head = Head::new(Kind::Counter, "hits".to_owned(), "Hits.".to_owned());
        head.unit = Some("bytes");
        Snapshot {
            head: Arc::new(head),
            labels: "zone=\"z\",Aa=\"\\\"\"".into(),
            data: Data::Counter(3),
            at: 17,
            stale,
        }
    }

    #[test]
    fn labels_are_in_the_order_of_their_names() {
        let body = encode(&[snapshot(false), snapshot(false)], Protocol::V1);
        let request = WriteRequest::decode(body.as_slice()).unwrap();
        let names: Vec<_> = request.timeseries[0]
            .labels
            .iter()
            .map(|l| l.name.as_str())
            .collect();
        assert_eq!(names, ["Aa", "__name__", "zone"]);
        assert_eq!(request.timeseries[0].labels[0].value, "\"");
        assert_eq!(
            request.timeseries[0].samples,
            [Sample {
                value: 3.0,
                timestamp: 17
            }]
        );
        assert_eq!(request.metadata.len(), 1);
        assert_eq!(request.metadata[0].metric_family_name, "hits_total");
    }

    #[test]
    fn an_ended_series_has_the_one_nan_that_says_so() {
        let body = encode(&[snapshot(true)], Protocol::V1);
        let request = WriteRequest::decode(body.as_slice()).unwrap();
        assert_eq!(request.timeseries[0].samples[0].value.to_bits(), STALE);
        let mut gauge = snapshot(false);
        gauge.data = Data::Gauge(f64::from_bits(STALE));
        let body = encode(&[gauge], Protocol::V1);
        let request = WriteRequest::decode(body.as_slice()).unwrap();
        assert_ne!(request.timeseries[0].samples[0].value.to_bits(), STALE);
    }

    #[test]
    fn version_two_says_each_text_once() {
        let body = encode(&[snapshot(false), snapshot(false)], Protocol::V2);
        let request = Request::decode(body.as_slice()).unwrap();
        assert_eq!(
            request.symbols,
            [
                "",
                "Hits.",
                "bytes",
                "Aa",
                "\"",
                "__name__",
                "hits_total",
                "zone",
                "z"
            ]
        );
        assert_eq!(request.timeseries[1].labels_refs, [3, 4, 5, 6, 7, 8]);
        let metadata = Metadata {
            r#type: 1,
            help_ref: 1,
            unit_ref: 2,
        };
        assert_eq!(request.timeseries[0].metadata, Some(metadata));
    }
}
