//! Building envelopes: one function per kind, then options.
//!
//! ```
//! use loggregator_client::message;
//! let envelope = message::log("hello").source("app-1", "0").source_type("APP/PROC/WEB").tag("team", "blue").build();
//! assert_eq!(envelope.source_id, "app-1");
//! ```

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use loggregator_proto::v2::{self, envelope::Message};

/// A log line on standard output. The payload is any bytes; a line feed at its end is not customary.
pub fn log(payload: impl Into<Bytes>) -> EnvelopeBuilder {
    EnvelopeBuilder::new(Message::Log(v2::Log {
        payload: payload.into(),
        r#type: v2::log::Type::Out as i32,
    }))
}

/// A counter that grew by `delta`; the agent keeps the total.
pub fn counter(name: &str, delta: u64) -> EnvelopeBuilder {
    EnvelopeBuilder::new(Message::Counter(v2::Counter {
        name: name.to_owned(),
        delta,
        total: 0,
    }))
}

/// A counter that stands at `total`; the agent goes on from there.
pub fn counter_total(name: &str, total: u64) -> EnvelopeBuilder {
    EnvelopeBuilder::new(Message::Counter(v2::Counter {
        name: name.to_owned(),
        delta: 0,
        total,
    }))
}

/// A counter with both its delta and its total, as somebody else counted them.
pub fn counter_both(name: &str, delta: u64, total: u64) -> EnvelopeBuilder {
    EnvelopeBuilder::new(Message::Counter(v2::Counter {
        name: name.to_owned(),
        delta,
        total,
    }))
}

/// Values measured together: name, value, unit. Of entries with equal names the last one counts.
pub fn gauge<'a>(metrics: impl IntoIterator<Item = (&'a str, f64, &'a str)>) -> EnvelopeBuilder {
    let metrics = metrics
        .into_iter()
        .map(|(name, value, unit)| {
            (
                name.to_owned(),
                v2::GaugeValue {
                    unit: unit.to_owned(),
                    value,
                },
            )
        })
        .collect();
    EnvelopeBuilder::new(Message::Gauge(v2::Gauge { metrics }))
}

/// Something that took from `start` to `stop`.
pub fn timer(name: &str, start: SystemTime, stop: SystemTime) -> EnvelopeBuilder {
    EnvelopeBuilder::new(Message::Timer(v2::Timer {
        name: name.to_owned(),
        start: nanos(start),
        stop: nanos(stop),
    }))
}

/// As [`timer`], in nanoseconds since 1970.
pub fn timer_nanos(name: &str, start: i64, stop: i64) -> EnvelopeBuilder {
    EnvelopeBuilder::new(Message::Timer(v2::Timer {
        name: name.to_owned(),
        start,
        stop,
    }))
}

/// Something that happened, for people to read.
pub fn event(title: &str, body: &str) -> EnvelopeBuilder {
    EnvelopeBuilder::new(Message::Event(v2::Event {
        title: title.to_owned(),
        body: body.to_owned(),
    }))
}

/// Nanoseconds since 1970, negative before; clipped to what 64 bits hold (the years 1678 to 2262).
#[must_use]
pub fn nanos(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |n| -n),
    }
}

/// An envelope in the making. Its timestamp is the time of the call that began it, unless set.
#[derive(Debug, Clone)]
pub struct EnvelopeBuilder {
    envelope: v2::Envelope,
}

impl EnvelopeBuilder {
    fn new(message: Message) -> EnvelopeBuilder {
        let timestamp = nanos(SystemTime::now());
        EnvelopeBuilder {
            envelope: v2::Envelope {
                timestamp,
                message: Some(message),
                ..Default::default()
            },
        }
    }

    /// Who it comes from: the source id (an app's guid, a component's name) and the instance of it.
    #[must_use]
    pub fn source(mut self, source_id: &str, instance_id: &str) -> EnvelopeBuilder {
        self.envelope.source_id = source_id.to_owned();
        self.envelope.instance_id = instance_id.to_owned();
        self
    }

    /// Tag `source_type`, which log viewers show: `APP/PROC/WEB`, `RTR`, ….
    #[must_use]
    pub fn source_type(self, source_type: &str) -> EnvelopeBuilder {
        self.tag("source_type", source_type)
    }

    /// One more tag; an earlier one of this name is replaced.
    #[must_use]
    pub fn tag(mut self, name: &str, value: &str) -> EnvelopeBuilder {
        self.envelope.tags.insert(name.to_owned(), value.to_owned());
        self
    }

    /// A log line on standard error. Changes nothing on other kinds.
    #[must_use]
    pub fn stderr(mut self) -> EnvelopeBuilder {
        if let Some(Message::Log(log)) = &mut self.envelope.message {
            log.r#type = v2::log::Type::Err as i32;
        }
        self
    }

    /// The time it happened.
    #[must_use]
    pub fn at(self, time: SystemTime) -> EnvelopeBuilder {
        self.at_nanos(nanos(time))
    }

    /// The time it happened, in nanoseconds since 1970.
    #[must_use]
    pub fn at_nanos(mut self, timestamp: i64) -> EnvelopeBuilder {
        self.envelope.timestamp = timestamp;
        self
    }

    /// The envelope.
    #[must_use]
    pub fn build(self) -> v2::Envelope {
        self.envelope
    }
}

impl From<EnvelopeBuilder> for v2::Envelope {
    fn from(builder: EnvelopeBuilder) -> v2::Envelope {
        builder.envelope
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_kind_carries_what_it_was_given() {
        let start = UNIX_EPOCH + Duration::from_nanos(5);
        let stop = UNIX_EPOCH + Duration::from_secs(1);
        let timer = timer("http", start, stop).at_nanos(7).build();
        assert_eq!(timer.timestamp, 7);
        let Some(Message::Timer(body)) = timer.message else {
            panic!("no timer")
        };
        assert_eq!(
            (body.name.as_str(), body.start, body.stop),
            ("http", 5, 1_000_000_000)
        );

        let Some(Message::Log(log)) = log("x").stderr().build().message else {
            panic!("no log")
        };
        assert_eq!((log.payload.as_ref(), log.r#type), (b"x".as_ref(), 1));

        let Some(Message::Gauge(gauge)) =
            gauge([("a", 1.0, "s"), ("a", 2.0, "ms")]).build().message
        else {
            panic!("no gauge")
        };
        assert_eq!((gauge.metrics.len(), gauge.metrics["a"].value), (1, 2.0));
        let Some(Message::Counter(c)) = counter_total("c", 4).build().message else {
            panic!("no counter")
        };
        assert_eq!((c.delta, c.total), (0, 4));
    }

    #[test]
    fn times_before_1970_are_negative() {
        assert_eq!(nanos(UNIX_EPOCH - Duration::from_nanos(3)), -3);
        assert_eq!(
            nanos(UNIX_EPOCH + Duration::from_secs(10_000_000_000)),
            i64::MAX
        );
    }
}
