//! The gRPC service `loggregator.v2.Egress`, and the answers to calls that it does not have.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use loggregator_net::grpc::{MessageSource, Request, Response, Service, Status};
use loggregator_proto::{rpc, v2};

use crate::accounts::{Accounts, Endpoint};
use crate::rlp::proxy::{Caller, Proxy};
use crate::rlp::reader::{Joined, Reader, Singly};
use crate::rlp::{BATCHED_RECEIVER, RECEIVER, request};

/// What is registered, as at the Go proxy.
const SERVICES: [&str; 1] = ["loggregator.v2.Egress"];

/// The answer to a call that ended before its one request message, in the words of grpc-go.
const NO_REQUEST: &str =
    "cardinality violation: received no request message from non-client-streaming RPC";

/// The calls of the gRPC port.
#[derive(Clone)]
pub(crate) struct Calls {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) accounts: Arc<Accounts>,
}

impl Service for Calls {
    fn call(&self, request: Request) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        let calls = self.clone();
        Box::pin(async move {
            let answer = match request.path.as_str() {
                rpc::EGRESS_BATCHED_RECEIVER => calls.batched_receiver(request).await,
                rpc::EGRESS_RECEIVER => calls.receiver(request).await,
                path => Err(Status::unknown_method(path, &SERVICES)),
            };
            match answer {
                Ok(source) => Response::Stream(source),
                Err(status) => Response::Status(status),
            }
        })
    }
}

impl Calls {
    async fn batched_receiver(&self, request: Request) -> Result<Box<dyn MessageSource>, Status> {
        let peer = request.peer.addr.to_string();
        let asked: v2::EgressBatchRequest = self.message(request).await?;
        let reader = self.open(asked, BATCHED_RECEIVER, peer).await?;
        Ok(Box::new(Joined(reader)))
    }

    async fn receiver(&self, request: Request) -> Result<Box<dyn MessageSource>, Status> {
        let peer = request.peer.addr.to_string();
        let asked: v2::EgressRequest = self.message(request).await?;
        let reader = self.open(request::batched(asked), RECEIVER, peer).await?;
        Ok(Box::new(Singly::new(reader)))
    }

    async fn open(
        &self,
        request: v2::EgressBatchRequest,
        endpoint: Endpoint,
        peer: String,
    ) -> Result<Reader, Status> {
        let caller = Caller {
            accounts: &self.accounts,
            endpoint,
            peer,
        };
        self.proxy.open(request, caller).await
    }

    /// The one request message of a server stream.
    async fn message<M: prost::Message + Default>(
        &self,
        mut request: Request,
    ) -> Result<M, Status> {
        let message = match request.messages.next().await {
            Some(Ok(bytes)) => M::decode(bytes).map_err(Status::unmarshal),
            Some(Err(status)) => Err(status),
            None => Err(Status::internal(NO_REQUEST)),
        };
        message.inspect_err(|_| {
            let refusals = &self.proxy.refusals;
            refusals.bad_request.fetch_add(1, Ordering::Relaxed);
        })
    }
}
