//! Which call is which: the paths this server knows, and its answers to those it does not know.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use loggregator_net::grpc::{Request, Response, Service, Status};
use loggregator_proto::rpc;
use tokio_util::task::TaskTracker;

use crate::egress::Egress;
use crate::ingress::Ingress;

/// The services a doppler registers, as the Go router does; asked for a method that they do not have,
/// the answer names the method, otherwise the service.
const SERVICES: [&str; 4] = [
    "loggregator.v2.Ingress",
    "loggregator.v2.Egress",
    "plumbing.Doppler",
    "plumbing.DopplerIngestor",
];

/// The calls that take envelopes in.
const INGRESS: [&str; 4] = [
    rpc::INGRESS_BATCH_SENDER,
    rpc::INGRESS_SENDER,
    rpc::INGRESS_SEND,
    rpc::DOPPLER_INGESTOR_PUSHER,
];

/// All calls of the gRPC port.
pub(crate) struct Calls {
    pub(crate) ingress: Ingress,
    pub(crate) egress: Egress,
    /// Held by every ingress call, so that a stop can wait for them.
    pub(crate) ingress_calls: TaskTracker,
}

/// [`Calls`], shared by the calls in progress.
#[derive(Clone)]
pub(crate) struct Shared(pub(crate) Arc<Calls>);

impl Service for Shared {
    fn call(&self, request: Request) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        let calls = Arc::clone(&self.0);
        Box::pin(calls.dispatch(request))
    }
}

impl Calls {
    async fn dispatch(self: Arc<Self>, request: Request) -> Response {
        let path = request.path.as_str();
        let _in_progress = INGRESS.contains(&path).then(|| self.ingress_calls.token());
        match path {
            rpc::INGRESS_BATCH_SENDER => self.ingress.batch_sender(request).await,
            rpc::INGRESS_SENDER => self.ingress.sender(request).await,
            rpc::INGRESS_SEND => self.ingress.send(request).await,
            rpc::DOPPLER_INGESTOR_PUSHER => self.ingress.pusher(request).await,
            rpc::EGRESS_BATCHED_RECEIVER => self.egress.batched_receiver(request).await,
            rpc::EGRESS_RECEIVER => self.egress.receiver(request).await,
            rpc::DOPPLER_BATCH_SUBSCRIBE => self.egress.batch_subscribe(request).await,
            rpc::DOPPLER_SUBSCRIBE => self.egress.subscribe(request).await,
            path => Response::Status(Status::unknown_method(path, &SERVICES)),
        }
    }
}

#[cfg(test)]
mod tests {
    use loggregator_net::grpc::Code;

    use super::*;

    #[test]
    fn the_texts_for_unknown_calls_are_the_go_routers() {
        for (path, text) in [
            (
                "/plumbing.Doppler/ContainerMetrics",
                "unknown method ContainerMetrics for service plumbing.Doppler",
            ),
            (
                "/plumbing.Doppler/RecentLogs",
                "unknown method RecentLogs for service plumbing.Doppler",
            ),
            (
                "/grpc.health.v1.Health/Check",
                "unknown service grpc.health.v1.Health",
            ),
            (
                "/loggregator.v2.Ingress/",
                "unknown method  for service loggregator.v2.Ingress",
            ),
            ("/nothing", "malformed method name: \"/nothing\""),
        ] {
            let status = Status::unknown_method(path, &SERVICES);
            assert_eq!(
                (status.code, status.message.as_str()),
                (Code::Unimplemented, text)
            );
        }
    }
}
