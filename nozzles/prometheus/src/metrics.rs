//! The destination's own metrics, on the nozzle's admin server.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use loggregator_nozzle::Context;
use loggregator_service::metrics::names;
use parking_lot::Mutex;

use crate::remote::RemoteCounts;
use crate::serve::ScrapeCounts;
use crate::store::{Refusal, Store};

/// Kinds of envelopes, in the order of the store's counts.
const KINDS: [&str; 4] = ["counter", "gauge", "timer", "log"];

/// Adds them. They end with the store.
pub(crate) fn collect(
    context: &Context,
    store: &Arc<Mutex<Store>>,
    scrapes: Option<&Arc<ScrapeCounts>>,
    remote: Option<&Arc<RemoteCounts>>,
) {
    let (store, scrapes, remote) = (Arc::downgrade(store), scrapes.cloned(), remote.cloned());
    let destination = context.name.clone();
    context.metrics.collect(move |samples| {
        let Some(store) = store.upgrade() else {
            return;
        };
        let (counts, series, streams) = {
            let store = store.lock();
            (store.counts.clone(), store.series(), store.streams())
        };
        let own = [("destination", destination.as_str())];
        samples.gauge_count(&names::NOZZLE_PROMETHEUS_SERIES, &own, series as u64);
        samples.gauge_count(&names::NOZZLE_PROMETHEUS_STREAMS, &own, streams as u64);
        samples.counter(&names::NOZZLE_PROMETHEUS_EXPIRED, &own, counts.expired);
        samples.counter(&names::NOZZLE_PROMETHEUS_IGNORED, &own, counts.ignored);
        for (kind, count) in KINDS.into_iter().zip(counts.samples) {
            let labels = [own[0], ("kind", kind)];
            samples.counter(&names::NOZZLE_PROMETHEUS_SAMPLES, &labels, count);
        }
        for (refusal, count) in Refusal::ALL.into_iter().zip(counts.refused) {
            let labels = [own[0], ("reason", refusal.code())];
            samples.counter(&names::NOZZLE_PROMETHEUS_REFUSED, &labels, count);
        }
        if let Some(remote) = &remote {
            for (outcome, count) in RemoteCounts::OUTCOMES.into_iter().zip(&remote.requests) {
                let labels = [own[0], ("outcome", outcome)];
                samples.counter(
                    &names::NOZZLE_PROMETHEUS_WRITES,
                    &labels,
                    count.load(Relaxed),
                );
            }
            for (def, count) in [
                (&names::NOZZLE_PROMETHEUS_WRITTEN, &remote.samples),
                (&names::NOZZLE_PROMETHEUS_MARKERS, &remote.markers),
                (
                    &names::NOZZLE_PROMETHEUS_MARKERS_DROPPED,
                    &remote.markers_dropped,
                ),
            ] {
                samples.counter(def, &own, count.load(Relaxed));
            }
        }
        let Some(scrapes) = &scrapes else { return };
        for (format, count) in ["text", "openmetrics", "protobuf"]
            .into_iter()
            .zip(&scrapes.scrapes)
        {
            let labels = [own[0], ("format", format)];
            samples.counter(
                &names::NOZZLE_PROMETHEUS_SCRAPES,
                &labels,
                count.load(Relaxed),
            );
        }
        for (reason, count) in [("password", &scrapes.unauthorized), ("busy", &scrapes.busy)] {
            let labels = [own[0], ("reason", reason)];
            samples.counter(
                &names::NOZZLE_PROMETHEUS_SCRAPES_REFUSED,
                &labels,
                count.load(Relaxed),
            );
        }
        #[expect(clippy::cast_precision_loss, reason = "as every Prometheus value")]
        let seconds = scrapes.micros.load(Relaxed) as f64 / 1e6;
        samples.counter_f64(&names::NOZZLE_PROMETHEUS_SCRAPE_SECONDS, &own, seconds);
        samples.gauge_count(
            &names::NOZZLE_PROMETHEUS_PAGE_BYTES,
            &own,
            scrapes.bytes.load(Relaxed),
        );
    });
}
