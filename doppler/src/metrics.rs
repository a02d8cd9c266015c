//! The doppler as Prometheus sees it, read when somebody scrapes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use loggregator_net::ServerTls;
use loggregator_net::grpc::ServerStats;
use loggregator_service::ledger;
use loggregator_service::metrics::{Samples, names};

use crate::egress::{EgressCounts, Taken};
use crate::ingress::IngressCounts;
use crate::refused::Refused;
use crate::router::Router;

/// Everything that counts.
pub(crate) struct Observed {
    pub(crate) router: Arc<Router>,
    pub(crate) refused: Arc<Refused>,
    pub(crate) ingress: Arc<IngressCounts>,
    pub(crate) egress: Arc<EgressCounts>,
    pub(crate) server: Arc<ServerStats>,
    pub(crate) tls: Arc<ServerTls>,
}

const V1: &[(&str, &str)] = &[("api", "v1")];
const V2: &[(&str, &str)] = &[("api", "v2")];
const LISTENER: &[(&str, &str)] = &[("listener", "grpc")];

impl Observed {
    pub(crate) fn collect(&self, samples: &mut Samples) {
        let mut report = self.router.report("");
        self.refused.add_to(&mut report.ingress);
        self.ingress(samples, &report.ingress);
        self.egress(samples, &report.subscriptions);
        if let Some(log) = &report.log {
            fill(samples, log);
        }
        self.port(samples);
    }

    fn ingress(&self, samples: &mut Samples, ingress: &ledger::Ingress) {
        let stats = self.router.stats();
        let (v1_frames, v1_envelopes) = (
            read(&self.ingress.v1_frames),
            read(&self.ingress.v1_envelopes),
        );
        samples.counter(&names::DOPPLER_INGRESS, V1, v1_envelopes);
        samples.counter(
            &names::DOPPLER_INGRESS,
            V2,
            stats.envelopes.saturating_sub(v1_envelopes),
        );
        samples.counter(&names::DOPPLER_INGRESS_FRAMES, V1, v1_frames);
        samples.counter(
            &names::DOPPLER_INGRESS_FRAMES,
            V2,
            stats.frames.saturating_sub(v1_frames),
        );
        samples.counter(&names::DOPPLER_INGRESS_BYTES, &[], stats.bytes);
        for (reason, count) in &ingress.rejected {
            samples.counter(&names::DOPPLER_REJECTED, &[("reason", reason)], *count);
        }
        for (reason, count) in &stats.dropped_by_reason {
            let labels = [("direction", "egress"), ("reason", *reason)];
            samples.counter(&names::DOPPLER_DROPPED, &labels, *count);
        }
        samples.counter(&names::DOPPLER_EGRESS, V1, stats.egress_v1);
        samples.counter(&names::DOPPLER_EGRESS, V2, stats.egress_v2);
    }

    fn egress(&self, samples: &mut Samples, subscriptions: &[ledger::Subscription]) {
        for (labels, api, taken) in [(V1, "v1", &self.egress.v1), (V2, "v2", &self.egress.v2)] {
            let Taken { messages, bytes } = taken;
            samples.counter(&names::DOPPLER_EGRESS_MESSAGES, labels, read(messages));
            samples.counter(&names::DOPPLER_EGRESS_BYTES, labels, read(bytes));
            let open = subscriptions
                .iter()
                .filter(|row| row.open && row.api == api)
                .count();
            samples.gauge_count(&names::DOPPLER_SUBSCRIPTIONS, labels, open as u64);
        }
        for (reason, count) in [
            ("limit", &self.egress.over_limit),
            ("bad_request", &self.egress.bad_request),
        ] {
            samples.counter(
                &names::DOPPLER_SUBSCRIPTIONS_REFUSED,
                &[("reason", reason)],
                read(count),
            );
        }
    }

    fn port(&self, samples: &mut Samples) {
        let server = &self.server;
        samples.gauge_count(&names::SERVER_CONNECTIONS, LISTENER, read(&server.open));
        samples.counter(&names::SERVER_ACCEPTED, LISTENER, read(&server.accepted));
        samples.counter(
            &names::SERVER_REFUSED,
            LISTENER,
            read(&server.refused_over_limit),
        );
        samples.counter(
            &names::SERVER_ACCEPT_ERRORS,
            LISTENER,
            read(&server.accept_errors),
        );
        let failures = server
            .handshake_failures()
            .map(|(_kind, count)| count)
            .sum();
        samples.counter(&names::SERVER_HANDSHAKE_FAILURES, LISTENER, failures);
        let role = [("role", "server")];
        samples.counter(&names::TLS_RELOADS, &role, self.tls.reloads());
        samples.counter(
            &names::TLS_RELOAD_FAILURES,
            &role,
            self.tls.reload_failures(),
        );
    }
}

fn fill(samples: &mut Samples, log: &ledger::LogFill) {
    samples.gauge_count(&names::DOPPLER_LOG_BYTES, &[], log.bytes);
    samples.gauge_count(&names::DOPPLER_LOG_LIMIT_BYTES, &[], log.limit);
    samples.gauge_count(&names::DOPPLER_LOG_FRAMES, &[], log.frames);
    samples.gauge_count(&names::DOPPLER_LOG_ENVELOPES, &[], log.envelopes);
    #[allow(clippy::cast_precision_loss)] // an age in milliseconds is far below 2^53
    samples.gauge(
        &names::DOPPLER_LOG_AGE_SECONDS,
        &[],
        log.oldest_age_ms as f64 / 1000.0,
    );
}

fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}
