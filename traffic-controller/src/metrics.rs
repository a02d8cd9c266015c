//! The metrics of the admin port, collected when they are asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use loggregator_client::DopplerSet;
use loggregator_service::metrics::{Metrics, Samples, names};

use crate::accounts::{Accounts, Endpoint};
use crate::front::Requests;
use crate::relay::End;

/// Lets `metrics` collect from these.
pub(crate) fn observe(
    metrics: &Metrics,
    accounts: Arc<Accounts>,
    requests: Arc<Requests>,
    dopplers: DopplerSet,
) {
    metrics.collect(move |samples| {
        collect_accounts(samples, &accounts);
        for ((endpoint, status), count) in requests.counts() {
            let status = status.to_string();
            samples.counter(
                &names::TC_REQUESTS,
                &[("endpoint", endpoint), ("status", &status)],
                count,
            );
        }
        let (all, up) = (dopplers.peers().len(), dopplers.connected());
        samples.gauge_count(&names::TC_DOPPLERS, &[("state", "connected")], up as u64);
        samples.gauge_count(
            &names::TC_DOPPLERS,
            &[("state", "away")],
            all.saturating_sub(up) as u64,
        );
    });
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
    for endpoint in Endpoint::ALL {
        let (sums, label) = (totals.of(endpoint), ("endpoint", endpoint.name()));
        samples.counter(&names::TC_EGRESS, &[label], read(&sums.egress));
        samples.counter(&names::TC_EGRESS_BYTES, &[label], read(&sums.egress_bytes));
        samples.counter(
            &names::TC_SLOW_CONSUMERS,
            &[label],
            read(&sums.slow_consumers),
        );
        samples.gauge_count(&names::TC_CLIENTS, &[label], read(&sums.clients));
        for end in End::ALL {
            let labels = [label, ("reason", end.name())];
            samples.counter(
                &names::TC_DROPPED,
                &labels,
                read(&sums.dropped[end as usize]),
            );
            samples.counter(&names::TC_CLOSED, &labels, read(&sums.ended[end as usize]));
        }
    }
}
