//! The reverse log proxy of another process.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use loggregator_client::Connector;
use loggregator_net::grpc::{Channel, Messages, Status};
use loggregator_net::{Backoff, ClientTls};
use loggregator_proto::rpc;
use loggregator_proto::v2::EgressBatchRequest;
use loggregator_service::admin::Condition;
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use crate::provider::{Envelopes, Opening, Provider};

/// How long a connection that stands is left alone before it is looked at again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The longest pause between attempts to connect. The proxy is one, mostly on the same machine, and it is soon back.
const RETRY_WITHIN: Duration = Duration::from_secs(1);

/// Reads a reverse log proxy over one connection that all streams share.
pub(crate) struct Grpc {
    channel: Channel,
    wait: Duration,
}

impl Grpc {
    /// Connects to `addr`, whose certificate must carry `server_name`, when first asked. While it is away, streams that are
    /// to be opened wait for so long.
    pub(crate) fn new(addr: &str, server_name: &str, tls: Arc<ClientTls>, wait: Duration) -> Self {
        let mut connector = Connector::new(server_name, Some(tls));
        connector.settings.backoff = Backoff::new(Duration::from_millis(50), RETRY_WITHIN);
        let channel = connector.channel(addr);
        Self { channel, wait }
    }

    /// The connection.
    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }
}

/// Waits until the connection stands, for so long at most.
async fn connected(channel: &Channel, within: Duration) {
    let ready = async { while channel.ready().await.is_err() {} };
    // If it does not, the call that follows says why.
    drop(tokio::time::timeout(within, ready).await);
}

impl Provider for Grpc {
    fn open(&self, request: EgressBatchRequest) -> Opening {
        let (channel, wait) = (self.channel.clone(), self.wait);
        Box::pin(async move {
            let request = request.encode_to_vec().into();
            if !wait.is_zero() {
                connected(&channel, wait).await;
            }
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

    fn finish(&mut self, within: Duration) {
        self.0.finish(within);
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
