//! The metrics of the admin port, collected when they are asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use loggregator_client::DopplerSet;
use loggregator_net::http::ConnectionStats;
use loggregator_net::{ClientTls, ServerTls};
use loggregator_service::metrics::{Metrics, Samples, names};

use crate::access::{Platform, TokenFile};
use crate::accounts::{Accounts, SHARED_BEHIND};
use crate::ports;
use crate::upstream::Hub;
use crate::websocket::PROGRAM;
use crate::websocket::front::Requests;
use crate::websocket::relay::End;
use crate::websocket::security_log::Lines;

/// What there is to collect from.
pub(crate) struct Sources {
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) dopplers: DopplerSet,
    pub(crate) connections: Arc<ConnectionStats>,
    pub(crate) listen_tls: Option<Arc<ServerTls>>,
    pub(crate) doppler_tls: Arc<ClientTls>,
    pub(crate) tokens: Option<Arc<TokenFile>>,
    pub(crate) platform: Option<Arc<Platform>>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) security_lines: Option<Arc<Lines>>,
}

/// Lets `metrics` collect from these.
pub(crate) fn observe(metrics: &Metrics, sources: Sources) {
    metrics.collect(move |samples| {
        collect_accounts(samples, &sources.accounts);
        for ((endpoint, status), count) in sources.requests.counts() {
            let status = status.to_string();
            let labels = [("endpoint", endpoint), ("status", status.as_str())];
            samples.counter(&names::TC_REQUESTS, &labels, count);
        }
        ports::dopplers(samples, &names::TC_DOPPLERS, &sources.dopplers);
        collect_shared(samples, &sources.hub);
        ports::listener(samples, "websocket", &sources.connections);
        collect_files(samples, &sources);
        if let Some(platform) = &sources.platform {
            platform.collect(samples);
        }
    });
}

fn collect_shared(samples: &mut Samples, hub: &Hub) {
    samples.gauge_count(&names::TC_SHARED_STREAMS, &[], hub.subscriptions());
    samples.gauge_count(&names::TC_SHARED_READERS, &[], hub.readers());
    samples.gauge_count(&names::TC_SHARED_BYTES, &[], hub.bytes());
    samples.counter(&names::TC_SHARED_MISSED, &[], hub.missed());
}

fn collect_files(samples: &mut Samples, sources: &Sources) {
    let tls = &sources.doppler_tls;
    ports::reloads(samples, "dopplers", tls.reloads(), tls.reload_failures());
    if let Some(tls) = &sources.listen_tls {
        ports::reloads(samples, "listener", tls.reloads(), tls.reload_failures());
    }
    if let Some(lines) = &sources.security_lines {
        for (outcome, count) in [
            ("written", &lines.written),
            ("failed", &lines.failed),
            ("dropped", &lines.dropped),
        ] {
            let count = count.load(Ordering::Relaxed);
            samples.counter(
                &names::TC_SECURITY_LOG_LINES,
                &[("outcome", outcome)],
                count,
            );
        }
    }
    if let Some(tokens) = &sources.tokens {
        let (used, unusable) = tokens.reloads();
        samples.counter(&names::TC_TOKEN_FILE_READS, &[("outcome", "used")], used);
        samples.counter(
            &names::TC_TOKEN_FILE_READS,
            &[("outcome", "unusable")],
            unusable,
        );
    }
}

fn collect_accounts(samples: &mut Samples, accounts: &Accounts) {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let totals = &accounts.totals;
    samples.counter(&names::TC_INGRESS, &[], read(&totals.ingress));
    samples.counter(
        &names::TC_REJECTED,
        &[("reason", "malformed_batch")],
        read(&totals.malformed_batches),
    );
    for (endpoint, name) in PROGRAM.endpoints.iter().enumerate() {
        let (sums, label) = (totals.of(endpoint), ("endpoint", *name));
        samples.counter(&names::TC_EGRESS, &[label], read(&sums.egress));
        samples.counter(&names::TC_EGRESS_BYTES, &[label], read(&sums.egress_bytes));
        samples.counter(
            &names::TC_SLOW_CONSUMERS,
            &[label],
            read(&sums.slow_consumers),
        );
        samples.gauge_count(&names::TC_CLIENTS, &[label], read(&sums.clients));
        let behind = sums.reason(SHARED_BEHIND).dropped;
        samples.counter(
            &names::TC_DROPPED,
            &[label, ("reason", SHARED_BEHIND)],
            behind,
        );
        for end in End::ALL {
            let labels = [label, ("reason", end.name())];
            let ended = sums.reason(end.name());
            samples.counter(&names::TC_DROPPED, &labels, ended.dropped);
            samples.counter(&names::TC_CLOSED, &labels, ended.subscriptions);
        }
    }
}
