//! The reverse log proxy of another process.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use loggregator_client::Connector;
use loggregator_net::ClientTls;
use loggregator_net::grpc::{Channel, Messages, Status};
use loggregator_proto::rpc;
use loggregator_proto::v2::EgressBatchRequest;
use loggregator_service::admin::Condition;
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use crate::provider::{Envelopes, Opening, Provider};

/// How long a connection that stands is left alone before it is looked at again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Reads a reverse log proxy over one connection that all streams share.
pub(crate) struct Grpc(Channel);

impl Grpc {
    /// Connects to `addr`, whose certificate must carry `server_name`, when first asked.
    pub(crate) fn new(addr: &str, server_name: &str, tls: Arc<ClientTls>) -> Self {
        Self(Connector::new(server_name, Some(tls)).channel(addr))
    }

    /// The connection.
    pub(crate) fn channel(&self) -> &Channel {
        &self.0
    }
}

impl Provider for Grpc {
    fn open(&self, request: EgressBatchRequest) -> Opening {
        let channel = self.0.clone();
        Box::pin(async move {
            let request = request.encode_to_vec().into();
            let messages = channel
                .server_stream(rpc::EGRESS_BATCHED_RECEIVER, request)
                .await?;
            Ok(Box::new(Batches(messages)) as Box<dyn Envelopes>)
        })
    }
}

struct Batches(Messages);

impl Envelopes for Batches {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        self.0.poll_next(cx)
    }
}

/// Connects before anybody asks, and again after the connection was lost, so that a first client does not wait for it and
/// the readiness tells the truth.
pub(crate) async fn keep_connected(
    channel: Channel,
    condition: Condition,
    stop: CancellationToken,
) {
    loop {
        let Some(outcome) = stop.run_until_cancelled(channel.ready()).await else {
            return;
        };
        match outcome {
            Ok(()) => condition.ready(),
            Err(status) => condition.not_ready(status.message),
        }
        let pause = tokio::time::sleep(LOOK_EVERY);
        if stop.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}
