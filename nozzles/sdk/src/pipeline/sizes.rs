//! Histograms of batches.

use std::time::Duration;

use loggregator_service::metrics::{Histogram, Metrics, MetricsError, names};

use super::work::Work;

/// Sizes of batches, and how long they took.
#[derive(Debug, Clone)]
pub(crate) struct Sizes {
    events: Histogram,
    bytes: Histogram,
    seconds: Histogram,
}

impl Sizes {
    pub(crate) fn new(metrics: &Metrics, destination: &str) -> Result<Sizes, MetricsError> {
        let labels = [("destination", destination)];
        Ok(Sizes {
            events: metrics.histogram(&names::NOZZLE_BATCH_EVENTS, &labels)?,
            bytes: metrics.histogram(&names::NOZZLE_BATCH_BYTES, &labels)?,
            seconds: metrics.histogram(&names::NOZZLE_DELIVERY_SECONDS, &labels)?,
        })
    }

    /// A batch was answered.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(super) fn landed(&self, work: &Work, took: Duration) {
        self.events.observe(work.events.len() as f64);
        self.bytes.observe(work.bytes() as f64);
        self.seconds.observe(took.as_secs_f64());
    }
}
