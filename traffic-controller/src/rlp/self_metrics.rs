//! What the proxy tells about itself through the pipeline, under the names of the Go proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::accounts::Accounts;
use crate::dopplers::Connections;
use crate::emitter::{Metric, VERSION};
use crate::rlp::proxy::Proxy;

/// The metrics of these ledgers, this proxy and its connections to dopplers.
pub(crate) fn metrics(
    ledgers: [&Arc<Accounts>; 2],
    proxy: &Arc<Proxy>,
    connections: Connections,
) -> Vec<Metric> {
    let sum = |of: fn(&Accounts) -> u64| {
        let ledgers = ledgers.map(Arc::clone);
        move || ledgers.iter().map(|ledger| of(ledger)).sum()
    };
    let (streams, refused) = (Arc::clone(&proxy.streams), Arc::clone(proxy));
    let connections = Arc::new(connections);
    let connects = Arc::clone(&connections);
    vec![
        Metric::counter(
            "ingress",
            &[VERSION, ("protocol", "grpc")],
            sum(|ledger| read(&ledger.totals.ingress)),
        ),
        Metric::counter(
            "egress",
            &[VERSION],
            sum(|ledger| ledger.totals.each().map(|sums| read(&sums.egress)).sum()),
        ),
        Metric::counter(
            "dropped",
            &[VERSION, ("direction", "egress")],
            sum(|ledger| ledger.totals.each().map(|sums| sums.dropped()).sum()),
        ),
        Metric::counter("rejected_streams", &[VERSION], move || {
            read(&refused.refusals.streams)
        }),
        Metric::gauge("subscriptions", "total", &[VERSION], move || {
            streams.open() as u64
        }),
        Metric::counter("log_router_connects", &[], move || connects.counts().0),
        Metric::counter("log_router_disconnects", &[], move || {
            connections.counts().1
        }),
    ]
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
