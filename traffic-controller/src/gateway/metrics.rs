//! The metrics, collected when they are asked for, and the endpoint of the Go gateway that serves them.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use loggregator_net::grpc::{Channel, ChannelState};
use loggregator_net::http::{ConnectionStats, Handler, Request, Response, full};
use loggregator_net::{ClientTls, ServerTls};
use loggregator_service::metrics::{self, Metrics, Samples, names};

use crate::access::Platform;
use crate::accounts::Accounts;
use crate::gateway::READ;
use crate::gateway::front::Requests;
use crate::gateway::parked::{NOT_RESUMED, Parking};
use crate::gateway::stream::End;
use crate::ports;
use crate::websocket::web::answers;

/// What there is to collect from.
pub(crate) struct Sources {
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) parking: Arc<Parking>,
    /// Lines of the access log that were lost.
    pub(crate) unlogged: Arc<AtomicU64>,
    pub(crate) connections: Arc<ConnectionStats>,
    pub(crate) channel: Option<Channel>,
    pub(crate) platform: Option<Arc<Platform>>,
    pub(crate) listen_tls: Option<Arc<ServerTls>>,
    pub(crate) provider_tls: Option<Arc<ClientTls>>,
}

/// Lets `metrics` collect from these.
pub(crate) fn observe(metrics: &Metrics, sources: Sources) {
    metrics.collect(move |samples| {
        collect_accounts(samples, &sources.accounts);
        for (status, count) in sources.requests.counts() {
            let status = status.to_string();
            samples.counter(&names::GATEWAY_REQUESTS, &[("status", &status)], count);
        }
        let (parked, resumed, expired) = sources.parking.counts();
        samples.gauge_count(&names::GATEWAY_PARKED, &[], parked);
        samples.counter(&names::GATEWAY_UNPARKED, &[("outcome", "resumed")], resumed);
        samples.counter(&names::GATEWAY_UNPARKED, &[("outcome", "expired")], expired);
        samples.counter(
            &names::GATEWAY_ACCESS_LOG_DROPPED,
            &[],
            read(&sources.unlogged),
        );
        if let Some(channel) = &sources.channel {
            let up = *channel.state().borrow() == ChannelState::Ready;
            samples.gauge_count(&names::GATEWAY_PROVIDER_CONNECTED, &[], u64::from(up));
        }
        if let Some(platform) = &sources.platform {
            platform.collect(samples);
        }
        ports::listener(samples, "http", &sources.connections);
        samples.counter(
            &names::GATEWAY_STALLED,
            &[],
            read(&sources.connections.stalled_responses),
        );
        if let Some(tls) = &sources.provider_tls {
            let (reloads, failures) = (tls.reloads(), tls.reload_failures());
            ports::reloads(samples, "reverse_log_proxy", reloads, failures);
        }
        if let Some(tls) = &sources.listen_tls {
            ports::reloads(samples, "listener", tls.reloads(), tls.reload_failures());
        }
    });
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn collect_accounts(samples: &mut Samples, accounts: &Accounts) {
    let (totals, sums) = (&accounts.totals, accounts.totals.of(READ));
    samples.counter(&names::GATEWAY_INGRESS, &[], read(&totals.ingress));
    samples.counter(
        &names::GATEWAY_REJECTED,
        &[("reason", "malformed_batch")],
        read(&totals.malformed_batches),
    );
    samples.counter(&names::GATEWAY_EGRESS, &[], read(&sums.egress));
    samples.counter(&names::GATEWAY_EGRESS_BYTES, &[], read(&sums.egress_bytes));
    samples.gauge_count(&names::GATEWAY_STREAMS, &[], read(&sums.clients));
    for reason in ["malformed", NOT_RESUMED] {
        let label = [("reason", reason)];
        samples.counter(&names::GATEWAY_DROPPED, &label, sums.reason(reason).dropped);
    }
    for end in End::ALL {
        let (label, ended) = ([("reason", end.name())], sums.reason(end.name()));
        samples.counter(&names::GATEWAY_DROPPED, &label, ended.dropped);
        samples.counter(&names::GATEWAY_ENDED, &label, ended.subscriptions);
    }
}

/// `GET /metrics` of the Go gateway.
pub(crate) struct Scrape {
    metrics: Metrics,
}

impl Scrape {
    /// More than any scraper needs.
    pub(crate) const MAX_CONNECTIONS: usize = 64;

    /// Serves `metrics`, with what the Go gateway has in them.
    pub(crate) fn new(metrics: Metrics, platform: Option<Arc<Platform>>) -> Self {
        metrics.collect(move |samples| {
            let latencies = platform.as_ref().map(|platform| platform.latencies());
            let latencies = latencies.unwrap_or_default();
            for (metric, latency) in [
                (&names::LAST_UAA_LATENCY, latencies.uaa),
                (&names::LAST_LOG_ACCESS_LATENCY, latencies.log_access),
                (
                    &names::LAST_SERVICE_INSTANCES_LATENCY,
                    latencies.service_instances,
                ),
                // The Go gateway has these and never sets them.
                (&names::LAST_APPS_LATENCY, Duration::ZERO),
                (&names::LAST_LIST_SERVICE_INSTANCES_LATENCY, Duration::ZERO),
            ] {
                let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
                samples.gauge_count(metric, &[], nanoseconds);
            }
            for cause in ["encoding", "gathering"] {
                samples.counter(&names::PROMHTTP_ERRORS, &[("cause", cause)], 0);
            }
        });
        Self { metrics }
    }

    fn answer(&self, path: &str) -> http::Response<Bytes> {
        if path != "/metrics" {
            return answers::not_found();
        }
        let mut answer = http::Response::new(self.metrics.encode().into());
        answer.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static(metrics::CONTENT_TYPE),
        );
        answer
    }
}

impl Handler for Scrape {
    fn handle(
        &self,
        request: Request,
        _: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        let answer = self.answer(request.uri().path()).map(full);
        Box::pin(std::future::ready(answer))
    }
}
