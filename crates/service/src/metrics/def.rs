//! One row of the table of metrics.

/// A metric: everything that is known about it besides its values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MetricDef {
    /// Full name, with the unit and `_total` suffixes that Prometheus asks for.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// What its values are.
    pub unit: Unit,
    /// Its label names, in the order in which they are shown.
    pub labels: &'static [&'static str],
    /// What it tells, in one sentence.
    pub help: &'static str,
}

/// What can be done with a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Distribution over these upper bounds.
    Histogram(&'static [f64]),
}

/// Unit of a metric's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Envelopes.
    Envelopes,
    /// Frames: received batches.
    Frames,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Connections, streams or clients.
    Connections,
    /// Anything else that is counted; the help says what.
    Count,
}

impl Kind {
    /// As in the exposition format.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

impl Unit {
    /// As in the reference page.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Envelopes => "envelopes",
            Self::Frames => "frames",
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
            Self::Connections => "connections",
            Self::Count => "count",
        }
    }
}
