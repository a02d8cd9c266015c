//! The metrics of listeners, certificates and connections to dopplers, which all programs here have.

use std::sync::atomic::{AtomicU64, Ordering};

use loggregator_client::DopplerSet;
use loggregator_net::http::ConnectionStats;
use loggregator_service::metrics::Samples;
use loggregator_service::metrics::names::{self, MetricDef};

/// What a listener has seen.
pub(crate) fn listener(samples: &mut Samples, name: &str, stats: &ConnectionStats) {
    let labels = &[("listener", name)];
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    samples.gauge_count(&names::SERVER_CONNECTIONS, labels, read(&stats.open));
    samples.counter(&names::SERVER_ACCEPTED, labels, read(&stats.accepted));
    samples.counter(
        &names::SERVER_REFUSED,
        labels,
        read(&stats.refused_over_limit),
    );
    samples.counter(
        &names::SERVER_ACCEPT_ERRORS,
        labels,
        read(&stats.accept_errors),
    );
    let failures = stats.handshake_failures().map(|(_, count)| count).sum();
    samples.counter(&names::SERVER_HANDSHAKE_FAILURES, labels, failures);
}

/// How often changed certificate files were taken over, and could not be.
pub(crate) fn reloads(samples: &mut Samples, role: &str, reloads: u64, failures: u64) {
    let labels = [("role", role)];
    samples.counter(&names::TLS_RELOADS, &labels, reloads);
    samples.counter(&names::TLS_RELOAD_FAILURES, &labels, failures);
}

/// How many dopplers are known, by state.
pub(crate) fn dopplers(samples: &mut Samples, gauge: &'static MetricDef, dopplers: &DopplerSet) {
    let (all, up) = (dopplers.peers().len(), dopplers.connected());
    samples.gauge_count(gauge, &[("state", "connected")], up as u64);
    samples.gauge_count(gauge, &[("state", "away")], all.saturating_sub(up) as u64);
}
