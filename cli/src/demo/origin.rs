//! Who an example envelope is from.

use loggregator_client::message::{self, EnvelopeBuilder};
use loggregator_proto::v2::Envelope;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What all envelopes of one emitter share: source id, instance id, tags. Times are nanoseconds since 1970.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    source: String,
    instance: String,
    tags: BTreeMap<String, String>,
}

impl Origin {
    pub(super) fn new(source: &str, instance: &str) -> Self {
        Self {
            source: source.to_owned(),
            instance: instance.to_owned(),
            tags: BTreeMap::new(),
        }
    }

    pub(super) fn tag(mut self, name: &str, value: impl Into<String>) -> Self {
        self.tags.insert(name.to_owned(), value.into());
        self
    }

    pub(super) fn out(&self, at: i64, line: impl Into<String>) -> Envelope {
        self.stamp(at, message::log(line.into()))
    }

    pub(super) fn err(&self, at: i64, line: impl Into<String>) -> Envelope {
        self.stamp(at, message::log(line.into()).stderr())
    }

    pub(super) fn counter(&self, at: i64, name: &str, delta: u64) -> Envelope {
        self.stamp(at, message::counter(name, delta))
    }

    pub(super) fn gauge<'a>(
        &self,
        at: i64,
        metrics: impl IntoIterator<Item = (&'a str, f64, &'a str)>,
    ) -> Envelope {
        self.stamp(at, message::gauge(metrics))
    }

    pub(super) fn timer(&self, name: &str, stop: i64, took: Duration) -> Envelope {
        let end = time_of(stop);
        self.stamp(stop, message::timer(name, end - took, end))
    }

    pub(super) fn event(&self, at: i64, title: &str, body: &str) -> Envelope {
        self.stamp(at, message::event(title, body))
    }

    fn stamp(&self, at: i64, builder: EnvelopeBuilder) -> Envelope {
        let envelope = builder
            .source(&self.source, &self.instance)
            .at_nanos(at)
            .build();
        Envelope {
            tags: self.tags.clone(),
            ..envelope
        }
    }
}

fn time_of(nanos: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
}
