//! The text formats: Prometheus 0.0.4, and OpenMetrics 1.0.

use super::{QUANTILES, Writer, number};
use crate::labels;
use crate::store::data::{Data, Exemplar};
use crate::store::family::{Head, Kind};

/// A page of text.
#[derive(Debug)]
pub(super) struct Page {
    out: Vec<u8>,
    openmetrics: bool,
}

impl Page {
    pub(super) fn new(openmetrics: bool) -> Page {
        Page {
            out: Vec::with_capacity(64 << 10),
            openmetrics,
        }
    }

    fn put(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// `name{labels,extra="value"} `
    fn name(&mut self, name: &str, end: &str, labels: &str, extra: Option<(&str, f64)>) {
        self.put(name);
        self.put(end);
        if !labels.is_empty() || extra.is_some() {
            self.put("{");
            self.put(labels);
            if let Some((label, value)) = extra {
                if !labels.is_empty() {
                    self.put(",");
                }
                self.put(label);
                self.put("=\"");
                if self.openmetrics {
                    number::write_canonical(&mut self.out, value);
                } else {
                    number::write(&mut self.out, value);
                }
                self.put("\"");
            }
            self.put("}");
        }
        self.put(" ");
    }

    fn sample(&mut self, sample: Sample<'_>, timestamp: Option<i64>) {
        self.name(sample.name, sample.end, sample.labels, sample.extra);
        number::write(&mut self.out, sample.value);
        if let Some(millis) = timestamp {
            self.put(" ");
            if self.openmetrics {
                self.put(&seconds(millis));
            } else {
                self.put(&millis.to_string());
            }
        }
        if self.openmetrics
            && let Some(exemplar) = sample.exemplar
        {
            self.exemplar(exemplar);
        }
        self.put("\n");
    }

    fn exemplar(&mut self, exemplar: &Exemplar) {
        let mut id = String::new();
        labels::escape(&mut id, &exemplar.request_id);
        self.put(" # {request_id=\"");
        self.put(&id);
        self.put("\"} ");
        number::write(&mut self.out, exemplar.value);
        self.put(" ");
        self.put(&seconds(exemplar.at));
    }

    fn help(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '\\' => self.put("\\\\"),
                '\n' => self.put("\\n"),
                '"' if self.openmetrics => self.put("\\\""),
                c => self.put(c.encode_utf8(&mut [0; 4])),
            }
        }
    }
}

/// One line.
struct Sample<'a> {
    name: &'a str,
    end: &'a str,
    labels: &'a str,
    extra: Option<(&'a str, f64)>,
    value: f64,
    exemplar: Option<&'a Exemplar>,
}

impl Writer for Page {
    fn begin(&mut self, head: &Head) {
        // In OpenMetrics a counter's name is without the end that its samples have.
        let end = if head.total && !self.openmetrics {
            "_total"
        } else {
            ""
        };
        for (word, value) in [("HELP", ""), ("TYPE", head.kind.name())] {
            self.put("# ");
            self.put(word);
            self.put(" ");
            self.put(&head.name);
            self.put(end);
            self.put(" ");
            if word == "HELP" {
                self.help(&head.help);
            } else {
                self.put(value);
            }
            self.put("\n");
        }
        if self.openmetrics
            && let Some(unit) = head.unit
        {
            self.put("# UNIT ");
            self.put(&head.name);
            self.put(" ");
            self.put(unit);
            self.put("\n");
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "as every Prometheus value")]
    fn series(&mut self, head: &Head, labels: &str, data: &Data, timestamp: Option<i64>, now: u64) {
        let sample = |end, extra, value| Sample {
            name: &head.name,
            end,
            labels,
            extra,
            value,
            exemplar: None,
        };
        let total = if head.total && head.kind == Kind::Counter {
            "_total"
        } else {
            ""
        };
        match data {
            Data::Counter(value) => self.sample(sample(total, None, *value as f64), timestamp),
            Data::Gauge(value) => self.sample(sample("", None, *value), timestamp),
            Data::Histogram(histogram) => {
                for (bucket, (bound, count)) in histogram.cumulative().enumerate() {
                    let mut line = sample("_bucket", Some(("le", bound)), count as f64);
                    line.exemplar = histogram.exemplars.get(bucket).and_then(Option::as_ref);
                    self.sample(line, timestamp);
                }
                self.sample(sample("_sum", None, histogram.sum), timestamp);
                self.sample(sample("_count", None, histogram.count() as f64), timestamp);
            }
            Data::Summary(summary) => {
                let values = summary.quantiles.values(QUANTILES, now);
                for (quantile, value) in QUANTILES.into_iter().zip(values) {
                    self.sample(sample("", Some(("quantile", quantile)), value), timestamp);
                }
                self.sample(sample("_sum", None, summary.sum), timestamp);
                self.sample(sample("_count", None, summary.count as f64), timestamp);
            }
        }
    }

    fn end(&mut self) {}

    fn finish(mut self: Box<Self>) -> Vec<u8> {
        if self.openmetrics {
            self.put("# EOF\n");
        }
        self.out
    }
}

/// Milliseconds as seconds with three places.
fn seconds(millis: i64) -> String {
    format!("{}.{:03}", millis.div_euclid(1000), millis.rem_euclid(1000))
}
