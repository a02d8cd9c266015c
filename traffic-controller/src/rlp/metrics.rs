//! The metrics of the admin port, collected when they are asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use loggregator_client::DopplerSet;
use loggregator_net::grpc::ServerStats;
use loggregator_net::{ClientTls, ServerTls};
use loggregator_service::metrics::{Metrics, Samples, names};

use crate::accounts::{Accounts, SHARED_BEHIND};
use crate::ports;
use crate::rlp::proxy::Proxy;
use crate::rlp::reader::{MALFORMED, end};
use crate::rlp::{IN_PROCESS, PROGRAM};
use crate::upstream::Hub;

/// What there is to collect from.
pub(crate) struct Sources {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) in_process: Arc<Accounts>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) dopplers: DopplerSet,
    pub(crate) server: Arc<ServerStats>,
    pub(crate) server_tls: Arc<ServerTls>,
    pub(crate) client_tls: Arc<ClientTls>,
}

/// Lets `metrics` collect from these.
pub(crate) fn observe(metrics: &Metrics, sources: Sources) {
    metrics.collect(move |samples| {
        let both = [&sources.accounts, &sources.in_process];
        let sum = |of: fn(&Accounts) -> &AtomicU64| both.iter().map(|one| read(of(one))).sum();
        let ingress = sum(|accounts| &accounts.totals.ingress);
        samples.counter(&names::RLP_INGRESS, &[], ingress);
        let malformed = sum(|accounts| &accounts.totals.malformed_batches);
        let reason = [("reason", "malformed_batch")];
        samples.counter(&names::RLP_REJECTED, &reason, malformed);
        endpoints(samples, PROGRAM.endpoints, &sources.accounts);
        endpoints(samples, IN_PROCESS.endpoints, &sources.in_process);
        refusals(samples, &sources.proxy);
        shared(samples, &sources.hub);
        ports::dopplers(samples, &names::RLP_DOPPLERS, &sources.dopplers);
        ports::listener(samples, "grpc", &sources.server);
        let (server, client) = (&sources.server_tls, &sources.client_tls);
        ports::reloads(
            samples,
            "server",
            server.reloads(),
            server.reload_failures(),
        );
        ports::reloads(
            samples,
            "dopplers",
            client.reloads(),
            client.reload_failures(),
        );
    });
}

fn endpoints(samples: &mut Samples, endpoints: &[&str], accounts: &Accounts) {
    for (endpoint, name) in endpoints.iter().enumerate() {
        let (sums, label) = (accounts.totals.of(endpoint), ("endpoint", *name));
        samples.counter(&names::RLP_EGRESS, &[label], read(&sums.egress));
        samples.counter(&names::RLP_EGRESS_BYTES, &[label], read(&sums.egress_bytes));
        samples.gauge_count(&names::RLP_STREAMS, &[label], read(&sums.clients));
        for reason in end::ALL {
            let labels = [label, ("reason", reason)];
            let ended = sums.reason(reason);
            samples.counter(&names::RLP_DROPPED, &labels, ended.dropped);
            samples.counter(&names::RLP_ENDED, &labels, ended.subscriptions);
        }
        for reason in [SHARED_BEHIND, MALFORMED] {
            let dropped = sums.reason(reason).dropped;
            samples.counter(&names::RLP_DROPPED, &[label, ("reason", reason)], dropped);
        }
    }
}

fn shared(samples: &mut Samples, hub: &Hub) {
    samples.gauge_count(&names::RLP_SHARED_STREAMS, &[], hub.subscriptions());
    samples.gauge_count(&names::RLP_SHARED_READERS, &[], hub.readers());
    samples.gauge_count(&names::RLP_SHARED_BYTES, &[], hub.bytes());
    samples.counter(&names::RLP_SHARED_MISSED, &[], hub.missed());
}

fn refusals(samples: &mut Samples, proxy: &Proxy) {
    let refusals = &proxy.refusals;
    for (reason, count) in [
        ("streams", &refusals.streams),
        ("subscriptions", &refusals.subscriptions),
        ("selectors", &refusals.selectors),
        ("bad_request", &refusals.bad_request),
    ] {
        samples.counter(&names::RLP_REFUSED, &[("reason", reason)], read(count));
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
